package main

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"keyd.dev/keyd/audit"
	"keyd.dev/keyd/internal/logindex"
)

// The story of a key is told from its log alone, on a copy too: the records of
// the log sec say which names a key had when, which key took its place, and who
// consented to what. Only then are the uses in the months of ops looked for.

// keyTrack follows names and versions through the log sec.
type keyTrack struct {
	alias  string            // the name that was asked for, or ""
	ids    map[string]bool   // the keys that the story is about
	named  map[string]string // alias to key, at this point of the log
	facts  map[string]string // of each key: version, usage, check value
	order  []string          // ids as they came
	consts map[string]string // record id of an approval to the reference of its request
}

func newKeyTrack(key string) (*keyTrack, error) {
	name := key
	if strings.HasPrefix(key, "arn:") {
		name = key[strings.LastIndexByte(key, ':')+1:]
	}
	t := &keyTrack{ids: make(map[string]bool), facts: make(map[string]string), consts: make(map[string]string)}
	t.rewind()
	if strings.HasPrefix(name, "alias/") {
		t.alias = name
		return t, nil
	}
	id, marked := strings.CutPrefix(name, "key/")
	if id == "" || name != key && !marked || strings.Trim(id, "0123456789abcdefghijklmnopqrstuvwxyz") != "" {
		return nil, usageError("--key=%q is neither an alias (alias/…) nor an ARN nor the id of a key", key)
	}
	t.add(id)
	return t, nil
}

// rewind forgets which names there are, to follow the log from its beginning.
func (t *keyTrack) rewind() { t.named = make(map[string]string) }

func (t *keyTrack) add(id string) {
	if !t.ids[id] {
		t.ids[id] = true
		t.order = append(t.order, id)
	}
}

// step follows one record of sec and says whether it is about a key of the story.
func (t *keyTrack) step(r *found) bool {
	ours := false
	for _, k := range r.Keys {
		if !strings.HasPrefix(k.ID, "alias/") && k.Usage != "" {
			t.facts[k.ID] = k.words()
		}
		ours = ours || t.ids[k.ID]
	}
	if r.Outcome == "ok" {
		ours = t.renamed(r) || ours
	}
	return ours || t.mentions(r.Change.Object)
}

// renamed follows what a record says about names, and whether a key of the
// story lost or got one.
func (t *keyTrack) renamed(r *found) bool {
	switch {
	case r.Action == audit.KeyRotate.String() && len(r.Keys) == 2:
		from, to := r.Keys[0].ID, r.Keys[1].ID
		for alias, id := range t.named {
			if id == from {
				t.name(alias, to)
			}
		}
	case r.Action == audit.KeyAttr.String() && strings.HasPrefix(r.Change.Object, "alias/") && len(r.Keys) > 0:
		before := t.named[r.Change.Object]
		if strings.HasPrefix(r.Keys[0].ID, "alias/") {
			delete(t.named, r.Change.Object)
		} else {
			t.name(r.Change.Object, r.Keys[0].ID)
		}
		return t.ids[before] || t.ids[t.named[r.Change.Object]]
	case len(r.Keys) > 0:
		// A key that got its name as it came: ID/alias/….
		if alias, ok := strings.CutPrefix(r.Change.Object, r.Keys[0].ID+"/"); ok && strings.HasPrefix(alias, "alias/") {
			t.name(alias, r.Keys[0].ID)
			return t.ids[r.Keys[0].ID]
		}
	}
	return false
}

func (t *keyTrack) name(alias, id string) {
	t.named[alias] = id
	if alias == t.alias {
		t.add(id)
	}
}

// mentions says whether the object of a change, or of a request for approval,
// is a key of the story or its name.
func (t *keyTrack) mentions(object string) bool {
	if t.alias != "" && (object == t.alias || strings.HasSuffix(object, "/"+t.alias)) {
		return true
	}
	return slices.ContainsFunc(t.order, func(id string) bool { return strings.Contains(object, id) })
}

// words is a key in a few words.
func (k foundKey) words() string {
	text := fmt.Sprintf("version %d, %s %s", k.Version, k.Usage, k.Algo)
	return text + prefixed(", check value ", k.KCV)
}

// about says which keys the story is about.
func (t *keyTrack) about() []string {
	var lines []string
	for _, id := range t.order {
		line := "key/" + id
		if facts := t.facts[id]; facts != "" {
			line += ": " + facts
		}
		lines = append(lines, line)
	}
	if t.alias != "" && len(lines) > 0 {
		lines = append([]string{t.alias + " has named"}, lines...)
	}
	return lines
}

// lifeQuery is what the log sec has about keys, their names, and the consent to
// what is done with them. Logins, readings and the like are not among it.
func lifeQuery() logindex.Query {
	return logindex.Query{All: [][]logindex.Term{actionTerms(func(a audit.Action) bool {
		switch a.Class() {
		case "key", "ceremony", "admin", "config":
			return true
		}
		return a == audit.AuthDeny
	})}}
}

// story collects all about one key.
func (c *auditFindCmd) story(ctx context.Context, s *logSearch, q logindex.Query) (*findReport, error) {
	t, err := newKeyTrack(c.Key)
	if err != nil {
		return nil, err
	}
	var all []*found // oldest first
	for r, err := range s.records(ctx, isSec, lifeQuery()) {
		if err != nil {
			return nil, err
		}
		all = append(all, r)
	}
	slices.Reverse(all)
	for _, r := range all {
		t.step(r)
		if strings.HasPrefix(r.Action, "admin.") {
			t.consts[r.ID] = referenceOf(r)
		}
	}
	t.rewind()
	var lives []found
	asked := make(map[string]bool)
	for _, r := range all {
		if !t.step(r) {
			continue
		}
		for _, a := range r.Approvals {
			asked[t.consts[a.Ref]] = true
		}
		if strings.HasPrefix(r.Action, "admin.") {
			asked[referenceOf(r)] = true
		} else {
			lives = append(lives, *r)
		}
	}
	for _, r := range all { // requests for approval, and what was said to them
		if ref := referenceOf(r); strings.HasPrefix(r.Action, "admin.") && ref != "" && asked[ref] {
			lives = append(lives, *r)
		}
	}
	uses := &useBook{track: t, all: c.All}
	return uses.report(ctx, c, s, lives, q)
}

func isSec(log string) bool { return log == audit.Sec.String() }

// referenceOf is the reference of the request that a record of class admin is
// about: OPERATION/REFERENCE/OBJECT.
func referenceOf(r *found) string {
	parts := strings.SplitN(r.Change.Object, "/", 3)
	if len(parts) < 2 {
		return ""
	}
	return parts[1]
}

// useSum is the uses of one kind between two changes of a key, within a day.
type useSum struct {
	Action  string `json:"action"`
	Outcome string `json:"outcome"`
	Reason  string `json:"reason,omitempty"`
	Client  string `json:"client"`
	Key     string `json:"key"`
	Version int    `json:"version"`
	Count   int    `json:"count"`
	First   string `json:"first"`
	Last    string `json:"last"`
	// FirstRecord and LastRecord are LOG:SEQ.
	FirstRecord string `json:"first_record"`
	LastRecord  string `json:"last_record"`

	covered bool
}

func (u *useSum) result() string { return strings.TrimSpace(u.Outcome + " " + u.Reason) }

func (u *useSum) span() string {
	if u.Count == 1 {
		return u.FirstRecord
	}
	log, last, _ := strings.Cut(u.LastRecord, ":")
	if strings.HasPrefix(u.FirstRecord, log+":") {
		return u.FirstRecord + ".." + last
	}
	return u.FirstRecord + ".." + u.LastRecord
}

func (u *useSum) about() string {
	text := fmt.Sprintf("1 use of version %d", u.Version)
	if u.Count > 1 {
		text = fmt.Sprintf("%d uses of version %d, the last at %s", u.Count, u.Version, u.Last)
	}
	return text
}

// useBook sums uses up, or keeps each.
type useBook struct {
	track *keyTrack
	all   bool
	turns []string // times of changes, in order
	sums  map[useKind]*useSum
	list  []*useSum // as they came
}

type useKind struct {
	turn                                      int
	day, action, outcome, reason, client, key string
}

// mostUses bounds the uses that are read where --limit asks for the newest lines.
const mostUses = 2000

// report reads the uses and joins them with the life of the key.
func (b *useBook) report(ctx context.Context, c *auditFindCmd, s *logSearch, lives []found, q logindex.Query) (*findReport, error) {
	f := &findReport{about: b.track.about()}
	for i := range lives {
		r := &lives[i]
		b.turns = append(b.turns, r.Time)
		fits, err := q.Fits(r.raw)
		if err != nil {
			return nil, damagedLog(err)
		}
		if fits && (c.Object == "" || names(r.Change.Object, c.Object)) {
			f.read++
			f.rows = append(f.rows, findRow{record: *r})
		}
	}
	slices.Sort(b.turns)
	uses, err := b.newest(ctx, c, s, q)
	if err != nil {
		return nil, err
	}
	b.sums = make(map[useKind]*useSum)
	for _, r := range slices.Backward(uses.records) {
		f.read++
		used, _ := b.used(r)
		if b.all || r.Action == audit.KeyDistribute.String() {
			f.rows = append(f.rows, findRow{record: *r})
		} else {
			b.count(r, used)
		}
	}
	for _, u := range b.list {
		f.rows = append(f.rows, findRow{uses: u})
	}
	f.more = uses.more
	f.order(c.Limit)
	return f, nil
}

// newest reads the uses, the newest first, within the limit.
func (b *useBook) newest(ctx context.Context, c *auditFindCmd, s *logSearch, q logindex.Query) (uses keyUses, err error) {
	var ids []logindex.Term
	for _, id := range b.track.order {
		ids = append(ids, logindex.Term{Kind: logindex.Key, Value: stored(id)})
	}
	if len(ids) == 0 {
		return uses, nil
	}
	q.All = append(slices.Clip(q.All), ids)
	for r, err := range s.records(ctx, func(log string) bool { return !isSec(log) }, q) {
		if err != nil {
			return uses, err
		}
		if c.Limit > 0 && len(uses.records) >= max(c.Limit, mostUses) {
			uses.more = true
			break
		}
		if c.Object == "" || names(r.Change.Object, c.Object) {
			uses.records = append(uses.records, r)
		}
	}
	return uses, nil
}

// keyUses are uses of a key, the newest first.
type keyUses struct {
	records []*found
	more    bool // there are earlier ones
}

// used is the key of the story that a record of ops names.
func (b *useBook) used(r *found) (foundKey, bool) {
	for _, k := range r.Keys {
		if b.track.ids[k.ID] {
			return k, true
		}
	}
	return foundKey{}, false
}

// count adds a use to its sum.
func (b *useBook) count(r *found, k foundKey) {
	turn, _ := slices.BinarySearch(b.turns, r.Time)
	key := useKind{turn, r.Time[:min(len(r.Time), len(time.DateOnly))], r.Action, r.Outcome, r.Reason, r.Actor.ID, k.ID}
	at := r.Log + ":" + strconv.FormatUint(r.Seq, 10)
	u := b.sums[key]
	if u == nil {
		u = &useSum{
			Action: r.Action, Outcome: r.Outcome, Reason: r.Reason, Client: r.Actor.ID, Key: k.ID, Version: k.Version,
			First: r.Time, FirstRecord: at, covered: true,
		}
		b.sums[key] = u
		b.list = append(b.list, u)
	}
	u.Count++
	u.Last, u.LastRecord = r.Time, at
	u.covered = u.covered && r.covered
}

// story is the rest of a record in a few words.
func (r *found) story() string {
	var words []string
	say := func(text string) {
		if text != "" {
			words = append(words, text)
		}
	}
	switch {
	case strings.HasPrefix(r.Action, "admin."):
		say(r.Change.Object)
	case r.Action == audit.KeyRotate.String() && len(r.Keys) == 2:
		say(fmt.Sprintf("version %d is followed by version %d, key/%s, check value %s", r.Keys[0].Version, r.Keys[1].Version, r.Keys[1].ID, r.Keys[1].KCV))
	case r.Action == audit.KeyAttr.String() && strings.HasPrefix(r.Change.Object, "alias/"):
		say(r.Change.Object)
		if len(r.Keys) > 0 && strings.HasPrefix(r.Keys[0].ID, "alias/") {
			say("names no key any more")
		} else if len(r.Keys) > 0 {
			say("names key/" + r.Keys[0].ID)
		}
	case r.Class == "key" && r.Change.Object != "":
		say(changed(r))
	case len(r.Keys) > 0:
		say(r.about())
		for _, k := range r.Keys {
			say(k.Role + "=key/" + k.ID)
		}
	default:
		say(r.about())
		say(r.Change.Object)
	}
	say(prefixed("ceremony ", r.Ceremony.ID))
	say(prefixed("alarm ", r.Alarm.Code))
	for _, a := range r.Approvals {
		say("approved by " + a.ID)
	}
	return strings.Join(words, ", ")
}

// changed is a change of one key: which, and what was meant where the object
// says more than the key.
func changed(r *found) string {
	id, more, _ := strings.Cut(r.Change.Object, "/")
	text := r.Change.Object
	if len(r.Keys) > 0 && r.Keys[0].ID == id {
		text = "key/" + id
		if strings.HasPrefix(more, "alias/") {
			text += " as " + more
		} else {
			text += prefixed(" by ", more)
		}
		if r.Keys[0].Usage != "" {
			text += ", " + r.Keys[0].words()
		}
	}
	return text
}

func prefixed(prefix, text string) string {
	if text == "" {
		return ""
	}
	return prefix + text
}
