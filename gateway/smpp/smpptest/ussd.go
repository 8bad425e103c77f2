package smpptest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"zvonok/gateway/smpp"
)

// Operations of USSD, the values of the TLV ussd_service_op (SMPP 3.4, section
// 5.3.2.44), and of vendors.
const (
	OpPSSRIndication = 1   // a phone dials
	OpUSSRRequest    = 2   // show a text and wait for input
	OpUSSNRequest    = 3   // show a text
	OpPSSRResponse   = 17  // the last text
	OpUSSRConfirm    = 18  // what was typed
	OpUSSNConfirm    = 19  // the text was shown
	OpUserAbort      = 129 // SMPP+: the dialogue broke off
)

// statusNoDialog is what Eyeline answers when no dialogue is open.
const statusNoDialog smpp.Status = 0x407

// CodePlace says where the dialled string stands in the PDU that begins a
// dialogue.
type CodePlace uint8

const (
	// CodeInText puts the whole string into the text, *377*888*2#.
	CodeInText CodePlace = iota
	// CodeStripped puts the first number into the destination and the rest,
	// without its #, into the text: 377 and 888*2.
	CodeStripped
	// CodeInDestination puts the whole string into the destination and leaves
	// the text empty.
	CodeInDestination
)

// USSDProfile is the way an operator's USSD gateway speaks SMPP.
type USSDProfile struct {
	Name        string
	ServiceType string

	// SessionTag is the TLV that names the dialogue, zero for none. EndBit says
	// that the lowest bit of its last octet means the end. CountUnits makes the
	// dialogue-unit number of its_session_info grow with each of our PDUs.
	// NoNumber sends its_session_info with zeros, as a gateway does that has none.
	SessionTag smpp.Tag
	EndBit     bool
	CountUnits bool
	NoNumber   bool

	Code        CodePlace
	Destination smpp.Address // of the begin; its number is set from the code unless given

	// DataSM uses data_sm with message_payload for everything.
	DataSM bool

	// Continue and End are the operations that keep a dialogue open and close
	// it. With EndBit an operation of Continue may close it as well.
	Continue []uint8
	End      []uint8

	// LateAnswer answers a request for input only when the phone has.
	LateAnswer bool

	// OpLast puts the operation behind the other TLVs in our PDUs; FirstOnly
	// looks for theirs in the first place only, and takes the message for a
	// notification otherwise.
	OpLast    bool
	FirstOnly bool

	// DataCoding is that of what is typed; 8 and 0x48 make it UCS-2.
	DataCoding uint8

	// Extra are further parameters of every PDU of the phone, such as its IMSI.
	Extra smpp.TLVs

	// Abort is the operation sent when the user breaks off; zero sends an empty
	// OpUSSRConfirm with the end bit, or nothing at all without EndBit.
	Abort uint8
}

// USSDProfiles lists the gateways seen in the field.
func USSDProfiles() []USSDProfile {
	return []USSDProfile{
		{
			Name: "plain-its", ServiceType: "USSD", SessionTag: smpp.TagITSSessionInfo, EndBit: true,
			Destination: smpp.Address{NPI: 1}, Continue: []uint8{2}, End: []uint8{17}, DataCoding: 0x0F,
		},
		{
			Name: "tata", ServiceType: "USSD", SessionTag: smpp.TagITSSessionInfo, EndBit: true,
			Code: CodeInDestination, Continue: []uint8{2}, End: []uint8{17},
		},
		{
			Name: "sixdee", ServiceType: "USSD", SessionTag: smpp.TagITSSessionInfo, EndBit: true,
			Continue: []uint8{2}, End: []uint8{17, 23}, Abort: OpUserAbort,
		},
		{
			Name: "mica", ServiceType: "USSD", SessionTag: smpp.TagUserMessageReference,
			Continue: []uint8{2}, End: []uint8{17}, Abort: OpUserAbort,
		},
		{
			Name: "smpp+", ServiceType: "USSD", SessionTag: smpp.TagUSSDSessionID,
			Continue: []uint8{2, 130}, End: []uint8{17, 131}, Abort: OpUserAbort,
		},
		{
			Name: "eyeline", SessionTag: smpp.TagUserMessageReference, Code: CodeStripped,
			Destination: smpp.Address{TON: 5, Addr: "ussd:377"}, Continue: []uint8{2, 3}, End: []uint8{17},
			LateAnswer: true,
		},
		{
			Name: "c-gateway", ServiceType: "P2", Destination: smpp.Address{TON: 1, NPI: 1, Addr: "79000009999"},
			Continue: []uint8{2}, End: []uint8{17}, LateAnswer: true, FirstOnly: true, DataCoding: 15,
		},
		{
			Name: "ussn-end", ServiceType: "USSD", SessionTag: smpp.TagUserMessageReference,
			Continue: []uint8{2}, End: []uint8{3}, Abort: 33,
		},
		{
			Name: "huawei", ServiceType: "USSD", Continue: []uint8{2}, End: []uint8{17},
		},
		{
			Name: "units", ServiceType: "USSD", SessionTag: smpp.TagITSSessionInfo, EndBit: true, CountUnits: true,
			Destination: smpp.Address{NPI: 1}, Continue: []uint8{2}, End: []uint8{17}, OpLast: true, DataCoding: 0x48,
		},
		{
			Name: "glo", ServiceType: "USSD", SessionTag: smpp.TagITSSessionInfo, EndBit: true, DataSM: true,
			Continue: []uint8{2}, End: []uint8{17}, Abort: 66,
		},
	}
}

// USSDProfileNamed finds a profile of [USSDProfiles].
func USSDProfileNamed(name string) (USSDProfile, error) {
	for _, p := range USSDProfiles() {
		if p.Name == name {
			return p, nil
		}
	}
	return USSDProfile{}, fmt.Errorf("no USSD profile %q", name)
}

// Screen is what a phone shows.
type Screen struct {
	Text       string
	End        bool // the dialogue is over
	Op         uint8
	DataCoding uint8
	Message    *smpp.Message
}

// Call is a USSD dialogue of one phone. Its methods are for one goroutine.
type Call struct {
	operator *Operator
	profile  USSDProfile
	phone    string
	dest     smpp.Address
	number   uint32 // of the dialogue
	screens  chan Screen
	gone     chan struct{}
	hangOnce sync.Once

	mu      sync.Mutex
	session *smpp.Session
	unit    uint8
	waiting *smpp.Inbound // a request for input not answered yet
}

const callScreens = 16 // that nobody has looked at, before the operator refuses more

// ErrCallOver means that the dialogue is over, or was replaced by another one of
// the same phone.
var ErrCallOver = errors.New("USSD dialogue is over")

// Dial lets a phone dial a code such as *377*888#. It returns when the other
// side has acknowledged the begin; the first screen is got with [Call.Screen].
// A phone has one dialogue: a new one takes the place of the old.
func (o *Operator) Dial(ctx context.Context, profile USSDProfile, phone, code string) (*Call, error) {
	s, err := o.anyBind()
	if err != nil {
		return nil, err
	}
	call := &Call{
		operator: o,
		profile:  profile,
		phone:    phone,
		screens:  make(chan Screen, callScreens),
		gone:     make(chan struct{}),
		session:  s,
	}
	text := code
	call.dest = profile.Destination
	tokens := strings.FieldsFunc(code, func(r rune) bool { return r == '*' || r == '#' })
	switch profile.Code {
	case CodeStripped:
		text = ""
		if len(tokens) > 1 {
			text = strings.Join(tokens[1:], "*")
		}
	case CodeInDestination:
		call.dest.Addr, text = code, ""
	}
	if call.dest.Addr == "" && len(tokens) > 0 {
		call.dest.Addr = tokens[0]
	}
	o.mu.Lock()
	o.dialled++
	call.number = uint32(o.dialled)
	if old := o.calls[phone]; old != nil {
		old.hangUp()
	}
	o.calls[phone] = call
	o.mu.Unlock()

	status, err := call.send(ctx, OpPSSRIndication, text, false)
	if err == nil && status != smpp.StatusOK {
		err = fmt.Errorf("USSD begin refused: %s", status)
	}
	if err != nil {
		call.over()
		return nil, err
	}
	return call, nil
}

// Screen waits for the next screen.
func (c *Call) Screen(ctx context.Context) (Screen, error) {
	select {
	case screen := <-c.screens:
		return screen, nil
	default:
	}
	select {
	case screen := <-c.screens:
		return screen, nil
	case <-c.gone:
		return Screen{}, ErrCallOver
	case <-ctx.Done():
		return Screen{}, fmt.Errorf("wait for a screen: %w", ctx.Err())
	}
}

// Press sends what the user types and waits until it is acknowledged.
func (c *Call) Press(ctx context.Context, keys string) error {
	c.settle(smpp.StatusOK)
	status, err := c.send(ctx, OpUSSRConfirm, keys, false)
	if err == nil && status != smpp.StatusOK {
		err = fmt.Errorf("USSD input refused: %s", status)
	}
	return err
}

// Ask sends what the user types and returns the next screen.
func (c *Call) Ask(ctx context.Context, keys string) (Screen, error) {
	if err := c.Press(ctx, keys); err != nil {
		return Screen{}, err
	}
	return c.Screen(ctx)
}

// Abort breaks the dialogue off, as a user does who closes the window.
func (c *Call) Abort(ctx context.Context) error {
	defer c.over()
	if c.settle(statusUserAbort) {
		return nil
	}
	switch {
	case c.profile.Abort != 0:
		_, err := c.send(ctx, c.profile.Abort, "", true)
		return err
	case c.profile.EndBit:
		_, err := c.send(ctx, OpUSSRConfirm, "", true)
		return err
	default:
		return nil
	}
}

// statusUserAbort is what Eyeline answers to a request for input when the user
// cancels it.
const statusUserAbort smpp.Status = 0x455

// settle answers the request for input that waits for the user, if one does.
func (c *Call) settle(status smpp.Status) bool {
	c.mu.Lock()
	in := c.waiting
	c.waiting = nil
	c.mu.Unlock()
	if in == nil {
		return false
	}
	c.operator.reply(in, status, c.id())
	return true
}

func (c *Call) id() string { return fmt.Sprintf("U%d", c.number) }

func (c *Call) hangUp() { c.hangOnce.Do(func() { close(c.gone) }) }

// over ends the call at the operator.
func (c *Call) over() {
	c.hangUp()
	c.operator.mu.Lock()
	defer c.operator.mu.Unlock()
	if c.operator.calls[c.phone] == c {
		delete(c.operator.calls, c.phone)
	}
}

// send sends a PDU of the dialogue.
func (c *Call) send(ctx context.Context, op uint8, text string, end bool) (smpp.Status, error) {
	c.mu.Lock()
	s := c.session
	m := c.message(op, text, end)
	c.mu.Unlock()
	if !takes(s) {
		var err error
		if s, err = c.operator.anyBind(); err != nil {
			return 0, err
		}
	}
	out, err := s.Do(ctx, smpp.Request{PDU: m, OutsideWindow: true})
	if err != nil {
		return 0, err
	}
	return out.Status, out.Err
}

func (c *Call) message(op uint8, text string, end bool) *smpp.Message {
	p := c.profile
	m := &smpp.Message{
		Command:     c.operator.deliverCommand(),
		ServiceType: p.ServiceType,
		Source:      smpp.Address{TON: 1, NPI: 1, Addr: c.phone},
		Destination: c.dest,
	}
	octets := []byte(text)
	if op == OpUSSRConfirm {
		m.DataCoding = p.DataCoding
		if p.DataCoding == 8 || p.DataCoding == 0x48 {
			octets = ucs2(text)
		}
	}
	var session smpp.TLVs
	switch p.SessionTag {
	case 0:
	case smpp.TagUSSDSessionID:
		session = smpp.TLVs{smpp.Uint32(p.SessionTag, c.number)}
	case smpp.TagITSSessionInfo:
		unit := c.unit &^ 1
		if end {
			unit |= 1
		}
		session = smpp.TLVs{{Tag: p.SessionTag, Value: []byte{c.its(), unit}}}
	default:
		session = smpp.TLVs{smpp.Uint16(p.SessionTag, uint16(c.number))}
	}
	m.TLVs = smpp.USSD(op, session...)
	if p.OpLast {
		slices.Reverse(m.TLVs)
	}
	m.TLVs = append(m.TLVs, p.Extra...)
	if p.DataSM {
		m.Command = smpp.CmdDataSM
		m.TLVs = append(m.TLVs, smpp.TLV{Tag: smpp.TagMessagePayload, Value: octets})
	} else {
		m.ShortMessage = octets
	}
	return m
}

// handleUSSD takes a PDU of the other side that belongs to a dialogue.
func (o *Operator) handleUSSD(in *smpp.Inbound, m *smpp.Message) {
	o.mu.Lock()
	call := o.calls[m.Destination.Addr]
	o.mu.Unlock()
	if call == nil || !call.owns(m) {
		o.reply(in, statusNoDialog, "")
		return
	}
	screen := call.read(m)
	if !slices.Contains(call.profile.Continue, screen.Op) && !screen.End {
		o.reply(in, smpp.StatusInvalidTLVValue, "")
		return
	}
	late := call.profile.LateAnswer && screen.Op == OpUSSRRequest && !screen.End
	call.mu.Lock()
	call.session = in.Session()
	if call.profile.CountUnits {
		call.unit = sessionUnit(m)
	}
	if late {
		call.waiting = in
	}
	call.mu.Unlock()
	select {
	case call.screens <- screen:
	default:
		o.reply(in, smpp.StatusQueueFull, "")
		return
	}
	if !late {
		o.reply(in, smpp.StatusOK, call.id())
	}
	if screen.End {
		call.over()
	}
}

// owns says whether a PDU names this dialogue, as far as the profile names
// dialogues at all.
func (c *Call) owns(m *smpp.Message) bool {
	value, ok := m.TLVs.Get(c.profile.SessionTag)
	switch {
	case c.profile.SessionTag == 0:
		return true
	case !ok || len(value) == 0:
		return false
	case c.profile.SessionTag == smpp.TagITSSessionInfo:
		return value[0] == c.its()
	default:
		number, ok := m.TLVs.Uint(c.profile.SessionTag)
		return ok && (number == c.number || len(value) == 2 && number == c.number&0xFFFF)
	}
}

// its is the number of the dialogue in its_session_info.
func (c *Call) its() uint8 {
	if c.profile.NoNumber {
		return 0
	}
	return uint8(c.number)
}

func sessionUnit(m *smpp.Message) uint8 {
	value, _ := m.TLVs.Get(smpp.TagITSSessionInfo)
	if len(value) != 2 {
		return 0
	}
	return value[1]
}

func (c *Call) read(m *smpp.Message) Screen {
	op, _ := m.USSDOp()
	if c.profile.FirstOnly && m.TLVs[0].Tag != smpp.TagUSSDServiceOp {
		op = OpUSSNRequest
	}
	screen := Screen{
		Text:       decodeText(m.DataCoding, m.Octets()),
		Op:         op,
		DataCoding: m.DataCoding,
		Message:    m,
		End:        slices.Contains(c.profile.End, op),
	}
	if c.profile.EndBit && sessionUnit(m)&1 == 1 {
		screen.End = true
	}
	return screen
}
