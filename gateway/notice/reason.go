package notice

import (
	"zvonok/access"
	"zvonok/gateway/subscription"
)

// Topics lists every topic of news: those one may subscribe to, alarms, absences and stopped purchases.
func Topics() []subscription.Topic { return append(subscription.Topics(), Alarm, Absence, Blocked) }

// Reason is what became of a fact for one recipient and channel: [Told], or the
// stage that said no. The list is closed; it is a metric label and what explain
// prints.
type Reason string

// The reasons, in the order of the stages.
const (
	Told Reason = "told"

	NoListener   Reason = "no_listener"   // the child has no representative on record
	NotConsented Reason = "not_consented" // the live consent does not cover this kind of news
	// The verdicts of access, under their own names.
	NoConsent         = Reason(access.NoConsent)
	ConsentExpired    = Reason(access.ConsentExpired)
	ConsentWithdrawn  = Reason(access.ConsentWithdrawn)
	NotRepresentative = Reason(access.NotRepresentative)
	Removed           = Reason(access.Removed)
	Expired           = Reason(access.Expired)

	NotSubscribed Reason = "not_subscribed" // nothing is wanted now of this topic, and no digest of the child
	InDigest      Reason = "in_digest"      // not wanted now, but in a digest
	NoAddress     Reason = "no_address"     // wanted by e-mail or push, and there is none
	Stale         Reason = "stale"          // no longer news; a line of the digest, for who wants one
	Moved         Reason = "moved"          // "left", and into a sister building soon after
	OptedOut      Reason = "opted_out"      // the phone said STOP
	Unreachable   Reason = "unreachable"    // the address refused for good
	Unconfirmed   Reason = "unconfirmed"    // the phone may be in other hands than its owner's
	Capped        Reason = "capped"         // over the day's number of messages; a line of the day digest

	Nothing Reason = "nothing" // nothing happened to tell of in a digest
)

// Reasons lists every reason, for labels and tables.
func Reasons() []Reason {
	return []Reason{
		Told, NoListener, NotConsented, NoConsent, ConsentExpired, ConsentWithdrawn, NotRepresentative, Removed, Expired,
		NotSubscribed, InDigest, NoAddress, Stale, Moved, OptedOut, Unreachable, Unconfirmed, Capped, Nothing,
	}
}
