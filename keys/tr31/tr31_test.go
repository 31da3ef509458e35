package tr31_test

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"
	"keyd.dev/keyd/internal/secret"
	"keyd.dev/keyd/internal/softkey"
	"keyd.dev/keyd/internal/vectors"
	"keyd.dev/keyd/keys"
	"keyd.dev/keyd/keys/tr31"
)

func TestVectors(t *testing.T) {
	vectors.TR31(t, softkey.Load)
}

func unhex(t testing.TB, text string) []byte {
	t.Helper()
	b, err := hex.DecodeString(text)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func newKey(t testing.TB, a keys.Algorithm, text string) *softkey.Key {
	t.Helper()
	k, err := softkey.New(a, unhex(t, text))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

const (
	zmkAES  = "0FA631684D70DF34BFB34A63293AB7BC04A23935B38B553B041EBF28E0D93085"
	zmkTDES = "A4795D7338988CC757946BFEBC8F1089"
	dynamic = "D0112P0TB00E0000DB4D2D61C9CC2B259B1D88F03682CE4622CF97DFAA0BE577307361B328B1F44A8C4EDB64A715201FADF7BADAD852D49C"
)

// TestDynamicKey is the key block of example tp-dynamic of the API.
func TestDynamicKey(t *testing.T) {
	b, err := tr31.Parse(dynamic)
	if err != nil {
		t.Fatal(err)
	}
	key, err := b.Open(newKey(t, keys.AES256, zmkAES), keys.AES256, tr31.Policy{})
	if err != nil || !bytes.Equal(key.Reveal(), unhex(t, "8FCB7368F7E92C3DDC75A4CE04D6A77A")) {
		t.Errorf("the key is not the example's: %v", err)
	}
	got, err := b.Attributes(key.Len())
	want := keys.Attributes{Usage: keys.UsagePIN, Algorithm: keys.TDES2, Mode: keys.ModeBoth, Exportability: keys.Exportable}
	if err != nil || got != want {
		t.Errorf("%v, %v; want %v", got, err, want)
	}
}

func TestParseRefuses(t *testing.T) {
	good := dynamic
	header := func(optional string, count string) string { // a header before the good block's hexadecimal
		text := "D0000P0TB00E" + count + "00" + optional + good[16:]
		n := len(text)
		return text[:1] + string([]byte{byte('0' + n/1000), byte('0' + n/100%10), byte('0' + n/10%10), byte('0' + n%10)}) + text[5:]
	}
	if _, err := tr31.Parse(header("LB0Clabel 12PB04", "02")); err != nil {
		t.Fatalf("a good block: %v", err)
	}
	if _, err := tr31.Parse(header("LB000410"+strings.Repeat("x", 8), "01")); err == nil {
		t.Error("an extended length beyond the block was accepted")
	}
	for name, text := range map[string]string{
		"empty":                          "",
		"header only":                    good[:16],
		"cut header":                     good[:12],
		"length too small":               "D0096" + good[5:],
		"length not decimal":             "D011A" + good[5:],
		"length with sign":               "D+112" + good[5:],
		"usage in lower case":            good[:5] + "p0" + good[7:],
		"algorithm blank":                good[:7] + " " + good[8:],
		"mode of two-byte character":     good[:8] + "é" + good[9:],
		"exportability X":                good[:11] + "X" + good[12:],
		"optional blocks not decimal":    good[:12] + "0A" + good[14:],
		"reserved":                       good[:14] + "01" + good[16:],
		"lower-case hexadecimal":         good[:16] + strings.ToLower(good[16:]),
		"blank behind header":            good[:40] + " " + good[41:],
		"zero byte":                      good[:40] + "\x00" + good[41:],
		"more optional blocks than are":  good[:12] + "01" + good[14:],
		"optional blocks not counted":    header("LB0Clabel 12PB04", "01"),
		"optional length too small":      header("LB03label 12PB04", "02"),
		"optional length not hex":        header("LBG0label 12PB04", "02"),
		"optional length lower case":     header("LB0clabel 12PB04", "02"),
		"optional longer than the block": header("LBFFlabel 12PB04", "02"),
		"optional identifier":            header("lb0Clabel 12PB04", "02"),
		"optional twice":                 header("LB08abcdLB08abcd", "02"),
		"padding not last":               header("PB04LB0Clabel 12", "02"),
		"header not whole blocks":        header("LB08abcd", "01"),
		"extended length without digits": header("LB0000label 1234", "01"),
		"extended length of five digits": header("LB000500010label", "01"),
		"extended length torn":           header("LB00", "01")[:20],
	} {
		if b, err := tr31.Parse(text); !errors.Is(err, tr31.ErrShape) || b != nil {
			t.Errorf("%s: %v, want %v", name, err, tr31.ErrShape)
		}
	}
	for _, version := range "EZ0a " {
		if _, err := tr31.Parse(string(version) + good[1:]); !errors.Is(err, tr31.ErrVersion) {
			t.Errorf("version %q: %v, want %v", version, err, tr31.ErrVersion)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(dynamic)
	f.Add("A0072K0TN00N0000F40D5672C6D0EC86F860BA88D44D00F0CA9A8CE8CD2F640287A9A9EB")
	f.Add("B0096P0TE00E0200KP0C0063B274PB0492BDD00D408594C5989525077E9B48AB470200277072BDF55E2DA63A1CC5A637")
	f.Add("D0016P0TE00E0100CT0004")
	kbpk := newKey(f, keys.AES256, zmkAES)
	f.Fuzz(func(t *testing.T, text string) {
		b, err := tr31.Parse(text)
		if err != nil {
			if !errors.Is(err, tr31.ErrShape) && !errors.Is(err, tr31.ErrVersion) || b != nil {
				t.Error(err)
			}
			return
		}
		if len(text)%8 != 0 || text[:1] != string(rune(b.Version)) || text[5:7] != string(b.Usage) {
			t.Errorf("%q was accepted", text)
		}
		if key, err := b.Open(kbpk, keys.AES256, tr31.Policy{AnyKey: true}); err == nil && text != dynamic {
			t.Errorf("%q opened to %d bytes", text, key.Len())
		}
	})
}

func TestPolicy(t *testing.T) {
	const (
		a    = "A0072K0TN00N0000F40D5672C6D0EC86F860BA88D44D00F0CA9A8CE8CD2F640287A9A9EB"
		c    = "C0072K0TN00N0000C9B875FF7A5316BF221C09ED52080DE0B45632A4EA9CE87699CB565E"
		kbpk = "EFE0853B256B583D868F251CE99EA1D9"
	)
	enc, auth := tr31.VariantKeys(secret.From(unhex(t, kbpk)))
	encKey, authKey := newKey(t, keys.TDES2, hex.EncodeToString(enc.Reveal())), newKey(t, keys.TDES2, hex.EncodeToString(auth.Reveal()))
	for _, v := range []struct {
		name  string
		block string
		p     tr31.Policy
		want  error
	}{
		{"8.5 A by default", a, tr31.Policy{}, tr31.ErrVersion},
		{"8.5 C by default", c, tr31.Policy{}, tr31.ErrVersion},
		{"A allowed", a, tr31.Policy{ReadA: true}, nil},
		{"C allowed", c, tr31.Policy{ReadC: true}, nil},
		{"A where C is allowed", a, tr31.Policy{ReadC: true}, tr31.ErrVersion},
		{"C where A is allowed", c, tr31.Policy{ReadA: true}, tr31.ErrVersion},
		{"D among variants", dynamic, tr31.Policy{ReadA: true, ReadC: true}, tr31.ErrVersion},
	} {
		t.Run(v.name, func(t *testing.T) {
			b, err := tr31.Parse(v.block)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := b.OpenVariant(encKey, authKey, keys.TDES2, v.p); !errors.Is(err, v.want) {
				t.Errorf("%v, want %v", err, v.want)
			}
		})
	}
	for name, block := range map[string]string{"A by derivation": a, "C by derivation": c, "D under TDES": dynamic} {
		b, err := tr31.Parse(block)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := b.Open(newKey(t, keys.TDES2, kbpk), keys.TDES2, tr31.Policy{ReadA: true, ReadC: true}); !errors.Is(err, tr31.ErrVersion) {
			t.Errorf("%s: %v, want %v", name, err, tr31.ErrVersion)
		}
	}
}

func TestStrength(t *testing.T) {
	// Section 8.4 of the API: rows are the carried key, columns the KBPK.
	kbpks := []keys.Algorithm{keys.TDES2, keys.TDES3, keys.AES128, keys.AES192, keys.AES256, keys.HMACSHA256}
	for carried, row := range map[keys.Algorithm]string{
		keys.TDES2:      "yyyyyn",
		keys.TDES3:      "nyyyyn",
		keys.AES128:     "nnyyyn",
		keys.AES192:     "nnnyyn",
		keys.AES256:     "nnnnyn",
		keys.HMACSHA224: "nnnnyn",
		keys.HMACSHA256: "nnnnyn",
		keys.HMACSHA384: "nnnnyn",
		keys.HMACSHA512: "nnnnyn",
		0:               "nnnnnn",
	} {
		for i, kbpk := range kbpks {
			err := tr31.CheckStrength(carried, kbpk)
			if (err == nil) != (row[i] == 'y') || err != nil && !errors.Is(err, tr31.ErrStrength) {
				t.Errorf("%s under %s: %v, want permitted: %c", carried, kbpk, err, row[i])
			}
		}
	}
}

// TestOpenChecksStrength opens published blocks that a policy must refuse.
func TestOpenChecksStrength(t *testing.T) {
	for _, c := range []struct {
		name, block, kbpk string
		a                 keys.Algorithm
		want              error
	}{
		{"three-key TDES under two-key", "A0104K0TB00N0200KC0C004F8660PB044545A2EA4A5B8872A61C4BBA8090C8136D42B16D94C8EBBB33CE84FE4E7D3560BEA77B0A", "2068BF8C8CCE1C2CA7CD16A86BFD7683", keys.TDES2, tr31.ErrStrength},
		{"two-key TDES under two-key", "A0072P0TE00E0000F5161ED902807AF26F1D62263644BD24192FDB3193C730301CEE8701", "89E88CF7931444F334BD7547FC3F380C", keys.TDES2, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			b, err := tr31.Parse(c.block)
			if err != nil {
				t.Fatal(err)
			}
			enc, auth := tr31.VariantKeys(secret.From(unhex(t, c.kbpk)))
			key, err := b.OpenVariant(newKey(t, c.a, hex.EncodeToString(enc.Reveal())), newKey(t, c.a, hex.EncodeToString(auth.Reveal())), c.a, tr31.Policy{ReadA: true})
			if !errors.Is(err, c.want) || err != nil && key.Len() != 0 {
				t.Errorf("%v, want %v", err, c.want)
			}
		})
	}
}

func TestSealAndOpen(t *testing.T) {
	value := func(n int) secret.Bytes {
		v := secret.New(n)
		if _, err := rand.Read(v.Reveal()); err != nil {
			t.Fatal(err)
		}
		return v
	}
	kbpks := map[keys.Algorithm]*softkey.Key{
		keys.TDES2:  newKey(t, keys.TDES2, zmkTDES),
		keys.TDES3:  newKey(t, keys.TDES3, zmkTDES+"0123456789ABCDEF"),
		keys.AES128: newKey(t, keys.AES128, zmkAES[:32]),
		keys.AES192: newKey(t, keys.AES192, zmkAES[:48]),
		keys.AES256: newKey(t, keys.AES256, zmkAES),
	}
	lengths := make(map[string]map[int]bool) // of blocks, by version and family
	for _, usage := range keys.Usages() {
		for _, carried := range keys.Algorithms() {
			attributes := keys.Attributes{Usage: usage, Algorithm: carried, Mode: keys.ModeAny, Exportability: keys.Exportable}
			if attributes.Validate() != nil {
				continue
			}
			for a, kbpk := range kbpks {
				h, key := tr31.NewHeader(attributes, a), value(carried.KeyBytes())
				text, err := tr31.Seal(kbpk, a, h, key, rand.Reader)
				if weak := tr31.CheckStrength(carried, a); weak != nil {
					if !errors.Is(err, tr31.ErrStrength) {
						t.Errorf("%v under %s: %v, want %v", attributes, a, err, tr31.ErrStrength)
					}
					continue
				}
				if err != nil {
					t.Fatalf("%v under %s: %v", attributes, a, err)
				}
				b, err := tr31.Parse(text)
				if err != nil {
					t.Fatal(err)
				}
				if d := cmp.Diff(h, b.Header); d != "" {
					t.Errorf("header (-want +got):\n%s", d)
				}
				got, err := b.Open(kbpk, a, tr31.Policy{})
				if err != nil || !got.Equal(key) {
					t.Errorf("%v under %s: the key differs: %v", attributes, a, err)
				}
				if back, err := b.Attributes(got.Len()); err != nil || back != attributes {
					t.Errorf("%v under %s comes back as %v, %v", attributes, a, back, err)
				}
				family := string(rune(b.Version)) + string(rune(carried.TR31()))
				if lengths[family] == nil {
					lengths[family] = make(map[int]bool)
				}
				lengths[family][len(text)] = true
			}
		}
	}
	for family, seen := range lengths {
		if len(seen) != 1 {
			t.Errorf("8.5 blocks of %s have %d lengths: the length tells the key's", family, len(seen))
		}
	}
	if len(lengths) != 4 { // B: TDES; D: TDES, AES, HMAC
		t.Errorf("%d families of blocks, want 4", len(lengths))
	}
}

func TestSealKeepsOptionalBlocks(t *testing.T) {
	kbpk := newKey(t, keys.AES256, zmkAES)
	key := secret.From(unhex(t, zmkTDES))
	h := tr31.NewHeader(keys.Attributes{Usage: keys.UsagePIN, Algorithm: keys.TDES2, Mode: keys.ModeEncrypt, Exportability: keys.Sensitive}, keys.AES256)
	h.KeyVersion = "c1"
	for _, n := range []int{0, 1, 7, 8, 12, 13, 251, 252, 300, 5000} {
		h.Optional = []tr31.Optional{{"LB", strings.Repeat("~", n)}, {"KS", "00604B120F9292800000"}}
		text, err := tr31.Seal(kbpk, keys.AES256, h, key, rand.Reader)
		if err != nil {
			t.Fatalf("%d characters: %v", n, err)
		}
		b, err := tr31.Parse(text)
		if err != nil {
			t.Fatalf("%d characters: %v", n, err)
		}
		if d := cmp.Diff(h, b.Header); d != "" {
			t.Errorf("%d characters (-want +got):\n%s", n, d)
		}
		if got, err := b.Open(kbpk, keys.AES256, tr31.Policy{}); err != nil || !got.Equal(key) {
			t.Errorf("%d characters: the key differs: %v", n, err)
		}
	}
}

func TestSealRefuses(t *testing.T) {
	kbpk := newKey(t, keys.AES256, zmkAES)
	good := tr31.NewHeader(keys.Attributes{Usage: keys.UsagePIN, Algorithm: keys.TDES2, Mode: keys.ModeBoth, Exportability: keys.Exportable}, keys.AES256)
	fault := errors.New("no entropy")
	for _, c := range []struct {
		name   string
		change func(h *tr31.Header)
		key    string
		random io.Reader
		want   error
	}{
		{"nothing wrong", func(*tr31.Header) {}, zmkTDES, rand.Reader, nil},
		{"version A", func(h *tr31.Header) { h.Version = tr31.VersionA }, zmkTDES, rand.Reader, tr31.ErrVersion},
		{"version B under AES", func(h *tr31.Header) { h.Version = tr31.VersionB }, zmkTDES, rand.Reader, tr31.ErrVersion},
		{"no version", func(h *tr31.Header) { h.Version = 0 }, zmkTDES, rand.Reader, tr31.ErrVersion},
		{"algorithm R", func(h *tr31.Header) { h.Algorithm = 'R' }, zmkTDES, rand.Reader, tr31.ErrHeader},
		{"HMAC without its hash", func(h *tr31.Header) { h.Algorithm = 'H' }, zmkAES, rand.Reader, tr31.ErrHeader},
		{"single DES", func(*tr31.Header) {}, zmkTDES[:16], rand.Reader, tr31.ErrHeader},
		{"usage", func(h *tr31.Header) { h.Usage = "p0" }, zmkTDES, rand.Reader, tr31.ErrHeader},
		{"usage of three", func(h *tr31.Header) { h.Usage = "P00" }, zmkTDES, rand.Reader, tr31.ErrHeader},
		{"mode", func(h *tr31.Header) { h.Mode = 0 }, zmkTDES, rand.Reader, tr31.ErrHeader},
		{"key version", func(h *tr31.Header) { h.KeyVersion = "1" }, zmkTDES, rand.Reader, tr31.ErrHeader},
		{"exportability", func(h *tr31.Header) { h.Exportability = 0 }, zmkTDES, rand.Reader, tr31.ErrHeader},
		{"optional identifier", func(h *tr31.Header) { h.Optional = []tr31.Optional{{"L", ""}} }, zmkTDES, rand.Reader, tr31.ErrHeader},
		{"optional twice", func(h *tr31.Header) { h.Optional = []tr31.Optional{{"LB", ""}, {"LB", ""}} }, zmkTDES, rand.Reader, tr31.ErrHeader},
		{"padding block of the caller", func(h *tr31.Header) { h.Optional = []tr31.Optional{{"PB", "00000000"}} }, zmkTDES, rand.Reader, tr31.ErrHeader},
		{"optional with control character", func(h *tr31.Header) { h.Optional = []tr31.Optional{{"LB", "a\nb"}} }, zmkTDES, rand.Reader, tr31.ErrHeader},
		{"too long", func(h *tr31.Header) { h.Optional = []tr31.Optional{{"LB", strings.Repeat("x", 9900)}} }, zmkTDES, rand.Reader, tr31.ErrHeader},
		{"no entropy", func(*tr31.Header) {}, zmkTDES, iotest.ErrReader(fault), fault},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := good
			c.change(&h)
			text, err := tr31.Seal(kbpk, keys.AES256, h, secret.From(unhex(t, c.key)), c.random)
			if !errors.Is(err, c.want) || (err == nil) != (text != "") {
				t.Errorf("%v, want %v", err, c.want)
			}
		})
	}
}

// broken is a KBPK whose token has gone after some calls.
type broken struct {
	*softkey.Key
	left *int
}

func (b broken) Encrypt(iv, src []byte) ([]byte, error) {
	if *b.left--; *b.left < 0 {
		return nil, keys.ErrUnavailable
	}
	return b.Key.Encrypt(iv, src)
}

func (b broken) Derive(data []byte, as keys.Spec) (keys.Derived, error) {
	if *b.left--; *b.left < 0 {
		return nil, keys.ErrUnavailable
	}
	return b.Key.Derive(data, as)
}

func TestTokenErrorsAreNotOpenErrors(t *testing.T) {
	b, err := tr31.Parse(dynamic)
	if err != nil {
		t.Fatal(err)
	}
	for calls := range 3 {
		left := calls
		kbpk := broken{newKey(t, keys.AES256, zmkAES), &left}
		if _, err := b.Open(kbpk, keys.AES256, tr31.Policy{}); !errors.Is(err, keys.ErrUnavailable) || errors.Is(err, tr31.ErrOpen) {
			t.Errorf("after %d calls: %v, want %v", calls, err, keys.ErrUnavailable)
		}
	}
}
