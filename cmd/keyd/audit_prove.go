package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"keyd.dev/keyd/audit"
)

type auditProveCmd struct {
	auditSource `embed:""`
	Record      string   `arg:"" placeholder:"LOG:SEQ" help:"The record, as keyd audit ls and find show it: sec:12, ops-2026-11:345."`
	Out         string   `short:"o" placeholder:"FILE" help:"Write the proof there, which must not exist; default standard output."`
	Vkey        []string `placeholder:"FILE" help:"Verification keys of the log, one a line; repeatable. Without it the key in the log's own folder is used."`
}

const (
	// proveWait is how long a record without a checkpoint is waited for; there
	// is one a second.
	proveWait  = 2 * time.Second
	provePause = 50 * time.Millisecond
)

// Run writes a .tlog-proof (L-140).
func (c *auditProveCmd) Run(p *program) error {
	log, seq, err := parsePlace(c.Record)
	if err != nil {
		return err
	}
	q := auditRead{Command: audit.QueryProve, Filter: c.Record, Log: log, Rows: 1}
	dir, note, err := c.open(p, q)
	if err != nil {
		return err
	}
	keys := auditVerifyCmd{auditSource: c.auditSource, Vkey: c.Vkey}
	vkeys, err := keys.vkeys(p, dir)
	if err != nil {
		return err
	}
	reader, err := openLog(dir)
	if err != nil {
		return err
	}
	proof, err := proveRecord(p.ctx, reader, log, seq, vkeys)
	if err != nil {
		return err
	}
	if err := note(p.ctx, p.stderr, q); err != nil {
		return err
	}
	if c.Out == "" {
		_, err := p.stdout.Write(proof)
		return err
	}
	return writeNew(c.Out, func(w io.Writer) error {
		_, err := w.Write(proof)
		return err
	})
}

// proveRecord returns the proof of a record, checked as its receiver will check
// it. It waits a little for a checkpoint that covers the record. Errors:
// [audit.ErrNotFound], [audit.ErrUncovered], [audit.ErrPruned], those of
// [audit.CheckProof].
func proveRecord(ctx context.Context, reader *audit.Reader, log string, seq uint64, vkeys []string) ([]byte, error) {
	if _, durable, err := reader.Size(log); err != nil {
		return nil, fmt.Errorf("proving %s:%d: %w", log, seq, err)
	} else if seq >= durable {
		return nil, fmt.Errorf("proving %s:%d: %w; the log has %d records", log, seq, audit.ErrNotFound, durable)
	}
	ctx, cancel := context.WithTimeout(ctx, proveWait)
	defer cancel()
	for {
		proof, err := reader.Prove(log, seq, 0)
		if err == nil {
			_, err = audit.CheckProof(proof, vkeys)
		}
		if !errors.Is(err, audit.ErrUncovered) {
			return proof, err
		}
		select {
		case <-ctx.Done():
			return nil, err
		case <-time.After(provePause):
		}
	}
}

// parsePlace reads LOG:SEQ.
func parsePlace(text string) (log string, seq uint64, err error) {
	log, number, _ := strings.Cut(text, ":")
	seq, err = strconv.ParseUint(number, 10, 53)
	if err != nil || log == "" || strconv.FormatUint(seq, 10) != number {
		return "", 0, usageError("%q is no record; write the log and the number in it, as sec:12 or ops-2026-11:345", text)
	}
	return log, seq, nil
}

// writeNew makes a file that is not there yet, durably and as a whole: when write
// fails none is left.
func writeNew(name string, write func(io.Writer) error) error {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o640)
	if errors.Is(err, os.ErrExist) {
		return usageError("%s exists; nothing is written over it", name)
	}
	if err != nil {
		return err
	}
	err = errors.Join(write(f), f.Sync(), f.Close())
	if err != nil {
		return errors.Join(fmt.Errorf("writing %s: %w", name, err), os.Remove(name))
	}
	return syncFolder(filepath.Dir(name))
}

// syncFolder makes the names in a folder durable.
func syncFolder(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
