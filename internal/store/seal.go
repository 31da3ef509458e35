package store

import (
	"crypto/sha256"
	"crypto/subtle"
	"database/sql"
	"encoding/binary"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync"

	"keyd.dev/keyd/internal/custody"
)

// Each row of the journal, of the queue of reversals, of the KSN marks and of the
// counters carries a MAC over its table, its key and all its columns. What
// somebody who is not keyd writes there is refused at the next reading, told as
// a [Suspicion], and hinders no other row. R-50.
//
// A MAC finds a row that was changed, or moved to another key, table or
// database. It does not find an older copy of the same row, nor a row that is
// gone: for these see tide.go and patrol.go, and docs/THREAT-MODEL.md.

// Sealer makes the MACs of rows by a key that no other database has. It is safe
// for concurrent use and does not fail: its key is at hand.
type Sealer interface {
	// Seal returns the MAC of a row in the form of this package.
	Seal(row []byte) [16]byte
}

// sealed is a table whose rows carry a MAC in the column row_mac.
type sealed struct {
	name string // of the table; in the MACs: never changed
	key  string // the column by which a row is found to be changed; "" where none is
	// columns are those under the MAC, in its order: the primary key first, then
	// what is written once, then what changes. One that is added later gets the
	// value that rows of before have as its absent, and is left out of their MACs.
	columns []column
	primary int  // so many columns are the primary key
	fixed   int  // so many are written once, the primary key among them
	seq     bool // the primary key is a number that rises by one

	made    sync.Once
	text    struct{ selects, insert, update string }
	changes sync.Map // the updates of some of the columns, by which they are
}

// named are columns without more.
func named(names string) []column {
	var all []column
	for name := range strings.FieldsSeq(names) {
		all = append(all, column{name: name})
	}
	return all
}

var (
	txnTable = &sealed{name: "txn", key: "oid", primary: 1, fixed: 29, seq: true, columns: slices.Concat(named(`seq oid lookup link
		received mti card pan_token processing amount sent stan time date entry condition acquirer tid mid currency emv
		ksn mac_key content raw up_stan up_sent`), []column{{"profile", ""}, {"up_acquirer", ""}},
		named(`state rrn approval answer late issuer_emv reverse_on_completion batch_closed refunded reversed_amount refers_to finished`))}
	reversalTable = &sealed{name: "reversal", key: "rid", primary: 1, fixed: 15, seq: true, columns: slices.Concat(named(`seq rid oid cause
		full rest mti stan tid ksn raw built up_stan up_sent`), []column{{"link", ""}}, named(`
		answer rrn approval content state reason tries declines errors next first_sent last_sent answered up_answer closed`),
		[]column{{"granted", int64(0)}, {"renewed", int64(0)}, {"case_id", ""}, {"resolved", int64(0)}})}
	ksnTable      = &sealed{name: "ksn", key: "device", primary: 1, fixed: 1, columns: named("device counter at")}
	acceptedTable = &sealed{name: "accepted", primary: 2, fixed: 4, columns: named("device counter message at")}
	counterTable  = &sealed{name: "counter", key: "name", primary: 1, fixed: 1, columns: named("name value")}
	markTable     = &sealed{name: "ksn_mark", primary: 2, fixed: 2, columns: named("bdk device counter kinds at")}
	requestTable  = &sealed{name: "ksn_request", primary: 4, fixed: 4, columns: named("bdk device counter kind request at")}

	sealedTables = []*sealed{txnTable, reversalTable, ksnTable, acceptedTable, counterTable, markTable, requestTable}
)

func (t *sealed) names() []string {
	all := make([]string, len(t.columns))
	for i, c := range t.columns {
		all[i] = c.name
	}
	return all
}

// selects reads rows with their MACs, for [guard.of].
func (t *sealed) selects() string { return t.statements().text.selects }

// insert takes the values of all columns and the MAC.
func (t *sealed) insert() string { return t.statements().text.insert }

// update takes the values that change, the MAC and the key.
func (t *sealed) update() string { return t.statements().text.update }

// updateOf takes the values of these columns, the MAC and the number of the row.
func (t *sealed) updateOf(changed columnSet) string {
	if made, ok := t.changes.Load(changed); ok {
		return made.(string)
	}
	text := "UPDATE " + t.name + " SET "
	for i, c := range t.columns {
		if changed.has(i) {
			text += c.name + " = ?, "
		}
	}
	made, _ := t.changes.LoadOrStore(changed, text+"row_mac = ? WHERE seq = ?")
	return made.(string)
}

// columnSet are columns of a table, a bit each.
type columnSet uint64

func (s columnSet) has(i int) bool { return s&(1<<i) != 0 }

// following selects the rows behind this primary key, or all, in their order.
func (t *sealed) following(after []any) (where string, args []any) {
	keys := strings.Join(t.names()[:t.primary], ", ")
	if after != nil {
		where = "WHERE (" + keys + ") > (?" + strings.Repeat(", ?", t.primary-1) + ") "
	}
	return where + "ORDER BY " + keys, after
}

func (t *sealed) statements() *sealed {
	t.made.Do(func() {
		names := t.names()
		list := strings.Join(names, ", ") + ", row_mac"
		t.text.selects = "SELECT " + list + " FROM " + t.name + " "
		t.text.insert = "INSERT INTO " + t.name + " (" + list + ") VALUES (?" + strings.Repeat(", ?", len(names)) + ")"
		sets := append(names[t.fixed:len(names):len(names)], "row_mac")
		t.text.update = "UPDATE " + t.name + " SET " + strings.Join(sets, " = ?, ") + " = ? WHERE " + t.key + " = ?"
	})
	return t
}

// sealMark begins what is under a MAC.
const sealMark = "keyd row 1\n"

// begin starts the form of a row that its MAC is made of: the mark, the table,
// and each column that is not absent as its name and its value, every part with
// its kind and its length.
func (t *sealed) begin(text []byte) []byte {
	return appendPart(append(text, sealMark...), 'k', t.name)
}

func (t *sealed) append(text []byte, i int, v any) ([]byte, error) {
	c := t.columns[i]
	if p, blob := v.([]byte); c.leftOut(v) || blob && p == nil { // as NULL is stored
		return text, nil
	}
	text = appendPart(text, 'c', c.name)
	switch v := v.(type) {
	case int64:
		return binary.BigEndian.AppendUint64(append(text, 'i'), uint64(v)), nil
	case string:
		return appendPart(text, 't', v), nil
	case []byte:
		return appendPart(text, 'b', v), nil
	}
	return text, fmt.Errorf("%w: column %s of %s is a %T", ErrCorrupt, c.name, t.name, v)
}

// TamperedRow is a row that is not what keyd wrote. It is [ErrCorrupt] and
// [custody.ErrTampered].
type TamperedRow struct {
	Table, Name string // the name is the primary key, or what is left of it
	why         string
}

// Error implements error.
func (e *TamperedRow) Error() string {
	return fmt.Sprintf("store: %s %s %s; the database was changed by something else than keyd", e.Table, e.Name, e.why)
}

// Unwrap makes it both errors.
func (e *TamperedRow) Unwrap() []error { return []error{ErrCorrupt, custody.ErrTampered} }

const (
	notWritten = "is not the row that keyd wrote"
	rolledBack = "is an older row than keyd wrote"
)

// guard makes and compares MACs for one session. Without a sealer, as a visitor
// has none, rows can be neither read nor written.
type guard struct {
	sealer Sealer

	// Of the row that was read or made last, valid until the next.
	table *sealed
	text  []byte // what its MAC is made of
	ends  []int  // where each column ends in text
	name  string
	mac   [16]byte
	// number is the seq of the row that was inserted or read last.
	number int64

	fault error // of a value that its place does not take
	cells []cell
	into  []any
	found []byte // row_mac
}

// cell takes one column of a row: it adds it to the text and gives it on.
type cell struct {
	g  *guard
	i  int
	to any // nil is nowhere
}

// Scan implements [sql.Scanner].
func (c *cell) Scan(src any) error {
	g := c.g
	var err error
	if g.text, err = g.table.append(g.text, c.i, src); err == nil {
		err = assign(c.to, src)
	}
	if err != nil && g.fault == nil {
		g.fault = err
	}
	g.ends = append(g.ends, len(g.text))
	if c.i < g.table.primary {
		g.name = joined(g.name, src)
		g.number, _ = src.(int64)
	}
	return nil
}

// joined adds a part of a primary key to a name.
func joined(name string, part any) string {
	if name != "" {
		name += "/"
	}
	return name + fmt.Sprint(part)
}

// guarded is a row of a sealed table on its way to a reader.
type guarded struct {
	g *guard
	t *sealed
	r scanner
}

// of guards a row that was selected with t.selects.
func (g *guard) of(t *sealed, r scanner) scanner { return guarded{g, t, r} }

// Scan implements scanner. It takes a place for each column of the table, in
// order; a nil place takes nothing. It returns a [TamperedRow], and then nothing
// of what it has put into the places may be used.
func (r guarded) Scan(dest ...any) error {
	g, t := r.g, r.t
	if g.sealer == nil {
		return ErrVisitor
	}
	if len(dest) != len(t.columns) {
		return fmt.Errorf("store: %d places for the %d columns of %s", len(dest), len(t.columns), t.name)
	}
	g.reset(t)
	for i, to := range dest {
		g.cells[i].to = to
	}
	if err := r.r.Scan(g.into[:len(dest)+1]...); err != nil {
		return err
	}
	g.mac = g.sealer.Seal(g.text)
	if subtle.ConstantTimeCompare(g.mac[:], g.found) != 1 {
		return &TamperedRow{Table: t.name, Name: g.name, why: notWritten}
	}
	return g.fault
}

// reset makes ready for a row of t: the MAC is read behind its columns.
func (g *guard) reset(t *sealed) {
	if n := len(t.columns); len(g.cells) < n {
		g.cells = make([]cell, n)
		g.into = make([]any, n+1)
		for i := range g.cells {
			g.cells[i] = cell{g: g, i: i}
		}
	}
	for i := range t.columns {
		g.into[i] = &g.cells[i]
	}
	g.into[len(t.columns)] = (*foundMAC)(g)
	g.table, g.text, g.ends, g.name, g.fault, g.found = t, t.begin(g.text[:0]), g.ends[:0], "", nil, g.found[:0]
}

// foundMAC takes the column row_mac.
type foundMAC guard

// Scan implements [sql.Scanner].
func (m *foundMAC) Scan(src any) error {
	p, _ := src.([]byte)
	m.found = append(m.found[:0], p...)
	return nil
}

// assign gives a value of the database to a place of any of the kinds that this
// package reads into. Bytes are handed over: the driver makes them for each row.
func assign(to, src any) error {
	switch to := to.(type) {
	case nil:
		return nil
	case *any:
		*to = src
		return nil
	case sql.Scanner:
		return to.Scan(src)
	case *[]byte:
		p, ok := src.([]byte)
		if ok || src == nil {
			if *to = p; len(p) == 0 {
				*to = nil
			}
			return nil
		}
	case *string:
		s, ok := src.(string)
		if *to = s; ok {
			return nil
		}
	case *int64:
		n, ok := src.(int64)
		if *to = n; ok {
			return nil
		}
	default:
		v := reflect.ValueOf(to).Elem()
		switch n, number := src.(int64); {
		case v.Kind() == reflect.String:
			if s, ok := src.(string); ok {
				v.SetString(s)
				return nil
			}
		case !number:
		case v.Kind() == reflect.Bool:
			v.SetBool(n != 0)
			return nil
		case v.CanInt() && !v.OverflowInt(n):
			v.SetInt(n)
			return nil
		case v.CanUint() && n >= 0 && !v.OverflowUint(uint64(n)):
			v.SetUint(uint64(n))
			return nil
		}
	}
	return fmt.Errorf("%w: a %T where a %T belongs", ErrCorrupt, src, to)
}

// seal makes the MAC of a row of these values, in the order of the columns.
func (g *guard) seal(t *sealed, values []any) error {
	g.text, g.ends = t.begin(g.text[:0]), g.ends[:0]
	return g.sealRest(t, values)
}

// sealRest makes the MAC of a row of which the columns in g.ends are in g.text
// already.
func (g *guard) sealRest(t *sealed, values []any) (err error) {
	if g.sealer == nil {
		return ErrVisitor
	}
	done := len(g.ends)
	if done+len(values) != len(t.columns) {
		return fmt.Errorf("store: %d values for the %d columns of %s", done+len(values), len(t.columns), t.name)
	}
	g.table = t
	for i, v := range plain(values) {
		if g.text, err = t.append(g.text, done+i, v); err != nil {
			return err
		}
		g.ends = append(g.ends, len(g.text))
	}
	g.mac = g.sealer.Seal(g.text)
	return nil
}

// insertSealed adds a row with its MAC. Where the primary key is a number, it is
// given and not among the values.
func (s *session) insertSealed(t *sealed, values []any) error {
	if t.seq {
		last, known := s.memory.last[t]
		if !known {
			if err := s.query("SELECT ifnull(max(seq), 0) FROM " + t.name).Scan(&last); err != nil {
				return err
			}
		}
		s.guard.number = last + 1
		values = append([]any{last + 1}, values...)
	}
	if err := s.guard.seal(t, values); err != nil {
		return err
	}
	if err := s.run(t.insert(), append(values, s.guard.mac[:])...); err != nil {
		return err
	}
	if t.seq && s.memory.last != nil {
		s.memory.last[t] = s.guard.number
	}
	return nil
}

// sealID is a digest of a row's identity, for what is kept in memory of many.
func sealID(t *sealed, name string) [8]byte {
	sum := sha256.Sum256([]byte(t.name + "\x00" + name))
	return [8]byte(sum[:8])
}

// tampered reports whether an error is of a row that keyd did not write.
func tampered(err error) (*TamperedRow, bool) {
	var row *TamperedRow
	return row, errors.As(err, &row)
}
