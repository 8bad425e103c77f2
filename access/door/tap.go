package door

import (
	"fmt"
	"time"

	"zvonok/access"
	"zvonok/ledger"
)

// Direction is the way through a door.
type Direction int16

// The directions, as they are stored.
const (
	In  Direction = 1
	Out Direction = 2
)

// ParseDirection reads "in" or "out".
func ParseDirection(raw string) (Direction, error) {
	switch raw {
	case "in":
		return In, nil
	case "out":
		return Out, nil
	}
	return 0, fmt.Errorf("direction %.20q: want in or out", raw)
}

// String returns "in" or "out".
func (d Direction) String() string {
	switch d {
	case In:
		return "in"
	case Out:
		return "out"
	}
	return fmt.Sprintf("Direction(%d)", int16(d))
}

// MarshalText writes the direction as "in" or "out".
func (d Direction) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// noon divides the school day for readers that do not know the direction.
const noon = 12

// inferDirection guesses the direction of a tap from the time of day in the
// organisation's zone: in before noon, out after it. Deriving it from the last
// known pass would be worse: one missed exit would turn all that follow around
// (spec/door.md).
func inferDirection(at time.Time, zone *time.Location) Direction {
	if at.In(zone).Hour() < noon {
		return In
	}
	return Out
}

// Kind says by what a person passed.
type Kind int16

// The kinds, as they are stored.
const (
	ByCard    Kind = 1 // the person's own card
	Led       Kind = 2 // the person's card with that of a companion (R49)
	ByStaff   Kind = 3 // let in by staff without a card (D9)
	firstKind      = ByCard
	lastKind       = ByStaff
)

// String returns "card", "companion" or "staff".
func (k Kind) String() string {
	switch k {
	case ByCard:
		return "card"
	case Led:
		return "companion"
	case ByStaff:
		return "staff"
	}
	return fmt.Sprintf("Kind(%d)", int16(k))
}

// Tap is a passage of a known person, as the intake hands it over: its device
// has been authenticated, its card resolved, its clock corrected, and its event
// id is given out once for each (device, sequence number).
type Tap struct {
	Event        ledger.EventID
	Device       int64
	Organisation ledger.OrganisationID
	Building     ledger.BuildingID
	Person       ledger.PersonID
	Card         access.CardID // 0 without a card
	// Direction is 0 when the reader did not know it; it is then inferred from
	// the time of day, and the pass is marked.
	Direction Direction
	Kind      Kind
	// Companion is who leads the child; 0 when nobody was named.
	Companion access.RepresentativeID
	// UnknownCompanion: a companion's card was held to the reader and is nobody's.
	UnknownCompanion bool
	// AdmittedBy is the member of staff who let the person in; 0 when unknown.
	AdmittedBy ledger.PersonID
	// Silent: the device's clock was off by more than an hour. The pass is
	// recorded and nobody is told.
	Silent bool
	// At is the corrected time, RawAt what the device's clock said (zero means
	// the same), ReceivedAt when we got it. They are kept to the microsecond, as
	// PostgreSQL does.
	At, RawAt, ReceivedAt time.Time
}

// Verdict is what became of a tap.
type Verdict struct {
	Event ledger.EventID
	// Merged: it belongs to the passage of the tap before it.
	Merged bool
	// Suspected: the same card turned the door twice within seconds.
	Suspected bool
	// Announced: the job [Passed] names it.
	Announced bool
	// Alarm is empty when all is well.
	Alarm Alarm
}

// Passed is the job that tells people of passes. It carries ids only: the
// passes are read by [Passes]. From and To are the earliest and the latest time
// of them, so that only their months are looked at.
type Passed struct {
	EventIDs []int64   `json:"event_ids"`
	From     time.Time `json:"from"`
	To       time.Time `json:"to"`
}

// Kind names the job for River.
func (Passed) Kind() string { return "door_passed" }
