package carrier

import (
	"errors"
	"time"

	"zvonok/access/phone"
	"zvonok/gateway/smpp"
)

// Link names one session with an operator for as long as this process lives. A session that is lost and bound again
// gets a new Link. The zero Link means "any session of the operator".
type Link uint64

// Mirror returns the command that answers a USSD PDU in the opposite direction (ussd.md 1.1): submit_sm for deliver_sm
// and the other way round, data_sm for data_sm.
func Mirror(c smpp.CommandID) smpp.CommandID {
	switch c {
	case smpp.CmdDeliverSM:
		return smpp.CmdSubmitSM
	case smpp.CmdSubmitSM:
		return smpp.CmdDeliverSM
	default:
		return c
	}
}

// Dial is one USSD event that an operator with the role "ussd" sent us: a begin, what the person typed, a
// confirmation, or an abort. It was acknowledged to the operator before the callback sees it. Everything of the PDU
// that a vendor's profile may look at is here as it came, so that ussd needs no PDU.
//
// Nothing of a Dial but Operator, Link, Command, Op and sizes may be logged.
type Dial struct {
	Operator string         // the name in the settings; the account, not the bind
	Link     Link           // the session it came by; the answer goes back there while it lives
	Command  smpp.CommandID // CmdDeliverSM, CmdSubmitSM or CmdDataSM; the answer uses its Mirror

	Source      smpp.Address // who dialled, exactly as received
	Destination smpp.Address // the code, an alias, a GT, or nothing, exactly as received
	Phone       phone.Number // Source in canonical form (ussd.md section 3); empty when Source is no subscriber number

	ServiceType string
	ESMClass    byte
	DataCoding  byte
	Op          byte      // value of ussd_service_op 0x0501; meaningless without HasOp
	HasOp       bool      // false for aborts that come without the TLV (esm_class 0x08, 0x18, a session TLV alone)
	TLVs        smpp.TLVs // every optional parameter in the order received, also 0x0501 and 0x0424

	Octets []byte // the text as it came, from short_message or, when that is empty, from message_payload 0x0424
	Text   string // Octets read by DataCoding, with the repairs of ussd.md section 5; never nil-checked, may be empty

	ReceivedAt time.Time
}

// Reply returns an empty answer to d: same operator and link, the mirrored command, the addresses swapped byte for
// byte, the service type echoed, the text in message_payload only if d came by data_sm. The caller adds Op, TLVs,
// DataCoding, Octets, Wait and Done, and may override anything its profile demands.
func (d Dial) Reply() Reply {
	return Reply{
		Operator:    d.Operator,
		Link:        d.Link,
		Command:     Mirror(d.Command),
		Source:      d.Destination,
		Destination: d.Source,
		ServiceType: d.ServiceType,
		Payload:     d.Command == smpp.CmdDataSM,
	}
}

// Reply is one USSD PDU to an operator: a menu, a last screen, a notification or an abort. It is sent outside the
// window and the rate of SMS, once, with registered_delivery 0 and never again: a refused USSD PDU means that the
// dialogue is over.
type Reply struct {
	Operator string
	Link     Link           // preferred session; when it is gone, any session of the operator
	Command  smpp.CommandID // CmdDeliverSM, CmdSubmitSM or CmdDataSM

	Source      smpp.Address // the service's side
	Destination smpp.Address // the phone's side

	ServiceType string
	ESMClass    byte
	DataCoding  byte
	Op          byte      // ussd_service_op 0x0501, written as the first TLV
	NoOp        bool      // leaves 0x0501 out
	TLVs        smpp.TLVs // the further parameters in this order; 0x0501 and 0x0424 are added by the carrier
	Octets      []byte    // the text, already in the octets of DataCoding; at most 254 outside message_payload
	Payload     bool      // puts Octets into message_payload 0x0424; data_sm always does

	// Wait is how long the operator's answer is waited for. Some gateways answer a screen that waits for input only
	// when the person has typed, so this is the life of the dialogue, not of a round trip. Zero means DefaultReplyWait.
	Wait time.Duration

	// Done, when set, is called exactly once if Answer returned nil, and never otherwise. The calls for one operator
	// come one after another from one goroutine, which may be before Answer has returned; Done may call Answer.
	Done func(Answered)
}

// Answered is what became of a Reply.
type Answered struct {
	// Err is nil when the operator answered, ErrNoAnswer when Wait passed, ErrLinkLost when the session ended with the
	// answer outstanding. In both error cases the phone may or may not have shown the screen.
	Err       error
	Status    smpp.Status // the operator's answer; 0 is accepted, anything else ends the dialogue
	MessageID string
	TLVs      smpp.TLVs // optional parameters of the answer, e.g. ussd_session_id 0x1501
	At        time.Time
}

// DefaultReplyWait is the life of a USSD dialogue in which neither side says anything (ussd.md section 3, Time).
const DefaultReplyWait = 180 * time.Second

// Errors of Answer and of Answered.
var (
	// ErrUnknownOperator means that no operator of that name is configured.
	ErrUnknownOperator = errors.New("unknown operator")
	// ErrNoRole means that the operator's settings do not give it the role the call needs.
	ErrNoRole = errors.New("operator lacks the role")
	// ErrNotBound means that the operator has no session at the moment; nothing was written.
	ErrNotBound = errors.New("operator is not bound")
	// ErrNoAnswer means that the PDU was written and no answer came in time.
	ErrNoAnswer = errors.New("no answer from the operator")
	// ErrLinkLost means that the session ended after the PDU was written and before its answer came.
	ErrLinkLost = errors.New("link lost before the answer")
)
