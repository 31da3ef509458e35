package store

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"strings"
	"time"
)

// Which journal this is stands in a registered row, so that the token knows it:
// its random id, by which the key of its rows' MACs is its own, and since when
// each of its rows has one. So nobody can make a journal begin anew by emptying
// that column.

// journal is that row.
type journal struct {
	id     [16]byte
	sealed time.Time // zero until it was recorded that rows of before got their MACs
	ended  bool      // the last daemon ended in order, and left exactly this:
	tide
}

// tide is how far a journal has come. All of it only rises.
type tide struct {
	txns, reversals int64 // the highest seq
	marks           int64 // devices that have a mark
	counted         int64 // the sum of all marks and counters
}

const journalName = "journal"

func readJournal(r scanner) (j journal, err error) {
	var name string
	var id []byte
	err = r.Scan(&name, &id, instant{&j.sealed}, &j.ended, &j.txns, &j.reversals, &j.marks, &j.counted)
	copy(j.id[:], id)
	return j, err
}

func (j journal) values() []any {
	return []any{j.id[:], nanos(j.sealed), j.ended, j.txns, j.reversals, j.marks, j.counted}
}

// Sealing is what opening a database did to rows that had no MAC.
type Sealing struct {
	Rows     int // that got one
	Database [16]byte
	needed   bool
}

// Sum is a digest of it, for records.
func (s Sealing) Sum() [32]byte {
	return sha256.Sum256(fmt.Appendf(nil, "keyd journal sealed 1\n%x\n%d\n", s.Database, s.Rows))
}

// openJournal finds out which journal it is, makes the sealer of its rows, and
// compares how far it has come with what the token knows of.
func (db *DB) openJournal(ctx context.Context, cfg Config) error {
	j, err := db.journal(ctx)
	switch {
	case noRows(err):
		if _, err := rand.Read(j.id[:]); err != nil {
			return fmt.Errorf("store: the id of the journal: %w", err)
		}
		err = db.Change(ctx, nil, func(ch *Change) error { return ch.insert(journalTable, journalName, j.values(), nil) })
	case err == nil && !cfg.Adopt:
		err = db.comparedTide(ctx, j)
	}
	if err != nil {
		return fmt.Errorf("store: the journal of %s: %w", cfg.Path, err)
	}
	sealer, err := cfg.Sealer(j.id)
	if err != nil {
		return fmt.Errorf("store: the key of the journal's rows: %w", err)
	}
	db.sealing = Sealing{Database: j.id, needed: j.sealed.IsZero()}
	db.writer.session.guard.sealer = sealer
	for range cap(db.readers) {
		reader := <-db.readers
		reader.guard.sealer = sealer
		db.readers <- reader
	}
	return nil
}

// journal reads the registered row.
func (db *DB) journal(ctx context.Context) (j journal, err error) {
	err = db.readRegistered(ctx, func(s *session, g reading) error {
		j, err = one(g, s, journalTable, journalName, readJournal)
		return err
	})
	return j, err
}

// sealPage is how many rows are given their MACs in one commit.
const sealPage = 1000

// sealOld gives rows of before their MACs: at the first start after the upgrade
// that brought them, and after a restore. Interrupted, it goes on at the next.
func (db *DB) sealOld(ctx context.Context) error {
	if !db.sealing.needed {
		return nil
	}
	for _, t := range sealedTables {
		var after []any
		for more := true; more; {
			var page [][]any
			err := db.view(ctx, func(s *session) (err error) {
				page, err = s.sealPage(t, after)
				return err
			})
			if more = len(page) == sealPage; len(page) > 0 && err == nil {
				after = page[len(page)-1][:t.primary]
				err = db.update(ctx, func(s *session) error { return db.sealRows(s, t, page) })
			}
			if err != nil {
				return fmt.Errorf("store: give the rows of %s their MACs: %w", t.name, err)
			}
		}
	}
	if db.sealing.Rows == 0 { // nothing to be recorded
		return db.SealingRecorded(ctx)
	}
	return nil
}

// sealPage reads the rows behind a primary key, with their MACs.
func (s *session) sealPage(t *sealed, after []any) ([][]any, error) {
	where, args := t.following(after)
	return collect(s, func(r scanner) ([]any, error) {
		values := make([]any, len(t.columns)+1)
		into := make([]any, len(values))
		for i := range values {
			into[i] = &values[i]
		}
		return values, r.Scan(into...)
	}, fmt.Sprintf("%s%s LIMIT %d", t.selects(), where, sealPage), args...)
}

// sealRows gives those of the rows that have no MAC theirs. Nobody else writes yet.
func (db *DB) sealRows(s *session, t *sealed, rows [][]any) error {
	set := "UPDATE " + t.name + " SET row_mac = ? WHERE " + strings.Join(t.names()[:t.primary], " = ? AND ") + " = ?"
	for _, values := range rows {
		if mac, _ := values[len(t.columns)].([]byte); len(mac) > 0 {
			continue
		}
		if err := s.guard.seal(t, values[:len(t.columns)]); err != nil {
			return err
		}
		if _, err := s.exec(set, append([]any{s.guard.mac[:]}, values[:t.primary]...)...); err != nil {
			return err
		}
		db.sealing.Rows++
	}
	return nil
}

// Sealing returns what opening the database did to rows that had no MAC, and
// whether that is still to be recorded.
func (db *DB) Sealing() (s Sealing, unrecorded bool) { return db.sealing, db.sealing.needed }

// SealingRecorded is called once the audit log has what [DB.Sealing] says. From
// then on a row without a MAC is a changed one.
func (db *DB) SealingRecorded(ctx context.Context) error {
	err := db.changeJournal(ctx, func(j *journal) error {
		j.sealed = time.Now()
		return nil
	})
	if err != nil {
		return fmt.Errorf("store: the journal's rows have their MACs: %w", err)
	}
	db.sealing.needed = false
	return nil
}

func (db *DB) changeJournal(ctx context.Context, fn func(*journal) error) error {
	return db.Change(ctx, nil, func(ch *Change) error {
		j, err := find(ch, journalTable, journalName, readJournal)
		if err == nil {
			err = fn(&j)
		}
		if err != nil {
			return err
		}
		return ch.update(journalTable, journalName, j.values(), nil)
	})
}

// readTide reads how far the journal has come.
func (s *session) readTide() (t tide, err error) {
	err = s.query(`SELECT (SELECT ifnull(max(seq), 0) FROM txn), (SELECT ifnull(max(seq), 0) FROM reversal),
		(SELECT count(*) FROM ksn) + (SELECT count(*) FROM ksn_mark),
		(SELECT ifnull(sum(counter), 0) FROM ksn) + (SELECT ifnull(sum(counter), 0) FROM ksn_mark) + (SELECT ifnull(sum(value), 0) FROM counter)`).
		Scan(&t.txns, &t.reversals, &t.marks, &t.counted)
	return t, err
}

// comparedTide returns [ErrRegister] for a journal that has fallen behind what
// the token knows of, or that has changed since it was ended in order.
func (db *DB) comparedTide(ctx context.Context, j journal) error {
	var now tide
	err := db.read(ctx, func(s *session) (err error) {
		now, err = s.readTide()
		return err
	})
	switch {
	case err != nil:
		return err
	case j.ended && now != j.tide,
		now.txns < j.txns, now.reversals < j.reversals, now.marks < j.marks, now.counted < j.counted:
		return fmt.Errorf("%w: its journal and marks hold %s, and held %s when keyd last noted it", ErrRegister, now, j.tide)
	}
	return nil
}

// String says it in words.
func (t tide) String() string {
	return fmt.Sprintf("originals up to %d, reversals up to %d, %d devices, counters that add up to %d", t.txns, t.reversals, t.marks, t.counted)
}

// noteTide notes how far the journal has come, in a change of registered rows.
func (db *DB) noteTide(ch *Change, ended bool) error {
	j, err := find(ch, journalTable, journalName, readJournal)
	if err != nil {
		return err
	}
	if j.tide, err = ch.s.readTide(); err != nil {
		return err
	}
	j.ended = ended
	return ch.update(journalTable, journalName, j.values(), nil)
}

// ebbTime bounds how long the end waits for the token.
const ebbTime = 3 * time.Second

// ebb notes at the end how far the journal has come. Where the token is away it
// is not noted, and the next start compares with what was noted before.
func (db *DB) ebb() {
	if !db.served {
		return
	}
	db.ending.Lock() // waits for those who write
	defer db.ending.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), ebbTime)
	defer cancel()
	_ = db.Change(ctx, nil, func(ch *Change) error { return db.noteTide(ch, true) })
}
