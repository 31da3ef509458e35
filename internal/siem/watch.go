package siem

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"syscall"
	"time"

	"keyd.dev/keyd/audit"
)

// watchEvery is how often lag and trouble are looked at (L-138: within 10 s).
const watchEvery = time.Second

// watched is what the watch has alarmed.
type watched struct {
	failed, lagging bool
	lagAt           Position // the record whose time is lagTS
	lagLog          string
	lagTS           time.Time
}

// watch measures the lag, and says when the export fails, lags, and goes on.
func (e *Exporter) watch(ctx context.Context) {
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	var w watched
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		lag, behind, err := e.measure(&w)
		if err != nil {
			e.cfg.Log.Warn("sink: its lag cannot be measured", "sink", e.cfg.Name, "err", err)
			continue
		}
		e.state.lags(lag, behind)
		if e.draining() {
			return
		}
		if err := e.judge(ctx, &w, lag, behind); err != nil && ctx.Err() == nil {
			e.cfg.Log.Warn("sink: its state cannot be recorded", "sink", e.cfg.Name, "err", err)
		}
	}
}

// measure returns how many published records are not delivered, and the age of
// the oldest.
func (e *Exporter) measure(w *watched) (lag time.Duration, behind uint64, err error) {
	logs, err := e.cfg.Reader.Logs()
	if err != nil {
		return 0, 0, err
	}
	at := e.state.delivered()
	for _, log := range logs {
		if !e.cfg.Logs(log) {
			continue
		}
		now, err := e.current(log)
		if errors.Is(err, audit.ErrNotFound) {
			continue
		}
		if err != nil {
			return 0, 0, err
		}
		p := at[log]
		if p.Origin != now.origin || p.Next > now.size {
			p = Position{Origin: now.origin}
			if p.Next, err = e.cfg.Reader.First(log); err != nil {
				return 0, 0, err
			}
		}
		if p.Next >= now.size {
			continue
		}
		behind += now.size - p.Next
		ts, err := e.timeOf(w, log, p)
		if err != nil {
			return 0, 0, err
		}
		lag = max(lag, time.Since(ts))
	}
	return lag, behind, nil
}

// timeOf returns when a record was made. While a sink stands still it is the same
// one each second.
func (e *Exporter) timeOf(w *watched, log string, p Position) (time.Time, error) {
	if w.lagLog == log && w.lagAt == p {
		return w.lagTS, nil
	}
	raw, err := e.cfg.Reader.Get(log, p.Next)
	if errors.Is(err, audit.ErrPruned) {
		return time.Now(), nil // it is gone; that it fails says the session
	}
	if err != nil {
		return time.Time{}, err
	}
	h, err := ParseHead(raw)
	if err != nil {
		return time.Time{}, err
	}
	ts, err := time.Parse(time.RFC3339Nano, h.Time)
	if err != nil {
		return time.Time{}, fmt.Errorf("%w: time of %s:%d", ErrFormat, log, p.Next)
	}
	w.lagLog, w.lagAt, w.lagTS = log, p, ts
	return ts, nil
}

// judge alarms and records what began or ended since the last look: the records
// of one trouble have one corr, which holds the name of the sink and when it
// began. L-138, L-164.
func (e *Exporter) judge(ctx context.Context, w *watched, lag time.Duration, behind uint64) error {
	since, cause := e.state.failing()
	corr := e.state.trouble()
	failed := !since.IsZero() && (w.failed || time.Since(since) >= e.cfg.Grace)
	lagging := lag > e.cfg.LagLimit
	r := audit.Record{
		Action: audit.LogSink, Actor: audit.System(), Outcome: audit.OutcomeError,
		Sink: &audit.Sink{Name: e.cfg.Name, Lag: max(lag, 0), LagRecords: int64(behind)},
	}
	switch {
	case failed && !w.failed:
		w.failed = true
		r.Alarm, r.Reason = audit.Alarm{Code: "sink_failed", Level: audit.LevelWarn}, reasonOf(cause)
		cause = fmt.Errorf("sink %s has had no working receiver since %s: %w", e.cfg.Name, since.UTC().Format(time.RFC3339), cause)
	case lagging && !w.lagging:
		w.lagging = true
		r.Alarm, r.Reason = audit.Alarm{Code: "sink_lagging", Level: audit.LevelCritical}, audit.ReasonTimeout
		cause = fmt.Errorf("sink %s is %d records and %v behind", e.cfg.Name, behind, lag.Round(time.Second))
	case corr != "" && !failed && !lagging && e.state.works():
		w.failed, w.lagging = false, false
		r.Alarm, r.Outcome = audit.Alarm{Code: "sink_resumed", Level: audit.LevelWarn}, audit.OutcomeOK
		cause = fmt.Errorf("sink %s delivers again; its records are %s", e.cfg.Name, corr)
	default:
		return nil // of two troubles both have to end
	}
	if corr == "" {
		if !failed {
			since = time.Now().Add(-lag)
		}
		corr = "sink." + e.cfg.Name + "." + since.UTC().Format("20060102T150405Z")
	}
	r.Corr = corr
	if r.Outcome == audit.OutcomeOK {
		corr = ""
	}
	e.state.troubled(corr)
	e.cfg.Alarm(r.Alarm, cause)
	return e.cfg.Tell(ctx, r)
}

// backoff is the wait after n failures in a row: doubled each time up to a
// ceiling, and between half of it and all of it, so that nodes that lost one
// receiver do not come back all at once.
func backoff(n int, ceiling time.Duration) time.Duration {
	wait := ceiling
	if n < 16 {
		wait = min(ceiling, firstWait<<(n-1))
	}
	var b [8]byte
	_, _ = rand.Read(b[:]) // it does not fail
	return wait/2 + time.Duration(binary.LittleEndian.Uint64(b[:])%uint64(wait/2+1))
}

// pause waits between two sessions.
func (e *Exporter) pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	case <-e.drain:
	case o := <-e.orders:
		o.done <- e.obey(o)
		e.ordered = false
	}
}

// reasonOf is the reason to record for a sink that fails.
func reasonOf(err error) audit.Reason {
	var authority x509.UnknownAuthorityError
	var host x509.HostnameError
	var invalid x509.CertificateInvalidError
	switch {
	case errors.As(err, &authority), errors.As(err, &host):
		return audit.ReasonCertUnknown
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return audit.ReasonCertExpired
	case errors.As(err, &invalid):
		return audit.ReasonCertUnknown
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return audit.ReasonDiskCritical
	case errors.Is(err, ErrConfig), errors.Is(err, fs.ErrNotExist), errors.Is(err, fs.ErrPermission):
		return audit.ReasonConfigInvalid
	case errors.Is(err, audit.ErrPruned), errors.Is(err, audit.ErrCorrupt), errors.Is(err, ErrFormat):
		return audit.ReasonInternal
	}
	return audit.ReasonTimeout
}
