package custody_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"keyd.dev/keyd/audit"
	"keyd.dev/keyd/internal/custody"
)

// TestL130CommitAgain: an act whose log failed under it, and which records its
// refusal, is told of the failure again, and not of the room of its ticket.
func TestL130CommitAgain(t *testing.T) {
	r := newRoom(t, nil)
	act, err := r.Begin(t.Context(), theSwitch, "t.1")
	if err != nil {
		t.Fatal(err)
	}
	defer act.Close()
	refused := audit.Record{Action: audit.FrameRefuse, Outcome: audit.OutcomeRefused, Reason: audit.ReasonFormatError}
	for range 4 {
		act.Note(refused)
	}
	if err := os.Rename(filepath.Join(r.dir, "audit", "wal"), filepath.Join(r.dir, "wal")); err != nil {
		t.Fatal(err)
	}
	poison(t, r.log)
	for n := range 3 {
		_, err := act.Commit(t.Context())
		if !errors.Is(err, custody.ErrUnavailable) || !errors.Is(err, audit.ErrUnavailable) || errors.Is(err, audit.ErrRecord) {
			t.Errorf("commit %d: %v", n, err)
		}
		act.Note(refused)
		act.Note(refused)
	}
}

// poison fills the segments of a log that finds no others, until it has failed. It
// does so in sec, which takes records for as long as there is any room.
func poison(t *testing.T, log *audit.Log) {
	t.Helper()
	batch := make([]audit.Record, 64)
	for n := range batch {
		batch[n] = audit.Record{Action: audit.AuthAccept, Actor: audit.Actor{ID: "anna", Kind: audit.ActorOperator, Authn: audit.AuthnMTLS},
			Outcome: audit.OutcomeOK, Corr: fmt.Sprintf("t.%060d", n)}
	}
	for range 4000 {
		ticket, err := log.Reserve(t.Context(), audit.Sec, len(batch))
		if err == nil {
			_, err = ticket.Append(batch...)
			ticket.Release()
		}
		if errors.Is(err, audit.ErrUnavailable) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	t.Fatal("the log did not fail")
}
