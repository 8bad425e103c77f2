package topup

import (
	"strings"
	"unicode"
)

// childName is whose account it is.
type childName struct{ family, given, patronymic string }

// shownTo returns as much of the name as the partner's contract allows (D5).
func (n childName) shownTo(p *Partner) string {
	switch p.Show {
	case Full:
		return joined(n.family, n.given, n.patronymic)
	case Short:
		return joined(n.family, n.given)
	}
	if p.Dialect == Sber {
		return joined(masked(n.family), n.given)
	}
	return joined(masked(n.family), initial(n.given))
}

// masked shows the first two letters, or one of a name so short that two would tell it.
func masked(name string) string {
	letters := []rune(name)
	switch {
	case len(letters) == 0:
		return ""
	case len(letters) <= 3:
		return string(letters[:1]) + "***"
	}
	return string(letters[:2]) + "***"
}

func initial(name string) string {
	for _, letter := range name {
		return string(unicode.ToUpper(letter)) + "."
	}
	return ""
}

func joined(words ...string) string {
	return strings.Join(strings.Fields(strings.Join(words, " ")), " ")
}
