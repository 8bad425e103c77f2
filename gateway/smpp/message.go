package smpp

// Address is a source or destination address with its type of number and
// numbering plan (SMPP 3.4, sections 5.2.5 and 5.2.6).
type Address struct {
	TON  uint8
	NPI  uint8
	Addr string // at most 20 octets, in alert_notification 64
}

// Values of esm_class (SMPP 3.4, section 5.2.12).
const (
	// ESMClassTypeMask selects the message type.
	ESMClassTypeMask = 0x3C
	// ESMClassReceipt is the message type of an SMSC delivery receipt.
	ESMClassReceipt = 0x04
	// ESMClassDeliveryAck is the message type of an SME delivery
	// acknowledgement.
	ESMClassDeliveryAck = 0x08
	// ESMClassUserAck is the message type of an SME manual acknowledgement.
	ESMClassUserAck = 0x10
	// ESMClassAbort is the message type of a conversation abort.
	ESMClassAbort = 0x18
	// ESMClassIntermediate is the message type of an intermediate notification.
	ESMClassIntermediate = 0x20
	// ESMClassUDHI says that the short message begins with a user data header.
	ESMClassUDHI = 0x40
)

// MessageState is the state of a message in query_sm_resp and in the TLV
// message_state (SMPP 3.4, section 5.2.28).
type MessageState uint8

// States of a message (SMPP 3.4, section 5.2.28). Scheduled and Skipped are
// SMPP 5.0.
const (
	StateScheduled     MessageState = 0
	StateEnroute       MessageState = 1
	StateDelivered     MessageState = 2
	StateExpired       MessageState = 3
	StateDeleted       MessageState = 4
	StateUndeliverable MessageState = 5
	StateAccepted      MessageState = 6
	StateUnknown       MessageState = 7
	StateRejected      MessageState = 8
	StateSkipped       MessageState = 9
)

// Message is a submit_sm, deliver_sm or data_sm (SMPP 3.4, sections 4.4.1,
// 4.6.1 and 4.7.1): one type, because USSD gateways use each of the three in
// both directions and an answer goes out as the mirror of what came in.
//
// data_sm has no protocol id, priority, times, replace flag, predefined message
// and short message; they are ignored when one is encoded.
type Message struct {
	Command CommandID // CmdSubmitSM, CmdDeliverSM or CmdDataSM

	ServiceType        string // at most 5 octets
	Source             Address
	Destination        Address
	ESMClass           uint8
	ProtocolID         uint8
	Priority           uint8
	ScheduleAt         string // SMPP time, see [FormatTime]; empty is at once
	ValidityPeriod     string // SMPP time; empty is the SMSC's default
	RegisteredDelivery uint8
	ReplaceIfPresent   uint8
	DataCoding         uint8
	DefaultMessageID   uint8
	ShortMessage       []byte // at most 254 octets
	TLVs               TLVs

	// Tail are octets behind the last whole TLV. They are kept for inspection
	// and not encoded.
	Tail []byte
}

// CommandID is the command the PDU is sent as.
func (m *Message) CommandID() CommandID { return m.Command }

// Octets is the text of the message as encoded by DataCoding: the short
// message or, if that is empty, the TLV message_payload. A user data header is
// still in front of it when ESMClassUDHI is set.
func (m *Message) Octets() []byte {
	if len(m.ShortMessage) > 0 {
		return m.ShortMessage
	}
	payload, _ := m.TLVs.Get(TagMessagePayload)
	return payload
}

// IsReceipt says whether esm_class declares the message an SMSC delivery
// receipt or an intermediate notification. A text that merely looks like a
// receipt is not one.
func (m *Message) IsReceipt() bool {
	kind := m.ESMClass & ESMClassTypeMask
	return kind == ESMClassReceipt || kind == ESMClassIntermediate
}

// USSDOp returns the value of the TLV ussd_service_op. A message that has it is
// USSD, whatever its service type says.
func (m *Message) USSDOp() (op uint8, ok bool) {
	value, ok := m.TLVs.Get(TagUSSDServiceOp)
	if !ok || len(value) != 1 {
		return 0, false
	}
	return value[0], true
}

func (m *Message) appendBody(dst []byte) ([]byte, error) {
	e := encoder{b: dst}
	e.cstring("service_type", m.ServiceType, maxServiceType)
	if m.Command == CmdDataSM {
		e.address("source_addr", m.Source, maxLongAddress)
		e.address("destination_addr", m.Destination, maxLongAddress)
		e.octet(m.ESMClass)
		e.octet(m.RegisteredDelivery)
		e.octet(m.DataCoding)
	} else {
		e.address("source_addr", m.Source, maxAddress)
		e.address("destination_addr", m.Destination, maxAddress)
		e.octet(m.ESMClass)
		e.octet(m.ProtocolID)
		e.octet(m.Priority)
		e.cstring("schedule_delivery_time", m.ScheduleAt, maxTime)
		e.cstring("validity_period", m.ValidityPeriod, maxTime)
		e.octet(m.RegisteredDelivery)
		e.octet(m.ReplaceIfPresent)
		e.octet(m.DataCoding)
		e.octet(m.DefaultMessageID)
		e.shortMessage(m.ShortMessage)
	}
	e.tlvs(m.TLVs)
	return e.b, e.err
}

func decodeMessage(command CommandID, d *decoder) *Message {
	m := &Message{Command: command}
	serviceType := d.cstring("service_type", maxServiceType, StatusInvalidServiceType)
	m.Source.TON = d.octet("source_addr_ton")
	m.Source.NPI = d.octet("source_addr_npi")
	source := d.cstring("source_addr", maxAddress, StatusInvalidSourceAddress)
	m.Destination.TON = d.octet("dest_addr_ton")
	m.Destination.NPI = d.octet("dest_addr_npi")
	destination := d.cstring("destination_addr", maxAddress, StatusInvalidDestinationAddress)
	m.ESMClass = d.octet("esm_class")
	m.ProtocolID = d.octet("protocol_id")
	m.Priority = d.octet("priority_flag")
	schedule := d.cstring("schedule_delivery_time", maxTime, StatusInvalidSchedule)
	validity := d.cstring("validity_period", maxTime, StatusInvalidExpiry)
	if d.fail != nil {
		return nil
	}
	text := d.text()
	m.ServiceType = serviceType.of(text)
	m.Source.Addr = source.of(text)
	m.Destination.Addr = destination.of(text)
	m.ScheduleAt = schedule.of(text)
	m.ValidityPeriod = validity.of(text)
	m.RegisteredDelivery = d.octet("registered_delivery")
	m.ReplaceIfPresent = d.octet("replace_if_present_flag")
	m.DataCoding = d.octet("data_coding")
	m.DefaultMessageID = d.octet("sm_default_msg_id")
	m.ShortMessage = d.shortMessage()
	m.TLVs, m.Tail = d.tlvs()
	return m
}

func decodeData(d *decoder) *Message {
	m := &Message{Command: CmdDataSM}
	serviceType := d.cstring("service_type", maxServiceType, StatusInvalidServiceType)
	m.Source.TON = d.octet("source_addr_ton")
	m.Source.NPI = d.octet("source_addr_npi")
	source := d.cstring("source_addr", maxLongAddress, StatusInvalidSourceAddress)
	m.Destination.TON = d.octet("dest_addr_ton")
	m.Destination.NPI = d.octet("dest_addr_npi")
	destination := d.cstring("destination_addr", maxLongAddress, StatusInvalidDestinationAddress)
	if d.fail != nil {
		return nil
	}
	text := d.text()
	m.ServiceType = serviceType.of(text)
	m.Source.Addr = source.of(text)
	m.Destination.Addr = destination.of(text)
	m.ESMClass = d.octet("esm_class")
	m.RegisteredDelivery = d.octet("registered_delivery")
	m.DataCoding = d.octet("data_coding")
	m.TLVs, m.Tail = d.tlvs()
	return m
}

// MessageResp is a submit_sm_resp, deliver_sm_resp or data_sm_resp (SMPP 3.4,
// sections 4.4.2, 4.6.2 and 4.7.2).
type MessageResp struct {
	Command   CommandID // CmdSubmitSMResp, CmdDeliverSMResp or CmdDataSMResp
	MessageID string    // unused in deliver_sm_resp

	// NoBody says that nothing follows the header, as is usual when the status
	// is an error. MessageID and TLVs are then empty.
	NoBody bool
	TLVs   TLVs
	Tail   []byte // octets behind the last whole TLV; not encoded
}

// CommandID is the command the PDU is sent as.
func (m *MessageResp) CommandID() CommandID { return m.Command }

func (m *MessageResp) appendBody(dst []byte) ([]byte, error) {
	if m.NoBody {
		return dst, nil
	}
	e := encoder{b: dst}
	e.cstring("message_id", m.MessageID, maxMessageID)
	e.tlvs(m.TLVs)
	return e.b, e.err
}

func decodeMessageResp(command CommandID, d *decoder) *MessageResp {
	m := &MessageResp{Command: command}
	if len(d.b) == 0 {
		m.NoBody = true
		return m
	}
	id := d.cstring("message_id", maxMessageID, StatusInvalidMessageID)
	if d.fail != nil {
		return nil
	}
	m.MessageID = id.of(d.text())
	m.TLVs, m.Tail = d.tlvs()
	return m
}

// AlertNotification says that a subscriber is reachable again (SMPP 3.4,
// section 4.12.1). It has no answer.
type AlertNotification struct {
	Source Address // the subscriber
	ESME   Address
	TLVs   TLVs
	Tail   []byte // octets behind the last whole TLV; not encoded
}

// CommandID is the command the PDU is sent as.
func (a *AlertNotification) CommandID() CommandID { return CmdAlertNotification }

func (a *AlertNotification) appendBody(dst []byte) ([]byte, error) {
	e := encoder{b: dst}
	e.address("source_addr", a.Source, maxLongAddress)
	e.address("esme_addr", a.ESME, maxLongAddress)
	e.tlvs(a.TLVs)
	return e.b, e.err
}

func decodeAlert(d *decoder) *AlertNotification {
	a := &AlertNotification{}
	a.Source.TON = d.octet("source_addr_ton")
	a.Source.NPI = d.octet("source_addr_npi")
	source := d.cstring("source_addr", maxLongAddress, StatusInvalidSourceAddress)
	a.ESME.TON = d.octet("esme_addr_ton")
	a.ESME.NPI = d.octet("esme_addr_npi")
	esme := d.cstring("esme_addr", maxLongAddress, StatusInvalidDestinationAddress)
	if d.fail != nil {
		return nil
	}
	text := d.text()
	a.Source.Addr = source.of(text)
	a.ESME.Addr = esme.of(text)
	a.TLVs, a.Tail = d.tlvs()
	return a
}
