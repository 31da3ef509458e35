//go:build linux

package main

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"keyd.dev/keyd/internal/secret"
)

// TestHarden is C-13. It hardens the test's own process, which is of no harm.
func TestHarden(t *testing.T) {
	if err := harden(); err != nil {
		t.Fatal(err)
	}
	var core syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_CORE, &core); err != nil {
		t.Fatal(err)
	}
	if core.Cur != 0 || core.Max != 0 {
		t.Errorf("C-13: core files of %d, at most %d bytes; want none", core.Cur, core.Max)
	}
	dumpable, _, errno := syscall.RawSyscall(syscall.SYS_PRCTL, syscall.PR_GET_DUMPABLE, 0, 0)
	if errno != 0 || dumpable != 0 {
		t.Errorf("C-13: dumpable is %d (%v), want 0", dumpable, errno)
	}
}

// TestPINOnce is C-03: with pin_retain = false a lost login waits for an
// operator instead of a second reading.
func TestPINOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pin")
	if err := os.WriteFile(path, []byte("123456"), 0o600); err != nil {
		t.Fatal(err)
	}
	read := pinOnce(t.Context(), &tokenConfig{PINSource: "file:" + path}, nil)
	pin, err := read()
	if err != nil || !pin.Equal(secret.From([]byte("123456"))) {
		t.Fatalf("first: %v", err)
	}
	if pin, err := read(); !errors.Is(err, errPINSpent) || pin.Len() != 0 {
		t.Errorf("second: %d bytes, %v; want errPINSpent", pin.Len(), err)
	}
}

// TestLocalSocketIsClosedToOthers: the file lets only its owner in, and a path
// longer than a socket address holds works as well.
func TestLocalSocket(t *testing.T) {
	long := filepath.Join(t.TempDir(), "a-folder-with-a-name-that-makes-the-path-longer-than-a-socket-address-can-be-which-is-107-bytes")
	if err := os.Mkdir(long, 0o700); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(long, "keyd.sock")
	l, err := listenSocket(path)
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %o, %v; want 600", info.Mode().Perm(), err)
	}
	if _, err := listenSocket(path); err == nil {
		t.Error("a second daemon took the socket of the first")
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if err := callLocal(t.Context(), path, "/terminals", nil); !errors.Is(err, errNoDaemon) {
		t.Errorf("after the daemon is gone: %v, want errNoDaemon", err)
	}
	if again, err := listenSocket(path); err != nil {
		t.Errorf("after the daemon is gone: %v", err)
	} else if err := again.Close(); err != nil {
		t.Error(err)
	}
}
