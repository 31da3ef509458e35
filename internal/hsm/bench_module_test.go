package hsm_test

import (
	"os"
	"strconv"
	"strings"
	"testing"

	"keyd.dev/keyd/internal/hsm"
	"keyd.dev/keyd/keys"
	softhsmtest "keyd.dev/keyd/softhsm-test"
)

// resident is the memory of the process in bytes; 0 where it cannot be told.
func resident() int {
	text, _ := os.ReadFile("/proc/self/statm")
	fields := strings.Fields(string(text))
	if len(fields) < 2 {
		return 0
	}
	pages, _ := strconv.Atoi(fields[1])
	return pages * os.Getpagesize()
}

// growing runs a benchmark and reports by how many bytes of resident memory
// each round made the process larger. What a module leaks shows in long runs:
// -benchtime=300000x.
func growing(b *testing.B, round func() error) {
	for range 1000 {
		if err := round(); err != nil {
			b.Fatal(err)
		}
	}
	before := resident()
	for b.Loop() {
		if err := round(); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(resident()-before)/float64(b.N), "resident-B/op")
}

// BenchmarkReencipher moves PIN blocks within the token: one cipher block, and
// all of format 4.
func BenchmarkReencipher(b *testing.B) {
	token := softhsmtest.Softokn().Token(b)
	m := hsm.NewManager(token)
	side := func(a keys.Algorithm, mode keys.Mode) keys.Key {
		block, _, err := m.Generate(b.Context(), template(keys.UsagePIN, a, mode))
		if err != nil {
			b.Fatal(err)
		}
		return loadedFor(b, token, block, sideOf(a, mode == 'E'))
	}
	for _, a := range []keys.Algorithm{keys.TDES2, keys.AES128} {
		from, to := side(a, 'D'), side(a, 'E')
		block := make([]byte, a.BlockSize())
		move := func() error {
			_, err := token.Reencipher(from, to, block)
			return err
		}
		b.Run(a.String(), func(b *testing.B) { growing(b, move) })
		b.Run(a.String()+" parallel", func(b *testing.B) {
			b.SetParallelism(4)
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if err := move(); err != nil {
						b.Error(err)
					}
				}
			})
		})
		if a.IsTDES() {
			continue
		}
		b.Run("format 4", func(b *testing.B) {
			growing(b, func() error {
				inner, err := from.Decrypt(nil, block)
				if err != nil {
					return err
				}
				if inner, err = token.Reencipher(from, to, inner); err != nil {
					return err
				}
				_, err = to.Encrypt(nil, inner)
				return err
			})
		})
	}
}

// BenchmarkWalk is AES DUKPT in the token: steps of the walk, each an object
// that is destroyed once the next stands, and a CMAC by the last.
func BenchmarkWalk(b *testing.B) {
	for _, module := range softhsmtest.Modules() {
		token := module.Token(b)
		block, _, err := hsm.NewManager(token).Generate(b.Context(), template(keys.UsageBDK, keys.AES128, keys.ModeDerive))
		if err != nil {
			b.Fatal(err)
		}
		l, err := token.Derived(b.Context(), block, make([]byte, 16), keys.Spec{Algorithm: keys.AES128, Can: keys.CanDerive})
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(l.Release)
		for _, steps := range []int{1, 8, 16} {
			b.Run(module.Name+" "+strconv.Itoa(steps), func(b *testing.B) {
				growing(b, func() error { return walk(l.Key, steps) })
			})
		}
	}
}

func walk(from keys.Key, steps int) error {
	data := make([]byte, 16)
	key, err := from.Derive(data, keys.Spec{Algorithm: keys.AES128, Can: keys.CanDerive})
	for n := 1; err == nil && n <= steps; n++ {
		can := keys.CanDerive
		if n == steps {
			can = keys.CanMAC
		}
		var next keys.Derived
		next, err = key.Derive(data, keys.Spec{Algorithm: keys.AES128, Can: can})
		if closed := key.Close(); err == nil {
			err = closed
		}
		key = next
	}
	if err != nil {
		return err
	}
	if _, err = key.CMAC(data); err != nil {
		return err
	}
	return key.Close()
}
