package email

import (
	"fmt"
	"regexp"
	"strconv"
	"time"
)

// Class says what a failure means for what is to be done next.
type Class string

// The classes; the package comment says what each means.
const (
	Address       Class = "address"
	Reputation    Class = "reputation"
	Temporary     Class = "temporary"
	HostDown      Class = "host_down"
	Unknown       Class = "unknown"
	Misconfigured Class = "misconfigured"
	Refused       Class = "refused"
)

// Classes are all classes, for metric labels.
func Classes() []Class {
	return []Class{Address, Reputation, Temporary, HostDown, Unknown, Misconfigured, Refused}
}

// Phase is where in a dialogue a failure came.
type Phase string

// The phases, in their order.
const (
	Building Phase = "building" // before any connection: the letter itself is wrong
	Waiting  Phase = "waiting"  // the relay or the destination is paused, or no connection came free
	Dialling Phase = "dialling"
	Greeting Phase = "greeting" // the greeting, EHLO, STARTTLS and the handshake
	Login    Phase = "login"
	Mail     Phase = "mail" // MAIL FROM
	Rcpt     Phase = "rcpt" // RCPT TO
	Data     Phase = "data" // DATA and the letter, up to the final dot
	Final    Phase = "final"
	Bounced  Phase = "bounced" // a notification that came later
)

// Error is the outcome of a letter that was not accepted.
type Error struct {
	Class    Class
	Phase    Phase
	Code     int    // the reply, 0 without one
	Enhanced [3]int // its enhanced status code (RFC 3463), zero without one

	// RetryAfter is how long to wait before the letter is tried again, zero if
	// it must not be. After Unknown it may be tried once.
	RetryAfter time.Duration

	// Reply is what the relay said. It often repeats the address, so it may be
	// shown to an administrator, never logged.
	Reply string

	Err error // the cause, for errors.Is; nil for a reply
}

// Error returns class, phase and code, without the relay's words.
func (e *Error) Error() string {
	text := fmt.Sprintf("send letter: %s at %s", e.Class, e.Phase)
	if e.Code != 0 {
		text += fmt.Sprintf(": %d", e.Code)
	}
	if e.Enhanced != [3]int{} {
		text += fmt.Sprintf(" %d.%d.%d", e.Enhanced[0], e.Enhanced[1], e.Enhanced[2])
	}
	if e.Err != nil {
		text += ": " + e.Err.Error()
	}
	return text
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Temporary reports whether the same letter may be tried again.
func (e *Error) Temporary() bool { return e.RetryAfter > 0 }

// classify says what a reply means. Only replies to commands that concern the
// recipient can be the recipient's fault, and of those only the enhanced codes
// that name the mailbox are: a bare 550 is as often a filter as an unknown user.
func classify(phase Phase, code int, enhanced [3]int, reply string) *Error {
	e := &Error{Phase: phase, Code: code, Enhanced: enhanced, Reply: reply}
	switch {
	case code == 421:
		e.Class, e.RetryAfter = HostDown, firstHostBackoff // the sender lengthens it while the relay stays down
	case code < 500:
		e.Class, e.RetryAfter = Temporary, retryHint(enhanced, reply)
		if phase == Greeting || phase == Login {
			e.Class = HostDown
		}
	case phase == Greeting || phase == Login || isLogin(code, enhanced):
		e.Class, e.RetryAfter = Misconfigured, configBackoff
	case enhanced[1] == 7:
		e.Class, e.RetryAfter = Reputation, reputationPause
	case phase == Mail && code != 552 && enhanced[1] != 3: // 552 and 5.3.x are about the size
		e.Class, e.RetryAfter = Misconfigured, configBackoff // our sender address, or nothing that the letter can help
	case isMailbox(enhanced):
		e.Class = Address
	default:
		e.Class = Refused
	}
	return e
}

// isMailbox reports whether a status says that the mailbox, or its domain, does
// not exist: 5.1.1, 5.1.2, 5.1.10 (null MX), 5.2.1 (RFC 3463, RFC 7505).
func isMailbox(enhanced [3]int) bool {
	switch enhanced {
	case [3]int{5, 1, 1}, [3]int{5, 1, 2}, [3]int{5, 1, 10}, [3]int{5, 2, 1}:
		return true
	}
	return false
}

// isLogin reports whether a reply asks for a login or for TLS (RFC 4954
// section 6, RFC 3207 section 4).
func isLogin(code int, enhanced [3]int) bool {
	switch code {
	case 530, 534, 535, 538:
		return true
	}
	switch enhanced {
	case [3]int{5, 7, 8}, [3]int{5, 7, 9}, [3]int{5, 7, 11}:
		return true
	}
	return false
}

// hint finds "try again in 300 seconds" in a reply.
var hint = regexp.MustCompile(`(?i)\b(\d{1,5}) ?(s|sec|secs|second|seconds|m|min|mins|minute|minutes)\b`)

// retryHint returns how long a 4xx asks us to wait: what it says in words, or
// what its kind usually needs.
func retryHint(enhanced [3]int, reply string) time.Duration {
	wait := greylistWait
	if enhanced[1] == 2 { // the mailbox: full, usually
		wait = mailboxFullWait
	}
	if m := hint.FindStringSubmatch(reply); m != nil {
		n, err := strconv.Atoi(m[1])
		if err == nil && n > 0 {
			unit := time.Second
			if m[2][0] == 'm' || m[2][0] == 'M' {
				unit = time.Minute
			}
			wait = time.Duration(n) * unit
		}
	}
	return min(max(wait, time.Minute), longestHint)
}
