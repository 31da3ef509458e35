package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/mattn/go-sqlite3"

	"keyd.dev/keyd/internal/custody"
	"keyd.dev/keyd/internal/isoswitch"
)

func onceFor(invocation string) *custody.Once {
	return &custody.Once{Principal: "admin", Invocation: invocation, Operation: custody.OpCreateKey,
		Body: hash(1), Answer: []byte("{}"), At: day()}
}

func device(n int) isoswitch.Device { return isoswitch.Device(fmt.Sprintf("FFFF%09X0000000", n)) }

// hold keeps the writer busy until the returned function is called, so that
// what is handed in meanwhile becomes one batch.
func hold(t *testing.T, db *DB) (release func()) {
	t.Helper()
	busy, free := make(chan struct{}), make(chan struct{})
	var done sync.WaitGroup
	done.Go(func() {
		err := db.update(context.Background(), func(*session) error {
			close(busy)
			<-free
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	})
	<-busy
	return func() { close(free); done.Wait() }
}

// queued waits until n jobs wait for the writer.
func queued(db *DB, n int) {
	for {
		db.writer.queue.mu.Lock()
		waiting := len(db.writer.queue.jobs)
		db.writer.queue.mu.Unlock()
		if waiting >= n {
			return
		}
		runtime.Gosched()
	}
}

// A function that fails, breaks a rule or panics undoes its own work, and none
// of those that share its commit.
func TestOneFailsAmongMany(t *testing.T) {
	db := open(t)
	const n = 100
	errBroken := errors.New("broken")
	release := hold(t, db)
	errs := make([]error, n)
	panics := make([]any, n)
	var callers sync.WaitGroup
	for i := range n {
		callers.Go(func() {
			defer func() { panics[i] = recover() }()
			errs[i] = db.Update(t.Context(), func(tx isoswitch.Tx) error {
				if err := tx.Accept(device(i), 1, hash(byte(i)), day()); err != nil {
					return err
				}
				switch i % 10 {
				case 3:
					return errBroken
				case 5:
					return tx.Accept(device(i), 1, hash(byte(i)), day())
				case 7:
					panic(errBroken)
				}
				return nil
			})
		})
	}
	queued(db, n)
	release()
	callers.Wait()
	view(t, db, func(tx isoswitch.Tx) error {
		for i := range n {
			var wantErr error
			var wantPanic any
			want := uint32(0)
			switch i % 10 {
			case 3:
				wantErr = errBroken
			case 5:
				wantErr = isoswitch.ErrExists
			case 7:
				wantPanic = errBroken
			default:
				want = 1
			}
			got, err := tx.LastCounter(device(i))
			if err != nil {
				return err
			}
			if got != want || !errors.Is(errs[i], wantErr) || panics[i] != wantPanic {
				t.Errorf("%d: counter %d, error %v, panic %v", i, got, errs[i], panics[i])
			}
		}
		return nil
	})
}

// A batch is one commit, and the next forms meanwhile.
func TestBatches(t *testing.T) {
	db := open(t)
	release := hold(t, db)
	var callers sync.WaitGroup
	var order []int // of the writer goroutine alone
	for i := range mostInBatch + 10 {
		queued(db, i)
		callers.Go(func() {
			if err := db.update(t.Context(), func(*session) error { order = append(order, i); return nil }); err != nil {
				t.Error(err)
			}
		})
		queued(db, i+1)
	}
	release()
	callers.Wait()
	for i, got := range order {
		if i != got {
			t.Fatalf("job %d came in place %d: not in the order of arrival", got, i)
		}
	}
	if len(order) != mostInBatch+10 {
		t.Errorf("%d jobs were run", len(order))
	}
}

func TestCancelledBeforeItBegan(t *testing.T) {
	db := open(t)
	t.Run("at once", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		ran := false
		if err := db.update(ctx, func(*session) error { ran = true; return nil }); !errors.Is(err, context.Canceled) || ran {
			t.Errorf("got %v, ran %v", err, ran)
		}
		if err := db.view(ctx, func(*session) error { ran = true; return nil }); !errors.Is(err, context.Canceled) || ran {
			t.Errorf("view: got %v, ran %v", err, ran)
		}
	})
	t.Run("while it waits", func(t *testing.T) {
		release := hold(t, db)
		ctx, cancel := context.WithCancel(t.Context())
		var caller sync.WaitGroup
		ran := false
		caller.Go(func() {
			if err := db.update(ctx, func(*session) error { ran = true; return nil }); !errors.Is(err, context.Canceled) {
				t.Errorf("got %v, want Canceled", err)
			}
		})
		queued(db, 1)
		cancel()
		caller.Wait()
		release()
		update(t, db, func(isoswitch.Tx) error { return nil })
		if ran {
			t.Error("a withdrawn function was run")
		}
	})
	t.Run("while it runs", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		err := db.Update(ctx, func(tx isoswitch.Tx) error {
			cancel()
			return tx.Accept(device(1), 1, hash(1), day())
		})
		if err != nil {
			t.Errorf("the outcome is in doubt: %v", err)
		}
		view(t, db, func(tx isoswitch.Tx) error {
			last, err := tx.LastCounter(device(1))
			if last != 1 {
				t.Errorf("counter %d", last)
			}
			return err
		})
	})
}

func TestOverload(t *testing.T) {
	db := open(t)
	release := hold(t, db)
	var callers sync.WaitGroup
	for range mostQueued {
		callers.Go(func() {
			if err := db.update(t.Context(), func(*session) error { return nil }); err != nil {
				t.Error(err)
			}
		})
	}
	queued(db, mostQueued)
	if err := db.update(t.Context(), func(*session) error { return nil }); !errors.Is(err, custody.ErrUnavailable) {
		t.Errorf("got %v, want ErrUnavailable", err)
	}
	release()
	callers.Wait()
}

// What waits when the store closes is still done.
func TestCloseFinishesWhatWaits(t *testing.T) {
	db := open(t)
	release := hold(t, db)
	var callers sync.WaitGroup
	for i := range 20 {
		callers.Go(func() {
			err := db.Update(t.Context(), func(tx isoswitch.Tx) error { return tx.Accept(device(i), 1, hash(1), day()) })
			if err != nil {
				t.Error(err)
			}
		})
	}
	queued(db, 20)
	callers.Go(func() { shut(t, db) })
	for !db.ended.Load() {
		runtime.Gosched()
	}
	release()
	callers.Wait()
	view(t, openAt(t, db.path, Serve), func(tx isoswitch.Tx) error {
		for i := range 20 {
			if last, err := tx.LastCounter(device(i)); err != nil || last != 1 {
				t.Errorf("device %d: counter %d, %v", i, last, err)
			}
		}
		return nil
	})
}

// When SQLite gives up the whole transaction, as it does when there is no room,
// nobody of the batch may be told that it was done, no statement may slip
// through alone, and the next batch must find everything in order.
func TestTransactionGivenUp(t *testing.T) {
	db := open(t)
	limit := func(pages int) {
		err := db.update(t.Context(), func(s *session) error {
			var got int
			return s.query(fmt.Sprintf("PRAGMA max_page_count = %d", pages)).Scan(&got)
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	limit(1) // no more than there are
	if err := db.Ready(t.Context()); err != nil {
		t.Fatalf("before: %v", err)
	}

	release := hold(t, db)
	var callers sync.WaitGroup
	errs := make([]error, 10)
	for i := range errs {
		queued(db, i)
		callers.Go(func() {
			errs[i] = db.update(t.Context(), func(s *session) error {
				tx := &tx{db: db, s: s, writes: true}
				if i == 4 {
					// Fills the database, and goes on as if nothing had happened.
					_, _ = s.exec("INSERT INTO answer VALUES ('p', 'i', 'o', zeroblob(32), zeroblob(1000000), 1)")
				}
				if err := tx.Accept(device(i), 1, hash(1), day()); err != nil && i != 4 {
					return err
				}
				return nil
			})
		})
		queued(db, i+1)
	}
	release()
	callers.Wait()
	for i, err := range errs {
		if !errors.Is(err, custody.ErrUnavailable) {
			t.Errorf("%d: got %v, want ErrUnavailable", i, err)
		}
	}
	var lite sqlite3.Error
	if err := errs[0]; !errors.As(err, &lite) || lite.Code != sqlite3.ErrFull {
		t.Errorf("the reason is lost: %v", err)
	}
	if db.writer.last.Load() == nil {
		t.Error("the failure was not noted")
	}

	limit(1 << 30)
	if err := db.Ready(t.Context()); err != nil {
		t.Errorf("after: %v", err)
	}
	counters := make([]uint32, len(errs))
	view(t, db, func(tx isoswitch.Tx) (err error) {
		for i := range counters {
			if counters[i], err = tx.LastCounter(device(i)); err != nil {
				return err
			}
		}
		return nil
	})
	if diff := cmp.Diff(make([]uint32, len(errs)), counters); diff != "" {
		t.Error(diff)
	}
	update(t, db, func(tx isoswitch.Tx) error { return tx.Accept(device(0), 1, hash(1), day()) })
}

// After an error that leaves the file in doubt nothing is written any more.
func TestBrokenForGood(t *testing.T) {
	for name, err := range map[string]error{
		"sync failed":           sqlite3.Error{Code: sqlite3.ErrIoErr, ExtendedCode: sqlite3.ErrIoErrFsync},
		"directory sync failed": sqlite3.Error{Code: sqlite3.ErrIoErr, ExtendedCode: sqlite3.ErrIoErrDirFsync},
		"damaged":               sqlite3.Error{Code: sqlite3.ErrCorrupt},
	} {
		t.Run(name, func(t *testing.T) {
			db := open(t)
			db.writer.outcome(nil, fmt.Errorf("store: commit: %w", explained(err)))
			got := db.update(t.Context(), func(*session) error { return nil })
			if !errors.Is(got, custody.ErrUnavailable) {
				t.Errorf("update: %v, want ErrUnavailable", got)
			}
			if got := db.Ready(t.Context()); !errors.Is(got, custody.ErrUnavailable) {
				t.Errorf("Ready: %v, want ErrUnavailable", got)
			}
		})
	}
}

// Readers see whole transactions only, while others write.
func TestReadersBesideTheWriter(t *testing.T) {
	db := open(t)
	const writers, rounds = 4, 50
	var work sync.WaitGroup
	for range writers {
		work.Go(func() {
			for range rounds {
				err := db.Update(t.Context(), func(tx isoswitch.Tx) error {
					_, err := tx.Reserve("left", 1)
					_, err2 := tx.Reserve("right", 1)
					return errors.Join(err, err2)
				})
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	for range 8 {
		work.Go(func() {
			for range rounds {
				var left, right int
				err := db.view(t.Context(), func(s *session) error {
					const query = "SELECT coalesce((SELECT value FROM counter WHERE name = ?), 0)"
					return errors.Join(s.query(query, "left").Scan(&left), s.query(query, "right").Scan(&right))
				})
				if err != nil || left != right {
					t.Errorf("left %d, right %d, %v", left, right, err)
				}
			}
		})
	}
	work.Wait()
	update(t, db, func(tx isoswitch.Tx) error {
		if n, err := tx.Reserve("left", 1); err != nil || n != writers*rounds {
			t.Errorf("%d updates, %v, want %d", n, err, writers*rounds)
		}
		return nil
	})
}

// The log begins anew now and then although there is always someone reading.
func TestLogBeginsAnew(t *testing.T) {
	db := open(t)
	var readers sync.WaitGroup
	done := make(chan struct{})
	for range 4 {
		readers.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				if _, err := db.Keys(t.Context(), custody.KeyQuery{}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for n := range 3 * checkpointAfter {
		err := db.update(t.Context(), func(s *session) error {
			_, err := s.exec("REPLACE INTO answer VALUES ('p', 'i', 'o', zeroblob(32), zeroblob(40000), ?)", n)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	close(done)
	readers.Wait()
	info, err := os.Stat(db.path + "-wal")
	if err != nil {
		t.Fatal(err)
	}
	if frames := info.Size() / 4096; frames < restartAfter || frames > 4*restartAfter {
		t.Errorf("the log has %d pages", frames)
	}
	var patience int64
	err = db.update(t.Context(), func(s *session) error { return s.query("PRAGMA busy_timeout").Scan(&patience) })
	if err != nil || patience != serverPatience.Milliseconds() {
		t.Errorf("the writer waits %d ms for others, %v", patience, err)
	}
}
