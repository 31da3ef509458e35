package audit

import (
	"context"
	"encoding/base64"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// varied is a record of a sale's PIN translation with members as they differ
// from sale to sale, so that it packs as real ones do.
func varied(r *prng) Record {
	random := func(n int) string {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte(r.below(256))
		}
		return base64.RawURLEncoding.EncodeToString(b)
	}
	rec := benchRecord()
	tid, conn := r.below(400), r.below(90)
	rec.Corr = fmt.Sprintf("sw-a.%d", r.below(1_000_000))
	rec.Src = Source{Addr: fmt.Sprintf("10.1.%d.%d:%d", tid/256, tid%256, 30000+r.below(30000)), Conn: fmt.Sprintf("c-%d", conn)}
	rec.KSN = fmt.Sprintf("FFFF98%06X%08X", tid, r.below(1<<21))
	rec.Duration = time.Duration(300+r.below(2000)) * time.Microsecond
	rec.PAN = PAN{truncated: fmt.Sprintf("4111%02d******%04d", r.below(100), r.below(10000)), tok: "k1:" + random(16)}
	return rec
}

// fill appends so many varied records with several producers.
func fill(t testing.TB, l *Log, records int) {
	var group sync.WaitGroup
	for p := range 8 {
		group.Go(func() {
			r := prng(p + 1)
			for range records / 8 / 25 {
				rs := make([]Record, 25)
				for i := range rs {
					rs[i] = varied(&r)
				}
				ticket, err := l.Reserve(context.Background(), Ops, len(rs))
				if err != nil {
					t.Error(err)
					return
				}
				_, err = ticket.Append(rs...)
				ticket.Release()
				if err != nil {
					t.Error(err)
				}
				time.Sleep(time.Millisecond) // of the bubble's: checkpoints come between
			}
		})
	}
	group.Wait()
}

// weigh returns the bytes of the records and those of the files of the logs.
func weigh(t testing.TB, fsys *simFS) (records, files, wal int64) {
	t.Helper()
	r := &Reader{fsys}
	logs, err := r.Logs()
	if err != nil {
		t.Fatal(err)
	}
	for _, log := range logs {
		for e, err := range r.Records(log, 0) {
			if err != nil {
				t.Fatal(err)
			}
			records += int64(len(e.Raw))
		}
	}
	for _, name := range fsys.files() {
		if full, _, ok := strings.Cut(name, ".p/"); ok && fsys.names[full] != nil {
			t.Errorf("L-46: %s is left beside the full tile", name)
		}
		n := int64(len(fsys.names[name].data))
		if strings.HasPrefix(name, "wal/") {
			wal += n
		} else {
			files += n
		}
	}
	return records, files, wal
}

// TestDisk is L-46 and the holds on space: a minute after checkpoints covered
// the full tiles a log takes at most 1.3 times the bytes of its records beside
// the write-ahead log, whose size is fixed; also when the process that knew what
// may go has ended. The archive takes at most 0.35 (L-172).
func TestDisk(t *testing.T) {
	records := max(8_000, effort(t, 20_000, 400_000)) // of fewer the widths of the last tiles would be the larger part
	for _, restart := range []bool{false, true} {
		t.Run(fmt.Sprintf("L-46 restart %v", restart), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { checkDisk(t, records, restart) })
		})
	}
}

func checkDisk(t *testing.T, records int, restart bool) {
	fsys := newSimFS()
	o := simOptions(fsys)
	o.CheckpointInterval = 20 * time.Millisecond
	begin, at := time.Now(), time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)
	var mu sync.Mutex
	o.Clock = func() time.Time { mu.Lock(); defer mu.Unlock(); return at.Add(time.Since(begin)) }
	open := func() *Log {
		l, err := Open("sim", testSigner(), o)
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	l := open()
	fill(t, l, records)
	if restart {
		if err := l.Close(context.Background()); err != nil {
			t.Fatal(err)
		}
		l = open()
	}
	time.Sleep(2 * partialAge)
	mu.Lock()
	at = at.AddDate(0, 0, 1)
	mu.Unlock()
	fill(t, l, 200)
	waitRotated(t, fsys)
	time.Sleep(2 * partialAge)
	if err := l.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	bytes, files, wal := weigh(t, fsys)
	t.Logf("%d bytes of records, %d in the logs' folders (%.3f times), %d of write-ahead log", bytes, files, float64(files)/float64(bytes), wal)
	// A log that is young has a fixed part: the widths that its last tiles had.
	if float64(files) > 1.3*float64(bytes) {
		t.Errorf("%d bytes of files for %d bytes of records, more than 1.3 times", files, bytes)
	}
	a, err := writeArchive(fsys, newSimFS(), november, []string{testVkey(t)})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("archive: %d of %d bytes, %.3f", a.Packed, a.Records, float64(a.Packed)/float64(a.Records))
	if float64(a.Packed) > 0.35*float64(a.Records) {
		t.Errorf("%d bytes of archive for %d bytes of records, more than 0.35", a.Packed, a.Records)
	}
}
