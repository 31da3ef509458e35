package main

import (
	"encoding/json"
	"fmt"
	"runtime"
	"runtime/debug"
	"strings"
)

type versionCmd struct {
	JSON bool `help:"Print JSON."`
}

// build says what this binary was made of.
type build struct {
	Version  string `json:"version"`
	Revision string `json:"revision"`
	Modified bool   `json:"modified"`
	Go       string `json:"go"`
	Platform string `json:"platform"`
}

// thisBuild reads what the linker left in the binary.
func thisBuild() build {
	b := build{Version: "devel", Revision: "unknown", Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return b
	}
	if v := info.Main.Version; v != "" && v != "(devel)" {
		b.Version = v
	}
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			b.Revision = s.Value
		case "vcs.modified":
			b.Modified = s.Value == "true"
		}
	}
	return b
}

// name is the build in the form that the log's records carry.
func (b build) name() string {
	rev := b.Revision
	if len(rev) > 12 {
		rev = rev[:12]
	}
	// A version of the module system may hold "+dirty"; one plus is enough.
	v, _, _ := strings.Cut(b.Version, "+")
	return v + "+" + rev
}

// Run prints the version.
func (c *versionCmd) Run(p *program) error {
	b := thisBuild()
	if c.JSON {
		return json.NewEncoder(p.stdout).Encode(b)
	}
	_, err := fmt.Fprintf(p.stdout, "keyd %s %s %s\n", b.name(), b.Go, b.Platform)
	return err
}
