package logindex

import (
	"encoding/binary"
	"fmt"
	"math/bits"

	"keyd.dev/keyd/audit"
)

func trailing(b byte) int { return bits.TrailingZeros8(b) }

// builder gathers the terms of one block. It is used again for the next.
type builder struct {
	pairs, spare []uint64 // fingerprint << 16 | place
	times        []span
	pace         func() error // nil does not wait
}

// add takes a record of the range.
func (w *builder) add(place int, leaf audit.Hash, record []byte) error {
	put := func(k Kind, value []byte) {
		w.pairs = append(w.pairs, uint64(fingerprint(k, value))<<16|uint64(place))
	}
	at, err := read(record, put)
	if err != nil {
		return err
	}
	put(Leaf, leaf[:])
	if place%bundleSize == 0 {
		w.times = append(w.times, span{at, at})
		return nil
	}
	s := &w.times[len(w.times)-1]
	s.from, s.to = min(s.from, at), max(s.to, at)
	return nil
}

// sort orders the pairs by fingerprint. Places of one stay in order, since they
// came in order and each round keeps it.
func (w *builder) sort() {
	const digit = 11 // bits; three rounds for 32
	if cap(w.spare) < len(w.pairs) {
		w.spare = make([]uint64, len(w.pairs))
	}
	from, to := w.pairs, w.spare[:len(w.pairs)]
	for shift := 16; shift < 48; shift += digit {
		var at [1 << digit]int
		for _, p := range from {
			at[p>>shift&(1<<digit-1)]++
		}
		sum := 0
		for i, n := range at {
			at[i] = sum
			sum += n
		}
		for _, p := range from {
			d := p >> shift & (1<<digit - 1)
			to[at[d]] = p
			at[d]++
		}
		from, to = to, from
	}
	w.pairs, w.spare = from, to
}

// encode makes the file of what was added, and empties the builder.
func (w *builder) encode(log string, block uint32, first, end int, bundles []audit.Hash) []byte {
	w.sort()
	h := head{
		block: block, first: first, end: end, width: min(mostWidth, bits.Len(uint(len(w.pairs)/pageEntries))),
		binding: bindingOf(log, block, first, end, bundles), times: w.times,
	}
	h.pagesBehind = headSize(end-first, h.width)
	pages := make([]byte, 0, len(w.pairs)*5)
	rest := w.pairs
	for page := range 1 << h.width {
		begin := len(pages)
		h.directory = append(h.directory, uint32(begin))
		at := h.lowest(page)
		for len(rest) > 0 && h.pageOf(uint32(rest[0]>>16)) == page {
			fp := uint32(rest[0] >> 16)
			n := 1
			for n < len(rest) && uint32(rest[n]>>16) == fp {
				n++
			}
			pages = appendEntry(pages, fp-at, rest[:n], h.records())
			at, rest = fp, rest[n:]
		}
		pages = binary.LittleEndian.AppendUint32(pages, h.sum(page, pages[begin:]))
	}
	h.directory = append(h.directory, uint32(len(pages)))
	h.length = h.pagesBehind + int64(len(pages))
	w.pairs, w.times = w.pairs[:0], nil
	return append(h.encode(), pages...)
}

// appendEntry writes a term. A record that has it twice counts once.
func appendEntry(b []byte, step uint32, pairs []uint64, records int) []byte {
	list := make([]byte, 0, 16)
	count, before := 0, uint64(0)
	for i, p := range pairs {
		place := p & 0xffff
		if i > 0 && place == before {
			continue
		}
		list = binary.AppendUvarint(list, place-before)
		before = place
		count++
	}
	if count == 1 {
		b = binary.AppendUvarint(b, uint64(step)<<1)
		return binary.LittleEndian.AppendUint16(b, uint16(before))
	}
	if len(list) >= records/8 {
		list = make([]byte, records/8)
		for _, p := range pairs {
			list[p&0xffff/8] |= 1 << (p & 7)
		}
	}
	b = binary.AppendUvarint(b, uint64(step)<<1|1)
	b = binary.AppendUvarint(b, uint64(count))
	b = binary.AppendUvarint(b, uint64(len(list)))
	return append(b, list...)
}

// build makes the file of a range of bundles of a block. Each record is proved,
// so that a file is never of a damaged log.
func (w *builder) build(snap *audit.Snapshot, block uint32, first, end int) ([]byte, error) {
	w.pairs, w.times = w.pairs[:0], nil
	above, err := snap.Hashes(1, uint64(block))
	if err != nil {
		return nil, err
	}
	if len(above) < end {
		return nil, fmt.Errorf("%w: block %d of %s has %d bundles, not %d", ErrConfig, block, snap.Log(), len(above), end)
	}
	for i := first; i < end; i++ {
		n := uint64(block)*blockBundles + uint64(i)
		leaves, err := snap.Hashes(0, n)
		if err != nil {
			return nil, err
		}
		records, err := snap.Bundle(n)
		if err != nil {
			return nil, err
		}
		for j, record := range records {
			seq := n*bundleSize + uint64(j)
			if err := snap.Check(seq, record); err != nil {
				return nil, err
			}
			if err := w.add((i-first)*bundleSize+j, leaves[j], record); err != nil {
				return nil, fmt.Errorf("%s:%d: %w", snap.Log(), seq, err)
			}
		}
		if w.pace != nil {
			if err := w.pace(); err != nil {
				return nil, err
			}
		}
	}
	return w.encode(snap.Log(), block, first, end, above[first:end]), nil
}
