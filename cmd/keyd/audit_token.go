package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sort"
	"time"

	"github.com/alecthomas/kong"

	"keyd.dev/keyd/audit"
	"keyd.dev/keyd/internal/custody"
	"keyd.dev/keyd/internal/logindex"
)

// Of a card, keyd audit find takes the number from standard input, never from
// its arguments, which others on the machine see; the daemon makes the token by
// which the log knows the card, once a second person agrees (L-105, decision
// 0050).

// The digits of a card, and what may come with them on standard input.
const (
	leastCard    = 8
	mostCard     = 19
	mostCardLine = 64
)

// readCard reads one card number; spaces and dashes between digits are taken
// out. The caller clears it. No error repeats any of it.
func readCard(in io.Reader) ([]byte, error) {
	var line [mostCardLine + 1]byte
	defer clear(line[:])
	n, err := io.ReadFull(in, line[:])
	switch {
	case err == nil:
		return nil, usageError("--pan -: more than one card number on standard input")
	case !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF):
		return nil, fmt.Errorf("reading the card number: %w", err)
	}
	digits := make([]byte, 0, mostCardLine)
	for i, b := range line[:n] {
		switch {
		case b >= '0' && b <= '9':
			digits = append(digits, b)
		case b == ' ', b == '-', i == n-1 && b == '\n', i == n-2 && b == '\r':
		default:
			clear(digits)
			return nil, usageError("--pan -: standard input must hold one card number and nothing else")
		}
	}
	if len(digits) < leastCard || len(digits) > mostCard {
		clear(digits)
		return nil, usageError("--pan -: a card number has %d to %d digits", leastCard, mostCard)
	}
	return digits, nil
}

// cardTokens asks the daemon for the tokens of the card on standard input, the
// present one first.
func (f *auditDoor) cardTokens(ctx context.Context, in io.Reader) ([]string, error) {
	if !f.named() {
		return nil, usageError("--pan -: only a daemon makes the token of a card, for a client of the role auditor: name it by --url, --ca, --cert and --cert-key")
	}
	d, err := f.door()
	if err != nil {
		return nil, err
	}
	digits, err := readCard(in)
	if err != nil {
		return nil, err
	}
	body := append(append([]byte(`{"Pan":"`), digits...), `"}`...)
	clear(digits)
	defer clear(body)
	header := http.Header{"Content-Type": {"application/x-amz-json-1.0"}, "X-Amz-Target": {"KeydControlPlane." + string(custody.OpGetCardToken)}}
	answer, err := d.post(ctx, "/", header, body)
	if err != nil {
		return nil, fmt.Errorf("nothing is shown: %w: %w", errUnrecorded, err)
	}
	if answer.code != http.StatusOK {
		return nil, noToken(refusedBy(answer.status, answer.body))
	}
	var got struct{ Tokens []string }
	if err := json.Unmarshal(answer.body, &got); err != nil || len(got.Tokens) == 0 {
		return nil, errors.New("the daemon's answer is not what was expected; are command and daemon of one version?")
	}
	return got.Tokens, nil
}

// noToken is the daemon's refusal of a token.
func noToken(err error) error {
	var refused *refusedError
	if errors.As(err, &refused) && refused.Type == "ThrottlingException" {
		return advise(fmt.Errorf("nothing is shown: %w: %w", errAccess, err), "at most 60 tokens of cards leave a node within an hour")
	}
	return notShown(err)
}

// cardArg is the value of --pan, which can only be "-". What else somebody typed
// there may be a card number, and no message repeats it.
type cardArg bool

// Decode implements kong.MapperValue.
func (a *cardArg) Decode(ctx *kong.DecodeContext) error {
	token, err := ctx.Scan.PopValue("-")
	if err != nil {
		return err
	}
	if token.String() != "-" {
		return errors.New("the card number comes from standard input: write --pan -")
	}
	*a = true
	return nil
}

// byCard lets find search for the token of the card on standard input, and
// returns the tokens under earlier keys.
func (c *auditFindCmd) byCard(p *program) (earlier []string, err error) {
	if !c.PAN {
		return nil, nil
	}
	if c.PANToken != "" {
		return nil, usageError("--pan and --pan-token: one card at a time")
	}
	tokens, err := c.cardTokens(p.ctx, p.stdin)
	if err != nil {
		return nil, err
	}
	c.PANToken = tokens[0]
	return tokens[1:], nil
}

// orTokens lets a search for one token of a card find the card by the others too.
func orTokens(all [][]logindex.Term, token string, others []string) [][]logindex.Term {
	for i, set := range all {
		if len(set) == 1 && set[0] == (logindex.Term{Kind: logindex.Card, Value: token}) {
			for _, other := range others {
				all[i] = append(all[i], logindex.Term{Kind: logindex.Card, Value: other})
			}
		}
	}
	return all
}

// cardTokensIn gives the times at which tokens of cards left the node, as its log
// has them.
func cardTokensIn(dir string) func(time.Time) ([]time.Time, error) {
	return func(since time.Time) ([]time.Time, error) {
		reader, err := audit.OpenReader(dir)
		if err != nil {
			return nil, err
		}
		_, size, err := reader.Size(audit.Sec.String())
		if err != nil {
			return nil, err
		}
		// Neighbours may be slightly out of order (L-15).
		at, failed := firstSince(reader, size, since.Add(-time.Minute))
		if failed != nil {
			return nil, failed
		}
		var times []time.Time
		for entry, err := range reader.Records(audit.Sec.String(), at) {
			if err != nil {
				return nil, err
			}
			r, err := parseMade(entry.Raw)
			if err != nil {
				return nil, fmt.Errorf("sec:%d: %w", entry.Seq, err)
			}
			if r.Action == audit.LogToken.String() && r.Outcome == audit.OutcomeOK.String() && r.Time.After(since) {
				times = append(times, r.Time)
			}
		}
		return times, nil
	}
}

// recordMoment is when a record was made, and of what.
type recordMoment struct {
	Time    time.Time `json:"ts"`
	Action  string    `json:"action"`
	Outcome string    `json:"outcome"`
}

func parseMade(raw []byte) (recordMoment, error) {
	var r recordMoment
	if err := json.Unmarshal(raw, &r); err != nil {
		return recordMoment{}, fmt.Errorf("reading a record: %w", err)
	}
	return r, nil
}

// firstSince finds the first record of sec that is not before a time.
func firstSince(reader *audit.Reader, size uint64, since time.Time) (uint64, error) {
	var failed error
	at := sort.Search(int(size), func(i int) bool {
		raw, err := reader.Get(audit.Sec.String(), uint64(i))
		if err != nil {
			failed = err
			return true
		}
		r, err := parseMade(raw)
		if err != nil {
			failed = err
		}
		return !r.Time.Before(since)
	})
	return uint64(at), failed
}
