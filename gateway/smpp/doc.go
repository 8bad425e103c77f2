// Package smpp speaks SMPP 3.4 with mobile operators: as the ESME that binds
// to an operator's SMSC and as the server to which an operator's gateway
// binds. It is the protocol and nothing else: which message goes where, what a
// refusal means for it and when it is tried again is decided by the caller.
//
// # Codec
//
// [Decode] turns one frame into a [PDU], [Append] writes one into the caller's
// buffer. A PDU that was decoded without a [DecodeError] and has no Tail
// encodes to the same octets. Unknown commands and unknown TLVs are kept as
// they came. A decoded PDU refers to the octets of its frame.
//
// # Session
//
// One [Session] type serves both ends of a link. One goroutine owns the
// reading of the socket, one the writing; a third keeps the timers; results of
// our requests and requests of the peer are handed out by one goroutine each,
// so that a slow handler delays neither the reading nor an enquire_link.
//
// The two directions have separate spaces of sequence numbers: a deliver_sm
// with the number of a waiting submit_sm is never taken for its answer.
//
// Every request accepted by [Session.Submit] ends in exactly one [Outcome]:
// answered, never written (it may be sent again without a second thought), or
// unknown (it was written and the answer did not come). The session knows
// which by counting octets: a request that starts behind the last octet the
// socket took was never written. An answer that comes after its request was
// given up is still handed over, through [SessionConfig.Late].
//
// The window is a semaphore: a full window waits, it is no error. Answers,
// enquire_link and USSD requests marked [Request.OutsideWindow] never wait for
// it.
//
// Requests of the peer go to [SessionConfig.Handle] and are answered when the
// handler calls [Inbound.Answer], from any goroutine and in any order, so a
// receipt is acknowledged only when it has been stored.
//
// # Strange peers
//
// Frames are cut before they are decoded. A PDU that cannot be decoded or is
// unknown is answered with an error and shown to [SessionConfig.Inspect], and
// the session goes on; only a length that makes the rest of the stream
// unreadable ends it. Memory grows with what has arrived, never with what a
// header claims.
package smpp
