package hsm_test

import (
	"bytes"
	"errors"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/miekg/pkcs11"

	"keyd.dev/keyd/internal/hsm"
	"keyd.dev/keyd/internal/secret"
	"keyd.dev/keyd/internal/softkey"
	"keyd.dev/keyd/keys"
	softhsmtest "keyd.dev/keyd/softhsm-test"
)

// TestTrials holds what the two modules were found able to do, beyond what
// every module must.
func TestTrials(t *testing.T) {
	const missing, size = "CKR_MECHANISM_INVALID", "CKR_KEY_SIZE_RANGE"
	want := map[string]map[hsm.Function]string{
		"softhsm": {
			hsm.ReencipherTDES: missing, hsm.ReencipherAES: missing, hsm.SingleDES: missing,
			hsm.ShortHMAC: size, hsm.XORData: missing, hsm.ConcatData: missing,
		},
		"softokn": {hsm.TDESCMAC: missing, hsm.Ed25519: missing, hsm.KeyWrapPad: "wrong answer"},
	}
	softhsmtest.Each(t, func(t *testing.T, m softhsmtest.Module) {
		token := softhsmtest.Open(t, m.Config(t))
		got := make(map[hsm.Function]string)
		info := token.Info()
		for _, trial := range info.Trials {
			if !trial.Works {
				got[trial.Function] = trial.Answer
			}
			if info.Can(trial.Function) != trial.Works {
				t.Errorf("Can(%s) is not what became of it", trial.Function)
			}
		}
		if d := cmp.Diff(want[m.Name], got); d != "" {
			t.Errorf("what the module cannot (-want +got):\n%s", d)
		}
		if len(info.Trials) < 19 || info.Can("walk on water") {
			t.Errorf("trials: %v", info.Trials)
		}
		for _, a := range []keys.Algorithm{keys.TDES2, keys.TDES3, keys.AES128, keys.AES256, keys.HMACSHA256} {
			if can := token.Reenciphers(a); can != (m.Name == "softokn" && !a.IsHMAC()) {
				t.Errorf("re-enciphers under %s: %t", a, can)
			}
		}
	})
}

// pinCiphers are the algorithms of PIN keys.
var pinCiphers = []keys.Algorithm{keys.TDES2, keys.TDES3, keys.AES128, keys.AES192, keys.AES256}

// sideOf is what a PIN key's object may do on one side of a translation.
func sideOf(a keys.Algorithm, outgoing bool) keys.Ability {
	switch {
	case outgoing && a.IsAES():
		return keys.CanWrap | keys.CanEncrypt
	case outgoing:
		return keys.CanWrap
	case a.IsAES():
		return keys.CanUnwrap | keys.CanDecrypt
	}
	return keys.CanUnwrap
}

func loadedFor(t testing.TB, token *hsm.Token, b *keys.Block, can keys.Ability) keys.Key {
	t.Helper()
	l := must(token.LoadFor(t.Context(), b, can))(t)
	t.Cleanup(l.Release)
	return l.Key
}

// values of two PIN keys.
func twoValues(t *testing.T, a keys.Algorithm) (in, out []byte) {
	raw := unhex(t, clear32)
	in = slices.Clone(raw[:a.KeyBytes()])
	slices.Reverse(raw)
	out = raw[:a.KeyBytes()]
	if a.IsTDES() {
		keys.AdjustParity(in)
		keys.AdjustParity(out)
	}
	return in, out
}

// TestReencipher compares what the token makes with what Go's ciphers make, for
// every cipher and many blocks, and counts the objects that are left: none.
func TestReencipher(t *testing.T) {
	softhsmtest.Each(t, func(t *testing.T, module softhsmtest.Module) {
		token := module.Token(t)
		m := hsm.NewManager(token)
		for _, a := range pinCiphers {
			t.Run(a.String(), func(t *testing.T) {
				v, w := twoValues(t, a)
				from := loadedFor(t, token, imported(t, m, template("P0", a, 'D'), v), sideOf(a, false))
				to := loadedFor(t, token, imported(t, m, template("P0", a, 'E'), w), sideOf(a, true))
				block := make([]byte, a.BlockSize())
				if !token.Reenciphers(a) {
					if got, err := token.Reencipher(from, to, block); !errors.Is(err, keys.ErrCustody) || got != nil {
						t.Errorf("a module that cannot: %v, want %v", err, keys.ErrCustody)
					}
					return
				}
				before, stats := must(token.Objects())(t), token.Stats()
				softIn, softOut := must(softkey.New(a, v))(t), must(softkey.New(a, w))(t)
				for n := range 256 {
					block[n%len(block)] ^= byte(n)
					want := must(softOut.Encrypt(nil, must(softIn.Decrypt(nil, block))(t)))(t)
					if got := must(token.Reencipher(from, to, block))(t); !bytes.Equal(got, want) {
						t.Fatalf("block %d differs", n)
					}
				}
				after, now := must(token.Objects())(t), token.Stats()
				if after != before || now.Made-stats.Made != 256 || now.Destroyed-stats.Destroyed != 256 {
					t.Errorf("%d objects, then %d; %d made, %d destroyed", before, after, now.Made-stats.Made, now.Destroyed-stats.Destroyed)
				}
			})
		}
	})
}

// TestPINObjects reads the attributes of the objects of PIN keys, as the key's
// policy and the side of a translation make them: no key of an 8-byte format
// may both wrap and decipher, or unwrap and encipher.
func TestPINObjects(t *testing.T) {
	uses := []uint{pkcs11.CKA_ENCRYPT, pkcs11.CKA_DECRYPT, pkcs11.CKA_SIGN, pkcs11.CKA_VERIFY, pkcs11.CKA_WRAP, pkcs11.CKA_UNWRAP,
		pkcs11.CKA_DERIVE, pkcs11.CKA_EXTRACTABLE}
	names := map[uint]string{pkcs11.CKA_ENCRYPT: "E", pkcs11.CKA_DECRYPT: "D", pkcs11.CKA_WRAP: "W", pkcs11.CKA_UNWRAP: "U"}
	softhsmtest.Each(t, func(t *testing.T, module softhsmtest.Module) {
		token := module.Token(t)
		m := hsm.NewManager(token)
		for _, test := range []struct {
			a                 keys.Algorithm
			mode              keys.Mode
			policy            string
			load, in, outward string // "-": refused
		}{
			{keys.TDES2, 'D', "any", "D", "U", "-"},
			{keys.TDES2, 'E', "any", "E", "-", "W"},
			{keys.TDES2, 'B', "any", "ED", "U", "W"},
			{keys.TDES2, 'D', "token", "U", "U", "-"},
			{keys.TDES2, 'E', "token", "W", "-", "W"},
			{keys.TDES3, 'B', "token", "WU", "U", "W"},
			{keys.TDES3, 'N', "token", "WU", "U", "W"},
			{keys.AES128, 'D', "any", "D", "DU", "-"},
			{keys.AES128, 'D', "token", "U", "DU", "-"},
			{keys.AES192, 'E', "token", "W", "-", "EW"},
			{keys.AES256, 'B', "token", "WU", "DU", "EW"},
		} {
			tmpl := template("P0", test.a, test.mode)
			tmpl.Policy = map[string]string{"keyd:custody": test.policy}
			t.Run(tmpl.Attributes.String()+" "+test.policy, func(t *testing.T) {
				v, _ := twoValues(t, test.a)
				b := imported(t, m, tmpl, v)
				check := func(name string, l *keys.Loaded, err error, want string) {
					t.Helper()
					if want == "-" {
						if !errors.Is(err, keys.ErrForbidden) {
							t.Errorf("%s: %v, want %v", name, err, keys.ErrForbidden)
						}
						return
					}
					if err != nil {
						t.Fatal(err)
					}
					defer l.Release()
					got := ""
					set := must(hsm.Attributes(l.Key, uses...))(t)
					for _, typ := range uses {
						if set[typ] {
							got += names[typ]
						}
						if set[typ] && names[typ] == "" {
							t.Errorf("%s: attribute %#x is set", name, typ)
						}
					}
					if got != want {
						t.Errorf("%s: the object may %s, want %s", name, got, want)
					}
				}
				l, err := token.Load(t.Context(), b)
				check("load", l, err, test.load)
				l, err = token.LoadFor(t.Context(), b, sideOf(test.a, false))
				check("incoming", l, err, test.in)
				l, err = token.LoadFor(t.Context(), b, sideOf(test.a, true))
				check("outgoing", l, err, test.outward)
			})
		}
	})
}

func TestReencipherRefuses(t *testing.T) {
	token := softhsmtest.Softokn().Token(t)
	m := hsm.NewManager(token)
	v, w := twoValues(t, keys.TDES2)
	in, out := imported(t, m, template("P0", keys.TDES2, 'B'), v), imported(t, m, template("P0", keys.TDES2, 'B'), w)
	from, to := loadedFor(t, token, in, keys.CanUnwrap), loadedFor(t, token, out, keys.CanWrap)
	aes := loadedFor(t, token, imported(t, m, template("P0", keys.AES128, 'B'), v), keys.CanWrap|keys.CanEncrypt)
	plain := loaded(t, token, in).Key
	soft := must(softkey.New(keys.TDES2, w))(t)
	for _, test := range []struct {
		name     string
		from, to keys.Key
		n        int
	}{
		{"M-30 outgoing key as incoming", to, to, 8},
		{"M-30 incoming key as outgoing", from, from, 8},
		{"M-30 a key that enciphers", plain, plain, 8},
		{"a key in the process", from, soft, 8},
		{"no key", from, nil, 8},
		{"another cipher", from, aes, 8},
		{"two blocks", from, to, 16},
		{"part of a block", from, to, 7},
		{"nothing", from, to, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got, err := token.Reencipher(test.from, test.to, make([]byte, test.n)); !errors.Is(err, keys.ErrForbidden) || got != nil {
				t.Errorf("%X, %v, want %v", got, err, keys.ErrForbidden)
			}
		})
	}
	t.Run("M-30 the objects themselves", func(t *testing.T) {
		for _, k := range []keys.Key{from, to} {
			if err := hsm.Bypass(k, false); !errors.Is(err, keys.ErrForbidden) {
				t.Errorf("enciphering past the check: %v, want %v", err, keys.ErrForbidden)
			}
		}
	})
	t.Run("LoadFor", func(t *testing.T) {
		mac := imported(t, m, template("M6", keys.AES128, 'C'), v)
		for _, test := range []struct {
			b   *keys.Block
			can keys.Ability
		}{
			{in, 0}, {in, keys.CanUnwrap | keys.CanWrap}, {in, keys.CanWrap | keys.CanDecrypt}, {in, keys.CanDecrypt},
			{in, keys.CanUnwrap | keys.CanDecrypt}, {mac, keys.CanUnwrap}, {mac, keys.CanWrap},
		} {
			if _, err := token.LoadFor(t.Context(), test.b, test.can); !errors.Is(err, keys.ErrForbidden) {
				t.Errorf("%s for %b: %v, want %v", test.b.Attributes, test.can, err, keys.ErrForbidden)
			}
		}
		forged := *in
		forged.Attributes.Mode = 'E'
		if _, err := token.LoadFor(t.Context(), &forged, keys.CanWrap); !errors.Is(err, keys.ErrBlockMAC) {
			t.Errorf("a forged mode of use: %v, want %v", err, keys.ErrBlockMAC)
		}
		forged = *in
		forged.LMK = 2
		if _, err := token.LoadFor(t.Context(), &forged, keys.CanWrap); !errors.Is(err, keys.ErrLMK) {
			t.Errorf("another master key: %v, want %v", err, keys.ErrLMK)
		}
	})
	t.Run("rights that must not meet", func(t *testing.T) {
		bdk := loaded(t, token, imported(t, m, template("B0", keys.AES128, 'X'), v)).Key
		for _, can := range []keys.Ability{keys.CanWrap | keys.CanDecrypt, keys.CanUnwrap | keys.CanEncrypt} {
			as := keys.Spec{Algorithm: keys.AES128, Can: can}
			if _, err := bdk.Derive(make([]byte, 16), as); !errors.Is(err, keys.ErrAttributes) {
				t.Errorf("Derive for %b: %v, want %v", can, err, keys.ErrAttributes)
			}
			if _, err := m.Hold(secret.From(slices.Clone(v)), as); !errors.Is(err, keys.ErrAttributes) {
				t.Errorf("Hold for %b: %v, want %v", can, err, keys.ErrAttributes)
			}
		}
	})
}

// TestGenerateTokenOnly asks for new keys whose policy lets nothing clear out:
// those with a companion cannot be made so.
func TestGenerateTokenOnly(t *testing.T) {
	token := softhsmtest.Token(t)
	m := hsm.NewManager(token)
	for _, test := range []struct {
		u    keys.Usage
		a    keys.Algorithm
		mode keys.Mode
		want error
	}{
		{"B0", keys.TDES2, 'X', keys.ErrCustody}, {"M3", keys.TDES2, 'C', keys.ErrCustody},
		{"B0", keys.AES128, 'X', nil}, {"M6", keys.TDES2, 'C', nil}, {"P0", keys.TDES2, 'B', nil},
	} {
		tmpl := template(test.u, test.a, test.mode)
		tmpl.Policy = map[string]string{"keyd:custody": "token"}
		b, inProcess, err := m.Generate(t.Context(), tmpl)
		if !errors.Is(err, test.want) || inProcess || (b == nil) != (err != nil) {
			t.Errorf("%s: in the process: %t, %v, want %v", tmpl.Attributes, inProcess, err, test.want)
		}
	}
}

// TestReencipherDerived has AES DUKPT's kind of key on the incoming side.
func TestReencipherDerived(t *testing.T) {
	token := softhsmtest.Softokn().Token(t)
	m := hsm.NewManager(token)
	for _, a := range []keys.Algorithm{keys.AES128, keys.TDES2} {
		t.Run(a.String(), func(t *testing.T) {
			v, w := twoValues(t, a)
			data := bytes.Repeat([]byte{0x5A, 1}, 8)
			bdk := loaded(t, token, imported(t, m, template("B0", keys.AES128, 'X'), v)).Key
			from := must(bdk.Derive(data, keys.Spec{Algorithm: a, Can: sideOf(a, false)}))(t)
			defer from.Close()
			to := loadedFor(t, token, imported(t, m, template("P0", a, 'E'), w), sideOf(a, true))
			value := must(must(softkey.New(keys.AES128, v))(t).Encrypt(nil, data))(t)
			softIn, softOut := must(softkey.New(a, value))(t), must(softkey.New(a, w))(t)
			block := data[:a.BlockSize()]
			want := must(softOut.Encrypt(nil, must(softIn.Decrypt(nil, block))(t)))(t)
			if got := must(token.Reencipher(from, to, block))(t); !bytes.Equal(got, want) {
				t.Error("the block differs")
			}
		})
	}
}

// TestReencipherFails has the module fail within: no object is left, and the
// next block goes through.
func TestReencipherFails(t *testing.T) {
	for _, test := range []struct {
		name string
		code uint
		left bool
		err  error // nil: it is done once more
	}{
		{"unwrapping refused", pkcs11.CKR_WRAPPED_KEY_INVALID, false, pkcs11.Error(pkcs11.CKR_WRAPPED_KEY_INVALID)},
		{"the object stays", pkcs11.CKR_FUNCTION_FAILED, true, keys.ErrUnavailable},
		{"session lost", pkcs11.CKR_SESSION_HANDLE_INVALID, false, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			cfg := softhsmtest.Softokn().Config(t)
			cfg.Sessions = 1
			token, faulty, err := hsm.OpenFaulty(cfg, nil)
			if err != nil {
				t.Fatal(err)
			}
			defer token.Close()
			m := hsm.NewManager(token)
			if err := m.Init(t.Context()); err != nil {
				t.Fatal(err)
			}
			v, w := twoValues(t, keys.TDES2)
			from := loadedFor(t, token, imported(t, m, template("P0", keys.TDES2, 'D'), v), keys.CanUnwrap)
			to := loadedFor(t, token, imported(t, m, template("P0", keys.TDES2, 'E'), w), keys.CanWrap)
			block := make([]byte, 8)
			want := must(token.Reencipher(from, to, block))(t)
			before := must(token.Objects())(t)
			faulty.Left = test.left
			done := false
			faulty.Set(func(call string) error {
				if call == "re-encipher" && !done {
					done = true
					return pkcs11.Error(test.code)
				}
				return nil
			})
			got, err := token.Reencipher(from, to, block)
			if !errors.Is(err, test.err) || (test.err == nil) != bytes.Equal(got, want) {
				t.Errorf("%X, %v, want %v", got, err, test.err)
			}
			if got := must(token.Reencipher(from, to, block))(t); !bytes.Equal(got, want) {
				t.Error("the next block differs")
			}
			if after := must(token.Objects())(t); after != before {
				t.Errorf("%d objects, were %d", after, before)
			}
		})
	}
}
