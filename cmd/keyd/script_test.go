package main

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/testscript"
)

// TestScripts runs the program itself, one process a command, as its users do.
func TestScripts(t *testing.T) {
	if _, err := findModule(""); err != nil {
		t.Fatalf("the scripts need SoftHSM: %v", err)
	}
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		Setup:               noScrub,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"waitfor":   cmdWaitfor,
			"waitready": cmdWaitready,
			"exits":     cmdExits,
			"edit":      cmdEdit,
			"flip":      cmdFlip,
			"jsonenv":   cmdJSONEnv,
			"samejson":  cmdSameJSON,
			"api":       cmdAPI,
			"lines":     cmdLines,
			"softokn":   cmdSoftokn,
			"oaep":      cmdOAEP,
			"signcsr":   cmdSignCSR,
			"behind":    cmdBehind,
			"issue":     cmdIssue,
			"newest":    cmdNewest,
			"expired":   cmdExpired,
			"desk":      cmdDesk,
			"daemon":    cmdDaemon,
			"forgotten": cmdForgotten,
			"firstline": cmdFirstline,
			"twin":      cmdTwin,
			"mac":       cmdMAC,
			"verifies":  cmdVerifies,
			"becomes":   cmdBecomes,
			"readyz":    cmdReadyz,
			"hold":      cmdHold,
			"release":   cmdRelease,
			"crowd":     cmdCrowd,
			"setkey":    cmdSetKey,
			"story":     cmdStory,
			"keyof":     cmdKeyOf,
			"recordenv": cmdRecordEnv,
			"sizeroot":  cmdSizeRoot,

			"reversalin":  cmdReversalIn,
			"reversalof":  cmdReversalOf,
			"bookhas":     cmdBookHas,
			"changesdone": cmdChangesDone,
			"linkis":      cmdLinkIs,
			"sql":         cmdSQL,
		},
	})
}

// noScrub fails a script whose daemons had to take something out of a record:
// what keyd writes itself fits the log's schema (L-74).
func noScrub(env *testscript.Env) error {
	keepsHeld(env)
	provesActions(env)
	if err := sings(env); err != nil {
		return err
	}
	env.Defer(func() {
		err := filepath.WalkDir(env.WorkDir, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || !strings.Contains(path, "/audit/") {
				return err
			}
			text, err := os.ReadFile(path)
			text = strangers.ReplaceAll(text, nil)
			if at := bytes.Index(text, []byte(`"scrub":[`)); at >= 0 {
				from := max(0, bytes.LastIndex(text[:at], []byte(`{"action":`)))
				return fmt.Errorf("a record was scrubbed: %.2000q", text[from:at+80])
			}
			return err
		})
		if err != nil {
			env.T().Fatal(err)
		}
	})
	return nil
}

// strangers are names that no registry has, which records hold as tokens: that is
// nobody's fault (L-93).
var strangers = regexp.MustCompile(`"scrub":\[(\{"field":"iso\.(term|merch)","why":"unregistered"\},?)+\]`)

// waitfor FILE waits until the file is there.
func cmdWaitfor(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: waitfor FILE")
	}
	for end := time.Now().Add(60 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if _, err := os.Stat(ts.MkAbs(args[0])); err == nil {
			return
		}
	}
	ts.Fatalf("%s did not appear within a minute", args[0])
}

// waitready DEV.JSON waits until the daemon of these addresses is ready; with a
// second argument, upstream, also until its link is.
func cmdWaitready(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 && (len(args) != 2 || args[1] != "upstream") {
		ts.Fatalf("usage: waitready DEV.JSON [upstream]")
	}
	var dev devReport
	ts.Check(json.Unmarshal([]byte(ts.ReadFile(args[0])), &dev))
	for end := time.Now().Add(60 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		resp, err := http.Get("http://" + dev.OpsAddr + "/readyz")
		if err != nil {
			continue
		}
		var report readiness
		err = json.NewDecoder(resp.Body).Decode(&report)
		resp.Body.Close()
		if err == nil && report.Ready && (len(args) == 1 || report.Parts["upstream"].OK) {
			return
		}
	}
	ts.Fatalf("the daemon was not ready within a minute")
}

// exits CODE COMMAND… runs a command that must end with this exit code.
func cmdExits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE COMMAND...")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	err = ts.Exec(args[1], args[2:]...)
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		got = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	if got != want {
		ts.Fatalf("exit code %d, want %d", got, want)
	}
}

// edit FILE OLD NEW replaces the one place where OLD stands.
func cmdEdit(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: edit FILE OLD NEW")
	}
	text := ts.ReadFile(args[0])
	if n := strings.Count(text, args[1]); n != 1 {
		ts.Fatalf("%q stands %d times in %s, want once", args[1], n, args[0])
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(strings.Replace(text, args[1], args[2], 1)), 0o600))
}

// flip PATTERN OFFSET changes one bit of the largest file that fits: of partial
// tiles, that of the newest checkpoint.
func cmdFlip(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: flip PATTERN OFFSET")
	}
	files, err := filepath.Glob(ts.MkAbs(args[0]))
	ts.Check(err)
	offset, err := strconv.Atoi(args[1])
	ts.Check(err)
	var path string
	var text []byte
	for _, file := range files {
		b, err := os.ReadFile(file)
		ts.Check(err)
		if len(b) > len(text) {
			path, text = file, b
		}
	}
	if offset >= len(text) {
		ts.Fatalf("%q has only %d bytes", path, len(text))
	}
	text[offset] ^= 1
	ts.Check(os.WriteFile(path, text, 0o600))
}

func readJSON(ts *testscript.TestScript, file string) map[string]any {
	var v map[string]any
	ts.Check(json.Unmarshal([]byte(ts.ReadFile(file)), &v))
	return v
}

// jsonenv VARIABLE FILE MEMBER sets a variable to a member of a JSON file.
func cmdJSONEnv(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: jsonenv VARIABLE FILE MEMBER")
	}
	var v any = readJSON(ts, args[1])
	for name := range strings.SplitSeq(args[2], ".") {
		object, ok := v.(map[string]any)
		if !ok || object[name] == nil {
			ts.Fatalf("%s has no member %s", args[1], args[2])
		}
		v = object[name]
	}
	ts.Setenv(args[0], fmt.Sprint(v))
}

// samejson FILE FILE MEMBER… compares all but the members named, which must differ.
func cmdSameJSON(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: samejson FILE FILE MEMBER...")
	}
	a, b := readJSON(ts, args[0]), readJSON(ts, args[1])
	for _, name := range args[2:] {
		if cmp.Equal(a[name], b[name]) {
			ts.Fatalf("member %s is the same in both", name)
		}
		delete(a, name)
		delete(b, name)
	}
	if diff := cmp.Diff(a, b); diff != "" {
		ts.Fatalf("the files differ (-first +second):\n%s", diff)
	}
}

// lines FILE COUNT says how many lines a file has.
func cmdLines(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: lines FILE COUNT")
	}
	if n := strings.Count(ts.ReadFile(args[0]), "\n"); strconv.Itoa(n) != args[1] {
		ts.Fatalf("%s has %d lines, want %s", args[0], n, args[1])
	}
}

// api DEV.JSON CLIENT TARGET BODY sends a control plane request as a client of
// a development daemon and prints status and body.
func cmdAPI(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 4 {
		ts.Fatalf("usage: [!] api DEV.JSON CLIENT TARGET BODY")
	}
	var dev devReport
	ts.Check(json.Unmarshal([]byte(ts.ReadFile(args[0])), &dev))
	client, ok := dev.Clients[args[1]]
	if !ok {
		ts.Fatalf("no client %q; there are %q", args[1], slices.Sorted(maps.Keys(dev.Clients)))
	}
	cert, err := tls.LoadX509KeyPair(client.Cert, client.Key)
	ts.Check(err)
	ca, err := os.ReadFile(dev.CACert)
	ts.Check(err)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{cert}}, DisableKeepAlives: true}
	req, err := http.NewRequest(http.MethodPost, dev.APIURL+"/", strings.NewReader(args[3]))
	ts.Check(err)
	req.Header.Set("Content-Type", "application/x-amz-json-1.0")
	req.Header.Set("X-Amz-Target", "PaymentCryptographyControlPlane."+args[2])
	resp, err := (&http.Client{Transport: transport, Timeout: 20 * time.Second}).Do(req)
	ts.Check(err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	ts.Check(err)
	if (resp.StatusCode == http.StatusOK) == neg {
		ts.Fatalf("status %d: %s", resp.StatusCode, body)
	}
	fmt.Fprintf(ts.Stdout(), "%d %s\n", resp.StatusCode, body)
}
