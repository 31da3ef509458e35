package sim

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"

	"keyd.dev/keyd/internal/iso8583"
	"keyd.dev/keyd/internal/secret"
	"keyd.dev/keyd/mac"
	"keyd.dev/keyd/pin"
)

// zone is the issuer's pair of keys for a link.
type zone struct {
	pin       secret.Cipher
	left, all mac.Cipher
	seals     Sealing
}

// Sealing is how MACs are made under a zone key.
type Sealing struct {
	Algorithm string // "x9_19", "cbc_mac_3des" or "cmac", as a profile names it; "" is x9_19
	Padding   int    // 2, or 1 for all else; cmac has its own
	Bytes     int    // that a message carries; 0 is 8
}

func newZone(pinKey, macKey []byte, how Sealing) (zone, error) {
	p, err := secret.NewTDES(pinKey)
	if err != nil {
		return zone{}, fmt.Errorf("sim: zone PIN key: %w", err)
	}
	left, all, err := mac.NewAlgorithm3(macKey)
	if err != nil {
		return zone{}, fmt.Errorf("sim: zone MAC key: %w", err)
	}
	return zone{pin: p, left: left, all: all, seals: how}, nil
}

// mac is algorithm 3 with padding 1 (W-08), or what a profile says.
func (z zone) mac(input []byte) (sum [8]byte, err error) {
	padding := mac.Padding1
	if z.seals.Padding == 2 {
		padding = mac.Padding2
	}
	var full []byte
	switch z.seals.Algorithm {
	case "", "x9_19":
		full, err = mac.Algorithm3(z.left, z.all, input, padding)
	case "cbc_mac_3des":
		full, err = mac.Algorithm1(z.all, input, padding)
	case "cmac":
		full, err = mac.CMAC(z.all, input)
	default:
		err = fmt.Errorf("sim: an issuer makes no MACs by %q", z.seals.Algorithm)
	}
	if err != nil {
		return sum, err
	}
	copy(sum[:], full)
	return sum, nil
}

// bytes of a MAC that a message carries.
func (z zone) bytes() int {
	if z.seals.Bytes == 4 {
		return 4
	}
	return 8
}

// genuine reports whether the message carries the zone's MAC.
func (z zone) genuine(m *iso8583.Message) bool {
	received, err := m.MAC()
	if err != nil {
		return false
	}
	full, err := z.mac(m.MACInput())
	return err == nil && mac.Verify(full[:], received[:z.bytes()], z.bytes()) == nil
}

// seal packs an answer and gives it the zone's MAC, or a wrong one.
func (z zone) seal(b *iso8583.Builder, wrong bool) ([]byte, error) {
	open, err := b.Pack()
	if err != nil {
		return nil, err
	}
	sum, err := z.mac(open.MACInput())
	if err != nil {
		return nil, err
	}
	if wrong {
		sum[0] ^= 0xFF
	}
	return open.Seal(sum), nil
}

// pinFits reports whether DE 52 deciphers to a well-formed block of the PAN, and
// the SHA-256 of the PIN, so that a trial can compare it without keeping it.
func (z zone) pinFits(m *iso8583.Message) (digest [sha256.Size]byte, ok bool) {
	pan, err := pin.ParsePAN(m.Text(2))
	if err != nil {
		return digest, false
	}
	side := pin.Side{Format: pin.Format0, PAN: pan}
	field, err := pin.Decipher(z.pin, &side, m.Bytes(52))
	if err != nil {
		return digest, false
	}
	defer field.Clear()
	clear, err := pin.Decode(&side, &field)
	if err != nil {
		return digest, false
	}
	defer clear.Clear()
	digits := clear.AppendDigits(make([]byte, 0, 12))
	defer secret.Clear(digits)
	return sha256.Sum256(digits), true
}

// unhex reads a key of a test from hexadecimal digits.
func unhex(what, digits string) ([]byte, error) {
	b, err := hex.DecodeString(digits)
	if err != nil {
		return nil, fmt.Errorf("sim: %s is not hexadecimal", what)
	}
	return b, nil
}
