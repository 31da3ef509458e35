package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"time"

	"keyd.dev/keyd/audit"
)

type benchAuditCmd struct {
	Dir      string        `help:"Folder on the disk to measure; the logs are made below it, and removed." default:"." type:"path"`
	Duration time.Duration `help:"Length of each measurement." default:"10s"`
	Runs     int           `help:"How often each is measured; the best counts." default:"3"`
	Against  string        `help:"A program that measures another log, turn by turn: see make bench-audit." type:"path" placeholder:"PROGRAM"`
	Growth   int           `help:"Also grow one log to that many records and compare the end with the beginning (L-206: 4000000)." placeholder:"N"`
	Check    bool          `help:"End with status 1 where a gate is missed, and with 4 where the disk was too slow to tell."`
	JSON     bool          `help:"Print JSON lines." name:"json"`
}

// The gates and targets of section 18 of the specification of the log.
const (
	auditRate        = 10_000
	auditMost        = 20 * time.Millisecond
	auditOne         = time.Millisecond
	auditTimes       = 5
	auditTimesTuned  = 3
	auditOpenMost    = 50 * time.Millisecond
	auditGrowth      = 0.8
	auditVerifyRate  = 200_000
	auditDisk        = 1.3
	auditSlowestDisk = 5 * time.Millisecond // p99 of a plain flush, above which nothing is said
	auditProducers   = 64
	auditLeastRecord = 700
	auditMostRecord  = 900
)

// auditRow is a line of the report. A gate that is missed fails the run; a
// target is printed.
type auditRow struct {
	Name   string
	Figure string
	Rule   string
	Kind   string // gate, target, or empty for what is only printed
	Met    bool
}

type auditReport struct {
	c    *benchAuditCmd
	out  io.Writer
	rows []auditRow
	disk []flushes
}

// Run measures the log with the token that signs its checkpoints, on two
// processors (L-200).
func (c *benchAuditCmd) Run(p *program) error {
	if c.Duration < 100*time.Millisecond || c.Runs < 1 || c.Growth < 0 {
		return usageError("want a --duration of 100ms or more, and 1 or more --runs")
	}
	if err := os.MkdirAll(c.Dir, 0o750); err != nil {
		return err
	}
	dir, err := os.MkdirTemp(c.Dir, "keyd-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if diskType(dir) == memoryDisk && c.Check {
		return usageError("%s is in memory; name a folder on a disk by --dir", c.Dir)
	}
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(2))
	b, err := newAuditBench(dir)
	if err != nil {
		return err
	}
	r := &auditReport{c: c, out: p.stdout}
	r.say("%s; GOMAXPROCS=2, checkpoints every second by the token, closed loop, best of %d runs of %v", machineAndDisk(dir), c.Runs, c.Duration)
	return errors.Join(r.measure(p.ctx, b), b.token.Close(), r.end())
}

func (r *auditReport) say(format string, args ...any) {
	if !r.c.JSON {
		fmt.Fprintf(r.out, format+"\n", args...)
	}
}

// probe measures the disk alone.
func (r *auditReport) probe(b *auditBench) error {
	f, err := probeDisk(b.dir, min(r.c.Duration, 2*time.Second))
	r.disk = append(r.disk, f)
	r.say("plain fdatasync of 4 KiB: %s", f)
	return err
}

func (r *auditReport) measure(ctx context.Context, b *auditBench) error {
	if err := r.probe(b); err != nil {
		return err
	}
	many, rivals, err := r.turns(ctx, b)
	if err != nil {
		return err
	}
	one, err := r.best(b, 1)
	if err != nil {
		return err
	}
	r.add("64 producers", "L-201", "gate", many.rate() >= auditRate && many.P99 <= auditMost && fits(many), "%s", many)
	r.add("1 producer", "L-202", "gate", one.P50 <= auditOne && fits(one), "%s", one)
	if r.c.Against != "" {
		r.compare(many, rivals)
	}
	open, err := b.poisson(auditRate, r.c.Duration)
	if err != nil {
		return err
	}
	r.add("open loop, 10000 a second", "L-205", "target", open.P99 <= auditOpenMost, "%s", open)
	if err := r.weigh(b); err != nil {
		return err
	}
	if err := r.growth(b); err != nil {
		return err
	}
	return r.probe(b)
}

// fits reports whether the records were of the size that the rules name.
func fits(a auditRun) bool { return a.PerRecord >= auditLeastRecord && a.PerRecord <= auditMostRecord }

// String is a run as it is printed.
func (r auditRun) String() string {
	text := fmt.Sprintf("%.0f records/s, p50 %v, p99 %v, p99.9 %v; %d records, %.1f a sync",
		r.rate(), round(r.P50), round(r.P99), round(r.P999), r.Records, float64(r.Records)/float64(max(r.Syncs, 1)))
	if r.PerRecord > 0 {
		text += fmt.Sprintf(", %.0f bytes a record, %d checkpoints", r.PerRecord, r.Checkpoints)
	}
	return text
}

// once is one run in a log of its own, which goes again.
func (r *auditReport) once(b *auditBench, producers int) (auditRun, error) {
	run, log, err := b.closed(producers, r.c.Duration, 0)
	if log != nil && log.Log != nil {
		err = errors.Join(err, log.Close(context.Background()))
	}
	if err == nil {
		err = run.measureFolder(log.dir)
	}
	if log != nil {
		err = errors.Join(err, os.RemoveAll(log.dir))
	}
	return run, err
}

func (r *auditReport) best(b *auditBench, producers int) (best auditRun, err error) {
	for range r.c.Runs {
		run, err := r.once(b, producers)
		if err != nil {
			return best, err
		}
		if best.Records == 0 || producers == 1 && run.P50 < best.P50 || producers > 1 && run.rate() > best.rate() {
			best = run
		}
	}
	return best, nil
}

// The settings at which the other log is measured (L-203, L-204).
var rivalSettings = []struct {
	name, rule, kind string
	times            float64
	args             []string
}{
	{"Tessera, batch 1024 / 2 ms", "L-203", "gate", auditTimes, []string{"-batch", "1024", "-age", "2ms", "-interval", "1s"}},
	{"Tessera, batch 64 / 5 ms", "L-204", "target", auditTimesTuned, []string{"-batch", "64", "-age", "5ms", "-interval", "1s"}},
	{"Tessera at its defaults", "L-204", "", 0, nil},
}

// turns measures 64 producers, and the other log between the runs, so that both
// have the same machine, disk and minute.
func (r *auditReport) turns(ctx context.Context, b *auditBench) (best auditRun, rivals []rival, err error) {
	rivals = make([]rival, len(rivalSettings))
	for range r.c.Runs {
		run, err := r.once(b, auditProducers)
		if err != nil {
			return best, nil, err
		}
		if run.rate() > best.rate() {
			best = run
		}
		for i := range rivalSettings {
			if r.c.Against == "" {
				break
			}
			o, err := b.against(ctx, r.c.Against, int(run.PerRecord), r.c.Duration, rivalSettings[i].args...)
			if err != nil {
				return best, nil, err
			}
			if o.rate() > rivals[i].rate() {
				rivals[i] = o
			}
		}
	}
	return best, rivals, nil
}

// compare sets the best of both beside each other.
func (r *auditReport) compare(ours auditRun, rivals []rival) {
	for i, s := range rivalSettings {
		o := rivals[i]
		times := ours.rate() / max(o.rate(), 1e-9)
		r.add(s.name, s.rule, s.kind, times >= s.times, "%.0f records/s, p50 %v, p99 %v; keyd has %.1f times as many",
			o.rate(), round(time.Duration(o.P50)*time.Microsecond), round(time.Duration(o.P99)*time.Microsecond), times)
	}
}

// weigh makes a log that it verifies, and weighs on disk when its superseded
// partial tiles are gone.
func (r *auditReport) weigh(b *auditBench) error {
	records := auditVerifyRate
	if !r.long() {
		records /= 20
	}
	run, log, err := b.closed(auditProducers, 0, records)
	if log == nil || log.Log == nil {
		return err
	}
	vkey, verr := log.Vkey("sec")
	if err = errors.Join(err, verr); err == nil && r.long() {
		time.Sleep(partialsGone)
	}
	if err = errors.Join(err, log.Close(context.Background())); err != nil {
		return err
	}
	defer os.RemoveAll(log.dir)
	if err := run.measureFolder(log.dir); err != nil {
		return err
	}
	begin := time.Now()
	report, err := audit.Verify(log.dir, []string{vkey}, audit.VerifyOptions{})
	if err != nil {
		return err
	}
	if !report.OK() {
		return fmt.Errorf("%w: the log of the benchmark does not verify: %v", errCheckFailed, report.Findings[0])
	}
	rate := float64(run.Records) / time.Since(begin).Seconds()
	r.add("verify", "L-208", "target", rate >= auditVerifyRate, "%.0f records/s", rate)
	factor := float64(run.DiskBytes) / float64(run.RecordBytes)
	r.add("disk", "L-46", "target", factor <= auditDisk, "%.2f times the records' bytes in the logs' folders; %d MiB of write-ahead log beside them",
		factor, run.WALBytes>>20)
	return nil
}

// long says whether the run is one that counts: a short trial makes a small log
// and does not wait for a minute.
func (r *auditReport) long() bool { return r.c.Duration >= 10*time.Second }

// partialsGone is when a log has removed the partial tiles that full ones
// replaced, which it does a minute after.
const partialsGone = 65 * time.Second

// growth compares the speed of a large log with that of a small one.
func (r *auditReport) growth(b *auditBench) error {
	if r.c.Growth == 0 {
		return nil
	}
	window := max(r.c.Growth/20, 1)
	log, err := b.open()
	if err != nil {
		return err
	}
	defer os.RemoveAll(log.dir)
	first, last, err := b.grow(log, r.c.Growth, window)
	if err = errors.Join(err, log.Close(context.Background())); err != nil {
		return err
	}
	r.add(fmt.Sprintf("%d records against %d", r.c.Growth, window), "L-206", "target", last/first >= auditGrowth,
		"%.2f: %.0f records/s after %.0f", last/first, last, first)
	return nil
}

func (r *auditReport) add(name, rule, kind string, met bool, format string, args ...any) {
	r.rows = append(r.rows, auditRow{name, fmt.Sprintf(format, args...), rule, kind, met})
}

// end prints the rows and says whether the gates hold.
func (r *auditReport) end() error {
	slow, missed := false, 0
	for _, f := range r.disk {
		slow = slow || f.P99 > auditSlowestDisk
	}
	for _, row := range r.rows {
		verdict := row.Kind
		switch {
		case row.Kind == "":
		case row.Met:
			verdict += " met"
		default:
			verdict += " MISSED"
			if row.Kind == "gate" {
				missed++
			}
		}
		if r.c.JSON {
			if err := json.NewEncoder(r.out).Encode(row); err != nil {
				return err
			}
			continue
		}
		r.say("%-34s %-6s %-14s %s", row.Name, row.Rule, verdict, row.Figure)
	}
	switch {
	case slow:
		r.say("inconclusive: the disk alone needs more than %v for a flush at p99; repeat when nothing else uses it", auditSlowestDisk)
		if r.c.Check {
			return &exitError{code: auditExitUndecided}
		}
	case missed > 0 && r.c.Check:
		return fmt.Errorf("%d gates of the audit log are missed", missed)
	}
	return nil
}
