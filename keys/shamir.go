package keys

import (
	"crypto/subtle"
	"errors"
	"fmt"
	"io"

	"keyd.dev/keyd/internal/secret"
)

// The errors of [Split] and [Join]. Each of the others is an [ErrShare] too.
var (
	// ErrShare: shares cannot be made or joined so.
	ErrShare = errors.New("keys: shares refused")
	// ErrTooFewShares: less than the threshold.
	ErrTooFewShares = fmt.Errorf("%w: too few", ErrShare)
	// ErrShareTwice: two shares have one index.
	ErrShareTwice = fmt.Errorf("%w: one index twice", ErrShare)
	// ErrShareIndex: index 0, which no share has.
	ErrShareIndex = fmt.Errorf("%w: index 0", ErrShare)
	// ErrShareLength: shares are of different lengths, or empty.
	ErrShareLength = fmt.Errorf("%w: length", ErrShare)
	// ErrShareWrong: more shares than the threshold were given, and they do not fit together.
	ErrShareWrong = fmt.Errorf("%w: they do not fit together", ErrShare)
)

// Share is one of n parts of a secret, of which any k give it back and fewer
// tell nothing of it but its length.
type Share struct {
	Index byte         // 1 to 255: where the polynomials were evaluated
	Value secret.Bytes // as long as the secret
}

// Clear overwrites the share's value.
func (s Share) Clear() { s.Value.Clear() }

// Split makes n shares, of indices 1 to n, of which any k give the secret back:
// Shamir's scheme over GF(2^8) with the polynomial of AES, a polynomial for each
// byte, as in draft-mcgrew-tss-03. 2 <= k <= n <= 255. rand gives the
// coefficients, k-1 bytes for each byte of the secret, and must be of
// cryptographic quality. The secret is the caller's to clear, the shares too. It
// returns [ErrShare], or the error of rand.
func Split(rand io.Reader, value secret.Bytes, k, n int) ([]Share, error) {
	switch {
	case k < 2 || n < k || n > 255:
		return nil, fmt.Errorf("%w: %d of %d; want 2 <= threshold <= number <= 255", ErrShare, k, n)
	case value.Len() == 0:
		return nil, fmt.Errorf("%w: an empty secret", ErrShareLength)
	}
	shares := make([]Share, n)
	for i := range shares {
		shares[i] = Share{Index: byte(i + 1), Value: secret.New(value.Len())}
	}
	coefficients := secret.New(k)
	defer coefficients.Clear()
	c := coefficients.Reveal()
	for at, b := range value.Reveal() {
		c[0] = b
		if _, err := io.ReadFull(rand, c[1:]); err != nil {
			for _, s := range shares {
				s.Clear()
			}
			return nil, fmt.Errorf("splitting a secret: %w", err)
		}
		for _, s := range shares {
			s.Value.Reveal()[at] = evaluate(c, s.Index)
		}
	}
	return shares, nil
}

// Join returns the secret that was split with threshold k. Shares beyond the
// k-th are checked against the others. Of exactly k shares with a wrong one
// among them comes another secret, and nothing here can tell: its check value
// must be compared. It returns [ErrTooFewShares], [ErrShareTwice],
// [ErrShareIndex], [ErrShareLength] or [ErrShareWrong]; all are [ErrShare].
func Join(k int, shares []Share) (secret.Bytes, error) {
	if k < 2 || k > 255 {
		return secret.Bytes{}, fmt.Errorf("%w: a threshold of %d, want 2 to 255", ErrShare, k)
	}
	if len(shares) < k {
		return secret.Bytes{}, fmt.Errorf("%w: %d of the %d that are needed", ErrTooFewShares, len(shares), k)
	}
	if err := checkShares(shares); err != nil {
		return secret.Bytes{}, err
	}
	base := shares[:k]
	for _, extra := range shares[k:] {
		again := interpolate(base, extra.Index)
		fits := again.Equal(extra.Value)
		again.Clear()
		if !fits {
			return secret.Bytes{}, ErrShareWrong // which of them is wrong cannot be told
		}
	}
	return interpolate(base, 0), nil
}

func checkShares(shares []Share) error {
	var seen [256]bool
	for i, s := range shares {
		switch {
		case s.Index == 0:
			return fmt.Errorf("share %d: %w", i+1, ErrShareIndex)
		case seen[s.Index]:
			return fmt.Errorf("share %d: %w: %d", i+1, ErrShareTwice, s.Index)
		case s.Value.Len() == 0 || s.Value.Len() != shares[0].Value.Len():
			return fmt.Errorf("share %d: %w: %d bytes, the first has %d", i+1, ErrShareLength, s.Value.Len(), shares[0].Value.Len())
		}
		seen[s.Index] = true
	}
	return nil
}

// evaluate gives the polynomial's value at x, by Horner's rule.
func evaluate(coefficients []byte, x byte) byte {
	var y byte
	for i := len(coefficients) - 1; i >= 0; i-- {
		y = gfMul(y, x) ^ coefficients[i]
	}
	return y
}

// interpolate gives the polynomials' values at x from as many shares as they
// have coefficients: Lagrange. Subtraction is XOR here.
func interpolate(shares []Share, x byte) secret.Bytes {
	value := secret.New(shares[0].Value.Len())
	term := make([]byte, value.Len())
	defer secret.Clear(term)
	for i, s := range shares {
		above, below := byte(1), byte(1)
		for j, other := range shares {
			if j != i {
				above = gfMul(above, x^other.Index)
				below = gfMul(below, s.Index^other.Index)
			}
		}
		weight := gfMul(above, gfInverse(below))
		for at, b := range s.Value.Reveal() {
			term[at] = gfMul(weight, b)
		}
		subtle.XORBytes(value.Reveal(), value.Reveal(), term)
	}
	return value
}

// gfMul multiplies in GF(2^8) modulo x^8+x^4+x^3+x+1 (FIPS 197, 4.2), without a
// branch or a table that depends on the operands.
func gfMul(a, b byte) byte {
	var product byte
	for range 8 {
		product ^= a & -(b & 1)
		a = a<<1 ^ 0x1B&-(a>>7)
		b >>= 1
	}
	return product
}

// gfInverse gives a^254, which is 1/a, and 0 for 0.
func gfInverse(a byte) byte {
	power := a // a^2, a^4, … a^128, all multiplied
	inverse := byte(1)
	for range 7 {
		power = gfMul(power, power)
		inverse = gfMul(inverse, power)
	}
	return inverse
}
