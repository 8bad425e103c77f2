package ussd

import (
	"fmt"
	"slices"
	"strings"
)

// code is a service code such as *377*888#, as the list of numbers between its stars. The same dial reaches us in many
// forms, because centres strip, split and join the string as they please (ussd.md section 3); a code finds itself in
// all of them.
type code []string

// maxCodeTokens bounds a code; real ones have one to three numbers.
const maxCodeTokens = 5

// parseCode reads a service code as people write it: a star, numbers separated by stars, a hash.
func parseCode(s string) (code, error) {
	inner, star := strings.CutPrefix(s, "*")
	inner, hash := strings.CutSuffix(inner, "#")
	parts := strings.Split(inner, "*")
	for _, part := range parts {
		if !star || !hash || part == "" || strings.Trim(part, "0123456789") != "" {
			return nil, fmt.Errorf("service code %q: want stars, digits and a final hash, such as *377*888#", s)
		}
	}
	if len(parts) > maxCodeTokens {
		return nil, fmt.Errorf("service code %q: more than %d numbers", s, maxCodeTokens)
	}
	return parts, nil
}

// String returns the code as people dial it.
func (c code) String() string { return "*" + strings.Join(c, "*") + "#" }

// cut removes the code from the front of tokens. The code may be there whole, as its first numbers only (the centre
// routes on them), as its last numbers only (the centre ate the first), or with neighbours written together: 377888.
// It answers what is left, how many numbers of the code were found, and whether the code was there to its last one.
func (c code) cut(tokens []string) (rest []string, found int, complete bool) {
	if rest, n := follow(c, tokens); n > 0 {
		return rest, n, n == len(c)
	}
	for from := 1; from < len(c); from++ {
		tail := c[from:]
		if len(tail[0]) == 1 { // cannot be told from a key
			continue
		}
		if rest, n := follow(tail, tokens); n == len(tail) {
			return rest, n, true
		}
	}
	return tokens, 0, false
}

// follow removes from the front of tokens as many of the numbers as are there, in order, also written together.
func follow(numbers, tokens []string) (rest []string, found int) {
	for len(tokens) > 0 && found < len(numbers) {
		n, joined := 0, ""
		for i, number := range numbers[found:] {
			if joined += number; joined == tokens[0] {
				n = i + 1
			}
		}
		if n == 0 {
			break
		}
		found += n
		tokens = tokens[1:]
	}
	return tokens, found
}

// maxPath bounds the shortcuts of one dial; the rest of a longer string is ignored.
const maxPath = 4

// dialled reads a begin: the destination address and the text, in either of which the code may stand, whole, in part
// or not at all (ussd.md section 3). The path is what was dialled after the code, each token a key press; latin says
// that a hash stood in front. It never fails: a string without the code means its tokens, since many centres eat the
// code before us.
func dialled(codes []code, dest, text string) (path []string, latin bool) {
	text = plain(text)
	dest = strings.TrimPrefix(plain(dest), "ussd:")
	latin = strings.HasPrefix(text, "#") || strings.HasPrefix(dest, "#") && !strings.HasPrefix(text, "*")
	inDest, inText := tokens(dest), tokens(text)
	best := -1
	for _, c := range codes {
		if rest, found := c.strip(inDest, inText); found > best {
			best, path = found, rest
		}
	}
	return path[:min(len(path), maxPath)], latin
}

// strip removes the code from both fields. A destination that is not the code at all (an alias, a GT) is ignored.
func (c code) strip(dest, text []string) (path []string, found int) {
	rest, head, complete := c.cut(dest)
	if head == 0 {
		rest = nil
	}
	if !complete && head > 0 && len(rest) == 0 { // the destination holds the beginning, the text may hold the end
		if after, n := follow(c[head:], text); n > 0 {
			return after, head + n
		}
	}
	after, n, _ := c.cut(text)
	return slices.Concat(rest, after), max(head, n)
}

// begins says whether a text that came as an answer is in truth a new dial of one of our codes: it starts with a star
// or a hash and holds the code to its last number.
func begins(codes []code, text string) bool {
	text = plain(text)
	if !strings.HasPrefix(text, "*") && !strings.HasPrefix(text, "#") {
		return false
	}
	all := tokens(text)
	return slices.ContainsFunc(codes, func(c code) bool {
		_, n := follow(c, all)
		return n == len(c)
	})
}

// tokens splits at stars and hashes and drops what is empty; spaces mean nothing.
func tokens(s string) []string {
	return strings.FieldsFunc(strings.ReplaceAll(s, " ", ""), func(r rune) bool { return r == '*' || r == '#' })
}
