// Package ceremony carries out key ceremonies: what two or more persons do
// together, so that a key enters, leaves, changes or ends without anyone ever
// holding the whole of it.
//
// A [Script] says what will happen; [Script.Explain] says it in plain words.
// The [Engine] lives in the daemon and keeps a ceremony in memory alone: it
// forgets everything when the ceremony ends, fails, takes too long, or the
// process ends. Persons reach it through [Engine.Handler] over mutual TLS, each
// with an own certificate; [Client] and [Desk] are their side.
//
// A component is in the clear in three places: on the custodian's screen or
// keyboard, in a [secret.Bytes] of the custodian's process, and in one of the
// engine's for as long as a check value or a combination takes. Everywhere
// else it is sealed: by HPKE (RFC 9180) between the two, to an age recipient of
// that custodian in a file.
package ceremony
