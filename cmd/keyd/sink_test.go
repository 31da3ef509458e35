package main

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestSinks: L-160 to L-164 through the front door: a daemon in its sandbox sends
// its log to a real rsyslogd by TLS and into a file. Both are killed with SIGKILL
// and started again, in turn and together, while records are written. In the end
// `keyd audit sink check` proves from what rsyslogd and the file have that
// nothing is missing.
func TestSinks(t *testing.T) {
	k := newKillable(t)
	k.start()
	k.stop()
	pki, received, copied := filepath.Join(k.dir, "pki"), filepath.Join(k.base, "received"), filepath.Join(k.base, "copy.log")
	conf := filepath.Join(k.base, "rsyslog.conf")
	address := quietAddrs(t, 1)[0]
	config := filepath.Join(k.dir, "keyd.toml")
	appendTo(t, config, fmt.Sprintf(`
[[audit_sink]]
name = "siem-a"
address = %q
server_name = "localhost"
ca = "pki/ca.pem"
cert = "pki/admin.pem"
key = "pki/admin.key"
pen = 32473
lag_alarm = "1s"

[[audit_sink]]
name = "copy"
type = "file"
path = %q
pen = 32473
`, address, copied))
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	appendTo(t, conf, fmt.Sprintf(`global(workDirectory=%q maxMessageSize="16k" defaultNetstreamDriver="ossl"
  defaultNetstreamDriverCAFile=%q defaultNetstreamDriverCertFile=%q defaultNetstreamDriverKeyFile=%q)
module(load="imtcp" streamDriver.name="ossl" streamDriver.mode="1" streamDriver.authMode="x509/certvalid")
template(name="text" type="string" string="%%msg%%\n")
ruleset(name="keyd" queue.type="Direct") { action(type="omfile" file=%q template="text") }
input(type="imtcp" address="127.0.0.1" port=%q ruleset="keyd")
`, k.base, filepath.Join(pki, "ca.pem"), filepath.Join(pki, "server.pem"), filepath.Join(pki, "server.key"), received, port))
	receiver := &rsyslogd{t: t, conf: conf, address: address}
	t.Cleanup(receiver.kill)

	work := func() {
		for range 5 {
			if out, code := keyd(t, "audit", "ls", "--config", config, "--limit", "1"); code != exitDone {
				t.Fatalf("keyd audit ls ended with %d: %s", code, out)
			}
		}
	}
	k.start() // before its receiver
	work()
	poll(t, "the receiver that is away is alarmed", func() bool {
		out, _ := keyd(t, "audit", "ls", "--dir", filepath.Join(k.dir, "audit"), "--action", "log.sink", "--json")
		return strings.Contains(out, `"code":"sink_failed"`) && strings.Contains(out, `"code":"sink_lagging"`)
	})
	receiver.start()
	for round := range 4 {
		poll(t, "records arrive", func() bool { work(); return lineCount(received) > 40*(round+1) })
		if round%2 == 0 {
			receiver.kill()
		}
		if round > 0 {
			work()
			k.kill()
			k.start()
		}
		if round%2 == 0 {
			receiver.start()
		}
	}
	poll(t, "the end of the trouble is recorded", func() bool {
		out, _ := keyd(t, "audit", "ls", "--dir", filepath.Join(k.dir, "audit"), "--action", "log.sink", "--json")
		return strings.Contains(out, `"code":"sink_resumed"`)
	})
	k.stop()
	for _, file := range []string{received, copied} {
		out, code := keyd(t, "audit", "sink", "check", "--vkey", filepath.Join(k.dir, "audit.vkey"), file)
		if code != exitDone || !strings.Contains(out, "\nOK audit.dev.example/n1/sec size=") {
			t.Errorf("%s: exit %d\n%s", filepath.Base(file), code, out)
		}
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if n := bytes.Count(text, []byte(`"action":"sys.stop"`)); n == 0 {
			t.Errorf("%s does not have the stop", filepath.Base(file))
		}
	}
	if err := k.verify(t.Context()); err != nil {
		t.Error(err)
	}
}

// rsyslogd is the receiver of Debian, as scripts/deps.sh installs it for tests.
type rsyslogd struct {
	t             *testing.T
	conf, address string
	cmd           *exec.Cmd
}

func (r *rsyslogd) start() {
	r.t.Helper()
	r.cmd = exec.Command("/usr/sbin/rsyslogd", "-n", "-f", r.conf, "-i", r.conf+".pid")
	r.cmd.Stdout, r.cmd.Stderr = io.Discard, io.Discard
	if err := r.cmd.Start(); err != nil {
		r.t.Fatalf("starting rsyslogd, which scripts/deps.sh test installs: %v", err)
	}
	poll(r.t, "rsyslogd listens", func() bool {
		conn, err := net.DialTimeout("tcp", r.address, time.Second)
		if err == nil {
			conn.Close()
		}
		return err == nil
	})
}

func (r *rsyslogd) kill() {
	if r.cmd == nil {
		return
	}
	_ = r.cmd.Process.Kill()
	_ = r.cmd.Wait()
	_ = os.Remove(r.conf + ".pid")
	r.cmd = nil
}

// keyd runs a command in this process.
func keyd(t *testing.T, args ...string) (said string, code int) {
	t.Helper()
	var out bytes.Buffer
	code = run(t.Context(), args, strings.NewReader(""), &out, &out)
	return out.String(), code
}

func appendTo(t *testing.T, path, text string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteString(text); err != nil {
		t.Fatal(err)
	}
}

func lineCount(path string) int {
	text, _ := os.ReadFile(path)
	return bytes.Count(text, []byte("\n"))
}
