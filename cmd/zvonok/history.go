package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"

	"zvonok/access"
	"zvonok/access/door"
	"zvonok/ledger"
	"zvonok/ledger/money"
)

// history is what an invented city has behind it: money on the accounts and passes of days gone by. The same seed
// makes the same history of the same city. Passes of past days are no news: nobody is told of them.
type history struct {
	Days    int          // before today
	Balance money.Amount // what every pupil's account begins with
	Seed    uint64
}

// Of a history.
const (
	absentOf     = 10               // one pupil in so many does not come on a day
	postAtOnce   = 5000             // entries a call
	arrivalFrom  = 7*60 + 50        // minutes after midnight
	arrivalSpan  = 45 * time.Minute // within which all come
	leavingFrom  = 13*60 + 10
	leavingSpan  = 2 * time.Hour
	historyZone  = "Europe/Moscow"
	historyActor = "history" // the source of what is booked
)

// make makes the history of a city that was just imported, in one transaction. Say hears of the progress.
func (h history) make(
	ctx context.Context, pool *pgxpool.Pool, jobs *river.Client[pgx.Tx], now time.Time, say func(string),
) error {
	return pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
		// A day of a city is one COPY, and one may be watching on a slow machine.
		if _, err := tx.Exec(ctx, `SET LOCAL statement_timeout = 0`); err != nil {
			return fmt.Errorf("make a history: %w", err)
		}
		pupils, err := pupilsOf(ctx, tx)
		if err != nil {
			return err
		}
		if h.Balance > 0 {
			say(fmt.Sprintf("money on %d accounts", len(pupils)))
			if err := h.fund(ctx, tx, ledger.NewBook(jobs), pupils, now); err != nil {
				return err
			}
		}
		return h.pass(ctx, tx, door.NewRecorder(jobs), pupils, now, say)
	})
}

// historyPupil is a pupil as the history needs it.
type historyPupil struct {
	person       ledger.PersonID
	account      ledger.AccountID
	organisation ledger.OrganisationID
	building     ledger.BuildingID
	companion    access.RepresentativeID // who leads a child of a kindergarten; 0 of all others
}

// pupilsOf reads the pupils with an account. Children of kindergartens are those with a companion.
func pupilsOf(ctx context.Context, tx pgx.Tx) ([]historyPupil, error) {
	rows, err := tx.Query(ctx, `
		SELECT p.id, a.id, p.organisation_id, b.id, coalesce(g.id, 0)
		  FROM ledger.person p
		  JOIN ledger.account a ON a.person_id = p.id
		  JOIN ledger.organisation o ON o.id = p.organisation_id
		  JOIN (SELECT organisation_id, min(id) AS id FROM ledger.building GROUP BY organisation_id) b
		    ON b.organisation_id = p.organisation_id
		  LEFT JOIN (SELECT child_id, min(representative_id) AS id FROM access.guardian WHERE companion GROUP BY child_id) g
		    ON g.child_id = p.id AND o.kind = 'kindergarten'
		 WHERE p.kind = 'pupil' AND (o.kind <> 'kindergarten' OR g.id IS NOT NULL)
		 ORDER BY p.id`)
	if err != nil {
		return nil, fmt.Errorf("list the pupils: %w", err)
	}
	pupils, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (historyPupil, error) {
		var p historyPupil
		err := row.Scan(&p.person, &p.account, &p.organisation, &p.building, &p.companion)
		return p, err
	})
	if err != nil {
		return nil, fmt.Errorf("list the pupils: %w", err)
	}
	return pupils, nil
}

// fund gives every pupil the same money, booked as corrections on the day before the history begins.
func (h history) fund(ctx context.Context, tx pgx.Tx, book *ledger.Book, pupils []historyPupil, now time.Time) error {
	from, err := ledger.SystemAccounts(ctx, tx, ledger.SystemAccount{Kind: ledger.WriteOff})
	if err != nil {
		return err
	}
	for part := range slices.Chunk(pupils, postAtOnce) {
		ids, err := ledger.NextEventIDs(ctx, tx, len(part))
		if err != nil {
			return err
		}
		entries := make([]ledger.Entry, len(part))
		for i, p := range part {
			entries[i] = ledger.Entry{
				Event: ids[i], Kind: ledger.Correction, Debit: from[0], Credit: p.account, Amount: h.Balance,
				Source: historyActor, ExternalID: fmt.Sprintf("start-%d", p.person), OccurredAt: now.AddDate(0, 0, -h.Days),
			}
		}
		if _, err := book.Post(ctx, tx, entries); err != nil {
			return err
		}
	}
	return nil
}

// pass lets the pupils come and go on every working day.
func (h history) pass(
	ctx context.Context, tx pgx.Tx, recorder *door.Recorder, pupils []historyPupil, now time.Time, say func(string),
) error {
	zone, err := time.LoadLocation(historyZone)
	if err != nil {
		return fmt.Errorf("make a history: %w", err)
	}
	fill := recorder.Backfill(tx, now)
	total, month := 0, time.Month(0)
	for ago := h.Days; ago >= 1; ago-- {
		midnight := time.Date(now.Year(), now.Month(), now.Day()-ago, 0, 0, 0, 0, zone)
		if day := midnight.Weekday(); day == time.Saturday || day == time.Sunday {
			continue
		}
		if midnight.Month() != month {
			month = midnight.Month()
			say(fmt.Sprintf("passes of %s, %d before it", midnight.Format("January 2006"), total))
		}
		taps := h.day(pupils, midnight)
		ids, err := ledger.NextEventIDs(ctx, tx, len(taps))
		if err != nil {
			return err
		}
		for i := range taps {
			taps[i].Event = ids[i]
		}
		if err := fill.Add(ctx, taps); err != nil {
			return err
		}
		total += len(taps)
	}
	say(fmt.Sprintf("presence after %d passes", total))
	return fill.Finish(ctx)
}

// day invents the passes of a day, in the order of time.
func (h history) day(pupils []historyPupil, midnight time.Time) []door.Tap {
	random := rand.New(rand.NewPCG(h.Seed, uint64(midnight.Unix())))
	var taps []door.Tap
	for _, p := range pupils {
		if random.IntN(absentOf) == 0 {
			continue
		}
		in := midnight.Add(arrivalFrom*time.Minute + time.Duration(random.Int64N(int64(arrivalSpan))).Truncate(time.Second))
		out := midnight.Add(leavingFrom*time.Minute + time.Duration(random.Int64N(int64(leavingSpan))).Truncate(time.Second))
		for _, tap := range []door.Tap{{Direction: door.In, At: in}, {Direction: door.Out, At: out}} {
			tap.Person, tap.Organisation, tap.Building, tap.Kind = p.person, p.organisation, p.building, door.ByCard
			if p.companion != 0 {
				tap.Kind, tap.Companion = door.Led, p.companion
			}
			taps = append(taps, tap)
		}
	}
	slices.SortFunc(taps, func(a, b door.Tap) int { return a.At.Compare(b.At) })
	return taps
}
