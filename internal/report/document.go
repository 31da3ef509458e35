package report

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"keyd.dev/keyd/audit"
)

// Document is a report as it is written in any format.
type Document struct {
	Report   string     `json:"report"` // daily, key, …
	Title    string     `json:"title"`
	Subject  string     `json:"subject,omitempty"`
	Node     string     `json:"node"`
	From     string     `json:"from"`           // of the range, inclusive; times as records have them
	To       string     `json:"to"`             // exclusive
	Made     string     `json:"made,omitempty"` // when it was made, where that was asked for
	Verdict  Verdict    `json:"verdict"`
	Bad      int        `json:"bad_signatures,omitempty"` // of a ceremony
	Logs     []LogState `json:"logs"`
	Sections []Section  `json:"sections"`
}

// LogState is a log at the checkpoint that was verified before the report was made.
type LogState struct {
	Log       string `json:"log"`
	Origin    string `json:"origin"`
	Size      uint64 `json:"size"`      // of the checkpoint
	Root      string `json:"root"`      // base64
	Records   int64  `json:"records"`   // of the range
	Uncovered int64  `json:"uncovered"` // of them, behind the checkpoint
	Refs      Refs   `json:"refs"`
}

// Verdict is what the verification before the report has found.
type Verdict struct {
	Verified bool            `json:"verified"`
	OwnKey   bool            `json:"own_key"` // verified with the key in the log's own folder
	Failed   int             `json:"failed"`
	Findings []audit.Finding `json:"findings,omitempty"`
}

// Word is the verdict in one or two words, for each page.
func (v Verdict) Word() string {
	switch {
	case !v.Verified:
		return "NOT VERIFIED"
	case v.OwnKey:
		return "WHOLE, KEY NOT VOUCHED FOR"
	}
	return "VERIFIED"
}

// Text is the verdict in a sentence.
func (v Verdict) Text() string {
	switch {
	case !v.Verified:
		text := fmt.Sprintf("%d checks of the log failed before this report was made. Nothing in it can be relied on.", v.Failed)
		if len(v.Findings) > 0 {
			f := v.Findings[0]
			text += fmt.Sprintf(" The first: %s, %s: %s.", f.Rule, f.Where, f.Detail)
		}
		return text
	case v.OwnKey:
		return "Every record, tile, root and signature was checked and is whole, with the key in the log's own folder: damage would show, a forger with a key of his own would not. Give the key that was handed over by --vkey."
	}
	return "Every record, tile, root and signature of the log was checked with the key that was handed over, before this report was made."
}

// Section is one table of a report, with a chart where there is one.
type Section struct {
	Title   string   `json:"title"`
	Lead    string   `json:"lead,omitempty"`
	None    string   `json:"-"` // what stands in place of no rows
	Columns []Column `json:"columns"`
	Rows    []Row    `json:"rows"`
	Chart   *Chart   `json:"chart,omitempty"`
}

// Column is a column of a table; that of the records stands behind the last.
type Column struct {
	Name   string `json:"name"`
	Number bool   `json:"number,omitempty"`
}

// Row is a line of a table.
type Row struct {
	Cells []string `json:"cells"`
	Level string   `json:"level,omitempty"` // critical or warn; what a person must look at
	Refs  Refs     `json:"refs"`
}

// cols makes columns; a name that begins with # is of numbers.
func cols(names ...string) []Column {
	all := make([]Column, len(names))
	for i, name := range names {
		all[i].Name, all[i].Number = strings.CutPrefix(name, "#")
	}
	return all
}

// Format is how a report is written.
type Format string

// The formats.
const (
	Text Format = "text"
	CSV  Format = "csv"
	JSON Format = "json"
	HTML Format = "html"
)

// Write writes the document. The error is [ErrArgs] for another format, or the
// writer's.
func (d *Document) Write(w io.Writer, f Format) error {
	switch f {
	case Text:
		return d.writeText(w)
	case CSV:
		return d.writeCSV(w)
	case JSON:
		enc := json.NewEncoder(w)
		enc.SetEscapeHTML(false)
		enc.SetIndent("", " ")
		return enc.Encode(d)
	case HTML:
		return d.writeHTML(w)
	}
	return fmt.Errorf("%w: format %q is not text, csv, json or html", ErrArgs, f)
}

// section adds a section, and returns it to be filled.
func (d *Document) section(title, lead, none string, columns ...string) *Section {
	d.Sections = append(d.Sections, Section{Title: title, Lead: lead, None: none, Columns: cols(columns...), Rows: []Row{}})
	return &d.Sections[len(d.Sections)-1]
}

func (s *Section) row(refs Refs, cells ...string) *Row {
	s.Rows = append(s.Rows, Row{Cells: cells, Refs: refs})
	return &s.Rows[len(s.Rows)-1]
}

// one is a row about one record.
func (s *Section) one(r *record, cells ...string) *Row {
	var refs Refs
	refs.add(r.Log, r.Seq)
	return s.row(refs, cells...)
}
