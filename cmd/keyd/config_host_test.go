package main

import (
	"path/filepath"
	"slices"
	"testing"
)

// TestHostProfileBesideTheConfiguration: the file of an upstream's profile
// is named from the configuration's folder, and stays readable for a reload.
func TestHostProfileBesideTheConfiguration(t *testing.T) {
	cfg := &configFile{path: "/etc/keyd/keyd.toml"}
	cfg.Upstream = []upstreamConfig{{Name: "one"}, {Name: "two", Profile: "hosts/two.toml"}, {Name: "three", Profile: "ascii87"}}
	cfg.resolvePaths(filepath.Dir(cfg.path))
	const want = "/etc/keyd/hosts/two.toml"
	if got := cfg.Upstream[1].Profile; got != want {
		t.Errorf("the profile is %s", got)
	}
	if !slices.Contains(cfg.readFiles(), want) {
		t.Errorf("the sandbox reads %q", cfg.readFiles())
	}
	if cfg.Upstream[0].Profile != "" || cfg.Upstream[2].Profile != "ascii87" {
		t.Errorf("a profile that is no file became %q, %q", cfg.Upstream[0].Profile, cfg.Upstream[2].Profile)
	}
}
