package notice

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"zvonok/access/door"
	"zvonok/ledger/meal"
	"zvonok/ledger/money"
)

// digestLetters are the texts of the digests to the mother's mailbox, in their order.
func (b *bench) digestLetters() []string {
	b.t.Helper()
	rows, err := b.pool.Query(b.t.Context(), `
		SELECT l.text_body FROM delivery.delivery AS d JOIN delivery.letter AS l ON l.delivery_id = d.id AND l.at = d.at
		WHERE d.topic = 'digest' ORDER BY d.id`)
	if err != nil {
		b.t.Fatal(err)
	}
	letters, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		b.t.Fatal(err)
	}
	return letters
}

// notices.md, Digests: whatever a school does to the moment of its digest, and
// however long the gateway is away, each event is in exactly one digest of the day.
func TestAnEventIsInOneDigestOfTheDayWhateverItsMoment(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.wants("79000000001", "masha", "email", "day")
	var events []string
	for day := range 7 { // each at a minute of its own
		for i, hour := range []int{7, 11, 16, 18, 19, 21} {
			when := at(hour, 0).AddDate(0, 0, day).Add(time.Duration(7*day+i) * time.Minute)
			b.tap("masha", door.In, when, when)
			events = append(events, when.In(time.FixedZone("", 3*3600)).Format("15:04"))
		}
	}
	for _, step := range []struct {
		moment      string // that the school has set ...
		from, until int    // ... between these hours since the first midnight, in which the gateway runs
	}{
		{"19:00", 0, 36},
		{"18:00", 36, 44},   // an hour earlier than yesterday
		{"21:00", 44, 71},   // set when today's has been sent: from tomorrow on
		{"08:00", 71, 81},   // from the evening to the morning
		{"20:00", 81, 111},  // set when today's has been sent
		{"20:00", 130, 138}, // away over yesterday's, for longer than it may be late
		{"17:00", 138, 187}, // past already: at once
	} {
		b.exec(`UPDATE ledger.organisation SET digest_at = $1`, step.moment)
		for hour := step.from; hour < step.until; hour++ {
			b.now = at(hour, 5)
			b.digests()
		}
	}
	letters := b.digestLetters()
	all := strings.Join(letters, "\n")
	for _, event := range events {
		if n := strings.Count(all, event); n != 1 {
			t.Errorf("the pass at %s is in %d digests", event, n)
		}
	}
	if len(letters) != 7 {
		t.Errorf("%d digests", len(letters))
	}
}

// notices.md, Freshness: what came too late to be news is a line of the digest, were
// it weeks late: of the day's and of the week's that come next, once.
func TestWhatComesWeeksLateIsALineOfTheNextDigest(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.wants("79000000001", "petya", "email", "day")
	b.wants("79000000001", "petya", "email", "week")
	friday := at(10, 0).AddDate(0, 0, 4)
	var want []string
	for _, days := range []int{3, 4, 20, 60} {
		when := friday.AddDate(0, 0, -days).Add(time.Duration(days) * time.Minute)
		b.now = friday
		b.tell(b.tap("petya", door.In, when, friday))
		want = append(want, when.In(time.FixedZone("", 3*3600)).Format("15:04"))
	}
	for _, days := range []int{12, 14, 20, 60} {
		when := friday.AddDate(0, 0, -days)
		b.sellLate("petya", meal.Buffet, "", when, friday, money.Amount(10_00+days*100))
		job := meal.Sold{From: when.AddDate(0, 0, -1), To: when.AddDate(0, 0, 1)}
		if err := b.pool.QueryRow(t.Context(), `SELECT array_agg(event_id) FROM meal.sale WHERE at = $1`, when).Scan(&job.EventIDs); err != nil {
			t.Fatal(err)
		}
		for range 2 { // a repeated job
			if _, err := b.teller.tellSold(t.Context(), []meal.Sold{job}); err != nil {
				t.Fatal(err)
			}
		}
		want = append(want, fmt.Sprintf("%d,00 ₽", 10+days))
	}
	for days := range 8 {
		b.now = at(19, 0).AddDate(0, 0, 4+days)
		b.digests()
	}
	letters := b.digestLetters()
	if len(letters) != 2 {
		t.Fatalf("%d digests tell of it, want the day's and the week's:\n%s", len(letters), strings.Join(letters, "\n---\n"))
	}
	for i, letter := range letters {
		letter = strings.ReplaceAll(letter, "\u00a0", " ")
		for _, w := range want {
			if strings.Count(letter, w) != 1 {
				t.Errorf("digest %d does not tell of %s once:\n%s", i, w, letter)
			}
		}
	}
	var kept int
	if err := b.pool.QueryRow(t.Context(), `SELECT count(*) FROM notice.late`).Scan(&kept); err != nil || kept != 8 {
		t.Errorf("%d are kept, %v", kept, err)
	}
	b.now = b.now.Add(lateKept)
	b.digests()
	if err := b.pool.QueryRow(t.Context(), `SELECT count(*) FROM notice.late`).Scan(&kept); err != nil || kept != 0 {
		t.Errorf("%d are kept for ever, %v", kept, err)
	}
}
