package templates

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"zvonok/ledger/money"
	"zvonok/templates/gsm"
)

// D15: Russian and English are both complete.
func TestEveryTextIsInEveryLanguage(t *testing.T) {
	t.Parallel()
	for _, l := range Languages() {
		for k := range catalogue {
			if Builtin().find(l, k) == nil {
				t.Errorf("%s is missing in %s", k, l)
			}
		}
	}
}

// A key without a worst case would be neither measured nor held to one part.
func TestEveryTextThatIsSentHasAWorstCase(t *testing.T) {
	t.Parallel()
	for k, e := range catalogue {
		text := worst(k, masha, russian)
		if want := e.use == useSMS || e.use == useUSSD; (text != "") != want {
			t.Errorf("%s: %q", k, text)
		}
		if text == "" {
			continue
		}
		// and it renders that very text
		marked, err := parseTexts("own.toml", []byte("[ru]\n"+string(k)+" = '''"+mark(e)+"'''\n"))
		if err != nil {
			t.Errorf("%s: %v", k, err)
			continue
		}
		if text = worst(k, masha, Style{Texts: marked}); !strings.HasPrefix(text, "Своё") {
			t.Errorf("the worst case of %s renders another text: %q", k, text)
		}
	}
}

// mark is a text of a deployment's own with all variables of an entry.
func mark(e entry) string {
	text := "Своё"
	for _, v := range e.variables {
		text += fmt.Sprintf(" {{.%s}}", v)
	}
	return text
}

// notices.md: one space between words, none at the ends, so that an operator's
// registered template matches.
func TestEverySMSMatchesTheFormRegisteredWithOperators(t *testing.T) {
	t.Parallel()
	place := regexp.MustCompile(`%[A-Z][a-z]+%`)
	for _, l := range Languages() {
		forms := Builtin().OperatorForm(l)
		if len(forms) < 30 {
			t.Fatalf("%d forms", len(forms))
		}
		var registered []*regexp.Regexp
		for _, f := range forms {
			for _, text := range []string{f.Text, f.Latin} {
				if strings.Contains(text, "{{") || strings.TrimSpace(text) != text || strings.Contains(text, "  ") ||
					strings.Contains(text, "\n") {
					t.Errorf("%s is registered as %q", f.Key, text)
				}
				if n := len(place.FindAllString(text, -1)); n != len(f.Variables) {
					t.Errorf("%s has %d places for %v: %q", f.Key, n, f.Variables, text)
				}
				pattern := place.ReplaceAllString(regexp.QuoteMeta(text), `\S.*`)
				registered = append(registered, regexp.MustCompile(`\A`+pattern+`\z`))
			}
			if !gsm.IsGSM7(f.Latin) {
				t.Errorf("%s in Latin is %q", f.Key, f.Latin)
			}
			if !slices.ContainsFunc(registered, func(r *regexp.Regexp) bool { return r.MatchString(f.Example) }) {
				t.Errorf("%s: the example %q does not match", f.Key, f.Example)
			}
		}
		for _, e := range everything() {
			if _, ok := e.message.(screen); ok {
				continue
			}
			for _, s := range []Style{{Language: l}, {Language: l, Latin: true}} {
				text := e.message.SMS(s)
				if !slices.ContainsFunc(registered, func(r *regexp.Regexp) bool { return r.MatchString(text) }) {
					t.Errorf("no registered text matches %q", text)
				}
			}
		}
	}
}

func TestTheOperatorFormIsAsReviewed(t *testing.T) {
	t.Parallel()
	var b strings.Builder
	for _, l := range Languages() {
		for _, f := range Builtin().OperatorForm(l) {
			fmt.Fprintf(&b, "%s %s\n\t%s\n\t%s\n\t%s\n", l, f.Key, f.Text, f.Latin, f.Example)
		}
	}
	golden(t, "operator.golden", b.String())
}

// Issue 7, item 4: a deployment can override a text by a file.
func TestADeploymentsTextReplacesTheBuiltInOne(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "texts.toml")
	source := `
[ru]
pass_in = "Пришли в {{.Time}}: {{.Names}}"
days = { one = "{{.Count}} день в школе", few = "{{.Count}} дня в школе", many = "{{.Count}} дней в школе" }
[en]
opt_in = "Messages are on. Send STOP to end them"
`
	if err := os.WriteFile(file, []byte(source), 0o666); err != nil {
		t.Fatal(err)
	}
	own, err := Load(file)
	if err != nil {
		t.Fatal(err)
	}
	pass := Pass{Children: []Name{masha}, In: true, At: at("08:15")}
	for _, tt := range []struct {
		name, got, want string
	}{
		{"Russian", pass.SMS(Style{Texts: own}), "Пришли в 08:15: Маша П."},
		{"in Latin", pass.SMS(Style{Latin: true, Texts: own}), "Prishli v 08:15: Masha P."},
		{"English, not replaced", pass.SMS(Style{Language: EN, Texts: own}), "Entry 08:15 Masha P."},
		{"English, replaced", OptedIn{}.SMS(Style{Language: EN, Texts: own}), "Messages are on. Send STOP to end them"},
		{"plural forms", Style{Texts: own}.plural("days", 22), "22 дня в школе"},
		{"what the file does not have", OptedIn{}.SMS(Style{Texts: own}), OptedIn{}.SMS(russian)},
		{"the built-in texts stay", pass.SMS(russian), "Вход 08:15 Маша П."},
	} {
		if tt.got != tt.want {
			t.Errorf("%s: %q, want %q", tt.name, tt.got, tt.want)
		}
	}
}

// Fault row 48: a bad text is refused at load, with its place.
func TestABrokenTextIsRefusedWithItsPlace(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ name, source, want string }{
		{"no TOML", `[ru`, "own.toml:1: toml"},
		{"an unknown language", "[de]\n", `own.toml:1: "de" is not a language`},
		{"an unknown key", "[ru]\npass = 'x'", "own.toml:2: [ru] pass: there is no such text"},
		{"no text", "[ru]\nopt_in = 7", "[ru] opt_in: is not a text"},
		{"a missing variable", "[ru]\npass_in = 'Вход {{.Time}}'", "[ru] pass_in: the variable {{.Names}} is missing"},
		{"a variable of another text", "[ru]\npass_in = '{{.Time}} {{.Names}} {{.Code}}'", "[ru] pass_in: has no variable Code"},
		{"a syntax error", "[ru]\npass_in = '{{.Time'", "[ru] pass_in: is no template"},
		{"a condition", "[ru]\npass_in = '{{if .Time}}x{{end}} {{.Names}}'", "is more than a variable"},
		{"a loop", "[ru]\npass_in = '{{range .Names}}x{{end}}'", "is more than a variable"},
		{"a call", "[ru]\npass_in = '{{printf \"%s\" .Time}} {{.Names}}'", "[ru] pass_in: is no template"},
		{"a field of a variable", "[ru]\npass_in = '{{.Time.Year}} {{.Names}}'", "is more than a variable"},
		{"a pipeline", "[ru]\npass_in = '{{.Time | .Names}}'", "is more than a variable"},
		{"a template in it", "[ru]\nopt_in = '{{define \"x\"}}{{end}}'", "[ru] opt_in: is empty"},
		{"a space at the end", "[ru]\nopt_in = 'SMS '", "words are separated by one space"},
		{"two spaces", "[ru]\nopt_in = 'SMS  on'", "words are separated by one space"},
		{"two spaces round a variable", "[ru]\npass_in = '{{.Time}}  {{.Names}}'", "words are separated by one space"},
		{"a line break", "[ru]\nopt_in = \"SMS\\non\"", "has the character U+000A"},
		{"nothing", "[ru]\nopt_in = ''", "[ru] opt_in: is empty"},
		{"a benefit told to everybody", "[ru]\nsale_subsidised = '{{.Meal}}, льготное: {{.Names}}'", "own representatives"},
		{"the same in English", "[en]\nsale_subsidised = 'Subsidised {{.Meal}} {{.Names}}'", "own representatives"},
		{
			"a second part", "[ru]\nopt_in = '" + strings.Repeat("Ура ", 20) + "'",
			"words are separated",
		},
		{
			"a second part in Russian", "[ru]\nopt_in = '" + strings.Repeat("Ура ", 20) + "всё'",
			"own.toml:2: [ru] opt_in: costs 2 parts",
		},
		{
			"a second part in English", "[en]\nopt_in = '" + strings.Repeat("On ", 60) + "now'",
			"own.toml:2: [en] opt_in: costs 2 parts",
		},
		{
			"a letter outside GSM-7 in English", "[en]\nopt_in = '" + strings.Repeat("On ", 25) + "— now 你'",
			"[en] opt_in: costs 2 parts",
		},
		{
			"a word that makes a text too long", "[ru]\nvisit_none = 'за весь день не было ни одного посещения'",
			"costs 2 parts",
		},
		{"a letter", "[ru]\nmail_service = 'Школа'", "texts of letters cannot be replaced"},
		{"plural forms where there are none", "[ru]\nopt_in = { one = 'x' }", "has no plural forms"},
		{"one text where there are plural forms", "[ru]\ndays = '{{.Count}} дн.'", "needs the plural forms one, few, many"},
		{"a broken text, however it is written", "\n# words\nru.'opt_in' = ' x'\n", "own.toml:3: [ru] opt_in"},
		{"a broken table of plural forms", "[en]\n\n[ru.days]\none = 'x'\n", "own.toml:3: [ru] days"},
		{"a plural form missing", "[ru]\ndays = { one = '{{.Count}}', many = '{{.Count}}' }", "the plural form few is missing"},
		{"an unknown plural form", "[ru]\ndays = { some = '{{.Count}}' }", "some is not a plural form"},
		{
			"a plural form without its number", "[ru]\ndays = { one = 'день', few = '{{.Count}}', many = '{{.Count}}' }",
			"{{.Count}} is missing",
		},
	} {
		texts, err := parseTexts("own.toml", []byte(tt.source))
		if texts != nil || err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", tt.name, err, tt.want)
		}
	}
}

func TestEverythingWrongIsReportedAtOnce(t *testing.T) {
	t.Parallel()
	_, err := parseTexts("own.toml", []byte("[ru]\nopt_in = ' x'\nopt_out = '{{.X}}'\n[fr]\n[en]\nno_such = 'x'\n"))
	if err == nil {
		t.Fatal("nothing is wrong")
	}
	for _, want := range []string{
		"own.toml:2: [ru] opt_in", "own.toml:3: [ru] opt_out: has no variable X", `own.toml:4: "fr" is not a language`, "own.toml:6: [en] no_such",
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in %v", want, err)
		}
	}
}

func TestAMissingFileIsAnError(t *testing.T) {
	t.Parallel()
	if _, err := Load(filepath.Join(t.TempDir(), "none.toml")); err == nil || !strings.Contains(err.Error(), "read texts") {
		t.Error(err)
	}
}

// V1.3.7: what a person typed is no template.
func TestAValueIsNotReadAsATemplate(t *testing.T) {
	t.Parallel()
	got := russian.text("pass_in", values{"Time": "{{.Names}}", "Names": "%n {{.Time}} $1"})
	if got != "Вход {{.Names}} %n {{.Time}} $1" {
		t.Errorf("%q", got)
	}
}

// notices.md: a text that costs a second part for some children is named.
func TestLintNamesWhatCostsASecondPart(t *testing.T) {
	t.Parallel()
	long := Name{Given: "Абдурахман-Мухаммад Али", Family: "Щ"}
	t.Run("the built-in texts cost one part for everybody", func(t *testing.T) {
		t.Parallel()
		findings := Builtin().Lint([]Name{masha, petya, masha, long, {}, {Given: strings.Repeat("Я", 200)}})
		if want := 3 * len(Builtin().Catalogue()); len(findings) != want {
			t.Fatalf("%d findings, want %d", len(findings), want)
		}
		for _, f := range findings {
			if f.Parts != 1 || f.Costly != 0 {
				t.Errorf("%v", f)
			}
			if f.Key == "alarm" && f.Language == RU && !f.Latin && (f.Shortened != 1 || f.Price(250) != 250) {
				t.Errorf("%v is to shorten one name", f)
			}
		}
	})
	t.Run("a text without room is found with its price", func(t *testing.T) {
		t.Parallel()
		own := &Texts{byLanguage: map[Language]map[key]*phrase{RU: {}, EN: Builtin().byLanguage[EN]}}
		for k, p := range Builtin().byLanguage[RU] {
			own.byLanguage[RU][k] = p
		}
		entry := catalogue["absent"]
		p, err := compile(RU, entry, "{{.Names}} до сих пор не пришёл или не пришла в школу: к {{.Time}} нет никакой отметки")
		if err != nil {
			t.Fatal(err)
		}
		own.byLanguage[RU]["absent"] = p
		first := own.Lint([]Name{masha, petya, masha})[0]
		if first.Key != "absent" || first.Latin || first.Language != RU || first.Parts != 2 || first.Costly != 3 ||
			!slices.Equal(first.Names, []Name{masha, petya, masha}) {
			t.Errorf("%v", first)
		}
		if first.Price(money.Amount(250)) != 500 || first.Alphabet != gsm.UCS2 || first.Length != gsm.Units(first.Text) {
			t.Errorf("%v at %v", first, first.Price(250))
		}
		if strings.Contains(first.String(), "Маша") {
			t.Errorf("a report line holds a name: %v", first)
		}
	})
}

func TestTheCatalogueShowsTheTexts(t *testing.T) {
	t.Parallel()
	list := Builtin().Catalogue()
	if !slices.IsSortedFunc(list, func(a, b Template) int { return strings.Compare(a.Key, b.Key) }) {
		t.Error("the catalogue is not sorted")
	}
	i := slices.IndexFunc(list, func(e Template) bool { return e.Key == "pass_in" })
	if i < 0 || list[i].Source(RU) != "Вход {{.Time}} {{.Names}}" || list[i].USSD ||
		!slices.Equal(list[i].Variables, []string{"Time", "Names"}) {
		t.Errorf("%+v", list[i])
	}
}

func BenchmarkLint(b *testing.B) {
	var list []Name
	for i := range 20_000 {
		list = append(list, Name{Given: strings.Repeat("Маша", 1+i%7), Family: "Петрова"})
	}
	b.ReportAllocs()
	for b.Loop() {
		Builtin().Lint(list)
	}
}

func FuzzParseTexts(f *testing.F) {
	for _, seed := range []string{
		"[ru]\npass_in = 'Вход {{.Time}} {{.Names}}'", "[en]\ndays = { one = '{{.Count}}', other = '{{.Count}}' }",
		"[ru]\nopt_in = '{{'", "[ru]\nopt_in = '{{template \"x\"}}'", "[ru.opt_in]\none = 1",
		"[ru]\nopt_in = '{{/* c */}}x'", "ru = 1",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, source []byte) {
		own, err := parseTexts("own.toml", source)
		if (own == nil) == (err == nil) {
			t.Fatalf("%v, %v", own, err)
		}
		if err != nil {
			return
		}
		for _, f := range own.Lint([]Name{masha}) {
			if f.Parts != 1 || strings.Contains(f.Text, "<no value>") {
				t.Fatalf("%v: %q", f, f.Text)
			}
		}
	})
}
