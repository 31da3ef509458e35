package isoswitch

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"keyd.dev/keyd/audit"
)

// Refused reversals are in the log of operations, each by itself or, under a flood,
// in a record that also counts other messages. The log of the node's own affairs
// has their exact number for each client and minute (L-81), so that it can be seen
// there when the month of operations is gone.

const (
	summaryEvery    = time.Minute
	mostSummarized  = 4096 // clients that are counted apart; the rest are "others"
	othersSummaries = "others"
)

// refusedReversals counts them since the last summary. It is safe for concurrent use.
type refusedReversals struct {
	mu     sync.Mutex
	counts map[string]*refusedBy
}

// refusedBy is what one client was refused.
type refusedBy struct {
	from time.Time // of the first that is counted
	by   map[audit.Reason]int64
}

func (c *refusedReversals) add(client string, why audit.Reason, n int64, at time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.counts == nil {
		c.counts = make(map[string]*refusedBy)
	}
	if c.counts[client] == nil && len(c.counts) >= mostSummarized {
		client = othersSummaries
	}
	one := c.counts[client]
	if one == nil {
		one = &refusedBy{from: at, by: make(map[audit.Reason]int64)}
		c.counts[client] = one
	}
	if at.Before(one.from) {
		one.from = at
	}
	one.by[why] += n
}

// take returns the counts as records hold them, by client, and begins anew.
func (c *refusedReversals) take(to time.Time) []audit.Count {
	c.mu.Lock()
	counts := c.counts
	c.counts = nil
	c.mu.Unlock()
	all := make([]audit.Count, 0, len(counts))
	for _, client := range slices.Sorted(maps.Keys(counts)) {
		one := audit.Count{Peer: client, From: counts[client].from, To: to}
		for why, n := range counts[client].by {
			one.N += n
			one.By = append(one.By, audit.CountBy{Reason: why, N: n})
		}
		slices.SortFunc(one.By, func(a, b audit.CountBy) int { return cmp.Compare(a.Reason, b.Reason) })
		all = append(all, one)
	}
	return all
}

// back counts again what could not be recorded.
func (c *refusedReversals) back(count audit.Count) {
	for _, by := range count.By {
		c.add(count.Peer, by.Reason, by.N, count.From)
	}
}

// refusedReversal marks a message that is refused as a reversal: it is counted once
// the record that tells of it is durable.
func (r *request) refusedReversal() { r.summarized = true }

// summarize counts a marked message, once.
func (s *Switch) summarize(r *request, v verdict) {
	if !r.summarized {
		return
	}
	r.summarized = false
	client := r.peer.caller.Name
	if own := r.peer.caller.Terminal; own != "" { // as in records of shared refusals
		client += "/" + own
	}
	s.reversals.add(client, v.reason, 1, s.now())
}

// summaries records once a minute what reversals were refused, until ctx ends.
func (s *Switch) summaries(ctx context.Context) {
	tick := time.NewTicker(summaryEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			s.recordSummaries(ctx)
		}
	}
}

// recordSummaries writes one record for each client. What the log does not take is
// counted in the next.
func (s *Switch) recordSummaries(ctx context.Context) {
	ctx = context.WithoutCancel(ctx)
	for _, count := range s.reversals.take(s.now()) {
		rec := audit.Record{
			Action: audit.ReversalSummary, Outcome: audit.OutcomeRefused,
			Reason: count.By[0].Reason, Count: &count,
		}
		if err := s.custody.Record(ctx, s.self(), "", rec); err != nil {
			s.log.Error("refused reversals could not be summed up in the audit log", "client", count.Peer, "refused", count.N, "error", err)
			s.reversals.back(count)
		}
	}
}
