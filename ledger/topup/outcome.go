package topup

import (
	"fmt"
	"maps"
	"slices"
)

// Dialect is the family of protocols a partner speaks.
type Dialect string

// The dialects.
const (
	OSMP Dialect = "osmp"
	Sber Dialect = "sber"
)

// Outcome is what became of a request, before it gets the partner's number.
type Outcome string

// The outcomes.
const (
	// OK: found, credited or cancelled as asked.
	OK Outcome = "ok"
	// Duplicate: credited before; the answer carries the first one's numbers.
	Duplicate Outcome = "duplicate"
	// Temporary: not known or not possible now; the bank repeats.
	Temporary Outcome = "temporary"
	// Missing: a parameter is missing, doubled or cannot be read.
	Missing Outcome = "missing"
	// UnknownCommand: neither check nor pay nor what else we know.
	UnknownCommand Outcome = "unknown_command"
	// BadAccount: not an account number (D4).
	BadAccount Outcome = "bad_account"
	// NotFound: no such account.
	NotFound Outcome = "not_found"
	// Inactive: the pupil has left.
	Inactive Outcome = "inactive"
	// Closed: the account is closed for top-ups.
	Closed Outcome = "closed"
	// Forbidden: the account belongs to a payee this partner does not serve, or
	// the partner may not do this.
	Forbidden Outcome = "forbidden"
	// Technical: checks are limited for now.
	Technical Outcome = "technical"
	// BadTxn: not an id of a payment.
	BadTxn Outcome = "bad_txn"
	// Conflict: another account or sum was paid under this id.
	Conflict Outcome = "conflict"
	// BadSum: not a sum.
	BadSum Outcome = "bad_sum"
	// TooSmall: below the partner's least sum.
	TooSmall Outcome = "too_small"
	// TooLarge: above the partner's largest sum.
	TooLarge Outcome = "too_large"
	// BadDate: not a date and time.
	BadDate Outcome = "bad_date"
	// UnknownPayment: nothing was paid under this id.
	UnknownPayment Outcome = "unknown_payment"
	// Cancelled: the payment was cancelled.
	Cancelled Outcome = "cancelled"
	// CancelImpossible: the money has been spent or moved on.
	CancelImpossible Outcome = "cancel_impossible"
)

// ofMoney tells whether the outcome is about where the money goes, or how much.
func (o Outcome) ofMoney() bool {
	return o == BadAccount || o == BadSum || o == TooSmall || o == TooLarge
}

// meaning is how an outcome is said in the two dialects.
type meaning struct {
	osmp, sber int
	comment    string
}

// meanings returns the numbers of the dialects, as specified for OSMP by QIWI
// and for Sberbank by its protocols of single payments.
func meanings() map[Outcome]meaning {
	return map[Outcome]meaning{
		OK:               {0, 0, "ok"},
		Duplicate:        {0, 8, "duplicate"},
		Temporary:        {1, 1, "temporary, repeat later"},
		Missing:          {300, 300, "parameters"},
		UnknownCommand:   {300, 2, "unknown command"},
		BadAccount:       {4, 4, "account number"},
		NotFound:         {5, 3, "account not found"},
		Inactive:         {79, 5, "account not active"},
		Closed:           {7, 5, "account closed"},
		Forbidden:        {7, 7, "forbidden"},
		Technical:        {8, 7, "not now"},
		BadTxn:           {300, 6, "transaction id"},
		Conflict:         {300, 6, "transaction id used for another payment"},
		BadSum:           {300, 9, "sum"},
		TooSmall:         {241, 10, "sum too small"},
		TooLarge:         {242, 11, "sum too large"},
		BadDate:          {300, 12, "date"},
		UnknownPayment:   {243, 6, "payment not found"},
		Cancelled:        {300, 300, "payment cancelled"},
		CancelImpossible: {251, 300, "cancel impossible"},
	}
}

// Outcomes returns all outcomes, by name.
func Outcomes() []Outcome { return slices.Sorted(maps.Keys(meanings())) }

// codeTable says outcomes in a partner's numbers.
type codeTable map[Outcome]meaning

// newCodeTable makes the table of a dialect with a partner's own numbers. An
// outcome that does not exist is an error.
func newCodeTable(own map[Outcome]int) (codeTable, error) {
	table := codeTable(meanings())
	for outcome, code := range own {
		m, known := table[outcome]
		if !known {
			return nil, fmt.Errorf("code map: there is no outcome %q; there are %v", outcome, Outcomes())
		}
		if code < 0 {
			return nil, fmt.Errorf("code map: %s: %d is below zero", outcome, code)
		}
		m.osmp, m.sber = code, code
		table[outcome] = m
	}
	return table, nil
}

func (t codeTable) code(dialect Dialect, outcome Outcome) int {
	if dialect == Sber {
		return t[outcome].sber
	}
	return t[outcome].osmp
}
