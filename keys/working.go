package keys

import "keyd.dev/keyd/internal/secret"

// Wanted asks for one key of many that are made together.
type Wanted struct {
	Template Block // as for a single key
	// Value is the clear value of a key that comes from outside; empty for a
	// new one. It is the caller's to clear.
	Value secret.Bytes
	// Single asks for a new key of single length, held as K ‖ K, with which
	// TDES is DES: some terminals have no better MAC key.
	Single bool
}

// Made is a key that was made with others.
type Made struct {
	Block *Block
	// Print is what the key makes of two fixed blocks. It tells two keys of one
	// algorithm apart where a check value of three bytes is too short. Whoever
	// keeps it keeps it under another key: a guess at a short key could be
	// tried against it.
	Print     []byte
	InProcess bool // the clear value crossed this process
}

// PrintData is what [Made.Print] is the encipherment of, in ECB: a block of
// zeros and a block of ones.
func PrintData(a Algorithm) []byte {
	data := make([]byte, 2*a.BlockSize())
	for i := range data[a.BlockSize():] {
		data[a.BlockSize()+i] = 1
	}
	return data
}

// Cryptogram is a TDES working key of 16 bytes under a terminal's master key:
// each half for itself, as UnionPay's sign-in answer carries it. The halves of
// a single-length key are equal.
type Cryptogram struct {
	Value [16]byte
	Check [4]byte // of [CheckUnionPay]
}
