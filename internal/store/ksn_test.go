package store

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"keyd.dev/keyd/internal/custody"
)

const (
	tdesDevice = "FFFF9876543210E00000"
	aesDevice  = "1234567890123456"
)

func aUse(counter uint32, kind custody.KSNKind, request byte) custody.KSNUse {
	use := custody.KSNUse{BDK: keyID(1), Device: tdesDevice, Counter: counter, Kind: kind, At: day()}
	if request != 0 {
		use.Request = hash(request)
	}
	return use
}

// TestKSNMarks (section 17, row 8 of the API): what is accepted under a guarded
// BDK, in the order in which it comes.
func TestKSNMarks(t *testing.T) {
	db := open(t)
	for n := range 3 {
		if err := db.AddKey(t.Context(), aKey(n), nil); err != nil {
			t.Fatal(err)
		}
	}
	other := func(u custody.KSNUse, change func(*custody.KSNUse)) custody.KSNUse { change(&u); return u }
	for _, c := range []struct {
		name string
		use  custody.KSNUse
		ok   bool
	}{
		{"the first", aUse(7, custody.KSNMAC, 1), true},
		{"another kind of use", aUse(7, custody.KSNPIN, 2), true},
		{"the third kind", aUse(7, custody.KSNData, 3), true},
		{"the same kind again", aUse(7, custody.KSNMAC, 4), false},
		{"again, without an id", aUse(7, custody.KSNMAC, 0), false},
		{"the same request again", aUse(7, custody.KSNMAC, 1), true},
		{"the request of another kind", aUse(7, custody.KSNPIN, 1), false},
		{"a lower counter", aUse(6, custody.KSNPIN, 5), false},
		{"a higher counter", aUse(9, custody.KSNPIN, 6), true},
		{"the first request again, after it", aUse(7, custody.KSNMAC, 1), true},
		{"a kind not seen with the old counter", aUse(8, custody.KSNMAC, 7), false},
		{"a kind not seen with the new one", aUse(9, custody.KSNMAC, 0), true},
		{"the highest counter of all", aUse(1<<21-1, custody.KSNMAC, 8), true},
		{"another device", other(aUse(1, custody.KSNMAC, 1), func(u *custody.KSNUse) { u.Device = "FFFF9876543210A00000" }), true},
		{"the same device under another BDK", other(aUse(1, custody.KSNMAC, 1), func(u *custody.KSNUse) { u.BDK = keyID(2) }), true},
		{"an AES device", other(aUse(1<<32-1, custody.KSNMAC, 1), func(u *custody.KSNUse) { u.Device = aesDevice }), true},
		{"an AES device again", other(aUse(1<<31, custody.KSNMAC, 2), func(u *custody.KSNUse) { u.Device = aesDevice }), false},
		{"the first request, within the hour", other(aUse(7, custody.KSNMAC, 1), func(u *custody.KSNUse) { u.At = day().Add(custody.KSNMemory - time.Second) }), true},
		{"the first request, when it is forgotten", other(aUse(7, custody.KSNMAC, 1), func(u *custody.KSNUse) { u.At = day().Add(custody.KSNMemory) }), false},
	} {
		for i, do := range []func() error{
			func() error { return db.CheckKSN(t.Context(), c.use) },
			func() error { return db.SpendKSN(t.Context(), c.use) },
		} {
			err := do()
			if c.ok && err != nil || !c.ok && !errors.Is(err, custody.ErrKSN) {
				t.Errorf("%s: %s gave %v, want ok = %v", c.name, [...]string{"CheckKSN", "SpendKSN"}[i], err, c.ok)
			}
		}
	}
	if err := db.SpendKSN(t.Context(), custody.KSNUse{BDK: keyID(1), Device: tdesDevice, Kind: custody.KSNPIN, At: day()}); err == nil {
		t.Error("a counter of 0 was accepted")
	}
}

// TestKSNMarksStay: a mark is there after a crash, and no statement lowers it.
func TestKSNMarksStay(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keyd.db")
	db := openAt(t, path, Serve)
	if err := db.AddKey(t.Context(), aKey(1), nil); err != nil {
		t.Fatal(err)
	}
	if err := db.SpendKSN(t.Context(), aUse(7, custody.KSNMAC, 1)); err != nil {
		t.Fatal(err)
	}
	for _, statement := range []string{
		"UPDATE ksn_mark SET counter = 6", "UPDATE ksn_mark SET kinds = 1", "DELETE FROM ksn_mark",
		"UPDATE ksn_mark SET device = '" + aesDevice + "'",
	} {
		err := db.update(t.Context(), func(s *session) error { _, err := s.exec(statement); return err })
		if err == nil || !strings.Contains(err.Error(), "key serial number") {
			t.Errorf("%s: %v", statement, err)
		}
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	again := openAt(t, path, Serve)
	if err := again.CheckKSN(t.Context(), aUse(7, custody.KSNMAC, 2)); !errors.Is(err, custody.ErrKSN) {
		t.Errorf("after a start: %v", err)
	}
}

// TestKSNModel holds the store against the rule as it is written.
func TestKSNModel(t *testing.T) {
	db := open(t)
	if err := db.AddKey(t.Context(), aKey(1), nil); err != nil {
		t.Fatal(err)
	}
	run := 0
	rapid.Check(t, func(rt *rapid.T) {
		run++
		device := "FFFFFF" + padded(run) + "E00000"
		highest, seen := uint32(0), map[custody.KSNKind]bool{}
		known := map[[2]uint32]byte{}
		rt.Repeat(map[string]func(*rapid.T){
			"use": func(rt *rapid.T) {
				counter := rapid.Uint32Range(1, 6).Draw(rt, "counter")
				kind := custody.KSNKind(rapid.IntRange(1, 3).Draw(rt, "kind"))
				request := byte(rapid.IntRange(0, 3).Draw(rt, "request"))
				use := aUse(counter, kind, request)
				use.Device = device
				fresh := counter > highest || counter == highest && !seen[kind]
				at := [2]uint32{counter, uint32(kind)}
				repeat := request != 0 && known[at] == request
				checked, spent := db.CheckKSN(t.Context(), use), db.SpendKSN(t.Context(), use)
				if (checked == nil) != (fresh || repeat) || (spent == nil) != (fresh || repeat) {
					rt.Fatalf("counter %d kind %d request %d: %v, %v; fresh %v, repeat %v", counter, kind, request, checked, spent, fresh, repeat)
				}
				if !fresh {
					return
				}
				if counter > highest {
					highest, seen = counter, map[custody.KSNKind]bool{}
				}
				seen[kind], known[at] = true, request
			},
		})
	})
}

// padded is a number of eight digits.
func padded(n int) string {
	text := []byte("00000000")
	for i := len(text) - 1; i >= 0; i-- {
		text[i], n = byte('0'+n%10), n/10
	}
	return string(text)
}
