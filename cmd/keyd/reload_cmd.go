package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"

	"github.com/pelletier/go-toml/v2"
)

type reloadCmd struct {
	Config string `required:"" placeholder:"FILE" help:"The configuration of the daemon."`
	Check  bool   `help:"Say only what would change, and what would wait for a restart."`
	JSON   bool   `help:"Print JSON."`
}

// reloadAsked is the request for a reload at the local socket.
type reloadAsked struct {
	Check bool
}

func (d *daemon) localReload(w http.ResponseWriter, r *http.Request) {
	record, ok := localPeer(w, r)
	if !ok {
		return
	}
	var q reloadAsked
	if !readLocal(w, r, &q) {
		return
	}
	result, err := d.reload(r.Context(), record, q.Check)
	switch {
	case errors.Is(err, errStopping):
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
	case err != nil:
		http.Error(w, err.Error(), http.StatusUnprocessableEntity)
	default:
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(result)
	}
}

// Run lets the daemon read its file again, and says what came of it.
func (c *reloadCmd) Run(p *program) error {
	abs, err := filepath.Abs(c.Config)
	if err != nil {
		return err
	}
	socket, err := socketOf(abs)
	if err != nil {
		return err
	}
	var result reloaded
	if err := askLocal(p.ctx, socket, "/reload", reloadAsked{Check: c.Check}, &result); err != nil {
		return fmt.Errorf("reloading: %w", err)
	}
	if c.JSON {
		return json.NewEncoder(p.stdout).Encode(result)
	}
	if result.Config != abs {
		if _, err := fmt.Fprintf(p.stderr, "%s: the daemon reads %s\n", programName, result.Config); err != nil {
			return err
		}
	}
	_, err = fmt.Fprint(p.stdout, result.text())
	return err
}

// text says it for a person.
func (r *reloaded) text() string {
	var b strings.Builder
	holds := "changed"
	if r.Checked {
		holds = "would change"
	}
	for _, key := range r.Changed {
		fmt.Fprintf(&b, "%s: %s\n", holds, key)
	}
	for _, key := range r.Waiting {
		fmt.Fprintf(&b, "waits for a restart: %s%s\n", key, whyHeld(key))
	}
	if b.Len() == 0 {
		return "nothing is different\n"
	}
	return b.String()
}

// whyHeld explains a whole client that waits.
func whyHeld(key string) string {
	if strings.HasPrefix(key, "client[") && strings.HasSuffix(key, "]") {
		return " (with dual control nobody becomes an administrator by a reload; `keyd client roles` does it by two persons)"
	}
	return ""
}

// socketOf finds the socket of a daemon in its configuration, which need not be
// valid: the daemon says what is wrong with it.
func socketOf(path string) (string, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return "", advise(fmt.Errorf("reading the configuration: %w", err), "name that of the daemon with --config")
	}
	var c config
	var missing *toml.StrictMissingError
	if err := toml.Unmarshal(text, &c); err != nil && !errors.As(err, &missing) {
		return "", decodeProblems(path, err)
	}
	c.resolvePaths(filepath.Dir(path))
	if c.Ops.Socket == "" {
		return "", usageError("%s names neither ops.socket nor store.path, so that the daemon cannot be found", path)
	}
	return c.Ops.Socket, nil
}
