package siem

import (
	"maps"
	"slices"
)

// markEvery is how far marks are apart at least, in bytes, but for the newest.
const markEvery = 64 << 10

// marks say which cursor each number of bytes of a session stands for, in order.
// There are as many as fit between what is settled and what was sent.
type marks struct{ all []mark }

type mark struct {
	offset uint64
	at     cursor
}

// add notes that so many bytes carry everything before a cursor.
func (m *marks) add(offset uint64, at cursor) {
	if n := len(m.all); n > 1 && m.all[n-1].offset-m.all[n-2].offset < markEvery {
		m.all = m.all[:n-1] // between two that are close
	}
	m.all = append(m.all, mark{offset, at.clone()})
}

// upTo is the cursor that so many bytes stand for.
func (m *marks) upTo(offset uint64) (cursor, bool) {
	n, found := slices.BinarySearchFunc(m.all, offset, func(a mark, o uint64) int {
		switch {
		case a.offset < o:
			return -1
		case a.offset > o:
			return 1
		}
		return 0
	})
	if found {
		n++
	}
	if n == 0 {
		return nil, false
	}
	return m.all[n-1].at, true
}

// drop is upTo, and forgets what lies before.
func (m *marks) drop(offset uint64) (cursor, bool) {
	at, ok := m.upTo(offset)
	for ok && len(m.all) > 1 && m.all[1].offset <= offset {
		m.all = m.all[1:]
	}
	return at, ok
}

func same(a, b cursor) bool { return maps.Equal(a, b) }
