package audit

import (
	"slices"
)

// facts are what other checks need of a stored record.
type facts struct {
	action  Action
	outcome string
	intent  bool
	log     string
	seq     uint64
	id, ref string
	boot    string
	mono    int64
	node    string
	trees   []treeFact
	wal     [3]int64 // dropped, offset, segment
	scrubs  []string
	reason  string
	ts      string
	vkeys   []string
}

// treeFact is an element of trees.
type treeFact struct {
	log, origin, root string
	size              uint64
	first             int64 // -1 when absent
}

// noteString keeps a string that other checks need.
func (p *parser) noteString(f *field, s string) {
	if len(p.path) == 1 {
		switch f.name {
		case "action":
			p.f.action, _ = ParseAction(s)
		case "boot":
			p.f.boot = s
		case "class":
			p.class = s
		case "id":
			p.f.id = s
		case "log":
			p.f.log = s
		case "node":
			p.f.node = s
		case "outcome":
			p.f.outcome = s
		case "phase":
			p.f.intent = s == "intent"
		case "reason":
			p.f.reason = s
		case "ref":
			p.f.ref = s
		case "ts":
			p.f.ts = s
		}
		return
	}
	switch p.path[0] {
	case "scrub":
		if f.name == "field" {
			p.f.scrubs = append(p.f.scrubs, s)
		}
	case "vkeys":
		p.f.vkeys = append(p.f.vkeys, s)
	case "trees":
		t := &p.f.trees[len(p.f.trees)-1]
		switch f.name {
		case "log":
			t.log = s
		case "origin":
			t.origin = s
		case "root":
			t.root = s
		}
	}
}

// noteInt keeps a number that other checks need.
func (p *parser) noteInt(n int64) {
	name := p.path[len(p.path)-1]
	if len(p.path) == 1 {
		switch name {
		case "seq":
			p.f.seq = uint64(n)
		case "mono":
			p.f.mono = n
		case "v":
			p.version = n
		}
		return
	}
	switch p.path[0] {
	case "trees":
		t := &p.f.trees[len(p.f.trees)-1]
		if name == "size" {
			t.size = uint64(n)
		} else {
			t.first = n
		}
	case "wal":
		p.f.wal[slices.Index([]string{"dropped", "offset", "segment"}, name)] = n
	}
}
