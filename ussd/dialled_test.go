package ussd

import (
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

func mustCode(t testing.TB, s string) code {
	t.Helper()
	c, err := parseCode(s)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// Issue 4: all the ways the string arrives (ussd.md section 3) mean the same.
func TestTheCodeIsFoundHoweverItArrives(t *testing.T) {
	t.Parallel()
	codes := []code{mustCode(t, "*377*888#"), mustCode(t, "*100*5#")}
	tests := []struct {
		what, dest, text string
		path             string
		latin            bool
	}{
		{what: "as most send it", dest: "377", text: "*377*888#"},
		{what: "as most send it, with a shortcut", dest: "377", text: "*377*888*2#", path: "2"},
		{what: "with a shortcut and a child", dest: "377", text: "*377*888*1*2#", path: "1 2"},
		{what: "Eyeline strips the first number", dest: "377", text: "888"},
		{what: "Eyeline strips the first number, with a shortcut", dest: "377", text: "888*2", path: "2"},
		{what: "the whole *377# is ours", dest: "377", text: ""},
		{what: "Eyeline's address with a scheme", dest: "ussd:377", text: "888*2", path: "2"},
		{what: "Eyeline leaves codes with a hash alone", dest: "377", text: "#377*888*2#", path: "2", latin: true},
		{what: "SixDee puts all into the destination", dest: "*377*888#", text: ""},
		{what: "SixDee puts all into the destination, with a shortcut", dest: "*377*888*2#", text: "", path: "2"},
		{what: "the destination is the code, the text is the shortcut", dest: "377*888", text: "2", path: "2"},
		{what: "written together", dest: "377888", text: ""},
		{what: "written together, with a shortcut", dest: "377888", text: "2", path: "2"},
		{what: "both hold the whole", dest: "*377*888#", text: "*377*888*2#", path: "2"},
		{what: "MegaFon separates with hashes", dest: "", text: "*377#888#2#", path: "2"},
		{what: "Mica leaves the destination empty", dest: "", text: "*377*888#"},
		{what: "a GT for a destination", dest: "79020000000", text: "*377*888*2#", path: "2"},
		{what: "an alias for a destination", dest: "SCHOOL", text: "*377*888#"},
		{what: "an HTTP caller ate the code", dest: "*377*888#", text: "2*1", path: "2 1"},
		{what: "an HTTP caller without code at all", dest: "", text: "2", path: "2"},
		{what: "an HTTP caller without stars round it", dest: "", text: "377*888*2", path: "2"},
		{what: "only the second number is the service", dest: "888", text: "2", path: "2"},
		{what: "the final hash is missing", dest: "377", text: "*377*888*2", path: "2"},
		{what: "padding at the end", dest: "377", text: "*377*888*2#\r@@\x00", path: "2"},
		{what: "spaces between", dest: "377", text: " *377 *888* 2#", path: "2"},
		{what: "full-width digits and signs", dest: "377", text: "＊３７７＊８８８＊２＃", path: "2"},
		{what: "Arabic-Indic digits", dest: "377", text: "*٣٧٧*٨٨٨*٢#", path: "2"},
		{what: "Latin letters wanted", dest: "377", text: "#377*888#", latin: true},
		{what: "Latin letters wanted, in the destination", dest: "#377*888#", text: "", latin: true},
		{what: "Latin letters wanted, with a shortcut beside the code", dest: "#377*888#", text: "2", path: "2", latin: true},
		{what: "the text is the dial, whatever the destination says", dest: "#377*888#", text: "*377*888*2#", path: "2"},
		{what: "a second code", dest: "100", text: "*100*5*1#", path: "1"},
		{what: "a second code whose last number looks like a key", dest: "100", text: "5*5", path: "5"},
		{what: "no more shortcuts than anybody dials", dest: "377", text: "*377*888*1*2*3*4*5*6#", path: "1 2 3 4"},
		{what: "somebody else's code", dest: "", text: "*102#", path: "102"},
		{what: "nothing at all", dest: "", text: ""},
	}
	for _, test := range tests {
		path, latin := dialled(codes, test.dest, test.text)
		if strings.Join(path, " ") != test.path || latin != test.latin {
			t.Errorf("%s: %q, %q gives path %q, Latin %v; want %q, %v",
				test.what, test.dest, test.text, path, latin, test.path, test.latin)
		}
	}
}

func TestAnAnswerThatIsTheCodeIsADial(t *testing.T) {
	t.Parallel()
	codes := []code{mustCode(t, "*377*888#")}
	for text, want := range map[string]bool{
		"*377*888#": true, "#377*888#": true, "*377*888*2#": true, "*377#888#": true,
		"1": false, "*1#": false, "377*888": false, "*377#": false, "*100#": false, "": false,
	} {
		if got := begins(codes, text); got != want {
			t.Errorf("%q is a dial: %v, want %v", text, got, want)
		}
	}
}

func TestTheKeyIsTheFirstThingTyped(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"1": "1", "1#": "1", "*1#": "1", "1 ": "1", " 1\r": "1", "1@": "1", "1\x00": "1", "1*2#": "1", "1 2": "1",
		"00": "00", "12": "12", "１": "1", "٢": "2", "۳": "3", "४": "4", "＊1＃": "1", "\u200f1": "1",
		"": "", "*": "", "#": "", " ": "", "@": "", "баланс": "баланс", "one two": "one",
	} {
		if got := pressed(text); got != want {
			t.Errorf("%q is the key %q, want %q", text, got, want)
		}
	}
}

func TestACodeIsStarsDigitsAndAHash(t *testing.T) {
	t.Parallel()
	for _, wrong := range []string{"", "*", "*#", "377", "*377", "377#", "*377**888#", "*37a#", "#377#", "*1*2*3*4*5*6#"} {
		if code, err := parseCode(wrong); err == nil {
			t.Errorf("%q is taken for the code %s", wrong, code)
		}
	}
	if got := mustCode(t, "*377*888#").String(); got != "*377*888#" {
		t.Errorf("the code prints as %q", got)
	}
}

// What anybody may type or dial: no panic, nothing but short printable tokens, and a dial of ours always recognised.
func FuzzDialled(f *testing.F) {
	for _, seed := range []string{"", "*377*888#", "#377*888*2#", "*377#888#2#", "888*2", "ussd:377", "１＊", "\x00\xff*@"} {
		f.Add(seed, seed)
		f.Add("377", seed)
	}
	codes := []code{mustCode(f, "*377*888#")}
	f.Fuzz(func(t *testing.T, dest, text string) {
		path, _ := dialled(codes, dest, text)
		if len(path) > maxPath {
			t.Fatalf("%q, %q: %d tokens", dest, text, len(path))
		}
		for _, token := range path {
			if token == "" || strings.ContainsAny(token, "*# ") || utf8.RuneCountInString(token) > maxInput {
				t.Fatalf("%q, %q: the token %q", dest, text, token)
			}
		}
		if key := pressed(text); strings.ContainsAny(key, "*# \r\n\x00") {
			t.Fatalf("%q: the key %q", text, key)
		}
		if slices.Contains(path, "377") || slices.Contains(path, "888") || slices.Contains(path, "377888") {
			return // the code once more, which is eaten too
		}
		whole := "*377*888*" + strings.Join(path, "*") + "#"
		if again, _ := dialled(codes, "377", whole); len(whole) <= maxInput && !slices.Equal(again, path) {
			t.Fatalf("%q dialled with the code gives %q", path, again)
		}
	})
}
