package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// benchSoakCmd looks whether the memory of a daemon stays flat under full load.
type benchSoakCmd struct {
	For         time.Duration `help:"Length of the run, the warm-up not counted." default:"10m"`
	WarmUp      time.Duration `help:"What the daemon is given to settle first." default:"1m"`
	Every       time.Duration `help:"Time between two looks at the memory." default:"10s"`
	MostGrowth  float64       `help:"Percent of the resident memory that it may grow by over the run, by its trend." default:"5"`
	Connections int           `help:"Connections of the load generator: half translate PINs, half make MACs." default:"64"`
	JSON        bool          `help:"Print JSON." name:"json"`
}

// soak is what was found. Sizes are of the resident memory, in megabytes.
type soak struct {
	Seconds   float64   `json:"seconds"`
	PINs      figure    `json:"pin_translation"`
	MACs      figure    `json:"mac_generation"`
	FirstMB   float64   `json:"first_mb"`
	LastMB    float64   `json:"last_mb"`
	LeastMB   float64   `json:"least_mb"`
	MostMB    float64   `json:"most_mb"`
	SlopeMB   float64   `json:"slope_mb_per_minute"` // of the straight line through the samples
	GrowthPct float64   `json:"growth_percent"`      // what the line rises by over the run
	Samples   []float64 `json:"samples_mb"`
	AuditMB   float64   `json:"audit_log_mb"`
	Load      string    `json:"load"`
}

// Run loads a daemon of its own and samples its memory.
func (c *benchSoakCmd) Run(p *program) error {
	if c.Connections < 2 || c.Every <= 0 || c.For < 3*c.Every || c.WarmUp < 0 || c.MostGrowth <= 0 {
		return usageError("want 2 or more --connections, a --for of three times --every or more, and a --most-growth above 0")
	}
	dir, clean, err := trialDir("")
	if err != nil {
		return err
	}
	defer clean()
	b := &bench{benchCmd: &benchCmd{Connections: c.Connections / 2, Duration: c.For}}
	if b.trial, err = startTrial(p, dir); err != nil {
		return err
	}
	defer b.stop()
	found, err := c.measure(b)
	if err != nil {
		return err
	}
	if err := c.print(p, found); err != nil {
		return err
	}
	if found.GrowthPct > c.MostGrowth {
		return fmt.Errorf("the daemon's memory grew by %.1f percent, more than %.1f", found.GrowthPct, c.MostGrowth)
	}
	return nil
}

// measure runs the load, and looks at the memory from the end of the warm-up on.
func (c *benchSoakCmd) measure(b *bench) (soak, error) {
	rows, err := b.rows()
	if err != nil {
		return soak{}, err
	}
	var found soak
	pins, macs := make(chan figure, 1), make(chan figure, 1)
	for _, r := range rows {
		into := map[string]chan figure{rowPIN: pins, rowCMAC: macs}[r.name]
		if into == nil {
			continue
		}
		go func() {
			into <- load(r.name, b.Connections, c.WarmUp+c.For, b.dev.PID, b.poster(b.apiHost(), r.path, r.bodies))
		}()
	}
	began, err := c.sample(b, &found)
	if err != nil {
		return soak{}, err
	}
	found.Seconds = time.Since(began).Seconds()
	found.PINs, found.MACs = <-pins, <-macs
	found.AuditMB, found.Load = treeMB(b.dev.AuditDir), loadAverage()
	if n := found.PINs.Failed + found.MACs.Failed; n > 0 {
		return soak{}, fmt.Errorf("%d connections failed", n)
	}
	found.judge(c.Every)
	return found, nil
}

func (c *benchSoakCmd) sample(b *bench, found *soak) (began time.Time, err error) {
	select {
	case <-time.After(c.WarmUp):
	case <-b.p.ctx.Done():
		return began, b.p.ctx.Err()
	}
	tick := time.NewTicker(c.Every)
	defer tick.Stop()
	began = time.Now()
	for time.Since(began) < c.For {
		mb := residentMB(b.dev.PID)
		if mb == 0 {
			return began, errors.New("the daemon is gone")
		}
		found.Samples = append(found.Samples, mb)
		select {
		case <-tick.C:
		case <-b.p.ctx.Done():
			return began, b.p.ctx.Err()
		}
	}
	return began, nil
}

// judge draws the line of least squares through the samples.
func (s *soak) judge(every time.Duration) {
	n := float64(len(s.Samples))
	s.FirstMB, s.LastMB = s.Samples[0], s.Samples[len(s.Samples)-1]
	s.LeastMB, s.MostMB = s.FirstMB, s.FirstMB
	var x, y, xx, xy float64
	for i, mb := range s.Samples {
		s.LeastMB, s.MostMB = min(s.LeastMB, mb), max(s.MostMB, mb)
		at := float64(i)
		x, y, xx, xy = x+at, y+mb, xx+at*at, xy+at*mb
	}
	slope := (n*xy - x*y) / (n*xx - x*x) // a sample
	s.SlopeMB = slope / every.Minutes()
	s.GrowthPct = 100 * slope * (n - 1) / (y / n)
}

func (c *benchSoakCmd) print(p *program, s soak) error {
	if c.JSON {
		return json.NewEncoder(p.stdout).Encode(s)
	}
	fmt.Fprintf(p.stdout, "%.0f s after %v of warm-up; load %s\n", s.Seconds, c.WarmUp, s.Load)
	for _, f := range []figure{s.PINs, s.MACs} {
		fmt.Fprintf(p.stdout, "  %-50s %8.0f a second, p50 %v, p99 %v\n", f.Name, f.PerSecond, f.P50.Round(10*time.Microsecond), f.P99.Round(10*time.Microsecond))
	}
	fmt.Fprintf(p.stdout, "  audit log                                          %8.0f MB\n", s.AuditMB)
	fmt.Fprintf(p.stdout, "  resident memory: first %.1f MB, last %.1f, least %.1f, most %.1f\n", s.FirstMB, s.LastMB, s.LeastMB, s.MostMB)
	fmt.Fprintf(p.stdout, "  trend %+.3f MB a minute, %+.2f percent over the run; bound %.1f percent\n", s.SlopeMB, s.GrowthPct, c.MostGrowth)
	return nil
}

// treeMB is the size of the files under a folder in megabytes.
func treeMB(dir string) float64 {
	var bytes int64
	_ = filepath.WalkDir(dir, func(_ string, entry os.DirEntry, err error) error {
		if err != nil {
			return nil // files of the log come and go
		}
		if info, err := entry.Info(); err == nil && info.Mode().IsRegular() {
			bytes += info.Size()
		}
		return nil
	})
	return float64(bytes) / 1e6
}
