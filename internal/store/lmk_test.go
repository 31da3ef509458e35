package store

import (
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"keyd.dev/keyd/internal/custody"
	"keyd.dev/keyd/keys"
)

// keyUnder is a key under a generation.
func keyUnder(n int, generation uint32) custody.KeyRecord {
	k := aKey(n)
	k.Aliases = nil
	k.Block.LMK = generation
	return k
}

func TestLMKNotes(t *testing.T) {
	db := open(t)
	for _, g := range []uint32{2, 1, 1} {
		if err := db.NoteLMK(t.Context(), g, day().Add(time.Duration(g)*time.Hour)); err != nil {
			t.Fatal(err)
		}
	}
	if err := db.NoteLMK(t.Context(), 1, day()); err != nil { // again, at another time
		t.Fatal(err)
	}
	for range 2 {
		if err := db.RetireLMK(t.Context(), 1, day().Add(9*time.Hour)); err != nil {
			t.Fatal(err)
		}
	}
	want := []custody.LMKNote{
		{Generation: 1, Since: day().Add(time.Hour), Retired: day().Add(9 * time.Hour)},
		{Generation: 2, Since: day().Add(2 * time.Hour)},
	}
	got, err := db.LMKs(t.Context())
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("%v, %s", err, diff)
	}
}

func TestRetireLMK(t *testing.T) {
	db := open(t)
	for n, g := range []uint32{1, 1, 2, 0xFFFFFFFF} {
		if err := db.AddKey(t.Context(), keyUnder(n, g), nil); err != nil {
			t.Fatal(err)
		}
	}
	counts, err := db.CountByLMK(t.Context())
	if diff := cmp.Diff(map[uint32]int{1: 2, 2: 1, 0xFFFFFFFF: 1}, counts); diff != "" || err != nil {
		t.Errorf("%v, %s", err, diff)
	}
	if err := db.RetireLMK(t.Context(), 1, day()); !errors.Is(err, custody.ErrConflict) {
		t.Errorf("with keys under it: %v, want %v", err, custody.ErrConflict)
	}
	if err := db.AddKey(t.Context(), keyUnder(7, 1), nil); err != nil {
		t.Errorf("a refused retirement keeps keys out: %v", err)
	}
	if err := db.RetireLMK(t.Context(), 3, day()); err != nil {
		t.Fatal(err)
	}
	if err := db.AddKey(t.Context(), keyUnder(8, 3), nil); err == nil {
		t.Error("a block of a retired generation was stored")
	}
	if _, err := db.ReplaceBlocks(t.Context(), []custody.BlockChange{{Old: keyUnder(2, 2).Block, New: keyUnder(2, 3).Block}}); err == nil {
		t.Error("a block was replaced by one of a retired generation")
	}
}

func TestReplaceBlocks(t *testing.T) {
	db := open(t)
	var changes []custody.BlockChange
	want := make(map[keys.ID]custody.KeyRecord)
	for n := range 5 {
		k := keyUnder(n, 1)
		if err := db.AddKey(t.Context(), k, nil); err != nil {
			t.Fatal(err)
		}
		changes = append(changes, custody.BlockChange{Old: k.Block, New: keyUnder(n, 2).Block})
		k.Block = keyUnder(n, 2).Block
		want[k.Block.ID] = k
	}
	// Meanwhile one was stopped, which is not lost, and one was re-sealed, whose
	// block is another then.
	stopped, sealed := want[keyID(1)], keyUnder(3, 1)
	stopped.Enabled, stopped.Block = false, keyUnder(1, 1).Block
	sealed.Block.Policy = map[string]string{"keyd:note": "later"}
	for _, k := range []custody.KeyRecord{stopped, sealed} {
		if err := db.Change(t.Context(), nil, func(ch *Change) error { return ch.SetKey(k) }); err != nil {
			t.Fatal(err)
		}
	}
	stopped.Block = keyUnder(1, 2).Block
	want[keyID(1)], want[keyID(3)] = stopped, sealed
	gone := custody.BlockChange{Old: keyUnder(9, 1).Block, New: keyUnder(9, 2).Block}

	listed, err := db.BlocksUnder(t.Context(), 1, "", 3)
	if err != nil || len(listed) != 3 || listed[0].ID != keyID(0) {
		t.Errorf("listed %d, %v", len(listed), err)
	}
	done, err := db.ReplaceBlocks(t.Context(), append(changes, gone))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]custody.BlockChange{changes[0], changes[1], changes[2], changes[4]}, done); diff != "" {
		t.Errorf("replaced: %s", diff)
	}
	all, err := db.Keys(t.Context(), custody.KeyQuery{})
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range all {
		if diff := cmp.Diff(want[k.Block.ID], k); diff != "" {
			t.Error(diff)
		}
	}
	listed, err = db.BlocksUnder(t.Context(), 1, "", 10)
	if err != nil || len(listed) != 1 || listed[0].ID != keyID(3) {
		t.Errorf("%d blocks are left under generation 1, %v; want one", len(listed), err)
	}
	if listed, err = db.BlocksUnder(t.Context(), 1, keyID(3), 10); err != nil || len(listed) != 0 {
		t.Errorf("%d blocks after the last one, %v", len(listed), err)
	}
}

// TestLMKTable: whoever can write to the database cannot quietly undo a
// retirement by way of SQL that keyd's connection would carry out.
func TestLMKTable(t *testing.T) {
	db := open(t)
	if err := db.RetireLMK(t.Context(), 1, day()); err != nil {
		t.Fatal(err)
	}
	for _, statement := range []string{
		"UPDATE lmk SET retired = 0", "UPDATE lmk SET generation = 5", "DELETE FROM lmk", "INSERT INTO lmk VALUES (0, 1, 0)",
	} {
		if err := db.update(t.Context(), func(s *session) error { _, err := s.exec(statement); return err }); err == nil {
			t.Errorf("%s was carried out", statement)
		}
	}
}
