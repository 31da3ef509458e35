package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"keyd.dev/keyd/internal/iso8583"
	"keyd.dev/keyd/internal/sim"
)

// unmountable ends a test that needs a file system of its own where none can be
// mounted: a failure where everything must be tested, a loud notice elsewhere.
func unmountable(t *testing.T, err error) {
	t.Helper()
	if os.Getenv("CI") != "" {
		t.Fatalf("no file system can be mounted here: %v", err)
	}
	t.Logf("NOT TESTED: NO FILE SYSTEM CAN BE MOUNTED HERE (%v)", err)
}

// walFault fails calls on the segments of the write-ahead log.
func walFault(op string, errno syscall.Errno) func(string, string) syscall.Errno {
	return func(o, path string) syscall.Errno {
		if o == op && strings.Contains(path, "/audit/wal/wal-") && !strings.HasSuffix(path, ".tmp") {
			return errno
		}
		return 0
	}
}

// TestAuditDiskFails is L-22, L-130 and L-195 on a daemon at work: the disk of its
// audit log fails, as the kernel reports it. From then on nothing is answered as
// done; the daemon says so to operators, metrics and standard error; once the disk
// is well again a restart needs no help, and the log says what happened.
func TestAuditDiskFails(t *testing.T) {
	disk, err := newLossyDisk(t)
	if err != nil {
		unmountable(t, err)
		return
	}
	s := newPowered(t, disk)
	for _, c := range []struct {
		name  string
		fault func(string, string) syscall.Errno
		says  string
	}{
		{"EIO on write", walFault("write", syscall.EIO), "input/output error"},
		{"EIO on fdatasync", walFault("fsync", syscall.EIO), "input/output error"},
		{"ENOSPC on write", walFault("write", syscall.ENOSPC), "no space left on device"},
	} {
		t.Run("L-22 L-130 L-195 "+c.name, func(t *testing.T) {
			s.t, s.k.t, s.issuer.t = t, t, t
			s.dial(t)
			defer s.link.Close()
			s.wants(t, "00")
			before, said := len(s.answered), len(s.k.output())
			disk.breaks(c.fault)
			s.closed(t, "log_unavailable")
			if text := s.k.output()[said:]; !strings.Contains(text, `"code":"log_unavailable"`) || !strings.Contains(text, c.says) {
				t.Errorf("standard error does not tell of it:\n%s", tail(text, 3000))
			}
			s.endsFailed(t)
			disk.breaks(nil)
			s.answered = s.answered[:before] // what was refused is in no log
			s.again(t)
			s.logHas(t, "log.poisoned", 1)
		})
	}
	s.t, s.k.t, s.issuer.t = t, t, t
	if t.Failed() {
		return
	}
	t.Run("L-135 L-58 L-195 EIO on rename of tiles", func(t *testing.T) { s.tilesFail(t, disk) })
	s.t, s.k.t, s.issuer.t = t, t, t
	s.k.stop()
	s.issuer.stop()
	s.k.healthy()
}

// tilesFail: what checkpoints need fails, and appending goes on, until the tail
// that nobody signed is too old; when the disk is well again so is the node.
func (s *powered) tilesFail(t *testing.T, disk *lossyDisk) {
	t.Helper()
	s.k.t = t
	s.k.stop()
	s.k.edit("unsigned_limit", "'13s'")
	s.k.start()
	s.k.linked()
	s.dial(t)
	defer func() { s.link.Close() }()
	disk.breaks(func(op, path string) syscall.Errno {
		if op == "rename" && strings.Contains(path, "/audit/") && !strings.Contains(path, "/wal/") {
			return syscall.EIO
		}
		return 0
	})
	s.wants(t, "00") // L-135: the answer does not wait for tiles
	s.k.await("the tail is too old", time.Minute, func() bool { return !s.auditReady() })
	before := len(s.answered)
	s.closed(t, "checkpoint_failed")
	s.answered = s.answered[:before]
	disk.breaks(nil)
	s.k.await("checkpoints are signed again", time.Minute, s.auditReady)
	s.k.linked()
	s.wants(t, "00")
	if err := s.k.verify(t.Context()); err != nil {
		t.Error(err)
	}
	s.logHas(t, "log.checkpoint.fail", 2) // L-138: the beginning and the end
}

// dial opens the link that the terminal keeps over a fault.
func (s *powered) dial(t *testing.T) {
	t.Helper()
	config, err := devTLS(s.k.dev.Load(), "terminal")
	if err != nil {
		t.Fatal(err)
	}
	if s.link, err = sim.Dial(t.Context(), s.k.dev.Load().SwitchAddr, config, 20*time.Second); err != nil {
		t.Fatal(err)
	}
}

// sale has one terminal sell, and returns the answer's DE 39.
func (s *powered) sale() (string, error) {
	sale, err := s.terminals[0].Sale(1500, sim.Card{PAN: killPAN, PIN: testPIN}, nil)
	if err != nil {
		return "", err
	}
	s.sold = sale
	return s.code(sale, false)
}

// reverse reverses a sale, and returns the answer's DE 39.
func (s *powered) reverse(sale *sim.Sent) (string, error) {
	back, err := s.terminals[0].Reversal(iso8583.ReversalRequest, sale, "", "", nil)
	if err != nil {
		return "", err
	}
	return s.code(back, true)
}

// code sends a message and returns the answer's DE 39. Only a refusal may come
// without a MAC: the use of the key for it could not be recorded.
func (s *powered) code(sent *sim.Sent, reversal bool) (string, error) {
	raw, err := s.link.Exchange(sent.Raw)
	if err != nil {
		return "", err
	}
	got, err := s.terminals[0].Answer(sent, raw)
	if errors.Is(err, sim.ErrAnswer) && got.Text(39) == "96" {
		return "96", nil
	}
	if err != nil {
		return "", err
	}
	s.answered = append(s.answered, answer{sent.Message.Text(41), sent.Message.Text(11), reversal, got.Text(39)})
	return got.Text(39), nil
}

func (s *powered) wants(t *testing.T, code string) {
	t.Helper()
	if got, err := s.sale(); err != nil || got != code {
		t.Fatalf("a sale: DE 39 %q, %v, want %q\n%s", got, err, code, tail(s.k.output(), 3000))
	}
}

func (s *powered) auditReady() bool {
	report, err := s.k.readiness()
	return err == nil && report.Parts["audit"].OK
}

// closed fails unless a node whose log fails closed does so at every door, and
// alarms.
func (s *powered) closed(t *testing.T, alarm string) {
	t.Helper()
	last := s.sold
	for range 3 {
		s.wants(t, "96")
	}
	// No answer is as good: the terminal keeps the reversal and repeats it.
	if code, err := s.reverse(last); err == nil && code != "96" {
		t.Errorf("L-130: a reversal got %q", code)
	}
	if status, text, err := s.mac(); err != nil || status < 500 {
		t.Errorf("L-130: the API answers %d %s, %v", status, text, err)
	}
	report, err := s.k.readiness()
	if err != nil || report.Ready || report.Parts["audit"].OK || report.Parts["audit"].Detail == "" {
		t.Errorf("L-130: readyz: %+v, %v", report, err)
	}
	if lines := s.metrics(t, "keyd_audit_ready "); lines != nil {
		t.Errorf("L-130: the metrics say %q", lines)
	}
	if lines := s.metrics(t, `keyd_audit_alarms_total{code="`+alarm+`"`); lines == nil {
		t.Errorf("L-130: no alarm %s in the metrics", alarm)
	}
}

// mac asks the API for a MAC.
func (s *powered) mac() (status int, text string, err error) {
	config, err := devTLS(s.k.dev.Load(), "switch")
	if err != nil {
		return 0, "", err
	}
	client := http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{TLSClientConfig: config, DisableKeepAlives: true}}
	resp, err := client.Post(s.k.dev.Load().APIURL+"/mac/generate", "application/json", strings.NewReader(crowdMAC))
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(b), err
}

// metrics are the lines of the daemon's metrics that begin so, but for zeros.
func (s *powered) metrics(t *testing.T, prefix string) (lines []string) {
	t.Helper()
	resp, err := http.Get("http://" + s.k.dev.Load().OpsAddr + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if strings.HasPrefix(line, prefix) && !strings.HasSuffix(line, " 0\n") {
			lines = append(lines, line)
		}
	}
	return lines
}

// endsFailed stops a daemon whose log failed: it must end, and say by its exit
// code that it could not close its log in order.
func (s *powered) endsFailed(t *testing.T) {
	t.Helper()
	if err := s.k.proc.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		t.Fatal(err)
	}
	select {
	case <-s.k.ended:
	case <-time.After(killableStop):
		s.k.kill()
		t.Fatal("the daemon does not end")
	}
	if code := s.k.proc.ProcessState.ExitCode(); code != exitFailed {
		t.Errorf("exit code %d, want %d", code, exitFailed)
	}
}

// again starts the daemon, which must need no help, and looks at what it kept.
func (s *powered) again(t *testing.T) {
	t.Helper()
	s.k.start()
	s.k.linked()
	_ = s.link.Close()
	s.dial(t)
	for _, wrong := range s.missing() {
		t.Errorf("L-13: %s", wrong)
	}
	if err := s.k.verify(t.Context()); err != nil {
		t.Error(err)
	}
	s.wants(t, "00")
}

// logHas fails unless sec has so many records of an action since the newest start.
func (s *powered) logHas(t *testing.T, action string, want int) {
	t.Helper()
	out, err := keydCommand(t.Context(), "audit", "ls", "--dir", filepath.Join(s.k.dir, "audit"), "--log", "sec", "--limit", "0", "--json").Output()
	if err != nil {
		t.Fatalf("keyd audit ls: %v", err)
	}
	n := 0
	for line := range bytes.Lines(out) {
		var r listed
		if err := json.Unmarshal(line, &r); err != nil {
			t.Fatal(err)
		}
		switch r.Action {
		case "sys.start":
			n = 0
		case action:
			n++
		}
	}
	if n < want {
		t.Errorf("L-63: %d records of %s since the start, want %d", n, action, want)
	}
}
