package main

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"keyd.dev/keyd/internal/custody"
)

// twin DIR OUT NAME URI has the CA of a development daemon sign another
// certificate of the subject NAME, for the client of the URI, into OUT.
func cmdTwin(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 4 {
		ts.Fatalf("usage: twin DIR OUT NAME URI")
	}
	ca, err := openDevCA(ts.MkAbs(args[0] + "/pki"))
	ts.Check(err)
	ca.dir = ts.MkAbs(args[1])
	ts.Check(os.MkdirAll(ca.dir, 0o700))
	ts.Check(ca.issueClient(clientConfig{Name: args[2], URI: args[3]}))
}

// newest VARIABLE FILE OPERATION sets a variable to the reference of the newest
// request for the operation, in the lines of `keyd approvals ls --json`.
func cmdNewest(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: newest VARIABLE FILE OPERATION")
	}
	for line := range strings.Lines(ts.ReadFile(args[1])) {
		var a approvalAnswer
		ts.Check(json.Unmarshal([]byte(line), &a))
		if a.Operation == args[2] {
			ts.Setenv(args[0], a.Reference)
			return
		}
	}
	ts.Fatalf("%s has no request for %s", args[1], args[2])
}

// expired DIR REFERENCE waits until a request, or its approval, has expired.
func cmdExpired(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: expired DIR REFERENCE")
	}
	row := regexp.MustCompile(args[1] + " +EXPIRED")
	for end := time.Now().Add(60 * time.Second); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		ts.Check(ts.Exec("keyd", "approvals", "ls", "--all", "--dev", args[0], "--as", "admin"))
		if row.MatchString(ts.ReadFile("stdout")) {
			return
		}
	}
	ts.Fatalf("%s did not expire within a minute", args[1])
}

// TestOperationsOfAClient: the list in the configuration narrows the role.
func TestOperationsOfAClient(t *testing.T) {
	dir := t.TempDir()
	startDev(t, dir, "--no-sim").stop()
	path := filepath.Join(dir, "keyd.toml")
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	narrowed := strings.Replace(string(text), "name = 'switch'\n", "name = 'switch'\noperations = ['GetAlias']\n", 1)
	if err := os.WriteFile(path, []byte(narrowed), 0o600); err != nil {
		t.Fatal(err)
	}
	r := startDev(t, dir, "--no-sim")
	defer r.stop()
	as := &http.Client{Transport: &http.Transport{TLSClientConfig: r.tls("switch")}, Timeout: 10 * time.Second}
	defer as.CloseIdleConnections()
	for _, p := range probes() {
		if p.op != custody.OpGetAlias && p.op != custody.OpListAliases && p.op != custody.OpVerifyMAC {
			continue
		}
		if denied, _, answer := p.try(t, as, r.dev.APIURL); denied != (p.op != custody.OpGetAlias) {
			t.Errorf("%s: denied = %v: %s", p.op, denied, answer)
		}
	}
}
