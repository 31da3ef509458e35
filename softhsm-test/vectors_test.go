package softhsmtest_test

import (
	"bytes"
	"testing"

	"keyd.dev/keyd/internal/hsm"
	"keyd.dev/keyd/internal/secret"
	"keyd.dev/keyd/internal/softkey"
	"keyd.dev/keyd/internal/vectors"
	"keyd.dev/keyd/keys"
	softhsmtest "keyd.dev/keyd/softhsm-test"
)

// TestVectors runs the vector files over Go's ciphers, and through each module,
// where each key of each case is an object of the token. It prints how many
// cases of which file went where; make vectors shows that.
func TestVectors(t *testing.T) {
	counts := map[string]map[string]vectors.Tally{"go": runVectors(t, "go", softkey.Load)}
	softhsmtest.Each(t, func(t *testing.T, m softhsmtest.Module) {
		token := m.Token(t)
		before := token.Stats()
		counts[m.Name] = runVectors(t, m.Name, holding(hsm.NewManager(token)))
		s := token.Stats()
		if made := s.Made - before.Made; made < 500 || s.Destroyed-before.Destroyed != made {
			t.Errorf("%d keys made in the token, %d destroyed", made, s.Destroyed-before.Destroyed)
		}
	})
	for name, files := range counts {
		for _, file := range vectors.Files() {
			n, want := files[file.Name], counts["go"][file.Name]
			if n.Cases == 0 || n != want {
				t.Errorf("%s on %s: %+v, want as over Go's ciphers: %+v", file.Name, name, n, want)
			}
		}
	}
}

func runVectors(t *testing.T, name string, f vectors.Factory) map[string]vectors.Tally {
	t.Helper()
	counts := make(map[string]vectors.Tally)
	for _, file := range vectors.Files() {
		t.Run(file.Name, func(t *testing.T) {
			n := file.Run(t, f)
			counts[file.Name] = n
			t.Logf("vectors: %-11s  %-7s  %3d of %3d cases passed, %2d of them refusals; %3d with keys of it",
				file.Name, name, n.Passed, n.Cases, n.Refused, n.Keyed)
			if n.Passed != n.Cases || n.Keyed == 0 {
				t.Error("not every case has passed, or none had a key")
			}
		})
	}
	return counts
}

// holding makes keys in a token.
func holding(m *hsm.Manager) vectors.Factory {
	return func(a keys.Algorithm, value []byte) (*keys.Loaded, error) {
		can := keys.CanEncrypt | keys.CanDecrypt | keys.CanMAC | keys.CanDerive
		k, err := m.Hold(secret.From(bytes.Clone(value)), keys.Spec{Algorithm: a, Can: can})
		if err != nil {
			return nil, err
		}
		return keys.NewLoaded(k, nil, func() { _ = k.Close() }), nil
	}
}
