package store

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"keyd.dev/keyd/internal/hook"
	"keyd.dev/keyd/internal/isoswitch"
)

// inQueue is a reversal that waits for its first try.
func inQueue(n byte, oid isoswitch.OID) *isoswitch.Reversal {
	r := aReversal(n, oid)
	r.Tries, r.Declines, r.Errors, r.FirstSent, r.LastSent, r.Answered, r.UpAnswer, r.Closed =
		0, 0, 0, time.Time{}, time.Time{}, time.Time{}, "", time.Time{}
	return r
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// original adds one that is being reversed.
func original(t *testing.T, db *DB, n byte) *isoswitch.Txn {
	t.Helper()
	x := aTxn(n)
	x.RefersTo, x.State, x.ReversedAmount, x.STAN = isoswitch.OID{}, isoswitch.ReversalPending, 0, "0000"+string('0'+rune(n/100%10))+string('0'+rune(n/10%10))
	update(t, db, func(tx isoswitch.Tx) error { return tx.InsertTxn(x) })
	return x
}

// ids are those of the events that are due at a time.
func ids(t *testing.T, db *DB, at time.Time) (all []string) {
	t.Helper()
	events, err := db.Undelivered(t.Context(), at, 100)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range events {
		all = append(all, e.ID()+" "+e.State)
	}
	return all
}

func acknowledge(t *testing.T, db *DB) {
	t.Helper()
	events, err := db.Undelivered(t.Context(), day().Add(time.Hour), 100)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range events {
		if err := db.Acknowledge(t.Context(), e.Seq, day()); err != nil {
			t.Fatal(err)
		}
	}
}

// TestOutbox, I-4: each change of a reversal that somebody is told of
// writes its event, in the same transaction, once.
func TestOutbox(t *testing.T) {
	t.Run("R-05 created, failed, failed again, done: one event each", func(t *testing.T) {
		db := open(t)
		must(t, db.SetHook(t.Context(), true))
		x := original(t, db, 10)
		rev := inQueue(20, x.OID)
		update(t, db, func(tx isoswitch.Tx) error { return tx.InsertReversal(rev) })
		name := rev.RID.Name()
		var got []string
		step := func(state isoswitch.ReversalState) {
			update(t, db, func(tx isoswitch.Tx) error {
				r, err := tx.Reversal(rev.RID)
				if err != nil {
					return err
				}
				r.State, r.Tries, r.Closed, r.UpAnswer = state, r.Tries+1, day(), "00"
				return tx.UpdateReversal(r)
			})
			got = append(got, ids(t, db, day().Add(time.Hour))...)
			acknowledge(t, db)
		}
		got = append(got, ids(t, db, day().Add(time.Hour))...)
		acknowledge(t, db)
		for _, state := range []isoswitch.ReversalState{isoswitch.Sent, isoswitch.Failed, isoswitch.Sent, isoswitch.Parked, isoswitch.Sent, isoswitch.Confirmed} {
			step(state)
		}
		want := []string{name + "-created QUEUED", name + "-failed FAILED", name + "-failed-2 PARKED", name + "-done CONFIRMED"}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("events (-want +got):\n%s", diff)
		}
	})
	t.Run("I-4 what is undone leaves no event", func(t *testing.T) {
		db := open(t)
		must(t, db.SetHook(t.Context(), true))
		x := original(t, db, 10)
		undone := errors.New("undone")
		err := db.Update(t.Context(), func(tx isoswitch.Tx) error {
			if err := tx.InsertReversal(inQueue(20, x.OID)); err != nil {
				return err
			}
			return undone
		})
		if !errors.Is(err, undone) || len(ids(t, db, day())) != 0 {
			t.Errorf("error %v, events %v", err, ids(t, db, day()))
		}
	})
	t.Run("D-18 one that waits for its original is told when it goes on", func(t *testing.T) {
		db := open(t)
		must(t, db.SetHook(t.Context(), true))
		x := original(t, db, 10)
		rev := inQueue(20, x.OID)
		rev.State = isoswitch.Waiting
		update(t, db, func(tx isoswitch.Tx) error { return tx.InsertReversal(rev) })
		if got := ids(t, db, day()); len(got) != 0 {
			t.Errorf("told before: %v", got)
		}
		rev.State = isoswitch.Queued
		update(t, db, func(tx isoswitch.Tx) error { return tx.UpdateReversal(rev) })
		if got := ids(t, db, day()); len(got) != 1 {
			t.Errorf("events %v, want one", got)
		}
	})
	t.Run("D-10 D-20 what never goes upstream is not told", func(t *testing.T) {
		db := open(t)
		must(t, db.SetHook(t.Context(), true))
		x := original(t, db, 10)
		rev := inQueue(20, x.OID)
		rev.State, rev.Closed = isoswitch.Closed, day()
		update(t, db, func(tx isoswitch.Tx) error { return tx.InsertReversal(rev) })
		if got := ids(t, db, day()); len(got) != 0 {
			t.Errorf("events %v", got)
		}
	})
	t.Run("without a hook nothing is kept", func(t *testing.T) {
		db := open(t)
		must(t, db.SetHook(t.Context(), true))
		must(t, db.SetHook(t.Context(), true))
		must(t, db.SetHook(t.Context(), false))
		x := original(t, db, 10)
		update(t, db, func(tx isoswitch.Tx) error { return tx.InsertReversal(inQueue(20, x.OID)) })
		if got := ids(t, db, day()); len(got) != 0 {
			t.Errorf("events %v", got)
		}
	})
	t.Run("R-54 order of one original, and none waits for another", func(t *testing.T) {
		db := open(t)
		must(t, db.SetHook(t.Context(), true))
		x, y := original(t, db, 10), original(t, db, 100)
		first, other := inQueue(20, x.OID), inQueue(120, y.OID)
		update(t, db, func(tx isoswitch.Tx) error { return errors.Join(tx.InsertReversal(first), tx.InsertReversal(other)) })
		first.State, first.Closed = isoswitch.Confirmed, day()
		update(t, db, func(tx isoswitch.Tx) error { return tx.UpdateReversal(first) })
		want := []string{first.RID.Name() + "-created QUEUED", other.RID.Name() + "-created QUEUED"}
		if diff := cmp.Diff(want, ids(t, db, day())); diff != "" {
			t.Errorf("due first (-want +got):\n%s", diff)
		}
		events, err := db.Undelivered(t.Context(), day(), 1)
		must(t, err)
		must(t, db.Postpone(t.Context(), events[0].Seq, day().Add(time.Minute)))
		if got := ids(t, db, day()); len(got) != 1 || got[0] != want[1] {
			t.Errorf("while the first is put off: %v", got)
		}
		events, err = db.Undelivered(t.Context(), day().Add(time.Minute), 10)
		must(t, err)
		if len(events) != 2 || events[1].Sent != 1 || events[1].ID() != first.RID.Name()+"-created" {
			t.Fatalf("events %v", events)
		}
		acknowledge(t, db)
		if got := ids(t, db, day()); len(got) != 1 || got[0] != first.RID.Name()+"-done CONFIRMED" {
			t.Errorf("after that: %v", got)
		}
		b, err := db.Backlog(context.Background())
		must(t, err)
		if b.Events != 1 || !b.Event.Equal(day()) {
			t.Errorf("backlog of %d events since %v", b.Events, b.Event)
		}
	})
	t.Run("what an event says does not change", func(t *testing.T) {
		db := open(t)
		must(t, db.SetHook(t.Context(), true))
		x := original(t, db, 10)
		update(t, db, func(tx isoswitch.Tx) error { return tx.InsertReversal(inQueue(20, x.OID)) })
		acknowledge(t, db)
		for _, statement := range []string{
			"UPDATE outbox SET kind = 'done'", "UPDATE outbox SET acknowledged = 0", "DELETE FROM outbox",
			"INSERT INTO outbox (rid, oid, kind, n, at, state, up_answer, tries) SELECT rid, oid, kind, n, at, state, up_answer, tries FROM outbox",
		} {
			if err := db.changeEvent(t.Context(), statement); !errors.Is(err, ErrRule) {
				t.Errorf("%s: %v", statement, err)
			}
		}
	})
	t.Run("an event of a reversal that says otherwise tells nothing", func(t *testing.T) {
		db := open(t)
		must(t, db.SetHook(t.Context(), true))
		x := original(t, db, 10)
		rev := inQueue(20, x.OID)
		update(t, db, func(tx isoswitch.Tx) error { return tx.InsertReversal(rev) })
		acknowledge(t, db)
		must(t, db.changeEvent(t.Context(), "INSERT INTO outbox (rid, oid, kind, n, at, state, up_answer, tries) SELECT rid, oid, 'done', 1, at, state, up_answer, tries FROM outbox"))
		events, err := db.Undelivered(t.Context(), day(), 10)
		must(t, err)
		if len(events) != 1 {
			t.Fatalf("%d events", len(events))
		}
		if _, err := events[0].Body(); err == nil {
			t.Errorf("it would be told: %+v", events[0])
		}
	})
}

// TestEvent: the body is the same at each delivery and holds nothing of a card.
func TestEventBody(t *testing.T) {
	db := open(t)
	must(t, db.SetHook(t.Context(), true))
	x := original(t, db, 10)
	rev := partial(inQueue(20, x.OID), 400)
	update(t, db, func(tx isoswitch.Tx) error { return tx.InsertReversal(rev) })
	events, err := db.Undelivered(t.Context(), day(), 10)
	must(t, err)
	body, err := events[0].Body()
	must(t, err)
	want := `{"id":"` + rev.RID.Name() + `-created","type":"reversal.created","time":"2025-11-22T09:30:00.123456789Z",` +
		`"reversal":{"id":"` + rev.RID.Name() + `","state":"QUEUED","cause":"terminal","reason":"68","full":false,"rest":400,"tries":0},` +
		`"original":{"state":"APPROVED","mti":"0200","tid":"T0000001","mid":"M00000000000001","stan":"` + x.STAN + `","date_time":"1122093000",` +
		`"rrn":"532609000001","amount":1000,"currency":"978"}}`
	if diff := cmp.Diff(want, string(body)); diff != "" {
		t.Errorf("body (-want +got):\n%s", diff)
	}
	for _, e := range []hook.Event{{}, {Reversal: "k", Kind: "other", N: 1}, {Reversal: "k", Kind: hook.Done}} {
		if _, err := e.Body(); err == nil {
			t.Errorf("%+v has a body", e)
		}
	}
}
