package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"keyd.dev/keyd/internal/custody"
)

// attacked is a database with three keys, two aliases and two terminals, whose
// register tells the test what it suspects.
type attacked struct {
	t     *testing.T
	path  string
	clock func() time.Time // nil: it stands at day
	db    *DB              // nil while stopped

	mu   sync.Mutex
	told []Suspicion
}

func newAttacked(t *testing.T) *attacked {
	t.Helper()
	a := &attacked{t: t, path: filepath.Join(t.TempDir(), "keyd.db")}
	a.start()
	for n := range 3 {
		k := aKey(n)
		if n < 2 {
			k.Aliases = []string{fmt.Sprintf("alias/%d", n)}
		}
		a.did(a.db.AddKey(t.Context(), k, nil))
		if n < 2 {
			a.did(a.db.AddTerminal(t.Context(), aTerminal(n)))
		}
	}
	return a
}

func (a *attacked) did(err error) {
	a.t.Helper()
	if err != nil {
		a.t.Fatal(err)
	}
}

func (a *attacked) open() (*DB, error) {
	cfg, err := config(a.path, Serve)
	a.did(err)
	if a.clock != nil {
		cfg.Clock = a.clock
	}
	cfg.Suspicion = func(s Suspicion) {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.told = append(a.told, s)
	}
	return Open(a.t.Context(), cfg)
}

func (a *attacked) start() {
	a.t.Helper()
	var err error
	a.db, err = a.open()
	a.did(err)
	a.t.Cleanup(a.stop)
}

func (a *attacked) stop() {
	a.t.Helper()
	if a.db != nil {
		shut(a.t, a.db)
	}
	a.db = nil
}

// sql does to the file what somebody could who has it and is not keyd.
func (a *attacked) sql(statements ...string) {
	a.t.Helper()
	pool, err := sql.Open("sqlite3", "file:"+a.path+"?_busy_timeout=5000")
	a.did(err)
	defer pool.Close()
	for _, s := range statements {
		if _, err := pool.Exec(s); err != nil {
			a.t.Fatalf("%s: %v", s, err)
		}
	}
}

// suspicions are the rows that were told, each as often as it was.
func (a *attacked) suspicions() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	var all []string
	for _, s := range a.told {
		all = append(all, s.Kind+" "+s.Name)
	}
	return all
}

// an attack is what somebody does to the file, and how it comes to light while
// the daemon goes on: in reading what, and with a suspicion of which row.
type attack struct {
	name    string
	do      func(*attacked)
	read    func(context.Context, *DB) error
	suspect string
}

func readKeyOf(n int) func(context.Context, *DB) error {
	return func(ctx context.Context, db *DB) error { _, err := db.Key(ctx, keyID(n)); return err }
}

func readAliasOf(name string) func(context.Context, *DB) error {
	return func(ctx context.Context, db *DB) error { _, err := db.Alias(ctx, name); return err }
}

func readTerminalOf(tid string) func(context.Context, *DB) error {
	return func(ctx context.Context, db *DB) error { _, err := db.Terminal(ctx, tid); return err }
}

func attacks() []attack {
	k := func(n int) string { return string(keyID(n)) }
	return []attack{
		{"two blocks swapped", func(a *attacked) {
			a.sql("UPDATE key SET block = (SELECT block FROM key WHERE id = '" + k(1) + "') WHERE id = '" + k(0) + "'")
		}, readKeyOf(0), "key " + k(0)},
		{"usage in the header changed", func(a *attacked) {
			// P0 becomes M3 at its place behind the magic, LMK, id and version
			a.sql("UPDATE key SET block = CAST(substr(block, 1, 49) || 'M3' || substr(block, 52) AS BLOB) WHERE id = '" + k(0) + "'")
		}, readKeyOf(0), "key " + k(0)},
		{"a stopped key enabled", func(a *attacked) {
			a.did(a.db.ChangeKeys(a.t.Context(), nil, func(ch custody.KeyChange) error {
				record, err := ch.Key(keyID(2))
				record.Enabled = false
				return errors.Join(err, ch.SetKey(record))
			}))
			a.sql("UPDATE key SET enabled = 1 WHERE id = '" + k(2) + "'")
		}, readKeyOf(2), "key " + k(2)},
		{"a tag changed", func(a *attacked) { a.sql("UPDATE key SET tags = '{}' WHERE id = '" + k(0) + "'") }, readKeyOf(0), "key " + k(0)},
		{"a listing over a changed key", func(a *attacked) { a.sql("UPDATE key SET usage_stop = 0 WHERE id = '" + k(1) + "'") },
			func(ctx context.Context, db *DB) error { _, err := db.Keys(ctx, custody.KeyQuery{}); return err }, "key " + k(1)},
		{"a key taken out", func(a *attacked) { a.sql("DELETE FROM key WHERE id = '" + k(2) + "'") }, readKeyOf(2), "key " + k(2)},
		{"a key put in", func(a *attacked) {
			a.sql("INSERT INTO key SELECT replace(id, '2', '9'), block, state, enabled, usage_start, usage_stop, delete_pending, deleted, tags, life FROM key WHERE id = '" + k(2) + "'")
		}, readKeyOf(9), "key " + k(9)},
		{"an alias moved", func(a *attacked) { a.sql("UPDATE alias SET key = '" + k(2) + "' WHERE name = 'alias/0'") }, readAliasOf("alias/0"), "alias alias/0"},
		{"two aliases swapped", func(a *attacked) {
			a.sql("UPDATE alias SET key = CASE key WHEN '" + k(0) + "' THEN '" + k(1) + "' ELSE '" + k(0) + "' END")
		}, readAliasOf("alias/1"), "alias alias/1"},
		{"an alias taken out", func(a *attacked) { a.sql("DELETE FROM alias WHERE name = 'alias/1'") }, readAliasOf("alias/1"), "alias alias/1"},
		{"an alias that lets a client in", func(a *attacked) { a.sql("INSERT INTO alias VALUES ('alias/mine', '" + k(2) + "')") },
			readKeyOf(2), "alias alias/mine"},
		{"a deleted alias put back", func(a *attacked) {
			a.did(a.db.ChangeKeys(a.t.Context(), nil, func(ch custody.KeyChange) error { return ch.DropAlias("alias/0") }))
			a.sql("INSERT INTO alias VALUES ('alias/0', '" + k(0) + "')")
		}, readAliasOf("alias/0"), "alias alias/0"},
		{"a terminal back in service", func(a *attacked) {
			a.did(a.db.DisableTerminal(a.t.Context(), "T0000001", true))
			a.sql("UPDATE terminal SET disabled = 0 WHERE tid = 'T0000001'")
		}, readTerminalOf("T0000001"), "terminal T0000001"},
		{"a terminal put in", func(a *attacked) {
			a.sql("INSERT INTO terminal (tid, mid, scheme, bdk, device, mac_bytes, disabled) SELECT 'T0000009', mid, scheme, bdk, 'FFFF0000000009000000', 4, 0 FROM terminal WHERE tid = 'T0000001'")
		}, readTerminalOf("T0000009"), "terminal T0000009"},
		{"a terminal taken out", func(a *attacked) { a.sql("DELETE FROM terminal WHERE tid = 'T0000000'") }, readTerminalOf("T0000000"), "terminal T0000000"},
		{"a listing over a changed terminal", func(a *attacked) { a.sql("UPDATE terminal SET mac_bytes = 4 WHERE tid = 'T0000000'") },
			func(ctx context.Context, db *DB) error { _, err := db.Terminals(ctx, "", 0); return err }, "terminal T0000000"},
	}
}

// R-50 for the registers: what somebody changes in the file while keyd runs is
// refused when it is read, and told once.
func TestAttackWhileServing(t *testing.T) {
	for _, c := range attacks() {
		t.Run(c.name, func(t *testing.T) {
			a := newAttacked(t)
			c.do(a)
			for range 2 {
				err := c.read(t.Context(), a.db)
				if !errors.Is(err, ErrCorrupt) || !errors.Is(err, custody.ErrTampered) {
					t.Fatalf("read gave %v, want ErrCorrupt and ErrTampered", err)
				}
			}
			if got := a.suspicions(); !slices.Equal(got, []string{c.suspect}) {
				t.Errorf("told of %q, want %q once", got, c.suspect)
			}
			a.stop()
			if _, err := a.open(); !errors.Is(err, ErrRegister) {
				t.Errorf("the next start gave %v, want ErrRegister", err)
			}
		})
	}
}

// what was changed while keyd was stopped is refused at the start, whether
// or not somebody would have read it.
func TestAttackWhileStopped(t *testing.T) {
	for _, c := range attacks() {
		t.Run(c.name, func(t *testing.T) {
			a := newAttacked(t)
			// The attacks begin with changes by keyd itself: while it runs.
			c.do(a)
			a.stop()
			_, err := a.open()
			if !errors.Is(err, ErrRegister) {
				t.Fatalf("got %v, want ErrRegister", err)
			}
			if !strings.Contains(err.Error(), a.path) {
				t.Errorf("%q does not name the database", err)
			}
		})
	}
}

// TestRollBack puts older copies of the whole file in its place.
func TestRollBack(t *testing.T) {
	for name, since := range map[string]func(*attacked){
		"past a stopped key": func(a *attacked) {
			a.did(a.db.ChangeKeys(a.t.Context(), nil, func(ch custody.KeyChange) error {
				k, err := ch.Key(keyID(0))
				k.Enabled = false
				return errors.Join(err, ch.SetKey(k))
			}))
		},
		"past a new key":             func(a *attacked) { a.did(a.db.AddKey(a.t.Context(), aKey(5), nil)) },
		"past a start and no change": func(*attacked) {},
	} {
		t.Run(name, func(t *testing.T) {
			a := newAttacked(t)
			a.stop()
			old, err := os.ReadFile(a.path)
			a.did(err)
			a.start()
			since(a)
			a.stop()
			a.did(os.WriteFile(a.path, old, 0o600))
			if _, err := a.open(); !errors.Is(err, ErrRegister) {
				t.Fatalf("got %v, want ErrRegister", err)
			}
			openAdopted(t, a.path) // an administrator may
		})
	}
}

// TestNoAnchor: that a node is new is not for the database to say.
func TestNoAnchor(t *testing.T) {
	for name, fresh := range map[string]bool{"a database with rows": false, "an empty database": true} {
		t.Run(name, func(t *testing.T) {
			a := newAttacked(t)
			a.stop()
			a.did(os.RemoveAll(filepath.Join(filepath.Dir(a.path), "anchors of keyd.db")))
			if fresh {
				a.did(os.Remove(a.path))
			}
			a.did(os.Mkdir(filepath.Join(filepath.Dir(a.path), "anchors of keyd.db"), 0o700))
			if _, err := a.open(); !errors.Is(err, ErrRegister) {
				t.Fatalf("got %v, want ErrRegister", err)
			}
		})
	}
}

func TestFoundIsForNewNodes(t *testing.T) {
	a := newAttacked(t)
	if err := Found(t.Context(), anchors{filepath.Join(filepath.Dir(a.path), "anchors of keyd.db")}); !errors.Is(err, ErrRegister) {
		t.Errorf("got %v, want ErrRegister", err)
	}
}

// wavering is an anchor that fails when it is told to.
type wavering struct {
	Anchor
	mu                  sync.Mutex
	failAdd, failRemove error
}

func (w *wavering) set(add, remove error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.failAdd, w.failRemove = add, remove
}

func (w *wavering) Add(ctx context.Context, root [32]byte) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.failAdd != nil {
		return w.failAdd
	}
	return w.Anchor.Add(ctx, root)
}

func (w *wavering) Remove(ctx context.Context, root [32]byte) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.failRemove != nil {
		return w.failRemove
	}
	return w.Anchor.Remove(ctx, root)
}

// openWavering opens a new database over a wavering anchor.
func openWavering(t *testing.T) (*DB, *wavering, *attacked) {
	t.Helper()
	a := &attacked{t: t, path: filepath.Join(t.TempDir(), "keyd.db")}
	cfg, err := config(a.path, Serve)
	a.did(err)
	w := &wavering{Anchor: cfg.Anchor}
	cfg.Anchor = w
	cfg.Suspicion = func(s Suspicion) {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.told = append(a.told, s)
	}
	db, err := Open(t.Context(), cfg)
	a.did(err)
	t.Cleanup(func() { shut(t, db) })
	return db, w, a
}

var errAway = errors.New("the token is away")

// TestTokenAway: a token that takes no anchor fails the change and nothing else.
func TestTokenAway(t *testing.T) {
	db, w, a := openWavering(t)
	a.did(db.AddKey(t.Context(), aKey(1), nil))
	w.set(errAway, errAway)
	err := db.AddKey(t.Context(), aKey(2), nil)
	if !errors.Is(err, custody.ErrUnavailable) || !errors.Is(err, errAway) {
		t.Fatalf("got %v, want ErrUnavailable", err)
	}
	if _, err := db.Key(t.Context(), keyID(1)); err != nil {
		t.Error(err)
	}
	if _, err := db.Key(t.Context(), keyID(2)); !errors.Is(err, custody.ErrNoKey) {
		t.Errorf("got %v, want ErrNoKey", err)
	}
	w.set(nil, nil)
	a.did(db.AddKey(t.Context(), aKey(2), nil))
	shut(t, db)
	openAt(t, a.path, Serve)
}

// TestTokenKeepsOldAnchor: a change stands when the token does not let the old
// root go; that is told, and mended as soon as it can be.
func TestTokenKeepsOldAnchor(t *testing.T) {
	db, w, a := openWavering(t)
	a.did(db.AddKey(t.Context(), aKey(1), nil))
	w.set(nil, errAway)
	a.did(db.AddKey(t.Context(), aKey(2), nil))
	if roots, err := w.Roots(t.Context()); err != nil || len(roots) != 2 {
		t.Fatalf("%d roots, %v; want the new one and the one that stayed", len(roots), err)
	}
	if got := a.suspicions(); !slices.Equal(got, []string{" "}) {
		t.Errorf("told of %q, want the anchor", got)
	}
	if err := db.AddKey(t.Context(), aKey(3), nil); !errors.Is(err, custody.ErrUnavailable) {
		t.Errorf("a change beside a root that stayed: %v, want ErrUnavailable", err)
	}
	w.set(nil, nil)
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		roots, err := w.Roots(t.Context())
		if err == nil && len(roots) == 1 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d roots, %v, after all is well again; want 1", len(roots), err)
		}
	}
	a.did(db.AddKey(t.Context(), aKey(3), nil))
}

// TestCutOff: a process that ends between the three steps of a change leaves a
// database that the next one takes, of before the change or of after it.
func TestCutOff(t *testing.T) {
	for name, committed := range map[string]bool{"before the commit": false, "after the commit": true} {
		t.Run(name, func(t *testing.T) {
			a := newAttacked(t)
			a.stop()
			before, err := os.ReadFile(a.path)
			a.did(err)
			held := anchors{filepath.Join(filepath.Dir(a.path), "anchors of keyd.db")}
			old, err := held.Roots(t.Context())
			a.did(err)
			// A change whose count of the start is not made: by hand.
			cfg, err := config(a.path, Serve)
			a.did(err)
			db, err := Open(t.Context(), cfg)
			a.did(err)
			a.did(db.AddKey(t.Context(), aKey(7), nil))
			shut(t, db)
			for _, root := range old { // which was to be removed last
				a.did(held.Add(t.Context(), root))
			}
			if !committed {
				a.did(os.WriteFile(a.path, before, 0o600))
			}
			a.start()
			_, err = a.db.Key(t.Context(), keyID(7))
			if committed && err != nil || !committed && !errors.Is(err, custody.ErrNoKey) {
				t.Errorf("the key: %v", err)
			}
			if roots, err := held.Roots(t.Context()); err != nil || len(roots) != 1 {
				t.Errorf("%d roots, %v; want 1", len(roots), err)
			}
		})
	}
}

// TestReadersWhileChanging: no reader takes a row that a change is about to
// write, or has just written, for somebody else's.
func TestReadersWhileChanging(t *testing.T) {
	a := newAttacked(t)
	ctx, stop := context.WithCancel(t.Context())
	var readers sync.WaitGroup
	for _, read := range []func() error{
		func() error { _, err := a.db.Key(ctx, keyID(0)); return err },
		func() error { _, err := a.db.Keys(ctx, custody.KeyQuery{}); return err },
		func() error {
			_, err := a.db.Alias(ctx, "alias/moving")
			if errors.Is(err, custody.ErrNoAlias) {
				err = nil
			}
			return err
		},
		func() error { _, err := a.db.Terminal(ctx, "T0000001"); return err },
	} {
		for range 2 {
			readers.Go(func() {
				for ctx.Err() == nil {
					if err := read(); err != nil && ctx.Err() == nil {
						t.Error(err)
						return
					}
				}
			})
		}
	}
	for n := range 100 {
		a.did(a.db.Change(t.Context(), nil, func(ch *Change) error {
			k, err := ch.Key(keyID(0))
			if err != nil {
				return err
			}
			k.Tags = map[string]string{"n": fmt.Sprint(n)}
			terminal, err := registryChange{ch}.Terminal("T0000001")
			if err != nil {
				return err
			}
			terminal.Status = custody.InService
			if n%2 == 0 {
				terminal.Status = custody.Suspended
				err = ch.SetAlias(custody.Alias{Name: "alias/moving", Key: keyID(n % 3)})
			} else {
				err = ch.DropAlias("alias/moving")
			}
			return errors.Join(err, ch.SetKey(k), registryChange{ch}.SetTerminal(terminal))
		}))
	}
	stop()
	readers.Wait()
	if got := a.suspicions(); len(got) > 0 {
		t.Errorf("told of %q", got)
	}
}

// TestChangeIsOneCommit: of a change that fails in its last row nothing is left.
func TestChangeIsOneCommit(t *testing.T) {
	a := newAttacked(t)
	twice := aTerminal(8)
	twice.Device = aTerminal(1).Device
	err := a.db.Change(t.Context(), nil, func(ch *Change) error {
		return errors.Join(ch.AddKey(aKey(8)), ch.SetAlias(custody.Alias{Name: "alias/0", Key: keyID(8)}), ch.AddTerminal(twice))
	})
	if !errors.Is(err, ErrExists) {
		t.Fatalf("got %v, want ErrExists", err)
	}
	if _, err := a.db.Key(t.Context(), keyID(8)); !errors.Is(err, custody.ErrNoKey) {
		t.Errorf("the key: %v, want ErrNoKey", err)
	}
	if got, err := a.db.Alias(t.Context(), "alias/0"); err != nil || got.Key != keyID(0) {
		t.Errorf("the alias: %v, %v", got, err)
	}
	a.stop()
	a.start()
}

// TestChangeAfterAttack: what keyd writes itself does not make an attacker's row
// right.
func TestChangeAfterAttack(t *testing.T) {
	a := newAttacked(t)
	a.sql("UPDATE alias SET key = '" + string(keyID(2)) + "' WHERE name = 'alias/0'")
	a.did(a.db.AddKey(t.Context(), aKey(9), nil))
	if _, err := a.db.Alias(t.Context(), "alias/0"); !errors.Is(err, ErrCorrupt) {
		t.Errorf("read gave %v, want ErrCorrupt", err)
	}
	err := a.db.ChangeKeys(t.Context(), nil, func(ch custody.KeyChange) error {
		_, err := ch.Alias("alias/0")
		return err
	})
	if !errors.Is(err, ErrCorrupt) {
		t.Errorf("a change that reads it gave %v, want ErrCorrupt", err)
	}
	a.stop()
	if _, err := a.open(); !errors.Is(err, ErrRegister) {
		t.Errorf("the next start gave %v, want ErrRegister", err)
	}
}
