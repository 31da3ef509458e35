package store

import (
	"errors"
	"fmt"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"keyd.dev/keyd/internal/custody"
	"keyd.dev/keyd/internal/isoswitch"
)

// clocked is an attacked database whose clock the test moves.
type clocked struct {
	*attacked
	passed atomic.Int64 // ns since day
}

func openClocked(t *testing.T) *clocked {
	t.Helper()
	c := &clocked{attacked: &attacked{t: t, path: filepath.Join(t.TempDir(), "keyd.db")}}
	c.clock = func() time.Time { return day().Add(time.Duration(c.passed.Load())) }
	c.start()
	return c
}

// openBehind opens one in whose file a terminal that keyd knows to be barred was
// let in again.
func openBehind(t *testing.T) (*clocked, isoswitch.Terminal) {
	t.Helper()
	c, barred := openClocked(t), aTerminal(2)
	c.did(c.db.AddTerminal(t.Context(), barred))
	c.is(barred)
	c.sql("UPDATE terminal SET disabled = 0")
	return c, barred
}

// later is a moment later.
func (c *clocked) later(d time.Duration) { c.passed.Add(int64(d)) }

// is looks the terminal up and compares it.
func (c *clocked) is(want isoswitch.Terminal) {
	c.t.Helper()
	got, err := c.db.Terminal(c.t.Context(), want.TID)
	if err != nil || got != want {
		c.t.Errorf("got %v, %v, want %v", got, err, want)
	}
}

// A terminal that keyd itself changes is another one from the next look on.
func TestKnownTerminalChanged(t *testing.T) {
	c := openClocked(t)
	one, other := aTerminal(0), aTerminal(1)
	if _, err := c.db.Terminal(t.Context(), one.TID); !errors.Is(err, isoswitch.ErrNoTerminal) {
		t.Fatalf("a terminal that is not there: %v", err)
	}
	c.did(c.db.AddTerminal(t.Context(), one))
	c.is(one)
	c.did(c.db.AddTerminal(t.Context(), other))
	c.is(one)
	c.is(other)
	for range 3 {
		one.Disabled = !one.Disabled
		c.did(c.db.DisableTerminal(t.Context(), one.TID, one.Disabled))
		c.is(one)
		c.is(other)
	}
}

// a terminal that somebody changes in the file while it is known has no other
// rights by that, and after a second at most it is refused and told.
func TestKnownTerminalAttacked(t *testing.T) {
	c, barred := openBehind(t)
	c.later(knownFor - 1)
	c.is(barred)
	c.later(1)
	if _, err := c.db.Terminal(t.Context(), barred.TID); !errors.Is(err, custody.ErrTampered) {
		t.Errorf("after a second: %v, want ErrTampered", err)
	}
	if got := c.suspicions(); len(got) != 1 {
		t.Errorf("told of %q, want the terminal once", got)
	}
	c.later(-time.Hour) // a clock that is put back makes nothing young again
	if _, err := c.db.Terminal(t.Context(), barred.TID); !errors.Is(err, custody.ErrTampered) {
		t.Errorf("after the clock was put back: %v, want ErrTampered", err)
	}
}

// Looking again and again does not keep what is known young.
func TestKnownTerminalGrowsOld(t *testing.T) {
	c, barred := openBehind(t)
	for range 9 {
		c.later(knownFor / 10)
		c.is(barred)
	}
	c.later(knownFor / 10)
	if _, err := c.db.Terminal(t.Context(), barred.TID); !errors.Is(err, custody.ErrTampered) {
		t.Errorf("after a second: %v, want ErrTampered", err)
	}
}

// After a commit of which nobody knows whether it happened, rows of before count
// for nothing.
func TestKnownTerminalAfterFailedChange(t *testing.T) {
	c := openClocked(t)
	c.did(c.db.AddTerminal(t.Context(), aTerminal(0)))
	c.is(aTerminal(0))
	err := c.db.Change(t.Context(), nil, func(ch *Change) error {
		ch.delete(terminalTable, aTerminal(0).TID)
		ch.also(func(*session) error { return errAway })
		return nil
	})
	if !errors.Is(err, errAway) {
		t.Fatalf("the change gave %v", err)
	}
	if _, is := c.db.known.terminal(c.db.register.settled(), c.db.clock(), aTerminal(0).TID); is {
		t.Error("the terminal is still known")
	}
	c.is(aTerminal(0))
}

// What is known takes no more memory than it may.
func TestKnownTerminalsBounded(t *testing.T) {
	var k known
	held := newTree(nil)
	for n := range mostKnown + 1 {
		k.keep(held, day(), isoswitch.Terminal{TID: fmt.Sprintf("%08d", n)})
	}
	if len(k.byTID) > mostKnown {
		t.Errorf("%d terminals are known, at most %d may be", len(k.byTID), mostKnown)
	}
	if _, is := k.terminal(held, day(), fmt.Sprintf("%08d", mostKnown)); !is {
		t.Error("the last one is not known")
	}
}

// What is read after a while is known from then on, and nothing older with it.
func TestKnownTerminalsBeginAnew(t *testing.T) {
	var k known
	held, one, other := newTree(nil), aTerminal(0), aTerminal(1)
	k.keep(held, day(), one)
	k.keep(held, day().Add(knownFor), other)
	if _, is := k.terminal(held, day().Add(knownFor), one.TID); is {
		t.Error("what is too old became young with another one")
	}
	if _, is := k.terminal(held, day().Add(2*knownFor-1), other.TID); !is {
		t.Error("what was read after a while is not known")
	}
}
