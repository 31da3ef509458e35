package siem

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"keyd.dev/keyd/audit"
)

// authority signs certificates for a test.
type authority struct {
	t    testing.TB
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	n    int64
}

func newAuthority(t testing.TB) *authority {
	t.Helper()
	a := &authority{t: t, dir: t.TempDir(), n: 1}
	a.key = newKey(t)
	der := a.sign(&x509.Certificate{IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}, nil, a.key, "ca")
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	a.cert = cert
	return a
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func (a *authority) sign(c *x509.Certificate, parent *x509.Certificate, key *ecdsa.PrivateKey, name string) []byte {
	a.t.Helper()
	a.n++
	c.SerialNumber, c.Subject = big.NewInt(a.n), pkix.Name{CommonName: name}
	if c.NotAfter.IsZero() {
		c.NotAfter = time.Now().Add(time.Hour)
	}
	c.NotBefore = time.Now().Add(-48 * time.Hour)
	if parent == nil {
		parent = c
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, &key.PublicKey, a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	a.write(name+".pem", "CERTIFICATE", der)
	return der
}

func (a *authority) write(name, kind string, der []byte) {
	a.t.Helper()
	if err := os.WriteFile(filepath.Join(a.dir, name), pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		a.t.Fatal(err)
	}
}

// issue makes NAME.pem and NAME.key.
func (a *authority) issue(name string, ends time.Time, usage x509.ExtKeyUsage) tls.Certificate {
	a.t.Helper()
	key := newKey(a.t)
	der := a.sign(&x509.Certificate{
		DNSNames: []string{name}, NotAfter: ends, KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{usage},
	}, a.cert, key, name)
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		a.t.Fatal(err)
	}
	a.write(name+".key", "PRIVATE KEY", pkcs8)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func (a *authority) pool() *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(a.cert)
	return p
}

// The names in certificates of tests.
const (
	receiverName = "siem.example"
	senderName   = "keyd.example"
)

// client is our end.
func (a *authority) client(version uint16) func() *tls.Config {
	cert := a.issue(senderName, time.Time{}, x509.ExtKeyUsageClientAuth)
	return func() *tls.Config {
		return &tls.Config{MinVersion: tls.VersionTLS12, MaxVersion: version, ServerName: receiverName, RootCAs: a.pool(), Certificates: []tls.Certificate{cert}}
	}
}

func syslogTarget(t testing.TB, address string, config func() *tls.Config) *Syslog {
	t.Helper()
	s, err := NewSyslog(SyslogConfig{Address: address, TLS: config})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// rsyslog is a real rsyslogd of Debian that listens by TLS and writes what it
// gets into a file, a message a line.
type rsyslog struct {
	t       testing.TB
	address string
	out     string
	conf    string
	cmd     *exec.Cmd
	said    *bytes.Buffer
}

// newRsyslog writes the configuration that docs/OPERATIONS.md recommends, for the
// TLS library gtls or ossl.
func newRsyslog(t testing.TB, a *authority, library string) *rsyslog {
	t.Helper()
	dir := t.TempDir()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &rsyslog{t: t, address: l.Addr().String(), out: filepath.Join(dir, "received"), conf: filepath.Join(dir, "rsyslog.conf")}
	l.Close()
	a.issue(receiverName, time.Time{}, x509.ExtKeyUsageServerAuth)
	_, port, _ := net.SplitHostPort(r.address)
	text := fmt.Sprintf(`global(workDirectory=%q maxMessageSize="16k" defaultNetstreamDriver=%q
  defaultNetstreamDriverCAFile=%q defaultNetstreamDriverCertFile=%q defaultNetstreamDriverKeyFile=%q)
module(load="imtcp" streamDriver.name=%q streamDriver.mode="1" streamDriver.authMode="x509/name" permittedPeer=[%q])
template(name="bytes" type="string" string="%%rawmsg%%\n")
ruleset(name="keyd" queue.type="Direct") {
  action(type="omfile" file=%q template="bytes")
}
input(type="imtcp" address="127.0.0.1" port=%q ruleset="keyd")
`, dir, library, filepath.Join(a.dir, "ca.pem"), filepath.Join(a.dir, receiverName+".pem"), filepath.Join(a.dir, receiverName+".key"),
		library, senderName, r.out, port)
	if err := os.WriteFile(r.conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.kill)
	return r
}

// start runs it until it listens.
func (r *rsyslog) start() {
	r.t.Helper()
	program, err := exec.LookPath("rsyslogd")
	if err != nil {
		program = "/usr/sbin/rsyslogd"
	}
	r.said = &bytes.Buffer{}
	r.cmd = exec.Command(program, "-n", "-f", r.conf, "-i", r.conf+".pid")
	r.cmd.Stdout, r.cmd.Stderr = r.said, r.said
	if err := r.cmd.Start(); err != nil {
		r.t.Fatalf("starting rsyslogd; scripts/deps.sh test installs it: %v", err)
	}
	eventually(r.t, "rsyslogd listens", func() bool {
		conn, err := net.Dial("tcp", r.address)
		if err == nil {
			conn.Close()
		}
		return err == nil
	})
}

// kill is SIGKILL, which leaves it no time for anything.
func (r *rsyslog) kill() {
	if r.cmd == nil {
		return
	}
	_ = r.cmd.Process.Kill()
	_ = r.cmd.Wait()
	r.cmd = nil
	_ = os.Remove(r.conf + ".pid")
	if r.t.Failed() && r.said.Len() > 0 {
		r.t.Logf("rsyslogd: %s", r.said)
	}
}

// arrived counts the lines that it has written.
func (r *rsyslog) arrived() int {
	text, _ := os.ReadFile(r.out)
	return bytes.Count(text, []byte("\n"))
}

// TestRsyslog: L-160 to L-163: a real rsyslogd, by TLS 1.2 and 1.3, with either
// of its TLS libraries, is killed with SIGKILL and started again while records
// are written, with some in its socket that TCP acknowledged and it never read;
// the exporter is killed too. In the end it has every record, bytes
// unchanged, so that the roots recomputed from what it wrote are those of the
// signed checkpoints that it has.
func TestRsyslog(t *testing.T) {
	for _, c := range []struct {
		name, library string
		version       uint16
		receipt       bool // it answers the end of a session in TLS
	}{
		{"L-162 gtls, TLS 1.3", "gtls", tls.VersionTLS13, false},
		{"L-162 ossl, TLS 1.2", "ossl", tls.VersionTLS12, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel() // most of it is waiting
			a := newAuthority(t)
			config := a.client(c.version)
			r := newRsyslog(t, a, c.library)
			r.start()
			l := newTestLog(t)
			target := syslogTarget(t, r.address, config)
			e := l.export(target, nil)
			enough, done := make(chan struct{}), make(chan struct{})
			stop := sync.OnceFunc(func() { close(enough); <-done })
			t.Cleanup(stop)
			go func() {
				defer close(done)
				for !isDone(enough) {
					l.write(audit.Ops, 50)
					l.write(audit.Sec, 1)
				}
			}()
			taken := func() (n uint64) {
				for _, next := range e.Status().Next {
					n += next
				}
				return n
			}
			for i := range 4 {
				was := r.arrived()
				eventually(t, "it receives", func() bool { return r.arrived() > was+100 })
				has := taken() // which moves on once everything was sent again
				eventually(t, "it receives what is new", func() bool { return taken() > has })
				// Its system takes records that it does not come to read, until the
				// socket is full.
				if err := r.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
					t.Fatal(err)
				}
				has = taken()
				fails := e.Status().Failures
				eventually(t, "records lie in its socket", func() bool { return taken() > has+20 || e.Status().Failures > fails })
				if i == 2 { // the exporter is killed too
					e.kill()
					e = l.export(target, nil)
				}
				r.kill()
				r.start()
			}
			stop()
			eventually(t, "rsyslogd has all of it", func() bool { return l.holds(r.out, l.sizes()) })
			l.close()
			e.Drain()
			<-e.done
			eventually(t, "rsyslogd has the records of the stop", func() bool { return l.holds(r.out, l.sizes()) })
			s := e.Status()
			for log, size := range l.sizes() {
				if c.receipt && s.Kept[log] != size {
					t.Errorf("after an orderly end the cursor of %s is at %d, want %d: rsyslogd gave no receipt", log, s.Kept[log], size)
				}
			}
		})
	}
}

func isDone(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}
