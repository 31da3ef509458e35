package logindex

import (
	"context"
	"fmt"
	"iter"
	"math"
	"math/bits"
	"slices"

	"keyd.dev/keyd/audit"
)

// Query says which records to find: those that have, of each element of All, at
// least one term, and likewise of each element of one of Either, if there are
// any; and whose time is not before From and before To.
type Query struct {
	All      [][]Term
	Either   [][][]Term
	From, To int64 // microseconds since 1970; 0 is no bound
}

// The bounds of a query.
const (
	mostClauses = 64
	mostEither  = 1024
)

// Hit is a record that was found.
type Hit struct {
	Log  string
	Seq  uint64
	Time int64  // microseconds since 1970
	Raw  []byte // as it is stored
	// Covered: the record was proved under the snapshot's checkpoint. Without it
	// the record is durable and not checkpointed yet.
	Covered bool
}

// Find yields what fits of one log, newest first, also what no checkpoint covers
// yet. After an error it ends. Errors: [ErrConfig]; those of the log, of which
// [audit.ErrCorrupt] says that a record is not what was logged.
func (x *Index) Find(ctx context.Context, snap *audit.Snapshot, q Query) iter.Seq2[Hit, error] {
	return func(yield func(Hit, error) bool) {
		f, err := newFinder(ctx, x, snap, q)
		if err != nil {
			yield(Hit{}, err)
			return
		}
		for _, step := range []func(func(Hit) bool) (bool, error){f.tail, f.covered} {
			more, err := step(func(h Hit) bool { return yield(h, nil) })
			if err != nil {
				yield(Hit{}, err)
			}
			if err != nil || !more {
				return
			}
		}
	}
}

// Fits compares one record with the query. The error is [ErrFormat].
func (q Query) Fits(record []byte) (bool, error) {
	f, err := newFinder(context.Background(), nil, nil, q)
	if err != nil {
		return false, err
	}
	_, ok, err := f.fits(record, func() audit.Hash { return audit.LeafHash(record) })
	return ok, err
}

// finder is one search in one log. Its steps report whether to go on.
type finder struct {
	ctx     context.Context
	index   *Index
	snap    *audit.Snapshot
	all     [][]Term
	either  [][][]Term
	times   span
	leaf    bool           // a term is the hash of a leaf
	of      map[Term][]int // the clauses that a term fulfils: those of all, then those of either
	clauses int            // how many there are
}

func newFinder(ctx context.Context, x *Index, snap *audit.Snapshot, q Query) (*finder, error) {
	if len(q.Either) > mostEither {
		return nil, fmt.Errorf("%w: a query has %d alternatives, at most %d", ErrConfig, len(q.Either), mostEither)
	}
	f := &finder{ctx: ctx, index: x, snap: snap, all: q.All, either: q.Either, times: span{q.From, q.To}, of: make(map[Term][]int)}
	if q.To == 0 {
		f.times.to = math.MaxInt64
	}
	for _, clauses := range append([][][]Term{q.All}, q.Either...) {
		if err := f.know(clauses); err != nil {
			return nil, err
		}
	}
	return f, nil
}

// know adds clauses to those that a record is compared with.
func (f *finder) know(clauses [][]Term) error {
	if len(clauses) > mostClauses || slices.ContainsFunc(clauses, func(any []Term) bool { return len(any) == 0 }) {
		return fmt.Errorf("%w: a query has %d parts, at most %d, and none may be empty", ErrConfig, len(clauses), mostClauses)
	}
	for _, any := range clauses {
		for _, t := range any {
			f.of[t] = append(f.of[t], f.clauses)
			f.leaf = f.leaf || t.Kind == Leaf
		}
		f.clauses++
	}
	return nil
}

// fits compares a record with the query.
func (f *finder) fits(record []byte, leaf func() audit.Hash) (at int64, ok bool, err error) {
	seen := make([]bool, f.clauses)
	visit := func(k Kind, value []byte) {
		for _, clause := range f.of[Term{k, string(value)}] {
			seen[clause] = true
		}
	}
	if at, err = read(record, visit); err != nil {
		return 0, false, err
	}
	if at < f.times.from || at >= f.times.to {
		return at, false, nil
	}
	if f.leaf {
		h := leaf()
		visit(Leaf, h[:])
	}
	return at, f.satisfied(seen), nil
}

// satisfied reports whether the clauses that were seen are enough.
func (f *finder) satisfied(rest []bool) bool {
	whole := func(clauses [][]Term) bool {
		own := rest[:len(clauses)]
		rest = rest[len(clauses):]
		return !slices.Contains(own, false)
	}
	return whole(f.all) && (len(f.either) == 0 || slices.ContainsFunc(f.either, whole))
}

// tail looks at what no checkpoint covers.
func (f *finder) tail(yield func(Hit) bool) (bool, error) {
	var hits []Hit
	tail, err := f.index.tailOf(f.snap)
	if err != nil {
		return false, err
	}
	for _, e := range tail {
		at, ok, err := f.fits(e.Raw, func() audit.Hash { return audit.LeafHash(e.Raw) })
		if err != nil {
			return false, fmt.Errorf("%s:%d: %w", e.Log, e.Seq, err)
		}
		if ok {
			hits = append(hits, Hit{Log: e.Log, Seq: e.Seq, Time: at, Raw: e.Raw})
		}
	}
	for _, h := range slices.Backward(hits) {
		if !yield(h) {
			return false, nil
		}
	}
	return true, nil
}

// covered looks at what the checkpoint covers.
func (f *finder) covered(yield func(Hit) bool) (bool, error) {
	for hits, err := range ordered(f.shares(), readAhead, f.read) {
		if err != nil {
			return false, err
		}
		for _, h := range hits {
			if !yield(h) {
				return false, nil
			}
		}
	}
	return true, nil
}

// candidates returns the places of a block that the file gives.
func (f *finder) candidates(b *block) ([]uint16, error) {
	places, err := allOf(b, f.all)
	if err != nil {
		return nil, err
	}
	if len(f.either) > 0 {
		var some marks
		for _, clauses := range f.either {
			more, err := allOf(b, clauses)
			if err != nil {
				return nil, err
			}
			some.add(more)
		}
		places = both(places, some.places())
	}
	return slices.DeleteFunc(places, func(p uint16) bool { return !b.times[p/bundleSize].meets(f.times.from, f.times.to) }), nil
}

// allOf returns the places of a block that fulfil each clause by the file: all of
// them where there is no clause.
func allOf(b *block, clauses [][]Term) ([]uint16, error) {
	var places []uint16
	for i, any := range clauses {
		some, err := anyOf(b, any)
		if err != nil {
			return nil, err
		}
		if i > 0 {
			some = both(places, some)
		}
		if places = some; len(places) == 0 {
			return nil, nil
		}
	}
	if len(clauses) == 0 {
		for i := range b.records() {
			places = append(places, uint16(i))
		}
	}
	return places, nil
}

// anyOf returns the places of a block that have one of the terms by the file.
func anyOf(b *block, any []Term) ([]uint16, error) {
	if len(any) == 1 {
		return b.postings(fingerprint(any[0].Kind, []byte(any[0].Value)))
	}
	var some marks
	for _, t := range any {
		more, err := b.postings(fingerprint(t.Kind, []byte(t.Value)))
		if err != nil {
			return nil, err
		}
		some.add(more)
	}
	return some.places(), nil
}

// marks is a set of the places of a block, a bit for each.
type marks [blockSize / 64]uint64

func (m *marks) add(places []uint16) {
	for _, p := range places {
		m[p/64] |= 1 << (p % 64)
	}
}

// places returns the set in order.
func (m *marks) places() []uint16 {
	var all []uint16
	for i, word := range m {
		for ; word != 0; word &= word - 1 {
			all = append(all, uint16(i*64+bits.TrailingZeros64(word)))
		}
	}
	return all
}

// both returns what two ordered lists have in common.
func both(a, b []uint16) []uint16 {
	out := a[:0]
	for len(a) > 0 && len(b) > 0 {
		switch {
		case a[0] < b[0]:
			a = a[1:]
		case a[0] > b[0]:
			b = b[1:]
		default:
			out = append(out, a[0])
			a, b = a[1:], b[1:]
		}
	}
	return out
}
