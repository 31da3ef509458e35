package store

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"keyd.dev/keyd/internal/custody"
	"keyd.dev/keyd/internal/isoswitch"
)

// Each statement tries to break a rule behind the program's back.
func TestRulesHoldAgainstSQL(t *testing.T) {
	oid := func(n byte) string { return fmt.Sprintf("x'%x'", hash(n)) }
	// reversal is an INSERT of a reversal that is right but for what is replaced.
	reversal := func(replace ...string) string {
		columns := []string{"rid", "oid", "cause", "full", "rest", "mti", "stan", "tid", "ksn", "raw", "built", "up_stan",
			"up_sent", "answer", "rrn", "approval", "content", "state", "reason", "tries", "declines", "errors", "next",
			"first_sent", "last_sent", "answered", "up_answer", "closed"}
		values := map[string]string{"rid": oid(90), "oid": oid(2), "cause": "'terminal'", "full": "1", "mti": "'0400'",
			"stan": "'000009'", "tid": "'T0000001'", "raw": oid(91), "built": "1", "state": "'QUEUED'", "content": "NULL"}
		for _, text := range []string{"ksn", "up_stan", "up_sent", "answer", "rrn", "approval", "reason", "up_answer"} {
			values[text] = "''"
		}
		for _, number := range []string{"rest", "tries", "declines", "errors", "next", "first_sent", "last_sent", "answered", "closed"} {
			values[number] = "0"
		}
		for i := 0; i < len(replace); i += 2 {
			values[replace[i]] = replace[i+1]
		}
		var list []string
		for _, column := range columns {
			list = append(list, values[column])
		}
		return "INSERT INTO reversal (" + strings.Join(columns, ", ") + ") VALUES (" + strings.Join(list, ", ") + ")"
	}
	one := "WHERE oid = " + oid(1)

	db := open(t)
	update(t, db, func(tx isoswitch.Tx) error {
		declined := aTxn(3)
		declined.State = isoswitch.Declined
		return errors.Join(
			tx.InsertTxn(aTxn(1)), tx.InsertReversal(aReversal(10, hash(1))),
			tx.InsertTxn(aTxn(2)),
			tx.InsertTxn(declined),
			tx.InsertTxn(aTxn(4)), tx.InsertReversal(partial(aReversal(40, hash(4)), 600)),
			tx.Accept("FFFF9876543210E00000", 7, hash(1), day()),
			func() error { _, err := tx.Reserve("stan", 10); return err }(),
		)
	})
	dump := func() string {
		var rows []string
		for _, table := range []string{"txn", "reversal", "ksn", "accepted", "counter"} {
			err := db.view(t.Context(), func(s *session) error {
				all, err := s.conn.QueryContext(t.Context(), "SELECT * FROM "+table)
				if err != nil {
					return err
				}
				defer all.Close()
				columns, err := all.Columns()
				for err == nil && all.Next() {
					cells, into := make([]any, len(columns)), make([]any, len(columns))
					for i := range cells {
						into[i] = &cells[i]
					}
					err = all.Scan(into...)
					rows = append(rows, fmt.Sprintln(table, cells))
				}
				return errors.Join(err, all.Err())
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		return strings.Join(rows, "")
	}

	// What is right must be accepted, or the refusals below say nothing.
	for name, statement := range map[string]string{
		"a full reversal":       reversal(),
		"a partial reversal":    reversal("full", "0", "rest", "400"),
		"a second partial":      reversal("oid", oid(4), "full", "0", "rest", "599"),
		"keyd's own":            reversal("cause", "'timeout'", "mti", "''", "stan", "''", "raw", "NULL"),
		"a KSN that rises":      "UPDATE ksn SET counter = 8",
		"a counter that rises":  "UPDATE counter SET value = 11",
		"an amount that rises":  "UPDATE txn SET reversed_amount = 1000 " + one,
		"a state that goes on":  "UPDATE txn SET state = 'REVERSAL_PENDING' " + one,
		"a final state, again":  "UPDATE txn SET state = 'DECLINED' WHERE oid = " + oid(3),
		"a reversal that sends": "UPDATE reversal SET state = 'SENT', tries = 2",
	} {
		t.Run("allowed: "+name, func(t *testing.T) {
			err := db.update(t.Context(), func(s *session) error {
				if _, err := s.exec(statement); err != nil {
					return err
				}
				return errAny // and undo it
			})
			if err != errAny {
				t.Error(err)
			}
		})
	}

	tests := []struct{ name, statement string }{
		{"I-1 a second full reversal", reversal("oid", oid(1))},
		{"I-1 a second full reversal of keyd's own", reversal("oid", oid(1), "cause", "'timeout'")},
		{"I-1 REPLACE", strings.Replace(reversal("oid", oid(1)), "INSERT", "REPLACE", 1)},
		{"I-1 the same RID", reversal("rid", oid(10))},
		{"I-1 a partial made full", "UPDATE reversal SET full = 1"},
		{"I-1 moved to another original", "UPDATE reversal SET oid = " + oid(2)},
		{"I-1 DELETE to make room", "DELETE FROM reversal"},
		{"I-1 DELETE of the original", "DELETE FROM txn WHERE oid = " + oid(2)},
		{"I-1 REPLACE of the original", "REPLACE INTO txn SELECT * FROM txn " + one},
		{"I-1 out of a final state", "UPDATE txn SET state = 'APPROVED' WHERE oid = " + oid(3)},
		{"I-1 unknown state", "UPDATE txn SET state = 'FINE' " + one},
		{"A-22.T3 I-2 reversed above the amount", "UPDATE txn SET reversed_amount = 1001 " + one},
		{"I-2 reversed below nothing", "UPDATE txn SET reversed_amount = -1 " + one},
		{"I-2 reversed amount lowered", "UPDATE txn SET reversed_amount = 249 " + one},
		{"I-2 amount raised", "UPDATE txn SET amount = 100000 " + one},
		{"I-2 full after a partial", reversal("oid", oid(4))},
		{"I-2 partial after a full", reversal("oid", oid(1), "full", "0", "rest", "1")},
		{"I-2 partial that leaves as much", reversal("oid", oid(4), "full", "0", "rest", "600")},
		{"I-2 partial that leaves more", reversal("oid", oid(4), "full", "0", "rest", "700")},
		{"I-2 partial that leaves all", reversal("full", "0", "rest", "1000")},
		{"I-2 partial that leaves nothing", reversal("full", "0", "rest", "0")},
		{"I-2 partial that leaves less than nothing", reversal("full", "0", "rest", "-1")},
		{"I-2 rest changed", "UPDATE reversal SET rest = 1"},
		{"moved to the queue of another upstream", "UPDATE reversal SET link = 'other'"},
		{"I-3 no cause", reversal("cause", "''")},
		{"I-3 asked by a terminal without a message", reversal("raw", "NULL")},
		{"I-3 asked by a terminal without an MTI", reversal("mti", "''")},
		{"I-3 cause changed", "UPDATE reversal SET cause = 'restart'"},
		{"I-3 no MAC key", "UPDATE txn SET mac_key = '' " + one},
		{"R-37 out of order", "UPDATE txn SET state = 'REVERSED' " + one},
		{"R-17 the profile changed", "UPDATE txn SET profile = 'ascii87' " + one},
		{"the acquirer id of the message upstream changed", "UPDATE txn SET up_acquirer = '1' " + one},
		{"D-29 what is referred to changed", "UPDATE txn SET refers_to = " + oid(2) + " " + one},
		{"reversal of nothing", reversal("oid", oid(99))},
		{"KSN lowered", "UPDATE ksn SET counter = 6"},
		{"KSN again", "UPDATE ksn SET counter = 7"},
		{"KSN forgotten", "DELETE FROM ksn"},
		{"KSN REPLACE", "REPLACE INTO ksn VALUES ('FFFF9876543210E00000', 1, 1, x'')"},
		{"KSN of another device", "UPDATE ksn SET device = 'FFFF0000000000000000', counter = 9"},
		{"KSN above 32 bits", "UPDATE ksn SET counter = 4294967296"},
		{"KSN as text", "UPDATE ksn SET counter = '9x'"},
		{"accepted message changed", "UPDATE accepted SET message = zeroblob(32)"},
		{"counter lowered", "UPDATE counter SET value = 9"},
		{"counter forgotten", "DELETE FROM counter"},
		{"counter REPLACE", "REPLACE INTO counter VALUES ('stan', 0, x'')"},
	}
	before := dump()
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			err := db.update(t.Context(), func(s *session) error {
				_, err := s.exec(tt.statement)
				return err
			})
			if !errors.Is(err, ErrRule) {
				t.Errorf("got %v, want ErrRule", err)
			}
			if diff := cmp.Diff(before, dump()); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// What was released of the schema does not change: a change is a new file.
func TestSchemaIsAsReleased(t *testing.T) {
	db := open(t)
	var got []string
	err := db.view(t.Context(), func(s *session) (err error) {
		text := func(r scanner) (sql string, err error) { err = r.Scan(&sql); return sql, err }
		got, err = collect(s, text, "SELECT sql || ';' FROM sqlite_schema WHERE sql IS NOT NULL ORDER BY type, name")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	const golden = "testdata/schema.sql"
	text := strings.Join(got, "\n\n") + "\n"
	if os.Getenv("KEYD_UPDATE_GOLDEN") == "1" {
		if err := os.MkdirAll(filepath.Dir(golden), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(golden, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), text); diff != "" {
		t.Error(diff)
	}
}

// No query on the path of a message may read a whole table.
func TestQueriesUseIndexes(t *testing.T) {
	db := open(t)
	update(t, db, func(tx isoswitch.Tx) error {
		return errors.Join(
			tx.InsertTxn(aTxn(1)), tx.UpdateTxn(aTxn(1)), tx.InsertReversal(aReversal(10, hash(1))),
			tx.UpdateReversal(aReversal(10, hash(1))), tx.Accept("FFFF9876543210E00000", 7, hash(1), day()),
			func() error { _, err := tx.LastCounter("FFFF9876543210E00000"); return err }(),
			func() error { _, err := tx.AcceptedUnder("FFFF9876543210E00000", 7); return err }(),
			func() error { _, err := tx.Newest(hash(2), day()); return err }(),
			func() error { _, err := tx.Txn(hash(1)); return err }(),
			func() error { _, err := tx.Live(hash(5)); return err }(),
			func() error { _, err := tx.Unfinished(hash(0), 1); return err }(),
			func() error { _, err := tx.Foreign(isoswitch.ForeignQuery{RRN: "a"}); return err }(),
			func() error { _, err := tx.Foreign(isoswitch.ForeignQuery{Approval: "a"}); return err }(),
			func() error { _, err := tx.Foreign(isoswitch.ForeignQuery{PANToken: "a"}); return err }(),
			func() error { _, err := tx.Reversal(hash(10)); return err }(),
			func() error { _, err := tx.Due("issuer", day(), 1, nil); return err }(),
			func() error { _, err := tx.OpenBefore(hash(1), day()); return err }(),
			func() error { _, err := tx.NextDue("issuer"); return err }(),
			func() error { _, err := tx.Reserve("stan", 1); return err }(),
		)
	})
	if err := db.AddKey(t.Context(), aKey(1), onceFor("i-1")); err != nil {
		t.Fatal(err)
	}
	if err := db.AddTerminal(t.Context(), aTerminal(1)); err != nil {
		t.Fatal(err)
	}
	use := custody.KSNUse{BDK: keyID(1), Device: "FFFF9876543210E00000", Counter: 7, Kind: custody.KSNMAC, Request: hash(9), At: day()}
	if err := errors.Join(db.SpendKSN(t.Context(), use), db.SpendKSN(t.Context(), use), db.CheckKSN(t.Context(), use)); err != nil {
		t.Fatal(err)
	}
	explained := 0
	err := db.update(t.Context(), func(s *session) error {
		for query := range s.stmt {
			verb, _, _ := strings.Cut(query, " ")
			if !strings.Contains("SELECT INSERT UPDATE DELETE WITH", verb) {
				continue
			}
			plan, err := s.conn.QueryContext(t.Context(), "EXPLAIN QUERY PLAN "+query, make([]any, s.stmt[query].NumInput())...)
			if err != nil {
				return fmt.Errorf("%s: %w", query, err)
			}
			for plan.Next() {
				var id, parent, unused int
				var detail string
				if err := plan.Scan(&id, &parent, &unused, &detail); err != nil {
					return err
				}
				if strings.HasPrefix(detail, "SCAN") && !strings.Contains(detail, "USING INDEX reversal_due") &&
					!strings.Contains(detail, "CONSTANT ROW") && detail != "SCAN span" && !strings.Contains(detail, "json_each") || strings.Contains(detail, "TEMP B-TREE") {
					t.Errorf("%s:\n%s", query, detail)
				}
			}
			if err := errors.Join(plan.Err(), plan.Close()); err != nil {
				return err
			}
			explained++
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if explained < 20 {
		t.Errorf("only %d queries were looked at", explained)
	}
}
