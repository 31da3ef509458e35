package report

import (
	"slices"

	"keyd.dev/keyd/audit"
)

// refused counts what was refused: records of their own, and the exact numbers of
// records that stand for many (L-14, L-81).
type refused struct {
	byReason  tally // action, reason
	shared    tally // client, reason; of refuse.aggregate
	summed    tally // client, reason; of reversal.summary
	own       tally // client, reason; reversal.refuse with a record of its own
	places    tally // terminal, merchant, reason
	terminals tally
	merchants tally
	reversals *timeline
	all       *timeline
}

func newRefused(from, to string) *refused {
	return &refused{reversals: newTimeline(from, to), all: newTimeline(from, to)}
}

// sharedRecord names in tables what stands in records for many.
const sharedRecord = "(in shared records)"

func (f *refused) see(r *record) {
	switch {
	case r.Count != nil && r.is(audit.ReversalSummary):
		for _, by := range r.Count.By {
			f.summed.add(r, by.N, r.Count.Peer, by.Reason)
		}
	case r.Count != nil:
		for _, by := range r.Count.By {
			f.shared.add(r, by.N, r.Count.Peer, by.Reason)
			f.byReason.add(r, by.N, sharedRecord, by.Reason)
			f.all.add(r, by.N, by.Reason)
		}
	case r.refusal():
		f.byReason.add(r, 1, r.Action, r.Reason)
		if r.Class != "txn" {
			return
		}
		f.all.add(r, 1, r.Reason)
		f.places.add(r, 1, orDash(r.ISO.Term), orDash(r.ISO.Merch), r.Action, r.Reason)
		if r.ISO.Term != "" {
			f.terminals.add(r, 1, r.ISO.Term)
		}
		if r.ISO.Merch != "" {
			f.merchants.add(r, 1, r.ISO.Merch)
		}
		if r.is(audit.ReversalRefuse) {
			f.own.add(r, 1, r.Actor.ID, r.Reason)
			f.reversals.add(r, 1, r.Reason)
		}
	}
}

func orDash(s string) string {
	if s == "" {
		return "–"
	}
	return s
}

const (
	leadReasons = "Each record of its own is one refusal; a message whose MAC is wrong has one for the MAC and one for itself. Records that stand for many give the exact number by reason."
	leadTokens  = "Names that begin with k and a number are keyed tokens: those terminals or merchants are not in the register."
)

// reasons is the table by what was refused and why.
func (f *refused) reasons(d *Document) {
	s := d.section("Refusals by reason", leadReasons, "Nothing was refused.", "What", "Reason", "#Number", "First (UTC)", "Last (UTC)")
	f.byReason.into(s, f.byReason.byCount(), true)
	f.all.section(d, "Refused messages and calls per "+f.all.unit()+", by reason", "Messages of terminals, and what shared records count.", "No message was refused.", nil)
}

// top are charts of the places where most was refused.
func (f *refused) top(d *Document, most int) {
	for _, part := range []struct {
		title, column string
		t             *tally
	}{
		{"Terminals with most refused messages", "Terminal", &f.terminals},
		{"Merchants with most refused messages", "Merchant", &f.merchants},
	} {
		s := d.section(part.title, leadTokens, "No refused message names one.", part.column, "#Refused", "First (UTC)", "Last (UTC)")
		lines := part.t.byCount()
		part.t.into(s, lines[:min(most, len(lines))], true)
		s.Chart = bars(part.title, "refused", lines)
	}
}

// exact are the numbers that stand in no record of their own.
func (f *refused) exact(d *Document) {
	s := d.section("Refused reversals by client, exactly",
		"The node's own log has the exact number for each client and minute (reversal.summary). What has no record of its own in the log of operations was refused in a flood, and is counted there in shared records. A minute at the edge of the range may be counted on one side only.",
		"No reversal was refused.", "Client", "Reason", "#By the summaries", "#With a record of its own", "#In shared records")
	both := map[string][2]*tallied{}
	for i, t := range []*tally{&f.summed, &f.own} {
		for _, l := range t.byKey() {
			name := l.key[0] + "\x00" + l.key[1]
			pair := both[name]
			pair[i] = l
			both[name] = pair
		}
	}
	names := make([]string, 0, len(both))
	for name := range both {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		pair := both[name]
		var refs Refs
		var n [2]int64
		var key []string
		for i, l := range pair {
			if l != nil {
				n[i], key = l.n, l.key
				refs.logs = append(refs.logs, l.refs.logs...)
			}
		}
		cells := []string{key[0], key[1], number(n[0]), number(n[1]), number(max(0, n[0]-n[1]))}
		if pair[0] == nil {
			cells[2], cells[4] = "–", "–"
		}
		s.row(refs, cells...)
	}
	t := d.section("Shared records of refusals", "What one client was refused in a tenth of a second, or in a minute, above its rate (refuse.aggregate); messages of all kinds.", "No refusal shared a record.", "Client", "Reason", "#Number", "First (UTC)", "Last (UTC)")
	f.shared.into(t, f.shared.byCount(), true)
}
