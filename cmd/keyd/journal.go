package main

import (
	"context"
	"fmt"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"keyd.dev/keyd/audit"
	"keyd.dev/keyd/internal/custody"
	"keyd.dev/keyd/internal/store"
)

// alarmJournal: a row of the journal, of the queue, a KSN mark or a counter is
// not the one that keyd wrote, or is gone.
const alarmJournal = "journal_row"

// rowSealer gives what makes the MACs of the database's rows.
func (n *node) rowSealer(database [16]byte) (store.Sealer, error) {
	return custody.NewRowSealer(n.token, database)
}

// recordSealing says in the log that rows of before got their MACs: until then
// somebody could have written them, and nobody would know.
func (n *node) recordSealing(ctx context.Context) error {
	done, unrecorded := n.db.Sealing()
	if !unrecorded {
		return nil
	}
	n.log.Warn("rows of the journal that had no MAC have one now", "rows", done.Rows)
	r := localRecord(os.Getuid())
	r.Action, r.Outcome = audit.AdminExecute, audit.OutcomeOK
	r.Corr = fmt.Sprintf("journal/sealed/%d", done.Rows)
	r.Change = &audit.Change{Kind: audit.ChangeConfig, Object: "journal", After: done.Sum()}
	if err := n.record(ctx, r); err != nil {
		return err
	}
	return n.db.SealingRecorded(ctx)
}

// journalObject names a row of the journal in a record: a device in groups, as
// a run of 16 hexadecimal digits may be taken for a key.
func journalObject(s store.Suspicion) string {
	var parts []string
	for _, part := range strings.Split(s.Name, "/") {
		if len(part) < 13 {
			parts = append(parts, part)
			continue
		}
		var groups []string
		for len(part) > 4 {
			groups, part = append(groups, part[:4]), part[4:]
		}
		parts = append(parts, strings.Join(append(groups, part), "_"))
	}
	name := s.Kind + "/" + strings.Join(parts, "/")
	return name[:min(len(name), 100)]
}

// patrol reads all rows that carry a MAC, again and again.
type patrol struct {
	rows     atomic.Int64 // read since the start
	finished atomic.Int64 // when the last round ended, in Unix seconds
}

const (
	patrolEvery = time.Hour // from the end of a round to the next
	// patrolPause lies between two pages of 500 rows: a million rows take less
	// than ten minutes and a small part of one core.
	patrolPause = 250 * time.Millisecond
)

// patrolJournal ends with ctx.
func (n *node) patrolJournal(ctx context.Context) {
	for ctx.Err() == nil {
		found, err := n.db.Patrol(ctx, func(ctx context.Context, rows int) error {
			n.metrics.patrol.rows.Add(int64(rows))
			return pauseFor(ctx, patrolPause)
		})
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			n.log.Error("the rows of the journal were not all compared with their MACs", "err", err)
		default:
			n.metrics.patrol.finished.Store(time.Now().Unix())
			if found.Wrong > 0 {
				n.log.Error("rows of the journal are not what keyd wrote", "rows", found.Rows, "wrong", found.Wrong)
			}
		}
		if pauseFor(ctx, patrolEvery) != nil {
			return
		}
	}
}

func pauseFor(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// watchPatrol shows how far the comparing of rows has come.
func (m *metrics) watchPatrol() {
	var (
		rows     = describe("keyd_journal_compared_rows_total", "Rows of the journal, marks and counters that were compared with their MACs in rounds over all of them.")
		finished = describe("keyd_journal_compared_timestamp_seconds", "When the last round over all rows ended; 0 before the first has.")
	)
	m.registry.MustRegister(asked{[]*prometheus.Desc{rows, finished}, func(_ context.Context, ch chan<- prometheus.Metric) {
		ch <- counterOf(rows, float64(m.patrol.rows.Load()))
		ch <- gaugeOf(finished, float64(m.patrol.finished.Load()))
	}})
}
