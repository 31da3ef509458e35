package store

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"strings"
	"sync"
)

// table is a table whose rows are registered. Its rows are found by one column
// of text, the name.
type table struct {
	kind    string // in the digests: never changed
	name    string // in the schema
	key     string // column
	columns []column

	made sync.Once
	text struct{ selects, selectsOne, insert, update, delete string }
}

// column is a column beside the name. Columns are added at the end, together
// with what rows of before then hold there, which leaves the digests of these
// rows as they are.
type column struct {
	name   string
	absent any // this value is left out of the digest, as NULL always is
}

// The registered tables. A table that is added begins empty.
var (
	keyTable = &table{kind: "key", name: "key", key: "id", columns: []column{
		{name: "block"}, {name: "state"}, {name: "enabled"}, {name: "usage_start"}, {name: "usage_stop"},
		{name: "delete_pending"}, {name: "deleted"}, {name: "tags"}, {name: "life", absent: "{}"},
	}}
	aliasTable    = &table{kind: "alias", name: "alias", key: "name", columns: []column{{name: "key"}}}
	terminalTable = &table{kind: "terminal", name: "terminal", key: "tid", columns: []column{
		{name: "mid"}, {name: "scheme"}, {name: "bdk"}, {name: "device"}, {name: "mac_bytes"}, {name: "disabled"},
		{name: "more", absent: "{}"},
	}}
	epochTable = &table{kind: "epoch", name: "epoch", key: "name", columns: []column{{name: "number"}, {name: "at"}}}

	approvalTable = &table{kind: "approval", name: "approval", key: "ref", columns: []column{
		{name: "principal"}, {name: "operation"}, {name: "object"}, {name: "body"}, {name: "asker"}, {name: "asked"},
		{name: "deadline"}, {name: "state"}, {name: "second"}, {name: "decided"}, {name: "until"}, {name: "record"},
	}}
	roleTable = &table{kind: "role", name: "client_role", key: "client", columns: []column{{name: "uri"}, {name: "roles"}, {name: "at"}}}

	journalTable = &table{kind: "journal", name: "journal", key: "name", columns: []column{
		{name: "id"}, {name: "sealed"}, {name: "ended"}, {name: "txns"}, {name: "reversals"}, {name: "marks"}, {name: "counted"},
	}}

	registered = []*table{journalTable, keyTable, aliasTable, terminalTable, printTable, epochTable, approvalTable, roleTable}
)

// names are the columns in the order of the digest, the name first.
func (t *table) names() []string {
	all := []string{t.key}
	for _, c := range t.columns {
		all = append(all, c.name)
	}
	return all
}

// The statements of a table. There are few tables, so that a session can keep
// all of them.

// selects reads all rows, unless conditions follow.
func (t *table) selects() string { return t.statements().text.selects }

// selectsOne reads the row of a name.
func (t *table) selectsOne() string { return t.statements().text.selectsOne }

// insert takes the values of names, in this order.
func (t *table) insert() string { return t.statements().text.insert }

// update takes the values of the columns and then the name.
func (t *table) update() string { return t.statements().text.update }

// delete takes the name.
func (t *table) delete() string { return t.statements().text.delete }

func (t *table) statements() *table {
	t.made.Do(func() {
		names := t.names()
		t.text.selects = "SELECT " + strings.Join(names, ", ") + " FROM " + t.name + " "
		t.text.selectsOne = t.text.selects + "WHERE " + t.key + " = ?"
		t.text.insert = "INSERT INTO " + t.name + " (" + strings.Join(names, ", ") + ") VALUES (?" + strings.Repeat(", ?", len(t.columns)) + ")"
		t.text.update = "UPDATE " + t.name + " SET " + strings.Join(names[1:], " = ?, ") + " = ? WHERE " + t.key + " = ?"
		t.text.delete = "DELETE FROM " + t.name + " WHERE " + t.key + " = ?"
	})
	return t
}

// rowMark begins the digests of rows.
const rowMark = "keyd register 1 row\n"

// id is the digest of which row it is.
func (t *table) id(name string) rowID {
	var stack [128]byte
	text := append(stack[:0], rowMark...)
	text = appendPart(text, 'k', t.kind)
	text = appendPart(text, 't', name)
	sum := sha256.Sum256(text)
	return rowID(sum[:len(rowID{})])
}

// sum is the digest of what a row says: of values in the order of t.columns,
// each an int64, a string, a []byte or nil.
func (t *table) sum(name string, values []any) (rowSum, error) {
	if len(values) != len(t.columns) {
		return rowSum{}, fmt.Errorf("store: %d values for the %d columns of %s", len(values), len(t.columns), t.name)
	}
	var stack [1024]byte
	text := append(stack[:0], rowMark...)
	text = appendPart(text, 'k', t.kind)
	text = appendPart(text, 't', name)
	for i, c := range t.columns {
		if c.leftOut(values[i]) {
			continue
		}
		text = appendPart(text, 'c', c.name)
		switch v := values[i].(type) {
		case int64:
			text = binary.BigEndian.AppendUint64(append(text, 'i'), uint64(v))
		case string:
			text = appendPart(text, 't', v)
		case []byte:
			text = appendPart(text, 'b', v)
		default:
			return rowSum{}, fmt.Errorf("%w: column %s of %s is a %T", ErrCorrupt, c.name, t.name, v)
		}
	}
	sum := sha256.Sum256(text)
	return rowSum(sum[:len(rowSum{})]), nil
}

func (c column) leftOut(v any) bool {
	switch v := v.(type) {
	case nil:
		return true
	case int64:
		return c.absent == v
	case string:
		return c.absent == v
	}
	return false
}

// appendPart appends a mark, a length and so many bytes.
func appendPart[T string | []byte](text []byte, mark byte, part T) []byte {
	text = binary.BigEndian.AppendUint32(append(text, mark), uint32(len(part)))
	return append(text, part...)
}

// plain brings values into the forms in which the database gives them back.
func plain(values []any) []any {
	for i, v := range values {
		switch v := v.(type) {
		case bool:
			values[i] = int64(0)
			if v {
				values[i] = int64(1)
			}
		case int:
			values[i] = int64(v)
		}
	}
	return values
}
