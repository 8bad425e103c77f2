// Package meal sells meals: at the buffet, hot meals and subsidised ones; it
// keeps menus, the parents' limits and bans, and preorders, and reports to the
// provider.
//
// Canteen.Sell takes any number of sales of any children and devices and is a
// handful of statements, whatever the number. A sale of the buffet or of a hot
// meal goes from the child's wallet to the account of the organisation's payee.
// A subsidised one goes from the city's budget to the payee, once per child,
// meal and day, and touches no wallet. A sale that a till made offline is booked
// whatever the balance, the limit or the ban: it has been eaten.
//
// # Promises
//
//   - A sale is one row and one posting in one transaction, with the job that
//     tells of it. It is known by its device and the device's number; a repeat
//     gets the first answer and changes nothing.
//   - A sale that is refused leaves nothing but the book's note of the refusal
//     and, when a limit or a ban stopped it, a fact for the parents.
//   - What is taken back leaves the sale where it was and books the money back.
package meal

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/riverqueue/river"

	"zvonok/ledger"
	"zvonok/ledger/money"
)

// Limits of a sale.
const (
	// maxTotal bounds one sale: no child eats for more, a slip of the keys does.
	maxTotal = 10_000 * money.Rouble
	// maxItems and maxQuantity bound what one sale lists.
	maxItems    = 100
	maxQuantity = 1000
	// maxWord bounds the name of a meal and of an item, and an item's code, in bytes.
	maxWord = 400
)

// DefaultCutOff is until when a preorder may be placed, changed or cancelled:
// this long before the day begins in the organisation's zone.
const DefaultCutOff = 3 * 24 * time.Hour

// Kind is what a sale is.
type Kind string

// The kinds of sales.
const (
	Buffet     Kind = "buffet"     // choose and pay
	Hot        Kind = "hot"        // a paid hot meal
	Subsidised Kind = "subsidised" // paid by the city
)

// Sold is the fact that sales were booked.
type Sold struct {
	EventIDs []int64 `json:"event_ids"`
	// From and To bound the days of the sales, at midnight UTC.
	From time.Time `json:"from"`
	To   time.Time `json:"to"`
}

// Kind names the job.
func (Sold) Kind() string { return "meal_sold" }

// Stopped is the fact that limits or bans of the parents stopped purchases:
// rows of meal.blocked, which StoppedPurchases reads. Nothing was sold.
type Stopped struct {
	EventIDs []int64 `json:"event_ids"`
}

// Kind names the job.
func (Stopped) Kind() string { return "meal_stopped" }

// Canteen sells. Its fields are set once, before use.
type Canteen struct {
	// OfflineCap is how much of a child's offline sales of one day goes to the
	// wallet; a sale that would go above it is booked to the offline losses
	// instead, for staff to look into. Zero means no cap.
	OfflineCap money.Amount
	// CutOff is until when preorders may be changed. NewCanteen sets DefaultCutOff.
	CutOff time.Duration
	// Metrics counts verdicts; nil counts nothing.
	Metrics *Metrics

	book  *ledger.Book
	jobs  *river.Client[pgx.Tx]
	zones sync.Map // *time.Location by name: a handful, loaded from files
}

// NewCanteen makes a Canteen that books in book and announces sales through
// jobs. With nil it announces nothing, which is right for history.
func NewCanteen(book *ledger.Book, jobs *river.Client[pgx.Tx]) *Canteen {
	return &Canteen{CutOff: DefaultCutOff, book: book, jobs: jobs}
}

// zone returns the location of a time zone's name.
func (c *Canteen) zone(name string) (*time.Location, error) {
	if known, ok := c.zones.Load(name); ok {
		return known.(*time.Location), nil
	}
	location, err := time.LoadLocation(name)
	if err != nil {
		return nil, fmt.Errorf("load an organisation's time zone: %w", err)
	}
	c.zones.Store(name, location)
	return location, nil
}

// dayOf returns the date of a moment in a zone, at midnight UTC.
func dayOf(at time.Time, zone *time.Location) time.Time {
	year, month, day := at.In(zone).Date()
	return time.Date(year, month, day, 0, 0, 0, 0, time.UTC)
}

// deviceSource is the source of a device's sales in the book.
func deviceSource(device int64) string { return "device/" + strconv.FormatInt(device, 10) }

// saleKey is the id of a sale in the book.
func saleKey(device, seq int64) ledger.Key {
	return ledger.Key{Source: deviceSource(device), ExternalID: strconv.FormatInt(seq, 10)}
}

func (c *Canteen) announce(ctx context.Context, tx pgx.Tx, fact river.JobArgs) error {
	if c.jobs == nil {
		return nil
	}
	if _, err := c.jobs.InsertTx(ctx, tx, fact, nil); err != nil {
		return fmt.Errorf("announce %s: %w", fact.Kind(), err)
	}
	return nil
}
