package backup

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"keyd.dev/keyd/internal/store"
)

// version of the form that this package writes.
const version = 1

// mostLine bounds a line of the file, so that a damaged one cannot take all memory.
const mostLine = 1 << 20

// Header says where a backup comes from.
type Header struct {
	Version int       `json:"keyd_backup"`
	Made    time.Time `json:"made"` // UTC
	Node    string    `json:"node"` // of the audit log's origin
	Site    string    `json:"site"`
	Build   string    `json:"build"`
	Schema  int       `json:"schema"` // of the database
	LMK     []LMK     `json:"lmk"`    // generations that key blocks stand under
	Seals   string    `json:"seals"`  // check value of the token's key for seals and prints, hexadecimal
}

// LMK names a local master key.
type LMK struct {
	Generation uint32 `json:"generation"`
	Check      string `json:"check"` // check value, hexadecimal
}

// Table is what comes before the rows of one table.
type Table struct {
	Name    string   `json:"name"`
	Columns []string `json:"columns"`
}

// End is the last line: what must have come before it.
type End struct {
	Rows map[string]int `json:"rows"` // by table
}

// line is one line of the file; exactly one member is set.
type line struct {
	Table *Table `json:"table,omitempty"`
	Row   []cell `json:"row,omitempty"`
	End   *End   `json:"end,omitempty"`
}

// cell is a value of a column: nil, int64, string or []byte.
type cell struct{ v any }

// MarshalJSON implements [json.Marshaler]. Bytes are an array of one string in
// base64, so that they are no text.
func (c cell) MarshalJSON() ([]byte, error) {
	switch v := c.v.(type) {
	case nil, int64, string:
		return json.Marshal(v)
	case []byte:
		return json.Marshal([]string{base64.StdEncoding.EncodeToString(v)})
	}
	return nil, fmt.Errorf("backup: a column of type %T", c.v)
}

// UnmarshalJSON implements [json.Unmarshaler].
func (c *cell) UnmarshalJSON(text []byte) error {
	switch text[0] {
	case 'n':
		c.v = nil
		return nil
	case '"':
		var s string
		err := json.Unmarshal(text, &s)
		c.v = s
		return err
	case '[':
		var parts []string
		if err := json.Unmarshal(text, &parts); err != nil {
			return err
		}
		if len(parts) != 1 {
			return errors.New("backup: bytes in other than one part")
		}
		raw, err := base64.StdEncoding.Strict().DecodeString(parts[0])
		c.v = raw
		return err
	}
	var n int64
	err := json.Unmarshal(text, &n)
	c.v = n
	return err
}

// Writer writes a backup. It is for one goroutine.
type Writer struct {
	sealed io.WriteCloser
	out    *bufio.Writer
	end    End
	table  string
	width  int
}

// NewWriter begins a backup on w: the sealing and the header.
func NewWriter(w io.Writer, keeper Keeper, h Header) (*Writer, error) {
	sealed, err := seal(w, keeper)
	if err != nil {
		return nil, err
	}
	h.Version = version
	b := &Writer{sealed: sealed, out: bufio.NewWriterSize(sealed, 1<<16), end: End{Rows: make(map[string]int)}}
	return b, b.write(h)
}

// Table begins the rows of a table.
func (b *Writer) Table(name string, columns []string) error {
	if _, twice := b.end.Rows[name]; twice {
		return fmt.Errorf("backup: table %s twice", name)
	}
	b.table, b.width, b.end.Rows[name] = name, len(columns), 0
	return b.write(line{Table: &Table{Name: name, Columns: columns}})
}

// Row adds a row of the table: a value of nil, int64, string or []byte for each column.
func (b *Writer) Row(values []any) error {
	if b.table == "" || len(values) != b.width {
		return fmt.Errorf("backup: a row of %d values in table %q of %d columns", len(values), b.table, b.width)
	}
	cells := make([]cell, len(values))
	for i, v := range values {
		cells[i] = cell{v}
	}
	b.end.Rows[b.table]++
	return b.write(line{Row: cells})
}

// Close ends the file and returns the number of rows by table. w is not closed.
func (b *Writer) Close() (map[string]int, error) {
	if err := b.write(line{End: &b.end}); err != nil {
		return nil, err
	}
	if err := errors.Join(b.out.Flush(), b.sealed.Close()); err != nil {
		return nil, fmt.Errorf("backup: write: %w", err)
	}
	return b.end.Rows, nil
}

func (b *Writer) write(v any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("backup: write: %w", err)
	}
	if _, err := b.out.Write(append(text, '\n')); err != nil {
		return fmt.Errorf("backup: write: %w", err)
	}
	return nil
}

// Reader reads a backup. It is for one goroutine.
type Reader struct {
	Header Header
	lines  *bufio.Scanner
	number int
}

// NewReader opens a backup and reads its header. It returns [ErrNotBackup],
// [ErrKey] or [ErrDamaged].
func NewReader(r io.Reader, keeper Keeper) (*Reader, error) {
	plain, err := open(r, keeper)
	if err != nil {
		return nil, err
	}
	b := &Reader{lines: bufio.NewScanner(plain)}
	b.lines.Buffer(make([]byte, 0, 1<<16), mostLine)
	if err := b.next(&b.Header); err != nil {
		return nil, err
	}
	if b.Header.Version != version {
		return nil, fmt.Errorf("%w: version %d, this program reads %d", ErrNotBackup, b.Header.Version, version)
	}
	return b, nil
}

// All gives everything to the sink and returns the end, which has been compared
// with what came. It returns [ErrDamaged], or the error of the sink.
func (b *Reader) All(sink store.RowSink) (End, error) {
	rows := make(map[string]int)
	table, width := "", 0
	for {
		var l line
		if err := b.next(&l); err != nil {
			return End{}, err
		}
		switch {
		case l.Table != nil:
			table, width = l.Table.Name, len(l.Table.Columns)
			if _, twice := rows[table]; twice {
				return End{}, b.damaged("table %q twice", table)
			}
			rows[table] = 0
			if err := sink.Table(table, l.Table.Columns); err != nil {
				return End{}, err
			}
		case l.End != nil:
			return *l.End, b.finish(*l.End, rows)
		case table == "" || len(l.Row) != width:
			return End{}, b.damaged("a row of %d values in table %q of %d columns", len(l.Row), table, width)
		default:
			rows[table]++
			values := make([]any, len(l.Row))
			for i, c := range l.Row {
				values[i] = c.v
			}
			if err := sink.Row(values); err != nil {
				return End{}, fmt.Errorf("backup: line %d: %w", b.number, err)
			}
		}
	}
}

func (b *Reader) finish(end End, rows map[string]int) error {
	if len(end.Rows) != len(rows) {
		return b.damaged("%d tables, the end names %d", len(rows), len(end.Rows))
	}
	for name, n := range rows {
		if end.Rows[name] != n {
			return b.damaged("table %s has %d rows, the end says %d", name, n, end.Rows[name])
		}
	}
	if b.lines.Scan() || b.lines.Err() != nil {
		return b.damaged("more after the end")
	}
	return nil
}

func (b *Reader) next(into any) error {
	b.number++
	if !b.lines.Scan() {
		if err := b.lines.Err(); err != nil {
			return b.damaged("%w", err)
		}
		return b.damaged("it ends early")
	}
	dec := json.NewDecoder(bytes.NewReader(b.lines.Bytes()))
	dec.DisallowUnknownFields()
	if err := dec.Decode(into); err != nil {
		return b.damaged("not a line of a backup")
	}
	return nil
}

func (b *Reader) damaged(format string, args ...any) error {
	return fmt.Errorf("%w: line %d: %w", ErrDamaged, b.number, fmt.Errorf(format, args...))
}
