package smpptest

import (
	"fmt"
	"strings"
	"time"

	"zvonok/gateway/smpp"
)

// ReceiptForm is the shape in which an operator writes its receipts.
type ReceiptForm uint8

// Shapes of receipts seen with operators.
const (
	ReceiptStandard ReceiptForm = iota // SMPP 3.4, appendix B: id:… stat:DELIVRD err:000 Text:…
	ReceiptSeconds                     // the same with 12-digit dates
	ReceiptLongYear                    // dates as YYYYMMDDhhmmss
	ReceiptBoth                        // standard text and the TLVs 0x001E, 0x0427, 0x0423
	ReceiptTLVOnly                     // empty text, TLVs alone
	ReceiptNoID                        // a text without id, the id in TLV 0x001E
	ReceiptSpelled                     // states in full: DELIVERED, UNDELIVERABLE
	ReceiptLower                       // keys and state in small letters, no err
	ReceiptJoined                      // submitdate:… donedate:… without spaces inside the keys
	ReceiptHexError                    // err in hexadecimal, err:0x000B
	receiptForms
)

// String names the shape.
func (f ReceiptForm) String() string {
	switch f {
	case ReceiptStandard:
		return "standard"
	case ReceiptSeconds:
		return "seconds"
	case ReceiptLongYear:
		return "long-year"
	case ReceiptBoth:
		return "both"
	case ReceiptTLVOnly:
		return "tlv-only"
	case ReceiptNoID:
		return "no-id"
	case ReceiptSpelled:
		return "spelled"
	case ReceiptLower:
		return "lower"
	case ReceiptJoined:
		return "joined"
	case ReceiptHexError:
		return "hex-error"
	default:
		return fmt.Sprintf("ReceiptForm(%d)", uint8(f))
	}
}

// ReceiptForms lists all shapes.
func ReceiptForms() []ReceiptForm {
	all := make([]ReceiptForm, receiptForms)
	for i := range all {
		all[i] = ReceiptForm(i)
	}
	return all
}

// receipt is a receipt still to be sent.
type receipt struct {
	due      time.Time
	order    uint64 // among receipts due at the same time
	systemID string
	bind     *smpp.Session // the bind the message came over

	id       string
	message  addresses
	state    smpp.MessageState
	err      int
	submitAt time.Time
}

type addresses struct{ from, to smpp.Address }

// deliver makes the PDU of a receipt.
func (r *receipt) deliver(form ReceiptForm, command smpp.CommandID, doneAt time.Time) *smpp.Message {
	m := &smpp.Message{
		Command:     command,
		Source:      r.message.to,
		Destination: r.message.from,
		ESMClass:    smpp.ESMClassReceipt,
	}
	if form != ReceiptTLVOnly {
		m.ShortMessage = []byte(r.text(form, doneAt))
	}
	switch form {
	case ReceiptBoth, ReceiptTLVOnly, ReceiptNoID:
		m.TLVs = smpp.TLVs{
			smpp.Text(smpp.TagReceiptedMessageID, r.id),
			smpp.Uint8(smpp.TagMessageState, uint8(r.state)),
		}
		if r.err != 0 {
			// Network 3 is GSM (SMPP 3.4, section 5.3.2.31).
			m.TLVs = append(m.TLVs, smpp.TLV{
				Tag:   smpp.TagNetworkErrorCode,
				Value: []byte{3, byte(r.err >> 8), byte(r.err)},
			})
		}
	}
	return m
}

func (r *receipt) text(form ReceiptForm, doneAt time.Time) string {
	layout := "0601021504"
	switch form {
	case ReceiptSeconds:
		layout = "060102150405"
	case ReceiptLongYear:
		layout = "20060102150405"
	}
	delivered := 0
	if r.state == smpp.StateDelivered {
		delivered = 1
	}
	submit, done := r.submitAt.Format(layout), doneAt.Format(layout)
	state := stateName(r.state)
	switch form {
	case ReceiptNoID:
		return fmt.Sprintf("sub:001 dlvrd:%03d submit date:%s done date:%s stat:%s err:%03d",
			delivered, submit, done, state, r.err)
	case ReceiptSpelled:
		return fmt.Sprintf("id:%s sub:1 dlvrd:%d submit date:%s done date:%s stat:%s err:%d text:",
			r.id, delivered, submit, done, stateInFull(r.state), r.err)
	case ReceiptLower:
		return strings.ToLower(fmt.Sprintf("id:%s sub:001 dlvrd:%03d submit date:%s done date:%s stat:%s",
			r.id, delivered, submit, done, state))
	case ReceiptJoined:
		return fmt.Sprintf("Id:%s Sub:001 Dlvrd:%03d SubmitDate:%s DoneDate:%s Stat:%s Err:%03d Text:",
			r.id, delivered, submit, done, state, r.err)
	case ReceiptHexError:
		return fmt.Sprintf("id:%s sub:001 dlvrd:%03d submit date:%s done date:%s stat:%s err:0x%04X Text:",
			r.id, delivered, submit, done, state, r.err)
	default:
		return fmt.Sprintf("id:%s sub:001 dlvrd:%03d submit date:%s done date:%s stat:%s err:%03d Text:",
			r.id, delivered, submit, done, state, r.err)
	}
}

// stateName is the state as it stands in a receipt (SMPP 3.4, appendix B).
func stateName(s smpp.MessageState) string {
	switch s {
	case smpp.StateScheduled:
		return "SCHEDULED"
	case smpp.StateEnroute:
		return "ENROUTE"
	case smpp.StateDelivered:
		return "DELIVRD"
	case smpp.StateExpired:
		return "EXPIRED"
	case smpp.StateDeleted:
		return "DELETED"
	case smpp.StateUndeliverable:
		return "UNDELIV"
	case smpp.StateAccepted:
		return "ACCEPTD"
	case smpp.StateRejected:
		return "REJECTD"
	case smpp.StateSkipped:
		return "SKIPPED"
	default:
		return "UNKNOWN"
	}
}

func stateInFull(s smpp.MessageState) string {
	switch s {
	case smpp.StateDelivered:
		return "DELIVERED"
	case smpp.StateUndeliverable:
		return "UNDELIVERABLE"
	case smpp.StateAccepted:
		return "ACCEPTED"
	case smpp.StateRejected:
		return "REJECTED"
	default:
		return stateName(s)
	}
}
