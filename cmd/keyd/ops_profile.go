package main

import (
	"fmt"
	"net/http"
	"runtime"
	"runtime/pprof"
	"strconv"
	"time"
)

// mostProfile bounds one profile of the processor.
const mostProfile = 60 * time.Second

// profiles offers what `go tool pprof` reads: where time is spent and memory
// was taken, as addresses of the program and counts. Nothing that shows a value
// of a request is offered: no stacks with their arguments, no execution trace,
// no command line.
func profiles(mux *http.ServeMux) {
	for _, name := range []string{"heap", "allocs", "goroutine", "threadcreate"} {
		mux.HandleFunc("GET /debug/pprof/"+name, func(w http.ResponseWriter, _ *http.Request) {
			if name == "heap" {
				runtime.GC()
			}
			profileHeader(w, name)
			_ = pprof.Lookup(name).WriteTo(w, 0)
		})
	}
	mux.HandleFunc("GET /debug/pprof/profile", profileCPU)
}

// profileCPU samples the processor for ?seconds=N, 30 where it is not given.
func profileCPU(w http.ResponseWriter, r *http.Request) {
	span := 30 * time.Second
	if text := r.URL.Query().Get("seconds"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 || n > int(mostProfile/time.Second) {
			http.Error(w, fmt.Sprintf("seconds must be 1 to %d", int(mostProfile/time.Second)), http.StatusBadRequest)
			return
		}
		span = time.Duration(n) * time.Second
	}
	profileHeader(w, "profile")
	if err := pprof.StartCPUProfile(w); err != nil {
		w.Header().Del("Content-Disposition")
		http.Error(w, "another profile is being taken", http.StatusConflict)
		return
	}
	defer pprof.StopCPUProfile()
	timer := time.NewTimer(span)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-r.Context().Done():
	}
}

func profileHeader(w http.ResponseWriter, name string) {
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.Header().Set("Content-Disposition", `attachment; filename="`+name+`"`)
}
