package main

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"keyd.dev/keyd/audit"
)

// verdict is the report as JSON. Its form is stable for scripts (L-182).
type verdict struct {
	OK        bool             `json:"ok"`
	Failed    int              `json:"failed"`
	Undecided int              `json:"undecided"`
	Logs      []verdictLog     `json:"logs,omitzero"`
	Proofs    []verdictProof   `json:"proofs,omitzero"`
	Findings  []verdictFinding `json:"findings"` // the first first
	Changes   []verdictChange  `json:"key_changes,omitempty"`
}

// verdictChange is a change of the key that signs checkpoints.
type verdictChange struct {
	Seq   uint64    `json:"seq"` // in sec
	At    time.Time `json:"ts"`
	Lost  bool      `json:"lost"`  // there was no overlap
	Vkeys []string  `json:"vkeys"` // the new key, then those before
}

type verdictLog struct {
	Log     string `json:"log"`
	Origin  string `json:"origin"`
	Size    uint64 `json:"size"`
	Durable uint64 `json:"durable"`
	Root    string `json:"root"`
}

type verdictProof struct {
	File   string          `json:"file"`
	Origin string          `json:"origin"`
	Index  uint64          `json:"index"`
	Size   uint64          `json:"size"`
	Root   string          `json:"root"`
	Record json.RawMessage `json:"record"`
}

type verdictFinding struct {
	Rule      string `json:"rule"`
	Where     string `json:"where"`
	Detail    string `json:"detail"`
	Undecided bool   `json:"undecided,omitempty"`
}

// reportVerdict makes a verdict of a report.
func reportVerdict(report audit.Report) verdict {
	v := verdict{OK: report.OK(), Failed: report.Failed, Undecided: len(report.Undecided), Logs: []verdictLog{}}
	for _, l := range report.Logs {
		v.Logs = append(v.Logs, verdictLog{l.Log, l.Origin, l.Size, l.Durable, base64.StdEncoding.EncodeToString(l.Root[:])})
	}
	for _, c := range report.KeyChanges {
		v.Changes = append(v.Changes, verdictChange(c))
	}
	v.find(report.Findings, false)
	v.find(report.Undecided, true)
	if !v.OK && len(v.Findings) == 0 {
		v.Undecided = 1
		v.find([]audit.Finding{{Rule: "L-141", Where: "log", Detail: "nothing was found to verify"}}, true)
	}
	return v
}

func (v *verdict) find(all []audit.Finding, undecided bool) {
	if v.Findings == nil {
		v.Findings = []verdictFinding{}
	}
	for _, f := range all {
		v.Findings = append(v.Findings, verdictFinding{f.Rule, f.Where, f.Detail, undecided})
	}
}

func (c *auditVerifyCmd) print(p *program, report audit.Report) error {
	return c.show(p, reportVerdict(report))
}

// show prints a verdict. Its last line says OK for what was proved, or FAIL with
// the first check that failed or could not be made.
func (c *auditVerifyCmd) show(p *program, v verdict) error {
	if c.JSON {
		enc := json.NewEncoder(p.stdout)
		enc.SetEscapeHTML(false)
		return enc.Encode(v)
	}
	var text strings.Builder
	if v.OK {
		for _, c := range v.Changes {
			text.WriteString(c.text())
		}
		for _, l := range v.Logs {
			fmt.Fprintf(&text, "OK %s size=%d root=%s\n", l.Origin, l.Size, l.Root)
		}
		for _, f := range v.Proofs {
			fmt.Fprintf(&text, "%s\nOK %s size=%d root=%s\n", f.Record, f.Origin, f.Size, f.Root)
		}
	} else {
		for i, f := range v.Findings {
			if i == mostFindings {
				break
			}
			open := ""
			if f.Undecided {
				open = " (cannot be decided)"
			}
			fmt.Fprintf(&text, "%s %s: %s%s\n", f.Rule, f.Where, f.Detail, open)
		}
		fmt.Fprintf(&text, "%d failed checks", v.Failed)
		if v.Undecided > 0 {
			fmt.Fprintf(&text, ", %d that could not be decided", v.Undecided)
		}
		fmt.Fprintf(&text, "\nFAIL %s %s\n", v.Findings[0].Rule, v.Findings[0].Where)
	}
	_, err := fmt.Fprint(p.stdout, text.String())
	return err
}

// text says where the key changed, by the key ids that stand in its vkeys.
func (c *verdictChange) text() string {
	ids := make([]string, len(c.Vkeys))
	for i, vkey := range c.Vkeys {
		ids[i] = strings.SplitN(vkey+"++", "+", 3)[1]
	}
	at := fmt.Sprintf("changed at sec:%d, %s", c.Seq, c.At.Format(time.RFC3339))
	before := strings.Join(ids[1:], " and ")
	if c.Lost {
		return fmt.Sprintf("%s: the key before, %s, was lost; from here on %s signs\n", at, before, ids[0])
	}
	return fmt.Sprintf("%s: from here on %s signs, for a time beside %s\n", at, ids[0], before)
}
