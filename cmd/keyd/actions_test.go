package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"keyd.dev/keyd/audit"
)

// logged is what tests read of a record.
type logged struct {
	Seq                                             int64
	Action, Class, Phase, Outcome, Reason, RC, Corr string
	Actor                                           struct{ ID, Kind, Authn string }
	HSM                                             struct{ Serial, FW string }
	Change                                          struct{ Kind, Object, Before, After string }
	Approvals                                       []struct{ ID string }
	Alarm                                           struct{ Code, Level string }
	Import                                          struct {
		Source, Hash   string
		First, Last, N int64
	}
	Cer   struct{ ID, Step, Sig, Custodian string }
	ISO   struct{ MTI, Rule, DE39 string }
	MAC   struct{ Alg, Verdict string }
	Scrub []any

	raw string
}

// recordsOf reads every record of a folder, that of sec first. None may be
// scrubbed, but for names that no registry has.
func recordsOf(t *testing.T, dir string) []logged {
	t.Helper()
	reader, err := audit.OpenReader(dir)
	if err != nil {
		t.Fatal(err)
	}
	var all []logged
	logs, err := reader.Logs()
	if err != nil {
		t.Fatal(err)
	}
	for _, log := range logs {
		for entry, err := range reader.Records(log, 0) {
			if err != nil {
				t.Fatal(err)
			}
			r := logged{raw: string(entry.Raw)}
			if err := json.Unmarshal(entry.Raw, &r); err != nil {
				t.Fatal(err)
			}
			if bytes.Contains(strangers.ReplaceAll(entry.Raw, nil), []byte(`"scrub":[`)) {
				t.Errorf("L-74 scrubbed: %s", entry.Raw)
			}
			all = append(all, r)
		}
	}
	return all
}

// actionList is the checklist of section 8 of the log's specification: for every
// action its log, its phases, its groups, and the test that proves that it is
// written. `make coverage-spec` wants each of these tests to have run.
const actionList = "../../scripts/specs/actions.tsv"

// actionRow is a line of the checklist.
type actionRow struct {
	action, log string
	twice       bool
	groups      []string
	proof       string // package and test; or why there is no such act
}

// readActions reads the checklist.
func readActions() ([]actionRow, error) {
	text, err := os.ReadFile(actionList)
	if err != nil {
		return nil, err
	}
	var rows []actionRow
	for n, line := range strings.Split(strings.TrimSuffix(string(text), "\n"), "\n") {
		if strings.HasPrefix(line, "#") || line == "" {
			continue
		}
		f := strings.Split(line, "\t")
		if len(f) != 5 {
			return nil, fmt.Errorf("%s:%d: %d fields, want 5", actionList, n+1, len(f))
		}
		rows = append(rows, actionRow{f[0], f[1], f[2] == "I+O", strings.Fields(strings.Trim(f[3], "-")), f[4]})
	}
	return rows, nil
}

// groupMembers is the member of a record that each group needs.
var groupMembers = map[string]string{
	"K": "keys", "P": "pin", "M": "mac", "I": "iso", "C": "cer", "A": "change", "Q": "query", "T": "trees",
	"V": "vkeys", "W": "wal", "S": "sink", "N": "count", "L": "alarm", "D": "disk", "X": "step", "H": "hsm",
}

// missingActions says which of the actions that a test proves its logs do not
// have: both records where the action has an intent, in the log of the action,
// with a member of each group that it needs, and nothing in them scrubbed.
func missingActions(rows []actionRow, test string, dirs []string) ([]string, error) {
	type proof struct{ intent, outcome bool }
	wanted := make(map[string]actionRow)
	for _, row := range rows {
		if row.proof == "cmd/keyd "+test {
			wanted[row.action] = row
		}
	}
	if len(wanted) == 0 {
		return nil, nil
	}
	found := make(map[string]proof)
	for _, dir := range dirs {
		err := eachRecord(dir, func(log string, raw []byte) error {
			var r map[string]json.RawMessage
			if err := json.Unmarshal(raw, &r); err != nil {
				return err
			}
			row, ok := wanted[strings.Trim(string(r["action"]), `"`)]
			if !ok || row.log != "both" && !strings.HasPrefix(log, row.log) || r["scrub"] != nil && !strangers.Match(raw) {
				return nil
			}
			for _, group := range row.groups {
				if r[groupMembers[group]] == nil {
					return nil
				}
			}
			p := found[row.action]
			p.intent = p.intent || string(r["phase"]) == `"intent"`
			p.outcome = p.outcome || string(r["phase"]) == `"outcome"`
			found[row.action] = p
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	var missing []string
	for action, row := range wanted {
		if p := found[action]; !p.outcome || row.twice && !p.intent {
			missing = append(missing, action)
		}
	}
	slices.Sort(missing)
	return missing, nil
}

// eachRecord reads a log of a stopped or a running node.
func eachRecord(dir string, f func(log string, raw []byte) error) error {
	reader, err := audit.OpenReader(dir)
	if err != nil {
		return err
	}
	logs, err := reader.Logs()
	if err != nil {
		return err
	}
	for _, log := range logs {
		first, err := reader.First(log) // a script may have pruned a month
		if err != nil {
			return err
		}
		for entry, err := range reader.Records(log, first) {
			if err != nil {
				return err
			}
			if err := f(log, entry.Raw); err != nil {
				return err
			}
		}
	}
	return nil
}

// provesActions fails a script that leaves no record of an action that it proves.
func provesActions(env *testscript.Env) {
	_, test, _ := strings.Cut(env.WorkDir, "script-")
	if repository, err := filepath.Abs("../.."); err == nil {
		env.Setenv("REPO", repository) // where scripts find what is in docs
	}
	env.Defer(func() {
		rows, err := readActions()
		if err == nil {
			var dirs, missing []string
			dirs, err = logFolders(env.WorkDir)
			if err == nil {
				missing, err = missingActions(rows, "TestScripts/"+test, dirs)
			}
			if out := os.Getenv("KEYD_SHOW_ACTIONS"); out != "" {
				showActions(out, test, dirs)
			}
			if len(missing) > 0 {
				err = errors.Join(err, fmt.Errorf("L-80 the log has no whole record of %q, which this script proves (%s)", missing, actionList))
			}
		}
		if err != nil {
			env.T().Fatal(err)
		}
	})
}

// showActions appends what a script's logs hold, by which the checklist is made.
func showActions(out, test string, dirs []string) {
	f, err := os.OpenFile(out, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return
	}
	defer f.Close()
	seen := make(map[string]bool)
	for _, dir := range dirs {
		_ = eachRecord(dir, func(log string, raw []byte) error {
			var r struct{ Action, Phase, Outcome string }
			if json.Unmarshal(raw, &r) == nil && !seen[r.Action+r.Phase+r.Outcome] {
				seen[r.Action+r.Phase+r.Outcome] = true
				fmt.Fprintf(f, "%s\t%s\t%s %s\n", r.Action, test, r.Phase, r.Outcome)
			}
			return nil
		})
	}
}

// logFolders are the logs below a folder.
func logFolders(root string) ([]string, error) {
	var dirs []string
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if !d.IsDir() && d.Name() == "manifest.json" && filepath.Base(filepath.Dir(path)) == "audit" {
			dirs = append(dirs, filepath.Dir(path))
		}
		return nil
	})
	return dirs, err
}

// actsIn is the same for a test that is no script: its log must have what it
// proves. The subtest is what `make coverage-spec` looks for.
func actsIn(t *testing.T, dir string) {
	t.Helper()
	test := t.Name()
	t.Run("L-80 acts", func(t *testing.T) {
		rows, err := readActions()
		if err != nil {
			t.Fatal(err)
		}
		missing, err := missingActions(rows, test, []string{dir})
		if err != nil {
			t.Fatal(err)
		}
		if len(missing) > 0 {
			t.Errorf("L-80 the log has no whole record of %q, which this test proves", missing)
		}
	})
}

// TestActionList holds the checklist against the actions that there are, and
// against the tests that it names.
func TestActionList(t *testing.T) {
	rows, err := readActions()
	if err != nil {
		t.Fatal(err)
	}
	listed := make(map[string]bool)
	for _, row := range rows {
		a, ok := audit.ParseAction(row.action)
		if !ok || listed[row.action] {
			t.Errorf("L-80 %s is no action, or is listed twice", row.action)
		}
		listed[row.action] = true
		if log := map[audit.LogID]string{0: "both", audit.Sec: "sec", audit.Ops: "ops"}[a.Log()]; ok && (row.log != log || row.twice != a.HasIntent()) {
			t.Errorf("L-80 %s: log %s, twice %t; the log writes it to %s, twice %t", row.action, row.log, row.twice, log, a.HasIntent())
		}
		if why, none := strings.CutPrefix(row.proof, "none: "); none && len(why) < 20 {
			t.Errorf("L-80 %s: there is no such act, and it is not said why", row.action)
		}
		if name, script := strings.CutPrefix(row.proof, "cmd/keyd TestScripts/"); script {
			if _, err := os.Stat(filepath.Join("testdata", "script", name+".txtar")); err != nil {
				t.Errorf("L-80 %s: %v", row.action, err)
			}
		}
	}
	for a := audit.Action(1); a.String() != "?"; a++ {
		if !listed[a.String()] {
			t.Errorf("L-80 %v is not in the checklist", a)
		}
	}
}
