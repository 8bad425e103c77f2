// Package topup lets banks and payment terminals top accounts up, and holds
// their registries against the books.
//
// Endpoints speaks the two families of protocols that Russian terminals use:
// OSMP (QIWI and its likes, R33) under /pay/osmp/PARTNER, and Sberbank's two
// protocols (R37, R38) under /pay/sber/PARTNER. A terminal first asks whether an
// account may be topped up and whose it is (check), then says that it has taken
// money (pay), and repeats that until it gets a final answer.
//
// # How a payment is booked
//
// Payments that arrive together are gathered into one transaction: read the
// wallets and what is known under these ids, insert the payments with the bytes
// of their answers, book them through ledger.Book. The answer leaves after the
// commit. A registry's forgotten payments go the same way.
//
// # Promises
//
//   - A payment is known by the partner and the partner's id alone, and is booked
//     once. A repeat gets the stored answer, however late; the same id with
//     another account or sum is a conflict and books nothing.
//   - The row of a payment and its posting are of one transaction. When the
//     commit's fate is unknown, the answer is temporary and the repeat finds the
//     truth.
//   - Money that a terminal has taken is not refused because of what became of
//     the account since the check: it goes to the suspense account (D13).
//   - Sums are decimal text and integers, never floating point.
//   - A check shows no more of a name than the partner's contract says (D5), and
//     someone who walks through account numbers is stopped and reported.
//   - No registry is taken twice, and each of its lines is in one state.
package topup

import (
	"time"

	"zvonok/ledger/money"
)

// Limits of the protocols.
const (
	// maxTxnDigits bounds a partner's id of a payment.
	maxTxnDigits = 20
	// maxTerminal bounds the id of a terminal, in bytes.
	maxTerminal = 64
	// maxQuery bounds the parameters of a request, in bytes: a hundred times
	// what any terminal sends.
	maxQuery = 16 << 10
	// maxSkew is how far the bank's clock may be off for its time to be taken
	// as the time of the payment in the book.
	maxSkew = 24 * time.Hour
	// recommended is the sum that a check recommends where the protocol has a place for it.
	recommended = 500 * money.Rouble
)

// The limits of a partner that does not set its own (R34). 15,000 roubles is
// what cash may be taken for without identification.
const (
	DefaultMin = 10 * money.Rouble
	DefaultMax = 15_000 * money.Rouble
)

// Time limits. A terminal waits 60 s for its answer; locks in the database give
// up after 10 s and statements after 30 s.
const (
	checkTimeout = 15 * time.Second
	payTimeout   = 25 * time.Second
)

// How payments are gathered: what comes while so many batches are under way is
// the next one. Nothing waits for company, which would only leave a core idle;
// and more batches at a time are smaller ones, each with the cost of a batch
// (BenchmarkPost: two make 1.4 times the postings that four make on two cores).
const (
	maxBatch      = 64
	parallelBatch = 2
)
