package carrier

import (
	"fmt"
	"math/big"
	"strings"
	"sync"
)

// An operator names a message twice: in submit_sm_resp and in the receipt. The two may differ in base, letter case and
// leading zeros, and the numbers may be larger than any machine word. A submitted part is stored with one key, its
// CanonicalID; a receipt carries every key its id may stand for, and the two are joined by equality. While the
// operator's habit is not known all readings are offered, the plain one first. After learnPairs matches the habit is
// taken for certain and only its reading is offered, because offering all would one day join two messages whose ids
// are each other's hexadecimal (pain 2, fault row 20).

// IDMode is the setting message_id.
type IDMode string

// The modes.
const (
	IDAuto IDMode = "auto"  // learn it
	IDAsIs IDMode = "as-is" // the same text, up to letter case and leading zeros
	IDHex  IDMode = "hex"   // submit_sm_resp has it hexadecimal, the receipt decimal
	IDDec  IDMode = "dec"   // submit_sm_resp has it decimal, the receipt hexadecimal
)

// learnPairs is how many matches make a habit.
const learnPairs = 20

// CanonicalID returns the key of an id as it came in submit_sm_resp: capitals, no blanks around, no leading zeros.
func CanonicalID(id string) string {
	id = strings.ToUpper(strings.TrimSpace(id))
	if len(id) > maxMessageID {
		id = id[:maxMessageID]
	}
	if stripped := strings.TrimLeft(id, "0"); stripped != "" || id == "" {
		return stripped
	}
	return "0"
}

// decimalOf reads id as hexadecimal and returns it decimal; hexOf does the opposite. They return "" when id is not a
// number of that base.
func decimalOf(id string) string {
	n, ok := parseBase(id, 16)
	if !ok {
		return ""
	}
	return n.String()
}

func hexOf(id string) string {
	n, ok := parseBase(id, 10)
	if !ok {
		return ""
	}
	return strings.ToUpper(n.Text(16))
}

func parseBase(id string, base int) (*big.Int, bool) {
	if id == "" {
		return nil, false
	}
	for i := range len(id) {
		c := id[i]
		if (c < '0' || c > '9') && (base != 16 || c < 'A' || c > 'F') {
			return nil, false
		}
	}
	return new(big.Int).SetString(id, base)
}

// IDRule knows how one operator writes ids, or learns it. Its methods may be called by many goroutines.
type IDRule struct {
	mu      sync.Mutex
	setting IDMode
	mode    IDMode         // what is applied now
	fits    map[IDMode]int // in auto: how many of the pairs each mode explains
	pairs   int
}

// NewIDRule returns the rule of a setting; "" is IDAuto.
func NewIDRule(setting IDMode) (*IDRule, error) {
	switch setting {
	case "":
		setting = IDAuto
	case IDAuto, IDAsIs, IDHex, IDDec:
	default:
		return nil, fmt.Errorf(`message_id %q: allowed are "auto", "as-is", "hex" and "dec"`, setting)
	}
	return &IDRule{setting: setting, mode: setting, fits: make(map[IDMode]int)}, nil
}

// Mode returns what is applied now: the setting, or what was learned.
func (r *IDRule) Mode() IDMode {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.mode
}

// Keys returns the keys under which the part that a receipt speaks of may be stored. A receipt has one id, or two when
// its TLV and its text differ.
func (r *IDRule) Keys(ids ...string) []string {
	mode := r.Mode()
	keys := make([]string, 0, 3*len(ids))
	add := func(key string) {
		if key == "" {
			return
		}
		for _, k := range keys {
			if k == key {
				return
			}
		}
		keys = append(keys, key)
	}
	for _, id := range ids {
		if mode == IDAuto || mode == IDAsIs {
			add(CanonicalID(id))
		}
	}
	for _, id := range ids {
		id = CanonicalID(id)
		if mode == IDAuto || mode == IDHex {
			add(hexOf(id))
		}
		if mode == IDAuto || mode == IDDec {
			add(decimalOf(id))
		}
	}
	// With two ids the mode need not hold for the one in the TLV, which often is the submitted one.
	if len(ids) > 1 || len(keys) == 0 {
		for _, id := range ids {
			add(CanonicalID(id))
		}
	}
	return keys
}

// Learn takes note of a receipt that was matched with a part: their ids as they came. It reports whether this pair
// changed what is applied: a habit was learned, or a learned one turned out wrong and all readings are offered again.
func (r *IDRule) Learn(submitted, receipted string) (IDMode, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.setting != IDAuto {
		return r.mode, false
	}
	sent, told := CanonicalID(submitted), CanonicalID(receipted)
	fits := map[IDMode]bool{IDAsIs: told == sent, IDHex: hexOf(told) == sent, IDDec: decimalOf(told) == sent}
	if r.mode != IDAuto {
		if fits[r.mode] {
			return r.mode, false
		}
		r.mode, r.pairs = IDAuto, 0
		clear(r.fits)
		return r.mode, true
	}
	r.pairs++
	for mode, ok := range fits {
		if ok {
			r.fits[mode]++
		}
	}
	if r.pairs < learnPairs {
		return r.mode, false
	}
	for _, mode := range []IDMode{IDAsIs, IDHex, IDDec} {
		if r.fits[mode] == r.pairs {
			r.mode = mode
			return r.mode, true
		}
	}
	// No single habit explains the pairs: go on offering everything and look at the next ones.
	r.pairs = 0
	clear(r.fits)
	return r.mode, false
}
