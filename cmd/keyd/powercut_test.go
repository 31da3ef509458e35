package main

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"keyd.dev/keyd/internal/iso8583"
	"keyd.dev/keyd/internal/sim"
)

// TestPowerCut cuts the power of a daemon at work again and again: it is killed,
// and its disk loses what was not synced. What a terminal was answered is in the
// journal and in the audit log afterwards (R-03, I-5, L-10). Where no file system
// can be mounted, the calls of a daemon are followed instead: see followed.
// KEYD_POWER_ROUNDS makes it longer, KEYD_KILL_SEED gives the dice of a run.
func TestPowerCut(t *testing.T) {
	seed := setting(t, "KEYD_KILL_SEED", randomSeed(t))
	rounds := int(setting(t, "KEYD_POWER_ROUNDS", 5))
	t.Logf("KEYD_KILL_SEED=%d KEYD_POWER_ROUNDS=%d", seed, rounds)
	disk, err := newLossyDisk(t)
	if err != nil {
		t.Logf("NO FILE SYSTEM CAN BE MOUNTED HERE (%v): the calls of the daemon are followed instead", err)
		followed(t)
		return
	}
	t.Logf("on a file system that loses what is not synced")
	s := newPowered(t, disk)
	dice := newDice(seed)
	round := 0
	for ; s.goesOn(disk, round, rounds); round++ {
		s.sell(t.Context(), dice.between(300*time.Millisecond, 2*time.Second))
		disk.cut(t, dice)
		s.k.start()
		for _, wrong := range s.missing() {
			t.Errorf("round %d: %s", round, wrong)
		}
		if err := s.k.verify(t.Context()); err != nil {
			t.Errorf("round %d: the audit log: %v", round, err)
		}
		s.k.linked()
	}
	t.Logf("%d rounds, %d answers given, %d syncs, %d writes lost", round, len(s.answered), disk.syncs(), disk.lost)
	if !s.enough(disk, rounds) {
		t.Error("too little happened")
	}
	s.k.stop()
	s.issuer.stop()
	s.k.healthy()
}

// enough reports whether as much happened as so many rounds are for.
func (s *powered) enough(disk *lossyDisk, rounds int) bool {
	return len(s.answered) >= 10*rounds && disk.lost > 0
}

// goesOn reports whether another round is due. A daemon that syncs all that it
// writes, as it should, may have little to lose at the moment of the cut; so there
// are up to eight times as many rounds until something was lost.
func (s *powered) goesOn(disk *lossyDisk, round, rounds int) bool {
	return round < rounds || round < 8*rounds && !s.enough(disk, rounds)
}

// TestPowerCutGoesOn: the rounds go on until something was lost, and end.
func TestPowerCutGoesOn(t *testing.T) {
	for _, c := range []struct {
		name                    string
		round, answered, losses int
		want                    bool
	}{
		{"a round is left", 4, 100, 3, true},
		{"all was done", 5, 100, 3, false},
		{"nothing was lost", 5, 100, 0, true},
		{"few were answered", 5, 49, 3, true},
		{"nothing will be", 40, 100, 0, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := &powered{answered: make([]answer, c.answered)}
			if got := s.goesOn(&lossyDisk{lost: c.losses}, c.round, 5); got != c.want {
				t.Errorf("got %v, want %v", got, c.want)
			}
		})
	}
}

// TestPowerCutFindsALie: with a disk that acknowledges syncs of the database and
// does not do them, which is what synchronous = OFF makes of any, the test above
// fails.
func TestPowerCutFindsALie(t *testing.T) {
	disk, err := newLossyDisk(t)
	if err != nil {
		t.Logf("NO FILE SYSTEM CAN BE MOUNTED HERE (%v): nothing is planted", err)
		return
	}
	s := newPowered(t, disk)
	disk.mu.Lock()
	disk.lies = "keyd.db"
	disk.mu.Unlock()
	s.sell(t.Context(), 2*time.Second)
	if len(s.answered) == 0 {
		t.Fatal("nothing was answered")
	}
	disk.cut(t, newDice(1))
	s.k.launch()
	late := time.After(killableStart)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-s.k.ended:
			t.Log("found: the daemon refuses what is left")
			return
		case <-late:
			t.Fatal("the daemon neither serves nor ends")
		case <-tick.C:
		}
		if dev, err := readDev(s.k.dir); err != nil || dev.PID != s.k.proc.Process.Pid {
			continue
		}
		if wrong := s.missing(); len(wrong) == 0 {
			t.Error("a disk that syncs nothing was not found out")
		} else {
			t.Logf("found: %d of %d answers, the first: %s", len(wrong), len(s.answered), wrong[0])
		}
		return
	}
}

// answer is what a terminal was given.
type answer struct {
	tid, stan string
	reversal  bool
	code      string
}

// powered is a daemon on a disk, its issuer and its terminals.
type powered struct {
	t         *testing.T
	k         *killable
	issuer    *killIssuer
	terminals []*sim.Terminal
	salesOnly bool      // nothing is reversed, so that nothing is written between two answers
	link      *sim.Link // that of one terminal, over a fault
	sold      *sim.Sent

	mu       sync.Mutex
	answered []answer
}

func newPowered(t *testing.T, disk *lossyDisk) *powered {
	t.Helper()
	k := newKillable(t)
	if disk != nil {
		k.base = disk.mount
		k.move("d")
		// Before the disk goes, whatever failed.
		t.Cleanup(func() {
			if k.proc != nil {
				k.kill()
			}
			disk.off(t)
		})
	}
	s := &powered{t: t, k: k}
	k.start()
	s.issuer = &killIssuer{t: t, dev: k.dev.Load(), addr: k.dev.Load().Issuer.Addr, path: filepath.Join(t.TempDir(), "issuer.jsonl"), log: k.said}
	s.issuer.serve(quietRules())
	k.linked()
	for _, fixed := range k.dev.Load().Terminals[3:] {
		if fixed.BDK == "" || len(s.terminals) == 6 {
			continue
		}
		terminal, err := sim.NewTerminal(sim.TerminalConfig{TID: fixed.TID, MID: fixed.MID, BDK: k.dev.Load().TestKeys[fixed.BDK], KSN: fixed.KSN}, 0)
		if err != nil {
			t.Fatal(err)
		}
		s.terminals = append(s.terminals, terminal)
	}
	return s
}

// sell lets all terminals sell and reverse, and kills the daemon in the middle.
func (s *powered) sell(ctx context.Context, length time.Duration) {
	s.t.Helper()
	config, err := devTLS(s.k.dev.Load(), "terminal")
	if err != nil {
		s.t.Fatal(err)
	}
	var work sync.WaitGroup
	for _, terminal := range s.terminals {
		work.Go(func() {
			link, err := sim.Dial(ctx, s.k.dev.Load().SwitchAddr, config.Clone(), 10*time.Second)
			if err != nil {
				return
			}
			defer link.Close()
			for n := 0; s.deal(terminal, link, n%3 == 0 && !s.salesOnly) == nil; n++ {
			}
		})
	}
	wait(ctx, length)
	s.k.kill()
	work.Wait()
}

// deal is a sale, and its reversal, until the link breaks.
func (s *powered) deal(t *sim.Terminal, link *sim.Link, reverse bool) error {
	sale, err := t.Sale(1500, sim.Card{PAN: killPAN, PIN: testPIN}, nil)
	if err != nil {
		return err
	}
	got, err := s.exchange(t, link, sale, false)
	if err != nil || !reverse || got.Text(39) != "00" {
		return err
	}
	back, err := t.Reversal(iso8583.ReversalRequest, sale, got.Text(37), got.Text(38), nil)
	if err != nil {
		return err
	}
	_, err = s.exchange(t, link, back, true)
	return err
}

func (s *powered) exchange(t *sim.Terminal, link *sim.Link, sent *sim.Sent, reversal bool) (*iso8583.Message, error) {
	raw, err := link.Exchange(sent.Raw)
	if err != nil {
		return nil, err
	}
	got, err := t.Answer(sent, raw)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answered = append(s.answered, answer{sent.Message.Text(41), sent.Message.Text(11), reversal, got.Text(39)})
	return got, nil
}

// missing says which answers journal and log do not have. An approval that its
// terminal got may have been reversed since, by the terminal.
func (s *powered) missing() (wrong []string) {
	s.t.Helper()
	given, err := s.given()
	if err != nil {
		return []string{err.Error()}
	}
	recorded, err := s.recorded()
	if err != nil {
		return []string{err.Error()}
	}
	for _, a := range s.answered {
		name := a.tid + "/" + a.stan
		answers := given.Sales
		if a.reversal {
			answers = given.Reversals
		}
		switch code, ok := answers[name]; {
		case !ok:
			wrong = append(wrong, fmt.Sprintf("%+v is not in the journal", a))
		case code != a.code:
			wrong = append(wrong, fmt.Sprintf("%+v: the journal has %q", a, code))
		}
		if !recorded[name] {
			wrong = append(wrong, fmt.Sprintf("%+v is not in the audit log", a))
		}
	}
	return wrong
}

// journalled are the answers of a journal by terminal and STAN.
type journalled struct{ Sales, Reversals map[string]string }

// given reads the journal in a process of its own: SQLite maps a file into memory,
// and the process that is the file system would wait for itself when it unmaps one
// of its own.
func (s *powered) given() (all journalled, err error) {
	cmd := exec.CommandContext(s.t.Context(), "keyd-answers", s.k.dir)
	cmd.Env = append(os.Environ(), "GORACE=atexit_sleep_ms=0")
	var said strings.Builder
	cmd.Stderr = &said
	out, err := cmd.Output()
	if ended := new(exec.ExitError); err != nil && !errors.As(err, &ended) {
		s.t.Fatalf("the journal was not looked at: %v", err)
	}
	if err != nil {
		return all, fmt.Errorf("reading the journal: %w: %s", err, said.String())
	}
	return all, json.Unmarshal(out, &all)
}

// answers is a program for powered: it prints what a journal holds as given.
func answers() {
	db, err := journalDB(os.Args[1])
	if err == nil {
		err = printAnswers(db, os.Stdout)
		err = errors.Join(err, db.Close())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func printAnswers(db *sql.DB, out io.Writer) (err error) {
	var all journalled
	if all.Sales, err = answersOf(db, "SELECT tid || '/' || stan, answer FROM txn"); err != nil {
		return err
	}
	if all.Reversals, err = answersOf(db, "SELECT tid || '/' || stan, answer FROM reversal"); err != nil {
		return err
	}
	return json.NewEncoder(out).Encode(all)
}

func answersOf(db *sql.DB, query string) (map[string]string, error) {
	rows, err := db.Query(query)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	all := make(map[string]string)
	for rows.Next() {
		var name string
		var code sql.NullString
		if err := rows.Scan(&name, &code); err != nil {
			return nil, err
		}
		all[name] = code.String
	}
	return all, rows.Err()
}

// recorded are the messages of which the audit log has an answer, by terminal
// and STAN.
func (s *powered) recorded() (map[string]bool, error) {
	all := make(map[string]bool)
	for _, action := range []string{"sale.answer", "reversal.accept"} {
		out, err := keydCommand(s.t.Context(), "audit", "ls", "--dir", filepath.Join(s.k.dir, "audit"), "--action", action, "--limit", "0", "--json").Output()
		if err != nil {
			return nil, fmt.Errorf("keyd audit ls: %w", err)
		}
		for line := range strings.Lines(string(out)) {
			var r listed
			if err := json.Unmarshal([]byte(line), &r); err != nil {
				return nil, err
			}
			all[r.ISO.Term+"/"+r.ISO.STAN] = true
		}
	}
	return all, nil
}
