package carrier

import (
	"cmp"
	"slices"
	"strconv"
	"time"

	"zvonok/access/phone"
)

// Ported is what is known of one number's porting: the operator that has it, or only one that has it not.
type Ported struct {
	Phone    phone.Number
	Operator string    // has the number; empty when that is not known
	Not      string    // refused it as not its own; empty when no operator has
	Until    time.Time // when the knowledge ends; zero takes back what was learned before
}

// PortedNumbers is an imported table of ported numbers: nine octets a number, so that a country's table of tens of
// millions fits in memory. It does not change after it is made. The nil table is empty.
type PortedNumbers struct {
	numbers   []uint64 // in ascending order
	operators []uint8  // of numbers, as an index of names
	names     []string
}

// PortedTable makes a table. Numbers may come in any order; of one that comes twice the last counts. An operator beyond
// the 255th is left out.
type PortedTable struct {
	rows  []portedRow
	names []string
}

type portedRow struct {
	number   uint64
	operator uint8
}

// Add puts a number into the table. It is false when the number has no digits or there are too many operators.
func (b *PortedTable) Add(to phone.Number, operator string) bool {
	n, err := strconv.ParseUint(string(to), 10, 64)
	if err != nil {
		return false
	}
	i := slices.Index(b.names, operator)
	if i < 0 {
		if i = len(b.names); i > 255 {
			return false
		}
		b.names = append(b.names, operator)
	}
	b.rows = append(b.rows, portedRow{n, uint8(i)})
	return true
}

// Numbers returns the finished table.
func (b *PortedTable) Numbers() *PortedNumbers {
	slices.SortStableFunc(b.rows, func(x, y portedRow) int { return cmp.Compare(x.number, y.number) })
	p := &PortedNumbers{
		names: b.names, numbers: make([]uint64, 0, len(b.rows)), operators: make([]uint8, 0, len(b.rows)),
	}
	for i, row := range b.rows {
		if i+1 < len(b.rows) && b.rows[i+1].number == row.number {
			continue
		}
		p.numbers, p.operators = append(p.numbers, row.number), append(p.operators, row.operator)
	}
	return p
}

// Len is how many numbers the table has.
func (p *PortedNumbers) Len() int {
	if p == nil {
		return 0
	}
	return len(p.numbers)
}

// Operator returns the operator that has the number, "" when the table does not say.
func (p *PortedNumbers) Operator(to phone.Number) string {
	if p.Len() == 0 {
		return ""
	}
	n, err := strconv.ParseUint(string(to), 10, 64)
	if err != nil {
		return ""
	}
	i, found := slices.BinarySearch(p.numbers, n)
	if !found {
		return ""
	}
	return p.names[p.operators[i]]
}

// Evidence is how well an operator has served a prefix of late.
type Evidence struct {
	Operator, Prefix string
	Share            float64 // of messages that reached the phone within a minute, moving
	At               time.Time
}
