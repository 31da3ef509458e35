package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"keyd.dev/keyd/audit"
	"keyd.dev/keyd/internal/logindex"
)

type auditGetCmd struct {
	Record string `arg:"" placeholder:"LOG:SEQ" help:"sec:17 or ops-2026-11:73894, or the id of a record."`
	auditSource
	indexFlag
	Vkey   []string `placeholder:"FILE" help:"Verification keys of the log, from whoever made them; repeatable. Without it the key in the log's own folder is used, which shows damage but not a forger."`
	Pretty bool     `help:"Print it over several lines; else it is the exact bytes that are stored, without a line feed."`
}

// Run prints one record that is proved under the newest checkpoint.
func (c *auditGetCmd) Run(p *program) (err error) {
	place, id, err := parseRecordName(c.Record)
	if err != nil {
		return err
	}
	asked := auditRead{Command: audit.QueryGet, Filter: c.Record, Log: place.log, Rows: 1}
	dir, note, err := c.open(p, asked)
	if err != nil {
		return err
	}
	v := auditVerifyCmd{auditSource: c.auditSource, Vkey: c.Vkey}
	vkeys, err := v.vkeys(p, dir)
	if err != nil {
		return err
	}
	found, failed := c.get(p.ctx, dir, place, id, vkeys)
	if failed != nil {
		asked.Rows = 0
	}
	if err := note(p.ctx, p.stderr, asked); err != nil {
		return err
	}
	if failed != nil {
		return failed
	}
	return c.print(p.stdout, found)
}

// recordPlace is where a record is.
type recordPlace struct {
	log string
	seq uint64
}

// parseRecordName reads LOG:SEQ or the id of a record.
func parseRecordName(name string) (place recordPlace, id string, err error) {
	log, number, ok := strings.Cut(name, ":")
	if !ok {
		if _, err := audit.ParseUUID(name); err != nil {
			return place, "", usageError("%q is neither LOG:SEQ, as sec:17 or ops-2026-11:73894, nor the id of a record", name)
		}
		return place, name, nil
	}
	seq, err := strconv.ParseUint(number, 10, 53)
	if err != nil || strconv.FormatUint(seq, 10) != number || log != audit.Sec.String() && !isMonth(log) {
		return place, "", usageError("%q is not LOG:SEQ, as sec:17 or ops-2026-11:73894", name)
	}
	return recordPlace{log, seq}, "", nil
}

// isMonth reports whether a name is that of a month of ops.
func isMonth(log string) bool {
	month, ok := strings.CutPrefix(log, audit.Ops.String()+"-")
	_, err := time.Parse("2006-01", month)
	return ok && err == nil
}

// A record that is durable is under a checkpoint a moment later.
const (
	coverTries = 8
	coverPause = 250 * time.Millisecond
)

// get reads one record and proves it, and waits for a checkpoint that covers it.
func (c *auditGetCmd) get(ctx context.Context, dir string, place recordPlace, id string, vkeys []string) (raw []byte, err error) {
	for try := 0; ; try++ {
		raw, err = c.getOnce(ctx, dir, place, id, vkeys)
		if !errors.Is(err, audit.ErrUncovered) || try == coverTries {
			return raw, err
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(coverPause):
		}
	}
}

func (c *auditGetCmd) getOnce(ctx context.Context, dir string, place recordPlace, id string, vkeys []string) (raw []byte, err error) {
	s, err := openSearch(dir, c.folder(dir), place.log)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	if len(s.snaps) == 0 {
		return nil, advise(fmt.Errorf("%w: there is no log %s", errNothingFound, place.log), "`keyd audit ls` shows what there is")
	}
	if id == "" {
		return s.at(s.snaps[0], place.seq, vkeys)
	}
	for h, err := range s.find(ctx, nil, logindex.Query{All: [][]logindex.Term{{{Kind: logindex.ID, Value: id}}}}) {
		if err != nil {
			return nil, err
		}
		for _, snap := range s.snaps {
			if snap.Log() == h.Log {
				return s.at(snap, h.Seq, vkeys)
			}
		}
	}
	if gone := s.pruned(); gone != "" {
		return nil, fmt.Errorf("%w: no record has the id %s, but these were pruned: %s", errUndecided, id, gone)
	}
	return nil, advise(errNothingFound, "look at the id")
}

// at reads a record and proves it under the checkpoint.
func (s *logSearch) at(snap *audit.Snapshot, seq uint64, vkeys []string) ([]byte, error) {
	switch {
	case seq < snap.MinIndex():
		return nil, fmt.Errorf("reading the audit log: %w: %s:%d; the archive has it", audit.ErrPruned, snap.Log(), seq)
	case seq >= snap.Size():
		if _, err := s.reader.Get(snap.Log(), seq); err != nil {
			return nil, fmt.Errorf("reading the audit log: %w", err)
		}
		return nil, advise(fmt.Errorf("reading the audit log: %w: %s:%d", audit.ErrUncovered, snap.Log(), seq), "`keyd audit ls` shows it as it is; a checkpoint comes every second while the node runs")
	}
	if err := snap.Signed(vkeys); err != nil {
		return nil, fmt.Errorf("checking the checkpoint: %w", err)
	}
	bundle, err := snap.Bundle(seq / 256)
	if err != nil {
		return nil, damagedLog(err)
	}
	raw := bundle[seq%256]
	if err := snap.Check(seq, raw); err != nil {
		return nil, damagedLog(err)
	}
	return raw, nil
}

func (c *auditGetCmd) print(out io.Writer, raw []byte) error {
	if c.Pretty {
		var lines bytes.Buffer
		if err := json.Indent(&lines, raw, "", "  "); err != nil {
			return fmt.Errorf("reading the record: %w", err)
		}
		lines.WriteByte('\n')
		raw = lines.Bytes()
	}
	_, err := out.Write(raw)
	return err
}
