// Package pin is the PIN block formats 0, 1, 3 and 4 of ISO 9564-1, the
// translation between them, and out of four formats of before ISO 9564.
//
// A PIN block has three forms here. A [PIN] is the digits. A [Field] is the
// digits in their format, clear: 8 bytes, or the 16-byte PIN field of format 4.
// A block is the field enciphered, as it travels.
//
//	PIN   → [Encode] →   Field   → [Encipher] →   block
//	PIN   ← [Decode] ←   Field   ← [Decipher] ←   block
//	block → [Translate] → block of another key or format
//
//	format  block  PAN  filler
//	0       8      yes  F
//	1       8      no   random
//	3       8      yes  random, A to F
//	4       16     yes  A, then 8 random bytes; AES, two encipherments
//
// Ciphers stand behind [Encrypter] and [Decrypter], which token keys satisfy.
// The package keeps no key.
//
// # What a wrong block tells
//
// A block under a wrong key, or a made-up one, deciphers to something. Whether
// that is a control nibble, a length, a digit or a filler that does not fit is
// an oracle for whoever sends blocks. So every such fault is [ErrBlock], the
// same value each time, found in the same time; and [Translate] does the whole
// work, with a substitute in place of the PIN, before it says so.
//
// # Which translations there are
//
// Formats 0, 3 and 4 bind the PIN to its PAN. [CheckTranslation] refuses to
// lose that bond (to format 1) or to change the PAN. ISO 9564-1, clause 9.
//
// Terminals of before ISO 9564 send [ECI2], [ECI3], [VISA2] or [VISA3]. They are
// read where [Side.Legacy] permits it, and never written.
package pin
