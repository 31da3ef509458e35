package main

import (
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"keyd.dev/keyd/internal/iso8583"
	"keyd.dev/keyd/internal/sim"
)

// benchForgeriesCmd drives honest sales beside a flood of forged reversals by other
// connections, under the same client certificate, as a forger in a gateway has it.
type benchForgeriesCmd struct {
	Rate      int           `help:"Honest sales a second, with PIN and MAC." default:"200"`
	Terminals int           `help:"Honest terminals, each with a connection." default:"20"`
	Forgeries int           `help:"Forged reversals a second." default:"5000"`
	Links     int           `help:"Connections by which they come." default:"10"`
	Duration  time.Duration `help:"Length of both measurements, without the flood and in it, by turns of a second." default:"10s"`
	Check     bool          `help:"End with status 1 where a hold is missed: all forgeries refused, counted in the log and without effect, at the rate that was asked for and without a backlog, and the p99 of honest sales at most doubled. For a machine of two processors with nothing else to do."`
	Profile   string        `help:"Write a processor profile of the daemon under both." type:"path" placeholder:"FILE"`
	JSON      bool          `help:"Print JSON lines." name:"json"`
}

// forgeryTerminals of the fifty for load are those whose reversals are forged.
const forgeryTerminals = 10

// Run measures, prints and judges.
func (c *benchForgeriesCmd) Run(p *program) error {
	most := loadTerminals - forgeryTerminals
	if c.Rate < 1 || c.Rate > sim.FleetMostRate || c.Terminals < 1 || c.Terminals > most || c.Forgeries < 1 || c.Links < 1 || c.Links > 500 || c.Duration < 100*time.Millisecond {
		return usageError("want a --rate of 1 to %d, 1 or more --forgeries, 1 to %d --terminals, 1 to 500 --links and a --duration of 100ms or more", sim.FleetMostRate, most)
	}
	dir, clean, err := trialDir("")
	if err != nil {
		return err
	}
	defer clean()
	b := &bench{benchCmd: &benchCmd{Duration: c.Duration, Check: c.Check, Profile: c.Profile, JSON: c.JSON}}
	b.machine(p)
	if b.trial, err = startTrial(p, dir, b.flags()...); err != nil {
		return err
	}
	defer b.stop()
	f := &forgeryBench{benchForgeriesCmd: c, bench: b}
	if err := f.measure(); err != nil {
		return err
	}
	if err := b.print(); err != nil {
		return err
	}
	return b.judge()
}

type forgeryBench struct {
	*benchForgeriesCmd
	*bench
	honest []*honest
}

// honest is a terminal with its connection.
type honest struct {
	*sim.Terminal
	link *sim.Link
}

func (f *forgeryBench) measure() error {
	if err := f.connect(); err != nil {
		return err
	}
	defer func() {
		for _, h := range f.honest {
			_ = h.link.Close()
		}
	}()
	var warm phase
	if err := f.sales(&warm, f.benchForgeriesCmd.Duration/10); err != nil {
		return err
	}
	flood, err := f.floods()
	if err != nil {
		return err
	}
	defer flood.close()
	var quiet, beside phase
	if err := f.profiled(func() error { return f.turns(flood, &quiet, &beside) }); err != nil {
		return err
	}
	refused := flood.refused.Load()
	forged := figure{Name: "forged reversals refused", PerSecond: float64(refused) / flood.sending.Seconds()}
	calm := quiet.figure("honest sales, quiet")
	if n := float64(refused); n > 0 {
		honest := calm.ServerCPU * float64(beside.tally.count)
		forged.ServerCPU = max(0, float64(beside.spent.server.Microseconds())-honest) / n
	}
	f.add(calm)
	f.add(forged)
	f.add(beside.figure("honest sales, under the flood"))
	counted, err := f.counted()
	if err != nil {
		return err
	}
	f.verdict(calm, forged, beside.figure(""), flood, counted)
	return nil
}

// longestTurn is how long it is quiet, and how long the flood lasts, at a time: what
// else the machine and its disk do in some seconds then falls on both.
const longestTurn = time.Second

// longestAnswer is more than a forgery waits by design: a slowed frame's time and
// beat, a window of shared records and its pace. A switch that cannot keep up is
// later by the end of a turn.
const longestAnswer = time.Second

// turns measures honest sales without the flood and in it, by turns.
func (f *forgeryBench) turns(flood *flood, quiet, beside *phase) error {
	turns := (f.benchForgeriesCmd.Duration + longestTurn - 1) / longestTurn
	length := f.benchForgeriesCmd.Duration / turns
	for range turns {
		if err := f.sales(quiet, length); err != nil {
			return err
		}
		flood.begin(time.Now(), f.Forgeries, length)
		err := f.sales(beside, length)
		if late := flood.end(); err == nil {
			err = late
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (f *forgeryBench) verdict(quiet, forged, beside figure, flood *flood, counted int64) {
	undone := 0
	for _, e := range f.issuer.Book() {
		undone += e.Received
	}
	refused, approved := flood.refused.Load(), flood.approved.Load()
	f.verdicts = append(f.verdicts,
		judged{fmt.Sprintf("at least %d forgeries refused a second", f.Forgeries*95/100), fmt.Sprintf("%.0f", forged.PerSecond), forged.PerSecond >= float64(f.Forgeries*95/100)},
		judged{fmt.Sprintf("the last of a turn answered within %v", longestAnswer), flood.lag.Round(time.Millisecond).String(), flood.lag <= longestAnswer},
		judged{"none approved, no reversal upstream", fmt.Sprintf("%d, %d", approved, undone), approved == 0 && undone == 0},
		judged{fmt.Sprintf("all %d counted in the log", refused), fmt.Sprint(counted), counted == refused},
		judged{"p99 of honest sales at most doubled", fmt.Sprintf("%v from %v", beside.P99.Round(10*time.Microsecond), quiet.P99.Round(10*time.Microsecond)), beside.P99 <= 2*quiet.P99},
		judged{"no honest sale failed", fmt.Sprint(quiet.Failed + beside.Failed), quiet.Failed+beside.Failed == 0},
	)
}

// connect connects the honest terminals.
func (f *forgeryBench) connect() error {
	for n := range f.Terminals {
		t, link, err := f.terminal(3 + n)
		if err != nil {
			return err
		}
		f.honest = append(f.honest, &honest{t, link})
	}
	return nil
}

func (f *forgeryBench) terminal(n int) (*sim.Terminal, *sim.Link, error) {
	fixed := f.dev.Terminals[n]
	t, err := sim.NewTerminal(sim.TerminalConfig{TID: fixed.TID, MID: fixed.MID, BDK: f.dev.TestKeys[fixed.BDK], KSN: fixed.KSN}, 0)
	if err != nil {
		return nil, nil, err
	}
	config, err := devTLS(f.dev, "terminal")
	if err != nil {
		return nil, nil, err
	}
	link, err := sim.Dial(f.p.ctx, f.dev.SwitchAddr, config, 30*time.Second)
	return t, link, err
}

// phase is what was measured in all turns of one kind.
type phase struct {
	tally tally
	took  time.Duration
	spent cpu
}

func (p *phase) figure(name string) figure {
	r := p.tally.figure(name, p.took)
	r.spent(p.spent, p.tally.count)
	return r
}

// sales makes honest sales at the rate, each at its time: one that had to wait for
// the one before took as much longer.
func (f *forgeryBench) sales(into *phase, length time.Duration) error {
	var mu sync.Mutex
	var work sync.WaitGroup
	start, before := time.Now(), cpuNow(f.dev.PID)
	each := time.Duration(float64(time.Second) * float64(len(f.honest)) / float64(f.Rate))
	for n, h := range f.honest {
		first := start.Add(each * time.Duration(n) / time.Duration(len(f.honest)))
		work.Go(func() {
			own := new(tally)
			for at := first; at.Before(start.Add(length)); at = at.Add(each) {
				time.Sleep(time.Until(at))
				if err := oneSale(h.Terminal, h.link); err != nil {
					own.failed, own.why = own.failed+1, err
					break
				}
				own.took(time.Since(at))
			}
			mu.Lock()
			defer mu.Unlock()
			into.tally.add(own)
		})
	}
	work.Wait()
	into.took += time.Since(start)
	into.spent = into.spent.plus(cpuNow(f.dev.PID).minus(before))
	return into.tally.why
}

// flood is the forger.
type flood struct {
	links    []*forgerLink
	work     sync.WaitGroup
	started  time.Time
	sending  time.Duration // of all turns, until the last was sent
	lag      time.Duration // the longest, from the last that was sent to the last answer
	refused  atomic.Int64
	approved atomic.Int64
	failed   chan error
}

// forgerLink is a connection and the forgeries that go by it in turn.
type forgerLink struct {
	link  *sim.Link
	raw   [][]byte
	sent  atomic.Int64
	ended atomic.Bool // no more are sent
	last  time.Time   // when the last was sent; of who sends until the turn ends
}

// floods prepares the forgeries: genuine reversals of terminals, whose MACs were
// changed.
func (f *forgeryBench) floods() (*flood, error) {
	fl := &flood{failed: make(chan error, 2*f.Links)}
	var raw [][]byte
	for n := range forgeryTerminals {
		t, link, err := f.terminal(3 + loadTerminals - forgeryTerminals + n)
		if err != nil {
			return nil, err
		}
		_ = link.Close()
		sale, err := t.Sale(1000, sim.Card{PAN: demoPANTDES}, nil)
		if err != nil {
			return nil, err
		}
		sent, err := t.Reversal(iso8583.ReversalRequest, sale, "", "", nil)
		if err != nil {
			return nil, err
		}
		last := len(sent.Raw) - 1
		sent.Raw[last] = "10"[min(1, sent.Raw[last]&1)]
		raw = append(raw, sent.Raw)
	}
	for n := range f.Links {
		_, link, err := f.terminal(3)
		if err != nil {
			return nil, err
		}
		fl.links = append(fl.links, &forgerLink{link: link, raw: [][]byte{raw[n%len(raw)], raw[(n+1)%len(raw)]}})
	}
	return fl, nil
}

// begin sends forgeries at a rate for a time; who sends does not wait for answers.
func (fl *flood) begin(start time.Time, rate int, length time.Duration) {
	fl.started = start
	for _, l := range fl.links {
		l.sent.Store(0)
		l.ended.Store(false)
		fl.work.Go(func() {
			if err := l.send(start, float64(rate)/float64(len(fl.links)), length); err != nil {
				fl.failed <- err
			}
		})
		fl.work.Go(func() {
			if err := l.receive(fl); err != nil {
				fl.failed <- err
			}
		})
	}
}

// send keeps to the rate in steps of some milliseconds.
func (l *forgerLink) send(start time.Time, rate float64, length time.Duration) error {
	defer func() {
		l.last = time.Now()
		l.ended.Store(true)
	}()
	const step = 5 * time.Millisecond
	for at := step; at <= length; at += step {
		time.Sleep(time.Until(start.Add(at)))
		for due := int64(rate * at.Seconds()); l.sent.Load() < due; l.sent.Add(1) {
			if err := l.link.Send(l.raw[int(l.sent.Load())%len(l.raw)]); err != nil {
				return err
			}
		}
	}
	return nil
}

// receive counts answers until all that was sent has one.
func (l *forgerLink) receive(fl *flood) error {
	dialect := iso8583.ASCII87()
	for n := int64(0); !l.ended.Load() || n < l.sent.Load(); {
		if n == l.sent.Load() {
			time.Sleep(time.Millisecond)
			continue
		}
		raw, err := l.link.Receive()
		if err != nil {
			if errors.Is(err, io.EOF) {
				err = fmt.Errorf("the switch has closed a forger's connection after %d answers: %w", n, err)
			}
			return err
		}
		n++
		m, err := dialect.Parse(raw, iso8583.SideTerminal)
		if err != nil {
			return err
		}
		if m.Text(39) == "00" {
			fl.approved.Add(1)
			continue
		}
		fl.refused.Add(1)
	}
	return nil
}

// end waits for the answers.
func (fl *flood) end() error {
	fl.work.Wait()
	last := fl.started
	for _, l := range fl.links {
		if l.last.After(last) {
			last = l.last
		}
	}
	fl.sending += last.Sub(fl.started)
	fl.lag = max(fl.lag, time.Since(last))
	select {
	case err := <-fl.failed:
		return err
	default:
		return nil
	}
}

func (fl *flood) close() {
	for _, l := range fl.links {
		_ = l.link.Close()
	}
}
