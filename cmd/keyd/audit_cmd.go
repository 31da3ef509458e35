package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"keyd.dev/keyd/audit"
)

type auditCmd struct {
	Ls        auditLsCmd      `cmd:"" help:"List records."`
	Get       auditGetCmd     `cmd:"" help:"Print one record as it is stored, proved under the newest checkpoint."`
	Find      auditFindCmd    `cmd:"" help:"Tell the story of a key, a request, a client, a message."`
	Index     auditIndexCmd   `cmd:"" help:"Make or check the search index; a search makes what it lacks by itself."`
	Verify    auditVerifyCmd  `cmd:"" help:"Prove that no record was changed, removed, inserted or moved."`
	Archive   auditArchiveCmd `cmd:"" help:"Pack a month that is over, compressed and verifiable as packed."`
	Prune     auditPruneCmd   `cmd:"" help:"Remove a month that an archive holds, as an administrator with a second one."`
	RotateKey auditRotateCmd  `cmd:"" name:"rotate-key" help:"Make a new key for the log's checkpoints in the token."`
	Fork      auditForkCmd    `cmd:"" help:"Begin a new generation in the place of a log that was lost, with two administrators."`
	Prove     auditProveCmd   `cmd:"" help:"Write a proof of one record, to be checked by anybody who has the key."`
	HSMLog    auditHSMCmd     `cmd:"" name:"hsm-log" help:"Record range, number and hash of a piece of the HSM's own log."`
	Report    auditReportCmd  `cmd:"" help:"Reports to review, print and sign: the day, a key, a ceremony, refusals, access, the clock."`
	Sink      auditSinkCmd    `cmd:"" help:"Receivers of a copy of the log, a SIEM say: how far they are, and what they have."`
	Export    auditExportCmd  `cmd:"" help:"Write records with what proves them into a folder: JSON lines, a copy that verifies by itself, or syslog."`
}

// auditSource says where the log is: on a copy nothing is recorded, on a node
// the reading is.
type auditSource struct {
	Dir    string `placeholder:"DIR" xor:"source" help:"Folder of the log, or of a copy; needs no daemon."`
	Config string `placeholder:"FILE" xor:"source" help:"The configuration of a node; its daemon records that the log is read."`
	auditDoor
}

// open returns the folder to read, and a function that makes the reading durable
// in the log before anything is shown (L-180). q is what will be read, as far as
// that is known: a daemon at another machine records it before it gives anything.
func (s *auditSource) open(p *program, q auditRead) (dir string, note func(context.Context, io.Writer, auditRead) error, err error) {
	noted := func(context.Context, io.Writer, auditRead) error { return nil }
	if s.Dir == "" && s.Config == "" && !s.named() {
		s.URL = os.Getenv("KEYD_URL")
	}
	switch {
	case s.Dir != "":
		return s.Dir, noted, nil
	case s.named():
		dir, err := s.auditDoor.open(p, q)
		return dir, noted, err
	case s.Config == "":
		return "", nil, usageError("name the log: by --dir its folder or a copy, by --config the node of this machine, by --url a daemon at another")
	}
	cfg, err := loadConfig(s.Config)
	if err != nil {
		return "", nil, err
	}
	note = func(ctx context.Context, stderr io.Writer, q auditRead) error {
		err := callLocal(ctx, cfg.Ops.Socket, "/audit/read", q)
		switch {
		case errors.Is(err, errNoDaemon):
			return advise(notRecorded(err), "start the daemon, or read the folder as a copy, by --dir %s", cfg.Audit.Dir)
		case err != nil:
			return notRecorded(err)
		}
		return nil
	}
	return cfg.Audit.Dir, note, nil
}

// openLog opens the folder for reading.
func openLog(dir string) (*audit.Reader, error) {
	r, err := audit.OpenReader(dir)
	if err != nil {
		if errors.Is(err, audit.ErrNotFound) {
			err = fmt.Errorf("%w: %w", errUndecided, err)
		}
		return nil, advise(fmt.Errorf("reading the audit log: %w", err), "name its folder, that with manifest.json, by --dir")
	}
	return r, nil
}

// into makes r the record of a reading.
func (q auditRead) into(r *audit.Record) {
	r.Action, r.Outcome = audit.LogRead, audit.OutcomeOK
	switch q.Command {
	case audit.QueryVerify:
		r.Action = audit.LogVerify
	case audit.QueryProve:
		r.Action = audit.LogProve
	case audit.QueryExport:
		r.Action = audit.LogExport
	}
	r.Query = &audit.Query{Cmd: q.Command, Filter: q.Filter, Log: q.Log, Rows: q.Rows}
}
