package templates

import (
	"bytes"
	"embed"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"text/template/parse"

	"github.com/pelletier/go-toml/v2"
	"github.com/pelletier/go-toml/v2/unstable"
	"golang.org/x/text/feature/plural"
	"golang.org/x/text/language"
)

//go:embed texts
var files embed.FS

// Texts are the words of all messages in all languages. They are made by
// [Builtin] or [Load], never change, and may be used by any number of
// goroutines.
type Texts struct {
	byLanguage map[Language]map[key]*phrase
}

// Builtin returns the texts that come with the program.
func Builtin() *Texts { return builtin() }

var builtin = sync.OnceValue(func() *Texts {
	t := &Texts{byLanguage: map[Language]map[key]*phrase{}}
	for _, l := range Languages() {
		source, err := files.ReadFile("texts/" + string(l) + ".toml")
		if err != nil {
			panic(err)
		}
		var raw map[string]any
		if err := toml.Unmarshal(source, &raw); err != nil {
			panic(fmt.Errorf("texts/%s.toml: %w", l, err))
		}
		phrases, wrong := compileAll(l, raw)
		for name, err := range wrong {
			panic(fmt.Errorf("texts/%s.toml: %s: %w", l, name, err))
		}
		t.byLanguage[l] = phrases
	}
	return t
})

// Load reads a deployment's own texts from a TOML file and lays them over the
// built-in ones; every text the file does not have stays as it was. The file
// has a table per language and in it the keys of [Texts.Catalogue]:
//
//	[ru]
//	pass_in = "Пришли в {{.Time}}: {{.Names}}"
//
// Everything is checked before anything is used, and all that is wrong is
// reported at once, each with the file, the line, the language and the key: an unknown
// language or key, a variable the key does not have, one that is missing, a
// text that is more than words and variables, a space too many, a word on
// benefits where others than the child's representatives read, and a text that
// costs a second part for a name of 12 letters.
func Load(file string) (*Texts, error) {
	source, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read texts: %w", err)
	}
	return parseTexts(file, source)
}

// parseTexts is Load of a file's content.
func parseTexts(file string, source []byte) (*Texts, error) {
	var raw map[string]map[string]any
	if err := toml.Unmarshal(source, &raw); err != nil {
		var place *toml.DecodeError
		if errors.As(err, &place) {
			line, _ := place.Position()
			return nil, fmt.Errorf("%s:%d: %w", file, line, err)
		}
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	lines := linesOf(source)
	place := func(path string) string {
		if line := lines[path]; line > 0 {
			return fmt.Sprintf("%s:%d", file, line)
		}
		return file
	}
	t := &Texts{byLanguage: map[Language]map[key]*phrase{}}
	for _, l := range Languages() {
		t.byLanguage[l] = maps.Clone(Builtin().byLanguage[l])
	}
	var wrong []error
	for _, name := range slices.Sorted(maps.Keys(raw)) {
		l := Language(name)
		if !slices.Contains(Languages(), l) {
			wrong = append(wrong, fmt.Errorf("%s: %q is not a language; there are ru and en", place(name), name))
			continue
		}
		phrases, broken := compileAll(l, raw[name])
		for k, p := range phrases {
			if !catalogue[k].use.open() {
				broken[string(k)] = errors.New("texts of letters cannot be replaced")
				continue
			}
			t.byLanguage[l][k] = p
		}
		for _, k := range slices.Sorted(maps.Keys(broken)) {
			wrong = append(wrong, fmt.Errorf("%s: [%s] %s: %w", place(name+"."+k), l, k, broken[k]))
		}
	}
	if wrong == nil {
		for _, f := range t.Lint([]Name{longestUsual}) {
			if f.Parts > 1 {
				wrong = append(wrong, fmt.Errorf("%s: [%s] %s: costs %d parts: %q", place(string(f.Language)+"."+f.Key), f.Language, f.Key, f.Parts, f.Text))
			}
		}
	}
	if err := errors.Join(wrong...); err != nil {
		return nil, err
	}
	return t, nil
}

// linesOf finds on which line of a file each table and each text of it begins:
// "ru", "ru.pass_in". A file that is no TOML has none.
func linesOf(source []byte) map[string]int {
	lines := map[string]int{}
	var p unstable.Parser
	p.Reset(source)
	table := ""
	for p.NextExpression() {
		e := p.Expression()
		path, line := "", 0
		for keys := e.Key(); keys.Next(); {
			node := keys.Node()
			if path == "" {
				line = 1 + bytes.Count(source[:node.Raw.Offset], []byte("\n"))
			} else {
				path += "."
			}
			path += string(node.Data)
		}
		switch {
		case e.Kind == unstable.Table:
			table = path
		case table != "":
			path = table + "." + path
		}
		// [ru.days] and ru.days.one are of the text days.
		parts := strings.SplitN(path, ".", 3)
		for n := 1; n <= min(2, len(parts)); n++ {
			if at := strings.Join(parts[:n], "."); lines[at] == 0 {
				lines[at] = line
			}
		}
	}
	return lines
}

// find returns a text; every key of the catalogue is in every language.
func (t *Texts) find(l Language, k key) *phrase { return t.byLanguage[l.known()][k] }

// compileAll compiles the texts of one language, and says of each of the others
// what is wrong with it.
func compileAll(l Language, raw map[string]any) (map[key]*phrase, map[string]error) {
	phrases := make(map[key]*phrase, len(raw))
	wrong := map[string]error{}
	for _, name := range slices.Sorted(maps.Keys(raw)) {
		e, ok := catalogue[key(name)]
		if !ok {
			wrong[name] = errors.New("there is no such text")
			continue
		}
		p, err := compile(l, e, raw[name])
		if err != nil {
			wrong[name] = err
			continue
		}
		phrases[key(name)] = p
	}
	return phrases, wrong
}

// values are what the variables of a text stand for.
type values map[variable]string

// phrase is a text of one language, ready to render: one pattern, or one for
// each plural form.
type phrase struct {
	forms  [plural.Many + 1]*pattern // by CLDR's form; forms a language does not use are nil
	source string                    // the text, or the form "other", as written
}

// pattern is a text taken apart: words, a variable, words, ... words.
type pattern struct {
	words     []string
	variables []variable
}

func (p *phrase) text(v values) string { return p.forms[plural.Other].render(v) }

// count renders the form for n with the variable Count.
func (p *phrase) count(l Language, n int) string {
	size := max(n, -n)
	form := p.forms[plural.Cardinal.MatchPlural(tag(l), size, 0, 0, 0, 0)]
	if form == nil {
		form = p.forms[plural.Other]
	}
	return form.render(values{"Count": fmt.Sprint(n)})
}

func tag(l Language) language.Tag {
	if l.known() == EN {
		return language.English
	}
	return language.Russian
}

func (p *pattern) render(v values) string {
	if len(p.variables) == 0 {
		return p.words[0]
	}
	var b strings.Builder
	b.Grow(160)
	for i, name := range p.variables {
		b.WriteString(p.words[i])
		b.WriteString(v[name])
	}
	b.WriteString(p.words[len(p.words)-1])
	return b.String()
}

// forms are the names of the plural forms in the files.
var forms = map[string]plural.Form{
	"zero": plural.Zero, "one": plural.One, "two": plural.Two,
	"few": plural.Few, "many": plural.Many, "other": plural.Other,
}

// needed are the plural forms a whole number takes in a language.
func needed(l Language) []string {
	if l == EN {
		return []string{"one", "other"}
	}
	return []string{"one", "few", "many"}
}

// compile takes one text of a file apart.
func compile(l Language, e entry, raw any) (*phrase, error) {
	switch source := raw.(type) {
	case string:
		if e.plural {
			return nil, fmt.Errorf("needs the plural forms %s", strings.Join(needed(l), ", "))
		}
		p, err := compilePattern(source, e)
		if err != nil {
			return nil, err
		}
		whole := &phrase{source: source}
		whole.forms[plural.Other] = p
		return whole, nil
	case map[string]any:
		if !e.plural {
			return nil, errors.New("has no plural forms, write one text")
		}
		whole := &phrase{}
		for _, name := range slices.Sorted(maps.Keys(source)) {
			form, ok := forms[name]
			text, isText := source[name].(string)
			if !ok || !isText {
				return nil, fmt.Errorf("%s is not a plural form with a text", name)
			}
			p, err := compilePattern(text, e)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", name, err)
			}
			whole.forms[form] = p
			whole.source = text
		}
		for _, name := range needed(l) {
			if whole.forms[forms[name]] == nil {
				return nil, fmt.Errorf("the plural form %s is missing", name)
			}
		}
		if whole.forms[plural.Other] == nil { // whole numbers of Russian never take it
			whole.forms[plural.Other] = whole.forms[plural.Many]
		}
		return whole, nil
	default:
		return nil, errors.New("is not a text")
	}
}

// compilePattern takes a text apart and checks it against its entry in the catalogue.
func compilePattern(source string, e entry) (*pattern, error) {
	trees, err := parse.Parse("text", source, "{{", "}}")
	if err != nil {
		return nil, fmt.Errorf("is no template: %s", strings.TrimPrefix(err.Error(), "template: text:1: "))
	}
	p := &pattern{words: []string{""}}
	if tree := trees["text"]; tree != nil {
		for _, node := range tree.Root.Nodes {
			if words, ok := node.(*parse.TextNode); ok {
				p.words[len(p.words)-1] += string(words.Text)
				continue
			}
			name, ok := variableOf(node)
			if !ok {
				return nil, fmt.Errorf("%s is more than a variable", node)
			}
			if !slices.Contains(e.variables, name) {
				return nil, fmt.Errorf("has no variable %s; there are %v", name, e.variables)
			}
			p.variables = append(p.variables, name)
			p.words = append(p.words, "")
		}
	}
	for _, name := range e.variables {
		if !slices.Contains(p.variables, name) {
			return nil, fmt.Errorf("the variable {{.%s}} is missing", name)
		}
	}
	return p, p.check(e)
}

// variableOf returns the variable of a node that is {{.Variable}} and nothing else.
func variableOf(node parse.Node) (variable, bool) {
	action, ok := node.(*parse.ActionNode)
	if !ok || len(action.Pipe.Decl) > 0 || len(action.Pipe.Cmds) != 1 || len(action.Pipe.Cmds[0].Args) != 1 {
		return "", false
	}
	field, ok := action.Pipe.Cmds[0].Args[0].(*parse.FieldNode)
	if !ok || len(field.Ident) != 1 {
		return "", false
	}
	return variable(field.Ident[0]), true
}

// check holds a text to the rules of an SMS: a registered template of an
// operator has single spaces and none at its ends.
func (p *pattern) check(e entry) error {
	shape := strings.Join(p.words, "x")
	for _, r := range shape {
		if r < ' ' && (r != '\n' || e.use != useUSSD) || r == 0x7F || r == '\uFFFD' {
			return fmt.Errorf("has the character %U", r)
		}
	}
	switch {
	case shape == "":
		return errors.New("is empty")
	case shape != strings.TrimSpace(shape), strings.Contains(shape, "  "):
		return errors.New("words are separated by one space, with none at the ends")
	case !e.benefits && speaksOfBenefits(shape):
		return errors.New("only texts for the child's own representatives may speak of benefits")
	}
	return nil
}

// speaksOfBenefits reports whether a text names what nobody but the child's own
// representatives may read of (D5).
func speaksOfBenefits(text string) bool {
	text = strings.ToLower(text)
	return slices.ContainsFunc([]string{"льгот", "lgot", "субсид", "subsid", "benefit"}, func(word string) bool {
		return strings.Contains(text, word)
	})
}
