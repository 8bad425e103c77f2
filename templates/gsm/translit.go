package gsm

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// Transliterate writes a text in Latin letters that GSM-7 has, so that it reads
// aloud about right to who speaks Russian:
//
//	а a   б b   в v   г g   д d   е e   ё yo  ж zh  з z   и i   й y
//	к k   л l   м m   н n   о o   п p   р r   с s   т t   у u   ф f
//	х kh  ц ts  ч ch  ш sh  щ shch      ъ -   ы y   ь -   э e   ю yu  я ya
//
// The signs ъ and ь are left out, but before е, и and о they are y: Васильев
// Vasilyev, подъезд podyezd, бульон bulyon. A capital becomes a capital and
// small letters (Щукин Shchukin), in a word of capitals all capitals (ЩУКИН
// SHCHUKIN).
//
// Letters of neighbouring languages: і i, ї yi, є ye, ґ g, ў u, ђ dj, ј j, љ lj,
// њ nj, ћ c, џ dzh, ѓ g, ќ k, ѕ dz, ә a, ғ g, қ q, ң ng, ө o, ұ u, ү u, һ h, җ j,
// ҙ z, ҡ q, ҫ s, ӣ i, ӯ u, ҳ h, ҷ j, ҥ ng, ӱ u, ӧ o, ӓ a, ӑ a, ӗ e, ӳ u, ӝ j,
// ӟ z, ӥ i, ӵ ch.
//
// Signs: « » „ “ ” are ", ‘ ’ ` are ', all dashes are -, … is ..., № is No, ₽ is
// RUB, × is x, • is *; spaces of every width are a space, invisible characters
// and stress marks go. Latin letters with marks that GSM-7 lacks lose the marks
// (ç c, š s), and ł đ ı œ þ ð are l d i oe th d.
//
// What GSM-7 has stays as it is. What the table does not have (other scripts,
// emoji) also stays, so that nothing is lost in silence: ask IsGSM7 about the
// result.
func Transliterate(text string) string {
	if IsGSM7(text) {
		return text
	}
	var out strings.Builder
	out.Grow(len(text))
	runes := []rune(norm.NFC.String(text))
	written := true // the character before is in Latin now, so that a mark upon it has nowhere to go
	for i, r := range runes {
		if Encodable(r) {
			out.WriteRune(r)
			written = true
			continue
		}
		if written && unicode.Is(unicode.Mn, r) {
			continue
		}
		latin, ok := latinOf(r)
		written = ok
		switch {
		case !ok:
			out.WriteRune(r)
			continue
		case isSign(r) && i+1 < len(runes) && softens(runes[i+1]):
			latin = "y"
		}
		if unicode.IsUpper(r) {
			latin = capital(latin, inCapitals(runes, i))
		}
		out.WriteString(latin)
	}
	return out.String()
}

// latin is the table of Transliterate for small letters and signs.
var latin = map[rune]string{
	'а': "a", 'б': "b", 'в': "v", 'г': "g", 'д': "d", 'е': "e", 'ё': "yo", 'ж': "zh", 'з': "z", 'и': "i", 'й': "y",
	'к': "k", 'л': "l", 'м': "m", 'н': "n", 'о': "o", 'п': "p", 'р': "r", 'с': "s", 'т': "t", 'у': "u", 'ф': "f",
	'х': "kh", 'ц': "ts", 'ч': "ch", 'ш': "sh", 'щ': "shch", 'ъ': "", 'ы': "y", 'ь': "", 'э': "e", 'ю': "yu", 'я': "ya",

	'і': "i", 'ї': "yi", 'є': "ye", 'ґ': "g", 'ў': "u", 'ђ': "dj", 'ј': "j", 'љ': "lj", 'њ': "nj", 'ћ': "c", 'џ': "dzh",
	'ѓ': "g", 'ќ': "k", 'ѕ': "dz", 'ә': "a", 'ғ': "g", 'қ': "q", 'ң': "ng", 'ө': "o", 'ұ': "u", 'ү': "u", 'һ': "h",
	'җ': "j", 'ҙ': "z", 'ҡ': "q", 'ҫ': "s", 'ӣ': "i", 'ӯ': "u", 'ҳ': "h", 'ҷ': "j", 'ҥ': "ng", 'ӱ': "u", 'ӧ': "o",
	'ӓ': "a", 'ӑ': "a", 'ӗ': "e", 'ӳ': "u", 'ӝ': "j", 'ӟ': "z", 'ӥ': "i", 'ӵ': "ch",

	'ł': "l", 'đ': "d", 'ı': "i", 'œ': "oe", 'þ': "th", 'ð': "d",

	'«': `"`, '»': `"`, '„': `"`, '“': `"`, '”': `"`, '‘': "'", '’': "'", '‚': "'", 'ʼ': "'", '`': "'",
	'…': "...", '№': "No", '₽': "RUB", '×': "x", '•': "*", '−': "-",
}

// latinOf returns the Latin writing of a character GSM-7 does not have, of a
// capital that of its small letter.
func latinOf(r rune) (string, bool) {
	if s, ok := latin[unicode.ToLower(r)]; ok {
		return s, true
	}
	switch {
	case unicode.Is(unicode.Pd, r):
		return "-", true
	case unicode.Is(unicode.Zs, r):
		return " ", true
	case unicode.Is(unicode.Cf, r):
		return "", true
	}
	// A Latin letter with marks: the bare letter in front of its decomposition.
	bare, width := utf8.DecodeRuneInString(norm.NFD.String(string(r)))
	if bare != r && width == 1 && unicode.IsLetter(bare) {
		return string(unicode.ToLower(bare)), true
	}
	return "", false
}

func isSign(r rune) bool { return r == 'ь' || r == 'ъ' || r == 'Ь' || r == 'Ъ' }

// softens reports whether a sign before this letter is heard as y.
func softens(r rune) bool {
	switch unicode.ToLower(r) {
	case 'е', 'и', 'о':
		return true
	}
	return false
}

// inCapitals reports whether the capital at i stands in a word of capitals.
func inCapitals(runes []rune, i int) bool {
	if i+1 < len(runes) && unicode.IsLetter(runes[i+1]) {
		return unicode.IsUpper(runes[i+1])
	}
	return i > 0 && unicode.IsUpper(runes[i-1])
}

// capital writes the Latin of one letter as a capital, or all of it in capitals.
func capital(latin string, all bool) string {
	if all || len(latin) < 2 {
		return strings.ToUpper(latin)
	}
	return strings.ToUpper(latin[:1]) + latin[1:]
}
