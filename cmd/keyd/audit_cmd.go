package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"keyd.dev/keyd/audit"
)

type auditCmd struct {
	Ls     auditLsCmd     `cmd:"" help:"List records."`
	Find   auditFindCmd   `cmd:"" help:"Tell the story of a key, a request, a client, a message."`
	Verify auditVerifyCmd `cmd:"" help:"Prove that no record was changed, removed, inserted or moved."`
}

// auditSource says where the log is: on a copy nothing is recorded, on a node
// the reading is.
type auditSource struct {
	Dir    string `placeholder:"DIR" xor:"source" required:"" help:"Folder of the log, or of a copy; needs no daemon."`
	Config string `placeholder:"FILE" xor:"source" required:"" help:"The configuration of a node; its daemon records that the log is read."`
}

// open returns the folder, and a function that makes the reading durable in the
// log before anything is shown (L-180).
func (s *auditSource) open() (dir string, note func(context.Context, io.Writer, auditRead) error, err error) {
	if s.Config == "" {
		return s.Dir, func(context.Context, io.Writer, auditRead) error { return nil }, nil
	}
	cfg, err := loadConfig(s.Config)
	if err != nil {
		return "", nil, err
	}
	note = func(ctx context.Context, stderr io.Writer, q auditRead) error {
		err := callLocal(ctx, cfg.Ops.Socket, "/audit/read", q)
		if errors.Is(err, errNoDaemon) {
			_, err = fmt.Fprintf(stderr, "%s: no daemon runs here, so that this reading is not recorded\n", programName)
		}
		if err != nil {
			return fmt.Errorf("nothing is shown, since the reading cannot be recorded: %w", err)
		}
		return nil
	}
	return cfg.Audit.Dir, note, nil
}

// openLog opens the folder for reading.
func openLog(dir string) (*audit.Reader, error) {
	r, err := audit.OpenReader(dir)
	if err != nil {
		return nil, advise(fmt.Errorf("reading the audit log: %w", err), "name its folder, that with manifest.json, by --dir")
	}
	return r, nil
}
