package audit

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
)

// hasAction reports whether a stored record is of an action, which is its
// first member.
func hasAction(record []byte, a Action) bool {
	const before = `{"action":"`
	name := a.String()
	return len(record) > len(before)+len(name) && string(record[:len(before)]) == before &&
		string(record[len(before):len(before)+len(name)]) == name && record[len(before)+len(name)] == '"'
}

// stringMember returns a top-level string member of a stored record, which is
// one that this package wrote; "" when it is absent. Nested objects cannot
// mislead it: it looks for the name at depth one only.
func stringMember(record []byte, name string) string {
	depth := 0
	for i := 0; i < len(record); i++ {
		switch record[i] {
		case '{', '[':
			depth++
		case '}', ']':
			depth--
		case '"':
			end := stringEnd(record, i)
			if depth == 1 && string(record[i+1:end]) == name && end+2 < len(record) && record[end+1] == ':' && record[end+2] == '"' {
				start := end + 3
				return string(record[start:stringEnd(record, start-1)])
			}
			i = end
		}
	}
	return ""
}

// stringEnd returns the offset of the quote that ends the string that begins
// with the quote at i; the length of b when there is none.
func stringEnd(b []byte, i int) int {
	for i++; i < len(b); i++ {
		j := bytes.IndexByte(b[i:], '"')
		if j < 0 {
			return len(b)
		}
		i += j
		k := i
		for b[k-1] == '\\' {
			k--
		}
		if (i-k)%2 == 0 {
			return i
		}
	}
	return len(b)
}

// anchorRecord is what a log.checkpoint record of sec says of ops.
type anchorRecord struct {
	shard Shard
	size  uint64
	root  Hash
}

// parseAnchor reads the only tree of a record. The error is [ErrFormat].
func parseAnchor(record []byte) (*anchorRecord, error) {
	var r struct {
		Trees []struct {
			Log  string
			Size uint64
			Root string
		}
	}
	if err := json.Unmarshal(record, &r); err != nil || len(r.Trees) != 1 {
		return nil, fmt.Errorf("%w: record names %d trees, not one", ErrFormat, len(r.Trees))
	}
	shard, err := parseShard(r.Trees[0].Log)
	if err != nil {
		return nil, err
	}
	root, err := base64.StdEncoding.DecodeString(r.Trees[0].Root)
	if err != nil || len(root) != hashSize {
		return nil, fmt.Errorf("%w: record names a root of %d bytes", ErrFormat, len(root))
	}
	return &anchorRecord{shard, r.Trees[0].Size, Hash(root)}, nil
}
