package carrier

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"zvonok/access/phone"
)

func threeOperators() *router {
	return newRouter([]carrierRoute{
		{name: "mts", prefixes: []string{"7910", "7915"}, weight: 10, cost: 250},
		{name: "beeline", prefixes: []string{"7903", "79100"}, weight: 10, cost: 200},
		{name: "any", weight: 10, cost: 300},
	})
}

func TestTheLongestPrefixWinsAndTheRestFollows(t *testing.T) {
	t.Parallel()
	r := threeOperators()
	for _, test := range []struct {
		name string
		to   phone.Number
		want []string
	}{
		{"a prefix of one operator", "79151234567", []string{"mts", "any"}},
		{"a longer prefix of another", "79100234567", []string{"beeline", "mts", "any"}},
		{"no prefix goes to the one that takes the rest", "79260000001", []string{"any"}},
		{"a number shorter than every prefix", "791", []string{"any"}},
	} {
		if got := r.route(test.to, paceStart); !slices.Equal(got, test.want) {
			t.Errorf("%s: got %v, want %v", test.name, got, test.want)
		}
	}
}

// Pain 11: a missing route is known at acceptance.
func TestANumberThatNobodyTakesHasNoRoute(t *testing.T) {
	t.Parallel()
	r := newRouter([]carrierRoute{{name: "mts", prefixes: []string{"7910"}, weight: 1}})
	if got := r.route("79260000001", paceStart); len(got) != 0 {
		t.Errorf("got %v", got)
	}
}

// shares routes n numbers and returns the part of each operator in first place.
func shares(r *router, n int, now time.Time) map[string]float64 {
	count := map[string]float64{}
	for i := range n {
		count[r.route(phone.Number(fmt.Sprintf("7926%07d", i)), now)[0]] += 1 / float64(n)
	}
	return count
}

func TestEqualPrefixesAreSharedByWeight(t *testing.T) {
	t.Parallel()
	r := newRouter([]carrierRoute{
		{name: "a", weight: 60}, {name: "b", weight: 30}, {name: "c", weight: 10}, {name: "spare", weight: 0},
	})
	got := shares(r, 20_000, paceStart)
	for name, want := range map[string]float64{"a": 0.6, "b": 0.3, "c": 0.1, "spare": 0} {
		if math.Abs(got[name]-want) > 0.015 {
			t.Errorf("%s has %.3f of the numbers, want %.1f", name, got[name], want)
		}
	}
}

func TestANumberKeepsItsOperator(t *testing.T) {
	t.Parallel()
	before := newRouter([]carrierRoute{{name: "a", weight: 50}, {name: "b", weight: 50}})
	after := newRouter([]carrierRoute{{name: "a", weight: 60}, {name: "b", weight: 50}})
	moved := 0
	for i := range 5000 {
		to := phone.Number(fmt.Sprintf("7926%07d", i))
		first := before.route(to, paceStart)[0]
		if again := before.route(to, paceStart.Add(time.Hour))[0]; again != first {
			t.Fatalf("the operator of a number changed from %s to %s", first, again)
		}
		now := after.route(to, paceStart)[0]
		if now == "b" && first == "a" {
			t.Fatal("more weight for an operator took a number from it")
		}
		if now != first {
			moved++
		}
	}
	if share := float64(moved) / 5000; share > 0.07 {
		t.Errorf("%.3f of the numbers moved for a tenth more weight", share)
	}
}

func TestFailoverGoesByCostAndToSparesLast(t *testing.T) {
	t.Parallel()
	r := newRouter([]carrierRoute{
		{name: "first", weight: 1_000_000, cost: 500},
		{name: "dear", weight: 1, cost: 400},
		{name: "cheap", weight: 1, cost: 100},
		{name: "spare", weight: 0, cost: 50},
	})
	if got := r.route("79260000001", paceStart); !slices.Equal(got, []string{"first", "cheap", "dear", "spare"}) {
		t.Errorf("got %v", got)
	}
}

func TestASpareIsUsedWhenNobodyElseIsThere(t *testing.T) {
	t.Parallel()
	r := newRouter([]carrierRoute{{name: "spare", weight: 0}})
	if got := r.route("79260000001", paceStart); !slices.Equal(got, []string{"spare"}) {
		t.Errorf("got %v", got)
	}
}

func TestEvidenceMovesTrafficBySmallStepsAndDriftsBack(t *testing.T) {
	t.Parallel()
	r := newRouter([]carrierRoute{{name: "good", weight: 50}, {name: "late", weight: 50}})
	now := paceStart
	last := shares(r, 4000, now)["late"]
	for range 60 {
		r.delivered("late", "", false, now)
		share := shares(r, 4000, now)["late"]
		if last-share > 0.03 {
			t.Fatalf("one late message moved %.3f of the traffic", last-share)
		}
		last = share
	}
	if last > 0.2 || last == 0 {
		t.Errorf("after 60 late messages the operator has %.3f of the traffic", last)
	}
	if back := shares(r, 4000, now.Add(time.Hour))["late"]; back < last+0.05 {
		t.Errorf("an hour later it has %.3f, from %.3f", back, last)
	}
	if back := shares(r, 4000, now.Add(12*time.Hour))["late"]; math.Abs(back-0.5) > 0.02 {
		t.Errorf("twelve hours later it has %.3f", back)
	}
	for range 300 {
		r.delivered("late", "", true, now)
	}
	if share := shares(r, 4000, now)["late"]; math.Abs(share-0.5) > 0.02 {
		t.Errorf("after 300 messages in time it has %.3f", share)
	}
}

func TestEvidenceIsKeptByPrefix(t *testing.T) {
	t.Parallel()
	r := newRouter([]carrierRoute{
		{name: "a", prefixes: []string{"7926", "7910"}, weight: 50}, {
			name: "b", prefixes: []string{"7926", "7910"},
			weight: 50,
		},
	})
	for range 200 {
		r.delivered("a", "7910", false, paceStart)
	}
	if share := shares(r, 4000, paceStart)["a"]; math.Abs(share-0.5) > 0.03 {
		t.Errorf("lateness in 7910 moved 7926: %.3f", share)
	}
	if got := r.prefix("79100000000"); got != "7910" {
		t.Errorf("prefix %q", got)
	}
}

func TestAnImportedPortingOverridesThePrefix(t *testing.T) {
	t.Parallel()
	r := threeOperators()
	var table PortedTable
	table.Add("79151234567", "mts")
	table.Add("79151234560", "any")
	table.Add("79151234567", "beeline") // the last word
	r.setPorted(table.Numbers())
	if got := r.route("79151234567", paceStart); !slices.Equal(got, []string{"beeline", "mts", "any"}) {
		t.Errorf("got %v", got)
	}
	if !r.foreign("79151234567", "mts", paceStart) || r.foreign("79151234567", "beeline", paceStart) {
		t.Error("a ported number is foreign to its old operator and at home with its new one")
	}
	r.setPorted(nil)
	if got := r.route("79151234567", paceStart); got[0] != "mts" {
		t.Errorf("after a new import without it: %v", got)
	}
}

func TestANumberIsForeignToAnOperatorWithAShorterPrefix(t *testing.T) {
	t.Parallel()
	r := threeOperators()
	if !r.foreign("79151234567", "any", paceStart) || r.foreign("79151234567", "mts", paceStart) ||
		r.foreign("79260000001", "any", paceStart) {
		t.Error("foreign by prefix is wrong")
	}
}

func TestRefusalsTeachWhereANumberIsForAMonth(t *testing.T) {
	t.Parallel()
	r := threeOperators()
	to, now := phone.Number("79151234567"), paceStart
	r.refused(to, "mts", now)
	if got := r.route(to, now); !slices.Equal(got, []string{"any", "mts"}) {
		t.Errorf("after the refusal: %v", got)
	}
	learned, news := r.accepted(to, "any", now)
	if !news || learned.Operator != "any" || !learned.Until.Equal(now.Add(30*24*time.Hour)) {
		t.Errorf("learned %+v, news %t", learned, news)
	}
	if _, again := r.accepted(to, "any", now.Add(time.Minute)); again {
		t.Error("the same is news twice")
	}
	if got := r.route(to, now.Add(31*24*time.Hour)); got[0] != "mts" {
		t.Errorf("after its time to live: %v", got)
	}
}

func TestAnOperatorThatTakesWhatItRefusedHasNotPortedIt(t *testing.T) {
	t.Parallel()
	r := threeOperators()
	r.refused("79151234567", "mts", paceStart)
	if learned, news := r.accepted("79151234567", "mts", paceStart); !news || !learned.Until.IsZero() {
		t.Errorf("what was learned is not taken back: %+v", learned)
	}
	if got := r.route("79151234567", paceStart); got[0] != "mts" {
		t.Errorf("got %v", got)
	}
}

func TestLearnedNumbersAreBounded(t *testing.T) {
	t.Parallel()
	r := threeOperators()
	for i := range maxLearned + 1000 {
		r.refused(phone.Number(fmt.Sprintf("7915%07d", i)), "mts", paceStart.Add(time.Duration(i)))
	}
	if len(r.learned) > maxLearned {
		t.Errorf("%d numbers learned", len(r.learned))
	}
}

func TestStoredPortingsComeBackWithTheirEnd(t *testing.T) {
	t.Parallel()
	r := threeOperators()
	r.setLearned([]Ported{
		{Phone: "79151234567", Operator: "any", Until: paceStart.Add(time.Hour)},
		{Phone: "79151234568", Operator: "any", Until: paceStart.Add(-time.Hour)},
	}, paceStart)
	if got := r.route("79151234567", paceStart); got[0] != "any" {
		t.Errorf("got %v", got)
	}
	if got := r.route("79151234568", paceStart); got[0] != "mts" {
		t.Errorf("a porting past its end is used: %v", got)
	}
}

// BenchmarkRouteAmongPortedNumbers is what the route of one message costs beside
// an imported table of ten million numbers, and without one.
func BenchmarkRouteAmongPortedNumbers(b *testing.B) {
	for _, n := range []int{0, 10_000_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			var table PortedTable
			table.Grow(n)
			for i := range n {
				table.AddNumber(79_000_000_000+90*uint64(i), [...]string{"mts", "beeline", "any"}[i%3])
			}
			r := threeOperators()
			r.setPorted(table.Numbers())
			phones := make([]phone.Number, 1<<16)
			for i := range phones {
				phones[i] = phone.Number(fmt.Sprint(79_000_000_000 + 90*rand.IntN(10_000_000)))
			}
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				if len(r.route(phones[i%len(phones)], paceStart)) == 0 {
					b.Fatal("no route")
				}
			}
		})
	}
}

func TestAPortedTableComesInAnyOrder(t *testing.T) {
	t.Parallel()
	var ascending, mixed PortedTable
	owners := [...]string{"mts", "beeline", "any"}
	for i := range 1000 {
		ascending.AddNumber(uint64(79_000_000_000+i/2), owners[i%3]) // each number twice: the last counts
	}
	for _, half := range rand.Perm(500) {
		mixed.AddNumber(uint64(79_000_000_000+half), owners[(2*half)%3])
		mixed.AddNumber(uint64(79_000_000_000+half), owners[(2*half+1)%3])
	}
	one, two := ascending.Numbers(), mixed.Numbers()
	if one.Len() != 500 || two.Len() != 500 {
		t.Fatalf("%d and %d numbers", one.Len(), two.Len())
	}
	for i := range 500 {
		to := phone.Number(fmt.Sprint(79_000_000_000 + i))
		if want := owners[(2*i+1)%3]; one.Operator(to) != want || two.Operator(to) != want {
			t.Fatalf("%s: %q and %q, want %q", to, one.Operator(to), two.Operator(to), want)
		}
	}
}
