package main

import (
	"fmt"
	"io"
	"strings"
	"time"
)

// progress shows how far a long command is: a bar where somebody looks at a
// terminal, a line now and then elsewhere.
type progress struct {
	out   io.Writer
	live  bool
	what  string // of which there are so many
	total int
	began time.Time
	shown time.Time
	told  int // tenths, of the lines
}

const (
	barWidth     = 30
	barEvery     = 200 * time.Millisecond
	tenths       = 10
	eraseToRight = "\x1b[K"
)

func newProgress(out io.Writer, what string, total int) *progress {
	return &progress{out: out, live: isTerminal(out), what: what, total: max(total, 1), began: time.Now()}
}

// at says that so many are done.
func (p *progress) at(done int) {
	now := time.Now()
	rate := float64(done) / max(now.Sub(p.began).Seconds(), 0.001)
	if !p.live {
		if tenth := done * tenths / p.total; tenth > p.told {
			p.told = tenth
			fmt.Fprintf(p.out, "%d of %d %s, %.0f a second\n", done, p.total, p.what, rate)
		}
		return
	}
	if now.Sub(p.shown) < barEvery && done < p.total {
		return
	}
	p.shown = now
	full := barWidth * min(done, p.total) / p.total
	left := time.Duration(float64(p.total-done) / max(rate, 0.001) * float64(time.Second))
	fmt.Fprintf(p.out, "\r[%s%s] %3d%%  %d of %d %s, %.0f a second, %s left%s", strings.Repeat("#", full), strings.Repeat(".", barWidth-full),
		100*min(done, p.total)/p.total, done, p.total, p.what, rate, max(left, 0).Round(time.Second), eraseToRight)
}

// end leaves the bar's line.
func (p *progress) end() {
	if p.live {
		fmt.Fprintln(p.out)
	}
}
