// Package phone holds subscriber numbers in one canonical form.
//
// A Number is the digits of an E.164 number without the plus, and it is the
// identity of a representative: the same person writes it "8 (900) 000-00-01"
// on a form, types "+79000000001" into the portal and calls from "79000000001"
// at an operator's USSD centre. Two functions make it, because two kinds of
// sender write numbers:
//
//   - [Parse] reads what people and registries write. It asks the numbering
//     plan whether such a number exists and can receive a short message.
//   - [FromMSISDN] reads what an operator's link asserts. It trusts the digits
//     and only repairs their form, since an operator knows its subscribers
//     better than any table of ours.
//
// A number in a log is masked: Number is a [slog.LogValuer]. Errors never
// repeat the number they are about.
package phone

import (
	"log/slog"
	"unicode"
	"unicode/utf8"

	"github.com/nyaruka/phonenumbers"
)

// Limits of what is looked at.
const (
	maxRaw    = 64 // octets of written text; the longest sensible form with spaces and brackets is below 40
	minDigits = 8  // shortest subscriber number taken from an operator (ussd.md section 3); below are short codes
	maxDigits = 15 // E.164 section 6.2.1
)

// Number is a subscriber number in the international form of E.164, digits
// only: "79000000001". The empty Number means that there is none.
type Number string

// Reason says why a text is not taken as a number. The set is closed, so that
// it can be a metric label and a key of translated messages.
type Reason string

// The reasons.
const (
	Empty      Reason = "empty"      // no digit at all
	Characters Reason = "characters" // letters or signs that no number has
	Short      Reason = "short"      // fewer digits than any number of that country
	Long       Reason = "long"       // more digits than any number of that country
	Plan       Reason = "plan"       // the numbering plan has no such number
	NotMobile  Reason = "not_mobile" // a fixed line, pager or service number: no short message reaches it
	NotNumber  Reason = "not_number" // the type or plan of an operator's address says it is no telephone number
)

// words are the reasons for people; they name no number.
var words = map[Reason]string{
	Empty:      "it has no digits",
	Characters: "it has characters that do not belong into a phone number",
	Short:      "it is too short",
	Long:       "it is too long",
	Plan:       "the numbering plan has no such number",
	NotMobile:  "it is not a mobile number",
	NotNumber:  "the operator marks it as something other than a phone number",
}

// Error is the error of Parse and FromMSISDN. It does not hold the text that
// was refused, so that it may be logged.
type Error struct{ Reason Reason }

// Error returns a sentence without the number.
func (e *Error) Error() string { return "not a usable phone number: " + words[e.Reason] }

// Parse reads a number as people write it: with spaces, brackets, dashes, with
// or without the plus and the trunk prefix. The region ("RU", ISO 3166-1
// alpha-2 in capitals) is the country a number without a plus is meant in. The
// number must exist in its country's plan and be able to receive short
// messages. The error is an *Error.
func Parse(raw, region string) (Number, error) {
	if n, ok := parseRussian(raw, region); ok {
		return n, nil
	}
	return parsePlan(raw, region)
}

// parseRussian is the short way for the numbers that make up nearly all of an
// import, mobile numbers of Russia. It accepts a strict subset of what
// parsePlan accepts and gives the same answer, some four hundred times faster; a test
// compares the two.
func parseRussian(raw, region string) (Number, bool) {
	if len(raw) > maxRaw {
		return "", false
	}
	var digits [11]byte
	n, plus := 0, false
	for i := 0; i < len(raw); i++ {
		switch c := raw[i]; {
		case '0' <= c && c <= '9':
			if n == len(digits) {
				return "", false
			}
			digits[n] = c
			n++
		case c == '+' && i == 0:
			plus = true
		case c == ' ' || c == '-' || c == '(' || c == ')':
		default:
			return "", false
		}
	}
	switch {
	case plus:
		if n == 11 && digits[0] == '7' && digits[1] == '9' {
			return Number(digits[:]), true
		}
	case region != "RU":
	case n == 11 && (digits[0] == '7' || digits[0] == '8') && digits[1] == '9':
		digits[0] = '7'
		return Number(digits[:]), true
	case n == 10 && digits[0] == '9':
		copy(digits[1:], digits[:10])
		digits[0] = '7'
		return Number(digits[:]), true
	}
	return "", false
}

// parsePlan asks the numbering plans of the world.
func parsePlan(raw, region string) (Number, error) {
	text, reason := written(raw)
	if reason != "" {
		return "", &Error{reason}
	}
	parsed, err := phonenumbers.Parse(text, region)
	switch err {
	case nil:
	case phonenumbers.ErrTooShortAfterIDD, phonenumbers.ErrTooShortNSN:
		return "", &Error{Short}
	case phonenumbers.ErrNumTooLong:
		return "", &Error{Long}
	default:
		return "", &Error{Plan}
	}
	switch phonenumbers.IsPossibleNumberWithReason(parsed) {
	case phonenumbers.TOO_SHORT:
		return "", &Error{Short}
	case phonenumbers.TOO_LONG:
		return "", &Error{Long}
	}
	switch phonenumbers.GetNumberType(parsed) {
	case phonenumbers.UNKNOWN:
		return "", &Error{Plan}
	case phonenumbers.MOBILE, phonenumbers.FIXED_LINE_OR_MOBILE, phonenumbers.PERSONAL_NUMBER, phonenumbers.VOIP:
	default:
		return "", &Error{NotMobile}
	}
	return Number(phonenumbers.Format(parsed, phonenumbers.E164)[1:]), nil
}

// written checks that the text is made of what numbers are written with and
// drops invisible characters, which telephone books put round a copied number.
// Letters are refused here because the library would dial them ("1-800-FLOWERS")
// or read them as an extension.
func written(raw string) (string, Reason) {
	if len(raw) > maxRaw {
		return "", Long
	}
	text := make([]byte, 0, len(raw))
	digits := false
	for _, r := range raw {
		switch {
		case unicode.IsDigit(r):
			digits = true
		case unicode.Is(unicode.Cf, r):
			continue
		case r == '+' || r == '＋' || r == '(' || r == ')' || r == '.' || r == '/':
		case unicode.IsSpace(r) || unicode.Is(unicode.Pd, r) || r == '−':
		default:
			return "", Characters
		}
		text = utf8.AppendRune(text, r)
	}
	if !digits {
		return "", Empty
	}
	return string(text), ""
}

// E164 returns the number with its plus, "+79000000001", or "" when there is none.
func (n Number) E164() string {
	if n == "" {
		return ""
	}
	return "+" + string(n)
}

// Masked returns the number fit for a screen that others see: "+7900***01". It
// keeps four digits in front and two at the end; of a number too short to hide
// anything that way it shows nothing but "+***".
func (n Number) Masked() string {
	switch {
	case n == "":
		return ""
	case len(n) < minDigits+1:
		return "+***"
	default:
		return "+" + string(n[:4]) + "***" + string(n[len(n)-2:])
	}
}

// LogValue makes every log show the masked form.
func (n Number) LogValue() slog.Value { return slog.StringValue(n.Masked()) }
