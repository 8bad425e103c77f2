package topup

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"
	"unicode/utf8"

	"zvonok/ledger/money"
)

// Limits of a registry.
const (
	// maxRegistry is in bytes: a million payments and more.
	maxRegistry = 128 << 20
	maxLines    = 1_000_000
	// maxProblems is how many bad lines are named; all are counted.
	maxProblems = 100
	// maxNumber bounds the number of a file within a day.
	maxNumber = 1_000_000
)

// Problem is a line of a registry that cannot be read.
type Problem struct {
	Line   int    `json:"line"`
	Reason string `json:"reason"`
}

// BadRegistry says that a file cannot be read. Nothing of it was taken.
type BadRegistry struct {
	// Problems names up to a hundred lines.
	Problems []Problem `json:"problems"`
	// Found counts all bad lines.
	Found int `json:"found"`
}

// Error names the first bad line and counts the others.
func (b *BadRegistry) Error() string {
	text := fmt.Sprintf("line %d: %s", b.Problems[0].Line, b.Problems[0].Reason)
	if b.Found > 1 {
		text += fmt.Sprintf(", and %d more lines", b.Found-1)
	}
	return text
}

func (b *BadRegistry) add(line int, format string, args ...any) {
	b.Found++
	if len(b.Problems) < maxProblems {
		b.Problems = append(b.Problems, Problem{line, fmt.Sprintf(format, args...)})
	}
}

// bankRegistry is a partner's file as read.
type bankRegistry struct {
	// inn is the payee's; empty when the file is of all payees.
	inn    string
	day    time.Time // at midnight UTC
	number int
	lines  []registryLine
	total  money.Amount
	hash   [sha256.Size]byte
}

// registryLine is one payment of a registry.
type registryLine struct {
	line     int
	txn      string
	at       time.Time
	account  string
	amount   money.Amount
	fee      money.Amount
	terminal string
}

// parseRegistry reads a file in the partner's layout, or in our own format:
//
//	H;partner;payee_inn;2026-11-21;1
//	P;txn_id;2026-11-21T08:30:15+03:00;account;500.00;fee;terminal
//	T;count;sum
//
// It reads all or nothing: a file with a broken line, or whose count or sum is
// not that of its lines, is a *BadRegistry.
func parseRegistry(p *Partner, fileName string, data []byte) (bankRegistry, error) {
	r := bankRegistry{hash: sha256.Sum256(data)}
	bad := &BadRegistry{}
	text, err := decode(p.Layout, data)
	if err != nil {
		bad.add(1, "%s", err)
		return bankRegistry{}, bad
	}
	if p.Layout == nil {
		r.readOwn(p, text, bad)
	} else {
		r.readColumns(p, fileName, text, bad)
	}
	if bad.Found > 0 {
		return bankRegistry{}, bad
	}
	return r, nil
}

func decode(l *Layout, data []byte) (string, error) {
	if l != nil {
		decoder, err := l.decoder()
		if err != nil {
			return "", err
		}
		if decoder != nil {
			decoded, err := decoder.Bytes(data)
			return string(decoded), err
		}
	}
	if !utf8.Valid(data) {
		return "", errors.New("the file is not UTF-8")
	}
	return strings.TrimPrefix(string(data), "\ufeff"), nil
}

// eachLine calls f with the number and the text of each line that is not empty.
func eachLine(text string, f func(number int, line string) bool) {
	number := 0
	for line := range strings.Lines(text) {
		number++
		line = strings.TrimRight(line, "\r\n")
		if strings.TrimSpace(line) != "" && !f(number, line) {
			return
		}
	}
}

func (r *bankRegistry) readOwn(p *Partner, text string, bad *BadRegistry) {
	ended, last := false, 1
	eachLine(text, func(number int, line string) bool {
		last = number
		fields := strings.Split(line, ";")
		switch {
		case r.day.IsZero() && bad.Found == 0:
			r.readHeader(p, number, fields, bad)
			return bad.Found == 0 // without a header nothing below can be judged
		case ended:
			bad.add(number, "it stands after the control sums")
		case fields[0] == "P":
			if len(r.lines) >= maxLines {
				bad.add(number, "the file has more than %d payments", maxLines)
				return false
			}
			if len(fields) < 5 || len(fields) > 7 {
				bad.add(number, "a payment is P;txn_id;time;account;sum;fee;terminal")
				return true
			}
			fields = append(fields, "", "")
			at, err := time.Parse(time.RFC3339, fields[2])
			if err != nil {
				bad.add(number, "%q is not a time like 2026-11-21T08:30:15+03:00", fields[2])
				return true
			}
			r.take(p, registryLine{line: number, txn: fields[1], at: at, account: fields[3], terminal: fields[6]},
				fields[4], fields[5], bad)
		case fields[0] == "T":
			ended = true
			if len(fields) != 3 {
				bad.add(number, "control sums are T;count;sum")
				return true
			}
			r.checkTotals(number, fields[1], fields[2], bad)
		default:
			bad.add(number, "a line begins with P or T")
		}
		return true
	})
	switch {
	case bad.Found > 0:
	case r.day.IsZero():
		bad.add(1, "the file is empty")
	case !ended:
		bad.add(last, "the file ends without control sums (T;count;sum): it may be cut")
	}
}

func (r *bankRegistry) readHeader(p *Partner, number int, fields []string, bad *BadRegistry) {
	if len(fields) != 5 || fields[0] != "H" {
		bad.add(number, "the file begins with H;partner;payee_inn;day;number")
		return
	}
	if fields[1] != p.Name {
		bad.add(number, "the file is of partner %q, not of %s", fields[1], p.Name)
		return
	}
	if inn := fields[2]; inn != "" && (!onlyDigits(inn) || len(inn) != 10 && len(inn) != 12) {
		bad.add(number, "%q is not a tax number", inn)
		return
	}
	day, err := time.Parse(time.DateOnly, fields[3])
	if err != nil || !plausible(day) {
		bad.add(number, "%q is not a day like 2026-11-21", fields[3])
		return
	}
	count, ok := parseNumber(fields[4])
	if !ok || count < 1 || count > maxNumber {
		bad.add(number, "%q is not the number of a file", fields[4])
		return
	}
	r.inn, r.day, r.number = fields[2], day, int(count)
}

func plausible(t time.Time) bool { return t.Year() >= 2000 && t.Year() <= 2100 }

func (r *bankRegistry) readColumns(p *Partner, fileName, text string, bad *BadRegistry) {
	l := p.Layout
	r.number = 1
	if l.FileName != "" {
		base := filepath.Base(fileName)
		day, err := time.Parse(l.FileName, strings.TrimSuffix(base, filepath.Ext(base)))
		if err != nil || !plausible(day) {
			bad.add(1, "the name of the file is not like %s", l.FileName)
			return
		}
		r.day = dateOf(day)
	}
	var totals []string
	totalsAt := 0
	eachLine(text, func(number int, line string) bool {
		if l.Total != "" && strings.HasPrefix(line, l.Total) {
			totals, totalsAt = strings.Split(strings.TrimLeft(line[len(l.Total):], " "+l.separator()), l.separator()), number
			return true
		}
		if number <= l.Skip {
			return true
		}
		if len(r.lines) >= maxLines {
			bad.add(number, "the file has more than %d payments", maxLines)
			return false
		}
		r.readRow(p, number, strings.Split(line, l.separator()), bad)
		return true
	})
	switch {
	case bad.Found > 0:
	case l.Total != "" && len(totals) < 2:
		bad.add(1, "the file has no control sums (%s count sum)", l.Total)
	case l.Total != "":
		r.checkTotals(totalsAt, strings.TrimSpace(totals[0]), l.sum(totals[1]), bad)
	}
	if bad.Found == 0 && r.day.IsZero() {
		if len(r.lines) == 0 {
			bad.add(1, "the file is empty and its name tells no day")
			return
		}
		r.day = dateOf(r.lines[0].at.In(p.zone))
	}
}

// sum returns a sum as our own format writes it.
func (l *Layout) sum(text string) string {
	text = strings.TrimSpace(text)
	if l.DecimalComma {
		return strings.Replace(text, ",", ".", 1)
	}
	return text
}

func (r *bankRegistry) readRow(p *Partner, number int, row []string, bad *BadRegistry) {
	l := p.Layout
	if len(row) > maxColumns {
		bad.add(number, "it has more than %d columns", maxColumns)
		return
	}
	column := func(place int) string {
		if place < 1 || place > len(row) {
			return ""
		}
		return strings.TrimSpace(row[place-1])
	}
	when := column(l.Columns.At)
	if l.Columns.Clock > 0 {
		when += " " + column(l.Columns.Clock)
	}
	at, err := time.ParseInLocation(l.Time, when, p.zone)
	if err != nil {
		bad.add(number, "%q is not a time like %s", when, l.Time)
		return
	}
	fee := ""
	if text := column(l.Columns.Fee); text != "" {
		fee = l.sum(text)
	}
	r.take(p, registryLine{
		line: number, txn: column(l.Columns.Txn), at: at, account: column(l.Columns.Account), terminal: column(l.Columns.Terminal),
	}, l.sum(column(l.Columns.Amount)), fee, bad)
}

// take checks what all formats have in common and keeps the line.
func (r *bankRegistry) take(p *Partner, line registryLine, amount, fee string, bad *BadRegistry) {
	var outcome Outcome
	line.amount, outcome = parseSum(p.Dialect, amount)
	switch {
	case !validTxn(line.txn):
		bad.add(line.line, "%q is not an id of a payment", clip(line.txn))
		return
	case !plausible(line.at):
		bad.add(line.line, "the time is not of this century")
		return
	case !plainWord(line.account):
		bad.add(line.line, "%q is not an account number", clip(line.account))
		return
	case outcome != OK || line.amount == 0:
		bad.add(line.line, "%q is not a sum like 500.00", clip(amount))
		return
	case line.terminal != "" && !plainWord(line.terminal):
		bad.add(line.line, "%q is not an id of a terminal", clip(line.terminal))
		return
	}
	if fee != "" {
		if line.fee, outcome = parseSum(p.Dialect, fee); outcome != OK {
			bad.add(line.line, "%q is not a fee like 0.00", clip(fee))
			return
		}
	}
	if r.total += line.amount; r.total > money.Max {
		bad.add(line.line, "the sum of the file is above %s", money.Max)
		return
	}
	r.lines = append(r.lines, line)
}

// clip shortens foreign text for a message.
func clip(text string) string {
	const most = 40
	if letters := []rune(text); len(letters) > most {
		return string(letters[:most]) + "…"
	}
	return text
}

func (r *bankRegistry) checkTotals(number int, count, sum string, bad *BadRegistry) {
	if bad.Found > 0 {
		return // the lines that were read are not all of them
	}
	n, ok := parseNumber(count)
	total, err := money.Parse(sum)
	switch {
	case !ok || err != nil:
		bad.add(number, "%q and %q are not a count and a sum", clip(count), clip(sum))
	case int(n) != len(r.lines) || total != r.total:
		bad.add(number, "the file says %d payments of %s, its lines are %d of %s", n, total, len(r.lines), r.total)
	}
}

// dateOf returns the date of t, at midnight UTC.
func dateOf(t time.Time) time.Time {
	return time.Date(t.Year(), t.Month(), t.Day(), 0, 0, 0, 0, time.UTC)
}
