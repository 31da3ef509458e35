package report

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"

	"keyd.dev/keyd/audit"
)

// names follows the names of keys through the node's own log: an alias stands for
// all keys that it has named.
type names struct {
	alias string   // that was asked for, or ""
	ids   []string // keys that the report is about, as they came
	named map[string]string
}

func newNames(subject string) (*names, error) {
	name := subject
	if strings.HasPrefix(name, "arn:") {
		name = name[strings.LastIndexByte(name, ':')+1:]
	}
	n := &names{named: make(map[string]string)}
	if strings.HasPrefix(name, "alias/") {
		n.alias = name
		return n, nil
	}
	id := strings.TrimPrefix(name, "key/")
	if id == "" || strings.Trim(id, "0123456789abcdefghijklmnopqrstuvwxyz") != "" {
		return nil, fmt.Errorf("%w: %q is neither an alias (alias/…) nor an ARN nor the id of a key", ErrArgs, subject)
	}
	n.ids = []string{id}
	return n, nil
}

func (n *names) give(alias, id string) {
	n.named[alias] = id
	if alias == n.alias && !slices.Contains(n.ids, id) {
		n.ids = append(n.ids, id)
	}
}

// follow reads what a record says of names, and reports whether it is about a key
// of the report, before or after it.
func (n *names) follow(r *record) bool {
	ours := slices.ContainsFunc(r.Keys, func(k key) bool { return slices.Contains(n.ids, k.ID) })
	object := r.object()
	if r.Outcome == audit.OutcomeOK.String() && len(r.Keys) > 0 {
		first := r.Keys[0].ID
		own, isNamed := strings.CutPrefix(object, first+"/")
		switch {
		case r.is(audit.KeyRotate) && len(r.Keys) == 2:
			for alias, id := range n.named {
				if id == first {
					n.give(alias, r.Keys[1].ID)
				}
			}
		case r.is(audit.KeyAttr) && strings.HasPrefix(object, "alias/"):
			ours = ours || slices.Contains(n.ids, n.named[object])
			if strings.HasPrefix(first, "alias/") {
				delete(n.named, object)
			} else {
				n.give(object, first)
			}
		case isNamed && strings.HasPrefix(own, "alias/"):
			n.give(own, first)
		}
		ours = ours || slices.ContainsFunc(r.Keys, func(k key) bool { return slices.Contains(n.ids, k.ID) })
	}
	return ours || n.mentions(object)
}

func (n *names) mentions(object string) bool {
	if n.alias != "" && (object == n.alias || strings.HasSuffix(object, "/"+n.alias)) {
		return true
	}
	return slices.ContainsFunc(n.ids, func(id string) bool { return strings.Contains(object, id) })
}

// keyStory is what the report of a key is made of.
type keyStory struct {
	names   *names
	ours    map[uint64]bool // records of sec about it
	life    []*record
	asked   map[string]bool   // references of requests for approval
	refs    map[string]string // id of a record of a decision to its reference
	decided []*record
	facts   map[string]*record // the newest record that describes a key
	uses    tally
	refused tally
	days    *timeline
	first   string
	last    string
}

func makeKey(ctx context.Context, b *book, args Args, d *Document) error {
	d.Title = "The life of a key"
	n, err := newNames(args.Subject)
	if err != nil {
		return err
	}
	k := &keyStory{names: n, ours: make(map[uint64]bool), asked: make(map[string]bool), refs: make(map[string]string), facts: make(map[string]*record)}
	if err := k.learn(ctx, b); err != nil {
		return err
	}
	if err := b.eachOf(ctx, audit.Sec.String(), nil, k.sec, nil); err != nil {
		return err
	}
	if err := k.used(ctx, b); err != nil {
		return err
	}
	if len(k.life)+len(k.uses.lines) == 0 {
		return fmt.Errorf("%w: key %s", ErrNothing, args.Subject)
	}
	b.finish(d)
	k.sections(d)
	return nil
}

// learn goes over the whole of sec twice: which keys the name has stood for, then
// which records are about them.
func (k *keyStory) learn(ctx context.Context, b *book) error {
	for range 2 {
		k.names.named = make(map[string]string)
		for e, err := range b.src.Reader.Records(audit.Sec.String(), 0) {
			if err != nil {
				if err := b.unread(err); err != nil {
					return err
				}
				break
			}
			if e.Seq%1024 == 0 && ctx.Err() != nil {
				return ctx.Err()
			}
			if !bytes.Contains(e.Raw, []byte(`"keys":[`)) && !bytes.Contains(e.Raw, []byte(`"kind":"key"`)) {
				continue
			}
			r, err := parse(e)
			if err != nil {
				continue
			}
			k.ours[e.Seq] = k.names.follow(r)
		}
	}
	return nil
}

// sec takes a record of the node's own log.
func (k *keyStory) sec(r *record) {
	if strings.HasPrefix(r.Action, "admin.") {
		k.decided = append(k.decided, r)
		k.refs[r.ID] = reference(r)
	}
	if !k.ours[r.Seq] {
		return
	}
	for _, one := range r.Keys {
		if slices.Contains(k.names.ids, one.ID) && one.Usage != "" && !r.intent() {
			k.facts[one.ID] = r
		}
	}
	for _, a := range r.Approvals {
		k.asked[a.Ref] = true
	}
	if strings.HasPrefix(r.Action, "admin.") {
		k.asked[r.ID] = true
		return
	}
	if !r.intent() {
		k.life = append(k.life, r)
	}
}

// reference is that of the request that a record of class admin is about, in
// OPERATION/REFERENCE/OBJECT.
func reference(r *record) string {
	parts := strings.SplitN(r.object(), "/", 3)
	if len(parts) < 2 {
		return ""
	}
	return parts[1]
}

// used counts the uses in the log of operations.
func (k *keyStory) used(ctx context.Context, b *book) error {
	var needles [][]byte
	for _, id := range k.names.ids {
		needles = append(needles, []byte(`"id":"`+id+`"`))
	}
	want := func(raw []byte) bool {
		return slices.ContainsFunc(needles, func(n []byte) bool { return bytes.Contains(raw, n) })
	}
	var all []*record
	see := func(r *record) {
		if r.intent() || !slices.ContainsFunc(r.Keys, func(one key) bool { return slices.Contains(k.names.ids, one.ID) }) {
			return
		}
		// What a use needs later is little, and there may be many.
		all = append(all, &record{Log: r.Log, Seq: r.Seq, Time: r.Time, Action: r.Action, Outcome: r.Outcome, Reason: r.Reason, Keys: r.Keys, Actor: r.Actor})
	}
	for _, name := range b.order {
		if name == audit.Sec.String() {
			continue
		}
		if err := b.eachOf(ctx, name, want, see, nil); err != nil {
			return err
		}
	}
	if len(all) == 0 {
		return nil
	}
	k.first, k.last = all[0].Time, all[0].Time
	for _, r := range all {
		k.first, k.last = min(k.first, r.Time), max(k.last, r.Time)
	}
	k.days = newTimeline(k.first[:10]+"T00:00:00.000000Z", k.last[:10]+"T23:59:59.999999Z")
	for _, r := range all {
		k.use(r)
	}
	return nil
}

func (k *keyStory) use(r *record) {
	for _, one := range r.Keys {
		if slices.Contains(k.names.ids, one.ID) {
			k.uses.add(r, 1, r.Time[:10], one.ID, fmt.Sprintf("v%d as %s", one.Version, one.Role), r.Action, r.result(), r.Actor.ID)
			break
		}
	}
	k.days.add(r, 1, r.Outcome)
	if r.refusal() {
		k.refused.add(r, 1, r.Action, r.Reason, r.Actor.ID)
	}
}

func (k *keyStory) sections(d *Document) {
	s := d.section("Which keys these are", "As the newest record of the range describes each. An alias stands for all keys that it has named.", "No record of the range describes the key.", "Key", "Description", "Names now")
	for _, id := range k.names.ids {
		r := k.facts[id]
		if r == nil {
			continue
		}
		words := ""
		for _, one := range r.Keys {
			if one.ID == id {
				words = (&record{Keys: []key{one}}).keyWords()
			}
		}
		var now []string
		for alias, of := range k.names.named {
			if of == id {
				now = append(now, alias)
			}
		}
		slices.Sort(now)
		s.one(r, id, words, orDash(strings.Join(now, ", ")))
	}
	s = d.section("Its life", "Made, named, rotated, limited, exported, suspended, destroyed; its ceremonies.", "Nothing in this range.", "Time (UTC)", "Who", "What", "About", "Outcome", "Approved by", "Ceremony")
	for _, r := range k.life {
		row := s.one(r, short(r.Time), r.Actor.ID, r.Action, lifeWords(r), r.result(), orDash(r.approvers()), orDash(ceremonyOf(r)))
		if slices.ContainsFunc([]audit.Action{audit.KeyCompromise, audit.KeyExport, audit.KeyDestroy, audit.KeyBackup, audit.KeyLimit}, r.is) {
			row.Level = warn
		}
	}
	k.consents(d)
	if k.days != nil {
		k.days.section(d, "Uses per "+k.days.unit()+", by outcome", "", "The key was not used.", outcomes[:])
	}
	s = d.section("Uses by day and kind", "", "The key was not used.", "Day (UTC)", "Key", "Part", "What", "Outcome", "Client", "#Uses", "First (UTC)", "Last (UTC)")
	k.uses.into(s, k.uses.byKey(), true)
	s = d.section("Refused uses", "", "No use was refused.", "What", "Reason", "Client", "#Number", "First (UTC)", "Last (UTC)")
	k.refused.into(s, k.refused.byCount(), true)
}

// consents are the requests for approval that led to acts on the key, and what was
// said to them.
func (k *keyStory) consents(d *Document) {
	asked := make(map[string]bool)
	for id := range k.asked {
		if ref := k.refs[id]; ref != "" {
			asked[ref] = true
		}
	}
	s := d.section("Requests and consents", "Who asked, who consented or refused, and when it was carried out.", "No act on the key had a second person in this range.", "Time (UTC)", "Who", "What", "Request", "Outcome")
	for _, r := range k.decided {
		if asked[reference(r)] {
			s.one(r, short(r.Time), r.Actor.ID, r.Action, r.object(), r.result())
		}
	}
}

func ceremonyOf(r *record) string {
	if r.Cer != nil {
		return r.Cer.ID
	}
	return ""
}
