package ledger_test

import (
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"zvonok/ledger"
)

func TestMetricsCountVerdicts(t *testing.T) {
	t.Parallel()
	registry := prometheus.NewPedanticRegistry()
	b := newBooks(t, 1)
	b.book.Metrics = ledger.NewMetrics(registry)
	if problems, err := testutil.GatherAndLint(registry); err != nil || len(problems) > 0 {
		t.Errorf("lint: %v %v", problems, err)
	}
	b.fund(100_00)
	b.setThreshold(0, mother, 90_00, false)
	b.post(b.buy(0, "a", 20_00), b.buy(0, "b", 200_00), offline(b.eat(0, "c", 200_00)), b.buy(0, "a", 20_00))
	verified := b.sound()
	_, err := b.book.Fold(t.Context(), b.pool)
	b.must(err)
	if err := testutil.GatherAndCompare(registry, strings.NewReader(`
		# HELP zvonok_ledger_crossings_total Thresholds crossed.
		# TYPE zvonok_ledger_crossings_total counter
		zvonok_ledger_crossings_total 1
		# HELP zvonok_ledger_forced_debits_total Debits booked whatever the balance, because they were made offline.
		# TYPE zvonok_ledger_forced_debits_total counter
		zvonok_ledger_forced_debits_total 1
	`), "zvonok_ledger_crossings_total", "zvonok_ledger_forced_debits_total"); err != nil {
		t.Error(err)
	}
	families, err := registry.Gather()
	b.must(err)
	got := map[string]float64{}
	for _, family := range families {
		if family.GetName() == "zvonok_ledger_verify_timestamp_seconds" {
			if at := family.GetMetric()[0].GetGauge().GetValue(); at != float64(verified.At.Unix()) {
				t.Errorf("verified at %v by the metric, at %s", at, verified.At)
			}
		}
		if family.GetName() != "zvonok_ledger_entries_total" {
			continue
		}
		for _, m := range family.GetMetric() {
			if n := m.GetCounter().GetValue(); n > 0 {
				got[m.GetLabel()[0].GetValue()+" "+m.GetLabel()[1].GetValue()] = n
			}
		}
	}
	want := map[string]float64{"topup posted": 1, "buffet posted": 1, "buffet refused": 1, "buffet duplicate": 1, "hot posted": 1}
	for name, n := range want {
		if got[name] != n {
			t.Errorf("%s is counted %v times, want %v", name, got[name], n)
		}
	}
	if len(got) != len(want) {
		t.Errorf("counted %v", got)
	}
}
