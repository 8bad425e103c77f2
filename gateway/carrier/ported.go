package carrier

import (
	"slices"
	"sort"
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

// PortedTable makes a table. Numbers may come in any order, best in ascending order; of one that comes twice the last
// counts. An operator beyond the 256th is left out.
type PortedTable struct {
	numbers    []uint64
	operators  []uint8
	names      []string
	disordered bool
}

// Grow makes room for so many numbers, so that none are copied.
func (b *PortedTable) Grow(n int) {
	b.numbers, b.operators = slices.Grow(b.numbers, n), slices.Grow(b.operators, n)
}

// Add puts a number into the table. It is false when the number has no digits or there are too many operators.
func (b *PortedTable) Add(to phone.Number, operator string) bool {
	n, err := strconv.ParseUint(string(to), 10, 64)
	return err == nil && b.AddNumber(n, operator)
}

// AddNumber is Add for the digits as a number.
func (b *PortedTable) AddNumber(n uint64, operator string) bool {
	i := slices.Index(b.names, operator)
	if i < 0 {
		if i = len(b.names); i > 255 {
			return false
		}
		b.names = append(b.names, operator)
	}
	if last := len(b.numbers) - 1; last >= 0 && n < b.numbers[last] {
		b.disordered = true
	}
	b.numbers, b.operators = append(b.numbers, n), append(b.operators, uint8(i))
	return true
}

// Numbers returns the finished table. The PortedTable must not be used any more.
func (b *PortedTable) Numbers() *PortedNumbers {
	if b.disordered {
		sort.Stable(byNumber{b})
	}
	kept := 0
	for i, n := range b.numbers {
		if i+1 < len(b.numbers) && b.numbers[i+1] == n {
			continue
		}
		b.numbers[kept], b.operators[kept] = n, b.operators[i]
		kept++
	}
	return &PortedNumbers{names: b.names, numbers: b.numbers[:kept], operators: b.operators[:kept]}
}

// byNumber sorts a PortedTable.
type byNumber struct{ *PortedTable }

func (b byNumber) Len() int           { return len(b.numbers) }
func (b byNumber) Less(i, j int) bool { return b.numbers[i] < b.numbers[j] }
func (b byNumber) Swap(i, j int) {
	b.numbers[i], b.numbers[j] = b.numbers[j], b.numbers[i]
	b.operators[i], b.operators[j] = b.operators[j], b.operators[i]
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
