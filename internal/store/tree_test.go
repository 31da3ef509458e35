package store

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func anID(n int) rowID {
	sum := sha256.Sum256(fmt.Appendf(nil, "row %d", n))
	return rowID(sum[:len(rowID{})])
}

// TestTreeMachine: a tree that was changed step by step is the tree of what is
// left, and finds all of it and nothing else.
func TestTreeMachine(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		model := make(map[rowID]rowSum)
		tree := newTree(nil)
		for range rapid.IntRange(1, 12).Draw(t, "steps") {
			edits := make(map[rowID]*rowSum)
			for _, n := range rapid.SliceOfN(rapid.IntRange(0, 40), 0, 20).Draw(t, "rows") {
				id := anID(n)
				if rapid.Bool().Draw(t, "goes") {
					edits[id] = nil
					delete(model, id)
					continue
				}
				sum := rowSum{rapid.Byte().Draw(t, "content")}
				edits[id] = &sum
				model[id] = sum
			}
			before := tree.root
			after := tree.with(edits)
			if tree.root != before {
				t.Fatal("a change has changed the tree that it began with")
			}
			tree = after
		}
		var entries []entry
		for id, sum := range model {
			entries = append(entries, entry{id, sum})
			if !tree.is(id, sum) || tree.is(id, rowSum{1: 1}) {
				t.Fatalf("row %x is not what it is", id)
			}
		}
		whole := newTree(entries)
		if tree.root != whole.root || tree.size != len(model) {
			t.Fatalf("root %x of %d rows, want %x of %d", tree.root, tree.size, whole.root, len(model))
		}
		if _, found := tree.find(anID(41)); found {
			t.Fatal("a row was found that nobody put there")
		}
	})
}

// TestTreeLeafs: many rows, so that leaves hold several.
func TestTreeLeafs(t *testing.T) {
	const rows = 20_000
	var entries []entry
	edits := make(map[rowID]*rowSum)
	for n := range rows {
		entries = append(entries, entry{anID(n), rowSum{byte(n)}})
		edits[anID(n)] = &rowSum{byte(n)}
	}
	whole, grown := newTree(entries), newTree(nil).with(edits)
	if whole.root != grown.root {
		t.Error("the root depends on the way in which rows came")
	}
	for n := range rows {
		if !whole.is(anID(n), rowSum{byte(n)}) {
			t.Fatalf("row %d is lost", n)
		}
	}
	for n := range rows {
		edits[anID(n)] = nil
	}
	if got := grown.with(edits).root; got != newTree(nil).root {
		t.Errorf("root %x when all rows are gone", got)
	}
}

// The roots that tokens hold are of this form: a later version must come to the
// same ones, or every node would refuse its database.
func TestRegisterGolden(t *testing.T) {
	const (
		emptyRoot  = "318b1a97bebcd639cd117270e130da00459d12a096cbe8195d97ccd206ca81fc"
		sampleRoot = "124779b7689c01ffd09b8d6a08945a4b820a57e4c0cd8540b6d08d55ea8405a6"
	)
	id := strings.Repeat("k", 32)
	samples := []struct {
		table  *table
		name   string
		values []any
		sum    string
	}{
		{keyTable, id, []any{[]byte("block"), "CREATE_COMPLETE", true, int64(1763803800123456789), 0, 0, 0, `{"team":"acquiring"}`}, "bb1dba7d2b9a6439caf28fffbc054ddb8343924e"},
		{aliasTable, "alias/a", []any{id}, "60a190fb1b0368b3e85024186f2c7c076b8eb619"},
		{aliasTable, "alias/none", []any{nil}, "e16c89e6e73bebc793753b2786458acd88b56f79"},
		{terminalTable, "T0000001", []any{"M00000000000001", "tdes-dukpt", "alias/a", "FFFF9876543210E00000", 8, false}, "20079f009ff95cf62ef20e7b81af9e5144a1858d"},
		{epochTable, "start", []any{7, int64(1763803800123456789)}, "e66f44ce73533e94b46b03256cb0a3e8cca5fc55"},
	}
	var entries []entry
	for _, s := range samples {
		for _, c := range s.table.columns[len(s.values):] { // those that were added since
			s.values = append(s.values, c.absent)
		}
		sum, err := s.table.sum(s.name, plain(s.values))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(s.sum, hex.EncodeToString(sum[:])); diff != "" {
			t.Errorf("%s %s has another digest (-want +got):\n%s", s.table.kind, s.name, diff)
		}
		entries = append(entries, entry{s.table.id(s.name), sum})
	}
	for _, c := range []struct {
		name string
		tree *tree
		want string
	}{
		{"no rows", newTree(nil), emptyRoot},
		{"the samples", newTree(entries), sampleRoot},
	} {
		if diff := cmp.Diff(c.want, hex.EncodeToString(c.tree.root[:])); diff != "" {
			t.Errorf("%s: another root (-want +got):\n%s", c.name, diff)
		}
	}
}

// TestColumnAddedLater: rows of before have the digest that they had.
func TestColumnAddedLater(t *testing.T) {
	was := &table{kind: "thing", name: "thing", key: "name", columns: []column{{name: "a"}, {name: "b"}}}
	is := &table{kind: "thing", name: "thing", key: "name", columns: []column{{name: "a"}, {name: "b"}, {name: "c", absent: "{}"}, {name: "d", absent: int64(0)}, {name: "e"}}}
	sum := func(t *testing.T, tab *table, values ...any) rowSum {
		t.Helper()
		sum, err := tab.sum("x", values)
		if err != nil {
			t.Fatal(err)
		}
		return sum
	}
	old := sum(t, was, "1", []byte{2})
	if got := sum(t, is, "1", []byte{2}, "{}", int64(0), nil); got != old {
		t.Error("a row of before has another digest")
	}
	for name, values := range map[string][]any{
		"first":             {"1", []byte{2}, `{"x":1}`, int64(0), nil},
		"second":            {"1", []byte{2}, "{}", int64(1), nil},
		"third":             {"1", []byte{2}, "{}", int64(0), ""},
		"moved":             {"1", nil, "{}", int64(0), []byte{2}},
		"text for bytes":    {"1", "\x02", "{}", int64(0), nil},
		"no value for text": {nil, []byte{2}, "{}", int64(0), nil},
	} {
		if sum(t, is, values...) == old {
			t.Errorf("%s: the digest does not tell", name)
		}
	}
	if _, err := was.sum("x", []any{1.5, nil}); err == nil {
		t.Error("a column of no known type was taken")
	}
	if _, err := was.sum("x", []any{"1"}); err == nil {
		t.Error("a row with too few columns was taken")
	}
}
