package carrier

import (
	"strings"
	"testing"
	"time"

	"zvonok/gateway/smpp"
)

// turn gives the parts of a message the outcomes of a turn: a status, or one of the two below.
const (
	silence  = smpp.Status(0xFFFF0001) // written, no answer
	unsent   = smpp.Status(0xFFFF0002) // never written
	accepted = smpp.Status(0)
)

func (m *message) turn(t *testing.T, outcomes ...smpp.Status) step {
	t.Helper()
	rules := mustRules(t)
	sent := 0
	for i := range m.parts {
		p := &m.parts[i]
		if !p.send {
			continue
		}
		if sent == len(outcomes) {
			t.Fatalf("part %d is sent, too", i+1)
		}
		status := outcomes[sent]
		sent++
		switch status {
		case silence:
			p.settle(Unknown, smpp.Outcome{Kind: smpp.Unknown}, Decision{Class: Unknown}, paceStart)
		case unsent:
			p.settle(NeverWritten, smpp.Outcome{Kind: smpp.NeverWritten}, Decision{Class: NeverWritten}, paceStart)
		default:
			d := rules.Decide(Answer{Status: status, Attempt: m.sms.Attempt + int16(m.retries)})
			p.settle(d.Class, smpp.Outcome{Kind: smpp.Answered, Status: status}, d, paceStart)
		}
	}
	if sent != len(outcomes) {
		t.Fatalf("%d parts are sent, %d outcomes given", sent, len(outcomes))
	}
	return m.next()
}

func threeParts(t *testing.T, method Method) *message {
	t.Helper()
	return made(t, strings.Repeat("a", 400), method)
}

func TestTheOutcomesOfThePartsMakeThatOfTheMessage(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name     string
		outcomes []smpp.Status
		kind     stepKind
		class    Class
	}{
		{"all accepted", []smpp.Status{0, 0, 0}, finish, OK},
		{"one unanswered", []smpp.Status{0, silence, 0}, finish, Unknown},
		{"all refused for the phone", []smpp.Status{0x0B, 0x0B, 0x0B}, finish, PermanentRecipient},
		{"one refused for good", []smpp.Status{0, 0, 0x0B}, finish, PermanentRecipient},
		{"the worst refusal counts", []smpp.Status{0x08, 0x0A, 0x01}, finish, PermanentMessage},
		{"refused for now, nothing accepted: the caller keeps it", []smpp.Status{0x08, 0x08, 0x08}, finish, Temporary},
		{"a full queue, nothing accepted", []smpp.Status{0x14, 0x14, 0x14}, finish, QueueFull},
		{"throttled goes again", []smpp.Status{0x58, 0x58, 0x58}, resend, ""},
		{"never written goes again", []smpp.Status{0, unsent, unsent}, resend, ""},
		{"never written beside an unknown goes again", []smpp.Status{silence, unsent, unsent}, resend, ""},
		{"refused for now beside accepted parts is kept here", []smpp.Status{0, 0, 0x08}, later, ""},
		{"full beside accepted parts is kept here", []smpp.Status{0, 0, 0x14}, later, ""},
		{"wrong bind state goes again", []smpp.Status{0x04, 0x04, 0x04}, resend, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			s := threeParts(t, UDH16).turn(t, test.outcomes...)
			if s.kind != test.kind || s.class != test.class {
				t.Errorf("got kind %d, class %q", s.kind, s.class)
			}
		})
	}
}

// Pain 4, pain 8: parts that were accepted are never sent twice.
func TestOnlyThePartsThatAreMissingGoAgain(t *testing.T) {
	t.Parallel()
	m := threeParts(t, UDH16)
	m.turn(t, accepted, 0x58, unsent)
	if s := m.turn(t, accepted, 0x58); s.kind != resend {
		t.Fatalf("got kind %d", s.kind)
	}
	if s := m.turn(t, accepted); s.kind != finish || s.class != OK {
		t.Errorf("got kind %d, class %q", s.kind, s.class)
	}
}

func TestARefusedPartOfAnAcceptedMessageIsTriedSixTimesInAll(t *testing.T) {
	t.Parallel()
	m := threeParts(t, UDH16)
	m.sms.Attempt = 1
	s := m.turn(t, accepted, accepted, 0x08)
	waits := []time.Duration{30 * time.Second, time.Minute, 2 * time.Minute, 4 * time.Minute, 8 * time.Minute}
	for _, want := range waits {
		if s.kind != later || s.wait != want {
			t.Fatalf("got kind %d, wait %s, want %s", s.kind, s.wait, want)
		}
		s = m.turn(t, 0x08)
	}
	if s.kind != finish || s.class != Temporary {
		t.Fatalf("got kind %d, class %q", s.kind, s.class)
	}
	r := m.result("mts", s.class, s.part)
	if !r.Partial() || r.Accepted() != 2 || r.Failover {
		t.Errorf("a partly delivered message must not fail over: %+v", r)
	}
}

// Pain 22, row 0x43.
func TestARefusedMethodIsSwitchedUntilOneIsAccepted(t *testing.T) {
	t.Parallel()
	m := threeParts(t, UDH16)
	for _, want := range []Method{UDH8, SAR, Payload} {
		outcomes := make([]smpp.Status, len(m.parts))
		for i := range outcomes {
			outcomes[i] = 0x43
		}
		if s := m.turn(t, outcomes...); s.kind != resend || m.form.method != want {
			t.Fatalf("got kind %d, method %q, want %q", s.kind, m.form.method, want)
		}
	}
	if len(m.parts) != 1 {
		t.Errorf("the payload has %d parts", len(m.parts))
	}
	if s := m.turn(t, 0x43); s.kind != finish || s.class != PermanentRoute {
		t.Errorf("after the last method: kind %d, class %q", s.kind, s.class)
	}
}

func TestAMethodIsNotSwitchedWhenSomePartWasAccepted(t *testing.T) {
	t.Parallel()
	m := threeParts(t, UDH16)
	if s := m.turn(t, accepted, 0x43, 0x43); s.kind != finish || s.class != PermanentRoute {
		t.Errorf("got kind %d, class %q", s.kind, s.class)
	}
}

func TestAShortMessageHasNoMethodToSwitch(t *testing.T) {
	t.Parallel()
	m := made(t, "a", UDH16)
	if s := m.turn(t, 0x43); s.kind != finish || s.class != PermanentRoute {
		t.Errorf("got kind %d, class %q", s.kind, s.class)
	}
}

// Rows 0x06, 0x07, 0x61, 0x62, 0xC0 to 0xC4.
func TestWhatAnOperatorDislikesIsDroppedOnce(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name    string
		status  smpp.Status
		dropped func(*smpp.Message) bool
		then    Class
	}{
		{
			"the receipt flag after 0x06", 0x06, func(p *smpp.Message) bool { return p.RegisteredDelivery == 0 },
			PermanentRoute,
		},
		{
			"the receipt flag after 0x07", 0x07, func(p *smpp.Message) bool { return p.RegisteredDelivery == 0 },
			PermanentRoute,
		},
		{"the schedule after 0x61", 0x61, func(p *smpp.Message) bool { return p.ValidityPeriod == "" }, PermanentMessage},
		{"the validity after 0x62", 0x62, func(p *smpp.Message) bool { return p.ValidityPeriod == "" }, PermanentRoute},
		{"the TLVs after 0xC0", 0xC0, func(p *smpp.Message) bool { return len(p.TLVs) == 0 }, PermanentRoute},
		{"the TLVs after 0xC4", 0xC4, func(p *smpp.Message) bool { return len(p.TLVs) == 0 }, PermanentRoute},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			m := made(t, "a", UDH16)
			m.sms.Deadline = paceStart.Add(time.Hour)
			if test.dropped(schoolCoder().pdu(m, 0, paceStart)) {
				t.Fatal("it was not there from the start")
			}
			if s := m.turn(t, test.status); s.kind != resend {
				t.Fatalf("got kind %d", s.kind)
			}
			if !test.dropped(schoolCoder().pdu(m, 0, paceStart)) {
				t.Error("it is still there")
			}
			if s := m.turn(t, test.status); s.kind != finish || s.class != test.then {
				t.Errorf("the second time: kind %d, class %q", s.kind, s.class)
			}
		})
	}
}

func TestWithoutTLVsALongTextNeedsAHeader(t *testing.T) {
	t.Parallel()
	for _, method := range []Method{SAR, Payload} {
		m := threeParts(t, method)
		outcomes := make([]smpp.Status, len(m.parts))
		for i := range outcomes {
			outcomes[i] = 0xC1
		}
		if s := m.turn(t, outcomes...); s.kind != resend || m.form.method != UDH16 || len(m.parts) != 3 {
			t.Errorf("%s: got kind %d, method %q, %d parts", method, s.kind, m.form.method, len(m.parts))
		}
		if p := schoolCoder().pdu(m, 0, paceStart); len(p.TLVs) != 0 || p.ESMClass&smpp.ESMClassUDHI == 0 {
			t.Errorf("%s: got %d TLVs, esm_class %d", method, len(p.TLVs), p.ESMClass)
		}
	}
}

func TestAResultTellsTheCallerEverythingTheTableSays(t *testing.T) {
	t.Parallel()
	m := threeParts(t, UDH16)
	m.sms.Attempt = 2
	s := m.turn(t, 0x08, 0x08, 0x08)
	r := m.result("mts", s.class, s.part)
	if r.ID != 7 || r.Attempt != 2 || r.Operator != "mts" || r.Status != 0x08 || r.Reason != "RSYSERR" ||
		!r.Counted || !r.Failover || r.RetryAfter == 0 || len(r.Parts) != 3 || r.Parts[2].Number != 3 ||
		r.Parts[2].Count != 3 {
		t.Errorf("got %+v", r)
	}
	m = made(t, "a", UDH16)
	s = m.turn(t, 0x0B)
	if r = m.result("mts", s.class, s.part); !r.NumberBad || !r.Counted || r.Failover || r.RetryAfter != 0 {
		t.Errorf("got %+v", r)
	}
}
