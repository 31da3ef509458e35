package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	systemd "github.com/coreos/go-systemd/v22/daemon"
	"github.com/prometheus/client_golang/prometheus"

	"keyd.dev/keyd/audit"
	"keyd.dev/keyd/internal/api"
	"keyd.dev/keyd/internal/custody"
	"keyd.dev/keyd/internal/isoswitch"
)

// reloads is what a daemon knows of its configuration. The zero value is ready.
type reloads struct {
	mu      sync.Mutex                 // one at a time
	now     atomic.Pointer[configFile] // what runs; nil: that of the start
	last    atomic.Pointer[lastReload] // nil: none since the start
	good    atomic.Int64               // when what runs was read, Unix milliseconds
	waiting atomic.Pointer[[]string]   // what waits for a restart; nil: nothing
	count   *prometheus.CounterVec     // by result
}

type lastReload struct {
	at  time.Time
	err error
}

// reloaded is what came of a reload. It names keys, and holds none of their values.
type reloaded struct {
	Config  string   `json:"config"`  // the file that the daemon reads
	Checked bool     `json:"checked"` // it was only looked at
	Changed []string `json:"changed"` // what has another value now
	Waiting []string `json:"waiting"` // what waits for a restart
}

// errStopping: the daemon is about to end.
var errStopping = errors.New("the daemon is stopping")

// partConfig is the part of /readyz that says whether the file on disk is what
// runs. A node is ready without it.
const partConfig = "config"

// config is the configuration with which the daemon runs: that of the start, with
// what was taken over since.
func (d *daemon) config() *configFile {
	if now := d.reloads.now.Load(); now != nil {
		return now
	}
	return d.cfg
}

// runningSettings are the parts of a configuration that a running daemon is given anew.
type runningSettings struct {
	custody custody.Settings
	sw      isoswitch.Settings
	limits  api.Limits
	level   string
	drain   [2]duration // read when the daemon stops
}

func (c *config) runningSettings() runningSettings {
	a := &c.API
	return runningSettings{
		custody: custody.Settings{
			Clients: c.clients(), Quotas: c.quotas(), Profiles: c.profiles(),
			LegacyPIN: a.LegacyPINFormats, LegacyBlocks: a.LegacyKeyBlocks,
			CryptogramImport: a.CryptogramImport, CryptogramExport: a.CryptogramExport,
			Malformed: custody.Malformed{PerMinute: a.RefusedPerMinute, PerHour: a.RefusedPerHour},
			Validity:  a.ApprovalValidity.std(), Wait: a.ApprovalWait.std(),
		},
		sw:     c.switchSettings(),
		limits: c.limits(),
		level:  c.Log.Level,
		drain:  [2]duration{a.DrainGrace, a.DrainLimit},
	}
}

// reload reads certificates and configuration again. What a running daemon can
// take holds for all requests that begin afterwards, on open connections too; the
// rest is named as waiting for a restart. A file that is wrong changes nothing,
// and the error says why. It is recorded as of who, before it holds. With check
// nothing changes and nothing is recorded.
func (d *daemon) reload(ctx context.Context, who audit.Record, check bool) (reloaded, error) {
	d.reloads.mu.Lock()
	defer d.reloads.mu.Unlock()
	if d.draining.Load() {
		return reloaded{}, errStopping
	}
	text, err := os.ReadFile(d.cfg.path)
	if err != nil {
		err = fmt.Errorf("reading the configuration: %w", err)
	}
	var next *configFile
	var result reloaded
	if err == nil {
		next, result, err = d.examine(ctx, text)
	}
	if check {
		result.Checked = true
		return result, err
	}
	for _, c := range d.tls {
		_ = c.Reload() // the alarm has it
	}
	d.wakeVault()
	if err == nil {
		err = d.take(ctx, who, next, result)
	} else {
		err = errors.Join(err, d.refuseConfig(ctx, who, text))
	}
	d.reloads.last.Store(&lastReload{time.Now(), err})
	if err != nil {
		d.reloads.count.WithLabelValues("refused").Inc()
		return reloaded{}, err
	}
	d.reloads.good.Store(time.Now().UnixMilli())
	d.reloads.count.WithLabelValues("ok").Inc()
	return result, nil
}

// examine makes the configuration with which the daemon would go on, and says
// what is different in it.
func (d *daemon) examine(ctx context.Context, text []byte) (*configFile, reloaded, error) {
	path, running := d.cfg.path, d.config()
	file, err := parseConfig(path, path, text)
	if err != nil {
		return nil, reloaded{}, err
	}
	m := mergeConfig(&running.config, &file.config)
	next := &configFile{config: m.config, path: path, hash: file.hash, at: file.at, clock: d.cfg.clock, vault: d.cfg.vault}
	// What waits must go together with what does not.
	if err := next.check(path); err != nil {
		return nil, reloaded{}, err
	}
	held, err := d.node.custody.Rehearse(ctx, next.runningSettings().custody)
	if err != nil {
		return nil, reloaded{}, advise(fmt.Errorf("%s: %w", path, err), "mend the [[client]] sections, or restart keyd with them")
	}
	for _, name := range held {
		at := "client[" + name + "]"
		m.changed = slices.DeleteFunc(m.changed, func(key string) bool { return strings.HasPrefix(key, at) })
		m.waiting = append(m.waiting, at)
	}
	return next, reloaded{Config: path, Changed: append([]string{}, m.changed...), Waiting: append([]string{}, m.waiting...)}, nil
}

// take records the new configuration and lets it hold. What cannot be recorded
// does not hold; where a part refuses it after the record, a second record says so
// and all parts keep what they had.
func (d *daemon) take(ctx context.Context, who audit.Record, next *configFile, result reloaded) error {
	was := d.config()
	who.Outcome, who.Action = audit.OutcomeOK, audit.ConfigChange
	records := append(changesOf(who, was, next, result.Waiting), objectsOf(who, was, next, result.Waiting)...)
	ticket, err := d.node.audit.Reserve(ctx, audit.Sec, len(records)+1)
	if err != nil {
		return fmt.Errorf("writing the audit log: %w", err)
	}
	defer ticket.Release()
	if next.hash != was.hash || len(result.Changed) > 0 {
		if _, err := ticket.Append(records...); err != nil {
			return fmt.Errorf("writing the audit log: %w", err)
		}
	}
	if err := d.renew(ctx, was, next); err != nil {
		who.Action, who.Outcome, who.Reason = audit.ConfigRefuse, audit.OutcomeError, audit.ReasonInternal
		who.Change = &audit.Change{Kind: audit.ChangeConfig, Object: "config", Before: was.hash, After: next.hash}
		_, failed := ticket.Append(who)
		return errors.Join(err, failed)
	}
	d.node.audit.SetCfg(next.hash)
	d.cfg.level.Set(levelOf(next.Log.Level))
	d.reloads.now.Store(next)
	d.reloads.waiting.Store(&result.Waiting)
	d.log.Info("configuration read again", "changed", result.Changed, "waiting_for_restart", result.Waiting)
	return nil
}

// renew gives the parts their settings, all or none. Custody comes last: nobody
// is let in before all else holds.
func (d *daemon) renew(ctx context.Context, was, next *configFile) error {
	old, now := was.runningSettings(), next.runningSettings()
	if err := d.door.SetLimits(now.limits); err != nil {
		return err
	}
	undo := func(err error) error {
		if d.sw != nil {
			err = errors.Join(err, d.sw.Renew(old.sw))
		}
		return errors.Join(err, d.door.SetLimits(old.limits))
	}
	if d.sw != nil {
		if err := d.sw.Renew(now.sw); err != nil {
			return undo(err)
		}
	}
	if _, err := d.node.custody.Renew(ctx, now.custody); err != nil {
		return undo(err)
	}
	return nil
}

// mostObject is the length of an object in a record.
const mostObject = 128

// changesOf are the records of a new configuration: its digests, and what of it
// does not hold yet.
func changesOf(who audit.Record, was, next *configFile, waiting []string) []audit.Record {
	change := audit.Change{Kind: audit.ChangeConfig, Object: "config", Before: was.hash, After: next.hash}
	who.Change = &change
	records := []audit.Record{who}
	if len(waiting) > 0 {
		later := change
		later.Object = "config/waiting/" + strings.Join(waiting, "+")
		later.Object = later.Object[:min(len(later.Object), mostObject)]
		who.Change = &later
		records = append(records, who)
	}
	return records
}

// refuseConfig records a file that is wrong.
func (d *daemon) refuseConfig(ctx context.Context, who audit.Record, text []byte) error {
	who.Action, who.Outcome, who.Reason = audit.ConfigRefuse, audit.OutcomeRefused, audit.ReasonConfigInvalid
	who.Change = &audit.Change{Kind: audit.ChangeConfig, Object: "config", Before: d.config().hash}
	if len(text) > 0 {
		who.Change.After = sha256.Sum256(text)
	}
	return d.node.record(ctx, who)
}

// reloadAtSignal is a reload by SIGHUP, of which the operator's log tells.
func (d *daemon) reloadAtSignal(ctx context.Context) {
	notify(d.log, systemd.SdNotifyReloading+"\n"+systemd.SdNotifyMonotonicUsec())
	defer notify(d.log, systemd.SdNotifyReady)
	if _, err := d.reload(ctx, audit.Record{Actor: audit.System()}, false); err != nil {
		d.log.Error("the configuration is refused; the one of before stays", "err", err)
	}
}

// watchConfig lets operators see what came of reloads.
func (d *daemon) watchConfig() {
	r := &d.reloads
	r.good.Store(time.Now().UnixMilli())
	r.count = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "keyd_config_reloads_total", Help: "Reloads of the configuration, by result.",
	}, []string{"result"})
	d.metrics.registry.MustRegister(r.count)
	for _, result := range []string{"ok", "refused"} {
		r.count.WithLabelValues(result)
	}
	d.metrics.gauge("keyd_config_last_reload_successful", "1 unless the last reload of the configuration was refused.", nil, func() float64 {
		last := r.last.Load()
		return truth(last == nil || last.err == nil)
	})
	d.metrics.gauge("keyd_config_last_reload_success_timestamp_seconds", "When the configuration that runs was read.", nil, func() float64 {
		return float64(r.good.Load()) / 1000
	})
	d.metrics.gauge("keyd_config_restart_pending", "Keys of the configuration whose new value waits for a restart.", nil, func() float64 { return float64(len(r.pending())) })
	d.ops.watch(partConfig, false, func(context.Context) error {
		if last := r.last.Load(); last != nil && last.err != nil {
			return fmt.Errorf("the file was refused at %s and the configuration of before runs: %w", last.at.UTC().Format(time.RFC3339), last.err)
		}
		return nil
	})
}

func (r *reloads) pending() []string {
	if waiting := r.waiting.Load(); waiting != nil {
		return *waiting
	}
	return nil
}
