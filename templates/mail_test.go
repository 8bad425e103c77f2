package templates

import (
	"fmt"
	"regexp"
	"strings"
	"testing"

	"golang.org/x/text/language"
	"golang.org/x/text/message"
	"golang.org/x/text/number"
	"pgregory.net/rapid"

	"zvonok/ledger/money"
)

var links = Links{Settings: "https://zvonok.example.org/settings", Unsubscribe: "https://zvonok.example.org/u/x?a=1&b=2"}

// mailed is a message that is also a letter.
type mailed interface{ Mail(Language) Mail }

func letters() []struct {
	what   string
	letter mailed
} {
	day, week := exampleDay(), exampleWeek()
	day.Links, week.Links = links, links
	dishes := []Dish{{Name: "Булочка «Домашняя»", Quantity: 2, Kcal: 520}, {Name: "Чай"}}
	return []struct {
		what   string
		letter mailed
	}{
		{"entry of siblings", Pass{Children: []Name{masha, petya}, In: true, At: at("08:15"), Links: links}},
		{"exit with the balance", Pass{Children: []Name{masha}, At: at("14:05"), Balance: some(-1_250_00), Links: links}},
		{"exit with a companion", Pass{Children: []Name{vanya}, At: at("17:40"), Companion: olga, Links: links}},
		{"entry let in and late", Pass{
			Children: []Name{masha}, In: true, At: at("08:21"), Admitted: true, Late: true, Links: links,
		}},
		{"buffet", Sale{Child: masha, Kind: Buffet, At: at("10:40"), Sum: 70_00, Balance: 73_50, Dishes: dishes, Links: links}},
		{"hot lunch", Sale{Child: masha, Kind: Hot, Meal: Lunch, At: at("12:40"), Sum: 110_00, Balance: -36_50, Links: links}},
		{"subsidised for the parent", Sale{
			Child: masha, Kind: Subsidised, Meal: Breakfast, At: at("09:10"), Own: true, Dishes: dishes, Links: links,
		}},
		{"subsidised for others", Sale{
			Child: masha, Kind: Subsidised, Meal: Breakfast, At: at("09:10"), Dishes: dishes, Links: links,
		}},
		{"blocked", Blocked{Child: masha, At: at("10:40"), Why: Ban, Dish: "Кола 0,5 л", Links: links}},
		{"top-up", TopUp{Child: masha, At: at("20:15"), Sum: 15_000_00, Balance: 15_073_50, Links: links}},
		{"correction", Correction{Child: masha, At: at("11:00"), Sum: -500_00, Balance: -356_50, Links: links}},
		{"threshold", Threshold{Child: masha, Balance: 95_00, Threshold: 150_00, Links: links}},
		{"threshold upward", Threshold{Child: masha, Balance: 1_050_00, Threshold: 1_000_00, Up: true, Links: links}},
		{"alarm", Alarm{Child: vanya, At: at("17:40"), Links: links}},
		{"alarm for the staff", Alarm{Child: vanya, At: at("17:40"), Staff: true}},
		{"absent", Absent{Child: masha, By: at("08:45"), Links: links}},
		{"invitation", Invitation{Inviter: olga, Until: at("12:00").AddDate(0, 0, 7), Links: links}},
		{"application accepted", Decision{Accepted: true, Links: links}},
		{"application refused", Decision{Links: links}},
		{"mailbox code", MailboxCode{Code: "123456", Minutes: 10}},
		{"day", day},
		{"week", week},
		{"day, visits alone", covering(day, VisitsOnly)},
		{"day, meals alone", covering(day, MealsOnly)},
		{"week, visits alone", covering(week, VisitsOnly)},
		{"week, meals alone", covering(week, MealsOnly)},
		{"day after a till was offline", Digest{From: at("00:00"), To: at("00:00"), Children: []ChildDigest{
			{Child: masha, Own: true, Balance: 5, Days: []Day{{Date: at("00:00"), Spent: 70_00, Meals: []Eaten{
				{Kind: Hot, Meal: Lunch, Sum: 110_00, Dishes: []Dish{{Name: "Борщ", Kcal: 180}}, Date: at("00:00").AddDate(0, 0, -1), Late: true},
				{Kind: Buffet, Sum: 30_00, Date: at("00:00").AddDate(0, 0, -1)},
				{Kind: Buffet, Sum: 70_00, Dishes: dishes},
			}, Also: []Message{Blocked{Child: masha, At: at("19:20").AddDate(0, 0, -1), Why: Limit, Dated: true}}}}},
		}}},
		{"day without anything", Digest{From: at("00:00"), To: at("00:00"), Children: []ChildDigest{{Child: masha, Balance: 5}}}},
		{"four children", Digest{From: at("00:00"), To: at("00:00"), Children: []ChildDigest{
			{Child: masha}, {Child: petya}, {Child: vanya}, {Child: olga},
		}}},
	}
}

func TestLettersAreAsReviewed(t *testing.T) {
	t.Parallel()
	for _, l := range Languages() {
		var b strings.Builder
		for _, e := range letters() {
			m := e.letter.Mail(l)
			fmt.Fprintf(&b, "======== %s\nSubject: %s\n\n%s\n", e.what, m.Subject, m.Text)
		}
		golden(t, "mail."+string(l)+".golden", strings.ReplaceAll(b.String(), "\u00a0", "~"))
		day, week := exampleDay(), exampleWeek()
		day.Links, week.Links = links, links
		golden(t, "day."+string(l)+".html", day.Mail(l).HTML)
		golden(t, "week."+string(l)+".html", week.Mail(l).HTML)
	}
}

// skeleton is the structure of a page: its tags without what was put between them.
func skeleton(html string) string {
	return strings.Join(regexp.MustCompile(`<[^>]*>`).FindAllString(html, -1), "\n")
}

// Fault row 49, V1.3.11: whatever names and dishes hold, a letter has the same
// structure, its subject is one line, and nothing in it runs or loads.
func TestNoNameChangesTheStructureOfALetter(t *testing.T) {
	t.Parallel()
	make := func(n Name, dish string) []mailed {
		return []mailed{
			Pass{Children: []Name{n, n}, At: at("08:15"), Links: links},
			Sale{Child: n, Kind: Buffet, At: at("08:15"), Dishes: []Dish{{Name: "Чай " + dish, Kcal: 1}}, Links: links},
			Blocked{Child: n, At: at("08:15"), Dish: "Чай " + dish, Links: links},
			Invitation{Inviter: n, Until: at("08:15")},
			Digest{From: at("00:00"), To: at("00:00"), Children: []ChildDigest{{Child: n, Days: []Day{{
				Date: at("00:00"), Meals: []Eaten{{Kind: Hot, Dishes: []Dish{{Name: "Чай " + dish}}}},
				Visits: []Visit{{In: at("08:15"), BroughtBy: Name{"x" + n.Given, n.Family}}},
				Also:   []Message{Absent{Child: n, By: at("08:45")}},
			}}}}},
		}
	}
	plain := map[Language][]Mail{}
	for _, l := range Languages() {
		for _, letter := range make(masha, "с лимоном") {
			plain[l] = append(plain[l], letter.Mail(l))
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		n, dish := names().Draw(t, "name"), hostile().Draw(t, "dish")
		l := rapid.SampledFrom(Languages()).Draw(t, "language")
		for i, letter := range make(n, dish) {
			m, want := letter.Mail(l), plain[l][i]
			if got := skeleton(m.HTML); got != skeleton(want.HTML) {
				t.Fatalf("the page became\n%s", m.HTML)
			}
			if strings.Count(m.Text, "\n") != strings.Count(want.Text, "\n") {
				t.Fatalf("the text became\n%s", m.Text)
			}
			if strings.ContainsAny(m.Subject, "\r\n\x00<>") || strings.TrimSpace(m.Subject) != m.Subject {
				t.Fatalf("the subject became %q", m.Subject)
			}
		}
	})
}

// No third-party hosts, no scripts, nothing to load: a letter does not tell
// anybody that it was opened.
func TestALetterLoadsNothing(t *testing.T) {
	t.Parallel()
	address := regexp.MustCompile(`https?://[^"<\s]*`)
	for _, l := range Languages() {
		for _, e := range letters() {
			html := e.letter.Mail(l).HTML
			for _, word := range []string{"<img", "<script", "<link", "<style", "url(", "@import", "src=", "ZgotmplZ", "onclick"} {
				if strings.Contains(html, word) {
					t.Errorf("%s has %s", e.what, word)
				}
			}
			for _, found := range address.FindAllString(html, -1) {
				if !strings.HasPrefix(found, "https://zvonok.example.org/") {
					t.Errorf("%s leads to %s", e.what, found)
				}
			}
		}
	}
}

func TestALinkThatIsNoWebAddressLeadsNowhere(t *testing.T) {
	t.Parallel()
	html := TopUp{Child: masha, At: at("08:15"), Links: Links{Settings: "javascript:alert(1)"}}.Mail(RU).HTML
	if strings.Contains(html, "javascript") {
		t.Error(html)
	}
}

// Only who asked for letters is told how to end them.
func TestOnlySubscribersAreToldHowToUnsubscribe(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		letter mailed
		want   bool
	}{
		{Absent{Child: masha, By: at("08:45"), Links: links}, true},
		{Alarm{Child: masha, At: at("17:40"), Staff: true}, false},
		{Invitation{Inviter: olga, Until: at("12:00"), Links: links}, false},
	} {
		m := tt.letter.Mail(RU)
		for _, text := range []string{m.Text, m.HTML} {
			if strings.Contains(text, "Отписаться") != tt.want || strings.Contains(text, "подписаны") != tt.want {
				t.Errorf("%T: %s", tt.letter, text)
			}
		}
	}
}

// Reliability.md, minors: a subject carries first names at most.
func TestASubjectNamesNoFamily(t *testing.T) {
	t.Parallel()
	for _, l := range Languages() {
		for _, e := range letters() {
			subject := e.letter.Mail(l).Subject
			for _, family := range []string{"П.", "С.", "P.", "S.", "Петр", "Смирн", "Petr", "Smirn"} {
				if strings.Contains(subject, family) {
					t.Errorf("%s: %q", e.what, subject)
				}
			}
		}
	}
}

func TestMoneyIsWrittenAsTheLanguageWritesIt(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		a              money.Amount
		ru, en         string
		smsRU, smsEN   string
		smsLatin, text string
	}{
		{0, "0,00 ₽", "0.00 RUB", "0,00 р", "0.00 RUB", "0,00 r", ""},
		{143_50, "143,50 ₽", "143.50 RUB", "143,50 р", "143.50 RUB", "143,50 r", ""},
		{-5, "−0,05 ₽", "−0.05 RUB", "-0,05 р", "-0.05 RUB", "-0,05 r", ""},
		{1_250_00, "1 250,00 ₽", "1,250.00 RUB", "1250,00 р", "1250.00 RUB", "1250,00 r", ""},
		{-1_234_567_89, "−1 234 567,89 ₽", "−1,234,567.89 RUB", "-1234567,89 р", "-1234567.89 RUB", "-1234567,89 r", ""},
	} {
		got := []string{
			strings.ReplaceAll(russian.money(tt.a), "\u00a0", " "), strings.ReplaceAll(english.money(tt.a), "\u00a0", " "),
			russian.sum(tt.a), english.sum(tt.a), latinRU.sum(tt.a),
		}
		for i, want := range []string{tt.ru, tt.en, tt.smsRU, tt.smsEN, tt.smsLatin} {
			if got[i] != want {
				t.Errorf("%d: %q, want %q", tt.a, got[i], want)
			}
		}
	}
}

// CLDR, through x/text, groups as we do.
func TestGroupingAgreesWithCLDR(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		a := money.Amount(rapid.Int64Range(0, 1e12).Draw(t, "kopecks"))
		for _, tt := range []struct {
			s   Style
			tag language.Tag
		}{{russian, language.Russian}, {english, language.English}} {
			whole := message.NewPrinter(tt.tag).Sprint(number.Decimal(int64(a) / 100))
			if got := tt.s.money(a); !strings.HasPrefix(got, whole+",") && !strings.HasPrefix(got, whole+".") {
				t.Fatalf("%q, CLDR %q", got, whole)
			}
		}
	})
}

// The calendar's words come from a table of ours: check the days against a known week.
func TestDaysOfTheWeekAreRight(t *testing.T) {
	t.Parallel()
	var ru, en []string
	for i := range 7 {
		ru = append(ru, russian.weekday(at("08:00").AddDate(0, 0, i-3)))
		en = append(en, english.weekday(at("08:00").AddDate(0, 0, i-3)))
	}
	if got := strings.Join(ru, " "); got != "пн вт ср чт пт сб вс" {
		t.Error(got)
	}
	if got := strings.Join(en, " "); got != "Mon Tue Wed Thu Fri Sat Sun" {
		t.Error(got)
	}
	if got := russian.moment(at("08:15")); got != "чт 14 мая, 08:15" {
		t.Error(got)
	}
}

func TestAForecastIsInSchoolDays(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		days   int
		ru, en string
	}{
		{-3, "меньше чем на учебный день", "less than a school day"},
		{0, "меньше чем на учебный день", "less than a school day"},
		{1, "примерно на 1 учебный день", "about 1 school day"},
		{3, "примерно на 3 учебных дня", "about 3 school days"},
		{11, "примерно на 11 учебных дней", "about 11 school days"},
		{21, "примерно на 21 учебный день", "about 21 school days"},
		{60, "примерно на 60 учебных дней", "about 60 school days"},
		{61, "больше чем на 60 учебных дней", "more than 60 school days"},
	} {
		c := ChildDigest{Child: masha, Balance: 1, Lasts: Forecast{Known: true, SchoolDays: tt.days}}
		if ru, en := russian.lasts(c), english.lasts(c); ru != tt.ru || en != tt.en {
			t.Errorf("%d: %q, %q", tt.days, ru, en)
		}
	}
	if text := russian.lasts(ChildDigest{Lasts: Forecast{Known: true}}); text != "нет, пополните счёт" {
		t.Errorf("of an empty account: %q", text)
	}
	unknown := Digest{From: at("00:00"), To: at("00:00"), Children: []ChildDigest{{Child: masha}}}
	if text := unknown.Mail(RU).Text; strings.Contains(text, "хватит") {
		t.Errorf("an unknown pace is told: %s", text)
	}
}

func BenchmarkDigestMail(b *testing.B) {
	d := exampleDay()
	d.Links = links
	b.ReportAllocs()
	for b.Loop() {
		d.Mail(RU)
	}
}
