package isoswitch

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"keyd.dev/keyd/internal/iso8583"
)

// gate is a connection whose writes wait until they are let through.
type gate struct {
	net.Conn
	open chan error // what a write ends with

	mu       sync.Mutex
	writes   [][]byte
	deadline time.Time
	closed   bool
}

func (g *gate) Write(b []byte) (int, error) {
	g.mu.Lock()
	g.writes = append(g.writes, bytes.Clone(b))
	g.mu.Unlock()
	if err := <-g.open; err != nil {
		return 0, err
	}
	return len(b), nil
}

func (g *gate) SetWriteDeadline(t time.Time) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.deadline = t
	return nil
}

func (g *gate) Close() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.closed = true
	return nil
}

func (g *gate) seen() []string {
	g.mu.Lock()
	defer g.mu.Unlock()
	var all []string
	for _, b := range g.writes {
		all = append(all, string(b))
	}
	return all
}

func gatedWire(g *gate) *wire {
	return &wire{
		conn: func() net.Conn {
			if g == nil {
				return nil
			}
			return g
		},
		patience: func() time.Duration { return time.Minute },
	}
}

// sends has frames sent, each by its own goroutine and one after the other in the
// order given, and returns how to get their outcomes once the write is let through.
func (w *wire) sends(frames []string, depart func(string) bool) (wait func() []error) {
	errs := make([]error, len(frames))
	var done sync.WaitGroup
	for i, f := range frames {
		done.Go(func() { errs[i] = w.send([]byte(f), func() bool { return depart(f) }) })
		for w.loaded() < i+1 {
			runtime.Gosched()
		}
	}
	return func() []error { done.Wait(); return errs }
}

func (w *wire) loaded() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.next == nil {
		return 0
	}
	return len(w.next.items)
}

// busy begins a write and returns when it is under way.
func (w *wire) busy(t *testing.T, g *gate) (wait func() error) {
	t.Helper()
	var err error
	var done sync.WaitGroup
	done.Go(func() { err = w.send([]byte("first"), always) })
	for len(g.seen()) == 0 {
		runtime.Gosched()
	}
	return func() error { done.Wait(); return err }
}

func always() bool { return true }

func TestWireFramesThatWaitGoTogether(t *testing.T) {
	g := &gate{open: make(chan error, 2)}
	w := gatedWire(g)
	first := w.busy(t, g)
	rest := w.sends([]string{"a", "b", "c"}, func(string) bool { return true })
	g.open <- nil
	g.open <- nil
	if err := errors.Join(append(rest(), first())...); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"first", "abc"}, g.seen()); diff != "" {
		t.Errorf("writes (-want +got):\n%s", diff)
	}
	if left := time.Until(g.deadline); left <= 0 || left > time.Minute {
		t.Errorf("the deadline of the write is in %v, want within a minute", left)
	}
}

// D-20: a sale that was recalled while its frame waited must not leave with the
// frames that it waited with.
func TestWireD20RecalledFrameStays(t *testing.T) {
	for name, recalled := range map[string]string{"the one that writes": "a", "one that goes along": "b", "the last one": "c"} {
		t.Run(name, func(t *testing.T) {
			g := &gate{open: make(chan error, 2)}
			w := gatedWire(g)
			first := w.busy(t, g)
			frames := []string{"a", "b", "c"}
			rest := w.sends(frames, func(f string) bool { return f != recalled })
			g.open <- nil
			g.open <- nil
			if err := first(); err != nil {
				t.Fatal(err)
			}
			left := ""
			for i, err := range rest() {
				if want := frames[i] == recalled; errors.Is(err, errRecalled) != want || !want && err != nil {
					t.Errorf("frame %s: error %v", frames[i], err)
				}
				if frames[i] != recalled {
					left += frames[i]
				}
			}
			if diff := cmp.Diff([]string{"first", left}, g.seen()); diff != "" {
				t.Errorf("writes (-want +got):\n%s", diff)
			}
		})
	}
}

// The moment at which a frame may no longer be recalled is that of its write, not
// that of its joining those that wait.
func TestWireAsksAtTheLastMoment(t *testing.T) {
	g := &gate{open: make(chan error, 2)}
	w := gatedWire(g)
	first := w.busy(t, g)
	asked := make(chan struct{}, 1)
	rest := w.sends([]string{"a"}, func(string) bool { asked <- struct{}{}; return true })
	for range 100 {
		runtime.Gosched()
	}
	select {
	case <-asked:
		t.Error("the frame was asked while another write was under way")
	default:
	}
	g.open <- nil
	g.open <- nil
	if err := errors.Join(append(rest(), first())...); err != nil {
		t.Fatal(err)
	}
	<-asked
}

func TestWireWriteThatFails(t *testing.T) {
	g := &gate{open: make(chan error, 2)}
	w := gatedWire(g)
	first := w.busy(t, g)
	rest := w.sends([]string{"a", "b", "c"}, func(f string) bool { return f != "b" })
	broken := errors.New("connection reset")
	g.open <- nil
	g.open <- broken
	if err := first(); err != nil {
		t.Errorf("the frame that was written before the failure: %v", err)
	}
	errs := rest()
	for _, i := range []int{0, 2} {
		if !errors.Is(errs[i], broken) || errors.Is(errs[i], errLinkDown) || errors.Is(errs[i], errRecalled) {
			t.Errorf("frame %d: error %v; part of it may have left", i, errs[i])
		}
	}
	if !errors.Is(errs[1], errRecalled) {
		t.Errorf("the recalled frame: error %v", errs[1])
	}
	if !g.closed {
		t.Error("the connection stays open behind a frame that may be cut short")
	}
}

func TestWireWithoutConnection(t *testing.T) {
	w := gatedWire(nil)
	err := w.send([]byte("a"), func() bool {
		t.Error("a frame that cannot go was asked whether it may")
		return true
	})
	if !errors.Is(err, errLinkDown) {
		t.Errorf("error %v, want errLinkDown", err)
	}
}

// Whatever is sent at whatever moment arrives once and whole.
func TestWireManySenders(t *testing.T) {
	const senders, each = 16, 200
	near, far := net.Pipe()
	w := &wire{conn: func() net.Conn { return near }, patience: func() time.Duration { return time.Minute }}
	var all sync.WaitGroup
	for s := range senders {
		all.Go(func() {
			for n := range each {
				frame, err := iso8583.AppendFrame(nil, fmt.Appendf(nil, "%02d %03d", s, n))
				if err == nil {
					err = w.send(frame, always)
				}
				if err != nil {
					t.Errorf("frame %d of sender %d: %v", n, s, err)
				}
			}
		})
	}
	var got, want []string
	for len(got) < senders*each {
		msg, err := iso8583.ReadFrame(far)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, string(msg))
	}
	all.Wait()
	for s := range senders {
		for n := range each {
			want = append(want, fmt.Sprintf("%02d %03d", s, n))
		}
	}
	slices.Sort(got)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("frames (-want +got):\n%s", diff)
	}
}
