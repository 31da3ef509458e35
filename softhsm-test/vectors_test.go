package softhsmtest_test

import (
	"testing"

	"keyd.dev/keyd/internal/hsm"
	"keyd.dev/keyd/internal/secret"
	"keyd.dev/keyd/internal/vectors"
	"keyd.dev/keyd/keys"
	softhsmtest "keyd.dev/keyd/softhsm-test"
)

// TestVectors runs the vector files through a token: each key of each case is
// an object there.
func TestVectors(t *testing.T) {
	token := softhsmtest.Token(t)
	manager := hsm.NewManager(token)
	for _, file := range []struct {
		name string
		run  func(*testing.T, vectors.Factory)
	}{
		{"dukpt_tdes", vectors.TDESDUKPT},
		{"dukpt_aes", vectors.AESDUKPT},
		{"pin_blocks", vectors.PINBlocks},
		{"mac", vectors.MAC},
		{"kcv", vectors.KCV},
	} {
		t.Run(file.name, func(t *testing.T) {
			before := token.Stats()
			file.run(t, func(a keys.Algorithm, value []byte) (*keys.Loaded, error) {
				can := keys.CanEncrypt | keys.CanDecrypt | keys.CanMAC | keys.CanDerive
				k, err := manager.Hold(secret.From(append([]byte(nil), value...)), keys.Spec{Algorithm: a, Can: can})
				if err != nil {
					return nil, err
				}
				return keys.NewLoaded(k, nil, func() { _ = k.Close() }), nil
			})
			after := token.Stats()
			info := token.Info()
			t.Logf("%s on %s %s: %d keys made in the token, %d calls", file.name, info.Manufacturer, info.Library, after.Made-before.Made, after.Calls-before.Calls)
			if after.Made == before.Made {
				t.Error("no case went through the token")
			}
		})
	}
}
