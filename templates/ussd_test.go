package templates

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"zvonok/ledger/money"
	"zvonok/templates/gsm"
)

// screens are all USSD texts with usual values, and with the longest.
func screens(s Style) map[string][]string {
	pass := func(in bool, t time.Time) *USSDPass { return &USSDPass{At: t, In: in} }
	now := at("12:30")
	yesterday := at("14:05").AddDate(0, 0, -1)
	long := Name{Given: "Александрина", Family: "Константинопольская"}
	child := func(n Name, sum money.Amount, p *USSDPass) USSDChild {
		return USSDChild{Child: n, Balance: &sum, Pass: p, Now: now}
	}
	usual, longest := child(masha, 143_50, pass(true, at("08:15"))), child(long, -12345_67, pass(false, yesterday))
	eaten := []Eaten{
		{Kind: Subsidised, Meal: Breakfast, Dishes: []Dish{{Name: "Каша овсяная"}, {Name: "Чай"}}, Sum: 95_00},
		{Kind: Hot, Meal: Lunch, Sum: 110_00},
		{Kind: Buffet, Sum: 70_00, Dishes: []Dish{{Name: "Булочка\n9 Ещё", Quantity: 2}, {Name: "Сок\u202E"}}},
	}
	var movements []USSDMovement
	for _, kind := range []string{"topup", "release", "buffet", "hot", "refund", "transfer", "correction", "reversal", "other"} {
		movements = append(movements, USSDMovement{At: yesterday, Kind: kind, Amount: -70_00})
	}
	movements[0].Amount = 500_00
	var menu []string
	for _, words := range []any{NewUSSDMenu(s), NewUSSDLanguages(s)} {
		fields := reflect.ValueOf(words)
		for i := range fields.NumField() {
			menu = append(menu, fields.Field(i).String())
		}
	}
	frame := NewUSSDFrame(s)
	return map[string][]string{
		"01 frame": {
			frame.More, frame.MoreShort, frame.Back, frame.Exit, frame.Menu, frame.Hint, frame.Later,
			frame.Expired + " *377*888#", frame.TooMany, frame.Bye,
		},
		"02 menu and languages":   menu,
		"03 child":                append(usual.Lines(s), usual.BalanceLine(s), usual.PassLine(s), usual.SMS(s, "*377*888#")),
		"04 child, longest":       append(longest.Lines(s), longest.SMS(s, "*377*888#")),
		"05 child without visits": child(masha, 0, &USSDPass{}).Lines(s),
		"06 consent for visits":   USSDChild{Child: masha, Pass: pass(true, at("08:15")), Now: now}.Lines(s),
		"07 consent for meals":    child(masha, 143_50, nil).Lines(s),
		"08 two children":         USSDChildren(s, []USSDChild{usual, child(petya, 20_00, pass(false, at("14:05")))}, 2),
		"09 three children": USSDChildren(s, []USSDChild{
			usual, child(petya, 20_00, pass(false, yesterday)), child(vanya, 1000_00, &USSDPass{}),
		}, 2),
		"10 namesakes": USSDChildren(s, []USSDChild{
			usual, child(Name{"Маша", "Орлова"}, 20_00, pass(false, yesterday)), longest, child(vanya, 0, nil),
		}, 2),
		"11 meals":        USSDMeals{Child: masha, Now: now, Days: []USSDMealDay{{Date: now}, {Date: yesterday, Eaten: eaten}}}.Lines(s),
		"12 meals by SMS": {USSDMeals{Child: masha, Now: now, Days: []USSDMealDay{{Date: yesterday, Eaten: eaten}}}.SMS(s)},
		"13 visits": USSDVisits{Child: masha, Now: now, Days: []USSDVisitDay{
			{Date: now, In: at("08:15"), Inside: true},
			{Date: now, In: at("08:15"), Out: at("11:00"), Inside: true},
			{Date: yesterday, In: at("08:15"), Out: at("13:40")},
			{Date: yesterday, In: at("08:15")},
			{Date: yesterday, Out: at("13:40")},
			{Date: yesterday},
		}}.Lines(s),
		"14 SMS": slices.Concat(
			USSDSMS{masha, true}.Lines(s), USSDSMS{masha, false}.Lines(s),
			[]string{USSDSMS{masha, true}.Switch(s), USSDSMS{masha, false}.Switch(s)},
		),
		"15 history":       USSDHistory{Child: masha, Balance: 143_50, Movements: movements}.Lines(s),
		"16 history, none": USSDHistory{Child: masha}.Lines(s),
		"17 top-up":        USSDTopUp{Child: masha, Account: "00101519", Payee: "916"}.Lines(s),
		"18 top-up without payee and account": slices.Concat(
			USSDTopUp{Child: masha, Account: "00101519"}.Lines(s), USSDTopUp{Child: masha}.Lines(s),
		),
		"19 access":         USSDCircle{Child: masha, People: []USSDPerson{{olga, true}, {long, false}}}.Lines(s),
		"20 access, nobody": USSDCircle{Child: masha}.Lines(s),
		"22 remembered": slices.Concat(
			USSDRemembered{Children: []USSDChild{{Child: masha, Balance: usual.Balance}}, At: at("12:05"), Now: now}.Lines(s),
			USSDRemembered{At: yesterday, Now: now}.Lines(s),
		),
		"21 by SMS": append(USSDSent{true}.Lines(s), USSDSent{false}.Lines(s)...),
	}
}

func TestUSSDTexts(t *testing.T) {
	t.Parallel()
	for _, style := range []struct {
		file  string
		style Style
	}{{"ussd/ru.golden", russian}, {"ussd/ru-latin.golden", latinRU}, {"ussd/en.golden", english}} {
		var out strings.Builder
		all := screens(style.style)
		for n := 1; n <= len(all); n++ {
			for what, lines := range all {
				if strings.HasPrefix(what, fmt.Sprintf("%02d ", n)) {
					fmt.Fprintf(&out, "# %s\n", what)
					for _, line := range lines {
						fmt.Fprintf(&out, "%2d %s\n", gsm.Units(line), line)
					}
				}
			}
		}
		golden(t, style.file, out.String())
	}
}

// A text of USSD is one line without anything a person typed that could pass for a line or a key of ours; in English
// and in Latin letters it stays in the GSM alphabet; what stands alone on a page fits it.
func TestUSSDTextsAreLinesThatFit(t *testing.T) {
	t.Parallel()
	for _, s := range []Style{russian, latinRU, english} {
		for what, lines := range screens(s) {
			for _, line := range lines {
				if strings.ContainsAny(line, "\n\r\t\u202E") || strings.TrimSpace(line) != line || strings.Contains(line, "  ") {
					t.Errorf("%s: %q", what, line)
				}
				if strings.Contains(strings.ToLower(gsm.Transliterate(line)), "lgot") {
					t.Errorf("%s speaks of benefits: %q", what, line)
				}
				if s != russian && !gsm.IsGSM7(line) {
					t.Errorf("%s is not of the GSM alphabet: %q", what, line)
				}
				if strings.HasPrefix(what, "01") && gsm.Units(line) > 70 {
					t.Errorf("%s has no room on a page: %q", what, line)
				}
			}
		}
		if f := NewUSSDFrame(s); f.GSM7 != (s != russian) {
			t.Errorf("the frame says GSM7 %v", f.GSM7)
		}
	}
}
