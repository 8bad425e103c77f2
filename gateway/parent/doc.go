// Package parent is the parents' API, /api/v1/parent/… (contract.md section 8):
// what a representative may see and do, over HTTP as JSON. The portal's pages and
// a mobile application (R11) stand on it.
//
// It decides nothing. Who may know of a child is access's to say, what a change
// means is said by the package that owns what is changed; here a request is read,
// the owner is asked, the look is written to the access log, and the answer is
// put into words of the OpenAPI document.
//
// The promises:
//
//   - A child, an order or a person that is not the asker's is answered exactly
//     like one that does not exist: 404 and the same body.
//   - Nothing of a child is shown before the look is on record (D14).
//   - Asking for a code takes the same work, and so the same time, and gets the
//     same answer for known and unknown phones: whether anybody is known is asked
//     by the job that draws the code, after the answer (D12 in spirit, V6.5).
//   - A right that is taken away is gone with the next request, and what was not
//     sent yet is not sent.
//   - What a parent has just done is there at once, and so is the money just paid
//     in. Rights, settings, orders and balances are the primary's. Visits, meals
//     and movements come from Config.Read, which may be a replica and so a few
//     seconds old; movements that lack the last one that the balance counts are
//     read from the primary.
//   - A change by cookie comes from our own pages: another origin is refused.
//
// Logs carry ids and routes. Codes, tokens, names and phones stand in none.
package parent
