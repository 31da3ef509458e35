package store

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"keyd.dev/keyd/internal/custody"
	"keyd.dev/keyd/internal/isoswitch"
)

// without says why the rows of a table are neither registered nor carry a MAC.
var without = map[string]string{
	"probe":          "a number that says nothing",
	"answer":         "answers of the API that are good for a day; they move no money and hold no key",
	"exchange_token": "certificates, which the token's own key pairs are compared with",
	"issuer":         "certificates, which are verified",
	"public_key":     "carries a seal of the token of its own",
	"key_use":        "counters of keys with limits, which are reserved ahead; not covered, see docs/THREAT-MODEL.md",
	"hook":           "whether a receiver of events is configured",
	"outbox":         "what the receiver of events is told; the switch does nothing by it",
	"lmk":            "generations, which the token knows",
}

// TestR50EveryColumnIsProtected: a table that is added is registered, or its rows
// carry a MAC, or somebody has said why not; and a column that is added is under it.
func TestR50EveryColumnIsProtected(t *testing.T) {
	db := open(t)
	known := make(map[string][]string)
	for _, r := range registered {
		known[r.name] = r.names()
	}
	for _, s := range sealedTables {
		known[s.name] = append(s.names(), "row_mac")
	}
	err := db.read(t.Context(), func(s *session) error {
		names, err := tables(s)
		for _, name := range names {
			all, _, err := columns(s, name)
			if err != nil {
				return err
			}
			want, is := known[name]
			switch {
			case is == (without[name] != ""):
				t.Errorf("table %s: registered or with a MAC %v, and the reason why not is %q", name, is, without[name])
			case is:
				slices.Sort(all)
				slices.Sort(want)
				if diff := cmp.Diff(all, want); diff != "" {
					t.Errorf("table %s: columns (-schema +protected):\n%s", name, diff)
				}
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// attacker writes to the database beside keyd.
type attacker struct {
	t  testing.TB
	db *sql.DB
}

func breakInto(t testing.TB, path string) attacker {
	t.Helper()
	pool, err := sql.Open("sqlite3", "file:"+path+"?_busy_timeout=30000&_foreign_keys=off")
	if err != nil {
		t.Fatal(err)
	}
	pool.SetMaxOpenConns(1)
	t.Cleanup(func() { pool.Close() })
	a := attacker{t, pool}
	rows, err := pool.Query("SELECT name FROM sqlite_schema WHERE type = 'trigger'")
	if err != nil {
		t.Fatal(err)
	}
	var triggers []string
	for rows.Next() {
		var name string
		if err := rows.Scan(&name); err != nil {
			t.Fatal(err)
		}
		triggers = append(triggers, name)
	}
	rows.Close()
	for _, name := range triggers {
		a.do("DROP TRIGGER " + name)
	}
	a.do("PRAGMA ignore_check_constraints = ON")
	return a
}

func (a attacker) do(statement string, args ...any) {
	a.t.Helper()
	if _, err := a.db.Exec(statement, args...); err != nil {
		a.t.Fatalf("%s: %v", statement, err)
	}
}

func (a attacker) get(query string, args ...any) (v any) {
	a.t.Helper()
	if err := a.db.QueryRow(query, args...).Scan(&v); err != nil {
		a.t.Fatalf("%s: %v", query, err)
	}
	return v
}

// house is a served database with two rows in each table that carries a MAC,
// and what was told of it.
type house struct {
	db   *DB
	path string
	told []Suspicion
}

func newHouse(t testing.TB) *house {
	t.Helper()
	h := &house{path: filepath.Join(t.TempDir(), "keyd.db")}
	h.open(t)
	if err := h.db.AddKey(t.Context(), aKey(1), nil); err != nil {
		t.Fatal(err)
	}
	for n := range byte(2) {
		update(t, h.db, func(tx isoswitch.Tx) error {
			sale := aTxn(1 + 50*n)
			sale.Received = day().Add(time.Duration(n) * time.Minute)
			rev := aReversal(30+50*n, sale.OID)
			rev.Built = rev.Built.Add(time.Duration(n) * time.Minute)
			device := isoswitch.Device(fmt.Sprintf("FFFF9876543210E%d0000", 2*n))
			_, err := tx.Reserve(fmt.Sprintf("stan/%d", n), 7)
			return errors.Join(err, tx.InsertTxn(sale), tx.InsertReversal(rev), tx.Accept(device, 9, hash(n), day()))
		})
		use := aUse(4+uint32(n), custody.KSNPIN, 1+n)
		use.Device = fmt.Sprintf("FFFF9876543210E%d0000", 2*n)
		if err := h.db.SpendKSN(t.Context(), use); err != nil {
			t.Fatal(err)
		}
	}
	return h
}

func (h *house) open(t testing.TB) {
	t.Helper()
	cfg, err := config(h.path, Serve)
	if err != nil {
		t.Fatal(err)
	}
	cfg.Suspicion = func(s Suspicion) { h.told = append(h.told, s) }
	if h.db, err = Open(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	db := h.db
	t.Cleanup(func() { shut(t, db) })
}

// patrol returns what a round finds.
func (h *house) patrol(t testing.TB) Patrolled {
	t.Helper()
	found, err := h.db.Patrol(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// other is another value of the same kind.
func other(v any) any {
	switch v := v.(type) {
	case nil:
		return make([]byte, 32)
	case int64:
		return v ^ 1
	case string:
		return v + "1"
	case []byte:
		if len(v) == 0 {
			return []byte{1}
		}
		c := slices.Clone(v)
		c[len(c)-1] ^= 1
		return c
	}
	panic(fmt.Sprintf("a %T", v))
}

// TestR50EveryChangedColumnIsRefused: A-02.T2. Each column of each table, changed
// with SQL while keyd runs: the row is refused and told, and the others are not.
func TestR50EveryChangedColumnIsRefused(t *testing.T) {
	h := newHouse(t)
	a := breakInto(t, h.path)
	if clean := h.patrol(t); clean.Wrong > 0 || clean.Rows != 2*len(sealedTables) {
		t.Fatalf("before anything was changed: %+v", clean)
	}
	for _, table := range sealedTables {
		for _, column := range append(table.names(), "row_mac") {
			t.Run(table.name+"."+column, func(t *testing.T) {
				h.told = nil
				h.db.register.told.Clear()
				a.do("CREATE TEMP TABLE kept AS SELECT * FROM " + table.name)
				defer func() {
					a.do("DELETE FROM " + table.name)
					a.do("INSERT INTO " + table.name + " SELECT * FROM temp.kept")
					a.do("DROP TABLE temp.kept")
					if again := h.patrol(t); again.Wrong > 0 {
						t.Errorf("put back, the patrol still finds %+v", again)
					}
				}()
				where, key := a.first(table)
				before := a.get("SELECT "+column+" FROM "+table.name+where, key...)
				a.do("UPDATE "+table.name+" SET "+column+" = ?"+where, append([]any{other(before)}, key...)...)
				found := h.patrol(t)
				// Where its number was changed, there may be a gap as well.
				if found.Rows != 2*len(sealedTables) || found.Wrong != 1 && column != "seq" || found.Wrong == 0 {
					t.Errorf("the patrol found %+v", found)
				}
				if !slices.ContainsFunc(h.told, func(s Suspicion) bool {
					return s.Kind == table.name && s.Sealed && errors.Is(s.Err, custody.ErrTampered) && errors.Is(s.Err, ErrCorrupt)
				}) {
					t.Errorf("told %+v", h.told)
				}
			})
		}
	}
}

// first returns what selects the first row of a table.
func (a attacker) first(t *sealed) (where string, key []any) {
	a.t.Helper()
	where = " WHERE true"
	for _, name := range t.names()[:t.primary] {
		key = append(key, a.get("SELECT "+name+" FROM "+t.name+where+" ORDER BY 1 LIMIT 1", key...))
		where += " AND " + name + " = ?"
	}
	return where, key
}

// reader reads the first row of each table as keyd does, and the second.
type reader struct {
	table string
	first func(h *house) error
	other func(h *house) error
}

func readers() []reader {
	one := func(fn func(isoswitch.Tx) error) func(h *house) error {
		return func(h *house) error { return h.db.Update(context.Background(), fn) }
	}
	use := func(n uint32, counter uint32) custody.KSNUse {
		u := aUse(counter+n, custody.KSNPIN, byte(1+n))
		u.Device = fmt.Sprintf("FFFF9876543210E%d0000", 2*n)
		return u
	}
	txn := func(n byte) func(h *house) error {
		return one(func(tx isoswitch.Tx) error { _, err := tx.Newest(hash(n+1), time.Time{}); return err })
	}
	rev := func(n byte) func(h *house) error {
		return one(func(tx isoswitch.Tx) error { _, err := tx.Reversal(hash(n)); return err })
	}
	mark := func(device isoswitch.Device) func(h *house) error {
		return one(func(tx isoswitch.Tx) error { _, err := tx.LastCounter(device); return err })
	}
	accepted := func(device isoswitch.Device) func(h *house) error {
		return one(func(tx isoswitch.Tx) error { _, err := tx.AcceptedUnder(device, 9); return err })
	}
	counter := func(name string) func(h *house) error {
		return one(func(tx isoswitch.Tx) error { _, err := tx.Reserve(name, 1); return err })
	}
	spent := func(n uint32) func(h *house) error {
		return func(h *house) error { return h.db.CheckKSN(context.Background(), use(n, 5)) }
	}
	repeat := func(n uint32) func(h *house) error {
		return func(h *house) error { return h.db.CheckKSN(context.Background(), use(n, 4)) }
	}
	return []reader{
		{"txn", txn(1), txn(51)},
		{"reversal", rev(30), rev(80)},
		{"ksn", mark("FFFF9876543210E00000"), mark("FFFF9876543210E20000")},
		{"accepted", accepted("FFFF9876543210E00000"), accepted("FFFF9876543210E20000")},
		{"counter", counter("stan/0"), counter("stan/1")},
		{"ksn_mark", spent(0), spent(1)},
		{"ksn_request", repeat(0), repeat(1)},
	}
}

// TestR50AChangedRowIsRefusedAtItsUse: what keyd reads for its work is refused
// where it was changed, told once, and hinders nothing else.
func TestR50AChangedRowIsRefusedAtItsUse(t *testing.T) {
	for _, r := range readers() {
		t.Run(r.table, func(t *testing.T) {
			h := newHouse(t)
			a := breakInto(t, h.path)
			table := sealedTables[slices.IndexFunc(sealedTables, func(s *sealed) bool { return s.name == r.table })]
			if err := r.first(h); err != nil {
				t.Fatal("before it was changed:", err)
			}
			where, key := a.first(table)
			last := table.columns[len(table.columns)-1].name
			before := a.get("SELECT "+last+" FROM "+table.name+where, key...)
			a.do("UPDATE "+table.name+" SET "+last+" = ?"+where, append([]any{other(before)}, key...)...)
			for range 2 {
				if err := r.first(h); !errors.Is(err, custody.ErrTampered) {
					t.Errorf("got %v, want ErrTampered", err)
				}
			}
			if err := r.other(h); err != nil {
				t.Errorf("another row: %v", err)
			}
			if len(h.told) != 1 || h.told[0].Kind != r.table {
				t.Errorf("told %+v, want once of %s", h.told, r.table)
			}
		})
	}
}

// TestR50WhatAMACIsBoundTo: a row with a MAC that keyd made, but not for this
// place, or not in this database.
func TestR50WhatAMACIsBoundTo(t *testing.T) {
	find := func(n byte) func(tx isoswitch.Tx) error {
		return func(tx isoswitch.Tx) error { _, err := tx.Txn(hash(n)); return err }
	}
	for _, c := range []struct {
		name string
		do   string
		read func(isoswitch.Tx) error
	}{
		{"an empty MAC", "UPDATE txn SET row_mac = x'' WHERE seq = 1", find(1)},
		{"a MAC that is cut", "UPDATE txn SET row_mac = substr(row_mac, 1, 15) WHERE seq = 1", find(1)},
		{"a longer MAC", "UPDATE txn SET row_mac = CAST(row_mac || x'00' AS BLOB) WHERE seq = 1", find(1)},
		{"a MAC of zeros", "UPDATE txn SET row_mac = zeroblob(16) WHERE seq = 1", find(1)},
		{"the MAC of another row", "UPDATE txn SET row_mac = (SELECT row_mac FROM txn WHERE seq = 2) WHERE seq = 1", find(1)},
		{"rows exchanged by their identity", "UPDATE txn SET oid = CASE seq WHEN 1 THEN zeroblob(32) ELSE oid END; " +
			"UPDATE txn SET oid = (SELECT x'" + fmt.Sprintf("%x", hash(1)) + "') WHERE seq = 2", find(1)},
		{"a row copied to another OID", "INSERT INTO txn SELECT 3, zeroblob(32), lookup, link, received + 1, mti, card, pan_token, processing, " +
			"amount, sent, stan, time, date, entry, condition, acquirer, tid, mid, currency, emv, ksn, mac_key, content, raw, up_stan, up_sent, " +
			"state, rrn, approval, answer, late, issuer_emv, reverse_on_completion, batch_closed, refunded, reversed_amount, NULL, " +
			"finished, row_mac, profile, up_acquirer FROM txn WHERE seq = 1", func(tx isoswitch.Tx) error { _, err := tx.Newest(hash(2), time.Time{}); return err }},
		{"a mark of another device", "UPDATE ksn SET counter = 3 WHERE device = 'FFFF9876543210E00000'", func(tx isoswitch.Tx) error {
			_, err := tx.LastCounter("FFFF9876543210E00000")
			return err
		}},
		{"a row whose look-up key was changed, at the next of its kind", "UPDATE txn SET lookup = zeroblob(32) WHERE seq = 1",
			func(tx isoswitch.Tx) error { return tx.InsertTxn(aTxn(1)) }},
		{"an update of a changed row", "UPDATE txn SET amount = 1 WHERE seq = 1", func(tx isoswitch.Tx) error { return tx.UpdateTxn(aTxn(1)) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := newHouse(t)
			a := breakInto(t, h.path)
			a.do(c.do)
			if err := h.db.Update(t.Context(), c.read); !errors.Is(err, custody.ErrTampered) {
				t.Errorf("got %v, want ErrTampered", err)
			}
			if len(h.told) != 1 {
				t.Errorf("told %+v", h.told)
			}
		})
	}
	t.Run("a row of another database", func(t *testing.T) {
		from, h := newHouse(t), newHouse(t)
		a := breakInto(t, h.path)
		a.do("ATTACH DATABASE ? AS other", from.path)
		a.do("UPDATE txn SET row_mac = (SELECT row_mac FROM other.txn o WHERE o.oid = txn.oid)")
		if err := h.db.View(t.Context(), find(1)); !errors.Is(err, custody.ErrTampered) {
			t.Errorf("got %v, want ErrTampered", err)
		}
	})
}

// TestR50AChangedRowHindersNoOther: the queue and the restart leave out rows that
// keyd did not write, however many there are.
func TestR50AChangedRowHindersNoOther(t *testing.T) {
	h := newHouse(t)
	update(t, h.db, func(tx isoswitch.Tx) error {
		for n := range byte(3) {
			sale, rev := aTxn(100+10*n), aReversal(150+10*n, hash(100+10*n))
			sale.OID, sale.RefersTo, rev.TID = hash(100+10*n), isoswitch.OID{}, fmt.Sprintf("T000010%d", n)
			rev.Next = day().Add(time.Duration(n) * time.Second)
			if err := errors.Join(tx.InsertTxn(sale), tx.InsertReversal(rev)); err != nil {
				return err
			}
		}
		return nil
	})
	a := breakInto(t, h.path)
	a.do("UPDATE reversal SET tries = 77 WHERE tid <> 'T0000102'")
	a.do("UPDATE txn SET amount = 77 WHERE seq <> 4")
	view(t, h.db, func(tx isoswitch.Tx) error {
		due, err := tx.Due("issuer", day().Add(time.Hour), 1, nil)
		if err != nil || len(due) != 1 || due[0].TID != "T0000102" {
			t.Errorf("due: %v %v", due, err)
		}
		next, err := tx.NextDue("issuer")
		if err != nil || !next.Equal(day().Add(2*time.Second)) {
			t.Errorf("the next is due at %v, %v", next, err)
		}
		found, err := tx.Unfinished(isoswitch.OID{}, 10)
		if err != nil || len(found) != 1 || found[0].OID != hash(110) {
			t.Errorf("unfinished: %v %v", found, err)
		}
		return nil
	})
	if len(h.told) != 8 {
		t.Errorf("told of %d rows, want 8: %+v", len(h.told), h.told)
	}
}

// TestR50WhatWasPutBackWhileKeydRuns: older copies of marks and counters, whose
// MACs are right, and rows that are gone.
func TestR50WhatWasPutBackWhileKeydRuns(t *testing.T) {
	const device = isoswitch.Device("FFFF9876543210E00000")
	spend := func(h *house, counter uint32) error {
		use := aUse(counter, custody.KSNPIN, 9)
		return h.db.SpendKSN(context.Background(), use)
	}
	accept := func(h *house, counter uint32) error {
		return h.db.Update(context.Background(), func(tx isoswitch.Tx) error {
			if _, err := tx.LastCounter(device); err != nil {
				return err
			}
			return tx.Accept(device, counter, hash(3), day())
		})
	}
	reserve := func(h *house) error {
		return h.db.Update(context.Background(), func(tx isoswitch.Tx) error { _, err := tx.Reserve("stan/0", 1); return err })
	}
	for _, c := range []struct {
		name, table  string
		onward, then func(h *house) error
	}{
		{"A-15 a KSN mark", "ksn", func(h *house) error { return accept(h, 20) }, func(h *house) error { return accept(h, 15) }},
		{"the mark of a guarded key", "ksn_mark", func(h *house) error { return spend(h, 20) }, func(h *house) error { return spend(h, 15) }},
		{"a counter", "counter", reserve, reserve},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := newHouse(t)
			a := breakInto(t, h.path)
			a.do("CREATE TEMP TABLE kept AS SELECT * FROM " + c.table)
			if err := c.onward(h); err != nil {
				t.Fatal(err)
			}
			a.do("DELETE FROM " + c.table)
			a.do("INSERT INTO " + c.table + " SELECT * FROM temp.kept")
			if err := c.then(h); !errors.Is(err, custody.ErrTampered) {
				t.Errorf("put back: got %v, want ErrTampered", err)
			}
			a.do("DELETE FROM " + c.table)
			if err := c.then(h); !errors.Is(err, custody.ErrTampered) {
				t.Errorf("deleted: got %v, want ErrTampered", err)
			}
			if len(h.told) == 0 || h.told[0].Kind != c.table {
				t.Errorf("told %+v", h.told)
			}
		})
	}
	for name, statement := range map[string]string{
		"a row in the middle": "DELETE FROM txn WHERE seq = 1",
		"the last row":        "DELETE FROM txn WHERE seq = 2",
		"all":                 "DELETE FROM reversal",
	} {
		t.Run("gone: "+name, func(t *testing.T) {
			h := newHouse(t)
			breakInto(t, h.path).do(statement)
			if found := h.patrol(t); found.Wrong != 1 {
				t.Errorf("the patrol found %+v", found)
			}
		})
	}
	t.Run("the last row, before the next is written", func(t *testing.T) {
		h := newHouse(t)
		breakInto(t, h.path).do("DELETE FROM txn WHERE seq = 2")
		update(t, h.db, func(tx isoswitch.Tx) error {
			sale := aTxn(200)
			sale.RefersTo = isoswitch.OID{}
			return tx.InsertTxn(sale)
		})
		if len(h.told) != 1 || h.told[0].Name != "2" {
			t.Errorf("told %+v", h.told)
		}
	})
}

// TestR50WhatWasPutBackWhileKeydWasStopped: the token knows how far the journal
// had come at the last start, and at an end in order exactly.
func TestR50WhatWasPutBackWhileKeydWasStopped(t *testing.T) {
	for name, c := range map[string]struct {
		do   string
		want error
	}{
		"nothing":                 {"SELECT 1", nil},
		"the last original gone":  {"DELETE FROM txn WHERE seq = 2", ErrRegister},
		"the last reversal gone":  {"DELETE FROM reversal WHERE seq = 2", ErrRegister},
		"a mark gone":             {"DELETE FROM ksn WHERE device = 'FFFF9876543210E00000'", ErrRegister},
		"a guarded mark lower":    {"UPDATE ksn_mark SET counter = counter - 1", ErrRegister},
		"a counter lower":         {"UPDATE counter SET value = value - 1", ErrRegister},
		"a mark higher":           {"UPDATE ksn SET counter = counter + 1", ErrRegister},
		"which journal it is":     {"UPDATE journal SET id = randomblob(16)", ErrRegister},
		"that it ended otherwise": {"UPDATE journal SET ended = 0, txns = 0, reversals = 0, marks = 0, counted = 0", ErrRegister},
		"to be sealed anew":       {"UPDATE txn SET row_mac = x'', amount = 1; DELETE FROM journal", ErrRegister},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHouse(t)
			shut(t, h.db)
			breakInto(t, h.path).do(c.do)
			cfg, err := config(h.path, Serve)
			if err != nil {
				t.Fatal(err)
			}
			db, err := Open(t.Context(), cfg)
			if err == nil {
				shut(t, db)
			}
			if !errors.Is(err, c.want) {
				t.Errorf("got %v, want %v", err, c.want)
			}
			if c.want == nil {
				return
			}
			cfg.Adopt = true
			if db, err = Open(t.Context(), cfg); err != nil {
				t.Fatalf("by an administrator's decision: %v", err)
			}
			shut(t, db)
		})
	}
}

// TestR50RowsOfBeforeAreSealedOnce: an upgrade of a database that has rows
// without MACs, also one that was interrupted.
func TestR50RowsOfBeforeAreSealedOnce(t *testing.T) {
	h := newHouse(t)
	shut(t, h.db)
	a := breakInto(t, h.path)
	for _, table := range sealedTables {
		a.do("UPDATE " + table.name + " SET row_mac = x''")
	}
	a.do("DELETE FROM journal")
	a.do("UPDATE txn SET row_mac = x''")
	h.db = openAdopted(t, h.path)
	done, unrecorded := h.db.Sealing()
	if want := 2 * len(sealedTables); done.Rows != want || !unrecorded {
		t.Errorf("%d rows were sealed, unrecorded %v; want %d, true", done.Rows, unrecorded, want)
	}
	if found := h.patrol(t); found.Wrong > 0 || found.Rows != 2*len(sealedTables) {
		t.Errorf("the patrol found %+v", found)
	}
	shut(t, h.db)

	// It was not recorded: the next start goes on, and finds one that was left.
	a.do("UPDATE txn SET row_mac = x'' WHERE seq = 1")
	h.open(t)
	if done, unrecorded := h.db.Sealing(); done.Rows != 1 || !unrecorded {
		t.Errorf("after an interruption: %d rows, unrecorded %v; want 1, true", done.Rows, unrecorded)
	}
	if err := h.db.SealingRecorded(t.Context()); err != nil {
		t.Fatal(err)
	}
	shut(t, h.db)

	// It was: such a row is a changed one for ever.
	a.do("UPDATE txn SET row_mac = x'' WHERE seq = 1")
	h.open(t)
	if done, unrecorded := h.db.Sealing(); done.Rows != 0 || unrecorded {
		t.Errorf("once recorded: %d rows, unrecorded %v; want none", done.Rows, unrecorded)
	}
	if found := h.patrol(t); found.Wrong != 1 {
		t.Errorf("the patrol found %+v, want one row", found)
	}
}

// TestR50UpgradeFromTheSchemaBefore makes a database by the schema before MACs,
// with rows, and opens it.
func TestR50UpgradeFromTheSchemaBefore(t *testing.T) {
	const before = 8
	from := newHouse(t)
	path := filepath.Join(t.TempDir(), "keyd.db")
	source := breakInto(t, from.path)
	err := Restore(t.Context(), path, before, func(RowSink) error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	old := breakTo(t, path)
	old.do("ATTACH DATABASE ? AS source", from.path)
	old.do("INSERT INTO key SELECT * FROM source.key")
	for _, table := range sealedTables {
		names := ""
		for _, name := range table.names() {
			if !slices.Contains([]string{"granted", "renewed", "case_id", "resolved", "profile", "up_acquirer"}, name) && table.name+"."+name != "reversal.link" {
				names += ", " + name
			}
		}
		names = names[2:]
		old.do("INSERT INTO " + table.name + " (" + names + ") SELECT " + names + " FROM source." + table.name)
	}
	old.do("DETACH DATABASE source")
	want := source.get("SELECT count(*) FROM txn")
	h := &house{path: path}
	h.db = openAdopted(t, path)
	if done, unrecorded := h.db.Sealing(); done.Rows != 2*len(sealedTables) || !unrecorded {
		t.Errorf("sealed %+v, unrecorded %v", done, unrecorded)
	}
	if found := h.patrol(t); found.Wrong > 0 || found.Rows != 2*len(sealedTables) {
		t.Errorf("the patrol found %+v of %v", found, want)
	}
	for _, r := range readers() {
		if err := errors.Join(r.first(h), r.other(h)); err != nil {
			t.Errorf("%s: %v", r.table, err)
		}
	}
}

// breakTo is breakInto that leaves the rules where they are.
func breakTo(t testing.TB, path string) attacker {
	t.Helper()
	pool, err := sql.Open("sqlite3", "file:"+path+"?_busy_timeout=30000&_foreign_keys=off")
	if err != nil {
		t.Fatal(err)
	}
	pool.SetMaxOpenConns(1)
	t.Cleanup(func() { pool.Close() })
	return attacker{t, pool}
}

// TestR50HistoriesLeaveRightRows: whatever is done by this package, through
// failures and starts, leaves rows that it takes.
func TestR50HistoriesLeaveRightRows(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		h := &house{path: filepath.Join(t.TempDir(), "keyd.db")}
		h.open(t)
		sales := byte(0)
		fails := errors.New("given up")
		rt.Repeat(map[string]func(*rapid.T){
			"sale": func(rt *rapid.T) {
				give := rapid.Bool().Draw(rt, "fails")
				err := h.db.Update(t.Context(), func(tx isoswitch.Tx) error {
					sale := aTxn(sales + 1)
					sale.RefersTo, sale.ReversedAmount, sale.Finished = isoswitch.OID{}, 0, time.Time{}
					_, err := tx.Reserve("stan", 1)
					if err = errors.Join(err, tx.InsertTxn(sale)); err == nil && give {
						return fails
					}
					return err
				})
				if give != errors.Is(err, fails) || !give && err != nil {
					rt.Fatal(err)
				}
				if !give {
					sales++
				}
			},
			"outcome": func(rt *rapid.T) {
				if sales == 0 {
					return
				}
				n := rapid.ByteRange(1, sales).Draw(rt, "sale")
				err := h.db.Update(t.Context(), func(tx isoswitch.Tx) error {
					sale, err := tx.Txn(hash(n))
					if err != nil || sale.State != isoswitch.Forwarded {
						return err
					}
					sale.State, sale.Answer, sale.Finished = isoswitch.ReversalPending, "68", day()
					rev := aReversal(n, sale.OID)
					rev.Raw, rev.Cause = isoswitch.Hash{}, isoswitch.ByTimeout
					return errors.Join(tx.UpdateTxn(sale), tx.InsertReversal(rev))
				})
				if err != nil {
					rt.Fatal(err)
				}
			},
			"try": func(rt *rapid.T) {
				err := h.db.Update(t.Context(), func(tx isoswitch.Tx) error {
					due, err := tx.Due("issuer", day().Add(time.Hour), 3, nil)
					for _, v := range due {
						v.Tries++
						err = errors.Join(err, tx.UpdateReversal(v))
					}
					return err
				})
				if err != nil {
					rt.Fatal(err)
				}
			},
			"message": func(rt *rapid.T) {
				device := isoswitch.Device(fmt.Sprintf("FFFF9876543210E%d0000", 2*rapid.IntRange(0, 2).Draw(rt, "device")))
				step := rapid.Uint32Range(0, 70).Draw(rt, "step")
				err := h.db.Update(t.Context(), func(tx isoswitch.Tx) error {
					last, err := tx.LastCounter(device)
					if err != nil || step == 0 {
						return err
					}
					return tx.Accept(device, last+step, hash(byte(step)), day())
				})
				if err != nil {
					rt.Fatal(err)
				}
			},
			"start": func(rt *rapid.T) {
				if err := h.db.Close(); err != nil {
					rt.Fatal(err)
				}
				h.open(t)
			},
			"": func(rt *rapid.T) {
				found, err := h.db.Patrol(t.Context(), nil)
				if err != nil || found.Wrong > 0 || len(h.told) > 0 {
					rt.Fatalf("the patrol found %+v, %v; told %v", found, err, h.told)
				}
			},
		})
	})
}

// TestR50ABackupKeepsMarks: the marks and counters of a backup are those that
// keyd wrote, and are right in the database that is made of it.
func TestR50ABackupKeepsMarks(t *testing.T) {
	h := newHouse(t)
	must(t, h.db.SetHook(t.Context(), true)) // an event names a reversal that stays behind
	x := original(t, h.db, 60)
	update(t, h.db, func(tx isoswitch.Tx) error { return tx.InsertReversal(inQueue(61, x.OID)) })
	if len(ids(t, h.db, day().Add(time.Hour))) == 0 {
		t.Fatal("there is no event that a backup could take")
	}
	kept := new(rowsOf)
	if err := h.db.Backup(t.Context(), kept); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "keyd.db")
	err := Restore(t.Context(), path, SchemaVersion(), func(sink RowSink) error {
		for _, step := range kept.replay {
			if err := step(sink); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	again := &house{path: path}
	again.db = openAdopted(t, path)
	if done, unrecorded := again.db.Sealing(); done.Rows != 6 || !unrecorded { // two each of ksn, counter, ksn_mark
		t.Errorf("sealed %+v, unrecorded %v", done, unrecorded)
	}
	for _, r := range readers() {
		if r.table != "ksn" && r.table != "counter" && r.table != "ksn_mark" {
			continue
		}
		if err := errors.Join(r.first(again), r.other(again)); err != nil {
			t.Errorf("%s: %v", r.table, err)
		}
	}
	if err := again.db.SpendKSN(t.Context(), aUse(3, custody.KSNPIN, 1)); !errors.Is(err, custody.ErrKSN) {
		t.Errorf("a KSN that was used before the backup: %v", err)
	}
	t.Run("of a changed mark there is none", func(t *testing.T) {
		breakInto(t, h.path).do("UPDATE ksn SET counter = 1")
		if err := h.db.Backup(t.Context(), new(rowsOf)); !errors.Is(err, custody.ErrTampered) {
			t.Errorf("got %v, want ErrTampered", err)
		}
		if len(h.told) == 0 {
			t.Error("nothing was told")
		}
	})
}

// BenchmarkSeal is the work of one row: its form and its MAC, as an original.
func BenchmarkSeal(b *testing.B) {
	sealer, err := testSealer([16]byte{1})
	if err != nil {
		b.Fatal(err)
	}
	g := &guard{sealer: sealer}
	values := append([]any{int64(1)}, append(txnReceived(aTxn(1)), txnOutcome(aTxn(1))...)...)
	if err := g.seal(txnTable, values); err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(g.text)))
	b.ReportAllocs()
	for b.Loop() {
		if err := g.seal(txnTable, values); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkPatrol reads rows as the patrol does, MACs compared.
func BenchmarkPatrol(b *testing.B) {
	h := newHouse(b)
	for n := range 1000 {
		update(b, h.db, func(tx isoswitch.Tx) error {
			sale := aTxn(1)
			sale.RefersTo = isoswitch.OID{}
			sale.OID, sale.Key = sha256.Sum256(fmt.Append(nil, n)), hash(7)
			return tx.InsertTxn(sale)
		})
	}
	b.ResetTimer()
	rows := 0
	for b.Loop() {
		found, err := h.db.Patrol(b.Context(), nil)
		if err != nil || found.Wrong > 0 {
			b.Fatal(found, err)
		}
		rows += found.Rows
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(rows), "ns/row")
}
