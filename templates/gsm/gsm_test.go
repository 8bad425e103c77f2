package gsm

import (
	"bytes"
	"encoding/hex"
	"errors"
	"strings"
	"testing"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/warthog618/sms/encoding/gsm7"
	"github.com/warthog618/sms/encoding/tpdu"
	"github.com/warthog618/sms/encoding/ucs2"
	"pgregory.net/rapid"
)

// alphabet is every character GSM-7 can write.
const alphabet = "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?¡ABCDEFGHIJKLMNOPQRSTUVWXYZ" +
	"ÄÖÑÜ§¿abcdefghijklmnopqrstuvwxyzäöñüà\f^{}\\[~]|€"

// texts draws what a message may hold: mostly letters of one script, with the
// characters that break naive splitting strewn in.
func texts() *rapid.Generator[string] {
	piece := rapid.OneOf(
		rapid.StringOf(rapid.SampledFrom([]rune(alphabet))),
		rapid.StringOf(rapid.SampledFrom([]rune("абвгдеёжзийклмнопрстуфхцчшщъыьэюяАЯЁ .,0123456789"))),
		rapid.SampledFrom([]string{
			"[", "€", "🙂", "👨‍👩‍👧‍👦", "👍🏽", "🇷🇺", "🏴󠁧󠁢󠁥󠁮󠁧󠁿", "й", "é", "\r\n", "각", "नि",
			"☀️", strings.Repeat("̂", 90), "\u200d", "\x00",
		}),
		rapid.String(),
	)
	return rapid.Custom(func(t *rapid.T) string {
		return strings.Join(rapid.SliceOfN(piece, 0, 12).Draw(t, "pieces"), "")
	})
}

func gsmTexts() *rapid.Generator[string] {
	return rapid.StringOfN(rapid.SampledFrom([]rune(alphabet)), 0, 700, -1)
}

// spec/smpp.md "Session": GSM-7 with its extension table.
func TestTheAlphabetIsThatOf23038(t *testing.T) {
	t.Parallel()
	if n := utf8.RuneCountInString(alphabet); n != 127+10 {
		t.Fatalf("the test's alphabet has %d characters", n)
	}
	if n := utf8.RuneCountInString(defaultTable); n != 128 {
		t.Fatalf("the default table has %d characters", n)
	}
	for _, tt := range []struct{ text, septets string }{
		{"@", "00"},
		{"Δ", "10"},
		{" ", "20"},
		{"¤", "24"},
		{"¡", "40"},
		{"Ä", "5b"},
		{"§", "5f"},
		{"¿", "60"},
		{"à", "7f"},
		{"\n", "0a"},
		{"\r", "0d"},
		{"É", "1f"},
		{"Hi", "4869"},
		{"\f", "1b0a"},
		{"^", "1b14"},
		{"{", "1b28"},
		{"}", "1b29"},
		{"\\", "1b2f"},
		{"[", "1b3c"},
		{"~", "1b3d"},
		{"]", "1b3e"},
		{"|", "1b40"},
		{"€", "1b65"},
	} {
		got, err := EncodeGSM7(tt.text)
		if err != nil || hex.EncodeToString(got) != tt.septets {
			t.Errorf("%q: %x, %v", tt.text, got, err)
		}
		if n, ok := Septets(tt.text); !ok || n != len(got) {
			t.Errorf("%q counts as %d, %v", tt.text, n, ok)
		}
	}
}

// Not parallel, like every test that asks the other implementation: it makes its tables at first use, without a lock.
func TestGSM7AgreesWithAnotherImplementation(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := gsmTexts().Draw(t, "text")
		ours, err := EncodeGSM7(text)
		if err != nil {
			t.Fatal(err)
		}
		theirs, err := gsm7.Encode([]byte(text))
		if err != nil || !bytes.Equal(ours, theirs) {
			t.Fatalf("%x, theirs %x, %v", ours, theirs, err)
		}
		back, err := DecodeGSM7(ours)
		if err != nil || back != text {
			t.Fatalf("%q came back as %q, %v", text, back, err)
		}
	})
	rapid.Check(t, func(t *rapid.T) {
		septets := rapid.SliceOf(rapid.ByteRange(0, 0x7F)).Draw(t, "septets")
		// An escaped CR is a control character by itself (CR2). The other one takes it for a line feed, we for the CR
		// of the default table.
		septets = bytes.ReplaceAll(septets, []byte("\x1b\r"), nil)
		ours, err := DecodeGSM7(septets)
		if err != nil {
			t.Fatal(err)
		}
		theirs, err := gsm7.Decode(septets)
		if err != nil {
			t.Fatal(err)
		}
		if ours != string(theirs) {
			t.Fatalf("%q, theirs %q", ours, theirs)
		}
	})
}

// spec/smpp.md: never a silent "?".
func TestACharacterOutsideTheAlphabetIsNamedNotReplaced(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		text   string
		r      rune
		offset int
	}{
		{"Вход", 'В', 0},
		{"abc☺", '☺', 3},
		{"ç", 'ç', 0},
		{"a`b", '`', 1},
		{"tab\t", '\t', 3},
		{"nul\x00", 0, 3},
		{"esc\x1b", 0x1B, 3},
		{"bad\xff", utf8.RuneError, 3},
		{"a\u00a0b", '\u00a0', 1},
	} {
		_, err := EncodeGSM7(tt.text)
		var unencodable *UnencodableError
		if !errors.As(err, &unencodable) || unencodable.Rune != tt.r || unencodable.Offset != tt.offset {
			t.Errorf("%q: %v", tt.text, err)
		}
		if IsGSM7(tt.text) || Encodable(tt.r) || AlphabetOf(tt.text) != UCS2 {
			t.Errorf("%q counts as GSM-7", tt.text)
		}
	}
}

func TestForeignSeptetsAreReadAsTheStandardSays(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ name, octets, want, err string }{
		{"an escape the table does not have shows the plain character", "1b41", "A", ""},
		{"two escapes are a space", "611b1b62", "a b", ""},
		{"an escape at the end is a space", "611b", "a ", ""},
		{"an octet is no septet", "6180", "a\uFFFD", "octet 1 is not GSM-7"},
		{"an octet after an escape is no septet", "1bff61", " \uFFFDa", "octet 1 is not GSM-7"},
		{"nothing is nothing", "", "", ""},
	} {
		octets, _ := hex.DecodeString(tt.octets)
		got, err := DecodeGSM7(octets)
		if got != tt.want || (err == nil) != (tt.err == "") || err != nil && err.Error() != tt.err {
			t.Errorf("%s: %q, %v", tt.name, got, err)
		}
	}
}

func TestUCS2AgreesWithAnotherImplementation(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		text := texts().Draw(t, "text")
		ours := EncodeUCS2(text)
		if theirs := ucs2.Encode([]rune(text)); !bytes.Equal(ours, theirs) {
			t.Fatalf("%x, theirs %x", ours, theirs)
		}
		if Units(text) != len(utf16.Encode([]rune(text))) {
			t.Fatalf("%q counts as %d units", text, Units(text))
		}
		back, err := DecodeUCS2(ours)
		if err != nil || back != string([]rune(text)) {
			t.Fatalf("%q came back as %q, %v", text, back, err)
		}
	})
}

func TestForeignUCS2IsReadWithTheWrongOctetsMarked(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ name, octets, want, err string }{
		{"Cyrillic", "04120445043e0434", "Вход", ""},
		{"a surrogate pair", "d83dde42", "🙂", ""},
		{"a high half alone", "0041d83d0042", "A\uFFFDB", "octet 2 is not UCS-2"},
		{"a low half alone", "de420041", "\uFFFDA", "octet 0 is not UCS-2"},
		{"halves the wrong way round", "de42d83d", "\uFFFD\uFFFD", "octet 0 is not UCS-2"},
		{"a high half before the end", "0041d83d", "A\uFFFD", "octet 2 is not UCS-2"},
		{"an odd octet", "00410442ff", "Aт\uFFFD", "octet 4 is not UCS-2"},
		{"the replacement character itself", "fffd", "\uFFFD", ""},
		{"nothing", "", "", ""},
	} {
		octets, _ := hex.DecodeString(tt.octets)
		got, err := DecodeUCS2(octets)
		if got != tt.want || (err == nil) != (tt.err == "") || err != nil && err.Error() != tt.err {
			t.Errorf("%s: %q, %v", tt.name, got, err)
		}
	}
}

// Fault row 50: the boundaries of one part and of several.
func TestPartsAtTheBoundaries(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name  string
		text  string
		parts int
	}{
		{"nothing", "", 1},
		{"160 letters", strings.Repeat("a", 160), 1},
		{"161 letters", strings.Repeat("a", 161), 2},
		{"306 letters", strings.Repeat("a", 306), 2},
		{"307 letters", strings.Repeat("a", 307), 3},
		{"80 euros", strings.Repeat("€", 80), 1},
		{"81 euros", strings.Repeat("€", 81), 2},
		{"152 euros, an odd septet left in each part", strings.Repeat("€", 152), 2},
		{"153 euros", strings.Repeat("€", 153), 3},
		{"70 Cyrillic letters", strings.Repeat("ж", 70), 1},
		{"71 Cyrillic letters", strings.Repeat("ж", 71), 2},
		{"134 Cyrillic letters", strings.Repeat("ж", 134), 2},
		{"135 Cyrillic letters", strings.Repeat("ж", 135), 3},
		{"160 letters and one Cyrillic", strings.Repeat("a", 160) + "ж", 3},
		{"35 faces", strings.Repeat("🙂", 35), 1},
		{"36 faces", strings.Repeat("🙂", 36), 2},
		{"66 faces, an odd unit left in each part", strings.Repeat("🙂", 66), 2},
		{"67 faces", strings.Repeat("🙂", 67), 3},
		{"one letter with 300 marks", "a" + strings.Repeat("\u0302", 300), 5},
	} {
		if got := Parts(tt.text); got != tt.parts {
			t.Errorf("%s: %d parts, want %d", tt.name, got, tt.parts)
		}
	}
}

// Issue 3, item 4 and pain 21: join(split(x)) = x, every part within its
// octets, never a split character.
func TestSplitPartsJoinToTheTextAndFit(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.OneOf(texts(), gsmTexts()).Draw(t, "text")
		limits := rapid.SampledFrom([]Limits{Limits8(), Limits16(), {4, 4, 4, 4}, {7, 5, 14, 10}}).Draw(t, "limits")
		segments := Split(text, limits)
		whole, part := limits.GSM7, limits.GSM7Part
		if AlphabetOf(text) == UCS2 {
			whole, part = limits.UCS2, limits.UCS2Part
		}
		if len(segments) == 1 {
			part = whole
		}
		var joined strings.Builder
		var octets []byte
		for i, s := range segments {
			if len(s.Octets) > part || len(s.Octets) == 0 && text != "" {
				t.Fatalf("part %d has %d octets of %d", i, len(s.Octets), part)
			}
			decode := DecodeUCS2
			if s.Alphabet == GSM7 {
				decode = DecodeGSM7
			}
			if back, err := decode(s.Octets); err != nil || back != s.Text {
				t.Fatalf("part %d reads %q, %v, and says %q", i, back, err, s.Text)
			}
			joined.WriteString(s.Text)
			octets = append(octets, s.Octets...)
		}
		if joined.String() != string([]rune(text)) {
			t.Fatalf("%q became %q", text, joined.String())
		}
		if s := size(string([]rune(text)), AlphabetOf(text)); len(octets) != s {
			t.Fatalf("%d octets of %d", len(octets), s)
		}
		if limits == Limits8() && utf8.ValidString(text) && len(segments) != Parts(text) {
			t.Fatalf("%d segments, but Parts says %d", len(segments), Parts(text))
		}
	})
}

// For text without marks and joiners the borders are those of any right implementation.
func TestSplitAgreesWithAnotherImplementation(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.OneOf(
			gsmTexts(),
			rapid.StringOfN(rapid.SampledFrom([]rune("абвгдежзЯЁ 0123[€🙂")), 0, 400, -1),
		).Draw(t, "text")
		text = strings.ReplaceAll(text, "\r\n", "\n\r") // which the other one cuts in two
		limits := Limits8()
		pdu := tpdu.TPDU{}
		options := []tpdu.SegmentationOption{}
		if rapid.Bool().Draw(t, "16-bit reference") {
			limits = Limits16()
			options = append(options, tpdu.With16BitConcatRef)
		}
		octets, _, kind := tpdu.EncodeUserData([]byte(text))
		if text == "" {
			return // the other one makes no part of nothing
		}
		dcs, err := pdu.DCS.WithAlphabet(kind)
		if err != nil {
			t.Fatal(err)
		}
		pdu.SetDCS(byte(dcs))
		theirs := pdu.Segment(octets, options...)
		ours := Split(text, limits)
		if len(ours) != len(theirs) {
			t.Fatalf("%d parts, theirs %d", len(ours), len(theirs))
		}
		for i := range ours {
			if !bytes.Equal(ours[i].Octets, theirs[i].UD) {
				t.Fatalf("part %d is %x, theirs %x", i, ours[i].Octets, []byte(theirs[i].UD))
			}
		}
	})
}

func TestAPartEndsWhereACharacterEnds(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name    string
		cluster string
	}{
		{"a letter with a mark", "и\u0306"},
		{"a letter with two marks", "e\u0302\u0301"},
		{"a family", "👨‍👩‍👧"},
		{"a thumb with a skin tone", "👍🏽"},
		{"a flag", "🇷🇺"},
		{"a flag of tags", "🏴󠁧󠁢󠁥󠁮󠁧󠁿"},
		{"a sun shown as a picture", "☀\ufe0f"},
		{"a syllable of Hindi", "नि"},
		{"decomposed Hangul", "각"},
		{"a surrogate pair", "🙂"},
		{"an end of line", "\r\n"},
	} {
		// The cluster lies across each possible border in turn.
		for shift := range 5 {
			text := strings.Repeat("ж", 67-shift) + tt.cluster + strings.Repeat("ж", 20)
			found := false
			for _, s := range Split(text, Limits8()) {
				found = found || strings.Contains(s.Text, tt.cluster)
			}
			if !found {
				t.Errorf("%s is cut at shift %d", tt.name, shift)
			}
		}
	}
	if text := strings.Repeat("🇷🇺", 40); Split(text, Limits8())[0].Text != strings.Repeat("🇷🇺", 16) {
		t.Error("a row of flags is not cut between flags")
	}
}

func TestSplitShowsOctetsThatAreNoText(t *testing.T) {
	t.Parallel()
	got := Split("a\xff\xfeb", Limits8())
	if len(got) != 1 || got[0].Text != "a\uFFFD\uFFFDb" || got[0].Alphabet != UCS2 {
		t.Errorf("%+v", got)
	}
}

// D15: transliteration is readable, by the documented table.
func TestTransliterationReadsAloud(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ russian, latin string }{
		{"Вход 08:15 Маша П. Баланс 143,50 р", "Vkhod 08:15 Masha P. Balans 143,50 r"},
		{
			"съешь ещё этих мягких французских булок, да выпей чаю",
			"syesh eshchyo etikh myagkikh frantsuzskikh bulok, da vypey chayu",
		},
		{
			"В чащах юга жил бы цитрус? Да, но фальшивый экземпляр!",
			"V chashchakh yuga zhil by tsitrus? Da, no falshivyy ekzemplyar!",
		},
		{"Щукин ЩУКИН Щ.", "Shchukin SHCHUKIN Shch."},
		{"Юлия Я. и Яна Ю.", "Yuliya Ya. i Yana Yu."},
		{"ПЯ ШЁЛ", "PYA SHYOL"},
		{"Васильев, подъезд, Ильич, бульон, Пьер", "Vasilyev, podyezd, Ilyich, bulyon, Pyer"},
		{"Игорь объект ВЬЕТ", "Igor obyekt VYET"},
		{"«Ромашка» — №5…", `"Romashka" - No5...`},
		{"1 250,00\u00a0₽", "1 250,00 RUB"},
		{"Ива\u0301н и\u0306од", "Ivan yod"},
		{"Әлия Қайрат Ңғ", "Aliya Qayrat Ngg"},
		{"Łódź Škoda façade Ærø é", "Lodz Skoda facade Ærø é"},
		{"naïve", "naive"},
		{"a\u200bb\u00adc", "abc"},
		{"English stays: {[€]}", "English stays: {[€]}"},
		{"", ""},
	} {
		if got := Transliterate(tt.russian); got != tt.latin {
			t.Errorf("%q became %q, want %q", tt.russian, got, tt.latin)
		}
	}
}

func TestWhatTheTableDoesNotHaveStays(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ text, want string }{
		{"Маша 李", "Masha 李"}, {"Петя 🙂", "Petya 🙂"}, {"მარია", "მარია"}, {"مريم\u0651", "مريم\u0651"},
	} {
		if got := Transliterate(tt.text); got != tt.want || IsGSM7(got) {
			t.Errorf("%q became %q", tt.text, got)
		}
	}
}

func TestEveryLetterOfTheTableIsPlainGSM7(t *testing.T) {
	t.Parallel()
	for r, s := range latin {
		if n, ok := Septets(s); !ok || n != len(s) {
			t.Errorf("%q is written %q", r, s)
		}
		if Encodable(r) {
			t.Errorf("%q is GSM-7 itself, the table never reaches it", r)
		}
	}
	for r := 'А'; r <= 'я'; r++ {
		if got := Transliterate(string(r)); !IsGSM7(got) {
			t.Errorf("%q became %q", r, got)
		}
	}
}

func TestTransliterationChangesNothingTwice(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		once := Transliterate(texts().Draw(t, "text"))
		if twice := Transliterate(once); twice != once {
			t.Fatalf("%q, then %q", once, twice)
		}
	})
}

func FuzzDecodeGSM7(f *testing.F) {
	for _, seed := range []string{"", "\x1b", "\x1b\x1b", "\x1b\x65", "\x80", "Hello\x00", "\x1b\xff"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, octets []byte) {
		text, err := DecodeGSM7(octets)
		if !utf8.ValidString(text) || (err != nil) != strings.ContainsRune(text, utf8.RuneError) {
			t.Fatalf("%q, %v", text, err)
		}
		if err == nil {
			if again, err := EncodeGSM7(text); err != nil || len(again) > len(octets) {
				t.Fatalf("%q is encoded as %x, %v", text, again, err)
			}
		}
	})
}

func FuzzDecodeUCS2(f *testing.F) {
	for _, seed := range []string{"", "\x00", "\xd8\x3d", "\xd8\x3d\xde\x42", "\xde\x42\xd8\x3d", "\xff\xfd", "\x04\x12\x00"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, octets []byte) {
		text, err := DecodeUCS2(octets)
		if !utf8.ValidString(text) {
			t.Fatalf("%q", text)
		}
		if again := EncodeUCS2(text); err == nil && !bytes.Equal(again, octets) {
			t.Fatalf("%x came back as %x", octets, again)
		}
	})
}

func FuzzSplit(f *testing.F) {
	for _, seed := range []string{
		"", "a\xff", strings.Repeat("€", 90), strings.Repeat("👨‍👩‍👧", 20), "e" + strings.Repeat("\u0301", 200),
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		joined := ""
		for _, s := range Split(text, Limits16()) {
			if len(s.Octets) > 160 {
				t.Fatalf("%d octets", len(s.Octets))
			}
			joined += s.Text
		}
		if joined != string([]rune(text)) {
			t.Fatalf("%q became %q", text, joined)
		}
		_ = Transliterate(text)
	})
}

func BenchmarkParts(b *testing.B) {
	text := "Вход 08:15 Маша П. Баланс 143,50 р"
	b.ReportAllocs()
	for b.Loop() {
		Parts(text)
	}
}

func BenchmarkSplit(b *testing.B) {
	text := strings.Repeat("Вход 08:15 Маша П. Баланс 143,50 р ", 4)
	b.ReportAllocs()
	for b.Loop() {
		Split(text, Limits8())
	}
}

func BenchmarkAppendUCS2(b *testing.B) {
	text := "Вход 08:15 Маша П. Баланс 143,50 р"
	buf := make([]byte, 0, 140)
	b.ReportAllocs()
	for b.Loop() {
		buf = AppendUCS2(buf[:0], text)
	}
}
