// Package money holds sums of roubles as whole kopecks.
//
// A sum is an int64 and never passes through a floating-point number: it is
// parsed from strict decimal text, added and compared as an integer, and
// printed as the same text. The text form is canonical: Parse accepts exactly
// what String writes, so two equal sums always have equal text and a hash of a
// request body does not depend on how its sender likes to write zeros.
package money

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
)

const (
	// Rouble is one rouble in kopecks.
	Rouble Amount = 100

	// Max is the largest magnitude Parse accepts, in kopecks: ten trillion
	// roubles. It is far above any true sum and leaves room to add nine
	// thousand such sums before an int64 overflows.
	Max Amount = 1e15

	// maxText is the length in bytes of the longest text Parse accepts, that of -Max.
	maxText = len("-10000000000000.00")
)

// Amount is a sum of money in kopecks. Its zero value is no money.
type Amount int64

// ErrSyntax says that a text is not a sum: an optional minus, roubles without
// leading zeros, a dot and exactly two digits of kopecks.
var ErrSyntax = errors.New(`a sum is written like "143.50": roubles, a dot, two digits of kopecks`)

// ErrRange says that a sum is larger in magnitude than Max.
var ErrRange = fmt.Errorf("a sum may not exceed %s roubles", Max)

// Parse reads the canonical text of a sum, such as "143.50" or "-300.00".
// Exponents, commas, plus signs, spaces, leading zeros, a negative zero and any
// other number of decimals give ErrSyntax; more than Max gives ErrRange.
func Parse(s string) (Amount, error) {
	digits, negative := s, false
	if len(digits) > 0 && digits[0] == '-' {
		digits, negative = digits[1:], true
	}
	dot := len(digits) - 3
	if dot < 1 || digits[dot] != '.' || (digits[0] == '0' && dot > 1) {
		return 0, ErrSyntax
	}
	for i := range len(digits) {
		if i != dot && (digits[i] < '0' || digits[i] > '9') {
			return 0, ErrSyntax
		}
	}
	if len(s) > maxText {
		return 0, ErrRange
	}
	var sum Amount
	for i := range len(digits) {
		if i != dot {
			sum = sum*10 + Amount(digits[i]-'0')
		}
	}
	if sum > Max {
		return 0, ErrRange
	}
	if negative {
		if sum == 0 {
			return 0, ErrSyntax
		}
		sum = -sum
	}
	return sum, nil
}

// String returns the canonical text of the sum with a dot: "143.50".
func (a Amount) String() string { return a.text('.') }

// RU returns the sum as Russian texts write it, with a decimal comma and
// without grouping or currency sign: "143,50".
func (a Amount) RU() string { return a.text(',') }

func (a Amount) text(separator byte) string {
	kopecks := uint64(a)
	buf := make([]byte, 0, maxText+4)
	if a < 0 {
		kopecks = -kopecks // right for the smallest int64 too, which has no positive twin
		buf = append(buf, '-')
	}
	buf = strconv.AppendUint(buf, kopecks/100, 10)
	buf = append(buf, separator, byte('0'+kopecks%100/10), byte('0'+kopecks%10))
	return string(buf)
}

// MarshalJSON writes the sum as its canonical text in a JSON string, since a
// JSON number would be read as floating point by many programs.
func (a Amount) MarshalJSON() ([]byte, error) {
	return []byte(`"` + a.String() + `"`), nil
}

// UnmarshalJSON reads a JSON string holding the canonical text. A JSON number
// or null is an error.
func (a *Amount) UnmarshalJSON(b []byte) error {
	if len(b) == 0 || b[0] != '"' {
		return fmt.Errorf("%w, as a JSON string", ErrSyntax)
	}
	var s string
	if err := json.Unmarshal(b, &s); err != nil {
		return fmt.Errorf("read a sum: %w", err)
	}
	parsed, err := Parse(s)
	if err != nil {
		return err
	}
	*a = parsed
	return nil
}
