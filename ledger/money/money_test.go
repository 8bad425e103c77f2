package money

import (
	"encoding/json"
	"errors"
	"math"
	"strconv"
	"testing"

	"pgregory.net/rapid"
)

func TestASumIsReadFromStrictTextOnly(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		sentence string
		text     string
		want     Amount
		err      error
	}{
		{"roubles and kopecks are read", "143.50", 14350, nil},
		{"nothing is zero roubles and zero kopecks", "0.00", 0, nil},
		{"one kopeck keeps its zeros", "0.01", 1, nil},
		{"a debt has a minus", "-300.00", -30000, nil},
		{"the largest sum is read", "10000000000000.00", Max, nil},
		{"the deepest debt is read", "-10000000000000.00", -Max, nil},
		{"a kopeck over the largest sum is out of range", "10000000000000.01", 0, ErrRange},
		{"a sum that would overflow an int64 is out of range", "99999999999999999999.00", 0, ErrRange},
		{"an empty text is no sum", "", 0, ErrSyntax},
		{"a lone minus is no sum", "-", 0, ErrSyntax},
		{"kopecks may not be left out", "143", 0, ErrSyntax},
		{"one digit of kopecks is too few", "143.5", 0, ErrSyntax},
		{"three digits of kopecks are too many", "143.500", 0, ErrSyntax},
		{"roubles may not be left out", ".50", 0, ErrSyntax},
		{"a minus does not stand for roubles", "-.50", 0, ErrSyntax},
		{"a comma is not a dot", "143,50", 0, ErrSyntax},
		{"a plus is refused", "+143.50", 0, ErrSyntax},
		{"a space is refused", " 143.50", 0, ErrSyntax},
		{"grouping is refused", "1 143.50", 0, ErrSyntax},
		{"an exponent is refused", "1e2.00", 0, ErrSyntax},
		{"a leading zero is refused", "0143.50", 0, ErrSyntax},
		{"a negative zero is refused", "-0.00", 0, ErrSyntax},
		{"two dots are refused", "1.4.50", 0, ErrSyntax},
		{"two minuses are refused", "--1.50", 0, ErrSyntax},
		{"digits of another script are refused", "١٤٣.50", 0, ErrSyntax},
		{"long rubbish is a matter of syntax, not of range", "aaaaaaaaaaaaaaaaaaaaaaaa.00", 0, ErrSyntax},
	} {
		t.Run(row.sentence, func(t *testing.T) {
			t.Parallel()
			got, err := Parse(row.text)
			if got != row.want || !errors.Is(err, row.err) {
				t.Fatalf("Parse(%q) = %d, %v; want %d, %v", row.text, got, err, row.want, row.err)
			}
		})
	}
}

func TestASumIsPrintedInBothForms(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		sum      Amount
		text, ru string
	}{
		{0, "0.00", "0,00"},
		{5, "0.05", "0,05"},
		{-5, "-0.05", "-0,05"},
		{14350, "143.50", "143,50"},
		{-30000, "-300.00", "-300,00"},
		{1500000, "15000.00", "15000,00"},
		{math.MinInt64, "-92233720368547758.08", "-92233720368547758,08"},
	} {
		if row.sum.String() != row.text || row.sum.RU() != row.ru {
			t.Errorf("%d is printed %q and %q; want %q and %q", int64(row.sum), row.sum, row.sum.RU(), row.text, row.ru)
		}
	}
}

func TestWhatIsPrintedIsReadBack(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		sum := Amount(rapid.Int64Range(int64(-Max), int64(Max)).Draw(t, "sum"))
		if back, err := Parse(sum.String()); err != nil || back != sum {
			t.Fatalf("%d was printed %q and read back as %d, %v", int64(sum), sum, int64(back), err)
		}
		var back struct{ Total Amount }
		body, err := json.Marshal(struct{ Total Amount }{sum})
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(body, &back); err != nil || back.Total != sum {
			t.Fatalf("%d was marshalled as %s and read back as %d, %v", int64(sum), body, int64(back.Total), err)
		}
	})
}

func TestASumInJSONIsAString(t *testing.T) {
	t.Parallel()
	var sum Amount
	for _, body := range []string{`143.50`, `143`, `null`, `true`, `{}`, `"143,50"`, `"143.50`, ``} {
		if err := sum.UnmarshalJSON([]byte(body)); err == nil {
			t.Errorf("%s was read as %s; want an error", body, sum)
		}
	}
	if err := sum.UnmarshalJSON([]byte(`"95.00"`)); err != nil || sum != 95*Rouble {
		t.Errorf(`"95.00" was read as %s, %v`, sum, err)
	}
}

func FuzzParse(f *testing.F) {
	for _, seed := range []string{"143.50", "-300.00", "0.00", "-0.00", "10000000000000.01", "1e9.00", "1.2.3", "\x00.00"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		sum, err := Parse(text)
		if err != nil {
			if sum != 0 {
				t.Fatalf("Parse(%q) failed with %v and yet gave %d", text, err, sum)
			}
			return
		}
		if sum.String() != text {
			t.Fatalf("Parse(%q) = %d, which is printed %q: the text is not canonical", text, int64(sum), sum)
		}
		if sum > Max || sum < -Max {
			t.Fatalf("Parse(%q) = %s is beyond the limit %s", text, strconv.FormatInt(int64(sum), 10), Max)
		}
	})
}
