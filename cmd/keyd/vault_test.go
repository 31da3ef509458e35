//go:build vault

package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"keyd.dev/keyd/internal/credentials/vaulttest"
)

// vaulted is the folder of a development daemon whose configuration was changed
// so that Vault serves it, and the process that `keyd serve` makes of it.
type vaulted struct {
	t      *testing.T
	vault  *vaulttest.Server
	dir    string
	dev    devReport
	config string // path
	pin    string
	roots  []string // PEM files of those who may sign the API's certificate
	proc   *exec.Cmd
	out    *buffer
	ended  chan struct{}
}

func newVaulted(t *testing.T) *vaulted {
	t.Helper()
	v := &vaulted{t: t, vault: vaulttest.Start(t), dir: filepath.Join(t.TempDir(), "d")}
	v.launch("dev", "--dir", v.dir, "--no-sim")
	v.await("dev.json", func() bool {
		text, err := os.ReadFile(filepath.Join(v.dir, "dev.json"))
		return err == nil && json.Unmarshal(text, &v.dev) == nil
	})
	v.stop()
	v.config, v.roots = v.dev.Config, []string{v.dev.CACert}
	pin, err := os.ReadFile(filepath.Join(v.dir, "token.pin"))
	v.must(err)
	v.pin = strings.TrimSuffix(string(pin), "\n")
	v.must(os.Remove(filepath.Join(v.dir, "token.pin")))
	v.vault.Write("secret/data/keyd/token", map[string]any{"data": map[string]any{"pin": v.pin}})
	v.vault.Write("pki/root/generate/internal", map[string]any{"common_name": "vault root", "ttl": "8000h"})
	v.vault.Write("pki/roles/keyd", map[string]any{
		"allow_any_name": true, "enforce_hostnames": false, "allow_ip_sans": true, "key_type": "ec", "key_bits": 256, "max_ttl": "72h", "not_before_duration": "1s",
	})
	v.vault.Write("transit/keys/keyd-backup", map[string]any{})
	v.vault.Policy("keyd", policyOfDocs(t))
	v.vault.Write("auth/approle/role/keyd", map[string]any{"token_policies": "keyd", "secret_id_num_uses": 1, "token_ttl": "1h", "token_max_ttl": "4h"})
	v.section("\n[vault]\naddress = %q\nca = %q\n", v.vault.Address, v.vault.CA)
	return v
}

// policyOfDocs is the least privilege that docs/OPERATIONS.md gives, so that
// what is documented is what is tested.
func policyOfDocs(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", "docs", "OPERATIONS.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, after, ok := strings.Cut(string(text), "```hcl\n")
	policy, _, closed := strings.Cut(after, "```")
	if !ok || !closed {
		t.Fatal("docs/OPERATIONS.md has no policy in HCL")
	}
	return policy
}

func (v *vaulted) must(err error) {
	v.t.Helper()
	if err != nil {
		v.t.Fatal(err)
	}
}

// set replaces the value of a key of a section; "" takes the key away.
func (v *vaulted) set(section, key, value string) {
	v.t.Helper()
	text, err := os.ReadFile(v.config)
	v.must(err)
	lines, in, done := strings.Split(string(text), "\n"), false, false
	for i, line := range lines {
		if strings.HasPrefix(line, "[") {
			in = line == "["+section+"]"
		}
		if name, _, ok := strings.Cut(line, " ="); in && ok && name == key {
			lines[i], done = fmt.Sprintf("%s = %q", key, value), true
			if value == "" {
				lines[i] = ""
			}
		}
	}
	if !done {
		v.t.Fatalf("the configuration has no %s.%s", section, key)
	}
	v.must(os.WriteFile(v.config, []byte(strings.Join(lines, "\n")), 0o600))
}

// insert adds a line to a section.
func (v *vaulted) insert(section, line string) {
	v.t.Helper()
	text, err := os.ReadFile(v.config)
	v.must(err)
	head := "\n[" + section + "]\n"
	if n := strings.Count(string(text), head); n != 1 {
		v.t.Fatalf("the configuration has %d sections %s", n, section)
	}
	v.must(os.WriteFile(v.config, []byte(strings.Replace(string(text), head, head+line+"\n", 1)), 0o600))
}

// section adds text at the end of the configuration. The empty [vault] that the
// development daemon writes goes.
func (v *vaulted) section(format string, args ...any) {
	v.t.Helper()
	text, err := os.ReadFile(v.config)
	v.must(err)
	var kept []string
	skip := false
	for line := range strings.Lines(string(text)) {
		if strings.HasPrefix(line, "[") {
			skip = strings.TrimSpace(line) == "[vault]" && strings.Contains(format, "[vault]")
		}
		if !skip {
			kept = append(kept, line)
		}
	}
	v.must(os.WriteFile(v.config, []byte(strings.Join(kept, "")+fmt.Sprintf(format, args...)), 0o600))
}

// appRole lets the daemon log in by AppRole.
func (v *vaulted) appRole() {
	v.t.Helper()
	id := v.vault.Read("auth/approle/role/keyd/role-id").Data["role_id"].(string)
	v.section("auth = \"approle\"\nrole = \"keyd\"\nrole_id = %q\nwrapped_secret_id = %q\n", id, v.secretID())
}

// secretID puts a new wrapped secret id where the daemon looks for it.
func (v *vaulted) secretID() string {
	v.t.Helper()
	path := filepath.Join(v.dir, "secret-id")
	v.must(os.WriteFile(path, []byte(v.vault.Wrapped("auth/approle/role/keyd/secret-id", map[string]any{})), 0o600))
	return path
}

func (v *vaulted) launch(args ...string) {
	v.t.Helper()
	v.out = &buffer{}
	v.proc = keydCommand(context.Background(), args...)
	v.proc.Stdout, v.proc.Stderr = v.out, v.out
	v.must(v.proc.Start())
	ended := make(chan struct{})
	v.ended = ended
	go func(p *exec.Cmd) { _ = p.Wait(); close(ended) }(v.proc)
	v.t.Cleanup(func() {
		if v.ended == ended {
			_ = v.proc.Process.Kill()
			<-ended
		}
	})
}

// start runs `keyd serve` until it is ready.
func (v *vaulted) start() {
	v.t.Helper()
	v.launch("serve", "--config", v.config)
	v.await("ready", func() bool { ready, _ := v.ready(); return ready })
}

// hangup lets the daemon ask Vault at once.
func (v *vaulted) hangup() {
	v.t.Helper()
	v.must(v.proc.Process.Signal(syscall.SIGHUP))
}

func (v *vaulted) stop() {
	v.t.Helper()
	v.must(v.proc.Process.Signal(syscall.SIGTERM))
	select {
	case <-v.ended:
	case <-time.After(60 * time.Second):
		v.t.Fatalf("the daemon does not stop:\n%s", v.out)
	}
	if code := v.proc.ProcessState.ExitCode(); code != exitDone {
		v.t.Fatalf("exit code %d:\n%s", code, v.out)
	}
	v.noSecret()
}

// noSecret: nothing that the daemon says holds the PIN or a token of Vault.
func (v *vaulted) noSecret() {
	v.t.Helper()
	if text := v.out.String(); strings.Contains(text, "hvs.") || v.pin != "" && strings.Contains(text, v.pin) {
		v.t.Errorf("a secret in what the daemon says:\n%s", text)
	}
}

func (v *vaulted) await(what string, ok func() bool) {
	v.t.Helper()
	for end := time.Now().Add(60 * time.Second); !ok(); time.Sleep(20 * time.Millisecond) {
		select {
		case <-v.ended:
			v.t.Fatalf("keyd ended before: %s\n%s", what, v.out)
		default:
		}
		if time.Now().After(end) {
			v.t.Fatalf("within a minute: %s\n%s", what, v.out)
		}
	}
}

func (v *vaulted) get(path string) (int, string, error) {
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 10 * time.Second}
	resp, err := client.Get("http://" + v.dev.OpsAddr + path)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(body), err
}

func (v *vaulted) ready() (bool, readiness) {
	status, body, err := v.get("/readyz")
	var report readiness
	if err == nil {
		err = json.Unmarshal([]byte(body), &report)
	}
	return err == nil && status == http.StatusOK && report.Ready, report
}

func (v *vaulted) metric(line string) bool {
	_, body, err := v.get("/metrics")
	return err == nil && strings.Contains(body, "\n"+line)
}

// rootsOf are the CAs that clients trust.
func (v *vaulted) pool() *x509.CertPool {
	v.t.Helper()
	pool := x509.NewCertPool()
	for _, file := range v.roots {
		text, err := os.ReadFile(file)
		v.must(err)
		pool.AppendCertsFromPEM(text)
	}
	return pool
}

// client is an application with one connection that it keeps.
func (v *vaulted) client(pool *x509.CertPool) (*http.Client, func(*http.Client) error) {
	v.t.Helper()
	own := v.dev.Clients["switch"]
	cert, err := tls.LoadX509KeyPair(own.Cert, own.Key)
	v.must(err)
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, Certificates: []tls.Certificate{cert}}}
	v.t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: 20 * time.Second}, func(c *http.Client) error {
		const body = `{"KeyIdentifier":"alias/dev/zak","MessageData":"0011223344556677","GenerationAttributes":{"Algorithm":"ISO9797_ALGORITHM3"}}`
		resp, err := c.Post(v.dev.APIURL+"/mac/generate", "application/json", strings.NewReader(body))
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		text, err := io.ReadAll(resp.Body)
		if err == nil && (resp.StatusCode != http.StatusOK || !strings.Contains(string(text), `"Mac"`)) {
			err = fmt.Errorf("status %d: %s", resp.StatusCode, text)
		}
		return err
	}
}

// traffic calls the API without a pause until stopped, and returns how many
// calls were answered; none may fail.
func (v *vaulted) traffic(conns int) (stop func() int64) {
	v.t.Helper()
	var calls atomic.Int64
	var workers sync.WaitGroup
	done := make(chan struct{})
	pool := v.pool()
	for i := range conns {
		client, call := v.client(pool)
		workers.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-done:
					return
				default:
				}
				if err := call(client); err != nil {
					v.t.Errorf("a call failed: %v", err)
					return
				}
				calls.Add(1)
				if i%2 == 0 && n%20 == 19 { // half of them connect anew now and then
					client.CloseIdleConnections()
				}
			}
		})
	}
	return func() int64 { close(done); workers.Wait(); return calls.Load() }
}

// TestVaultPINSealedInTraffic is C-12: the PIN comes from Vault, and a Vault that
// is sealed, and then away, changes nothing for who uses keys (C-08).
func TestVaultPINSealedInTraffic(t *testing.T) {
	t.Parallel()
	v := newVaulted(t)
	v.set("token", "pin_source", "vault:secret/keyd/token#pin")
	v.appRole()
	v.start()
	v.await("C-08 Vault is up", func() bool { return v.metric("keyd_vault_up 1") })
	stop := v.traffic(4)
	v.vault.Seal()
	v.hangup()
	v.await("C-08 Vault is seen to be sealed", func() bool { return v.metric("keyd_vault_sealed 1") && v.metric("keyd_vault_up 0") })
	if ready, report := v.ready(); !ready || report.Parts[partVault].OK {
		t.Errorf("C-08: with Vault sealed: ready %v, %+v", ready, report.Parts[partVault])
	}
	v.vault.Unseal()
	v.hangup()
	v.await("C-08 Vault is up again", func() bool { return v.metric("keyd_vault_up 1") })
	v.vault.Stop()
	if n := stop(); n < 100 {
		t.Errorf("C-12: only %d calls in all that time", n)
	}
	v.stop() // Vault is away: the token cannot be revoked, and keyd ends all the same
}

// TestVaultColdStart is C-10: a start waits for Vault, live and not ready, tells
// systemd, and tells what is wrong apart.
func TestVaultColdStart(t *testing.T) {
	v := newVaulted(t)
	v.set("token", "pin_source", "vault:secret/keyd/token#pin")
	v.appRole()
	v.vault.Stop()
	socket := filepath.Join(t.TempDir(), "n")
	listener, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	v.must(err)
	defer listener.Close()
	t.Setenv("NOTIFY_SOCKET", socket)
	v.launch("serve", "--config", v.config)

	v.must(listener.SetReadDeadline(time.Now().Add(60 * time.Second)))
	text := make([]byte, 2048)
	n, err := listener.Read(text)
	v.must(err)
	if told := string(text[:n]); !strings.HasPrefix(told, "STATUS=Waiting for Vault (unreachable)") || !strings.Contains(told, "\nEXTEND_TIMEOUT_USEC=") {
		t.Errorf("C-10: systemd was told %q", told)
	}
	if status, body, err := v.get("/healthz"); err != nil || status != http.StatusOK {
		t.Errorf("C-10 live: %d %q %v", status, body, err)
	}
	if ready, report := v.ready(); ready || !strings.Contains(report.Parts[partVault].Detail, "unreachable") {
		t.Errorf("C-10 not ready: %v, %+v", ready, report)
	}
	v.await("C-10 no route is counted", func() bool {
		return v.metric(`keyd_vault_requests_total{operation="unwrap",result="unreachable"}`)
	})
	v.vault.Restart() // sealed
	v.await("C-10 sealed is counted", func() bool { return v.metric(`keyd_vault_requests_total{operation="unwrap",result="sealed"}`) })
	v.vault.Unseal()
	v.await("C-10 ready at last", func() bool { ready, _ := v.ready(); return ready })
	v.stop()
}

// TestVaultRefuses is C-10: what only an operator can mend is not hammered, and
// mended at once by SIGHUP.
func TestVaultRefuses(t *testing.T) {
	t.Parallel()
	v := newVaulted(t)
	v.set("token", "pin_source", "vault:secret/keyd/token#another")
	v.appRole()
	v.launch("serve", "--config", v.config)
	v.await("C-10 the refusal is counted", func() bool {
		return v.metric(`keyd_vault_requests_total{operation="kv",result="configuration"} 1`) && v.metric(`keyd_vault_alarms_total{cause="configuration"} 1`)
	})
	v.vault.Write("secret/data/keyd/token", map[string]any{"data": map[string]any{"another": v.pin}})
	if !strings.Contains(v.out.String(), `"cause":"configuration"`) {
		t.Errorf("the log does not say what is wrong:\n%s", v.out)
	}
	v.hangup()
	v.await("C-10 ready after SIGHUP", func() bool { ready, _ := v.ready(); return ready })
	v.stop()

	v.set("token", "pin_source", "vault:secret/keyd/token#third")
	v.secretID()
	v.launch("serve", "--config", v.config)
	v.await("C-10 it waits again", func() bool { return v.metric(`keyd_vault_alarms_total{cause="configuration"} 1`) })
	v.stop() // told to end while it waits: nothing failed
}

// TestVaultWrappedPIN is C-12: stolen and not stolen.
func TestVaultWrappedPIN(t *testing.T) {
	t.Parallel()
	v := newVaulted(t)
	wrapped := filepath.Join(v.dir, "wrapped-pin")
	put := func(token string) { v.must(os.WriteFile(wrapped, []byte(token), 0o600)) }
	v.set("token", "pin_source", "vault-wrapped:"+wrapped)
	v.section("wrapped_pin_from = \"secret/data/keyd/token\"\n")
	put(v.vault.Wrapped("secret/data/keyd/token", nil))
	v.start()
	v.stop()

	stolen := v.vault.Wrapped("secret/data/keyd/token", nil)
	v.vault.Unwrap(stolen)
	put(stolen)
	v.launch("serve", "--config", v.config)
	<-v.ended
	if code := v.proc.ProcessState.ExitCode(); code == exitDone || !strings.Contains(v.out.String(), "somebody else has unwrapped it") {
		t.Errorf("C-01: exit code %d:\n%s", code, v.out)
	}
	v.noSecret()
}

// TestVaultPKIReloadsUnderLoad is C-12: the API's certificate comes from Vault's
// PKI, is renewed every few seconds under load, and no call fails.
func TestVaultPKIReloadsUnderLoad(t *testing.T) {
	t.Parallel()
	v := newVaulted(t)
	v.set("token", "pin_source", "vault:secret/keyd/token#pin")
	v.set("api", "cert", "vault:api")
	v.set("api", "key", "")
	v.appRole()
	v.section("\n[[vault_certificate]]\nname = \"api\"\nrole = \"pki/keyd\"\ncommon_name = \"localhost\"\ndns = [\"localhost\"]\nip = [\"127.0.0.1\"]\nttl = \"9s\"\n")
	root := filepath.Join(v.dir, "vault-root.pem")
	v.must(os.WriteFile(root, []byte(v.vault.Read("pki/cert/ca").Data["certificate"].(string)), 0o600))
	v.roots = []string{root}
	v.start()
	serial := func() string {
		t.Helper()
		conn, err := tls.Dial("tcp", strings.TrimPrefix(v.dev.APIURL, "https://"), &tls.Config{RootCAs: v.pool()})
		v.must(err)
		defer conn.Close()
		return conn.ConnectionState().PeerCertificates[0].SerialNumber.String()
	}
	stop := v.traffic(4)
	last := serial()
	for i := range 3 {
		if i == 1 { // a renewal is due while Vault is sealed, and comes afterwards
			v.vault.Seal()
			v.await("C-08 a renewal failed", func() bool { return v.metric(`keyd_vault_requests_total{operation="sign",result="sealed"}`) })
			v.vault.Unseal()
		}
		var now string
		v.await("C-05 a new certificate", func() bool { now = serial(); return now != last })
		last = now
	}
	if n := stop(); n < 100 {
		t.Errorf("C-12: only %d calls in all that time", n)
	}
	v.stop()

	kept := filepath.Join(v.dir, "vault", "api.pem")
	info, err := os.Stat(kept)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("C-05: the pair on disk: %v, %v", info, err)
	}
	t.Run("C-05 an expired pair and no Vault: not ready, and no other certificate", func(t *testing.T) {
		text, err := os.ReadFile(kept)
		v.must(err)
		cert, err := tls.X509KeyPair(text, text)
		v.must(err)
		poll(t, "the pair has expired", func() bool { return time.Now().After(cert.Leaf.NotAfter) })
		v.vault.Stop()
		v.launch("serve", "--config", v.config)
		v.await("not ready", func() bool {
			_, report := v.ready()
			return strings.Contains(report.Parts[partVault].Detail, "the certificate api")
		})
		if _, err := tls.DialWithDialer(&net.Dialer{Timeout: time.Second}, "tcp", strings.TrimPrefix(v.dev.APIURL, "https://"), &tls.Config{InsecureSkipVerify: true}); err == nil {
			t.Error("somebody answers with a certificate")
		}
	})
}

// TestVaultStartsFromDisk is C-05: with the PIN elsewhere and a good pair on
// disk, a restart does without Vault.
func TestVaultStartsFromDisk(t *testing.T) {
	t.Parallel()
	v := newVaulted(t)
	pin := filepath.Join(v.dir, "pin")
	v.must(os.WriteFile(pin, []byte(v.pin), 0o600))
	v.set("token", "pin_source", "file:"+pin)
	v.set("api", "cert", "vault:api")
	v.set("api", "key", "")
	v.appRole()
	v.section("\n[[vault_certificate]]\nname = \"api\"\nrole = \"pki/keyd\"\ncommon_name = \"localhost\"\nip = [\"127.0.0.1\"]\nttl = \"1h\"\n")
	v.start()
	v.stop()
	v.vault.Stop()
	v.start()
	v.await("C-08 Vault is seen to be away", func() bool { return v.metric("keyd_vault_up 0") })
	v.stop()
}
