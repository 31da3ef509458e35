package main

import (
	"database/sql"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"keyd.dev/keyd/internal/store"
)

// cmdSQL DATABASE STATEMENT writes to a database beside keyd, as somebody does
// who can write the file: without its rules.
func cmdSQL(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: sql DATABASE STATEMENT")
	}
	db, err := sql.Open("sqlite3", "file:"+ts.MkAbs(args[0])+"?_busy_timeout=30000&_foreign_keys=off")
	ts.Check(err)
	defer db.Close()
	db.SetMaxOpenConns(1)
	rows, err := db.Query("SELECT name FROM sqlite_schema WHERE type = 'trigger'")
	ts.Check(err)
	var drops []string
	for rows.Next() {
		var name string
		ts.Check(rows.Scan(&name))
		drops = append(drops, "DROP TRIGGER "+name)
	}
	ts.Check(rows.Close())
	for _, statement := range append(drops, "PRAGMA ignore_check_constraints = ON", args[1]) {
		_, err := db.Exec(statement)
		ts.Check(err)
	}
}

// TestJournalObjectsFitTheLog: what an alarm names is never taken for a key or a
// card, and says which row it is.
func TestJournalObjectsFitTheLog(t *testing.T) {
	for name, c := range map[string]struct {
		s    store.Suspicion
		want string
	}{
		"an original":    {store.Suspicion{Kind: "txn", Name: "12"}, "txn/12"},
		"rows gone":      {store.Suspicion{Kind: "txn", Name: "3-9"}, "txn/3-9"},
		"a TDES mark":    {store.Suspicion{Kind: "ksn", Name: "FFFF9876543210E00000"}, "ksn/FFFF_9876_5432_10E0_0000"},
		"an AES mark":    {store.Suspicion{Kind: "ksn", Name: "1234567890123456"}, "ksn/1234_5678_9012_3456"},
		"under a KSN":    {store.Suspicion{Kind: "accepted", Name: "FFFF9876543210E00000/9"}, "accepted/FFFF_9876_5432_10E0_0000/9"},
		"a counter":      {store.Suspicion{Kind: "counter", Name: "stan/issuer"}, "counter/stan/issuer"},
		"a guarded mark": {store.Suspicion{Kind: "ksn_mark", Name: strings.Repeat("a", 8) + "/1234567890123456"}, "ksn_mark/aaaaaaaa/1234_5678_9012_3456"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := corrOf(journalObject(c.s)); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}
