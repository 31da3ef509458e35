package main

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"keyd.dev/keyd/audit"
)

type auditLsCmd struct {
	auditSource `embed:""`
	Log         string `placeholder:"LOG" help:"sec, ops, or one month as ops-2026-11; default all."`
	Since       string `placeholder:"TIME" help:"Not before: RFC 3339, a date, or a duration back from now, 2h."`
	Until       string `placeholder:"TIME" help:"Before: the same forms."`
	Class       string `placeholder:"CLASS" help:"key, op, txn, ceremony, admin, auth, config, log, hsm or sys."`
	Action      string `placeholder:"ACTION" help:"reversal.refuse, say; reversal.* is all that begin so."`
	Actor       string `placeholder:"ID" help:"Authenticated name."`
	Outcome     string `placeholder:"OUTCOME" help:"ok, refused, error or unknown."`
	Reason      string `placeholder:"REASON" help:"mac_invalid, say."`
	Limit       int    `default:"100" help:"The newest that many; 0 is all. Default ${default}."`
	JSON        bool   `help:"Print the records as they are stored, JSON lines."`
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
		MTI  string `json:"mti"`
		STAN string `json:"stan"`
		Term string `json:"term"`
		DE39 string `json:"de39"`
		Rule string `json:"rule"`
	} `json:"iso"`
	PAN string `json:"pan"`

	raw     []byte
	covered bool
}

// Run lists what fits, newest last.
func (c *auditLsCmd) Run(p *program) error {
	keep, err := c.filter(time.Now())
	if err != nil {
		return err
	}
	dir, note, err := c.open()
	if err != nil {
		return err
	}
	reader, err := openLog(dir)
	if err != nil {
		return err
	}
	names, err := reader.Logs()
	if err != nil {
		return fmt.Errorf("reading the audit log: %w", err)
	}
	var rows []listed
	for _, name := range names {
		if c.Log != "" && name != c.Log && !strings.HasPrefix(name, c.Log+"-") {
			continue
		}
		found, err := c.collect(reader, name, keep)
		if err != nil {
			return err
		}
		rows = append(rows, found...)
	}
	slices.SortStableFunc(rows, func(a, b listed) int { return strings.Compare(a.Time, b.Time) })
	rows = rows[c.excess(len(rows)):]
	if err := note(p.ctx, p.stderr, auditRead{Command: audit.QueryList, Filter: c.text(), Rows: int64(len(rows))}); err != nil {
		return err
	}
	return c.print(p, rows)
}

// excess is by how much n rows are above the limit.
func (c *auditLsCmd) excess(n int) int {
	if c.Limit <= 0 {
		return 0
	}
	return max(0, n-c.Limit)
}

// collect returns the last records of one log that fit.
func (c *auditLsCmd) collect(reader *audit.Reader, name string, keep func(*listed) bool) ([]listed, error) {
	var rows []listed
	for entry, err := range reader.Records(name, 0) {
		if err != nil {
			return nil, advise(fmt.Errorf("reading the audit log: %w", err), "`keyd audit verify` says what is wrong with it")
		}
		var row listed
		if err := json.Unmarshal(entry.Raw, &row); err != nil {
			return nil, fmt.Errorf("reading the audit log: record %s:%d: %w", name, entry.Seq, err)
		}
		if !keep(&row) {
			continue
		}
		row.raw, row.covered = entry.Raw, entry.Covered
		rows = append(rows, row)
		// Twice the limit bounds the memory without a copy for each record.
		if c.Limit > 0 && len(rows) >= 2*c.Limit {
			rows = append(rows[:0], rows[c.excess(len(rows)):]...)
		}
	}
	return rows[c.excess(len(rows)):], nil
}

// filter makes the test that a record must pass.
func (c *auditLsCmd) filter(now time.Time) (func(*listed) bool, error) {
	since, err := parseMoment("--since", c.Since, now)
	if err != nil {
		return nil, err
	}
	until, err := parseMoment("--until", c.Until, now)
	if err != nil {
		return nil, err
	}
	prefix, wild := strings.CutSuffix(c.Action, "*")
	if _, known := audit.ParseAction(c.Action); !wild && c.Action != "" && !known {
		return nil, usageError("--action=%q is not an action; reversal.refuse is one, and reversal.* is all that begin so", c.Action)
	}
	equal := func(want, got string) bool { return want == "" || want == got }
	return func(r *listed) bool {
		// Times of records are of one form and zone: their order is that of the text.
		return (since == "" || r.Time >= since) && (until == "" || r.Time < until) &&
			equal(c.Class, r.Class) && equal(c.Actor, r.Actor.ID) && equal(c.Outcome, r.Outcome) && equal(c.Reason, r.Reason) &&
			(wild && strings.HasPrefix(r.Action, prefix) || !wild && equal(c.Action, r.Action))
	}, nil
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

func (c *auditLsCmd) print(p *program, rows []listed) error {
	if c.JSON {
		for _, r := range rows {
			if _, err := fmt.Fprintf(p.stdout, "%s\n", r.raw); err != nil {
				return err
			}
		}
		return nil
	}
	out := newTable(p.stdout, false, "LOG:SEQ", "", "TIME", "ACTION", "OUTCOME", "REASON", "ACTOR", "ABOUT")
	for _, r := range rows {
		covered := "·"
		if r.covered {
			covered = "✓"
		}
		outcome := r.Outcome
		if r.Phase == "intent" {
			outcome = "(intent)"
		}
		out.row(nil, fmt.Sprintf("%s:%d", r.Log, r.Seq), covered, r.Time, r.Action, outcome, r.Reason, r.Actor.ID, r.about())
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
