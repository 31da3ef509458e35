package main

import (
	"os"
	"runtime"
	"testing"
)

// TestProcessors: a daemon runs one goroutine more than there are processors, and
// as many as an operator says.
func TestProcessors(t *testing.T) {
	before := runtime.GOMAXPROCS(0)
	t.Cleanup(func() { runtime.GOMAXPROCS(before) })
	t.Setenv("GOMAXPROCS", "") // puts back what is there
	if err := os.Unsetenv("GOMAXPROCS"); err != nil {
		t.Fatal(err)
	}
	runtime.SetDefaultGOMAXPROCS()
	processors := runtime.GOMAXPROCS(0)
	for range 2 {
		useProcessors()
		if got := runtime.GOMAXPROCS(0); got != processors+processorsForDisk {
			t.Errorf("%d at once on %d processors", got, processors)
		}
	}
	t.Setenv("GOMAXPROCS", "7")
	runtime.GOMAXPROCS(7)
	useProcessors()
	if got := runtime.GOMAXPROCS(0); got != 7 {
		t.Errorf("%d at once where the operator wants 7", got)
	}
}
