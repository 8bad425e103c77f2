package ledger

import (
	"context"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"zvonok/ledger/money"
)

// maxKeyLength bounds both parts of an id, in bytes: a bank's id has 20 digits,
// a device's seq 19.
const maxKeyLength = 64

// easternmost is how far ahead of UTC a clock on the wall can be.
const easternmost = 14 * time.Hour

// Mode tells how a debit came about.
type Mode string

// The modes. An offline debit is forced: it was served already and is booked
// whatever the balance (D11).
const (
	Online  Mode = "online"
	Offline Mode = "offline"
)

// Key is the outside identity of a posting: the id that its source gave it.
// Neither part is empty or longer than 64 bytes.
type Key struct {
	// Source is who gives the ids, such as "bank/mkb" or "till/17".
	Source string
	// ExternalID is the id, unique within the source.
	ExternalID string
}

// Entry asks for one posting.
type Entry struct {
	// Event is the fact this posting is a part of; several entries of one
	// transaction may share it.
	Event EventID
	Kind  Kind
	// Debit and Credit are the accounts the money goes from and to. A Reversal
	// leaves them zero: they are those of the original, swapped.
	Debit, Credit AccountID
	// Amount is above zero. A Reversal may leave it zero for the whole original.
	Amount money.Amount
	// Source and ExternalID are the id under which it is booked once.
	Source, ExternalID string
	// Mode is Online when empty.
	Mode Mode
	// OccurredAt is when it happened, as the source says.
	OccurredAt time.Time
	// Day is the accounting day it belongs to, of which only the date counts;
	// when zero, the day of OccurredAt in the book's zone. A day that has not
	// begun anywhere becomes the latest that has, a closed one the first open day.
	Day time.Time
	// Subject is the person it is about when no leg is a wallet; otherwise zero.
	Subject PersonID
	// Reverses is the id of the posting that a Reversal takes back.
	Reverses Key
}

// Code is the outcome of one entry.
type Code string

// The outcomes.
const (
	// CodePosted: booked now.
	CodePosted Code = "posted"
	// CodeDuplicate: the same was booked under this id before; the verdict is the first one's.
	CodeDuplicate Code = "duplicate"
	// CodeConflict: something else was booked under this id.
	CodeConflict Code = "conflict"
	// CodeCancelled: the id was cancelled before it came.
	CodeCancelled Code = "cancelled"
	// CodeRefused: the wallet has not enough. The id stays refused.
	CodeRefused Code = "refused"
	// CodeOverReversed: less than this is left of the original to take back. The id stays refused.
	CodeOverReversed Code = "over_reversed"
	// CodeUnknownAccount: one of the accounts does not exist.
	CodeUnknownAccount Code = "unknown_account"
	// CodeClosedAccount: the wallet is closed for this.
	CodeClosedAccount Code = "closed_account"
	// CodeBadLegs: this kind does not go between these accounts, or may not be forced.
	CodeBadLegs Code = "bad_legs"
	// CodeBadAmount: not above zero, or outside the limits of the kind.
	CodeBadAmount Code = "bad_amount"
	// CodeNoOriginal: there is no posting to reverse under that id.
	CodeNoOriginal Code = "no_original"
	// CodeNotReversible: the original is itself a reversal.
	CodeNotReversible Code = "not_reversible"
)

// Codes returns all outcomes.
func Codes() []Code {
	return []Code{
		CodePosted, CodeDuplicate, CodeConflict, CodeCancelled, CodeRefused, CodeOverReversed, CodeUnknownAccount,
		CodeClosedAccount, CodeBadLegs, CodeBadAmount, CodeNoOriginal, CodeNotReversible,
	}
}

// Verdict answers an Entry.
type Verdict struct {
	Code Code
	// Posting is the posting, of CodePosted and CodeDuplicate; of other codes 0
	// or the number the id was given.
	Posting PostingID
	// Event is the fact under which it was booked: that of the entry or, for a
	// duplicate, of the first.
	Event EventID
	// Day is the accounting day it was booked on, at midnight UTC.
	Day time.Time
	// DebitAfter and CreditAfter are the balances of the legs that are wallets,
	// just after this posting; zero for other accounts.
	DebitAfter, CreditAfter money.Amount
}

// Booked tells whether the entry is in the book, by this call or an earlier one.
func (v Verdict) Booked() bool { return v.Code == CodePosted || v.Code == CodeDuplicate }

// Post books entries and returns a verdict for each, in order. It announces the
// top-ups, corrections and crossings among them in the same transaction.
//
// An error means that nothing was booked and the transaction is lost: a key
// that is empty or too long, or the database. Transactions that call Post once
// cannot deadlock with each other; one that moves money by several calls first
// locks its wallets by LockWallets, or is repeated after a deadlock.
func (b *Book) Post(ctx context.Context, tx pgx.Tx, entries []Entry) ([]Verdict, error) {
	if len(entries) == 0 {
		return nil, nil
	}
	query, args, err := b.call(entries)
	if err != nil {
		return nil, err
	}
	began := time.Now()
	rows, err := tx.Query(ctx, query, args...)
	if err != nil {
		b.Metrics.called(len(entries), time.Since(began), err)
		return nil, fmt.Errorf("post %d entries: %w", len(entries), err)
	}
	outcome, err := readOutcome(rows, entries)
	b.Metrics.called(len(entries), time.Since(began), err)
	if err != nil {
		return nil, err
	}
	if len(outcome.posted.EventIDs) > 0 {
		if err := b.announce(ctx, tx, outcome.posted); err != nil {
			return nil, err
		}
	}
	if len(outcome.crossed.EventIDs) > 0 {
		if err := b.announce(ctx, tx, outcome.crossed); err != nil {
			return nil, err
		}
	}
	b.Metrics.count(entries, outcome.verdicts, len(outcome.crossed.EventIDs))
	b.Metrics.waited(outcome.waited)
	return outcome.verdicts, nil
}

// outcome is what the database says of a call.
type outcome struct {
	verdicts []Verdict
	posted   Posted  // to be announced unless empty
	crossed  Crossed // likewise
	waited   float64 // seconds, for the locks of wallets and days
}

func readOutcome(rows pgx.Rows, entries []Entry) (outcome, error) {
	o := outcome{verdicts: make([]Verdict, len(entries))}
	read := o.readBatch
	if isStraight(entries) {
		read = o.readOne
	}
	if err := read(rows); err != nil {
		return o, fmt.Errorf("post %d entries: %w", len(entries), err)
	}
	return o, nil
}

// readOne reads the answer of ledger.post_one.
func (o *outcome) readOne(rows pgx.Rows) error {
	var code Code
	var posting, event, debitAfter, creditAfter *int64
	var day *time.Time
	var told bool
	_, err := pgx.ForEachRow(rows, []any{
		&code, &posting, &event, &day, &debitAfter, &creditAfter, &told, &o.crossed.EventIDs, &o.waited,
	}, func() error {
		o.set(0, Verdict{
			Code: code, Posting: PostingID(orZero(posting)), Event: EventID(orZero(event)), Day: orZero(day),
			DebitAfter: money.Amount(orZero(debitAfter)), CreditAfter: money.Amount(orZero(creditAfter)),
		}, told)
		return nil
	})
	return err
}

// readBatch reads the answer of ledger.post_batch.
func (o *outcome) readBatch(rows pgx.Rows) error {
	var places []int32
	var codes []string
	var postings, events, debitsAfter, creditsAfter, crossings []int64
	var days []pgtype.Date
	var told []bool
	_, err := pgx.ForEachRow(rows, []any{
		&places, &codes, &postings, &events, &days, &debitsAfter, &creditsAfter, &told, &crossings, &o.waited,
	}, func() error {
		for i, place := range places {
			o.set(int(place-1), Verdict{
				Code: Code(codes[i]), Posting: PostingID(postings[i]), Event: EventID(events[i]), Day: days[i].Time,
				DebitAfter: money.Amount(debitsAfter[i]), CreditAfter: money.Amount(creditsAfter[i]),
			}, told[i])
		}
		o.crossed.EventIDs = append(o.crossed.EventIDs, crossings...)
		return nil
	})
	return err
}

// set notes the verdict of the entry in place i; told is whether it is of a kind
// that people are told of.
func (o *outcome) set(i int, v Verdict, told bool) {
	o.verdicts[i] = v
	if v.Code == CodePosted && told {
		o.posted.add(&v)
	}
}

// check refuses an id that could not be stored. It is the program's mistake, or
// that of whoever let foreign text through.
func (k Key) check() error {
	for _, part := range [...]string{k.Source, k.ExternalID} {
		if part == "" || len(part) > maxKeyLength || !utf8.ValidString(part) || strings.IndexByte(part, 0) >= 0 {
			return fmt.Errorf("the id %q of %q: both parts must be text of 1 to %d bytes", k.ExternalID, k.Source, maxKeyLength)
		}
	}
	return nil
}

// day returns the accounting day that an entry belongs to.
func (b *Book) day(e *Entry, latest time.Time) time.Time {
	day := e.Day
	if day.IsZero() {
		day = e.OccurredAt.In(b.Zone)
	}
	day = dateOf(day)
	if day.After(latest) {
		return latest
	}
	return day
}

// latestDay returns the latest date there is anywhere now.
func (b *Book) latestDay() time.Time { return dateOf(b.Now().UTC().Add(easternmost)) }

// dateOf returns the date of t, at midnight UTC.
func dateOf(t time.Time) time.Time {
	return time.Date(t.Year(), t.Month(), t.Day(), 0, 0, 0, 0, time.UTC)
}

func (p *Posted) add(v *Verdict) {
	p.EventIDs = append(p.EventIDs, int64(v.Event))
	if p.From.IsZero() || v.Day.Before(p.From) {
		p.From = v.Day
	}
	if v.Day.After(p.To) {
		p.To = v.Day
	}
}

// isStraight tells whether ledger.post_one books entries: a single one, and no reversal.
func isStraight(entries []Entry) bool { return len(entries) == 1 && entries[0].Kind != Reversal }

// call makes the statement that posts entries: the straight one for a single
// entry, that for batches otherwise.
func (b *Book) call(entries []Entry) (query string, args []any, err error) {
	for i := range entries {
		if err := (Key{entries[i].Source, entries[i].ExternalID}).check(); err != nil {
			return "", nil, fmt.Errorf("post entry %d of %d: %w", i+1, len(entries), err)
		}
	}
	latest := b.latestDay()
	if isStraight(entries) {
		e := &entries[0]
		return `SELECT * FROM ledger.post_one($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)`, []any{
			int64(e.Event), string(e.Kind), int64(e.Debit), int64(e.Credit), int64(e.Amount), e.Source, e.ExternalID,
			e.Mode == Offline, e.OccurredAt, b.day(e, latest), orNull(e.Subject),
		}, nil
	}
	n := len(entries)
	numbers := make([]int64, 4*n) // one allocation for four columns
	events, debits, credits, amounts := numbers[:n:n], numbers[n:2*n:2*n], numbers[2*n:3*n:3*n], numbers[3*n:]
	texts := make([]string, 3*n)
	kinds, sources, ids := texts[:n:n], texts[n:2*n:2*n], texts[2*n:]
	times := make([]time.Time, 2*n)
	occurred, days := times[:n:n], times[n:]
	forced := make([]bool, n)
	subjects := make([]*int64, n)
	var ofSources, ofIDs []*string
	for i := range entries {
		e := &entries[i]
		events[i], debits[i], credits[i], amounts[i] = int64(e.Event), int64(e.Debit), int64(e.Credit), int64(e.Amount)
		kinds[i], sources[i], ids[i] = string(e.Kind), e.Source, e.ExternalID
		forced[i], occurred[i], days[i] = e.Mode == Offline, e.OccurredAt, b.day(e, latest)
		subjects[i] = orNull(e.Subject)
		if e.Kind == Reversal {
			if ofIDs == nil {
				ofSources, ofIDs = make([]*string, n), make([]*string, n)
			}
			ofSources[i], ofIDs[i] = &e.Reverses.Source, &e.Reverses.ExternalID
		}
	}
	return `SELECT * FROM ledger.post_batch($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)`, []any{
		events, kinds, debits, credits, amounts, sources, ids, forced, occurred, days, subjects, ofSources, ofIDs,
	}, nil
}

func orNull(id PersonID) *int64 {
	if id == 0 {
		return nil
	}
	number := int64(id)
	return &number
}

func orZero[T any](p *T) T {
	if p == nil {
		var zero T
		return zero
	}
	return *p
}

// Cancel makes sure that nothing will ever be booked under the ids: for a till
// that timed out and does not know whether its sale arrived. It returns, per
// key and in order, the posting that had been booked before, which the caller
// may reverse, or 0; what comes later under a cancelled id is refused.
func (b *Book) Cancel(ctx context.Context, tx pgx.Tx, keys []Key) ([]PostingID, error) {
	sources, ids := make([]string, len(keys)), make([]string, len(keys))
	for i, k := range keys {
		if err := k.check(); err != nil {
			return nil, fmt.Errorf("cancel: %w", err)
		}
		sources[i], ids[i] = k.Source, k.ExternalID
	}
	rows, err := tx.Query(ctx, `SELECT ord, coalesce(posting_id, 0) FROM ledger.cancel_ids($1, $2)`, sources, ids)
	if err != nil {
		return nil, fmt.Errorf("cancel: %w", err)
	}
	booked := make([]PostingID, len(keys))
	var place int
	var posting PostingID
	if _, err := pgx.ForEachRow(rows, []any{&place, &posting}, func() error {
		booked[place-1] = posting
		return nil
	}); err != nil {
		return nil, fmt.Errorf("cancel: %w", err)
	}
	return booked, nil
}
