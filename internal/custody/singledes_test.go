package custody_test

import (
	"encoding/hex"
	"errors"
	"testing"

	"keyd.dev/keyd/internal/custody"
	"keyd.dev/keyd/internal/secret"
	"keyd.dev/keyd/keys"
	softhsmtest "keyd.dev/keyd/softhsm-test"
)

// TestA10T2SingleDES: a MAC key of single DES comes to no terminal whose profile does
// not name such keys, by whatever way; and none comes in disguise as a double one of
// equal halves (M-14).
func TestA10T2SingleDES(t *testing.T) {
	double := custody.TerminalProfile{Name: "double-16", Master: keys.TDES2, Working: keys.TDES2, MAC: keys.UsageMACAlg1, MACBytes: 16, Algorithm: custody.CUPECB}
	half := custody.TerminalProfile{Name: "half-8", Master: keys.TDES2, Working: keys.TDES2, MAC: keys.UsageMACAlg1, MACBytes: 8, Algorithm: custody.CUPECB}
	r := newRegistry(t, softhsmtest.Token(t), double, half)
	u := r.fielded(t, 1, double.Name, custody.CUPECB, masterKey(0))
	other := r.fielded(t, 2, half.Name, custody.CUPECB, masterKey(1))
	user := r.WithoutMaker()
	signIn := func(u *terminal, form string, length int) error {
		_, err := user.SignIn(t.Context(), theSwitch, "signin", custody.SignIn{TID: u.tid, Form: form, Algorithm: custody.CUPECB, MACBytes: length})
		return err
	}
	disguised := func(usage keys.Usage) error {
		value, err := hex.DecodeString("5BB5C72CD00B73385BB5C72CD00B7338")
		if err != nil {
			t.Fatal(err)
		}
		_, err = r.ImportClear(t.Context(), custody.SystemCaller("test", custody.RoleCustodian), "import", custody.ImportClear{
			Attributes: attributes(usage, keys.TDES2, keys.ModeMAC), Value: secret.From(value), Alias: "alias/disguised",
		})
		return err
	}
	for _, c := range []struct {
		name string
		err  error
		want error
	}{
		{"a dialect with keys of 8 bytes", signIn(u, "003", 8), custody.ErrConflict},
		{"form 001 of a sign-in", signIn(u, "001", 16), custody.ErrRequest},
		{"form 001 where only the MAC key may be single", signIn(other, "001", 8), custody.ErrRequest},
		{"a single-length PIN key by command", func() error {
			_, err := r.DistributeKeys(t.Context(), admin, "d", custody.DistributeKeys{TID: u.tid, Form: custody.DeliverDE62Single})
			return err
		}(), custody.ErrRequest},
		{"equal halves, algorithm 1", disguised(keys.UsageMACAlg1), keys.ErrMaterial},
		{"equal halves, algorithm 3", disguised(keys.UsageMACAlg3), keys.ErrMaterial},
	} {
		t.Run(c.name, func(t *testing.T) {
			if !errors.Is(c.err, c.want) {
				t.Errorf("%v, want %v", c.err, c.want)
			}
		})
	}
	if got := u.signIn(t, user, "003"); len(got.Field) != 40 || !u.double {
		t.Errorf("the terminal was given %d bytes, a double key: %v", len(got.Field), u.double)
	}
	if other.signIn(t, user, "003"); other.double {
		t.Error("the profile that names single DES gave another")
	}
}
