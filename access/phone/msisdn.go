package phone

import (
	"strconv"
	"strings"

	"github.com/nyaruka/phonenumbers"
)

// Types of number, SMPP 3.4 section 5.2.5.
const (
	tonUnknown       = 0
	tonInternational = 1
	tonNational      = 2
	tonAlphanumeric  = 5
)

// Numbering plans whose addresses are telephone numbers, SMPP 3.4 section
// 5.2.6. The others (E.212 is an IMSI, X.121, telex, IP, WAP) name something
// else, and taking one for a phone would show a child to whoever owns a number
// with the same digits.
const (
	npiUnknown  = 0
	npiISDN     = 1
	npiNational = 8
	npiPrivate  = 9
)

// The +7 zone, shared by Russia and Kazakhstan.
const (
	zoneSeven      = "7"
	zoneSevenTrunk = '8'
	zoneSevenSize  = 11 // digits with the country code
)

// FromMSISDN reads the address of a subscriber as an operator's link gives it
// in source_addr, source_addr_ton and source_addr_npi. The region is that of
// the link ("RU") and tells the country code of numbers in national form. It
// follows the rules of ussd.md section 3, in this order: spaces, a plus and a
// leading 00 go; an international number (TON 1) stays as it is; eleven digits
// beginning with 8 on a link of the +7 zone begin with 7; eleven digits
// beginning with 7 there stay; a national number (TON 2, or TON 0 with ten
// digits beginning with 9, in Kazakhstan 7) gets the country code; anything
// else of 8 to 15 digits stays. Eleven digits are looked at before TON 2 because
// links mark complete numbers as national more often than the other way round.
//
// Names (TON 5), letters and addresses of other numbering plans are errors of
// type *Error. The plan of the country is not asked.
func FromMSISDN(addr string, ton, npi byte, region string) (Number, error) {
	switch npi {
	case npiUnknown, npiISDN, npiNational, npiPrivate:
	default:
		return "", &Error{NotNumber}
	}
	if ton == tonAlphanumeric {
		return "", &Error{NotNumber}
	}
	if len(addr) > maxRaw {
		return "", &Error{Long}
	}
	digits := strings.TrimPrefix(strings.ReplaceAll(addr, " ", ""), "+")
	digits = strings.TrimPrefix(digits, "00")
	for i := range len(digits) {
		if digits[i] < '0' || digits[i] > '9' {
			return "", &Error{Characters}
		}
	}
	if digits == "" {
		return "", &Error{Empty}
	}
	if ton != tonInternational {
		digits = international(digits, ton, region)
	}
	switch {
	case len(digits) < minDigits:
		return "", &Error{Short}
	case len(digits) > maxDigits:
		return "", &Error{Long}
	case digits[0] == '0': // no country code begins with 0 (E.164 annex D)
		return "", &Error{Plan}
	}
	return Number(digits), nil
}

// international completes the digits of an address that is not marked as international.
func international(digits string, ton byte, region string) string {
	country := countryCode(region)
	if country == zoneSeven && len(digits) == zoneSevenSize {
		switch digits[0] {
		case zoneSevenTrunk:
			return zoneSeven + digits[1:]
		case zoneSeven[0]:
			return digits
		}
	}
	switch {
	case ton == tonNational:
		return country + digits
	case ton == tonUnknown && country == zoneSeven && len(digits) == zoneSevenSize-1 && mobileStart(region) == digits[0]:
		return country + digits
	}
	return digits
}

// mobileStart is the first digit of a mobile number in national form.
func mobileStart(region string) byte {
	if region == "KZ" {
		return '7'
	}
	return '9'
}

// countryCode returns the calling code of a region as digits, "" for an unknown one.
func countryCode(region string) string {
	if region == "RU" || region == "KZ" { // the hot case: a look-up in the library's tables costs more than all the rest
		return zoneSeven
	}
	code := phonenumbers.GetCountryCodeForRegion(region)
	if code == 0 {
		return ""
	}
	return strconv.Itoa(code)
}
