package smpp

// Query asks for the state of a message (query_sm; SMPP 3.4, section 4.8.1).
type Query struct {
	MessageID string
	Source    Address // as in the submit_sm
	Tail      []byte  // octets behind the last field; not encoded
}

// CommandID is the command the PDU is sent as.
func (q *Query) CommandID() CommandID { return CmdQuerySM }

func (q *Query) appendBody(dst []byte) ([]byte, error) {
	e := encoder{b: dst}
	e.cstring("message_id", q.MessageID, maxMessageID)
	e.address("source_addr", q.Source, maxAddress)
	return e.b, e.err
}

func decodeQuery(d *decoder) *Query {
	q := &Query{}
	id := d.cstring("message_id", maxMessageID, StatusInvalidMessageID)
	q.Source.TON = d.octet("source_addr_ton")
	q.Source.NPI = d.octet("source_addr_npi")
	source := d.cstring("source_addr", maxAddress, StatusInvalidSourceAddress)
	if d.fail != nil {
		return nil
	}
	text := d.text()
	q.MessageID, q.Source.Addr = id.of(text), source.of(text)
	q.Tail = d.tail()
	return q
}

// QueryResp tells the state of a message (query_sm_resp; SMPP 3.4, section
// 4.8.2).
type QueryResp struct {
	MessageID string
	FinalDate string // SMPP time, empty while the state is not final
	State     MessageState
	ErrorCode uint8 // of the network, vendor specific

	// NoBody says that nothing follows the header, as is usual when the status
	// is an error. The other fields are then empty.
	NoBody bool
	Tail   []byte // octets behind the last field; not encoded
}

// CommandID is the command the PDU is sent as.
func (q *QueryResp) CommandID() CommandID { return CmdQuerySMResp }

func (q *QueryResp) appendBody(dst []byte) ([]byte, error) {
	if q.NoBody {
		return dst, nil
	}
	e := encoder{b: dst}
	e.cstring("message_id", q.MessageID, maxMessageID)
	e.cstring("final_date", q.FinalDate, maxTime)
	e.octet(uint8(q.State))
	e.octet(q.ErrorCode)
	return e.b, e.err
}

func decodeQueryResp(d *decoder) *QueryResp {
	q := &QueryResp{}
	if len(d.b) == 0 {
		q.NoBody = true
		return q
	}
	id := d.cstring("message_id", maxMessageID, StatusInvalidMessageID)
	date := d.cstring("final_date", maxTime, StatusUnknownError)
	q.State = MessageState(d.octet("message_state"))
	q.ErrorCode = d.octet("error_code")
	if d.fail != nil {
		return nil
	}
	text := d.text()
	q.MessageID, q.FinalDate = id.of(text), date.of(text)
	q.Tail = d.tail()
	return q
}

// Cancel withdraws a message that was not delivered yet (cancel_sm; SMPP 3.4,
// section 4.9.1).
type Cancel struct {
	ServiceType string // at most 5 octets
	MessageID   string // empty: all messages between the two addresses
	Source      Address
	Destination Address
	Tail        []byte // octets behind the last field; not encoded
}

// CommandID is the command the PDU is sent as.
func (c *Cancel) CommandID() CommandID { return CmdCancelSM }

func (c *Cancel) appendBody(dst []byte) ([]byte, error) {
	e := encoder{b: dst}
	e.cstring("service_type", c.ServiceType, maxServiceType)
	e.cstring("message_id", c.MessageID, maxMessageID)
	e.address("source_addr", c.Source, maxAddress)
	e.address("destination_addr", c.Destination, maxAddress)
	return e.b, e.err
}

func decodeCancel(d *decoder) *Cancel {
	c := &Cancel{}
	serviceType := d.cstring("service_type", maxServiceType, StatusInvalidServiceType)
	id := d.cstring("message_id", maxMessageID, StatusInvalidMessageID)
	c.Source.TON = d.octet("source_addr_ton")
	c.Source.NPI = d.octet("source_addr_npi")
	source := d.cstring("source_addr", maxAddress, StatusInvalidSourceAddress)
	c.Destination.TON = d.octet("dest_addr_ton")
	c.Destination.NPI = d.octet("dest_addr_npi")
	destination := d.cstring("destination_addr", maxAddress, StatusInvalidDestinationAddress)
	if d.fail != nil {
		return nil
	}
	text := d.text()
	c.ServiceType, c.MessageID = serviceType.of(text), id.of(text)
	c.Source.Addr, c.Destination.Addr = source.of(text), destination.of(text)
	c.Tail = d.tail()
	return c
}

// Replace changes a message that was not delivered yet (replace_sm; SMPP 3.4,
// section 4.10.1).
type Replace struct {
	MessageID          string
	Source             Address
	ScheduleAt         string // SMPP time
	ValidityPeriod     string // SMPP time
	RegisteredDelivery uint8
	DefaultMessageID   uint8
	ShortMessage       []byte // at most 254 octets
	Tail               []byte // octets behind the last field; not encoded
}

// CommandID is the command the PDU is sent as.
func (r *Replace) CommandID() CommandID { return CmdReplaceSM }

func (r *Replace) appendBody(dst []byte) ([]byte, error) {
	e := encoder{b: dst}
	e.cstring("message_id", r.MessageID, maxMessageID)
	e.address("source_addr", r.Source, maxAddress)
	e.cstring("schedule_delivery_time", r.ScheduleAt, maxTime)
	e.cstring("validity_period", r.ValidityPeriod, maxTime)
	e.octet(r.RegisteredDelivery)
	e.octet(r.DefaultMessageID)
	e.shortMessage(r.ShortMessage)
	return e.b, e.err
}

func decodeReplace(d *decoder) *Replace {
	r := &Replace{}
	id := d.cstring("message_id", maxMessageID, StatusInvalidMessageID)
	r.Source.TON = d.octet("source_addr_ton")
	r.Source.NPI = d.octet("source_addr_npi")
	source := d.cstring("source_addr", maxAddress, StatusInvalidSourceAddress)
	schedule := d.cstring("schedule_delivery_time", maxTime, StatusInvalidSchedule)
	validity := d.cstring("validity_period", maxTime, StatusInvalidExpiry)
	if d.fail != nil {
		return nil
	}
	text := d.text()
	r.MessageID, r.Source.Addr = id.of(text), source.of(text)
	r.ScheduleAt, r.ValidityPeriod = schedule.of(text), validity.of(text)
	r.RegisteredDelivery = d.octet("registered_delivery")
	r.DefaultMessageID = d.octet("sm_default_msg_id")
	r.ShortMessage = d.shortMessage()
	r.Tail = d.tail()
	return r
}
