package store

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"keyd.dev/keyd/internal/custody"
	"keyd.dev/keyd/keys"
)

func addKeys(t testing.TB, db *DB, all ...custody.KeyRecord) {
	t.Helper()
	for _, k := range all {
		if err := db.AddKey(t.Context(), k, nil); err != nil {
			t.Fatal(err)
		}
	}
}

func idsOf(all []custody.KeyRecord) (ids []keys.ID) {
	for _, k := range all {
		ids = append(ids, k.Block.ID)
	}
	return ids
}

// stateKey is a key in a state of its life.
func stateKey(n int, change func(*custody.KeyRecord)) custody.KeyRecord {
	k := aKey(n)
	k.Life = custody.Life{}
	k.DeletePending, k.Deleted = time.Time{}, time.Time{}
	change(&k)
	return k
}

func TestDueKeys(t *testing.T) {
	db := open(t)
	pending := func(at time.Time) func(*custody.KeyRecord) {
		return func(k *custody.KeyRecord) {
			k.State, k.Enabled, k.DeletePending = custody.DeletePending, false, at
			k.Aliases = []string{"alias/" + string(k.Block.ID)}
		}
	}
	addKeys(t, db,
		stateKey(1, pending(day().Add(time.Hour))),
		stateKey(2, pending(day())),
		stateKey(3, func(*custody.KeyRecord) {}),
		stateKey(4, pending(day().Add(-time.Hour))))
	got, err := db.DueKeys(t.Context(), day(), 10)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]keys.ID{keyID(4), keyID(2)}, idsOf(got)); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"alias/" + string(keyID(4))}, got[0].Aliases); diff != "" {
		t.Error(diff)
	}
	if got, err = db.DueKeys(t.Context(), day(), 1); err != nil || len(got) != 1 {
		t.Errorf("%d keys, %v; want 1", len(got), err)
	}
}

func TestTimedKeys(t *testing.T) {
	db := open(t)
	addKeys(t, db,
		stateKey(1, func(*custody.KeyRecord) {}),
		stateKey(2, func(k *custody.KeyRecord) {
			k.Block.Policy = map[string]string{"keyd:not-after": "2030-01-01T00:00:00Z"}
		}),
		stateKey(3, func(k *custody.KeyRecord) {
			k.Life = custody.Life{Successor: keyID(9), Retires: day()}
		}),
		stateKey(4, func(k *custody.KeyRecord) {
			k.Life, k.Enabled = custody.Life{Successor: keyID(9), Retires: day()}, false
		}))
	got, err := db.TimedKeys(t.Context(), "", 10)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]keys.ID{keyID(2), keyID(3)}, idsOf(got)); diff != "" {
		t.Error(diff)
	}
	if !got[1].Life.Retires.Equal(day()) {
		t.Errorf("retires at %v, want %v", got[1].Life.Retires, day())
	}
	if got, err = db.TimedKeys(t.Context(), keyID(2), 10); err != nil || len(got) != 1 {
		t.Errorf("%d keys after the first, %v; want 1", len(got), err)
	}
}

// TestSweepIndices: with many keys the sweeper must not read them all.
func TestSweepIndices(t *testing.T) {
	db := open(t)
	for _, tt := range []struct{ name, where, index string }{
		{"due", isDue + "ORDER BY delete_pending LIMIT 10", "key_due"},
		{"timed", isTimed + "AND id > '' ORDER BY id LIMIT 10", "key_timed"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var plan string
			query := strings.ReplaceAll("EXPLAIN QUERY PLAN "+keyTable.selects()+"WHERE "+tt.where, "?", "0")
			err := db.read(t.Context(), func(s *session) error {
				var id, parent, none int
				return s.query(query).Scan(&id, &parent, &none, &plan)
			})
			if err != nil || !strings.Contains(plan, tt.index) {
				t.Errorf("plan %q, %v; want the index %s", plan, err, tt.index)
			}
		})
	}
}

func TestAliases(t *testing.T) {
	db := open(t)
	one, two := aKey(1), aKey(2)
	one.Aliases, two.Aliases = []string{"alias/a", "alias/c"}, []string{"alias/b"}
	addKeys(t, db, one, two)
	if err := db.AddAlias(t.Context(), custody.Alias{Name: "alias/d"}, nil); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name string
		q    custody.AliasQuery
		want []custody.Alias
	}{
		{"all", custody.AliasQuery{}, []custody.Alias{
			{Name: "alias/a", Key: keyID(1)}, {Name: "alias/b", Key: keyID(2)}, {Name: "alias/c", Key: keyID(1)}, {Name: "alias/d"}}},
		{"of a key", custody.AliasQuery{Key: keyID(1)}, []custody.Alias{{Name: "alias/a", Key: keyID(1)}, {Name: "alias/c", Key: keyID(1)}}},
		{"a page", custody.AliasQuery{After: "alias/a", Limit: 2}, []custody.Alias{{Name: "alias/b", Key: keyID(2)}, {Name: "alias/c", Key: keyID(1)}}},
		{"of a key, after", custody.AliasQuery{Key: keyID(1), After: "alias/a"}, []custody.Alias{{Name: "alias/c", Key: keyID(1)}}},
		{"of no key", custody.AliasQuery{Key: keyID(7)}, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := db.Aliases(t.Context(), tt.q)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestKeyUse(t *testing.T) {
	db := open(t)
	addKeys(t, db, aKey(1), aKey(2))
	none, err := db.KeyUse(t.Context(), keyID(1))
	if err != nil || none != (custody.KeyUse{Key: keyID(1)}) {
		t.Fatalf("before any use: %+v, %v", none, err)
	}
	want := custody.KeyUse{
		Key: keyID(1), Uses: 7, Reserved: 9, First: day(), Last: day().Add(time.Hour), WarnedUses: 5, WarnedTime: day().Add(time.Minute),
	}
	allSet(t, want)
	if err := db.SaveKeyUses(t.Context(), []custody.KeyUse{want, {Key: keyID(2), Uses: 1, Reserved: 1}}); err != nil {
		t.Fatal(err)
	}
	got, err := db.KeyUse(t.Context(), keyID(1))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	t.Run("a count does not fall, and no other row changes", func(t *testing.T) {
		err := db.SaveKeyUses(t.Context(), []custody.KeyUse{{Key: keyID(2), Uses: 5, Reserved: 5}, {Key: keyID(1), Uses: 6, Reserved: 9}})
		if !errors.Is(err, ErrRule) {
			t.Errorf("got %v, want %v", err, ErrRule)
		}
		if other, err := db.KeyUse(t.Context(), keyID(2)); err != nil || other.Uses != 1 {
			t.Errorf("the other: %+v, %v", other, err)
		}
	})
	t.Run("of no key", func(t *testing.T) {
		if err := db.SaveKeyUses(t.Context(), []custody.KeyUse{{Key: keyID(9), Uses: 1}}); !errors.Is(err, ErrRule) {
			t.Errorf("got %v, want %v", err, ErrRule)
		}
	})
}

// TestScrub: after it neither the database nor its log holds what a row lost,
// and readers that look at the old state only delay it.
func TestScrub(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keyd.db")
	db := openAt(t, path, Serve)
	k := stateKey(1, func(k *custody.KeyRecord) { k.Block.Wrapped = bytes.Repeat([]byte("needle!!"), 3) })
	addKeys(t, db, k)
	inFiles := func() (found bool) {
		for _, name := range []string{path, path + "-wal"} {
			raw, err := os.ReadFile(name)
			if err != nil && !errors.Is(err, os.ErrNotExist) {
				t.Fatal(err)
			}
			found = found || bytes.Contains(raw, []byte("needle!!"))
		}
		return found
	}
	if !inFiles() {
		t.Fatal("the value is not where the test looks")
	}
	reader, err := db.pool.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	var n int
	if err := reader.QueryRow("SELECT count(*) FROM key").Scan(&n); err != nil {
		t.Fatal(err)
	}
	k.Block.Wrapped = nil
	err = db.ChangeKeys(t.Context(), nil, func(change custody.KeyChange) error { return change.SetKey(k) })
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Scrub(t.Context()); !errors.Is(err, custody.ErrUnavailable) {
		t.Errorf("under a reader: %v, want %v", err, custody.ErrUnavailable)
	}
	done := make(chan error, 1)
	go func() { done <- db.Scrub(t.Context()) }()
	if err := reader.Rollback(); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if inFiles() {
		t.Error("the value is still in the files")
	}
}
