package store

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"keyd.dev/keyd/internal/custody"
	"keyd.dev/keyd/keys"
)

// TestChangeMachine makes changes of several rows, some of which fail, starts
// again now and then, and compares with a model in maps.
func TestChangeMachine(t *testing.T) {
	dir := t.TempDir()
	round := 0
	rapid.Check(t, func(t *rapid.T) {
		round++
		path := filepath.Join(dir, fmt.Sprint(round), "keyd.db")
		if err := os.Mkdir(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		m := &changeMachine{path: path, enabled: map[int]bool{}, aliases: map[string]int{}}
		m.open(t)
		defer func() { _ = m.db.Close() }()
		for range rapid.IntRange(1, 15).Draw(t, "steps") {
			m.step(t)
		}
		m.compare(t)
	})
}

type changeMachine struct {
	path    string
	db      *DB
	enabled map[int]bool   // of the keys there are
	aliases map[string]int // their keys; -1 for none
}

func (m *changeMachine) open(t *rapid.T) {
	var err error
	if m.db, err = openServed(context.Background(), m.path); err != nil {
		t.Fatal(err)
	}
}

var errGivenUp = errors.New("the change is given up")

// step makes one change of a few rows, or starts again.
func (m *changeMachine) step(t *rapid.T) {
	if rapid.IntRange(0, 5).Draw(t, "start again") == 0 {
		if err := m.db.Close(); err != nil {
			t.Fatal(err)
		}
		m.open(t)
		return
	}
	fails := rapid.IntRange(0, 3).Draw(t, "fails") == 0
	enabled, aliases := maps.Clone(m.enabled), maps.Clone(m.aliases)
	err := m.db.ChangeKeys(context.Background(), nil, func(ch custody.KeyChange) error {
		for range rapid.IntRange(1, 4).Draw(t, "rows") {
			m.note(t, ch, enabled, aliases)
		}
		if fails {
			return errGivenUp
		}
		return nil
	})
	switch {
	case fails && !errors.Is(err, errGivenUp):
		t.Fatalf("got %v, want the error of the function", err)
	case !fails && err != nil:
		t.Fatal(err)
	case !fails:
		m.enabled, m.aliases = enabled, aliases
	}
}

// note notes one row, and checks what is refused.
func (m *changeMachine) note(t *rapid.T, ch custody.KeyChange, enabled map[int]bool, aliases map[string]int) {
	n := rapid.IntRange(0, 5).Draw(t, "key")
	name := fmt.Sprintf("alias/%d", rapid.IntRange(0, 3).Draw(t, "alias"))
	_, there := enabled[n]
	want := func(err, sentinel error, refused bool) bool {
		if refused != errors.Is(err, sentinel) || !refused && err != nil {
			t.Fatalf("got %v; refused should be %v", err, refused)
		}
		return !refused
	}
	switch rapid.IntRange(0, 4).Draw(t, "edit") {
	case 0:
		k := aKey(n)
		if want(ch.AddKey(k), ErrExists, there) {
			enabled[n] = k.Enabled
		}
	case 1:
		k := aKey(n)
		k.Enabled = rapid.Bool().Draw(t, "enabled")
		if want(ch.SetKey(k), custody.ErrNoKey, !there) {
			enabled[n] = k.Enabled
		}
	case 2:
		if want(ch.SetAlias(custody.Alias{Name: name, Key: keyID(n)}), custody.ErrNoKey, !there) {
			aliases[name] = n
		}
	case 3:
		if err := ch.SetAlias(custody.Alias{Name: name}); err != nil {
			t.Fatal(err)
		}
		aliases[name] = -1
	case 4:
		_, named := aliases[name]
		if want(ch.DropAlias(name), custody.ErrNoAlias, !named) {
			delete(aliases, name)
		}
	}
}

// compare reads everything back, and the register from the file.
func (m *changeMachine) compare(t *rapid.T) {
	all, err := m.db.Keys(context.Background(), custody.KeyQuery{})
	if err != nil {
		t.Fatal(err)
	}
	got := map[int]bool{}
	for _, k := range all {
		n := slices.IndexFunc([]int{0, 1, 2, 3, 4, 5}, func(n int) bool { return keyID(n) == k.Block.ID })
		got[n] = k.Enabled
	}
	if diff := cmp.Diff(m.enabled, got); diff != "" {
		t.Fatalf("keys (-model +store):\n%s", diff)
	}
	for n := range 4 {
		name := fmt.Sprintf("alias/%d", n)
		a, err := m.db.Alias(context.Background(), name)
		key, there := m.aliases[name]
		id := keys.ID("")
		if key >= 0 {
			id = keyID(key)
		}
		if there && (err != nil || a.Key != id) || !there && !errors.Is(err, custody.ErrNoAlias) {
			t.Fatalf("%s is %v, %v; the model has %v %d", name, a, err, there, key)
		}
	}
	tree, err := m.db.scanRegister(context.Background())
	if err != nil || tree.root != m.db.register.current.Load().root {
		t.Fatalf("the register of the file is another: %v", err)
	}
	roots, err := m.db.register.anchor.Roots(context.Background())
	if err != nil || len(roots) != 1 || roots[0] != tree.root {
		t.Fatalf("anchors %x, %v; want %x alone", roots, err, tree.root)
	}
}

// TestOnceInChange: the answer is stored with the change, and a repeat changes
// nothing.
func TestOnceInChange(t *testing.T) {
	db := open(t)
	once := &custody.Once{Principal: "p", Invocation: "i", Operation: custody.OpCreateKey, Body: hash(1), At: day()}
	err := db.ChangeKeys(t.Context(), once, func(ch custody.KeyChange) error {
		once.Answer = []byte(`{"made":true}`)
		return ch.AddKey(aKey(1))
	})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := db.Recall(t.Context(), "p", "i"); err != nil || string(got.Answer) != `{"made":true}` {
		t.Errorf("the answer is %q, %v", got.Answer, err)
	}
	err = db.ChangeKeys(t.Context(), once, func(ch custody.KeyChange) error { return ch.AddKey(aKey(2)) })
	if !errors.Is(err, custody.ErrRepeated) {
		t.Errorf("a repeat: %v, want ErrRepeated", err)
	}
	if _, err := db.Key(t.Context(), keyID(2)); !errors.Is(err, custody.ErrNoKey) {
		t.Errorf("the key of the repeat: %v, want ErrNoKey", err)
	}
}

// TestAlsoInChange: rows that are not registered come and fail with those that are.
func TestAlsoInChange(t *testing.T) {
	db := open(t)
	add := func(n int, extra string) error {
		return db.Change(t.Context(), nil, func(ch *Change) error {
			ch.also(func(s *session) error {
				_, err := s.exec(extra)
				return err
			})
			return ch.AddKey(aKey(n))
		})
	}
	if err := add(1, "UPDATE probe SET n = 7"); err != nil {
		t.Fatal(err)
	}
	if err := add(2, "UPDATE probe SET one = 2"); !errors.Is(err, ErrRule) {
		t.Fatalf("got %v, want ErrRule", err)
	}
	if _, err := db.Key(t.Context(), keyID(2)); !errors.Is(err, custody.ErrNoKey) {
		t.Errorf("the key of the failed change: %v, want ErrNoKey", err)
	}
	var n int
	err := db.read(t.Context(), func(s *session) error { return s.query("SELECT n FROM probe").Scan(&n) })
	if err != nil || n != 7 {
		t.Errorf("n = %d, %v; want 7", n, err)
	}
}
