package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"net"
	"os"
	"strconv"
	"time"

	"github.com/pelletier/go-toml/v2"

	"keyd.dev/keyd/internal/hsm"
	"keyd.dev/keyd/internal/sandbox"
	"keyd.dev/keyd/internal/secret"
)

const devLabel = "keyd-dev"

// upstreamClient is keyd's own certificate on the upstream link. It is no
// client of keyd.
const upstreamClient = "keyd-upstream"

// prepare makes what is missing, the configuration last: where it stands, the
// rest is whole.
func (d *devDir) prepare(p *program, c *devCmd) (*configFile, error) {
	path := d.file("keyd.toml")
	_, err := os.Stat(path)
	if errors.Is(err, os.ErrNotExist) {
		err = d.make(p, c, path)
	}
	if err != nil {
		return nil, err
	}
	if err := d.addClients(path); err != nil {
		return nil, err
	}
	mended, err := d.mendToken()
	if err != nil {
		return nil, err
	}
	if mended {
		warn(p.stderr, "keyd dev: SoftHSM was killed while it wrote its token; the copy took its place.")
	}
	cfg, err := loadConfig(path)
	if err != nil {
		return nil, err
	}
	if len(cfg.Upstream) == 0 || cfg.Switch.Listen == "" {
		return nil, fmt.Errorf("%s has no [[upstream]] or no switch.listen, which `keyd dev` needs; use `keyd serve` with it", path)
	}
	flags := [4]string{c.API, c.Switch, c.Ops, c.Upstream}
	for i, value := range []*string{&cfg.API.Listen, &cfg.Switch.Listen, &cfg.Ops.Listen, cfg.issuerAddr()} {
		if flags[i] != "" {
			*value = flags[i]
		}
	}
	if c.UnionPay {
		cfg.serveUnionPay()
	}
	if c.Sandbox != "" {
		mode, err := sandbox.ParseMode(c.Sandbox)
		if err != nil {
			return nil, usageError("--sandbox: %w", err)
		}
		cfg.Process.Sandbox = string(mode)
	}
	cfg.Ops.Pprof = cfg.Ops.Pprof || c.Pprof
	return cfg, cfg.pickPorts()
}

// make builds the folder. What an interrupted start left is used or replaced.
func (d *devDir) make(p *program, c *devCmd, path string) error {
	module, err := findModule(c.Module)
	if err != nil {
		return err
	}
	cfg, err := d.newConfig(c, module)
	if err != nil {
		return err
	}
	hosts := make([]string, 0, 3)
	for _, addr := range []string{c.API, c.Switch, c.Upstream} {
		if host, _, err := net.SplitHostPort(addr); err == nil {
			hosts = append(hosts, host)
		}
	}
	clients := append(devClients(), clientConfig{Name: upstreamClient, URI: "keyd://upstream"})
	if err := makePKI(d.file("pki"), hosts, clients); err != nil {
		return fmt.Errorf("making the certificates: %w", err)
	}
	if err := d.makeToken(p.ctx, cfg, newLogger(p.stderr, "warn")); err != nil {
		return err
	}
	if err := d.keepToken(); err != nil {
		return err
	}
	for _, dir := range []string{"audit", "backups"} {
		if err := os.MkdirAll(d.file(dir), 0o700); err != nil {
			return err
		}
	}
	text, err := toml.Marshal(&cfg.config)
	if err != nil {
		return err
	}
	return writeFile(path, append([]byte(devHeader), text...), 0o600)
}

const devHeader = "# Written by `keyd dev` and read by it again: change what you like. `keyd serve\n" +
	"# --config` of this file gives the same daemon without the simulated issuer.\n" +
	"# Its keys are published test keys: nothing here is safe, and nothing is meant to be.\n\n"

// newConfig is the configuration of a new folder (W-13).
func (d *devDir) newConfig(c *devCmd, module string) (*configFile, error) {
	second, alone := duration(time.Second), false
	pki := func(name string) string { return d.file("pki", name) }
	cfg := &configFile{path: d.file("keyd.toml"), config: config{
		Token: tokenConfig{
			Sessions: 1, // SoftHSM has one lock: a second session finds it held
			Module:   module, Label: devLabel, PINSource: "file:" + d.file("token.pin"),
			Environment: map[string]string{"SOFTHSM2_CONF": d.file("softhsm2.conf")},
		},
		Store:  storeConfig{Path: d.file("keyd.db")},
		Backup: backupConfig{Dir: d.file("backups")},
		Audit:  auditConfig{Dir: d.file("audit"), Site: "dev.example", Node: "n1", SegmentMB: 8, DiskWarnPct: 2, DiskCriticalPct: 1},
		API:    apiConfig{Listen: c.API, Cert: pki("server.pem"), Key: pki("server.key"), ClientCA: pki("ca.pem"), RefusedPerMinute: devRefusals, RefusedPerHour: devRefusals, DualControl: &alone},
		Switch: switchConfig{
			Listen: c.Switch, Cert: pki("server.pem"), Key: pki("server.key"), ClientCA: pki("ca.pem"),
			MaxAmount: 5_000_000, Currencies: []string{"978", "156"}, PartialTypes: []string{"00"},
			TUpstream: 2 * second, SAFFirstDelay: second, SAFCeiling: 5 * second,
		},
		Ops: opsConfig{Listen: c.Ops},
		Upstream: []upstreamConfig{{
			Name: "issuer", Addr: c.Upstream, CA: pki("ca.pem"), Cert: pki(upstreamClient + ".pem"), Key: pki(upstreamClient + ".key"),
			ZPK: aliasZPK, ZAK: aliasZAK, ExchangeKey: aliasKEK,
		}},
		Client: devClients(),
	}}
	cfg.fillDefaults()
	if c.UnionPay {
		cfg.serveUnionPay()
	}
	return cfg, cfg.pickPorts()
}

// devRefusals are the PIN blocks that may be refused in a minute and in an hour:
// trials send many.
const devRefusals = 100_000

// pickPorts replaces addresses that are empty, or whose port is 0, by free ones.
func (c *config) pickPorts() error {
	addrs := []*string{&c.API.Listen, &c.Switch.Listen, &c.Ops.Listen, c.issuerAddr()}
	for i := range c.Listener {
		addrs = append(addrs, &c.Listener[i].Listen)
	}
	for _, addr := range addrs {
		host, port, err := net.SplitHostPort(*addr)
		if *addr != "" && (err != nil || port != "0") {
			continue
		}
		if *addr == "" {
			host = "127.0.0.1"
		}
		l, err := freePort(host)
		if err != nil {
			return fmt.Errorf("picking a free port on %s: %w", host, err)
		}
		// Held until all are picked, so that none is picked twice.
		defer l.Close()
		*addr = l.Addr().String()
	}
	return nil
}

// Ports are picked below those that systems give to outgoing connections: a
// second start wants the same ports, and nobody must have got them by chance.
const (
	firstPort = 15_000
	lastPort  = 32_000
	portTries = 200
)

func freePort(host string) (net.Listener, error) {
	var errs error
	for range portTries {
		n, err := rand.Int(rand.Reader, big.NewInt(lastPort-firstPort))
		if err != nil {
			return nil, err
		}
		l, err := net.Listen("tcp", net.JoinHostPort(host, strconv.FormatInt(firstPort+n.Int64(), 10)))
		if err == nil {
			return l, nil
		}
		errs = err
	}
	return nil, errs
}

// findModule returns the path of SoftHSM's module.
func findModule(given string) (string, error) {
	if given == "" {
		return hsm.FindSoftHSM()
	}
	if _, err := os.Stat(given); err != nil {
		return "", advise(fmt.Errorf("looking for SoftHSM's module: %w", err), "name it with --module")
	}
	return given, nil
}

// makeToken makes the SoftHSM token and keyd's own keys in it.
func (d *devDir) makeToken(ctx context.Context, cfg *configFile, log *slog.Logger) error {
	conf := "directories.tokendir = " + d.file(devTokens) + "\nobjectstore.backend = file\nlog.level = ERROR\nslots.removable = false\n"
	err := errors.Join(
		// A half-made token of an interrupted start has a PIN that nobody knows.
		os.RemoveAll(d.file(devTokens)),
		os.Mkdir(d.file(devTokens), 0o700),
		writeFile(d.file("softhsm2.conf"), []byte(conf), 0o600),
		setEnvironment(cfg.Token.Environment),
	)
	if err != nil {
		return err
	}
	userPIN, err := d.makePIN("token.pin")
	if err != nil {
		return err
	}
	defer userPIN.Clear()
	soPIN, err := d.makePIN("token.so-pin")
	if err != nil {
		return err
	}
	defer soPIN.Clear()
	if err := hsm.InitToken(cfg.Token.Module, devLabel, soPIN, userPIN); err != nil {
		return adviseToken(cfg, fmt.Errorf("making the token: %w", err))
	}
	return initToken(ctx, cfg, log, newMetrics(), initCmd{})
}

// makePIN writes a new random PIN to a file and returns it.
func (d *devDir) makePIN(name string) (secret.Bytes, error) {
	var raw [16]byte
	if _, err := rand.Read(raw[:]); err != nil {
		return secret.Bytes{}, err
	}
	pin := hex.AppendEncode(nil, raw[:])
	if err := writeFile(d.file(name), pin, 0o600); err != nil {
		return secret.Bytes{}, fmt.Errorf("writing the PIN: %w", err)
	}
	return secret.From(pin), nil
}
