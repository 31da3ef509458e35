package audit

import "fmt"

// First returns the index of the first record that a log's directory still has:
// 0, unless older ones were pruned. Errors: [ErrNotFound], [ErrFormat].
func (r *Reader) First(log string) (uint64, error) {
	shard, err := parseShard(log)
	if err != nil {
		return 0, err
	}
	m, err := r.manifest()
	if err != nil {
		return 0, err
	}
	l := m.find(shard)
	if l == nil {
		return 0, fmt.Errorf("%w: log %s", ErrNotFound, log)
	}
	return l.MinIndex, nil
}
