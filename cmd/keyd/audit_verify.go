package main

import (
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"time"

	"keyd.dev/keyd/audit"
)

type auditVerifyCmd struct {
	auditSource     `embed:""`
	Vkey            []string `placeholder:"FILE" help:"Verification keys of the log, one a line, from whoever made them; repeatable. Without it the key in the log's own folder is used, which shows damage but not a forger."`
	Log             []string `placeholder:"LOG" help:"Check only this log, sec or ops-2026-11; repeatable."`
	Archive         string   `placeholder:"DIR" xor:"source" help:"Check an archive of a month, that keyd audit archive made, as it is packed."`
	SinceSize       *uint64  `placeholder:"N" help:"An earlier size of the log, which is named by one --log: prove that it began as it was then; with --root."`
	Root            string   `placeholder:"BASE64" help:"The root that the log had at --since-size."`
	SinceCheckpoint []string `placeholder:"FILE" help:"An earlier checkpoint that was kept: prove that the log began as it was then; repeatable."`
	Proof           []string `placeholder:"FILE" xor:"source" help:"Check a proof that keyd audit prove wrote, with nothing else but --vkey; repeatable."`
	JSON            bool     `help:"Print JSON."`
}

// mostFindings bounds what is printed; the number of all is.
const mostFindings = 20

// Run checks the folder. The verdict comes last, after all checks ran (L-182).
func (c *auditVerifyCmd) Run(p *program) error {
	if c.Archive != "" {
		return c.archive(p)
	}
	if len(c.Proof) > 0 {
		return c.proofs(p)
	}
	dir, note, err := c.open(p, auditRead{Command: audit.QueryVerify, Filter: strings.Join(c.Log, " ")})
	if err != nil {
		return err
	}
	vkeys, err := c.vkeys(p, dir)
	if err != nil {
		return c.damaged(p, err)
	}
	if err := note(p.ctx, p.stderr, auditRead{Command: audit.QueryVerify, Filter: strings.Join(c.Log, " ")}); err != nil {
		return err
	}
	report, err := c.verify(p.ctx, dir, vkeys)
	if err != nil {
		return c.damaged(p, err)
	}
	if err := c.print(p, report); err != nil {
		return err
	}
	return proved(report)
}

// proved is nil for a report that proves all that was to be checked.
func proved(report audit.Report) error {
	switch {
	case report.OK():
		return nil
	case report.Failed == 0:
		return printed{errUndecided}
	}
	return printed{errCheckFailed}
}

// A folder at which a daemon works moves under the reader: a checkpoint may be
// newer than the tiles that were read before it. What is wrong stays wrong.
const (
	verifyTries = 4
	verifyPause = 1200 * time.Millisecond // longer than the time between checkpoints
)

// verify checks the folder, and again when something seems wrong, until two
// checks in a row say the same.
func (c *auditVerifyCmd) verify(ctx context.Context, dir string, vkeys []string) (audit.Report, error) {
	since, err := c.since(vkeys)
	if err != nil {
		return audit.Report{}, err
	}
	o := audit.VerifyOptions{Logs: c.Log, Since: since}
	report, err := audit.Verify(dir, vkeys, o)
	for try := 1; try < verifyTries && (err != nil || !report.OK()); try++ {
		select {
		case <-ctx.Done():
			return report, ctx.Err()
		case <-time.After(verifyPause):
		}
		before, failed := report, err
		report, err = audit.Verify(dir, vkeys, o)
		if reflect.DeepEqual(before, report) && (failed == nil) == (err == nil) {
			break
		}
	}
	return report, err
}

// damaged tells a log that is not whole from one that cannot be read.
func (c *auditVerifyCmd) damaged(p *program, err error) error {
	for _, sign := range []error{audit.ErrCorrupt, audit.ErrFormat, audit.ErrSignature} {
		if errors.Is(err, sign) {
			report := audit.Report{Failed: 1, Findings: []audit.Finding{{Rule: "L-141", Where: "log", Detail: err.Error()}}}
			return errors.Join(c.print(p, report), printed{errCheckFailed})
		}
	}
	return fmt.Errorf("verifying the audit log: %w", err)
}

// vkeys returns a key for every log of the folder. Who vouches for one log of a
// node vouches for all of them, since they are signed with one key; so the
// months that begin after the key was handed over need no new one.
func (c *auditVerifyCmd) vkeys(p *program, dir string) ([]string, error) {
	reader, err := openLog(dir)
	if err != nil {
		return nil, err
	}
	names, err := reader.Logs()
	if err != nil {
		return nil, err
	}
	given, err := c.givenVkeys(p, dir)
	if err != nil {
		return nil, err
	}
	seen := make(map[string]bool)
	var all []string
	for _, key := range given {
		origin, err := audit.OriginOf(key)
		if err != nil {
			return nil, err
		}
		pub, err := publicKey(key)
		if err != nil {
			return nil, err
		}
		node := origin[:strings.LastIndexByte(origin, '/')+1]
		for _, name := range names {
			v, err := audit.Vkey(node+name, pub)
			if err != nil {
				return nil, err
			}
			if !seen[v] {
				seen[v] = true
				all = append(all, v)
			}
		}
	}
	return all, nil
}

// awaitFirstCheckpoint waits, not for long, for the key of a log that has only
// just begun: it stands beside the first checkpoint.
func awaitFirstCheckpoint(ctx context.Context, vkey string) {
	for range verifyTries {
		if _, err := os.Stat(vkey); !errors.Is(err, fs.ErrNotExist) {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(verifyPause / verifyTries):
		}
	}
}

// givenVkeys reads the keys of --vkey, else that of the folder.
func (c *auditVerifyCmd) givenVkeys(p *program, dir string) ([]string, error) {
	files := c.Vkey
	if len(files) == 0 {
		files = []string{filepath.Join(dir, audit.Sec.String(), "vkey")}
		if _, err := fmt.Fprintf(p.stderr, "%s: without --vkey the key in the log's own folder is used: damage shows, a forger with a key of his own does not\n", programName); err != nil {
			return nil, err
		}
		awaitFirstCheckpoint(p.ctx, files[0])
	}
	var keys []string
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return nil, advise(fmt.Errorf("reading the verification key: %w", err), "name a file with it by --vkey")
		}
		for line := range strings.Lines(string(text)) {
			if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
				keys = append(keys, line)
			}
		}
	}
	if len(keys) == 0 {
		return nil, usageError("no verification key in %s", strings.Join(files, ", "))
	}
	return keys, nil
}

// The types of keys in a vkey (L-52).
const (
	vkeyEd25519 = 0x01
	vkeyECDSA   = 0x02
)

// publicKey takes the public key out of a vkey, NAME+HASH+BASE64.
func publicKey(vkey string) (crypto.PublicKey, error) {
	// The base64 may hold "+" itself; name and hash do not.
	parts := strings.SplitN(vkey, "+", 3)
	if len(parts) == 3 {
		raw, err := base64.StdEncoding.DecodeString(parts[2])
		switch {
		case err != nil || len(raw) == 0:
		case raw[0] == vkeyEd25519 && len(raw) == 1+ed25519.PublicKeySize:
			return ed25519.PublicKey(raw[1:]), nil
		case raw[0] == vkeyECDSA:
			return x509.ParsePKIXPublicKey(raw[1:])
		}
	}
	return nil, usageError("%q is not a verification key", vkey)
}
