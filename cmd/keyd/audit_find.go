package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"keyd.dev/keyd/audit"
)

type auditFindCmd struct {
	auditSource `embed:""`
	Key         string   `placeholder:"KEY" help:"The story of one key, by alias, ARN or key id: made, named, used, changed, approved by whom, ended. An alias stands for all keys that it has named."`
	Client      string   `placeholder:"NAME" help:"What this client did, or was refused."`
	Correlation string   `placeholder:"ID" aliases:"request,corr" help:"All about one request, by the id in its answer; also --request."`
	Action      string   `placeholder:"ACTION" help:"key.rotate, say; key.* is all that begin so."`
	Object      string   `placeholder:"OBJECT" help:"What was changed: terminal/T0000001, client/back-end, config, or a part of it that stands between strokes."`
	Term        string   `placeholder:"TID" help:"Messages of this terminal."`
	STAN        string   `name:"stan" placeholder:"N" help:"Messages with this STAN, and reversals that name it."`
	RRN         string   `name:"rrn" placeholder:"N" help:"Messages with this retrieval reference."`
	KSN         string   `name:"ksn" placeholder:"HEX" help:"Operations with this key serial number."`
	Ceremony    string   `placeholder:"ID" help:"Steps of this ceremony."`
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
	ID      string `json:"id"`
	Ref     string `json:"ref"`
	Corr    string `json:"corr"`
	KSN     string `json:"ksn"`
	Custody string `json:"custody"`
	Src     struct {
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
	Message struct {
		RRN  string `json:"rrn"`
		Orig struct {
			STAN string `json:"stan"`
		} `json:"orig"`
	} `json:"iso"`
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

// errNothingFound: the log has no record of what was asked for.
var errNothingFound = errors.New("the log has no record of it")

// Run prints what fits, oldest first.
func (c *auditFindCmd) Run(p *program) error {
	keep, err := c.filter(time.Now())
	if err != nil {
		return err
	}
	dir, note, err := c.open()
	if err != nil {
		return err
	}
	if err := c.verified(p, dir); err != nil {
		return err
	}
	reader, err := openLog(dir)
	if err != nil {
		return err
	}
	var report *findReport
	if c.Key != "" {
		report, err = c.story(reader, keep)
	} else {
		report, err = c.plain(reader, keep)
	}
	if err != nil {
		return err
	}
	if err := note(p.ctx, p.stderr, auditRead{Command: audit.QueryFind, Filter: c.text(), Rows: int64(report.read)}); err != nil {
		return err
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
		return errors.Join(v.print(p, report), &exitError{code: exitVerify})
	}
	return nil
}

// findReport is what is printed.
type findReport struct {
	about []string // the keys that it is about, a line each
	rows  []findRow
	read  int // records that fit, those in sums included
	cut   int // lines that the limit left out
}

// findRow is a record, or a sum of uses.
type findRow struct {
	record found
	begun  string // time of the intent that the record closes
	uses   *useSum
}

func (r *findRow) time() string {
	if r.uses != nil {
		return r.uses.First
	}
	return r.record.Time
}

// plain is the search without a key.
func (c *auditFindCmd) plain(reader *audit.Reader, keep func(*found) bool) (*findReport, error) {
	report := &findReport{}
	err := eachRecord(reader, "", nil, func(r *found) {
		if keep(r) {
			report.read++
			report.rows = append(report.rows, findRow{record: *r})
		}
	})
	if err != nil {
		return nil, err
	}
	report.order(c.Limit)
	return report, nil
}

// eachRecord shows the records of one log, or of all, to visit. want passes
// over records by their bytes alone; nil wants all.
func eachRecord(reader *audit.Reader, log string, want func(raw []byte) bool, visit func(*found)) error {
	names, err := reader.Logs()
	if err != nil {
		return fmt.Errorf("reading the audit log: %w", err)
	}
	for _, name := range names {
		if log != "" && name != log && !strings.HasPrefix(name, log+"-") {
			continue
		}
		for entry, err := range reader.Records(name, 0) {
			if err != nil {
				return advise(fmt.Errorf("reading the audit log: %w", err), "`keyd audit verify` says what is wrong with it")
			}
			if want != nil && !want(entry.Raw) {
				continue
			}
			var r found
			if err := json.Unmarshal(entry.Raw, &r); err != nil {
				return fmt.Errorf("reading the audit log: record %s:%d: %w", name, entry.Seq, err)
			}
			r.raw, r.covered = entry.Raw, entry.Covered
			visit(&r)
		}
	}
	return nil
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
	slices.SortStableFunc(f.rows, func(a, b findRow) int { return strings.Compare(a.time(), b.time()) })
	if limit > 0 && len(f.rows) > limit {
		f.cut = len(f.rows) - limit
		f.rows = f.rows[f.cut:]
	}
}

// filter makes the test that a record must pass, whatever key it is about.
func (c *auditFindCmd) filter(now time.Time) (func(*found) bool, error) {
	since, err := parseMoment("--since", c.Since, now)
	if err != nil {
		return nil, err
	}
	until, err := parseMoment("--until", c.Until, now)
	if err != nil {
		return nil, err
	}
	if c.text() == "" {
		return nil, usageError("say what to find: --key, --client, --correlation, --action, --object, --term, --stan, --rrn, --ksn or --ceremony")
	}
	prefix, wild := strings.CutSuffix(c.Action, "*")
	if _, known := audit.ParseAction(c.Action); !wild && c.Action != "" && !known {
		return nil, usageError("--action=%q is not an action; key.rotate is one, and key.* is all that begin so", c.Action)
	}
	equal := func(want, got string) bool { return want == "" || want == got }
	return func(r *found) bool {
		return (since == "" || r.Time >= since) && (until == "" || r.Time < until) &&
			equal(c.Client, r.Actor.ID) && equal(c.Correlation, r.Corr) &&
			(wild && strings.HasPrefix(r.Action, prefix) || !wild && equal(c.Action, r.Action)) &&
			(c.Object == "" || names(r.Change.Object, c.Object)) &&
			equal(c.Term, r.ISO.Term) && (equal(c.STAN, r.ISO.STAN) || equal(c.STAN, r.Message.Orig.STAN)) &&
			equal(c.RRN, r.Message.RRN) && equal(strings.ToUpper(c.KSN), r.KSN) && equal(c.Ceremony, r.Ceremony.ID)
	}, nil
}

// names says whether an object of a record is part, or has it between strokes.
func names(object, part string) bool {
	return strings.Contains("/"+object+"/", "/"+part+"/")
}

// text is what was asked for, for the record of the reading; "" is nothing.
func (c *auditFindCmd) text() string {
	var parts []string
	for _, f := range []struct{ name, value string }{
		{"key", c.Key}, {"client", c.Client}, {"corr", c.Correlation}, {"action", c.Action}, {"object", c.Object},
		{"term", c.Term}, {"stan", c.STAN}, {"rrn", c.RRN}, {"ksn", c.KSN}, {"ceremony", c.Ceremony},
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
	if f.cut > 0 {
		if _, err := fmt.Fprintf(p.stderr, "%s: %d earlier lines are left out; --limit 0 shows all\n", programName, f.cut); err != nil {
			return err
		}
	}
	if c.JSON {
		return f.printJSON(p)
	}
	for _, line := range f.about {
		if _, err := fmt.Fprintln(p.stdout, line); err != nil {
			return err
		}
	}
	out := newTable(p.stdout, false, "TIME", "LOG:SEQ", "", "ACTION", "OUTCOME", "WHO", "FROM", "ABOUT")
	for i := range f.rows {
		out.row(nil, f.rows[i].columns()...)
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
	Uses    *useSum         `json:"uses,omitempty"`
	Record  json.RawMessage `json:"record,omitempty"`
}

func (f *findReport) printJSON(p *program) error {
	enc := json.NewEncoder(p.stdout)
	enc.SetEscapeHTML(false)
	for i := range f.rows {
		r := &f.rows[i]
		line := findLine{Kind: "record", Log: r.record.Log, Seq: &r.record.Seq, Covered: r.record.covered, Begun: r.begun, Record: r.record.raw}
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
	return []string{q.Time, q.Log + ":" + strconv.FormatUint(q.Seq, 10), mark(q.covered), q.Action, outcome, q.Actor.ID, q.Src.Addr, q.story()}
}
