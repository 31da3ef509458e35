package store

import (
	"context"
	"fmt"
	"path/filepath"
	"testing"

	"keyd.dev/keyd/internal/custody"
	"keyd.dev/keyd/internal/isoswitch"
)

// A large node: 100,000 terminals with three keys each.
const (
	benchTerminals = 100_000
	benchKeys      = 3 * benchTerminals
)

func benchTerminal(n int) isoswitch.Terminal {
	return isoswitch.Terminal{
		TID: fmt.Sprintf("%08d", n), MID: "M00000000000001", Scheme: isoswitch.AESDUKPT,
		BDK: "alias/dev/bdk-aes", Device: isoswitch.Device(fmt.Sprintf("%016X", n)), MACBytes: 8,
	}
}

// fill loads a database with the rows of a large node, 5,000 in a change.
func fill(b *testing.B, db *DB, keys, terminals int) {
	b.Helper()
	const batch = 5000
	for first := 0; first < keys || first < terminals; first += batch {
		err := db.Change(context.Background(), nil, func(ch *Change) error {
			for n := first; n < first+batch; n++ {
				if n < keys {
					k := aKey(n)
					k.Aliases = nil
					if err := ch.AddKey(k); err != nil {
						return err
					}
				}
				if n < terminals {
					if err := ch.AddTerminal(benchTerminal(n)); err != nil {
						return err
					}
				}
			}
			return nil
		})
		if err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkRegister measures what the register costs a large node: at the start,
// at a change, and at each row that is read.
func BenchmarkRegister(b *testing.B) {
	path := filepath.Join(b.TempDir(), "keyd.db")
	db := openAt(b, path, Serve)
	fill(b, db, benchKeys, benchTerminals)
	b.Run("build", func(b *testing.B) {
		for b.Loop() {
			t, err := db.scanRegister(b.Context())
			if err != nil || t.size <= benchKeys {
				b.Fatal(t.size, err)
			}
		}
		b.ReportMetric(float64(b.Elapsed().Milliseconds())/float64(b.N), "ms/start")
	})
	b.Run("change", func(b *testing.B) {
		for n := 0; b.Loop(); n++ {
			err := db.ChangeKeys(b.Context(), nil, func(ch custody.KeyChange) error {
				k, err := ch.Key(keyID(n % benchKeys))
				if err != nil {
					return err
				}
				k.Tags = map[string]string{"n": fmt.Sprint(n)}
				return ch.SetKey(k)
			})
			if err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("check", func(b *testing.B) {
		t := benchTerminal(7)
		values, err := registeredValues(entryOf(t))
		if err != nil {
			b.Fatal(err)
		}
		values = plain(values)
		for b.Loop() {
			sum, err := terminalTable.sum(t.TID, values)
			if err != nil || !db.register.right(terminalTable.id(t.TID), sum) {
				b.Fatal(err)
			}
		}
	})
	b.Run("terminal", func(b *testing.B) {
		for n := 0; b.Loop(); n++ {
			if _, err := db.Terminal(b.Context(), fmt.Sprintf("%08d", n%benchTerminals)); err != nil {
				b.Fatal(err)
			}
		}
	})
}
