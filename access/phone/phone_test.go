package phone

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// D3, R27: one person's number is one identity, however it is written.
func TestEveryWayOfWritingARussianNumberIsTheSameNumber(t *testing.T) {
	t.Parallel()
	for _, raw := range []string{
		"+79000000001", "79000000001", "89000000001", "9000000001",
		"+7 900 000-00-01", "8 (900) 000-00-01", "+7(900)000 00 01", "(900) 000-00-01",
		"+7\u00a0900\u00a0000\u2011\u00a000\u201101", // no-break spaces and hyphens of a word processor
		"\u202a+79000000001\u202c",                   // embedded by a telephone book
		"+７９００００００００１",                               // full-width digits
		"+7.900.000.00.01", "8/900/0000001", " 89000000001 ",
	} {
		got, err := Parse(raw, "RU")
		if err != nil || got != "79000000001" {
			t.Errorf("Parse(%+q) = %q, %v", raw, got, err)
		}
	}
}

func TestNumbersOfOtherCountriesAreKeptInTheirOwnForm(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, raw, region string
		want              Number
	}{
		{"Kazakhstan shares +7", "8 701 000 00 01", "KZ", "77010000001"},
		{"a Kazakh number in a Russian school", "+7 701 000 00 01", "RU", "77010000001"},
		{"Belarus", "+375 29 100-00-01", "RU", "375291000001"},
		{"Belarus from inside", "8 029 100-00-01", "BY", "375291000001"},
		{"Germany", "+49 1512 3456789", "RU", "4915123456789"},
		{"Germany dialled from Russia", "8 10 49 1512 3456789", "RU", "4915123456789"},
		{"a number of North America, where mobiles look like fixed lines", "+1 212 555 2368", "RU", "12125552368"},
	} {
		got, err := Parse(tt.raw, tt.region)
		if err != nil || got != tt.want {
			t.Errorf("%s: %q, %v, want %q", tt.name, got, err, tt.want)
		}
	}
}

func TestWhatIsNoMobileNumberIsRefusedWithItsReason(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, raw string
		want      Reason
	}{
		{"nothing", "", Empty},
		{"only signs", "+()-", Empty},
		{"a name", "мама", Characters},
		{"a vanity number", "8-800-FLOWERS", Characters},
		{"an extension", "89000000001 доб. 5", Characters},
		{"two numbers in one field", "89000000001, 89000000002", Characters},
		{"a line break", "8900000\r\n0001;", Characters},
		{"an octet that is not UTF-8", "8900000000\xff1", Characters},
		{"digits too few", "+7 900 000 00", Short},
		{"digits too many", "+7 900 000 00 01 00 01 00", Long},
		{"a digit too few after the trunk digit", "8900000000", Plan},
		{"a digit too many", "890000000012", Plan},
		{"four kilometres of digits", strings.Repeat("9", 4000), Long},
		{"a code no operator has", "+7 100 000 00 01", Plan},
		{"a country that does not exist", "+999 900 0000001", Plan},
		{"a fixed line in Moscow", "8 495 000-00-01", NotMobile},
		{"a free call", "8 800 200-00-01", NotMobile},
	} {
		got, err := Parse(tt.raw, "RU")
		var refused *Error
		if got != "" || !errors.As(err, &refused) || refused.Reason != tt.want {
			t.Errorf("%s: %q, %v, want %s", tt.name, got, err, tt.want)
		}
	}
}

// The short way may know fewer spellings than the plan, never others.
func TestTheShortWayAgreesWithTheNumberingPlan(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		raw := rapid.StringOfN(rapid.SampledFrom([]rune("+789900000123456 -()")), 0, 20, -1).Draw(t, "raw")
		if rapid.Bool().Draw(t, "likely") {
			raw = rapid.SampledFrom([]string{"+79", "79", "89", "9", "+7 (9", "8-9"}).Draw(t, "start") +
				rapid.StringMatching(`[0-9][0-9 )-]{6,12}[0-9]`).Draw(t, "rest")
		}
		region := rapid.SampledFrom([]string{"RU", "KZ", "DE", ""}).Draw(t, "region")
		short, ok := parseRussian(raw, region)
		if !ok {
			return
		}
		long, err := parsePlan(raw, region)
		if err != nil || long != short {
			t.Fatalf("%q in %q: %q by the short way, %q, %v by the plan", raw, region, short, long, err)
		}
	})
}

// R12, ussd.md section 3 "MSISDN": each rule of the list, in its order.
func TestAnOperatorsAddressBecomesItsCanonicalNumber(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name     string
		addr     string
		ton, npi byte
		region   string
		want     Number
		refused  Reason
	}{
		{"international", "79000000001", 1, 1, "RU", "79000000001", ""},
		{"international with a plus", "+79000000001", 1, 1, "RU", "79000000001", ""},
		{"international with 00", "0079000000001", 0, 1, "RU", "79000000001", ""},
		{"with spaces", "7 900 000 00 01", 0, 0, "RU", "79000000001", ""},
		{"international stays as it is, whatever it begins with", "8180000000001", 1, 1, "RU", "8180000000001", ""},
		{"national", "9000000001", 2, 1, "RU", "79000000001", ""},
		{"national with the trunk digit", "89000000001", 2, 8, "RU", "79000000001", ""},
		{"marked national but complete", "79000000001", 2, 1, "RU", "79000000001", ""},
		{"unknown, ten digits", "9000000001", 0, 0, "RU", "79000000001", ""},
		{"unknown, with the trunk digit", "89000000001", 0, 1, "RU", "79000000001", ""},
		{"unknown, complete", "79000000001", 0, 1, "RU", "79000000001", ""},
		{"a Kazakh link, ten digits", "7010000001", 0, 1, "KZ", "77010000001", ""},
		{"a Kazakh link, trunk digit", "87010000001", 0, 1, "KZ", "77010000001", ""},
		{"ten digits of no mobile stay", "4950000001", 0, 1, "RU", "4950000001", ""},
		{"a guest from abroad", "375291000001", 0, 1, "RU", "375291000001", ""},
		{"a Belarusian link, national", "291000001", 2, 1, "BY", "375291000001", ""},
		{"a trunk digit means nothing outside +7", "80291000001", 0, 1, "BY", "80291000001", ""},
		{"a name", "SCHOOL", 5, 0, "RU", "", NotNumber},
		{"digits marked as a name", "79000000001", 5, 0, "RU", "", NotNumber},
		{"an IMSI", "250010000000001", 0, 6, "RU", "", NotNumber},
		{"an IP address", "127000000001", 0, 14, "RU", "", NotNumber},
		{"letters", "ussd:377", 0, 0, "RU", "", Characters},
		{"the code itself", "*377*888#", 0, 0, "RU", "", Characters},
		{"a short code", "377", 0, 1, "RU", "", Short},
		{"nothing", "", 1, 1, "RU", "", Empty},
		{"a plus and nothing", "+", 1, 1, "RU", "", Empty},
		{"sixteen digits", "7900000000100000", 1, 1, "RU", "", Long},
		{"a country code of zero", "0900000000", 0, 1, "RU", "", Plan},
		{"a NUL inside", "7900\x000000001", 1, 1, "RU", "", Characters},
	} {
		got, err := FromMSISDN(tt.addr, tt.ton, tt.npi, tt.region)
		var refused *Error
		errors.As(err, &refused)
		if got != tt.want || (refused == nil) != (tt.refused == "") || refused != nil && refused.Reason != tt.refused {
			t.Errorf("%s: %q, %v, want %q %s", tt.name, got, err, tt.want, tt.refused)
		}
	}
}

func TestANumberInALogIsMasked(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	log := slog.New(slog.NewTextHandler(&out, nil))
	number, err := Parse("+7 900 000 00 01", "RU")
	if err != nil {
		t.Fatal(err)
	}
	log.Info("seen", "phone", number)
	if strings.Contains(out.String(), "0000001") || !strings.Contains(out.String(), "+7900***01") {
		t.Error(out.String())
	}
	for _, tt := range []struct {
		n            Number
		e164, masked string
	}{
		{"", "", ""},
		{"79000000001", "+79000000001", "+7900***01"},
		{"37529100", "+37529100", "+***"},
	} {
		if tt.n.E164() != tt.e164 || tt.n.Masked() != tt.masked {
			t.Errorf("%q: %q %q", string(tt.n), tt.n.E164(), tt.n.Masked())
		}
	}
}

// An error is logged; so it may not carry what it refused.
func TestAnErrorDoesNotRepeatTheNumber(t *testing.T) {
	t.Parallel()
	for _, raw := range []string{"8495000000", "84950000001", "+7900000000177"} {
		_, err := Parse(raw, "RU")
		if err == nil || strings.ContainsAny(err.Error(), "0123456789") {
			t.Errorf("%q: %v", raw, err)
		}
	}
}

func TestHalfAMillionRussianNumbersAreParsedWithinSeconds(t *testing.T) {
	t.Parallel()
	start := time.Now() // the bound is for a machine that has much else to do
	for i := range 500_000 {
		if _, err := Parse(fmt.Sprintf("8 (900) %03d-%02d-%02d", i/10_000%1000, i/100%100, i%100), "RU"); err != nil {
			t.Fatal(err)
		}
	}
	if took := time.Since(start); took > time.Minute {
		t.Errorf("it took %v", took)
	}
}

func BenchmarkParse(b *testing.B) {
	for _, bb := range []struct{ name, raw string }{
		{"Russian", "8 (900) 000-00-01"}, {"Belarusian", "+375 29 100-00-01"},
	} {
		b.Run(bb.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := Parse(bb.raw, "RU"); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// canonical is what every Number promises.
func canonical(n Number) bool {
	if len(n) < minDigits || len(n) > maxDigits || n[0] == '0' {
		return false
	}
	return strings.Trim(string(n), "0123456789") == ""
}

func FuzzParse(f *testing.F) {
	for _, seed := range []string{
		"+79000000001", "8 (900) 000-00-01", "tel:+79000000001", "8800FLOWERS", "+", "\u202a+7900", "00", "+39 06 0000",
	} {
		f.Add(seed, "RU")
		f.Add(seed, "")
	}
	f.Fuzz(func(t *testing.T, raw, region string) {
		n, err := Parse(raw, region)
		if err != nil {
			if n != "" || strings.ContainsAny(err.Error(), "0123456789") {
				t.Fatalf("%q with %v", n, err)
			}
			return
		}
		if !canonical(n) {
			t.Fatalf("%q gave %q", raw, n)
		}
		if again, err := Parse(n.E164(), region); err != nil || again != n {
			t.Fatalf("%q gave %q, which gives %q, %v", raw, n, again, err)
		}
	})
}

func FuzzFromMSISDN(f *testing.F) {
	for _, seed := range []string{"79000000001", "+79000000001", "0089", "89000000001", "9000000001", "ussd:377", ""} {
		for _, ton := range []byte{0, 1, 2, 5} {
			f.Add(seed, ton, byte(1), "RU")
		}
	}
	f.Fuzz(func(t *testing.T, addr string, ton, npi byte, region string) {
		n, err := FromMSISDN(addr, ton, npi, region)
		if (err == nil) != (n != "") || err == nil && !canonical(n) {
			t.Fatalf("%q, %v", n, err)
		}
		if err != nil {
			return
		}
		if again, err := FromMSISDN(string(n), tonInternational, npiISDN, region); err != nil || again != n {
			t.Fatalf("%q is not stable: %q, %v", n, again, err)
		}
	})
}
