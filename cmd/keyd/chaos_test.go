package main

import (
	"context"
	"fmt"
	"os"
	"testing"
	"time"

	"keyd.dev/keyd/internal/isoswitch"
	"keyd.dev/keyd/internal/sim"
)

// TestChaos is 50 terminals and a faulty issuer on faulty links, and a daemon
// that is killed again and again; afterwards the books of all three are
// compared. KEYD_CHAOS_FOR is how long it lasts, KEYD_CHAOS_SEED repeats the
// dice of a run as far as the machine lets it. `make chaos` gives it 5 minutes.
func TestChaos(t *testing.T) {
	length := spanSetting(t, "KEYD_CHAOS_FOR", time.Minute)
	c := newChaos(t, setting(t, "KEYD_CHAOS_SEED", randomSeed(t)), int(setting(t, "KEYD_CHAOS_TERMINALS", 50)))
	t.Logf("KEYD_CHAOS_SEED=%d KEYD_CHAOS_FOR=%v KEYD_CHAOS_TERMINALS=%d", c.seed, length, len(c.shop.tills))
	ctx, cancel := context.WithTimeout(t.Context(), length+5*time.Minute)
	defer cancel()
	c.storm(ctx, length)
	c.end(ctx)
	books := openBooks(t, c.k.dir, c.issuer.book(), c.shop.tills)
	t.Run("R-08 M-21 what each terminal saw", c.shop.faultless)
	books.reconcile(t)
	t.Run("the audit log verifies", func(t *testing.T) {
		if err := c.k.verify(ctx); err != nil {
			t.Error(err)
		}
	})
	t.Run("R-07 no card number on disk", func(t *testing.T) {
		if files := c.k.holds(killPAN); files != nil {
			t.Errorf("stands in %q", files)
		}
	})
	t.Run("R-42 no panic and no race", func(t *testing.T) { c.k.healthy() })
	t.Run("M-06 upstream every message had a MAC", func(t *testing.T) {
		if c.issuer.badMACs > 0 {
			t.Errorf("%d had none, or a wrong one", c.issuer.badMACs)
		}
	})
	t.Run("enough happened", func(t *testing.T) { c.enough(t, books, length) })
}

// plantApprovals are how many sales the daemon with the bug must have approved,
// for else it was not at work.
const plantApprovals = 10

// TestChaosFindsPlant lets the same storm loose on a daemon with a planted bug,
// an effect before its commit. It must not go unseen.
func TestChaosFindsPlant(t *testing.T) {
	c := newChaos(t, setting(t, "KEYD_CHAOS_SEED", randomSeed(t)), 50)
	t.Logf("KEYD_CHAOS_SEED=%d", c.seed)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	c.k.planted, c.least, c.most = true, 500*time.Millisecond, 2500*time.Millisecond
	c.storm(ctx, spanSetting(t, "KEYD_CHAOS_PLANT_FOR", 30*time.Second))
	// On a slow machine few kills come between an effect and its commit, and few
	// answers before a kill: it gets more lives, each longer than the last.
	for late := time.Now().Add(5 * time.Minute); time.Now().Before(late); c.most += time.Second {
		if c.forgotten() && c.shop.approved() >= plantApprovals {
			break
		}
		c.life(ctx)
	}
	c.k.planted = false
	c.end(ctx)
	found := findings{}
	books := openBooks(&found, c.k.dir, c.issuer.book(), c.shop.tills)
	for _, i := range books.invariants() {
		before := len(found)
		i.check(&found)
		if n := len(found) - before; n > 0 {
			t.Logf("%d times broken: %s\n%.600s", n, i.name, found[before])
		}
	}
	if len(found) == 0 {
		t.Errorf("after %d kills nobody has noticed that effects came before their commit", c.kills)
	}
	if n := books.count(func(d *deal) bool { return d.code == "00" }); n < plantApprovals {
		t.Errorf("only %d approvals: the daemon with the bug did not work", n)
	}
}

// forgotten reports whether the bug has shown, while keyd is dead: what the issuer
// has booked must be in the journal, and in both once.
func (c *chaos) forgotten() bool {
	c.t.Helper()
	found := findings{}
	b := openBooks(&found, c.k.dir, c.issuer.book(), nil)
	for name, e := range b.issuer {
		if j, ok := b.journal[name]; !ok || j.state == isoswitch.Tombstone || e.Messages != 1 {
			return true
		}
	}
	return len(found) > 0
}

// findings are the reports of a comparison that is to fail.
type findings []string

func (f *findings) Errorf(format string, args ...any) { *f = append(*f, fmt.Sprintf(format, args...)) }

// chaos is a storm: terminals, proxies, keyd, an issuer.
type chaos struct {
	t           *testing.T
	seed        uint64
	dice        *dice
	k           *killable
	issuer      *killIssuer
	shop        *shop
	front, back *proxy
	least, most time.Duration // a life of keyd
	kills       int
	outages     int // of the issuer
}

// frontWeather is what befalls the links of the terminals, backWeather the one
// upstream, on which many sales are under way at once.
func frontWeather() weather {
	return weather{late: 100, most: 400 * time.Millisecond, twice: 3, cut: 8, frozen: 3, freeze: 2 * time.Second}
}

func backWeather() weather {
	return weather{late: 60, most: 300 * time.Millisecond, twice: 1, cut: 1, frozen: 1, freeze: 2500 * time.Millisecond}
}

func newChaos(t *testing.T, seed uint64, terminals int) *chaos {
	t.Helper()
	c := &chaos{t: t, seed: seed, dice: newDice(seed), k: newKillable(t), least: time.Second, most: 4 * time.Second}
	c.k.start()
	c.k.kill()
	// Short times, so that much happens between two kills; a kill costs a try.
	c.k.edit("t_upstream", "'1.5s'")
	c.k.edit("saf_first_delay", "'300ms'")
	c.k.edit("saf_ceiling", "'2s'")
	c.k.edit("saf_tries", "1000")
	c.k.edit("t_stray", "'5s'")

	spare := quietAddrs(t, 2)
	dev := c.k.dev.Load()
	c.back = startProxy(t, dev.Issuer.Addr, spare[0], newDice(c.dice.next()), backWeather())
	c.front = startProxy(t, spare[1], dev.SwitchAddr, newDice(c.dice.next()), frontWeather())
	c.issuer = newKillIssuer(t, c.k)
	c.issuer.addr = spare[0]
	c.shop = &shop{t: t, storm: make(chan struct{})}
	for n := range terminals {
		c.shop.tills = append(c.shop.tills, c.newTill(fmt.Sprintf("T%07d", 100+n)))
	}
	return c
}

func (c *chaos) newTill(tid string) *till {
	c.t.Helper()
	till, err := newTill(c.k.dev.Load(), tid, newDice(c.dice.next()), sim.Card{PAN: killPAN, PIN: testPIN})
	if err != nil {
		c.t.Fatal(err)
	}
	if till.forge, err = newForger(c.k.dev.Load(), newDice(c.dice.next())); err != nil {
		c.t.Fatal(err)
	}
	till.addr, till.pace, till.double, till.slack = c.front.addr(), 1500*time.Millisecond, 4, 2*time.Second
	return till
}

// storm kills keyd again and again for so long.
func (c *chaos) storm(ctx context.Context, length time.Duration) {
	c.t.Helper()
	c.issuer.serve(chaosRules())
	c.shop.work(ctx)
	for end := time.Now().Add(length); time.Now().Before(end) && ctx.Err() == nil; {
		c.life(ctx)
	}
}

// life is one life of keyd. Most end with a kill while it is at work, some before
// it is ready, and some as an operator ends them.
func (c *chaos) life(ctx context.Context) {
	c.t.Helper()
	moment, way := c.dice.between(c.least, c.most), c.dice.below(100)
	if way < 12 {
		c.k.launch()
		wait(ctx, moment/4)
		c.alive()
		c.k.kill()
		c.kills++
		return
	}
	c.k.start()
	if c.dice.chance(20) {
		c.outages++
		c.issuer.stop()
		wait(ctx, moment/3)
		c.issuer.serve(chaosRules())
	}
	wait(ctx, moment)
	c.alive()
	if way < 20 {
		c.k.stop()
		return
	}
	c.k.kill()
	c.kills++
}

func (c *chaos) alive() {
	c.t.Helper()
	if !c.k.alive() {
		c.t.Fatalf("keyd ended by itself: %v", c.k.proc.ProcessState)
	}
}

// end lets all that was begun come to an end: good weather, an issuer that
// answers what it owes an answer, and a daemon that stays.
func (c *chaos) end(ctx context.Context) {
	c.t.Helper()
	c.front.calm()
	c.back.calm()
	c.issuer.stop()
	c.issuer.serve(quietRules())
	c.k.start()
	c.shop.close(ctx)
	c.k.linked()
	c.k.settled(2 * time.Minute)
	if err := c.k.verify(ctx); err != nil {
		c.t.Errorf("while keyd runs: %v", err)
	}
	c.k.stop()
	c.issuer.stop()
}

// chaosRules are those of a storm, and answers that come twice.
func chaosRules() []sim.Rule {
	return append(stormRules(),
		sim.Rule{Suffix: "00", Code: "00", Twice: true},
		sim.Rule{Reversal: true, Suffix: "92", Code: "00", Twice: true},
	)
}

// enough fails a storm in which too little happened to prove anything.
func (c *chaos) enough(t *testing.T, b *books, length time.Duration) {
	refused, equal := 0, 0
	for _, till := range c.shop.tills {
		refused += till.refused
		equal += till.equal
	}
	minutes := max(1, int(length/time.Minute))
	text := ""
	for _, l := range []struct {
		what     string
		got, min int
	}{
		{"kills", c.kills, 4 * minutes},
		{"sales", len(b.deals), 150 * minutes},
		{"approvals", b.count(func(d *deal) bool { return d.code == "00" }), 40 * minutes},
		{"sales without an answer", b.count(func(d *deal) bool { return d.code == "" }), 10},
		{"reversals answered 00", b.count(func(d *deal) bool { return d.reversal == "00" }), 20},
		{"reversals sent more than once", b.count(func(d *deal) bool { return d.reversal != "" && d.repeats > 0 }), 10},
		{"reversals by restart", b.caused(isoswitch.ByRestart), 1},
		{"repeats with the first answer", equal, 10},
		{"forgeries refused", refused, 5},
		{"segments that came late", int(c.front.lates.Load() + c.back.lates.Load()), 100},
		{"segments that came twice", int(c.front.twices.Load() + c.back.twices.Load()), 1},
		{"connections cut", int(c.front.cuts.Load() + c.back.cuts.Load()), 5},
		{"connections frozen", int(c.front.freezes.Load() + c.back.freezes.Load()), 1},
		{"cuts and freezes upstream", int(c.back.cuts.Load() + c.back.freezes.Load()), 0},
		{"outages of the issuer", c.outages, 0},
		{"partial reversals", b.count(func(d *deal) bool { return d.rest > 0 }), 1},
		{"reversals by time-out", b.caused(isoswitch.ByTimeout), 0},
		{"reversals by a bad answer", b.caused(isoswitch.ByBadAnswer), 0},
		{"reversals by a lost link", b.caused(isoswitch.ByLinkLoss), 0},
		{"reversals by an approval undelivered", b.caused(isoswitch.ByUndelivered), 0},
	} {
		text += fmt.Sprintf("\n%6d %s", l.got, l.what)
		if l.got < l.min {
			t.Errorf("only %d %s, want %d", l.got, l.what, l.min)
		}
	}
	t.Logf("in this run:%s", text)
}

// spanSetting reads a length of time from the environment.
func spanSetting(t *testing.T, name string, otherwise time.Duration) time.Duration {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return otherwise
	}
	d, err := time.ParseDuration(text)
	if err != nil || d <= 0 {
		t.Fatalf("%s=%q is no length of time, 5m for example", name, text)
	}
	return d
}
