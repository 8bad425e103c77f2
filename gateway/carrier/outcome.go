package carrier

import (
	"fmt"
	"time"

	"zvonok/gateway/smpp"
)

// Class is the kind of outcome of an attempt (smpp.md, "Outcome classes of a status code"). Its text is stable: it
// is stored and shown.
type Class string

// The outcome classes.
const (
	OK                 Class = "OK"    // accepted by the operator
	Throttle           Class = "THR"   // the link is too fast: it pauses, the message keeps its place, nothing is counted
	QueueFull          Class = "QF"    // the operator's queue, usually the recipient's, is full: the recipient is deferred
	Temporary          Class = "TMP"   // counted, again later, after two the next operator may be tried
	PermanentRecipient Class = "PR"    // this phone cannot be reached; number health -1
	PermanentRoute     Class = "PO"    // this operator will not take it: the next one once, alarm
	PermanentMessage   Class = "PM"    // our message is wrong: no other operator would take it; alarm
	Rebind             Class = "RB"    // the session is at fault: it is closed and bound again, messages are untouched
	Configuration      Class = "CF"    // the bind is refused for what our settings say; alarm
	Unknown            Class = "UNK"   // written and never answered: it may have been sent or not
	NeverWritten       Class = "NW"    // nothing was written, the operator is not bound or is being stopped
	Stale              Class = "STALE" // the deadline passed before anything was written
)

// Classes lists every class, for metrics and checks.
func Classes() []Class {
	return []Class{
		OK, Throttle, QueueFull, Temporary, PermanentRecipient, PermanentRoute, PermanentMessage,
		Rebind, Configuration, Unknown, NeverWritten, Stale,
	}
}

// Action is what the carrier does about a refusal by itself, once per message and without counting an attempt.
type Action uint8

// The actions.
const (
	NoAction            Action = iota
	DropReceiptFlag            // submit again with registered_delivery 0
	SwitchConcatenation        // submit again with the next method for long texts
	DropTLVs                   // submit again without optional parameters
	DefaultValidity            // submit again with an empty validity_period
	DropSchedule               // submit again without schedule_delivery_time and validity_period
	LearnPorted                // remember that the number is not this operator's
)

// Rule is one row of the table of outcome classes. Class and what follows it speak of a submit; what a status means as
// the answer to a bind, a query or a cancellation is said by BindRetry, QueryVerdict and CancelVerdict.
type Rule struct {
	Status smpp.Status
	Name   string // SMPP 3.4 section 5.1.3, without ESME_
	Class  Class

	// Attempts is how many counted attempts a Temporary outcome allows with this operator; the last one has no
	// RetryAfter.
	Attempts int
	// FailoverAfter is the counted attempt from which the next operator of the route may be tried; 0 is never,
	// 1 is at once.
	FailoverAfter int
	Alarm         bool
	Action        Action
}

// Limits of the rules. The waits are the specification's (smpp.md, outcome classes).
const (
	temporaryAttempts   = 6                // TMP: "max 6 or until half-life"
	temporaryFirst      = 30 * time.Second // TMP: 30 s, doubling
	temporaryLongest    = 15 * time.Minute // TMP: up to 15 min
	temporaryJitter     = 0.2              // of the wait, so that a failed batch does not come back as one
	temporaryFailover   = 2                // TMP: "failover to next operator after 2"
	failedSubmits       = 3                // 0x45, 0xFF: "max 3, then failover"
	vendorAttempts      = 2                // 0x400+ and codes out of place: "TMP max 2 until a rule exists"
	unknownIDQueries    = 2                // 0x0C: this many answers and the message was never accepted
	queueFullRecipients = 3                // QF: this many distinct recipients ...
	queueFullWithin     = 2 * time.Second  // ... within this time are a throttle of the link
	reconnectFirst      = time.Second      // lost or refused connections: 1 s doubling ...
	reconnectLongest    = 40 * time.Second // ... to 40 s, and up to half of it more: together 1 s to 60 s
	bindFailFirst       = 30 * time.Second // 0x0D: 30 s doubling ...
	bindFailLongest     = 10 * time.Minute // ... to 10 min
	credentialWait      = 10 * time.Minute // 0x0E, 0x0F, 0x53: so that the account is not locked
	credentialTries     = 6                // binds with refused credentials; then the operator is left alone ...
	credentialRest      = time.Hour        // ... for this long
	alreadyBoundWait    = 60 * time.Second // 0x05: the SMSC's session timeout, 60 to 180 s; doubling ...
	alreadyBoundLongest = 3 * time.Minute  // ... to this
	syntaxErrors        = 3                // 0x02, 0x03: this many in a row and the session is bound again
	systemErrors        = 5                // 0x08: this many ...
	systemErrorsWithin  = 10 * time.Second // ... in this time open the circuit
	circuitFirst        = 10 * time.Second // first time the circuit stays open, doubling ...
	circuitLongest      = 5 * time.Minute  // ... to this
)

// queueFullWaits are the waits of a recipient whose queue is full, by how often it was in a row.
var queueFullWaits = [...]time.Duration{time.Minute, 2 * time.Minute, 5 * time.Minute, 15 * time.Minute}

// standardRules is the status table of smpp.md as data. Statuses that are not here have the class of their range, see
// Rules.Rule.
func standardRules() []Rule {
	tmp := func(s smpp.Status, name string) Rule {
		return Rule{Status: s, Name: name, Class: Temporary, Attempts: temporaryAttempts, FailoverAfter: temporaryFailover}
	}
	few := func(s smpp.Status, name string) Rule {
		return Rule{Status: s, Name: name, Class: Temporary, Attempts: failedSubmits, FailoverAfter: failedSubmits}
	}
	recipient := func(s smpp.Status, name string) Rule {
		return Rule{Status: s, Name: name, Class: PermanentRecipient}
	}
	route := func(s smpp.Status, name string, action Action) Rule {
		return Rule{Status: s, Name: name, Class: PermanentRoute, FailoverAfter: 1, Alarm: true, Action: action}
	}
	message := func(s smpp.Status, name string) Rule {
		return Rule{Status: s, Name: name, Class: PermanentMessage, Alarm: true}
	}
	settings := func(s smpp.Status, name string) Rule {
		return Rule{Status: s, Name: name, Class: Configuration, Alarm: true}
	}
	// misplaced is a status that answers another command than submit_sm.
	misplaced := func(s smpp.Status, name string) Rule {
		return Rule{
			Status: s, Name: name, Class: Temporary,
			Attempts: vendorAttempts, FailoverAfter: vendorAttempts, Alarm: true,
		}
	}
	schedule := message(0x61, "RINVSCHED")
	schedule.Action = DropSchedule

	return []Rule{
		{Status: 0x00, Name: "ROK", Class: OK},
		message(0x01, "RINVMSGLEN"),
		message(0x02, "RINVCMDLEN"),
		message(0x03, "RINVCMDID"),
		{Status: 0x04, Name: "RINVBNDSTS", Class: Rebind},
		{Status: 0x05, Name: "RALYBND", Class: Rebind},
		route(0x06, "RINVPRTFLG", DropReceiptFlag),
		route(0x07, "RINVREGDLVFLG", DropReceiptFlag),
		tmp(0x08, "RSYSERR"),
		route(0x0A, "RINVSRCADR", NoAction),
		recipient(0x0B, "RINVDSTADR"),
		misplaced(0x0C, "RINVMSGID"),
		settings(0x0D, "RBINDFAIL"),
		settings(0x0E, "RINVPASWD"),
		settings(0x0F, "RINVSYSID"),
		misplaced(0x11, "RCANCELFAIL"),
		misplaced(0x13, "RREPLACEFAIL"),
		{Status: 0x14, Name: "RMSGQFUL", Class: QueueFull},
		route(0x15, "RINVSERTYP", NoAction),
		message(0x33, "RINVNUMDESTS"),
		message(0x34, "RINVDLNAME"),
		message(0x40, "RINVDESTFLAG"),
		message(0x42, "RINVSUBREP"),
		route(0x43, "RINVESMCLASS", SwitchConcatenation),
		message(0x44, "RCNTSUBDL"),
		few(0x45, "RSUBMITFAIL"),
		route(0x48, "RINVSRCTON", NoAction),
		route(0x49, "RINVSRCNPI", NoAction),
		route(0x50, "RINVDSTTON", NoAction),
		route(0x51, "RINVDSTNPI", NoAction),
		settings(0x53, "RINVSYSTYP"),
		message(0x54, "RINVREPFLAG"),
		message(0x55, "RINVNUMMSGS"),
		{Status: 0x58, Name: "RTHROTTLED", Class: Throttle},
		schedule,
		route(0x62, "RINVEXPIRY", DefaultValidity),
		message(0x63, "RINVDFTMSGID"),
		tmp(0x64, "RX_T_APPN"),
		recipient(0x65, "RX_P_APPN"),
		route(0x66, "RX_R_APPN", NoAction),
		misplaced(0x67, "RQUERYFAIL"),
		route(0xC0, "RINVOPTPARSTREAM", DropTLVs),
		route(0xC1, "ROPTPARNOTALLWD", DropTLVs),
		route(0xC2, "RINVPARLEN", DropTLVs),
		route(0xC3, "RMISSINGOPTPARAM", DropTLVs),
		route(0xC4, "RINVOPTPARAMVAL", DropTLVs),
		{Status: 0xFE, Name: "RDELIVERYFAILURE", Class: Temporary, Attempts: 2},
		few(0xFF, "RUNKNOWNERR"),
	}
}

// Override replaces the rule of one status for one operator. It is data of the settings: whatever it leaves empty is
// taken from the class, so that {Status: 0x45, Class: PermanentRecipient} is a whole override.
type Override struct {
	Status        smpp.Status
	Class         Class
	Attempts      int    // of Temporary; 0 for the class's own
	FailoverAfter int    // 0 for the class's own, -1 for never
	Action        Action // what the carrier tries first
	Name          string // the vendor's word for it; empty for "vendor 0x..."
}

// Rules is the status table of one operator. It does not change after NewRules and may be used by many goroutines.
type Rules struct {
	table map[smpp.Status]Rule
}

// NewRules returns the standard table with an operator's overrides laid over it. An override may name any status, also
// of the vendor range 0x400 to 0x4FF and beyond, but not 0, and only a class that can be the outcome of a submit.
func NewRules(overrides ...Override) (*Rules, error) {
	r := &Rules{table: make(map[smpp.Status]Rule)}
	for _, row := range standardRules() {
		r.table[row.Status] = row
	}
	for _, o := range overrides {
		if o.Status == 0 {
			return nil, fmt.Errorf("override of status 0x00: success cannot be overridden")
		}
		row := Rule{Status: o.Status, Name: o.Name, Class: o.Class, Action: o.Action}
		if row.Name == "" {
			row.Name = r.Rule(o.Status).Name
		}
		switch o.Class {
		case OK, Throttle, QueueFull, PermanentRecipient, Rebind:
		case Temporary:
			row.Attempts, row.FailoverAfter = temporaryAttempts, temporaryFailover
		case PermanentRoute:
			row.FailoverAfter, row.Alarm = 1, true
		case PermanentMessage:
			row.Alarm = true
		default:
			return nil, fmt.Errorf("override of status 0x%02x: class %q is not one of OK, THR, QF, TMP, PR, PO, PM, RB",
				uint32(o.Status), o.Class)
		}
		if o.Attempts > 0 {
			row.Attempts = o.Attempts
		}
		if o.FailoverAfter != 0 {
			row.FailoverAfter = max(o.FailoverAfter, 0)
		}
		r.table[o.Status] = row
	}
	return r, nil
}

// Rule returns the row of a status. A status that has none is a vendor's: temporary, two attempts, with an alarm so
// that somebody writes the missing rule; only the unassigned ones among the errors of types of number (0x48 to 0x51)
// have the class of their neighbours.
func (r *Rules) Rule(s smpp.Status) Rule {
	if row, ok := r.table[s]; ok {
		return row
	}
	if s >= 0x48 && s <= 0x51 {
		return Rule{
			Status: s, Name: fmt.Sprintf("address type 0x%02X", uint32(s)), Class: PermanentRoute,
			FailoverAfter: 1, Alarm: true,
		}
	}
	return Rule{
		Status: s, Name: fmt.Sprintf("vendor 0x%02X", uint32(s)), Class: Temporary,
		Attempts: vendorAttempts, FailoverAfter: vendorAttempts, Alarm: true,
	}
}

// Known reports whether a status has a row of its own.
func (r *Rules) Known(s smpp.Status) bool {
	_, ok := r.table[s]
	return ok
}

// Answer is the answer to one submit, or the lack of it, with what the decision about it depends on.
type Answer struct {
	Status  smpp.Status
	Nack    bool  // the answer was a generic_nack with our sequence number
	Attempt int16 // counted attempts of this message so far, this one included
	// Foreign means that the number is not this operator's by prefix, or was ported away, so that "invalid
	// destination" speaks about the route and not about the person.
	Foreign bool
	// Transaction means that the message was submitted in transaction mode (esm_class 2), where the answer is the
	// result of delivery and not of acceptance.
	Transaction bool
	Jitter      float64 // a random number in [0,1) for the wait
}

// Decision is what a Rule means for one message.
type Decision struct {
	Rule       Rule
	Class      Class
	Counted    bool
	RetryAfter time.Duration // 0: no further attempt with this operator
	Failover   bool
	Alarm      bool
	Action     Action
	NumberBad  bool
}

// Decide applies the table to one answer to a submit.
func (r *Rules) Decide(a Answer) Decision {
	row := r.Rule(a.Status)
	switch {
	case a.Nack && row.Class != Throttle && row.Class != QueueFull:
		// A peer that cannot read our PDU will not read it the next time; only its complaint about speed is believed.
		row = Rule{Status: a.Status, Name: row.Name, Class: PermanentMessage, Alarm: true}
	case a.Foreign && row.Class == PermanentRecipient && a.Status == 0x0B:
		row = Rule{Status: a.Status, Name: row.Name, Class: PermanentRoute, FailoverAfter: 1, Action: LearnPorted}
	case a.Transaction && a.Status == 0xFE:
		row = Rule{Status: a.Status, Name: row.Name, Class: PermanentRecipient}
	}

	d := Decision{Rule: row, Class: row.Class, Alarm: row.Alarm, Action: row.Action}
	attempt := max(int(a.Attempt), 1)
	switch row.Class {
	case Temporary:
		d.Counted = true
		if attempt < row.Attempts {
			d.RetryAfter = temporaryWait(attempt, a.Jitter)
		}
	case QueueFull:
		d.RetryAfter = queueFullWait(1)
	case PermanentRecipient:
		d.Counted, d.NumberBad = true, true
	case PermanentRoute, PermanentMessage, Unknown:
		d.Counted = true
	}
	d.Failover = row.FailoverAfter > 0 && attempt >= row.FailoverAfter
	return d
}

// temporaryWait returns the wait after a counted attempt: 30 s doubling to 15 min, less up to a fifth.
func temporaryWait(attempt int, jitter float64) time.Duration {
	wait := temporaryLongest
	if shift := attempt - 1; shift < 10 {
		wait = min(temporaryFirst<<shift, temporaryLongest)
	}
	return wait - time.Duration(jitter*temporaryJitter*float64(wait))
}

// queueFullWait returns the wait of a recipient whose queue was full n times in a row: 1, 2, 5, 15 min.
func queueFullWait(n int) time.Duration {
	return queueFullWaits[min(max(n, 1), len(queueFullWaits))-1]
}

// BindDecision is what a refused or failed bind means.
type BindDecision struct {
	Class Class         // RB or CF
	Wait  time.Duration // until the next bind of this operator
	Alarm bool
	// Alone forbids further binds of the operator until one succeeded: a second try would prolong the operator's
	// memory of the old session or bring the account nearer to being locked.
	Alone bool
}

// BindRetry decides about a bind that was answered with a status; failures is how many binds of this operator failed
// in a row, this one included, and jitter a random number in [0,1). An unanswered bind, a refused connection and a
// lost session are decided by Reconnect.
func BindRetry(s smpp.Status, failures int, jitter float64) BindDecision {
	switch s {
	case 0x05:
		return BindDecision{
			Class: Rebind, Alone: true,
			Wait: doubling(alreadyBoundWait, alreadyBoundLongest, failures),
		}
	case 0x0D:
		return BindDecision{
			Class: Configuration, Alarm: true, Alone: true,
			Wait: doubling(bindFailFirst, bindFailLongest, failures),
		}
	case 0x0E, 0x0F, 0x53:
		wait := credentialWait
		if failures%credentialTries == 0 {
			wait = credentialRest
		}
		return BindDecision{Class: Configuration, Alarm: true, Alone: true, Wait: wait}
	default:
		return BindDecision{Class: Rebind, Wait: Reconnect(failures, jitter)}
	}
}

// Reconnect returns the wait before the next bind after failures in a row without an answer that says more: from 1 s
// doubling to 40 s, and by jitter, a random number in [0,1), up to half of that longer, so that the sessions of an
// operator that was restarted do not all come at once.
func Reconnect(failures int, jitter float64) time.Duration {
	wait := doubling(reconnectFirst, reconnectLongest, failures)
	return wait + time.Duration(jitter*float64(wait)/2)
}

// doubling returns first for n = 1, twice that for 2 and so on, at most longest.
func doubling(first, longest time.Duration, n int) time.Duration {
	wait := first
	for i := 1; i < n && wait < longest; i++ {
		wait *= 2
	}
	return min(wait, longest)
}

// Verdict is what the answer to a query_sm or cancel_sm says about a message.
type Verdict uint8

// The verdicts.
const (
	AskAgain      Verdict = iota + 1 // nothing learned; ask later
	AwaitReceipt                     // the operator cannot tell; wait for the receipt
	NeverAccepted                    // the operator has never had the message: it may be sent again
	AlreadyLeft                      // cancelled too late: it is with the phone or was decided otherwise
	Settled                          // the answer holds a state, or the cancellation worked
)

// QueryVerdict reads the status of a query_sm_resp; unknownIDs is how many times in a row this message was answered
// with 0x0C, this answer included.
func QueryVerdict(s smpp.Status, unknownIDs int) Verdict {
	switch {
	case s == 0x00:
		return Settled
	case s == 0x0C && unknownIDs >= unknownIDQueries:
		return NeverAccepted
	case s == 0x67:
		return AwaitReceipt
	default:
		return AskAgain
	}
}

// CancelVerdict reads the status of a cancel_sm_resp or replace_sm_resp.
func CancelVerdict(s smpp.Status) Verdict {
	switch s {
	case 0x00:
		return Settled
	case 0x0C, 0x11, 0x13:
		return AlreadyLeft
	default:
		return AskAgain
	}
}
