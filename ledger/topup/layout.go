package topup

import (
	"fmt"
	"strings"

	"golang.org/x/text/encoding"
	"golang.org/x/text/encoding/charmap"
)

// Layout is the shape of a partner's registry that is not in our own format:
// rows of columns, one payment each, in text.
type Layout struct {
	// Separator stands between columns, ";" when empty.
	Separator string `json:"separator,omitempty"`
	// Encoding is utf-8 (when empty), windows-1251 or koi8-r.
	Encoding string `json:"encoding,omitempty"`
	// Skip is how many lines stand before the rows.
	Skip int `json:"skip,omitempty"`
	// Columns are the places of what we read, counted from 1.
	Columns Columns `json:"columns"`
	// Time is how times are written, in Go's notation, such as
	// "02/01/2006 15:04:05"; the column Clock, if there is one, follows the column
	// At after a space. Without an offset a time is in the partner's zone.
	Time string `json:"time"`
	// DecimalComma tells that sums are written with a comma.
	DecimalComma bool `json:"decimal_comma,omitempty"`
	// Total begins the line of control sums, such as "Total:": it is followed by
	// the number of rows and their sum, as columns. Empty when there is none.
	Total string `json:"total,omitempty"`
	// FileName is how the file's name tells its day, in Go's notation without the
	// extension, such as "AGENT_20060102". Empty means the day of the first row.
	FileName string `json:"file_name,omitempty"`
}

// Columns are places in a row, counted from 1; 0 means there is none.
type Columns struct {
	Txn      int `json:"txn"`
	At       int `json:"at"`
	Clock    int `json:"clock,omitempty"`
	Account  int `json:"account"`
	Amount   int `json:"amount"`
	Fee      int `json:"fee,omitempty"`
	Terminal int `json:"terminal,omitempty"`
}

// maxColumns bounds a row.
const maxColumns = 100

// check refuses a layout that cannot be read by.
func (l *Layout) check() error {
	c := l.Columns
	for _, place := range []int{c.Txn, c.At, c.Account, c.Amount} {
		if place < 1 {
			return fmt.Errorf("layout: the columns txn, at, account and amount are needed, counted from 1")
		}
	}
	for _, place := range []int{c.Txn, c.At, c.Clock, c.Account, c.Amount, c.Fee, c.Terminal} {
		if place < 0 || place > maxColumns {
			return fmt.Errorf("layout: column %d is not from 1 to %d", place, maxColumns)
		}
	}
	if l.Time == "" {
		return fmt.Errorf("layout: it does not say how times are written")
	}
	if l.Skip < 0 {
		return fmt.Errorf("layout: %d lines cannot be skipped", l.Skip)
	}
	_, err := l.decoder()
	return err
}

// separator returns what stands between columns.
func (l *Layout) separator() string {
	if l.Separator == "" {
		return ";"
	}
	return l.Separator
}

// decoder returns how the text is to be decoded; nil for UTF-8.
func (l *Layout) decoder() (*encoding.Decoder, error) {
	switch strings.ToLower(l.Encoding) {
	case "", "utf-8":
		return nil, nil
	case "windows-1251":
		return charmap.Windows1251.NewDecoder(), nil
	case "koi8-r":
		return charmap.KOI8R.NewDecoder(), nil
	}
	return nil, fmt.Errorf("layout: the encoding is utf-8, windows-1251 or koi8-r, not %q", l.Encoding)
}
