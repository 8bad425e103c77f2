package access

import (
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"math/bits"
	"slices"
	"strconv"
	"strings"
)

// The lengths of an identifier, in octets: ISO/IEC 14443-3 has 4, 7 and 10,
// 125 kHz fobs have 5, ISO/IEC 15693 has 8.
const (
	minUIDOctets = 4
	maxUIDOctets = 10
)

// ErrUID is an identifier that no card can have.
var ErrUID = errors.New("a card identifier is 4 to 10 octets in hexadecimal")

// ErrPartUID is what a reader reports that has read only the first part of a
// longer identifier: 88 and three octets of it.
var ErrPartUID = fmt.Errorf("four octets that begin with 88 are the first part of a longer identifier, read all of it: %w", ErrUID)

// UID is the identifier of a card as it is printed and stored: 4 to 10 octets
// in upper-case hexadecimal, in the order in which the card sends them.
type UID string

// ParseUID takes an identifier as people and devices write it: hexadecimal of
// any case, octets optionally separated by spaces, colons or hyphens. It
// returns [ErrUID] for anything else, and [ErrPartUID] for a part of one: a card
// kept by that would be found by no reader.
func ParseUID(raw string) (UID, error) {
	octets, err := parseOctets(raw)
	if err != nil || len(octets) < minUIDOctets || len(octets) > maxUIDOctets {
		return "", ErrUID
	}
	if isPart(octets) {
		return "", ErrPartUID
	}
	return uidOf(octets), nil
}

// isPart reports whether the octets are the first part of a longer identifier.
func isPart(octets []byte) bool { return len(octets) == 4 && octets[0] == cascadeTag }

func uidOf(octets []byte) UID {
	return UID(strings.ToUpper(hex.EncodeToString(octets)))
}

// LogValue keeps identifiers out of logs.
func (UID) LogValue() slog.Value { return slog.StringValue("[card]") }

func (u UID) octets() []byte {
	octets, err := hex.DecodeString(string(u))
	if err != nil {
		panic(fmt.Sprintf("access: a UID that was not made by ParseUID, %d characters long", len(u)))
	}
	return octets
}

// Part says which octets of an identifier a reader has kept.
type Part string

// The parts. Head is the beginning of the identifier as the card sends it.
const (
	Whole Part = ""
	Head3 Part = "head3"
	Head4 Part = "head4"
	Tail3 Part = "tail3"
	Tail4 Part = "tail4"
)

// Of returns that part of an identifier, as it is compared with what a reader
// has kept.
func (p Part) Of(uid UID) UID {
	switch p {
	case Head3:
		return uid[:6]
	case Head4:
		return uid[:8]
	case Tail3:
		return uid[len(uid)-6:]
	case Tail4:
		return uid[len(uid)-8:]
	default:
		return uid
	}
}

// Profile is how a make of reader turns an identifier into the number it
// reports (spec/door.md, Card codes). The zero value reports it as it is.
type Profile struct {
	// Reversed: the octets are taken in the opposite order, so that
	// 7186A61E is reported as 1EA68671.
	Reversed bool
	// Mirrored: the bits of each octet are taken in the opposite order.
	Mirrored bool
	// Inverted: ones are reported as zeros.
	Inverted bool
	// Kept is how many of the least significant octets are reported: 0 for
	// all, 3 for Wiegand-26, 4 for Wiegand-34.
	Kept int
}

// ParseProfile reads what [Profile.String] writes: "plain", or some of
// "reversed", "mirrored", "inverted", "w26", "w34" joined by hyphens.
func ParseProfile(raw string) (Profile, error) {
	var p Profile
	if raw == "" || raw == "plain" {
		return p, nil
	}
	for word := range strings.SplitSeq(raw, "-") {
		switch {
		case word == "reversed" && !p.Reversed:
			p.Reversed = true
		case word == "mirrored" && !p.Mirrored:
			p.Mirrored = true
		case word == "inverted" && !p.Inverted:
			p.Inverted = true
		case word == "w26" && p.Kept == 0:
			p.Kept = 3
		case word == "w34" && p.Kept == 0:
			p.Kept = 4
		default:
			return Profile{}, fmt.Errorf("reader profile %q: want plain, or reversed, mirrored, inverted, w26 or w34 "+
				"joined by hyphens", raw)
		}
	}
	return p, nil
}

// String names the profile.
func (p Profile) String() string {
	var words []string
	if p.Reversed {
		words = append(words, "reversed")
	}
	if p.Mirrored {
		words = append(words, "mirrored")
	}
	if p.Inverted {
		words = append(words, "inverted")
	}
	switch p.Kept {
	case 3:
		words = append(words, "w26")
	case 4:
		words = append(words, "w34")
	}
	if words == nil {
		return "plain"
	}
	return strings.Join(words, "-")
}

// MarshalText writes the profile by its name.
func (p Profile) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// UnmarshalText reads the profile by its name.
func (p *Profile) UnmarshalText(text []byte) error {
	parsed, err := ParseProfile(string(text))
	if err != nil {
		return err
	}
	*p = parsed
	return nil
}

// cascadeTag begins the four octets that a reader reports when it has read only
// the first part of a longer identifier. No four-octet identifier begins with it
// (ISO/IEC 14443-3, 6.5.4), so three octets of the card follow.
const cascadeTag = 0x88

// Read turns what a reader of this profile reported into the identifier, or
// into the part of it that the reader has kept. It takes hexadecimal as
// [ParseUID] does, and for Wiegand-26 also the decimal form "FFF,NNNNN".
func (p Profile) Read(raw string) (UID, Part, error) {
	octets, err := p.reported(raw)
	if err != nil {
		return "", Whole, err
	}
	if p.Inverted {
		for i := range octets {
			octets[i] = ^octets[i]
		}
	}
	if p.Mirrored {
		for i := range octets {
			octets[i] = bits.Reverse8(octets[i])
		}
	}
	if p.Reversed {
		slices.Reverse(octets)
	}
	switch {
	// Of a longer identifier's last four octets any may be the first, so there it says nothing.
	case isPart(octets) && (p.Kept == 0 || p.Reversed):
		return uidOf(octets[1:]), Head3, nil
	default:
		return uidOf(octets), p.Part(), nil
	}
}

// reported decodes the digits a reader sent, with the length its profile has.
func (p Profile) reported(raw string) ([]byte, error) {
	if p.Kept == 3 && strings.ContainsRune(raw, ',') {
		return parseWiegand26(raw)
	}
	octets, err := parseOctets(raw)
	if err != nil {
		return nil, err
	}
	if p.Kept != 0 && len(octets) != p.Kept {
		return nil, fmt.Errorf("a reader of the profile %s reports %d octets: %w", p, p.Kept, ErrUID)
	}
	if p.Kept == 0 && (len(octets) < minUIDOctets || len(octets) > maxUIDOctets) {
		return nil, ErrUID
	}
	return octets, nil
}

// Part is which octets of an identifier a reader of this profile keeps.
func (p Profile) Part() Part {
	switch {
	case p.Kept == 3 && p.Reversed:
		return Head3
	case p.Kept == 3:
		return Tail3
	case p.Kept == 4 && p.Reversed:
		return Head4
	case p.Kept == 4:
		return Tail4
	default:
		return Whole
	}
}

// Show returns what a reader of this profile reports for a card: the other
// direction of [Profile.Read], for issue desks and for tests.
func (p Profile) Show(uid UID) string {
	octets := uid.octets()
	if p.Reversed {
		slices.Reverse(octets)
	}
	if p.Kept != 0 {
		octets = octets[len(octets)-p.Kept:]
	}
	for i := range octets {
		if p.Mirrored {
			octets[i] = bits.Reverse8(octets[i])
		}
		if p.Inverted {
			octets[i] = ^octets[i]
		}
	}
	return string(uidOf(octets))
}

// Wiegand26 returns the decimal form of Wiegand-26, three digits of facility and
// five of number, as controllers print it: "063,04188".
func (p Profile) Wiegand26(uid UID) string {
	p.Kept = 3
	octets := UID(p.Show(uid)).octets()
	return fmt.Sprintf("%03d,%05d", octets[0], uint(octets[1])<<8|uint(octets[2]))
}

func parseWiegand26(raw string) ([]byte, error) {
	facility, number, _ := strings.Cut(strings.TrimSpace(raw), ",")
	if len(facility) == 0 || len(facility) > 3 || len(number) == 0 || len(number) > 5 {
		return nil, ErrUID
	}
	f, err := strconv.ParseUint(facility, 10, 8)
	if err != nil {
		return nil, ErrUID
	}
	n, err := strconv.ParseUint(number, 10, 16)
	if err != nil {
		return nil, ErrUID
	}
	return []byte{byte(f), byte(n >> 8), byte(n)}, nil
}

// parseOctets decodes hexadecimal whose octets may be separated.
func parseOctets(raw string) ([]byte, error) {
	// Three characters an octet is the longest way to write it.
	if len(raw) > 3*maxUIDOctets {
		return nil, ErrUID
	}
	digits := make([]byte, 0, 2*maxUIDOctets)
	for i := range len(raw) {
		switch c := raw[i]; c {
		case ' ', ':', '-':
			if len(digits)%2 != 0 {
				return nil, ErrUID
			}
		default:
			digits = append(digits, c)
		}
	}
	octets := make([]byte, hex.DecodedLen(len(digits)))
	if _, err := hex.Decode(octets, digits); err != nil {
		return nil, ErrUID
	}
	return octets, nil
}
