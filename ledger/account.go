package ledger

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"zvonok/ledger/money"
	"zvonok/ledger/pg"
)

// AccountID is the id of an account in the book.
type AccountID int64

// firstWallet is the lowest id of a wallet. The accounts of the system itself,
// few by nature, have the ids below it.
const firstWallet AccountID = 1_000_000

// IsWallet tells whether the account is a person's wallet.
func (a AccountID) IsWallet() bool { return a >= firstWallet }

// AccountKind says what an account is for.
type AccountKind string

// The chart of accounts. A wallet belongs to a person; the others belong to the
// system and are told apart by their owner.
const (
	// Wallet is a person's money: a liability, raised by credits.
	Wallet AccountKind = "wallet"
	// Provider is what a payee is owed for hot and subsidised meals; owner: the payee's code.
	Provider AccountKind = "provider"
	// Buffet is what a payee is owed for buffet sales; owner: the payee's code.
	Buffet AccountKind = "buffet"
	// Bank is the clearing account of a bank: taken from payers and not yet
	// transferred; owner: the partner's code.
	Bank AccountKind = "bank"
	// Settled is what a bank has transferred and what providers are paid from;
	// owner: the partner's code.
	Settled AccountKind = "settled"
	// Budget is what the city owes for subsidised meals; owner: empty.
	Budget AccountKind = "budget"
	// Suspense holds money whose wallet is closed or not known (D13); owner: empty.
	Suspense AccountKind = "suspense"
	// WriteOff takes corrections and sums given up; owner: empty.
	WriteOff AccountKind = "write_off"
	// OfflineLoss takes offline sales above the cap; owner: empty.
	OfflineLoss AccountKind = "offline_loss"
)

// SystemAccount names an account that is not a wallet.
type SystemAccount struct {
	Kind  AccountKind
	Owner string
}

// SystemAccounts returns the ids of the named accounts, in the same order. An
// account that does not exist is opened. Naming a wallet or an unknown kind is
// an error.
func SystemAccounts(ctx context.Context, q pg.Querier, accounts ...SystemAccount) ([]AccountID, error) {
	kinds, owners := make([]string, len(accounts)), make([]string, len(accounts))
	for i, a := range accounts {
		if a.Kind == Wallet {
			return nil, fmt.Errorf("find system accounts: a wallet is not one")
		}
		kinds[i], owners[i] = string(a.Kind), a.Owner
	}
	var ids []AccountID
	if err := q.QueryRow(ctx, `SELECT ledger.system_accounts($1, $2)`, kinds, owners).Scan(&ids); err != nil {
		return nil, fmt.Errorf("find system accounts: %w", err)
	}
	return ids, nil
}

// WalletOpening asks for a wallet.
type WalletOpening struct {
	Person PersonID
	// Number is the account number, valid by ValidAccountNumber.
	Number string
}

// OpenWallets opens a wallet for each of the people, empty, with the debt floor
// of the person's organisation. Someone who has the wallet of that number
// already keeps it. A person with a wallet of another number, a number that is
// taken, and a person who is not in the register are errors.
func OpenWallets(ctx context.Context, tx pgx.Tx, openings []WalletOpening) error {
	if len(openings) == 0 {
		return nil
	}
	people, numbers := make([]PersonID, len(openings)), make([]string, len(openings))
	for i, o := range openings {
		people[i], numbers[i] = o.Person, o.Number
	}
	if _, err := tx.Exec(ctx, `SELECT ledger.open_wallets($1, $2)`, people, numbers); err != nil {
		return fmt.Errorf("open wallets: %w", err)
	}
	return nil
}

// SetClosed closes wallets, or opens them again. A closed wallet takes no
// top-ups and pays for no online purchases; what was sold offline is still
// booked, and refunds and corrections empty it. actor is who does it and reason
// why, for the log; a wallet that is so already is left alone.
func SetClosed(ctx context.Context, q pg.Querier, wallets []AccountID, closed bool, actor, reason string) error {
	if _, err := q.Exec(ctx, `SELECT ledger.set_closed($1, $2, $3, $4)`, wallets, closed, actor, reason); err != nil {
		return fmt.Errorf("close wallets: %w", err)
	}
	return nil
}

// ClosingOfWallet is that a wallet was closed or opened again.
type ClosingOfWallet struct {
	At     time.Time `json:"at"`
	Closed bool      `json:"closed"`
	Actor  string    `json:"by"`
	Reason string    `json:"reason"`
}

// ClosingsOfWallet returns when a wallet was closed and opened, the newest first.
func ClosingsOfWallet(ctx context.Context, q pg.Querier, wallet AccountID) ([]ClosingOfWallet, error) {
	rows, err := q.Query(ctx, `
		SELECT at, closed, actor, reason FROM ledger.account_log WHERE account_id = $1 ORDER BY id DESC`, wallet)
	if err != nil {
		return nil, fmt.Errorf("read when a wallet was closed: %w", err)
	}
	closings, err := pgx.CollectRows(rows, pgx.RowToStructByPos[ClosingOfWallet])
	if err != nil {
		return nil, fmt.Errorf("read when a wallet was closed: %w", err)
	}
	return closings, nil
}

// LockWallets locks wallets until the transaction ends, in the order in which
// everybody locks them. A transaction that moves money of wallets by several
// calls locks all of them first, and cannot deadlock with others then.
func (b *Book) LockWallets(ctx context.Context, tx pgx.Tx, wallets []AccountID) error {
	began := time.Now()
	_, err := tx.Exec(ctx, `SELECT ledger.lock_wallets($1)`, wallets)
	b.Metrics.locked(time.Since(began), err)
	if err != nil {
		return fmt.Errorf("lock wallets: %w", err)
	}
	return nil
}

// Balance is the state of a person's wallet.
type Balance struct {
	Person  PersonID
	Account AccountID
	// Number is the account number known outside.
	Number string
	// Posted is the money in the wallet; it may be below zero.
	Posted money.Amount
	// Held is the part of it set aside for preorders.
	Held money.Amount
	// DebtFloor is how deep a hot meal may take the wallet, zero or below.
	DebtFloor money.Amount
	// Moves is how many movements the wallet has had.
	Moves int32
	// Closed wallets take no top-ups and pay for no online purchases.
	Closed bool
}

// Available is what an online purchase may spend.
func (b Balance) Available() money.Amount { return b.Posted - b.Held }

const selectBalance = `
	SELECT a.person_id, a.id, a.number, b.posted, b.held, b.policy_floor, b.ver, b.closed
	  FROM ledger.account a
	  JOIN ledger.balance b ON b.account_id = a.id`

const balancesOf = selectBalance + ` WHERE a.person_id = ANY ($1)`

func scanBalance(row pgx.CollectableRow) (b Balance, err error) {
	err = row.Scan(&b.Person, &b.Account, &b.Number, &b.Posted, &b.Held, &b.DebtFloor, &b.Moves, &b.Closed)
	return b, err
}

// Balances returns the wallets of those of the people who have one.
func Balances(ctx context.Context, q pg.Querier, people []PersonID) (map[PersonID]Balance, error) {
	rows, err := q.Query(ctx, balancesOf, people)
	if err != nil {
		return nil, fmt.Errorf("read balances: %w", err)
	}
	balances := make(map[PersonID]Balance, len(people))
	return balances, collectBalances(rows, balances)
}

// AskBalances puts the question of [Balances] into a batch. The balances are in the map when the batch has been read.
func AskBalances(b *pgx.Batch, people []PersonID) map[PersonID]Balance {
	balances := make(map[PersonID]Balance, len(people))
	b.Queue(balancesOf, people).Query(func(rows pgx.Rows) error { return collectBalances(rows, balances) })
	return balances
}

func collectBalances(rows pgx.Rows, into map[PersonID]Balance) error {
	list, err := pgx.CollectRows(rows, scanBalance)
	if err != nil {
		return fmt.Errorf("read balances: %w", err)
	}
	for _, b := range list {
		into[b.Person] = b
	}
	return nil
}

// WalletsByNumber returns the wallets of those of the account numbers that exist.
func WalletsByNumber(ctx context.Context, q pg.Querier, numbers []string) (map[string]Balance, error) {
	rows, err := q.Query(ctx, selectBalance+` WHERE a.number = ANY ($1)`, numbers)
	if err != nil {
		return nil, fmt.Errorf("read wallets by number: %w", err)
	}
	list, err := pgx.CollectRows(rows, scanBalance)
	if err != nil {
		return nil, fmt.Errorf("read wallets by number: %w", err)
	}
	wallets := make(map[string]Balance, len(list))
	for _, b := range list {
		wallets[b.Number] = b
	}
	return wallets, nil
}
