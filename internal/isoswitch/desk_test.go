package isoswitch

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"keyd.dev/keyd/internal/custody"
)

// bench is a ledger over the journal of the tests.
type bench struct{ *memory }

func (b bench) Named(_ context.Context, name string) (Entry, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for rid, rev := range b.held.revs {
		if rid.Name() == name {
			t := b.held.txns[rev.OID]
			return Entry{RID: rid, Reversal: &rev, Txn: &t}, nil
		}
	}
	return Entry{}, ErrNotFound
}

func (b bench) Entries(context.Context, LedgerQuery) ([]Entry, error) { return nil, nil }

// TestDesk: what an operator may do to a reversal in each state, and what it is
// then. Reversals section 2.2.
func TestDesk(t *testing.T) {
	retry, park := custody.ReversalOrder{Act: custody.RetryReversal}, custody.ReversalOrder{Act: custody.ParkReversal}
	resolve := custody.ReversalOrder{Act: custody.ResolveReversal, Case: "C-7"}
	free, reject := custody.ReversalOrder{Act: custody.ReleaseReversal}, custody.ReversalOrder{Act: custody.RejectReversal}
	for _, c := range []struct {
		name     string
		state    ReversalState
		original State
		tries    int
		order    custody.ReversalOrder
		want     ReversalState // empty: refused
		becomes  State
	}{
		{"R-05 REV_FAILED is retried as a repeat", Failed, ReversalFailed, 6, retry, Sent, ReversalPending},
		{"a parked one that never left is retried as the first", Parked, ReversalPending, 0, retry, Queued, ReversalPending},
		{"a waiting one is brought forward", Sent, ReversalPending, 2, retry, Sent, ReversalPending},
		{"a queued one is brought forward", Queued, ReversalPending, 0, retry, Queued, ReversalPending},
		{"a confirmed one is not retried", Confirmed, Reversed, 1, retry, "", Reversed},
		{"a closed one is not retried", Closed, LocalVoid, 0, retry, "", LocalVoid},
		{"one that waits for its original is not retried", Waiting, Forwarded, 0, retry, "", Forwarded},
		{"a held one is not retried", Held, ReversalHeld, 0, retry, "", ReversalHeld},
		{"a queued one is parked", Queued, ReversalPending, 0, park, Parked, ReversalPending},
		{"a sent one is parked", Sent, ReversalPending, 3, park, Parked, ReversalPending},
		{"a failed one is not parked", Failed, ReversalFailed, 6, park, "", ReversalFailed},
		{"a confirmed one is not parked", Confirmed, Reversed, 1, park, "", Reversed},
		{"REV_FAILED is closed with a case, unchanged", Failed, ReversalFailed, 6, resolve, Failed, ReversalFailed},
		{"a parked one is closed with a case", Parked, ReversalPending, 0, resolve, Failed, ReversalFailed},
		{"R-59 a held one is released", Held, ReversalHeld, 0, free, Queued, ReversalPending},
		{"R-59 a held one is rejected", Held, ReversalHeld, 0, reject, Closed, Approved},
		{"one that is not held is not released", Queued, ReversalPending, 0, free, "", ReversalPending},
		{"one that was sent is not rejected", Sent, ReversalPending, 1, reject, "", ReversalPending},
		{"a failed one is not rejected", Failed, ReversalFailed, 6, reject, "", ReversalFailed},
		{"a held one is not parked", Held, ReversalHeld, 0, park, "", ReversalHeld},
		{"a held one is not closed with a case", Held, ReversalHeld, 0, resolve, "", ReversalHeld},
		{"A-02 one that waits is not closed", Sent, ReversalPending, 1, resolve, "", ReversalPending},
		{"A-02 a queued one is not closed", Queued, ReversalPending, 0, resolve, "", ReversalPending},
		{"a confirmed one is not closed", Confirmed, Reversed, 1, resolve, "", Reversed},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := newMemory()
			rid, oid := RID{1, 2, 3}, OID{9}
			m.held.txns[oid] = Txn{OID: oid, State: c.original, TID: "T0000001", Amount: 100}
			was := Reversal{RID: rid, OID: oid, Full: true, State: c.state, Tries: c.tries, Declines: 2, Errors: 1,
				Built: noon.Add(-48 * time.Hour), Next: noon.Add(time.Hour), Closed: noon.Add(-time.Hour)}
			m.held.revs[rid] = was
			desk := NewDesk(m, bench{m}, func() time.Time { return noon })
			e, err := desk.Order(t.Context(), rid.Name(), c.order)
			got, original := m.held.revs[rid], m.held.txns[oid].State
			if original != c.becomes {
				t.Errorf("the original is %s, want %s", original, c.becomes)
			}
			if c.want == "" {
				if !errors.Is(err, custody.ErrReversalState) || got != was {
					t.Errorf("error %v; the record changed: %v", err, got != was)
				}
				return
			}
			if err != nil || got.State != c.want || e.State != string(c.want) {
				t.Fatalf("state %s, shown %s, error %v", got.State, e.State, err)
			}
			switch s := (&Switch{}); {
			case c.order == retry && (got.Next != noon || c.state != c.want && got.Granted != c.tries):
				t.Errorf("next try %v, granted %d", got.Next, got.Granted)
			case c.order == retry && (c.state == Failed || c.state == Parked):
				s.set.Store(&settings{Settings: Settings{Retry: Retry{Tries: 6, TTL: 24 * time.Hour}}})
				if s.exhausted(&got, noon.Add(time.Hour)) || !s.exhausted(&got, noon.Add(25*time.Hour)) {
					t.Error("it has not all its time again")
				}
				if got.Declines != 0 || got.Errors != 0 || !got.Closed.IsZero() {
					t.Errorf("%d declines, %d errors, closed %v", got.Declines, got.Errors, got.Closed)
				}
			case c.order == resolve:
				if got.Case != "C-7" || got.Resolved != noon {
					t.Errorf("case %q, resolved %v", got.Case, got.Resolved)
				}
				for _, again := range []custody.ReversalOrder{retry, park, resolve} {
					if _, err := desk.Order(t.Context(), rid.Name(), again); !errors.Is(err, custody.ErrReversalState) {
						t.Errorf("%s after the case: %v", again.Act, err)
					}
				}
			}
		})
	}
	t.Run("R-15 a name that nobody has", func(t *testing.T) {
		m := newMemory()
		desk := NewDesk(m, bench{m}, func() time.Time { return noon })
		for _, name := range []string{RID{5}.Name(), "x", ""} {
			if _, err := desk.Order(t.Context(), name, retry); !errors.Is(err, custody.ErrNoReversal) {
				t.Errorf("%q: %v", name, err)
			}
			if _, err := desk.Reversal(t.Context(), name); !errors.Is(err, custody.ErrNoReversal) {
				t.Errorf("%q: %v", name, err)
			}
		}
	})
}

func FuzzParseName(f *testing.F) {
	f.Add(RID{}.Name())
	f.Add("kkkk")
	f.Add(strings.Repeat("z", 24))
	f.Fuzz(func(t *testing.T, name string) {
		least, greatest, ok := ParseName(name)
		if !ok {
			return
		}
		if least.Name() != name || greatest.Name() != name || bytes.Compare(least[:], greatest[:]) >= 0 {
			t.Errorf("%q is %q to %q", name, least.Name(), greatest.Name())
		}
	})
}
