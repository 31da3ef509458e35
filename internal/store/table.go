package store

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"strings"
)

// table is a table whose rows are registered. Its rows are found by one column
// of text, the name.
type table struct {
	kind    string // in the digests: never changed
	name    string // in the schema
	key     string // column
	columns []column
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

	registered = []*table{keyTable, aliasTable, terminalTable, printTable, epochTable, approvalTable, roleTable}
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

func (t *table) selects() string {
	return "SELECT " + strings.Join(t.names(), ", ") + " FROM " + t.name + " "
}

func (t *table) insert() string {
	return "INSERT INTO " + t.name + " (" + strings.Join(t.names(), ", ") + ") VALUES (?" + strings.Repeat(", ?", len(t.columns)) + ")"
}

func (t *table) update() string {
	set := make([]string, 0, len(t.columns))
	for _, c := range t.columns {
		set = append(set, c.name+" = ?")
	}
	return "UPDATE " + t.name + " SET " + strings.Join(set, ", ") + " WHERE " + t.key + " = ?"
}

func (t *table) delete() string { return "DELETE FROM " + t.name + " WHERE " + t.key + " = ?" }

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
