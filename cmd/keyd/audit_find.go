package main

import (
	"cmp"
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strconv"
	"strings"
	"time"

	"keyd.dev/keyd/audit"
	"keyd.dev/keyd/internal/logindex"
)

type auditFindCmd struct {
	auditSource `embed:""`
	indexFlag
	Key         string   `placeholder:"KEY" help:"The story of one key, by alias, ARN or key id: made, named, used, changed, approved by whom, ended. An alias stands for all keys that it has named."`
	Client      string   `placeholder:"NAME" aliases:"actor" help:"What this client did, or was refused; also --actor."`
	Correlation string   `placeholder:"ID" aliases:"request,corr" help:"All about one request, by the id in its answer; also --request."`
	Action      string   `placeholder:"ACTION" help:"key.rotate, say; key.* is all that begin so."`
	Outcome     string   `placeholder:"OUTCOME" help:"ok, refused, error or unknown."`
	Reason      string   `placeholder:"REASON" help:"mac_invalid, say."`
	Object      string   `placeholder:"OBJECT" help:"What was changed: terminal/T0000001, client/back-end, config, or a part of it that stands between strokes."`
	Term        string   `placeholder:"TID" aliases:"terminal" help:"Messages of this terminal."`
	Merchant    string   `placeholder:"MID" help:"Messages of this merchant."`
	STAN        string   `name:"stan" placeholder:"N" help:"Messages with this STAN, and reversals that name it."`
	RRN         string   `name:"rrn" placeholder:"N" help:"Messages with this retrieval reference."`
	KSN         string   `name:"ksn" placeholder:"HEX" help:"Operations with this key serial number."`
	PANToken    string   `name:"pan-token" placeholder:"TOKEN" help:"Messages and operations with this card, by its token as records have it, k1:gv0DR9eyf1tnkhAjMPpPKQ."`
	PAN         cardArg  `name:"pan" placeholder:"-" help:"The same by the card's number, which is read from standard input, never from here: the daemon of --url makes the token, with a second person."`
	Ceremony    string   `placeholder:"ID" help:"Steps of this ceremony."`
	Custodian   string   `placeholder:"NAME" help:"What this custodian did, in ceremonies also as the second person."`
	Hash        string   `placeholder:"HASH" help:"The record with this leaf hash, in hexadecimal or base64."`
	Since       string   `placeholder:"TIME" help:"Not before: RFC 3339, a date, or a duration back from now, 2h."`
	Until       string   `placeholder:"TIME" help:"Before: the same forms."`
	All         bool     `help:"With --key, list each use; else uses of one kind between two changes are one line a day."`
	Limit       int      `default:"1000" help:"The newest that many lines; 0 is all. Default ${default}."`
	Vkey        []string `placeholder:"FILE" help:"Verify the whole log with these keys first, as audit verify does; repeatable."`
	JSON        bool     `help:"Print JSON lines: the records as they are stored, and the sums of uses."`
}

// found is what find needs of a record.
type found struct {
	listed
	ID       string `json:"id"`
	Ref      string `json:"ref"`
	Corr     string `json:"corr"`
	KSN      string `json:"ksn"`
	PANToken string `json:"pan_tok"`
	Custody  string `json:"custody"`
	Src      struct {
		Addr string `json:"addr"`
	} `json:"src"`
	Keys      []foundKey `json:"keys"`
	Approvals []struct {
		ID  string `json:"id"`
		Ref string `json:"ref"`
	} `json:"approvals"`
	Change struct {
		Object string `json:"object"`
	} `json:"change"`
	Ceremony struct {
		ID   string `json:"id"`
		Step string `json:"step"`
	} `json:"cer"`
	Alarm struct {
		Code string `json:"code"`
	} `json:"alarm"`
}

type foundKey struct {
	Role    string `json:"role"`
	ID      string `json:"id"`
	Version int    `json:"ver"`
	KCV     string `json:"kcv"`
	Usage   string `json:"usage"`
	Algo    string `json:"algo"`
}

// Run prints what fits, oldest first.
func (c *auditFindCmd) Run(p *program) (err error) {
	earlier, err := c.byCard(p)
	if err != nil {
		return err
	}
	q, err := c.query(time.Now())
	if err != nil {
		return err
	}
	q.All = orTokens(q.All, c.PANToken, earlier)
	asked := auditRead{Command: audit.QueryFind, Filter: c.text()}
	dir, note, err := c.open(p, asked)
	if err != nil {
		return err
	}
	if err := c.verified(p, dir); err != nil {
		return err
	}
	s, err := openSearch(dir, c.folder(dir), "")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	if c.Config == "" {
		if err := s.prepare(p.ctx, p.stderr); err != nil {
			return err
		}
	}
	var report *findReport
	if c.Key != "" {
		report, err = c.story(p.ctx, s, q)
	} else {
		report, err = c.plain(p.ctx, s, q)
	}
	if err != nil {
		return err
	}
	asked.Rows = int64(report.read)
	if err := note(p.ctx, p.stderr, asked); err != nil {
		return err
	}
	if gone := s.pruned(); gone != "" {
		if len(report.rows) == 0 {
			return fmt.Errorf("%w: nothing was found, but these were pruned: %s", errUndecided, gone)
		}
		if _, err := fmt.Fprintf(p.stderr, "%s: not searched, since pruned: %s\n", programName, gone); err != nil {
			return err
		}
	}
	return c.print(p, report)
}

// verified proves the whole log first where keys for that were given.
func (c *auditFindCmd) verified(p *program, dir string) error {
	if len(c.Vkey) == 0 {
		return nil
	}
	v := auditVerifyCmd{auditSource: c.auditSource, Vkey: c.Vkey}
	vkeys, err := v.vkeys(p, dir)
	if err != nil {
		return v.damaged(p, err)
	}
	report, err := v.verify(p.ctx, dir, vkeys)
	switch {
	case err != nil:
		return v.damaged(p, err)
	case !report.OK():
		return errors.Join(v.print(p, report), printed{errCheckFailed})
	}
	return nil
}

// findReport is what is printed.
type findReport struct {
	about []string // the keys that it is about, a line each
	rows  []findRow
	read  int  // records that fit, those in sums included
	cut   int  // lines that the limit left out
	more  bool // there are earlier ones, nobody counted how many
}

// findRow is a record, or a sum of uses.
type findRow struct {
	record found
	begun  string // time of the intent that the record closes
	joined string // the record that it was found with, as LOG:SEQ
	uses   *useSum
}

func (r *findRow) time() string {
	if r.uses != nil {
		return r.uses.First
	}
	return r.record.Time
}

// plain is the search without a key.
func (c *auditFindCmd) plain(ctx context.Context, s *logSearch, q logindex.Query) (*findReport, error) {
	report := &findReport{}
	for _, snap := range s.snaps {
		n := 0
		only := func(log string) bool { return log == snap.Log() }
		for r, err := range s.records(ctx, only, q) {
			if err != nil {
				return nil, err
			}
			if c.Object != "" && !names(r.Change.Object, c.Object) {
				continue
			}
			if n++; c.Limit > 0 && n > c.Limit {
				report.more = true
				break
			}
			report.rows = append(report.rows, findRow{record: *r})
		}
	}
	report.newest(c.Limit)
	report.more = report.more || report.cut > 0
	report.cut = 0
	report.read = len(report.rows)
	if err := report.join(ctx, s); err != nil {
		return nil, err
	}
	report.order(0)
	return report, nil
}

// newest sorts the rows by time and keeps that many.
func (f *findReport) newest(limit int) {
	slices.SortStableFunc(f.rows, func(a, b findRow) int {
		return cmp.Or(strings.Compare(a.time(), b.time()), strings.Compare(b.record.Log, a.record.Log), cmp.Compare(a.record.Seq, b.record.Seq))
	})
	if limit > 0 && len(f.rows) > limit {
		f.cut = len(f.rows) - limit
		f.rows = f.rows[f.cut:]
	}
}

// records are what fits, the newest first, as find needs it.
func (s *logSearch) records(ctx context.Context, want func(log string) bool, q logindex.Query) iter.Seq2[*found, error] {
	return func(yield func(*found, error) bool) {
		for h, err := range s.find(ctx, want, q) {
			r := &found{}
			if err == nil {
				if err = json.Unmarshal(h.Raw, r); err != nil {
					err = fmt.Errorf("reading the audit log: record %s:%d: %w", h.Log, h.Seq, err)
				}
			}
			r.raw, r.covered = h.Raw, h.Covered
			if !yield(r, err) || err != nil {
				return
			}
		}
	}
}

// order sorts the rows by time, joins the beginning of an act with its end, and
// keeps the newest that many.
func (f *findReport) order(limit int) {
	begun := make(map[string]string)
	for _, r := range f.rows {
		if r.uses == nil && r.record.Phase == "intent" {
			begun[r.record.ID] = r.record.Time
		}
	}
	ended := make(map[string]bool)
	for i := range f.rows {
		if r := &f.rows[i]; r.uses == nil && r.record.Ref != "" {
			r.begun = begun[r.record.Ref]
			ended[r.record.Ref] = true
		}
	}
	f.rows = slices.DeleteFunc(f.rows, func(r findRow) bool {
		return r.uses == nil && r.record.Phase == "intent" && ended[r.record.ID]
	})
	f.newest(limit)
}

// query is what a record must have, whatever key it is about.
func (c *auditFindCmd) query(now time.Time) (logindex.Query, error) {
	q, err := timeQuery(c.Since, c.Until, now)
	if err != nil {
		return q, err
	}
	if c.text() == "" {
		return q, usageError("say what to find: --key, --client, --correlation, --action, --outcome, --reason, --object, --term, --merchant, --stan, --rrn, --ksn, --pan-token, --ceremony, --custodian, --hash, --since or --until")
	}
	if c.Limit < 0 {
		return q, usageError("--limit=%d is less than none; 0 shows all", c.Limit)
	}
	if q, err = addFacts(q, c.Action, c.Client, c.Outcome, c.Reason); err != nil {
		return q, err
	}
	for part := range strings.SplitSeq(c.Object, "/") {
		q.All = addTerm(q.All, logindex.Object, part)
	}
	q.All = addTerm(q.All, logindex.Corr, c.Correlation)
	q.All = addTerm(q.All, logindex.Terminal, c.Term)
	q.All = addTerm(q.All, logindex.Merchant, c.Merchant)
	q.All = addTerm(q.All, logindex.RRN, c.RRN)
	q.All = addTerm(q.All, logindex.KSN, strings.ToUpper(c.KSN))
	q.All = addTerm(q.All, logindex.Card, c.PANToken)
	q.All = addTerm(q.All, logindex.Ceremony, c.Ceremony)
	if c.STAN != "" {
		q.All = append(q.All, []logindex.Term{{Kind: logindex.STAN, Value: stored(c.STAN)}, {Kind: logindex.Original, Value: stored(c.STAN)}})
	}
	if c.Custodian != "" {
		q.All = append(q.All, []logindex.Term{{Kind: logindex.Actor, Value: stored(c.Custodian)}, {Kind: logindex.Custodian, Value: stored(c.Custodian)}})
	}
	if c.Hash != "" {
		leaf, err := parseLeafHash(c.Hash)
		if err != nil {
			return q, err
		}
		q.All = append(q.All, []logindex.Term{{Kind: logindex.Leaf, Value: string(leaf)}})
	}
	return q, nil
}

// parseLeafHash reads a SHA-256 in hexadecimal or base64.
func parseLeafHash(text string) ([]byte, error) {
	for _, decode := range []func(string) ([]byte, error){hex.DecodeString, base64.StdEncoding.DecodeString} {
		if leaf, err := decode(text); err == nil && len(leaf) == len(audit.Hash{}) {
			return leaf, nil
		}
	}
	return nil, usageError("--hash=%q is not the hash of a record: 64 hexadecimal digits, or base64 of 32 bytes", text)
}

// names says whether an object of a record is part, or has it between strokes.
func names(object, part string) bool {
	return strings.Contains("/"+object+"/", "/"+part+"/")
}

// text is what was asked for, for the record of the reading; "" is nothing.
func (c *auditFindCmd) text() string {
	var parts []string
	for _, f := range []struct{ name, value string }{
		{"key", c.Key}, {"client", c.Client}, {"corr", c.Correlation}, {"action", c.Action}, {"outcome", c.Outcome}, {"reason", c.Reason},
		{"object", c.Object}, {"term", c.Term}, {"merch", c.Merchant}, {"stan", c.STAN}, {"rrn", c.RRN}, {"ksn", c.KSN},
		{"pan_tok", c.PANToken}, {"ceremony", c.Ceremony}, {"custodian", c.Custodian}, {"hash", c.Hash},
		{"since", c.Since}, {"until", c.Until},
	} {
		if f.value != "" {
			parts = append(parts, f.name+"="+f.value)
		}
	}
	return strings.Join(parts, " ")
}

func (c *auditFindCmd) print(p *program, f *findReport) error {
	if len(f.rows) == 0 {
		return advise(errNothingFound, "look at the spelling, and at --since and --until")
	}
	switch {
	case f.cut > 0:
		if _, err := fmt.Fprintf(p.stderr, "%s: %d earlier lines are left out; --limit 0 shows all\n", programName, f.cut); err != nil {
			return err
		}
	case f.more:
		if _, err := fmt.Fprintf(p.stderr, "%s: earlier ones are left out; --limit 0 shows all\n", programName); err != nil {
			return err
		}
	}
	if c.JSON {
		return f.printJSON(p)
	}
	for _, line := range f.about {
		if _, err := fmt.Fprintln(p.stdout, harmless(line)); err != nil {
			return err
		}
	}
	out := newTable(p.stdout, false, "TIME", "LOG:SEQ", "", "ACTION", "OUTCOME", "WHO", "FROM", "ABOUT")
	for i := range f.rows {
		out.row(nil, harmlessAll(f.rows[i].columns()...)...)
	}
	return out.flush()
}

// findLine is a row as JSON. A record stands in it byte for byte.
type findLine struct {
	Kind    string          `json:"kind"` // "record" or "uses"
	Log     string          `json:"log,omitempty"`
	Seq     *uint64         `json:"seq,omitempty"`
	Covered bool            `json:"covered"`
	Begun   string          `json:"begun,omitempty"`
	Joined  string          `json:"joined,omitempty"` // LOG:SEQ of the record that it was found with
	Uses    *useSum         `json:"uses,omitempty"`
	Record  json.RawMessage `json:"record,omitempty"`
}

func (f *findReport) printJSON(p *program) error {
	enc := json.NewEncoder(p.stdout)
	enc.SetEscapeHTML(false)
	for i := range f.rows {
		r := &f.rows[i]
		line := findLine{Kind: "record", Log: r.record.Log, Seq: &r.record.Seq, Covered: r.record.covered, Begun: r.begun, Joined: r.joined, Record: r.record.raw}
		if r.uses != nil {
			line = findLine{Kind: "uses", Covered: r.uses.covered, Uses: r.uses}
		}
		if err := enc.Encode(line); err != nil {
			return err
		}
	}
	return nil
}

// columns is a row as text.
func (r *findRow) columns() []string {
	mark := func(covered bool) string {
		if covered {
			return "✓"
		}
		return "·"
	}
	if u := r.uses; u != nil {
		return []string{u.First, u.span(), mark(u.covered), u.Action, u.result(), u.Client, "", u.about()}
	}
	q := &r.record
	outcome := q.Outcome
	switch {
	case q.Phase == "intent":
		outcome = "(no end)"
	case q.Reason != "":
		outcome += " " + q.Reason
	}
	story := q.story()
	if r.joined != "" {
		story += " (with " + r.joined + ")"
	}
	return []string{q.Time, q.Log + ":" + strconv.FormatUint(q.Seq, 10), mark(q.covered), q.Action, outcome, q.Actor.ID, q.Src.Addr, story}
}
