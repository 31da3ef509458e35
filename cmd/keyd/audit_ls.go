package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"keyd.dev/keyd/audit"
	"keyd.dev/keyd/internal/logindex"
)

type auditLsCmd struct {
	auditSource `embed:""`
	indexFlag
	Log     string `placeholder:"LOG" help:"sec, ops, or one month as ops-2026-11; default all."`
	Since   string `placeholder:"TIME" help:"Not before: RFC 3339, a date, or a duration back from now, 2h."`
	Until   string `placeholder:"TIME" help:"Before: the same forms."`
	Class   string `placeholder:"CLASS" help:"key, op, txn, ceremony, admin, auth, config, log, hsm or sys."`
	Action  string `placeholder:"ACTION" help:"reversal.refuse, say; reversal.* is all that begin so."`
	Actor   string `placeholder:"ID" help:"Authenticated name."`
	Outcome string `placeholder:"OUTCOME" help:"ok, refused, error or unknown."`
	Reason  string `placeholder:"REASON" help:"mac_invalid, say."`
	Limit   int    `default:"100" help:"The newest that many; 0 is all. Default ${default}."`
	Follow  bool   `short:"f" help:"Go on with what is recorded from now on, until interrupted."`
	JSON    bool   `help:"Print the records as they are stored, JSON lines."`
}

// listed is what ls needs of a record.
type listed struct {
	Log     string `json:"log"`
	Seq     uint64 `json:"seq"`
	Time    string `json:"ts"`
	Class   string `json:"class"`
	Action  string `json:"action"`
	Phase   string `json:"phase"`
	Outcome string `json:"outcome"`
	Reason  string `json:"reason"`
	Actor   struct {
		ID string `json:"id"`
	} `json:"actor"`
	Keys []struct {
		ID string `json:"id"`
	} `json:"keys"`
	ISO struct {
		MTI      string `json:"mti"`
		STAN     string `json:"stan"`
		RRN      string `json:"rrn"`
		Term     string `json:"term"`
		Merchant string `json:"merch"`
		DE39     string `json:"de39"`
		Rule     string `json:"rule"`
		Orig     struct {
			STAN string `json:"stan"`
		} `json:"orig"`
	} `json:"iso"`
	PAN string `json:"pan"`

	raw     []byte
	covered bool
}

// Run lists what fits, newest last.
func (c *auditLsCmd) Run(p *program) (err error) {
	q, err := c.query(time.Now())
	if err != nil {
		return err
	}
	asked := auditRead{Command: audit.QueryList, Filter: c.text(), Log: monthOrSec(c.Log)}
	dir, note, err := c.open(p, asked)
	if err != nil {
		return err
	}
	s, err := openSearch(dir, c.folder(dir), c.Log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	if c.Config == "" {
		if err := s.prepare(p.ctx, p.stderr); err != nil {
			return err
		}
	}
	next, err := c.begin(s)
	if err != nil {
		return err
	}
	rows, err := c.rows(p.ctx, s, q)
	if err != nil {
		return err
	}
	asked.Rows = int64(len(rows))
	if err := note(p.ctx, p.stderr, asked); err != nil {
		return err
	}
	if gone := s.pruned(); gone != "" && (c.Limit == 0 || len(rows) < c.Limit) {
		if _, err := fmt.Fprintf(p.stderr, "%s: not searched, since pruned: %s\n", programName, gone); err != nil {
			return err
		}
	}
	if err := c.print(p.stdout, rows, true); err != nil || !c.Follow {
		return err
	}
	return c.follow(p.ctx, dir, q, next, p.stdout)
}

// monthOrSec is a name of one log, for the record of a reading; "" where it may
// stand for several.
func monthOrSec(log string) string {
	if log == audit.Sec.String() || isMonth(log) {
		return log
	}
	return ""
}

// rows are the newest that fit, oldest first, up to the limit.
func (c *auditLsCmd) rows(ctx context.Context, s *logSearch, q logindex.Query) ([]listed, error) {
	var rows []listed
	counts := make(map[string]int)
	full := func(log string) bool { return c.Limit > 0 && counts[log] >= c.Limit }
	for _, snap := range s.snaps {
		if full(snap.Log()) {
			continue
		}
		only := func(log string) bool { return log == snap.Log() }
		for h, err := range s.find(ctx, only, q) {
			if err != nil {
				return nil, err
			}
			row, err := readListed(h.Raw, h.Covered)
			if err != nil {
				return nil, fmt.Errorf("reading the audit log: record %s:%d: %w", h.Log, h.Seq, err)
			}
			rows = append(rows, row)
			if counts[h.Log]++; full(h.Log) {
				break
			}
		}
	}
	slices.SortFunc(rows, func(a, b listed) int {
		return cmp.Or(strings.Compare(a.Time, b.Time), strings.Compare(b.Log, a.Log), cmp.Compare(a.Seq, b.Seq))
	})
	if c.Limit > 0 && len(rows) > c.Limit {
		rows = rows[len(rows)-c.Limit:]
	}
	return rows, nil
}

// readListed reads what ls needs of a record.
func readListed(raw []byte, covered bool) (row listed, err error) {
	err = json.Unmarshal(raw, &row)
	row.raw, row.covered = raw, covered
	return row, err
}

// followPause is how long ls waits before it looks again.
const followPause = time.Second

// begin is where following begins: behind what the search sees of each log.
func (c *auditLsCmd) begin(s *logSearch) (map[string]uint64, error) {
	next := make(map[string]uint64)
	for _, snap := range s.snaps {
		end, err := s.index.End(snap)
		if err != nil {
			return nil, damagedLog(err)
		}
		next[snap.Log()] = end
	}
	return next, nil
}

// follow prints what fits of what is appended from next on, month after month,
// until the command is interrupted.
func (c *auditLsCmd) follow(ctx context.Context, dir string, q logindex.Query, next map[string]uint64, out io.Writer) error {
	tick := time.NewTicker(followPause)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if err := c.refresh(ctx); err != nil {
			return err
		}
		rows, err := c.newer(dir, q, next)
		if err != nil {
			return err
		}
		if err := c.print(out, rows, false); err != nil {
			return err
		}
	}
}

// newer are the records from next on that fit, and moves next behind them.
func (c *auditLsCmd) newer(dir string, q logindex.Query, next map[string]uint64) ([]listed, error) {
	reader, err := openLog(dir)
	if err != nil {
		return nil, err
	}
	names, err := reader.Logs()
	if err != nil {
		return nil, damagedLog(err)
	}
	var rows []listed
	for _, name := range names {
		if c.Log != "" && name != c.Log && !strings.HasPrefix(name, c.Log+"-") {
			continue
		}
		for e, err := range reader.Records(name, next[name]) {
			if err != nil {
				return nil, damagedLog(err)
			}
			next[name] = e.Seq + 1
			if ok, err := q.Fits(e.Raw); err != nil || !ok {
				if err != nil {
					return nil, damagedLog(err)
				}
				continue
			}
			row, err := readListed(e.Raw, e.Covered)
			if err != nil {
				return nil, fmt.Errorf("reading the audit log: record %s:%d: %w", name, e.Seq, err)
			}
			rows = append(rows, row)
		}
	}
	slices.SortStableFunc(rows, func(a, b listed) int { return strings.Compare(a.Time, b.Time) })
	return rows, nil
}

// query is what a record must have.
func (c *auditLsCmd) query(now time.Time) (logindex.Query, error) {
	if c.Limit < 0 {
		return logindex.Query{}, usageError("--limit=%d is less than none; 0 shows all", c.Limit)
	}
	if c.Log != "" && c.Log != audit.Ops.String() && monthOrSec(c.Log) == "" {
		return logindex.Query{}, usageError("--log=%q is no log; write sec, ops, or a month of ops as ops-2026-11", c.Log)
	}
	q, err := timeQuery(c.Since, c.Until, now)
	if err != nil {
		return q, err
	}
	if c.Class != "" {
		of := actionTerms(func(a audit.Action) bool { return a.Class() == c.Class })
		if len(of) == 0 {
			return q, usageError("--class=%q is not a class; they are key, op, txn, ceremony, admin, auth, config, log, hsm and sys", c.Class)
		}
		q.All = append(q.All, of)
	}
	return addFacts(q, c.Action, c.Actor, c.Outcome, c.Reason)
}

// timeQuery is a query of a span of time.
func timeQuery(since, until string, now time.Time) (q logindex.Query, err error) {
	if q.From, err = parseMicros("--since", since, now); err != nil {
		return q, err
	}
	q.To, err = parseMicros("--until", until, now)
	return q, err
}

// parseMicros is parseMoment in microseconds since 1970; 0 for "".
func parseMicros(flag, text string, now time.Time) (int64, error) {
	moment, err := parseMoment(flag, text, now)
	if err != nil || moment == "" {
		return 0, err
	}
	t, err := time.Parse(recordTime, moment)
	return t.UnixMicro(), err
}

// addFacts adds what many commands ask for.
func addFacts(q logindex.Query, action, actor, outcome, reason string) (logindex.Query, error) {
	if action != "" {
		prefix, wild := strings.CutSuffix(action, "*")
		like := actionTerms(func(a audit.Action) bool {
			return a.String() == action || wild && strings.HasPrefix(a.String(), prefix)
		})
		if len(like) == 0 {
			return q, usageError("--action=%q is not an action; reversal.refuse is one, and reversal.* is all that begin so", action)
		}
		q.All = append(q.All, like)
	}
	if outcome != "" && !slices.Contains([]string{"ok", "refused", "error", "unknown"}, outcome) {
		return q, usageError("--outcome=%q is not one; they are ok, refused, error and unknown", outcome)
	}
	q.All = addTerm(q.All, logindex.Actor, actor)
	q.All = addTerm(q.All, logindex.Outcome, outcome)
	q.All = addTerm(q.All, logindex.Reason, reason)
	return q, nil
}

// addTerm adds a value that was asked for; "" is none.
func addTerm(all [][]logindex.Term, kind logindex.Kind, value string) [][]logindex.Term {
	if value == "" {
		return all
	}
	return append(all, []logindex.Term{{Kind: kind, Value: stored(value)}})
}

// stored is a value as it stands between the quotes of a record.
func stored(value string) string {
	return strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(value)
}

// actionTerms are the actions that fit.
func actionTerms(fits func(audit.Action) bool) (terms []logindex.Term) {
	for a := audit.Action(1); a.String() != "?"; a++ {
		if fits(a) {
			terms = append(terms, logindex.Term{Kind: logindex.Action, Value: a.String()})
		}
	}
	return terms
}

// text is the filter for the record of the reading.
func (c *auditLsCmd) text() string {
	var parts []string
	for _, f := range []struct{ name, value string }{
		{"log", c.Log}, {"since", c.Since}, {"until", c.Until}, {"class", c.Class}, {"action", c.Action},
		{"actor", c.Actor}, {"outcome", c.Outcome}, {"reason", c.Reason}, {"limit", strconv.Itoa(c.Limit)},
	} {
		if f.value != "" {
			parts = append(parts, f.name+"="+f.value)
		}
	}
	return strings.Join(parts, " ")
}

// recordTime is the form of times in records.
const recordTime = "2006-01-02T15:04:05.000000Z"

// parseMoment reads a time in one of the forms that a person types and gives it
// as records have it; "" stays "".
func parseMoment(flag, text string, now time.Time) (string, error) {
	if text == "" {
		return "", nil
	}
	if back, err := time.ParseDuration(text); err == nil {
		return now.Add(-back).UTC().Format(recordTime), nil
	}
	for _, form := range []string{time.RFC3339, time.DateOnly} {
		if t, err := time.Parse(form, text); err == nil {
			return t.UTC().Format(recordTime), nil
		}
	}
	return "", usageError("%s=%q is not a time; write 2026-11-21T22:00:00Z, 2026-11-21, or 2h for two hours ago", flag, text)
}

func (c *auditLsCmd) print(w io.Writer, rows []listed, heads bool) error {
	if c.JSON {
		for _, r := range rows {
			if _, err := fmt.Fprintf(w, "%s\n", r.raw); err != nil {
				return err
			}
		}
		return nil
	}
	out := &table{tab: tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)}
	if heads {
		out = newTable(w, false, "LOG:SEQ", "", "TIME", "ACTION", "OUTCOME", "REASON", "ACTOR", "ABOUT")
	}
	for _, r := range rows {
		covered := "·"
		if r.covered {
			covered = "✓"
		}
		outcome := r.Outcome
		if r.Phase == "intent" {
			outcome = "(intent)"
		}
		// The log of a daemon that lies may hold what no daemon writes.
		out.row(nil, harmlessAll(fmt.Sprintf("%s:%d", r.Log, r.Seq), covered, r.Time, r.Action, outcome, r.Reason, r.Actor.ID, r.about())...)
	}
	return out.flush()
}

// about is the rest of a record in a few words.
func (r *listed) about() string {
	var words []string
	add := func(name, value string) {
		if value != "" {
			words = append(words, name+value)
		}
	}
	add("", r.ISO.MTI)
	add("term=", r.ISO.Term)
	add("stan=", r.ISO.STAN)
	add("de39=", r.ISO.DE39)
	add("rule=", r.ISO.Rule)
	add("pan=", r.PAN)
	for _, k := range r.Keys {
		add("key=", k.ID)
	}
	return strings.Join(words, " ")
}
