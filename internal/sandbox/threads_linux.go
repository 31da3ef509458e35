package sandbox

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Before Landlock 8 a thread restricts itself alone, and the library makes each
// thread do so in the handler of a signal. Those that have done it wait for the
// last: one that blocks the signal would stop the process for ever.
const (
	threadSignal = 33 // libpsx takes the second of glibc's own
	threadPoll   = 10 * time.Millisecond
)

// awaitThreads returns once every thread has been seen to take signals. It
// returns [ErrDeaf].
func awaitThreads(patience time.Duration) error {
	if patience == 0 {
		patience = defaultPatience
	}
	deaf, err := deafThreads(nil)
	tick := time.NewTicker(threadPoll)
	defer tick.Stop()
	for end := time.Now().Add(patience); err == nil && len(deaf) > 0; <-tick.C {
		if time.Now().After(end) {
			return fmt.Errorf("%w: %d of them, the first is %s; kernels with Landlock 8 can do without", ErrDeaf, len(deaf), deaf[0])
		}
		deaf, err = deafThreads(deaf)
	}
	return err
}

// deafThreads are the threads that block the signal now, of among, or of all
// where that is nil.
func deafThreads(among []string) ([]string, error) {
	if among == nil {
		entries, err := os.ReadDir("/proc/self/task")
		if err != nil {
			return nil, fmt.Errorf("sandbox: looking at the threads: %w", err)
		}
		for _, e := range entries {
			among = append(among, e.Name())
		}
	}
	deaf := []string{}
	for _, tid := range among {
		status, err := os.ReadFile(filepath.Join("/proc/self/task", tid, "status"))
		if err != nil {
			continue // it has ended meanwhile
		}
		_, rest, _ := strings.Cut(string(status), "\nSigBlk:\t")
		mask, _, _ := strings.Cut(rest, "\n")
		bits, err := strconv.ParseUint(mask, 16, 64)
		if err != nil {
			return nil, fmt.Errorf("sandbox: the signals of thread %s: %w", tid, err)
		}
		if bits>>(threadSignal-1)&1 == 1 {
			deaf = append(deaf, tid)
		}
	}
	return deaf, nil
}
