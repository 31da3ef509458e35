package api

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"keyd.dev/keyd/audit"
	"keyd.dev/keyd/internal/custody"
)

// mostPeers bounds the peers that are counted apart; the rest are "others".
const mostPeers = 256

// tally counts what was refused, by peer and reason, where one record each would
// let a flood fill the log (L-14).
type tally struct {
	mu     sync.Mutex
	from   time.Time // of the first that is counted
	counts map[string]map[audit.Reason]int64
	clock  func() time.Time
}

func (t *tally) add(peer string, why audit.Reason) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.counts == nil {
		t.from, t.counts = t.clock(), make(map[string]map[audit.Reason]int64)
	}
	if t.counts[peer] == nil {
		if len(t.counts) >= mostPeers {
			peer = "others"
		}
		if t.counts[peer] == nil {
			t.counts[peer] = make(map[audit.Reason]int64)
		}
	}
	t.counts[peer][why]++
}

// take returns the counts as records hold them, and begins anew.
func (t *tally) take() []audit.Count {
	t.mu.Lock()
	counts, from := t.counts, t.from
	t.counts = nil
	t.mu.Unlock()
	to := t.clock()
	all := make([]audit.Count, 0, len(counts))
	for _, peer := range slices.Sorted(maps.Keys(counts)) {
		one := audit.Count{Peer: peer, From: from, To: to}
		for why, n := range counts[peer] {
			one.N += n
			one.By = append(one.By, audit.CountBy{Reason: why, N: n})
		}
		slices.SortFunc(one.By, func(a, b audit.CountBy) int { return cmp.Compare(a.Reason, b.Reason) })
		all = append(all, one)
	}
	return all
}

// Report records what was refused for its number since the last report: one
// record for each client, or address without one, with exact counts by reason
// (L-14). It is to be called once a minute, and once more when the server has
// ended.
func (h *Handler) Report(ctx context.Context) error {
	self := custody.Caller{Client: custody.Client{Name: "keyd"}, Kind: audit.ActorSystem}
	for _, count := range h.tally.take() {
		err := h.custody.Record(ctx, self, "", audit.Record{
			Action:  audit.RefuseAggregate,
			Outcome: audit.OutcomeRefused,
			Reason:  count.By[0].Reason,
			Count:   &count,
		})
		if err != nil {
			return err
		}
	}
	return nil
}
