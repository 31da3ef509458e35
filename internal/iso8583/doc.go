// Package iso8583 reads and writes the messages of the switch links.
//
// It is strict: a message has one encoding, every field of it is named by the
// dialect, has the characters and the length that the dialect gives it, and
// stands in a message type that may carry it; no byte is left over. A
// [Message] keeps the bytes that came, and [Message.MACInput] is a slice of
// them: a MAC is never computed over a re-pack (ISO 16609).
//
// The package holds no keys and opens no connections. It tells a fault of
// format, which is a [FormatError] and answered with DE 39 = 30, from a MAC or
// a KSN that is absent or malformed, which a message may have and still be
// read whole; these come out of [Message.MAC] and [Message.KSN], and are
// answered with 63.
//
// Of github.com/moov-io/iso8583 the package uses the field definitions and the
// length prefixes. It does not use its Message: that re-packs, reads "+9" as a
// length, takes lower-case hex, ignores bytes after the last field and cannot
// say which slice of the input a field came from.
package iso8583
