package carrier

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"zvonok/gateway/smpp"
)

// statusTable repeats the table of smpp.md, row by row, in the words of a person who checks it. One row of the
// document may be several here.
var statusTable = []struct {
	status   smpp.Status
	name     string
	class    Class
	counted  bool
	retry    time.Duration // after the first attempt, without jitter
	failover bool          // after the first attempt
	alarm    bool
	action   Action
}{
	{0x00, "ROK is accepted", OK, false, 0, false, false, NoAction},
	{0x01, "RINVMSGLEN is our message's fault", PermanentMessage, true, 0, false, true, NoAction},
	{0x02, "RINVCMDLEN is our PDU's fault", PermanentMessage, true, 0, false, true, NoAction},
	{0x03, "RINVCMDID is our PDU's fault", PermanentMessage, true, 0, false, true, NoAction},
	{0x04, "RINVBNDSTS rebinds and leaves the message", Rebind, false, 0, false, false, NoAction},
	{0x05, "RALYBND rebinds", Rebind, false, 0, false, false, NoAction},
	{0x06, "RINVPRTFLG drops the flag once, then another route", PermanentRoute, true, 0, true, true, DropReceiptFlag},
	{0x07, "RINVREGDLVFLG drops the flag once, then another route", PermanentRoute, true, 0, true, true, DropReceiptFlag},
	{0x08, "RSYSERR comes again in 30 s", Temporary, true, 30 * time.Second, false, false, NoAction},
	{0x0A, "RINVSRCADR takes another route: the sender is not registered", PermanentRoute, true, 0, true, true, NoAction},
	{0x0B, "RINVDSTADR gives the number up", PermanentRecipient, true, 0, false, false, NoAction},
	{0x0D, "RBINDFAIL belongs to a bind", Configuration, false, 0, false, true, NoAction},
	{0x0E, "RINVPASWD belongs to a bind", Configuration, false, 0, false, true, NoAction},
	{0x0F, "RINVSYSID belongs to a bind", Configuration, false, 0, false, true, NoAction},
	{0x14, "RMSGQFUL defers the recipient by a minute", QueueFull, false, time.Minute, false, false, NoAction},
	{0x15, "RINVSERTYP takes another route", PermanentRoute, true, 0, true, true, NoAction},
	{0x33, "RINVNUMDESTS is our fault", PermanentMessage, true, 0, false, true, NoAction},
	{0x34, "RINVDLNAME is our fault", PermanentMessage, true, 0, false, true, NoAction},
	{0x40, "RINVDESTFLAG is our fault", PermanentMessage, true, 0, false, true, NoAction},
	{0x42, "RINVSUBREP is our fault", PermanentMessage, true, 0, false, true, NoAction},
	{0x43, "RINVESMCLASS switches the way of joining parts", PermanentRoute, true, 0, true, true, SwitchConcatenation},
	{0x44, "RCNTSUBDL is our fault", PermanentMessage, true, 0, false, true, NoAction},
	{0x45, "RSUBMITFAIL comes again", Temporary, true, 30 * time.Second, false, false, NoAction},
	{0x48, "RINVSRCTON is the profile's fault", PermanentRoute, true, 0, true, true, NoAction},
	{0x49, "RINVSRCNPI is the profile's fault", PermanentRoute, true, 0, true, true, NoAction},
	{0x4A, "0x4A is in the range of the profile's faults", PermanentRoute, true, 0, true, true, NoAction},
	{0x4F, "0x4F is in the range of the profile's faults", PermanentRoute, true, 0, true, true, NoAction},
	{0x50, "RINVDSTTON is the profile's fault", PermanentRoute, true, 0, true, true, NoAction},
	{0x51, "RINVDSTNPI is the profile's fault", PermanentRoute, true, 0, true, true, NoAction},
	{0x53, "RINVSYSTYP belongs to a bind", Configuration, false, 0, false, true, NoAction},
	{0x54, "RINVREPFLAG is our fault", PermanentMessage, true, 0, false, true, NoAction},
	{0x55, "RINVNUMMSGS is our fault", PermanentMessage, true, 0, false, true, NoAction},
	{0x58, "RTHROTTLED slows the link and leaves the message", Throttle, false, 0, false, false, NoAction},
	{
		0x61, "RINVSCHED drops the schedule once, then it is our fault", PermanentMessage, true, 0, false, true,
		DropSchedule,
	},
	{
		0x62, "RINVEXPIRY takes the default validity once, then another route", PermanentRoute, true, 0, true, true,
		DefaultValidity,
	},
	{0x63, "RINVDFTMSGID is our fault", PermanentMessage, true, 0, false, true, NoAction},
	{0x64, "RX_T_APPN comes again", Temporary, true, 30 * time.Second, false, false, NoAction},
	{0x65, "RX_P_APPN gives the number up", PermanentRecipient, true, 0, false, false, NoAction},
	{0x66, "RX_R_APPN refuses route or content: failover once", PermanentRoute, true, 0, true, true, NoAction},
	{0xC0, "RINVOPTPARSTREAM drops the TLVs once", PermanentRoute, true, 0, true, true, DropTLVs},
	{0xC1, "ROPTPARNOTALLWD drops the TLVs once", PermanentRoute, true, 0, true, true, DropTLVs},
	{0xC2, "RINVPARLEN drops the TLVs once", PermanentRoute, true, 0, true, true, DropTLVs},
	{0xC3, "RMISSINGOPTPARAM drops the TLVs once", PermanentRoute, true, 0, true, true, DropTLVs},
	{0xC4, "RINVOPTPARAMVAL drops the TLVs once", PermanentRoute, true, 0, true, true, DropTLVs},
	{0xFE, "RDELIVERYFAILURE comes again once", Temporary, true, 30 * time.Second, false, false, NoAction},
	{0xFF, "RUNKNOWNERR comes again", Temporary, true, 30 * time.Second, false, false, NoAction},
	{
		0x400, "a vendor's code comes again once, and raises an alarm", Temporary, true, 30 * time.Second, false,
		true, NoAction,
	},
	{0x4FF, "the last vendor's code, too", Temporary, true, 30 * time.Second, false, true, NoAction},
	{0x1234, "a code nobody defined is treated like a vendor's", Temporary, true, 30 * time.Second, false, true, NoAction},
	{0x0C, "RINVMSGID is out of place on a submit", Temporary, true, 30 * time.Second, false, true, NoAction},
	{0x11, "RCANCELFAIL is out of place on a submit", Temporary, true, 30 * time.Second, false, true, NoAction},
	{0x13, "RREPLACEFAIL is out of place on a submit", Temporary, true, 30 * time.Second, false, true, NoAction},
	{0x67, "RQUERYFAIL is out of place on a submit", Temporary, true, 30 * time.Second, false, true, NoAction},
}

func mustRules(t *testing.T, overrides ...Override) *Rules {
	t.Helper()
	rules, err := NewRules(overrides...)
	if err != nil {
		t.Fatal(err)
	}
	return rules
}

func TestEveryRowOfTheStatusTable(t *testing.T) {
	t.Parallel()
	rules := mustRules(t)
	for _, row := range statusTable {
		t.Run(fmt.Sprintf("0x%02X %s", uint32(row.status), row.name), func(t *testing.T) {
			t.Parallel()
			d := rules.Decide(Answer{Status: row.status, Attempt: 1})
			if d.Class != row.class || d.Counted != row.counted || d.RetryAfter != row.retry ||
				d.Failover != row.failover || d.Alarm != row.alarm || d.Action != row.action {
				t.Errorf("got class %s, counted %t, retry after %s, failover %t, alarm %t, action %d",
					d.Class, d.Counted, d.RetryAfter, d.Failover, d.Alarm, d.Action)
			}
			if (row.class == PermanentRecipient) != d.NumberBad {
				t.Errorf("number health: got blame %t", d.NumberBad)
			}
		})
	}
}

func TestEveryStandardRowIsInTheTestTable(t *testing.T) {
	t.Parallel()
	for _, rule := range standardRules() {
		found := slices.ContainsFunc(statusTable, func(row struct {
			status   smpp.Status
			name     string
			class    Class
			counted  bool
			retry    time.Duration
			failover bool
			alarm    bool
			action   Action
		},
		) bool {
			return row.status == rule.Status
		})
		if !found {
			t.Errorf("0x%02X %s has no row in the test table", uint32(rule.Status), rule.Name)
		}
	}
}

func TestAttemptsAndFailoverOfTemporaryRefusals(t *testing.T) {
	t.Parallel()
	rules := mustRules(t)
	type want struct {
		retry    time.Duration
		failover bool
	}
	tests := []struct {
		name   string
		status smpp.Status
		want   []want // by attempt
	}{
		{"RSYSERR: 30 s doubling to 15 min, six attempts, another operator from the second on", 0x08, []want{
			{30 * time.Second, false},
			{time.Minute, true},
			{2 * time.Minute, true},
			{4 * time.Minute, true},
			{8 * time.Minute, true},
			{0, true},
		}},
		{"RSUBMITFAIL: three attempts, then another operator", 0x45, []want{
			{30 * time.Second, false}, {time.Minute, false}, {0, true},
		}},
		{"RUNKNOWNERR: three attempts, then another operator", 0xFF, []want{
			{30 * time.Second, false}, {time.Minute, false}, {0, true},
		}},
		{"RDELIVERYFAILURE: one repetition and no other operator", 0xFE, []want{
			{30 * time.Second, false}, {0, false},
		}},
		{"a vendor's code: two attempts, then another operator", 0x455, []want{
			{30 * time.Second, false}, {0, true},
		}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			for i, w := range test.want {
				d := rules.Decide(Answer{Status: test.status, Attempt: int16(i + 1)})
				if d.RetryAfter != w.retry || d.Failover != w.failover {
					t.Errorf("attempt %d: got retry after %s, failover %t; want %s, %t",
						i+1, d.RetryAfter, d.Failover, w.retry, w.failover)
				}
			}
		})
	}
	if got := temporaryWait(20, 0); got != 15*time.Minute {
		t.Errorf("the wait grows to %s, not to 15 min", got)
	}
	if got := temporaryWait(1, 0.5); got != 27*time.Second {
		t.Errorf("half of the jitter makes %s of 30 s, want 27 s", got)
	}
}

func TestAnInvalidDestinationIsTheRoutesFaultWhenTheNumberIsAnotherOperators(t *testing.T) {
	t.Parallel()
	d := mustRules(t).Decide(Answer{Status: 0x0B, Attempt: 1, Foreign: true})
	if d.Class != PermanentRoute || !d.Failover || d.NumberBad || d.Action != LearnPorted {
		t.Errorf("got %+v", d)
	}
}

func TestADeliveryFailureInTransactionModeIsThePhones(t *testing.T) {
	t.Parallel()
	d := mustRules(t).Decide(Answer{Status: 0xFE, Attempt: 1, Transaction: true})
	if d.Class != PermanentRecipient || d.RetryAfter != 0 {
		t.Errorf("got %+v", d)
	}
}

func TestAGenericNackIsBelievedOnlyAboutSpeed(t *testing.T) {
	t.Parallel()
	rules := mustRules(t)
	for status, class := range map[smpp.Status]Class{
		0x58: Throttle, 0x14: QueueFull, 0x03: PermanentMessage, 0x08: PermanentMessage, 0x00: PermanentMessage,
	} {
		if d := rules.Decide(Answer{Status: status, Nack: true, Attempt: 1}); d.Class != class {
			t.Errorf("generic_nack with 0x%02X: got %s, want %s", uint32(status), d.Class, class)
		}
	}
}

func TestAnOperatorMayOverrideAnyRow(t *testing.T) {
	t.Parallel()
	rules := mustRules(t,
		Override{Status: 0x45, Class: PermanentRecipient, Name: "barred"},
		Override{Status: 0x401, Class: Throttle},
		Override{Status: 0x402, Class: Temporary, Attempts: 5, FailoverAfter: -1},
		Override{Status: 0x0B, Class: PermanentRoute, Action: LearnPorted},
		Override{Status: 0x4FF, Class: OK},
	)
	for _, test := range []struct {
		status smpp.Status
		class  Class
	}{
		{0x45, PermanentRecipient}, {0x401, Throttle}, {0x402, Temporary}, {0x0B, PermanentRoute}, {0x4FF, OK},
	} {
		if d := rules.Decide(Answer{Status: test.status, Attempt: 1}); d.Class != test.class {
			t.Errorf("0x%02X: got %s, want %s", uint32(test.status), d.Class, test.class)
		}
		if !rules.Known(test.status) {
			t.Errorf("0x%02X has a rule now and must not raise an alarm as unknown", uint32(test.status))
		}
	}
	if d := rules.Decide(Answer{Status: 0x45, Attempt: 1}); d.Rule.Name != "barred" {
		t.Errorf("the vendor's word is lost: %q", d.Rule.Name)
	}
	if d := rules.Decide(Answer{Status: 0x402, Attempt: 5}); d.RetryAfter != 0 || d.Failover {
		t.Errorf("attempts and failover of the override are not applied: %+v", d)
	}
	if d := rules.Decide(Answer{Status: 0x0B, Attempt: 1}); d.Action != LearnPorted {
		t.Errorf("the action of the override is not applied: %+v", d)
	}
	if _, err := NewRules(Override{Status: 0, Class: Temporary}); err == nil {
		t.Error("success was overridden")
	}
	for _, class := range []Class{Configuration, Unknown, NeverWritten, "XX", ""} {
		if _, err := NewRules(Override{Status: 0x400, Class: class}); err == nil {
			t.Errorf("class %q is accepted for a submit", class)
		}
	}
}

func TestWhatARefusedBindMeans(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name     string
		status   smpp.Status
		failures int
		want     BindDecision
	}{
		{
			"already bound waits for the SMSC's session timeout", 0x05, 1,
			BindDecision{Class: Rebind, Wait: time.Minute, Alone: true},
		},
		{
			"already bound again waits longer", 0x05, 2,
			BindDecision{Class: Rebind, Wait: 2 * time.Minute, Alone: true},
		},
		{
			"already bound never waits longer than 3 min", 0x05, 9,
			BindDecision{Class: Rebind, Wait: 3 * time.Minute, Alone: true},
		},
		{
			"a failed bind is configuration and waits 30 s", 0x0D, 1,
			BindDecision{Class: Configuration, Wait: 30 * time.Second, Alarm: true, Alone: true},
		},
		{
			"a failed bind waits up to 10 min", 0x0D, 8,
			BindDecision{Class: Configuration, Wait: 10 * time.Minute, Alarm: true, Alone: true},
		},
		{
			"a wrong password alarms at once and waits 10 min", 0x0E, 1,
			BindDecision{Class: Configuration, Wait: 10 * time.Minute, Alarm: true, Alone: true},
		},
		{
			"an unknown system id does the same", 0x0F, 1,
			BindDecision{Class: Configuration, Wait: 10 * time.Minute, Alarm: true, Alone: true},
		},
		{
			"a wrong system type does the same", 0x53, 2,
			BindDecision{Class: Configuration, Wait: 10 * time.Minute, Alarm: true, Alone: true},
		},
		{
			"after six tries the account is left alone for an hour", 0x0E, 6,
			BindDecision{Class: Configuration, Wait: time.Hour, Alarm: true, Alone: true},
		},
		{
			"a system error is retried like a lost connection", 0x08, 3,
			BindDecision{Class: Rebind, Wait: 4 * time.Second},
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			if got := BindRetry(test.status, test.failures, 0); got != test.want {
				t.Errorf("got %+v, want %+v", got, test.want)
			}
		})
	}
}

func TestReconnectingWaitsOneToSixtySeconds(t *testing.T) {
	t.Parallel()
	for failures := 1; failures < 20; failures++ {
		low, high := Reconnect(failures, 0), Reconnect(failures, 0.999999)
		if low < time.Second || high > time.Minute {
			t.Errorf("after %d failures: %s to %s", failures, low, high)
		}
		if high-low < low/3 {
			t.Errorf("after %d failures there is no jitter: %s to %s", failures, low, high)
		}
	}
	if got := Reconnect(20, 0.999999); got < 59*time.Second {
		t.Errorf("the longest wait is %s", got)
	}
}

func TestWhatTheAnswerToAQueryOrCancellationMeans(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name string
		got  Verdict
		want Verdict
	}{
		{"0x0C once: ask again", QueryVerdict(0x0C, 1), AskAgain},
		{"0x0C twice: it was never accepted", QueryVerdict(0x0C, 2), NeverAccepted},
		{"0x67: wait for the receipt", QueryVerdict(0x67, 0), AwaitReceipt},
		{"0x00: the answer holds the state", QueryVerdict(0x00, 0), Settled},
		{"0x08: ask again", QueryVerdict(0x08, 0), AskAgain},
		{"0x11 on cancel: it has left", CancelVerdict(0x11), AlreadyLeft},
		{"0x13 on replace: it has left", CancelVerdict(0x13), AlreadyLeft},
		{"0x00 on cancel: it is withdrawn", CancelVerdict(0x00), Settled},
		{"0x08 on cancel: ask again", CancelVerdict(0x08), AskAgain},
	} {
		if test.got != test.want {
			t.Errorf("%s: got %d", test.name, test.got)
		}
	}
}
