package tr31

import (
	"bytes"
	"crypto/subtle"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"strings"

	"keyd.dev/keyd/internal/secret"
	"keyd.dev/keyd/keys"
)

// Policy says which blocks are opened. The zero value is the rule of the API:
// versions B and D, and no key stronger than its KBPK.
type Policy struct {
	ReadA bool // version A too
	ReadC bool // version C too
	// AnyKey also opens blocks whose key is stronger than the KBPK, or of an
	// algorithm that keyd has no keys of.
	AnyKey bool
}

// Block is a key block taken apart. It holds nothing clear.
type Block struct {
	Header
	header []byte // as it came, optional blocks and all
	sealed []byte
	mac    []byte
}

// Parse takes a key block apart: its length field must be its length, its
// header and optional blocks well formed and whole blocks of the cipher, and
// the rest upper-case hexadecimal. No key is used. It returns [ErrShape] or, for
// an unknown version, [ErrVersion]. X9.143, sections 4 to 6.
func Parse(text string) (*Block, error) {
	if !printable(text) {
		return nil, fmt.Errorf("%w: a character is not printable ASCII", ErrShape)
	}
	h, n, err := parseHeader(text)
	if err != nil {
		return nil, err
	}
	length, ok := decimal(text[1:5])
	if !ok || length != len(text) {
		return nil, fmt.Errorf("%w: length field %q, the block has %d characters", ErrShape, text[1:5], len(text))
	}
	rest := text[n:]
	sealed := len(rest)/2 - h.Version.macBytes()
	if len(rest)%2 != 0 || sealed <= 0 || sealed%h.Version.blockSize() != 0 {
		return nil, fmt.Errorf("%w: %d characters behind the header do not divide into key and MAC", ErrShape, len(rest))
	}
	if strings.Trim(rest, "0123456789ABCDEF") != "" {
		return nil, fmt.Errorf("%w: a character behind the header is not an upper-case hexadecimal digit", ErrShape)
	}
	data, err := hex.DecodeString(rest)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrShape, err)
	}
	return &Block{Header: h, header: []byte(text[:n]), sealed: data[:sealed], mac: data[sealed:]}, nil
}

// Open checks the MAC of a block of version B or D, deciphers it and returns
// the key, which is the caller's to clear. a is the algorithm of kbpk, which
// must be able to encipher and to derive. It returns [ErrVersion], [ErrOpen],
// and, unless the policy opens any key, [ErrHeader] and [ErrStrength]; or the
// KBPK's error. X9.143, sections 7.2 and 7.3.
func (b *Block) Open(kbpk keys.Key, a keys.Algorithm, p Policy) (secret.Bytes, error) {
	if err := checkVersion(b.Version, a); err != nil {
		return secret.Bytes{}, err
	}
	if err := b.checkServed(p); err != nil {
		return secret.Bytes{}, err
	}
	bk, err := newBlockKeys(kbpk, a)
	if err != nil {
		return secret.Bytes{}, err
	}
	defer bk.close()
	data, err := bk.enc.Decrypt(b.mac, b.sealed)
	if err != nil {
		return secret.Bytes{}, fmt.Errorf("tr31: deciphering: %w", err)
	}
	defer secret.Clear(data)
	authentic := append(bytes.Clone(b.header), data...)
	defer secret.Clear(authentic)
	mac, err := bk.auth.CMAC(authentic)
	if err != nil {
		return secret.Bytes{}, fmt.Errorf("tr31: authenticating: %w", err)
	}
	return b.unpack(data, mac, a, p)
}

// OpenVariant is Open for versions A and C, where the policy reads them. enc
// and auth are the keys of [VariantKeys]; a is the algorithm of the KBPK. The
// MAC is checked before anything is deciphered. X9.143, section 7.1.
func (b *Block) OpenVariant(enc, auth keys.Key, a keys.Algorithm, p Policy) (secret.Bytes, error) {
	permitted := b.Version == VersionA && p.ReadA || b.Version == VersionC && p.ReadC
	if !permitted || !a.IsTDES() {
		return secret.Bytes{}, fmt.Errorf("%w: version %c under %s", ErrVersion, b.Version, a)
	}
	if err := b.checkServed(p); err != nil {
		return secret.Bytes{}, err
	}
	chain, err := auth.Encrypt(make([]byte, 8), append(bytes.Clone(b.header), b.sealed...))
	if err != nil {
		return secret.Bytes{}, fmt.Errorf("tr31: authenticating: %w", err)
	}
	mac := chain[len(chain)-8:]
	if subtle.ConstantTimeCompare(mac[:4], b.mac) != 1 {
		return secret.Bytes{}, ErrOpen
	}
	data, err := enc.Decrypt(b.header[:8], b.sealed)
	if err != nil {
		return secret.Bytes{}, fmt.Errorf("tr31: deciphering: %w", err)
	}
	defer secret.Clear(data)
	return b.unpack(data, mac, a, p)
}

// unpack compares the MAC and takes the key out of the clear data: its length
// in bits, two bytes; the key; filler.
func (b *Block) unpack(data, mac []byte, kbpk keys.Algorithm, p Policy) (secret.Bytes, error) {
	if subtle.ConstantTimeCompare(mac[:len(b.mac)], b.mac) != 1 {
		return secret.Bytes{}, ErrOpen
	}
	bits := int(binary.BigEndian.Uint16(data))
	if bits == 0 || bits%8 != 0 || bits/8 > len(data)-2 {
		return secret.Bytes{}, ErrOpen
	}
	n := bits / 8
	if !p.AnyKey {
		carried, err := b.KeyAlgorithm(n)
		if err != nil {
			return secret.Bytes{}, ErrOpen // the length, which only deciphering showed
		}
		if err := CheckStrength(carried, kbpk); err != nil {
			return secret.Bytes{}, err
		}
	}
	value := secret.New(n)
	copy(value.Reveal(), data[2:2+n])
	return value, nil
}

// checkServed returns [ErrHeader] when no length of key would suit the header.
func (b *Block) checkServed(p Policy) error {
	if p.AnyKey {
		return nil
	}
	_, err := b.KeyAlgorithm(keys.TDES3.KeyBytes()) // a length that both ciphers have
	return err
}

func checkVersion(v Version, kbpk keys.Algorithm) error {
	if v == VersionB && kbpk.IsTDES() || v == VersionD && kbpk.IsAES() {
		return nil
	}
	return fmt.Errorf("%w: version %c under %s", ErrVersion, v, kbpk)
}
