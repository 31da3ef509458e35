package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"

	"golang.org/x/term"
)

// table prints rows as columns or as JSON lines.
type table struct {
	tab  *tabwriter.Writer // nil: JSON
	enc  *json.Encoder
	errs []error
}

func newTable(w io.Writer, asJSON bool, heads ...string) *table {
	if asJSON {
		return &table{enc: json.NewEncoder(w)}
	}
	t := &table{tab: tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)}
	t.row(nil, heads...)
	return t
}

// row adds one line: object as JSON, or the columns.
func (t *table) row(object any, columns ...string) {
	var err error
	if t.tab == nil {
		err = t.enc.Encode(object)
	} else {
		_, err = fmt.Fprintln(t.tab, strings.Join(columns, "\t"))
	}
	if err != nil {
		t.errs = append(t.errs, err)
	}
}

func (t *table) flush() error {
	if t.tab != nil {
		t.errs = append(t.errs, t.tab.Flush())
	}
	return errors.Join(t.errs...)
}

// isTerminal reports whether somebody is reading w.
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}
