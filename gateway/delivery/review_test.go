package delivery_test

import (
	"context"
	"testing"
	"time"

	"zvonok/access"
	"zvonok/gateway/carrier"
	"zvonok/gateway/delivery"
	"zvonok/gateway/email/emailtest"
	"zvonok/gateway/smpp"
	"zvonok/gateway/smpp/smpptest"
	"zvonok/gateway/subscription"
	"zvonok/ledger"
)

// parent makes a legal representative with consent to everything about a child.
func (b *bench) parent(phone, email string) (access.RepresentativeID, ledger.PersonID) {
	b.t.Helper()
	var who access.RepresentativeID
	var child ledger.PersonID
	if err := b.pool.QueryRow(context.Background(), `
		WITH school AS (
		    INSERT INTO ledger.organisation (code, kind, name, short_name, time_zone)
		    VALUES ('s-' || $1, 'school', 'Школа', 'Школа', 'Europe/Moscow') RETURNING id
		), child AS (
		    INSERT INTO ledger.person (code, organisation_id, kind, family_name, given_name)
		    SELECT 'p-' || $1, id, 'pupil', 'Петрова', 'Маша' FROM school RETURNING id
		), parent AS (
		    INSERT INTO access.representative (phone, email, family_name, given_name) VALUES ($1, $2, 'Петрова', 'Ольга') RETURNING id
		), guardian AS (
		    INSERT INTO access.guardian (child_id, representative_id, role, since)
		    SELECT child.id, parent.id, 'legal', now() - interval '1 year' FROM child, parent
		), consent AS (
		    INSERT INTO access.consent (child_id, representative_id, visits, meals, form, given_on, since)
		    SELECT child.id, parent.id, true, true, 'registry', current_date - 400, now() - interval '1 year' FROM child, parent
		)
		SELECT parent.id, child.id FROM parent, child`, phone, email).Scan(&who, &child); err != nil {
		b.t.Fatal(err)
	}
	return who, child
}

// about makes a message one of a top-up of a child.
func about(d delivery.Draft, who access.RepresentativeID, child ledger.PersonID) delivery.Draft {
	d.Representative, d.Children, d.Topic, d.Priority, d.Again = who, []ledger.PersonID{child}, "topup", carrier.Normal, delivery.Later
	return d
}

// D14, D12: what has waited for the end of the night leaves only if its recipient
// may still know of the child, although nobody has said anything: a right ends at
// midnight by itself.
func TestWhatHasWaitedIsNotSentOnceTheRightToKnowHasEnded(t *testing.T) {
	t.Parallel()
	b := setup(t, smpptest.Behaviour{})
	phones := []string{draft(1).Address, draft(2).Address, draft(3).Address, draft(4).Address, draft(5).Address}
	var drafts []delivery.Draft
	for i, phone := range phones {
		who, child := b.parent(phone, "")
		drafts = append(drafts, about(draft(i+1), who, child))
	}
	b.exec(`UPDATE access.consent SET until = now() - interval '1 second' WHERE representative_id = $1`, drafts[0].Representative)
	b.exec(`UPDATE access.consent SET withdrawn_at = now() - interval '1 second' WHERE representative_id = $1`, drafts[1].Representative)
	b.exec(`UPDATE access.guardian SET until = now() - interval '1 second', role = 'trusted' WHERE representative_id = $1`, drafts[2].Representative)
	b.exec(`UPDATE access.consent SET meals = false WHERE representative_id = $1`, drafts[3].Representative)
	stored := b.enqueueAt(time.Now().Add(-time.Minute), drafts...)
	b.start()
	b.awaitDelivered(1)
	for i, want := range []string{"consent_expired", "consent_withdrawn", "no_consent", "not_consented"} {
		if why := b.awaitState(stored[i], delivery.Recalled); why != want {
			t.Errorf("message %d is kept back because of %q, want %q", i+1, why, want)
		}
	}
	if got := b.boxes[0].Messages(); len(got) != 1 || got[0].To != phones[4] {
		t.Errorf("messages left: %+v", got)
	}
}

// A message that has waited goes to the phone that its recipient has by then, by
// the operator that takes that number, and never to the one before.
func TestWhatHasWaitedGoesToThePhoneOfTheMoment(t *testing.T) {
	t.Parallel()
	b := setup(t, smpptest.Behaviour{}, smpptest.Behaviour{})
	b.routes(map[string]string{"79000009001": "box1", draft(1).Address: "box2", draft(2).Address: "box2", "79000009002": "box2"})
	moved, first := b.parent(draft(1).Address, "")
	optedOut, second := b.parent(draft(2).Address, "mother@example.org")
	spare := withSpare(2, time.Hour)
	stored := b.enqueueAt(time.Now().Add(-time.Minute), about(draft(1), moved, first), about(spare, optedOut, second))
	if n := b.text(`SELECT count(*)::text FROM delivery.delivery WHERE operator = 'box2'`); n != "2" {
		t.Fatalf("%s messages are for the old numbers' operator", n)
	}
	b.exec(`UPDATE access.representative SET phone = '79000009001' WHERE id = $1`, moved)
	b.exec(`UPDATE access.representative SET phone = '79000009002' WHERE id = $1`, optedOut)
	if err := delivery.OptOut(t.Context(), b.pool, subscription.SMS, "79000009002", "stop", time.Now()); err != nil {
		t.Fatal(err)
	}
	b.start()
	b.awaitDelivered(1)
	if why := b.awaitState(stored[1], delivery.Failed); why != "opted_out" {
		t.Errorf("the message to a phone that said STOP failed because of %q", why)
	}
	if got := b.boxes[0].Messages(); len(got) != 1 || got[0].To != "79000009001" {
		t.Errorf("the new number's operator has %+v", got)
	}
	if got := b.boxes[1].Messages(); len(got) != 0 {
		t.Errorf("the old number's operator has %+v", got)
	}
	if n := len(b.letters()); n != 1 {
		t.Errorf("%d letters took over from the phone that said STOP", n)
	}
}

// What fails is not taken over by the next channel when the right has ended, and
// goes to the mailbox of the moment when it has not.
func TestTheNextChannelAsksAgain(t *testing.T) {
	t.Parallel()
	b := setup(t, smpptest.Behaviour{Refuse: map[string]smpp.Status{"7900": smpp.StatusInvalidDestinationAddress}})
	ended, first := b.parent(draft(1).Address, "mother@example.org")
	moved, second := b.parent(draft(2).Address, "other@example.org") // its letters went to mother@ when this was made
	b.exec(`UPDATE access.consent SET until = now() - interval '1 second' WHERE representative_id = $1`, ended)
	stored := b.enqueue(about(withSpare(1, time.Hour), ended, first), about(withSpare(2, time.Hour), moved, second))
	b.start()
	b.awaitState(stored[0], delivery.Failed)
	b.awaitState(stored[1], delivery.Failed)
	b.await("the letter", func() bool {
		return b.text(`SELECT coalesce(string_agg(address, ' '), '') FROM delivery.delivery WHERE channel = 'email'`) != ""
	})
	if got := b.text(`SELECT string_agg(address, ' ') FROM delivery.delivery WHERE channel = 'email'`); got != "other@example.org" {
		t.Errorf("letters took over to %q", got)
	}
	b.await("both to be looked after", func() bool {
		return b.text(`SELECT count(*)::text FROM delivery.spare WHERE taken_at IS NOT NULL`) == "2"
	})
}

// A letter that a relay has put off asks again before each attempt.
func TestALetterPutOffIsNotSentOnceTheRightHasEndedAndFollowsTheMailbox(t *testing.T) {
	p := setupPost(t)
	p.relay.Behave(emailtest.Greylist())
	ended, first := p.parent("79000000001", "mother@example.org")
	moved, second := p.parent("79000000002", "father@example.org")
	stored := p.enqueueAt(time.Now().Add(-time.Minute),
		about(topUp("mother@example.org"), ended, first), about(topUp("father@example.org"), moved, second))
	p.await("both letters to be put off", func() bool {
		return p.text(`SELECT count(*)::text FROM delivery.delivery WHERE state = 'queued' AND attempt = 1`) == "2"
	})
	p.exec(`UPDATE access.guardian SET revoked_at = now() WHERE representative_id = $1`, ended)
	p.exec(`UPDATE access.representative SET email = 'new@example.org' WHERE id = $1`, moved)
	p.await("the letter that may be sent", func() bool {
		p.hurry() // the new mailbox's relay puts it off once more
		return len(p.relay.Letters()) > 0
	})
	p.awaitState(stored[1], delivery.Sent)
	p.awaitState(stored[0], delivery.Recalled)
	if letters := p.relay.Letters(); len(letters) != 1 || len(letters[0].To) != 1 || letters[0].To[0] != "new@example.org" {
		t.Errorf("letters %+v", letters)
	}
}
