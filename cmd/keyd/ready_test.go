package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// readyz DEV.JSON ready|unready PART TEXT waits until /readyz has that verdict
// and says of the part, which is not ok, something with TEXT in it. All other
// vital parts must be ok, the process must be live, and the metric must agree.
func cmdReadyz(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 4 || args[1] != "ready" && args[1] != "unready" {
		ts.Fatalf("usage: readyz DEV.JSON ready|unready PART TEXT")
	}
	var dev devReport
	ts.Check(json.Unmarshal([]byte(ts.ReadFile(args[0])), &dev))
	body, complaint := "", ""
	for end := time.Now().Add(60 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		var status int
		if status, body = opsGet(dev.OpsAddr, "/readyz"); status == 0 {
			continue
		}
		var report readiness
		ts.Check(json.Unmarshal([]byte(body), &report))
		if complaint = readyComplaint(report, status, args[1] == "ready", args[2], args[3]); complaint != "" {
			continue
		}
		if status, live := opsGet(dev.OpsAddr, "/healthz"); status != http.StatusOK || live != "ok\n" {
			ts.Fatalf("/healthz: %d %q beside %s", status, live, body)
		}
		_, metrics := opsGet(dev.OpsAddr, "/metrics")
		if want := fmt.Sprintf("\nkeyd_part_ready{part=%q} 0\n", args[2]); !strings.Contains(metrics, want) {
			complaint = "the metric says something else"
			continue
		}
		return
	}
	ts.Fatalf("within a minute: %s: %s", complaint, body)
}

func readyComplaint(r readiness, status int, ready bool, part, text string) string {
	wantStatus, wantNot := http.StatusOK, ""
	if !ready {
		wantStatus, wantNot = http.StatusServiceUnavailable, part
	}
	switch p, known := r.Parts[part]; {
	case r.Ready != ready || status != wantStatus:
		return "another verdict"
	case strings.Join(r.NotReady, " ") != wantNot:
		return "another part"
	case !known || p.OK || !strings.Contains(p.Detail, text):
		return "another reason"
	}
	return ""
}

func opsGet(addr, path string) (int, string) {
	resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 10 * time.Second}).Get("http://" + addr + path)
	if err != nil {
		return 0, ""
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, ""
	}
	return resp.StatusCode, string(body)
}

// heldKey is where a script's value for held files is.
type heldKey struct{}

// hold PATTERN… locks files for this process, as another user of a SoftHSM token
// does: calls into the module that need them wait. release lets them go.
func cmdHold(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 {
		ts.Fatalf("usage: hold PATTERN...")
	}
	held := heldFiles(ts)
	for _, pattern := range args {
		names, err := filepath.Glob(ts.MkAbs(pattern))
		ts.Check(err)
		for _, name := range names {
			f, err := os.OpenFile(name, os.O_RDWR, 0)
			ts.Check(err)
			*held = append(*held, f)
			ts.Check(syscall.FcntlFlock(f.Fd(), syscall.F_SETLKW, &syscall.Flock_t{Type: syscall.F_WRLCK}))
		}
	}
	if len(*held) == 0 {
		ts.Fatalf("no file fits")
	}
}

func cmdRelease(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 0 {
		ts.Fatalf("usage: release")
	}
	releaseFiles(heldFiles(ts))
}

func heldFiles(ts *testscript.TestScript) *[]*os.File { return ts.Value(heldKey{}).(*[]*os.File) }

func releaseFiles(held *[]*os.File) {
	for _, f := range *held {
		f.Close()
	}
	*held = nil
}

// keepsHeld prepares a script for hold, and lets go of what it leaves.
func keepsHeld(env *testscript.Env) {
	held := new([]*os.File)
	env.Values[heldKey{}] = held
	env.Defer(func() { releaseFiles(held) })
}

// crowd FILE PERCENT makes FILE as large as it takes for less than PERCENT of
// its disk to be free.
func cmdCrowd(ts *testscript.TestScript, neg bool, args []string) {
	percent := 0
	if neg || len(args) != 2 {
		ts.Fatalf("usage: crowd FILE PERCENT")
	}
	_, err := fmt.Sscan(args[1], &percent)
	ts.Check(err)
	f, err := os.Create(ts.MkAbs(args[0]))
	ts.Check(err)
	defer f.Close()
	var disk syscall.Statfs_t
	ts.Check(syscall.Fstatfs(int(f.Fd()), &disk))
	limit := disk.Blocks / 100 * uint64(percent)
	if disk.Bavail < limit {
		return
	}
	ts.Check(syscall.Fallocate(int(f.Fd()), 0, 0, int64(disk.Bavail-limit+disk.Blocks/100)*disk.Bsize))
}

// setkey FILE SECTION KEY VALUE sets a key of a configuration, in place of one
// that is there.
func cmdSetKey(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 4 {
		ts.Fatalf("usage: setkey FILE SECTION KEY VALUE")
	}
	var out strings.Builder
	in, found := false, false
	for line := range strings.Lines(ts.ReadFile(args[0])) {
		if strings.HasPrefix(line, "[") {
			in = strings.TrimSpace(line) == "["+args[1]+"]"
		}
		if name, _, ok := strings.Cut(line, "="); in && ok && strings.TrimSpace(name) == args[2] {
			continue
		}
		out.WriteString(line)
		if in && strings.HasPrefix(line, "[") {
			found = true
			fmt.Fprintf(&out, "%s = %s\n", args[2], args[3])
		}
	}
	if !found {
		ts.Fatalf("%s has no section [%s]", args[0], args[1])
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(out.String()), 0o600))
}
