package audit

import (
	"fmt"
	"time"
)

// Shard is a month of the ops log as year*100+month (202611); zero for sec.
type Shard uint32

func shardOf(t time.Time) Shard {
	y, m, _ := t.UTC().Date()
	return Shard(y*100 + int(m))
}

func (s Shard) valid() bool { return s/100 >= 1 && s/100 <= 9999 && s%100 >= 1 && s%100 <= 12 }

// logName returns "sec" for zero and "ops-yyyy-mm" for a month.
func (s Shard) logName() string {
	if s == 0 {
		return "sec"
	}
	return fmt.Sprintf("ops-%04d-%02d", s/100, s%100)
}

// dir returns the shard's directory below the log's.
func (s Shard) dir() string {
	if s == 0 {
		return "sec"
	}
	return fmt.Sprintf("ops/%04d-%02d", s/100, s%100)
}

// logID returns the log that the shard belongs to.
func (s Shard) logID() LogID {
	if s == 0 {
		return Sec
	}
	return Ops
}

// parseShard reads "sec" or "ops-yyyy-mm". The error is [ErrFormat].
func parseShard(name string) (Shard, error) {
	if name == "sec" {
		return 0, nil
	}
	if len(name) == 11 && name[:4] == "ops-" && name[8] == '-' && all(name[4:8], classDigit, 4, 4) && all(name[9:], classDigit, 2, 2) {
		d := func(i int) Shard { return Shard(name[i] - '0') }
		s := (d(4)*1000+d(5)*100+d(6)*10+d(7))*100 + d(9)*10 + d(10)
		if s.valid() {
			return s, nil
		}
	}
	return 0, fmt.Errorf("%w: log %q; need sec or ops-yyyy-mm", ErrFormat, name)
}

// origin returns the name under which a log is signed.
func origin(site, node string, s Shard) string {
	return "audit." + site + "/" + node + "/" + s.logName()
}

// Pos is the place of a durable record.
type Pos struct {
	Shard Shard
	Seq   uint64
	ID    UUID
}

// Log returns the log that holds the record.
func (p Pos) Log() LogID { return p.Shard.logID() }

// String returns the place as "<log>:<seq>".
func (p Pos) String() string { return fmt.Sprintf("%s:%d", p.Shard.logName(), p.Seq) }
