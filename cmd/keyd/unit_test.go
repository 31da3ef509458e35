//go:build linux

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/alecthomas/kong"
	"golang.org/x/sys/unix"

	"keyd.dev/keyd/internal/sandbox"
)

// unitFile is the unit as it is shipped.
var unitFile = filepath.Join("..", "..", "deploy", "systemd", "keyd.service")

// unit is a parsed unit: the values of each key, in order.
type unit map[string][]string

func readUnit(t *testing.T) unit {
	t.Helper()
	text, err := os.ReadFile(unitFile)
	if err != nil {
		t.Fatal(err)
	}
	u := make(unit)
	for line := range strings.Lines(string(text)) {
		key, value, ok := strings.Cut(strings.TrimSpace(line), "=")
		if ok && !strings.HasPrefix(key, "#") {
			u[key] = append(u[key], value)
		}
	}
	return u
}

// systemdAnalyze runs the tool; without it nothing here tells anything.
func systemdAnalyze(t *testing.T, args ...string) string {
	t.Helper()
	if _, err := exec.LookPath("systemd-analyze"); err != nil {
		t.Fatalf("%v: `sh scripts/deps.sh test` installs it", err)
	}
	out, err := exec.CommandContext(t.Context(), "systemd-analyze", args...).CombinedOutput()
	if err != nil {
		t.Fatalf("systemd-analyze %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// TestUnitExposure: systemd's own measure, at most 2.0.
func TestUnitExposure(t *testing.T) {
	out := systemdAnalyze(t, "security", "--offline=true", "--no-pager", unitFile)
	m := regexp.MustCompile(`Overall exposure level for keyd\.service: ([0-9.]+)`).FindStringSubmatch(out)
	if m == nil {
		t.Fatalf("no level:\n%s", out)
	}
	level, err := strconv.ParseFloat(m[1], 64)
	if err != nil || level > 2.0 {
		t.Errorf("C-13 exposure %s, want at most 2.0:\n%s", m[1], out)
	}
	t.Logf("exposure %s", m[1])
}

// TestUnitVerifies: systemd finds no fault, with the program in its place.
func TestUnitVerifies(t *testing.T) {
	text, err := os.ReadFile(unitFile)
	if err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "keyd.service")
	if err := os.WriteFile(path, bytes.ReplaceAll(text, []byte("/usr/bin/keyd "), []byte(self+" ")), 0o644); err != nil {
		t.Fatal(err)
	}
	if out := systemdAnalyze(t, "verify", "--man=no", path); strings.Contains(out, "keyd.service") {
		t.Errorf("systemd finds fault:\n%s", out)
	}
}

// TestUnitSaysWhatItMust: what C-01, C-02 and C-13 ask of the unit, and that its
// command is one of the program.
func TestUnitSaysWhatItMust(t *testing.T) {
	u := readUnit(t)
	for key, want := range map[string]string{
		"Type": "notify", "LimitMEMLOCK": "infinity", "LimitCORE": "0", "NoNewPrivileges": "yes", "CapabilityBoundingSet": "",
		"ProtectSystem": "strict", "UMask": "0077", "MemoryDenyWriteExecute": "yes", "User": "keyd",
	} {
		if got := u[key]; len(got) != 1 || got[0] != want {
			t.Errorf("%s is %q, want %q", key, got, want)
		}
	}
	credential := strings.Join(u["LoadCredentialEncrypted"], " ")
	if !strings.HasPrefix(credential, "token-pin:/") {
		t.Errorf("C-01 the PIN's credential is %q", credential)
	}
	if !slices.Contains(strings.Fields(strings.Join(u["RestartPreventExitStatus"], " ")), strconv.Itoa(exitPIN)) {
		t.Errorf("C-02 a refused PIN is tried again by systemd: RestartPreventExitStatus lacks %d", exitPIN)
	}
	seconds, err := strconv.Atoi(strings.Join(u["WatchdogSec"], ""))
	if err != nil || seconds < 5 {
		t.Errorf("WatchdogSec is %q", u["WatchdogSec"])
	}
	argv := strings.Fields(u["ExecStart"][0])
	var c cli
	parser, err := kong.New(&c, kong.Name(programName))
	if err != nil {
		t.Fatal(err)
	}
	if parsed, err := parser.Parse(argv[1:]); err != nil || parsed.Command() != "serve" || c.Serve.Config != "/etc/keyd/keyd.toml" {
		t.Errorf("ExecStart %q: %v", argv, err)
	}
}

// filtered makes the calling thread one of a process of the unit, and runs the
// program in its place: the command keyd-filtered PLAN PROGRAM ARGUMENT….
func filtered() {
	if err := runFiltered(os.Args[1], os.Args[2:]); err != nil {
		fmt.Fprintln(os.Stderr, "keyd-filtered:", err)
		os.Exit(1)
	}
}

// filterPlan is the part of a unit that a process can put on itself.
type filterPlan struct {
	Calls    []uint32 // system calls that are allowed
	Families []uint32 // address families
}

func runFiltered(planFile string, argv []string) error {
	var plan filterPlan
	text, err := os.ReadFile(planFile)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(text, &plan); err != nil {
		return err
	}
	runtime.LockOSThread()
	syscall.Umask(0o077)
	if err := syscall.Setrlimit(syscall.RLIMIT_CORE, &syscall.Rlimit{}); err != nil {
		return err
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	// MemoryDenyWriteExecute: the kernel's own form, since Linux 6.3.
	const setMDWE, refuseExecGain = 65, 1
	if err := unix.Prctl(setMDWE, refuseExecGain, 0, 0, 0); err != nil {
		fmt.Fprintln(os.Stderr, "keyd-filtered: the kernel has no PR_SET_MDWE:", err)
	}
	program := plan.filter()
	fprog := unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]}
	if _, _, errno := syscall.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, 0, uintptr(unsafe.Pointer(&fprog))); errno != 0 {
		return fmt.Errorf("seccomp: %w", errno)
	}
	return syscall.Exec(argv[0], argv, os.Environ())
}

// filter is the plan as a program of the kernel's packet filter over struct
// seccomp_data: number, architecture, arguments.
func (p filterPlan) filter() []unix.SockFilter {
	const (
		number, arch, argument = 0, 4, 16
		allow                  = unix.SECCOMP_RET_ALLOW
		refuse                 = unix.SECCOMP_RET_ERRNO
	)
	load := func(offset uint32) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: offset}
	}
	// skip jumps over n instructions unless what is loaded equals k.
	skip := func(k uint32, n uint8) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jf: n, K: k}
	}
	answer := func(k uint32) unix.SockFilter { return unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: k} }
	families := []unix.SockFilter{load(argument)}
	for _, f := range p.Families {
		families = append(families, skip(f, 1), answer(allow))
	}
	families = append(families, answer(refuse|uint32(unix.EAFNOSUPPORT)))
	out := []unix.SockFilter{
		load(arch), skip(unix.AUDIT_ARCH_X86_64, 2), load(number), skip(unix.SYS_SOCKET, uint8(len(families))),
	}
	// Another architecture than this gets a refusal.
	out = slices.Insert(out, 2, unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JA, K: 1}, answer(refuse|uint32(unix.EPERM)))
	out[1].Jf = 1
	out = append(out, families...)
	for _, n := range p.Calls {
		out = append(out, skip(n, 1), answer(allow))
	}
	return append(out, answer(refuse|uint32(unix.EPERM)))
}

// callsOf are the system calls that the unit allows, by name.
func callsOf(t *testing.T, u unit) []string {
	t.Helper()
	allowed := make(map[string]bool)
	for _, line := range u["SystemCallFilter"] {
		names, removes := strings.CutPrefix(line, "~")
		for _, name := range strings.Fields(names) {
			for _, call := range expandCalls(t, name) {
				allowed[call] = !removes
			}
		}
	}
	var calls []string
	for call, ok := range allowed {
		if ok {
			calls = append(calls, call)
		}
	}
	slices.Sort(calls)
	return calls
}

// expandCalls asks systemd for the calls of a set. What may be done whatever the
// list says is in @default.
func expandCalls(t *testing.T, name string) []string {
	t.Helper()
	if !strings.HasPrefix(name, "@") {
		return []string{name}
	}
	var calls []string
	for line := range strings.Lines(systemdAnalyze(t, "syscall-filter", name)) {
		if entry, ok := strings.CutPrefix(line, "    "); ok && !strings.HasPrefix(entry, "#") {
			calls = append(calls, expandCalls(t, strings.TrimSpace(entry))...)
		}
	}
	return calls
}

// callNumbers reads the kernel's header.
func callNumbers(t *testing.T) map[string]uint32 {
	t.Helper()
	files, err := filepath.Glob("/usr/include/*/asm/unistd_64.h")
	if err != nil || len(files) == 0 {
		t.Fatalf("no unistd_64.h: it comes with the C compiler's headers (libc6-dev): %v", err)
	}
	text, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	numbers := make(map[string]uint32)
	for _, m := range regexp.MustCompile(`(?m)^#define __NR_(\w+) (\d+)$`).FindAllStringSubmatch(string(text), -1) {
		n, err := strconv.ParseUint(m[2], 10, 32)
		if err != nil {
			t.Fatal(err)
		}
		numbers[m[1]] = uint32(n)
	}
	return numbers
}

// TestDaemonUnderTheUnit starts the daemon as another user, without
// capabilities, under the unit's system calls, address families, memory rule,
// core limit and mask, and makes a sale through it. systemd itself is not in it:
// what the unit says of mounts and devices is not tried here.
func TestDaemonUnderTheUnit(t *testing.T) {
	if runtime.GOARCH != "amd64" {
		t.Logf("NOT TESTED: the filter of this test is for amd64, and this is %s", runtime.GOARCH)
		return
	}
	u := readUnit(t)
	numbers := callNumbers(t)
	plan := filterPlan{}
	for _, name := range callsOf(t, u) {
		if n, ok := numbers[name]; ok {
			plan.Calls = append(plan.Calls, n)
		}
	}
	if len(plan.Calls) < 150 || len(plan.Calls) > 330 {
		t.Fatalf("%d system calls are allowed", len(plan.Calls))
	}
	// What this machine's headers may not know yet.
	for _, n := range []uint32{unix.SYS_LANDLOCK_CREATE_RULESET, unix.SYS_LANDLOCK_ADD_RULE, unix.SYS_LANDLOCK_RESTRICT_SELF, unix.SYS_MEMFD_SECRET} {
		if !slices.Contains(plan.Calls, n) {
			plan.Calls = append(plan.Calls, n)
		}
	}
	families := map[string]uint32{"AF_INET": unix.AF_INET, "AF_INET6": unix.AF_INET6, "AF_UNIX": unix.AF_UNIX}
	for _, name := range strings.Fields(strings.Join(u["RestrictAddressFamilies"], " ")) {
		family, ok := families[name]
		if !ok {
			t.Fatalf("the test does not know %s", name)
		}
		plan.Families = append(plan.Families, family)
	}

	dir := t.TempDir()
	stranger := strangerTo(t, dir)
	text, err := json.Marshal(plan)
	if err != nil {
		t.Fatal(err)
	}
	planFile := filepath.Join(dir, "plan.json")
	if err := os.WriteFile(planFile, text, 0o644); err != nil {
		t.Fatal(err)
	}
	d := startStranger(t, stranger, dir, programFor(t, dir, "keyd-filtered"), planFile, programFor(t, dir, "keyd"), "dev", "--dir", filepath.Join(dir, "d"))

	state, err := readProcess(d.pid)
	if err != nil {
		t.Fatal(err)
	}
	if !state.seccomp || !state.noNewPrivs || state.coreLimit != 0 || state.capabilities != 0 {
		t.Errorf("C-13 the daemon is not as the unit makes it: %+v", state)
	}
	if state.uid != 0 && !state.hidden {
		t.Errorf("C-13 the daemon is dumpable: its own user can read its memory")
	}
	out, err := exec.CommandContext(t.Context(), programFor(t, dir, "keyd"), "sim", "pos", "sale", "--dir", filepath.Join(dir, "d"), "--amount", "1000").CombinedOutput()
	if err != nil || !strings.Contains(string(out), "approved") {
		t.Errorf("a sale: %v\n%s\n%s", err, out, d.said())
	}
	if sandbox.Supported().Files && !strings.Contains(d.said(), "in the sandbox") {
		t.Errorf("C-17 the unit keeps the daemon out of its sandbox:\n%s", d.said())
	}
	if d.stop(); strings.Contains(d.said(), "operation not permitted") {
		t.Errorf("something was refused:\n%s", d.said())
	}
}

// strangerTo opens a folder to a user without rights and returns who that is:
// where the test is not root's, the test's own user.
func strangerTo(t *testing.T, dir string) *syscall.Credential {
	t.Helper()
	if os.Getuid() != 0 {
		return nil
	}
	const nobody = 65534
	for _, path := range []string{filepath.Dir(dir), dir} {
		if err := os.Chmod(path, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chown(dir, nobody, nobody); err != nil {
		t.Fatal(err)
	}
	return &syscall.Credential{Uid: nobody, Gid: nobody}
}

// programFor is the test binary, where every user can run it.
func programFor(t *testing.T, dir, name string) string {
	t.Helper()
	path := filepath.Join(dir, "bin", name)
	if _, err := os.Stat(path); err == nil {
		return path
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Link(self, path); err == nil {
		return path
	}
	text, err := os.ReadFile(self)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, text, 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

// stranger is a daemon in a process of another user.
type stranger struct {
	t      *testing.T
	cmd    *exec.Cmd
	pid    int
	output *buffer
	ended  chan error
	over   bool
}

func (s *stranger) said() string { return s.output.String() }

// startStranger returns once DIR/d/dev.json is there.
func startStranger(t *testing.T, who *syscall.Credential, dir string, argv ...string) *stranger {
	t.Helper()
	s := &stranger{t: t, output: &buffer{}, ended: make(chan error, 1)}
	s.cmd = exec.CommandContext(context.WithoutCancel(t.Context()), argv[0], argv[1:]...)
	s.cmd.Dir, s.cmd.Stdout, s.cmd.Stderr = dir, s.output, s.output
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Credential: who}
	s.cmd.Env = append(os.Environ(), "HOME="+dir)
	for name, form := range canaries {
		s.cmd.Env = append(s.cmd.Env, name+"="+form(canary(name)))
	}
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	s.pid = s.cmd.Process.Pid
	go func() { s.ended <- s.cmd.Wait() }()
	t.Cleanup(s.stop)
	poll(t, "dev.json", func() bool {
		select {
		case err := <-s.ended:
			s.over = true
			t.Fatalf("the daemon ended: %v\n%s", err, s.said())
		default:
		}
		_, err := os.Stat(filepath.Join(dir, "d", "dev.json"))
		return err == nil
	})
	return s
}

// stop ends the daemon in order, once.
func (s *stranger) stop() {
	if s.over {
		return
	}
	s.over = true
	_ = s.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case err := <-s.ended:
		if err != nil {
			s.t.Errorf("the daemon ended with %v:\n%s", err, s.said())
		}
	case <-time.After(40 * time.Second):
		_ = s.cmd.Process.Kill()
		s.t.Errorf("the daemon did not end:\n%s", s.said())
	}
}

// TestPINIsNotInMemory is C-14 and C-16 on a running daemon: the PIN that it
// keeps cannot be found in its memory, by root either, and nothing of it was
// left by reading the file and by the login.
func TestPINIsNotInMemory(t *testing.T) {
	if os.Getuid() != 0 {
		t.Logf("NOT TESTED: the memory of a process that is not dumpable is for root to read")
		return
	}
	dir := t.TempDir()
	program := programFor(t, dir, "keyd")
	// The first start makes the PIN and gives it to the module through the
	// wrapper's copies; only the second is that of a node.
	startStranger(t, nil, dir, program, "dev", "--no-sim", "--dir", filepath.Join(dir, "d")).stop()
	d := startStranger(t, nil, dir, program, "dev", "--no-sim", "--dir", filepath.Join(dir, "d"))
	defer d.stop()
	if !strings.Contains(d.said(), `"pin_memory":"memfd_secret"`) {
		t.Logf("THIS KERNEL HAS NO memfd_secret: the kept PIN itself can be found, and was not looked for\n%s", d.said())
		return
	}
	pin, err := os.ReadFile(filepath.Join(dir, "d", "token.pin"))
	if err != nil {
		t.Fatal(err)
	}
	if err := searchMemory(d.pid, needles(bytes.TrimSpace(pin))); err != nil {
		t.Errorf("C-16 %v", err)
	}
	state, err := readProcess(d.pid)
	if err != nil {
		t.Fatal(err)
	}
	// Root may lock memory whatever the limit, unless the right was taken from it.
	if state.capabilities>>14&1 == 1 && state.locked == 0 {
		t.Errorf("C-13 no memory is locked: %+v", state)
	}
	t.Logf("%d KiB are locked once they are touched", state.locked>>10)
}
