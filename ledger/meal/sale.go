package meal

import (
	"fmt"
	"strings"
	"time"

	"zvonok/ledger"
	"zvonok/ledger/money"
)

// Item is one line of a sale.
type Item struct {
	Code     string       `json:"code,omitempty"`
	Name     string       `json:"name"`
	Quantity int          `json:"quantity"`
	Price    money.Amount `json:"price"`
}

// Sale asks to book one sale.
type Sale struct {
	// Event is the fact this sale is.
	Event  ledger.EventID
	Person ledger.PersonID
	Kind   Kind
	// Meal is which meal of the day, such as "lunch" or «Обед»; empty at the buffet.
	Meal string
	// Items may be empty; if they are not, they sum up to Total.
	Items []Item
	Total money.Amount
	// At is when it was made, corrected for the skew of the device's clock.
	At time.Time
	// ReceivedAt is when it was reported; zero means now.
	ReceivedAt time.Time
	// Device and Seq name the sale: the device and its number for it.
	Device, Seq int64
	// Building is where: the sale is that of its organisation, and its payee's. 0
	// when that is not known: of the person's.
	Building ledger.BuildingID
	// Mode is ledger.Offline for a sale that has been served already, and
	// ledger.Online, also when empty, for one that may still be refused.
	Mode ledger.Mode
	// Silent: the device's clock was off by more than an hour, so At proves
	// nothing. The sale is booked and nobody is told of it.
	Silent bool
}

// Code is the outcome of a sale.
type Code string

// The outcomes of a sale, and of taking one back.
const (
	// CodeSold: booked now.
	CodeSold Code = "sold"
	// CodeDuplicate: booked before; the verdict is the first one's.
	CodeDuplicate Code = "duplicate"
	// CodeConflict: the device's number was used for something else.
	CodeConflict Code = "conflict"
	// CodeCancelled: the device's number was cancelled before the sale came.
	CodeCancelled Code = "cancelled"
	// CodeBadTotal: the total is not above zero, too large, or not the sum of the items.
	CodeBadTotal Code = "bad_total"
	// CodeBadItem: a line of the sale is empty, too long or out of bounds.
	CodeBadItem Code = "bad_item"
	// CodeBadKind: not a kind of sale, or a hot or subsidised meal that does not say which.
	CodeBadKind Code = "bad_kind"
	// CodeUnknownPerson: nobody of that id.
	CodeUnknownPerson Code = "unknown_person"
	// CodeNoWallet: the person has no wallet to pay from.
	CodeNoWallet Code = "no_wallet"
	// CodeClosed: the wallet is closed.
	CodeClosed Code = "wallet_closed"
	// CodeNotEnough: the wallet has not enough money (D11).
	CodeNotEnough Code = "not_enough"
	// CodeOverLimit: the day's limit set by the parents is spent.
	CodeOverLimit Code = "over_limit"
	// CodeBanned: the parents do not want it sold to the child.
	CodeBanned Code = "banned"
	// CodeNotEntitled: the city does not pay this meal for this person.
	CodeNotEntitled Code = "not_entitled"
	// CodeAlreadyServed: this subsidised meal was served to the child today.
	CodeAlreadyServed Code = "already_served"
	// CodeNoSale: there is no sale of that number to take back.
	CodeNoSale Code = "no_sale"
	// CodeReversed: it has been taken back before.
	CodeReversed Code = "already_reversed"
)

// Codes returns all outcomes.
func Codes() []Code {
	return []Code{
		CodeSold, CodeDuplicate, CodeConflict, CodeCancelled, CodeBadTotal, CodeBadItem, CodeBadKind, CodeUnknownPerson,
		CodeNoWallet, CodeClosed, CodeNotEnough, CodeOverLimit, CodeBanned, CodeNotEntitled, CodeAlreadyServed,
		CodeNoSale, CodeReversed,
	}
}

// Verdict answers a Sale or a Return.
type Verdict struct {
	Code Code
	// Message says in a sentence what is wrong, for staff and for the device's
	// log; empty when nothing is. It names no person.
	Message string
	// Event is the fact: that of the request or, for a duplicate, of the first.
	Event ledger.EventID
	// Balance is what was left in the wallet just after; zero when it was not touched.
	Balance money.Amount
}

// Booked tells whether the sale is in the books, by this call or an earlier one.
func (v Verdict) Booked() bool { return v.Code == CodeSold || v.Code == CodeDuplicate }

func refuse(code Code, format string, args ...any) Verdict {
	return Verdict{Code: code, Message: fmt.Sprintf(format, args...)}
}

// check finds what is wrong with a sale by itself. The verdict has no code when
// nothing is.
func (s *Sale) check() Verdict {
	switch s.Kind {
	case Buffet:
	case Hot, Subsidised:
		if strings.TrimSpace(s.Meal) == "" {
			return refuse(CodeBadKind, "a %s meal says which meal of the day it is", s.Kind)
		}
	default:
		return refuse(CodeBadKind, "a sale is buffet, hot or subsidised, not %q", s.Kind)
	}
	if len(s.Meal) > maxWord {
		return refuse(CodeBadKind, "the name of the meal is longer than %d bytes", maxWord)
	}
	if s.Total <= 0 || s.Total > maxTotal {
		return refuse(CodeBadTotal, "the total %s is not above zero and at most %s", s.Total, maxTotal)
	}
	if len(s.Items) > maxItems {
		return refuse(CodeBadItem, "a sale has at most %d lines, not %d", maxItems, len(s.Items))
	}
	var sum money.Amount
	for i, item := range s.Items {
		switch {
		case item.Name == "" && item.Code == "":
			return refuse(CodeBadItem, "line %d has neither code nor name", i+1)
		case len(item.Name) > maxWord || len(item.Code) > maxWord:
			return refuse(CodeBadItem, "line %d has a text longer than %d bytes", i+1, maxWord)
		case item.Quantity < 1 || item.Quantity > maxQuantity:
			return refuse(CodeBadItem, "line %d has the quantity %d, not 1 to %d", i+1, item.Quantity, maxQuantity)
		case item.Price < 0 || item.Price > maxTotal:
			return refuse(CodeBadItem, "line %d has the price %s, not 0 to %s", i+1, item.Price, maxTotal)
		}
		sum += item.Price * money.Amount(item.Quantity) // far from overflow: 10^2 lines of 10^9
	}
	if len(s.Items) > 0 && sum != s.Total {
		return refuse(CodeBadTotal, "the items sum up to %s, the total says %s", sum, s.Total)
	}
	return Verdict{}
}
