// Package email sends one letter to one address over SMTP, says what became of
// it, and takes the bounces that come back later. It knows nothing of children
// or subscriptions.
//
// # Sending
//
// A [Sender] hands letters to one relay (a smarthost). It keeps a few
// connections open and sends many letters over each, one envelope per letter,
// and never more than a few at once to the same destination domain. Every phase
// of a dialogue has a time limit, every single write too, so that a peer that
// stops reading cannot hold a worker.
//
// The outcome is an [Error] of a closed set of classes, decided where the reply
// is read:
//
//	Address        the mailbox does not exist; only these may suppress an address
//	Reputation     the destination refuses us; it is paused, no address is at fault
//	Temporary      not now; try again no sooner than RetryAfter
//	HostDown       the relay is not there; nothing was sent, the letter is untouched
//	Unknown        the final dot was written and no answer came: it may have been sent
//	Misconfigured  our login, our certificate check, our sender address; somebody must act
//	Refused        this letter is not wanted, for a reason that is not the mailbox
//
// After Unknown the letter may be sent once more: it is built the same way again,
// with the same Message-ID, by which the reader's side recognises it. The Sender
// itself never sends a letter twice.
//
// Nothing of a letter is written in the clear when TLS is demanded: a relay that
// does not offer STARTTLS, or shows a wrong certificate, is an error before the
// first MAIL.
//
// # Bounces
//
// The envelope sender of each letter names the letter and is signed
// ([ReturnPath]). An [Intake] listens there for delivery status notifications
// (RFC 3464). It believes no address and no header inside a notification, only
// the signed recipient it was sent to; anything else is refused and counted.
package email

import "time"

// Limits of sending.
const (
	defaultConnections    = 8 // open to the relay; a smarthost usually allows 10 to 20 per client
	defaultPerDestination = 4 // letters at once to one domain; large providers refuse bursts of more
	lettersPerConnection  = 100
	idleLife              = 60 * time.Second // a connection without work; below the 300 s after which Postfix closes

	quitTime = time.Second // for the good-bye, which nobody needs to wait for

	longestLetter = 512 << 10 // octets of a built letter; a digest of six children is 30 KiB

	firstHostBackoff   = 2 * time.Second // doubling, while the relay is down
	longestHostBackoff = 5 * time.Minute
	configBackoff      = 5 * time.Minute // after a refused login or certificate: often enough to notice the repair

	greylistWait    = 5 * time.Minute  // after a 4xx without a hint of its own
	longestHint     = 30 * time.Minute // of what a relay may ask us to wait
	mailboxFullWait = 15 * time.Minute
	unknownWait     = 10 * time.Minute // before the one repetition of an unknown letter
	reputationPause = time.Hour        // for a destination that refused us with 5.7.x
)

// times are the time limits of a dialogue. RFC 5321 section 4.5.3.2 recommends
// minutes for each; a relay of ours that takes that long is down for us, and
// letters about a pass live for fifteen minutes.
type times struct {
	dial    time.Duration
	command time.Duration // one command and its reply, the greeting and the handshake included
	write   time.Duration // one write, while the peer reads nothing
	final   time.Duration // the reply to the final dot; relays scan before they give it
	letter  time.Duration // the whole transaction
}

func defaultTimes() times {
	return times{
		dial: 10 * time.Second, command: 30 * time.Second, write: 30 * time.Second,
		final: 60 * time.Second, letter: 3 * time.Minute,
	}
}

// Limits of the intake of bounces.
const (
	maxBounce       = 1 << 20 // octets; a notification usually has the letter inside
	maxStatusPart   = 64 << 10
	maxGroups       = 16 // recipients in one notification; ours has one
	maxParts        = 16
	maxBouncePeers  = 64 // connections at once
	bounceReadTime  = 60 * time.Second
	bounceWriteTime = 30 * time.Second
	bounceStoreTime = 20 * time.Second // for the callback that stores it
	bouncePeerTime  = 10 * time.Minute // of one connection, so that idlers cannot keep all places
)
