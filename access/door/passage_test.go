package door

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"zvonok/ledger"
)

// story is a line of passes: "in 0" is an entry at second 0; a star marks one
// that was stored before, "~" one that was merged then.
func story(t *testing.T, text string) *line {
	t.Helper()
	l := &line{samePass: time.Minute}
	for i, word := range strings.Split(text, ", ") {
		var (
			direction string
			second    int
			marks     string
		)
		n, _ := fmt.Sscanf(word, "%s %d%s", &direction, &second, &marks)
		if n < 2 {
			t.Fatalf("cannot read %q", word)
		}
		d, err := ParseDirection(direction)
		if err != nil {
			t.Fatal(err)
		}
		l.steps = append(l.steps, step{
			event: ledger.EventID(i + 1), at: time.Unix(int64(second), 0), direction: d,
			stored: strings.ContainsAny(marks, "*~"), merged: strings.Contains(marks, "~"),
		})
	}
	return l
}

func TestTheLineOfPasses(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name     string
		line     string
		merged   string // seconds of the merged passes
		announce string // seconds of the announced ones
	}{
		{"an entry is told", "in 0", "", "0"},
		{"an exit after an entry is told", "in 0, out 20", "", "0 20"},
		{"the same card in the same direction within a minute is one passage (D8)", "in 0, in 60", "60", "0"},
		{"after more than a minute it is another passage", "in 0, in 61", "", "0 61"},
		{"a card left on the reader is one passage however long it lies there", "in 0, in 50, in 100, in 150", "50 100 150", "0"},
		{"out and in again within a minute are passages of their own", "in 0, out 20, in 40", "", "0 20 40"},
		{"the order of arrival does not matter", "in 40, out 20, in 0", "", "0 20 40"},
		{"a repeat of what was told before is not told again", "in 0*, in 30", "30", ""},
		{"an earlier tap of a passage that was told before is not told", "in 30*, in 0", "30", ""},
		{"a late tap that joins two passages is not told", "in 0*, in 100*, in 50", "50 100", ""},
		{"a late exit between two taps makes the second a passage, and both are told", "in 0*, in 40~, out 20", "", "20 40"},
		{"a stored tap far from every new one is left as it is", "in 0~, in 500", "0", "500"},
		{"a stored tap whose predecessor was not read is left as it is", "in 0, in 455~, in 510", "455 510", "0"},
		{"an exit and an entry of the same moment count as inside", "in 0, out 0", "", "0 0"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			l := story(t, test.line)
			_, announce := l.settle()
			var merged, announced []string
			for _, s := range l.steps {
				if s.merged {
					merged = append(merged, fmt.Sprint(s.at.Unix()))
				}
			}
			for _, i := range announce {
				announced = append(announced, fmt.Sprint(l.steps[i].at.Unix()))
			}
			slices.Sort(announced)
			want := strings.Fields(test.announce)
			slices.Sort(want)
			if got := strings.Join(merged, " "); got != test.merged {
				t.Errorf("merged %q, want %q", got, test.merged)
			}
			if !slices.Equal(announced, want) {
				t.Errorf("announced %v, want %v", announced, want)
			}
		})
	}
}

func TestASecondTurnWithinSecondsIsSuspected(t *testing.T) {
	t.Parallel()
	for gap, want := range map[int]bool{1: false, 2: true, 10: true, 11: false} {
		l := story(t, fmt.Sprintf("in 0, in %d", gap))
		l.settle()
		if got := l.steps[1].suspected; got != want {
			t.Errorf("a second turn after %d s: suspected %v, want %v", gap, got, want)
		}
	}
}

func TestNothingIsMergedWhenTheOrganisationSaysSo(t *testing.T) {
	t.Parallel()
	l := story(t, "in 0, in 0, in 1")
	l.samePass = 0
	if _, announce := l.settle(); len(announce) != 3 {
		t.Errorf("announced %d of 3", len(announce))
	}
}

func TestADayClosesByTheOrganisationsClock(t *testing.T) {
	t.Parallel()
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	const tenInTheEvening = ledger.ClockTime(22 * time.Hour)
	for _, test := range []struct{ name, at, want string }{
		{"in the morning: this evening", "2026-11-23T08:00:00+01:00", "2026-11-23T22:00:00+01:00"},
		{"at ten: tomorrow evening", "2026-11-23T22:00:00+01:00", "2026-11-24T22:00:00+01:00"},
		{"on the day of 23 hours: at ten by the clock", "2026-03-29T01:30:00+01:00", "2026-03-29T22:00:00+02:00"},
		{"on the day of 25 hours: at ten by the clock", "2026-10-25T01:30:00+02:00", "2026-10-25T22:00:00+01:00"},
		{"on the last day of the year", "2026-12-31T23:00:00+01:00", "2027-01-01T22:00:00+01:00"},
	} {
		at, err := time.Parse(time.RFC3339, test.at)
		if err != nil {
			t.Fatal(err)
		}
		if got := closing(at, berlin, tenInTheEvening).Format(time.RFC3339); got != test.want {
			t.Errorf("%s: %s, want %s", test.name, got, test.want)
		}
	}
}
