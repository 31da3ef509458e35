package store

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"keyd.dev/keyd/internal/custody"
	"keyd.dev/keyd/internal/isoswitch"
)

// child runs this test binary again, to do work on a database.
func child(t *testing.T, work, path string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), childEnv+"="+work+":"+path)
	cmd.Stderr = os.Stderr
	return cmd
}

const loadCallers = 16

// loadUntilKilled updates from many goroutines and writes "device counter" for
// each update that was acknowledged.
func loadUntilKilled(path string) int {
	db, err := openServed(context.Background(), path)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	var mu sync.Mutex
	var callers sync.WaitGroup
	for i := range loadCallers {
		callers.Go(func() {
			for counter := uint32(1); ; counter++ {
				err := db.Update(context.Background(), func(tx isoswitch.Tx) error {
					_, err := tx.Reserve("updates", 1)
					return errors.Join(err, tx.Accept(device(i), counter, hash(byte(counter)), time.Unix(1, 0)))
				})
				if err != nil {
					fmt.Fprintln(os.Stderr, err)
					os.Exit(1)
				}
				mu.Lock()
				fmt.Printf("%d %d\n", i, counter)
				mu.Unlock()
			}
		})
	}
	callers.Wait()
	return 0
}

// I-5: whatever was acknowledged is there after the process was killed, and
// each transaction is there as a whole or not at all.
func TestKilledUnderLoad(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keyd.db")
	first := make([]uint32, loadCallers)
	for round := range 3 {
		acknowledged := killUnderLoad(t, path, 500+700*round)
		db := openAt(t, path, Serve)
		var sum uint64
		view(t, db, func(tx isoswitch.Tx) error {
			for i, want := range acknowledged {
				got, err := tx.LastCounter(device(i))
				if err != nil {
					return err
				}
				if got < want || got > want+1 {
					t.Errorf("round %d: caller %d was told %d, found %d", round, i, want, got)
				}
				sum += uint64(got)
				first[i] = got
			}
			return nil
		})
		update(t, db, func(tx isoswitch.Tx) error {
			n, err := tx.Reserve("updates", 1)
			if n != sum {
				t.Errorf("round %d: %d counted, %d found", round, n, sum)
			}
			return err
		})
		if err := db.Check(t.Context()); err != nil {
			t.Error(err)
		}
		shut(t, db)
		path = filepath.Join(t.TempDir(), "keyd.db")
	}
}

// killUnderLoad kills a loaded child after so many acknowledgements and returns
// the last of each caller.
func killUnderLoad(t *testing.T, path string, after int) [loadCallers]uint32 {
	t.Helper()
	cmd := child(t, "load", path)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var acknowledged [loadCallers]uint32
	lines := bufio.NewScanner(out)
	for n := 0; lines.Scan(); n++ {
		if n == after {
			if err := cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
		}
		// A line that was cut short by the kill acknowledges nothing.
		var i int
		var counter uint32
		if _, err := fmt.Sscanf(lines.Text(), "%d %d", &i, &counter); err == nil && counter == acknowledged[i]+1 {
			acknowledged[i] = counter
		}
	}
	var exit *exec.ExitError
	if err := cmd.Wait(); !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		t.Fatalf("the child ended by itself: %v", err)
	}
	return acknowledged
}

// fillTheDisk works with a limit on the size of files in place of a full disk:
// a write fails in the midst of a commit, later there is room again.
func fillTheDisk(path string) int {
	signal.Ignore(syscall.SIGXFSZ) // so that the write fails and the process lives
	if err := workOnFullDisk(path); err != nil {
		fmt.Println("FAIL:", err)
		return 1
	}
	fmt.Println("done")
	return 0
}

func workOnFullDisk(path string) error {
	ctx := context.Background()
	db, err := openServed(ctx, path)
	if err != nil {
		return err
	}
	limit := func(bytes uint64) error {
		var old syscall.Rlimit
		if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &old); err != nil {
			return err
		}
		return syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{Cur: bytes, Max: old.Max})
	}
	var old syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &old); err != nil {
		return err
	}
	accept := func(counter uint32) error {
		return db.Update(ctx, func(tx isoswitch.Tx) error { return tx.Accept(device(1), counter, hash(1), time.Unix(1, 0)) })
	}
	last := func() (counter uint32, err error) {
		err = db.View(ctx, func(tx isoswitch.Tx) error { counter, err = tx.LastCounter(device(1)); return err })
		return counter, err
	}
	wal, err := os.Stat(path + "-wal")
	if err != nil {
		return err
	}
	if err := limit(uint64(wal.Size()) + 60_000); err != nil {
		return err
	}
	counter := uint32(1)
	for ; err == nil; counter++ {
		if counter > 1000 {
			return errors.New("the disk never became full")
		}
		err = accept(counter)
	}
	done := counter - 2
	if !errors.Is(err, custody.ErrUnavailable) {
		return fmt.Errorf("on a full disk: %w, want ErrUnavailable", err)
	}
	if err := db.Ready(ctx); !errors.Is(err, custody.ErrUnavailable) {
		return fmt.Errorf("ready on a full disk: %v", err)
	}
	if got, err := last(); err != nil || got != done {
		return fmt.Errorf("read on a full disk: %d, %v, want %d", got, err, done)
	}
	if err := limit(old.Cur); err != nil {
		return err
	}
	if err := db.Ready(ctx); err != nil {
		return fmt.Errorf("ready with room again: %w", err)
	}
	if err := accept(done + 1); err != nil {
		return fmt.Errorf("with room again: %w", err)
	}
	if got, err := last(); err != nil || got != done+1 {
		return fmt.Errorf("read with room again: %d, %v, want %d", got, err, done+1)
	}
	if err := db.Check(ctx); err != nil {
		return err
	}
	return db.Close()
}

func TestFullDisk(t *testing.T) {
	out, err := child(t, "full", filepath.Join(t.TempDir(), "keyd.db")).Output()
	if err != nil || strings.TrimSpace(string(out)) != "done" {
		t.Errorf("%v: %s", err, out)
	}
}

// A daemon that was killed leaves no lock behind.
func TestServeAfterKill(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keyd.db")
	killUnderLoad(t, path, 10)
	openAt(t, path, Serve)
}
