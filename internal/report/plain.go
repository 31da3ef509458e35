package report

import (
	"encoding/csv"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
)

// Heading is the title with its subject.
func (d *Document) Heading() string {
	if d.Subject == "" {
		return d.Title
	}
	return d.Title + ": " + d.Subject
}

// Range is the time that the report is about, in words.
func (d *Document) Range() string {
	from, to := short(d.From), short(d.To)
	switch {
	case from == "" && to == "":
		return "all that the log has"
	case from == "":
		return "from the beginning, to before " + to + " UTC"
	case to == "":
		return "from " + from + " UTC, to the end"
	}
	return from + " to before " + to + " UTC"
}

func (d *Document) writeText(w io.Writer) error {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	line("%s", strings.ToUpper(d.Heading()))
	line("%s", strings.Repeat("=", len([]rune(d.Heading()))))
	line("%s: %s", d.Verdict.Word(), d.Verdict.Text())
	line("")
	line("node     %s", orDash(d.Node))
	line("range    %s", d.Range())
	if d.Made != "" {
		line("made     %s UTC", short(d.Made))
	}
	for _, l := range d.Logs {
		line("log      %s", l.Log)
		line("  checkpoint  origin %s, size %d, root %s", orDash(l.Origin), l.Size, orDash(l.Root))
		line("  read        %s records of the range, %s behind the checkpoint: %s", number(l.Records), number(l.Uncovered), orDash(l.Refs.String()))
	}
	for i := range d.Sections {
		if err := d.Sections[i].text(&b, i+1); err != nil {
			return err
		}
	}
	line("\nSIGNATURES\n")
	for _, who := range signers {
		line("%-12s ______________________________  date ______________", who)
		line("             name and role in print\n")
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// signers are who signs a report on paper.
var signers = []string{"reviewed by", "second person"}

func (s *Section) text(b *strings.Builder, no int) error {
	title := fmt.Sprintf("%d. %s", no, s.Title)
	fmt.Fprintf(b, "\n%s\n%s\n", title, strings.Repeat("-", len([]rune(title))))
	if len(s.Rows) == 0 {
		fmt.Fprintln(b, s.None)
		return nil
	}
	tab := tabwriter.NewWriter(b, 0, 0, 2, ' ', 0)
	names := make([]string, 0, len(s.Columns)+2)
	for _, c := range s.Columns {
		names = append(names, strings.ToUpper(c.Name))
	}
	fmt.Fprintln(tab, " \t"+strings.Join(append(names, "RECORDS"), "\t"))
	for i := range s.Rows {
		r := &s.Rows[i]
		mark := " "
		if r.Level != "" {
			mark = "!"
		}
		cells := make([]string, 0, len(r.Cells)+1)
		for _, c := range r.Cells {
			cells = append(cells, plain(c))
		}
		fmt.Fprintln(tab, mark+"\t"+strings.Join(append(cells, r.Refs.String()), "\t"))
	}
	return tab.Flush()
}

// plain is a cell without what would move a terminal, or the columns.
func plain(s string) string {
	return strings.Map(func(c rune) rune {
		if c < ' ' || c == 0x7f || c >= 0x80 && c < 0xa0 {
			return '?'
		}
		return c
	}, s)
}

// writeCSV writes one rectangle: for each section a line of kind "columns", then
// its rows. The head of the report is the first section.
func (d *Document) writeCSV(w io.Writer) error {
	width := 4
	for _, s := range d.Sections {
		width = max(width, len(s.Columns))
	}
	out := csv.NewWriter(w)
	line := func(section, kind, level, records string, cells ...string) error {
		all := append([]string{section, kind, level, records}, cells...)
		for len(all) < width+4 {
			all = append(all, "")
		}
		for i := range all {
			all[i] = inert(all[i])
		}
		return out.Write(all)
	}
	head := []string{"section", "kind", "level", "records"}
	for i := range width {
		head = append(head, fmt.Sprintf("value%d", i+1))
	}
	if err := out.Write(head); err != nil {
		return err
	}
	about := [][]string{
		{"report", d.Heading()}, {"node", d.Node}, {"from", d.From}, {"to", d.To},
		{"verdict", d.Verdict.Word()}, {"verdict in words", d.Verdict.Text()},
	}
	if d.Made != "" {
		about = append(about, []string{"made", d.Made})
	}
	for _, cells := range about {
		if err := line("head", "row", "", "", cells...); err != nil {
			return err
		}
	}
	for _, l := range d.Logs {
		if err := line("head", "row", "", l.Refs.Whole(), "checkpoint of "+l.Log, l.Origin, fmt.Sprint(l.Size), l.Root); err != nil {
			return err
		}
	}
	for _, s := range d.Sections {
		names := make([]string, 0, len(s.Columns))
		for _, c := range s.Columns {
			names = append(names, c.Name)
		}
		if err := line(s.Title, "columns", "", "", names...); err != nil {
			return err
		}
		for i := range s.Rows {
			r := &s.Rows[i]
			cells := make([]string, len(r.Cells))
			for j, c := range r.Cells {
				if cells[j] = c; s.Columns[j].Number {
					cells[j] = strings.ReplaceAll(c, ",", "")
				}
			}
			if err := line(s.Title, "row", r.Level, r.Refs.Whole(), cells...); err != nil {
				return err
			}
		}
	}
	out.Flush()
	return out.Error()
}

// inert keeps a spreadsheet from taking a cell for a formula.
func inert(s string) string {
	if s != "" && strings.ContainsAny(s[:1], "=+-@\t\r") && strings.Trim(s, "-0123456789") != "" {
		return "'" + s
	}
	return s
}
