// Package tr31 is the key blocks of ANSI X9.143 (TR-31): a key on its way from
// one party to another, enciphered and bound to what it may do.
//
//	version  binding      cipher  MAC of  MAC     here
//	A        variants     TDES    sealed  4       read, where a [Policy] allows it
//	B        derivation   TDES    clear   8       read and written
//	C        variants     TDES    sealed  4       read, where a [Policy] allows it
//	D        derivation   AES     clear   16      read and written
//
// A block is read in two steps. [Parse] takes its text apart, strictly and
// without a key. [Block.Open] checks the MAC and deciphers; whatever that
// reveals to be wrong is [ErrOpen] and nothing else. [Seal] makes a block.
//
// The key-block protection key (KBPK) is a [keys.Key] and stays where it is.
// The two keys of a block are derived beside it: their derivation is a CMAC of
// less than two blocks, which is one ECB encryption of a block that this
// package computes from one more. The carried key itself is clear in the
// process, because its MAC is over the clear value; the caller clears it.
//
// The keys of versions A and C are the KBPK XORed with a constant, which a
// token cannot make of a key that it does not give away: see [VariantKeys].
package tr31
