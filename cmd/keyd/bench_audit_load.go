package main

import (
	"context"
	"crypto"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"keyd.dev/keyd/audit"
	"keyd.dev/keyd/internal/custody"
	"keyd.dev/keyd/internal/hsm"
)

// auditRun is one measurement of a log of its own.
type auditRun struct {
	Producers   int
	Records     int
	Seconds     float64
	P50         time.Duration
	P99         time.Duration
	P999        time.Duration
	Syncs       int64
	PerRecord   float64 // bytes of a record
	Checkpoints int64
	RecordBytes int64
	DiskBytes   int64 // of the folder after the end, without the write-ahead log
	WALBytes    int64
}

func (r auditRun) rate() float64 { return float64(r.Records) / max(r.Seconds, 1e-9) }

// auditBench is a log of the benchmark with a token that signs and makes tokens.
type auditBench struct {
	token   *hsm.Token
	signer  crypto.Signer
	tokener audit.Tokener
	dir     string
	logs    int
}

func newAuditBench(dir string) (*auditBench, error) {
	token, err := throwAwayToken(filepath.Join(dir, "token"))
	if err != nil {
		return nil, err
	}
	b := &auditBench{token: token, dir: dir}
	if b.signer, err = token.Signer(); err == nil {
		b.tokener, err = custody.NewTokener(token)
	}
	if err != nil {
		return nil, errors.Join(err, token.Close())
	}
	return b, nil
}

// countedLog is the log of one run.
type countedLog struct {
	*audit.Log
	dir   string
	syncs atomic.Int64
	cps   atomic.Int64
}

// open makes a log with the defaults of a node.
func (b *auditBench) open() (*countedLog, error) {
	b.logs++
	c := &countedLog{dir: filepath.Join(b.dir, fmt.Sprintf("log-%d", b.logs))}
	log, err := audit.Open(c.dir, b.signer, audit.Options{
		Site: "bench", Node: "n1", Build: thisBuild().name(), Tokener: b.tokener,
		Synced: func(time.Duration, int) { c.syncs.Add(1) },
		Disk:   audit.DiskLimits{WarnPercent: 2, CriticalPercent: 1},
	})
	c.Log = log
	return c, err
}

// sample is a record as a PIN translation of a sale leaves it.
func (b *auditBench) sample(log *audit.Log) (audit.Record, error) {
	pan, err := log.PAN([]byte("4111111111111111"))
	return audit.Record{
		Action: audit.PINTranslate, Outcome: audit.OutcomeOK, Corr: "sw-a.184467", Actor: audit.Actor{ID: "switch-a", Kind: audit.ActorSwitch},
		Src:  audit.Source{Addr: "10.1.2.3:53122", Conn: "c-8841"},
		Keys: []audit.Key{{Role: audit.KeyRoleOut, ID: "zpk/visa", Version: 4, KCV: "9F2A1104C7"}, {Role: audit.KeyRoleBDK, ID: "bdk/acq-1", Version: 2, KCV: "08D7B4"}},
		KSN:  "FFFF9876543210E00001", Mech: "CKM_DES3_ECB", HSM: audit.HSM{Serial: "A1B2C3D4"}, Custody: audit.CustodyProcess, Duration: 812 * time.Microsecond,
		PIN: audit.PIN{FormatIn: audit.PINISO0, FormatOut: audit.PINISO4}, PAN: pan,
	}, err
}

// append appends one record and says how long that took, from Append to its return.
func (c *countedLog) append(r audit.Record) (time.Duration, error) {
	t, err := c.Reserve(context.Background(), audit.Ops, 1)
	if err != nil {
		return 0, err
	}
	defer t.Release()
	start := time.Now()
	_, err = t.Append(r)
	return time.Since(start), err
}

// closed runs producers in a closed loop for a time, or until there are so many
// records. It counts checkpoints from their growth.
func (b *auditBench) closed(producers int, length time.Duration, most int) (auditRun, *countedLog, error) {
	log, err := b.open()
	if err != nil {
		return auditRun{}, nil, err
	}
	record, err := b.sample(log.Log)
	if err != nil {
		return auditRun{}, log, err
	}
	stop := log.watch()
	took := make([][]time.Duration, producers)
	failed := make([]error, producers)
	var left atomic.Int64
	left.Store(int64(most))
	begin := time.Now()
	var group sync.WaitGroup
	for p := range producers {
		group.Go(func() {
			for failed[p] == nil && (length == 0 || time.Since(begin) < length) && (most == 0 || left.Add(-1) >= 0) {
				var d time.Duration
				d, failed[p] = log.append(record)
				took[p] = append(took[p], d)
			}
		})
	}
	group.Wait()
	seconds := time.Since(begin).Seconds()
	stop()
	run := summed(took, seconds)
	run.Producers, run.Syncs, run.Checkpoints = producers, log.syncs.Load(), log.cps.Load()
	return run, log, errors.Join(failed...)
}

// open loop: arrivals of a Poisson process, each measured from the moment at
// which it should have begun.
func (b *auditBench) poisson(perSecond float64, length time.Duration) (auditRun, error) {
	log, err := b.open()
	if err != nil {
		return auditRun{}, err
	}
	record, err := b.sample(log.Log)
	if err != nil {
		return auditRun{}, errors.Join(err, log.Close(context.Background()))
	}
	var mu sync.Mutex
	var took []time.Duration
	var failed []error
	var group sync.WaitGroup
	dice := xorshift(0x9e3779b97f4a7c15)
	begin, due := time.Now(), time.Duration(0)
	for due < length {
		due += time.Duration(-math.Log(dice.unit()) / perSecond * float64(time.Second))
		time.Sleep(due - time.Since(begin))
		intended := begin.Add(due)
		group.Go(func() {
			_, err := log.append(record)
			d := time.Since(intended)
			mu.Lock()
			defer mu.Unlock()
			took = append(took, d)
			if err != nil {
				failed = append(failed, err)
			}
		})
	}
	group.Wait()
	run := summed([][]time.Duration{took}, time.Since(begin).Seconds())
	run.Syncs = log.syncs.Load()
	return run, errors.Join(errors.Join(failed...), log.Close(context.Background()))
}

// xorshift draws the arrivals: the same ones in each run.
type xorshift uint64

// unit returns a number above 0 and at most 1.
func (x *xorshift) unit() float64 {
	*x ^= *x << 13
	*x ^= *x >> 7
	*x ^= *x << 17
	return (float64(*x>>11) + 1) / (1 << 53)
}

// watch counts checkpoints while the log works: the age of the newest falls.
func (c *countedLog) watch() (stop func()) {
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		last := c.Stats().Checkpoint
		for {
			select {
			case <-tick.C:
				age := c.Stats().Checkpoint
				if age < last {
					c.cps.Add(1)
				}
				last = age
			case <-done:
				return
			}
		}
	}()
	return func() { close(done); <-ended }
}

func summed(took [][]time.Duration, seconds float64) auditRun {
	all := slices.Concat(took...)
	slices.Sort(all)
	return auditRun{Records: len(all), Seconds: seconds, P50: quantileOf(all, 500), P99: quantileOf(all, 990), P999: quantileOf(all, 999)}
}

// measureFolder adds what the records and the files of a closed log weigh.
func (r *auditRun) measureFolder(dir string) error {
	reader, err := audit.OpenReader(dir)
	if err != nil {
		return err
	}
	names, err := reader.Logs()
	if err != nil {
		return err
	}
	n := 0
	for _, name := range names {
		for e, err := range reader.Records(name, 0) {
			if err != nil {
				return err
			}
			r.RecordBytes += int64(len(e.Raw))
			n++
		}
	}
	r.PerRecord = float64(r.RecordBytes) / float64(max(n, 1))
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		if filepath.Base(filepath.Dir(path)) == "wal" {
			r.WALBytes += info.Size()
		} else {
			r.DiskBytes += info.Size()
		}
		return nil
	})
}

// rival is one run of the other log, by a program that [benchAuditCmd] is given.
type rival struct {
	Records int
	Seconds float64
	P50     int64 // µs
	P99     int64
	P999    int64
}

func (r rival) rate() float64 { return float64(r.Records) / max(r.Seconds, 1e-9) }

// against runs the program once.
func (b *auditBench) against(ctx context.Context, program string, size int, length time.Duration, more ...string) (rival, error) {
	b.logs++
	dir := filepath.Join(b.dir, fmt.Sprintf("rival-%d", b.logs))
	defer os.RemoveAll(dir)
	args := append([]string{"-dir", dir, "-producers", "64", "-size", fmt.Sprint(size), "-duration", length.String()}, more...)
	out, err := exec.CommandContext(ctx, program, args...).Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			return rival{}, fmt.Errorf("running %s: %w: %s", program, err, exit.Stderr)
		}
		return rival{}, fmt.Errorf("running %s: %w", program, err)
	}
	var r rival
	if err := json.Unmarshal(out, &r); err != nil {
		return rival{}, fmt.Errorf("reading what %s printed: %w", program, err)
	}
	return r, nil
}

// grow appends so many records with 64 producers, and returns the speeds of the
// first window and of the last.
func (b *auditBench) grow(log *countedLog, records, window int) (first, last float64, err error) {
	record, err := b.sample(log.Log)
	if err != nil {
		return 0, 0, err
	}
	speed := func(n int) float64 {
		var left atomic.Int64
		left.Store(int64(n))
		failed := make([]error, auditProducers)
		begin := time.Now()
		var group sync.WaitGroup
		for p := range auditProducers {
			group.Go(func() {
				for failed[p] == nil && left.Add(-1) >= 0 {
					_, failed[p] = log.append(record)
				}
			})
		}
		group.Wait()
		err = errors.Join(err, errors.Join(failed...))
		return float64(n) / time.Since(begin).Seconds()
	}
	first = speed(window)
	speed(max(records-2*window, 0))
	return first, speed(window), err
}
