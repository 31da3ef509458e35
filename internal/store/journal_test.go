package store

import (
	"errors"
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"keyd.dev/keyd/internal/isoswitch"
)

func TestTxnRoundTrip(t *testing.T) {
	db := open(t)
	want := aTxn(1)
	allSet(t, *want)
	bare := &isoswitch.Txn{OID: hash(50), Received: day(), MTI: "0200", TID: "T0000001", MACKey: keyID(1), State: isoswitch.Tombstone}
	update(t, db, func(tx isoswitch.Tx) error {
		return errors.Join(tx.InsertTxn(want), tx.InsertTxn(bare))
	})
	view(t, db, func(tx isoswitch.Tx) error {
		for _, want := range []*isoswitch.Txn{want, bare} {
			got, err := tx.Txn(want.OID)
			if err != nil {
				return err
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Error(diff)
			}
		}
		return nil
	})
}

func TestUpdateTxnChangesTheOutcomeOnly(t *testing.T) {
	db := open(t)
	first := aTxn(1)
	first.ReversedAmount = 0
	update(t, db, func(tx isoswitch.Tx) error { return tx.InsertTxn(first) })
	change := aTxn(100)
	change.OID = first.OID
	change.State, change.RRN, change.Approval, change.Answer, change.Late = isoswitch.Approved, "r", "a", "b", ""
	change.IssuerDE55, change.ReverseOnCompletion, change.BatchClosed, change.Refunded = nil, false, false, false
	change.ReversedAmount, change.RefersTo, change.Finished = 1, first.RefersTo, day().Add(time.Hour)
	change.Amount = 1
	update(t, db, func(tx isoswitch.Tx) error { return tx.UpdateTxn(change) })

	want := *first
	want.State, want.RRN, want.Approval, want.Answer, want.Late = change.State, "r", "a", "b", ""
	want.IssuerDE55, want.ReverseOnCompletion, want.BatchClosed, want.Refunded = nil, false, false, false
	want.ReversedAmount, want.Finished = 1, change.Finished
	view(t, db, func(tx isoswitch.Tx) error {
		got, err := tx.Txn(first.OID)
		if diff := cmp.Diff(&want, got); diff != "" {
			t.Error(diff)
		}
		return err
	})
}

func TestReversalRoundTrip(t *testing.T) {
	db := open(t)
	want := aReversal(20, hash(1))
	allSet(t, *want, "Rest", "Case", "Resolved")
	part := partial(aReversal(30, hash(2)), 400)
	own := &isoswitch.Reversal{RID: hash(40), OID: hash(3), Cause: isoswitch.ByTimeout, Full: true, TID: "T0000001",
		Built: day(), State: isoswitch.Queued}
	all := []*isoswitch.Reversal{want, part, own}
	update(t, db, func(tx isoswitch.Tx) error {
		for n, v := range all {
			if err := errors.Join(tx.InsertTxn(aTxn(byte(n+1))), tx.InsertReversal(v)); err != nil {
				return err
			}
		}
		return nil
	})
	same := func(tx isoswitch.Tx) error {
		for _, want := range all {
			got, err := tx.Reversal(want.RID)
			if err != nil {
				return err
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Error(diff)
			}
		}
		return nil
	}
	view(t, db, same)

	changed := *want
	changed.Answer, changed.RRN, changed.Approval, changed.Content = "12", "x", "y", hash(77)
	changed.State, changed.Reason, changed.Tries, changed.Declines, changed.Errors = isoswitch.Failed, "06", 9, 8, 7
	changed.Next, changed.FirstSent, changed.LastSent = day().Add(11), day().Add(12), day().Add(13)
	changed.Answered, changed.UpAnswer, changed.Closed = time.Time{}, "25", day().Add(14)
	changed.Granted, changed.Renewed, changed.Case, changed.Resolved = 9, day().Add(15), "C-1", day().Add(16)
	give := changed
	give.OID, give.Cause, give.Full, give.Rest, give.MTI, give.STAN, give.TID = hash(2), isoswitch.ByRestart, false, 5, "0420", "9", "Z"
	give.KSN, give.Raw, give.Built, give.UpSTAN, give.UpSent = "0", hash(9), day().Add(1), "8", "7"
	update(t, db, func(tx isoswitch.Tx) error { return tx.UpdateReversal(&give) })
	all[0] = &changed
	view(t, db, same)
}

func TestJournalErrors(t *testing.T) {
	db := open(t)
	sale, other := aTxn(1), aTxn(2)
	update(t, db, func(tx isoswitch.Tx) error {
		return errors.Join(tx.InsertTxn(sale), tx.InsertTxn(other), tx.InsertReversal(aReversal(20, sale.OID)))
	})
	none := hash(200)
	tests := []struct {
		name string
		do   func(isoswitch.Tx) error
		want error
	}{
		{"no original of this OID", func(tx isoswitch.Tx) error { _, err := tx.Txn(none); return err }, isoswitch.ErrNotFound},
		{"no original of this look-up key", func(tx isoswitch.Tx) error { _, err := tx.Newest(none, time.Time{}); return err }, isoswitch.ErrNotFound},
		{"no original to update", func(tx isoswitch.Tx) error { return tx.UpdateTxn(aTxn(99)) }, isoswitch.ErrNotFound},
		{"OID taken", func(tx isoswitch.Tx) error { return tx.InsertTxn(aTxn(1)) }, isoswitch.ErrExists},
		{"no reversal of this RID", func(tx isoswitch.Tx) error { _, err := tx.Reversal(none); return err }, isoswitch.ErrNotFound},
		{"no reversal to update", func(tx isoswitch.Tx) error { return tx.UpdateReversal(aReversal(99, sale.OID)) }, isoswitch.ErrNotFound},
		{"RID taken", func(tx isoswitch.Tx) error { return tx.InsertReversal(aReversal(20, other.OID)) }, isoswitch.ErrExists},
		{"I-1 second full reversal", func(tx isoswitch.Tx) error { return tx.InsertReversal(aReversal(21, sale.OID)) }, isoswitch.ErrExists},
		{"reversal of nothing", func(tx isoswitch.Tx) error { return tx.InsertReversal(aReversal(22, none)) }, ErrRule},
		{"no counter", func(tx isoswitch.Tx) error { _, err := tx.AcceptedUnder("00", 1); return err }, isoswitch.ErrNotFound},
		{"nothing to reserve", func(tx isoswitch.Tx) error { _, err := tx.Reserve("stan", 0); return err }, errAny},
		{"too much to reserve", func(tx isoswitch.Tx) error { _, err := tx.Reserve("stan", math.MaxUint64); return err }, errAny},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			err := db.Update(t.Context(), tt.do)
			if tt.want == errAny && err == nil || tt.want != errAny && !errors.Is(err, tt.want) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
		})
	}
}

// errAny stands for an error without a name.
var errAny = errors.New("any error")

func TestNewest(t *testing.T) {
	db := open(t)
	received := []time.Duration{2 * time.Hour, 5 * time.Hour, 1 * time.Hour, 5 * time.Hour}
	key := isoswitch.LookupKey(hash(7))
	update(t, db, func(tx isoswitch.Tx) error {
		for n, d := range received {
			sale := aTxn(byte(n))
			sale.Key, sale.Received = key, day().Add(d)
			if err := tx.InsertTxn(sale); err != nil {
				return err
			}
		}
		foreign := aTxn(9)
		foreign.Key, foreign.Received = hash(8), day().Add(9*time.Hour)
		return tx.InsertTxn(foreign)
	})
	view(t, db, func(tx isoswitch.Tx) error {
		got, err := tx.Newest(key, day())
		if err != nil {
			return err
		}
		if got.OID != hash(3) { // of two received at once the later row
			t.Errorf("got %x", got.OID)
		}
		if _, err := tx.Newest(key, day().Add(5*time.Hour)); err != nil {
			t.Errorf("at the edge of the window: %v", err)
		}
		if _, err := tx.Newest(key, day().Add(5*time.Hour+1)); !errors.Is(err, isoswitch.ErrNotFound) {
			t.Errorf("outside the window: %v, want ErrNotFound", err)
		}
		return nil
	})
}

func TestUnfinished(t *testing.T) {
	db := open(t)
	update(t, db, func(tx isoswitch.Tx) error {
		for n := byte(1); n <= 5; n++ {
			sale := aTxn(n)
			if n == 2 {
				sale.State = isoswitch.Received
			}
			if err := tx.InsertTxn(sale); err != nil {
				return err
			}
		}
		sale := aTxn(3)
		sale.State = isoswitch.Approved
		return tx.UpdateTxn(sale)
	})
	view(t, db, func(tx isoswitch.Tx) error {
		var got []byte
		after := isoswitch.OID{}
		for {
			page, err := tx.Unfinished(after, 2)
			if err != nil {
				return err
			}
			if len(page) == 0 {
				break
			}
			for _, sale := range page {
				got = append(got, sale.OID[0])
				after = sale.OID
			}
		}
		if diff := cmp.Diff([]byte{1, 2, 4, 5}, got); diff != "" {
			t.Error(diff)
		}
		return nil
	})
}

func TestForeign(t *testing.T) {
	db := open(t)
	update(t, db, func(tx isoswitch.Tx) error {
		tombstone := aTxn(2)
		tombstone.State, tombstone.RRN, tombstone.TID = isoswitch.Tombstone, "tombstone", "T0000002"
		earlier, much := aTxn(3), aTxn(4) // the index goes by spans of minutes
		earlier.Received, earlier.RRN, earlier.Approval, earlier.RefersTo = day().Add(-time.Hour), "532608000003", "A33333", isoswitch.OID{}
		much.Received, much.RRN, much.Card.Token, much.RefersTo = day().Add(-6*24*time.Hour), "532602000004", "k1:earlier", isoswitch.OID{}
		return errors.Join(tx.InsertTxn(much), tx.InsertTxn(earlier), tx.InsertTxn(aTxn(1)), tx.InsertTxn(tombstone))
	})
	tests := []struct {
		name  string
		query isoswitch.ForeignQuery
		want  bool
	}{
		{"D-12 RRN of an hour ago", isoswitch.ForeignQuery{RRN: "532608000003", Since: day().Add(-time.Hour)}, true},
		{"D-12 approval code of an hour ago", isoswitch.ForeignQuery{Approval: "A33333", Since: day().Add(-2 * time.Hour)}, true},
		{"D-12 PAN of days ago", isoswitch.ForeignQuery{PANToken: "k1:earlier", Amount: 1000, Since: day().Add(-7 * 24 * time.Hour)}, true},
		{"PAN of longer ago", isoswitch.ForeignQuery{PANToken: "k1:earlier", Amount: 1000, Since: day().Add(-24 * time.Hour)}, false},
		{"a token that ends alike", isoswitch.ForeignQuery{PANToken: "k2:earlier", Amount: 1000}, false},
		{"D-12 RRN", isoswitch.ForeignQuery{RRN: "532609000001"}, true},
		{"D-12 approval code", isoswitch.ForeignQuery{Approval: "A12345"}, true},
		{"D-12 PAN and amount", isoswitch.ForeignQuery{PANToken: "k1:token", Amount: 1000}, true},
		{"D-12 approval code beside an RRN that fits nothing", isoswitch.ForeignQuery{RRN: "x", Approval: "A12345"}, true},
		{"PAN with another amount", isoswitch.ForeignQuery{PANToken: "k1:token", Amount: 1001}, false},
		{"other RRN", isoswitch.ForeignQuery{RRN: "532609000009"}, false},
		{"nothing asked", isoswitch.ForeignQuery{Amount: 1000}, false},
		{"its own", isoswitch.ForeignQuery{TID: "T0000001", RRN: "532609000001"}, false},
		{"too old", isoswitch.ForeignQuery{RRN: "532609000001", Since: day().Add(1)}, false},
		{"tombstone", isoswitch.ForeignQuery{RRN: "tombstone"}, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if tt.query.TID == "" {
				tt.query.TID = "T0000009"
			}
			view(t, db, func(tx isoswitch.Tx) error {
				got, err := tx.Foreign(tt.query)
				if got != tt.want {
					t.Errorf("got %v, want %v", got, tt.want)
				}
				return err
			})
		})
	}
}

func TestDue(t *testing.T) {
	db := open(t)
	view(t, db, func(tx isoswitch.Tx) error {
		if next, err := tx.NextDue("issuer"); !errors.Is(err, isoswitch.ErrNotFound) {
			t.Errorf("an empty queue: %v, %v, want ErrNotFound", next, err)
		}
		return nil
	})
	states := []isoswitch.ReversalState{isoswitch.Waiting, isoswitch.Queued, isoswitch.Sent, isoswitch.Confirmed,
		isoswitch.Closed, isoswitch.Failed, isoswitch.Held, isoswitch.Parked, isoswitch.Queued}
	update(t, db, func(tx isoswitch.Tx) error {
		for n, state := range states {
			v := aReversal(byte(100+n), hash(byte(n)))
			v.State, v.Next, v.Built = state, day().Add(-time.Duration(n)*time.Minute), day()
			if err := errors.Join(tx.InsertTxn(aTxn(byte(n))), tx.InsertReversal(v)); err != nil {
				return err
			}
		}
		return nil
	})
	tests := []struct {
		name  string
		at    time.Time
		limit int
		want  []byte
	}{
		{"all", day(), 10, []byte{108, 102, 101}},
		{"two", day(), 2, []byte{108, 102}},
		{"at the moment", day().Add(-2 * time.Minute), 10, []byte{108, 102}},
		{"a moment before", day().Add(-2*time.Minute - 1), 10, []byte{108}},
		{"none yet", day().Add(-time.Hour), 10, nil},
		{"none wanted", day(), 0, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			view(t, db, func(tx isoswitch.Tx) error {
				due, err := tx.Due("issuer", tt.at, tt.limit, nil)
				var got []byte
				for _, v := range due {
					got = append(got, v.RID[0])
				}
				if diff := cmp.Diff(tt.want, got); diff != "" {
					t.Error(diff)
				}
				return err
			})
		})
	}
	view(t, db, func(tx isoswitch.Tx) error {
		next, err := tx.NextDue("issuer")
		if !next.Equal(day().Add(-8 * time.Minute)) {
			t.Errorf("NextDue: %v", next)
		}
		return err
	})
	for _, tt := range []struct {
		name  string
		n     byte
		built time.Time
		want  bool
	}{
		{"queued before", 1, day().Add(1), true},
		{"sent before", 2, day().Add(1), true},
		{"not before itself", 1, day(), false},
		{"confirmed", 3, day().Add(1), false},
		{"none", 200, day().Add(1), false},
	} {
		t.Run("OpenBefore "+tt.name, func(t *testing.T) {
			view(t, db, func(tx isoswitch.Tx) error {
				got, err := tx.OpenBefore(hash(tt.n), tt.built)
				if got != tt.want {
					t.Errorf("got %v, want %v", got, tt.want)
				}
				return err
			})
		})
	}
}

func TestReserve(t *testing.T) {
	db := open(t)
	for _, step := range []struct {
		name        string
		n, wantFrom uint64
	}{{"stan", 1, 0}, {"stan", 100, 1}, {"rrn", 5, 0}, {"stan", 1, 101}} {
		update(t, db, func(tx isoswitch.Tx) error {
			first, err := tx.Reserve(step.name, step.n)
			if first != step.wantFrom {
				t.Errorf("%s: got %d, want %d", step.name, first, step.wantFrom)
			}
			return err
		})
	}
}

// What a transaction did is seen by itself, and by nobody else before its end.
func TestSnapshot(t *testing.T) {
	db := open(t)
	const device = isoswitch.Device("FFFF9876543210E00000")
	last := func(tx isoswitch.Tx) uint32 {
		counter, err := tx.LastCounter(device)
		if err != nil {
			t.Error(err)
		}
		return counter
	}
	view(t, db, func(outer isoswitch.Tx) error {
		if got := last(outer); got != 0 {
			t.Errorf("before: %d", got)
		}
		update(t, db, func(tx isoswitch.Tx) error {
			err := tx.Accept(device, 5, hash(1), day())
			if got := last(tx); got != 5 {
				t.Errorf("inside: %d, want 5", got)
			}
			view(t, db, func(tx isoswitch.Tx) error {
				if got := last(tx); got != 0 {
					t.Errorf("beside: %d, want 0", got)
				}
				return nil
			})
			return err
		})
		if got := last(outer); got != 0 {
			t.Errorf("in an older snapshot: %d, want 0", got)
		}
		return nil
	})
	view(t, db, func(tx isoswitch.Tx) error {
		if got := last(tx); got != 5 {
			t.Errorf("after: %d, want 5", got)
		}
		return nil
	})
}

func TestViewCannotWrite(t *testing.T) {
	db := open(t)
	for name, do := range map[string]func(isoswitch.Tx) error{
		"Accept":         func(tx isoswitch.Tx) error { return tx.Accept("FFFF9876543210E00000", 1, hash(1), day()) },
		"Advance":        func(tx isoswitch.Tx) error { return tx.Advance("FFFF9876543210E00000", 1, day()) },
		"InsertTxn":      func(tx isoswitch.Tx) error { return tx.InsertTxn(aTxn(1)) },
		"UpdateTxn":      func(tx isoswitch.Tx) error { return tx.UpdateTxn(aTxn(1)) },
		"InsertReversal": func(tx isoswitch.Tx) error { return tx.InsertReversal(aReversal(1, hash(1))) },
		"UpdateReversal": func(tx isoswitch.Tx) error { return tx.UpdateReversal(aReversal(1, hash(1))) },
		"Reserve":        func(tx isoswitch.Tx) error { _, err := tx.Reserve("stan", 1); return err },
	} {
		t.Run(name, func(t *testing.T) {
			if err := db.View(t.Context(), do); !errors.Is(err, errReadOnly) {
				t.Errorf("got %v, want errReadOnly", err)
			}
		})
	}
	t.Run("by SQL", func(t *testing.T) {
		err := db.view(t.Context(), func(s *session) error {
			_, err := s.exec("UPDATE probe SET n = 7")
			return err
		})
		if err == nil {
			t.Error("a reader's connection wrote")
		}
	})
}

func TestTxEndsWithItsTransaction(t *testing.T) {
	db := open(t)
	var kept isoswitch.Tx
	update(t, db, func(tx isoswitch.Tx) error { kept = tx; return nil })
	if _, err := kept.LastCounter("FFFF9876543210E00000"); !errors.Is(err, errEnded) {
		t.Errorf("read: %v, want errEnded", err)
	}
	if err := kept.InsertTxn(aTxn(1)); !errors.Is(err, errEnded) {
		t.Errorf("write: %v, want errEnded", err)
	}
	if _, err := kept.Due("issuer", day(), 1, nil); !errors.Is(err, errEnded) {
		t.Errorf("list: %v, want errEnded", err)
	}
}

func TestAcceptedIsForgotten(t *testing.T) {
	db := open(t)
	const device = isoswitch.Device("FFFF9876543210E00000")
	accept := func(counter uint32, at time.Time) {
		update(t, db, func(tx isoswitch.Tx) error { return tx.Accept(device, counter, hash(byte(counter)), at) })
	}
	for counter := uint32(1); counter <= 3; counter++ {
		accept(counter, day())
	}
	known := func(counter uint32) bool {
		var known bool
		view(t, db, func(tx isoswitch.Tx) error {
			message, err := tx.AcceptedUnder(device, counter)
			if known = err == nil; known && message != hash(byte(counter)) {
				t.Errorf("message under %d: %x", counter, message)
			}
			return nil
		})
		return known
	}
	accept(4, day().Add(defaultLookBack))
	for counter := uint32(1); counter <= 4; counter++ {
		if !known(counter) {
			t.Errorf("counter %d was forgotten within the look-back", counter)
		}
	}
	accept(5, day().Add(defaultLookBack+24*time.Hour+1))
	accept(forgetEvery, day().Add(defaultLookBack+24*time.Hour+2)) // forgetting is done now and then
	for counter, want := range map[uint32]bool{1: false, 2: false, 3: false, 4: true, 5: true, forgetEvery: true} {
		if got := known(counter); got != want {
			t.Errorf("counter %d: known %v, want %v", counter, got, want)
		}
	}
}

// KSN counters of several devices against a model: they only rise, each with
// its message, whatever is tried in whatever order, also over a restart.
func TestKSNOnlyRises(t *testing.T) {
	type accepted struct {
		device  isoswitch.Device
		counter uint32
	}
	rapid.Check(t, func(rt *rapid.T) {
		db := open(t)
		defer func() { shut(t, db) }()
		last := make(map[isoswitch.Device]uint32)
		messages := make(map[accepted]isoswitch.Hash)
		device := rapid.Map(rapid.IntRange(1, 3), func(n int) isoswitch.Device {
			return isoswitch.Device(fmt.Sprintf("FFFF%09X0000000", n))
		})
		counter := rapid.OneOf(rapid.Uint32Range(0, 8), rapid.Just(uint32(math.MaxUint32)))
		rt.Repeat(map[string]func(*rapid.T){
			"accept": func(rt *rapid.T) {
				d, c := device.Draw(rt, "device"), counter.Draw(rt, "counter")
				message := isoswitch.Hash(hash(rapid.Byte().Draw(rt, "message")))
				giveUp := rapid.IntRange(0, 4).Draw(rt, "give up") == 0
				elsewhere := rapid.Bool().Draw(rt, "it is kept elsewhere")
				err := db.Update(t.Context(), func(tx isoswitch.Tx) error {
					accept := func() error { return tx.Accept(d, c, message, day()) }
					if elsewhere {
						accept = func() error { return tx.Advance(d, c, day()) }
					}
					err := accept()
					if err == nil && giveUp {
						err = errAny
					}
					return err
				})
				rises := c > last[d]
				switch {
				case rises && giveUp && !errors.Is(err, errAny), rises && !giveUp && err != nil,
					!rises && !errors.Is(err, isoswitch.ErrExists):
					rt.Fatalf("accept %d after %d: %v", c, last[d], err)
				case rises && !giveUp:
					last[d] = c
					if !elsewhere {
						messages[accepted{d, c}] = message
					}
				}
			},
			"restart": func(rt *rapid.T) {
				if rapid.IntRange(0, 7).Draw(rt, "one in eight, since it takes long") == 0 {
					shut(t, db)
					db = openAt(t, db.path, Serve)
				}
			},
			"": func(rt *rapid.T) {
				err := db.View(t.Context(), func(tx isoswitch.Tx) error {
					for d, want := range last {
						if got, err := tx.LastCounter(d); err != nil || got != want {
							return fmt.Errorf("device %s is at %d (%v), want %d", d, got, err, want)
						}
					}
					for a, want := range messages {
						if got, err := tx.AcceptedUnder(a.device, a.counter); err != nil || got != want {
							return fmt.Errorf("message under %v: %x (%v)", a, got, err)
						}
					}
					return nil
				})
				if err != nil {
					rt.Fatal(err)
				}
			},
		})
	})
}
