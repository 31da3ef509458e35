package main

import (
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"slices"
	"sync"

	"keyd.dev/keyd/audit"
)

type auditArchiveCmd struct {
	Dir    string   `placeholder:"DIR" xor:"where" required:"" help:"Folder of a copy of the log; nothing is recorded."`
	Config string   `placeholder:"FILE" xor:"where" required:"" help:"The configuration of a node of this machine; its daemon records the archive."`
	Log    string   `arg:"" help:"The month, ops-2026-11; it must be over."`
	Out    string   `short:"o" required:"" placeholder:"DIR" help:"Folder of the archive, new or empty; on another disk, best one that is written once."`
	Vkey   []string `placeholder:"FILE" help:"Verification keys of the log, one a line; repeatable. The archive is checked under them. Without it the key in the log's own folder is used."`
	JSON   bool     `help:"Print JSON."`
}

// archiveMade is the answer, and what a log.archive record has of it.
type archiveMade struct {
	Log     string `json:"log"`
	Origin  string `json:"origin"`
	Size    uint64 `json:"size"`
	Root    string `json:"root"`
	Records int64  `json:"record_bytes"`
	Packed  int64  `json:"archive_bytes"`
	SHA256  string `json:"manifest_sha256"`
}

// Run packs a month. On a node the daemon records that it begins and how it ended.
func (c *auditArchiveCmd) Run(p *program) error {
	dir, err := c.folder()
	if err != nil {
		return err
	}
	vkeys, err := (&auditVerifyCmd{Vkey: c.Vkey}).givenVkeys(p, dir)
	if err != nil {
		return err
	}
	if err := c.packable(dir); err != nil {
		return err
	}
	done, err := c.begin(p.ctx)
	if err != nil {
		return err
	}
	made, err := audit.WriteArchive(dir, c.Log, c.Out, vkeys)
	if errors.Is(err, audit.ErrExists) {
		err = usageError("%v", err)
	}
	if noted := done(p.ctx, made.SHA256, err == nil); noted != nil {
		return errors.Join(err, notRecorded(noted))
	}
	if err != nil {
		return err
	}
	return c.print(p, made)
}

// folder is where the log is, without a note that it is read: the archive has
// records of its own.
func (c *auditArchiveCmd) folder() (string, error) {
	if c.Config == "" {
		return c.Dir, nil
	}
	cfg, err := loadConfig(c.Config)
	if err != nil {
		return "", err
	}
	return cfg.Audit.Dir, nil
}

// packable refuses what can never be packed before anything is recorded.
func (c *auditArchiveCmd) packable(dir string) error {
	r, err := openLog(dir)
	if err != nil {
		return err
	}
	_, err = r.Closed(c.Log)
	if errors.Is(err, audit.ErrShardOpen) {
		return usageError("%v; only a month of ops that is over is packed", err)
	}
	return err
}

// begin makes the intent durable on a node, and returns what records the outcome.
func (c *auditArchiveCmd) begin(ctx context.Context) (done func(context.Context, audit.Hash, bool) error, err error) {
	if c.Config == "" {
		return func(context.Context, audit.Hash, bool) error { return nil }, nil
	}
	cfg, err := loadConfig(c.Config)
	if err != nil {
		return nil, err
	}
	var begun archiveBegun
	if err := askLocal(ctx, cfg.Ops.Socket, "/audit/archive", archiveBegin{Log: c.Log}, &begun); err != nil {
		return nil, notRecorded(err)
	}
	return func(ctx context.Context, sum audit.Hash, ok bool) error {
		end := archiveEnd{Intent: begun.Intent, OK: ok}
		if ok {
			end.SHA256 = hex.EncodeToString(sum[:])
		}
		return callLocal(context.WithoutCancel(ctx), cfg.Ops.Socket, "/audit/archived", end)
	}, nil
}

func (c *auditArchiveCmd) print(p *program, a audit.ArchiveReport) error {
	v := archiveMade{
		Log: a.Log, Origin: a.Origin, Size: a.Size, Root: base64.StdEncoding.EncodeToString(a.Root[:]),
		Records: a.Records, Packed: a.Packed, SHA256: hex.EncodeToString(a.SHA256[:]),
	}
	if c.JSON {
		return json.NewEncoder(p.stdout).Encode(v)
	}
	_, err := fmt.Fprintf(p.stdout, "%s: %d records, %d bytes in %d, %.2f of them; verified as it is packed\nOK %s size=%d root=%s\narchive SHA-256 %s\n",
		c.Out, v.Size, v.Records, v.Packed, float64(v.Packed)/float64(v.Records), v.Origin, v.Size, v.Root, v.SHA256)
	return err
}

// archive checks an archive as it is packed.
func (c *auditVerifyCmd) archive(p *program) error {
	keys := *c
	if len(c.Vkey) == 0 {
		keys.Vkey = []string{filepath.Join(c.Archive, "vkey")}
		if _, err := fmt.Fprintf(p.stderr, "%s: without --vkey the key in the archive itself is used: damage shows, a forger with a key of his own does not\n", programName); err != nil {
			return err
		}
	}
	vkeys, err := keys.givenVkeys(p, c.Archive)
	if err != nil {
		return err
	}
	if len(c.Log) > 0 && c.SinceSize == nil {
		return usageError("--archive is of one month; --log goes with it for --since-size alone")
	}
	since, err := c.since(vkeys)
	if err != nil {
		return err
	}
	report, err := audit.VerifyArchive(c.Archive, vkeys, since...)
	if err != nil {
		return c.damaged(p, err)
	}
	if err := c.print(p, report); err != nil {
		return err
	}
	if !report.OK() {
		return printed{errCheckFailed}
	}
	return nil
}

// archiveBegin, archiveBegun and archiveEnd go over the local socket: a command
// packs, and the daemon records.
type archiveBegin struct{ Log string }

type archiveBegun struct{ Intent string }

type archiveEnd struct {
	Intent string
	OK     bool
	SHA256 string // of the archive's manifest
}

// archiveIntents are the archives that commands began and did not end, the
// oldest first.
type archiveIntents struct {
	mu   sync.Mutex
	open []audit.Record // Ref is the intent
}

func (d *daemon) localArchive(w http.ResponseWriter, r *http.Request) {
	record, ok := localPeer(w, r)
	if !ok {
		return
	}
	var q archiveBegin
	if !readLocal(w, r, &q) {
		return
	}
	tree, err := d.node.closedTree(q.Log)
	if err != nil {
		http.Error(w, err.Error(), http.StatusConflict)
		return
	}
	record.Action, record.Phase = audit.LogArchive, audit.PhaseIntent
	record.Change = &audit.Change{Kind: audit.ChangeLog, Object: "archive/" + q.Log}
	record.Trees = []audit.Tree{tree}
	intent, err := d.node.recordOne(r.Context(), record)
	if err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	record.Ref = intent
	d.archives.begin(record)
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(archiveBegun{intent.String()}) // who left does not need it
}

func (d *daemon) localArchived(w http.ResponseWriter, r *http.Request) {
	record, ok := localPeer(w, r)
	if !ok {
		return
	}
	var q archiveEnd
	if !readLocal(w, r, &q) {
		return
	}
	sum, err := hex.DecodeString(q.SHA256)
	if q.OK && (err != nil || len(sum) != len(audit.Hash{})) {
		http.Error(w, "an archive that was made has a SHA-256", http.StatusBadRequest)
		return
	}
	begun, ok := d.archives.end(q.Intent, record.Actor.ID)
	if !ok {
		http.Error(w, "no archive of this caller has this intent", http.StatusConflict)
		return
	}
	begun.Phase, begun.Outcome = audit.PhaseOutcome, audit.OutcomeOK
	if q.OK {
		begun.Change = &audit.Change{Kind: begun.Change.Kind, Object: begun.Change.Object, After: audit.Hash(sum)}
	} else {
		begun.Outcome, begun.Reason = audit.OutcomeError, audit.ReasonInternal
	}
	if err := d.node.record(r.Context(), begun); err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// mostArchives bounds what commands can begin and leave.
const mostArchives = 64

// begin keeps an intent. Above the bound the oldest, which was left, gives way;
// its record stays without an outcome, as that of any act that was cut off.
func (a *archiveIntents) begin(r audit.Record) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if over := 1 + len(a.open) - mostArchives; over > 0 {
		a.open = slices.Delete(a.open, 0, over)
	}
	a.open = append(a.open, r)
}

// end takes out an intent, for who began it alone.
func (a *archiveIntents) end(id, actor string) (audit.Record, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	at := slices.IndexFunc(a.open, func(r audit.Record) bool { return r.Ref.String() == id && r.Actor.ID == actor })
	if at < 0 {
		return audit.Record{}, false
	}
	r := a.open[at]
	a.open = slices.Delete(a.open, at, at+1)
	return r, true
}

// closedTree is a closed month of the node's log as records name it.
func (n *node) closedTree(log string) (audit.Tree, error) {
	r, err := openLog(n.cfg.Audit.Dir)
	if err != nil {
		return audit.Tree{}, err
	}
	c, err := r.Closed(log)
	if err != nil {
		return audit.Tree{}, err
	}
	return audit.Tree{Log: log, Origin: c.Origin, Size: int64(c.Size), Root: &c.Root, First: new(int64)}, nil
}

// recordOne makes a record of sec durable and returns its id.
func (n *node) recordOne(ctx context.Context, r audit.Record) (audit.UUID, error) {
	ticket, err := n.audit.Reserve(ctx, audit.Sec, 1)
	if err != nil {
		return audit.UUID{}, fmt.Errorf("writing the audit log: %w", err)
	}
	defer ticket.Release()
	at, err := ticket.Append(r)
	if err != nil {
		return audit.UUID{}, fmt.Errorf("writing the audit log: %w", err)
	}
	return at[0].ID, nil
}
