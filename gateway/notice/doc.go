// Package notice turns facts into deliveries: who is told what, by which
// channel, in which words, or why not.
//
// A fact (a pass, a sale, a top-up, a threshold crossed) was written in one
// transaction together with the River job that names it. A worker of this
// package takes the jobs of a moment together, and in a second transaction
// walks them through the stages (notices.md), each for the whole batch at once:
//
//	listeners   consent live? right to know? (access.Audience)
//	wishes      which topic, by which channel, now? (subscription.Wishes)
//	fresh       is it still news?
//	quiet       may it wait until the quiet hours end?
//	health      opted out, or a dead number?
//	fallback    the recipient's next channel takes over, or has a spare ready
//	cap         at most so many messages to a phone a day: what siblings share takes
//	            one place, what joins a message that still waits takes none
//	merge       siblings through one door share one message, or join one that waits
//	render      one text per recipient, in their language
//	enqueue     deliveries and send jobs
//	record      what each recipient was told, or the stage's reason
//
// Each stage that says no leaves its [Reason]. The last statement of the
// transaction inserts the records, whose primary key lets a fact, a recipient,
// a child, a topic and a channel name at most one message: a repeated job finds
// the facts told, two racing ones cannot both commit.
//
// An alarm (D10) is news like any other, but goes to every legal representative
// by every address, whatever they have subscribed to, above the cap and at once.
//
// Digests of the day and the week are no facts but looks back. [Teller.RunDigests]
// composes them for everybody who wants one, in batches of recipients, with a
// fixed number of statements for each batch; the primary key of notice.digest is
// the promise that a recipient gets one per kind and day.
package notice
