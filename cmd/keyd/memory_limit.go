package main

import (
	"math"
	"runtime"
	"runtime/debug"
)

// What the daemon needs beside the registry and the keys that it keeps, and what
// one key takes: its block in the cache of the token, its record, its counter.
const (
	workingMemory = 64 << 20
	keyMemory     = 2500
)

// limitMemory lets the collector run earlier than it would by itself once the
// keys that are kept make the heap large: it would let the heap grow to twice
// of what is in use. It is called when the node is open. GOMEMLIMIT, where it is
// set, stays.
func limitMemory(cacheKeys int) {
	if debug.SetMemoryLimit(-1) != math.MaxInt64 {
		return
	}
	runtime.GC() // what opening has left behind is garbage
	var now runtime.MemStats
	runtime.ReadMemStats(&now)
	debug.SetMemoryLimit(int64(now.HeapAlloc) + workingMemory + int64(cacheKeys)*keyMemory)
}
