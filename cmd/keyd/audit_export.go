package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"keyd.dev/keyd/audit"
	"keyd.dev/keyd/internal/siem"
)

type auditExportCmd struct {
	auditSource `embed:""`
	Format      string   `enum:"jsonl,tiles,rfc5424" default:"jsonl" help:"jsonl: the records' bytes, one a line. tiles: a copy of the log that verifies by itself (C2SP tlog-tiles). rfc5424: messages of syslog, one a line. Default ${default}."`
	Log         string   `placeholder:"LOG" help:"sec, ops, or one month as ops-2026-11; default all."`
	From        *uint64  `placeholder:"SEQ" help:"The first record; with --log of one log."`
	To          *uint64  `placeholder:"SEQ" help:"The last record; with --log of one log."`
	Since       string   `placeholder:"TIME" help:"Not before: RFC 3339, a date, or a duration back from now, 2h."`
	Until       string   `placeholder:"TIME" help:"Before: the same forms."`
	Proofs      bool     `help:"With jsonl, write a proof beside each record."`
	PEN         int      `name:"pen" placeholder:"N" help:"With rfc5424, your private enterprise number of IANA."`
	Out         string   `short:"o" required:"" placeholder:"DIR" help:"Folder to make; it must not exist."`
	Vkey        []string `placeholder:"FILE" help:"Verification keys of the log, one a line; repeatable. Only what is under them is exported. Without it the key in the log's own folder is used."`
}

// Run writes the export (L-161). What is written was compared with a signed
// checkpoint before, record by record.
func (c *auditExportCmd) Run(p *program) error {
	e, err := c.plan(time.Now())
	if err != nil {
		return err
	}
	q := auditRead{Command: audit.QueryExport, Filter: c.text(), Log: c.oneLog()}
	dir, note, err := c.open(p, q)
	if err != nil {
		return err
	}
	keys := auditVerifyCmd{auditSource: c.auditSource, Vkey: c.Vkey}
	if e.vkeys, err = keys.vkeys(p, dir); err != nil {
		return err
	}
	reader, err := openLog(dir)
	if err != nil {
		return err
	}
	if err := e.look(p, reader); err != nil {
		return err
	}
	q.Rows = e.rows()
	if q.Rows == 0 {
		return advise(errNothingFound, "look at --log, --from, --to, --since and --until")
	}
	if err := note(p.ctx, p.stderr, q); err != nil {
		return err
	}
	return e.write(p.ctx, c.Out)
}

// plan checks the flags.
func (c *auditExportCmd) plan(now time.Time) (*logExport, error) {
	since, err := parseMoment("--since", c.Since, now)
	if err != nil {
		return nil, err
	}
	until, err := parseMoment("--until", c.Until, now)
	if err != nil {
		return nil, err
	}
	e := &logExport{format: c.Format, log: c.Log, from: c.From, to: c.To, since: since, until: until, proofs: c.Proofs, filter: c.text()}
	ranged := c.From != nil || c.To != nil
	switch {
	case ranged && c.oneLog() == "":
		return nil, usageError("--from and --to are of one log; name it by --log, as sec or ops-2026-11")
	case c.From != nil && c.To != nil && *c.From > *c.To:
		return nil, usageError("--from=%d is behind --to=%d", *c.From, *c.To)
	case c.Format == "tiles" && (ranged || since != "" || until != ""):
		return nil, usageError("a copy in tiles is of whole logs; leave --from, --to, --since and --until out")
	case c.Proofs && c.Format != "jsonl":
		return nil, usageError("--proofs goes with --format=jsonl")
	case (c.PEN != 0) != (c.Format == "rfc5424"):
		return nil, usageError("--format=rfc5424 and --pen, your private enterprise number of IANA, belong together")
	case c.Format == "rfc5424":
		if e.syslog, err = siem.NewFormatter(c.PEN, siem.DefaultFacility); err != nil {
			return nil, usageError("--pen: %v", err)
		}
	}
	if _, err := os.Lstat(c.Out); !errors.Is(err, os.ErrNotExist) {
		return nil, usageError("%s exists; nothing is written over it", c.Out)
	}
	return e, nil
}

// oneLog is the log of --log where that is one log, or "".
func (c *auditExportCmd) oneLog() string {
	if c.Log == audit.Ops.String() {
		return ""
	}
	return c.Log
}

// text is what was asked for, for the record of the reading and export.json.
func (c *auditExportCmd) text() string {
	number := func(n *uint64) string {
		if n == nil {
			return ""
		}
		return strconv.FormatUint(*n, 10)
	}
	var parts []string
	for _, f := range []struct{ name, value string }{
		{"format", c.Format}, {"log", c.Log}, {"from", number(c.From)}, {"to", number(c.To)}, {"since", c.Since}, {"until", c.Until},
	} {
		if f.value != "" {
			parts = append(parts, f.name+"="+f.value)
		}
	}
	return strings.Join(parts, " ")
}

// logExport is an export of some logs.
type logExport struct {
	format       string
	log          string
	from, to     *uint64
	since, until string
	filter       string
	proofs       bool
	syslog       *siem.Formatter
	vkeys        []string
	reader       *audit.Reader
	parts        []exportPart
}

// exportPart is what is exported of one log: a range under one checkpoint.
type exportPart struct {
	snap        *audit.Snapshot
	first, last uint64
	rows        int64
}

// look finds out what will be exported, and that it is under a signed
// checkpoint.
func (e *logExport) look(p *program, reader *audit.Reader) error {
	e.reader = reader
	names, err := reader.Logs()
	if err != nil {
		return fmt.Errorf("reading the audit log: %w", err)
	}
	for _, name := range names {
		if e.log != "" && name != e.log && !strings.HasPrefix(name, e.log+"-") {
			continue
		}
		if err := e.awaitCovered(p, reader, name); err != nil {
			return err
		}
		snap, err := reader.Snapshot(name)
		if err != nil {
			return fmt.Errorf("exporting %s: %w", name, err)
		}
		if err := snap.Signed(e.vkeys); errors.Is(err, audit.ErrUncovered) {
			continue
		} else if err != nil {
			return fmt.Errorf("exporting %s: %w", name, err)
		}
		part, err := e.part(snap)
		if err != nil {
			return fmt.Errorf("exporting %s: %w", name, err)
		}
		if part.rows > 0 {
			e.parts = append(e.parts, part)
		}
	}
	return nil
}

// awaitCovered waits a little for a checkpoint over all that the log has now, and
// says what none covers.
func (e *logExport) awaitCovered(p *program, reader *audit.Reader, name string) error {
	ctx, cancel := context.WithTimeout(p.ctx, proveWait)
	defer cancel()
	_, durable, err := reader.Size(name)
	for {
		covered, _, again := reader.Size(name)
		if err := errors.Join(err, again); err != nil {
			return fmt.Errorf("exporting %s: %w", name, err)
		}
		if covered >= durable {
			return nil
		}
		select {
		case <-ctx.Done():
			_, err := fmt.Fprintf(p.stderr, "%s: %d records of %s are under no checkpoint, and left out\n", programName, durable-covered, name)
			return errors.Join(p.ctx.Err(), err)
		case <-time.After(provePause):
		}
	}
}

// part counts what fits of one log.
func (e *logExport) part(snap *audit.Snapshot) (exportPart, error) {
	part := exportPart{snap: snap, first: snap.MinIndex()}
	if snap.Size() == 0 {
		return part, nil
	}
	part.last = snap.Size() - 1
	if e.from != nil {
		part.first = *e.from
	}
	if e.to != nil {
		part.last = *e.to
	}
	if part.first < snap.MinIndex() || e.format == "tiles" && snap.MinIndex() > 0 {
		return part, fmt.Errorf("%w: it begins at %d; the archive has what was before", audit.ErrPruned, snap.MinIndex())
	}
	if part.first > part.last {
		return part, nil
	}
	part.rows = int64(part.last - part.first + 1)
	if e.since != "" || e.until != "" {
		part.rows = 0
		return part, e.each(part, func(audit.Entry) error { part.rows++; return nil })
	}
	if part.last >= snap.Size() {
		return part, fmt.Errorf("%w: %s:%d; the checkpoint has size %d", audit.ErrUncovered, snap.Log(), part.last, snap.Size())
	}
	return part, nil
}

// each visits the records that fit.
func (e *logExport) each(part exportPart, visit func(audit.Entry) error) error {
	for entry, err := range part.snap.Records(part.first, part.last) {
		if err != nil {
			return err
		}
		if e.since != "" || e.until != "" {
			var r listed
			if err := json.Unmarshal(entry.Raw, &r); err != nil {
				return fmt.Errorf("%w: record %s:%d: %w", audit.ErrFormat, entry.Log, entry.Seq, err)
			}
			if e.since != "" && r.Time < e.since || e.until != "" && r.Time >= e.until {
				continue
			}
		}
		if err := visit(entry); err != nil {
			return err
		}
	}
	return nil
}

func (e *logExport) rows() int64 {
	var n int64
	for _, part := range e.parts {
		n += part.rows
	}
	return n
}

// write makes the folder, or nothing.
func (e *logExport) write(ctx context.Context, dir string) (err error) {
	if err := os.Mkdir(dir, 0o750); err != nil {
		return fmt.Errorf("exporting: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(dir))
		}
	}()
	for _, part := range e.parts {
		if err := ctx.Err(); err != nil {
			return err
		}
		folder := filepath.Join(dir, filepath.FromSlash(strings.Replace(part.snap.Log(), "ops-", "ops/", 1)))
		if err := e.writeLog(ctx, newExportFolder(folder), part); err != nil {
			return fmt.Errorf("exporting %s: %w", part.snap.Log(), err)
		}
	}
	return syncFolder(dir)
}

// writeLog writes one log's folder; export.json comes last.
func (e *logExport) writeLog(ctx context.Context, f *exportFolder, part exportPart) error {
	if err := e.writeKeys(f, part); err != nil {
		return err
	}
	var err error
	switch e.format {
	case "tiles":
		err = e.writeTiles(ctx, f, part)
	case "rfc5424":
		err = e.writeSyslog(f, part)
	default:
		err = e.writeRecords(ctx, f, part)
	}
	if err != nil {
		return err
	}
	filter := e.filter
	if e.format == "tiles" {
		filter = ""
	}
	return f.finish(exportSummary{Format: e.format, Filter: filter, First: part.first, Last: part.last, Records: part.rows}, part.snap)
}

// writeKeys writes the checkpoint, and the key that the log shows.
func (e *logExport) writeKeys(f *exportFolder, part exportPart) error {
	if err := f.put("checkpoint", part.snap.Note()); err != nil {
		return err
	}
	for _, name := range []string{"vkey", "pub.pem"} {
		text, err := e.reader.Published(part.snap.Log(), name)
		if errors.Is(err, audit.ErrNotFound) {
			continue
		}
		if err != nil {
			return err
		}
		if err := f.put(name, text); err != nil {
			return err
		}
	}
	return nil
}

func (e *logExport) writeTiles(ctx context.Context, f *exportFolder, part exportPart) error {
	for tile, err := range part.snap.Tiles() {
		if err := errors.Join(err, ctx.Err()); err != nil {
			return err
		}
		if err := f.put(tile.Path, tile.Data); err != nil {
			return err
		}
	}
	return nil
}

func (e *logExport) writeRecords(ctx context.Context, f *exportFolder, part exportPart) error {
	err := f.stream("records.jsonl", func(w *bufio.Writer) error {
		return e.each(part, func(entry audit.Entry) error {
			_, err := w.Write(entry.Raw)
			return errors.Join(err, w.WriteByte('\n'))
		})
	})
	if err != nil || !e.proofs {
		return err
	}
	return e.each(part, func(entry audit.Entry) error {
		proof, err := proveRecord(ctx, e.reader, entry.Log, entry.Seq, e.vkeys)
		if err != nil {
			return err
		}
		return f.put("proofs/"+strconv.FormatUint(entry.Seq, 10)+".tlog-proof", proof)
	})
}

// writeSyslog writes the messages that a receiver of syslog gets, and the
// checkpoint's behind them.
func (e *logExport) writeSyslog(f *exportFolder, part exportPart) error {
	return f.stream("records.syslog", func(w *bufio.Writer) error {
		var newest siem.Head
		var line []byte
		err := e.each(part, func(entry audit.Entry) (err error) {
			line, newest, err = e.syslog.AppendRecord(line[:0], entry.Raw)
			if err != nil {
				return err
			}
			_, err = w.Write(append(line, '\n'))
			return err
		})
		if err != nil {
			return err
		}
		at, err := time.Parse(recordTime, newest.Time)
		if err != nil {
			return fmt.Errorf("%w: time of the newest record: %w", audit.ErrFormat, err)
		}
		line, err = e.syslog.AppendCheckpoint(line[:0], siem.Checkpoint{Log: part.snap.Log(), Note: part.snap.Note(), At: at, Node: newest.Node, Boot: newest.Boot})
		if err != nil {
			return err
		}
		_, err = w.Write(append(line, '\n'))
		return err
	})
}
