package main

import (
	"bytes"
	"context"
	"encoding/csv"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"keyd.dev/keyd/audit"
	"keyd.dev/keyd/internal/isoswitch"
	"keyd.dev/keyd/internal/store"
)

type journalCmd struct {
	Export journalExportCmd `cmd:"" help:"Print the journal: every original and every reversal with all that keyd knows of it; cards by their tokens."`
}

type journalExportCmd struct {
	Config string `required:"" placeholder:"FILE" help:"The configuration of a node whose daemon runs; it records that the journal is read."`
	Since  string `placeholder:"TIME" help:"Not before: RFC 3339, a date, or a duration back from now, 2h."`
	Until  string `placeholder:"TIME" help:"Before: the same forms."`
	TID    string `name:"tid" placeholder:"TID" help:"Only those of this terminal."`
	CSV    string `name:"csv" placeholder:"KIND" enum:",original,reversal" default:"" help:"Print CSV, of one kind: original or reversal. Default: JSON lines of both."`
}

// journalAsked is what the command asks the daemon for.
type journalAsked struct {
	Since, Until time.Time
	TID          string
}

func (q journalAsked) filter() string {
	text := "journal"
	if !q.Since.IsZero() {
		text += " since=" + q.Since.UTC().Format(time.RFC3339)
	}
	if !q.Until.IsZero() {
		text += " until=" + q.Until.UTC().Format(time.RFC3339)
	}
	if q.TID != "" {
		text += " term=" + q.TID
	}
	return text
}

// journalEnd is the last line of an export: without it, it is not whole.
type journalEnd struct {
	Kind       string           `json:"kind"` // "end"
	Originals  int64            `json:"originals"`
	Reversals  int64            `json:"reversals"`
	Amounts    map[string]int64 `json:"amounts"` // of the originals by currency, minor units
	Unreadable int64            `json:"unreadable"`
	Missing    int64            `json:"missing"`
	Failed     string           `json:"failed,omitempty"`
}

// journalField is a member of an exported record.
type journalField[T any] struct {
	name string
	of   func(*T) any
}

func hexOf(h [32]byte) string {
	if h == [32]byte{} {
		return ""
	}
	return hex.EncodeToString(h[:])
}

// exportTime is a time, or "" for none.
func exportTime(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339Nano)
}

// originalFields are what is exported of an original: all but the sealed card
// data, of which the token stands for the number.
func originalFields() []journalField[isoswitch.Txn] {
	type t = isoswitch.Txn
	return []journalField[t]{
		{"OID", func(t *t) any { return hexOf(t.OID) }},
		{"Key", func(t *t) any { return hexOf(t.Key) }},
		{"Link", func(t *t) any { return t.Link }},
		{"Profile", func(t *t) any { return t.Profile }},
		{"Received", func(t *t) any { return exportTime(t.Received) }},
		{"MTI", func(t *t) any { return t.MTI }},
		{"Card", func(t *t) any { return t.Card.Token }},
		{"Processing", func(t *t) any { return t.Processing }},
		{"Amount", func(t *t) any { return t.Amount }},
		{"Sent", func(t *t) any { return t.Sent }},
		{"STAN", func(t *t) any { return t.STAN }},
		{"Time", func(t *t) any { return t.Time }},
		{"Date", func(t *t) any { return t.Date }},
		{"Entry", func(t *t) any { return t.Entry }},
		{"Condition", func(t *t) any { return t.Condition }},
		{"Acquirer", func(t *t) any { return t.Acquirer }},
		{"TID", func(t *t) any { return t.TID }},
		{"MID", func(t *t) any { return t.MID }},
		{"Currency", func(t *t) any { return t.Currency }},
		{"EMV", func(t *t) any { return hex.EncodeToString(t.EMV) }},
		{"KSN", func(t *t) any { return t.KSN }},
		{"MACKey", func(t *t) any { return string(t.MACKey) }},
		{"Content", func(t *t) any { return hexOf(t.Content) }},
		{"Raw", func(t *t) any { return hexOf(t.Raw) }},
		{"UpSTAN", func(t *t) any { return t.UpSTAN }},
		{"UpSent", func(t *t) any { return t.UpSent }},
		{"UpAcquirer", func(t *t) any { return t.UpAcquirer }},
		{"State", func(t *t) any { return string(t.State) }},
		{"RRN", func(t *t) any { return t.RRN }},
		{"Approval", func(t *t) any { return t.Approval }},
		{"Answer", func(t *t) any { return t.Answer }},
		{"Late", func(t *t) any { return t.Late }},
		{"IssuerDE55", func(t *t) any { return hex.EncodeToString(t.IssuerDE55) }},
		{"ReverseOnCompletion", func(t *t) any { return t.ReverseOnCompletion }},
		{"BatchClosed", func(t *t) any { return t.BatchClosed }},
		{"Refunded", func(t *t) any { return t.Refunded }},
		{"ReversedAmount", func(t *t) any { return t.ReversedAmount }},
		{"RefersTo", func(t *t) any { return hexOf(t.RefersTo) }},
		{"Finished", func(t *t) any { return exportTime(t.Finished) }},
	}
}

func reversalFields() []journalField[isoswitch.Reversal] {
	type v = isoswitch.Reversal
	return []journalField[v]{
		{"RID", func(v *v) any { return hexOf(v.RID) }},
		{"Name", func(v *v) any { return v.RID.Name() }},
		{"OID", func(v *v) any { return hexOf(v.OID) }},
		{"Cause", func(v *v) any { return string(v.Cause) }},
		{"Full", func(v *v) any { return v.Full }},
		{"Rest", func(v *v) any { return v.Rest }},
		{"MTI", func(v *v) any { return v.MTI }},
		{"STAN", func(v *v) any { return v.STAN }},
		{"TID", func(v *v) any { return v.TID }},
		{"KSN", func(v *v) any { return v.KSN }},
		{"Raw", func(v *v) any { return hexOf(v.Raw) }},
		{"Built", func(v *v) any { return exportTime(v.Built) }},
		{"UpSTAN", func(v *v) any { return v.UpSTAN }},
		{"UpSent", func(v *v) any { return v.UpSent }},
		{"Link", func(v *v) any { return v.Link }},
		{"Answer", func(v *v) any { return v.Answer }},
		{"RRN", func(v *v) any { return v.RRN }},
		{"Approval", func(v *v) any { return v.Approval }},
		{"Content", func(v *v) any { return hexOf(v.Content) }},
		{"State", func(v *v) any { return string(v.State) }},
		{"Reason", func(v *v) any { return v.Reason }},
		{"Tries", func(v *v) any { return int64(v.Tries) }},
		{"Declines", func(v *v) any { return int64(v.Declines) }},
		{"Errors", func(v *v) any { return int64(v.Errors) }},
		{"Next", func(v *v) any { return exportTime(v.Next) }},
		{"FirstSent", func(v *v) any { return exportTime(v.FirstSent) }},
		{"LastSent", func(v *v) any { return exportTime(v.LastSent) }},
		{"Answered", func(v *v) any { return exportTime(v.Answered) }},
		{"UpAnswer", func(v *v) any { return v.UpAnswer }},
		{"Closed", func(v *v) any { return exportTime(v.Closed) }},
		{"Granted", func(v *v) any { return int64(v.Granted) }},
		{"Renewed", func(v *v) any { return exportTime(v.Renewed) }},
		{"Case", func(v *v) any { return v.Case }},
		{"Resolved", func(v *v) any { return exportTime(v.Resolved) }},
	}
}

// journalRecord is a record as a JSON line: kind and seq, then its fields.
func journalRecord[T any](kind string, seq int64, fields []journalField[T], of *T) []byte {
	line := fmt.Appendf(nil, `{"kind":"%s","seq":%d`, kind, seq)
	if of == nil {
		return append(line, `,"unreadable":true}`+"\n"...)
	}
	for _, f := range fields {
		value, err := json.Marshal(f.of(of))
		if err != nil {
			return append(line, `,"unreadable":true}`+"\n"...) // no field can
		}
		line = append(append(append(line, ',', '"'), f.name...), '"', ':')
		line = append(line, value...)
	}
	return append(line, '}', '\n')
}

// While an export lasts the log of the database cannot begin anew. So its reader
// may let the daemon wait for exportStall, and for a second more with each
// exportRate bytes that it takes, up to exportStall again.
const (
	exportStall = 30 * time.Second
	exportRate  = 1 << 20 // bytes a second
)

var errSlowReader = fmt.Errorf("the reader of the export takes less than %d bytes a second", exportRate)

// localJournal streams the journal to a command of this machine. That it is read
// is in the audit log before the first record is given (L-180).
func (d *daemon) localJournal(w http.ResponseWriter, r *http.Request) {
	record, ok := localPeer(w, r)
	if !ok {
		return
	}
	var q journalAsked
	if !readLocal(w, r, &q) {
		return
	}
	control := http.NewResponseController(w)
	out := exportWriter{w: w, control: control, patience: exportStall, end: journalEnd{Kind: "end", Amounts: map[string]int64{}}}
	began := false
	err := d.node.db.Export(r.Context(), store.ExportQuery{Since: q.Since, Until: q.Until, TID: q.TID},
		func(c store.ExportCount) error {
			record.Action, record.Outcome = audit.LogExport, audit.OutcomeOK
			record.Query = &audit.Query{Cmd: audit.QueryExport, Filter: q.filter(), Rows: c.Originals + c.Reversals}
			if err := d.node.record(r.Context(), record); err != nil {
				return err
			}
			began = true
			out.end.Missing = c.Missing
			return nil
		}, out.give)
	if errors.Is(err, store.ErrExporting) {
		http.Error(w, "another export of the journal is under way: wait until it has ended, and ask again", http.StatusServiceUnavailable)
		return
	}
	if !began {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	if err != nil {
		d.log.Warn("an export of the journal was broken off", "err", err)
		out.end.Failed = "the journal could not be read to its end"
	}
	line, err := json.Marshal(out.end)
	if err == nil {
		_, err = out.write(append(line, '\n'))
	}
	if err != nil {
		d.log.Warn("an export of the journal was not taken to its end", "err", err)
	}
}

// exportWriter writes records and adds up.
type exportWriter struct {
	w        io.Writer
	control  *http.ResponseController
	patience time.Duration // how long the reader may still let it wait
	end      journalEnd
}

func (o *exportWriter) write(line []byte) (int, error) {
	if o.patience <= 0 {
		return 0, errSlowReader
	}
	began := time.Now()
	if err := o.control.SetWriteDeadline(began.Add(o.patience)); err != nil {
		return 0, err
	}
	n, err := o.w.Write(line)
	earned := time.Duration(n) * time.Second / exportRate
	o.patience = min(exportStall, o.patience-time.Since(began)+earned)
	return n, err
}

func (o *exportWriter) give(e store.Exported) (err error) {
	switch {
	case e.Err != nil:
		o.end.Unreadable++
		_, err = o.write(journalRecord[isoswitch.Txn]("unreadable", e.Seq, nil, nil))
	case e.Txn != nil:
		o.end.Originals++
		o.end.Amounts[e.Txn.Currency] += e.Txn.Amount
		_, err = o.write(journalRecord("original", e.Seq, originalFields(), e.Txn))
	default:
		o.end.Reversals++
		_, err = o.write(journalRecord("reversal", e.Seq, reversalFields(), e.Reversal))
	}
	return err
}

// Run prints what the daemon gives. The status is 3 where records are missing or
// are not what keyd wrote.
func (c *journalExportCmd) Run(p *program) error {
	now := time.Now()
	q := journalAsked{TID: c.TID}
	for _, given := range []struct {
		flag, text string
		to         *time.Time
	}{{"--since", c.Since, &q.Since}, {"--until", c.Until, &q.Until}} {
		moment, err := parseMoment(given.flag, given.text, now)
		if err == nil && moment != "" {
			*given.to, err = time.Parse(recordTime, moment)
		}
		if err != nil {
			return err
		}
	}
	cfg, err := loadConfig(c.Config)
	if err != nil {
		return err
	}
	body, err := openLocal(p.ctx, cfg.Ops.Socket, "/journal/export", q)
	if errors.Is(err, errNoDaemon) {
		return advise(err, "the journal is exported by the daemon, which has the key of its rows; start it")
	}
	if err != nil {
		return err
	}
	defer body.Close()
	end, err := c.copy(p.stdout, body)
	if err != nil {
		return err
	}
	if end.Failed != "" {
		return errors.New(end.Failed)
	}
	fmt.Fprintf(p.stderr, "originals %d, reversals %d%s\n", end.Originals, end.Reversals, amountsText(end.Amounts))
	if end.Unreadable > 0 || end.Missing > 0 {
		return &exitError{code: exitVerify, err: fmt.Errorf("of the journal %d records are not what keyd wrote, and %d are gone", end.Unreadable, end.Missing)}
	}
	return nil
}

func amountsText(amounts map[string]int64) string {
	var all []string
	for currency, sum := range amounts {
		all = append(all, fmt.Sprintf(", %d %s", sum, currency))
	}
	slices.Sort(all)
	return strings.Join(all, "")
}

// copy prints the records and returns the last line, without which the export is
// not whole.
func (c *journalExportCmd) copy(w io.Writer, body io.Reader) (journalEnd, error) {
	print := newJournalPrinter(w, c.CSV)
	lines := json.NewDecoder(body)
	lines.UseNumber()
	for {
		var raw json.RawMessage
		err := lines.Decode(&raw)
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return journalEnd{}, advise(errors.New("the export broke off: what was printed is not whole"),
				"the daemon's log says why; if what reads it is slow, let it go to a file")
		}
		if err != nil {
			return journalEnd{}, fmt.Errorf("reading the export: %w", err)
		}
		if bytes.HasPrefix(raw, []byte(`{"kind":"end"`)) {
			var end journalEnd
			return end, errors.Join(json.Unmarshal(raw, &end), print.flush())
		}
		if err := print.record(raw); err != nil {
			return journalEnd{}, err
		}
	}
}

// journalPrinter prints records as they come, or as CSV.
type journalPrinter struct {
	w     io.Writer
	kind  string // of the CSV; "" is JSON lines
	names []string
	table *csv.Writer
}

func newJournalPrinter(w io.Writer, kind string) *journalPrinter {
	p := &journalPrinter{w: w, kind: kind, names: []string{"seq"}}
	switch kind {
	case "original":
		for _, f := range originalFields() {
			p.names = append(p.names, f.name)
		}
	case "reversal":
		for _, f := range reversalFields() {
			p.names = append(p.names, f.name)
		}
	default:
		return p
	}
	p.table = csv.NewWriter(w)
	_ = p.table.Write(p.names) // an error stays until flush
	return p
}

func (p *journalPrinter) record(raw json.RawMessage) error {
	if p.table == nil {
		_, err := p.w.Write(append(raw, '\n'))
		return err
	}
	members := map[string]any{}
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber()
	if err := dec.Decode(&members); err != nil {
		return fmt.Errorf("reading the export: %w", err)
	}
	if members["kind"] != p.kind {
		return nil
	}
	row := make([]string, len(p.names))
	for i, name := range p.names {
		switch v := members[name].(type) {
		case string:
			row[i] = v
		case bool:
			row[i] = strconv.FormatBool(v)
		case json.Number:
			row[i] = v.String()
		}
	}
	return p.table.Write(row)
}

func (p *journalPrinter) flush() error {
	if p.table == nil {
		return nil
	}
	p.table.Flush()
	return p.table.Error()
}

// openLocal asks the daemon of the socket and gives its answer as it comes.
func openLocal(ctx context.Context, socket, path string, body any) (io.ReadCloser, error) {
	resp, err := sendLocal(ctx, socket, path, body)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode == http.StatusOK {
		return resp.Body, nil
	}
	defer resp.Body.Close()
	said, err := io.ReadAll(io.LimitReader(resp.Body, mostAnswer))
	if err != nil {
		return nil, err
	}
	return nil, fmt.Errorf("the daemon at %s refused: %s", socket, strings.TrimSpace(string(said)))
}
