package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"keyd.dev/keyd/audit"
	"keyd.dev/keyd/internal/siem"
)

type auditSinkCmd struct {
	Ls     sinkLsCmd     `cmd:"" help:"Show how far each receiver of the log is."`
	Rewind sinkRewindCmd `cmd:"" help:"Send a receiver everything once more from a record on."`
	Check  sinkCheckCmd  `cmd:"" help:"Prove from what a receiver keeps that it has every record."`
}

type sinkLsCmd struct {
	Config string `required:"" placeholder:"FILE" help:"The configuration of a node whose daemon runs."`
	JSON   bool   `help:"Print JSON lines."`
}

// Run asks the daemon of this machine.
func (c *sinkLsCmd) Run(p *program) error {
	cfg, err := loadConfig(c.Config)
	if err != nil {
		return err
	}
	var all []siem.Status
	if err := askLocal(p.ctx, cfg.Ops.Socket, "/audit/sinks", struct{}{}, &all); err != nil {
		return err
	}
	t := newTable(p.stdout, c.JSON, "SINK", "STATE", "LAG", "RECORDS", "SENT", "NEXT")
	for _, s := range all {
		state := "up"
		switch {
		case !s.Since.IsZero():
			state = "failing since " + s.Since.UTC().Format(time.RFC3339) + ": " + strings.ReplaceAll(s.Cause, "\n", "; ")
		case !s.Up:
			state = "connecting"
		}
		var next []string
		for log, seq := range s.Next {
			next = append(next, fmt.Sprintf("%s:%d", log, seq))
		}
		slices.Sort(next)
		t.row(s, s.Name, state, s.Lag.Round(time.Millisecond).String(), strconv.FormatUint(s.Records, 10), strconv.FormatUint(s.Sent, 10), strings.Join(next, " "))
	}
	return t.flush()
}

type sinkRewindCmd struct {
	Name   string `arg:"" help:"The sink."`
	To     string `required:"" placeholder:"LOG:SEQ" help:"The first record to send again, sec:0 or ops-2026-11:41 say."`
	Config string `required:"" placeholder:"FILE" help:"The configuration of a node whose daemon runs."`
}

// sinkRewind is what is asked of the daemon.
type sinkRewind struct {
	Name string
	Log  string
	Next uint64
}

// Run asks the daemon of this machine, which records it first.
func (c *sinkRewindCmd) Run(p *program) error {
	cfg, err := loadConfig(c.Config)
	if err != nil {
		return err
	}
	log, text, ok := strings.Cut(c.To, ":")
	next, err := strconv.ParseUint(text, 10, 53)
	if !ok || err != nil {
		return usageError("--to %s is not LOG:SEQ, sec:0 or ops-2026-11:41 say", c.To)
	}
	err = callLocal(p.ctx, cfg.Ops.Socket, "/audit/sinks/rewind", sinkRewind{c.Name, log, next})
	var refused *localRefusal
	if errors.As(err, &refused) && (refused.status == http.StatusNotFound || refused.status == http.StatusConflict) {
		return usageError("%w", err) // there is no such sink, or no such place
	}
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(p.stdout, "%s gets %s from %d on again\n", c.Name, log, next)
	return err
}

func (d *daemon) localSinks(w http.ResponseWriter, r *http.Request) {
	if _, ok := localPeer(w, r); !ok {
		return
	}
	all := make([]siem.Status, 0, len(d.sinks.all))
	for _, e := range d.sinks.all {
		all = append(all, e.Status())
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(all) // whoever asked has gone
}

// alarmSinkSet: somebody has set what a receiver gets next.
const alarmSinkSet = "sink_rewound"

// localSinkRewind sets the cursor of a sink, once that stands in the log.
func (d *daemon) localSinkRewind(w http.ResponseWriter, r *http.Request) {
	record, ok := localPeer(w, r)
	if !ok {
		return
	}
	var q sinkRewind
	if !readLocal(w, r, &q) {
		return
	}
	e, ok := d.sinks.find(q.Name)
	if !ok {
		http.Error(w, fmt.Sprintf("there is no sink %q", q.Name), http.StatusNotFound)
		return
	}
	status := e.Status()
	record.Action, record.Outcome = audit.LogSink, audit.OutcomeOK
	record.Corr = fmt.Sprintf("sink.%s.%s:%d", q.Name, q.Log, q.Next)
	record.Sink = &audit.Sink{Name: q.Name, Lag: max(status.Lag, 0), LagRecords: int64(status.Records)}
	record.Alarm = audit.Alarm{Code: alarmSinkSet, Level: audit.LevelWarn}
	if err := d.node.record(r.Context(), record); err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), sinkOrder)
	defer cancel()
	if err := e.Rewind(ctx, q.Log, q.Next); err != nil {
		record.Outcome, record.Reason = audit.OutcomeRefused, audit.ReasonConfigInvalid
		status := http.StatusConflict
		if errors.Is(err, context.DeadlineExceeded) {
			record.Outcome, record.Reason, status = audit.OutcomeError, audit.ReasonTimeout, http.StatusServiceUnavailable
		}
		http.Error(w, errors.Join(err, d.node.record(context.WithoutCancel(r.Context()), record)).Error(), status)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// sinkOrder is how long a sink may take to hear of its new place: it may just be
// connecting.
const sinkOrder = 12 * time.Second

type sinkCheckCmd struct {
	Files []string `arg:"" placeholder:"FILE" help:"What the receiver keeps, one message a line, oldest file first; - is standard input."`
	Vkey  []string `placeholder:"FILE" help:"Verification keys of the log, one a line, from whoever made them; without one, signatures of checkpoints are not checked."`
	JSON  bool     `help:"Print JSON lines."`
}

// Run reads the files and says what is missing.
func (c *sinkCheckCmd) Run(p *program) error {
	var vkeys []string
	if len(c.Vkey) > 0 {
		var err error
		if vkeys, err = (&auditVerifyCmd{Vkey: c.Vkey}).givenVkeys(p, ""); err != nil {
			return err
		}
	}
	var parts []io.Reader
	for _, name := range c.Files {
		if name == "-" {
			parts = append(parts, p.stdin)
			continue
		}
		f, err := os.Open(name)
		if err != nil {
			return fmt.Errorf("%w: %w", errUndecided, err)
		}
		defer f.Close()
		parts = append(parts, f)
	}
	logs, torn, err := siem.Check(io.MultiReader(parts...), vkeys)
	if err != nil {
		return err
	}
	if len(logs) == 0 {
		return errNothingFound
	}
	if err := c.print(p, logs, torn); err != nil {
		return err
	}
	verdict := error(nil)
	for i := range logs {
		switch {
		case logs[i].Damage() > 0:
			return printed{errCheckFailed}
		case !logs[i].Whole() || len(vkeys) == 0:
			verdict = printed{errUndecided}
		}
	}
	return verdict
}

func (c *sinkCheckCmd) print(p *program, logs []siem.Received, torn int) error {
	if c.JSON {
		enc := json.NewEncoder(p.stdout)
		for i := range logs {
			if err := enc.Encode(logs[i]); err != nil {
				return err
			}
		}
		return nil
	}
	out := bufio.NewWriter(p.stdout)
	for _, r := range logs {
		fmt.Fprintf(out, "%s: records %d to %d, %d missing, %d again, %d altered; %d checkpoints, %d wrong; proved up to %d\n",
			r.Log, r.First, r.Next-1, r.Missing, r.Again, r.Altered, r.Checkpoints, r.Wrong, r.Proved)
		for _, gap := range r.Gaps {
			fmt.Fprintf(out, "  missing %d to %d\n", gap.First, gap.Last)
		}
	}
	if torn > 0 {
		fmt.Fprintf(out, "%d lines are neither records nor checkpoints\n", torn)
	}
	for i := range logs {
		switch r := &logs[i]; {
		case r.Damage() > 0:
			fmt.Fprintf(out, "FAIL L-163 %s\n", r.Log)
		case !r.Whole():
			fmt.Fprintf(out, "UNDECIDED %s: it needs the records from 0 on and a checkpoint\n", r.Log)
		case len(c.Vkey) == 0:
			fmt.Fprintf(out, "UNDECIDED %s: it is whole by its own checkpoints; with --vkey their signatures are checked\n", r.Log)
		default:
			fmt.Fprintf(out, "OK %s size=%d\n", r.Origin, r.Proved)
		}
	}
	return out.Flush()
}
