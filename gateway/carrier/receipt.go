package carrier

import (
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"zvonok/access/phone"
	"zvonok/gateway/smpp"
)

// ReceiptState is the state of a message that a delivery receipt tells, SMPP 3.4 section 5.2.28 and appendix B.
type ReceiptState string

// The states. Scheduled, Enroute, Accepted, Buffered and Acked are on the way; the others are final.
const (
	StateScheduled     ReceiptState = "SCHEDULED"
	StateEnroute       ReceiptState = "ENROUTE"
	StateAccepted      ReceiptState = "ACCEPTD"
	StateBuffered      ReceiptState = "BUFFRED"
	StateAcked         ReceiptState = "ACKED"
	StateDelivered     ReceiptState = "DELIVRD"
	StateExpired       ReceiptState = "EXPIRED"
	StateDeleted       ReceiptState = "DELETED"
	StateUndeliverable ReceiptState = "UNDELIV"
	StateRejected      ReceiptState = "REJECTD"
	StateUnknown       ReceiptState = "UNKNOWN" // the operator does not know; wait 24 h for better news, then "no proof"
)

// receiptStates lists the states for metrics.
func receiptStates() []ReceiptState {
	return []ReceiptState{
		StateScheduled, StateEnroute, StateAccepted, StateBuffered, StateAcked, StateDelivered, StateExpired,
		StateDeleted, StateUndeliverable, StateRejected, StateUnknown,
	}
}

// Final reports whether the state ends the message's life with the operator. UNKNOWN is not final: a later receipt may
// say more.
func (s ReceiptState) Final() bool {
	switch s {
	case StateDelivered, StateExpired, StateDeleted, StateUndeliverable, StateRejected:
		return true
	}
	return false
}

// Supersedes reports whether s may replace the state a message is in: a final state is never overwritten, anything
// else gives way to a final state and to progress, and UNKNOWN overwrites nothing but itself. Two different final
// states are a conflict, which the caller logs.
func (s ReceiptState) Supersedes(old ReceiptState) bool {
	switch {
	case old.Final():
		return false
	case s.Final():
		return true
	default:
		return s.progress() > old.progress()
	}
}

func (s ReceiptState) progress() int {
	switch s {
	case StateScheduled:
		return 2
	case StateBuffered, StateEnroute:
		return 3
	case StateAccepted, StateAcked:
		return 4
	case StateUnknown:
		return 1
	}
	return 0
}

// Receipt is one delivery receipt. It belongs to the operator account, not to the session it came by.
type Receipt struct {
	Operator     string
	MessageID    string   // raw: TLV 0x001E when present, else the text's "id:"; never empty
	Keys         []string // every CanonicalID the submitted part may have, the likeliest first
	State        ReceiptState
	Class        Class  // what the state means: OK, UNK on the way, TMP expired, PR or PO for final failures
	NetworkError string // TLV 0x0423 as "type/code", else the text's err, "" when there is none or it is zero
	From, To     phone.Number
	SubmitAt     time.Time // as the operator's clock has it; zero when unreadable
	DoneAt       time.Time
	ReceivedAt   time.Time
	Raw          string // the text of the receipt without the message's own words
}

// Limits of receipts.
const (
	maxReceiptText = 1024             // octets of text that are looked at; the longest seen has 250
	maxMessageID   = 255              // octets; SMPP 3.4 section 5.2.23 says 64, vendors say more
	epochTolerance = 400 * 24 * 3600  // s between a receipt's date and now from which ten digits may be Unix time
	futureReceipt  = 15 * time.Minute // a date this far ahead of us is not trusted over Unix time
)

// isReceipt reports whether esm_class says "SMSC delivery receipt". Nothing else makes a receipt: a subscriber can
// write any text, also one that looks like a receipt (fault row 21).
func isReceipt(esmClass byte) bool { return esmClass&smpp.ESMClassTypeMask == smpp.ESMClassReceipt }

// stateWords are the spellings of states in receipts, in capitals without blanks, dots, dashes and underscores.
func stateWord(word string) (ReceiptState, bool) {
	switch word {
	case "DELIVRD", "DELIVERED", "DELIVERD", "DELIVERY", "DELIVRED", "DLVRD", "DELIVEREDTOHANDSET", "SUCCESS", "READ":
		return StateDelivered, true
	case "EXPIRED", "EXPIRD", "TIMEOUT":
		return StateExpired, true
	case "DELETED", "DELETD", "CANCELED", "CANCELLED":
		return StateDeleted, true
	case "UNDELIV", "UNDELIVERABLE", "UNDELIVERED", "UNDELIVRD", "UNDELIVERD", "UNDLVRD", "UNDELIVRED", "NOTDELIVERED",
		"NOTDELIVRD", "FAILED", "FAIL", "FAILURE", "ERROR", "ABSENT":
		return StateUndeliverable, true
	case "REJECTD", "REJECTED", "REJECT", "REJCTED", "SKIPPED", "BLOCKED", "BLACKLISTED":
		return StateRejected, true
	case "ACCEPTD", "ACCEPTED", "ACCEPT", "SENT", "SUBMITTED", "SUBMITD":
		return StateAccepted, true
	case "ACKED", "ACKNOWLEDGED":
		return StateAcked, true
	case "BUFFRED", "BUFFERED", "BUFFERD", "QUEUED":
		return StateBuffered, true
	case "ENROUTE", "INTRANSIT", "PENDING", "RETRY", "DELAYED":
		return StateEnroute, true
	case "SCHEDULED", "SCHEDLD", "SCHEDUL":
		return StateScheduled, true
	case "UNKNOWN", "UNKNOWNED", "UNKNOW", "UNKNWN", "NOTFOUND":
		return StateUnknown, true
	}
	return "", false
}

// stateCode reads message_state 0x0427: SMPP 3.4 section 5.2.28 with 0 and 9 of SMPP 5.0.
func stateCode(code byte) (ReceiptState, bool) {
	switch code {
	case 0:
		return StateScheduled, true
	case 1:
		return StateEnroute, true
	case 2:
		return StateDelivered, true
	case 3:
		return StateExpired, true
	case 4:
		return StateDeleted, true
	case 5:
		return StateUndeliverable, true
	case 6:
		return StateAccepted, true
	case 7:
		return StateUnknown, true
	case 8, 9:
		return StateRejected, true
	}
	return "", false
}

// receiptText is what the text of a receipt says. Every field may be empty.
type receiptText struct {
	id, sub, dlvrd, submitted, done, stat, err string
	head                                       string // the text up to the message's own words
}

// receiptKeys are the names of the fields as vendors write them: small letters, blanks and underscores taken out.
// Longer names stand before their own endings ("messageid" before "id").
var receiptKeys = [...]struct {
	name  string
	field func(*receiptText) *string
}{
	{"messageid", func(t *receiptText) *string { return &t.id }},
	{"msgid", func(t *receiptText) *string { return &t.id }},
	{"smsid", func(t *receiptText) *string { return &t.id }},
	{"id", func(t *receiptText) *string { return &t.id }},
	{"sub", func(t *receiptText) *string { return &t.sub }},
	{"dlvrd", func(t *receiptText) *string { return &t.dlvrd }},
	{"dlvd", func(t *receiptText) *string { return &t.dlvrd }},
	{"submitdate", func(t *receiptText) *string { return &t.submitted }},
	{"submittime", func(t *receiptText) *string { return &t.submitted }},
	{"subdate", func(t *receiptText) *string { return &t.submitted }},
	{"donedate", func(t *receiptText) *string { return &t.done }},
	{"donetime", func(t *receiptText) *string { return &t.done }},
	{"status", func(t *receiptText) *string { return &t.stat }},
	{"state", func(t *receiptText) *string { return &t.stat }},
	{"stat", func(t *receiptText) *string { return &t.stat }},
	{"errorcode", func(t *receiptText) *string { return &t.err }},
	{"error", func(t *receiptText) *string { return &t.err }},
	{"errcode", func(t *receiptText) *string { return &t.err }},
	{"err", func(t *receiptText) *string { return &t.err }},
}

// parseReceiptText reads the customary text of a receipt (SMPP 3.4 appendix B) and its relatives: fields in any order
// and any letter case, missing fields, blanks after the colon, "=" for it, commas or semicolons between fields, a
// state without "stat:". It stops at "text:", because what follows are the words of our own message, which may hold
// anything.
func parseReceiptText(text string) receiptText {
	if len(text) > maxReceiptText {
		text = text[:maxReceiptText]
	}
	var out receiptText
	out.head = text
	// at is the field being read and from where its value begins; a value ends where the next name begins.
	var at *string
	from := 0
	store := func(end int) {
		if at != nil && *at == "" {
			*at = strings.Trim(text[from:end], " \t\r\n\x00\"',;|")
		}
	}
	end := len(text)
	for i := 0; i < len(text); i++ {
		c := text[i]
		if c != ':' && c != '=' {
			continue
		}
		start, name := nameBefore(text, i)
		if name == "text" {
			end = start
			out.head = strings.TrimRight(text[:start], " ")
			break
		}
		for _, k := range receiptKeys {
			if name == k.name || name == k.name+"s" {
				store(start)
				at, from = k.field(&out), i+1
				break
			}
		}
	}
	store(end)

	// Values are single words, but for dates that are written with a blank between day and time. What stands behind
	// such a word is either nothing or a state without its name.
	for _, field := range []*string{&out.id, &out.sub, &out.dlvrd, &out.stat, &out.err} {
		*field = firstWord(*field)
	}
	if out.stat == "" {
		out.stat = bareState(out.done)
		if out.stat == "" {
			out.stat = bareState(out.submitted)
		}
		if out.stat == "" {
			out.stat = bareState(out.head)
		}
	}
	return out
}

// nameBefore returns the field name that ends before text[i] and where it starts, blanks and underscores taken out:
// "submit date" and "Submit_Date" both are "submitdate". Two words are joined only when the first is one that begins
// a name of two.
func nameBefore(text string, i int) (start int, name string) {
	end := i
	for end > 0 && (text[end-1] == ' ' || text[end-1] == '\t') {
		end--
	}
	start = wordStart(text, end)
	name = plainName(text[start:end])
	switch name {
	case "date", "time", "id", "code":
		second := start
		for second > 0 && text[second-1] == ' ' {
			second--
		}
		first := wordStart(text, second)
		switch prefix := plainName(text[first:second]); prefix {
		case "submit", "sub", "done", "message", "msg", "sms", "error", "err":
			return first, prefix + name
		}
	}
	return start, name
}

func wordStart(text string, end int) int {
	start := end
	for start > 0 {
		c := text[start-1]
		if c != '_' && c != '-' && (c|0x20 < 'a' || c|0x20 > 'z') {
			break
		}
		start--
	}
	return start
}

func plainName(word string) string {
	var b strings.Builder
	for i := range len(word) {
		if c := word[i]; c != '_' && c != '-' {
			b.WriteByte(c | 0x20)
		}
	}
	return b.String()
}

func firstWord(value string) string {
	if i := strings.IndexAny(value, " \t\r\n\x00,;|"); i >= 0 {
		return value[:i]
	}
	return value
}

// bareState finds a state that stands alone among the words of a value, as in "done date:180903120816 DELIVRD".
func bareState(value string) string {
	for _, word := range strings.Fields(value) {
		if strings.ContainsAny(word, ":=") || len(word) < len("ACKED") || word != strings.ToUpper(word) {
			continue
		}
		if _, ok := stateWord(plainState(word)); ok {
			return word
		}
	}
	return ""
}

func plainState(word string) string {
	word = strings.ToUpper(strings.TrimSpace(word))
	word = strings.TrimPrefix(word, "ESME_")
	return strings.Map(func(r rune) rune {
		switch r {
		case ' ', '_', '-', '.':
			return -1
		}
		return r
	}, word)
}

// receiptState reads the state of the text: a word, or a number like that of the TLV.
func (t receiptText) state() (ReceiptState, bool) {
	if t.stat == "" {
		return "", false
	}
	if n, err := strconv.ParseUint(t.stat, 10, 8); err == nil {
		return stateCode(byte(n))
	}
	return stateWord(plainState(t.stat))
}

// receiptTime reads a date of a receipt. Digits come as YYMMDDhhmm, YYMMDDhhmmss, YYYYMMDDhhmmss, as SMPP's own
// absolute time YYMMDDhhmmsstnnp (SMPP 3.4 section 7.1.1), or as Unix time; some vendors write ISO dates. Times without
// an offset are in zone. An unreadable date is the zero time: it is information, never a reason to lose a receipt.
func receiptTime(value string, zone *time.Location, now time.Time) time.Time {
	if bare := bareState(value); bare != "" {
		value = strings.TrimSpace(strings.Replace(value, bare, "", 1))
	}
	digits := 0
	for digits < len(value) && value[digits] >= '0' && value[digits] <= '9' {
		digits++
	}
	in := func(layout, text string) time.Time {
		t, err := time.ParseInLocation(layout, text, zone)
		if err != nil || t.Year() < 2000 {
			return time.Time{}
		}
		return t
	}
	switch {
	case digits == 15 && len(value) == 16:
		t, err := smpp.ParseTime(value, now)
		if err != nil {
			return time.Time{}
		}
		return t
	case digits < len(value):
		for _, layout := range []string{
			time.RFC3339, "2006-01-02T15:04:05", time.DateTime, "2006-01-02 15:04", "2006/01/02 15:04:05",
			"02.01.2006 15:04:05", "02/01/2006 15:04:05", "060102 150405", "060102 1504",
		} {
			if t := in(layout, value); !t.IsZero() {
				return t
			}
		}
	case digits == 10:
		t := in("0601021504", value)
		// Ten digits of Unix time read as a date, too, but as one that is years away.
		if n, err := strconv.ParseInt(value, 10, 64); err == nil {
			unix := time.Unix(n, 0)
			far := t.IsZero() || now.Sub(t).Abs() > epochTolerance*time.Second
			if far && unix.Before(now.Add(futureReceipt)) && now.Sub(unix) < epochTolerance*time.Second {
				return unix
			}
		}
		return t
	case digits == 12:
		return in("060102150405", value)
	case digits == 13:
		n, err := strconv.ParseInt(value, 10, 64)
		if err == nil {
			return time.UnixMilli(n)
		}
	case digits == 14:
		return in("20060102150405", value)
	}
	return time.Time{}
}

// receiptReader turns PDUs into Receipts by the habits of one operator.
type receiptReader struct {
	operator string
	ids      *IDRule
	errors   map[string]Class // the operator's err texts and network errors
	zone     *time.Location
	region   string
}

// read returns the receipt in a PDU that isReceipt. It is false when the PDU names no message or no state that can be
// understood; such a PDU is acknowledged, since sending it again would not make it better, and counted.
func (r receiptReader) read(m *smpp.Message, now time.Time) (Receipt, bool) {
	text := parseReceiptText(receiptWords(m.Octets()))
	receipt := Receipt{
		Operator:   r.operator,
		ReceivedAt: now,
		Raw:        text.head,
		SubmitAt:   receiptTime(text.submitted, r.zone, now),
		DoneAt:     receiptTime(text.done, r.zone, now),
	}
	// In a receipt the source is the phone and the destination is our sender name.
	receipt.To, _ = phone.FromMSISDN(m.Source.Addr, m.Source.TON, m.Source.NPI, r.region)
	receipt.From, _ = phone.FromMSISDN(m.Destination.Addr, m.Destination.TON, m.Destination.NPI, r.region)

	ids := make([]string, 0, 2)
	if id, ok := m.TLVs.Text(smpp.TagReceiptedMessageID); ok {
		if id = strings.TrimSpace(id); id != "" {
			ids = append(ids, id)
		}
	}
	if text.id != "" && (len(ids) == 0 || ids[0] != text.id) {
		ids = append(ids, text.id)
	}
	if len(ids) == 0 {
		return Receipt{}, false
	}
	receipt.MessageID = ids[0]
	receipt.Keys = r.ids.Keys(ids...)
	if len(receipt.Keys) == 0 {
		return Receipt{}, false
	}

	state, ok := ReceiptState(""), false
	if value, present := m.TLVs.Get(smpp.TagMessageState); present && len(value) >= 1 {
		state, ok = stateCode(value[0])
	}
	// The text is asked when the TLV is absent or says less: some operators send message_state 7 with every receipt.
	if worded, fine := text.state(); fine && (!ok || state == StateUnknown) {
		state, ok = worded, true
	}
	if !ok {
		return Receipt{}, false
	}
	receipt.State = state

	receipt.NetworkError = strings.ToUpper(text.err)
	if strings.Trim(receipt.NetworkError, "0") == "" {
		receipt.NetworkError = ""
	}
	if value, present := m.TLVs.Get(smpp.TagNetworkErrorCode); present && len(value) == 3 && (value[1]|value[2]) != 0 {
		receipt.NetworkError = networkError(value)
	}
	receipt.Class = r.class(receipt, text.err)
	return receipt, true
}

// class says what a state means for the message. Which network error speaks of the phone and which of the route is the
// operator's own; without a word from the settings, a rejection is the route's and the rest the phone's.
func (r receiptReader) class(receipt Receipt, errText string) Class {
	switch receipt.State {
	case StateDelivered:
		return OK
	case StateExpired:
		return Stale
	case StateUndeliverable, StateRejected:
		for _, key := range []string{receipt.NetworkError, strings.ToUpper(errText), strings.TrimLeft(errText, "0")} {
			if c, ok := r.errors[key]; ok && key != "" {
				return c
			}
		}
		if receipt.State == StateRejected {
			return PermanentRoute
		}
		return PermanentRecipient
	case StateDeleted:
		return PermanentRoute
	default:
		return Unknown
	}
}

// networkError writes network_error_code (SMPP 3.4 section 5.3.2.31) as "type/code": 1 ANSI-136, 2 IS-95, 3 GSM.
func networkError(value []byte) string {
	return strconv.Itoa(int(value[0])) + "/" + strconv.Itoa(int(value[1])<<8|int(value[2]))
}

// receiptWords returns the text of a receipt as ASCII. Receipts are ASCII whatever data_coding says, except for
// operators that send them in UCS-2, where every other octet is zero.
func receiptWords(octets []byte) string {
	if len(octets) >= 4 && octets[0] == 0 && octets[2] == 0 {
		narrow := make([]byte, 0, len(octets)/2)
		for i := 1; i < len(octets); i += 2 {
			c := octets[i]
			if octets[i-1] != 0 {
				c = '?'
			}
			narrow = append(narrow, c)
		}
		octets = narrow
	}
	if utf8.Valid(octets) {
		return string(octets)
	}
	return strings.ToValidUTF8(string(octets), "?")
}
