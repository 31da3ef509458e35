package main

import (
	"bufio"
	"context"
	"crypto/ed25519"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"keyd.dev/keyd/audit"
	"keyd.dev/keyd/internal/logindex"
)

// recordenv sets RECORD (LOG:SEQ), MONTH (its log), ID and HASH to those of the
// first record on standard output, lines of `keyd audit find --json`, and writes
// its bytes to record.json.
func cmdRecordEnv(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 0 {
		ts.Fatalf("usage: recordenv")
	}
	line, _, _ := strings.Cut(ts.ReadFile("stdout"), "\n")
	var row struct {
		Log    string          `json:"log"`
		Record json.RawMessage `json:"record"`
	}
	ts.Check(json.Unmarshal([]byte(line), &row))
	var r found
	ts.Check(json.Unmarshal(row.Record, &r))
	leaf := audit.LeafHash(row.Record)
	ts.Setenv("RECORD", r.place())
	ts.Setenv("MONTH", row.Log)
	ts.Setenv("ID", r.ID)
	ts.Setenv("HASH", hex.EncodeToString(leaf[:]))
	ts.Check(os.WriteFile(ts.MkAbs("record.json"), row.Record, 0o600))
}

// openedLog is a log of this test's own, of which no checkpoint is published
// before it closes.
func openedLog(t *testing.T) (log *audit.Log, dir string) {
	t.Helper()
	dir = t.TempDir()
	log, err := audit.Open(dir, ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize)), audit.Options{
		Site: "example", Node: "n1", Build: "1.0.0", SegmentSize: 8 << 20, CheckpointInterval: time.Hour,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := log.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return log, dir
}

// appendStep adds one record to sec.
func appendStep(t *testing.T, log *audit.Log, custodian string) {
	t.Helper()
	ticket, err := log.Reserve(t.Context(), audit.Sec, 1)
	if err != nil {
		t.Fatal(err)
	}
	defer ticket.Release()
	_, err = ticket.Append(audit.Record{
		Action: audit.CeremonyJoin, Outcome: audit.OutcomeOK, Actor: audit.Actor{ID: custodian, Kind: audit.ActorCustodian, Authn: audit.AuthnCard},
		Cer: &audit.Cer{ID: "cer-1", Step: audit.StepJoin, M: 2, N: 3, Purpose: "A test", Custodian: custodian},
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestL181GetUncovered: a record that no checkpoint covers is not proved, so that
// get shows nothing; ls shows it as what it is.
func TestL181GetUncovered(t *testing.T) {
	log, dir := openedLog(t)
	appendStep(t, log, "custodian-a")
	vkey, err := log.Vkey(audit.Sec.String())
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "vkey")
	if err := os.WriteFile(file, []byte(vkey+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	rows, err := (&auditLsCmd{Actor: "custodian-a"}).newer(dir, logindex.Query{All: [][]logindex.Term{{{Kind: logindex.Actor, Value: "custodian-a"}}}}, map[string]uint64{})
	if err != nil || len(rows) != 1 || rows[0].covered {
		t.Fatalf("ls has %+v, %v", rows, err)
	}
	var out, complaint strings.Builder
	place := (&found{listed: rows[0]}).place()
	if code := run(t.Context(), []string{"audit", "get", place, "--dir", dir, "--vkey", file}, strings.NewReader(""), &out, &complaint); code != auditExitUndecided || out.Len() > 0 {
		t.Errorf("get ended with %d, %q, %s", code, out.String(), complaint.String())
	}
}

// TestL180Follow: ls --follow shows what is appended, and what fits alone.
func TestL180Follow(t *testing.T) {
	log, dir := openedLog(t)
	appendStep(t, log, "custodian-a")
	c := &auditLsCmd{Actor: "custodian-b"}
	q, err := c.query(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	s, err := openSearch(dir, filepath.Join(dir, "index"), "")
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.close(); err != nil {
			t.Error(err)
		}
	}()
	ctx, stop := context.WithCancel(t.Context())
	out, in := io.Pipe()
	ended := make(chan error, 1)
	next, err := c.begin(s)
	if err != nil {
		t.Fatal(err)
	}
	go func() { ended <- c.follow(ctx, dir, q, next, in) }()
	appendStep(t, log, "custodian-a")
	appendStep(t, log, "custodian-b")
	lines := make(chan string, 16)
	go func() {
		defer close(lines)
		for text := bufio.NewScanner(out); text.Scan(); {
			lines <- text.Text()
		}
	}()
	if line := <-lines; !strings.Contains(line, "custodian-b") || strings.Contains(line, "custodian-a") {
		t.Errorf("followed %q", line)
	}
	stop()
	if err := errors.Join(<-ended, in.Close()); err != nil {
		t.Error(err)
	}
}
