package main

import (
	"maps"
	"slices"
	"testing"

	"zvonok/gateway/carrier"
)

// smpp.md: every row of the status table can be overridden for an operator, and
// the errors of its receipts are its own.
func TestAnOperatorsCodesOverrideTheTables(t *testing.T) {
	t.Parallel()
	configs, err := operatorConfigs([]OperatorConfig{{
		Name: "mts", Cost: "0.00", Codes: []string{"0x45=PR", "0x412=THR", "err:3/27=TMP", "err:00a=PO"},
	}})
	if err != nil {
		t.Fatal(err)
	}
	want := []carrier.Override{{Status: 0x45, Class: carrier.PermanentRecipient}, {Status: 0x412, Class: carrier.Throttle}}
	if got := configs[0].Overrides; !slices.Equal(got, want) {
		t.Errorf("answers: %+v", got)
	}
	if got := configs[0].NetworkErrors; !maps.Equal(got, map[string]carrier.Class{
		"3/27": carrier.Temporary, "00A": carrier.PermanentRoute,
	}) {
		t.Errorf("receipts: %+v", got)
	}
	rules, err := carrier.NewRules(configs[0].Overrides...)
	if err != nil || rules.Rule(0x45).Class != carrier.PermanentRecipient {
		t.Errorf("%+v, %v", rules.Rule(0x45), err)
	}
}
