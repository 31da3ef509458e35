// Appender measures how fast Tessera's POSIX driver appends, for the comparison
// of L-203 and L-204: producers in a closed loop, each waiting for the index of
// its entry. It prints one line of JSON.
package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/transparency-dev/tessera"
	"github.com/transparency-dev/tessera/storage/posix"
	"golang.org/x/mod/sumdb/note"
)

type options struct {
	dir       string
	producers int
	size      int
	duration  time.Duration
	batch     uint
	age       time.Duration
	interval  time.Duration
}

// Result is what is printed; times are in microseconds.
type Result struct {
	Records int
	Seconds float64
	P50     int64
	P99     int64
	P999    int64
}

func main() {
	var o options
	flag.StringVar(&o.dir, "dir", "", "empty folder of the log")
	flag.IntVar(&o.producers, "producers", 64, "that append at a time")
	flag.IntVar(&o.size, "size", 800, "bytes of an entry")
	flag.DurationVar(&o.duration, "duration", 10*time.Second, "length of the measurement")
	flag.UintVar(&o.batch, "batch", tessera.DefaultBatchMaxSize, "largest batch")
	flag.DurationVar(&o.age, "age", tessera.DefaultBatchMaxAge, "longest wait of a batch")
	flag.DurationVar(&o.interval, "interval", tessera.DefaultCheckpointInterval, "time between checkpoints")
	flag.Parse()
	runtime.GOMAXPROCS(2)
	result, err := run(context.Background(), o)
	if err == nil {
		err = json.NewEncoder(os.Stdout).Encode(result)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "appender:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o options) (Result, error) {
	key, _, err := note.GenerateKey(rand.Reader, "bench.example/tessera")
	if err != nil {
		return Result{}, err
	}
	signer, err := note.NewSigner(key)
	if err != nil {
		return Result{}, err
	}
	driver, err := posix.New(ctx, posix.Config{Path: o.dir})
	if err != nil {
		return Result{}, err
	}
	log, shutdown, _, err := tessera.NewAppender(ctx, driver, tessera.NewAppendOptions().
		WithCheckpointSigner(signer).WithBatching(o.batch, o.age).WithCheckpointInterval(o.interval))
	if err != nil {
		return Result{}, err
	}
	took := make([][]time.Duration, o.producers)
	failed := make([]error, o.producers)
	begin := time.Now()
	var group sync.WaitGroup
	for p := range o.producers {
		group.Go(func() { took[p], failed[p] = produce(ctx, log, o, p, begin) })
	}
	group.Wait()
	seconds := time.Since(begin).Seconds()
	if err := shutdown(ctx); err != nil {
		return Result{}, err
	}
	for _, err := range failed {
		if err != nil {
			return Result{}, err
		}
	}
	all := slices.Sorted(slices.Values(slices.Concat(took...)))
	if len(all) == 0 {
		return Result{}, fmt.Errorf("no entry was appended in %v", o.duration)
	}
	at := func(permille int) int64 { return all[len(all)*permille/1000].Microseconds() }
	return Result{len(all), seconds, at(500), at(990), at(999)}, nil
}

// produce appends entries, each with bytes of its own, until the time is over.
func produce(ctx context.Context, log *tessera.Appender, o options, p int, begin time.Time) ([]time.Duration, error) {
	var took []time.Duration
	data := make([]byte, o.size)
	for n := 0; time.Since(begin) < o.duration; n++ {
		copy(data, fmt.Sprintf("%d/%d/", p, n))
		start := time.Now()
		if _, err := log.Add(ctx, tessera.NewEntry(slices.Clone(data)))(); err != nil {
			return took, fmt.Errorf("appending: %w", err)
		}
		took = append(took, time.Since(start))
	}
	return took, nil
}
