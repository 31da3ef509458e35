package main

import (
	"crypto/fips140"
	"encoding/json"
	"fmt"
	"runtime"
	"runtime/debug"
	"strings"
)

type versionCmd struct {
	JSON bool `help:"Print JSON: also what the binary was built with, and its modules."`
}

// build says what this binary was made of. All of it was written into the
// binary by the linker, fips140 and godebug apart, which are of this start; two
// builds of one revision by one toolchain say the same.
type build struct {
	Version  string `json:"version"`
	Revision string `json:"revision"`
	Modified bool   `json:"modified"` // the tree had changes that no revision has
	// Time is that of the revision, RFC 3339, and not that of the build, which
	// would make each build another one.
	Time     string `json:"revision_time,omitempty"`
	Go       string `json:"go"`
	Platform string `json:"platform"`
	// PKCS11 is the binding by which modules are reached.
	PKCS11     string        `json:"pkcs11"`
	Experiment string        `json:"goexperiment"`
	CGO        bool          `json:"cgo"`
	Trimmed    bool          `json:"trimpath"`
	Tags       string        `json:"tags,omitempty"`
	FIPS140    fipsState     `json:"fips140"`
	Modules    []buildModule `json:"modules"`
}

// fipsState is Go's FIPS 140-3 mode: set by GODEBUG, or when the binary was made.
type fipsState struct {
	Enabled  bool   `json:"enabled"`
	Enforced bool   `json:"enforced"`
	Module   string `json:"module"` // version of the cryptographic module
}

// buildModule is one module in the binary.
type buildModule struct {
	Path    string `json:"path"`
	Version string `json:"version"`
	Sum     string `json:"sum,omitempty"`
}

// bindingModule is the module by which PKCS#11 modules are reached.
const bindingModule = "github.com/miekg/pkcs11"

// thisBuild reads what the linker left in the binary.
func thisBuild() build {
	b := build{
		Version: "devel", Revision: "unknown", Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH,
		FIPS140: fipsState{Enabled: fips140.Enabled(), Enforced: fips140.Enforced(), Module: fips140.Version()},
		Modules: []buildModule{},
	}
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
		case "vcs.time":
			b.Time = s.Value
		case "GOEXPERIMENT":
			b.Experiment = s.Value
		case "CGO_ENABLED":
			b.CGO = s.Value == "1"
		case "-trimpath":
			b.Trimmed = s.Value == "true"
		case "-tags":
			b.Tags = s.Value
		}
	}
	for _, m := range info.Deps {
		if m.Replace != nil {
			m = m.Replace
		}
		b.Modules = append(b.Modules, buildModule{m.Path, m.Version, m.Sum})
		if m.Path == bindingModule {
			b.PKCS11 = m.Path + " " + m.Version
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
