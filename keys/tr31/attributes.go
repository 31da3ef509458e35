package tr31

import (
	"fmt"

	"keyd.dev/keyd/keys"
)

// HashBlock is the optional block that names the hash of an HMAC key.
// X9.143, section 6.3.6.
const HashBlock = "HM"

var hashes = map[string]keys.Algorithm{
	"20": keys.HMACSHA224,
	"21": keys.HMACSHA256,
	"22": keys.HMACSHA384,
	"23": keys.HMACSHA512,
}

// KeyAlgorithm returns the algorithm of a key of n bytes under this header. It
// returns [ErrHeader] for an algorithm that keyd has no keys of, a length that
// its keys do not have, and an HMAC key without its [HashBlock].
func (h *Header) KeyAlgorithm(n int) (keys.Algorithm, error) {
	for _, a := range keys.Algorithms() {
		if !a.IsHMAC() && a.TR31() == h.Algorithm && a.KeyBytes() == n {
			return a, nil
		}
	}
	if h.Algorithm == 'H' {
		name, _ := h.Find(HashBlock)
		if a, ok := hashes[name]; ok {
			return a, nil
		}
		return 0, fmt.Errorf("%w: HMAC key without optional block %s of value 20 to 23", ErrHeader, HashBlock)
	}
	return 0, fmt.Errorf("%w: no key of algorithm %q has this length", ErrHeader, h.Algorithm)
}

// Attributes returns the attributes of a key of n bytes under this header. It
// returns [ErrHeader], or [keys.ErrAttributes] for usage, algorithm and mode
// that do not go together in keyd.
func (h *Header) Attributes(n int) (keys.Attributes, error) {
	algorithm, err := h.KeyAlgorithm(n)
	if err != nil {
		return keys.Attributes{}, err
	}
	a := keys.Attributes{Usage: h.Usage, Algorithm: algorithm, Mode: h.Mode, Exportability: h.Exportability}
	return a, a.Validate()
}

// NewHeader returns the header of a block under a KBPK of algorithm kbpk, for a
// key with these attributes: version B under TDES, D under AES, key version
// "00", and for HMAC the [HashBlock].
func NewHeader(a keys.Attributes, kbpk keys.Algorithm) Header {
	h := Header{
		Version:       VersionB,
		Usage:         a.Usage,
		Algorithm:     a.Algorithm.TR31(),
		Mode:          a.Mode,
		KeyVersion:    "00",
		Exportability: a.Exportability,
	}
	if kbpk.IsAES() {
		h.Version = VersionD
	}
	for name, hash := range hashes {
		if hash == a.Algorithm {
			h.Optional = []Optional{{HashBlock, name}}
		}
	}
	return h
}

// CheckStrength returns [ErrStrength] when a key of algorithm carried is
// stronger than the KBPK of algorithm kbpk: section 8.4 of the API. HMAC keys
// travel under AES-256 only.
func CheckStrength(carried, kbpk keys.Algorithm) error {
	strong := false
	switch {
	case carried == keys.TDES2:
		strong = kbpk.IsTDES() || kbpk.IsAES()
	case carried == keys.TDES3:
		strong = kbpk == keys.TDES3 || kbpk.IsAES()
	case carried.IsAES():
		strong = kbpk.IsAES() && kbpk.KeyBytes() >= carried.KeyBytes()
	case carried.IsHMAC():
		strong = kbpk == keys.AES256
	}
	if !strong {
		return fmt.Errorf("%w: %s under %s", ErrStrength, carried, kbpk)
	}
	return nil
}
