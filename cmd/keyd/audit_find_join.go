package main

import (
	"context"
	"slices"
	"strconv"
	"strings"
	"time"

	"keyd.dev/keyd/internal/logindex"
)

// What belongs together is shown together: an act's beginning and its end, a
// sale and its reversal. The newest rows alone are joined, since a search for
// many records is not one for the story of each.
const (
	mostJoined = 100
	// A reversal follows its sale, and a STAN comes again, so that only what is
	// this near in time belongs together.
	joinSpan = 31 * 24 * time.Hour
)

// join adds what belongs to the newest rows, which are in order of time.
func (f *findReport) join(ctx context.Context, s *logSearch) error {
	have := make(map[string]bool)
	for i := range f.rows {
		have[f.rows[i].record.place()] = true
	}
	newest := slices.Clone(f.rows[max(0, len(f.rows)-mostJoined):])
	if err := f.joinEnds(ctx, s, newest, have); err != nil {
		return err
	}
	return f.joinReversals(ctx, s, newest, have)
}

// place is a record as LOG:SEQ.
func (r *found) place() string { return r.Log + ":" + strconv.FormatUint(r.Seq, 10) }

// joinEnds adds the end of an act whose beginning was found, and its beginning
// where the end was.
func (f *findReport) joinEnds(ctx context.Context, s *logSearch, rows []findRow, have map[string]bool) error {
	var wanted []logindex.Term
	of := make(map[string]string) // id of the intent to the record that was found
	ids, refs := make(map[string]bool), make(map[string]bool)
	for i := range rows {
		ids[rows[i].record.ID] = true
		refs[rows[i].record.Ref] = true
	}
	for i := range rows {
		switch r := &rows[i].record; {
		case r.Phase == "intent" && !refs[r.ID]:
			wanted = append(wanted, logindex.Term{Kind: logindex.Ref, Value: stored(r.ID)})
			of[r.ID] = r.place()
		case r.Ref != "" && !ids[r.Ref] && of[r.Ref] == "":
			wanted = append(wanted, logindex.Term{Kind: logindex.ID, Value: stored(r.Ref)})
			of[r.Ref] = r.place()
		}
	}
	if len(wanted) == 0 {
		return nil
	}
	missing := len(wanted)
	for r, err := range s.records(ctx, nil, logindex.Query{All: [][]logindex.Term{wanted}}) {
		if err != nil {
			return err
		}
		if at := r.place(); !have[at] {
			have[at] = true
			with := of[r.Ref]
			if with == "" {
				with = of[r.ID]
			}
			f.rows = append(f.rows, findRow{record: *r, joined: with})
		}
		if missing--; missing == 0 {
			break
		}
	}
	return nil
}

// saleFamily is a sale with its reversals: they share the terminal and the STAN, which
// a reversal names as that of its original.
type saleFamily struct{ terminal, stan string }

// families are those that a record belongs to.
func (r *found) families() []saleFamily {
	if r.ISO.Term == "" || !strings.HasPrefix(r.Action, "sale.") && !strings.HasPrefix(r.Action, "reversal.") {
		return nil
	}
	var all []saleFamily
	// A reversal has a STAN of its own, which is not that of a sale.
	if stan := r.ISO.STAN; stan != "" && (r.ISO.Orig.STAN == "" || !strings.HasPrefix(r.ISO.MTI, "04")) {
		all = append(all, saleFamily{r.ISO.Term, stan})
	}
	if stan := r.ISO.Orig.STAN; stan != "" {
		all = append(all, saleFamily{r.ISO.Term, stan})
	}
	return all
}

// joinReversals adds the reversals of sales, and the sales of reversals.
func (f *findReport) joinReversals(ctx context.Context, s *logSearch, rows []findRow, have map[string]bool) error {
	of := make(map[saleFamily]*found)
	var either [][][]logindex.Term
	var first, last time.Time
	for i := range rows {
		r := &rows[i].record
		for _, fam := range r.families() {
			if of[fam] != nil {
				continue
			}
			of[fam] = r
			stan := stored(fam.stan)
			either = append(either, [][]logindex.Term{
				{{Kind: logindex.Terminal, Value: stored(fam.terminal)}},
				{{Kind: logindex.STAN, Value: stan}, {Kind: logindex.Original, Value: stan}},
			})
		}
		at, err := time.Parse(recordTime, r.Time)
		if err != nil {
			return err
		}
		if first.IsZero() || at.Before(first) {
			first = at
		}
		if at.After(last) {
			last = at
		}
	}
	if len(of) == 0 {
		return nil
	}
	q := logindex.Query{
		Either: either,
		From:   first.Add(-joinSpan).UnixMicro(), To: last.Add(joinSpan).UnixMicro(),
	}
	for r, err := range s.records(ctx, func(log string) bool { return !isSec(log) }, q) {
		if err != nil {
			return err
		}
		for _, fam := range r.families() {
			with := of[fam]
			if at := r.place(); with != nil && !have[at] && near(with.Time, r.Time) {
				have[at] = true
				f.rows = append(f.rows, findRow{record: *r, joined: with.place()})
			}
		}
	}
	return nil
}

// near reports whether two records may be of one sale.
func near(a, b string) bool {
	from, err := time.Parse(recordTime, a)
	if err != nil {
		return false
	}
	to, err := time.Parse(recordTime, b)
	return err == nil && from.Sub(to).Abs() <= joinSpan
}
