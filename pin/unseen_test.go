package pin_test

import (
	"bytes"
	"errors"
	"testing"

	"keyd.dev/keyd/internal/secret"
	"keyd.dev/keyd/pin"
)

// softMover is two keys in the process: the arithmetic without a token.
type softMover struct{ in, out secret.Cipher }

func (m softMover) BlockSize() int                   { return m.in.BlockSize() }
func (m softMover) Decrypt(p []byte) ([]byte, error) { return m.in.Decrypt(nil, p) }
func (m softMover) Encrypt(p []byte) ([]byte, error) { return m.out.Encrypt(nil, p) }
func (m softMover) Move(p []byte) (_ []byte, err error) {
	if p, err = m.in.Decrypt(nil, p); err != nil {
		return nil, err
	}
	return m.out.Encrypt(nil, p)
}

// TestTranslateUnseen compares with enciphering the same clear field under the
// outgoing key; a format without random filler also with Translate.
func TestTranslateUnseen(t *testing.T) {
	pan := mustPAN(t, "4111111111111111")
	digits := mustPIN(t, "1234")
	tdesMover := softMover{tdes(t, "0123456789ABCDEFFEDCBA9876543210"), tdes(t, "49049D94F1F1929B1A83192CF71038CB")}
	aesMover := softMover{aes(t, "FEDCBA9876543210F1F1F1F1F1F1F1F1"), aes(t, "66F69CA1D7F33E1B10B8798DDA30361F")}
	for _, test := range []struct {
		name     string
		m        softMover
		from, to pin.Side
	}{
		{"format 0", tdesMover, pin.Side{Format: pin.Format0, PAN: pan}, pin.Side{Format: pin.Format0, PAN: pan}},
		{"format 1", tdesMover, pin.Side{Format: pin.Format1}, pin.Side{Format: pin.Format1}},
		{"format 3", tdesMover, pin.Side{Format: pin.Format3, PAN: pan}, pin.Side{Format: pin.Format3, PAN: pan}},
		{"format 4", aesMover, pin.Side{Format: pin.Format4, PAN: pan}, pin.Side{Format: pin.Format4, PAN: pan}},
		{"format 4, the rule changes", aesMover, pin.Side{Format: pin.Format4, PAN: pan},
			pin.Side{Format: pin.Format4, PAN: pan, Rule: pin.Rightmost12}},
	} {
		t.Run(test.name, func(t *testing.T) {
			field, err := pin.Encode(&test.from, &digits, bytes.NewReader(bytes.Repeat([]byte{0x1C}, 64)))
			if err != nil {
				t.Fatal(err)
			}
			block, err := pin.Encipher(test.m.in, &test.from, &field)
			if err != nil {
				t.Fatal(err)
			}
			want, err := pin.Encipher(test.m.out, &test.to, &field)
			if err != nil {
				t.Fatal(err)
			}
			sent := bytes.Clone(block)
			got, err := pin.TranslateUnseen(test.m, &test.from, &test.to, block)
			if err != nil || !bytes.Equal(got, want) || !bytes.Equal(block, sent) {
				t.Errorf("the block differs, or was changed: %v", err)
			}
			if test.from.Format != pin.Format0 {
				return
			}
			if seen, err := pin.Translate(test.m.in, &test.from, block, test.m.out, &test.to, nil); err != nil || !bytes.Equal(seen, got) {
				t.Errorf("seen, it is another: %v", err)
			}
		})
	}
}

var errMover = errors.New("mover")

// brokenMover fails from the given call on.
type brokenMover struct{ good int }

func (m *brokenMover) BlockSize() int { return 16 }
func (m *brokenMover) do(p []byte) ([]byte, error) {
	if m.good--; m.good < 0 {
		return nil, errMover
	}
	return bytes.Clone(p), nil
}
func (m *brokenMover) Decrypt(p []byte) ([]byte, error) { return m.do(p) }
func (m *brokenMover) Encrypt(p []byte) ([]byte, error) { return m.do(p) }
func (m *brokenMover) Move(p []byte) ([]byte, error)    { return m.do(p) }

func TestTranslateUnseenRefuses(t *testing.T) {
	pan, other := mustPAN(t, "4111111111111111"), mustPAN(t, "4012345678909")
	m := softMover{tdes(t, "0123456789ABCDEFFEDCBA9876543210"), tdes(t, "49049D94F1F1929B1A83192CF71038CB")}
	four := softMover{aes(t, "FEDCBA9876543210F1F1F1F1F1F1F1F1"), aes(t, "66F69CA1D7F33E1B10B8798DDA30361F")}
	side := func(f pin.Format, p pin.PAN) pin.Side { return pin.Side{Format: f, PAN: p} }
	for _, test := range []struct {
		name     string
		m        pin.Mover
		from, to pin.Side
		n        int
		want     error
	}{
		{"another format", m, side(pin.Format0, pan), side(pin.Format3, pan), 8, pin.ErrTranslation},
		{"the PAN would be lost", m, side(pin.Format0, pan), side(pin.Format1, pan), 8, pin.ErrTranslation},
		{"another PAN", m, side(pin.Format0, pan), side(pin.Format0, other), 8, pin.ErrTranslation},
		{"no PAN", m, side(pin.Format3, pin.PAN{}), side(pin.Format3, pan), 8, pin.ErrPAN},
		{"format 2", m, side(3, pan), side(3, pan), 8, pin.ErrFormat},
		{"TDES in format 4", m, side(pin.Format4, pan), side(pin.Format4, pan), 16, pin.ErrCipher},
		{"AES in format 0", four, side(pin.Format0, pan), side(pin.Format0, pan), 8, pin.ErrCipher},
		{"short block", m, side(pin.Format0, pan), side(pin.Format0, pan), 7, pin.ErrLength},
		{"two blocks", m, side(pin.Format0, pan), side(pin.Format0, pan), 16, pin.ErrLength},
		{"first call fails", &brokenMover{0}, side(pin.Format4, pan), side(pin.Format4, pan), 16, errMover},
		{"second call fails", &brokenMover{1}, side(pin.Format4, pan), side(pin.Format4, pan), 16, errMover},
		{"third call fails", &brokenMover{2}, side(pin.Format4, pan), side(pin.Format4, pan), 16, errMover},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got, err := pin.TranslateUnseen(test.m, &test.from, &test.to, make([]byte, test.n)); !errors.Is(err, test.want) || got != nil {
				t.Errorf("%X, %v, want %v", got, err, test.want)
			}
		})
	}
}
