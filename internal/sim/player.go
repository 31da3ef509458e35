package sim

import (
	"crypto/sha256"
	"encoding/binary"
	"slices"
	"strings"
	"sync"
	"time"

	"keyd.dev/keyd/internal/iso8583"
)

// player is a script at work: it counts. It is safe for concurrent use.
type player struct {
	script  *Script
	started time.Time
	clock   func() time.Time

	mu     sync.Mutex
	counts map[playKey]int
	draws  []uint64 // of each step
}

// playKey is what is counted: a step's messages, or each of them and its repeats.
type playKey struct {
	step           int
	stan, dateTime string
}

func newPlayer(s *Script, clock func() time.Time) *player {
	return &player{script: s, started: clock(), clock: clock, counts: make(map[playKey]int), draws: make([]uint64, len(s.Steps))}
}

// meet returns the first step that fits the message and is not used up, or nil.
func (p *player) meet(m *iso8583.Message) *Step {
	since := p.clock().Sub(p.started)
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := range p.script.Steps {
		s := &p.script.Steps[i]
		if s.fits(m) && s.From <= since && (s.Until == 0 || since < s.Until) && p.turn(i, s, m) {
			return s
		}
	}
	return nil
}

// turn counts a message that fits, and reports whether the step meets it.
func (p *player) turn(i int, s *Step, m *iso8583.Message) bool {
	key := playKey{step: i}
	if s.Each {
		key.stan, key.dateTime = m.Text(11), m.Text(7)
	}
	n := p.counts[key]
	if s.Times > 0 && n >= s.Skip+s.Times {
		return false
	}
	if n < s.Skip {
		p.counts[key]++
		return false
	}
	if s.Chance < certainty && p.draw(i) >= s.Chance {
		return false
	}
	p.counts[key]++
	return true
}

// draw is 0 to certainty-1: the next number of the step, which the seed gives
// again in every run.
func (p *player) draw(step int) int {
	var in [24]byte
	binary.BigEndian.PutUint64(in[:], p.script.Seed)
	binary.BigEndian.PutUint64(in[8:], uint64(step))
	binary.BigEndian.PutUint64(in[16:], p.draws[step])
	p.draws[step]++
	sum := sha256.Sum256(in[:])
	return int(binary.BigEndian.Uint64(sum[:]) % certainty)
}

// fits reports whether a message has what the step asks for.
func (s *Step) fits(m *iso8583.Message) bool {
	mti := string(m.MTI())
	typed := len(s.MTI) == 0 || slices.ContainsFunc(s.MTI, func(want string) bool {
		prefix, any := strings.CutSuffix(want, "x")
		return want == mti || any && strings.HasPrefix(mti, prefix)
	})
	return typed && strings.HasSuffix(m.Text(4), s.Amount) && strings.HasSuffix(m.Text(11), s.STAN) && strings.HasPrefix(m.Text(2), s.BIN) &&
		equalOrAny(s.TID, m.Text(41)) && (s.Reason == "" || m.MTI().Class() == '4' && m.Text(39) == s.Reason) && equalOrAny(s.Network, m.Text(70))
}

func equalOrAny(want, have string) bool { return want == "" || want == have }
