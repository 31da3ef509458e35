package hsm

import (
	"crypto"
	"crypto/subtle"
	"encoding/binary"

	"keyd.dev/keyd/internal/secret"
)

// openOAEP takes the message out of an encoded block em of RSAES-OAEP with an
// empty label and MGF1 of the same hash: for modules that do the RSA and not the
// hash. It destroys em. ok is false for every fault alike, and until that is
// known no step depends on what em holds. RFC 8017, section 7.1.2, step 3.
func openOAEP(hash crypto.Hash, em []byte) (message secret.Bytes, ok bool) {
	n := hash.Size()
	if len(em) < 2*n+2 {
		return secret.Bytes{}, false
	}
	seed, db := em[1:1+n], em[1+n:]
	maskMGF1(hash, seed, db)
	maskMGF1(hash, db, seed)
	empty := hash.New().Sum(nil)
	good := subtle.ConstantTimeByteEq(em[0], 0) & subtle.ConstantTimeCompare(db[:n], empty)

	// The message begins behind the first byte that is not zero, which must be one.
	rest := db[n:]
	looking, at := 1, 0
	for i, b := range rest {
		one, zero := subtle.ConstantTimeByteEq(b, 1), subtle.ConstantTimeByteEq(b, 0)
		at = subtle.ConstantTimeSelect(looking&one, i+1, at)
		good &= subtle.ConstantTimeSelect(looking&^one&^zero, 0, 1)
		looking = subtle.ConstantTimeSelect(one, 0, looking)
	}
	if good&^looking != 1 {
		secret.Clear(em)
		return secret.Bytes{}, false
	}
	message = secret.New(len(rest) - at)
	copy(message.Reveal(), rest[at:])
	secret.Clear(em)
	return message, true
}

// maskMGF1 XORs MGF1 of seed into out. RFC 8017, appendix B.2.1.
func maskMGF1(hash crypto.Hash, out, seed []byte) {
	var counter [4]byte
	var sum []byte
	defer func() { secret.Clear(sum) }()
	for i := uint32(0); len(out) > 0; i++ {
		binary.BigEndian.PutUint32(counter[:], i)
		h := hash.New()
		h.Write(seed)
		h.Write(counter[:])
		sum = h.Sum(sum[:0])
		out = out[subtle.XORBytes(out, out, sum):]
	}
}
