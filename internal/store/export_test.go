package store

import (
	"errors"
	"testing"

	"keyd.dev/keyd/internal/isoswitch"
)

// exported returns how many records an export gives, and what it counts.
func exported(t *testing.T, db *DB) (count ExportCount, records int) {
	t.Helper()
	err := db.Export(t.Context(), ExportQuery{},
		func(c ExportCount) error { count = c; return nil },
		func(Exported) error { records++; return nil })
	if err != nil {
		t.Fatal(err)
	}
	return count, records
}

// TestR47OneExportAtATime: however many ask for an export, those who sell keep
// the other readers.
func TestR47OneExportAtATime(t *testing.T) {
	h := newHouse(t)
	none := func(Exported) error { return nil }
	refused := 0
	err := h.db.Export(t.Context(), ExportQuery{}, func(ExportCount) error {
		for range defaultReaders {
			err := h.db.Export(t.Context(), ExportQuery{}, func(ExportCount) error { return nil }, none)
			if errors.Is(err, ErrExporting) {
				refused++
			}
		}
		return h.db.View(t.Context(), func(tx isoswitch.Tx) error {
			_, err := tx.Txn(hash(1))
			return err
		})
	}, none)
	if err != nil || refused != defaultReaders {
		t.Errorf("%d of %d refused beside the first, which gave %v", refused, defaultReaders, err)
	}
	if _, records := exported(t, h.db); records != 4 {
		t.Errorf("afterwards %d records, want 4", records)
	}
}

// TestR47WhatIsMissing: an export says how many records were taken out of the
// journal, wherever they stood.
func TestR47WhatIsMissing(t *testing.T) {
	for _, c := range []struct {
		name string
		do   []string
		want int64
	}{
		{"nothing", nil, 0},
		{"the first original", []string{"DELETE FROM txn WHERE seq = 1"}, 1},
		{"the last original", []string{"DELETE FROM txn WHERE seq = 2"}, 1},
		{"the last reversal", []string{"DELETE FROM reversal WHERE seq = 2"}, 1},
		{"all", []string{"DELETE FROM reversal", "DELETE FROM txn"}, 4},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := newHouse(t)
			a := breakInto(t, h.path)
			for _, statement := range c.do {
				a.do(statement)
			}
			count, records := exported(t, h.db)
			if count.Missing != c.want || records != int(4-c.want) {
				t.Errorf("%d missing and %d records, want %d and %d", count.Missing, records, c.want, 4-c.want)
			}
		})
	}
}
