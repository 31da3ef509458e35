package keys

import "errors"

// ErrSameLMK: the value is the local master key of a generation that the token
// holds already.
var ErrSameLMK = errors.New("keys: this local master key is there already")

// LMK is a generation of the local master key as a token holds it. A block
// says in [Block.LMK] which one it is under.
type LMK struct {
	Generation uint32
	// Check is the check value, the same in every token that holds this
	// generation: see LMKCheck of package hsm. Zero unless Whole.
	Check KCV
	// Whole is false for what an interrupted addition or retirement has left:
	// no block is or can be under it.
	Whole bool
}

// Rewrapped is a block under the newest local master key, or why there is none.
type Rewrapped struct {
	Block *Block
	Err   error
}
