package custody_test

import (
	"errors"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"keyd.dev/keyd/internal/custody"
	"keyd.dev/keyd/keys"
)

// TestUses: a limited key warns at its thresholds, once each, and is then of no
// use, for MACs and for PIN blocks.
func TestUses(t *testing.T) {
	r := newLifeRoom(t, nil)
	k := r.made(t, "alias/mac", cmacKey, map[string]string{custody.TagMaxUses: "10", custody.TagWarnPercent: "50,80"})
	for n := 1; n <= 10; n++ {
		if _, err := r.mac(t, ref("alias/mac")); err != nil {
			t.Fatalf("use %d: %v", n, err)
		}
		warnings := 0
		if n >= 5 {
			warnings++
		}
		if n >= 8 {
			warnings++
		}
		want := slices.Repeat([]string{"key_uses_warning"}, warnings)
		if got := r.raised(); !slices.Equal(got, want) {
			t.Errorf("after use %d the alarms are %q, want %q", n, got, want)
		}
	}
	for range 3 {
		if _, err := r.mac(t, ref("alias/mac")); !errors.Is(err, custody.ErrKeyState) {
			t.Fatalf("use 11: %v, want %v", err, custody.ErrKeyState)
		}
	}
	if got := r.raised(); !slices.Equal(got, []string{"key_uses_warning", "key_uses_warning", "key_uses_over"}) {
		t.Errorf("alarms %q", got)
	}
	detail, err := r.KeyDetail(t.Context(), admin, "t", ref("alias/mac"))
	if err != nil || detail.Use.Uses != 10 {
		t.Errorf("%d uses, %v; want 10", detail.Use.Uses, err)
	}
	t.Run("again after the limit was raised", func(t *testing.T) {
		if err := r.TagKey(t.Context(), admin, "t", k.Block.ID, map[string]string{custody.TagMaxUses: "11"}, nil); err != nil {
			t.Fatal(err)
		}
		if _, err := r.mac(t, ref("alias/mac")); err != nil {
			t.Errorf("use 11 of 11: %v", err)
		}
		if _, err := r.mac(t, ref("alias/mac")); !errors.Is(err, custody.ErrKeyState) {
			t.Errorf("use 12 of 11: %v", err)
		}
	})
	t.Run("the log", func(t *testing.T) {
		var reasons []string
		for _, record := range r.recorded(t, "sec", "key.limit") {
			reasons = append(reasons, record["outcome"].(string)+" "+record["reason"].(string))
		}
		want := []string{"ok key_exhausted", "ok key_exhausted", "refused key_exhausted", "refused key_exhausted"}
		if !slices.Equal(reasons, want) {
			t.Errorf("got %q, want %q", reasons, want)
		}
	})
}

func TestUsesOfPINKeys(t *testing.T) {
	r := newLifeRoom(t, nil)
	pinKey := attributes(keys.UsagePIN, keys.TDES2, keys.ModeBoth)
	in := r.made(t, "alias/in", pinKey, map[string]string{custody.TagMaxUses: "2"})
	r.made(t, "alias/out", pinKey, nil)
	const pan = "4012345678909"
	block := r.pinBlock(t, in, pan)
	for n, want := range []error{nil, nil, custody.ErrKeyState} {
		err := r.act(t, app, func(a *custody.Act) error {
			_, err := a.TranslatePIN(t.Context(), custody.TranslatePIN{
				In:    custody.PINSide{Key: ref("alias/in"), Format: custody.ISO0, PAN: pan},
				Out:   custody.PINSide{Key: ref("alias/out"), Format: custody.ISO0, PAN: pan},
				Block: block,
			})
			return err
		})
		if !errors.Is(err, want) {
			t.Errorf("use %d: %v, want %v", n+1, err, want)
		}
	}
}

// TestUsesAtOnce: however many use a limited key at the same time, it is used
// as often as it may.
func TestUsesAtOnce(t *testing.T) {
	r := newLifeRoom(t, nil)
	r.made(t, "alias/mac", cmacKey, map[string]string{custody.TagMaxUses: "100"})
	var done atomic.Int64
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 20 {
				_, err := r.mac(t, ref("alias/mac"))
				if err == nil {
					done.Add(1)
				} else if !errors.Is(err, custody.ErrKeyState) {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	if done.Load() != 100 {
		t.Errorf("%d uses, want 100", done.Load())
	}
}

// TestUsesAfterACrash: what a process did not write down is taken for used; a
// process that ends in order leaves the exact count.
func TestUsesAfterACrash(t *testing.T) {
	r := newLifeRoom(t, nil)
	r.made(t, "alias/mac", cmacKey, map[string]string{custody.TagMaxUses: "5000"})
	for range 7 { // of leaps of 5
		if _, err := r.mac(t, ref("alias/mac")); err != nil {
			t.Fatal(err)
		}
	}
	uses := func(r *lifeRoom) uint64 {
		detail, err := r.KeyDetail(t.Context(), admin, "t", ref("alias/mac"))
		if err != nil {
			t.Fatal(err)
		}
		return detail.Use.Uses
	}
	if n := uses(r); n != 7 {
		t.Errorf("%d uses before, want 7", n)
	}
	crashed := r.reopened(t)
	if n := uses(crashed); n != 10 {
		t.Errorf("%d uses after a crash, want 10", n)
	}
	if _, err := crashed.mac(t, ref("alias/mac")); err != nil {
		t.Fatal(err)
	}
	if err := crashed.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := uses(r.reopened(t)); n != 11 {
		t.Errorf("%d uses after an orderly end, want 11", n)
	}
}

// TestUsesWithoutLimit are counted, and made durable by the sweeper.
func TestUsesWithoutLimit(t *testing.T) {
	r := newLifeRoom(t, nil)
	k := r.made(t, "alias/mac", cmacKey, nil)
	for range 3 {
		if _, err := r.mac(t, ref("alias/mac")); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	use, err := r.db.KeyUse(t.Context(), k.Block.ID)
	if err != nil || use.Uses != 3 || !use.First.Equal(r.clock.Now()) || !use.Last.Equal(r.clock.Now()) {
		t.Errorf("%+v, %v", use, err)
	}
}

// TestCryptoperiod: before and behind it a key is of no use, by the clock alone;
// its approaching end is announced by the sweeper, each threshold once.
func TestCryptoperiod(t *testing.T) {
	r := newLifeRoom(t, nil)
	begin := r.clock.Now().Add(time.Hour).Truncate(time.Second)
	end := begin.Add(100 * time.Hour)
	r.made(t, "alias/mac", cmacKey, map[string]string{
		custody.TagNotBefore: begin.Format(time.RFC3339), custody.TagNotAfter: end.Format(time.RFC3339),
	})
	use := func() error { _, err := r.mac(t, ref("alias/mac")); return err }
	sweep := func() {
		t.Helper()
		for range 2 {
			if err := r.Sweep(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	}
	to := func(at time.Time) { r.clock.turn(at.Sub(r.clock.Now())) }
	for _, tt := range []struct {
		name   string
		at     time.Time
		want   error
		alarms []string
	}{
		{"before it", begin.Add(-time.Millisecond), custody.ErrKeyState, nil},
		{"at its beginning", begin, nil, nil},
		{"at 80 %", begin.Add(80 * time.Hour), nil, []string{"key_period_warning"}},
		{"between", begin.Add(85 * time.Hour), nil, []string{"key_period_warning"}},
		{"at 90 %", begin.Add(90 * time.Hour), nil, []string{"key_period_warning", "key_period_warning"}},
		{"before its end", end.Add(-time.Millisecond), nil, []string{"key_period_warning", "key_period_warning"}},
		{"at its end", end, custody.ErrKeyState, []string{"key_period_warning", "key_period_warning", "key_period_over"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			to(tt.at)
			if err := use(); !errors.Is(err, tt.want) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
			sweep()
			if got := r.raised(); !slices.Equal(got, tt.alarms) {
				t.Errorf("alarms %q, want %q", got, tt.alarms)
			}
		})
	}
	t.Run("announced once, also to a new process", func(t *testing.T) {
		again := r.reopened(t)
		if err := again.Sweep(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := r.raised(); len(got) != 3 {
			t.Errorf("alarms %q", got)
		}
	})
	t.Run("the log", func(t *testing.T) {
		sec := r.recorded(t, "sec", "key.limit")
		if len(sec) != 3 || sec[2]["reason"] != "key_expired" || sec[2]["outcome"] != "refused" {
			t.Errorf("got %v", sec)
		}
		var refused int
		for _, record := range r.records(t, "ops-"+time.Now().UTC().Format("2006-01")) {
			if strings.Contains(record, `"reason":"key_expired"`) {
				refused++
			}
		}
		if refused != 1 {
			t.Errorf("%d refusals name the reason, want 1", refused)
		}
	})
}

// TestLimitTags: what cannot be honoured is not taken.
func TestLimitTags(t *testing.T) {
	r := newLifeRoom(t, nil)
	k := r.made(t, "", cmacKey, nil)
	for name, tags := range map[string]map[string]string{
		"a time without a zone":   {custody.TagNotAfter: "2030-01-01T00:00:00"},
		"a time that is not UTC":  {custody.TagNotAfter: "2030-01-01T00:00:00+02:00"},
		"a date":                  {custody.TagNotBefore: "2030-01-01"},
		"long ago":                {custody.TagNotAfter: "0001-01-01T00:00:00Z"},
		"an end before the start": {custody.TagNotBefore: "2031-01-01T00:00:00Z", custody.TagNotAfter: "2030-01-01T00:00:00Z"},
		"no uses":                 {custody.TagMaxUses: "0"},
		"fewer than none":         {custody.TagMaxUses: "-1"},
		"a form of its own":       {custody.TagMaxUses: "010"},
		"too many uses":           {custody.TagMaxUses: "1000000000000001"},
		"all of it":               {custody.TagWarnPercent: "100"},
		"descending":              {custody.TagWarnPercent: "90,80"},
		"many thresholds":         {custody.TagWarnPercent: "1,2,3,4,5"},
		"nothing":                 {custody.TagWarnPercent: ""},
		"an unknown tag":          {"keyd:successor": "x"},
	} {
		t.Run(name, func(t *testing.T) {
			if err := r.TagKey(t.Context(), admin, "t", k.Block.ID, tags, nil); !errors.Is(err, custody.ErrRequest) {
				t.Errorf("got %v, want %v", err, custody.ErrRequest)
			}
		})
	}
}

// TestCountingAllocatesNothing: what is added to each use stays off the heap.
func TestCountingAllocatesNothing(t *testing.T) {
	r := newLifeRoom(t, nil)
	k := r.made(t, "", cmacKey, map[string]string{custody.TagMaxUses: "1000000000"})
	count := custody.CountUse(r.Custody, k)
	if n := testing.AllocsPerRun(1000, func() { _ = count(t.Context()) }); n > 0 {
		t.Errorf("%v allocations a use", n)
	}
}

// BenchmarkUse is what counting and looking at the limits add to each use of a key.
func BenchmarkUse(b *testing.B) {
	end := time.Now().Add(24 * time.Hour).UTC().Format(time.RFC3339)
	for name, tags := range map[string]map[string]string{
		"free":    nil,
		"limited": {custody.TagMaxUses: "1000000000000"},
		"timed":   {custody.TagNotAfter: end},
	} {
		b.Run(name, func(b *testing.B) {
			r := newLifeRoom(b, nil)
			k, err := r.CreateKey(b.Context(), admin, "t", custody.CreateKey{Attributes: cmacKey, Enabled: true, Tags: tags})
			if err != nil {
				b.Fatal(err)
			}
			count := custody.CountUse(r.Custody, k)
			for b.Loop() {
				if err := count(b.Context()); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
