package smpp

import "fmt"

// Version34 is the interface_version of SMPP 3.4 (section 5.2.4).
const Version34 = 0x34

// BindType says in which directions messages travel over a bind (SMPP 3.4,
// section 4.1).
type BindType uint8

// The three kinds of bind, named from the side of the ESME.
const (
	Transceiver BindType = iota // both directions
	Transmitter                 // ESME to SMSC
	Receiver                    // SMSC to ESME
)

// String is "transceiver", "transmitter" or "receiver".
func (t BindType) String() string {
	switch t {
	case Transceiver:
		return "transceiver"
	case Transmitter:
		return "transmitter"
	case Receiver:
		return "receiver"
	default:
		return fmt.Sprintf("BindType(%d)", uint8(t))
	}
}

// Command is the command that asks for a bind of the kind.
func (t BindType) Command() CommandID {
	switch t {
	case Transmitter:
		return CmdBindTransmitter
	case Receiver:
		return CmdBindReceiver
	default:
		return CmdBindTransceiver
	}
}

func bindTypeOf(command CommandID) BindType {
	switch command &^ responseBit {
	case CmdBindTransmitter:
		return Transmitter
	case CmdBindReceiver:
		return Receiver
	default:
		return Transceiver
	}
}

// Bind asks for a bind (SMPP 3.4, section 4.1).
type Bind struct {
	Type             BindType
	SystemID         string // at most 15 octets
	Password         string // at most 8 octets
	SystemType       string // at most 12 octets
	InterfaceVersion uint8
	AddressTON       uint8
	AddressNPI       uint8
	AddressRange     string // at most 40 octets
	Tail             []byte // octets behind the last field; not encoded
}

// CommandID is the command the PDU is sent as.
func (b *Bind) CommandID() CommandID { return b.Type.Command() }

func (b *Bind) appendBody(dst []byte) ([]byte, error) {
	e := encoder{b: dst}
	e.cstring("system_id", b.SystemID, maxSystemID)
	e.cstring("password", b.Password, maxPassword)
	e.cstring("system_type", b.SystemType, maxSystemType)
	e.octet(b.InterfaceVersion)
	e.octet(b.AddressTON)
	e.octet(b.AddressNPI)
	e.cstring("address_range", b.AddressRange, maxAddressRange)
	return e.b, e.err
}

func decodeBind(command CommandID, d *decoder) *Bind {
	b := &Bind{Type: bindTypeOf(command)}
	systemID := d.cstring("system_id", maxSystemID, StatusInvalidSystemID)
	password := d.cstring("password", maxPassword, StatusInvalidPassword)
	systemType := d.cstring("system_type", maxSystemType, StatusInvalidSystemType)
	b.InterfaceVersion = d.octet("interface_version")
	b.AddressTON = d.octet("addr_ton")
	b.AddressNPI = d.octet("addr_npi")
	addressRange := d.cstring("address_range", maxAddressRange, StatusBindFailed)
	if d.fail != nil {
		return nil
	}
	text := d.text()
	b.SystemID = systemID.of(text)
	b.Password = password.of(text)
	b.SystemType = systemType.of(text)
	b.AddressRange = addressRange.of(text)
	b.Tail = d.tail()
	return b
}

// BindResp answers a bind (SMPP 3.4, section 4.1).
type BindResp struct {
	Type     BindType
	SystemID string // of the SMSC, at most 15 octets

	// NoBody says that nothing follows the header, as is usual when the bind is
	// refused. SystemID and TLVs are then empty.
	NoBody bool
	TLVs   TLVs
	Tail   []byte // octets behind the last whole TLV; not encoded
}

// CommandID is the command the PDU is sent as.
func (b *BindResp) CommandID() CommandID { return b.Type.Command().Response() }

func (b *BindResp) appendBody(dst []byte) ([]byte, error) {
	if b.NoBody {
		return dst, nil
	}
	e := encoder{b: dst}
	e.cstring("system_id", b.SystemID, maxSystemID)
	e.tlvs(b.TLVs)
	return e.b, e.err
}

func decodeBindResp(command CommandID, d *decoder) *BindResp {
	b := &BindResp{Type: bindTypeOf(command)}
	if len(d.b) == 0 {
		b.NoBody = true
		return b
	}
	systemID := d.cstring("system_id", maxSystemID, StatusInvalidSystemID)
	if d.fail != nil {
		return nil
	}
	b.SystemID = systemID.of(d.text())
	b.TLVs, b.Tail = d.tlvs()
	return b
}

// Outbind is an SMSC's request that the ESME bind as a receiver (SMPP 3.4,
// section 4.1.7). It has no answer.
type Outbind struct {
	SystemID string // at most 15 octets
	Password string // at most 8 octets
	Tail     []byte // octets behind the last field; not encoded
}

// CommandID is the command the PDU is sent as.
func (o *Outbind) CommandID() CommandID { return CmdOutbind }

func (o *Outbind) appendBody(dst []byte) ([]byte, error) {
	e := encoder{b: dst}
	e.cstring("system_id", o.SystemID, maxSystemID)
	e.cstring("password", o.Password, maxPassword)
	return e.b, e.err
}

func decodeOutbind(d *decoder) *Outbind {
	systemID := d.cstring("system_id", maxSystemID, StatusInvalidSystemID)
	password := d.cstring("password", maxPassword, StatusInvalidPassword)
	if d.fail != nil {
		return nil
	}
	text := d.text()
	return &Outbind{SystemID: systemID.of(text), Password: password.of(text), Tail: d.tail()}
}
