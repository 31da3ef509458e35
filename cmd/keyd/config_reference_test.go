package main

import (
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/pelletier/go-toml/v2"
)

// The lines of docs/OPERATIONS.md between which the reference stands.
const (
	referenceFile  = "../../docs/OPERATIONS.md"
	referenceBegin = "<!-- begin: made from the comments of cmd/keyd/config.go; KEYD_UPDATE_GOLDEN=1 go test ./cmd/keyd -run TestConfigReference -->\n\n"
	referenceEnd   = "<!-- end -->\n"
)

// TestConfigReference: docs/OPERATIONS.md says what the struct says.
func TestConfigReference(t *testing.T) {
	text, err := os.ReadFile(referenceFile)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(text), referenceBegin)
	was, after, closed := strings.Cut(rest, referenceEnd)
	if !ok || !closed {
		t.Fatalf("%s has not the two lines between which the reference stands", referenceFile)
	}
	made := writeReference()
	if os.Getenv("KEYD_UPDATE_GOLDEN") == "1" {
		if err := os.WriteFile(referenceFile, []byte(before+referenceBegin+made+referenceEnd+after), 0o644); err != nil {
			t.Fatal(err)
		}
		was = made
	}
	if diff := cmp.Diff(was, made); diff != "" {
		t.Errorf("the reference is not that of the struct (-file +made); KEYD_UPDATE_GOLDEN=1 writes it:\n%s", diff)
	}
}

// TestConfigReferenceDefaults: the default in a comment is the one that holds.
func TestConfigReferenceDefaults(t *testing.T) {
	// What other places fill in, where a name of another key is the default.
	elsewhere := map[string]bool{
		"upstream.acquirer_id": true, "upstream.link.server_name": true, "upstream.link.ca": true, "upstream.link.cert": true,
		"upstream.link.key": true, "upstream.link.min_tls": true, "upstream.link.dial_timeout": true,
		"ops.socket": true, "upstream.server_name": true, "audit_sink.server_name": true, "api.burst": true, "vault.dir": true,
		"terminal_profile.master_key": true, "terminal_profile.working_keys": true,
		"terminal_profile.mac_usage": true, "terminal_profile.mac_length": true,
		"terminal_profile.mac_algorithm": true, "terminal_profile.max_messages": true,
	}
	nothing := map[string]bool{"": true, "none": true, "nowhere": true, "no limit": true, "false": true, "0": true, "all of them": true}
	n := 0
	for _, s := range configSections() {
		for _, k := range s.keys {
			n++
			key := s.name + "." + k.name
			switch {
			case k.filled != "" && k.filled != k.fallback:
				t.Errorf("%s: the comment says default %q, fillDefaults gives %q", key, k.fallback, k.filled)
			case k.filled == "" && !nothing[k.fallback] && !elsewhere[key]:
				t.Errorf("%s: the comment says default %q, fillDefaults gives none", key, k.fallback)
			}
		}
	}
	if n < 80 {
		t.Fatalf("only %d keys found: the walk is wrong", n)
	}
}

// TestConfigExample: the example parses as it is, and with every key uncommented.
func TestConfigExample(t *testing.T) {
	example := writeExample()
	var full strings.Builder
	for line := range strings.Lines(example) {
		if strings.HasPrefix(line, "#") && !strings.HasPrefix(line, "# ") {
			line = line[1:]
		}
		full.WriteString(line)
	}
	for name, text := range map[string]string{"as it is": example, "uncommented": full.String()} {
		var c config
		dec := toml.NewDecoder(strings.NewReader(text)).DisallowUnknownFields()
		if err := dec.Decode(&c); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestSplitDefault(t *testing.T) {
	tests := []struct{ comment, meaning, fallback string }{
		{`Label of the token; default "keyd".`, "Label of the token.", "keyd"},
		{"Working sessions, 1 to 1024; default 2; network HSMs want more.", "Working sessions, 1 to 1024; network HSMs want more.", "2"},
		{"Unix socket; default keyd.sock beside the database.", "Unix socket.", "keyd.sock beside the database"},
		{"Others are unwrapped; default 10000. SoftHSM takes 8 KB.", "Others are unwrapped. SoftHSM takes 8 KB.", "10000"},
		{`"1.3" (default) or "1.2".`, `"1.3" (default) or "1.2".`, "1.3"},
		{"Path of the SQLite database.", "Path of the SQLite database.", ""},
	}
	for _, tt := range tests {
		meaning, fallback := splitDefault(tt.comment)
		if meaning != tt.meaning || fallback != tt.fallback {
			t.Errorf("splitDefault(%q) = %q, %q; want %q, %q", tt.comment, meaning, fallback, tt.meaning, tt.fallback)
		}
	}
}

func TestShortDuration(t *testing.T) {
	for text, want := range map[string]string{"2s": "2s", "5m": "5m", "168h": "168h", "90s": "1m30s", "100ms": "100ms", "10s": "10s", "20m": "20m", "1h30m": "1h30m"} {
		var d duration
		if err := d.UnmarshalText([]byte(text)); err != nil {
			t.Fatal(err)
		}
		if got := shortDuration(d.std()); got != want {
			t.Errorf("shortDuration(%s) = %q, want %q", text, got, want)
		}
	}
}
