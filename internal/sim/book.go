package sim

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sync"
)

// Entry is a sale as the issuer knows it. It holds no card number.
type Entry struct {
	MTI      string `json:"mti"`
	STAN     string `json:"stan"` // of the 0200 that came
	DateTime string `json:"dt"`   // its DE 7
	RRN      string `json:"rrn"`
	TID      string `json:"tid"`
	Amount   int64  `json:"amount"`
	State    string `json:"state"` // approved, declined, reversed; of what another names also voided, completed, refunded
	// Proc is DE 3; Names the DE 90 of a void, a completion or a refund of a sale.
	Proc     string `json:"proc,omitempty"`
	Names    string `json:"names,omitempty"`
	Code     string `json:"code"`
	PIN      string `json:"pin,omitempty"` // right, wrong, well-formed, malformed; empty without a PIN
	Messages int    `json:"messages"`      // how often the 0200 came
	// Received counts reversals with a valid MAC that named this sale,
	// Effective those that changed it: never more than one full one.
	Received  int   `json:"reversals_received"`
	Effective int   `json:"reversals_effective"`
	Reversed  int64 `json:"reversed"` // minor units
	// Named has the DE 7 and DE 11 of each different reversal among those
	// received: one that comes again has those of the first (W-08).
	Named []string `json:"reversals_named,omitempty"`
}

// bookKey names a sale on the link: what DE 90 of its reversal says.
type bookKey struct{ stan, dateTime string }

// book is the issuer's memory, with every change on file as one JSON line.
type book struct {
	mu       sync.Mutex
	file     *os.File // nil: in memory only
	entries  map[bookKey]*Entry
	order    []bookKey
	unknown  int // reversals of sales that never came
	badMACs  int
	requests int
}

func openBook(path string) (*book, error) {
	b := &book{entries: make(map[bookKey]*Entry)}
	if path == "" {
		return b, nil
	}
	old, err := ReadBook(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	for i := range old {
		b.add(&old[i])
	}
	if b.file, err = os.OpenFile(path, os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o600); err != nil {
		return nil, fmt.Errorf("sim: issuer's book: %w", err)
	}
	if err := cutTorn(b.file); err != nil {
		return nil, fmt.Errorf("sim: issuer's book: %w", err)
	}
	return b, nil
}

// cutTorn takes away a last line that a kill left without an end, or the next
// line would be written behind it.
func cutTorn(f *os.File) error {
	raw, err := io.ReadAll(f)
	if err != nil {
		return err
	}
	return f.Truncate(int64(bytes.LastIndexByte(raw, '\n') + 1))
}

func (b *book) add(e *Entry) {
	k := bookKey{e.STAN, e.DateTime}
	if _, known := b.entries[k]; !known {
		b.order = append(b.order, k)
	}
	b.entries[k] = e
}

// write appends the entry as it now is.
func (b *book) write(e *Entry) error {
	if b.file == nil {
		return nil
	}
	line, err := json.Marshal(e)
	if err != nil {
		return err
	}
	_, err = b.file.Write(append(line, '\n'))
	return err
}

func (b *book) close() error {
	if b.file == nil {
		return nil
	}
	return b.file.Close()
}

// ReadBook returns the entries of a book's file in the order in which the sales
// came. A torn last line, which a kill can leave, is passed over, and so are the
// lines of faults and key changes, see [ReadFaults] and [ReadChanges].
func ReadBook(path string) ([]Entry, error) {
	b := &book{entries: make(map[bookKey]*Entry)}
	err := eachLine(path, func(line []byte) error {
		var e struct {
			Entry
			Fault  string `json:"fault"`
			Change string `json:"change"`
		}
		if err := json.Unmarshal(line, &e); err != nil {
			return err
		}
		if e.Fault == "" && e.Change == "" {
			b.add(&e.Entry)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return b.list(), nil
}

func (b *book) list() []Entry {
	all := make([]Entry, 0, len(b.order))
	for _, k := range b.order {
		all = append(all, *b.entries[k])
	}
	return all
}
