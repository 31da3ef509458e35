package keys

import (
	"crypto/subtle"
	"encoding/hex"
	"fmt"
	"strings"
)

// KCV is a key check value: the leftmost three bytes of what the key makes of
// nothing. It is public, yet compared in constant time.
type KCV [3]byte

// String returns six upper-case hexadecimal digits.
func (v KCV) String() string { return strings.ToUpper(hex.EncodeToString(v[:])) }

// Equal reports in constant time whether both are the same.
func (v KCV) Equal(w KCV) bool { return subtle.ConstantTimeCompare(v[:], w[:]) == 1 }

// ParseKCV reads six hexadecimal digits of either case. It returns [ErrCheckValue].
func ParseKCV(text string) (KCV, error) {
	var v KCV
	if len(text) != 2*len(v) {
		return KCV{}, fmt.Errorf("%w: %d characters, want %d hexadecimal digits", ErrCheckValue, len(text), 2*len(v))
	}
	if _, err := hex.Decode(v[:], []byte(text)); err != nil {
		return KCV{}, fmt.Errorf("%w: want %d hexadecimal digits", ErrCheckValue, 2*len(v))
	}
	return v, nil
}

// checkNames are the API's words for the methods.
var checkNames = map[CheckMethod]string{
	CheckByZeros: "ANSI_X9_24",
	CheckByCMAC:  "CMAC",
	CheckByHMAC:  "HMAC",
}

// String returns the API's word: "ANSI_X9_24", "CMAC" or "HMAC".
func (m CheckMethod) String() string {
	if name, ok := checkNames[m]; ok {
		return name
	}
	return fmt.Sprintf("CheckMethod(%d)", byte(m))
}

// ParseCheckMethod is the inverse of [CheckMethod.String]. It returns
// [ErrCheckValue] for any other word.
func ParseCheckMethod(word string) (CheckMethod, error) {
	for m, name := range checkNames {
		if name == word {
			return m, nil
		}
	}
	return 0, fmt.Errorf("%w: unknown method %q", ErrCheckValue, word)
}

// CheckMethod returns the method that is the default for keys of a: zeros for
// TDES, CMAC for AES, HMAC for HMAC.
func (a Algorithm) CheckMethod() CheckMethod {
	switch {
	case a.IsTDES():
		return CheckByZeros
	case a.IsAES():
		return CheckByCMAC
	}
	return CheckByHMAC
}

// CheckableBy reports whether a key of a has a check value by method m: zeros
// and CMAC for the block ciphers, HMAC for HMAC keys, and nothing else.
func (a Algorithm) CheckableBy(m CheckMethod) bool {
	if a.IsHMAC() {
		return m == CheckByHMAC
	}
	return a.known() && (m == CheckByZeros || m == CheckByCMAC)
}

// BlockEncrypter is what a check value over zeros needs of a key. [Key] has it.
type BlockEncrypter interface {
	BlockSize() int
	Encrypt(iv, src []byte) ([]byte, error)
}

// MACer is what a check value by CMAC needs of a key. [Key] has it.
type MACer interface {
	BlockSize() int
	CMAC(msg []byte) ([]byte, error)
}

// CheckZeros returns the check value over zeros: the first three bytes of one
// enciphered block of zeros. Errors are those of the key. ANSI X9.24-1, annex A.
func CheckZeros(k BlockEncrypter) (KCV, error) {
	var v KCV
	err := encryptZeros(k, v[:])
	return v, err
}

// CheckUnionPay returns the four bytes that UnionPay's sign-in answer carries
// beside a working key: the first four of one enciphered block of zeros.
func CheckUnionPay(k BlockEncrypter) ([4]byte, error) {
	var v [4]byte
	err := encryptZeros(k, v[:])
	return v, err
}

// CheckCMAC returns the check value by CMAC: the first three bytes of the CMAC
// of one block of zeros, never of the empty message. Errors are those of the key.
// ANSI X9.24-1:2017, annex A; NIST SP 800-38B.
func CheckCMAC(k MACer) (KCV, error) {
	var v KCV
	err := macZeros(k, v[:])
	return v, err
}

// CheckCMAC5 returns the five-byte form of the check value by CMAC.
// ANSI X9.24-1:2017, annex A.
func CheckCMAC5(k MACer) ([5]byte, error) {
	var v [5]byte
	err := macZeros(k, v[:])
	return v, err
}

// CheckHMAC returns the check value of an HMAC key: the first three bytes of
// the HMAC of the empty message. Errors are those of the key.
func CheckHMAC(k HMACKey) (KCV, error) {
	var v KCV
	mac, err := k.HMAC(nil)
	if err != nil {
		return v, fmt.Errorf("keys: check value by HMAC: %w", err)
	}
	copy(v[:], mac)
	return v, nil
}

// Check returns the check value of k by method m. k must be able to do what
// the method needs: encipher, CMAC, or, as an [HMACKey], HMAC. It returns
// [ErrCheckValue] for a method that k has not, or the key's errors.
func Check(k Key, m CheckMethod) (KCV, error) {
	switch m {
	case CheckByZeros:
		return CheckZeros(k)
	case CheckByCMAC:
		return CheckCMAC(k)
	case CheckByHMAC:
		if h, ok := k.(HMACKey); ok {
			return CheckHMAC(h)
		}
	}
	return KCV{}, fmt.Errorf("%w: the key has no check value by %s", ErrCheckValue, m)
}

func encryptZeros(k BlockEncrypter, dst []byte) error {
	out, err := k.Encrypt(nil, make([]byte, k.BlockSize()))
	if err != nil {
		return fmt.Errorf("keys: check value over zeros: %w", err)
	}
	copy(dst, out)
	return nil
}

func macZeros(k MACer, dst []byte) error {
	out, err := k.CMAC(make([]byte, k.BlockSize()))
	if err != nil {
		return fmt.Errorf("keys: check value by CMAC: %w", err)
	}
	copy(dst, out)
	return nil
}
