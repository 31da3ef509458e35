package hsm_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/miekg/pkcs11"

	"keyd.dev/keyd/internal/hsm"
	"keyd.dev/keyd/keys"
	"keyd.dev/keyd/mac"
	softhsmtest "keyd.dev/keyd/softhsm-test"
)

// TestChainCMAC takes the TDES CMAC mechanism away, as some modules have none.
func TestChainCMAC(t *testing.T) {
	token, _, err := hsm.OpenFaulty(initialised(t), func(call string) error {
		if call == "TDES CMAC" {
			return pkcs11.Error(pkcs11.CKR_MECHANISM_INVALID)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	defer token.Close()
	m := hsm.NewManager(token)
	value := unhex(t, clear32)[:16]
	tmpl := template("M6", keys.TDES2, 'C')
	tmpl.CheckBy = keys.CheckByCMAC
	b := imported(t, m, tmpl, value)
	if want, err := keys.CheckClear(keys.TDES2, keys.CheckByCMAC, value); err != nil || want != b.Check {
		t.Errorf("the check value differs: %v", err)
	}
	soft := must(mac.NewTDES(value))(t)
	k := loaded(t, token, b).Key
	for n := range 40 {
		message := bytes.Repeat([]byte{byte(n)}, n)
		if got := must(k.CMAC(message))(t); !bytes.Equal(got, must(mac.CMAC(soft, message))(t)) {
			t.Errorf("%d bytes: the CMAC differs", n)
		}
	}
	if _, err := k.Encrypt(nil, value); !errors.Is(err, keys.ErrForbidden) {
		t.Errorf("Encrypt with a MAC key: %v, want %v", err, keys.ErrForbidden)
	}
}

func TestSigner(t *testing.T) {
	message := []byte("checkpoint")
	digest := sha256.Sum256(message)
	t.Run("Ed25519", func(t *testing.T) {
		s := must(softhsmtest.SoftHSM().Token(t).Signer())(t)
		public, ok := s.Public().(ed25519.PublicKey)
		if !ok {
			t.Fatalf("public key is a %T", s.Public())
		}
		if signature := must(s.Sign(nil, message, crypto.Hash(0)))(t); !ed25519.Verify(public, message, signature) {
			t.Error("the signature does not verify")
		}
		if _, err := s.Sign(nil, digest[:], crypto.SHA256); err == nil {
			t.Error("a digest was signed as a message")
		}
	})
	t.Run("P-256", func(t *testing.T) {
		token, faulty, err := hsm.OpenFaulty(softhsmtest.SoftHSM().Config(t), nil)
		if err != nil {
			t.Fatal(err)
		}
		defer token.Close()
		tried := faulty.Count("C_GenerateKeyPair") // by the self-test
		faulty.Set(func(call string) error {
			if call == "C_GenerateKeyPair" && faulty.Count(call) <= tried+2 {
				return pkcs11.Error(pkcs11.CKR_MECHANISM_INVALID)
			}
			return nil
		})
		if err := hsm.NewManager(token).Init(t.Context()); err != nil {
			t.Fatal(err)
		}
		checkECDSA(t, token)
	})
}

func checkECDSA(t *testing.T, token *hsm.Token) {
	t.Helper()
	digest := sha256.Sum256([]byte("checkpoint"))
	s := must(token.Signer())(t)
	public, ok := s.Public().(*ecdsa.PublicKey)
	if !ok {
		t.Fatalf("public key is a %T", s.Public())
	}
	for range 20 { // the integers of a signature are of any length
		if signature := must(s.Sign(nil, digest[:], crypto.SHA256))(t); !ecdsa.VerifyASN1(public, digest[:], signature) {
			t.Error("the signature does not verify")
		}
	}
	for _, opts := range []crypto.Hash{0, crypto.SHA512} {
		if _, err := s.Sign(nil, digest[:], opts); err == nil {
			t.Errorf("signed with %v", opts)
		}
	}
}

// TestCopyRefused has the module refuse session copies of its own keys.
func TestCopyRefused(t *testing.T) {
	token, _, err := hsm.OpenFaulty(initialised(t), func(call string) error {
		if call == "C_CopyObject" {
			return pkcs11.Error(pkcs11.CKR_FUNCTION_NOT_SUPPORTED)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	defer token.Close()
	must(must(token.System("data"))(t).Encrypt(nil, make([]byte, 16)))(t)
	if err := token.Check(t.Context()); err != nil {
		t.Errorf("Check: %v", err)
	}
}

// childVar tells a copy of the test's program to be the second process.
const childVar = "KEYD_HSM_CHILD"

// TestSecondProcess loads in one process what another has made.
func TestSecondProcess(t *testing.T) {
	if path := os.Getenv(childVar); path != "" {
		child(t, path)
		return
	}
	cfg := initialised(t)
	token := softhsmtest.Open(t, cfg)
	b := imported(t, hsm.NewManager(token), template("P0", keys.TDES2, 'B'), unhex(t, "0123456789ABCDEFFEDCBA9876543210"))
	raw := must(b.MarshalBinary())(t)
	path := filepath.Join(t.TempDir(), "block")
	if err := os.WriteFile(path, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestSecondProcess$", "-test.v")
	cmd.Env = append(os.Environ(), childVar+"="+path, childVar+"_MODULE="+cfg.Module, childVar+"_RESERVED="+cfg.Reserved)
	out, err := cmd.CombinedOutput()
	if err != nil || !bytes.Contains(out, []byte("the child has used the key")) {
		t.Errorf("second process: %v\n%s", err, out)
	}
}

func child(t *testing.T, path string) {
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	token := softhsmtest.Open(t, hsm.Config{
		Module: os.Getenv(childVar + "_MODULE"), Reserved: os.Getenv(childVar + "_RESERVED"),
		TokenLabel: softhsmtest.Label, PIN: softhsmtest.PIN,
	})
	b := must(keys.ParseBlock(raw))(t)
	got := must(loaded(t, token, b).Key.Encrypt(nil, make([]byte, 8)))(t)
	if !bytes.Equal(got[:3], []byte{0x08, 0xD7, 0xB4}) {
		t.Fatal("the key enciphers as another")
	}
	t.Log("the child has used the key")
}
