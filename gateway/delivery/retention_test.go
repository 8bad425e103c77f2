package delivery_test

import (
	"context"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"zvonok/access"
	"zvonok/gateway/delivery"
	"zvonok/gateway/smpp/smpptest"
	"zvonok/gateway/subscription"
	"zvonok/ledger/pg"
	"zvonok/ledger/pg/pgtest"
)

// enqueueAt stores drafts as if they had been made at a moment.
func (b *bench) enqueueAt(at time.Time, drafts ...delivery.Draft) []delivery.Stored {
	b.t.Helper()
	var stored []delivery.Stored
	err := pgx.BeginFunc(b.t.Context(), b.pool, func(tx pgx.Tx) (err error) {
		stored, err = b.desk.Enqueue(b.t.Context(), tx, at, drafts)
		return err
	})
	if err != nil {
		b.t.Fatal(err)
	}
	return stored
}

func (b *bench) exec(sql string, args ...any) {
	b.t.Helper()
	if _, err := b.pool.Exec(b.t.Context(), sql, args...); err != nil {
		b.t.Fatalf("%s: %v", sql, err)
	}
}

func (b *bench) text(sql string, args ...any) (text string) {
	b.t.Helper()
	if err := b.pool.QueryRow(b.t.Context(), sql, args...).Scan(&text); err != nil {
		b.t.Fatalf("%s: %v", sql, err)
	}
	return text
}

// trails are what explain says, with everything it needs.
func (b *bench) trails(stored []delivery.Stored) []delivery.Trail {
	b.t.Helper()
	trails, err := delivery.Trails(b.t.Context(), b.pool, stored)
	if err != nil {
		b.t.Fatal(err)
	}
	return trails
}

// spec/practice.md, Destruction: within 30 days the text of a message is gone, in
// every place it stood in, and what proves its delivery is not. A message that
// may still be sent keeps its text.
func TestTextsAreDestroyedInTimeAndTheProofOfDeliveryStays(t *testing.T) {
	t.Parallel()
	b := setup(t, smpptest.Behaviour{})
	now := time.Now()
	ago := func(days int) time.Time { return now.AddDate(0, 0, -days) }
	message := func(n int, expires time.Time) delivery.Draft {
		d := draft(n)
		d.Representative, d.Expires = 1, expires
		return d
	}
	letter := message(3, ago(30))
	letter.Channel, letter.Address, letter.Body = subscription.Email, "mother@example.org", ""
	letter.Letter = &delivery.Letter{Subject: "Маша", Text: "Вход 08:15", HTML: "<p>Вход 08:15"}
	spare := message(4, ago(30))
	spare.Spare = &delivery.Spare{
		Channel: subscription.Email, Address: "father@example.org", Body: "Вход 08:15", Patience: time.Minute,
		Letter: &delivery.Letter{Subject: "Маша", Text: "Вход 08:15", HTML: "<p>Вход 08:15"},
	}
	old := b.enqueueAt(ago(30), message(1, ago(30)), letter, spare)
	b.enqueueAt(ago(28), message(5, ago(28)))
	waiting := b.enqueueAt(ago(40), message(6, now.Add(time.Hour)))
	b.enqueueAt(ago(45), message(7, ago(45)))
	b.exec(`UPDATE delivery.delivery SET state = 'delivered', settled_at = at WHERE expires_at < now()`)
	b.exec(`INSERT INTO delivery.part (delivery_id, delivery_at, attempt, number, count, operator, message_id, message_key, status, state,
		submitted_at, done_at) VALUES ($1, $2, 1, 1, 1, 'box1', 'a1', 'a1', 0, 'delivered', $2, $2)`, old[0].ID, old[0].At)
	b.exec(`INSERT INTO delivery.receipt (received_at, operator, message_id, address, state, error, raw)
		VALUES ($1, 'box1', 'a1', '79000000001', 'delivered', '', 'id:a1 stat:DELIVRD text:Вход 08:15 Маша')`, old[0].At)
	b.exec(`INSERT INTO delivery.quota (day, channel, address, sent) VALUES ($1, 'sms', '79000000099', 1), ($2, 'sms', '79000000099', 2)`,
		ago(30), now)
	before := b.trails(old)

	if err := delivery.EraseTexts(t.Context(), b.pool, now, false); err != nil {
		t.Fatal(err)
	}
	for _, left := range []struct{ what, sql, want string }{
		{
			"texts", `SELECT coalesce(string_agg(body, ', ' ORDER BY at), '') FROM delivery.delivery WHERE body <> ''`,
			message(6, now).Body + ", " + message(5, now).Body,
		},
		{"letters", `SELECT count(*)::text FROM delivery.letter`, "0"},
		{"spares", `SELECT count(*)::text FROM delivery.spare WHERE body <> '' OR subject <> '' OR text_body <> '' OR html_body <> ''`, "0"},
		{"receipts", `SELECT raw || address || state || message_id FROM delivery.receipt`, "delivereda1"},
		{"counts", `SELECT sum(sent)::text FROM delivery.quota WHERE address = '79000000099'`, "2"},
	} {
		if got := b.text(left.sql); got != left.want {
			t.Errorf("%s that are left: %q, want %q", left.what, got, left.want)
		}
	}
	if after := b.trails(old); len(after) != 3 || !reflect.DeepEqual(before, after) {
		t.Errorf("the proof of delivery was\n%+v\nand is\n%+v", before, after)
	}
	if got := b.text(`SELECT string_agg(what || '=' || entries, ' ' ORDER BY what COLLATE "C") FROM access.destroyed`); got !=
		"fallback_texts=1 letters=1 message_texts=3 receipt_texts=1" {
		t.Errorf("noted for the act: %s", got)
	}

	// The next run goes on where this one ended, and still finds what waited.
	if err := delivery.EraseTexts(t.Context(), b.pool, now.Add(2*time.Hour), false); err != nil {
		t.Fatal(err)
	}
	if got := b.text(`SELECT body FROM delivery.delivery WHERE id = $1`, waiting[0].ID); got != "" {
		t.Errorf("a message whose life is over says %q", got)
	}
	// What has come in behind is found by a thorough run.
	b.enqueueAt(ago(50), message(8, ago(50)))
	if err := delivery.EraseTexts(t.Context(), b.pool, now, true); err != nil {
		t.Fatal(err)
	}
	if got := b.text(`SELECT count(*)::text FROM delivery.delivery WHERE body <> ''`); got != "1" {
		t.Errorf("%s messages have a text, want the one of four weeks ago", got)
	}
}

// A code is a secret and an answer was asked for: their texts are destroyed as
// soon as they were sent or nobody can use them any more.
func TestTextsOfCodesAreDestroyedAsSoonAsTheyWereSentOrExpired(t *testing.T) {
	t.Parallel()
	now := time.Now()
	for name, test := range map[string]struct {
		state   string
		expires time.Duration
		gone    bool
	}{
		"queued":                  {"queued", time.Minute, false},
		"on its way":              {"sending", time.Minute, false},
		"sent":                    {"sent", time.Minute, true},
		"delivered":               {"delivered", time.Minute, true},
		"failed":                  {"failed", time.Minute, true},
		"unknown, not sent again": {"unknown", time.Minute, true},
		"queued and expired":      {"queued", -time.Minute, true},
		"on its way and expired":  {"sending", -time.Minute, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t, smpptest.Behaviour{})
			code, mail, news := draft(1), draft(2), draft(3)
			code.Topic, mail.Topic = "code", "code"
			code.Again, mail.Again = delivery.Never, delivery.Never
			mail.Channel, mail.Address, mail.Body = subscription.Email, "mother@example.org", ""
			mail.Letter = &delivery.Letter{Subject: "Код", Text: "123456", HTML: "123456"}
			for _, d := range []*delivery.Draft{&code, &mail, &news} {
				d.Expires = now.Add(test.expires)
			}
			stored := b.enqueue(code, mail, news)
			b.exec(`UPDATE delivery.delivery SET state = $1`, test.state)
			before := b.trails(stored)
			if err := delivery.EraseSecrets(t.Context(), b.pool, now); err != nil {
				t.Fatal(err)
			}
			want := "3 1"
			if test.gone {
				want = "1 0"
			}
			if got := b.text(`SELECT (SELECT count(*) FROM delivery.delivery WHERE body <> '') || ' ' || (SELECT count(*) FROM delivery.letter)`); got != want {
				t.Errorf("texts and letters left: %s, want %s", got, want)
			}
			if after := b.trails(stored); !reflect.DeepEqual(before, after) {
				t.Errorf("the trail was\n%+v\nand is\n%+v", before, after)
			}
		})
	}
}

// Who is erased is erased from the messages too, but not from one that may still be sent.
func TestThePhonesOfTheErasedAreTakenOutOfTheirMessages(t *testing.T) {
	t.Parallel()
	b := setup(t, smpptest.Behaviour{})
	now := time.Now()
	b.exec(`INSERT INTO access.representative (id, phone, family_name, given_name, erased_at) VALUES
		(1, NULL, '', '', now()), (2, '79000000002', 'Петрова', 'Ольга', NULL)`)
	b.exec(`INSERT INTO access.erased_address VALUES (1, '79000000001')`)
	b.exec(`INSERT INTO delivery.address (channel, address, suppressed_at) VALUES ('sms', '79000000001', now()), ('sms', '79000000002', now())`)
	to := func(who access.RepresentativeID, address string, life time.Duration) delivery.Draft {
		d := draft(1)
		d.Representative, d.Address, d.Expires = who, address, now.Add(life)
		return d
	}
	b.enqueueAt(now.AddDate(0, 0, -3), to(1, "79000000001", -time.Hour), to(1, "79000000001", time.Hour), to(2, "79000000002", -time.Hour))
	erase := func(at time.Time, want string) {
		t.Helper()
		if err := delivery.EraseAddresses(t.Context(), b.pool, at); err != nil {
			t.Fatal(err)
		}
		got := b.text(`SELECT string_agg(address || '/' || (body <> ''), ' ' ORDER BY id) FROM delivery.delivery`)
		got += b.text(`SELECT ', ' || (SELECT count(*) FROM access.erased_address) || ' to do, ' || (SELECT count(*) FROM delivery.address) || ' known'`)
		if got != want {
			t.Errorf("%s\nwant %s", got, want)
		}
	}
	erase(now, "/false 79000000001/true 79000000002/true, 1 to do, 2 known")
	erase(now.Add(2*time.Hour), "/false /false 79000000002/true, 0 to do, 1 known")
}

// Erasure reaches every phone and mailbox that somebody ever had, and nothing of
// who has or had the same: what was sent to him stays his. The proof of each
// delivery stays.
func TestErasureReachesTheAddressesThatSomebodyHadBefore(t *testing.T) {
	t.Parallel()
	b := setup(t, smpptest.Behaviour{})
	now := time.Now()
	ago := func(days int) time.Time { return now.AddDate(0, 0, -days) }
	// Of 1, who changed phone and mailbox, every right has ended; 2 has her first phone now, and shares the second mailbox.
	b.exec(`INSERT INTO access.representative (id, phone, email, family_name, given_name, created_at)
		VALUES (1, '79000000001', 'one@example.org', 'Петрова', 'Ольга', $1), (3, '79000000003', '', 'Петров', 'Илья', $1)`, ago(300))
	b.exec(`UPDATE access.representative SET phone = '79000000009', email = 'two@example.org' WHERE id = 1`)
	b.exec(`INSERT INTO access.representative (id, phone, email, family_name, given_name) VALUES
		(2, '79000000001', 'two@example.org', 'Орлова', 'Нина')`)
	b.exec(`UPDATE access.representative SET created_at = now() WHERE id = 3`)
	b.exec(`INSERT INTO delivery.address (channel, address, opted_out_at) VALUES ('sms', '79000000001', now()), ('sms', '79000000009', now()),
		('email', 'one@example.org', now()), ('email', 'two@example.org', now())`)
	to := func(who access.RepresentativeID, address string) delivery.Draft {
		d := draft(1)
		d.Representative, d.Address, d.Expires = who, address, ago(1)
		if strings.Contains(address, "@") {
			d.Channel, d.Body, d.Letter = subscription.Email, "", &delivery.Letter{Subject: "Вход", Text: "Вход 08:15", HTML: "Вход 08:15"}
		}
		return d
	}
	// To herself by push, and should that fail by SMS to her first phone; and a code to a phone of nobody.
	pushed, code := to(1, "1"), to(0, "79000000001")
	pushed.Channel = subscription.Push
	pushed.Spare = &delivery.Spare{Channel: subscription.SMS, Address: "79000000001", Patience: time.Minute, Body: "Вход 08:15"}
	b.enqueueAt(ago(40), to(1, "79000000001"), to(1, "79000000009"), to(1, "one@example.org"), to(1, "two@example.org"),
		to(2, "79000000001"), to(2, "two@example.org"), to(3, "79000000003"), pushed, code)
	if err := pgx.BeginFunc(t.Context(), b.pool, func(tx pgx.Tx) error {
		f, err := access.Forget(t.Context(), tx, now)
		if f.Representatives != 1 {
			t.Errorf("erased %d people, want one", f.Representatives)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	if err := delivery.EraseTexts(t.Context(), b.pool, now, true); err != nil {
		t.Fatal(err)
	}
	if err := delivery.EraseAddresses(t.Context(), b.pool, now); err != nil {
		t.Fatal(err)
	}
	for sql, want := range map[string]string{
		`SELECT string_agg(coalesce(representative_id, 0) || ':' || address, ' ' ORDER BY id) FROM delivery.delivery`: "1: 1: 1: 1: 2:79000000001 2:two@example.org 3:79000000003 1:1 0:",
		`SELECT string_agg(address, ' ') FROM delivery.spare`:                                                         "",
		`SELECT string_agg(address, ' ' ORDER BY address) FROM delivery.address`:                                      "79000000001 two@example.org",
		`SELECT (SELECT count(*) FROM access.erased_address) || ' ' || (SELECT count(*) FROM access.former_address)`:  "0 0",
	} {
		if got := b.text(sql); got != want {
			t.Errorf("%s:\n%q, want %q", sql, got, want)
		}
	}
}

// The statements of retention and of the sweep of messages without a proof go by index whatever the size of the tables: the
// time of a run does not grow with the history.
func TestRetentionReadsNoTableFromEndToEnd(t *testing.T) {
	t.Parallel()
	url := pgtest.NewURL(t)
	ctx := context.Background()
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(ctx)
	for _, sql := range []string{
		`INSERT INTO delivery.delivery (id, at, event_id, representative_id, topic, channel, address, priority, again, expires_at, body, state)
		 SELECT n, now() - n * interval '1 minute', n, 1, 'pass', 'sms', 79000000000 + n % 1000, 1, 'fresh', now() - n * interval '1 minute', '', 'delivered'
		 FROM generate_series(40000, 1, -1) n`,
		`ANALYZE delivery.delivery`,
	} {
		if _, err := conn.Exec(ctx, sql); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := conn.Exec(ctx, pg.PlannedOnce.BeginQuery); err != nil {
		t.Fatal(err)
	}
	for i, statement := range delivery.RetentionStatements {
		args := []string{"now() - interval '25 days'", "now() - interval '25 days' + interval '1 hour'", "now()"}
		if strings.Contains(statement, "LIMIT") {
			args = []string{"now()", "1000"}
		}
		if !strings.Contains(statement, "$3") {
			args = args[:2]
		}
		name := fmt.Sprintf("statement%d", i)
		if _, err := conn.Exec(ctx, "PREPARE "+name+" AS "+statement, pgx.QueryExecModeSimpleProtocol); err != nil {
			t.Fatalf("%v\n%s", err, statement)
		}
		rows, err := conn.Query(ctx, fmt.Sprintf("EXPLAIN (COSTS off) EXECUTE %s (%s)", name, strings.Join(args, ", ")),
			pgx.QueryExecModeSimpleProtocol)
		if err != nil {
			t.Fatal(err)
		}
		lines, err := pgx.CollectRows(rows, pgx.RowTo[string])
		if err != nil {
			t.Fatal(err)
		}
		if plan := strings.Join(lines, "\n"); strings.Contains(plan, "Seq Scan on") {
			t.Errorf("%s\n%s", statement, plan)
		}
	}
}
