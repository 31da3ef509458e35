package main

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"keyd.dev/keyd/audit"
)

// since collects what the auditor kept of the log from earlier.
func (c *auditVerifyCmd) since(vkeys []string) ([]audit.Earlier, error) {
	var all []audit.Earlier
	if c.SinceSize != nil || c.Root != "" {
		root, err := base64.StdEncoding.Strict().DecodeString(c.Root)
		switch {
		case c.SinceSize == nil || c.Root == "":
			return nil, usageError("--since-size and --root belong together")
		case len(c.Log) != 1:
			return nil, usageError("--since-size is of one log; name it by --log")
		case err != nil || len(root) != len(audit.Hash{}):
			return nil, usageError("--root=%q is no root, 32 bytes in base64 as the third line of a checkpoint", c.Root)
		}
		all = append(all, audit.Earlier{Log: c.Log[0], Size: *c.SinceSize, Root: audit.Hash(root)})
	}
	for _, file := range c.SinceCheckpoint {
		msg, err := os.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("reading the earlier checkpoint: %w", err)
		}
		cp, err := audit.CheckCheckpoint(msg, vkeys)
		if err != nil {
			return nil, fmt.Errorf("the earlier checkpoint %s: %w", file, err)
		}
		all = append(all, audit.Earlier{Log: logOf(cp.Origin), Size: cp.Size, Root: cp.Root, Origin: cp.Origin})
	}
	return all, nil
}

// logOf is the log's name in an origin.
func logOf(origin string) string { return origin[strings.LastIndexByte(origin, '/')+1:] }

// proofs checks proofs, offline.
func (c *auditVerifyCmd) proofs(p *program) error {
	if len(c.Vkey) == 0 {
		return usageError("a proof proves something only under a key from elsewhere; name its file by --vkey")
	}
	if c.SinceSize != nil || c.Root != "" || len(c.SinceCheckpoint) > 0 || len(c.Log) > 0 {
		return usageError("--proof goes with --vkey and --json alone")
	}
	vkeys, err := c.givenVkeys(p, "")
	if err != nil {
		return err
	}
	v := verdict{Findings: []verdictFinding{}}
	for _, file := range c.Proof {
		f, err := checkProofFile(file, vkeys)
		var unread *fs.PathError
		switch {
		case errors.As(err, &unread):
			v.Undecided++
			v.find([]audit.Finding{{Rule: "L-140", Where: file, Detail: err.Error()}}, true)
		case err != nil:
			v.Failed++
			v.find([]audit.Finding{{Rule: "L-140", Where: file, Detail: err.Error()}}, false)
		default:
			v.Proofs = append(v.Proofs, f)
		}
	}
	v.OK = len(v.Findings) == 0
	if err := c.show(p, v); err != nil || v.OK {
		return err
	}
	if v.Failed == 0 {
		return printed{errUndecided}
	}
	return printed{errCheckFailed}
}

// checkProofFile checks one proof, and that the record in it says of its place
// what the proof says.
func checkProofFile(file string, vkeys []string) (verdictProof, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return verdictProof{}, err
	}
	got, err := audit.CheckProof(text, vkeys)
	if err != nil {
		return verdictProof{}, err
	}
	var says struct {
		Log string  `json:"log"`
		Seq *uint64 `json:"seq"`
	}
	if err := json.Unmarshal(got.Raw, &says); err != nil {
		return verdictProof{}, fmt.Errorf("%w: what it proves is no record: %w", errCheckFailed, err)
	}
	if says.Seq == nil || *says.Seq != got.Seq || says.Log != logOf(got.Origin) {
		return verdictProof{}, fmt.Errorf("%w: the record is not the one of %s at %d", errCheckFailed, got.Origin, got.Seq)
	}
	return verdictProof{file, got.Origin, got.Seq, got.Size, base64.StdEncoding.EncodeToString(got.Root[:]), got.Raw}, nil
}
