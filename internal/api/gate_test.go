package api

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"
)

func newGate(width, each int) *gate {
	return &gate{width: width, each: each, pick: func(s *share) *queue { return &s.data }}
}

// TestGateTakesTurns: behind a client that has a hundred requests waiting, another
// gets the next turn.
func TestGateTakesTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(2, 2)
		flood, polite := &share{name: "flood"}, &share{name: "polite"}
		var served atomic.Int64
		var work sync.WaitGroup
		request := func(s *share, done func()) {
			work.Go(func() {
				in, err := g.enter(t.Context(), s, time.Hour)
				if !in || err != nil {
					t.Errorf("%s: %v, %v", s.name, in, err)
					return
				}
				time.Sleep(time.Second)
				g.leave(s)
				done()
			})
		}
		for range 100 {
			request(flood, func() { served.Add(1) })
		}
		synctest.Wait()
		for i := range 5 {
			before := served.Load()
			request(polite, func() {
				if n := served.Load() - before; n > 6 { // two at work, those of this instant, one turn
					t.Errorf("request %d of the polite client came after %d of the flood", i, n)
				}
			})
			time.Sleep(3 * time.Second)
		}
		work.Wait()
		if g.in != 0 || g.waiting != 0 {
			t.Errorf("at the end %d are in and %d wait", g.in, g.waiting)
		}
	})
}

// TestGateShares: two clients that always want more get half each, whatever the
// number of their requests.
func TestGateShares(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(4, 4)
		var served [2]atomic.Int64
		end := time.Now().Add(time.Minute)
		var work sync.WaitGroup
		for i, workers := range []int{200, 5} {
			s := &share{name: fmt.Sprint(i)}
			for range workers {
				work.Go(func() {
					for time.Now().Before(end) {
						if in, err := g.enter(t.Context(), s, time.Hour); !in || err != nil {
							t.Errorf("%v, %v", in, err)
						}
						time.Sleep(10 * time.Millisecond)
						g.leave(s)
						served[i].Add(1)
					}
				})
			}
		}
		work.Wait()
		a, b := served[0].Load(), served[1].Load()
		if b < (a+b)*40/100 {
			t.Errorf("200 requests at a time got %d, 5 got %d; want about a half each", a, b)
		}
	})
}

// TestGateGivesUp: a wait ends in time, and with its caller; the place behind it
// is not lost.
func TestGateGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(1, 1)
		s := &share{name: "one"}
		if in, err := g.enter(t.Context(), s, time.Second); !in || err != nil {
			t.Fatal(in, err)
		}
		start := time.Now()
		if in, err := g.enter(t.Context(), s, time.Second); in || err != nil {
			t.Errorf("entered a full gate: %v, %v", in, err)
		}
		if waited := time.Since(start); waited != time.Second {
			t.Errorf("waited %v, want 1s", waited)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		if in, err := g.enter(ctx, s, time.Second); in || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("the caller is gone: %v, %v", in, err)
		}
		g.leave(s)
		if in, err := g.enter(t.Context(), s, time.Second); !in || err != nil {
			t.Errorf("after those that gave up: %v, %v", in, err)
		}
		g.leave(s)
		if g.in != 0 || g.waiting != 0 || s.data.in != 0 {
			t.Errorf("%d are in, %d wait", g.in, g.waiting)
		}
	})
}

// TestGateEach: one client has at most its part of the places, and others come
// past it.
func TestGateEach(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(4, 2)
		a, b := &share{name: "a"}, &share{name: "b"}
		for range 2 {
			if in, _ := g.enter(t.Context(), a, time.Second); !in {
				t.Fatal("a place of its part was refused")
			}
		}
		done := make(chan bool)
		go func() {
			in, _ := g.enter(t.Context(), a, time.Hour)
			done <- in
		}()
		synctest.Wait()
		for range 2 {
			if in, _ := g.enter(t.Context(), b, time.Second); !in {
				t.Error("another client waits behind one that has its part")
			}
		}
		g.leave(a)
		if !<-done {
			t.Error("the place that came free was not given on")
		}
	})
}

// TestGateModel compares a gate with its two promises: never more in than there
// are places, and nobody waits while there is a place that is his.
func TestGateModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		each := rapid.IntRange(1, 4).Draw(rt, "each")
		g := newGate(rapid.IntRange(each, 6).Draw(rt, "width"), each)
		shares := make([]*share, 3)
		for i := range shares {
			shares[i] = &share{name: fmt.Sprint(i)}
		}
		in := make([]int, len(shares))
		waits := make([][]*ticket, len(shares))
		settle := func() { // turns that came
			for i := range waits {
				var left []*ticket
				for _, w := range waits[i] {
					select {
					case <-w.turn:
						in[i]++
					default:
						left = append(left, w)
					}
				}
				waits[i] = left
			}
		}
		rt.Repeat(map[string]func(*rapid.T){
			"come": func(rt *rapid.T) {
				i := rapid.IntRange(0, 2).Draw(rt, "client")
				w := &ticket{turn: make(chan struct{}, 1)}
				g.mu.Lock()
				g.line(&shares[i].data, w)
				g.call()
				g.mu.Unlock()
				waits[i] = append(waits[i], w)
			},
			"go": func(rt *rapid.T) {
				i := rapid.IntRange(0, 2).Draw(rt, "client")
				if in[i] == 0 {
					return
				}
				in[i]--
				g.leave(shares[i])
			},
			"give up": func(rt *rapid.T) {
				i := rapid.IntRange(0, 2).Draw(rt, "client")
				if len(waits[i]) == 0 {
					return
				}
				w := waits[i][0]
				if g.quit(w) {
					waits[i] = waits[i][1:]
				}
			},
			"resize": func(rt *rapid.T) {
				g.mu.Lock()
				g.width = rapid.IntRange(each, 6).Draw(rt, "width")
				g.call()
				g.mu.Unlock()
			},
			"": func(rt *rapid.T) {
				settle()
				all, waiting := 0, 0
				for i := range in {
					all += in[i]
					waiting += len(waits[i])
					if in[i] > g.each || in[i] != shares[i].data.in {
						rt.Fatalf("client %d has %d in, the gate says %d of %d", i, in[i], shares[i].data.in, g.each)
					}
				}
				if all != g.in || waiting != g.waiting {
					rt.Fatalf("%d in and %d waiting, the gate says %d and %d", all, waiting, g.in, g.waiting)
				}
				for i := range waits {
					if len(waits[i]) > 0 && all < g.width && in[i] < g.each {
						rt.Fatalf("client %d waits beside a place that is free", i)
					}
				}
			},
		})
	})
}

// BenchmarkAdmission is what the limits cost a request: rate, number and gate.
func BenchmarkAdmission(b *testing.B) {
	for _, rate := range []int{0, 1_000_000_000} {
		b.Run(fmt.Sprintf("rate=%d", rate), func(b *testing.B) {
			limits, err := Limits{InWork: 1 << 20, Default: ClientLimits{PerSecond: rate, Concurrent: 1 << 20}}.resolved()
			if err != nil {
				b.Fatal(err)
			}
			all, g := newShares(limits), newGate(1<<20, 1<<20)
			b.ReportAllocs()
			b.SetParallelism(64 / runtime.GOMAXPROCS(0))
			b.RunParallel(func(p *testing.PB) {
				for p.Next() {
					s := all.of("switch")
					if _, ok := s.enter(time.Now); !ok {
						b.Error("refused")
						return
					}
					if in, err := g.enter(context.Background(), s, time.Second); !in || err != nil {
						b.Error("no turn")
						return
					}
					g.leave(s)
					s.leave()
				}
			})
		})
	}
}
