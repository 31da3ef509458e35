package main

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"text/tabwriter"
)

type keyShowCmd struct {
	doorFlags
	keyNamed
	JSON bool `help:"Print the daemon's answer, JSON."`
}

// keyDetail is the answer of keyd's own GetKey.
type keyDetail struct {
	Key                keyAnswer
	KeyVersion         int
	LMKGeneration      int
	Aliases            []string
	Tags               []struct{ Key, Value string }
	Uses               uint64
	MaxUses            uint64
	FirstUseTimestamp  apiTime
	LastUseTimestamp   apiTime
	NotBeforeTimestamp apiTime
	NotAfterTimestamp  apiTime
	RetiresTimestamp   apiTime
	SuccessorKeyArn    string
	OlderVersions      []struct {
		KeyArn           string
		KeyVersion       int
		KeyState         string
		Enabled          bool
		RetiresTimestamp apiTime
	}
}

// Run prints what a key is, may do, has done, and how long it lives.
func (c *keyShowCmd) Run(p *program) error {
	d, err := c.open()
	if err != nil {
		return err
	}
	var raw json.RawMessage
	if err := d.own(p.ctx, "GetKey", map[string]any{"KeyIdentifier": c.Named}, &raw); err != nil {
		return err
	}
	if c.JSON {
		_, err := fmt.Fprintf(p.stdout, "%s\n", raw)
		return err
	}
	var k keyDetail
	if err := json.Unmarshal(raw, &k); err != nil {
		return err
	}
	tab := tabwriter.NewWriter(p.stdout, 0, 4, 2, ' ', 0)
	for _, line := range k.lines() {
		if line[1] != "" && line[1] != "-" {
			fmt.Fprintf(tab, "%s\t%s\n", line[0], line[1])
		}
	}
	return tab.Flush()
}

// lines are the rows of the report; what is absent is empty.
func (k keyDetail) lines() [][2]string {
	a := k.Key.KeyAttributes
	exportable := "no"
	if k.Key.Exportable {
		exportable = "yes"
	}
	uses := strconv.FormatUint(k.Uses, 10)
	if k.MaxUses > 0 {
		uses += " of " + strconv.FormatUint(k.MaxUses, 10)
	}
	lines := [][2]string{
		{"key", k.Key.KeyArn},
		{"aliases", strings.Join(k.Aliases, ", ")},
		{"state", k.Key.state()},
		{"version", strconv.Itoa(k.KeyVersion)},
		{"usage", a.KeyUsage},
		{"algorithm", a.KeyAlgorithm},
		{"mode", modeCode(a.KeyModesOfUse)},
		{"exportable", exportable},
		{"check value", k.Key.KeyCheckValue + " (" + k.Key.KeyCheckValueAlgorithm + ")"},
		{"local master key", strconv.Itoa(k.LMKGeneration)},
		{"made", k.Key.CreateTimestamp.String()},
		{"started", k.Key.UsageStartTimestamp.String()},
		{"stopped", k.Key.UsageStopTimestamp.String()},
		{"not before", k.NotBeforeTimestamp.String()},
		{"not after", k.NotAfterTimestamp.String()},
		{"uses", uses},
		{"first use", k.FirstUseTimestamp.String()},
		{"last use", k.LastUseTimestamp.String()},
		{"replaced by", k.SuccessorKeyArn},
		{"verifies until", k.RetiresTimestamp.String()},
	}
	for _, tag := range k.Tags {
		lines = append(lines, [2]string{"tag", tag.Key + "=" + tag.Value})
	}
	for _, v := range k.OlderVersions {
		state := v.KeyState
		if v.Enabled {
			state += ", verifies until " + v.RetiresTimestamp.String()
		}
		lines = append(lines, [2]string{"version " + strconv.Itoa(v.KeyVersion), v.KeyArn + ": " + state})
	}
	return lines
}

// modeCode is the mode of X9.143 that sets these members.
func modeCode(flags map[string]bool) string {
	for code, members := range modeMembers {
		set := 0
		for _, on := range flags {
			if on {
				set++
			}
		}
		same := set == len(members)
		for _, member := range members {
			same = same && flags[member]
		}
		if same {
			return code
		}
	}
	return ""
}
