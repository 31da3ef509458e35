package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/creack/pty"
	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"
	"golang.org/x/term"
)

// deskPatience bounds the wait for a text on a pseudo-terminal.
const deskPatience = 30 * time.Second

// desk DIALOGUE… plays each file at a pseudo-terminal of its own, all at a
// time. A file begins with the command; its lines are:
//
//	run COMMAND…      the command, with the terminal as its controlling one
//	as PATH           second line: the files of the command's certificate and key
//	expect TEXT       wait until the terminal shows it, after what was last waited for
//	capture VAR EXPR  wait for a match of the expression; the variable is its first group
//	send TEXT         type it, and Enter
//	type TEXT         type it
//	key C             type the control character of the letter
//	hangup            take the terminal away
//	signal NAME       send INT, TERM, HUP or KILL to the command
//	also COMMAND…     run another command to its end
//	until EXPR COMMAND…  run another command until what it prints matches
//	kill DEV.JSON     end the daemon at once
//	exit CODE         what the command must return; default 0
//
// Variables of the script are expanded, so that no component need stand in a
// file. Afterwards the terminal must be as it was.
func cmdDesk(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 {
		ts.Fatalf("usage: desk DIALOGUE...")
	}
	desks := make([]*desk, len(args))
	for i, name := range args {
		d, err := newDesk(ts, name)
		ts.Check(err)
		desks[i] = d
	}
	var group sync.WaitGroup
	failed := make([]error, len(desks))
	for i, d := range desks {
		group.Go(func() { failed[i] = d.play() })
	}
	group.Wait()
	for i, d := range desks {
		for name, value := range d.captured {
			ts.Setenv(name, value)
		}
		fmt.Fprint(ts.Stdout(), d.stdout.String())
		fmt.Fprint(ts.Stderr(), d.stderr.String())
		if failed[i] != nil {
			ts.Fatalf("%s: %v\nthe terminal showed:\n%s\nstandard error:\n%s", args[i], failed[i], d.seen(), d.stderr.String())
		}
	}
}

type deskLine struct{ verb, rest string }

// desk is one terminal with a command at it.
type desk struct {
	lines    []deskLine
	path     func(string) string
	dir      string
	search   string
	env      []string
	cmd      *exec.Cmd
	stdout   bytes.Buffer
	stderr   bytes.Buffer
	captured map[string]string

	mu     sync.Mutex
	screen []byte // all that was shown
	at     int    // how far it was waited for
	more   chan struct{}
	gone   bool
}

func newDesk(ts *testscript.TestScript, name string) (*desk, error) {
	d := &desk{captured: make(map[string]string), more: make(chan struct{}, 1), path: ts.MkAbs}
	expand := func(text string) string {
		return os.Expand(text, func(variable string) string {
			if value := ts.Getenv(variable); value != "" {
				return value
			}
			return "${" + variable + "}" // may be captured on the way
		})
	}
	for row := range strings.Lines(ts.ReadFile(name)) {
		row = strings.TrimRight(row, "\n")
		if row == "" || strings.HasPrefix(row, "#") {
			continue
		}
		verb, rest, _ := strings.Cut(row, " ")
		if verb != "capture" {
			rest = expand(rest)
		}
		d.lines = append(d.lines, deskLine{verb, rest})
	}
	if len(d.lines) == 0 || d.lines[0].verb != "run" {
		return nil, errors.New("the first line must be run COMMAND")
	}
	d.dir, d.search = ts.MkAbs("."), ts.Getenv("PATH")
	for _, name := range []string{"KEYD_URL", "KEYD_CA", "KEYD_CERT", "KEYD_KEY"} {
		if value := ts.Getenv(name); value != "" {
			d.env = append(d.env, name+"="+value)
		}
	}
	if len(d.lines) > 1 && d.lines[1].verb == "as" {
		d.env = append(d.env, "KEYD_CERT="+d.lines[1].rest+".pem", "KEYD_KEY="+d.lines[1].rest+".key")
		d.lines[1] = d.lines[0]
		d.lines = d.lines[1:]
	}
	d.cmd = d.other(d.lines[0].rest)
	d.cmd.Stdout, d.cmd.Stderr = &d.stdout, &d.stderr
	d.lines = d.lines[1:]
	return d, nil
}

// other is a command in the script's folder, with its PATH.
func (d *desk) other(line string) *exec.Cmd {
	words := strings.Fields(line)
	program := words[0]
	for dir := range strings.SplitSeq(d.search, string(os.PathListSeparator)) {
		if path := filepath.Join(dir, words[0]); !strings.Contains(program, "/") && exists(path) {
			program = path
		}
	}
	cmd := exec.Command(program, words[1:]...)
	cmd.Dir, cmd.Env = d.dir, append(append(os.Environ(), "PATH="+d.search), d.env...)
	return cmd
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func (d *desk) seen() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return string(d.screen)
}

// play runs the dialogue to its end.
func (d *desk) play() error {
	opened, slave, err := pty.Open()
	if err != nil {
		return err
	}
	// A file of the runtime's poller, whose Close ends a Read that waits.
	fd, err := unix.FcntlInt(opened.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err := errors.Join(err, opened.Close(), syscall.SetNonblock(fd, true)); err != nil {
		return err
	}
	master := os.NewFile(uintptr(fd), "terminal")
	defer master.Close()
	defer slave.Close()
	before, err := term.GetState(int(slave.Fd()))
	if err != nil {
		return err
	}
	d.cmd.Stdin = slave
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := d.cmd.Start(); err != nil {
		return err
	}
	go d.watch(master)
	want, hungUp, failed := 0, false, error(nil)
	for i, line := range d.lines {
		if line.verb == "exit" {
			if want, err = strconv.Atoi(line.rest); err != nil {
				return err
			}
			continue
		}
		if err := d.do(master, line); err != nil {
			failed = fmt.Errorf("line %d: %s: %w", i+2, line.verb, err)
			_ = d.cmd.Process.Kill()
			break
		}
		hungUp = hungUp || line.verb == "hangup" || line == deskLine{"signal", "KILL"}
	}
	timer := time.AfterFunc(deskPatience, func() { _ = d.cmd.Process.Kill() })
	defer timer.Stop()
	err = d.cmd.Wait()
	var exit *exec.ExitError
	code := 0
	if errors.As(err, &exit) {
		code = exit.ExitCode()
	} else if err != nil {
		return err
	}
	if failed != nil {
		return failed
	}
	if code != want {
		return fmt.Errorf("exit code %d, want %d", code, want)
	}
	if hungUp {
		return nil
	}
	after, err := term.GetState(int(slave.Fd()))
	if err != nil {
		return err
	}
	if *after != *before {
		return errors.New("the terminal was not left as it was found")
	}
	return nil
}

// watch collects what the terminal shows.
func (d *desk) watch(master *os.File) {
	var b [4096]byte
	for {
		n, err := master.Read(b[:])
		d.mu.Lock()
		d.screen = append(d.screen, b[:n]...)
		d.gone = err != nil
		d.mu.Unlock()
		select {
		case d.more <- struct{}{}:
		default:
		}
		if err != nil {
			return
		}
	}
}

// do plays one line.
func (d *desk) do(master *os.File, line deskLine) error {
	rest := os.Expand(line.rest, func(name string) string { return d.captured[name] })
	switch line.verb {
	case "expect":
		_, err := d.await(regexp.MustCompile(regexp.QuoteMeta(rest)))
		return err
	case "capture":
		name, expr, _ := strings.Cut(line.rest, " ")
		match, err := d.await(regexp.MustCompile(expr))
		if err == nil {
			d.captured[name] = match[1]
		}
		return err
	case "send":
		_, err := master.WriteString(rest + "\r")
		return err
	case "type":
		_, err := master.WriteString(rest)
		return err
	case "key":
		_, err := master.Write([]byte{rest[0] & 0x1f})
		return err
	case "hangup":
		return master.Close()
	case "signal":
		return d.cmd.Process.Signal(map[string]syscall.Signal{
			"INT": syscall.SIGINT, "TERM": syscall.SIGTERM, "HUP": syscall.SIGHUP, "KILL": syscall.SIGKILL,
		}[rest])
	case "also":
		return d.other(rest).Run()
	case "until":
		text, command, _ := strings.Cut(rest, " ")
		expr, err := regexp.Compile(text)
		if err != nil {
			return err
		}
		for end := time.Now().Add(deskPatience); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
			if out, err := d.other(command).Output(); err == nil && expr.Match(out) {
				return nil
			}
		}
		return fmt.Errorf("%q did not come", text)
	case "kill":
		return killDaemon(d.path(rest))
	}
	return errors.New("no such verb")
}

// await waits until the screen shows a match after what was last waited for.
func (d *desk) await(expr *regexp.Regexp) ([]string, error) {
	deadline := time.After(deskPatience)
	for {
		d.mu.Lock()
		rest := d.screen[d.at:]
		if at := expr.FindSubmatchIndex(rest); at != nil {
			var groups []string
			for i := 0; i+1 < len(at); i += 2 {
				groups = append(groups, string(rest[at[i]:at[i+1]]))
			}
			d.at += at[1]
			d.mu.Unlock()
			return groups, nil
		}
		gone := d.gone
		d.mu.Unlock()
		if gone {
			return nil, fmt.Errorf("%q was not shown before the terminal closed", expr)
		}
		select {
		case <-d.more:
		case <-deadline:
			return nil, fmt.Errorf("%q was not shown within %s", expr, deskPatience)
		}
	}
}

// killDaemon ends the daemon of a dev.json with SIGKILL and waits until it is gone.
func killDaemon(path string) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	var dev devReport
	if err := json.Unmarshal(text, &dev); err != nil {
		return err
	}
	if err := syscall.Kill(dev.PID, syscall.SIGKILL); err != nil {
		return err
	}
	for end := time.Now().Add(deskPatience); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		state, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", dev.PID))
		if err != nil || bytes.Contains(state, []byte(") Z ")) {
			return nil
		}
	}
	return errors.New("the daemon is still there")
}

// firstline VARIABLE sets a variable to the first line of the last output.
func cmdFirstline(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: firstline VARIABLE")
	}
	first, _, _ := strings.Cut(ts.ReadFile("stdout"), "\n")
	ts.Setenv(args[0], first)
}

// issue DIR NAME URI SUBJECT signs a client certificate by the CA of a
// development daemon: NAME.pem and NAME.key in the script's folder.
func cmdIssue(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 4 {
		ts.Fatalf("usage: issue DIR NAME URI SUBJECT")
	}
	ts.Check(issueCertificate(ts.MkAbs(args[0]), ts.MkAbs(args[1]), args[2], args[3]))
}
