// Package access knows the cards, the people around a child, and who of them
// may know of it.
//
// The question of rights has one definition, the SQL function access.rights in
// this package's migration, and three ways to ask it: [May] for one person and
// one child, [Audience] for everybody around many children, [ChildrenOf] for all
// children of one phone. The answer is yes when, at the moment asked about,
//
//   - the asker is a legal or a trusted representative of the child, whose right
//     has begun, has not ended and has not been taken away, and
//   - there is a live consent for that child, given by somebody who is its legal
//     representative at that moment (D14).
//
// A companion, who only leads a child to the kindergarten and home (R13), has no
// right to messages or views; whether a companion may lead is [MayLead].
//
// The promises:
//
//   - A withdrawal, an exclusion or an expiry works for the next question asked:
//     nothing is cached.
//   - Only a legal representative grants a right, and nobody can grant more than
//     a trusted person's (D12).
//   - What the parents took away, a repeated import does not bring back.
//   - An identifier of a card means something only inside one organisation, and
//     there one live card at a time (spec/door.md).
//   - What was done to a card or to a relation, by whom and when, is kept and
//     cannot be rewritten by the application; neither can the log of views.
//
// Phones are identities (D3). Logs carry ids; a [UID] logs itself masked.
package access
