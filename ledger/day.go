package ledger

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"zvonok/ledger/money"
	"zvonok/ledger/pg"
)

// Day is a closed accounting day.
type Day struct {
	// Day is the date, at midnight UTC.
	Day      time.Time
	ClosedAt time.Time
	// Postings and Amount count and sum its postings, Late those of them that
	// belonged to an earlier day. They are 0 until it is sealed.
	Postings int64
	Amount   money.Amount
	Late     int64
	// Seal is the SHA-256 over the seal of the closed day before and every
	// posting of this one; nil until it is sealed.
	Seal []byte
}

// ErrClosing says that another process is closing days now.
var ErrClosing = errors.New("another process is closing days now")

// closingLock is the advisory lock of who closes days; the number only has to be ours.
const closingLock int64 = 0x7a766f6e_0002

// MarshalJSON writes the day as a date and the seal in hexadecimal digits.
func (d Day) MarshalJSON() ([]byte, error) {
	return json.Marshal(struct {
		Day      string       `json:"day"`
		ClosedAt time.Time    `json:"closed_at"`
		Postings int64        `json:"postings"`
		Amount   money.Amount `json:"sum"`
		Late     int64        `json:"late"`
		Seal     string       `json:"seal"`
	}{d.Day.Format(time.DateOnly), d.ClosedAt, d.Postings, d.Amount, d.Late, hex.EncodeToString(d.Seal)})
}

// CloseDays closes every open day that has postings, up to and including
// through, and seals all closed days. actor is who did it, for the log. Nobody
// who posts waits longer than the postings under way take; sealing locks
// nothing. It returns the days it sealed, or ErrClosing. Stopped in the middle,
// it is repeated.
func CloseDays(ctx context.Context, pool *pgxpool.Pool, through time.Time, actor string) (sealed []Day, err error) {
	conn, err := pool.Acquire(ctx)
	if err != nil {
		return nil, fmt.Errorf("close days: %w", err)
	}
	defer conn.Release()
	var mine bool
	if err := conn.QueryRow(ctx, `SELECT pg_try_advisory_lock($1)`, closingLock).Scan(&mine); err != nil {
		return nil, fmt.Errorf("close days: %w", err)
	}
	if !mine {
		return nil, ErrClosing
	}
	defer func() {
		ctx := context.WithoutCancel(ctx)
		if _, unlockErr := conn.Exec(ctx, `SELECT pg_advisory_unlock($1)`, closingLock); unlockErr != nil {
			// Whoever gets this connection next must not hold the lock.
			conn.Conn().Close(ctx)
			err = errors.Join(err, fmt.Errorf("close days: %w", unlockErr))
		}
	}()
	return closeDays(ctx, pool, dateOf(through), actor)
}

func closeDays(ctx context.Context, pool *pgxpool.Pool, through time.Time, actor string) ([]Day, error) {
	for {
		var day *time.Time
		if err := pool.QueryRow(ctx, `
			SELECT coalesce((SELECT min(p.booking_day)
			                   FROM ledger.posting p
			                  WHERE p.booking_day > g.closed_through AND p.booking_day <= $1), $1)
			  FROM ledger.gate g
			 WHERE g.closed_through < $1`, through).Scan(&day); err != nil {
			if errors.Is(err, pgx.ErrNoRows) {
				break
			}
			return nil, fmt.Errorf("find the first open day: %w", err)
		}
		if _, err := pool.Exec(ctx, `SELECT ledger.close_day($1, $2)`, day, actor); err != nil {
			return nil, fmt.Errorf("close the day %s: %w", day.Format(time.DateOnly), err)
		}
	}
	rows, err := pool.Query(ctx, `SELECT day FROM ledger.day WHERE seal IS NULL AND day <= $1 ORDER BY day`, through)
	if err != nil {
		return nil, fmt.Errorf("find days to seal: %w", err)
	}
	dates, err := pgx.CollectRows(rows, pgx.RowTo[time.Time])
	if err != nil {
		return nil, fmt.Errorf("find days to seal: %w", err)
	}
	for _, date := range dates {
		if err := pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
			// A day of a large city takes longer than any request may.
			_, err := tx.Exec(ctx, `SELECT set_config('statement_timeout', '0', true)`)
			if err == nil {
				_, err = tx.Exec(ctx, `SELECT ledger.seal_day($1, $2)`, date, actor)
			}
			return err
		}); err != nil {
			return nil, fmt.Errorf("seal the day %s: %w", date.Format(time.DateOnly), err)
		}
	}
	return Days(ctx, pool, dates)
}

// Days returns those of the days that are closed, in order.
func Days(ctx context.Context, q pg.Querier, days []time.Time) ([]Day, error) {
	rows, err := q.Query(ctx, `
		SELECT day, closed_at, coalesce(postings, 0), coalesce(amount, 0), coalesce(late, 0), seal
		  FROM ledger.day
		 WHERE day = ANY ($1)
		 ORDER BY day`, days)
	if err != nil {
		return nil, fmt.Errorf("read closed days: %w", err)
	}
	closed, err := pgx.CollectRows(rows, pgx.RowToStructByPos[Day])
	if err != nil {
		return nil, fmt.Errorf("read closed days: %w", err)
	}
	return closed, nil
}

// ReopenDay opens a closed day, and with it all later ones, whose seals are
// void from then on. What was done, by whom and why stays in the log, with the
// old seals.
func ReopenDay(ctx context.Context, tx pgx.Tx, day time.Time, actor, reason string) error {
	if _, err := tx.Exec(ctx, `SELECT ledger.reopen_day($1, $2, $3)`, dateOf(day), actor, reason); err != nil {
		return fmt.Errorf("reopen the day %s: %w", day.Format(time.DateOnly), err)
	}
	return nil
}

// Closing is something that was done to an accounting day.
type Closing struct {
	At time.Time
	// Day is the date, at midnight UTC.
	Day time.Time
	// Action is closed, sealed or reopened; a reopening makes one of each day that it opens.
	Action string
	// Actor is who did it: a person's name with the system's account, or the gateway.
	Actor string
	// Reason is why, of a reopening.
	Reason string
	// Seal is the seal that was made or, of a reopening, that is void from then on;
	// nil of a closing, and of a day that was reopened before it was sealed.
	Seal []byte
}

// MarshalJSON writes the day as a date and the seal in hexadecimal digits.
func (c Closing) MarshalJSON() ([]byte, error) {
	return json.Marshal(struct {
		At     time.Time `json:"at"`
		Day    string    `json:"day"`
		Action string    `json:"action"`
		Actor  string    `json:"by"`
		Reason string    `json:"reason,omitempty"`
		Seal   string    `json:"seal,omitempty"`
	}{c.At, c.Day.Format(time.DateOnly), c.Action, c.Actor, c.Reason, hex.EncodeToString(c.Seal)})
}

// Closings returns what was done to accounting days, or to one day unless it is
// zero: at most limit of it, the newest first. Nothing of it is ever removed.
func Closings(ctx context.Context, q pg.Querier, day time.Time, limit int) ([]Closing, error) {
	var of *time.Time
	if !day.IsZero() {
		date := dateOf(day)
		of = &date
	}
	rows, err := q.Query(ctx, `
		SELECT at, day, action, actor, reason, seal
		  FROM ledger.day_log
		 WHERE $1::date IS NULL OR day = $1
		 ORDER BY id DESC
		 LIMIT $2`, of, limit)
	if err != nil {
		return nil, fmt.Errorf("read what was done to days: %w", err)
	}
	closings, err := pgx.CollectRows(rows, pgx.RowToStructByPos[Closing])
	if err != nil {
		return nil, fmt.Errorf("read what was done to days: %w", err)
	}
	return closings, nil
}

// Turnover is what an account moved on a closed day.
type Turnover struct {
	Kind  AccountKind `json:"kind"`
	Owner string      `json:"owner"` // as of [SystemAccount]
	// Accounts is how many accounts these are: 1, or the wallets that moved.
	Accounts int64 `json:"accounts"`
	// Opening and Closing are credits less debits up to and with this day.
	Opening  money.Amount `json:"opening"`
	Debit    money.Amount `json:"debit"`
	Credit   money.Amount `json:"credit"`
	Closing  money.Amount `json:"closing"`
	Postings int64        `json:"postings"`
}

// Turnovers returns what each system account moved on a sealed day, and after
// them what the wallets that moved did together.
func Turnovers(ctx context.Context, q pg.Querier, day time.Time) ([]Turnover, error) {
	rows, err := q.Query(ctx, `
		SELECT a.kind, coalesce(a.owner, ''), count(*), sum(d.opening)::bigint, sum(d.debit)::bigint,
		       sum(d.credit)::bigint, sum(d.closing)::bigint, sum(d.postings)::bigint
		  FROM ledger.day_account d
		  JOIN ledger.account a ON a.id = d.account_id
		 WHERE d.day = $1
		 GROUP BY a.kind, a.owner
		 ORDER BY a.kind = 'wallet', a.kind, a.owner`, dateOf(day))
	if err != nil {
		return nil, fmt.Errorf("read turnovers: %w", err)
	}
	turnovers, err := pgx.CollectRows(rows, pgx.RowToStructByPos[Turnover])
	if err != nil {
		return nil, fmt.Errorf("read turnovers: %w", err)
	}
	return turnovers, nil
}

// LatePosting is a posting that was booked on a day although it belonged to an
// earlier one, which was closed already.
type LatePosting struct {
	Posting PostingID
	Kind    Kind
	Amount  money.Amount
	// From is the closed day it belonged to, at midnight UTC.
	From                 time.Time
	OccurredAt, PostedAt time.Time
	// Source is who brought it and External under which id.
	Source, External string
	// Wallet is the number of the account it moved; empty for a subsidised meal.
	Wallet string
}

// MarshalJSON writes the day as a date.
func (l LatePosting) MarshalJSON() ([]byte, error) {
	return json.Marshal(struct {
		Posting  PostingID    `json:"posting"`
		Kind     Kind         `json:"kind"`
		Amount   money.Amount `json:"sum"`
		From     string       `json:"from_day"`
		Happened time.Time    `json:"happened_at"`
		Booked   time.Time    `json:"booked_at"`
		Source   string       `json:"source"`
		External string       `json:"external_id"`
		Wallet   string       `json:"account"`
	}{l.Posting, l.Kind, l.Amount, l.From.Format(time.DateOnly), l.OccurredAt, l.PostedAt, l.Source, l.External, l.Wallet})
}

// LatePostings returns what was booked on a day although it belonged to an
// earlier one: the late report of the day (spec/ledger.md 2.12).
func LatePostings(ctx context.Context, q pg.Querier, day time.Time) ([]LatePosting, error) {
	rows, err := q.Query(ctx, `
		SELECT p.id, p.kind, p.amount, p.late_from, p.occurred_at, p.posted_at, p.source, p.ext_id, coalesce(a.number, '')
		  FROM ledger.posting p
		  LEFT JOIN ledger.account a ON a.id = CASE WHEN p.debit_ver IS NOT NULL THEN p.debit_id
		                                            WHEN p.credit_ver IS NOT NULL THEN p.credit_id END
		 WHERE p.booking_day = $1 AND p.late_from IS NOT NULL
		 ORDER BY p.id`, dateOf(day))
	if err != nil {
		return nil, fmt.Errorf("read the late postings of a day: %w", err)
	}
	late, err := pgx.CollectRows(rows, pgx.RowToStructByPos[LatePosting])
	if err != nil {
		return nil, fmt.Errorf("read the late postings of a day: %w", err)
	}
	return late, nil
}
