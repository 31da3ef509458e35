package report

import (
	_ "embed"
	"fmt"
	"html/template"
	"io"
	"strconv"
	"strings"
)

// page is the one file of the HTML form: no script, nothing from elsewhere.
//
//go:embed report.html
var page string

// view is a document for the template.
type view struct {
	*Document
	Signers []string
	Views   []sectionView
}

type sectionView struct {
	*Section
	No      int
	Drawing *drawing
}

// writeHTML writes one self-contained file, every value escaped for its place.
func (d *Document) writeHTML(w io.Writer) error {
	t, err := template.New("report").Funcs(template.FuncMap{
		"short": short, "dash": orDash, "number": number,
		"size":   func(n uint64) string { return strconv.FormatUint(n, 10) },
		"class":  class,
		"breaks": func(s string) []string { return strings.SplitAfter(s, ",") },
		"narrow": func(s *Section) bool { return len(s.Columns) > 6 },
	}).Parse(page)
	if err != nil {
		return fmt.Errorf("report: the page: %w", err)
	}
	v := view{Document: d, Signers: signers}
	for i := range d.Sections {
		s := &d.Sections[i]
		v.Views = append(v.Views, sectionView{Section: s, No: i + 1, Drawing: draw(s.Chart)})
	}
	return t.Execute(w, v)
}

// longestWord fits into a narrow column; a longer one may be broken anywhere.
const longestWord = 28

// shortestWhole is what is never broken.
const shortestWhole = 18

// class is how a cell is set.
func class(s *Section, i int, cell string) string {
	if i < len(s.Columns) && s.Columns[i].Number {
		return "n"
	}
	if len(cell) == len("2026-11-21 22:34:05") && cell[10] == ' ' && strings.Trim(cell, "0123456789-: ") == "" {
		return "when"
	}
	if len(cell) <= shortestWhole && !strings.Contains(cell, " ") {
		return "when" // names with hyphens stay on one line
	}
	for _, word := range strings.FieldsFunc(cell, func(c rune) bool { return c == ' ' || c == '-' }) {
		if len(word) > longestWord {
			return "long"
		}
	}
	return ""
}

// drawing is a chart in the units of its box.
type drawing struct {
	Width, Height int
	Words         string // the chart for who cannot see it
	Rects         []rect
	Lines         []rule
	Texts         []label
	Legend        []legend
}

type rect struct {
	X, Y, W, H string
	Kind       int // of the filling
	Title      string
}

type rule struct{ X1, Y1, X2, Y2 string }

type label struct {
	X, Y, Anchor, Text string
}

type legend struct {
	Kind int
	Name string
	N    string
}

// The boxes of charts.
const (
	chartWidth  = 680
	chartHeight = 190
	chartLeft   = 52
	chartBottom = 26
	chartTop    = 8
	barLeft     = 170
	barHeight   = 20
	barRight    = 70
	mostLabels  = 13
)

func px(f float64) string { return strconv.FormatFloat(f, 'f', 1, 64) }

func draw(c *Chart) *drawing {
	switch {
	case c == nil:
		return nil
	case c.Bars:
		return c.drawBars()
	}
	return c.drawColumns()
}

// drawColumns stands the series of each step one on the other.
func (c *Chart) drawColumns() *drawing {
	d := &drawing{Width: chartWidth, Height: chartHeight, Words: c.Title}
	most := int64(1)
	for i := range c.Labels {
		sum := int64(0)
		for _, s := range c.Series {
			sum += s.Values[i]
		}
		most = max(most, sum)
	}
	top, steps := scale(most)
	base := float64(chartHeight - chartBottom)
	height := base - chartTop
	for i := range steps + 1 {
		y := base - height*float64(i)/float64(steps)
		d.Lines = append(d.Lines, rule{px(chartLeft), px(y), px(chartWidth), px(y)})
		d.Texts = append(d.Texts, label{px(chartLeft - 6), px(y + 3.5), "end", number(top / int64(steps) * int64(i))})
	}
	wide := float64(chartWidth-chartLeft) / float64(len(c.Labels))
	each := (len(c.Labels) + mostLabels - 1) / mostLabels
	for i, name := range c.Labels {
		x := chartLeft + wide*float64(i)
		y := base
		for kind, s := range c.Series {
			if s.Values[i] == 0 {
				continue
			}
			h := height * float64(s.Values[i]) / float64(top)
			y -= h
			d.Rects = append(d.Rects, rect{px(x + wide*.1), px(y), px(wide * .8), px(h), kind, fmt.Sprintf("%s, %s: %s", name, s.Name, number(s.Values[i]))})
		}
		if i%each == 0 {
			d.Texts = append(d.Texts, label{px(x + wide/2), px(base + 14), "middle", axis(name, i == 0 || len(c.Labels) > 30)})
		}
	}
	for kind, s := range c.Series {
		d.Legend = append(d.Legend, legend{kind, s.Name, number(sum(s.Values))})
	}
	return d
}

// axis is a step under the chart: an hour alone, where the day is known.
func axis(name string, _ bool) string {
	if _, hour, ok := strings.Cut(name, " "); ok {
		return hour
	}
	if len(name) == len("2026-11-21") {
		return name[5:]
	}
	return name
}

func sum(values []int64) (n int64) {
	for _, v := range values {
		n += v
	}
	return n
}

// scale is a round number at or above most, and by how many steps it is divided.
func scale(most int64) (top int64, steps int) {
	unit := int64(1)
	for {
		for _, m := range []int64{1, 2, 5} {
			for _, n := range []int{4, 5} {
				if top = m * unit * int64(n); top >= most {
					return top, n
				}
			}
		}
		unit *= 10
	}
}

// drawBars lays one bar for each label.
func (c *Chart) drawBars() *drawing {
	d := &drawing{Width: chartWidth, Height: barHeight*len(c.Labels) + 4, Words: c.Title}
	most := int64(1)
	for _, v := range c.Series[0].Values {
		most = max(most, v)
	}
	for i, name := range c.Labels {
		y := float64(barHeight * i)
		v := c.Series[0].Values[i]
		w := float64(chartWidth-barLeft-barRight) * float64(v) / float64(most)
		d.Rects = append(d.Rects, rect{px(barLeft), px(y + 4), px(w), px(barHeight - 7), 0, name + ": " + number(v)})
		d.Texts = append(d.Texts, label{px(barLeft - 6), px(y + 15), "end", name}, label{px(barLeft + w + 5), px(y + 15), "start", number(v)})
	}
	return d
}
