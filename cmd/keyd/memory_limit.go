package main

import (
	"math"
	"os"
	"runtime"
	"runtime/debug"
)

// What the daemon needs beside the registry and the keys that it keeps, and what
// one key takes: its block in the cache of the token, its record, its counter.
const (
	workingMemory = 64 << 20
	keyMemory     = 2500
)

// roomToCollect is how much the heap may grow by between two collections, in
// percent of what is in use. Most of what a request takes is garbage when it has
// been answered; what is in use is small, so that three times of it is little.
const roomToCollect = 300

// limitMemory lets the collector run earlier than it would by itself once the
// keys that are kept make the heap large: it would let the heap grow to twice
// of what is in use. Below the limit it lets it run more seldom. It is called when
// the node is open. GOMEMLIMIT and GOGC, where they are set, stay.
func limitMemory(cacheKeys int) {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(roomToCollect)
	}
	if debug.SetMemoryLimit(-1) != math.MaxInt64 {
		return
	}
	runtime.GC() // what opening has left behind is garbage
	var now runtime.MemStats
	runtime.ReadMemStats(&now)
	debug.SetMemoryLimit(int64(now.HeapAlloc) + workingMemory + int64(cacheKeys)*keyMemory)
}
