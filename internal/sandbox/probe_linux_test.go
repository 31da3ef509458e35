package sandbox

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// A sandbox cannot be left, so that it is tried in a process of its own: this
// test binary, which TestMain turns into the probe.

const probeEnv = "KEYD_SANDBOX_PROBE"

// plan is what a probe gets by its environment.
type plan struct {
	Config
	Dir     string // of the test
	Bound   uint16 // a port that is allowed, and free
	Foreign uint16 // one that is not, and free
	Served  uint16 // a port of the test's, which may be connected to
	Private uint16 // one that may not
	Deaf    bool   // one thread blocks all signals
}

// finding is what a probe says.
type finding struct {
	State   State
	Deaf    bool
	Enter   string
	Results map[string]string // "" is success, else the errno
	Threads []string          // what threads of before Enter got
}

func TestMain(m *testing.M) {
	if text, ok := os.LookupEnv(probeEnv); ok {
		probe(text)
		return
	}
	os.Exit(m.Run())
}

// probe enters the sandbox and tries what it must not be able to.
func probe(text string) {
	var p plan
	if err := json.Unmarshal([]byte(text), &p); err != nil {
		panic(err)
	}
	inside, outside := filepath.Join(p.Dir, "write"), filepath.Join(p.Dir, "outside")
	// Threads that exist before.
	entered, answers := make(chan struct{}), make([]string, 8)
	var ready, done sync.WaitGroup
	for i := range answers {
		ready.Add(1)
		done.Go(func() {
			runtime.LockOSThread()
			if p.Deaf && i == 0 {
				var all unix.Sigset_t
				for w := range all.Val {
					all.Val[w] = ^all.Val[w]
				}
				if err := unix.PthreadSigmask(unix.SIG_BLOCK, &all, nil); err != nil {
					panic(err)
				}
			}
			ready.Done()
			<-entered
			_, err := os.ReadFile(filepath.Join(outside, "file"))
			answers[i] = errno(err)
		})
	}
	ready.Wait()
	state, err := Enter(p.Config)
	f := finding{State: state, Deaf: errors.Is(err, ErrDeaf), Results: make(map[string]string)}
	if err != nil {
		f.Enter = err.Error()
	} else {
		close(entered)
		done.Wait()
		f.Threads = answers
		for name, try := range tries(p, inside, outside) {
			f.Results[name] = errno(try())
		}
	}
	if err := json.NewEncoder(os.Stdout).Encode(f); err != nil {
		panic(err)
	}
}

func errno(err error) string {
	var e syscall.Errno
	switch {
	case err == nil:
		return ""
	case errors.As(err, &e):
		return unix.ErrnoName(e)
	}
	return err.Error()
}

func tries(p plan, inside, outside string) map[string]func() error {
	listen := func(port uint16) func() error {
		return func() error {
			l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(int(port))))
			if err == nil {
				err = l.Close()
			}
			return err
		}
	}
	dial := func(port uint16) func() error {
		return func() error {
			c, err := net.DialTimeout("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(int(port))), time.Second)
			if err == nil {
				err = c.Close()
			}
			return err
		}
	}
	read := func(path string) func() error {
		return func() error { _, err := os.ReadFile(path); return err }
	}
	return map[string]func() error{
		"read a file of a folder to read":      read(filepath.Join(p.Dir, "read", "file")),
		"read a file that took its place":      read(filepath.Join(p.Dir, "read", "later")),
		"read a file that is named":            read(filepath.Join(p.Dir, "single")),
		"list a folder to read":                func() error { _, err := os.ReadDir(filepath.Join(p.Dir, "read")); return err },
		"read by a link that leads out":        read(filepath.Join(p.Dir, "read", "link")),
		"read outside":                         read(filepath.Join(outside, "file")),
		"read a file beside one that is named": read(filepath.Join(p.Dir, "beside")),
		"list outside":                         func() error { _, err := os.ReadDir(outside); return err },
		"write to a folder to read":            func() error { return os.WriteFile(filepath.Join(p.Dir, "read", "new"), nil, 0o600) },
		"truncate outside":                     func() error { return os.Truncate(filepath.Join(outside, "file"), 0) },
		"remove outside":                       func() error { return os.Remove(filepath.Join(outside, "file")) },
		"take a file in from outside":          func() error { return os.Rename(filepath.Join(outside, "file"), filepath.Join(inside, "taken")) },
		"link to outside": func() error {
			return os.Link(filepath.Join(outside, "file"), filepath.Join(inside, "hard"))
		},
		"make a device":   func() error { return syscall.Mknod(filepath.Join(inside, "dev"), syscall.S_IFCHR|0o600, 1<<8|3) },
		"run a program":   func() error { return exec.Command("/bin/true").Run() },
		"run a data file": func() error { return exec.Command(filepath.Join(inside, "program")).Run() },
		"make, write, rename, truncate and remove": func() error {
			a, b := filepath.Join(inside, "a"), filepath.Join(inside, "b")
			return errors.Join(
				os.Mkdir(a, 0o700), os.Mkdir(b, 0o700),
				os.WriteFile(filepath.Join(a, "f"), []byte("x"), 0o600), read(filepath.Join(a, "f"))(),
				os.Rename(filepath.Join(a, "f"), filepath.Join(b, "f")), os.Truncate(filepath.Join(b, "f"), 0),
				os.RemoveAll(a), os.RemoveAll(b))
		},
		"make a socket": func() error {
			l, err := net.Listen("unix", filepath.Join(inside, "s"))
			if err == nil {
				err = l.Close()
			}
			return err
		},
		"listen on a port of the list":       listen(p.Bound),
		"listen on a port outside the list":  listen(p.Foreign),
		"listen on any port":                 listen(0),
		"connect to a port of the list":      dial(p.Served),
		"connect to a port outside the list": dial(p.Private),
		"signal the parent":                  func() error { return syscall.Kill(os.Getppid(), 0) },
		"signal itself":                      func() error { return syscall.Kill(os.Getpid(), 0) },
	}
}

// runProbe makes the folders and ports of a plan and runs the probe.
func runProbe(t *testing.T, mode Mode, change func(*plan)) finding {
	t.Helper()
	p := plan{Dir: t.TempDir()}
	for _, dir := range []string{"read", "write", "outside"} {
		if err := os.Mkdir(filepath.Join(p.Dir, dir), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	program, err := os.ReadFile("/bin/true")
	if err != nil {
		t.Fatal(err)
	}
	for _, err := range []error{
		os.WriteFile(filepath.Join(p.Dir, "read", "file"), []byte("x"), 0o600),
		os.WriteFile(filepath.Join(p.Dir, "read", "later"), []byte("x"), 0o600),
		os.WriteFile(filepath.Join(p.Dir, "single"), []byte("x"), 0o600),
		os.WriteFile(filepath.Join(p.Dir, "beside"), []byte("x"), 0o600),
		os.WriteFile(filepath.Join(p.Dir, "outside", "file"), []byte("x"), 0o600),
		os.Symlink(filepath.Join(p.Dir, "outside", "file"), filepath.Join(p.Dir, "read", "link")),
		os.WriteFile(filepath.Join(p.Dir, "write", "program"), program, 0o700),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	listeners := make([]net.Listener, 4)
	ports := make([]uint16, 4)
	for i := range listeners {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		listeners[i], ports[i] = l, l.Addr().(*net.TCPAddr).AddrPort().Port()
	}
	p.Bound, p.Foreign, p.Served, p.Private = ports[0], ports[1], ports[2], ports[3]
	for _, l := range listeners[:2] {
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
	p.Config = Config{
		Mode:  mode,
		Read:  []string{filepath.Join(p.Dir, "read"), filepath.Join(p.Dir, "single"), filepath.Join(p.Dir, "none"), "/proc"},
		Write: []string{filepath.Join(p.Dir, "write"), "/dev/null"},
		Bind:  []uint16{p.Bound}, Connect: []uint16{p.Served},
	}
	if change != nil {
		change(&p)
	}
	text, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, self)
	cmd.Env = append(os.Environ(), probeEnv+"="+string(text))
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("the probe: %v", err)
	}
	var f finding
	if err := json.Unmarshal(out, &f); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return f
}

// allowed are the tries that succeed inside.
func allowed() []string {
	return []string{
		"read a file of a folder to read", "read a file that took its place", "read a file that is named", "list a folder to read",
		"make, write, rename, truncate and remove", "make a socket",
		"listen on a port of the list", "connect to a port of the list", "signal itself",
	}
}

// TestInside is C-17: what a process can still do, and what it cannot, by its
// own tries on a real kernel.
func TestInside(t *testing.T) {
	can := Supported()
	for _, mode := range []Mode{BestEffort, Strict} {
		t.Run("C-17 "+string(mode), func(t *testing.T) {
			f := runProbe(t, mode, nil)
			if mode == Strict && !(can.Files && can.Ports) {
				t.Logf("THIS KERNEL CANNOT HOLD FILES AND PORTS (Landlock %d): only the refusal was tested", can.ABI)
				if !strings.Contains(f.Enter, ErrUnsupported.Error()) {
					t.Errorf("%q, want the refusal", f.Enter)
				}
				return
			}
			if f.Enter != "" {
				t.Fatal(f.Enter)
			}
			if d := cmp.Diff(can, f.State); d != "" {
				t.Errorf("the state is not what the kernel can (-can +state):\n%s", d)
			}
			want := make(map[string]string)
			for name := range f.Results {
				held := can.Files
				switch {
				case strings.Contains(name, "listen") || strings.Contains(name, "connect"):
					held = can.Ports
				case strings.Contains(name, "signal"):
					held = can.Signals
				}
				switch {
				case !held:
					want[name] = f.Results[name]
				case slices.Contains(allowed(), name):
					want[name] = ""
				case name == "signal the parent":
					want[name] = "EPERM"
				case name == "link to outside", name == "take a file in from outside":
					want[name] = f.Results[name] // EACCES, or EXDEV to whoever may not move it
					if f.Results[name] != "EACCES" && f.Results[name] != "EXDEV" {
						want[name] = "EACCES or EXDEV"
					}
				default:
					want[name] = "EACCES"
				}
			}
			if d := cmp.Diff(want, f.Results); d != "" || len(want) < 20 {
				t.Errorf("C-17 (-want +got):\n%s", d)
			}
			for i, got := range f.Threads {
				if can.Files && got != "EACCES" {
					t.Errorf("C-17 thread %d of before: %q, want EACCES", i, got)
				}
			}
			t.Logf("Landlock %d holds %s", f.State.ABI, f.State)
		})
	}
}

// TestOutside: without a sandbox the same tries succeed, so that the refusals
// above are the sandbox's.
func TestOutside(t *testing.T) {
	f := runProbe(t, Off, nil)
	if f.Enter != "" || f.State != (State{}) {
		t.Fatalf("%q, %v", f.Enter, f.State)
	}
	// The order of the tries is not fixed, and one removes what another reads.
	for name, got := range f.Results {
		if got != "" && got != "ENOENT" && got != "EEXIST" && !(name == "make a device" && got == "EPERM") {
			t.Errorf("%s: %s", name, got)
		}
	}
}

// TestDeafThread: a thread that blocks signals must not hold a start up for
// ever, nor be left outside.
func TestDeafThread(t *testing.T) {
	f := runProbe(t, BestEffort, func(p *plan) { p.Deaf, p.Patience = true, 300*time.Millisecond })
	can := Supported()
	switch {
	case !can.Files:
		t.Logf("THIS KERNEL HAS NO LANDLOCK: not tested")
	case can.ABI < 8 && !f.Deaf:
		t.Errorf("Landlock %d needs an answer of each thread, and Enter says %q", can.ABI, f.Enter)
	case can.ABI >= 8 && (f.Enter != "" || slices.ContainsFunc(f.Threads, func(got string) bool { return got != "EACCES" })):
		t.Errorf("Landlock %d: %q, %q", can.ABI, f.Enter, f.Threads)
	}
}

// TestListenersAreTCP: Landlock does not see MPTCP, which Go takes for listeners
// unless go.mod says multipathtcp=0.
func TestListenersAreTCP(t *testing.T) {
	var lc net.ListenConfig
	if lc.MultipathTCP() {
		t.Error("C-17 listeners are MPTCP: go.mod lacks `godebug multipathtcp=0`")
	}
	text, err := os.ReadFile(filepath.Join("..", "..", "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(text), "\ngodebug multipathtcp=0\n") {
		t.Error("C-17 go.mod lacks `godebug multipathtcp=0`")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	raw, err := l.(*net.TCPListener).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var protocol int
	var perr error
	if err := raw.Control(func(fd uintptr) {
		protocol, perr = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_PROTOCOL)
	}); err != nil || perr != nil {
		t.Fatal(err, perr)
	}
	if protocol != unix.IPPROTO_TCP {
		t.Errorf("C-17 protocol %d, want TCP", protocol)
	}
}

func ExampleState_String() {
	fmt.Println(stateOf(4))
	// Output: files, ports
}
