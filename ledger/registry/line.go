package registry

import (
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"zvonok/ledger/money"
)

// Line is one line of a file while it is being parsed. Its methods return the
// fields by the name of their column, trimmed of spaces; what is wrong with a
// field goes to the report. A column that the Table does not declare panics,
// since that is a mistake in the program.
type Line struct {
	file    string
	number  int
	columns map[string]int // place of each column; nil while the header is read
	fields  []string
	report  *Report
	bad     bool
}

// Fail reports that a column of the line is wrong; reason goes on a sentence
// that begins with the column and its value, such as "is not known".
func (l *Line) Fail(column, reason string) {
	l.fail(fmt.Sprintf("%s %q %s", column, l.Text(column), reason))
}

func (l *Line) fail(reason string) {
	l.bad = true
	l.report.Add(l.file, l.number, reason)
}

// Text returns a field, which may be empty.
func (l *Line) Text(column string) string {
	place, ok := l.columns[column]
	if !ok {
		panic(fmt.Sprintf("registry: %s has no column %q", l.file, column))
	}
	return l.fields[place]
}

// Code returns an id by which rows are matched: 1 to 64 characters.
func (l *Line) Code(column string) string { return l.Required(column, 64) }

// Required returns a field of 1 to limit characters.
func (l *Line) Required(column string, limit int) string {
	text := l.Optional(column, limit)
	if text == "" {
		l.fail(column + " is empty")
	}
	return text
}

// Optional returns a field of at most limit characters.
func (l *Line) Optional(column string, limit int) string {
	text := l.Text(column)
	if len(text) > limit && utf8.RuneCountInString(text) > limit {
		l.Fail(column, fmt.Sprintf("is longer than %d characters", limit))
	}
	return text
}

// OneOf returns a field that must be one of the allowed texts.
func (l *Line) OneOf(column string, allowed ...string) string {
	text := l.Text(column)
	for _, option := range allowed {
		if text == option {
			return text
		}
	}
	l.Fail(column, "must be one of "+strings.Join(allowed, ", "))
	return text
}

// YesNo returns a field that must be "yes" or "no".
func (l *Line) YesNo(column string) bool { return l.OneOf(column, "yes", "no") == "yes" }

// Date returns a day written like 2026-11-22, at midnight UTC, or nil when the
// field is empty.
func (l *Line) Date(column string) *time.Time {
	text := l.Text(column)
	if text == "" {
		return nil
	}
	day, err := time.Parse(time.DateOnly, text)
	if err != nil || day.Year() < 1900 || day.Year() > 2200 {
		l.Fail(column, "must be a date like 2026-11-22")
		return nil
	}
	return &day
}

// Amount returns a sum in roubles, written with or without kopecks ("150" or
// "150.00"), or nil when the field is empty.
func (l *Line) Amount(column string) *money.Amount {
	text := l.Text(column)
	if text == "" {
		return nil
	}
	if !strings.Contains(text, ".") {
		text += ".00"
	}
	sum, err := money.Parse(text)
	if err != nil {
		l.Fail(column, "must be a sum like 150.00")
		return nil
	}
	return &sum
}

// Decimal returns a number of thousandths ("12.5" is 12500), or nil when the
// field is empty. It takes up to three decimals and no sign.
func (l *Line) Decimal(column string) *int64 {
	text := l.Text(column)
	if text == "" {
		return nil
	}
	whole, fraction, dotted := strings.Cut(text, ".")
	number, err := strconv.ParseUint(whole+(fraction + "000")[:3], 10, 48)
	if err != nil || whole == "" || len(fraction) > 3 || (dotted && fraction == "") {
		l.Fail(column, "must be a number like 12.5")
		return nil
	}
	thousandths := int64(number)
	return &thousandths
}

// split cuts a line into fields, appended to fields, or says what is wrong with it.
func split(line string, fields []string) (_ []string, reason string) {
	if !utf8.ValidString(line) {
		return fields, "is not UTF-8 text; save the file as UTF-8"
	}
	for {
		var field, rest string
		var more bool
		if strings.HasPrefix(line, `"`) {
			field, rest, reason = unquote(line[1:])
			if reason != "" {
				return fields, reason
			}
			rest, more = strings.CutPrefix(rest, ",")
			if !more && rest != "" {
				return fields, fmt.Sprintf("has text after the closing quote of field %d", len(fields)+1)
			}
		} else {
			field, rest, more = strings.Cut(line, ",")
			if strings.Contains(field, `"`) {
				return fields, fmt.Sprintf("has a quote inside the unquoted field %d", len(fields)+1)
			}
		}
		field = strings.TrimSpace(field)
		if reason := unfit(field); reason != "" {
			return fields, fmt.Sprintf("has %s in field %d", reason, len(fields)+1)
		}
		fields = append(fields, field)
		if !more {
			return fields, ""
		}
		line = rest
	}
}

// unquote reads a field up to its closing quote; line begins behind the opening one.
func unquote(line string) (field, rest, reason string) {
	var doubled strings.Builder
	for {
		text, behind, closed := strings.Cut(line, `"`)
		if !closed {
			return "", "", "has a quote that is not closed on the same line"
		}
		if !strings.HasPrefix(behind, `"`) {
			if doubled.Len() == 0 {
				return text, behind, ""
			}
			doubled.WriteString(text)
			return doubled.String(), behind, ""
		}
		doubled.WriteString(text)
		doubled.WriteByte('"')
		line = behind[1:]
	}
}

// unfit names what no field may hold: control characters and the marks that
// turn the direction of writing, by which a name could disguise another text.
func unfit(field string) string {
	if len(field) > maxField && utf8.RuneCountInString(field) > maxField {
		return fmt.Sprintf("more than %d characters", maxField)
	}
	for i, r := range field {
		switch {
		case r < utf8.RuneSelf && r >= ' ' && r != 0x7f:
		case unicode.IsControl(r):
			return fmt.Sprintf("the control character U+%04X", r)
		case unicode.Is(unicode.Bidi_Control, r), r == '\u2028', r == '\u2029':
			return fmt.Sprintf("the formatting character U+%04X", r)
		case r == '\ufeff' && i > 0:
			return "a byte order mark"
		}
	}
	return ""
}
