package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"

	"keyd.dev/keyd/audit"
	"keyd.dev/keyd/internal/logindex"
)

// indexFlag names the folder of the search index.
type indexFlag struct {
	Index string `placeholder:"DIR" type:"path" help:"Folder for the search index of a copy that cannot be written; else index/ in the folder of the log."`
}

// folder is where the index of a log is.
func (f *indexFlag) folder(dir string) string {
	if f.Index != "" {
		return f.Index
	}
	return filepath.Join(dir, "index")
}

// logSearch is a log that is open for a search: each of its logs at one
// checkpoint, and the index over them.
type logSearch struct {
	reader *audit.Reader
	index  *logindex.Index
	snaps  []*audit.Snapshot // sec, then the months of ops in order
}

// openSearch opens the logs of a folder. name selects one, sec, ops or a month of
// ops; "" is all.
func openSearch(dir, index, name string) (*logSearch, error) {
	reader, err := openLog(dir)
	if err != nil {
		return nil, err
	}
	names, err := reader.Logs()
	if err != nil {
		return nil, fmt.Errorf("reading the audit log: %w", err)
	}
	s := &logSearch{reader: reader}
	for _, n := range names {
		if name != "" && n != name && !strings.HasPrefix(n, name+"-") {
			continue
		}
		snap, err := reader.Snapshot(n)
		if err != nil {
			return nil, damagedLog(err)
		}
		s.snaps = append(s.snaps, snap)
	}
	if s.index, err = logindex.Open(logindex.Config{Dir: index, Reader: reader}); err != nil {
		return nil, err
	}
	if err := s.index.ReadTails(s.snaps); err != nil {
		return nil, errors.Join(damagedLog(err), s.close())
	}
	return s, nil
}

// damagedLog says what can be done about a log that cannot be read.
func damagedLog(err error) error {
	return advise(fmt.Errorf("reading the audit log: %w", err), "`keyd audit verify` says what is wrong with it")
}

// indexSlack is how many records, in bundles of 256, a search reads from the log
// rather than have a file made for them.
const indexSlack = 16

// prepare makes the index of a copy, which no daemon does. A copy that cannot be
// written is searched without one.
func (s *logSearch) prepare(ctx context.Context, stderr io.Writer) error {
	for _, snap := range s.snaps {
		_, err := s.index.Update(ctx, snap, logindex.Update{Slack: indexSlack, Workers: runtime.GOMAXPROCS(0)})
		switch {
		case errors.Is(err, fs.ErrPermission) || errors.Is(err, syscall.EROFS):
			_, err = fmt.Fprintf(stderr, "%s: no search index can be written, so that all is read; name a folder for it by --index\n", programName)
			return err
		case err != nil:
			return damagedLog(err)
		}
	}
	return nil
}

func (s *logSearch) close() error { return s.index.Close() }

// pruned names the records that are not there any more; "" when all are.
func (s *logSearch) pruned() string {
	var gone []string
	for _, snap := range s.snaps {
		if snap.MinIndex() > 0 {
			gone = append(gone, fmt.Sprintf("%s below %d", snap.Log(), snap.MinIndex()))
		}
	}
	return strings.Join(gone, ", ")
}

// find yields what fits of the logs that want selects (nil selects all), the
// newest log first and the newest record of each first.
func (s *logSearch) find(ctx context.Context, want func(log string) bool, q logindex.Query) iter.Seq2[logindex.Hit, error] {
	return func(yield func(logindex.Hit, error) bool) {
		for _, snap := range slices.Backward(s.snaps) {
			if want != nil && !want(snap.Log()) {
				continue
			}
			for h, err := range s.index.Find(ctx, snap, q) {
				if err != nil {
					err = damagedLog(err)
				}
				if !yield(h, err) || err != nil {
					return
				}
			}
		}
	}
}

// auditIndexCmd makes or checks the search index.
type auditIndexCmd struct {
	Dir string `placeholder:"DIR" required:"" help:"Folder of the log, or of a copy; needs no daemon, and does not disturb one."`
	indexFlag
	Check   bool `xor:"act" help:"Make every file again, in memory, and compare: so that the index leaves nothing out."`
	Rebuild bool `xor:"act" help:"Make every file again, also those that fit."`
	JSON    bool `help:"Print JSON lines."`
}

// indexLine is what is printed of a log, or of a file that was checked.
type indexLine struct {
	Log     string  `json:"log"`
	File    string  `json:"file,omitempty"`
	Files   int     `json:"files,omitempty"`
	Records int     `json:"records"`
	Bytes   int64   `json:"bytes"`
	OK      *bool   `json:"ok,omitempty"`
	Problem *string `json:"problem,omitempty"`
}

// Run makes what is missing, or checks what is there.
func (c *auditIndexCmd) Run(p *program) (err error) {
	s, err := openSearch(c.Dir, c.folder(c.Dir), "")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	if c.Check {
		return c.check(p, s)
	}
	out := newTable(p.stdout, c.JSON, "LOG", "FILES", "RECORDS", "BYTES")
	for _, snap := range s.snaps {
		built, err := s.index.Update(p.ctx, snap, logindex.Update{Again: c.Rebuild, Workers: runtime.GOMAXPROCS(0)})
		if err != nil {
			return errors.Join(out.flush(), damagedLog(err))
		}
		line := indexLine{Log: snap.Log(), Files: built.Files, Records: built.Records, Bytes: built.Bytes}
		out.row(line, line.Log, fmt.Sprint(line.Files), fmt.Sprint(line.Records), fmt.Sprint(line.Bytes))
	}
	return out.flush()
}

func (c *auditIndexCmd) check(p *program, s *logSearch) error {
	out := newTable(p.stdout, c.JSON, "LOG", "FILE", "RECORDS", "BYTES", "VERDICT")
	found, wrong := 0, 0
	for _, snap := range s.snaps {
		states, err := s.index.Check(p.ctx, snap)
		if err != nil {
			return errors.Join(out.flush(), damagedLog(err))
		}
		for _, state := range states {
			ok, verdict := state.Err == nil, "complete"
			line := indexLine{Log: snap.Log(), File: state.File, Records: state.Records, Bytes: state.Bytes, OK: &ok}
			found++
			if !ok {
				wrong++
				verdict = state.Err.Error()
				line.Problem = &verdict
			}
			out.row(line, line.Log, line.File, fmt.Sprint(line.Records), fmt.Sprint(line.Bytes), verdict)
		}
	}
	if err := out.flush(); err != nil {
		return err
	}
	switch {
	case wrong > 0:
		return advise(fmt.Errorf("%w: %d of %d files of the index", errCheckFailed, wrong, found), "`keyd audit index --rebuild` makes them again; the log itself is for `keyd audit verify`")
	case found == 0:
		return advise(fmt.Errorf("%w: there is no index in %s", errNothingFound, c.folder(c.Dir)), "`keyd audit index` makes it")
	}
	return nil
}
