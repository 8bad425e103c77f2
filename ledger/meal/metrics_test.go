package meal_test

import (
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"zvonok/ledger/meal"
)

func TestMetricsCountSales(t *testing.T) {
	t.Parallel()
	registry := prometheus.NewPedanticRegistry()
	c := newCanteen(t)
	c.Metrics = meal.NewMetrics(registry)
	if problems, err := testutil.GatherAndLint(registry); err != nil || len(problems) > 0 {
		t.Errorf("lint: %v %v", problems, err)
	}
	c.topUp(c.payer, 100_00)
	c.sell(c.sale(c.payer, meal.Buffet, "", 10_00), c.sale(c.payer, meal.Buffet, "", 500_00), c.sale(c.payer, "gift", "", 1))
	families, err := registry.Gather()
	c.must(err)
	var got []string
	for _, m := range families[0].GetMetric() {
		if m.GetCounter().GetValue() == 1 {
			got = append(got, m.GetLabel()[0].GetValue()+" "+m.GetLabel()[1].GetValue())
		}
	}
	if text := strings.Join(got, ", "); text != "buffet not_enough, buffet sold, other bad_kind" {
		t.Errorf("counted %s", text)
	}
}
