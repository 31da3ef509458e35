package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"keyd.dev/keyd/audit"
	"keyd.dev/keyd/internal/sim"
)

// What an insider could do with the files of a node is tried on copies, where the
// folder of a development daemon is at hand.

// run runs a test here, or against the switch.
func (l *fraudLab) run(ctx context.Context, f *sim.Fraud, t sim.FraudTest) sim.Finding {
	local := map[string]struct {
		stops string
		run   func(context.Context, *sim.Finding) error
	}{
		"A-02.T3": {"the Merkle tree (L-141)", l.cutLog},
		"A-26.T1": {"card numbers are sealed, and masked in the log", func(ctx context.Context, found *sim.Finding) error {
			if err := f.Sell(ctx); err != nil {
				return fmt.Errorf("a sale whose card is to be looked for: %w", err)
			}
			return l.searchCards(ctx, found)
		}},
	}
	do, here := local[t.Test]
	if !here || l.dev == nil {
		return f.Run(ctx, t)
	}
	found := sim.Finding{Attack: t.Test[:4], Test: t.Test, Title: t.Title, Stopped: do.stops, Verdict: sim.FraudRefused}
	switch err := do.run(ctx, &found); {
	case errors.Is(err, errGotThrough):
		found.Verdict, found.Stopped = sim.FraudThrough, err.Error()
	case err != nil:
		found.Verdict, found.Stopped = sim.FraudFailed, err.Error()
	}
	return found
}

// errGotThrough marks what an insider could do unseen.
var errGotThrough = errors.New("nobody would notice")

// cutLog takes a record out of a copy of the log; the verifier must find it.
func (l *fraudLab) cutLog(_ context.Context, found *sim.Finding) error {
	dir, err := os.MkdirTemp("", "keyd-fraud-*")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	vkey, err := os.ReadFile(l.dev.AuditVkey)
	if err != nil {
		return err
	}
	keys := strings.Fields(string(vkey))
	dir = filepath.Join(dir, "log")
	bundle, err := l.copyLog(dir, keys)
	if err != nil {
		return fmt.Errorf("copying the log: %w", err)
	}
	text, err := os.ReadFile(bundle)
	if err != nil {
		return err
	}
	if len(text) < 2 {
		return fmt.Errorf("%s holds no record", bundle)
	}
	after := 2 + int(binary.BigEndian.Uint16(text)) // two bytes of length, and the record
	if after > len(text) {
		return fmt.Errorf("%s holds no whole record", bundle)
	}
	if err := os.WriteFile(bundle, text[after:], 0o600); err != nil {
		return err
	}
	report, err := audit.Verify(dir, keys, audit.VerifyOptions{})
	found.Tried = append(found.Tried, "one record taken out of a copy of the log")
	if err == nil && report.OK() {
		return fmt.Errorf("%w: the log without the record verifies", errGotThrough)
	}
	found.Seen = append(found.Seen, "the copy does not verify")
	return nil
}

// copyLog copies the log of the daemon, which goes on, until a copy verifies, and
// returns the file of the copy's first records. A young log has no checkpoint
// yet, and files that are copied one after the other need not be of one moment.
func (l *fraudLab) copyLog(dir string, keys []string) (bundle string, err error) {
	var wrong error
	err = l.Settled(func() (bool, error) {
		if err := os.RemoveAll(dir); err != nil {
			return false, err
		}
		bundle, wrong = tryCopy(dir, l.dev.AuditDir, keys)
		return wrong == nil, nil
	})
	if err != nil {
		return "", fmt.Errorf("%w: %w", err, wrong)
	}
	return bundle, nil
}

func tryCopy(dir, from string, keys []string) (bundle string, err error) {
	if err := os.CopyFS(dir, os.DirFS(from)); err != nil {
		return "", err
	}
	report, err := audit.Verify(dir, keys, audit.VerifyOptions{})
	if err != nil {
		return "", err
	}
	if !report.OK() {
		return "", fmt.Errorf("the copy does not verify: %v", report.Findings[:min(1, len(report.Findings))])
	}
	return firstBundle(dir)
}

// firstBundle is the file of the first records of sec, all of which its
// checkpoint covers: what lies beside it may be newer, or half written.
func firstBundle(dir string) (string, error) {
	const full = 256 // records (L-43)
	r, err := audit.OpenReader(dir)
	if err != nil {
		return "", err
	}
	covered, _, err := r.Size(audit.Sec.String())
	if err != nil {
		return "", err
	}
	name := filepath.Join(dir, audit.Sec.String(), "tile", "entries", "000")
	switch {
	case covered == 0:
		return "", errors.New("no checkpoint covers a record yet")
	case covered < full:
		name = filepath.Join(name+".p", strconv.FormatUint(covered, 10))
	}
	return name, nil
}

// searchCards looks for the card of the trial, with which there has been a sale, in all that the daemon has written
// and in its metrics.
func (l *fraudLab) searchCards(ctx context.Context, found *sim.Finding) error {
	packed, err := hex.DecodeString(l.Card + strings.Repeat("0", len(l.Card)%2))
	if err != nil {
		return err
	}
	forms := [][]byte{[]byte(l.Card), packed, []byte(hex.EncodeToString([]byte(l.Card))), []byte(strings.ToUpper(hex.EncodeToString([]byte(l.Card)))),
		[]byte(base64.StdEncoding.EncodeToString([]byte(l.Card)))[:len(l.Card)]}
	var texts int
	look := func(name string, text []byte) error {
		texts++
		if slices.ContainsFunc(forms, func(form []byte) bool { return bytes.Contains(text, form) }) {
			return fmt.Errorf("%w: the number of the card stands in %s", errGotThrough, name)
		}
		return nil
	}
	database := filepath.Join(l.dir, "keyd.db")
	if _, err := os.Stat(database); err != nil {
		return fmt.Errorf("the database, which should hold the card sealed: %w", err)
	}
	files, err := filepath.Glob(database + "*")
	if err != nil {
		return err
	}
	err = filepath.WalkDir(l.dev.AuditDir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			files = append(files, path)
		}
		return err
	})
	if err != nil {
		return err
	}
	for _, name := range files {
		text, err := os.ReadFile(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue // a file that is gone meanwhile
		}
		if err == nil {
			err = look(name, text)
		}
		if err != nil {
			return err
		}
	}
	metrics, err := l.metrics(ctx)
	if err == nil {
		err = look("the metrics", metrics)
	}
	found.Tried = append(found.Tried, fmt.Sprintf("the card's number in five forms in %d files and the metrics", texts-1))
	if err != nil {
		return err
	}
	found.Seen = append(found.Seen, "nowhere")
	return nil
}

func (l *fraudLab) metrics(ctx context.Context) ([]byte, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+l.dev.OpsAddr+"/metrics", nil)
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: %s in place of the metrics", r.URL, resp.Status)
	}
	return io.ReadAll(resp.Body)
}
