package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"keyd.dev/keyd/internal/sandbox"
)

// What a daemon keeps once it is logged in to its token (C-17, decision 0034):
// the folders of its configuration and certificates to read, those of its data
// to write, the ports that it listens on and connects to, and what the system
// takes to load the PKCS#11 module once more and to find a host.

// systemPaths are read by the C library, by Go and by a module that is loaded
// anew. Folders that are not there are passed over.
func systemPaths() []string {
	return []string{
		"/usr", "/lib", "/lib64", "/etc/ld.so.cache", "/etc/ld.so.preload", // libraries, time zones
		"/etc/localtime", "/etc/ssl/openssl.cnf", "/etc/pki/tls/openssl.cnf", "/etc/crypto-policies",
		"/etc/softhsm", "/etc/softhsm2.conf",
		"/proc", "/sys/devices/system/cpu", "/sys/fs/cgroup", "/sys/kernel/mm/transparent_hugepage", // the runtime, metrics
		"/dev/urandom", "/dev/random",
	}
}

// resolverPaths are read to find a host by its name. They are replaced while
// keyd runs, by DHCP say, so that the folders are named.
func resolverPaths() []string {
	paths := []string{"/etc"}
	if target, err := filepath.EvalSymlinks("/etc/resolv.conf"); err == nil {
		paths = append(paths, filepath.Dir(target))
	}
	return paths
}

const dnsPort = 53

// paths are those that may be relative in the file.
func (p *processConfig) paths() []*string {
	var all []*string
	for _, list := range [][]string{p.Read, p.Write} {
		for i := range list {
			all = append(all, &list[i])
		}
	}
	return all
}

func (k *configCheck) process(p *processConfig) {
	_, err := sandbox.ParseMode(p.Sandbox)
	k.want(err == nil, "process.sandbox", "%q is not off, best_effort or strict", p.Sandbox)
	for _, port := range p.Connect {
		k.want(port > 0 && port <= 65535, "process.sandbox_connect", "%d is not a port", port)
	}
}

// sandbox is what the daemon of this configuration keeps; extra are folders of
// its own to write.
func (c *configFile) sandbox(extra ...string) (sandbox.Config, error) {
	s := sandbox.Config{Mode: sandbox.Mode(c.Process.Sandbox), AbstractSockets: strings.HasPrefix(os.Getenv("NOTIFY_SOCKET"), "@")}
	s.Read = append(systemPaths(), folders(c.readFiles()...)...)
	s.Read = append(s.Read, c.moduleReads()...)
	s.Read = append(s.Read, c.Process.Read...)
	s.Write = append(s.Write, "/dev/null")
	s.Write = append(s.Write, c.writeFolders()...)
	s.Write = append(s.Write, extra...)
	s.Write = append(s.Write, c.Process.Write...)

	tokens, err := c.tokenFolders()
	if err != nil {
		return sandbox.Config{}, err
	}
	s.Write = append(s.Write, tokens...)

	for _, addr := range append(c.switchAddrs(), c.API.Listen, c.Ops.Listen) {
		if _, port, ok := hostPort(addr); ok && port > 0 {
			s.Bind = append(s.Bind, port)
		}
	}
	byName := false
	for _, addr := range c.connects() {
		host, port, ok := hostPort(addr)
		if !ok {
			continue
		}
		s.Connect = append(s.Connect, port)
		byName = byName || net.ParseIP(host) == nil
	}
	for _, port := range c.Process.Connect {
		s.Connect = append(s.Connect, uint16(port))
	}
	if byName {
		s.Read = append(s.Read, resolverPaths()...)
		s.Connect = append(s.Connect, dnsPort)
	}
	slices.Sort(s.Read)
	slices.Sort(s.Write)
	s.Read, s.Write = slices.Compact(s.Read), slices.Compact(s.Write)
	return s, nil
}

// readFiles are the files that a daemon reads again while it runs.
func (c *configFile) readFiles() []string {
	files := []string{c.path}
	add := func(t tlsConfig) {
		if isIssued(t.Cert) {
			t.Cert, t.Key = "", ""
		}
		files = append(files, t.Cert, t.Key, t.CA, t.CRL)
	}
	add(c.API.tls())
	add(c.Switch.tls())
	for i := range c.Upstream {
		for _, l := range c.Upstream[i].ends() {
			add(l.tls())
		}
	}
	add(c.Hook.tls())
	for i := range c.Sink {
		add(c.Sink[i].tls())
	}
	for _, path := range c.ownProfiles() {
		files = append(files, *path)
	}
	if c.Vault.Address != "" {
		for _, path := range c.Vault.paths() {
			if *path != c.Vault.Dir && !isIssued(*path) {
				files = append(files, *path)
			}
		}
		files = append(files, filepath.Join(kubernetesSecrets, "token"))
	}
	return files
}

// kubernetesSecrets is where Kubernetes puts the token of a pod.
const kubernetesSecrets = "/var/run/secrets/kubernetes.io/serviceaccount"

// folders are those of files, and of what links lead to: who renews a
// certificate puts another file in its place.
func folders(files ...string) []string {
	var dirs []string
	for _, file := range files {
		if file == "" {
			continue
		}
		dirs = append(dirs, filepath.Dir(file))
		if target, err := filepath.EvalSymlinks(file); err == nil {
			dirs = append(dirs, filepath.Dir(target))
		}
	}
	return dirs
}

// writeFolders are the folders of the daemon's data. That of certificates is
// made when the first is signed, so that it counts once it is there.
func (c *configFile) writeFolders() []string {
	dirs := []string{filepath.Dir(c.Store.Path), c.Audit.Dir, filepath.Dir(c.Ops.Socket)}
	for i := range c.Sink {
		if dir := filepath.Dir(c.Sink[i].Path); c.Sink[i].Type == sinkFile {
			dirs = append(dirs, dir)
		}
	}
	for i := range c.Anchor {
		if reached(c.Anchor[i].Dir) {
			dirs = append(dirs, c.Anchor[i].Dir)
		}
	}
	for _, dir := range []string{c.Backup.Dir, c.Vault.Dir} {
		if _, err := os.Stat(dir); dir != "" && err == nil {
			dirs = append(dirs, dir)
		}
	}
	return dirs
}

// connects are the addresses that a daemon connects to.
func (c *configFile) connects() []string {
	var addrs []string
	for i := range c.Upstream {
		for _, l := range c.Upstream[i].ends() {
			addrs = append(addrs, l.Addr)
		}
	}
	for i := range c.Sink {
		if c.Sink[i].Type == sinkSyslog {
			addrs = append(addrs, c.Sink[i].Address)
		}
	}
	for _, address := range []string{c.Vault.Address, c.Hook.URL} {
		if u, err := url.Parse(address); err == nil && u.Hostname() != "" {
			port := u.Port()
			if port == "" {
				port = "443"
			}
			addrs = append(addrs, net.JoinHostPort(u.Hostname(), port))
		}
	}
	return addrs
}

// moduleReads is what the module needs to be loaded anew: its folder, and the
// files that its variables name.
func (c *configFile) moduleReads() []string {
	paths := folders(c.Token.Module)
	for _, value := range c.Token.Environment {
		if filepath.IsAbs(value) {
			paths = append(paths, value)
		}
	}
	return paths
}

var (
	softhsmTokens = regexp.MustCompile(`(?m)^[ \t]*directories\.tokendir[ \t]*=[ \t]*(\S.*?)[ \t]*$`)
	nssFolder     = regexp.MustCompile(`configdir='(?:sql:|dbm:)?([^']*)'`)
)

// tokenFolders are where software modules keep their tokens: that of SoftHSM's
// configuration, and that of the parameters of NSS.
func (c *configFile) tokenFolders() ([]string, error) {
	var dirs []string
	if m := nssFolder.FindStringSubmatch(c.Token.Reserved); m != nil {
		dirs = append(dirs, m[1])
	}
	if !strings.Contains(filepath.Base(c.Token.Module), "softhsm") {
		return dirs, nil
	}
	conf := os.Getenv("SOFTHSM2_CONF")
	if conf == "" {
		conf = "/etc/softhsm/softhsm2.conf"
	}
	text, err := os.ReadFile(conf)
	if err != nil {
		return nil, advise(fmt.Errorf("looking for the folder of SoftHSM's tokens: %w", err), "name its configuration as SOFTHSM2_CONF in token.environment of %s", c.path)
	}
	if m := softhsmTokens.FindSubmatch(text); m != nil {
		dirs = append(dirs, string(m[1]))
	}
	return dirs, nil
}

func hostPort(addr string) (host string, port uint16, ok bool) {
	host, text, err := net.SplitHostPort(addr)
	n, perr := strconv.ParseUint(text, 10, 16)
	return host, uint16(n), err == nil && perr == nil
}

// confine takes from the process what the daemon does not need any more. It is
// called once everything is open and before anybody is answered.
func (d *daemon) confine(extra ...string) error {
	cfg, err := d.cfg.sandbox(extra...)
	if err != nil {
		return err
	}
	if cfg.Mode == sandbox.Off {
		d.log.Warn("no sandbox: every file of this user and every port is in reach", "sandbox", cfg.Mode)
		return nil
	}
	state, err := sandbox.Enter(cfg)
	switch {
	case errors.Is(err, sandbox.ErrDeaf) && cfg.Mode == sandbox.BestEffort:
		d.log.Warn("no sandbox", "sandbox", cfg.Mode, "err", err)
	case errors.Is(err, sandbox.ErrUnsupported), errors.Is(err, sandbox.ErrDeaf):
		return advise(fmt.Errorf("entering the sandbox: %w", err), `set process.sandbox = "best_effort" in %s to run with what there is`, d.cfg.path)
	case err != nil:
		return advise(fmt.Errorf("entering the sandbox: %w", err), "mend the folder, or [process] in %s", d.cfg.path)
	case !state.Files:
		d.log.Warn("no sandbox: the kernel has none", "sandbox", cfg.Mode, "landlock", state.ABI)
	default:
		d.log.Info("in the sandbox", "sandbox", cfg.Mode, "landlock", state.ABI, "holds", state.String())
	}
	d.held = state
	return nil
}

// abandon closes a daemon that was opened and does not come to serve.
func (d *daemon) abandon(ctx context.Context, err error) error {
	d.closeListeners()
	return errors.Join(err, d.node.close(context.WithoutCancel(ctx)))
}
