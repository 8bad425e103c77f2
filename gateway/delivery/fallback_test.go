package delivery_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"

	"zvonok/access/phone"
	"zvonok/gateway/delivery"
	"zvonok/gateway/smpp"
	"zvonok/gateway/smpp/smpptest"
	"zvonok/gateway/subscription"
	"zvonok/ledger"
	"zvonok/ledger/pg"
	"zvonok/ledger/pg/pgtest"
)

// withSpare is a pass whose reader has e-mail as the next channel.
func withSpare(n int, patience time.Duration) delivery.Draft {
	d := draft(n)
	d.Spare = &delivery.Spare{
		Channel: subscription.Email, Address: "mother@example.org", Patience: patience,
		Letter: &delivery.Letter{Subject: "Вход 08:15: Маша", Text: "Вход 08:15", HTML: "<p>Вход 08:15</p>"},
	}
	return d
}

// patienceEnds makes the reader's patience with a message end now, however long it took to come here.
func (b *bench) patienceEnds(s delivery.Stored) {
	b.t.Helper()
	b.exec(`UPDATE delivery.spare SET patience = '0' WHERE delivery_id = $1 AND at = $2`, s.ID, s.At)
	if _, err := b.insert.Insert(b.t.Context(), delivery.FallbackArgs{At: s.At, IDs: []delivery.ID{s.ID}},
		&river.InsertOpts{Queue: delivery.ResolveQueue}); err != nil {
		b.t.Fatal(err)
	}
}

// letters lists the subjects of letters to the spare address.
func (b *bench) letters() []string {
	b.t.Helper()
	rows, err := b.pool.Query(context.Background(), `
		SELECT l.subject FROM delivery.delivery AS d JOIN delivery.letter AS l ON l.delivery_id = d.id AND l.at = d.at
		WHERE d.channel = 'email' AND d.address = 'mother@example.org'`)
	if err != nil {
		b.t.Fatal(err)
	}
	list, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		b.t.Fatal(err)
	}
	return list
}

func TestAMessageThatDoesNotGetThroughGoesToTheNextChannelOnce(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		behaviour smpptest.Behaviour
		patience  time.Duration
	}{
		"the operator refuses the number": {
			smpptest.Behaviour{Refuse: map[string]smpp.Status{"7900": smpp.StatusInvalidDestinationAddress}}, time.Hour,
		},
		"the receipt says it was lost": {smpptest.Behaviour{Undelivered: 1}, time.Hour},
		"no receipt comes in time":     {smpptest.Behaviour{LostReceipts: 1, NoQueries: true}, 100 * time.Millisecond},
		"no receipt, and it is under way": {
			smpptest.Behaviour{LostReceipts: 1, ReceiptDelay: time.Hour}, 100 * time.Millisecond,
		},
		"no receipt, and the operator says it was lost": {
			smpptest.Behaviour{LostReceipts: 1, Undelivered: 1}, 100 * time.Millisecond,
		},
		"the operator is away": {smpptest.Behaviour{RefuseBinds: 1000}, 100 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t, test.behaviour)
			stored := b.enqueue(withSpare(1, test.patience))
			b.start()
			b.await("the letter", func() bool {
				// As the gateway does: a receipt may cross its answer.
				if err := b.receipts.Sweep(t.Context()); err != nil {
					t.Fatal(err)
				}
				return len(b.letters()) == 1
			})
			trails, err := delivery.Trails(t.Context(), b.pool, stored)
			if err != nil {
				t.Fatal(err)
			}
			trail := trails[0]
			if trail.FellBackAt == nil || trail.Then == nil || trail.Then.Channel != "email" || trail.Then.Address != "***@example.org" {
				t.Errorf("the trail does not show the fall-back: %+v", trail)
			}
			// A second look at the first message finds the spare taken.
			job, err := b.insert.Insert(t.Context(), delivery.FallbackArgs{At: stored[0].At, IDs: []delivery.ID{stored[0].ID}},
				&river.InsertOpts{Queue: delivery.ResolveQueue})
			if err != nil {
				t.Fatal(err)
			}
			b.await("the second look", func() bool {
				var state string
				if err := b.pool.QueryRow(t.Context(), `SELECT state FROM river.river_job WHERE id = $1`, job.Job.ID).Scan(&state); err != nil {
					t.Fatal(err)
				}
				return state == "completed"
			})
			if n := len(b.letters()); n != 1 {
				t.Errorf("%d letters, want one", n)
			}
		})
	}
}

// D7: what has failed in the evening does not come by the next channel at night; a
// pass does.
func TestTheNextChannelKeepsTheQuietHours(t *testing.T) {
	t.Parallel()
	pool := pgtest.New(t)
	client, err := river.NewClient(riverpgxv5.New(pool), &river.Config{Schema: pg.RiverSchema})
	if err != nil {
		t.Fatal(err)
	}
	// No operator takes the number, so the spare is taken at once.
	b := &bench{t: t, pool: pool, desk: delivery.NewDesk(client, func(phone.Number) []string { return nil })}
	now := time.Now()
	var org int64
	// It is quiet from an hour ago until two hours from now, in the organisation's zone.
	if err := b.pool.QueryRow(t.Context(), `
		INSERT INTO ledger.organisation (code, kind, name, short_name, time_zone, quiet_from, quiet_until)
		SELECT 's', 'school', 'S', 'S', 'Asia/Kamchatka', ($1::timestamptz AT TIME ZONE 'Asia/Kamchatka')::time - interval '1 hour',
			($1::timestamptz AT TIME ZONE 'Asia/Kamchatka')::time + interval '2 hours' RETURNING id`, now).Scan(&org); err != nil {
		t.Fatal(err)
	}
	for topic, want := range map[string]string{"pass": "due in 0 hours, lives for 1", "topup": "due in 2 hours, lives for 3"} {
		d := withSpare(1, time.Hour)
		d.Topic, d.Expires, d.Organisation = topic, now.Add(time.Hour), ledger.OrganisationID(org)
		b.enqueue(d)
		var got string
		if err := b.pool.QueryRow(t.Context(), `
			SELECT format('due in %s hours, lives for %s', round(extract(epoch FROM greatest(j.scheduled_at, $2) - $2) / 3600),
				round(extract(epoch FROM d.expires_at - $2) / 3600))
			FROM delivery.delivery AS d JOIN river.river_job AS j ON j.args->'ids' @> to_jsonb(d.id)
			WHERE d.topic = $1 AND d.channel = 'email'`, topic, now).Scan(&got); err != nil {
			t.Fatal(err)
		}
		if got != want {
			t.Errorf("the letter of a %s is %s, want %s", topic, got, want)
		}
	}
}

// smpp.md, Unknown outcomes: where the operator offers query_sm it is asked
// before a receipt is given up.
func TestAMessageThatTheOperatorHasDeliveredWithoutAReceiptDoesNotFallBack(t *testing.T) {
	t.Parallel()
	b := setup(t, smpptest.Behaviour{LostReceipts: 1})
	b.start()
	long := withSpare(1, time.Hour)
	long.Body = strings.Repeat(long.Body+" ", 6) // of several parts, each asked for
	stored := b.enqueue(long)
	b.awaitState(stored[0], delivery.Sent)
	b.patienceEnds(stored[0])
	b.await("the answer", func() bool { return b.states()[delivery.Delivered] == 1 })
	if n := len(b.letters()); n != 0 {
		t.Errorf("%d letters", n)
	}
	for _, part := range b.trails(stored)[0].Parts {
		if part.State != "delivered" || part.DoneAt == nil {
			t.Errorf("part %+v", part)
		}
	}
}

func TestADeliveredMessageDoesNotFallBack(t *testing.T) {
	t.Parallel()
	b := setup(t, smpptest.Behaviour{})
	b.start()
	stored := b.enqueue(withSpare(1, time.Hour))
	b.awaitDelivered(1)
	b.patienceEnds(stored[0])
	b.await("the look at it", func() bool {
		var done int
		if err := b.pool.QueryRow(t.Context(), `
			SELECT count(*) FROM river.river_job WHERE kind = 'fallback' AND state = 'completed'`).Scan(&done); err != nil {
			t.Fatal(err)
		}
		return done == 1
	})
	if n := len(b.letters()); n != 0 {
		t.Errorf("%d letters after the SMS was delivered", n)
	}
}

func TestTheNextChannelTakesNothingForADeadAddress(t *testing.T) {
	t.Parallel()
	b := setup(t, smpptest.Behaviour{Refuse: map[string]smpp.Status{"7900": smpp.StatusInvalidDestinationAddress}})
	if err := delivery.OptOut(t.Context(), b.pool, subscription.Email, "mother@example.org", "unsubscribe", time.Now()); err != nil {
		t.Fatal(err)
	}
	b.start()
	stored := b.enqueue(withSpare(1, time.Hour))
	b.await("the refusal", func() bool { return b.states()[delivery.Failed] == 1 })
	trails, err := delivery.Trails(t.Context(), b.pool, stored)
	if err != nil {
		t.Fatal(err)
	}
	if trails[0].FellBackAt == nil || trails[0].Then != nil || len(b.letters()) != 0 {
		t.Errorf("trail %+v, %d letters; want a fall-back that came to nothing", trails[0], len(b.letters()))
	}
}

func TestASiblingsNewsJoinsAMessageThatStillWaits(t *testing.T) {
	t.Parallel()
	b := setup(t, smpptest.Behaviour{})
	first := withSpare(1, time.Hour)
	first.Family, first.Representative = "7:1", 5
	stored := b.enqueue(first)
	join := func(ask delivery.Ask) (found bool) {
		t.Helper()
		err := pgx.BeginFunc(t.Context(), b.pool, func(tx pgx.Tx) error {
			waiting, err := delivery.FindWaiting(t.Context(), tx, time.Now(), []delivery.Ask{ask})
			if err != nil || waiting[0] == nil {
				return err
			}
			found = true
			if len(waiting[0].Events) != 1 || waiting[0].Events[0] != first.Event || !waiting[0].Spare {
				t.Errorf("found %+v", waiting[0])
			}
			return delivery.Extend(t.Context(), tx, []delivery.Extension{{
				Stored: waiting[0].Stored, Events: []ledger.EventID{2, 3}, Body: "Вход 08:15 Маша П., Петя П.",
				Spare: &delivery.Spare{
					Channel: subscription.Email, Address: first.Spare.Address,
					Letter: &delivery.Letter{Subject: "Вход 08:15: Маша, Петя", Text: "t", HTML: "h"},
				},
			}})
		})
		if err != nil {
			t.Fatal(err)
		}
		return found
	}
	ask := delivery.Ask{Representative: 5, Address: first.Address, Family: "7:1"}
	for what, other := range map[string]delivery.Ask{
		"another door":   {Representative: 5, Address: first.Address, Family: "8:1"},
		"another reader": {Representative: 6, Address: first.Address, Family: "7:1"},
	} {
		if join(other) {
			t.Errorf("the news of %s has joined", what)
		}
	}
	if !join(ask) {
		t.Fatal("the news has found nothing to join")
	}
	b.start()
	b.awaitDelivered(1)
	if got := b.boxes[0].Messages(); len(got) != 1 || got[0].Text != "Вход 08:15 Маша П., Петя П." {
		t.Errorf("the operator got %+v", got)
	}
	if join(ask) {
		t.Error("news has joined a message that has left")
	}
	trails, err := delivery.Trails(t.Context(), b.pool, stored)
	if err != nil || len(trails[0].Joined) != 2 {
		t.Errorf("trail %+v, %v", trails, err)
	}
	var subject string
	if err := b.pool.QueryRow(t.Context(), `SELECT subject FROM delivery.spare`).Scan(&subject); err != nil ||
		subject != "Вход 08:15: Маша, Петя" {
		t.Errorf("the spare tells of %q, %v", subject, err)
	}
}

// smpp.md, Receipts: a receipt that speaks of the route sends the message to
// the next operator, one that speaks of the phone does not, and nothing of which
// a part has arrived goes out again. Pain 10: retry through operator B on
// undelivered.
func TestAReceiptThatSpeaksOfTheRouteSendsTheMessageToTheNextOperator(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		behaviour smpptest.Behaviour
		moves     bool
	}{
		"rejected":                        {smpptest.Behaviour{Undelivered: 1, UndeliveredState: smpp.StateRejected}, true},
		"rejected, before the answer":     {smpptest.Behaviour{Undelivered: 1, UndeliveredState: smpp.StateRejected, EarlyReceipts: 1}, true},
		"undeliverable by the route":      {smpptest.Behaviour{Undelivered: 1, ReceiptError: 27}, true},
		"undeliverable by the phone":      {smpptest.Behaviour{Undelivered: 1, ReceiptError: 11}, false},
		"deleted, which was a will":       {smpptest.Behaviour{Undelivered: 1, UndeliveredState: smpp.StateDeleted}, false},
		"expired, which is no news again": {smpptest.Behaviour{Undelivered: 1, UndeliveredState: smpp.StateExpired}, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t, test.behaviour, smpptest.Behaviour{})
			b.start()
			b.enqueue(withSpare(1, time.Hour))
			b.await("the end", func() bool {
				if err := b.receipts.Sweep(t.Context()); err != nil {
					t.Fatal(err)
				}
				return len(b.letters()) == 1 || b.states()[delivery.Delivered] == 1
			})
			second, letters := len(b.boxes[1].Messages()), len(b.letters())
			if moved := second == 1 && letters == 0; moved != test.moves || second+letters != 1 {
				t.Errorf("the second operator got %d messages, %d letters were written", second, letters)
			}
			if got := len(b.boxes[0].Messages()); got != 1 {
				t.Errorf("the first operator got %d", got)
			}
		})
	}
}
