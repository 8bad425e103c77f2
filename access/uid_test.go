package access

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestAnIdentifierIsTakenAsPeopleWriteIt(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		when, raw string
		want      UID // "": refused
	}{
		{"four octets as the contract writes them", "9A3F105C", "9A3F105C"},
		{"lower case", "9a3f105c", "9A3F105C"},
		{"seven octets", "04A1B2C3D4E580", "04A1B2C3D4E580"},
		{"ten octets", "0102030405060708090a", "0102030405060708090A"},
		{"a fob of five octets", "3600A1B2C3", "3600A1B2C3"},
		{"octets separated by colons", "04:A1:B2:C3:D4:E5:80", "04A1B2C3D4E580"},
		{"octets separated by spaces", " 9A 3F 10 5C ", "9A3F105C"},
		{"an odd number of digits", "9A3F105", ""},
		{"three octets", "9A3F10", ""},
		{"eleven octets", "0102030405060708090A0B", ""},
		{"a separator inside an octet", "9:A3F105C", ""},
		{"letters beyond F", "9A3F10XY", ""},
		{"digits of another script", "９Ａ3F105C", ""},
		{"nothing", "", ""},
		{"only separators", "::::", ""},
		{"a megabyte", strings.Repeat("9A", 1<<19), ""},
	} {
		t.Run(test.when, func(t *testing.T) {
			got, err := ParseUID(test.raw)
			if test.want == "" {
				if !errors.Is(err, ErrUID) {
					t.Errorf("got %q, %v; want ErrUID", got, err)
				}
				return
			}
			if err != nil || got != test.want {
				t.Errorf("got %q, %v; want %q", got, err, test.want)
			}
		})
	}
}

// The card of spec/door.md, whose Wiegand-26 numbers were worked out by hand.
// A reader never reports such a card as it was keyed in, so it must not be keyed in.
func TestAPartOfALongerIdentifierIsNoIdentifier(t *testing.T) {
	t.Parallel()
	if _, err := ParseUID("88 04 A1 B2"); !errors.Is(err, ErrPartUID) || !errors.Is(err, ErrUID) {
		t.Errorf("88 and three octets: %v", err)
	}
	for _, raw := range []string{"8804A1B2C3", "04880000", "88112233445566"} {
		if _, err := ParseUID(raw); err != nil {
			t.Errorf("%s: %v", raw, err)
		}
	}
}

func TestReadersReportOneCardInManyForms(t *testing.T) {
	t.Parallel()
	const card UID = "9A3F105C"
	for _, test := range []struct {
		profile, raw string
		uid          UID
		part         Part
	}{
		{"plain", "9A3F105C", card, Whole},
		{"reversed", "5C103F9A", card, Whole},
		{"w26", "063,04188", "3F105C", Tail3},
		{"w26", "63,4188", "3F105C", Tail3},
		{"w26", "3F105C", "3F105C", Tail3},
		{"reversed-w26", "016,16282", "9A3F10", Head3},
		{"reversed-w26", "103F9A", "9A3F10", Head3},
		{"w34", "9A3F105C", card, Tail4},
		{"reversed-w34", "5C103F9A", card, Head4},
		{"inverted", "65C0EFA3", card, Whole},
		{"mirrored", "59FC083A", card, Whole},
		{"reversed-mirrored", "3A08FC59", card, Whole},
		// Seven octets folded to four.
		{"reversed-w34", "C3B2A104", "04A1B2C3", Head4},
		{"w34", "C3D4E580", "C3D4E580", Tail4},
		{"plain", "8804A1B2", "04A1B2", Head3},
		{"reversed", "B2A10488", "04A1B2", Head3},
		{"w34", "8804A1B2", "8804A1B2", Tail4},
	} {
		t.Run(test.profile+" "+test.raw, func(t *testing.T) {
			profile, err := ParseProfile(test.profile)
			if err != nil {
				t.Fatal(err)
			}
			uid, part, err := profile.Read(test.raw)
			if err != nil || uid != test.uid || part != test.part {
				t.Errorf("read %q %q, %v; want %q %q", uid, part, err, test.uid, test.part)
			}
		})
	}
	if got := (Profile{Reversed: true}).Wiegand26(card); got != "016,16282" {
		t.Errorf("least significant first shows %s", got)
	}
	if got := (Profile{}).Wiegand26(card); got != "063,04188" {
		t.Errorf("most significant first shows %s", got)
	}
}

func TestAReaderThatReportsAnotherLengthIsRefused(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ profile, raw string }{
		{"w26", "9A3F105C"},
		{"w26", "256,00001"},
		{"w26", "001,65536"},
		{"w26", "001,"},
		{"w26", ",00001"},
		{"w26", "-01,00001"},
		{"w26", "1,2,3"},
		{"w34", "3F105C"},
		{"plain", "3F105C"},
		{"plain", "063,04188"},
	} {
		profile, err := ParseProfile(test.profile)
		if err != nil {
			t.Fatal(err)
		}
		if uid, part, err := profile.Read(test.raw); !errors.Is(err, ErrUID) {
			t.Errorf("%s read %q as %q %q, %v; want ErrUID", test.profile, test.raw, uid, part, err)
		}
	}
	for _, name := range []string{"w26-w34", "upside-down", "reversed-reversed", "-", "w26-"} {
		if profile, err := ParseProfile(name); err == nil {
			t.Errorf("the profile %q was taken as %v", name, profile)
		}
	}
}

func drawUID(t *rapid.T) UID {
	n := rapid.SampledFrom([]int{4, 5, 7, 8, 10}).Draw(t, "octets")
	octets := rapid.SliceOfN(rapid.Byte(), n, n).Draw(t, "uid")
	if octets[0] == cascadeTag {
		octets[0] = 0x04 // a card never begins with the cascade tag
	}
	return uidOf(octets)
}

func drawProfile(t *rapid.T) Profile {
	return Profile{
		Reversed: rapid.Bool().Draw(t, "reversed"),
		Mirrored: rapid.Bool().Draw(t, "mirrored"),
		Inverted: rapid.Bool().Draw(t, "inverted"),
		Kept:     rapid.SampledFrom([]int{0, 3, 4}).Draw(t, "kept"),
	}
}

func TestWhatAProfileShowsItReadsBack(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		uid, profile := drawUID(t), drawProfile(t)
		named, err := ParseProfile(profile.String())
		if err != nil || named != profile {
			t.Fatalf("%q is read as %v, %v", profile.String(), named, err)
		}
		got, part, err := profile.Read(profile.Show(uid))
		if err != nil {
			t.Fatal(err)
		}
		if got != part.Of(uid) {
			t.Fatalf("%s shows %s as %s, read back as %s %q", profile, uid, profile.Show(uid), got, part)
		}
		if whole := part == Whole; whole != (profile.Kept == 0) {
			t.Fatalf("%s read the part %q", profile, part)
		}
	})
}

func TestIdentifiersStayOutOfLogs(t *testing.T) {
	t.Parallel()
	var out strings.Builder
	slog.New(slog.NewTextHandler(&out, nil)).Info("tap", "card", UID("9A3F105C"))
	if strings.Contains(out.String(), "9A3F") {
		t.Errorf("logged %s", out.String())
	}
}

func FuzzParseUID(f *testing.F) {
	for _, seed := range []string{"9A3F105C", "04:A1:B2:C3:D4:E5:80", "", "FFFFFFFF", "9A 3F 10 5C", "xyz", "9A-3F"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		uid, err := ParseUID(raw)
		if err != nil {
			return
		}
		if len(uid) < 8 || len(uid) > 20 || len(uid)%2 != 0 || strings.Trim(string(uid), "0123456789ABCDEF") != "" {
			t.Fatalf("%q became %q", raw, uid)
		}
		if again, err := ParseUID(string(uid)); err != nil || again != uid {
			t.Fatalf("%q is not stable: %q, %v", uid, again, err)
		}
	})
}

func FuzzProfileRead(f *testing.F) {
	for _, profile := range []string{"plain", "reversed", "w26", "reversed-w26", "w34", "mirrored-inverted-w34"} {
		for _, raw := range []string{"9A3F105C", "063,04188", "3F105C", "8804A1B2", "0,0", "", ",,,"} {
			f.Add(profile, raw)
		}
	}
	f.Fuzz(func(t *testing.T, name, raw string) {
		profile, err := ParseProfile(name)
		if err != nil {
			return
		}
		uid, part, err := profile.Read(raw)
		if err != nil {
			if !errors.Is(err, ErrUID) {
				t.Fatalf("%q: %v", raw, err)
			}
			return
		}
		length := map[Part]int{Head3: 6, Tail3: 6, Head4: 8, Tail4: 8}[part]
		if part != Whole && len(uid) != length {
			t.Fatalf("%s read %q as %s %q", profile, raw, uid, part)
		}
		if part == Whole && profile.Show(uid) != string(mustOctets(t, raw)) {
			t.Fatalf("%s read %q as %s and shows it as %s", profile, raw, uid, profile.Show(uid))
		}
	})
}

func mustOctets(t *testing.T, raw string) UID {
	t.Helper()
	octets, err := parseOctets(raw)
	if err != nil {
		t.Fatal(fmt.Errorf("%q: %w", raw, err))
	}
	return uidOf(octets)
}
