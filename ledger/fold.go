package ledger

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"zvonok/ledger/money"
	"zvonok/ledger/pg"
)

// Fold adds the postings of finished transactions to the totals of the accounts
// that are not wallets and returns how many it added. It is called every few
// seconds; a second call at the same time waits and finds little. The metrics of
// the books as a whole, which are the same in every process, follow it.
func (b *Book) Fold(ctx context.Context, q pg.Querier) (int64, error) {
	var added int64
	if err := q.QueryRow(ctx, `SELECT ledger.fold_postings()`).Scan(&added); err != nil {
		return 0, fmt.Errorf("fold postings: %w", err)
	}
	lag, err := ReadFoldLag(ctx, q)
	if err != nil {
		return added, err
	}
	b.Metrics.setFoldLag(lag)
	if err := b.countDeadlocks(ctx, q); err != nil {
		return added, err
	}
	last, err := LastVerification(ctx, q)
	if err != nil {
		return added, err
	}
	b.Metrics.setVerified(last)
	return added, nil
}

// FoldLag is how far the totals are behind the postings.
type FoldLag struct {
	// Postings is how many committed postings are not folded yet.
	Postings int64
	// Oldest is when the oldest of them was booked; zero when there is none. A
	// transaction that stays open anywhere in the database holds it up.
	Oldest time.Time
	// Age is how long ago that was, by the database's clock.
	Age time.Duration
	// UnsealedDays is how many closed days have no seal.
	UnsealedDays int64
	// OldestXid is the transaction that holds the watermark up: the oldest that
	// still runs, as the book counts them. Transactions is how many have begun since.
	OldestXid, Transactions int64
}

// countDeadlocks brings the metrics what the server knows of deadlocks.
func (b *Book) countDeadlocks(ctx context.Context, q pg.Querier) error {
	if b.Metrics == nil {
		return nil
	}
	var deadlocks int64
	if err := q.QueryRow(ctx, `SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()`).
		Scan(&deadlocks); err != nil {
		return fmt.Errorf("count deadlocks: %w", err)
	}
	b.Metrics.setDeadlocks(deadlocks)
	return nil
}

// ReadFoldLag measures the lag.
func ReadFoldLag(ctx context.Context, q pg.Querier) (FoldLag, error) {
	var lag FoldLag
	var oldest *time.Time
	if err := q.QueryRow(ctx, `
		SELECT t.postings, t.oldest, coalesce(clock_timestamp() - t.oldest, interval '0'),
		       (SELECT count(*) FROM ledger.day WHERE seal IS NULL), g.xid_base + pg_snapshot_xmin(s.snapshot)::text::bigint,
		       pg_snapshot_xmax(s.snapshot)::text::bigint - pg_snapshot_xmin(s.snapshot)::text::bigint
		  FROM (SELECT count(*) AS postings, min(p.posted_at) AS oldest
		          FROM ledger.posting p
		         WHERE p.xid >= (SELECT watermark FROM ledger.fold_mark)) AS t,
		       ledger.gate g, (SELECT pg_current_snapshot() AS snapshot) AS s`).
		Scan(&lag.Postings, &oldest, &lag.Age, &lag.UnsealedDays, &lag.OldestXid, &lag.Transactions); err != nil {
		return FoldLag{}, fmt.Errorf("measure the fold lag: %w", err)
	}
	lag.Oldest = orZero(oldest)
	return lag, nil
}

// Total is what an account that is not a wallet has moved in all.
type Total struct {
	Account AccountID   `json:"-"`
	Kind    AccountKind `json:"kind"`
	Owner   string      `json:"owner"`
	// Debit and Credit are the sums of its legs.
	Debit    money.Amount `json:"debit"`
	Credit   money.Amount `json:"credit"`
	Postings int64        `json:"postings"`
}

// Balance is what the account owes when above zero, and is owed when below.
func (t *Total) Balance() money.Amount { return t.Credit - t.Debit }

// Totals returns the exact totals of all accounts that are not wallets: what is
// folded plus the tail that is not.
func Totals(ctx context.Context, q pg.Querier) ([]Total, error) {
	rows, err := q.Query(ctx, `
		WITH tail AS MATERIALIZED (
			SELECT p.debit_id, p.credit_id, p.debit_ver, p.credit_ver, p.amount
			  FROM ledger.posting p
			 WHERE p.xid >= (SELECT watermark FROM ledger.fold_mark)
		), part AS (
			SELECT account_id, debit, credit, postings FROM ledger.fold
			UNION ALL
			SELECT debit_id, amount, 0, 1 FROM tail WHERE debit_ver IS NULL
			UNION ALL
			SELECT credit_id, 0, amount, 1 FROM tail WHERE credit_ver IS NULL
		)
		SELECT a.id, a.kind, a.owner, coalesce(sum(s.debit), 0)::bigint, coalesce(sum(s.credit), 0)::bigint,
		       coalesce(sum(s.postings), 0)::bigint
		  FROM ledger.account a
		  LEFT JOIN part s ON s.account_id = a.id
		 WHERE a.id < $1
		 GROUP BY a.id
		 ORDER BY a.id`, firstWallet)
	if err != nil {
		return nil, fmt.Errorf("read totals: %w", err)
	}
	totals, err := pgx.CollectRows(rows, pgx.RowToStructByPos[Total])
	if err != nil {
		return nil, fmt.Errorf("read totals: %w", err)
	}
	return totals, nil
}

// TrialBalance is the state of all accounts at one moment.
type TrialBalance struct {
	// Accounts are those that are not wallets.
	Accounts []Total `json:"accounts"`
	// Wallets is how many wallets there are, InWallets what they hold together and
	// OnHold how much of that is set aside for preorders.
	Wallets   int64        `json:"wallets"`
	InWallets money.Amount `json:"in_wallets"`
	OnHold    money.Amount `json:"on_hold"`
}

// Difference is what all balances make together: zero, or the books are wrong (I1).
func (t *TrialBalance) Difference() money.Amount {
	sum := t.InWallets
	for i := range t.Accounts {
		sum += t.Accounts[i].Balance()
	}
	return sum
}

// ReadTrialBalance reads the state of all accounts in one snapshot.
func ReadTrialBalance(ctx context.Context, pool *pgxpool.Pool) (TrialBalance, error) {
	var t TrialBalance
	err := pgx.BeginTxFunc(ctx, pool, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}, func(tx pgx.Tx) error {
		var err error
		if t.Accounts, err = Totals(ctx, tx); err != nil {
			return err
		}
		return tx.QueryRow(ctx, `SELECT count(*), coalesce(sum(posted), 0)::bigint, coalesce(sum(held), 0)::bigint FROM ledger.balance`).
			Scan(&t.Wallets, &t.InWallets, &t.OnHold)
	})
	if err != nil {
		return TrialBalance{}, fmt.Errorf("read the trial balance: %w", err)
	}
	return t, nil
}
