// Package ledger keeps the register of people and organisations and the
// double-entry book of their money.
//
// # The book
//
// A posting moves kopecks from one account to another. Both legs are one row,
// so an unbalanced entry cannot be written. Wallets have a running balance with
// a floor; providers, banks and the city's budget have none, so no row is
// shared by all postings of a provider. Their totals are folded every few
// seconds from the postings of finished transactions (Fold), and are exact at
// any moment as fold plus tail (Totals).
//
// Book.Post takes any number of entries and is one round trip. In the database,
// in this order: the wallets are locked by ascending id, the accounting days
// are held open, the ids are taken, the floors are judged on running balances,
// and postings, balances and crossings are written, each by one statement.
// Every entry gets a verdict of its own; one that is refused does not hold up
// the others.
//
// # Promises
//
//   - An id (source, external id) is booked at most once. A repeat gets the
//     first answer; something else under the same id is a conflict; a refused
//     id stays refused; a cancelled one is never booked.
//   - An online debit never takes a wallet below its floor, however many come at
//     once. A forced one (a sale made offline) is never refused.
//   - A threshold is crossed once per crossing, with its job in the same
//     transaction.
//   - A closed day takes no postings; what belongs to it is booked on the first
//     open day and listed as late. Its seal covers each of its postings.
//   - The application's role can neither change nor delete a posting.
//
// Verify checks all of it from the rows themselves.
//
// # Time
//
// A posting has three: when it happened (the device's or the bank's word), the
// accounting day, and when it was booked, by the database's clock. Balances and
// crossings follow the order of booking.
package ledger

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/riverqueue/river"
)

// PostingID is the id of a posting in the book.
type PostingID int64

// Kind says what a posting is for. Each kind goes between accounts of certain
// kinds only.
type Kind string

// The kinds of postings.
const (
	// TopUp comes from a bank to a wallet: 10 to 15,000 roubles (R34).
	TopUp Kind = "topup"
	// Unclear comes from a bank to the suspense account (D13).
	Unclear Kind = "unclear"
	// Release goes from the suspense account to the wallet it was meant for, or back to the bank.
	Release Kind = "release"
	// Refund goes from a wallet back through a bank.
	Refund Kind = "refund"
	// Transfer goes from one wallet to another.
	Transfer Kind = "transfer"
	// BuffetSale goes from a wallet to a provider's buffet account. It may not
	// take the wallet below zero unless it is forced.
	BuffetSale Kind = "buffet"
	// HotMeal goes from a wallet to a provider. It may take a wallet that is
	// not in debt down to its debt floor (D11).
	HotMeal Kind = "hot"
	// SubsidisedMeal goes from the city's budget to a provider and touches no wallet.
	SubsidisedMeal Kind = "subsidised"
	// Lost goes from the offline losses to a provider: an offline sale above the cap.
	Lost Kind = "lost"
	// Correction goes between a wallet and the write-offs, or from a wallet to the suspense account.
	Correction Kind = "correction"
	// Writeoff goes between the write-offs and a bank, the suspense account or the offline losses.
	Writeoff Kind = "writeoff"
	// Settlement is a bank's transfer of what it has taken.
	Settlement Kind = "settlement"
	// Payout pays a provider.
	Payout Kind = "payout"
	// Subsidy is the city's payment for subsidised meals.
	Subsidy Kind = "subsidy"
	// Reversal takes back all or a part of an earlier posting.
	Reversal Kind = "reversal"
)

// Kinds returns all kinds of postings.
func Kinds() []Kind {
	return []Kind{
		TopUp, Unclear, Release, Refund, Transfer, BuffetSale, HotMeal, SubsidisedMeal, Lost,
		Correction, Writeoff, Settlement, Payout, Subsidy, Reversal,
	}
}

// Posted is the fact that top-ups or corrections were booked: what people are
// told of beside sales, which meal.Sold announces.
type Posted struct {
	EventIDs []int64 `json:"event_ids"`
	// From and To bound the accounting days of the postings, at midnight UTC.
	From time.Time `json:"from"`
	To   time.Time `json:"to"`
}

// Kind names the job.
func (Posted) Kind() string { return "ledger_posted" }

// Crossed is the fact that thresholds were crossed.
type Crossed struct {
	EventIDs []int64 `json:"event_ids"`
}

// Kind names the job.
func (Crossed) Kind() string { return "ledger_crossed" }

// Book writes the double-entry book. Its fields are set once, before use.
type Book struct {
	// Zone is where an accounting day begins and ends when an entry does not
	// say its day itself. NewBook sets Moscow time.
	Zone *time.Location
	// Now tells the time, by which no posting has a day that has not begun
	// anywhere on earth. NewBook sets time.Now.
	Now func() time.Time
	// Metrics counts verdicts; nil counts nothing.
	Metrics *Metrics

	jobs *river.Client[pgx.Tx]
}

// NewBook makes a Book that announces its facts through jobs. With nil it
// announces nothing, which is right for history that is news to nobody.
func NewBook(jobs *river.Client[pgx.Tx]) *Book {
	return &Book{Zone: time.FixedZone("MSK", 3*60*60), Now: time.Now, jobs: jobs}
}

// announce inserts the job of a fact in the transaction of the fact.
func (b *Book) announce(ctx context.Context, tx pgx.Tx, fact river.JobArgs) error {
	if b.jobs == nil {
		return nil
	}
	if _, err := b.jobs.InsertTx(ctx, tx, fact, nil); err != nil {
		return fmt.Errorf("announce %s: %w", fact.Kind(), err)
	}
	return nil
}
