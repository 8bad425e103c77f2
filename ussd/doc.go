// Package ussd holds dialogues with phones (R12, R50): somebody dials *377*888#, reads a screen, presses a key, reads
// the next. It knows how operators' gateways speak and nothing of what the screens say; those come from Config.Show,
// which is ussd/menu.
//
// # A message
//
// A message of an operator (Dial) or of an HTTP caller (Handler) becomes an event: a begin, an input, a confirmation or
// an abort of one phone on one link. Server.take decides at once, under one lock, what it means for the one dialogue
// the phone can have there: open it, replace it, go on with it, drop it, or nothing, because it is a repetition, comes
// too late, or is one of too many. If somebody has to be answered, a turn is queued at the link. A few workers take
// turns, from each link in its turn, ask the menu for a screen, cut it into a page (page.go), and hand the page to the
// link in the form its profile wants (profile.go, smpp.go). What becomes of the page comes back later, maybe only when
// the person has typed.
//
// # A dialogue
//
// It is known by its link and its phone. The session id that a gateway gives it is checked but never enough: gateways
// reuse ids and anybody can make one up. A begin makes a new dialogue, so that whatever belonged to the old one and
// comes late finds it over. A dialogue holds words and places, some 1.5 kB, and no goroutine, timer or connection while
// its person thinks; it ends by our last page, by hanging up, by an error for a page, by a new begin, after
// Link.TTL of silence, or when too many are open, the one heard of longest ago first.
//
// # Promises
//
//   - Nothing of one phone is shown to another, nor by another operator's link.
//   - A message is answered once at most, in the order of its dialogue, and within 5 seconds: if the menu takes longer
//     the dialogue is closed with "try later".
//   - Dial never waits, whatever the menu and the links do.
//   - Memory and queues are bounded; a flood of one phone or one link costs the others nothing but their share.
//   - A page holds what old phones show (70 characters, or 160 in the GSM alphabet), cut between words.
//   - An answer that was not shown follows by SMS, once, where the link's setting says so.
//   - A page is never sent twice, except to a gateway that asks again because the first did not get through.
package ussd
