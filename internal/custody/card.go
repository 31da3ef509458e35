package custody

import (
	"context"
	"crypto/rand"
	"fmt"

	"keyd.dev/keyd/audit"
	"keyd.dev/keyd/internal/secret"
	"keyd.dev/keyd/keys"
)

// Card is a card number as the journal keeps it: enciphered under a key in the
// token, and a keyed token by which two cards can be compared.
type Card struct {
	Sealed []byte // initial vector, then the enciphered number and expiry: 32 bytes
	Token  string
}

// The clear form of a sealed card is one block: a version, the number of PAN
// digits, the PAN in BCD filled with F, the expiry in BCD (FFFF when absent),
// and two zero bytes by which a wrong key or a changed record is noticed.
const (
	cardVersion = 1
	cardBlock   = 16
)

// tokenKeyVersion is the version of the PAN token's key in the tokens.
const tokenKeyVersion = 1

// NewTokener makes keyed tokens with the token's own key for them; the audit
// log uses the same.
func NewTokener(t interface {
	System(name string) (keys.Key, error)
}) (audit.Tokener, error) {
	key, err := t.System("token")
	if err != nil {
		return nil, tokenError("finding the key for PAN tokens", err)
	}
	hmac, ok := key.(keys.HMACKey)
	if !ok {
		return nil, fmt.Errorf("%w: the key for PAN tokens cannot compute an HMAC", ErrUnavailable)
	}
	return audit.HMACTokener{Version: tokenKeyVersion, HMAC: hmac.HMAC}, nil
}

// Protect turns a card number and its expiry (YYMM, or empty) into what the
// journal may keep. Its token is that of the act's records.
func (a *Act) Protect(ctx context.Context, pan PAN, expiry string) (Card, error) {
	seen, err := a.PAN(pan)
	if err != nil {
		return Card{}, err
	}
	sealed, err := a.c.seal(ctx, pan, expiry)
	if err != nil {
		return Card{}, err
	}
	return Card{Sealed: sealed, Token: seen.Token()}, nil
}

// seal enciphers a card under the token's key, behind a fresh initial vector.
func (c *Custody) seal(_ context.Context, pan PAN, expiry string) ([]byte, error) {
	clear, err := packCard(pan, expiry)
	if err != nil {
		return nil, err
	}
	defer secret.Clear(clear[:])
	sealed := make([]byte, cardBlock, 2*cardBlock)
	if _, err := rand.Read(sealed); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	text, err := c.data.Encrypt(sealed, clear[:])
	if err != nil {
		return nil, tokenError("enciphering card data", err)
	}
	return append(sealed, text...), nil
}

// Reveal is the inverse of [Act.Protect]. It returns [ErrTampered] when the
// record does not decipher to a card.
func (c *Custody) Reveal(_ context.Context, card Card) (PAN, string, error) {
	if len(card.Sealed) != 2*cardBlock {
		return "", "", fmt.Errorf("%w: card data of %d bytes", ErrTampered, len(card.Sealed))
	}
	clear, err := c.data.Decrypt(card.Sealed[:cardBlock], card.Sealed[cardBlock:])
	if err != nil {
		return "", "", tokenError("deciphering card data", err)
	}
	defer secret.Clear(clear)
	return unpackCard(clear)
}

func packCard(pan PAN, expiry string) (b [cardBlock]byte, err error) {
	if len(pan) < 8 || len(pan) > 19 || len(expiry) != 0 && len(expiry) != 4 {
		return b, fmt.Errorf("%w: a PAN of %d digits with an expiry of %d", ErrRequest, len(pan), len(expiry))
	}
	b[0], b[1] = cardVersion, byte(len(pan))
	if !packDigits(b[2:12], string(pan)) || !packDigits(b[12:14], expiry) {
		return b, fmt.Errorf("%w: a PAN or expiry that is not digits", ErrRequest)
	}
	return b, nil
}

func unpackCard(b []byte) (PAN, string, error) {
	n := int(b[1])
	if b[0] != cardVersion || n < 8 || n > 19 || b[14] != 0 || b[15] != 0 {
		return "", "", fmt.Errorf("%w: card data does not decipher", ErrTampered)
	}
	pan := unpackDigits(b[2:12])
	if len(pan) != n {
		return "", "", fmt.Errorf("%w: card data does not decipher", ErrTampered)
	}
	return PAN(pan), unpackDigits(b[12:14]), nil
}

// packDigits writes two digits a byte and fills with F.
func packDigits(dst []byte, digits string) bool {
	for i := range dst {
		dst[i] = 0xFF
	}
	for i := range len(digits) {
		d := digits[i] - '0'
		if d > 9 {
			return false
		}
		if i%2 == 0 {
			dst[i/2] = d<<4 | 0x0F
		} else {
			dst[i/2] = dst[i/2]&0xF0 | d
		}
	}
	return true
}

func unpackDigits(src []byte) string {
	digits := make([]byte, 0, 2*len(src))
	for _, b := range src {
		for _, d := range [2]byte{b >> 4, b & 0x0F} {
			if d > 9 {
				return string(digits)
			}
			digits = append(digits, '0'+d)
		}
	}
	return string(digits)
}

// ksnText is a key serial number as the log writes it, or "" for one of no
// known length.
func ksnText(ksn []byte) string {
	if len(ksn) != 10 && len(ksn) != 12 {
		return ""
	}
	const digits = "0123456789ABCDEF"
	var text [24]byte
	for i, b := range ksn {
		text[2*i], text[2*i+1] = digits[b>>4], digits[b&0x0F]
	}
	return string(text[:2*len(ksn)])
}
