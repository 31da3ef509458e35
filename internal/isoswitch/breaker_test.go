package isoswitch

import (
	"testing"
	"time"
)

// aBreaker rests after three reversals, and first for a second.
func aBreaker(now *time.Time) *breaker {
	rules := func() Retry { return Retry{First: time.Second, Ceiling: 4 * time.Second, Breaker: 3} }
	return newBreaker(rules, func() time.Time { return *now })
}

// opened lets three reversals go unanswered.
func opened(t *testing.T, now *time.Time) *breaker {
	t.Helper()
	b := aBreaker(now)
	for n := byte(1); n <= 3; n++ {
		if !b.begin(RID{n}) {
			t.Fatalf("reversal %d may not begin", n)
		}
		if opens, probe := b.unanswered(RID{n}); opens != (n == 3) || probe {
			t.Fatalf("reversal %d: opens %v, probe %v", n, opens, probe)
		}
	}
	return b
}

func TestBreaker(t *testing.T) {
	t.Run("section 8: one reversal alone never opens it", func(t *testing.T) {
		now := noon
		b := aBreaker(&now)
		for range 20 {
			if opens, _ := b.unanswered(RID{1}); opens {
				t.Fatal("opened by one")
			}
		}
	})
	t.Run("an answer between counts anew", func(t *testing.T) {
		now := noon
		b := aBreaker(&now)
		b.unanswered(RID{1})
		b.unanswered(RID{2})
		if b.answered() {
			t.Error("closed what was not open")
		}
		if opens, _ := b.unanswered(RID{3}); opens {
			t.Error("opened, although there was an answer between")
		}
	})
	t.Run("open: nothing begins, then one probe", func(t *testing.T) {
		now := noon
		b := opened(t, &now)
		if !b.isOpen() || b.allows() != 0 || b.begin(RID{4}) || b.rests() != time.Second {
			t.Fatalf("open %v, allows %d, rests %v", b.isOpen(), b.allows(), b.rests())
		}
		now = now.Add(time.Second)
		if b.allows() != 1 || !b.begin(RID{4}) || b.begin(RID{5}) || b.allows() != 0 {
			t.Fatal("not just one probe")
		}
		if opens, probe := b.unanswered(RID{4}); opens || !probe {
			t.Errorf("a silent probe: opens %v, probe %v", opens, probe)
		}
		if b.rests() != 2*time.Second {
			t.Errorf("rests %v after a silent probe, want twice as long", b.rests())
		}
		for range 5 {
			now = now.Add(10 * time.Second)
			b.begin(RID{4})
			b.unanswered(RID{4})
		}
		if b.rests() != 4*time.Second {
			t.Errorf("rests %v, above the ceiling", b.rests())
		}
	})
	t.Run("the probe's answer closes it", func(t *testing.T) {
		now := noon
		b := opened(t, &now)
		now = now.Add(time.Second)
		b.begin(RID{4})
		if !b.answered() || b.isOpen() || !b.begin(RID{5}) {
			t.Error("still open")
		}
		b.end(RID{4})
		if b.isOpen() {
			t.Error("opened by the end of what closed it")
		}
	})
	t.Run("a probe that never left is followed by another", func(t *testing.T) {
		now := noon
		b := opened(t, &now)
		now = now.Add(time.Second)
		b.begin(RID{4})
		b.end(RID{4})
		if b.begin(RID{5}) {
			t.Error("at once")
		}
		now = now.Add(time.Second)
		if !b.begin(RID{5}) {
			t.Error("never")
		}
	})
	t.Run("below 0 it never opens", func(t *testing.T) {
		now := noon
		b := newBreaker(func() Retry { return Retry{First: time.Second, Breaker: -1} }, func() time.Time { return now })
		for n := byte(1); n < 50; n++ {
			if opens, _ := b.unanswered(RID{n}); opens {
				t.Fatal("opened")
			}
		}
	})
}

func TestClaims(t *testing.T) {
	c := newClaims()
	for n := byte(1); n <= 2; n++ {
		if ok, full := c.claim(OID{n}, "A", 2); !ok || full {
			t.Fatalf("claim %d: %v, full %v", n, ok, full)
		}
	}
	if ok, full := c.claim(OID{1}, "A", 9); ok || full {
		t.Error("an original was claimed twice")
	}
	if ok, full := c.claim(OID{3}, "A", 2); ok || !full {
		t.Errorf("A-23: a third of A: %v, full %v", ok, full)
	}
	if ok, _ := c.claim(OID{4}, "B", 2); !ok {
		t.Error("A-23: A leaves no room for B")
	}
	if n, full := c.taken(2); n != 3 || len(full) != 1 || full[0] != "A" {
		t.Errorf("%d taken, full %v", n, full)
	}
	c.release(OID{1})
	c.release(OID{1})
	if n, full := c.taken(2); n != 2 || len(full) != 0 {
		t.Errorf("%d taken, full %v after one ended", n, full)
	}
}
