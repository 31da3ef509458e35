package main

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"math"
	"os"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// TestHold: a figure at the hold meets it, one below misses it, each by itself.
func TestHold(t *testing.T) {
	h := hold{perSecond: 100, p99: 15 * time.Millisecond, ofEcho: 0.25}
	at := figure{Name: "row", PerSecond: 100, P99: 15 * time.Millisecond, OfLayer: 0.25}
	for _, test := range []struct {
		name   string
		change func(*figure)
		met    []bool // rate, ratio, p99
	}{
		{"at the hold", func(*figure) {}, []bool{true, true, true}},
		{"too few", func(f *figure) { f.PerSecond = 99 }, []bool{false, true, true}},
		{"too far from the echo", func(f *figure) { f.OfLayer = 0.249 }, []bool{true, false, true}},
		{"too slow", func(f *figure) { f.P99 += time.Microsecond }, []bool{true, true, false}},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := at
			test.change(&f)
			b := bench{benchCmd: &benchCmd{Check: true}, verdicts: h.check(f)}
			var met []bool
			for _, v := range b.verdicts {
				met = append(met, v.Met)
			}
			if d := cmp.Diff(test.met, met); d != "" {
				t.Errorf("(-want +got)\n%s", d)
			}
			if err := b.judge(); (err == nil) != !slices.Contains(met, false) {
				t.Errorf("judge: %v", err)
			}
			b.Check = false
			if err := b.judge(); err != nil {
				t.Errorf("judge without --check: %v", err)
			}
		})
	}
	if err := (&bench{benchCmd: &benchCmd{Check: true}}).judge(); err == nil {
		t.Error("nothing was measured, and judge is content")
	}
}

// TestTally compares the histogram with the sorted list of what it was given.
func TestTally(t *testing.T) {
	if p := new(tally).percentile(99); p != 0 {
		t.Errorf("percentile of nothing: %v", p)
	}
	for _, most := range []uint64{1, 31, 32, 33, 1000, 1_000_000, 60_000_000} {
		var raw [8]byte
		var all []time.Duration
		r := new(tally)
		for range 1000 {
			_, _ = rand.Read(raw[:])
			d := time.Duration(binary.BigEndian.Uint64(raw[:])%(most+1)) * time.Microsecond
			all = append(all, d)
			r.took(d)
		}
		slices.Sort(all)
		for _, p := range []uint64{1, 50, 99, 100} {
			exact := all[p*10-1]
			got := r.percentile(p)
			if got <= exact || float64(got) > float64(exact)*1.04+float64(2*time.Microsecond) {
				t.Errorf("of 0 to %d us: percentile %d is %v, exactly %v", most, p, got, exact)
			}
		}
	}
}

// TestSoakTrend: growth is that of the straight line, not of the last sample.
func TestSoakTrend(t *testing.T) {
	for _, test := range []struct {
		name    string
		samples []float64
		slope   float64 // MB a minute, at a sample every ten seconds
		growth  float64 // percent
	}{
		{"flat", []float64{50, 50, 50, 50}, 0, 0},
		{"a saw", []float64{50, 52, 50, 52, 50, 52, 50}, 0, 0},
		{"a leak", []float64{50, 51, 52, 53, 54}, 6, 100 * 4.0 / 52},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := soak{Samples: test.samples}
			s.judge(10 * time.Second)
			if math.Abs(s.SlopeMB-test.slope) > 1e-9 || math.Abs(s.GrowthPct-test.growth) > 1e-9 {
				t.Errorf("slope %v, growth %v; want %v and %v", s.SlopeMB, s.GrowthPct, test.slope, test.growth)
			}
		})
	}
}

// TestProcessCPU reads this process as another one's would be read.
func TestProcessCPU(t *testing.T) {
	before := cpuNow(0).own
	for sum := byte(0); cpuNow(0).own-before < 50*time.Millisecond; {
		sum++ // something to do
	}
	if own, seen := cpuNow(0).own, processCPU(os.Getpid()); seen < own-50*time.Millisecond || seen > own+50*time.Millisecond {
		t.Errorf("/proc says %v, getrusage %v", seen, own)
	}
	if gone := processCPU(-1); gone != 0 {
		t.Errorf("a process that is not there has used %v", gone)
	}
}

// TestMachineTime: what the host took is a share of all, and a line that is none
// says nothing.
func TestMachineTime(t *testing.T) {
	for name, c := range map[string]struct {
		stat        string
		all, stolen time.Duration
	}{
		"eight times and two in these": {"cpu  100 20 30 400 50 6 7 87 5 6\ncpu0 1 1 1 1 1 1 1 1 1 1\n", 7 * time.Second, 870 * time.Millisecond},
		"an old kernel's":              {"cpu  100 20 30 400 50 6 7\n", 0, 0},
		"another line":                 {"intr 1 2 3 4 5 6 7 8 9\n", 0, 0},
		"no number":                    {"cpu 1 2 3 4 5 6 7 x\n", 0, 0},
		"nothing":                      {},
	} {
		if all, stolen := machineTime([]byte(c.stat)); all != c.all || stolen != c.stolen {
			t.Errorf("%s: %v of %v, want %v of %v", name, stolen, all, c.stolen, c.all)
		}
	}
	var f figure
	from := cpu{server: time.Second, machine: time.Second}
	to := cpu{server: 2 * time.Second, own: time.Second, machine: 5 * time.Second, stolen: time.Second}
	f.spent(to.minus(from), 1000)
	if sum := from.plus(to.minus(from)); sum != to {
		t.Errorf("%+v is not the sum", sum)
	}
	if f.ServerCPU != 1000 || f.LoadCPU != 1000 || f.Stolen != 0.25 {
		t.Errorf("%+v", f)
	}
}

// TestLoadEndsUnmeasured: what a worker does in its end is in no figure, but what it
// finds wrong there is a failure like any other.
func TestLoadEndsUnmeasured(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := load("row", 4, time.Second, 0, func(n int) (worker, error) {
			if n == 3 {
				return worker{}, errors.New("not prepared")
			}
			return worker{
				op: func() error { time.Sleep(10 * time.Millisecond); return nil },
				end: func() error {
					time.Sleep(time.Hour)
					if n == 0 {
						return errors.New("an answer was wrong")
					}
					return nil
				},
			}, nil
		})
		if f.Failed != 2 {
			t.Errorf("%d failed, want the one that was not prepared and the one whose answer was wrong", f.Failed)
		}
		if f.PerSecond < 290 || f.PerSecond > 310 {
			t.Errorf("%.0f a second, want 300: the end is measured too", f.PerSecond)
		}
	})
}
