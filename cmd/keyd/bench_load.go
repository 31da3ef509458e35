package main

import (
	"bytes"
	"fmt"
	"math/bits"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// figure is one measured rate.
type figure struct {
	Name      string        `json:"name"`
	PerSecond float64       `json:"per_second"`
	P50       time.Duration `json:"p50_ns,omitempty"`
	P99       time.Duration `json:"p99_ns,omitempty"`
	Failed    int           `json:"failed"`
	OfLayer   float64       `json:"of_layer,omitempty"` // ratio to the raw limit of its layer
	Layer     string        `json:"layer,omitempty"`
	// Processor time of one operation, in microseconds: what other programs on
	// the machine hardly change.
	ServerCPU float64 `json:"server_cpu_us,omitempty"`
	LoadCPU   float64 `json:"load_cpu_us,omitempty"`
	// Stolen is the share of the processors that the host gave to others: where it
	// is not near 0, a rate says as much about them.
	Stolen float64 `json:"stolen,omitempty"`
}

// worker is one of the load's: op is its operation, end its end, which says what
// was wrong with an operation where op does not look.
type worker struct {
	op  func() error
	end func() error
}

// load runs workers for a time, after a warm-up of a tenth of it that does not
// count. server is the process that does the work; 0 is this one. The workers' ends
// come when all is measured.
func load(name string, workers int, length time.Duration, server int, prepare func(n int) (worker, error)) figure {
	ready := make(chan error, workers)
	begin := make(chan window)
	results := make(chan *tally, workers)
	measured := make(chan struct{})
	ends := make(chan *tally, workers)
	for n := range workers {
		go func() {
			w, err := prepare(n)
			ready <- err
			when := <-begin
			if err != nil {
				results <- failedWith(err)
				ends <- new(tally)
				return
			}
			results <- w.run(when)
			<-measured
			ends <- failedWith(w.end())
		}()
	}
	for range workers {
		<-ready
	}
	now := time.Now()
	when := window{from: now.Add(length / 10), to: now.Add(length/10 + length)}
	for range workers {
		begin <- when
	}
	time.Sleep(time.Until(when.from))
	before := cpuNow(server)
	all := new(tally)
	for range workers {
		all.add(<-results)
	}
	f := all.figure(name, time.Since(when.from))
	f.spent(cpuNow(server).minus(before), all.count)
	close(measured)
	for range workers {
		all.add(<-ends)
	}
	f.Failed = all.failed
	if all.why != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", name, all.why)
	}
	return f
}

// window is when a measurement begins and ends.
type window struct{ from, to time.Time }

func (w worker) run(when window) *tally {
	r := new(tally)
	for {
		start := time.Now()
		if start.After(when.to) {
			return r
		}
		if err := w.op(); err != nil {
			r.add(failedWith(err))
			return r
		}
		if start.After(when.from) {
			r.took(time.Since(start))
		}
	}
}

// failedWith is the tally of what failed by itself; nothing failed for nil.
func failedWith(err error) *tally {
	if err == nil {
		return new(tally)
	}
	return &tally{failed: 1, why: err}
}

// tally is a histogram of durations: 32 buckets for each doubling of a
// microsecond, so that a percentile is at most 3 percent too high. Its size does
// not depend on how much is counted.
type tally struct {
	buckets [32 * 32]uint32
	count   uint64
	failed  int
	why     error // the first that failed
}

func (t *tally) took(d time.Duration) {
	v := uint64(max(d.Microseconds(), 0))
	at := v
	if v >= 32 {
		e := bits.Len64(v) - 6
		at = uint64(e+1)*32 + v>>e - 32
	}
	t.buckets[min(at, uint64(len(t.buckets)-1))]++
	t.count++
}

// upper is the longest duration of a bucket.
func upper(bucket int) time.Duration {
	if bucket < 32 {
		return time.Duration(bucket+1) * time.Microsecond
	}
	e := bucket/32 - 1
	return time.Duration(uint64(bucket%32+33)<<e) * time.Microsecond
}

func (t *tally) add(o *tally) {
	for i, n := range o.buckets {
		t.buckets[i] += n
	}
	t.count += o.count
	t.failed += o.failed
	if t.why == nil {
		t.why = o.why
	}
}

// percentile is the duration that so many of 100 did not exceed.
func (t *tally) percentile(p uint64) time.Duration {
	seen, want := uint64(0), (t.count*p+99)/100
	for i, n := range t.buckets {
		if seen += uint64(n); n > 0 && seen >= want {
			return upper(i)
		}
	}
	return 0
}

func (t *tally) figure(name string, over time.Duration) figure {
	return figure{Name: name, PerSecond: float64(t.count) / over.Seconds(), P50: t.percentile(50), P99: t.percentile(99), Failed: t.failed}
}

// cpu is the processor time that two processes have used, of user and system, and
// what the machine had and was not given, since it was started.
type cpu struct{ own, server, machine, stolen time.Duration }

func cpuNow(server int) cpu {
	var own syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &own) // it does not fail for this process
	c := cpu{own: time.Duration(own.Utime.Nano() + own.Stime.Nano())}
	if server != 0 {
		c.server = processCPU(server)
	}
	if raw, err := os.ReadFile("/proc/stat"); err == nil {
		c.machine, c.stolen = machineTime(raw)
	}
	return c
}

func (c cpu) plus(o cpu) cpu {
	return cpu{c.own + o.own, c.server + o.server, c.machine + o.machine, c.stolen + o.stolen}
}

func (c cpu) minus(o cpu) cpu {
	return cpu{c.own - o.own, c.server - o.server, c.machine - o.machine, c.stolen - o.stolen}
}

// machineTime is the time of all processors and what of it the host gave to
// others, from the first line of /proc/stat; 0 where it is not there. proc(5).
func machineTime(stat []byte) (all, stolen time.Duration) {
	line, _, _ := bytes.Cut(stat, []byte("\n"))
	fields := strings.Fields(string(line))
	if len(fields) < 9 || fields[0] != "cpu" {
		return 0, 0
	}
	for i, field := range fields[1:9] { // the rest is in these
		n, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			return 0, 0
		}
		all += time.Duration(n) * clockTick
		if i == 7 {
			stolen = time.Duration(n) * clockTick
		}
	}
	return all, stolen
}

// spent fills in what so many operations took of the processors.
func (f *figure) spent(c cpu, count uint64) {
	if n := float64(count); n > 0 && c.server > 0 {
		f.ServerCPU = float64(c.server.Nanoseconds()) / 1000 / n
		f.LoadCPU = float64(c.own.Nanoseconds()) / 1000 / n
	}
	if c.machine > 0 {
		f.Stolen = float64(c.stolen) / float64(c.machine)
	}
}

// clockTick is the unit of times in /proc, the same on every Linux that Go runs on.
const clockTick = time.Second / 100

// processCPU is the processor time of another process, 0 where it is gone. proc(5).
func processCPU(pid int) time.Duration {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	// The name of the program, in parentheses, may have anything in it.
	fields := strings.Fields(string(raw[bytes.LastIndexByte(raw, ')')+1:]))
	if len(fields) < 13 {
		return 0
	}
	user, errUser := strconv.ParseInt(fields[11], 10, 64)
	system, errSystem := strconv.ParseInt(fields[12], 10, 64)
	if errUser != nil || errSystem != nil {
		return 0
	}
	return time.Duration(user+system) * clockTick
}

// residentMB is the resident memory of a process in megabytes.
func residentMB(pid int) float64 {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	for line := range bytes.Lines(raw) {
		if rest, ok := bytes.CutPrefix(line, []byte("VmRSS:")); ok {
			kb, err := strconv.ParseFloat(strings.Fields(string(rest))[0], 64)
			if err != nil {
				return 0
			}
			return kb / 1000
		}
	}
	return 0
}

func loadAverage() string {
	raw, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "unknown"
	}
	return strings.Join(strings.Fields(string(raw))[:3], " ")
}
