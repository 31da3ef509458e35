package api

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		limits, err := Limits{Default: ClientLimits{PerSecond: 10, Burst: 3}}.resolved()
		if err != nil {
			t.Fatal(err)
		}
		s := newShares(limits).of("switch")
		ask := func(n int) (through int) {
			for range n {
				if why, ok := s.enter(time.Now); ok {
					through++
					s.leave()
				} else if why != tooFast {
					t.Errorf("refused for %v", why)
				}
			}
			return through
		}
		for _, step := range []struct {
			name  string
			after time.Duration
			asks  int
			want  int
		}{
			{"the burst", 0, 10, 3},
			{"nothing at once after it", 0, 5, 0},
			{"a tenth of a second is one", 100 * time.Millisecond, 5, 1},
			{"a second is no more than the burst", time.Second, 10, 3},
			{"an hour neither", time.Hour, 10, 3},
		} {
			time.Sleep(step.after)
			if got := ask(step.asks); got != step.want {
				t.Errorf("%s: %d of %d went through, want %d", step.name, got, step.asks, step.want)
			}
		}
		through := 0
		for range 1000 { // ten seconds of a flood
			time.Sleep(10 * time.Millisecond)
			through += ask(7)
		}
		if through < 99 || through > 104 {
			t.Errorf("ten seconds at 10/s let %d through", through)
		}
	})
}

func TestConcurrent(t *testing.T) {
	limits, err := Limits{Clients: map[string]ClientLimits{"small": {Concurrent: 2, Connections: 1}}}.resolved()
	if err != nil {
		t.Fatal(err)
	}
	all := newShares(limits)
	s := all.of("small")
	for range 2 {
		if _, ok := s.enter(time.Now); !ok {
			t.Fatal("refused below the limit")
		}
	}
	if why, ok := s.enter(time.Now); ok || why != tooMany {
		t.Errorf("a third: %v, %v", why, ok)
	}
	s.leave()
	if _, ok := s.enter(time.Now); !ok {
		t.Error("refused after one had left")
	}
	if !s.connect() || s.connect() {
		t.Error("one connection, want one and no second")
	}
	if _, ok := all.of("other").enter(time.Now); !ok {
		t.Error("another client is refused")
	}
	// Who is in stays in; nothing more comes.
	narrow, err := Limits{Default: ClientLimits{Concurrent: 1}}.resolved()
	if err != nil {
		t.Fatal(err)
	}
	all.set(narrow)
	s.leave()
	if _, ok := s.enter(time.Now); ok {
		t.Error("a second one after the limit became 1")
	}
	if all.of("small") != s {
		t.Error("what the client has in work was forgotten at the exchange")
	}
}

func TestLimitsResolved(t *testing.T) {
	l := Limits{
		Default: ClientLimits{PerSecond: 100},
		Clients: map[string]ClientLimits{"own rate": {PerSecond: 7}, "own number": {Concurrent: 3}, "own burst": {Burst: 5}},
	}
	got, err := l.resolved()
	if err != nil {
		t.Fatal(err)
	}
	want := &Limits{
		Default: ClientLimits{100, 100, DefaultConcurrent, DefaultClientConnections},
		Clients: map[string]ClientLimits{
			"own rate":   {7, 7, DefaultConcurrent, DefaultClientConnections},
			"own number": {100, 100, 3, DefaultClientConnections},
			"own burst":  {100, 5, DefaultConcurrent, DefaultClientConnections},
		},
		InWork: DefaultInWork, Wait: DefaultWait, Connections: DefaultConnections, Handshakes: DefaultHandshakes,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	for name, bad := range map[string]Limits{
		"in work": {InWork: -1}, "wait": {Wait: -1}, "connections": {Connections: -1}, "handshakes": {Handshakes: -1},
		"rate": {Default: ClientLimits{PerSecond: -1}}, "a client's": {Clients: map[string]ClientLimits{"a": {Concurrent: -1}}},
	} {
		if _, err := bad.resolved(); err == nil {
			t.Errorf("a negative limit (%s) was taken", name)
		}
	}
}

func TestDeadline(t *testing.T) {
	for _, test := range []struct {
		name, value string
		want        time.Time
	}{
		{"section 3.3 of botocore", "attempt=2; max=5; ttl=20260102T150405Z", time.Date(2026, 1, 2, 15, 4, 5, 0, time.UTC)},
		{"in another order", "ttl=20260102T150405Z; attempt=2; max=5", time.Date(2026, 1, 2, 15, 4, 5, 0, time.UTC)},
		{"first attempt", "attempt=1; max=3", time.Time{}},
		{"not a time", "attempt=2; ttl=soon", time.Time{}},
		{"nothing", "", time.Time{}},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := deadline([]string{test.value}); !got.Equal(test.want) {
				t.Errorf("got %v, want %v", got, test.want)
			}
		})
	}
}
