package carrier

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"zvonok/gateway/smpp"
	"zvonok/gateway/smpp/smpptest"
)

func certification(t *testing.T, smsc *smpptest.SMSC) Certification {
	t.Helper()
	cfg := account(smsc.Addr())
	cfg.Rate = 100
	return Certification{Operator: cfg, To: "79000000001", ReceiptWait: 5 * time.Second, DialWait: 5 * time.Second}
}

func findings(r Report) map[string]Finding {
	all := map[string]Finding{}
	for _, s := range r.Steps {
		all[s.Name] = s.Finding
	}
	return all
}

func TestAGoodOperatorPassesEveryStepOfTheCertification(t *testing.T) {
	t.Parallel()
	smsc := newSMSC(t, behaving(smpptest.Behaviour{ID: smpptest.Hex, ReceiptID: smpptest.Decimal}))
	c := certification(t, smsc)
	screens := make(chan smpptest.Screen, 1)
	c.Progress = func(s Step) {
		if s.Name != "receipts" {
			return
		}
		go func() {
			p, _ := smpptest.USSDProfileNamed("plain-its")
			if call, err := smsc.Dial(context.Background(), p, "79000000001", "*377*888#"); err == nil {
				screen, _ := call.Screen(context.Background())
				screens <- screen
			}
		}()
	}
	report, err := c.Run(within(t))
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range report.Steps {
		if s.Finding != Passed {
			t.Errorf("%s: %s: %s", s.Name, s.Finding, s.Detail)
		}
	}
	if !report.Passed() || report.MessageID != IDHex || !slices.Equal(report.Concatenation, []Method{
		UDH16, UDH8,
		SAR, Payload,
	}) {
		t.Errorf("report %+v", report)
	}
	if screen := <-screens; !screen.End || screen.Text != "Zvonok check: USSD works" {
		t.Errorf("the phone shows %+v", screen)
	}
	if n := len(smsc.Messages()); n < 12 || n > 20 {
		t.Errorf("%d messages were sent", n)
	}
	if len(smsc.Sessions("")) != 0 {
		waitFor(t, func() bool { return len(smsc.Sessions("")) == 0 })
	}

	text := report.Text()
	for _, want := range []string{
		"PASSED", "long text by sar", `message_id = "hex"`, `concatenation = "udh16"`,
		"+7900***01",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the text does not say %q:\n%s", want, text)
		}
	}
	if strings.Contains(text, "79000000001") {
		t.Error("the text names the phone")
	}
	var back Report
	if encoded, err := json.Marshal(report); err != nil || json.Unmarshal(encoded, &back) != nil ||
		len(back.Steps) != len(report.Steps) {
		t.Errorf("JSON: %v", err)
	}
}

func TestTheCertificationTellsWhatAnOperatorRefuses(t *testing.T) {
	t.Parallel()
	n := 0
	smsc := script(t, func(_ int, m *smpp.Message) smpp.Status {
		switch {
		case m.ESMClass&smpp.ESMClassUDHI != 0:
			return smpp.StatusInvalidESMClass
		case strings.Contains(string(m.ShortMessage), "speed"):
			if n++; n > 5 {
				return smpp.StatusThrottled
			}
		}
		return smpp.StatusOK
	})
	cfg := account(smsc.address)
	cfg.Roles = []Role{RoleSMS}
	report, err := Certification{Operator: cfg, To: "79000000001", ReceiptWait: time.Millisecond}.Run(within(t))
	if err != nil {
		t.Fatal(err)
	}
	for step, want := range map[string]Finding{
		"bind": Passed, "GSM-7": Passed, "UCS-2": Passed, "long text by udh16": Failed, "long text by udh8": Failed,
		"long text by sar": Passed, "long text by payload": Passed, "burst": Warning, "receipts": Failed, "USSD": Skipped,
		"unbind": Passed,
	} {
		if got := findings(report)[step]; got != want {
			t.Errorf("%s: %q, want %q", step, got, want)
		}
	}
	if report.Passed() || !strings.Contains(report.Text(), "FAILED") || !strings.Contains(report.Text(), "0x43") {
		t.Errorf("report:\n%s", report.Text())
	}
}

func TestACertificationWithoutABindSaysWhy(t *testing.T) {
	t.Parallel()
	smsc := newSMSC(t, behaving(smpptest.Behaviour{RefuseBinds: 1, RefuseBindStatus: smpp.StatusInvalidPassword}))
	report, err := Certification{Operator: account(smsc.Addr()), To: "79000000001", DialWait: -1}.Run(within(t))
	if err != nil || report.Passed() || len(report.Steps) != 1 || !strings.Contains(report.Steps[0].Detail, "0x0E") {
		t.Errorf("got %+v, %v", report, err)
	}
}

func TestAnAccountThatBindsToUsIsNotCertifiedFromHere(t *testing.T) {
	t.Parallel()
	for _, operator := range []OperatorConfig{{Name: "x", Mode: Server, SystemID: "x", Password: "y"}, {Name: "x"}} {
		if _, err := (Certification{Operator: operator, To: "79000000001"}).Run(within(t)); err == nil {
			t.Errorf("%+v: it ran", operator)
		}
	}
}
