package main

import (
	"bufio"
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"
)

type terminalImportCmd struct {
	File     string `arg:"" placeholder:"FILE.csv" help:"The terminals; docs/OPERATIONS.md has the columns."`
	Errors   string `required:"" placeholder:"FILE" help:"Where to write the lines that were not accepted and why; must not exist yet."`
	FromLine int    `name:"from-line" placeholder:"N" help:"Begin with this line of the file."`
	Batch    int    `default:"1000" placeholder:"N" help:"Terminals that are registered together, all or none: 1 to 1000."`
	doorFlags
}

// terminalImport is an import on its way.
type terminalImport struct {
	*terminalImportCmd
	door     *door
	bar      *progress
	complain *errorFile

	batch  []terminalRow
	faulty int // lines of the batch that are wrong
	lines  int // read so far, without the header
	last   int // line up to which all was dealt with

	added, unchanged, refused, leftOut int
}

// Run registers the terminals of the file in batches. A batch with a line that
// is wrong is left out whole; the others go on.
func (c *terminalImportCmd) Run(p *program) error {
	if c.Batch < 1 || c.Batch > 1000 {
		return usageError("--batch=%d: want 1 to 1000", c.Batch)
	}
	d, err := c.open()
	if err != nil {
		return err
	}
	in, err := os.Open(c.File)
	if err != nil {
		return fmt.Errorf("opening the terminals: %w", err)
	}
	defer in.Close()
	total, err := countLines(in)
	if err != nil {
		return fmt.Errorf("reading %s: %w", c.File, err)
	}
	file, err := openTerminals(in)
	if err != nil {
		return fmt.Errorf("reading %s: %w", c.File, err)
	}
	complain, err := newErrorFile(c.Errors)
	if err != nil {
		return err
	}
	run := &terminalImport{terminalImportCmd: c, door: d, bar: newProgress(p.stderr, "lines", total-1), complain: complain}
	err = run.all(p.ctx, file)
	run.bar.end()
	return errors.Join(run.tell(p.stdout, err), complain.close())
}

// countLines counts the lines of a file and goes back to its beginning.
func countLines(f *os.File) (int, error) {
	lines, last := 0, byte('\n')
	in := bufio.NewReaderSize(f, 1<<16)
	for {
		b, err := in.ReadByte()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return 0, err
		}
		if b == '\n' {
			lines++
		}
		last = b
	}
	if last != '\n' {
		lines++
	}
	_, err := f.Seek(0, io.SeekStart)
	return lines, err
}

// all reads and sends the file.
func (r *terminalImport) all(ctx context.Context, file *terminalFile) error {
	for {
		row, err := file.next()
		var wrong *rowError
		switch {
		case errors.Is(err, io.EOF):
			return r.send(ctx)
		case errors.As(err, &wrong):
			row.line = wrong.line
		case err != nil:
			return fmt.Errorf("reading %s: %w", r.File, err)
		}
		r.lines++
		if row.line < r.FromLine {
			continue
		}
		if wrong != nil {
			r.faulty++
			if err := r.complain.add(*wrong); err != nil {
				return err
			}
		}
		r.batch = append(r.batch, row)
		if len(r.batch) == r.Batch {
			if err := r.send(ctx); err != nil {
				return err
			}
		}
	}
}

// send registers the batch at hand, unless a line of it is wrong already.
func (r *terminalImport) send(ctx context.Context) error {
	batch := r.batch
	if len(batch) == 0 {
		return nil
	}
	r.batch = r.batch[:0]
	defer func() { r.faulty = 0 }()
	if r.faulty > 0 {
		r.refused += r.faulty
		r.leftOut += len(batch) - r.faulty
	} else if err := r.register(ctx, batch); err != nil {
		return err
	}
	r.last = batch[len(batch)-1].line
	r.bar.at(r.lines)
	return nil
}

func (r *terminalImport) register(ctx context.Context, batch []terminalRow) error {
	var body struct{ Terminals []newTerminal }
	for _, row := range batch {
		body.Terminals = append(body.Terminals, row.entry)
	}
	var answer addedTerminals
	if err := r.door.own(ctx, "AddTerminals", body, &answer); err != nil {
		return err
	}
	if len(answer.Refused) == 0 {
		r.added += answer.Added
		r.unchanged += answer.Unchanged
		return nil
	}
	r.refused += len(answer.Refused)
	r.leftOut += len(batch) - len(answer.Refused)
	for _, no := range answer.Refused {
		if no.Index < 0 || no.Index >= len(batch) {
			return fmt.Errorf("the daemon's answer names entry %d of %d; are command and daemon of one version?", no.Index, len(batch))
		}
		if err := r.complain.add(rowError{line: batch[no.Index].line, tid: batch[no.Index].entry.TID, reason: no.Message}); err != nil {
			return err
		}
	}
	return nil
}

// addedTerminals is the answer of AddTerminals.
type addedTerminals struct {
	Added     int
	Unchanged int
	Refused   []struct {
		Index   int
		TID     string `json:"Tid"`
		Reason  string
		Message string
	}
}

// tell says what became of the file; failed is why it was not read to its end.
func (r *terminalImport) tell(out io.Writer, failed error) error {
	fmt.Fprintf(out, "%d terminals registered, %d were registered so already\n", r.added, r.unchanged)
	if failed != nil {
		return advise(failed, "what was registered stays; go on with --from-line %d", max(r.last+1, r.FromLine))
	}
	if r.refused == 0 {
		return nil
	}
	return advise(fmt.Errorf("%d lines are wrong, and %d others of their batches were left out", r.refused, r.leftOut),
		"%s has the reasons; mend %s and give the command again: what is registered stays as it is", r.Errors, r.File)
}

// errorFile has the lines that were not accepted. It is made with the first.
type errorFile struct {
	path string
	file *os.File
	csv  *csv.Writer
}

func newErrorFile(path string) (*errorFile, error) {
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		return nil, advise(fmt.Errorf("--errors=%s: the file exists", path), "nothing is overwritten; name another file")
	}
	return &errorFile{path: path}, nil
}

func (e *errorFile) add(wrong rowError) error {
	if e.file == nil {
		file, err := os.OpenFile(e.path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		if err != nil {
			return fmt.Errorf("writing the errors: %w", err)
		}
		e.file, e.csv = file, csv.NewWriter(file)
		if err := e.csv.Write([]string{"line", "tid", "column", "reason"}); err != nil {
			return fmt.Errorf("writing the errors: %w", err)
		}
	}
	tid := wrong.tid
	if len(tid) > 8 || !plainASCII(tid) {
		tid = ""
	}
	if err := e.csv.Write([]string{strconv.Itoa(wrong.line), tid, wrong.column, wrong.reason}); err != nil {
		return fmt.Errorf("writing the errors: %w", err)
	}
	return nil
}

func (e *errorFile) close() error {
	if e.file == nil {
		return nil
	}
	e.csv.Flush()
	return errors.Join(e.csv.Error(), e.file.Close())
}
