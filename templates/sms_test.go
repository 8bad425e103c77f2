package templates

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"pgregory.net/rapid"

	"zvonok/ledger/money"
	"zvonok/templates/gsm"
)

var update = flag.Bool("update", false, "write the golden files anew")

var (
	russian = Style{Language: RU}
	latinRU = Style{Language: RU, Latin: true}
	english = Style{Language: EN}

	masha = Name{Given: "Маша", Family: "Петрова"}
	petya = Name{Given: "Петя", Family: "Петров"}
	vanya = Name{Given: "Ваня", Family: "Смирнов"}
	olga  = Name{Given: "Ольга", Family: "Смирнова"}
)

// at returns a moment of Thursday 14 May 2026 in Moscow.
func at(clock string) time.Time {
	t, err := time.ParseInLocation("2006-01-02 15:04", "2026-05-14 "+clock, time.FixedZone("MSK", 3*60*60))
	if err != nil {
		panic(err)
	}
	return t
}

func some(a money.Amount) *money.Amount { return &a }

// golden compares a text with a file of testdata, or with -update writes it.
func golden(t *testing.T, file, got string) {
	t.Helper()
	path := filepath.Join("testdata", file)
	if *update {
		if err := os.MkdirAll("testdata", 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(got), 0o666); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got == string(want) {
		return
	}
	g, w := strings.Split(got, "\n"), strings.Split(string(want), "\n")
	for i := range max(len(g), len(w)) {
		if i >= len(g) || i >= len(w) || g[i] != w[i] {
			t.Fatalf("%s differs at line %d:\n got %q\nwant %q", file, i+1, line(g, i), line(w, i))
		}
	}
}

func line(lines []string, i int) string {
	if i >= len(lines) {
		return "(nothing)"
	}
	return lines[i]
}

// spec/notices.md "Texts" gives these texts and their lengths.
func TestTheExamplesOfTheSpecificationComeOut(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		message Message
		text    string
		length  int
	}{
		{
			Pass{Children: []Name{masha}, In: true, At: at("08:15"), Balance: some(143_50)},
			"Вход 08:15 Маша П. Баланс 143,50 р", 34,
		},
		{Pass{Children: []Name{masha}, At: at("14:05")}, "Выход 14:05 Маша П.", 19},
		{Pass{Children: []Name{masha, petya}, In: true, At: at("08:15")}, "Вход 08:15 Маша П., Петя П.", 27},
		{
			Pass{Children: []Name{vanya}, In: true, At: at("08:15"), Companion: olga},
			"Вход 08:15 Ваня С., привёл(а) Ольга С.", 38,
		},
		{Sale{Child: masha, Kind: Buffet, Sum: 70_00, Balance: 73_50}, "Буфет 70,00 р Маша П. Баланс 73,50 р", 36},
		{TopUp{Child: masha, Sum: 500_00, Balance: 573_50}, "Пополнение 500,00 р Маша П. Баланс 573,50 р", 43},
		{Threshold{Child: masha, Balance: 95_00, Threshold: 150_00}, "Маша П.: баланс 95,00 р, ниже 150,00 р", 38},
	} {
		got := tt.message.SMS(russian)
		if got != tt.text || utf8.RuneCountInString(got) != tt.length {
			t.Errorf("%q has %d characters, want %q with %d", got, utf8.RuneCountInString(got), tt.text, tt.length)
		}
	}
}

// ussd.md section 6 gives this screen and its length.
func TestTheScreenOfTheSpecificationComesOut(t *testing.T) {
	t.Parallel()
	one := Balance{
		Children: []ChildBalance{{Child: masha, Balance: 1250_00, Visit: Visit{In: at("08:12"), Out: at("13:40")}}},
		Now:      at("20:00").AddDate(0, 0, 1),
	}
	name, rest, _ := strings.Cut(one.USSD(russian), "\n")
	if name != "Маша П." || rest != "Баланс: 1250,00 р.\nПосещение: 14.05 08:12-13:40" || utf8.RuneCountInString(rest) != 47 {
		t.Errorf("%q", one.USSD(russian))
	}
}

// everything is a message of each kind in each of its shapes, for the goldens.
func everything() []struct {
	what    string
	message Message
} {
	seen := []ChildBalance{{Child: masha, Balance: 143_50, Visit: Visit{In: at("08:15")}}}
	pair := append(seen[:1:1], ChildBalance{Child: petya, Balance: -20_00, Visit: Visit{In: at("08:12"), Out: at("13:40")}})
	day, week := exampleDay(), exampleWeek()
	return []struct {
		what    string
		message Message
	}{
		{"entry", Pass{Children: []Name{masha}, In: true, At: at("08:15")}},
		{"entry with the balance", Pass{Children: []Name{masha}, In: true, At: at("08:15"), Balance: some(143_50)}},
		{"entry of siblings", Pass{Children: []Name{masha, petya}, In: true, At: at("08:15"), Balance: some(143_50)}},
		{"entry with a companion", Pass{Children: []Name{vanya}, In: true, At: at("08:15"), Companion: olga}},
		{"entry let in by staff", Pass{Children: []Name{masha}, In: true, At: at("08:15"), Admitted: true, Balance: some(1)}},
		{"entry reported late", Pass{Children: []Name{masha}, In: true, At: at("08:21"), Late: true}},
		{"exit", Pass{Children: []Name{masha}, At: at("14:05")}},
		{"exit with the balance", Pass{Children: []Name{masha}, At: at("14:05"), Balance: some(-300_00)}},
		{"exit of five", Pass{Children: []Name{masha, petya, vanya, longestUsual, olga}, At: at("14:05")}},
		{"exit with a companion", Pass{Children: []Name{vanya}, At: at("17:40"), Companion: olga}},
		{"exit let out by staff", Pass{Children: []Name{masha}, At: at("14:05"), Admitted: true}},
		{"exit reported late", Pass{Children: []Name{masha}, At: at("14:05"), Late: true}},
		{"a pass of nobody", Pass{At: at("14:05")}},

		{"buffet", Sale{Child: masha, Kind: Buffet, Sum: 70_00, Balance: 73_50}},
		{"hot lunch", Sale{Child: masha, Kind: Hot, Meal: Lunch, Sum: 110_00, Balance: -36_50}},
		{"a hot meal without a name", Sale{Child: masha, Kind: Hot, Sum: 110_00, Balance: 33_50}},
		{"subsidised breakfast for the parent", Sale{Child: masha, Kind: Subsidised, Meal: Breakfast, Own: true}},
		{"subsidised breakfast for a trusted person", Sale{Child: masha, Kind: Subsidised, Meal: Breakfast}},
		{"a subsidised meal without a name for the parent", Sale{Child: masha, Kind: Subsidised, Own: true}},
		{"refused for the limit", Blocked{Child: masha, At: at("10:40"), Why: Limit}},
		{"refused for a ban", Blocked{Child: masha, At: at("10:40"), Why: Ban}},
		{"refused for money", Blocked{Child: masha, At: at("10:40"), Why: Funds}},

		{"top-up", TopUp{Child: masha, Sum: 500_00, Balance: 573_50}},
		{"a sale reversed", Correction{Child: masha, Sum: 70_00, Balance: 143_50}},
		{"a top-up reversed", Correction{Child: masha, Sum: -500_00, Balance: -356_50}},
		{"balance below the threshold", Threshold{Child: masha, Balance: 95_00, Threshold: 150_00}},
		{"balance reached the threshold", Threshold{Child: masha, Balance: 1050_00, Threshold: 1000_00, Up: true}},

		{"alarm for the parent", Alarm{Child: vanya, At: at("17:40")}},
		{"alarm for the staff", Alarm{Child: vanya, At: at("17:40"), Staff: true}},
		{"did not arrive", Absent{Child: masha, By: at("08:45")}},

		{"login code", LoginCode{Code: "123456", Minutes: 10}},
		{"code for a new phone", LoginCode{Code: "123456", Minutes: 1, Phone: true}},
		{"opted out", OptedOut{}},
		{"opted in", OptedIn{}},
		{"capped", Capped{}},
		{"invitation", Invitation{Inviter: olga, Until: at("12:00").AddDate(0, 0, 7)}},
		{"application accepted", Decision{Accepted: true}},
		{"application refused", Decision{}},
		{"unknown phone", Unknown{}},

		{"balance of one", Balance{Children: seen, Now: at("12:00")}},
		{"balance of one, the day after", Balance{Children: seen, Now: at("12:00").AddDate(0, 0, 1)}},
		{"balance of one without a visit", Balance{Children: []ChildBalance{{Child: masha, Balance: 143_50}}, Now: at("12:00")}},
		{"balance of two", Balance{Children: pair, Now: at("12:00")}},
		{"balance of nobody", Balance{Now: at("12:00")}},
		{"balance that is not to be told", Balance{Children: []ChildBalance{{Child: masha, NoMoney: true, Visit: seen[0].Visit}}, Now: at("12:00")}},
		{"balance of two, one of which is not to be told", Balance{Children: []ChildBalance{seen[0], {Child: petya, NoMoney: true}}, Now: at("12:00")}},
		{"what USSD could not show", USSDAnswer{Code: "*377*888#", Children: seen, Now: at("12:00")}},
		{"the same without a visit", USSDAnswer{Code: "*377*888#", Children: []ChildBalance{{Child: masha, Balance: 143_50}}}},
		{"the same of two", USSDAnswer{Code: "*377*888#", Children: pair, Now: at("12:00")}},
		{"screen of one", screen(Balance{Children: seen, Now: at("12:00")}.USSD)},
		{"screen of one without a visit", screen(Balance{Children: []ChildBalance{{Child: masha, Balance: 143_50}}}.USSD)},
		{"screen of two", screen(Balance{Children: pair, Now: at("12:00")}.USSD)},
		{"screen of an unknown phone", screen(Balance{Now: at("12:00")}.USSD)},

		{"day, first child", nth{day, 0}},
		{"day, second child", nth{day, 1}},
		{"week, first child", nth{week, 0}},
		{"week, second child", nth{week, 1}},
		{"day, visits alone", nth{covering(day, VisitsOnly), 0}},
		{"day, meals alone", nth{covering(day, MealsOnly), 0}},
		{"week, visits alone", nth{covering(week, VisitsOnly), 0}},
		{"week, meals alone", nth{covering(week, MealsOnly), 0}},
	}
}

// nth shows one text of a digest as a message.
type nth struct {
	digest Digest
	child  int
}

func (n nth) SMS(style Style) string { return n.digest.SMS(style)[n.child] }

// covering is a digest for readers whose consent is to a part.
func covering(d Digest, c Coverage) Digest {
	d.Children = slices.Clone(d.Children)
	for i := range d.Children {
		d.Children[i].Covers = c
		d.Children[i].Days = slices.Clone(d.Children[i].Days)
		for n := range d.Children[i].Days {
			d.Children[i].Days[n] = d.Children[i].Days[n].Only(c)
		}
	}
	return d
}

func exampleDay() Digest {
	return Digest{From: at("00:00"), To: at("00:00"), Children: []ChildDigest{
		{
			Child: masha, Own: true, Balance: 73_50, Lasts: Forecast{Known: true, SchoolDays: 2},
			Days: []Day{{
				Date:   at("00:00"),
				Visits: []Visit{{In: at("08:12"), InLate: true, Out: at("10:05")}, {In: at("10:40"), Out: at("13:40")}},
				Meals: []Eaten{
					{Kind: Subsidised, Meal: Breakfast, Dishes: []Dish{
						{Name: "Каша овсяная", Kcal: 210}, {Name: "Чай с лимоном", Kcal: 40},
					}},
					{Kind: Hot, Meal: Lunch, Sum: 110_00},
					{Kind: Buffet, Sum: 70_00, Dishes: []Dish{{Name: "Булочка «Домашняя»", Quantity: 2, Kcal: 520}}},
				},
				Spent: 180_00, ToppedUp: 1500_00,
				Also: []Message{Blocked{Child: masha, At: at("10:40"), Why: Limit}},
			}},
		},
		{Child: petya, Balance: -1250_00, Lasts: Forecast{Known: true}, Days: []Day{{
			Date:   at("00:00"),
			Visits: []Visit{{In: at("08:15"), BroughtBy: olga}},
			Meals:  []Eaten{{Kind: Subsidised, Meal: Lunch}},
		}}},
	}}
}

func exampleWeek() Digest {
	monday := at("00:00").AddDate(0, 0, -3)
	d := Digest{From: monday, To: monday.AddDate(0, 0, 4), Children: []ChildDigest{
		{Child: masha, Own: true, Balance: 73_50, Lasts: Forecast{Known: true, SchoolDays: 21}},
		{Child: petya, Balance: 90_000_00, Lasts: Forecast{Known: true, SchoolDays: 800}},
	}}
	for i := range 5 {
		date := monday.AddDate(0, 0, i)
		clock := func(h, m int) time.Time { return date.Add(time.Duration(h*60+m) * time.Minute) }
		d.Children[0].Days = append(d.Children[0].Days, Day{
			Date: date, Visits: []Visit{{In: clock(8, 10+i), Out: clock(13, 40)}}, Spent: 180_00,
			Meals: []Eaten{
				{Kind: Subsidised, Meal: Breakfast, Dishes: []Dish{{Name: "Каша", Kcal: 210 + i}}},
				{Kind: Buffet, Sum: 180_00, Dishes: []Dish{{Name: "Пирожок"}}},
			},
		})
	}
	d.Children[1].Days = []Day{{Date: monday, Visits: []Visit{{Out: monday.Add(13 * time.Hour)}}}, {
		Date: monday.AddDate(0, 0, 2), Also: []Message{Threshold{Child: petya, Balance: 95_00, Threshold: 150_00}},
	}}
	return d
}

// Every text, in both languages and in Latin, with what it costs.
func TestTextsOfSMSAreAsReviewed(t *testing.T) {
	t.Parallel()
	var b strings.Builder
	for _, e := range everything() {
		fmt.Fprintf(&b, "%s\n", e.what)
		for _, s := range Styles(nil) {
			text := e.message.SMS(s)
			alphabet, length := gsm.AlphabetOf(text), gsm.Units(text)
			if n, ok := gsm.Septets(text); ok {
				length = n
			}
			fmt.Fprintf(&b, "\t%d × %v %3d  %s\n", gsm.Parts(text), alphabet, length, strings.ReplaceAll(text, "\n", "⏎"))
		}
	}
	golden(t, "sms.golden", b.String())
}

// The same at the worst: the longest name a text must take, and one of forty letters.
func TestTextsOfSMSAtTheirWorstAreAsReviewed(t *testing.T) {
	t.Parallel()
	long := Name{Given: strings.Repeat("Абдурахман", 3), Family: "Щербакова"}
	var b strings.Builder
	for _, template := range Builtin().Catalogue() {
		fmt.Fprintf(&b, "%s\n", template.Key)
		for _, s := range Styles(nil) {
			for _, n := range []Name{longestUsual, long} {
				f := template.Worst(s, []Name{n})
				fmt.Fprintf(&b, "\t%d × %v %3d  %s\n", f.Parts, f.Alphabet, f.Length, strings.ReplaceAll(f.Text, "\n", "⏎"))
			}
		}
	}
	golden(t, "worst.golden", b.String())
}

// spec/notices.md: one part for names of up to 12 letters, whole.
func TestANameOfTwelveLettersIsNeverShortened(t *testing.T) {
	t.Parallel()
	for _, f := range Builtin().Lint([]Name{longestUsual}) {
		if f.Parts != 1 || f.Shortened != 0 {
			t.Errorf("%v: %q", f, f.Text)
		}
		if wantsLatin := f.Latin || f.Language == EN; wantsLatin != (f.Alphabet == gsm.GSM7) {
			t.Errorf("%v is in %v", f, f.Alphabet)
		}
	}
}

func TestLongNamesAreShortenedBeforeASecondPartIsSpent(t *testing.T) {
	t.Parallel()
	long := Name{Given: "Абдурахман-Мухаммад Али", Family: "Щербаков"}
	for _, tt := range []struct {
		name    string
		message Message
		text    string
	}{
		{
			"the name stays whole where there is room",
			Absent{Child: long, By: at("08:45")},
			"Абдурахман-Мухаммад Али Щ.: к 08:45 нет отметки о приходе",
		},
		{
			"and is an initial where there is none",
			Alarm{Child: long, At: at("17:40")},
			"Тревога! 17:40 А. Щ.: выход не по списку. Позвоните в сад",
		},
		{
			"of siblings only the longest",
			Pass{Children: []Name{masha, long, petya}, In: true, At: at("08:15"), Admitted: true},
			"Вход 08:15 Маша П., Абдурахман-Мухаммад Али Щ., Петя П., без карты",
		},
		{
			"or as many as need be",
			Pass{Children: []Name{long, masha, long, petya}, In: true, At: at("08:15"), Admitted: true},
			"Вход 08:15 А. Щ., Маша П., А. Щ., Петя П., без карты",
		},
		{"a second part that cannot be saved keeps the names", Pass{Children: []Name{
			masha, petya, vanya, olga, masha, petya, vanya, olga, masha, petya, vanya, olga,
		}, In: true, At: at("08:15")}, "Вход 08:15 Маша П., Петя П., Ваня С., Ольга С., Маша П., Петя П., " +
			"Ваня С., Ольга С., Маша П., Петя П., Ваня С., Ольга С."},
	} {
		if got := tt.message.SMS(russian); got != tt.text {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.text)
		}
	}
}

// Six siblings are what Pass promises room for.
func TestSixSiblingsFitOnePart(t *testing.T) {
	t.Parallel()
	six := []Name{longestUsual, longestUsual, longestUsual, longestUsual, longestUsual, longestUsual}
	for _, s := range Styles(nil) {
		for _, p := range []Pass{
			{Children: six, In: true, At: at("08:15")}, {Children: six, At: at("08:15"), Admitted: true},
		} {
			if text := p.SMS(s); gsm.Parts(text) != 1 {
				t.Errorf("%q takes %d parts", text, gsm.Parts(text))
			}
		}
	}
}

func TestPluralFormsAreRight(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		n           int
		ru, en      string
		days, daysE string
	}{
		{0, "0 минут", "0 minutes", "0 дней", "0 days"},
		{1, "1 минута", "1 minute", "1 день", "1 day"},
		{2, "2 минуты", "2 minutes", "2 дня", "2 days"},
		{5, "5 минут", "5 minutes", "5 дней", "5 days"},
		{11, "11 минут", "11 minutes", "11 дней", "11 days"},
		{12, "12 минут", "12 minutes", "12 дней", "12 days"},
		{21, "21 минута", "21 minutes", "21 день", "21 days"},
		{112, "112 минут", "112 minutes", "112 дней", "112 days"},
		{-1, "-1 минута", "-1 minute", "-1 день", "-1 day"},
	} {
		got := []string{
			russian.plural("minutes", tt.n), english.plural("minutes", tt.n),
			russian.plural("days", tt.n), english.plural("days", tt.n),
		}
		if want := []string{tt.ru, tt.en, tt.days, tt.daysE}; strings.Join(got, "|") != strings.Join(want, "|") {
			t.Errorf("%d: %q, want %q", tt.n, got, want)
		}
	}
}

func TestAnUnknownLanguageReadsRussian(t *testing.T) {
	t.Parallel()
	for _, l := range []Language{"", "de", "RU", "en-US"} {
		if got := (OptedIn{}).SMS(Style{Language: l}); got != (OptedIn{}).SMS(russian) {
			t.Errorf("%q: %q", l, got)
		}
	}
}

func TestARangeOfDaysIsShort(t *testing.T) {
	t.Parallel()
	may := at("00:00")
	for _, tt := range []struct {
		from, to time.Time
		sms      string
		ru, en   string
	}{
		{may, may, "14.05", "14–14 мая", "14–14 May"},
		{may.AddDate(0, 0, -3), may.AddDate(0, 0, 1), "11-15.05", "11–15 мая", "11–15 May"},
		{may.AddDate(0, 0, -17), may.AddDate(0, 0, -13), "27.04-01.05", "27 апреля – 1 мая", "27 April – 1 May"},
		{may.AddDate(-1, 0, 0), may, "14.05-14.05", "14–14 мая", "14–14 May"},
	} {
		if got := dates(tt.from, tt.to); got != tt.sms {
			t.Errorf("%q, want %q", got, tt.sms)
		}
		if got := russian.days(tt.from, tt.to); got != tt.ru {
			t.Errorf("%q, want %q", got, tt.ru)
		}
		if got := english.days(tt.from, tt.to); got != tt.en {
			t.Errorf("%q, want %q", got, tt.en)
		}
	}
}

// hostile draws what may stand in a field that a person typed.
func hostile() *rapid.Generator[string] {
	return rapid.OneOf(
		rapid.String(),
		rapid.SampledFrom([]string{
			"", " ", "Маша", "Анна-Мария", "О'Нил", "Jürgen", "李小龍", "محمد", "נועם", "აკაკი", "🙂", "👨‍👩‍👧",
			"\u202eашаМ", "Ма\r\nBcc: x@example.org",
			"Маша\x00", "<script>alert(1)</script>", "{{.Balance}}", "%n%s", "a\u0300\u0301\u0302\u0303\u0304",
			strings.Repeat("Я", 200),
			"Маша. www.example.org", "Ма\u200bша", "\ufeffМаша", "𝓜𝓪𝓼𝓱𝓪", "М.", "''; DROP TABLE", "\xff\xfe",
			"Маша   Мария", "-", "...",
		}),
		rapid.StringOfN(rapid.SampledFrom([]rune("абвгАБВ 'ё-.\u00a0\u202e\u0301\n")), 0, 300, -1),
	)
}

func names() *rapid.Generator[Name] {
	return rapid.Custom(func(t *rapid.T) Name {
		return Name{Given: hostile().Draw(t, "given"), Family: hostile().Draw(t, "family")}
	})
}

// Fault row 49, notices.md "Nothing a person typed can change a message's
// structure": whatever the name, the text is the registered one with a name in
// its place, in one part, on one line, singly spaced.
func TestNoNameChangesTheStructureOfAnSMS(t *testing.T) {
	t.Parallel()
	type place struct {
		style Style
		key   string
		i     int
	}
	forms := map[place]*regexp.Regexp{}
	for _, s := range Styles(nil) {
		for _, template := range Builtin().Catalogue() {
			for i, m := range worstOf(key(template.Key), Name{Given: "Xx", Family: "Y"}) {
				pattern := strings.ReplaceAll(regexp.QuoteMeta(m.SMS(s)), `Xx Y\.`, `([^\n]+)`)
				forms[place{s, template.Key, i}] = regexp.MustCompile(`\A` + pattern + `\z`)
			}
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		n := names().Draw(t, "name")
		s := rapid.SampledFrom(Styles(nil)).Draw(t, "style")
		for _, template := range Builtin().Catalogue() {
			if (n == Name{}) && strings.HasSuffix(template.Key, "_companion") {
				continue // the zero Name is no companion
			}
			for i, m := range worstOf(key(template.Key), n) {
				text := m.SMS(s)
				if gsm.Parts(text) != 1 {
					t.Fatalf("%s takes %d parts: %q", template.Key, gsm.Parts(text), text)
				}
				if s.latin() && !gsm.IsGSM7(text) {
					t.Fatalf("%s is not GSM-7: %q", template.Key, text)
				}
				if strings.TrimSpace(text) != text || strings.Contains(text, "  ") {
					t.Fatalf("%s is not singly spaced: %q", template.Key, text)
				}
				if r := forbidden(text, template.USSD); r != 0 {
					t.Fatalf("%s has %U: %q", template.Key, r, text)
				}
				if form := forms[place{s, template.Key, i}]; !form.MatchString(text) {
					t.Fatalf("%s does not match %v: %q", template.Key, form, text)
				}
			}
		}
	})
}

// forbidden returns the first character no message may have, or 0.
func forbidden(text string, lines bool) rune {
	for _, r := range text {
		switch {
		case r == '\n' && lines:
		case unicode.IsControl(r), unicode.In(r, unicode.Cf, unicode.Zl, unicode.Zp), r == utf8.RuneError,
			strings.ContainsRune("<>{}@", r):
			return r
		}
	}
	return 0
}

func TestNamesAreNeutralised(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		why, given, family string
		ru, latin          string
	}{
		{"an ordinary name", "Маша", "Петрова", "Маша П.", "Masha P."},
		{"a double name", "Анна-Мария", "фон Берг", "Анна-Мария Ф.", "Anna-Mariya F."},
		{"two given names", "Анна  Мария", "Щукина", "Анна Мария Щ.", "Anna Mariya Shch."},
		{"an apostrophe of a word processor", "О’Шон", "Д’Арк", "О'Шон Д.", "O'Shon D."},
		{"an abbreviation", "М.", "Петрова", "М. П.", "M. P."},
		{"no family name", "Маша", "", "Маша", "Masha"},
		{"no given name", "", "Петрова", "П.", "P."},
		{"no name at all", "", "", "ребёнок", "rebyonok"},
		{"a name of signs", "?!*", "...", "ребёнок", "rebyonok"},
		{"a name of emoji", "🙂👍🏽", "🇷🇺", "ребёнок", "rebyonok"},
		{"an emoji in a name", "Маша🙂", "Петрова", "Маша П.", "Masha P."},
		{"a header", "Маша\r\nBcc: x@example.org", "П", "Маша Bcc x example org П.", "Masha Bcc x example org P."},
		{"a tag", "<b>Маша</b>", "<i>", "b Маша b I.", "b Masha b I."},
		{"a template", "{{.Balance}}", "П", "Balance П.", "Balance P."},
		{"a direction mark", "\u202eашаМ\u202c", "Петрова", "ашаМ П.", "ashaM P."},
		{"invisible characters", "Ма\u200bш\u00adа\ufeff", "\u2060Петрова", "Маша П.", "Masha P."},
		{"control characters", "Ма\x00ша\x1b[31m", "П\x07", "Маша 31m П.", "Masha 31m P."},
		{"a soft line break", "Маша\u2028Петя", "П", "Маша Петя П.", "Masha Petya P."},
		{"no-break spaces", "Маша\u00a0\u3000Мария", "П", "Маша Мария П.", "Masha Mariya P."},
		{"composed letters", "Андреи\u0306", "Е\u0308лкин", "Андрей Ё.", "Andrey Yo."},
		{"a tower of marks", "М" + strings.Repeat("\u0301", 50) + "аша", "П", "М\u0301\u0301\u0301аша П.", "Masha P."},
		{"ornamental letters", "𝓜𝓪𝓻𝓲𝓪", "Ｐｅｔ", "Maria P.", "Maria P."},
		{"an address on the web", "Зайди на example.org", "П", "Зайди на example org П.", "Zaydi na example org P."},
		{"letters no transliteration has", "李小龍", "李", "李小龍 李.", "rebyonok"},
		{"some of them", "Маша 李", "Петрова", "Маша 李 П.", "Masha P."},
		{"a name from right to left", "محمد", "Петров", "محمد П.", "P."},
		{"two hundred letters", strings.Repeat("Я", 200), "Петрова", "Я. П.", "Ya. P."},
		{"a page", strings.Repeat("Маша ", 4000), "Петрова", "М. П.", "M. P."},
		{"octets that are no text", "Ма\xffша\xfe", "\x80П", "Маша П.", "Masha P."},
		{"a soft sign at the head", "Ьша", "Ъ", "Ьша Ъ.", "sha"},
		{"a hyphen at the ends", "-Маша-", "'П", "Маша П.", "Masha P."},
	} {
		n := Name{Given: tt.given, Family: tt.family}
		if got := n.Short(russian); got != tt.ru {
			t.Errorf("%s: %q, want %q", tt.why, got, tt.ru)
		}
		if got := n.Short(latinRU); got != tt.latin {
			t.Errorf("%s in Latin: %q, want %q", tt.why, got, tt.latin)
		}
	}
}

func TestDishesAreNeutralised(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ typed, shown string }{
		{"Булочка  «Домашняя» , 50 г (с изюмом)", "Булочка «Домашняя», 50 г (с изюмом)"},
		{"Сок 0.2 л / яблоко 100%", "Сок 0.2 л / яблоко 100%"},
		{"Каша\r\n\r\nBcc: x", "Каша Bcc x"},
		{"<img src=//example.org/x>", "img src //example.org/x"},
		{"", ""},
		{"🍰", ""},
		{strings.Repeat("Каша овсяная ", 20), strings.Repeat("Каша овсяная ", 6) + "К…"},
	} {
		if got := cleanDish(tt.typed); got != tt.shown {
			t.Errorf("%q became %q, want %q", tt.typed, got, tt.shown)
		}
	}
}

func TestACodeKeepsWhatCodesHave(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ code, shown string }{
		{"123456", "123456"},
		{"*377*888#", "*377*888#"},
		{"12 34\r\nX", "1234X"},
		{strings.Repeat("9", 99), strings.Repeat("9", 16)},
	} {
		if got := cleanCode(tt.code); got != tt.shown {
			t.Errorf("%q became %q", tt.code, got)
		}
	}
}

// D5, R44: the word is for the child's own representatives alone.
func TestNobodyElseReadsOfBenefits(t *testing.T) {
	t.Parallel()
	for _, s := range Styles(nil) {
		own := Sale{Child: masha, Kind: Subsidised, Meal: Lunch, Own: true}
		other := Sale{Child: masha, Kind: Subsidised, Meal: Lunch}
		if !speaksOfBenefits(own.SMS(s)) {
			t.Errorf("the parent reads %q", own.SMS(s))
		}
		for _, e := range everything() {
			if text := e.message.SMS(s); speaksOfBenefits(text) && !strings.Contains(e.what, "for the parent") {
				t.Errorf("%s: %q", e.what, text)
			}
		}
		if mail := own.Mail(s.Language); !speaksOfBenefits(mail.Text) || speaksOfBenefits(mail.Subject) {
			t.Errorf("the parent's letter is %q", mail)
		}
		if mail := other.Mail(s.Language); speaksOfBenefits(mail.Text + mail.HTML) {
			t.Errorf("the other's letter is %q", mail)
		}
		for _, d := range []Digest{exampleDay(), exampleWeek()} {
			for i := range d.Children {
				d.Children[i].Own = false
			}
			if mail := d.Mail(s.Language); speaksOfBenefits(mail.Subject + mail.Text + mail.HTML) {
				t.Errorf("the other's digest is %q", mail.Text)
			}
		}
	}
}

func BenchmarkSMS(b *testing.B) {
	p := Pass{Children: []Name{masha}, In: true, At: at("08:15"), Balance: some(143_50)}
	b.ReportAllocs()
	for b.Loop() {
		p.SMS(russian)
	}
}

func FuzzNames(f *testing.F) {
	for _, seed := range []string{"Маша", "\u202eМаша", "a\u0301\u0301\u0301\u0301", "\xff", "-'.", "👨‍👩‍👧", "ﷺ", "{{.}}"} {
		f.Add(seed, "Петрова")
	}
	f.Fuzz(func(t *testing.T, given, family string) {
		for _, s := range Styles(nil) {
			text := (Alarm{Child: Name{given, family}, At: at("17:40")}).SMS(s)
			if gsm.Parts(text) != 1 || strings.Contains(text, "  ") || strings.ContainsAny(text, "\r\n\x00<>") ||
				!utf8.ValidString(text) {
				t.Fatalf("%q", text)
			}
			_ = cleanDish(given)
		}
	})
}
