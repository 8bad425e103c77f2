package carrier

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"zvonok/access/phone"
	"zvonok/gateway/smpp"
)

// Limits of a certification.
const (
	certifyReceipts = 2 * time.Minute  // for receipts after the last message
	certifyDial     = 90 * time.Second // for somebody to dial
	certifyAnswer   = 30 * time.Second // for the answer to a submit
	certifyBurst    = 8                // messages at once, which an operator that counts by the second may throttle
	certifyUnbind   = 10 * time.Second
)

// Finding is the verdict of one step.
type Finding string

// The findings.
const (
	Passed  Finding = "passed"
	Warning Finding = "warning" // works, and somebody should know
	Failed  Finding = "failed"
	Skipped Finding = "skipped"
)

// Step is one thing that was tried.
type Step struct {
	Name    string        `json:"name"`
	Finding Finding       `json:"finding"`
	Detail  string        `json:"detail"`
	Took    time.Duration `json:"took_ns"`
}

// Report is the protocol of a certification, to be read by an operator's engineer. It holds ids and codes, no texts but
// those of the test, and the test phone masked.
type Report struct {
	Operator string    `json:"operator"`
	Address  string    `json:"address"`
	SystemID string    `json:"system_id"`
	To       string    `json:"to"`
	At       time.Time `json:"at"`
	Steps    []Step    `json:"steps"`

	// What was learned, in the words of the settings; empty when it was not.
	MessageID     IDMode   `json:"message_id,omitempty"`
	Concatenation []Method `json:"concatenation,omitempty"` // the methods that were accepted
	// ClockOffset is how far the operator's clock in receipts is ahead of ours.
	ClockOffset time.Duration `json:"clock_offset_ns,omitempty"`
}

// Passed reports whether no step failed.
func (r Report) Passed() bool {
	return !slices.ContainsFunc(r.Steps, func(s Step) bool { return s.Finding == Failed })
}

// Text writes the report for people.
func (r Report) Text() string {
	var b strings.Builder
	verdict := "PASSED"
	if !r.Passed() {
		verdict = "FAILED"
	}
	fmt.Fprintf(&b, "SMPP certification of operator %s (%s as %s) at %s: %s\n\n",
		r.Operator, r.Address, r.SystemID, r.At.UTC().Format(time.RFC3339), verdict)
	width := 0
	for _, s := range r.Steps {
		width = max(width, len(s.Name))
	}
	for _, s := range r.Steps {
		fmt.Fprintf(&b, "%-7s  %-*s  %8s  %s\n", s.Finding, width, s.Name, rounded(s.Took), s.Detail)
	}
	if r.MessageID != "" || len(r.Concatenation) > 0 {
		b.WriteString("\nSettings that fit:\n")
	}
	if r.MessageID != "" {
		fmt.Fprintf(&b, "  message_id = %q\n", r.MessageID)
	}
	if r.ClockOffset > 0 {
		fmt.Fprintf(&b, "  the operator's clock in receipts is %s ahead of ours\n", r.ClockOffset)
	}
	if len(r.Concatenation) > 0 {
		fmt.Fprintf(&b, "  concatenation = %q, if the phone %s showed that text as one; accepted:", r.Concatenation[0], r.To)
		for _, m := range r.Concatenation {
			fmt.Fprintf(&b, " %s", m)
		}
		b.WriteByte('\n')
	}
	return b.String()
}

// Certification tries out everything the gateway needs of one operator, over a session of its own: bind, a message in
// each alphabet, a long text by each method, their receipts, a burst, a USSD dialogue, unbind. It sends about twenty
// messages to one phone. The zero waits mean two minutes for receipts and 90 s for a dial.
type Certification struct {
	Operator    OperatorConfig // in client mode
	To          phone.Number   // a phone that somebody holds
	ReceiptWait time.Duration
	DialWait    time.Duration    // negative: nobody will dial
	Progress    func(Step)       // hears each step when it is done; may be nil
	Announce    func(string)     // hears what the person at the phone is to do; may be nil
	Now         func() time.Time // time.Now when nil
}

// certifier is a Certification at work.
type certifier struct {
	Certification
	report  Report
	coder   encoder
	reader  receiptReader
	session *smpp.Session
	nextID  int64

	mu       sync.Mutex
	sent     map[string]string // key of a part to the step it belongs to
	ids      map[string]string // key to the id as it came
	receipts []timedReceipt
	dials    chan certifyCall
	came     chan struct{} // holds a token after a receipt
}

type timedReceipt struct {
	receipt Receipt
	message *smpp.Message
}

type certifyCall struct {
	in      *smpp.Inbound
	message *smpp.Message
}

// Run runs the certification. The error says that it could not begin, because the settings are wrong or the operator
// binds to us; everything else is in the report.
func (c Certification) Run(ctx context.Context) (Report, error) {
	cfg, err := c.Operator.withDefaults()
	if err != nil {
		return Report{}, err
	}
	if cfg.Mode != Client {
		return Report{}, fmt.Errorf("operator %q binds to us: its engineers run the certification from their side", cfg.Name)
	}
	source, err := sourceAddress(cfg.Source)
	if err != nil {
		return Report{}, fmt.Errorf("operator %q: %w", cfg.Name, err)
	}
	c.Operator = cfg
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.ReceiptWait == 0 {
		c.ReceiptWait = certifyReceipts
	}
	if c.DialWait == 0 {
		c.DialWait = certifyDial
	}
	ids, err := NewIDRule(IDAuto)
	if err != nil {
		return Report{}, err
	}
	w := &certifier{
		Certification: c,
		report: Report{
			Operator: cfg.Name, Address: cfg.Address, SystemID: cfg.SystemID, To: c.To.Masked(), At: c.Now(),
		},
		coder: encoder{
			command: smpp.CmdSubmitSM, source: source, serviceType: cfg.ServiceType, latinCoding: cfg.LatinCoding,
		},
		reader: receiptReader{
			operator: cfg.Name, ids: ids, errors: cfg.NetworkErrors, zone: cfg.Location, region: cfg.Region,
		},
		nextID: c.Now().Unix(),
		sent:   make(map[string]string), ids: make(map[string]string),
		dials: make(chan certifyCall, 16), came: make(chan struct{}, 1),
	}
	w.run(ctx)
	return w.report, nil
}

func (w *certifier) run(ctx context.Context) {
	if !w.bind(ctx) {
		return
	}
	w.submit(ctx, "GSM-7", "Zvonok check: Latin letters 0123456789", UDH16)
	w.submit(ctx, "GSM-7 extension table", "Zvonok check: [brackets] {braces} ~ | \\ ^ 5 €", UDH16)
	w.submit(ctx, "UCS-2", "Звонок, проверка: русские буквы, ё и №", UDH16)
	w.submit(ctx, "UCS-2 with surrogates", "Звонок, проверка: улыбка 😀 и флаг 🇷🇺", UDH16)
	for _, m := range []Method{UDH16, UDH8, SAR, Payload} {
		text := fmt.Sprintf("Zvonok check of long texts by %s. ", m) +
			strings.Repeat("This text has to arrive as one. ", 5) + "END"
		if w.submit(ctx, "long text by "+string(m), text, m) {
			w.report.Concatenation = append(w.report.Concatenation, m)
		}
	}
	w.burst(ctx)
	w.waitReceipts(ctx)
	w.ussd(ctx)
	w.unbind()
}

// step notes a finding.
func (w *certifier) step(name string, since time.Time, f Finding, format string, args ...any) {
	s := Step{Name: name, Finding: f, Detail: fmt.Sprintf(format, args...), Took: w.Now().Sub(since)}
	w.report.Steps = append(w.report.Steps, s)
	if w.Progress != nil {
		w.Progress(s)
	}
}

// String is the step's line of the report, without alignment.
func (s Step) String() string {
	return fmt.Sprintf("%s: %s (%s), %s", s.Name, s.Finding, rounded(s.Took), s.Detail)
}

func (w *certifier) bind(ctx context.Context) bool {
	since := w.Now()
	session, err := smpp.Dial(ctx, smpp.ClientConfig{
		Address: w.Operator.Address, TLS: w.Operator.TLS, Dial: w.Operator.Dial, Type: smpp.Transceiver,
		SystemID: w.Operator.SystemID, Password: w.Operator.Password, SystemType: w.Operator.SystemType,
		BindTimeout: w.Operator.BindTimeout,
		Session:     smpp.SessionConfig{Window: w.Operator.Window, ResponseTimeout: certifyAnswer, Handle: w.handle},
	})
	var refused *smpp.BindError
	switch {
	case errors.As(err, &refused):
		w.step("bind", since, Failed, "refused with 0x%02X %s", uint32(refused.Status), refused.Status)
	case err != nil:
		w.step("bind", since, Failed, "%v", err)
	default:
		w.session = session
		b := session.Binding()
		w.step("bind", since, Passed, "transceiver, SMSC %q, interface version 0x%02X", b.PeerSystemID, b.Version)
	}
	return err == nil
}

// message makes a test message.
func (w *certifier) message(text string, m Method) (*message, error) {
	w.nextID++
	made := &message{
		sms:  SMS{ID: w.nextID, To: w.To, Text: text, Deadline: w.Now().Add(time.Hour)},
		form: form{method: m}, reference: uint16(w.nextID),
	}
	return made, made.cut()
}

// submit sends a text and notes what the operator says to each part. It reports whether all were accepted.
func (w *certifier) submit(ctx context.Context, name, text string, method Method) bool {
	since := w.Now()
	m, err := w.message(text, method)
	if err != nil {
		w.step(name, since, Failed, "%v", err)
		return false
	}
	var ids []string
	for i := range m.segments {
		outcome, err := w.session.Do(ctx, smpp.Request{PDU: w.coder.pdu(m, i, w.Now())})
		switch {
		case err != nil:
			w.step(name, since, Failed, "part %d of %d was not written: %v", i+1, len(m.segments), err)
			return false
		case outcome.Kind != smpp.Answered:
			w.step(name, since, Failed, "part %d of %d was not answered", i+1, len(m.segments))
			return false
		case outcome.Status != smpp.StatusOK:
			// The octets let the operator's engineer find the PDU in a trace of his own.
			octets, _ := smpp.Append(nil, outcome.Sequence, smpp.StatusOK, w.coder.pdu(m, i, w.Now()))
			w.step(name, since, Failed, "part %d of %d refused with 0x%02X %s; the PDU was %x",
				i+1, len(m.segments), uint32(outcome.Status), outcome.Status, w.masked(octets))
			return false
		}
		w.note(name, outcome.MessageID())
		ids = append(ids, outcome.MessageID())
	}
	if slices.Contains(ids, "") {
		w.step(name, since, Warning, "%s accepted without message_id: no receipts can be matched", count(len(ids), "part"))
		return true
	}
	w.step(name, since, Passed, "%s accepted, ids %s", count(len(ids), "part"), strings.Join(ids, ", "))
	return true
}

// masked returns a PDU with the test phone's digits, all but the last two, replaced: the report may go far.
func (w *certifier) masked(octets []byte) []byte {
	to := []byte(w.To)
	if len(to) < 3 {
		return octets
	}
	hidden := append(bytes.Repeat([]byte{'*'}, len(to)-2), to[len(to)-2:]...)
	return bytes.ReplaceAll(octets, to, hidden)
}

// count writes a number of things.
func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// note remembers an accepted part.
func (w *certifier) note(step, id string) {
	if id == "" {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.sent[CanonicalID(id)] = step
	w.ids[CanonicalID(id)] = id
}

// burst sends several messages at once and notes how many were throttled.
func (w *certifier) burst(ctx context.Context) {
	since := w.Now()
	outcomes := make(chan smpp.Outcome, certifyBurst)
	written := 0
	for n := range certifyBurst {
		m, err := w.message(fmt.Sprintf("Zvonok check of speed, %d of %d", n+1, certifyBurst), UDH16)
		if err != nil {
			w.step("burst", since, Failed, "%v", err)
			return
		}
		err = w.session.Submit(ctx, smpp.Request{
			PDU: w.coder.pdu(m, 0, w.Now()), Done: func(o smpp.Outcome) { outcomes <- o },
		})
		if err != nil {
			w.step("burst", since, Failed, "message %d was not written: %v", n+1, err)
			return
		}
		written++
	}
	accepted, throttled := 0, 0
	other := make(map[smpp.Status]int)
	for range written {
		switch o := <-outcomes; {
		case o.Kind != smpp.Answered:
			other[smpp.StatusUnknownError]++
		case o.Status == smpp.StatusOK:
			accepted++
			w.note("burst", o.MessageID())
		case o.Status == smpp.StatusThrottled || o.Status == smpp.StatusQueueFull:
			throttled++
		default:
			other[o.Status]++
		}
	}
	took := w.Now().Sub(since)
	switch {
	case len(other) > 0:
		w.step("burst", since, Failed, "%d accepted, %d throttled, others refused: %v", accepted, throttled, other)
	case throttled > 0 && w.Operator.Rate >= certifyBurst:
		w.step("burst", since, Warning, "%d accepted and %d throttled although the settings promise %.0f/s",
			accepted, throttled, w.Operator.Rate)
	default:
		w.step("burst", since, Passed, "%d accepted in %s, %d throttled", accepted, rounded(took), throttled)
	}
}

// handle takes what the operator brings during the run.
func (w *certifier) handle(in *smpp.Inbound) {
	m, ok := in.PDU.(*smpp.Message)
	switch {
	case !ok:
		_ = in.Answer(smpp.StatusOK, "")
	case isReceipt(m.ESMClass):
		if r, readable := w.reader.read(m, in.ReceivedAt); readable {
			w.mu.Lock()
			w.receipts = append(w.receipts, timedReceipt{r, m})
			w.mu.Unlock()
			select {
			case w.came <- struct{}{}:
			default:
			}
		}
		_ = in.Answer(smpp.StatusOK, "")
	case isUSSD(m, w.Operator.has(RoleUSSD)) && w.Operator.has(RoleUSSD):
		_ = in.Answer(smpp.StatusOK, "")
		select {
		case w.dials <- certifyCall{in, m}:
		default: // nobody follows so many calls; the first ones tell enough
		}
	default:
		// A text belongs to the gateway: it shall be kept for it.
		_ = in.Answer(smpp.StatusReceiverTemporary, "")
	}
}

// waitReceipts waits for a receipt of every accepted part and finds out how they are written.
func (w *certifier) waitReceipts(ctx context.Context) {
	since := w.Now()
	timer := time.NewTimer(w.ReceiptWait)
	defer timer.Stop()
	for missing := true; missing; {
		if matched, all := w.match(); len(matched) == all {
			break
		}
		select {
		case <-w.came:
		case <-timer.C:
			missing = false
		case <-ctx.Done():
			missing = false
		}
	}
	matched, all := w.match()
	states := make(map[string]int)
	fits := map[IDMode]int{}
	var offset, delay time.Duration
	for _, p := range matched {
		state := string(p.receipt.State)
		if p.receipt.State != StateDelivered && p.receipt.NetworkError != "" {
			state += " err " + p.receipt.NetworkError
		}
		states[state]++
		for _, mode := range []IDMode{IDAsIs, IDHex, IDDec} {
			if explains(mode, p.submitted, p.receipt.MessageID) {
				fits[mode]++
			}
		}
		if !p.receipt.DoneAt.IsZero() {
			offset = max(offset, p.receipt.DoneAt.Sub(p.receipt.ReceivedAt))
		}
		delay = max(delay, p.receipt.ReceivedAt.Sub(since))
	}
	if len(matched) == 0 {
		w.step("receipts", since, Failed, "none of %d parts has a receipt after %s", all, w.ReceiptWait)
		return
	}
	for _, mode := range []IDMode{IDAsIs, IDHex, IDDec} {
		if fits[mode] == len(matched) {
			w.report.MessageID = mode
			break
		}
	}
	finding := Passed
	if len(matched) < all || w.report.MessageID == "" {
		finding = Warning
	}
	// A clock that is behind cannot be told from a slow receipt; one that is ahead can.
	if offset > time.Minute {
		w.report.ClockOffset, finding = offset.Round(time.Second), Warning
	}
	var told []string
	for _, state := range slices.Sorted(maps.Keys(states)) {
		told = append(told, fmt.Sprintf("%s %d", state, states[state]))
	}
	ids := map[IDMode]string{
		IDAsIs: "ids as in the answers", IDHex: "ids in the answers are hexadecimal, in receipts decimal",
		IDDec: "ids in the answers are decimal, in receipts hexadecimal",
	}[w.report.MessageID]
	if ids == "" {
		ids = "ids follow no one rule"
	}
	w.step("receipts", since, finding, "%d of %d parts have a receipt, the last after %s: %s; %s",
		len(matched), all, rounded(max(0, delay)), strings.Join(told, ", "), ids)
}

type matchedReceipt struct {
	submitted string
	receipt   Receipt
}

// match returns the parts that have a receipt, and how many parts there are.
func (w *certifier) match() (map[string]matchedReceipt, int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	matched := make(map[string]matchedReceipt)
	for _, r := range w.receipts {
		for _, key := range r.receipt.Keys {
			if id, ok := w.ids[key]; ok {
				matched[key] = matchedReceipt{id, r.receipt}
				break
			}
		}
	}
	return matched, len(w.sent)
}

// explains reports whether a mode makes the id of a receipt out of a submitted one.
func explains(mode IDMode, submitted, told string) bool {
	submitted, told = CanonicalID(submitted), CanonicalID(told)
	switch mode {
	case IDHex:
		return hexOf(told) == submitted
	case IDDec:
		return decimalOf(told) == submitted
	default:
		return told == submitted
	}
}

// ussd waits for somebody to dial and answers with one last screen.
func (w *certifier) ussd(ctx context.Context) {
	since := w.Now()
	if !w.Operator.has(RoleUSSD) {
		w.step("USSD", since, Skipped, "the operator has no role \"ussd\"")
		return
	}
	if w.DialWait < 0 {
		w.step("USSD", since, Skipped, "not asked for")
		return
	}
	if w.Announce != nil {
		w.Announce(fmt.Sprintf("Dial the service's code on the test phone now; waiting for %s.", w.DialWait))
	}
	timer := time.NewTimer(w.DialWait)
	defer timer.Stop()
	var call certifyCall
	select {
	case call = <-w.dials:
	case <-timer.C:
		w.step("USSD", since, Skipped, "nobody dialled within %s", w.DialWait)
		return
	case <-ctx.Done():
		w.step("USSD", since, Skipped, "%v", ctx.Err())
		return
	}
	m := call.message
	d := Dial{
		Operator: w.Operator.Name, Command: m.Command, Source: m.Source, Destination: m.Destination,
		ServiceType: m.ServiceType, TLVs: m.TLVs,
	}
	d.Op, d.HasOp = m.USSDOp()
	r := d.Reply()
	r.Op, r.Octets = 17, []byte("Zvonok check: USSD works")
	var session []string
	for _, tag := range []smpp.Tag{smpp.TagITSSessionInfo, smpp.TagUserMessageReference, smpp.TagUSSDSessionID} {
		if value, ok := m.TLVs.Get(tag); ok {
			value = slices.Clone(value)
			if tag == smpp.TagITSSessionInfo && len(value) == 2 {
				value[1] |= 1
			}
			r.TLVs = append(r.TLVs, smpp.TLV{Tag: tag, Value: value})
			session = append(session, tag.String())
		}
	}
	pdu, err := r.pdu()
	if err != nil {
		w.step("USSD", since, Failed, "%v", err)
		return
	}
	outcome, err := w.session.Do(ctx, smpp.Request{PDU: pdu, OutsideWindow: true, Timeout: certifyAnswer})
	about := fmt.Sprintf("%s, op %d, service_type %q, destination %q (TON %d, NPI %d), data_coding 0x%02X, session in %v",
		m.Command, d.Op, m.ServiceType, m.Destination.Addr, m.Destination.TON, m.Destination.NPI, m.DataCoding, session)
	switch {
	case err != nil:
		w.step("USSD", since, Failed, "the answer was not written: %v; the dial was %s", err, about)
	case outcome.Kind != smpp.Answered:
		w.step("USSD", since, Failed, "the answer was not acknowledged; the dial was %s", about)
	case outcome.Status != smpp.StatusOK:
		w.step("USSD", since, Failed, "the answer was refused with 0x%02X; the dial was %s", uint32(outcome.Status), about)
	default:
		w.step("USSD", since, Passed, "answered with op 17; the dial was %s", about)
	}
}

func (w *certifier) unbind() {
	since := w.Now()
	snapshot := w.session.Snapshot()
	ctx, cancel := context.WithTimeout(context.Background(), certifyUnbind)
	defer cancel()
	err := w.session.Close(ctx)
	switch {
	case err != nil:
		w.step("unbind", since, Warning, "%v", err)
	case snapshot.Stray > 0 || snapshot.Strange > 0 || snapshot.Nacks > 0:
		w.step("unbind", since, Warning, "%d answers to nothing, %d unreadable PDUs, %d generic_nack in the session",
			snapshot.Stray, snapshot.Strange, snapshot.Nacks)
	default:
		w.step("unbind", since, Passed, "median round trip %s, 99 of 100 under %s", rounded(snapshot.RTTP50),
			rounded(snapshot.RTTP99))
	}
}
