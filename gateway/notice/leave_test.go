package notice

import (
	"strings"
	"testing"
	"time"

	"zvonok/access/door"
	"zvonok/ledger"
)

// spec/door.md, two buildings of one organisation (R7): with the hold-back
// setting, "left" is not sent when an entry to a sister building follows in time.
func TestLeavingWaitsForAnEntryToASisterBuilding(t *testing.T) {
	t.Parallel()
	left := "sms 79000000001 Выход 08:15 Петя П."
	for sentence, test := range map[string]struct {
		wait     string
		late     time.Duration // after which the server heard of the exit
		into     string        // the building entered next
		after    time.Duration
		atOnce   bool // told when the exit comes in
		inTheEnd bool
	}{
		"by default nothing waits":                  {"0", 0, "b2", 3 * time.Minute, true, true},
		"into the sister building in time":          {"10 minutes", 0, "b2", 3 * time.Minute, false, false},
		"into the sister building too late":         {"10 minutes", 0, "b2", 11 * time.Minute, false, true},
		"back into the same building":               {"10 minutes", 0, "b1", 3 * time.Minute, false, true},
		"home":                                      {"10 minutes", 0, "", 0, false, true},
		"home, with the longest wait":               {"15 minutes", 0, "", 0, false, true},
		"reported late, when it is no longer news":  {"10 minutes", 20 * time.Minute, "", 0, false, false},
		"reported late, but within the wait's time": {"10 minutes", 5 * time.Minute, "", 0, false, true},
	} {
		t.Run(sentence, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			b.exec(`UPDATE ledger.organisation SET leave_wait = $1::text::interval, same_pass = '0'`, test.wait)
			job := b.tap("petya", door.Out, morning, morning.Add(test.late))
			b.now = morning.Add(test.late + time.Second)
			b.tell(job)
			b.tell(job) // a repeat changes nothing
			told := func() bool {
				for _, message := range b.sent() {
					if message == left {
						return true
					}
				}
				return false
			}
			if told() != test.atOnce {
				t.Errorf("at once: %q", b.sent())
			}
			if test.into != "" {
				b.pass(test.into, morning.Add(test.after), "petya")
			}
			// What was held back comes again by its own jobs.
			rows, err := b.pool.Query(t.Context(), `SELECT args, scheduled_at FROM river.river_job WHERE kind = 'door_passed' AND state = 'scheduled'`)
			if err != nil {
				t.Fatal(err)
			}
			var jobs []door.Passed
			for rows.Next() {
				var held door.Passed
				var due time.Time
				if err := rows.Scan(&held, &due); err != nil {
					t.Fatal(err)
				}
				jobs = append(jobs, held)
				if due.After(b.now) {
					b.now = due
				}
			}
			if err := rows.Err(); err != nil {
				t.Fatal(err)
			}
			for _, held := range jobs {
				b.tell(held)
			}
			if told() != test.inTheEnd {
				t.Errorf("in the end: %q, %q", b.sent(), b.verdicts())
			}
			if n := strings.Count(strings.Join(b.sent(), "\n"), "Выход"); n > 2 {
				t.Errorf("told %d times: %q", n, b.sent())
			}
		})
	}
}

// An absence that nobody reported by a device is explained by its event, too.
func TestAnAbsenceIsExplainedByItsEvent(t *testing.T) {
	t.Parallel()
	b := setup(t)
	job := b.missed()
	b.tellOfAbsence(job)
	fact, err := FindFact(t.Context(), b.pool, 0)
	if err == nil {
		t.Errorf("event 0 is %+v", fact)
	}
	explained := 0
	for _, event := range job.EventIDs {
		fact, err := FindFact(t.Context(), b.pool, ledger.EventID(event))
		if err != nil || fact.Type != "absence" || fact.TimeZone != "Europe/Moscow" {
			t.Fatalf("event %d is %+v, %v", event, fact, err)
		}
		lines, err := Story(t.Context(), b.pool, fact.Event, fact.At, "ru", time.UTC)
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range lines {
			if l.Topic != string(Absence) {
				t.Errorf("a line on %s", l.Topic)
			}
			if l.Verdict == Told && l.Delivery != nil {
				explained++
			}
		}
	}
	if explained == 0 {
		t.Error("no message about an absence is explained")
	}
}
