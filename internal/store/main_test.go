package store

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"keyd.dev/keyd/internal/custody"
	"keyd.dev/keyd/internal/isoswitch"
	"keyd.dev/keyd/keys"
)

// childEnv is set for a test binary that is run again, to "load:" or "full:" and
// the path of a database: what it does instead of testing, and where.
const childEnv = "KEYD_STORE_TEST_CHILD"

func TestMain(m *testing.M) {
	work, path, child := strings.Cut(os.Getenv(childEnv), ":")
	switch {
	case !child:
		goleak.VerifyTestMain(m)
	case work == "load":
		os.Exit(loadUntilKilled(path))
	case work == "full":
		os.Exit(fillTheDisk(path))
	default:
		os.Exit(2)
	}
}

// day is the time at which most of the tests take place.
func day() time.Time { return time.Date(2025, 11, 22, 9, 30, 0, 123456789, time.UTC) }

// open opens a new database to serve.
func open(t testing.TB) *DB {
	t.Helper()
	return openAt(t, filepath.Join(t.TempDir(), "keyd.db"), Serve)
}

func openAt(t testing.TB, path string, purpose Purpose) *DB {
	t.Helper()
	cfg, err := config(path, purpose)
	if err != nil {
		t.Fatal(err)
	}
	db, err := Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { shut(t, db) })
	return db
}

// openAdopted opens a database as it is, whatever the anchors know.
func openAdopted(t testing.TB, path string) *DB {
	t.Helper()
	cfg, err := config(path, Serve)
	if err != nil {
		t.Fatal(err)
	}
	cfg.Adopt = true
	db, err := Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { shut(t, db) })
	return db
}

func shut(t testing.TB, db *DB) {
	t.Helper()
	if err := db.Close(); err != nil {
		t.Error(err)
	}
}

// hash is a value of 32 bytes that differs with n.
func hash(n byte) (h [32]byte) {
	for i := range h {
		h[i] = n + byte(i)
	}
	return h
}

func keyID(n int) keys.ID { return keys.ID(fmt.Sprintf("%032d", n)) }

// aKey is a key record of which every field is set.
func aKey(n int) custody.KeyRecord {
	return custody.KeyRecord{
		Block: &keys.Block{
			ID: keyID(n), Version: 1, LMK: 1,
			Attributes: keys.Attributes{Usage: keys.UsagePIN, Algorithm: keys.TDES2, Mode: keys.ModeBoth, Exportability: keys.Exportable},
			Origin:     keys.Generated, CheckBy: keys.CheckByZeros, Check: [3]byte{1, 2, 3},
			CreatedMs: day().UnixMilli(), Policy: map[string]string{"keyd:custody": "any"},
			Wrapped: make([]byte, 24), MAC: [16]byte{1},
		},
		State: custody.CreateComplete, Enabled: true,
		UsageStart: day(), UsageStop: day().Add(time.Second), DeletePending: day().Add(2 * time.Second), Deleted: day().Add(3 * time.Second),
		Tags: map[string]string{"team": "acquiring", "empty": ""},
		Life: custody.Life{Successor: keyID(n + 1)},
	}
}

// aTxn is an original of which every field is set.
func aTxn(n byte) *isoswitch.Txn {
	return &isoswitch.Txn{
		OID: hash(n), Key: hash(n + 1), Link: "issuer", Profile: "unionpay", Received: day(), MTI: "0200",
		Card:       custody.Card{Sealed: []byte{9, 9}, Token: "k1:token"},
		Processing: "000000", Amount: 1000, Sent: "1122093000", STAN: "000001", Time: "093000", Date: "1122",
		Entry: "051", Condition: "00", Acquirer: "123456", TID: "T0000001", MID: "M00000000000001", Currency: "978",
		EMV: []byte{0x82, 0x01, 0x00}, KSN: "FFFF9876543210E00001", MACKey: keyID(1), Content: hash(n + 2), Raw: hash(n + 3),
		UpSTAN: "000101", UpSent: "1122093001", UpAcquirer: "654321",
		State: isoswitch.Forwarded, RRN: "532609000001", Approval: "A12345", Answer: "00", Late: "51",
		IssuerDE55: []byte{0x8A, 0x02, 0x30, 0x30}, ReverseOnCompletion: true, BatchClosed: true, Refunded: true,
		ReversedAmount: 250, RefersTo: hash(n + 4), Finished: day().Add(time.Second),
	}
}

// aReversal is a full reversal of which every field is set but Rest, and the case
// with which it would be closed for good.
func aReversal(n byte, oid isoswitch.OID) *isoswitch.Reversal {
	return &isoswitch.Reversal{
		RID: hash(n), OID: oid, Cause: isoswitch.ByTerminal, Full: true, MTI: "0400", STAN: "000002",
		TID: "T0000001", KSN: "FFFF9876543210E00002", Raw: hash(n + 1), Built: day(), UpSTAN: "000102", UpSent: "1122093002",
		Link:   "issuer",
		Answer: "00", RRN: "532609000002", Approval: "A12345", Content: hash(n + 2),
		State: isoswitch.Queued, Reason: "68", Tries: 1, Declines: 2, Errors: 3,
		Next: day().Add(time.Second), FirstSent: day().Add(2 * time.Second), LastSent: day().Add(3 * time.Second),
		Answered: day().Add(4 * time.Second), UpAnswer: "00", Closed: day().Add(5 * time.Second),
		Granted: 1, Renewed: day().Add(6 * time.Second),
	}
}

// partial makes a reversal one that leaves rest of the original.
func partial(r *isoswitch.Reversal, rest int64) *isoswitch.Reversal {
	r.Full, r.Rest = false, rest
	return r
}

// update runs fn in a transaction that must succeed.
func update(t testing.TB, db *DB, fn func(isoswitch.Tx) error) {
	t.Helper()
	if err := db.Update(context.Background(), fn); err != nil {
		t.Fatal(err)
	}
}

// view runs fn over a snapshot; it must succeed.
func view(t testing.TB, db *DB, fn func(isoswitch.Tx) error) {
	t.Helper()
	if err := db.View(context.Background(), fn); err != nil {
		t.Fatal(err)
	}
}
