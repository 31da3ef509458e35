package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"

	"keyd.dev/keyd/audit"
)

type terminalUnlockCmd struct {
	TID    string `arg:"" help:"The terminal."`
	Config string `required:"" placeholder:"FILE" help:"The configuration of the daemon on this machine, TOML."`
	JSON   bool   `help:"Print JSON."`
}

// unlocked says on how many connections a terminal was locked.
type unlocked struct {
	TID         string `json:"tid"`
	Connections int    `json:"connections"`
}

// Run lets a terminal be heard again that too many wrong MACs have locked. Its
// connections alone know of a lock-out, so a daemon must run.
func (c *terminalUnlockCmd) Run(p *program) error {
	if len(c.TID) != 8 {
		return usageError("a TID has 8 characters; %q has %d", c.TID, len(c.TID))
	}
	cfg, err := loadConfig(c.Config)
	if err != nil {
		return err
	}
	var done unlocked
	err = askLocal(p.ctx, cfg.Ops.Socket, "/terminals/unlock", unlocked{TID: c.TID}, &done)
	if errors.Is(err, errNoDaemon) {
		return advise(err, "a lock-out ends with the daemon; nothing is locked")
	}
	if err != nil {
		return err
	}
	if c.JSON {
		return json.NewEncoder(p.stdout).Encode(done)
	}
	_, err = fmt.Fprintf(p.stdout, "terminal %s: unlocked on %d connections\n", done.TID, done.Connections)
	return err
}

// localUnlock records who unlocks a terminal, and does it.
func (d *daemon) localUnlock(w http.ResponseWriter, r *http.Request) {
	record, ok := localPeer(w, r)
	if !ok {
		return
	}
	var q unlocked
	if !readLocal(w, r, &q) {
		return
	}
	if d.sw == nil {
		http.Error(w, "this daemon has no switch", http.StatusConflict)
		return
	}
	if _, err := d.node.db.Terminal(r.Context(), q.TID); err != nil {
		http.Error(w, fmt.Sprintf("there is no terminal %q; `keyd terminal ls` lists those there are", q.TID), http.StatusNotFound)
		return
	}
	record.Action, record.Outcome = audit.AuthUnlock, audit.OutcomeOK
	record.Change = &audit.Change{Kind: audit.ChangeTerminal, Object: q.TID}
	if err := d.node.record(r.Context(), record); err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	q.Connections = d.sw.Unlock(q.TID)
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(q)
}
