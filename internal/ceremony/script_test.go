package ceremony_test

import (
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"keyd.dev/keyd/internal/ceremony"
)

var update = flag.Bool("update", false, "write the explanations anew")

// TestExplain: what custodians read before a ceremony is part of the product.
func TestExplain(t *testing.T) {
	files, err := filepath.Glob("testdata/explain/*.toml")
	if err != nil || len(files) < 8 {
		t.Fatalf("%d scripts: %v", len(files), err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			s, err := ceremony.Parse(text)
			if err != nil {
				t.Fatal(err)
			}
			golden := strings.TrimSuffix(file, ".toml") + ".txt"
			if *update {
				if err := os.WriteFile(golden, []byte(s.Explain()), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), s.Explain()); diff != "" {
				t.Errorf("-want +got\n%s", diff)
			}
		})
	}
}

const good = `id = "zmk-1"
title = "ZMK"
purpose = "Bank X"
kind = "import"
[key]
alias = "alias/zmk"
usage = "TR31_K0_KEY_ENCRYPTION_KEY"
algorithm = "TDES_2KEY"
mode = "B"
exportability = "N"
[[custodian]]
name = "a"
[[custodian]]
name = "b"
[output]
transcript = "out/zmk"
`

func TestParse(t *testing.T) {
	if _, err := ceremony.Parse([]byte(good)); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ name, old, now, want string }{
		{"unknown key", "title", "titel", `line 2: unknown key "titel"`},
		{"not TOML", `kind = "import"`, `kind = `, "line 4"},
		{"a duration that is none", `kind =`, "timeout = \"soon\"\nkind =", "line 4"},
		{"id", "zmk-1", "ZMK 1", "id: need"},
		{"no purpose", "Bank X", "", "purpose: need"},
		{"purpose not printable", "Bank X", "Bank \\u00e9", "purpose: need"},
		{"kind", `"import"`, `"steal"`, `kind: "steal" is none of`},
		{"part of another kind", "[output]", "[role]\nclient = \"x\"\n[output]", "role: a ceremony of kind import has no [role]"},
		{"alias", "alias/zmk", "zmk", "key.alias"},
		{"usage", "TR31_K0_KEY_ENCRYPTION_KEY", "TR31_K9", "key.usage"},
		{"algorithm", "TDES_2KEY", "DES", "key.algorithm"},
		{"mode", `mode = "B"`, `mode = "X"`, "cannot have mode"},
		{"no mode", `mode = "B"`, `mode = ""`, "need mode"},
		{"check value", "mode =", "check_value = \"12\"\nmode =", "key.check_value: need 6"},
		{"check method", "mode =", "check_method = \"HMAC\"\nmode =", "key.check_method"},
		{"one custodian", "[[custodian]]\nname = \"b\"\n", "", "1 named; need 2"},
		{"one custodian twice", `name = "b"`, `name = "a"`, "a is named twice"},
		{"no name", `name = "b"`, `name = ""`, "custodian 2: need the name"},
		{"recipient for nothing", `name = "b"`, "name = \"b\"\nrecipient = \"age1c9uxja8dex7q64m604793a0nq3qeqs2hychm5t5v87mm9dlmad8srd5mms\"", "gives nothing to take away"},
		{"recipient that is none", `name = "b"`, "name = \"b\"\nrecipient = \"age1x\"", "recipient:"},
		{"file elsewhere", `name = "b"`, "name = \"b\"\nfile = \"/etc/passwd\"", "file: need a path below"},
		{"share without shares", `name = "b"`, "name = \"b\"\nshare = 2", "only shares that are brought"},
		{"component's check value", `name = "b"`, "name = \"b\"\ncheck_value = \"x\"", "check_value: need 6"},
		{"output", `"out/zmk"`, `"out/zmk.json"`, "output.transcript"},
		{"step longer than the whole", "kind =", "step_timeout = \"2h\"\nkind =", "timeout: need at least"},
		{"step too short", "kind =", "step_timeout = \"1ms\"\nkind =", "step_timeout: need"},
	} {
		t.Run(c.name, func(t *testing.T) {
			text := strings.Replace(good, c.old, c.now, 1)
			if text == good {
				t.Fatal("the case changes nothing")
			}
			_, err := ceremony.Parse([]byte(text))
			if !errors.Is(err, ceremony.ErrScript) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want %q", err, c.want)
			}
		})
	}
	if _, err := ceremony.Parse(make([]byte, 1<<20)); !errors.Is(err, ceremony.ErrScript) {
		t.Errorf("a script of a MiB: %v", err)
	}
}

func TestParseKinds(t *testing.T) {
	head := "id = \"x\"\ntitle = \"x\"\npurpose = \"x\"\n"
	tail := "[[custodian]]\nname = \"a\"\n[[custodian]]\nname = \"b\"\n[output]\ntranscript = \"t\"\n"
	for _, c := range []struct{ name, text, want string }{
		{"lmk without its part", `kind = "lmk"`, "lmk: a ceremony of kind lmk needs [lmk]"},
		{"lmk from nowhere", "kind = \"lmk\"\n[lmk]\nsource = \"x\"", "lmk.source"},
		{"one share is no sharing", "kind = \"lmk\"\n[lmk]\nsource = \"shares\"\nthreshold = 1\ncreate = true", "lmk.threshold: need 2"},
		{"more than there are", "kind = \"lmk\"\n[lmk]\nsource = \"shares\"\nthreshold = 3\ncreate = true", "lmk.threshold: need 2 to the number of custodians, 2"},
		{"threshold of components", "kind = \"lmk\"\n[lmk]\nsource = \"components\"\nthreshold = 2", "only shares have one"},
		{"shares without index", "kind = \"lmk\"\n[lmk]\nsource = \"shares\"\nthreshold = 2", "share: need the index"},
		{"check value of what is to be made", "kind = \"lmk\"\n[lmk]\nsource = \"components\"\ncreate = true\ncheck_value = \"AABBCC\"", "a key that is not made yet has none"},
		{"attributes of a key that is there", "kind = \"export\"\n[key]\nalias = \"alias/x\"\nusage = \"TR31_K0_KEY_ENCRYPTION_KEY\"", "is there already"},
		{"injection without files", "kind = \"injection\"\n[injection]\nbdk = \"alias/x\"\nkek = \"alias/y\"", "need list and output"},
		{"injection under no alias", "kind = \"injection\"\n[injection]\nbdk = \"x\"\nkek = \"alias/y\"\nlist = \"l\"\noutput = \"o\"", "injection.bdk"},
		{"role that is none", "kind = \"role-change\"\n[role]\nclient = \"x\"\nroles = [\"god\"]", `"god" is no role`},
		{"client that is none", "kind = \"role-change\"\n[role]\nclient = \"\"", "role.client"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := ceremony.Parse([]byte(head + c.text + "\n" + tail))
			if !errors.Is(err, ceremony.ErrScript) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want %q", err, c.want)
			}
		})
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(good))
	files, err := filepath.Glob("testdata/explain/*.toml")
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		s, err := ceremony.Parse(text)
		if (s == nil) == (err == nil) {
			t.Fatalf("script %v, error %v", s != nil, err)
		}
		if err == nil && (s.Object() == "" || s.Explain() == "") {
			t.Error("a script about nothing was accepted")
		}
	})
}

func TestParseList(t *testing.T) {
	devices, err := ceremony.ParseList([]byte("TID,KSN\nT1,ffff9876543210e00000\nT2,123456789012345600000000\n"))
	if err != nil {
		t.Fatal(err)
	}
	want := []ceremony.Device{{TID: "T1", KSN: "FFFF9876543210E00000"}, {TID: "T2", KSN: "123456789012345600000000"}}
	if diff := cmp.Diff(want, devices); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	for name, c := range map[string]struct{ text, want string }{
		"empty":      {"", "begin with the line TID,KSN"},
		"no devices": {"TID,KSN\n", "names no device"},
		"short KSN":  {"TID,KSN\nT1,FFFF\n", "line 2: a KSN"},
		"no hex":     {"TID,KSN\nT1,FFFF9876543210E0000G\n", "line 2: a KSN"},
		"TID":        {"TID,KSN\nT 1,FFFF9876543210E00000\n", "line 2: the TID"},
		"twice":      {"TID,KSN\nT1,FFFF9876543210E00000\nT2,ffff9876543210e00000\n", "line 3: the KSN stands in it twice"},
		"columns":    {"TID,KSN\nT1\n", "wrong number of fields"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := ceremony.ParseList([]byte(c.text)); !errors.Is(err, ceremony.ErrScript) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want %q", err, c.want)
			}
		})
	}
}

func FuzzParseList(f *testing.F) {
	f.Add([]byte("TID,KSN\nT1,ffff9876543210e00000\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		devices, err := ceremony.ParseList(text)
		if (len(devices) == 0) == (err == nil) {
			t.Errorf("%d devices, error %v", len(devices), err)
		}
	})
}
