package door

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/riverqueue/river"

	"zvonok/ledger"
	"zvonok/ledger/pg"
)

// rulesLife is how long an organisation's settings are kept in memory: a change
// of them (once a year) works after this time.
const rulesLife = 30 * time.Second

// Recorder records passes. One Recorder serves all of the process.
type Recorder struct {
	river *river.Client[pgx.Tx]
	rules ruleBook
}

// NewRecorder returns a Recorder that inserts its jobs through client.
func NewRecorder(client *river.Client[pgx.Tx]) *Recorder {
	return &Recorder{river: client, rules: ruleBook{known: map[ledger.OrganisationID]rules{}}}
}

// Record stores taps and inserts the job that tells of them, in the caller's
// transaction; the package comment describes how. It returns one Verdict per
// tap, in order. Each tap must be new: an event id that is stored already breaks
// the primary key.
//
// Now is the time of recording. An error leaves the transaction unusable; it is
// temporary or permanent as [pg.Temporary] says. A Recorder may be used from any
// number of goroutines. Two transactions that meet the first taps of the same
// people may deadlock, which is temporary.
func (r *Recorder) Record(ctx context.Context, tx pgx.Tx, now time.Time, taps []Tap) ([]Verdict, error) {
	if len(taps) == 0 {
		return nil, nil
	}
	batch, err := r.open(ctx, tx, now, taps)
	if err != nil {
		return nil, err
	}
	if err := batch.readNeighbours(ctx, tx); err != nil {
		return nil, err
	}
	if err := r.raiseAlarms(ctx, tx, now, batch); err != nil {
		return nil, err
	}
	batch.settle()
	if err := batch.write(ctx, tx, now); err != nil {
		return nil, err
	}
	if len(batch.passed.EventIDs) > 0 {
		if _, err := r.river.InsertManyFastTx(ctx, tx, []river.InsertManyParams{{Args: batch.passed}}); err != nil {
			return nil, fmt.Errorf("insert the job that tells of passes: %w", err)
		}
	}
	return batch.verdicts, nil
}

// recording is a batch of taps on its way into the tables.
type recording struct {
	taps     []Tap
	verdicts []Verdict
	inferred []bool        // the tap's direction was not known
	people   []*personTaps // by ascending id, as their presence rows are locked
	changed  []step        // stored passes whose predecessor changed
	passed   Passed
}

// personTaps is what a batch holds of one person.
type personTaps struct {
	presence     presence
	organisation *ledger.Organisation
	taps         []int // indexes into recording.taps
	late         bool  // some tap is not later than all that is stored
	line         line
}

// open groups the taps by person and locks the people's presence.
func (r *Recorder) open(ctx context.Context, tx pgx.Tx, now time.Time, taps []Tap) (*recording, error) {
	b := &recording{
		taps: make([]Tap, len(taps)), verdicts: make([]Verdict, len(taps)), inferred: make([]bool, len(taps)),
	}
	byID := make(map[ledger.PersonID]*personTaps, len(taps))
	var organisations []ledger.OrganisationID
	for i, tap := range taps {
		if err := tap.check(); err != nil {
			return nil, err
		}
		if tap.RawAt.IsZero() {
			tap.RawAt = tap.At
		}
		// What PostgreSQL keeps is compared with what it gave back.
		tap.At = tap.At.Truncate(time.Microsecond)
		tap.RawAt = tap.RawAt.Truncate(time.Microsecond)
		tap.ReceivedAt = tap.ReceivedAt.Truncate(time.Microsecond)
		b.taps[i] = tap
		b.verdicts[i].Event = tap.Event
		p := byID[tap.Person]
		if p == nil {
			p = &personTaps{presence: presence{person: tap.Person}}
			byID[tap.Person] = p
			b.people = append(b.people, p)
			organisations = append(organisations, tap.Organisation)
		}
		p.taps = append(p.taps, i)
	}
	book, err := r.rules.of(ctx, tx, organisations, now)
	if err != nil {
		return nil, err
	}
	for _, p := range b.people {
		p.organisation = book[taps[p.taps[0]].Organisation]
		p.line.samePass = p.organisation.SamePass
		for _, i := range p.taps {
			if t := &b.taps[i]; t.Direction == 0 {
				t.Direction, b.inferred[i] = inferDirection(t.At, p.organisation.Location), true
			}
		}
	}
	slices.SortFunc(b.people, func(a, b *personTaps) int { return int(a.presence.person - b.presence.person) })
	return b, b.lock(ctx, tx, byID)
}

// check refuses what the program must not hand over. It is a mistake in the
// caller, so the error is permanent.
func (t Tap) check() error {
	switch {
	case t.Direction < 0 || t.Direction > Out:
		return fmt.Errorf("record the tap %d: %v", t.Event, t.Direction)
	case t.Kind < firstKind || t.Kind > lastKind:
		return fmt.Errorf("record the tap %d: %v", t.Event, t.Kind)
	case t.At.IsZero() || t.ReceivedAt.IsZero():
		return fmt.Errorf("record the tap %d: it has no time", t.Event)
	}
	return nil
}

// lock locks the presence rows and reads them. Rows that are missing are made
// first, so that two transactions cannot both believe to be a person's first.
func (b *recording) lock(ctx context.Context, tx pgx.Tx, byID map[ledger.PersonID]*personTaps) error {
	ids := make([]int64, len(b.people))
	for i, p := range b.people {
		ids[i] = int64(p.presence.person)
	}
	missing, err := lockPresence(ctx, tx, ids, byID)
	if err != nil {
		return err
	}
	if len(missing) == 0 {
		return nil
	}
	_, err = tx.Exec(ctx, `
		INSERT INTO door.presence (person_id) SELECT unnest($1::bigint[]) ON CONFLICT DO NOTHING`, missing)
	if err != nil {
		return fmt.Errorf("begin the presence of %d people: %w", len(missing), err)
	}
	missing, err = lockPresence(ctx, tx, missing, byID)
	if err == nil && len(missing) > 0 {
		err = errors.New("lock presence: rows just made are not there")
	}
	return err
}

// lockPresence returns those ids that have no row.
func lockPresence(
	ctx context.Context, tx pgx.Tx, ids []int64, byID map[ledger.PersonID]*personTaps,
) (missing []int64, err error) {
	rows, err := tx.Query(ctx, `
		SELECT person_id, last_at, coalesce(last_direction, 0), coalesce(last_building_id, 0),
		       coalesce(last_device_id, 0), day, day_first_in, day_last_out
		  FROM door.presence
		 WHERE person_id = ANY($1)
		 ORDER BY person_id
		   FOR NO KEY UPDATE`, ids)
	if err != nil {
		return nil, fmt.Errorf("lock presence: %w", err)
	}
	found := 0
	var (
		person                        ledger.PersonID
		last                          step
		lastAt, day, firstIn, lastOut *time.Time
	)
	_, err = pgx.ForEachRow(rows, []any{
		&person, &lastAt, &last.direction, &last.building, &last.device, &day, &firstIn, &lastOut,
	}, func() error {
		// Both are in ascending order: what is skipped is missing.
		for ids[found+len(missing)] != int64(person) {
			missing = append(missing, ids[found+len(missing)])
		}
		found++
		p := &byID[person].presence
		if lastAt != nil {
			last.at, last.stored = *lastAt, true
			p.last, p.day, p.firstIn, p.lastOut = last, *day, orZero(firstIn), orZero(lastOut)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("lock presence: %w", err)
	}
	return append(missing, ids[found+len(missing):]...), nil
}

// readNeighbours puts together the line of each person: the new taps and what is
// stored within reach of them. Most taps are later than all that is stored; then
// the presence row is all there is to know. For the others door.pass is read.
func (b *recording) readNeighbours(ctx context.Context, tx pgx.Tx) error {
	var (
		late        = map[ledger.PersonID]*personTaps{}
		people      []int64
		since, till []time.Time
		widest      time.Duration
	)
	for _, p := range b.people {
		last := p.presence.last
		for _, i := range p.taps {
			p.line.steps = append(p.line.steps, newStep(b.taps[i]))
			p.late = p.late || (last.stored && !b.taps[i].At.After(last.at))
		}
		if !p.late {
			if last.stored {
				p.line.steps = append(p.line.steps, last)
			}
			continue
		}
		late[p.presence.person] = p
		width := reach(p.line.samePass)
		widest = max(widest, width)
		for _, i := range p.taps {
			people = append(people, int64(p.presence.person))
			since = append(since, b.taps[i].At.Add(-width))
			till = append(till, b.taps[i].At.Add(width))
		}
	}
	if len(late) == 0 {
		return nil
	}
	earliest, latest := slices.MinFunc(since, time.Time.Compare), slices.MaxFunc(till, time.Time.Compare)
	rows, err := tx.Query(ctx, neighbours, people, since, till, earliest, latest)
	if err != nil {
		return fmt.Errorf("read the neighbours of late passes: %w", err)
	}
	var (
		person ledger.PersonID
		s      = step{stored: true}
	)
	_, err = pgx.ForEachRow(rows, []any{
		&person, &s.event, &s.at, &s.direction, &s.building, &s.device, &s.merged, &s.suspected, &s.silent,
	}, func() error {
		late[person].line.steps = append(late[person].line.steps, s)
		return nil
	})
	if err != nil {
		return fmt.Errorf("read the neighbours of late passes: %w", err)
	}
	return nil
}

// The outer bounds, equal for all rows, let the planner leave out whole months.
// OFFSET 0 makes it look for each person by itself: joined as a whole, in a plan
// made while the tables are empty, all passes of the months were read once for
// each late one.
const neighbours = `
	SELECT DISTINCT t.person_id, p.event_id, p.at, p.direction, p.building_id, p.device_id,
	       p.merged, p.suspected, p.silent
	  FROM unnest($1::bigint[], $2::timestamptz[], $3::timestamptz[]) AS t (person_id, since, till)
	 CROSS JOIN LATERAL (
	       SELECT p.* FROM door.pass p
	        WHERE p.person_id = t.person_id AND p.at BETWEEN t.since AND t.till AND p.at BETWEEN $4 AND $5
	       OFFSET 0) p`

func newStep(t Tap) step {
	return step{
		event: t.Event, at: t.At, direction: t.Direction, building: t.Building, device: t.Device, silent: t.Silent,
	}
}

// settle decides on every person's line and folds the taps into presence.
func (b *recording) settle() {
	verdictOf := make(map[ledger.EventID]*Verdict, len(b.verdicts))
	for i := range b.verdicts {
		verdictOf[b.verdicts[i].Event] = &b.verdicts[i]
	}
	for _, p := range b.people {
		for _, i := range p.taps {
			p.presence.fold(newStep(b.taps[i]), p.organisation.Location)
		}
		changed, announce := p.line.settle()
		for _, i := range changed {
			b.changed = append(b.changed, p.line.steps[i])
		}
		for _, s := range p.line.steps {
			if !s.stored {
				v := verdictOf[s.event]
				v.Merged, v.Suspected = s.merged, s.suspected
			}
		}
		for _, i := range announce {
			s := p.line.steps[i]
			if !s.stored {
				verdictOf[s.event].Announced = true
			}
			b.passed.add(s.event, s.at)
		}
	}
	slices.Sort(b.passed.EventIDs)
}

func (p *Passed) add(event ledger.EventID, at time.Time) {
	if len(p.EventIDs) == 0 || at.Before(p.From) {
		p.From = at
	}
	if len(p.EventIDs) == 0 || at.After(p.To) {
		p.To = at
	}
	p.EventIDs = append(p.EventIDs, int64(event))
}

// write inserts the passes, writes presence and corrects neighbours, in one
// round trip.
func (b *recording) write(ctx context.Context, tx pgx.Tx, now time.Time) error {
	var batch pgx.Batch
	b.queuePasses(&batch)
	b.queuePresence(&batch)
	b.queueChanged(&batch)
	b.queueAlarms(&batch, now)
	if err := tx.SendBatch(ctx, &batch).Close(); err != nil {
		return fmt.Errorf("store %d passes: %w", len(b.taps), err)
	}
	return nil
}

func (b *recording) queuePasses(batch *pgx.Batch) {
	n := len(b.taps)
	var (
		events, people, organisations = make([]int64, n), make([]int64, n), make([]int64, n)
		buildings, devices, cards     = make([]int64, n), make([]int64, n), make([]int64, n)
		companions, admitters         = make([]int64, n), make([]int64, n)
		ats, raws, received           = make([]time.Time, n), make([]time.Time, n), make([]time.Time, n)
		directions, kinds             = make([]int16, n), make([]int16, n)
		merged, suspected             = make([]bool, n), make([]bool, n)
		silent                        = make([]bool, n)
	)
	for i, t := range b.taps {
		events[i], people[i], organisations[i] = int64(t.Event), int64(t.Person), int64(t.Organisation)
		buildings[i], devices[i], cards[i] = int64(t.Building), t.Device, int64(t.Card)
		companions[i], admitters[i] = int64(t.Companion), int64(t.AdmittedBy)
		ats[i], raws[i], received[i] = t.At, t.RawAt, t.ReceivedAt
		directions[i], kinds[i] = int16(t.Direction), int16(t.Kind)
		merged[i], suspected[i] = b.verdicts[i].Merged, b.verdicts[i].Suspected
		silent[i] = t.Silent
	}
	batch.Queue(`
		INSERT INTO door.pass (event_id, at, received_at, person_id, organisation_id, building_id, device_id,
		                       direction, kind, merged, suspected, inferred, silent,
		                       raw_at, card_id, companion_id, admitted_by)
		SELECT event_id, at, received_at, person_id, organisation_id, building_id, device_id,
		       direction, kind, merged, suspected, inferred, silent,
		       nullif(raw_at, at), nullif(card_id, 0), nullif(companion_id, 0), nullif(admitted_by, 0)
		  FROM unnest($1::bigint[], $2::timestamptz[], $3::timestamptz[], $4::bigint[], $5::bigint[], $6::bigint[],
		              $7::bigint[], $8::smallint[], $9::smallint[], $10::boolean[], $11::boolean[], $12::boolean[],
		              $13::boolean[], $14::timestamptz[], $15::bigint[], $16::bigint[], $17::bigint[])
		       AS t (event_id, at, received_at, person_id, organisation_id, building_id,
		             device_id, direction, kind, merged, suspected, inferred,
		             silent, raw_at, card_id, companion_id, admitted_by)`,
		events, ats, received, people, organisations, buildings,
		devices, directions, kinds, merged, suspected, b.inferred,
		silent, raws, cards, companions, admitters)
}

func (b *recording) queuePresence(batch *pgx.Batch) {
	n := len(b.people)
	var (
		people, buildings, devices = make([]int64, n), make([]int64, n), make([]int64, n)
		directions                 = make([]int16, n)
		lasts, days                = make([]time.Time, n), make([]time.Time, n)
		firsts, outs               = make([]*time.Time, n), make([]*time.Time, n)
	)
	for i, p := range b.people {
		s := &p.presence
		people[i], buildings[i], devices[i] = int64(s.person), int64(s.last.building), s.last.device
		directions[i], lasts[i], days[i] = int16(s.last.direction), s.last.at, s.day
		firsts[i], outs[i] = orNull(s.firstIn), orNull(s.lastOut)
	}
	batch.Queue(`
		UPDATE door.presence p
		   SET last_at = t.last_at, last_direction = t.last_direction, last_building_id = t.last_building_id,
		       last_device_id = t.last_device_id, day = t.day, day_first_in = t.day_first_in,
		       day_last_out = t.day_last_out
		  FROM unnest($1::bigint[], $2::timestamptz[], $3::smallint[], $4::bigint[], $5::bigint[], $6::date[],
		              $7::timestamptz[], $8::timestamptz[])
		       AS t (person_id, last_at, last_direction, last_building_id, last_device_id, day,
		             day_first_in, day_last_out)
		 WHERE p.person_id = t.person_id`,
		people, lasts, directions, buildings, devices, days, firsts, outs)
}

func (b *recording) queueChanged(batch *pgx.Batch) {
	if len(b.changed) == 0 {
		return
	}
	n := len(b.changed)
	events, ats, merged, suspected := make([]int64, n), make([]time.Time, n), make([]bool, n), make([]bool, n)
	for i, s := range b.changed {
		events[i], ats[i], merged[i], suspected[i] = int64(s.event), s.at, s.merged, s.suspected
	}
	batch.Queue(`
		UPDATE door.pass p
		   SET merged = t.merged, suspected = t.suspected
		  FROM unnest($1::bigint[], $2::timestamptz[], $3::boolean[], $4::boolean[]) AS t (event_id, at, merged, suspected)
		 WHERE p.event_id = t.event_id AND p.at = t.at AND p.at BETWEEN $5 AND $6`,
		events, ats, merged, suspected,
		slices.MinFunc(ats, time.Time.Compare), slices.MaxFunc(ats, time.Time.Compare))
}

// ruleBook keeps organisations' settings for a while. It is safe for use by
// several goroutines.
type ruleBook struct {
	mu    sync.Mutex
	known map[ledger.OrganisationID]rules
}

// rules are the settings of an organisation as they were read.
type rules struct {
	*ledger.Organisation
	readAt time.Time
}

// of returns the settings of the organisations, and reads those it does not know.
func (b *ruleBook) of(
	ctx context.Context, q pg.Querier, organisations []ledger.OrganisationID, now time.Time,
) (map[ledger.OrganisationID]*ledger.Organisation, error) {
	found := make(map[ledger.OrganisationID]*ledger.Organisation, 1)
	var unknown []ledger.OrganisationID
	b.mu.Lock()
	for _, id := range organisations {
		if _, seen := found[id]; seen {
			continue
		}
		if r, ok := b.known[id]; ok && now.Sub(r.readAt).Abs() < rulesLife {
			found[id] = r.Organisation
		} else {
			found[id] = nil
			unknown = append(unknown, id)
		}
	}
	b.mu.Unlock()
	if len(unknown) == 0 {
		return found, nil
	}
	read, err := ledger.Organisations(ctx, q, unknown)
	if err != nil {
		return nil, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, id := range unknown {
		o, ok := read[id]
		if !ok {
			return nil, fmt.Errorf("there is no organisation %d", id)
		}
		found[id] = &o
		b.known[id] = rules{&o, now}
	}
	return found, nil
}
