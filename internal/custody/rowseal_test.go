package custody_test

import (
	"errors"
	"testing"

	"keyd.dev/keyd/internal/custody"
	"keyd.dev/keyd/keys"
	softhsmtest "keyd.dev/keyd/softhsm-test"
)

// noToken has no keys.
type noToken struct{}

func (noToken) System(string) (keys.Key, error) { return nil, keys.ErrUnavailable }

// TestR50RowKeys: a database's row key is the database's alone, and the
// same at each start.
func TestR50RowKeys(t *testing.T) {
	token := softhsmtest.Token(t)
	seal := func(of interface {
		System(string) (keys.Key, error)
	}, database byte, row string) [16]byte {
		t.Helper()
		s, err := custody.NewRowSealer(of, [16]byte{database})
		if err != nil {
			t.Fatal(err)
		}
		first, again := s.Seal([]byte(row)), s.Seal([]byte(row))
		if first != again {
			t.Error("two MACs of one row differ")
		}
		return first
	}
	want := seal(token, 1, "row")
	if got := seal(token, 1, "row"); got != want {
		t.Error("another start has another key")
	}
	for name, got := range map[string][16]byte{
		"another row":      seal(token, 1, "Row"),
		"another database": seal(token, 2, "row"),
		"nothing":          {},
	} {
		if got == want {
			t.Errorf("%s has the same MAC", name)
		}
	}
	if _, err := custody.NewRowSealer(noToken{}, [16]byte{}); !errors.Is(err, custody.ErrUnavailable) {
		t.Errorf("without a token: %v", err)
	}
}

// BenchmarkRowSealer is the MAC of a row of the size of an original.
func BenchmarkRowSealer(b *testing.B) {
	s, err := custody.NewRowSealer(softhsmtest.Token(b), [16]byte{1})
	if err != nil {
		b.Fatal(err)
	}
	row := make([]byte, 1300)
	b.SetBytes(int64(len(row)))
	b.ReportAllocs()
	for b.Loop() {
		s.Seal(row)
	}
}
