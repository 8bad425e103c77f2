// Package push shows a notification in one browser of a recipient: Web Push
// (RFC 8030), signed as RFC 8292 (VAPID) and encrypted for the browser alone as
// RFC 8291 asks. It knows nothing of children or subscriptions.
//
// # Browsers
//
// A browser that was allowed to show notifications registers where its push
// service takes messages for it ([Sender.Register]); its owner sees the list
// ([List]) and takes one off it ([Remove]). The page subscribes with the key of
// [Sender.PublicKey] as applicationServerKey. A browser whose service says that
// it is gone (404, 410) is forgotten, and so is one that refuses everything.
//
// # Sending
//
// A [Sender] posts a message to a browser's push service and says what became of
// it by an [Error] of a closed set of classes:
//
//	Gone           the browser is not there any more; it is forgotten
//	Refused        the service does not want this message, and never will
//	Temporary      not now (429, 5xx); try again no sooner than RetryAfter
//	HostDown       the service does not answer
//	Misconfigured  it does not take our signature (401, 403); somebody must act,
//	               unless it takes it for other browsers: then this one is Refused
//
// A service that asked us to wait is left alone until then, whatever the
// message; for a signature that one browser does not take no other waits. A message may be sent again after any of these: its topic replaces
// what still waits at the service, its tag what the screen already shows.
//
// An endpoint comes from outside, and we are to call it: so only https to the
// hosts of known push services is allowed, no port but 443, no redirect, no
// proxy, and never an address that is not public, whatever the name resolves to.
//
// # What a browser gets
//
// The payload is a JSON object, no more than an SMS would show:
//
//	{"body":"Вход 08:15 Маша П.","tag":"n5k","at":1795504503,"ack":"AAAA…"}
//
// The service worker shows body, with tag, so that a repetition replaces its
// first copy, and posts to [AckPath] followed by ack, without cookies and with an
// empty body: the proof that the message has been shown, for want of which it
// goes to the recipient's next channel.
package push

import "time"

// AckPath is where a service worker says that it has shown a message.
const AckPath = "/push/ack/"

// Limits of the package.
const (
	maxBrowsers  = 10   // of one recipient; the longest unheard of go first
	maxURL       = 1024 // octets of an endpoint; those of services have 100 to 700
	maxDevice    = 200  // characters of what a browser calls itself
	maxRefusals  = 5    // refusals in a row before a browser is forgotten
	maxPayload   = 2048 // octets; the encrypted record is padded to 4096, so that its length tells nothing
	maxAnswer    = 4096 // octets read of a service's answer
	longestHint  = 30 * time.Minute
	usualWait    = 30 * time.Second // after a "not now" without a hint of its own
	configWait   = 5 * time.Minute
	callTime     = 15 * time.Second // for one message; services answer in tenths of a second
	dialTime     = 5 * time.Second
	idleTime     = 90 * time.Second
	callsPerHost = 32 // connections to one service; over HTTP/2 each carries many messages
	signatureAge = 12 * time.Hour
)
