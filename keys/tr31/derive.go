package tr31

import (
	"crypto/subtle"
	"encoding/binary"
	"fmt"

	"keyd.dev/keyd/internal/secret"
	"keyd.dev/keyd/keys"
)

// blockKeys are the two keys of a block, derived beside the KBPK.
type blockKeys struct {
	enc, auth keys.Derived
}

// What the derived keys are for. X9.143, section 7.2.1.
const (
	forEncryption     = 0x0000
	forAuthentication = 0x0001
)

// derivedAlgorithms are the algorithm indicators of the derivation input.
var derivedAlgorithms = map[keys.Algorithm]uint16{
	keys.TDES2: 0, keys.TDES3: 1, keys.AES128: 2, keys.AES192: 3, keys.AES256: 4,
}

func newBlockKeys(kbpk keys.Key, a keys.Algorithm) (*blockKeys, error) {
	subkey, err := kbpk.Encrypt(nil, make([]byte, a.BlockSize()))
	if err != nil {
		return nil, fmt.Errorf("tr31: subkeys of the protection key: %w", err)
	}
	defer secret.Clear(subkey)
	double(subkey)
	if a.IsAES() { // the input is less than a block and takes the second subkey
		double(subkey)
	}
	derive := func(purpose uint16, can keys.Ability) (keys.Derived, error) {
		data := derivationData(a, purpose, subkey)
		defer secret.Clear(data)
		return kbpk.Derive(data, keys.Spec{Algorithm: a, Can: can})
	}
	enc, err := derive(forEncryption, keys.CanEncrypt|keys.CanDecrypt)
	if err != nil {
		return nil, fmt.Errorf("tr31: deriving the encryption key: %w", err)
	}
	auth, err := derive(forAuthentication, keys.CanMAC)
	if err != nil {
		_ = enc.Close()
		return nil, fmt.Errorf("tr31: deriving the authentication key: %w", err)
	}
	return &blockKeys{enc, auth}, nil
}

// close gives both keys back. They are session objects, which end with their
// session whether or not they could be destroyed before.
func (b *blockKeys) close() {
	_ = b.enc.Close()
	_ = b.auth.Close()
}

// derivationData returns the blocks whose ECB encryption under the KBPK is the
// derived key: for each part of it, the last step of the CMAC of one input of
// eight bytes. X9.143, section 7.2.1; NIST SP 800-38B, section 6.2; SP 800-108.
func derivationData(a keys.Algorithm, purpose uint16, subkey []byte) []byte {
	size := a.BlockSize()
	parts := (a.KeyBytes() + size - 1) / size
	data := make([]byte, parts*size)
	for i := range parts {
		block := data[i*size : (i+1)*size]
		block[0] = byte(i + 1)
		binary.BigEndian.PutUint16(block[1:], purpose)
		binary.BigEndian.PutUint16(block[4:], derivedAlgorithms[a])
		binary.BigEndian.PutUint16(block[6:], uint16(8*a.KeyBytes()))
		if size > 8 {
			block[8] = 0x80
		}
		subtle.XORBytes(block, block, subkey)
	}
	return data
}

// double multiplies by x in the field of 2^64 or 2^128 elements, in constant
// time. NIST SP 800-38B, section 6.1.
func double(b []byte) {
	reduction := byte(0x1B)
	if len(b) == 16 {
		reduction = 0x87
	}
	carry := byte(0)
	for i := len(b) - 1; i >= 0; i-- {
		b[i], carry = b[i]<<1|carry, b[i]>>7
	}
	b[len(b)-1] ^= reduction & -carry
}

// VariantKeys returns the encryption and the authentication key of versions A
// and C: the KBPK with each byte XORed with 'E' and with 'M'. They are made
// where the clear KBPK is at hand, at import, and kept as companions of it. All
// three are the caller's to clear. X9.143, section 7.1.
func VariantKeys(kbpk secret.Bytes) (enc, auth secret.Bytes) {
	variant := func(constant byte) secret.Bytes {
		v := secret.New(kbpk.Len())
		for i, b := range kbpk.Reveal() {
			v.Reveal()[i] = b ^ constant
		}
		return v
	}
	return variant('E'), variant('M')
}
