package backup_test

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"keyd.dev/keyd/internal/backup"
	"keyd.dev/keyd/internal/hsm"
	"keyd.dev/keyd/internal/secret"
	"keyd.dev/keyd/keys"
	softhsmtest "keyd.dev/keyd/softhsm-test"
)

// collector keeps what a backup holds.
type collector struct {
	got []string
}

func (c *collector) Table(name string, columns []string) error {
	c.got = append(c.got, fmt.Sprintf("%s %v", name, columns))
	return nil
}

func (c *collector) Row(values []any) error {
	c.got = append(c.got, fmt.Sprintf("%#v", values))
	return nil
}

var made = time.Date(2026, 11, 22, 4, 0, 0, 0, time.UTC)

func clock() time.Time { return made }

// write makes a backup of two small tables.
func write(t testing.TB, keeper backup.Keeper) []byte {
	t.Helper()
	var file bytes.Buffer
	w, err := backup.NewWriter(&file, keeper, backup.Header{Made: made, Node: "n1", Site: "a.example", Build: "t", Schema: 2,
		LMK: []backup.LMK{{Generation: 1, Check: "08D7B4"}}})
	must(t, err)
	must(t, w.Table("key", []string{"id", "block", "at"}))
	for i := range 3000 { // more than one chunk of the stream
		must(t, w.Row([]any{fmt.Sprint("key", i), []byte{byte(i), 0, 0xFF}, int64(1)<<62 + int64(i)}))
	}
	must(t, w.Table("alias", []string{"name", "key"}))
	must(t, w.Row([]any{"alias/a", nil}))
	rows, err := w.Close()
	must(t, err)
	if diff := cmp.Diff(map[string]int{"key": 3000, "alias": 1}, rows); diff != "" {
		t.Errorf("rows written (-want +got):\n%s", diff)
	}
	return file.Bytes()
}

func read(keeper backup.Keeper, file []byte) (*collector, backup.End, error) {
	c := new(collector)
	r, err := backup.NewReader(bytes.NewReader(file), keeper)
	if err != nil {
		return c, backup.End{}, err
	}
	end, err := r.All(c)
	return c, end, err
}

// keeper returns that of a token with the given local master key; tokens are
// told apart by the prefix of their labels.
func keeper(t *testing.T, cfg hsm.Config, prefix string, lmk byte) (backup.Keeper, *hsm.Manager) {
	t.Helper()
	cfg.Prefix = prefix
	token := softhsmtest.Open(t, cfg)
	m := hsm.NewManager(token)
	value := make([]byte, 32)
	for i := range value {
		value[i] = lmk + byte(i)
	}
	must(t, m.InitFrom(t.Context(), secret.From(value)))
	return backup.NewKeeper(t.Context(), m, clock), m
}

func TestBackup(t *testing.T) {
	cfg := softhsmtest.Config(t)
	one, m := keeper(t, cfg, "one", 1)
	same, _ := keeper(t, cfg, "same", 1)
	other, _ := keeper(t, cfg, "other", 2)
	file := write(t, one)

	t.Run("useless without the token: nothing of it is readable", func(t *testing.T) {
		for _, word := range []string{"key17", "alias/a", "keyd_backup", "a.example", "08D7B4"} {
			if bytes.Contains(file, []byte(word)) {
				t.Errorf("the file shows %q", word)
			}
		}
	})
	for name, k := range map[string]backup.Keeper{"the same token": one, "another token with the same LMK": same} {
		t.Run(name, func(t *testing.T) {
			c, _, err := read(k, file)
			must(t, err)
			if len(c.got) != 3003 || c.got[0] != "key [id block at]" || c.got[3002] != `[]interface {}{"alias/a", interface {}(nil)}` {
				t.Errorf("%d lines, the first %q, the last %q", len(c.got), c.got[0], c.got[len(c.got)-1])
			}
			if want := `[]interface {}{"key2999", []uint8{0xb7, 0x0, 0xff}, 4611686018427390903}`; c.got[3000] != want {
				t.Errorf("row %s, want %s", c.got[3000], want)
			}
		})
	}
	t.Run("a token with another LMK", func(t *testing.T) {
		if _, _, err := read(other, file); !errors.Is(err, backup.ErrKey) {
			t.Errorf("got %v, want ErrKey", err)
		}
	})
	t.Run("every damaged byte is found", func(t *testing.T) {
		for at := 0; at < len(file); at += 1 + len(file)/199 {
			bad := slices.Clone(file)
			bad[at] ^= 0x20
			if _, _, err := read(same, bad); err == nil {
				t.Errorf("byte %d changed: it opens all the same", at)
			}
		}
	})
	t.Run("every cut is found", func(t *testing.T) {
		for _, n := range []int{0, 1, 100, len(file) / 2, 1 << 16, len(file) - 17, len(file) - 1} {
			if _, _, err := read(same, file[:n]); err == nil {
				t.Errorf("%d bytes of %d: it opens all the same", n, len(file))
			}
		}
		if _, _, err := read(same, append(slices.Clone(file), 0)); err == nil {
			t.Error("a byte too many: it opens all the same")
		}
	})
	t.Run("a genuine key of another purpose opens nothing", func(t *testing.T) {
		value := bytes.Repeat([]byte{7, 9}, 8)
		b, err := m.Import(t.Context(), keys.Block{
			ID: keys.ID(strings.Repeat("a", 32)), Version: 1, CreatedMs: 1,
			Attributes: keys.Attributes{Usage: keys.UsageData, Algorithm: keys.AES128, Mode: keys.ModeBoth, Exportability: keys.Exportable},
		}, secret.From(value))
		must(t, err)
		raw, err := b.MarshalBinary()
		must(t, err)
		if _, err := one.Unwrap(raw); err == nil {
			t.Error("it opens")
		}
	})
}

// TestCheckSeals: a token that holds the same local master key and not the same
// key for seals is told so before, not after.
func TestCheckSeals(t *testing.T) {
	for name, c := range map[string]struct {
		own  string
		rows map[string]int
		want error
	}{
		"the same key":           {"08D7B4", map[string]int{"client_role": 2, "terminal_print": 9}, nil},
		"another, nothing seals": {"000000", map[string]int{"client_role": 0, "key": 3}, nil},
		"another, roles":         {"000000", map[string]int{"client_role": 1}, backup.ErrKey},
		"another, prints":        {"000000", map[string]int{"terminal_print": 1}, backup.ErrKey},
		"another, public keys":   {"000000", map[string]int{"public_key": 1}, backup.ErrKey},
	} {
		t.Run(name, func(t *testing.T) {
			err := backup.CheckSeals(backup.Header{Seals: "08D7B4"}, c.rows, c.own)
			if !errors.Is(err, c.want) {
				t.Errorf("got %v, want %v", err, c.want)
			}
		})
	}
}

// plain is a keeper for the fuzzer, where no token is: it wraps nothing.
type plain struct{}

func (plain) Wrap(fileKey secret.Bytes) ([]byte, error) { return bytes.Clone(fileKey.Reveal()), nil }

func (plain) Unwrap(wrapped []byte) (secret.Bytes, error) {
	return secret.From(bytes.Clone(wrapped)), nil
}

// FuzzReader: whatever the file holds, reading it ends with a result or an error.
func FuzzReader(f *testing.F) {
	f.Add([]byte(`{"keyd_backup":1,"schema":2}` + "\n" + `{"table":{"name":"key","columns":["id"]}}` + "\n" + `{"row":["a"]}` + "\n" + `{"end":{"rows":{"key":1}}}` + "\n"))
	f.Add([]byte(`{"keyd_backup":1}` + "\n" + `{"row":[["AA=="],1,null]}`))
	f.Add([]byte(`{"keyd_backup":2}`))
	f.Fuzz(func(t *testing.T, inside []byte) {
		var file bytes.Buffer
		must(t, backup.Sealed(&file, plain{}, inside))
		c := new(collector)
		r, err := backup.NewReader(&file, plain{})
		if err != nil {
			return
		}
		end, err := r.All(c)
		if err == nil && len(end.Rows) == 0 && len(c.got) > 0 {
			t.Error("rows without an end that names them")
		}
	})
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
