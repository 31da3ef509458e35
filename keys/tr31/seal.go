package tr31

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"strings"

	"keyd.dev/keyd/internal/secret"
	"keyd.dev/keyd/keys"
)

// Seal returns the block of a key under kbpk, of algorithm a: version B or D.
// The enciphered part is filled from random up to the length of the longest
// key of the family, so that it does not tell the key's; see [NewHeader] for
// the header. Key and KBPK stay as they are. It returns [ErrVersion],
// [ErrHeader], [ErrStrength], the error of random or of the KBPK. X9.143,
// sections 7.2 and 7.3.
func Seal(kbpk keys.Key, a keys.Algorithm, h Header, key secret.Bytes, random io.Reader) (string, error) {
	if err := checkVersion(h.Version, a); err != nil {
		return "", err
	}
	carried, err := h.KeyAlgorithm(key.Len())
	if err != nil {
		return "", err
	}
	if err := CheckStrength(carried, a); err != nil {
		return "", err
	}
	data, err := pack(key, carried, h.Version, random)
	if err != nil {
		return "", err
	}
	defer secret.Clear(data)
	header, err := h.marshal(2 * (len(data) + h.Version.macBytes()))
	if err != nil {
		return "", err
	}
	bk, err := newBlockKeys(kbpk, a)
	if err != nil {
		return "", err
	}
	defer bk.close()
	authentic := append([]byte(header), data...)
	defer secret.Clear(authentic)
	mac, err := bk.auth.CMAC(authentic)
	if err != nil {
		return "", fmt.Errorf("tr31: authenticating: %w", err)
	}
	sealed, err := bk.enc.Encrypt(mac, data)
	if err != nil {
		return "", fmt.Errorf("tr31: enciphering: %w", err)
	}
	return header + strings.ToUpper(hex.EncodeToString(append(sealed, mac...))), nil
}

// pack returns the clear data: length in bits, key, filler.
func pack(key secret.Bytes, carried keys.Algorithm, v Version, random io.Reader) ([]byte, error) {
	n := 2 + max(key.Len(), longest(carried))
	size := v.blockSize()
	data := make([]byte, (n+size-1)/size*size)
	binary.BigEndian.PutUint16(data, uint16(8*key.Len()))
	filler := data[2+copy(data[2:], key.Reveal()):]
	if _, err := io.ReadFull(random, filler); err != nil {
		secret.Clear(data)
		return nil, fmt.Errorf("tr31: filler: %w", err)
	}
	return data, nil
}

// longest is the length of the longest key of the algorithm's family.
func longest(a keys.Algorithm) int {
	switch {
	case a.IsTDES():
		return keys.TDES3.KeyBytes()
	case a.IsAES():
		return keys.AES256.KeyBytes()
	}
	return keys.HMACSHA512.KeyBytes()
}
