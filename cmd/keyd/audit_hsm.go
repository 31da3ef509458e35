package main

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"regexp"

	"keyd.dev/keyd/audit"
)

// auditHSMCmd ties the HSM's own log to this one (L-83): the records that were
// fetched from the HSM stay where they are, and their range, number and hash stand
// in sec, so that nobody can change them afterwards without it being seen.
type auditHSMCmd struct {
	Config string `required:"" placeholder:"FILE" help:"The configuration of the node, whose daemon records it."`
	Source string `required:"" placeholder:"NAME" help:"What the HSM's log is called, for example hsm-a/audit."`
	First  int64  `default:"1" placeholder:"N" help:"Number of the first record in the HSM's own count."`
	JSON   bool   `help:"Print JSON."`
	File   string `arg:"" help:"The records as the HSM gave them, one a line."`
}

// hsmLog is what is recorded of a piece of the HSM's log.
type hsmLog struct {
	Source string `json:"source"`
	First  int64  `json:"first"`
	Last   int64  `json:"last"`
	N      int64  `json:"n"`
	Hash   string `json:"sha256"`
}

// hsmSource is a name that a record can have. It holds no long digits, which
// could be taken for a card number.
var hsmSource = regexp.MustCompile(`^[a-z][a-z0-9./-]{0,31}$`)

// Run hashes the file and has the daemon record it.
func (c *auditHSMCmd) Run(p *program) error { return auditExit(c.run(p)) }

func (c *auditHSMCmd) run(p *program) error {
	cfg, err := loadConfig(c.Config)
	if err != nil {
		return err
	}
	f, err := os.Open(c.File)
	if err != nil {
		return fmt.Errorf("opening the HSM's log: %w", err)
	}
	defer func() { _ = f.Close() }()
	q, err := readHSMLog(f, c.Source, c.First)
	if err != nil {
		return advise(fmt.Errorf("%s: %w", c.File, err), "name the source in lower case, and give the records one a line")
	}
	if err := callLocal(p.ctx, cfg.Ops.Socket, "/audit/hsm", q); err != nil {
		return notRecorded(err)
	}
	if c.JSON {
		return json.NewEncoder(p.stdout).Encode(q)
	}
	_, err = fmt.Fprintf(p.stdout, "recorded: %s records %d to %d, SHA-256 %s\n", q.Source, q.First, q.Last, q.Hash)
	return err
}

// errHSMLog: the file or what is said of it is none that can be recorded.
var errHSMLog = errors.New("not a log of an HSM that can be recorded")

// mostHSMLine bounds one record of the HSM.
const mostHSMLine = 1 << 20

// readHSMLog counts and hashes the records. The hash is that of the file's bytes.
// It returns [errHSMLog].
func readHSMLog(r io.Reader, source string, first int64) (hsmLog, error) {
	q := hsmLog{Source: source, First: first}
	hash := sha256.New()
	lines := bufio.NewScanner(io.TeeReader(r, hash))
	lines.Buffer(make([]byte, 0, 64<<10), mostHSMLine)
	for lines.Scan() {
		q.N++
	}
	if err := lines.Err(); err != nil {
		return hsmLog{}, fmt.Errorf("%w: record %d: %w", errHSMLog, q.N+1, err)
	}
	q.Last, q.Hash = first+q.N-1, hex.EncodeToString(hash.Sum(nil))
	return q, q.check()
}

func (q hsmLog) check() error {
	const most = 1 << 53
	switch raw, err := hex.DecodeString(q.Hash); {
	case !hsmSource.MatchString(q.Source):
		return fmt.Errorf("%w: source %q", errHSMLog, q.Source)
	case q.N < 1 || q.First < 0 || q.First >= most || q.N >= most || q.Last != q.First+q.N-1 || q.Last >= most:
		return fmt.Errorf("%w: %d records from %d", errHSMLog, q.N, q.First)
	case err != nil || len(raw) != sha256.Size:
		return fmt.Errorf("%w: the hash is none", errHSMLog)
	}
	return nil
}

// record is the record of sec.
func (q hsmLog) record(r audit.Record, hsm audit.HSM) audit.Record {
	r.Action, r.Outcome, r.HSM = audit.HSMLogImport, audit.OutcomeOK, hsm
	r.Import = &audit.Import{Source: q.Source, First: &q.First, Last: &q.Last, N: &q.N}
	raw, _ := hex.DecodeString(q.Hash) // was checked
	copy(r.Import.Hash[:], raw)
	return r
}

func (d *daemon) localHSMLog(w http.ResponseWriter, r *http.Request) {
	record, ok := localPeer(w, r)
	if !ok {
		return
	}
	var q hsmLog
	if !readLocal(w, r, &q) {
		return
	}
	if err := q.check(); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	if err := d.node.record(r.Context(), q.record(record, d.node.tokenRecord(audit.HSMLogImport).HSM)); err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}
