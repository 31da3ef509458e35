package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"keyd.dev/keyd/internal/credentials"
	"keyd.dev/keyd/internal/hsm"
	"keyd.dev/keyd/internal/secret"
)

type doctorCmd struct {
	Config string `placeholder:"FILE" help:"The configuration to check; without it only the machine is looked at."`
	Token  bool   `help:"Log in to the token and print what its module can keep inside, operation by operation; without --config of a new SoftHSM token."`
	JSON   bool   `help:"Print JSON."`
	Live   bool   `help:"Only ask the daemon whether it lives; it says so by the exit code too."`
	Ready  bool   `help:"Only ask the daemon whether it takes work."`
}

// status is the result of one check.
type status string

const (
	statusOK   status = "ok"
	statusWarn status = "warn" // keyd runs, less well or less safely
	statusFail status = "fail" // keyd does not run
)

// check is one line of the report.
type check struct {
	Name   string `json:"name"`
	Status status `json:"status"`
	Detail string `json:"detail"`
	Mend   string `json:"mend,omitempty"`
}

// examination collects checks.
type examination struct {
	ctx    context.Context
	checks []check
}

func (e *examination) ok(name, format string, args ...any) {
	e.checks = append(e.checks, check{Name: name, Status: statusOK, Detail: fmt.Sprintf(format, args...)})
}

func (e *examination) bad(s status, name, detail, mend string) {
	e.checks = append(e.checks, check{Name: name, Status: s, Detail: detail, Mend: mend})
}

// Run looks at the machine and says what to do. Without --token it logs in
// nowhere: a wrong PIN must not cost a try.
func (c *doctorCmd) Run(p *program) error {
	if c.Live || c.Ready {
		return c.answers(p)
	}
	if c.Token {
		return c.token(p)
	}
	e := &examination{ctx: p.ctx}
	e.machine()
	if c.Config == "" {
		e.anyModule()
	} else {
		e.config(c.Config)
	}
	failed := 0
	for _, k := range e.checks {
		if k.Status == statusFail {
			failed++
		}
	}
	if err := c.print(p, e.checks, failed == 0); err != nil {
		return err
	}
	if failed > 0 {
		return &exitError{code: exitFailed, err: fmt.Errorf("%d of %d checks failed", failed, len(e.checks))}
	}
	return nil
}

func (c *doctorCmd) print(p *program, checks []check, ok bool) error {
	if c.JSON {
		return json.NewEncoder(p.stdout).Encode(struct {
			OK     bool    `json:"ok"`
			Checks []check `json:"checks"`
		}{ok, checks})
	}
	var text strings.Builder
	for _, k := range checks {
		fmt.Fprintf(&text, "%-4s  %-18s %s\n", k.Status, k.Name, k.Detail)
		if k.Mend != "" {
			fmt.Fprintf(&text, "      %-18s → %s\n", "", k.Mend)
		}
	}
	_, err := fmt.Fprint(p.stdout, text.String())
	return err
}

// machine looks at what every keyd needs.
func (e *examination) machine() {
	if err := desWorks(); err != nil {
		e.bad(statusFail, "fips140", errNoDES.Error(), "use fips140=on, or leave GODEBUG out")
	} else {
		e.ok("fips140", "DES and TDES are usable")
	}
	e.limits()
	e.kernel()
	e.clock()
}

// limits looks at the resource limits that a service manager sets.
func (e *examination) limits() {
	var core, files syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_CORE, &core); err != nil {
		e.bad(statusWarn, "core dumps", err.Error(), "")
	} else {
		e.ok("core dumps", "keyd turns them off for itself (limit here: %s)", limitText(core.Cur))
	}
	const wanted = 4096
	switch err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &files); {
	case err != nil:
		e.bad(statusWarn, "open files", err.Error(), "")
	case files.Max < wanted:
		e.bad(statusWarn, "open files", fmt.Sprintf("at most %d", files.Max), fmt.Sprintf("allow %d or more: LimitNOFILE= in the unit, or ulimit -n", wanted))
	default:
		e.ok("open files", "at most %s", limitText(files.Max))
	}
	lock, err := memlockLimit()
	switch {
	case errors.Is(err, errors.ErrUnsupported):
	case err != nil:
		e.bad(statusWarn, "locked memory", err.Error(), "")
	case lock != unlimited && mayLock():
		e.ok("locked memory", "keyd locks its memory: this user may, whatever the limit")
	case lock != unlimited:
		e.bad(statusWarn, "locked memory", fmt.Sprintf("limited to %d KiB: memory can be swapped to disk", lock>>10), "LimitMEMLOCK=infinity in the unit, or ulimit -l unlimited, or no swap")
	default:
		e.ok("locked memory", "unlimited: keyd locks its memory")
	}
}

// unlimited is RLIM_INFINITY.
const unlimited = ^uint64(0)

func limitText(n uint64) string {
	if n == unlimited {
		return "unlimited"
	}
	return fmt.Sprint(n)
}

func (e *examination) clock() {
	synced, err := clockSynced()
	switch {
	case errors.Is(err, errors.ErrUnsupported):
	case err != nil:
		e.bad(statusWarn, "clock", err.Error(), "")
	case !synced:
		e.bad(statusWarn, "clock", "the kernel says that it is not synchronised", "run chrony or systemd-timesyncd; records carry the node's own time")
	default:
		e.ok("clock", "synchronised")
	}
}

// anyModule looks for SoftHSM where no configuration names a module.
func (e *examination) anyModule() {
	if path, err := findModule(""); err != nil {
		e.bad(statusFail, "pkcs11 module", "SoftHSM is not installed", "apt-get install softhsm2, or name another module in a configuration and give it by --config")
	} else {
		e.ok("pkcs11 module", "%s", path)
	}
}

// config looks at what one node needs.
func (e *examination) config(path string) {
	cfg, err := loadConfig(path)
	if err != nil {
		e.bad(statusFail, "config", err.Error(), "mend the lines that it names")
		return
	}
	e.ok("config", "%s", cfg.path)
	running := daemonRuns(cfg)
	if running {
		e.ok("daemon", "runs and answers at %s", cfg.Ops.Socket)
		e.process(cfg)
	}
	e.pin(&cfg.Token)
	e.vaultFiles(cfg)
	e.token(cfg)
	e.ports(cfg, running)
	e.database(cfg)
	e.auditFolder(cfg)
	e.certificates(cfg)
}

// daemonRuns reports whether somebody answers at the local socket.
func daemonRuns(cfg *configFile) bool {
	short, done, err := shortPath(cfg.Ops.Socket)
	if err != nil {
		return false
	}
	defer done()
	conn, err := net.DialTimeout("unix", short, time.Second)
	if err != nil {
		return false
	}
	conn.Close()
	return true
}

func (e *examination) pin(t *tokenConfig) {
	if t.NoPIN {
		e.bad(statusWarn, "pin source", "the token has no PIN", "give it one, unless this is a trial")
		return
	}
	kind, _, _ := strings.Cut(t.PINSource, ":")
	if kind != "file" && kind != "systemd" {
		e.ok("pin source", "%s, asked at the start only", kind)
		return
	}
	source, err := credentials.ParsePINSource(t.PINSource, t.InsecureAllowEnvPIN)
	if err == nil {
		pin, rerr := source.Read(e.ctx, nil)
		pin.Clear()
		err = rerr
	}
	switch {
	case err == nil:
		e.ok("pin source", "%s", t.PINSource)
	case kind == "systemd" && os.Getenv("CREDENTIALS_DIRECTORY") == "":
		e.bad(statusWarn, "pin source", "a systemd credential, which only the service sees", "")
	default:
		e.bad(statusFail, "pin source", err.Error(), "put the PIN there, in a file that only its owner can read")
	}
}

// token looks whether module and token are there, without logging in.
func (e *examination) token(cfg *configFile) {
	t := &cfg.Token
	if _, err := os.Stat(t.Module); err != nil {
		e.bad(statusFail, "pkcs11 module", err.Error(), "install it (SoftHSM: apt-get install softhsm2), or mend token.module")
		return
	}
	if err := setEnvironment(t.Environment); err != nil {
		e.bad(statusFail, "pkcs11 module", err.Error(), "mend token.environment")
		return
	}
	info, err := hsm.Look(hsm.Config{Module: t.Module, Reserved: t.Reserved, TokenLabel: t.Label, NoPIN: t.NoPIN, PIN: unasked(t), FinalTry: t.AllowFinalTry})
	switch {
	case errors.Is(err, hsm.ErrToken):
		e.ok("pkcs11 module", "%s", t.Module)
		e.bad(statusFail, "token", err.Error(), "make a token of that label with the module's own tool, or mend token.label")
	case err != nil:
		e.bad(statusFail, "pkcs11 module", err.Error(), "install the module for this machine, or mend token.module")
	default:
		e.ok("pkcs11 module", "%s", t.Module)
		e.tokenPIN(info)
	}
}

// unasked stands for the PIN where nobody logs in.
func unasked(t *tokenConfig) func() (secret.Bytes, error) {
	if t.NoPIN {
		return nil
	}
	return func() (secret.Bytes, error) { return secret.Bytes{}, errPINSpent }
}

// tokenPIN looks at what the token says about its PIN.
func (e *examination) tokenPIN(info hsm.Info) {
	switch {
	case info.PIN != nil:
		e.bad(statusFail, "token", info.PIN.Error(), "put that right with the module's own tool")
	case info.PINCountLow:
		e.bad(statusWarn, "token", fmt.Sprintf("%q: a wrong PIN was given since the last right one", info.Label), "if it was not you, find out who")
	default:
		e.ok("token", "%q is there", info.Label)
	}
}

func (e *examination) ports(cfg *configFile, running bool) {
	ends := []struct{ key, addr string }{
		{"api.listen", cfg.API.Listen}, {"switch.listen", cfg.Switch.Listen}, {"ops.listen", cfg.Ops.Listen},
	}
	for i, l := range cfg.Listener {
		ends = append(ends, struct{ key, addr string }{fmt.Sprintf("switch_listener[%d].listen", i), l.Listen})
	}
	for _, l := range ends {
		if l.addr == "" {
			continue
		}
		listener, err := net.Listen("tcp", l.addr)
		switch {
		case err == nil:
			listener.Close()
			e.ok(l.key, "%s is free", l.addr)
		case running && errors.Is(err, syscall.EADDRINUSE):
			e.ok(l.key, "%s is the running daemon's", l.addr)
		default:
			e.bad(statusFail, l.key, err.Error(), "stop what has the port, or change "+l.key)
		}
	}
}

func (e *examination) database(cfg *configFile) {
	if _, err := os.Stat(cfg.Store.Path); errors.Is(err, os.ErrNotExist) {
		e.bad(statusFail, "database", cfg.Store.Path+" does not exist", "keyd init --config "+cfg.path)
		return
	}
	db, err := visit(e.ctx, cfg)
	if err == nil {
		err = db.Close()
	}
	if err != nil {
		e.bad(statusFail, "database", err.Error(), "mend store.path, or the file's rights")
		return
	}
	e.ok("database", "%s", cfg.Store.Path)
}

func (e *examination) auditFolder(cfg *configFile) {
	dir := cfg.Audit.Dir
	if _, err := os.Stat(filepath.Join(dir, "manifest.json")); err != nil {
		e.bad(statusFail, "audit log", err.Error(), "keyd init --config "+cfg.path)
		return
	}
	probe, err := os.CreateTemp(dir, ".doctor-*")
	if err != nil {
		e.bad(statusFail, "audit log", err.Error(), "the user who runs keyd must be able to write there")
		return
	}
	probe.Close()
	os.Remove(probe.Name())
	e.ok("audit log", "%s can be written", dir)
	e.disk(cfg)
	e.anchors(cfg)
}

func (e *examination) disk(cfg *configFile) {
	var fs syscall.Statfs_t
	if err := syscall.Statfs(cfg.Audit.Dir, &fs); err != nil || fs.Blocks == 0 {
		e.bad(statusWarn, "disk space", "cannot be told", "")
		return
	}
	free := int(fs.Bavail * 100 / fs.Blocks)
	text := fmt.Sprintf("%d %% free under %s", free, cfg.Audit.Dir)
	switch {
	case free < cfg.Audit.DiskCriticalPct:
		e.bad(statusFail, "disk space", text, fmt.Sprintf("make room: below audit.disk_critical_pct = %d operations are refused", cfg.Audit.DiskCriticalPct))
	case free < cfg.Audit.DiskWarnPct:
		e.bad(statusWarn, "disk space", text, fmt.Sprintf("make room: below audit.disk_warn_pct = %d an alarm is raised", cfg.Audit.DiskWarnPct))
	default:
		e.ok("disk space", "%s", text)
	}
}

// soon is when an expiring certificate is worth a word.
const soon = 30 * 24 * time.Hour

func (e *examination) certificates(cfg *configFile) {
	ends := []struct {
		name string
		tls  tlsConfig
	}{{"api certificate", cfg.API.tls()}}
	if cfg.Switch.Listen != "" {
		ends = append(ends, struct {
			name string
			tls  tlsConfig
		}{"switch certificate", cfg.Switch.tls()})
	}
	for i := range cfg.Upstream {
		for _, l := range cfg.Upstream[i].ends() {
			ends = append(ends, struct {
				name string
				tls  tlsConfig
			}{cfg.endName(&cfg.Upstream[i], &l) + " certificate", l.tls()})
		}
	}
	for _, end := range ends {
		t := end.tls
		if name, ok := strings.CutPrefix(t.Cert, issuedPrefix); ok {
			t.Cert, t.Key = cfg.files(t.Cert, t.Key)
			if _, err := os.Stat(t.Cert); errors.Is(err, os.ErrNotExist) {
				e.ok(end.name, "%s, which Vault signs at the start", name)
				continue
			}
		}
		c, err := credentials.NewTLS(credentials.TLSFiles{Cert: t.Cert, Key: t.Key, CA: t.CA, CRL: t.CRL})
		switch {
		case err != nil:
			e.bad(statusFail, end.name, err.Error(), "mend the file or its path in the configuration")
		case c.Leaf() == nil:
			e.ok(end.name, "none of our own")
		case time.Until(c.Leaf().NotAfter) < 0:
			e.bad(statusFail, end.name, "expired on "+c.Leaf().NotAfter.UTC().Format(time.DateOnly), "renew it")
		case time.Until(c.Leaf().NotAfter) < soon:
			e.bad(statusWarn, end.name, "expires on "+c.Leaf().NotAfter.UTC().Format(time.DateOnly), "renew it")
		default:
			e.ok(end.name, "good until %s", c.Leaf().NotAfter.UTC().Format(time.DateOnly))
		}
	}
}
