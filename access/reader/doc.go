// Package reader takes in what doors, tills and staff tablets report, and
// answers what they ask.
//
// A device may be offline for days and upload late, repeatedly and in any
// order. It numbers its own events; (device, number) names an event for ever.
// An upload goes through these steps:
//
//  1. Limits, before anything is read: declared size, encoding, the number of
//     uploads under way. Then the key, then the body.
//  2. The body is parsed. What is not the document of the OpenAPI description is
//     refused as a whole, with the path of the first mistake. What an event says
//     and cannot be (an unknown card, a total that is not the sum) rejects that
//     event only.
//  3. Concurrent uploads are gathered into one transaction: cards are resolved,
//     the gate (reader.event) lets each number through once, passes go to
//     [zvonok/access/door], sales to [zvonok/ledger/meal], rejected events to
//     quarantine, each by one statement for the whole batch.
//  4. After the commit every upload is answered.
//
// The promises:
//
//   - Acknowledged means committed, together with every notification it causes.
//   - A repeat of an event is answered as the first time and changes nothing.
//     The same number with another content is a conflict: the first content
//     stays, the other one is kept and reported.
//   - A rejected event is kept with its reason; it never holds up the others.
//     When the database refuses a batch because of one event, the batch is
//     halved until that event stands alone, and goes to quarantine.
//   - A sale is never lost: a clock that is wrong by years, or a sale older than
//     its reversal, changes when it counts, not whether.
//   - With the database away the answer is 503 with Retry-After, never a 2xx.
//   - Waiting work is bounded in uploads, for all and for each device.
//
// Logs carry ids of devices and events, never a card, a name or a body.
package reader
