package notice

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"

	"zvonok/access/door"
	"zvonok/gateway/delivery"
	"zvonok/gateway/email"
	"zvonok/ledger"
	"zvonok/templates"
)

var update = flag.Bool("update", false, "write the golden files anew")

// explained compares what explain says of an event, in both languages and as
// JSON, with a golden file.
func (b *bench) explained(name string, event int64, at time.Time) {
	b.t.Helper()
	zone, err := time.LoadLocation("Europe/Moscow")
	if err != nil {
		b.t.Fatal(err)
	}
	var got strings.Builder
	for _, l := range templates.Languages() {
		lines, err := Story(b.t.Context(), b.pool, ledger.EventID(event), at, l, zone)
		if err != nil {
			b.t.Fatal(err)
		}
		e := templates.Explanation{
			ID: event, What: "pass", Number: 101, Device: "Главный вход", Building: "b1", At: at.In(zone), ReceivedAt: at.In(zone), State: "acknowledged",
		}
		for _, line := range lines {
			e.Recipients = append(e.Recipients, line.Explained())
		}
		got.WriteString(strings.Join(e.Lines(l), "\n") + "\n\n")
		if l == templates.EN {
			data, err := json.MarshalIndent(lines, "", "  ")
			if err != nil {
				b.t.Fatal(err)
			}
			got.Write(append(data, '\n'))
		}
	}
	path := filepath.Join("testdata", "explain", name+".golden")
	if *update {
		if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
			b.t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(got.String()), 0o666); err != nil {
			b.t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		b.t.Fatal(err)
	}
	g, w := strings.Split(got.String(), "\n"), strings.Split(string(want), "\n")
	for i := range max(len(g), len(w)) {
		if i >= len(g) || i >= len(w) || g[i] != w[i] {
			b.t.Errorf("%s differs at line %d:\n%s", path, i+1, got.String())
			return
		}
	}
}

// crossing records that Masha's balance fell below her mother's threshold, and
// returns its event.
func (b *bench) crossing(at time.Time) int64 {
	b.t.Helper()
	ids, err := ledger.NextEventIDs(b.t.Context(), b.pool, 1)
	if err != nil {
		b.t.Fatal(err)
	}
	if err := pgx.BeginFunc(b.t.Context(), b.pool, func(tx pgx.Tx) error {
		// The books write by the database's clock; a golden file needs a time of its own.
		if _, err := tx.Exec(b.t.Context(), `SET LOCAL ROLE NONE`); err != nil {
			return err
		}
		_, err := tx.Exec(b.t.Context(), `
			INSERT INTO ledger.crossing (account_id, owner, upward, ver, event_id, threshold, balance, occurred_at, at)
			SELECT a.id, r.id, false, 1, $1, 15000, 9500, $2, $2
			FROM ledger.account AS a, access.representative AS r WHERE a.person_id = $3 AND r.phone = '79000000001'`,
			int64(ids[0]), at, b.people["masha"])
		return err
	}); err != nil {
		b.t.Fatal(err)
	}
	b.exec(`INSERT INTO subscription.subscription (child_id, topic, mode, representative_id, channel)
		SELECT $1, 'threshold', 'now', r.id, 'sms' FROM access.representative AS r WHERE r.phone = '79000000001'`, b.people["masha"])
	return int64(ids[0])
}

// D7: deferred, not dropped; and its life goes on from there.
func TestExplainShowsThatQuietHoursHavePutNewsOff(t *testing.T) {
	t.Parallel()
	b := setup(t)
	night := time.Date(2026, 11, 22, 20, 30, 0, 0, time.UTC) // 23:30 in Moscow
	event := b.crossing(night)
	b.now = night.Add(time.Second)
	if err := b.teller.tellAll(t.Context(), func(ctx context.Context, tx pgx.Tx) ([]news, error) {
		return b.teller.crossedNews(ctx, tx, []int64{event})
	}); err != nil {
		t.Fatal(err)
	}
	b.explained("quiet-hours", event, night)
}

func TestExplainShowsThatSiblingsShareAMessage(t *testing.T) {
	t.Parallel()
	b := setup(t)
	job := b.pass("b1", morning, "masha", "petya")
	b.tell(job)
	b.explained("siblings-merged", job.EventIDs[1], job.From)
}

func TestExplainShowsTheCapItsNoticeAndTheDigestThatTellsTheRest(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.exec(`INSERT INTO delivery.quota (day, channel, address, sent) VALUES ('2026-11-23', 'sms', '79000000001', 2)`)
	var jobs []door.Passed
	for i := range 3 {
		b.now = morning.Add(time.Duration(i) * 2 * time.Minute)
		jobs = append(jobs, b.pass("b1", b.now, "petya"))
		b.tell(jobs[i])
	}
	for i, name := range []string{"cap-the-last-one", "cap-the-notice", "cap-over"} {
		b.explained(name, jobs[i].EventIDs[0], jobs[i].From)
	}
	b.now = evening
	b.digests()
	b.explained("cap-over-in-the-evening", jobs[2].EventIDs[0], jobs[2].From)
}

// notices.md, caps: news that its channel did not bring takes a place of the phone's
// day as the next channel's SMS; over the cap it is in the digest, the phone is told
// so once, and explain says so.
func TestWhatFallsBackToAPhoneThatHasHadItsNumberIsInTheDigest(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.exec(`DELETE FROM subscription.subscription`)
	b.wantsNow("79000000001", "petya", "email")
	b.order("79000000001", "email", "sms")
	mailer := delivery.NewMailer(delivery.MailerConfig{
		Pool: b.pool, Desk: b.teller.desk, Domain: "example.org", Process: "test", Unsubscribe: func(string) string { return "" },
		Log: slog.New(slog.DiscardHandler), Metrics: delivery.NewMetrics(prometheus.NewPedanticRegistry(), []string{"mail"}),
		Now: func() time.Time { return b.now },
	})
	var jobs []door.Passed
	for i := range 5 {
		b.now = morning.Add(time.Duration(i) * 2 * time.Minute)
		jobs = append(jobs, b.pass("b1", b.now, "petya"))
		b.tell(jobs[i])
		b.exec(`UPDATE delivery.delivery SET state = 'sent' WHERE channel = 'email' AND state = 'queued'`)
		var letter int64
		if err := b.pool.QueryRow(t.Context(), `SELECT max(id) FROM delivery.delivery WHERE channel = 'email'`).Scan(&letter); err != nil {
			t.Fatal(err)
		}
		if err := mailer.Bounced(t.Context(), email.Bounce{ID: letter, Class: email.Refused}); err != nil {
			t.Fatal(err)
		}
		for range 2 { // a repeated job does nothing
			b.capped()
		}
	}
	expect(t, "the phone's SMS", b.sentTo("79000000001"),
		"sms 79000000001 Вход 08:15 Петя П. Баланс 0,00 р", "sms 79000000001 Вход 08:17 Петя П. Баланс 0,00 р",
		"sms 79000000001 Вход 08:19 Петя П. Баланс 0,00 р",
		"sms 79000000001 Лимит SMS на сегодня исчерпан. Остальное придёт в вечерней сводке")
	expect(t, "verdicts", b.verdicts(), slices.Concat(slices.Repeat([]string{"petya 79000000001 email told"}, 3),
		slices.Repeat([]string{"petya 79000000001 email capped"}, 2))...)
	b.explained("cap-of-the-next-channel", jobs[4].EventIDs[0], jobs[4].From)
	b.now = evening
	b.digests()
	// To whoever wants no digest it comes by what reaches them: by letter.
	if sent := b.sent(); len(sent) != 10 || !strings.HasPrefix(sent[9], "email mother@example.org ") {
		t.Errorf("messages with the digest:\n%s", strings.Join(sent, "\n"))
	}
}

// capped works on the jobs of what is over the cap.
func (b *bench) capped() {
	b.t.Helper()
	rows, err := b.pool.Query(b.t.Context(), `SELECT args FROM river.river_job WHERE kind = 'capped'`)
	if err != nil {
		b.t.Fatal(err)
	}
	jobs, err := pgx.CollectRows(rows, pgx.RowTo[delivery.Capped])
	if err != nil {
		b.t.Fatal(err)
	}
	for _, job := range jobs {
		if err := b.teller.keepForDigest(b.t.Context(), job.Messages); err != nil {
			b.t.Fatal(err)
		}
	}
}

func TestExplainShowsTheDigestThatTellsTheNews(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.exec(`DELETE FROM subscription.subscription`)
	b.wants("79000000001", "petya", "email", "day")
	b.wants("79000000001", "petya", "sms", "day")
	job := b.pass("b1", morning, "petya")
	b.tell(job)
	b.explained("digest-to-come", job.EventIDs[0], job.From)
	b.now = evening
	b.digests()
	b.explained("digest-made", job.EventIDs[0], job.From)
}

// What became of a message, part by part, and of the next channel.
func TestExplainShowsPartsReceiptsAndTheFallback(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.order("79000000001", "sms", "email")
	job := b.pass("b1", morning, "petya")
	b.tell(job)
	b.exec(`UPDATE delivery.delivery SET state = 'failed', attempt = 1, reason = 'receipt undelivered 011', sending_at = $1,
		settled_at = $2 WHERE event_id = $3`, morning.Add(time.Second), morning.Add(90*time.Second), job.EventIDs[0])
	b.exec(`INSERT INTO delivery.part (delivery_id, delivery_at, attempt, number, count, operator, message_id, message_key, status, state, error, submitted_at, done_at)
		SELECT id, at, 1, n, 2, 'box', '4A' || n, '4A' || n, 0, (ARRAY['delivered', 'undelivered'])[n], CASE n WHEN 2 THEN '011' END,
			$1, $2 FROM delivery.delivery, generate_series(1, 2) AS n WHERE event_id = $3`,
		morning.Add(time.Second), morning.Add(90*time.Second), job.EventIDs[0])
	b.exec(`INSERT INTO delivery.delivery (id, at, event_id, representative_id, topic, channel, address, priority, again, expires_at, body, state, settled_at)
		SELECT id + 500, $1, event_id, representative_id, topic, 'email', 'mother@example.org', priority, again, expires_at, '', 'sent', $1
		FROM delivery.delivery WHERE event_id = $2`, morning.Add(90*time.Second), job.EventIDs[0])
	b.exec(`UPDATE delivery.spare SET taken_at = $1, next_id = delivery_id + 500, next_at = $1`, morning.Add(90*time.Second))
	b.explained("fallback-later", job.EventIDs[0], job.From)
}

func TestExplainShowsThatNoOperatorTakesTheNumber(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.routes = nil
	job := b.pass("b1", morning, "petya")
	b.tell(job)
	b.explained("no-route", job.EventIDs[0], job.From)
}

// An alarm goes to every legal representative by all channels, above the cap.
func TestExplainShowsWhyAnAlarmIsToldToWhoNeverSubscribed(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.exec(`UPDATE ledger.organisation SET kind = 'kindergarten'`)
	b.exec(`DELETE FROM subscription.subscription`)
	job := b.tap("petya", door.Out, morning, morning)
	b.tell(job)
	b.explained("alarm", job.EventIDs[0], job.From)
}

// A threshold is told with the sale that crossed it, and is found by its own event as well.
func TestTheStoryOfASaleTellsOfTheThresholdItCrossed(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.topUp("masha", 160_00)
	var mother int64
	if err := b.pool.QueryRow(t.Context(), `SELECT id FROM access.representative WHERE phone = '79000000001'`).Scan(&mother); err != nil {
		t.Fatal(err)
	}
	if err := pgx.BeginFunc(t.Context(), b.pool, func(tx pgx.Tx) error {
		return ledger.NewBook(b.jobs).SetThreshold(t.Context(), tx, b.people["masha"], mother, 150_00, false)
	}); err != nil {
		t.Fatal(err)
	}
	b.sell("masha", "hot", "lunch", morning, 80_00)
	var sale, crossing int64
	var at time.Time
	if err := b.pool.QueryRow(t.Context(), `
		SELECT s.event_id, c.event_id, s.at FROM meal.sale AS s, ledger.crossing AS c`).Scan(&sale, &crossing, &at); err != nil {
		t.Fatal(err)
	}
	if err := b.teller.tellAll(t.Context(), func(ctx context.Context, tx pgx.Tx) ([]news, error) {
		return b.teller.crossedNews(ctx, tx, []int64{crossing})
	}); err != nil {
		t.Fatal(err)
	}
	lines, err := Story(t.Context(), b.pool, ledger.EventID(sale), at, templates.EN, time.UTC)
	if err != nil {
		t.Fatal(err)
	}
	if len(lines) != 1 || lines[0].Event != ledger.EventID(crossing) || lines[0].Topic != "threshold" {
		t.Errorf("the story is %+v, want the threshold's line", lines)
	}
	fact, err := FindFact(t.Context(), b.pool, ledger.EventID(crossing))
	if err != nil || fact.Type != "threshold" || fact.TimeZone != "Europe/Moscow" {
		t.Errorf("the fact is %+v, %v", fact, err)
	}
	if _, err := FindFact(t.Context(), b.pool, 1<<40); !errors.Is(err, ErrNoFact) {
		t.Errorf("a fact that is not: %v", err)
	}
}
