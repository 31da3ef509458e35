package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"

	"keyd.dev/keyd/audit"
)

// The exit codes of `keyd audit` (L-181). 0 and 2 are those of every command.
const (
	auditExitFailed    = 1
	auditExitNothing   = 3
	auditExitUndecided = 4
	auditExitAccess    = 5
	auditExitLog       = 6
)

// What a command of `keyd audit` ends with, for [auditExit] to make a code of.
var (
	// errCheckFailed: something was checked, and is not so.
	errCheckFailed = errors.New("the check failed")
	// errNothingFound: the log has no record of what was asked for.
	errNothingFound = errors.New("the log has no record of it")
	// errUndecided: it can be neither proved nor refuted with what is there.
	errUndecided = errors.New("it cannot be decided")
	// errAccess: who asks may not, or a second person is missing.
	errAccess = errors.New("access refused")
	// errUnrecorded: the log is unavailable, or cannot record the reading.
	errUnrecorded = errors.New("the reading cannot be recorded")
)

// auditExits says which errors end in which code. The first row that fits
// counts: that somebody may not read says more than what he would have read.
var auditExits = []struct {
	code int
	errs []error
}{
	{auditExitAccess, []error{errAccess}},
	{auditExitLog, []error{errUnrecorded, audit.ErrUnavailable, audit.ErrQueueFull, audit.ErrDiskCritical, audit.ErrUnsigned, audit.ErrClosed, errNoDaemon}},
	{auditExitFailed, []error{errCheckFailed}},
	{auditExitUndecided, []error{errUndecided}},
	{auditExitNothing, []error{errNothingFound}},
	{auditExitFailed, []error{audit.ErrCorrupt, audit.ErrSignature, audit.ErrFormat}},
	{auditExitUndecided, []error{audit.ErrPruned, audit.ErrUncovered, fs.ErrNotExist, fs.ErrPermission, context.Canceled, context.DeadlineExceeded}},
	{auditExitNothing, []error{audit.ErrNotFound}},
}

// auditExit gives the error of a command of `keyd audit` its exit code. What is
// in no row left the question open, and so must be told from a check that failed.
func auditExit(err error) error {
	var exit *exitError
	if err == nil || errors.As(err, &exit) {
		return err
	}
	shown := err
	var p printed
	if errors.As(err, &p) {
		shown = nil
	}
	for _, row := range auditExits {
		for _, is := range row.errs {
			if errors.Is(err, is) {
				return &exitError{code: row.code, err: shown}
			}
		}
	}
	return &exitError{code: auditExitUndecided, err: shown}
}

// printed is an error that the command itself has put into words.
type printed struct{ error }

func (p printed) Unwrap() error { return p.error }

// notRecorded tells a node that refuses who asks from one that cannot record.
func notRecorded(err error) error {
	var refused *localRefusal
	if errors.As(err, &refused) && refused.status == http.StatusForbidden {
		return fmt.Errorf("nothing is shown: %w: %w", errAccess, err)
	}
	return fmt.Errorf("nothing is shown: %w: %w", errUnrecorded, err)
}
