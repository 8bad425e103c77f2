package door

import (
	"cmp"
	"slices"
	"time"

	"zvonok/ledger"
)

// Two turns of a door on one card within this time look like a second child
// passing on it; below the lower bound a reader is repeating itself, since no
// turnstile turns that fast.
const (
	repeatTime = 2 * time.Second
	secondTime = 10 * time.Second
)

// step is one pass in a person's line of passes.
type step struct {
	event     ledger.EventID
	at        time.Time
	direction Direction
	building  ledger.BuildingID
	device    int64
	merged    bool
	suspected bool
	silent    bool
	stored    bool // it was there before this batch
}

// compare orders the line: by time; an exit before an entry of the same moment,
// so that a doubtful case counts as inside when a building is cleared. The rest
// only makes the order total, whatever the order of arrival; event ids, which
// depend on it, decide between passes that are alike in everything else.
func (s step) compare(other step) int {
	return cmp.Or(
		s.at.Compare(other.at),
		cmp.Compare(other.direction, s.direction),
		cmp.Compare(s.building, other.building),
		cmp.Compare(s.device, other.device),
		cmp.Compare(s.event, other.event),
	)
}

// follow says what a pass is after its predecessor. A samePass of 0 merges nothing.
func (s step) follow(previous step, samePass time.Duration) (merged, suspected bool) {
	gap := s.at.Sub(previous.at)
	if s.direction != previous.direction {
		return false, false
	}
	return samePass > 0 && gap <= samePass, gap >= repeatTime && gap <= secondTime
}

// reach is how far from a pass its neighbours matter.
func reach(samePass time.Duration) time.Duration { return max(samePass, secondTime) }

// line is what happened to one person: the stored passes within reach of the
// new ones, and the new ones.
type line struct {
	steps    []step
	samePass time.Duration
}

// settle sorts the line and decides which passes are merged and which are to be
// announced. It returns the indexes of stored passes that it changed and of all
// passes to announce.
//
// Not every stored pass is in the line, only those within reach of a new one.
// So a stored pass is judged anew only by a new predecessor within reach, which
// is then surely its nearest; what is farther away merges with nothing either
// before or after.
func (l *line) settle() (changed, announce []int) {
	slices.SortFunc(l.steps, step.compare)
	before := make([]bool, len(l.steps)) // merged as it was stored
	for i := range l.steps {
		before[i] = l.steps[i].merged
		if i == 0 {
			continue // a new pass with nothing within reach before it, or a stored one
		}
		s, previous := &l.steps[i], l.steps[i-1]
		if s.stored && (previous.stored || s.at.Sub(previous.at) > reach(l.samePass)) {
			continue
		}
		merged, suspected := s.follow(previous, l.samePass)
		if s.stored && (merged != s.merged || suspected != s.suspected) {
			changed = append(changed, i)
		}
		s.merged, s.suspected = merged, suspected
	}
	for i, s := range l.steps {
		switch {
		case s.merged || s.silent:
		case s.stored && before[i]: // it was part of a passage and is one of its own now
			announce = append(announce, i)
		case !s.stored && !l.told(i, before):
			announce = append(announce, i)
		}
	}
	return changed, announce
}

// told says whether the passage that begins at i has been announced already,
// by a pass of it that came earlier to us.
func (l *line) told(i int, before []bool) bool {
	for j := i + 1; j < len(l.steps) && l.steps[j].merged; j++ {
		if s := l.steps[j]; s.stored && !before[j] && !s.silent {
			return true
		}
	}
	return false
}
