package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"keyd.dev/keyd/internal/isoswitch"
	"keyd.dev/keyd/internal/sim"
)

// killPAN is the card of every terminal: it must be found in no file of keyd's.
const killPAN = "5555555555554444"

// killTerminals are at work all the time, one AES DUKPT terminal among them.
func killTerminals() []string {
	return []string{"T0000002", "T0000100", "T0000101", "T0000102", "T0000103", "T0000104"}
}

// TestKill kills keyd with SIGKILL again and again while terminals work and the
// issuer misbehaves, and then reconciles the books of all three. The seed of a
// run is printed: KEYD_KILL_SEED gives it again, KEYD_KILL_ROUNDS makes it longer.
func TestKill(t *testing.T) {
	seed := setting(t, "KEYD_KILL_SEED", randomSeed(t))
	rounds := int(setting(t, "KEYD_KILL_ROUNDS", 14))
	t.Logf("KEYD_KILL_SEED=%d KEYD_KILL_ROUNDS=%d", seed, rounds)
	dice := newDice(seed)

	k := newKillable(t)
	k.start()
	k.kill()
	// Short times, so that much happens between two kills; a kill costs a try.
	k.edit("t_upstream", "'1.5s'")
	k.edit("saf_first_delay", "'300ms'")
	k.edit("saf_ceiling", "'2s'")
	k.edit("saf_tries", "1000")
	k.edit("t_stray", "'5s'")

	issuer := newKillIssuer(t, k)
	issuer.serve(stormRules())
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute+time.Duration(rounds)*10*time.Second)
	defer cancel()
	shop := openShop(t, k, dice)
	shop.work(ctx)
	for round := range rounds {
		k.round(ctx, dice, round)
	}

	k.start()
	// The lives before may all have been too short for a time-out; this one ends
	// when there was one.
	k.await("a sale has timed out", 60*time.Second, func() bool { return k.reversedBy(isoswitch.ByTimeout) > 0 })
	shop.close(ctx)
	issuer.stop()
	issuer.serve(quietRules())
	k.linked()
	k.settled(60 * time.Second)
	if err := k.verify(ctx); err != nil {
		t.Errorf("while keyd runs: %v", err)
	}
	k.stop()
	issuer.stop()

	books := openBooks(t, k.dir, issuer.book(), shop.tills)
	t.Run("R-08 M-21 what each terminal saw", shop.faultless)
	books.reconcile(t)
	t.Run("audit log verifies", func(t *testing.T) {
		if err := k.verify(ctx); err != nil {
			t.Error(err)
		}
	})
	t.Run("R-07 no card number on disk", func(t *testing.T) {
		if files := k.holds(killPAN); files != nil {
			t.Errorf("stands in %q", files)
		}
	})
	t.Run("no panic and no race", func(t *testing.T) { k.healthy() })
	t.Run("M-06 upstream every message had a MAC", func(t *testing.T) {
		if issuer.badMACs > 0 {
			t.Errorf("%d had none, or a wrong one", issuer.badMACs)
		}
	})
	t.Run("enough happened", func(t *testing.T) { shop.enough(t, books) })
}

// round is one life of keyd: started, killed at a random moment, now and then
// before it is ready, or stopped as an operator does.
func (k *killable) round(ctx context.Context, dice *dice, round int) {
	k.t.Helper()
	moment := dice.between(0, 2*time.Second)
	switch n := dice.below(100); {
	case n < 25:
		k.launch()
		wait(ctx, moment/4)
		if !k.alive() {
			k.t.Fatalf("round %d: keyd ended by itself: %v", round, k.proc.ProcessState)
		}
		k.kill()
		return
	case n < 35:
		k.start()
		wait(ctx, moment)
		k.stop()
		return
	}
	k.start()
	verified := make(chan error, 1)
	go func() { verified <- k.verify(ctx) }()
	wait(ctx, moment)
	if err := <-verified; err != nil {
		k.t.Errorf("round %d: after a restart: %v", round, err)
	}
	if !k.alive() {
		k.t.Fatalf("round %d: keyd ended by itself: %v", round, k.proc.ProcessState)
	}
	k.kill()
}

// TestKillFirstStart kills `keyd dev` while it makes its folder: what an
// interrupted start left is used or replaced by the next.
func TestKillFirstStart(t *testing.T) {
	seed := setting(t, "KEYD_KILL_SEED", randomSeed(t))
	t.Logf("KEYD_KILL_SEED=%d", seed)
	dice := newDice(seed)
	k := newKillable(t)
	for n := range 3 {
		k.move(fmt.Sprintf("first-%d", n))
		for range 2 {
			k.launch()
			wait(t.Context(), dice.between(0, time.Second))
			k.kill()
		}
		k.start()
		for _, c := range []struct {
			lines int
			args  []string
		}{
			{len(testKeys()), []string{"key", "ls", "--json"}},
			{len(testTerminals()), []string{"terminal", "ls", "--json"}},
		} {
			out, err := keydCommand(t.Context(), append(c.args, "--config", k.dev.Load().Config)...).Output()
			if err != nil {
				t.Fatalf("keyd %q: %v", c.args, err)
			}
			if got := bytes.Count(out, []byte{'\n'}); got != c.lines {
				t.Errorf("keyd %q lists %d, want %d:\n%s", c.args, got, c.lines, out)
			}
		}
		if err := k.verify(t.Context()); err != nil {
			t.Error(err)
		}
		k.stop()
	}
	k.healthy()
}

// wait lets a random time go by: what happens in it is the terminals' affair.
func wait(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// killIssuer is the issuer's end; it keeps its book over its own restarts.
type killIssuer struct {
	t       *testing.T
	dev     *devReport
	path    string
	addr    string // where it listens: where keyd looks for it, or behind a proxy
	log     *os.File
	now     *sim.Issuer
	end     context.CancelFunc
	ended   chan error
	badMACs int
}

func newKillIssuer(t *testing.T, k *killable) *killIssuer {
	t.Helper()
	log, err := os.Create(filepath.Join(k.base, "issuer.log"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = log.Close() })
	return &killIssuer{t: t, dev: k.dev.Load(), addr: k.dev.Load().Issuer.Addr, path: filepath.Join(k.base, "issuer.jsonl"), log: log}
}

func (i *killIssuer) serve(rules []sim.Rule) {
	i.t.Helper()
	cert, err := tls.LoadX509KeyPair(i.dev.Issuer.Cert, i.dev.Issuer.Key)
	if err != nil {
		i.t.Fatal(err)
	}
	i.now, err = sim.NewIssuer(sim.IssuerConfig{
		TLS:    &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS13},
		PINKey: i.dev.TestKeys[aliasZPK], MACKey: i.dev.TestKeys[aliasZAK], PIN: testPIN,
		Rules: rules, BookPath: i.path, Log: slog.New(slog.NewTextHandler(i.log, nil)),
	})
	if err != nil {
		i.t.Fatal(err)
	}
	listener, err := net.Listen("tcp", i.addr)
	if err != nil {
		i.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(i.t.Context()))
	i.t.Cleanup(cancel)
	i.end, i.ended = cancel, make(chan error, 1)
	go func(issuer *sim.Issuer, ended chan<- error) { ended <- issuer.Serve(ctx, listener) }(i.now, i.ended)
}

func (i *killIssuer) stop() {
	i.t.Helper()
	i.end()
	if err := <-i.ended; err != nil {
		i.t.Errorf("the issuer: %v", err)
	}
	_, bad := i.now.Strays()
	i.badMACs += bad
}

func (i *killIssuer) book() []sim.Entry {
	i.t.Helper()
	entries, err := sim.ReadBook(i.path)
	if err != nil {
		i.t.Fatal(err)
	}
	return entries
}

// shop is all terminals together.
type shop struct {
	t     *testing.T
	tills []*till
	storm chan struct{} // closed when no new sale is to begin
	busy  sync.WaitGroup
}

// approved is how many sales have been answered 00 so far.
func (s *shop) approved() (n int64) {
	for _, t := range s.tills {
		n += t.approved.Load()
	}
	return n
}

func openShop(t *testing.T, k *killable, d *dice) *shop {
	t.Helper()
	s := &shop{t: t, storm: make(chan struct{})}
	for _, tid := range killTerminals() {
		till, err := newTill(k.dev.Load(), tid, newDice(d.next()), sim.Card{PAN: killPAN, PIN: testPIN})
		if err != nil {
			t.Fatal(err)
		}
		s.tills = append(s.tills, till)
	}
	return s
}

func (s *shop) work(ctx context.Context) {
	for _, till := range s.tills {
		s.busy.Go(func() { till.work(ctx, s.storm) })
	}
}

// close waits until every terminal knows what became of what it sent.
func (s *shop) close(ctx context.Context) {
	s.t.Helper()
	close(s.storm)
	done := make(chan struct{})
	go func() {
		s.busy.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-ctx.Done():
		<-done // they end with ctx
		s.t.Error("the terminals have not got all their answers")
	}
}

func (s *shop) faultless(t *testing.T) {
	for _, till := range s.tills {
		for _, fault := range till.faults {
			t.Error(fault)
		}
	}
}

// enough fails a run in which too little happened to prove anything, and says
// how much did.
func (s *shop) enough(t *testing.T, b *books) {
	var refused, equal int
	for _, till := range s.tills {
		refused += till.refused
		equal += till.equal
	}
	type line struct {
		what     string
		got, min int
	}
	lines := []line{
		{"sales", len(b.deals), 100},
		{"approvals", b.count(func(d *deal) bool { return d.code == "00" }), 20},
		{"declines", b.count(func(d *deal) bool { return d.code == "51" }), 1},
		{"sales that timed out or were answered badly", b.count(func(d *deal) bool { return d.code == "68" || d.code == "96" }), 1},
		{"sales without an answer", b.count(func(d *deal) bool { return d.code == "" }), 5},
		{"reversals answered 00", b.count(func(d *deal) bool { return d.reversal == "00" }), 20},
		{"reversals sent more than once", b.count(func(d *deal) bool { return d.reversal != "" && d.repeats > 0 }), 5},
		{"partial reversals", b.count(func(d *deal) bool { return d.rest > 0 }), 1},
		{"reversals by restart", b.caused(isoswitch.ByRestart), 1},
		{"reversals by timeout", b.caused(isoswitch.ByTimeout), 1},
		{"repeats with the first answer", equal, 5},
		{"replays refused", refused, 1},
	}
	text := ""
	for _, l := range lines {
		text += fmt.Sprintf("\n%6d %s", l.got, l.what)
		if l.got < l.min {
			t.Errorf("only %d %s, want %d", l.got, l.what, l.min)
		}
	}
	for _, c := range []isoswitch.Cause{isoswitch.ByTerminal, isoswitch.ByBadAnswer, isoswitch.ByLinkLoss, isoswitch.ByUndelivered} {
		text += fmt.Sprintf("\n%6d reversals by %s", b.caused(c), c)
	}
	t.Logf("in this run:%s", text)
}
