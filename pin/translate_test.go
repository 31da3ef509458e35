package pin_test

import (
	"bytes"
	stdaes "crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"errors"
	"io"
	"testing"

	"keyd.dev/keyd/internal/secret"
	"keyd.dev/keyd/pin"
)

func TestPermitted(t *testing.T) {
	// Rows are from, columns to: formats 0, 1, 3, 4. API, section 10.2.
	want := [4][4]bool{
		{true, false, true, true},
		{true, true, true, true},
		{true, false, true, true},
		{true, false, true, true},
	}
	for i, from := range formats {
		for j, to := range formats {
			if got := pin.Permitted(from, to); got != want[i][j] {
				t.Errorf("from %s to %s: %t, want %t", from, to, got, want[i][j])
			}
		}
	}
	for _, bad := range []pin.Format{0, 3, 6} {
		if pin.Permitted(bad, pin.Format0) || pin.Permitted(pin.Format1, bad) {
			t.Errorf("%s is permitted", bad)
		}
	}
}

func TestCheckTranslation(t *testing.T) {
	a, b := mustPAN(t, "4111111111111111"), mustPAN(t, "4111111111111112")
	longer := mustPAN(t, "41111111111111110")
	for _, c := range []struct {
		name     string
		from, to pin.Side
		want     error
	}{
		{"same PAN", pin.Side{Format: pin.Format0, PAN: a}, pin.Side{Format: pin.Format4, PAN: a}, nil},
		{"PAN appears", pin.Side{Format: pin.Format1}, pin.Side{Format: pin.Format0, PAN: a}, nil},
		{"PAN of format 1 is not looked at", pin.Side{Format: pin.Format1, PAN: b}, pin.Side{Format: pin.Format0, PAN: a}, nil},
		{"check digit changes", pin.Side{Format: pin.Format0, PAN: a}, pin.Side{Format: pin.Format0, PAN: b}, pin.ErrTranslation},
		{"PAN grows", pin.Side{Format: pin.Format0, PAN: a}, pin.Side{Format: pin.Format3, PAN: longer}, pin.ErrTranslation},
		{"PAN is lost", pin.Side{Format: pin.Format0, PAN: a}, pin.Side{Format: pin.Format1}, pin.ErrTranslation},
		{"no PAN in", pin.Side{Format: pin.Format0}, pin.Side{Format: pin.Format0, PAN: a}, pin.ErrPAN},
		{"no PAN out", pin.Side{Format: pin.Format0, PAN: a}, pin.Side{Format: pin.Format0}, pin.ErrPAN},
		{"no format", pin.Side{PAN: a}, pin.Side{Format: pin.Format0, PAN: a}, pin.ErrFormat},
	} {
		t.Run(c.name, func(t *testing.T) {
			if err := pin.CheckTranslation(&c.from, &c.to); !errors.Is(err, c.want) {
				t.Errorf("%v, want %v", err, c.want)
			}
			var field pin.Field
			if _, err := pin.Reformat(&c.from, &c.to, &field, rand.Reader); c.want != nil && !errors.Is(err, c.want) {
				t.Errorf("reformatting: %v, want %v", err, c.want)
			}
		})
	}
}

// TestExamples are the worked translations of section 10.2 of the API.
func TestExamples(t *testing.T) {
	var (
		zpkA   = tdes(t, "49049D94F1F1929B1A83192CF71038CB")
		zpkB   = tdes(t, "7C89D6CB3D45E549C16D76585416A18A7AB9649DE91F1C9E")
		zpkAES = aes(t, "8FFD058A06164289C2046604ABD7E908088BB47987B40D21D3D6AAFE62F5375D")
		tpk17  = tdes(t, "FE68DA4A37EAE5F70831E307D3FBDADA")
		dukpt1 = tdes(t, "042666B49184CF5C68DE9628D0397B36")
		aes1   = aes(t, "AF8CB133A78F8DC2D1359F18527593FB")
		a      = mustPAN(t, "4012345678909")
		b      = mustPAN(t, "4111111111111111")
	)
	for _, c := range []struct {
		name     string
		in       secret.Cipher
		from     pin.Side
		block    string
		out      secret.Cipher
		to       pin.Side
		filler   string
		want     string
		digitsIn string
	}{
		{"tp-dukpt-tdes", dukpt1, pin.Side{Format: pin.Format0, PAN: a}, "1B9C1845EB993A7A", zpkA, pin.Side{Format: pin.Format0, PAN: a}, "", "DCBAC0ABA559F78B", "1234"},
		{"tp-dukpt-aes", aes1, pin.Side{Format: pin.Format4, PAN: b}, "A912150391AB65A67E52883D81CE2D15", zpkB, pin.Side{Format: pin.Format0, PAN: b}, "", "0283D72654F2F983", "1234"},
		{"tp-static-0-to-4", tpk17, pin.Side{Format: pin.Format0, PAN: b}, "59E8F963CDF70695", zpkAES, pin.Side{Format: pin.Format4, PAN: b}, "0F1E2D3C4B5A6978", "AE03C845A8C30C63D48A6DC34EC454C6", "1234"},
		// The filler ABCDEFFEDC, as bytes of which six takes the rest.
		{"tp-static-1-to-3", tpk17, pin.Side{Format: pin.Format1}, "D639ABA95CE6BD92", zpkA, pin.Side{Format: pin.Format3, PAN: b}, "00000000000102030405050403020000", "E718F75F49BAA878", "1234"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := pin.Translate(c.in, &c.from, unhex(t, c.block), c.out, &c.to, bytes.NewReader(unhex(t, c.filler)))
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, unhex(t, c.want)) {
				t.Error("the block differs from the example's")
			}
			field, err := pin.Decipher(c.out, &c.to, got)
			if err != nil {
				t.Fatal(err)
			}
			p, want := pin.PIN{}, mustPIN(t, c.digitsIn)
			if p, err = pin.Decode(&c.to, &field); err != nil || !p.Equal(&want) {
				t.Errorf("the PIN is not the example's: %v", err)
			}
		})
	}
}

// counting is a cipher that counts its calls.
type counting struct {
	secret.Cipher
	calls *int
}

func (c counting) Encrypt(iv, src []byte) ([]byte, error) {
	*c.calls++
	return c.Cipher.Encrypt(iv, src)
}

func (c counting) Decrypt(iv, src []byte) ([]byte, error) {
	*c.calls++
	return c.Cipher.Decrypt(iv, src)
}

// TestRefusalsLookAlike translates good blocks and blocks with each kind of
// fault: the error is the same value, and the ciphers are called as often.
func TestRefusalsLookAlike(t *testing.T) {
	pan := mustPAN(t, "4111111111111111")
	ciphers := map[int]secret.Cipher{8: tdes(t, "49049D94F1F1929B1A83192CF71038CB"), 16: aes(t, "AF8CB133A78F8DC2D1359F18527593FB")}
	wrong := map[int]secret.Cipher{8: tdes(t, "49049D94F1F1929B1A83192CF71038CD"), 16: aes(t, "AF8CB133A78F8DC2D1359F18527593FC")}
	for _, from := range formats {
		for _, to := range formats {
			if !pin.Permitted(from, to) {
				continue
			}
			in, out := pin.Side{Format: from, PAN: pan}, pin.Side{Format: to, PAN: pan}
			p := mustPIN(t, "1234")
			good, err := pin.Encode(&in, &p, filler(t))
			if err != nil {
				t.Fatal(err)
			}
			faults := map[string]func(b []byte){
				"none":    func([]byte) {},
				"control": func(b []byte) { b[0] ^= 0x20 },
				"length":  func(b []byte) { b[0] = b[0]&0xF0 | 0xD },
				"short":   func(b []byte) { b[0] = b[0]&0xF0 | 3 },
				"digit":   func(b []byte) { b[1] = 0xF1 },
			}
			if from == pin.Format0 || from == pin.Format4 {
				faults["filler"] = func(b []byte) { b[7] ^= 0x01 }
			}
			calls := make(map[string]int)
			for name, spoil := range faults {
				field := good
				spoil(field.Bytes())
				block, err := pin.Encipher(ciphers[from.Bytes()], &in, &field)
				if err != nil {
					t.Fatal(err)
				}
				n := 0
				got, err := pin.Translate(counting{ciphers[from.Bytes()], &n}, &in, block, counting{ciphers[to.Bytes()], &n}, &out, rand.Reader)
				if (name == "none") != (err == nil) || err != nil && (err != pin.ErrBlock || got != nil) {
					t.Errorf("%s to %s, fault %s: %v, want %v itself", from, to, name, err, pin.ErrBlock)
				}
				calls[name] = n
			}
			for name, n := range calls {
				if n != calls["none"] || n == 0 {
					t.Errorf("%s to %s, fault %s: %d cipher calls, a good block takes %d", from, to, name, n, calls["none"])
				}
			}
			block, err := pin.Encipher(ciphers[from.Bytes()], &in, &good)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := pin.Translate(wrong[from.Bytes()], &in, block, ciphers[to.Bytes()], &out, rand.Reader); err != pin.ErrBlock {
				t.Errorf("%s to %s, wrong key: %v, want %v itself", from, to, err, pin.ErrBlock)
			}
		}
	}
}

// filler is the same at each run: under a wrong key one block in some hundreds
// looks like a good one of format 1, which nothing but its form holds.
func filler(t *testing.T) io.Reader {
	t.Helper()
	block, err := stdaes.NewCipher(make([]byte, 16))
	if err != nil {
		t.Fatal(err)
	}
	return cipher.StreamReader{S: cipher.NewCTR(block, make([]byte, 16)), R: bytes.NewReader(make([]byte, 4096))}
}

func TestWrongPANIsRefused(t *testing.T) {
	a, b := mustPAN(t, "4111111111111111"), mustPAN(t, "5222222222222222")
	key := aes(t, "AF8CB133A78F8DC2D1359F18527593FB")
	in, other := pin.Side{Format: pin.Format4, PAN: a}, pin.Side{Format: pin.Format4, PAN: b}
	aws := pin.Side{Format: pin.Format4, PAN: a, Rule: pin.Rightmost12}
	p := mustPIN(t, "1234")
	field, err := pin.Encode(&in, &p, bytes.NewReader(make([]byte, 8)))
	if err != nil {
		t.Fatal(err)
	}
	block, err := pin.Encipher(key, &in, &field)
	if err != nil {
		t.Fatal(err)
	}
	for name, side := range map[string]*pin.Side{"other PAN": &other, "other rule": &aws} {
		if _, err := pin.Translate(key, side, block, key, side, rand.Reader); err != pin.ErrBlock {
			t.Errorf("%s: %v, want %v itself", name, err, pin.ErrBlock)
		}
	}
	if _, err := pin.Translate(key, &in, block, key, &aws, rand.Reader); err != nil {
		t.Errorf("each side with its own rule: %v", err)
	}
}

func TestCipherAndLengthMustFit(t *testing.T) {
	pan := mustPAN(t, "4111111111111111")
	eight, sixteen := tdes(t, "49049D94F1F1929B1A83192CF71038CB"), aes(t, "AF8CB133A78F8DC2D1359F18527593FB")
	zero, four := pin.Side{Format: pin.Format0, PAN: pan}, pin.Side{Format: pin.Format4, PAN: pan}
	for _, c := range []struct {
		name     string
		in, out  secret.Cipher
		from, to *pin.Side
		length   int
		want     error
	}{
		{"AES for format 0", sixteen, eight, &zero, &zero, 8, pin.ErrCipher},
		{"TDES for format 4", eight, eight, &four, &zero, 16, pin.ErrCipher},
		{"AES for format 0 out", eight, sixteen, &zero, &zero, 8, pin.ErrCipher},
		{"TDES for format 4 out", eight, eight, &zero, &four, 8, pin.ErrCipher},
		{"format 0 of 7 bytes", eight, eight, &zero, &zero, 7, pin.ErrLength},
		{"format 0 of 16 bytes", eight, eight, &zero, &zero, 16, pin.ErrLength},
		{"format 4 of 8 bytes", sixteen, eight, &four, &zero, 8, pin.ErrLength},
		{"format 0 of none", eight, eight, &zero, &zero, 0, pin.ErrLength},
	} {
		t.Run(c.name, func(t *testing.T) {
			if _, err := pin.Translate(c.in, c.from, make([]byte, c.length), c.out, c.to, rand.Reader); !errors.Is(err, c.want) {
				t.Errorf("%v, want %v", err, c.want)
			}
		})
	}
}

// broken is a token that has gone.
type broken struct{ error }

func (b broken) BlockSize() int                      { return 8 }
func (b broken) Encrypt(_, _ []byte) ([]byte, error) { return nil, b.error }
func (b broken) Decrypt(_, _ []byte) ([]byte, error) { return nil, b.error }

func TestTokenErrorsAreNotBlockErrors(t *testing.T) {
	side := pin.Side{Format: pin.Format0, PAN: mustPAN(t, "4111111111111111")}
	gone := broken{errors.New("token gone")}
	good := tdes(t, "49049D94F1F1929B1A83192CF71038CB")
	block := make([]byte, 8)
	for name, keys := range map[string]struct {
		in  pin.Decrypter
		out pin.Encrypter
	}{"in": {gone, good}, "out": {good, gone}} {
		_, err := pin.Translate(keys.in, &side, block, keys.out, &side, rand.Reader)
		if !errors.Is(err, gone.error) || errors.Is(err, pin.ErrBlock) {
			t.Errorf("%s: %v, want %v", name, err, gone.error)
		}
	}
}

func BenchmarkTranslate(b *testing.B) {
	pan := mustPAN(b, "4111111111111111")
	for _, c := range []struct {
		name     string
		in, out  secret.Cipher
		from, to pin.Format
	}{
		{"0 to 0", tdes(b, "49049D94F1F1929B1A83192CF71038CB"), tdes(b, "FE68DA4A37EAE5F70831E307D3FBDADA"), pin.Format0, pin.Format0},
		{"1 to 1", tdes(b, "49049D94F1F1929B1A83192CF71038CB"), tdes(b, "FE68DA4A37EAE5F70831E307D3FBDADA"), pin.Format1, pin.Format1},
		{"3 to 3", tdes(b, "49049D94F1F1929B1A83192CF71038CB"), tdes(b, "FE68DA4A37EAE5F70831E307D3FBDADA"), pin.Format3, pin.Format3},
		{"4 to 4", aes(b, "AF8CB133A78F8DC2D1359F18527593FB"), aes(b, "FE68DA4A37EAE5F70831E307D3FBDADA"), pin.Format4, pin.Format4},
		{"0 to 4", tdes(b, "49049D94F1F1929B1A83192CF71038CB"), aes(b, "AF8CB133A78F8DC2D1359F18527593FB"), pin.Format0, pin.Format4},
		{"4 to 0", aes(b, "AF8CB133A78F8DC2D1359F18527593FB"), tdes(b, "49049D94F1F1929B1A83192CF71038CB"), pin.Format4, pin.Format0},
	} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			from, to := pin.Side{Format: c.from, PAN: pan}, pin.Side{Format: c.to, PAN: pan}
			p := mustPIN(b, "1234")
			field, err := pin.Encode(&from, &p, rand.Reader)
			if err != nil {
				b.Fatal(err)
			}
			block, err := pin.Encipher(c.in, &from, &field)
			if err != nil {
				b.Fatal(err)
			}
			for b.Loop() {
				if _, err := pin.Translate(c.in, &from, block, c.out, &to, rand.Reader); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
