package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"keyd.dev/keyd/audit"
	"keyd.dev/keyd/internal/siem"
)

// sinkConfig is one receiver of a copy of the audit log.
type sinkConfig struct {
	Name       string   `toml:"name" comment:"Name in records and metrics, [a-z0-9-]; the cursor is kept under it."`
	Type       string   `toml:"type,omitempty" comment:"\"syslog\", RFC 5424 over TLS (RFC 5425), or \"file\", the same messages, one a line; default syslog."`
	Address    string   `toml:"address,omitempty" comment:"Address and port of the receiver, siem.example:6514 say; of a syslog sink; no default."`
	ServerName string   `toml:"server_name,omitempty" comment:"Name in its certificate; default the host of address."`
	CA         string   `toml:"ca,omitempty" comment:"Who may sign its certificate, PEM; needed with address; no default."`
	Cert       string   `toml:"cert,omitempty" comment:"Our client certificate, PEM, or vault:NAME of a [[vault_certificate]]; needed with address; no default."`
	Key        string   `toml:"key,omitempty" comment:"Its key, PEM."`
	MinTLS     string   `toml:"min_tls,omitempty" comment:"\"1.3\" (default) or \"1.2\"."`
	Path       string   `toml:"path,omitempty" comment:"Path of the file; of a file sink. It may be moved away at any time, a new one is begun; no default."`
	PEN        int      `toml:"pen" comment:"Your private enterprise number of IANA, for the structured data (keyd@PEN); no default, and 32473 is for examples only."`
	Facility   *int     `toml:"facility,omitempty" comment:"Syslog facility, 0 to 23; default 13."`
	Logs       []string `toml:"logs,omitempty" comment:"Which logs it gets: sec, ops; default sec and ops."`
	LagAlarm   duration `toml:"lag_alarm,omitempty" comment:"Age of the oldest record not delivered above which an alarm is raised; default 1m."`
	ResendMB   int      `toml:"resend_mb,omitempty" comment:"How much of what the receiver's system took last is sent again after a connection broke, 1 to 1024 MiB: more than the receiver can lose; default 8."`
}

const (
	sinkSyslog = "syslog"
	sinkFile   = "file"
)

var sinkName = regexp.MustCompile(`^[a-z0-9-]{1,32}$`)

func (s *sinkConfig) fillDefaults() {
	def(&s.Type, sinkSyslog)
	if s.Type == sinkSyslog {
		def(&s.MinTLS, "1.3")
		def(&s.ResendMB, siem.DefaultResend>>20)
		if host, _, err := net.SplitHostPort(s.Address); err == nil {
			def(&s.ServerName, host)
		}
	}
	if s.Facility == nil {
		facility := siem.DefaultFacility
		s.Facility = &facility
	}
	if s.Logs == nil {
		s.Logs = []string{"sec", "ops"}
	}
	def(&s.LagAlarm, duration(time.Minute))
}

func (s *sinkConfig) tls() tlsConfig {
	return tlsConfig{Cert: s.Cert, Key: s.Key, CA: s.CA, MinTLS: s.MinTLS}
}

// sinks refuses a receiver that is not verified, and one that two sinks have.
func (k *configCheck) sinks(all []sinkConfig) {
	names, paths := make(map[string]bool), make(map[string]bool)
	for i := range all {
		s, at := &all[i], fmt.Sprintf("audit_sink[%d]", i)
		k.want(sinkName.MatchString(s.Name), at+".name", "%q is not 1 to 32 of a-z, 0-9 and -", s.Name)
		k.want(!names[s.Name], at+".name", "%q stands twice", s.Name)
		names[s.Name] = true
		k.want(s.PEN > 0 && int64(s.PEN) < 1<<32, at+".pen", "needs the private enterprise number that IANA gave to you")
		k.between(at+".facility", *s.Facility, 0, 23)
		k.span(at+".lag_alarm", s.LagAlarm, time.Second, 24*time.Hour)
		k.want(len(s.Logs) > 0 && !slices.ContainsFunc(s.Logs, func(log string) bool { return log != "sec" && log != "ops" }),
			at+".logs", "%q must be of sec and ops", s.Logs)
		switch s.Type {
		case sinkSyslog:
			k.syslogSink(at, s)
		case sinkFile:
			k.want(s.Path != "", at+".path", "needs the path of the file")
			k.want(!paths[s.Path], at+".path", "%q is the file of another sink", s.Path)
			k.want(s.Address == "" && s.CA == "" && s.Cert == "" && s.Key == "" && s.ServerName == "" && s.MinTLS == "" && s.ResendMB == 0, at+".type",
				"a file has a path, and no address, certificate or resend_mb")
			paths[s.Path] = true
		default:
			k.want(false, at+".type", "%q is not syslog or file", s.Type)
		}
	}
}

func (k *configCheck) syslogSink(at string, s *sinkConfig) {
	_, port, err := net.SplitHostPort(s.Address)
	k.want(err == nil && port != "" && s.ServerName != "", at+".address", "needs the receiver's address and port, siem.example:6514 say")
	k.want(s.CA != "", at+".ca", "needs the CA file that the receiver's certificate is checked against")
	k.want(s.Cert != "" && (s.Key != "" || isIssued(s.Cert)), at+".cert", "needs a client certificate and its key: RFC 5425 verifies both ends")
	k.want(s.Path == "", at+".path", "is of a file sink")
	k.minTLS(at, s.MinTLS)
	k.between(at+".resend_mb", s.ResendMB, 1, 1024)
}

// sinkFolder is where the cursors are kept: beside the database, since everything
// in the log's own folder is what its manifest says.
func (c *config) sinkFolder() string { return filepath.Join(filepath.Dir(c.Store.Path), "sinks") }

// exporters are the sinks of a daemon, at work from the start of serving until
// after the log has ended.
type exporters struct {
	all   []*siem.Exporter
	stop  context.CancelFunc
	group sync.WaitGroup
}

// lastDelivery bounds what a stop waits for receivers.
const lastDelivery = 5 * time.Second

// newSinks makes the exporters. A receiver that is away does not hinder the start;
// a certificate that cannot be read does.
func (d *daemon) newSinks() error {
	d.metrics.watchSinks(&d.sinks)
	if len(d.cfg.Sink) == 0 {
		return nil
	}
	reader, err := audit.OpenReader(d.cfg.Audit.Dir)
	if err != nil {
		return fmt.Errorf("starting the sinks: %w", err)
	}
	if err := os.MkdirAll(d.cfg.sinkFolder(), 0o750); err != nil {
		return fmt.Errorf("making the folder of the sinks' cursors: %w", err)
	}
	for i := range d.cfg.Sink {
		e, err := d.newSink(&d.cfg.Sink[i], reader)
		if err != nil {
			return advise(fmt.Errorf("starting the sink %s: %w", d.cfg.Sink[i].Name, err), "see [[audit_sink]] in %s", d.cfg.path)
		}
		d.sinks.all = append(d.sinks.all, e)
	}
	return nil
}

func (d *daemon) newSink(s *sinkConfig, reader *audit.Reader) (*siem.Exporter, error) {
	formatter, err := siem.NewFormatter(s.PEN, *s.Facility)
	if err != nil {
		return nil, err
	}
	target, err := d.sinkTarget(s)
	if err != nil {
		return nil, err
	}
	return siem.New(siem.Config{
		Name: s.Name, Reader: reader, Feed: d.node.feed, Formatter: formatter, Target: target,
		Cursor: filepath.Join(d.cfg.sinkFolder(), s.Name+".json"),
		Logs:   s.has, Log: d.log, LagLimit: s.LagAlarm.std(),
		Tell: func(ctx context.Context, r audit.Record) error { return d.node.record(ctx, r) },
		Alarm: func(a audit.Alarm, cause error) {
			d.metrics.alarm(a)
			d.log.Error("audit alarm", "code", a.Code, "level", a.Level.String(), "err", cause)
		},
	})
}

// has says whether the sink gets a log: sec, or a month of ops.
func (s *sinkConfig) has(log string) bool {
	kind, _, _ := strings.Cut(log, "-")
	return slices.Contains(s.Logs, kind)
}

func (d *daemon) sinkTarget(s *sinkConfig) (siem.Target, error) {
	if s.Type == sinkFile {
		return siem.NewFile(s.Path)
	}
	certs, err := d.certificates("audit_sink."+s.Name, s.tls())
	if err != nil {
		return nil, err
	}
	return siem.NewSyslog(siem.SyslogConfig{
		Address: s.Address, Resend: s.ResendMB << 20,
		TLS: func() *tls.Config { return certs.Client(s.ServerName) },
	})
}

// start begins to deliver.
func (x *exporters) start(ctx context.Context) {
	ctx, x.stop = context.WithCancel(context.WithoutCancel(ctx))
	for _, e := range x.all {
		x.group.Go(func() { e.Run(ctx) })
	}
}

// end delivers the last records, for which the log must be closed, as far as
// receivers take them at once; the rest they get after the next start.
func (x *exporters) end() {
	for _, e := range x.all {
		e.Drain()
	}
	timer := time.AfterFunc(lastDelivery, x.stop)
	x.group.Wait()
	timer.Stop()
	x.stop()
}

// find returns the exporter of a name.
func (x *exporters) find(name string) (*siem.Exporter, bool) {
	i := slices.IndexFunc(x.all, func(e *siem.Exporter) bool { return e.Name() == name })
	if i < 0 {
		return nil, false
	}
	return x.all[i], true
}

// watchSinks shows how far the sinks are (L-164).
func (m *metrics) watchSinks(x *exporters) {
	var (
		up       = describe("keyd_audit_sink_up", "1 while the sink has a connection to its receiver, or its file.", "sink")
		lag      = describe("keyd_audit_sink_lag_seconds", "Age of the oldest published record that the receiver does not have; 0 when it has all.", "sink")
		behind   = describe("keyd_audit_sink_lag_records", "Published records that the receiver does not have.", "sink")
		sent     = describe("keyd_audit_sink_records_total", "Records sent, those that were sent again counted again.", "sink")
		sessions = describe("keyd_audit_sink_sessions_total", "Connections to the receiver, or openings of the file.", "sink")
		failures = describe("keyd_audit_sink_failures_total", "Sessions that failed or did not begin.", "sink")
	)
	m.registry.MustRegister(asked{[]*prometheus.Desc{up, lag, behind, sent, sessions, failures}, func(_ context.Context, ch chan<- prometheus.Metric) {
		for _, e := range x.all {
			s := e.Status()
			ch <- gaugeOf(up, truth(s.Up), s.Name)
			ch <- gaugeOf(lag, s.Lag.Seconds(), s.Name)
			ch <- gaugeOf(behind, float64(s.Records), s.Name)
			ch <- counterOf(sent, float64(s.Sent), s.Name)
			ch <- counterOf(sessions, float64(s.Sessions), s.Name)
			ch <- counterOf(failures, float64(s.Failures), s.Name)
		}
	}})
}
