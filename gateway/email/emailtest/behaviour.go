package emailtest

import (
	"strings"
	"sync"
	"time"
)

// Step is a moment of a dialogue at which a Behaviour may interfere.
type Step struct {
	Verb    string // CONNECT, EHLO, STARTTLS, AUTH, MAIL, RCPT, DATA, END (after the final dot), RSET, NOOP, QUIT
	Arg     string // of MAIL and RCPT the address
	Session int    // counted from 1
	TLS     bool

	From string   // once MAIL was taken
	To   []string // once RCPT was
	Body []byte   // at END
}

// Answer is what happens at a step in place of the usual. The zero Answer is
// the usual.
type Answer struct {
	Reply  string        // "550 5.1.1 No such user"; more lines are separated by CRLF
	Close  bool          // break the connection off, after Reply if there is one
	Silent bool          // say nothing, and keep the connection open
	Pace   time.Duration // wait so long before each octet of the reply

	Hide          string // at EHLO: an extension that is not offered
	StopReading   bool   // at DATA: go ahead, then read nothing
	BreakOffAfter int    // at DATA: octets of the letter to read before the connection breaks
	Lose          bool   // at END: say as usual and keep nothing
}

// Behaviour interferes at the steps it has an answer for; nil is none.
type Behaviour func(Step) *Answer

// Refuse gives this reply to every command with the verb.
func Refuse(verb, reply string) Behaviour {
	return func(s Step) *Answer {
		if s.Verb != verb {
			return nil
		}
		return &Answer{Reply: reply, Close: strings.HasPrefix(reply, "421")}
	}
}

// Times limits a behaviour to the first n steps it has an answer for.
func Times(n int, b Behaviour) Behaviour {
	var mu sync.Mutex
	return func(s Step) *Answer {
		mu.Lock()
		defer mu.Unlock()
		if n == 0 {
			return nil
		}
		a := b(s)
		if a != nil {
			n--
		}
		return a
	}
}

// For limits a behaviour to letters whose recipient ends with this.
func For(suffix string, b Behaviour) Behaviour {
	return func(s Step) *Answer {
		to := s.To
		if s.Verb == "RCPT" {
			to = []string{s.Arg}
		}
		for _, address := range to {
			if strings.HasSuffix(address, suffix) {
				return b(s)
			}
		}
		return nil
	}
}

// Greylist refuses the first attempt for each pair of sender and recipient, as
// postgrey does.
func Greylist() Behaviour {
	var mu sync.Mutex
	seen := map[[2]string]bool{}
	return func(s Step) *Answer {
		if s.Verb != "RCPT" {
			return nil
		}
		mu.Lock()
		defer mu.Unlock()
		pair := [2]string{s.From, s.Arg}
		if seen[pair] {
			return nil
		}
		seen[pair] = true
		return &Answer{Reply: "450 4.7.1 Greylisted, please try again in 300 seconds"}
	}
}

// Silence says nothing to this verb.
func Silence(verb string) Behaviour { return at(verb, Answer{Silent: true}) }

// HangUp breaks the connection off at this verb. At END the letter is kept, so
// that the sender cannot know.
func HangUp(verb string) Behaviour { return at(verb, Answer{Close: true}) }

// LoseAndHangUp breaks the connection off after the final dot without having
// kept the letter.
func LoseAndHangUp() Behaviour { return at("END", Answer{Close: true, Lose: true}) }

// Drip gives the reply to this verb one octet at a time.
func Drip(verb string, pace time.Duration) Behaviour { return at(verb, Answer{Pace: pace}) }

// DieInData breaks the connection off after so many octets of a letter.
func DieInData(octets int) Behaviour { return at("DATA", Answer{BreakOffAfter: octets}) }

// StopReading lets a letter begin and reads nothing of it.
func StopReading() Behaviour { return at("DATA", Answer{StopReading: true}) }

// StripSTARTTLS hides the extension, as somebody on the way would.
func StripSTARTTLS() Behaviour { return at("EHLO", Answer{Hide: "STARTTLS"}) }

func at(verb string, a Answer) Behaviour {
	return func(s Step) *Answer {
		if s.Verb != verb {
			return nil
		}
		return &a
	}
}
