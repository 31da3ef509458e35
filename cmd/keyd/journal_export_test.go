package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"keyd.dev/keyd/internal/custody"
	"keyd.dev/keyd/internal/isoswitch"
	"keyd.dev/keyd/keys"
)

// slowReader takes rate bytes a second of an answer, or a piece in each pause, and
// knows its deadline as a connection does.
type slowReader struct {
	http.ResponseWriter
	rate     int
	pause    time.Duration
	deadline time.Time
}

func (s *slowReader) SetWriteDeadline(at time.Time) error { s.deadline = at; return nil }

func (s *slowReader) Write(p []byte) (int, error) {
	takes := s.pause
	if s.rate > 0 {
		takes = time.Duration(len(p)) * time.Second / time.Duration(s.rate)
	}
	if left := time.Until(s.deadline); takes > left {
		time.Sleep(max(0, left))
		return 0, context.DeadlineExceeded
	}
	time.Sleep(takes)
	return len(p), nil
}

// TestR47ASlowReaderOfAnExport: the reader of an export cannot hold a snapshot of
// the journal for as long as it likes.
func TestR47ASlowReaderOfAnExport(t *testing.T) {
	const records, size = 20_000, 2 << 10
	for _, c := range []struct {
		name   string
		reader slowReader
		whole  bool
		most   time.Duration // until it is broken off
	}{
		{"at once", slowReader{}, true, time.Second},
		{"at the rate", slowReader{rate: exportRate}, true, time.Minute},
		{"at half the rate", slowReader{rate: exportRate / 2}, false, 2*exportStall + time.Second},
		{"at a tenth of the rate", slowReader{rate: exportRate / 10}, false, 2 * exportStall},
		{"a record each 29 seconds", slowReader{pause: 29 * time.Second}, false, 2 * exportStall},
		{"a record each second", slowReader{pause: time.Second}, false, 2 * exportStall},
		{"none", slowReader{pause: time.Hour}, false, exportStall},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				began := time.Now()
				out := exportWriter{w: &c.reader, control: http.NewResponseController(&c.reader), patience: exportStall}
				line := make([]byte, size)
				var err error
				for n := 0; n < records && err == nil; n++ {
					_, err = out.write(line)
				}
				if took := time.Since(began); c.whole != (err == nil) || took > c.most {
					t.Errorf("after %v: %v", took, err)
				}
			})
		})
	}
}

// TestR47AStalledExport: an export that nobody reads on lets no second one in, no
// sale wait, and no stop.
func TestR47AStalledExport(t *testing.T) {
	dir := t.TempDir()
	startDev(t, dir, "--no-sim").stop()
	cfg, err := loadConfig(filepath.Join(dir, "keyd.toml"))
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	stderr := &buffer{}
	d, err := newDaemon(ctx, cfg, newLogger(stderr, "warn"))
	if err != nil {
		t.Fatal(err)
	}
	ready, ended := make(chan struct{}), make(chan error, 1)
	go func() { ended <- d.serve(ctx, func() error { close(ready); return nil }) }()
	<-ready

	// More than the buffers between the two ends take.
	b := &journalBench{benchJournalCmd: &benchJournalCmd{}}
	like := &isoswitch.Txn{
		Link: "issuer", Profile: "unionpay", MTI: "0200", Card: custody.Card{Sealed: []byte{1}, Token: "k1:token"},
		Processing: "000000", Amount: 1, TID: "T0000001", Currency: "978", State: isoswitch.Approved,
		EMV: make([]byte, 200), MACKey: keys.ID(strings.Repeat("0", 32)), Sent: "1122093000", STAN: "000001", Time: "093000", Date: "1122",
		Entry: "051", Acquirer: "123456", MID: "M00000000000001", Condition: "00", UpSent: "1122093001", UpSTAN: "000101",
	}
	err = d.node.db.Update(t.Context(), func(tx isoswitch.Tx) (err error) {
		for n := 0; n < 3000 && err == nil; n++ {
			err = b.insert(tx, like, false)
		}
		return err
	})
	if err != nil {
		stop()
		t.Fatal(errors.Join(err, <-ended))
	}
	body, err := openLocal(t.Context(), cfg.Ops.Socket, "/journal/export", journalAsked{})
	if err != nil {
		t.Fatal(err)
	}
	defer body.Close()
	for n := range 4 {
		_, err := openLocal(t.Context(), cfg.Ops.Socket, "/journal/export", journalAsked{})
		if err == nil || !strings.Contains(err.Error(), "wait until it has ended") {
			t.Errorf("export %d beside the first: %v", n, err)
		}
	}
	reading, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if err := d.node.db.View(reading, func(tx isoswitch.Tx) error {
		_, err := tx.Txn(isoswitch.OID{1})
		if errors.Is(err, isoswitch.ErrNotFound) {
			return nil
		}
		return fmt.Errorf("an original that is not there: %w", err)
	}); err != nil {
		t.Error(err)
	}
	stop()
	select {
	case err := <-ended:
		if err != nil || !strings.Contains(stderr.String(), "broken off by the stop") {
			t.Errorf("the stop gave %v:\n%s", err, stderr)
		}
	case <-time.After(otherDrain + 10*time.Second):
		t.Error("the daemon waits for the reader of the export")
		body.Close()
		<-ended
	}
}
