package carrier

import (
	"time"

	"zvonok/access/phone"
	"zvonok/gateway/smpp"
)

// Priority orders messages in an operator's queue. A lower number goes first.
type Priority int8

// The priority classes. Each keeps a guaranteed share of the rate, so that none starves (see queue.go).
const (
	Urgent Priority = iota + 1 // a login code, a pass: worth minutes
	Normal                     // a top-up, a sale, a threshold
	Bulk                       // a digest
)

// SMS is one text for one phone, of as many parts as it needs.
type SMS struct {
	ID       int64 // the delivery; comes back in Result
	Attempt  int16 // comes back in Result; the first is 1, and 0 is taken for 1
	To       phone.Number
	Text     string
	Priority Priority  // zero is taken for Normal
	Deadline time.Time // end of its life: not sent after it, and the SMSC's validity_period; zero for none
}

// Part is what became of one part of an SMS.
type Part struct {
	Number, Count int
	MessageID     string      // the operator's id from submit_sm_resp, raw
	Key           string      // CanonicalID(MessageID), to be looked for among Receipt.Keys; empty without an id
	Status        smpp.Status // command_status of the answer
	Answered      bool        // false: written without an answer yet, or never written
	Written       bool
	At            time.Time // of the answer, or of the write
}

// Result is the outcome of one attempt to send one SMS through one operator. Class says what kind of outcome, the
// other fields what the table of outcome classes (outcome.go) makes of it, so that the caller needs no table.
type Result struct {
	ID       int64
	Attempt  int16
	Operator string
	Class    Class
	Status   smpp.Status // of the part that decided Class; 0 when there was no answer
	Parts    []Part      // by Number; Count is the same in all; empty when the message was never encoded

	RetryAfter time.Duration // earliest next attempt by this operator; 0 with Class.Sent() false means no further attempt
	Counted    bool          // the attempt counts against the message's allowance
	Failover   bool          // the route's next operator may be tried at once
	Alarm      bool          // somebody should look at the operator's settings or at the message
	NumberBad  bool          // the recipient's number is to blame: number health -1
	Reason     string        // name of the status or of the cause, from a closed list; may be logged
}

// Accepted returns how many parts the operator took.
func (r Result) Accepted() int {
	n := 0
	for _, p := range r.Parts {
		if p.Answered && p.Status == 0 {
			n++
		}
	}
	return n
}

// Partial reports that some parts were accepted and some were not. Sending such a message again as a whole would
// show the accepted parts twice.
func (r Result) Partial() bool {
	n := r.Accepted()
	return n > 0 && n < len(r.Parts)
}

// MO is a text that a subscriber sent to us (mobile originated), joined when it came in parts.
type MO struct {
	Operator   string
	From       phone.Number // empty when the sender is no subscriber number
	Source     smpp.Address // the sender exactly as received
	To         smpp.Address // the number or short code it was sent to
	Text       string
	Incomplete bool // parts of a long message failed to come in a minute; Text is what came
	// Owed are the receipts that the gateway asked for, one for each part; they are to be stored with the text. Those of
	// parts that were stored by themselves (Config.StoreParts) were stored with them.
	Owed       []Owed
	ReceivedAt time.Time
	// Parts names a long text of which parts may be stored (Config.StoreParts); they are to be deleted in the transaction
	// that stores the text. It is zero for a text that came by itself.
	Parts TextKey
	// Claimed says that the text was read from the stored parts. If none is there any more to be deleted, another process
	// has stored the text, and this one must not.
	Claimed bool
}

// TextKey names a long text among those that come at the same time (3GPP TS 23.040 section 9.2.3.24.1). Texts of all
// sessions of an operator are told apart by it, never by the session.
type TextKey struct {
	Operator          string
	Sender, Recipient string // addresses as received, made valid UTF-8
	Reference         uint16
	Wide              bool // a reference of 16 bits, which is another one than that of 8
	Count             uint8
}

// TextPart is a part of a long text of a subscriber.
type TextPart struct {
	TextKey
	Number     uint8 // from 1 to Count
	From       phone.Number
	Source, To smpp.Address
	Coding     byte   // data_coding
	Octets     []byte // without the user data header
	Owed       []Owed // the receipt that the gateway asked for, if it did
	ReceivedAt time.Time
}
