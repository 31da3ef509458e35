package store

import (
	"context"
	"fmt"
)

// A row whose state was changed may never be looked for again, and a row that is
// gone cannot be. So all rows that carry a MAC are read in turn.

// Patrolled is what a round over all rows with MACs has found.
type Patrolled struct {
	Rows  int // that were read
	Wrong int // of these, not what keyd wrote; and gaps where rows were taken out
}

// patrolPage is how many rows are read in one snapshot.
const patrolPage = 500

// Patrol reads every row that carries a MAC, page by page, and tells of each that
// keyd did not write, and of each gap between the numbers of the journal's rows.
// After each page it calls pause, which may be nil and whose error ends it.
func (db *DB) Patrol(ctx context.Context, pause func(ctx context.Context, rows int) error) (Patrolled, error) {
	var all Patrolled
	if db.register == nil {
		return all, ErrVisitor
	}
	for _, t := range sealedTables {
		p := patrol{db: db, table: t}
		for more := true; more; {
			rows, wrong, err := p.page(ctx)
			if err != nil {
				return all, fmt.Errorf("store: patrol of %s: %w", t.name, err)
			}
			all.Rows += rows
			all.Wrong += len(wrong)
			for _, w := range wrong {
				db.tellTampered(w)
			}
			if more = rows == patrolPage; pause == nil {
				continue
			}
			if err := pause(ctx, rows); err != nil {
				return all, err
			}
		}
	}
	return all, nil
}

// patrol is on its way through one table.
type patrol struct {
	db    *DB
	table *sealed
	after []any // the primary key of the last row
	last  int64 // its number, where it has one
}

// page reads the next rows.
func (p *patrol) page(ctx context.Context) (rows int, wrong []*TamperedRow, err error) {
	t := p.table
	least := p.db.waters.of(sealID(t, ""))
	err = p.db.view(ctx, func(s *session) error {
		where, args := t.following(p.after)
		values := make([]any, len(t.columns))
		_, err := collect(s, func(r scanner) (struct{}, error) {
			into := make([]any, len(t.columns))
			for i := range t.primary {
				into[i] = &values[i]
			}
			err := s.guard.of(t, r).Scan(into...)
			if w, is := tampered(err); is {
				wrong, err = append(wrong, w), nil
			}
			rows++
			p.after = append([]any(nil), values[:t.primary]...)
			if t.seq {
				wrong = p.gap(wrong)
			}
			return struct{}{}, err
		}, fmt.Sprintf("%s%s LIMIT %d", t.selects(), where, patrolPage), args...)
		return err
	})
	if err == nil && rows < patrolPage && t.seq && p.last < least {
		wrong = append(wrong, missing(t, p.last+1, least))
	}
	return rows, wrong, err
}

// gap adds what is missing between the last row and this one.
func (p *patrol) gap(wrong []*TamperedRow) []*TamperedRow {
	seq, _ := p.after[0].(int64)
	if seq > p.last+1 {
		wrong = append(wrong, missing(p.table, p.last+1, seq-1))
	}
	p.last = seq
	return wrong
}

func missing(t *sealed, from, to int64) *TamperedRow {
	name := fmt.Sprint(from)
	if to > from {
		name = fmt.Sprintf("%d-%d", from, to)
	}
	return &TamperedRow{Table: t.name, Name: name, why: "was taken out of the database"}
}
