// Package delivery sends one message to one address and knows what became of
// it: it sends, retries, gives up, and settles by receipt.
//
// The rows of delivery.delivery are the truth. A River job ([SMSArgs],
// [MailArgs], [PushArgs]) carries only the ids of a batch and their common time, so that a
// job of two hundred messages costs what a job of one does.
//
// An SMS goes through these states:
//
//	queued ──► sending ──► sent ──► delivered
//	  ▲  │        │ │        └────► failed
//	  │  └► stale │ └► unknown ──► (sent, delivered, queued once more, or it stays)
//	  └───────────┘
//
// The promises:
//
//   - A row is 'sending' in the database before its PDU is written. After a
//     crash such a row is an unknown outcome, never a fresh message.
//   - A link pulls: messages are marked 'sending' only as fast as the operator's
//     queue has room, by one [pump] per operator, whatever the number of jobs. A
//     link that is down pulls nothing, and its messages stay as they are.
//   - A message past its life is not sent; it becomes 'stale' and a line of the
//     digest.
//   - What the operator answered is written in batches, in one transaction with
//     the retry it leads to.
//   - A receipt is stored before it is acknowledged. It is matched to its part
//     from both sides, so it may come before the answer it belongs to. A final
//     state is never overwritten by an intermediate one.
//   - A sent message whose receipts say only that it is on its way, or that the
//     operator does not know, is 'unproved' a day after the last of them. A final
//     receipt that comes later still settles it.
//   - An unknown outcome is resolved by a late answer or by the receipt, else by
//     the class of the news ([Again]): never, once within its life, or once
//     after ten minutes.
//   - A message that fails for good, or an SMS or push message without the proof
//     of its delivery for its recipient's patience, goes to the next channel once, within its life, as a delivery of
//     its own that its [Trail] leads to.
//   - A recalled message that has not left does not leave; see [Recall].
//   - A message that has waited is asked about again before it leaves: it is
//     recalled when its recipient may not know of the children any more, and goes
//     to the phone or mailbox that the recipient has by then.
package delivery
