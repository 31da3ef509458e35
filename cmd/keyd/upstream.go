package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"time"

	"keyd.dev/keyd/internal/isoswitch"
)

// upstreamCmd shows how the upstreams of the running daemon are.
type upstreamCmd struct {
	List upstreamListCmd `cmd:"" name:"ls" help:"List the upstreams and the links to them, with the last fault of each."`
}

type upstreamListCmd struct {
	Config string `required:"" placeholder:"FILE" help:"The configuration of the daemon."`
	JSON   bool   `help:"Print JSON."`
}

// upstreamAnswer is the state of one link, as the local socket gives it.
type upstreamAnswer struct {
	Upstream    string  `json:"upstream"`
	Link        string  `json:"link"`
	Addr        string  `json:"addr"`
	State       string  `json:"state"`  // down, connected, refused, silent, signed-on
	Chosen      bool    `json:"chosen"` // messages go over it
	IdleSeconds float64 `json:"idle_seconds"`
	Connects    uint64  `json:"connections"`
	Sent        uint64  `json:"sent"`
	Received    uint64  `json:"received"`
	Silent      uint64  `json:"silent"`
	Resting     bool    `json:"queue_rests"`
	Fault       string  `json:"last_fault,omitempty"`
}

// errNoSwitch: the daemon has none.
var errNoSwitch = errors.New("the daemon has no switch; set switch.listen")

func (d *daemon) localUpstreams(w http.ResponseWriter, r *http.Request) {
	if _, ok := localPeer(w, r); !ok {
		return
	}
	if d.sw == nil {
		http.Error(w, errNoSwitch.Error(), http.StatusConflict)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(linksOf(d.sw.Status().Upstreams))
}

func linksOf(upstreams []isoswitch.UpstreamStatus) []upstreamAnswer {
	list := []upstreamAnswer{}
	for _, u := range upstreams {
		for _, l := range u.Links {
			a := upstreamAnswer{
				Upstream: u.Name, Link: l.Name, Addr: l.Addr, State: string(l.State), Chosen: l.Chosen,
				IdleSeconds: l.Idle.Round(time.Millisecond).Seconds(), Connects: l.Connects, Sent: l.Sent, Received: l.Frames, Silent: l.Silent,
				Resting: u.Resting,
			}
			if l.Fault != nil {
				a.Fault = l.Fault.Error()
			}
			list = append(list, a)
		}
	}
	return list
}

// Run prints a line for each link.
func (c *upstreamListCmd) Run(p *program) error {
	abs, err := filepath.Abs(c.Config)
	if err != nil {
		return err
	}
	socket, err := socketOf(abs)
	if err != nil {
		return err
	}
	var list []upstreamAnswer
	if err := askLocal(p.ctx, socket, "/upstreams", struct{}{}, &list); err != nil {
		return fmt.Errorf("asking for the upstreams: %w", err)
	}
	out := newTable(p.stdout, c.JSON, "UPSTREAM", "LINK", "ADDR", "STATE", "CHOSEN", "SENT", "UNANSWERED", "LAST FAULT")
	for _, a := range list {
		chosen := ""
		if a.Chosen {
			chosen = "yes"
		}
		out.row(a, a.Upstream, a.Link, a.Addr, a.State, chosen, fmt.Sprint(a.Sent), fmt.Sprint(a.Silent), a.Fault)
	}
	return out.flush()
}

// reachable says which upstreams cannot be reached, and why: the last fault of
// each of their links.
func reachable(upstreams []isoswitch.UpstreamStatus) error {
	var away []string
	for _, u := range upstreams {
		if u.Up && u.SignedOn {
			continue
		}
		var links []string
		for _, l := range u.Links {
			line := l.Name + " " + string(l.State)
			if l.Fault != nil {
				line += ": " + l.Fault.Error()
			}
			links = append(links, line)
		}
		away = append(away, u.Name+" ("+strings.Join(links, "; ")+")")
	}
	switch {
	case len(away) == 0:
		return nil
	case len(upstreams) == 1 && upstreams[0].Up:
		return fmt.Errorf("%w: %s", errNotSignedOn, strings.Join(away, ", "))
	}
	return fmt.Errorf("%w: %s", errNotConnected, strings.Join(away, ", "))
}
