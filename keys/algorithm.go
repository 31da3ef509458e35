package keys

import "fmt"

// algorithmNames are the API's words for the algorithms.
var algorithmNames = [...]string{
	TDES2:      "TDES_2KEY",
	TDES3:      "TDES_3KEY",
	AES128:     "AES_128",
	AES192:     "AES_192",
	AES256:     "AES_256",
	HMACSHA224: "HMAC_SHA224",
	HMACSHA256: "HMAC_SHA256",
	HMACSHA384: "HMAC_SHA384",
	HMACSHA512: "HMAC_SHA512",
}

// algorithmBytes are the lengths of the keys that keyd makes.
var algorithmBytes = [...]int{
	TDES2: 16, TDES3: 24,
	AES128: 16, AES192: 24, AES256: 32,
	HMACSHA224: 32, HMACSHA256: 32, HMACSHA384: 48, HMACSHA512: 64,
}

// Algorithms lists every algorithm, in the order of the constants.
func Algorithms() []Algorithm {
	return []Algorithm{TDES2, TDES3, AES128, AES192, AES256, HMACSHA224, HMACSHA256, HMACSHA384, HMACSHA512}
}

// String returns the API's word, "TDES_2KEY" for example, or "Algorithm(n)"
// for a value that is none.
func (a Algorithm) String() string {
	if !a.known() {
		return fmt.Sprintf("Algorithm(%d)", uint8(a))
	}
	return algorithmNames[a]
}

// ParseAlgorithm is the inverse of [Algorithm.String]. It returns
// [ErrAttributes] for any other word.
func ParseAlgorithm(word string) (Algorithm, error) {
	for _, a := range Algorithms() {
		if algorithmNames[a] == word {
			return a, nil
		}
	}
	return 0, fmt.Errorf("%w: unknown algorithm %q", ErrAttributes, word)
}

// KeyBytes is the length of a key as keyd makes it; HMAC keys from outside may
// have another, see [CheckMaterial]. 0 for an unknown algorithm.
func (a Algorithm) KeyBytes() int {
	if !a.known() {
		return 0
	}
	return algorithmBytes[a]
}

// BlockSize is 8 (TDES) or 16 (AES) bytes, and 0 for HMAC.
func (a Algorithm) BlockSize() int {
	switch {
	case a.IsTDES():
		return 8
	case a.IsAES():
		return 16
	}
	return 0
}

// IsTDES reports whether a is TDES with two or three keys.
func (a Algorithm) IsTDES() bool { return a == TDES2 || a == TDES3 }

// IsAES reports whether a is AES with any length.
func (a Algorithm) IsAES() bool { return a == AES128 || a == AES192 || a == AES256 }

// IsHMAC reports whether a is HMAC with any hash.
func (a Algorithm) IsHMAC() bool { return a >= HMACSHA224 && a <= HMACSHA512 }

// TR31 returns the algorithm character of a key block header: 'T', 'A', 'H',
// or 0 for an unknown algorithm. X9.143, table of algorithms.
func (a Algorithm) TR31() byte {
	switch {
	case a.IsTDES():
		return 'T'
	case a.IsAES():
		return 'A'
	case a.IsHMAC():
		return 'H'
	}
	return 0
}

func (a Algorithm) known() bool { return a >= TDES2 && a <= HMACSHA512 }
