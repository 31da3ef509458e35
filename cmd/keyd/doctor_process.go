package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"

	"keyd.dev/keyd/internal/sandbox"
)

// processReport is what a daemon says of itself to who asks at its socket. The
// kernel tells everybody the rest.
type processReport struct {
	PID       int           `json:"pid"`
	Sandbox   sandbox.Mode  `json:"sandbox"`
	Held      sandbox.State `json:"held"`
	Locked    bool          `json:"locked"`
	PINMemory string        `json:"pin_memory"` // "" where no PIN is kept
}

func (d *daemon) localProcess(w http.ResponseWriter, r *http.Request) {
	if _, ok := localPeer(w, r); !ok {
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(processReport{
		PID: os.Getpid(), Sandbox: sandbox.Mode(d.cfg.Process.Sandbox), Held: d.held, Locked: d.locked, PINMemory: d.node.token.PINMemory(),
	})
}

// askProcess asks the daemon at a socket about itself.
func askProcess(ctx context.Context, socket string) (processReport, error) {
	var report processReport
	short, done, err := shortPath(socket)
	if err != nil {
		return report, err
	}
	defer done()
	ctx, cancel := context.WithTimeout(ctx, localTimeout)
	defer cancel()
	transport := &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", short)
		},
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://keyd/process", nil)
	if err != nil {
		return report, err
	}
	resp, err := (&http.Client{Transport: transport}).Do(req)
	if err != nil {
		return report, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return report, fmt.Errorf("the daemon answers %s", resp.Status)
	}
	return report, json.NewDecoder(resp.Body).Decode(&report)
}

// kernel looks at what the kernel offers for the sandbox.
func (e *examination) kernel() {
	can := sandbox.Supported()
	switch {
	case can.Files && can.Ports:
		e.ok("sandbox", "Landlock %d of this kernel holds %s", can.ABI, can)
	case can.ABI == 0:
		e.bad(statusWarn, "sandbox", "the kernel has no Landlock: every file of keyd's user stays in reach", "Linux 6.7 or later, with landlock among the lsm= of its command line")
	default:
		e.bad(statusWarn, "sandbox", fmt.Sprintf("Landlock %d of this kernel holds %s", can.ABI, can), "Linux 6.7 or later holds ports too")
	}
}

// process looks at the daemon that runs, by what it says and by what the kernel
// says of it.
func (e *examination) process(cfg *configFile) {
	report, err := askProcess(e.ctx, cfg.Ops.Socket)
	if err != nil {
		e.bad(statusWarn, "process", err.Error(), "ask as root, or as the user who runs keyd")
		return
	}
	e.held(cfg, report)
	state, err := readProcess(report.PID)
	switch {
	case errors.Is(err, errors.ErrUnsupported):
		return
	case err != nil:
		e.bad(statusWarn, "process", err.Error(), "")
		return
	}
	e.shut(report, state)
	if state.seccomp {
		e.ok("system calls", "those that keyd does not need are refused")
	} else {
		e.bad(statusWarn, "system calls", "all are allowed", "start keyd by the shipped unit, deploy/systemd/keyd.service, or with a seccomp profile")
	}
	if state.uid == 0 || state.capabilities != 0 {
		e.bad(statusWarn, "privileges", fmt.Sprintf("user %d, capabilities %#x", state.uid, state.capabilities), "run keyd as a user of its own without capabilities, as the shipped unit does")
	} else {
		e.ok("privileges", "user %d, no capabilities", state.uid)
	}
}

// held says what the daemon's sandbox holds.
func (e *examination) held(cfg *configFile, report processReport) {
	switch {
	case report.Held.Files && report.Held.Ports:
		e.ok("daemon's sandbox", "%s holds %s", report.Sandbox, report.Held)
	case report.Sandbox == sandbox.Off:
		e.bad(statusWarn, "daemon's sandbox", "off", `process.sandbox = "best_effort" in `+cfg.path)
	default:
		e.bad(statusWarn, "daemon's sandbox", fmt.Sprintf("%s holds %s", report.Sandbox, report.Held), "the operator's log says why; see sandbox above")
	}
}

// shut says whether memory can leave the process.
func (e *examination) shut(report processReport, state processState) {
	switch {
	case state.coreLimit != 0:
		e.bad(statusFail, "daemon's memory", "core files are not off", "start keyd again; it turns them off")
	case state.uid != 0 && !state.hidden:
		e.bad(statusFail, "daemon's memory", "its own user can read it", "start keyd again; it makes itself not dumpable")
	case !report.Locked || state.locked == 0:
		e.bad(statusWarn, "daemon's memory", "can be swapped to disk", "LimitMEMLOCK=infinity in the unit, --ulimit memlock=-1 for a container, or no swap")
	default:
		e.ok("daemon's memory", "locked, not dumpable, no core files")
	}
	switch report.PINMemory {
	case "":
		e.ok("daemon's PIN", "not kept")
	case "memfd_secret":
		e.ok("daemon's PIN", "in secret memory (memfd_secret)")
	case "locked":
		e.ok("daemon's PIN", "in a locked page; the kernel has no memfd_secret")
	default:
		e.bad(statusWarn, "daemon's PIN", "in a page that can be swapped to disk", "LimitMEMLOCK=infinity in the unit, or token.pin_retain = false")
	}
}
