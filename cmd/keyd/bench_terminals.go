package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"keyd.dev/keyd/internal/api"
	"keyd.dev/keyd/internal/store"
	"keyd.dev/keyd/keys"
)

// benchTerminalsCmd measures what an estate of terminals costs: registration,
// the start of the daemon with it, keys that are used for the first time, and
// the memory of many that are kept.
type benchTerminalsCmd struct {
	Terminals int    `help:"Terminals to register, each with master, PIN and MAC key." default:"100000"`
	Cached    int    `help:"Keys to use, and so to keep loaded." default:"50000"`
	Batch     int    `help:"Terminals of a request." default:"1000"`
	Dir       string `help:"Folder for the daemon, made and kept; a temporary one otherwise." type:"path"`
	JSON      bool   `help:"Print JSON." name:"json"`
}

// estate is what was measured.
type estate struct {
	Terminals    int           `json:"terminals"`
	Keys         int           `json:"keys"`
	Registration float64       `json:"registration_per_second"`
	SlowestBatch time.Duration `json:"slowest_batch_ns"`
	Start        time.Duration `json:"start_ns"` // of the daemon with all of them, until it serves
	ColdKeys     int           `json:"cold_keys"`
	ColdP50      time.Duration `json:"cold_p50_ns"` // first use of a key, the API included
	ColdP99      time.Duration `json:"cold_p99_ns"`
	WarmP50      time.Duration `json:"warm_p50_ns"` // the same keys again
	CachedKeys   int           `json:"cached_keys"`
	ResidentIdle float64       `json:"resident_after_start_mb"`
	Resident     float64       `json:"resident_with_cache_mb"`
	Database     float64       `json:"database_mb"`
	Log          float64       `json:"audit_log_mb"`
	LoadBefore   string        `json:"load_before"`
	LoadAfter    string        `json:"load_after"`
}

// coldSample is how many first uses are timed one by one.
const coldSample = 2000

// Run makes a node of its own, fills it and measures.
func (c *benchTerminalsCmd) Run(p *program) error {
	if c.Terminals < 1 || c.Terminals > 9_999_999 || c.Cached < 1 || c.Cached > c.Terminals || c.Batch < 1 || c.Batch > 1000 {
		return usageError("want 1 to 9999999 --terminals, no more --cached than these, and a --batch of 1 to 1000")
	}
	dir, clean, err := trialDir(c.Dir)
	if err != nil {
		return err
	}
	defer clean()
	b := &terminalBench{benchTerminalsCmd: c, p: p, dir: dir}
	b.found.LoadBefore = loadAverage()
	if err := b.measure(); err != nil {
		return err
	}
	b.found.LoadAfter = loadAverage()
	return b.print()
}

type terminalBench struct {
	*benchTerminalsCmd
	p     *program
	dir   string
	trial *trial
	found estate
}

func (b *terminalBench) measure() error {
	for _, step := range []struct {
		name string
		do   func() error
	}{
		{"making a node", b.prepare}, {"registering", b.register}, {"starting again", b.startAgain}, {"using keys", b.use},
	} {
		err := step.do()
		if b.trial != nil && (err != nil || step.name != "starting again") {
			b.trial.stop()
		}
		if err != nil {
			return fmt.Errorf("%s: %w", step.name, err)
		}
	}
	return nil
}

var cacheSetting = regexp.MustCompile(`(?m)^cache_keys = [0-9]+$`)

// prepare makes the node and sets the size of the cache.
func (b *terminalBench) prepare() error {
	if _, err := b.start(); err != nil {
		return err
	}
	b.trial.stop()
	path := filepath.Join(b.trial.devDir(), "keyd.toml")
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if !cacheSetting.Match(text) {
		return errors.New("keyd.toml has no token.cache_keys")
	}
	text = cacheSetting.ReplaceAll(text, []byte("cache_keys = "+strconv.Itoa(max(b.Cached, 16))))
	return os.WriteFile(path, text, 0o600)
}

// start starts the daemon and returns how long it took until it served.
func (b *terminalBench) start() (time.Duration, error) {
	began := time.Now()
	t, err := launchTrial(b.p, b.dir)
	if err != nil {
		return 0, err
	}
	b.trial = t
	return time.Since(began), nil
}

func (b *terminalBench) door(client string) (*door, error) {
	return (&doorFlags{Dev: b.trial.devDir(), As: client}).open()
}

// register adds the terminals, one batch after the other.
func (b *terminalBench) register() error {
	if _, err := b.start(); err != nil {
		return err
	}
	d, err := b.door("admin")
	if err != nil {
		return err
	}
	bar := newProgress(b.p.stderr, "terminals", b.Terminals)
	defer bar.end()
	began := time.Now()
	for from := 0; from < b.Terminals; from += b.Batch {
		var body struct{ Terminals []newTerminal }
		for n := from; n < min(from+b.Batch, b.Terminals); n++ {
			body.Terminals = append(body.Terminals, newTerminal{
				TID: fmt.Sprintf("B%07d", n), MID: "BENCH0000000001", Scheme: "tmk", Profile: "unionpay",
				MasterKey: &newMaster{Generate: true}, WorkingKeys: []string{"TPK", "TAK"},
			})
		}
		one := time.Now()
		var answer addedTerminals
		if err := d.own(b.p.ctx, "AddTerminals", body, &answer); err != nil {
			return err
		}
		if answer.Added != len(body.Terminals) {
			return fmt.Errorf("%d of %d registered: %+v", answer.Added, len(body.Terminals), answer.Refused[:min(1, len(answer.Refused))])
		}
		b.found.SlowestBatch = max(b.found.SlowestBatch, time.Since(one))
		bar.at(from + answer.Added)
	}
	b.found.Terminals, b.found.Keys = b.Terminals, 3*b.Terminals
	b.found.Registration = float64(b.Terminals) / time.Since(began).Seconds()
	return nil
}

// startAgain starts the daemon with the estate.
func (b *terminalBench) startAgain() (err error) {
	if b.found.Start, err = b.start(); err != nil {
		return err
	}
	b.found.ResidentIdle = residentMB(b.trial.dev.PID)
	b.found.Database = sizeMB(filepath.Join(b.trial.devDir(), "keyd.db*"))
	b.found.Log = sizeMB(filepath.Join(b.trial.devDir(), "audit"))
	return nil
}

// sizeMB is the size of what is under the paths.
func sizeMB(patterns ...string) float64 {
	var bytes int64
	for _, pattern := range patterns {
		roots, _ := filepath.Glob(pattern) // an error is only one of the pattern
		for _, root := range roots {
			_ = filepath.WalkDir(root, func(_ string, entry fs.DirEntry, err error) error {
				if err != nil {
					return nil // a file that is gone meanwhile
				}
				if info, err := entry.Info(); err == nil && info.Mode().IsRegular() {
					bytes += info.Size()
				}
				return nil
			})
		}
	}
	return float64(bytes) / 1e6
}

// use makes a MAC with the key of one terminal after the other.
func (b *terminalBench) use() error {
	arns, err := b.keyARNs()
	if err != nil {
		return err
	}
	sample := arns[:min(coldSample, len(arns))]
	cold, err := b.timed(sample)
	if err != nil {
		return err
	}
	b.found.ColdKeys, b.found.ColdP50, b.found.ColdP99 = len(cold), cold[len(cold)/2], cold[len(cold)*99/100]
	warm, err := b.timed(sample)
	if err != nil {
		return err
	}
	b.found.WarmP50 = warm[len(warm)/2]
	if err := b.useAll(arns[len(sample):]); err != nil {
		return err
	}
	if b.found.CachedKeys, err = b.cached(); err != nil {
		return err
	}
	b.found.Resident = residentMB(b.trial.dev.PID)
	return nil
}

// keyARNs are the names of as many MAC keys as are to be kept. They come from
// the database: the API lists terminals without their keys.
func (b *terminalBench) keyARNs() ([]string, error) {
	db, err := store.Open(b.p.ctx, store.Config{Path: filepath.Join(b.trial.devDir(), "keyd.db"), Purpose: store.Visit})
	if err != nil {
		return nil, err
	}
	defer db.Close()
	var ids []keys.ID
	for after := "A"; len(ids) < b.Cached; {
		page, err := db.Registry(b.p.ctx, after, 0)
		if err != nil {
			return nil, err
		}
		for _, t := range page {
			if after = t.TID; t.Keys.MAC != "" && len(ids) < b.Cached {
				ids = append(ids, t.Keys.MAC)
			}
		}
		if len(page) == 0 {
			return nil, fmt.Errorf("%d terminals have keys, want %d", len(ids), b.Cached)
		}
	}
	d, err := b.door("admin")
	if err != nil {
		return nil, err
	}
	var first struct{ Terminal api.Terminal }
	if err := d.own(b.p.ctx, "GetTerminal", map[string]string{"Tid": "B0000000"}, &first); err != nil {
		return nil, err
	}
	at := slices.IndexFunc(first.Terminal.Keys, func(k api.TerminalKey) bool { return k.Slot == "TAK" })
	if at < 0 {
		return nil, errors.New("the first terminal has no MAC key")
	}
	prefix := strings.TrimSuffix(first.Terminal.Keys[at].KeyArn, string(ids[0]))
	arns := make([]string, len(ids))
	for i, id := range ids {
		arns[i] = prefix + string(id)
	}
	return arns, nil
}

// timed uses keys one by one over one connection, and returns the times, sorted.
func (b *terminalBench) timed(arns []string) ([]time.Duration, error) {
	conn, err := b.dial()
	if err != nil {
		return nil, err
	}
	defer conn.close()
	var took []time.Duration
	for _, arn := range arns {
		began := time.Now()
		if err := conn.post("/mac/generate", terminalMAC(arn)); err != nil {
			return nil, err
		}
		took = append(took, time.Since(began))
	}
	slices.Sort(took)
	return took, nil
}

func terminalMAC(arn string) []byte {
	return []byte(`{"KeyIdentifier":"` + arn + `","MessageData":"` + strings.Repeat("30", 64) + `","GenerationAttributes":{"Algorithm":"KEYD_UNIONPAY_ECB"},"MacLength":8}`)
}

func (b *terminalBench) dial() (*httpConn, error) {
	config, err := devTLS(b.trial.dev, "switch")
	if err != nil {
		return nil, err
	}
	return dialHTTP(b.p.ctx, strings.TrimPrefix(b.trial.dev.APIURL, "https://"), config)
}

// useAll uses every key once, over several connections.
func (b *terminalBench) useAll(arns []string) error {
	const connections = 8
	ctx, cancel := context.WithCancel(b.p.ctx)
	defer cancel()
	var next atomic.Int64
	errs := make([]error, connections)
	var group sync.WaitGroup
	for worker := range connections {
		group.Go(func() {
			conn, err := b.dial()
			if err != nil {
				errs[worker] = err
				cancel()
				return
			}
			defer conn.close()
			for i := next.Add(1) - 1; int(i) < len(arns) && ctx.Err() == nil; i = next.Add(1) - 1 {
				if errs[worker] = conn.post("/mac/generate", terminalMAC(arns[i])); errs[worker] != nil {
					cancel()
					return
				}
			}
		})
	}
	group.Wait()
	return errors.Join(errs...)
}

// cached asks the daemon how many keys it keeps loaded.
func (b *terminalBench) cached() (int, error) {
	resp, err := http.Get("http://" + b.trial.dev.OpsAddr + "/metrics")
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, 1<<22))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(line, "keyd_token_cached_keys "); ok {
			n, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
			return int(n), err
		}
	}
	return 0, errors.New("the daemon's metrics have no keyd_token_cached_keys")
}

func (b *terminalBench) print() error {
	f := b.found
	if b.JSON {
		return json.NewEncoder(b.p.stdout).Encode(f)
	}
	for _, line := range []struct {
		name, figure string
	}{
		{"load before and after", f.LoadBefore + "; " + f.LoadAfter},
		{"terminals, keys", fmt.Sprintf("%d, %d", f.Terminals, f.Keys)},
		{"registration", fmt.Sprintf("%.0f terminals a second; slowest batch %v", f.Registration, f.SlowestBatch.Round(time.Millisecond))},
		{"start with all of them", fmt.Sprint(f.Start.Round(time.Millisecond))},
		{"first use of a key", fmt.Sprintf("p50 %v, p99 %v, of %d; again %v", f.ColdP50.Round(time.Microsecond), f.ColdP99.Round(time.Microsecond), f.ColdKeys, f.WarmP50.Round(time.Microsecond))},
		{"keys kept loaded", strconv.Itoa(f.CachedKeys)},
		{"resident memory", fmt.Sprintf("%.0f MB after the start, %.0f MB with these keys", f.ResidentIdle, f.Resident)},
		{"on disk", fmt.Sprintf("database %.0f MB, audit log %.0f MB", f.Database, f.Log)},
	} {
		if _, err := fmt.Fprintf(b.p.stdout, "  %-24s %s\n", line.name, line.figure); err != nil {
			return err
		}
	}
	return nil
}
