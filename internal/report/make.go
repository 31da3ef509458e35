package report

import (
	"context"
	"crypto/x509"
	"fmt"
	"slices"
	"strings"
	"time"

	"keyd.dev/keyd/audit"
)

// Kind is which report is made.
type Kind string

// The reports (section 15 of the log's specification).
const (
	Daily    Kind = "daily"    // what a person reviews each day
	Key      Kind = "key"      // the life of a key
	Ceremony Kind = "ceremony" // the minutes of a ceremony
	Refusals Kind = "refusals" // what was refused, by terminal, merchant and reason
	Access   Kind = "access"   // who came, who was refused, who read the log
	Clock    Kind = "time"     // how right the clock was
)

// Args says what the report is about.
type Args struct {
	Kind    Kind
	Subject string    // of Key: an alias, an ARN or an id; of Ceremony: its id
	From    time.Time // inclusive; zero is open
	To      time.Time // exclusive; zero is open
	Made    time.Time // stands in the head unless zero

	// For Ceremony.
	Certs   []*x509.Certificate // of custodians and witnesses, to check their signatures
	Minutes *Minutes            // from the file of the minutes; may be nil
}

// Make reads the log and makes the report. A log that failed its verification is
// read as far as it can be, and the report says so. Errors: [ErrArgs],
// [ErrNothing] for a key or ceremony that the log does not have, those of
// [audit.Reader]; with [ErrPruned] there is a document, which lacks the records
// that are gone, and with [ErrSignature] one that says which does not verify.
func Make(ctx context.Context, src Source, args Args) (*Document, error) {
	makers := map[Kind]func(context.Context, *book, Args, *Document) error{
		Daily: makeDaily, Key: makeKey, Ceremony: makeCeremony, Refusals: makeRefusals, Access: makeAccess, Clock: makeClock,
	}
	build, ok := makers[args.Kind]
	if !ok {
		return nil, fmt.Errorf("%w: no report is called %q", ErrArgs, args.Kind)
	}
	if !args.From.IsZero() && !args.To.IsZero() && !args.From.Before(args.To) {
		return nil, fmt.Errorf("%w: the range ends before it begins", ErrArgs)
	}
	b, err := newBook(ctx, src, stamp(args.From), stamp(args.To))
	if err != nil {
		return nil, err
	}
	d := &Document{Report: string(args.Kind), Subject: args.Subject, Made: stamp(args.Made), Sections: []Section{}}
	if err := build(ctx, b, args, d); err != nil {
		return nil, err
	}
	if len(d.Logs) == 0 {
		b.finish(d)
	}
	if d.Bad > 0 {
		return d, fmt.Errorf("%w: %d of them", ErrSignature, d.Bad)
	}
	if len(b.pruned) > 0 {
		slices.Sort(b.pruned)
		return d, fmt.Errorf("%w: %s begins behind the beginning of the range", ErrPruned, strings.Join(slices.Compact(b.pruned), ", "))
	}
	return d, nil
}

func stamp(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(recordTime)
}

func makeDaily(ctx context.Context, b *book, args Args, d *Document) error {
	d.Title = "Review of the day"
	eye, no, who, what, node := newAttention(), newRefused(b.bounds()), new(access), new(acts), newMachine(b)
	work := newTimeline(b.bounds())
	err := b.each(ctx, nil, func(r *record) {
		eye.see(r)
		no.see(r)
		who.see(r)
		what.see(r)
		node.see(r)
		if (r.Class == "op" || r.Class == "txn") && !r.intent() && r.Count == nil {
			work.add(r, 1, r.Outcome)
		}
	}, eye.close)
	if err != nil {
		return err
	}
	b.finish(d)
	node.tell(eye)
	behind(d, eye)
	eye.section(d)
	node.alarmSection(d)
	no.reasons(d)
	who.denied(d)
	what.sections(d)
	who.read(d, false)
	who.logins(d)
	node.eventSection(d)
	node.clockSections(d)
	no.exact(d)
	no.top(d, 20)
	work.section(d, "Operations and messages per "+work.unit()+", by outcome", "All records of operations that have an outcome; a message has one record for each of its steps.", "There were no operations.", outcomes[:])
	node.coverage(d)
	node.countSection(d)
	return nil
}

// behind tells of records that the verified checkpoint does not cover.
func behind(d *Document, eye *attention) {
	for _, l := range d.Logs {
		eye.say(warn, "Records of "+l.Log+" that no verified checkpoint covers yet", l.Uncovered, "", "", l.Refs)
	}
}

func makeRefusals(ctx context.Context, b *book, args Args, d *Document) error {
	d.Title = "What was refused"
	no := newRefused(b.bounds())
	if err := b.each(ctx, mayRefuse, no.see, nil); err != nil {
		return err
	}
	b.finish(d)
	no.reversals.section(d, "Refused reversals per "+no.reversals.unit()+", by reason", "Those with a record of their own; floods stand in the exact numbers below.", "No reversal was refused.", nil)
	no.exact(d)
	s := d.section("Refused messages by terminal, merchant and reason", leadTokens, "No message was refused.",
		"Terminal", "Merchant", "What", "Reason", "#Number", "First (UTC)", "Last (UTC)")
	no.places.into(s, no.places.byCount(), true)
	no.top(d, 20)
	no.reasons(d)
	return nil
}

// mayRefuse passes over what was refused for certain not.
func mayRefuse(raw []byte) bool {
	return strings.Contains(string(raw), `"outcome":"refused"`)
}

func makeAccess(ctx context.Context, b *book, args Args, d *Document) error {
	d.Title = "Who had access"
	who := new(access)
	// Access is in the node's own log alone.
	err := b.eachOf(ctx, audit.Sec.String(), nil, who.see, nil)
	if err != nil {
		return err
	}
	b.finish(d)
	who.read(d, true)
	who.denied(d)
	who.origins(d)
	who.logins(d)
	return nil
}

func makeClock(ctx context.Context, b *book, args Args, d *Document) error {
	d.Title = "How right the clock was"
	node := newMachine(b)
	if err := b.each(ctx, nil, node.see, nil); err != nil {
		return err
	}
	b.finish(d)
	node.clockSections(d)
	s := d.section("Records out of order", "Records of the node's own log whose time is a second or more before that of an earlier one, in the whole log; within such a time the order is that of the numbers.", "The times of the node's own log rise throughout.", "What", "#Number")
	if n := node.back.N(); n > 0 {
		s.row(node.back, "time goes back, by "+b.disorder.Round(time.Millisecond).String()+" at most", number(n)).Level = warn
	}
	node.eventSection(d)
	return nil
}
