// Package smpptest is a mobile operator in a box: an SMSC that behaves as well
// or as badly as it is told to.
//
// An [SMSC] listens and is bound to; a [Gateway] binds to somebody else's
// server as an operator's gateway does. Behind both stands the same [Operator]:
// it accepts messages, gives them ids, sends receipts, throttles, fails, falls
// silent, dials USSD codes, and shows every SMS with its parts joined, as a
// phone would.
//
// The sessions are those of package smpp, so that an honest operator is really
// honest. What no honest session would do — wrong sequence numbers, garbage,
// split frames, connections that are half open — is done to the octets on their
// way out by the line below the session.
//
// Everything that is left to chance is drawn from a seed and the number of the
// message or frame, so that the same traffic meets the same accidents again.
// What passes over the lines can be recorded and replayed.
//
// The package is for tests, for load and for trying things out by hand. It
// keeps messages in memory and shows their texts to whoever asks.
package smpptest
