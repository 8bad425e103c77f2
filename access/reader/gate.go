package reader

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"zvonok/ledger"
)

// gateKey names an event of a device for ever.
type gateKey struct {
	device DeviceID
	seq    int64
}

func (k gateKey) compare(other gateKey) int {
	return cmp.Or(cmp.Compare(k.device, other.device), cmp.Compare(k.seq, other.seq))
}

func (f *fact) key() gateKey { return gateKey{f.device.ID, f.seq} }

// sold names the sale that a reversal takes back.
func (f *fact) sold() gateKey { return gateKey{f.device.ID, f.of} }

// gateState is the state of an event, as it is stored.
type gateState int16

const (
	acknowledgedState gateState = 1
	rejectedState     gateState = 2
	cancelledState    gateState = 3
)

// String names the state as people read it.
func (s gateState) String() string {
	return [...]string{"", "acknowledged", "rejected", "cancelled"}[s]
}

// gateEntry is a row of reader.event.
type gateEntry struct {
	gateKey
	event        eventType
	state        gateState
	hash         []byte // nil: reserved by a reversal, not arrived
	at, received time.Time
	revoked      bool // kept although the device's key is revoked
}

// passedBefore is what the gate knows of a number that was used before.
type passedBefore struct {
	id            ledger.EventID
	event         eventType
	state         gateState
	hash          []byte
	code, message string // of a rejected one
	revoked       bool   // the device's key is not valid any more
	found         bool
}

// errAgain is a transaction that another one has overtaken.
var errAgain = errors.New("another transaction was faster")

// gate lets each number of each device through once. It fills s.fresh with the
// facts that happen now and answers the others as they were answered before.
//
// A reversal reserves the number of its sale as well. When the sale has come the
// number is taken, and nothing happens here. When it has not, the number is
// marked: the sale will be noted and not booked when it comes. Two transactions,
// one with the sale and one with its reversal, meet at that row, so neither can
// miss the other.
//
// All numbers are inserted in the order of their keys and before anything else
// is locked, so transactions wait for each other here and do not deadlock.
func (s *storing) gate(ctx context.Context, tx pgx.Tx) error {
	s.first = make(map[gateKey]int, len(s.facts))
	s.ids = make(map[int]ledger.EventID, len(s.facts))
	entries := make([]gateEntry, 0, len(s.facts))
	for i, f := range s.facts {
		if _, seen := s.first[f.key()]; !seen {
			s.first[f.key()] = i
			entries = append(entries, s.entry(i))
		}
	}
	reversals := s.reversals()
	for key, by := range reversals {
		f := s.facts[by[0]]
		entries = append(entries, gateEntry{
			gateKey: key, event: saleEvent, state: cancelledState, at: f.at, received: f.receivedAt,
		})
	}
	sortEntries(entries)
	inserted, err := insertEvents(ctx, tx, entries)
	if err != nil {
		return err
	}
	var taken []gateKey
	for _, e := range entries {
		id, isNew := inserted[e.gateKey]
		switch i, here := s.first[e.gateKey]; {
		case !isNew:
			taken = append(taken, e.gateKey)
		case here:
			s.begin(i, id)
		}
	}
	if len(taken) > 0 {
		if s.past, err = readPast(ctx, tx, taken); err != nil {
			return err
		}
		if err := s.answerPast(ctx, tx); err != nil {
			return err
		}
	}
	return s.settleReservations(ctx, tx, reversals, inserted)
}

// reversals lists the reversals of sales that are not in this batch, by the
// numbers of the sales.
func (s *storing) reversals() map[gateKey][]int {
	var reversals map[gateKey][]int
	for i, f := range s.facts {
		if f.event != reversalEvent || !s.fine(i) || s.first[f.key()] != i {
			continue
		}
		if _, here := s.first[f.sold()]; here {
			continue
		}
		if reversals == nil {
			reversals = map[gateKey][]int{}
		}
		reversals[f.sold()] = append(reversals[f.sold()], i)
	}
	return reversals
}

// settleReservations decides which reversal a new reservation belongs to. One
// made by a reversal that turned out to have another content than its number had
// before is taken back: it must not cancel a sale.
func (s *storing) settleReservations(
	ctx context.Context, tx pgx.Tx, reversals map[gateKey][]int, inserted map[gateKey]ledger.EventID,
) error {
	var devices, seqs []int64
	for key, by := range reversals {
		if _, reserved := inserted[key]; !reserved {
			continue
		}
		wanted := false
		for _, i := range by {
			switch {
			case s.ids[i] == 0: // not a fresh one
			case wanted:
				s.reject(i, AlreadyReversed, "of: the sale has been reversed before")
			default:
				wanted, s.early[i] = true, true
			}
		}
		if !wanted {
			devices, seqs = append(devices, int64(key.device)), append(seqs, key.seq)
		}
	}
	if len(devices) == 0 {
		return nil
	}
	_, err := tx.Exec(ctx, `
		DELETE FROM reader.event e
		 USING unnest($1::bigint[], $2::bigint[]) AS t (device_id, seq)
		 WHERE e.device_id = t.device_id AND e.seq = t.seq AND e.body_hash IS NULL`, devices, seqs)
	if err != nil {
		return fmt.Errorf("take back the reservations of mistaken reversals: %w", err)
	}
	return nil
}

// begin notes that a fact happens now.
func (s *storing) begin(i int, id ledger.EventID) {
	s.fresh = append(s.fresh, i)
	s.ids[i] = id
	if s.fine(i) {
		s.results[i].kind = resultAcknowledged
	}
}

func (s *storing) entry(i int) gateEntry {
	f := s.facts[i]
	e := gateEntry{
		gateKey: f.key(), event: f.event, state: acknowledgedState, hash: f.hash[:], at: f.at, received: f.receivedAt,
	}
	if !s.fine(i) {
		e.state = rejectedState
	}
	e.revoked = f.rejection.Code == DeviceRevoked
	return e
}

// sortEntries puts entries into the order in which they are locked.
func sortEntries(entries []gateEntry) {
	slices.SortFunc(entries, func(a, b gateEntry) int { return a.compare(b.gateKey) })
}

// insertEvents inserts what is not there yet, of devices whose key is valid or
// that is to be kept in spite of it, and returns the ids of what it inserted.
func insertEvents(ctx context.Context, tx pgx.Tx, entries []gateEntry) (map[gateKey]ledger.EventID, error) {
	c := columnsOf(entries)
	rows, err := tx.Query(ctx, `
		INSERT INTO reader.event (device_id, seq, event_id, at, received_at, type, state, body_hash)
		SELECT t.device_id, t.seq, nextval('ledger.event_id'), t.at, t.received_at, t.type, t.state, t.body_hash
		  FROM unnest($1::bigint[], $2::bigint[], $3::timestamptz[], $4::timestamptz[], $5::smallint[],
		              $6::smallint[], $7::bytea[], $8::boolean[])
		       AS t (device_id, seq, at, received_at, type, state, body_hash, revoked)
		  JOIN reader.device d ON d.id = t.device_id AND (d.revoked_at IS NULL OR t.revoked)
		 ORDER BY t.device_id, t.seq
		    ON CONFLICT (device_id, seq) DO NOTHING
		RETURNING device_id, seq, event_id`, c.devices, c.seqs, c.ats, c.received, c.types, c.states, c.hashes, c.revoked)
	if err != nil {
		return nil, fmt.Errorf("pass events through the gate: %w", err)
	}
	var (
		inserted = make(map[gateKey]ledger.EventID, len(entries))
		key      gateKey
		id       ledger.EventID
	)
	_, err = pgx.ForEachRow(rows, []any{&key.device, &key.seq, &id}, func() error {
		inserted[key] = id
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("pass events through the gate: %w", err)
	}
	return inserted, nil
}

// gateColumns are entries as parameters of a statement.
type gateColumns struct {
	devices, seqs []int64
	ats, received []time.Time
	types, states []int16
	hashes        [][]byte
	revoked       []bool
}

func columnsOf(entries []gateEntry) gateColumns {
	n := len(entries)
	c := gateColumns{
		devices: make([]int64, n), seqs: make([]int64, n), ats: make([]time.Time, n), received: make([]time.Time, n),
		types: make([]int16, n), states: make([]int16, n), hashes: make([][]byte, n), revoked: make([]bool, n),
	}
	for i, e := range entries {
		c.devices[i], c.seqs[i], c.ats[i], c.received[i] = int64(e.device), e.seq, e.at, e.received
		c.types[i], c.states[i], c.hashes[i] = int16(e.event), int16(e.state), e.hash
		c.revoked[i] = e.revoked
	}
	return c
}

// readPast reads what the gate knows of numbers.
func readPast(ctx context.Context, tx pgx.Tx, keys []gateKey) (map[gateKey]passedBefore, error) {
	devices, seqs := make([]int64, len(keys)), make([]int64, len(keys))
	for i, key := range keys {
		devices[i], seqs[i] = int64(key.device), key.seq
	}
	rows, err := tx.Query(ctx, `
		SELECT t.device_id, t.seq, d.revoked_at IS NOT NULL, e.event_id IS NOT NULL,
		       coalesce(e.event_id, 0), coalesce(e.type, 0), coalesce(e.state, 0), e.body_hash,
		       coalesce(q.code, ''), coalesce(q.message, '')
		  FROM unnest($1::bigint[], $2::bigint[]) AS t (device_id, seq)
		  JOIN reader.device d ON d.id = t.device_id
		  LEFT JOIN reader.event e ON e.device_id = t.device_id AND e.seq = t.seq
		  LEFT JOIN reader.quarantine q ON q.event_id = e.event_id AND e.state = 2`, devices, seqs)
	if err != nil {
		return nil, fmt.Errorf("read what the gate knows: %w", err)
	}
	var (
		past = make(map[gateKey]passedBefore, len(keys))
		key  gateKey
		p    passedBefore
	)
	_, err = pgx.ForEachRow(rows, []any{
		&key.device, &key.seq, &p.revoked, &p.found, &p.id, &p.event, &p.state, &p.hash, &p.code, &p.message,
	}, func() error {
		past[key] = p
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read what the gate knows: %w", err)
	}
	return past, nil
}

// answerPast answers facts whose numbers were used before this batch.
func (s *storing) answerPast(ctx context.Context, tx pgx.Tx) error {
	var arrived []int
	for i, f := range s.facts {
		before, used := s.past[f.key()]
		switch {
		case !used:
		case before.revoked && f.rejection.Code != DeviceRevoked:
			s.results[i] = result{revoked: true}
		case !before.found:
			return fmt.Errorf("event %d of device %d is neither new nor known: %w", f.seq, f.device.ID, errAgain)
		case before.state == cancelledState && before.hash == nil:
			if s.first[f.key()] == i {
				arrived = append(arrived, i)
			}
		case !bytes.Equal(before.hash, f.hash[:]):
			s.conflict(i)
		case before.state == rejectedState:
			s.results[i] = result{
				kind: resultRepeated, rejection: Rejection{Seq: f.seq, Code: Code(before.code), Message: before.message},
			}
		default:
			s.results[i] = result{kind: resultRepeated}
		}
	}
	return s.arrive(ctx, tx, arrived)
}

// arrive takes in facts whose numbers a reversal has reserved. A sale that comes
// after its reversal is noted and not booked. Anything else was named by a
// mistaken reversal, and happens as if it had not been.
func (s *storing) arrive(ctx context.Context, tx pgx.Tx, arrived []int) error {
	if len(arrived) == 0 {
		return nil
	}
	entries := make([]gateEntry, len(arrived))
	for k, i := range arrived {
		f := s.facts[i]
		if f.event == saleEvent {
			s.results[i] = result{kind: resultAcknowledged}
		} else {
			s.begin(i, s.past[f.key()].id)
		}
		entries[k] = s.entry(i)
		if f.event == saleEvent {
			entries[k].state = cancelledState
		}
		delete(s.past, f.key())
	}
	sortEntries(entries)
	c := columnsOf(entries)
	tag, err := tx.Exec(ctx, `
		UPDATE reader.event e
		   SET at = t.at, received_at = t.received_at, type = t.type, state = t.state, body_hash = t.body_hash
		  FROM unnest($1::bigint[], $2::bigint[], $3::timestamptz[], $4::timestamptz[], $5::smallint[],
		              $6::smallint[], $7::bytea[])
		       AS t (device_id, seq, at, received_at, type, state, body_hash)
		 WHERE e.device_id = t.device_id AND e.seq = t.seq AND e.body_hash IS NULL`,
		c.devices, c.seqs, c.ats, c.received, c.types, c.states, c.hashes)
	if err != nil {
		return fmt.Errorf("take in events that were reversed before: %w", err)
	}
	if tag.RowsAffected() != int64(len(entries)) {
		return errAgain
	}
	return nil
}

// conflict notes that a number was used for another content.
func (s *storing) conflict(i int) {
	s.results[i] = result{kind: resultConflict, rejection: Rejection{
		Seq: s.facts[i].seq, Code: Conflict,
		Message: "the number was used for another event, which stays; after a reset of its counter a device needs a new key",
	}}
}

// answerDuplicates answers facts whose number stands earlier in the same batch,
// when it is known what became of that one.
func (s *storing) answerDuplicates() {
	for i, f := range s.facts {
		j := s.first[f.key()]
		if _, used := s.past[f.key()]; i == j || used {
			continue
		}
		if f.hash != s.facts[j].hash {
			s.conflict(i)
			continue
		}
		s.results[i] = result{kind: resultRepeated, rejection: s.results[j].rejection, revoked: s.results[j].revoked}
	}
}

// keepRejected puts rejected facts into quarantine and conflicts beside it.
func (s *storing) keepRejected(ctx context.Context, tx pgx.Tx) error {
	var batch pgx.Batch
	s.queueQuarantine(&batch)
	s.queueConflicts(&batch)
	if batch.Len() == 0 {
		return nil
	}
	if err := tx.SendBatch(ctx, &batch).Close(); err != nil {
		return fmt.Errorf("keep rejected events: %w", err)
	}
	return nil
}

func (s *storing) queueQuarantine(batch *pgx.Batch) {
	var (
		ids, devices, seqs      []int64
		types, messages, bodies []string
		received                []time.Time
	)
	for _, i := range s.fresh {
		if s.fine(i) {
			continue
		}
		f, r := s.facts[i], s.results[i].rejection
		ids, devices, seqs = append(ids, int64(s.ids[i])), append(devices, int64(f.device.ID)), append(seqs, f.seq)
		types, messages = append(types, string(r.Code)), append(messages, r.Message)
		bodies, received = append(bodies, string(f.raw)), append(received, f.receivedAt)
	}
	if len(ids) == 0 {
		return
	}
	batch.Queue(`
		INSERT INTO reader.quarantine (event_id, device_id, seq, code, message, body, received_at)
		SELECT event_id, device_id, seq, code, message, body::json, received_at
		  FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::text[], $5::text[], $6::text[], $7::timestamptz[])
		       AS t (event_id, device_id, seq, code, message, body, received_at)`,
		ids, devices, seqs, types, messages, bodies, received)
	// Most stand so already; those that the books refused do not.
	batch.Queue(`
		UPDATE reader.event e
		   SET state = 2
		  FROM unnest($1::bigint[], $2::bigint[]) AS t (device_id, seq)
		 WHERE e.device_id = t.device_id AND e.seq = t.seq AND e.state <> 2`, devices, seqs)
}

func (s *storing) queueConflicts(batch *pgx.Batch) {
	var (
		devices, seqs []int64
		hashes        [][]byte
		bodies        []string
		received      []time.Time
	)
	for i, f := range s.facts {
		if s.results[i].kind != resultConflict {
			continue
		}
		devices, seqs = append(devices, int64(f.device.ID)), append(seqs, f.seq)
		hashes, bodies = append(hashes, f.hash[:]), append(bodies, string(f.raw))
		received = append(received, f.receivedAt)
	}
	if len(devices) == 0 {
		return
	}
	batch.Queue(`
		INSERT INTO reader.conflict (device_id, seq, body_hash, body, received_at)
		SELECT device_id, seq, body_hash, body::json, received_at
		  FROM unnest($1::bigint[], $2::bigint[], $3::bytea[], $4::text[], $5::timestamptz[])
		       AS t (device_id, seq, body_hash, body, received_at)
		 ORDER BY device_id, seq, body_hash
		    ON CONFLICT DO NOTHING`, devices, seqs, hashes, bodies, received)
}
