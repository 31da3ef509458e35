package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"testing"

	"keyd.dev/keyd/audit"
)

// TestAuditExitCodes is L-181.
func TestAuditExitCodes(t *testing.T) {
	tests := []struct {
		name   string
		err    error
		code   int
		silent bool
	}{
		{"proved", nil, 0, false},
		{"check failed", errCheckFailed, 1, false},
		{"check failed and said so", printed{errCheckFailed}, 1, true},
		{"damaged", fmt.Errorf("reading: %w", audit.ErrCorrupt), 1, false},
		{"signature", audit.ErrSignature, 1, false},
		{"usage", usageError("no"), 2, false},
		{"nothing", errNothingFound, 3, false},
		{"no such record", audit.ErrNotFound, 3, false},
		{"no such folder", fmt.Errorf("%w: %w", errUndecided, audit.ErrNotFound), 4, false},
		{"pruned", audit.ErrPruned, 4, false},
		{"not covered", audit.ErrUncovered, 4, false},
		{"file unreadable", &fs.PathError{Op: "open", Path: "x", Err: fs.ErrPermission}, 4, false},
		{"anything else", io.ErrUnexpectedEOF, 4, false},
		{"daemon says no", notRecorded(&localRefusal{status: http.StatusForbidden}), 5, false},
		{"daemon cannot record", notRecorded(&localRefusal{status: http.StatusServiceUnavailable}), 6, false},
		{"no daemon", notRecorded(errNoDaemon), 6, false},
		{"log unavailable", audit.ErrUnavailable, 6, false},
	}
	for _, tt := range tests {
		t.Run("L-181 "+tt.name, func(t *testing.T) {
			err := auditExit(tt.err)
			if tt.code == 0 {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			var exit *exitError
			if !errors.As(err, &exit) {
				t.Fatalf("%v has no exit code", err)
			}
			if exit.code != tt.code || (exit.err == nil) != tt.silent {
				t.Errorf("code %d, want %d; says %v", exit.code, tt.code, exit.err)
			}
		})
	}
}
