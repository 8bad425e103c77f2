package carrier

import (
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func newIDs(t interface {
	Helper()
	Fatal(...any)
}, mode IDMode,
) *IDRule {
	t.Helper()
	r, err := NewIDRule(mode)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// Pain 2, fault row 20.
func TestTheIDOfAReceiptFindsItsPartInEveryWriting(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, submitted, receipted string
	}{
		{"the same text", "123456789", "123456789"},
		{"another letter case", "a0b1c2", "A0B1C2"},
		{"leading zeros in the receipt", "489708364", "0489708364"},
		{"leading zeros in the answer", "0000123", "123"},
		{"hexadecimal answer, decimal receipt", "1d305b4c", "0489708364"},
		{"decimal answer, hexadecimal receipt", "489708364", "1D305B4C"},
		{"hexadecimal answer with zeros, decimal receipt", "000000001D305B4C", "489708364"},
		{"more than 63 bits, hexadecimal answer", "40000000000A0EEBB01", "18889465931481280854785"},
		{"UUID in another case", "6ba7b810-9dad-41d1-80b4-00c04fd430c8", "6BA7B810-9DAD-41D1-80B4-00C04FD430C8"},
		{"nothing but zeros", "0000", "0"},
		{"blanks around", " 77 ", "77"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			keys := newIDs(t, IDAuto).Keys(test.receipted)
			if !slices.Contains(keys, CanonicalID(test.submitted)) {
				t.Errorf("key %q is not among %q", CanonicalID(test.submitted), keys)
			}
		})
	}
}

func TestTheIDOfADifferentMessageIsNotFound(t *testing.T) {
	t.Parallel()
	keys := newIDs(t, IDAuto).Keys("12345")
	for _, other := range []string{"12346", "1234", "123450", "012346", "3039F"} {
		if slices.Contains(keys, CanonicalID(other)) {
			t.Errorf("%q is taken for 12345: %q", other, keys)
		}
	}
}

func TestBasesOfAnySizeConvertBothWays(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		hex := rapid.StringMatching(`[1-9A-F][0-9A-F]{0,60}`).Draw(t, "hex")
		if back := hexOf(decimalOf(hex)); back != hex {
			t.Fatalf("%s became %s", hex, back)
		}
		zeros := strings.Repeat("0", rapid.IntRange(0, 5).Draw(t, "zeros"))
		rule := newIDs(t, IDAuto)
		if !slices.Contains(rule.Keys(zeros+decimalOf(hex)), CanonicalID(strings.ToLower(hex))) {
			t.Fatalf("decimal receipt of %s is not found", hex)
		}
		if !slices.Contains(rule.Keys(strings.ToLower(hex)), CanonicalID(zeros+decimalOf(hex))) {
			t.Fatalf("hexadecimal receipt of %s is not found", hex)
		}
	})
}

// Pain 2: learn the rule from the first 20 receipts, then enforce it; fault row 20: no guessing between bases.
func TestTwentyMatchesMakeAHabitAndThenNothingElseIsGuessed(t *testing.T) {
	t.Parallel()
	rule := newIDs(t, IDAuto)
	for i := range 20 {
		if rule.Mode() != IDAuto {
			t.Fatalf("decided after %d matches", i)
		}
		id := hexOf("2700000" + string(rune('0'+i%10)) + string(rune('0'+i/10)))
		mode, changed := rule.Learn(id, decimalOf(id))
		if changed != (i == 19) {
			t.Fatalf("match %d: changed %t to %s", i+1, changed, mode)
		}
	}
	if rule.Mode() != IDHex {
		t.Fatalf("learned %s", rule.Mode())
	}
	// 16 in a receipt is 10 in hexadecimal; the message whose id reads 16 is another one.
	if got := rule.Keys("16"); !slices.Equal(got, []string{"10"}) {
		t.Errorf("keys after learning: %q", got)
	}
	// A pair that contradicts the habit puts the rule back to offering everything.
	if mode, changed := rule.Learn("777", "777"); !changed || mode != IDAuto {
		t.Errorf("a contradiction gave %s, changed %t", mode, changed)
	}
	if got := rule.Keys("16"); len(got) != 3 {
		t.Errorf("keys after the contradiction: %q", got)
	}
}

func TestEqualIDsAreAHabitOfTheirOwnWhateverElseTheyFit(t *testing.T) {
	t.Parallel()
	rule := newIDs(t, IDAuto)
	for range 20 {
		rule.Learn("5", "5") // fits every base
	}
	if rule.Mode() != IDAsIs {
		t.Errorf("learned %s", rule.Mode())
	}
}

func TestMixedHabitsAreNeverLearned(t *testing.T) {
	t.Parallel()
	rule := newIDs(t, IDAuto)
	for range 10 {
		rule.Learn("1F", "31")
		rule.Learn("31", "1F")
	}
	if rule.Mode() != IDAuto {
		t.Errorf("learned %s", rule.Mode())
	}
}

func TestASetModeOffersItsReadingAlone(t *testing.T) {
	t.Parallel()
	for mode, want := range map[IDMode][]string{
		IDAsIs: {"16"}, IDHex: {"10"}, IDDec: {"22"}, IDAuto: {"16", "10", "22"},
	} {
		if got := newIDs(t, mode).Keys("016"); !slices.Equal(got, want) {
			t.Errorf("%s: got %q, want %q", mode, got, want)
		}
	}
	if _, err := NewIDRule("octal"); err == nil {
		t.Error("mode octal is accepted")
	}
}
