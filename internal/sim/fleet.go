package sim

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"
)

// FleetConfig is what many terminals are to do at once.
type FleetConfig struct {
	Devices []*Device
	Order   func(n int) Order // of the nth transaction, from 0, of any terminal
	Rate    float64           // transactions a second, of all together: see [FleetRate]
	For     time.Duration
}

// FleetReport is what came of it.
type FleetReport struct {
	Sent     int            `json:"transactions"`
	Late     int            `json:"late"` // not sent when their turn was: all terminals were busy
	Codes    map[string]int `json:"codes"`
	Unknown  int            `json:"without_a_valid_answer"`
	Sends    int            `json:"reversals_sent"`     // tries
	Reversed int            `json:"reversals_answered"` // that ended
	GivenUp  int            `json:"reversals_given_up"`
	Failed   int            `json:"failed"` // what kept a terminal from trying
	P50      time.Duration  `json:"p50_ns"` // of transactions with a valid answer
	P99      time.Duration  `json:"p99_ns"`
}

// The bounds of a fleet's rate, in transactions a second.
const (
	FleetLeastRate = 0.001
	FleetMostRate  = 100_000
)

// fleet is terminals at work.
type fleet struct {
	cfg   FleetConfig
	mu    sync.Mutex
	r     FleetReport
	took  []time.Duration
	first error
}

// FleetRate reports whether a fleet can keep to the rate.
func FleetRate(perSecond float64) bool {
	return perSecond >= FleetLeastRate && perSecond <= FleetMostRate
}

// RunFleet lets the terminals work and then send what reversals they owe. An error
// is that of the first terminal that could not go on, or of the context.
func RunFleet(ctx context.Context, cfg FleetConfig) (FleetReport, error) {
	if len(cfg.Devices) == 0 || cfg.For <= 0 || cfg.Order == nil {
		return FleetReport{}, errors.New("sim: a fleet needs terminals, a time and orders")
	}
	if !FleetRate(cfg.Rate) {
		return FleetReport{}, fmt.Errorf("sim: a fleet's rate is from %v to %v a second, not %v", FleetLeastRate, FleetMostRate, cfg.Rate)
	}
	f := &fleet{cfg: cfg, r: FleetReport{Codes: make(map[string]int)}}
	turns := make(chan int)
	var work sync.WaitGroup
	for _, d := range cfg.Devices {
		work.Go(func() { f.work(ctx, d, turns) })
	}
	f.pace(ctx, turns)
	close(turns)
	work.Wait()
	slices.Sort(f.took)
	if n := len(f.took); n > 0 {
		f.r.P50, f.r.P99 = f.took[n/2], f.took[(n*99)/100]
	}
	return f.r, errors.Join(f.first, ctx.Err())
}

// pace hands out the turns, evenly. One for which no terminal is free is counted
// and lost: a queue would hide that the switch is slow.
func (f *fleet) pace(ctx context.Context, turns chan<- int) {
	tick := time.NewTicker(time.Duration(float64(time.Second) / f.cfg.Rate))
	defer tick.Stop()
	end := time.NewTimer(f.cfg.For)
	defer end.Stop()
	for n := 0; ; n++ {
		select {
		case turns <- n:
		default:
			f.mu.Lock()
			f.r.Late++
			f.mu.Unlock()
		}
		select {
		case <-tick.C:
		case <-end.C:
			return
		case <-ctx.Done():
			return
		}
	}
}

func (f *fleet) work(ctx context.Context, d *Device, turns <-chan int) {
	for n := range turns {
		f.count(d.Do(ctx, f.cfg.Order(n)))
	}
	f.count(d.Do(ctx, Order{Do: DoResume}))
}

func (f *fleet) count(r *Result, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err != nil {
		f.r.Failed++
		if f.first == nil {
			f.first = err
		}
	}
	if r == nil {
		return
	}
	if b := r.Before; b != nil {
		f.r.Sends += b.Tries
		if b.GivenUp {
			f.r.GivenUp++
		} else if err == nil {
			f.r.Reversed++
		}
	}
	switch {
	case r.Sent == nil || err != nil:
	case r.Fault != nil:
		f.r.Sent++
		f.r.Unknown++
	default:
		f.r.Sent++
		f.r.Codes[r.Code]++
		f.took = append(f.took, r.Took)
	}
}
