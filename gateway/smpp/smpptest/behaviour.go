package smpptest

import (
	"fmt"
	"time"

	"zvonok/gateway/smpp"
)

// Behaviour says how an operator behaves. The zero value is an operator that
// answers at once, gives decimal ids and sends the receipts it is asked for at
// once. Shares are between 0 and 1 and are drawn for each message from the seed
// and the number of the message; "every n" counts messages from the start of
// the operator, and zero means never.
type Behaviour struct {
	// ID is the form of the ids in answers, ReceiptID that in receipts. BigIDs
	// makes them longer than 63 bits.
	ID        IDForm
	ReceiptID IDForm
	BigIDs    bool

	// AnswerDelay is how long an answer takes, AnswerJitter how much is added at
	// most.
	AnswerDelay  time.Duration
	AnswerJitter time.Duration

	// Late is the share of answers that take LateDelay instead.
	Late      float64
	LateDelay time.Duration

	// Silence is the share of messages that are accepted and never answered,
	// Swallow that of those that are neither.
	Silence float64
	Swallow float64

	// Refuse tells the status for destinations by prefix; the longest one
	// counts.
	Refuse map[string]smpp.Status

	// Errors is the share of messages refused with ErrorStatus, by default
	// 0x08.
	Errors      float64
	ErrorStatus smpp.Status

	// Rate is how many messages a second are accepted, zero for any number.
	// Those above, and StormFor after every StormEvery messages all of them, are
	// refused with ThrottleStatus, by default 0x58.
	Rate           float64
	StormEvery     int
	StormFor       time.Duration
	ThrottleStatus smpp.Status

	// Receipts.
	Receipt          ReceiptForm
	ReceiptDelay     time.Duration     // at least
	ReceiptJitter    time.Duration     // added at most; it also shuffles the receipts
	ReceiptRetry     time.Duration     // after one was not taken; one second by default
	EarlyReceipts    float64           // share sent before the answer to the message
	DoubleReceipts   float64           // share sent twice
	LostReceipts     float64           // share never sent
	Intermediate     float64           // share with an ENROUTE receipt after the final one
	Undelivered      float64           // share of messages that are not delivered
	UndeliveredState smpp.MessageState // their state, by default UNDELIV
	ReceiptError     int               // the err of those, 0 to 999
	ReceiptElsewhere bool              // receipts go to another bind of the account if there is one
	NoQueries        bool              // query_sm is answered with 0x03

	// Connection.
	RefuseBinds      int         // so many binds are refused ...
	RefuseBindStatus smpp.Status // ... with this, by default 0x05
	DropEvery        int         // the connection is cut without a word
	UnbindEvery      int         // unbind is sent while answers are missing
	HalfOpenEvery    int         // nothing more goes in or out, and the connection stays

	// Octets.
	WrongSequence  float64     // share of answers with the number of no request
	DoubleAnswers  float64     // share of answers sent twice
	Nacks          float64     // share of answers turned into a generic_nack
	NackStatus     smpp.Status // its status, by default 0x01
	Garbage        float64     // share of frames with a senseless PDU before them
	IgnoreEnquire  bool        // enquire_link is neither answered nor sent
	SplitFrames    bool        // octets come a few at a time
	BadLengthEvery int         // after so many frames one claims an impossible length
}

// Profiles are the named behaviours of `zvonok-operator`.
func Profiles() []Profile {
	return []Profile{
		{"honest", "answers at once, sends receipts after a second", Behaviour{
			ReceiptDelay: time.Second,
		}},
		{"slow", "answers after 200 ms, as over a long line", Behaviour{
			AnswerDelay: 150 * time.Millisecond, AnswerJitter: 100 * time.Millisecond, ReceiptDelay: 3 * time.Second,
		}},
		{"early-receipts", "half of the receipts overtake the answer", Behaviour{
			EarlyReceipts: 0.5,
		}},
		{"messy-receipts", "receipts come twice, shuffled, on other binds, after their time or not at all", Behaviour{
			ReceiptJitter: 5 * time.Second, DoubleReceipts: 0.2, LostReceipts: 0.02, Intermediate: 0.2,
			ReceiptElsewhere: true, Undelivered: 0.1, ReceiptError: 11,
		}},
		{"hex-ids", "hexadecimal ids in answers, decimal ones in receipts", Behaviour{
			ID: Hex, ReceiptID: Decimal, ReceiptDelay: time.Second,
		}},
		{"big-ids", "ids of 71 bits, in receipts with leading zeros", Behaviour{
			BigIDs: true, ReceiptID: ZeroPadded, ReceiptDelay: time.Second,
		}},
		{"storm", "throttles everything for 10 s after every 500 messages", Behaviour{
			StormEvery: 500, StormFor: 10 * time.Second,
		}},
		{"narrow", "accepts 50 messages a second", Behaviour{Rate: 50}},
		{"queue-full", "accepts 50 messages a second and calls its queue full", Behaviour{
			Rate: 50, ThrottleStatus: smpp.StatusQueueFull,
		}},
		{"broken", "a third of the messages meet a system error", Behaviour{Errors: 1. / 3}},
		{"silent", "one message in a hundred is never answered, one in a hundred after 40 s", Behaviour{
			Silence: 0.01, Late: 0.01, LateDelay: 40 * time.Second,
		}},
		{"half-open", "the line goes dead after every 1000 messages", Behaviour{HalfOpenEvery: 1000}},
		{"unbinding", "unbinds in mid-window after every 200 messages", Behaviour{UnbindEvery: 200}},
		{"dropping", "cuts the connection after every 200 messages", Behaviour{DropEvery: 200}},
		{"wrong-sequence", "answers carry wrong numbers, come twice or are refused", Behaviour{
			WrongSequence: 0.02, DoubleAnswers: 0.1, Nacks: 0.02,
		}},
		{"garbage", "senseless PDUs in between, octets a few at a time", Behaviour{
			Garbage: 0.02, SplitFrames: true,
		}},
		{"hostile", "all of it", Behaviour{
			ID: Hex, ReceiptID: Decimal, AnswerJitter: 50 * time.Millisecond, Late: 0.002, LateDelay: 35 * time.Second,
			Silence: 0.002, Errors: 0.02, StormEvery: 700, StormFor: 5 * time.Second, ReceiptJitter: 3 * time.Second,
			EarlyReceipts: 0.1, DoubleReceipts: 0.1, Intermediate: 0.1, Undelivered: 0.05, ReceiptElsewhere: true,
			UnbindEvery: 1500, WrongSequence: 0.002, DoubleAnswers: 0.01, Garbage: 0.01, SplitFrames: true,
		}},
	}
}

// Profile is a behaviour with a name.
type Profile struct {
	Name      string
	About     string
	Behaviour Behaviour
}

// ProfileNamed finds a profile of [Profiles].
func ProfileNamed(name string) (Profile, error) {
	for _, p := range Profiles() {
		if p.Name == name {
			return p, nil
		}
	}
	return Profile{}, fmt.Errorf("no operator profile %q", name)
}

// random says whether anything about the fate of a message is left to chance.
func (b *Behaviour) random() bool {
	return b.AnswerJitter > 0 || b.Late > 0 || b.Silence > 0 || b.Swallow > 0 || b.Errors > 0 ||
		b.ReceiptJitter > 0 || b.EarlyReceipts > 0 || b.DoubleReceipts > 0 || b.LostReceipts > 0 ||
		b.Intermediate > 0 || b.Undelivered > 0
}

// tampers says whether the line has to look at frames.
func (b *Behaviour) tampers() bool {
	return b.WrongSequence > 0 || b.DoubleAnswers > 0 || b.Nacks > 0 || b.Garbage > 0 || b.IgnoreEnquire ||
		b.SplitFrames || b.BadLengthEvery > 0
}
