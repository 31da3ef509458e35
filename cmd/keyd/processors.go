package main

import (
	"os"
	"runtime"
)

// processorsForDisk is how many goroutines run at once beyond one for each
// processor. A commit of the store and a sync of the audit log wait for the disk
// inside of a call, and keep others from running until the scheduler has noticed.
// On two processors one more made 1,456 sales a second of 1,240, means of nine
// runs each, turn by turn.
const processorsForDisk = 1

// useProcessors makes up for calls that wait. GOMAXPROCS, where it is set, stays.
func useProcessors() {
	if os.Getenv("GOMAXPROCS") != "" {
		return
	}
	runtime.SetDefaultGOMAXPROCS()
	runtime.GOMAXPROCS(runtime.GOMAXPROCS(0) + processorsForDisk)
}
