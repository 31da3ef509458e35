package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"time"

	"keyd.dev/keyd/internal/custody"
)

type lmkCmd struct {
	Status    lmkStatusCmd    `cmd:"" help:"List the generations of the local master key, with their check values and the keys under each."`
	Rewrap    lmkRewrapCmd    `cmd:"" help:"Move every key to the newest local master key, while all stay in use."`
	Retire    lmkRetireCmd    `cmd:"" help:"Destroy a local master key that no key is under any more. Takes a second person."`
	Challenge lmkChallengeCmd `cmd:"" help:"Print a fresh challenge for another site."`
	Prove     lmkProveCmd     `cmd:"" help:"Answer another site's challenge, to show that both hold the same local master key."`
	Verify    lmkVerifyCmd    `cmd:"" help:"Compare another site's answer with this site's local master key."`
}

type lmkStatusCmd struct {
	doorFlags
	JSON bool `help:"Print JSON lines."`
}

// lmkLine is a generation as the daemon tells it.
type lmkLine struct {
	Generation    uint32
	KeyCheckValue string `json:",omitempty"`
	Held          bool
	Newest        bool
	Keys          int
	Since         *time.Time `json:",omitempty"`
	Retired       *time.Time `json:",omitempty"`
}

func (l lmkLine) state() string {
	switch {
	case l.Newest:
		return "in use, new keys"
	case l.Held && l.Retired != nil:
		return "being retired; retire it again"
	case l.Held && l.KeyCheckValue == "":
		return "left of an interruption"
	case l.Held:
		return "in use, older keys"
	case l.Retired != nil:
		return "retired"
	}
	return "not in the token"
}

type lmkAnswer struct {
	Generations []lmkLine
	Proof       struct {
		Generation uint32
		Answer     string
		Same       *bool
	}
}

// Run lists the generations.
func (c *lmkStatusCmd) Run(p *program) error {
	d, err := c.open()
	if err != nil {
		return err
	}
	var got lmkAnswer
	if err := d.own(p.ctx, string(custody.OpGetLMK), struct{}{}, &got); err != nil {
		return err
	}
	out := newTable(p.stdout, c.JSON, "GENERATION", "KCV", "KEYS", "STATE", "SINCE", "RETIRED")
	for _, l := range got.Generations {
		out.row(l, fmt.Sprint(l.Generation), l.KeyCheckValue, fmt.Sprint(l.Keys), l.state(), moment(l.Since), moment(l.Retired))
	}
	return out.flush()
}

type lmkRewrapCmd struct {
	doorFlags
}

// rewrapAnswer is how far the daemon is.
type rewrapAnswer struct {
	Generation   uint32
	KeysTotal    int
	KeysDone     int
	KeysMoved    int
	KeysRefused  int
	RefusedNamed []struct{ KeyArn, Reason string }
}

// idleCalls is how many calls in a row may move nothing and refuse nothing,
// because the keys at hand were being changed.
const idleCalls = 20

// Run has the daemon go on until every key is done. It can be interrupted and
// given again at any time, also by somebody else.
func (c *lmkRewrapCmd) Run(p *program) error {
	d, err := c.open()
	if err != nil {
		return err
	}
	begin, idle := time.Now(), 0
	moved := 0
	for {
		var at rewrapAnswer
		if err := d.own(p.ctx, string(custody.OpRewrapKeys), struct{}{}, &at); err != nil {
			return advise(err, "what was re-wrapped stays so; give the command again to go on")
		}
		moved += at.KeysMoved
		if err := showRewrapping(p.stdout, at); err != nil {
			return err
		}
		switch {
		case at.KeysDone == at.KeysTotal:
			return rewrapped(p.stdout, at, moved, time.Since(begin))
		case at.KeysMoved == 0 && at.KeysRefused > 0:
			return notRewrapped(p, at)
		case at.KeysMoved == 0:
			if idle++; idle == idleCalls {
				return errors.New("no key could be re-wrapped for a while: the rest is being changed all the time; give the command again later")
			}
		default:
			idle = 0
		}
	}
}

func showRewrapping(w io.Writer, at rewrapAnswer) error {
	end := "\n"
	if isTerminal(w) {
		end = "\r"
	}
	if at.KeysTotal == 0 {
		return nil
	}
	_, err := fmt.Fprintf(w, "%d of %d keys (%d%%) are under local master key %d%s",
		at.KeysDone, at.KeysTotal, 100*at.KeysDone/at.KeysTotal, at.Generation, end)
	return err
}

func rewrapped(w io.Writer, at rewrapAnswer, moved int, took time.Duration) error {
	rate := ""
	if moved > 0 {
		rate = fmt.Sprintf("; this command moved %d of them in %v, %.0f a second", moved, took.Round(time.Second/10), float64(moved)/took.Seconds())
	}
	if isTerminal(w) {
		if _, err := fmt.Fprintln(w); err != nil {
			return err
		}
	}
	_, err := fmt.Fprintf(w, "done: all %d keys are under local master key %d%s\n", at.KeysTotal, at.Generation, rate)
	return err
}

// notRewrapped says which keys are left and why.
func notRewrapped(p *program, at rewrapAnswer) error {
	for _, r := range at.RefusedNamed {
		if _, err := fmt.Fprintf(p.stderr, "%s: %s\n", r.KeyArn, r.Reason); err != nil {
			return err
		}
	}
	return advise(fmt.Errorf("%d keys cannot be re-wrapped", at.KeysRefused),
		"all others are done; these were changed outside of keyd, or are of a local master key that the token does not hold")
}

type lmkRetireCmd struct {
	doorFlags
	Generation uint32 `arg:"" help:"Its number, as lmk status shows it."`
}

// Run retires a generation.
func (c *lmkRetireCmd) Run(p *program) error {
	d, err := c.open()
	if err != nil {
		return err
	}
	if err := d.own(p.ctx, string(custody.OpRetireLMK), map[string]uint32{"Generation": c.Generation}, nil); err != nil {
		return err
	}
	_, err = fmt.Fprintf(p.stdout, "local master key %d is destroyed, and the token was searched for it\n", c.Generation)
	return err
}

type lmkChallengeCmd struct{}

// Run prints 32 bytes that nobody has seen before.
func (c *lmkChallengeCmd) Run(p *program) error {
	var fresh [32]byte
	if _, err := rand.Read(fresh[:]); err != nil {
		return fmt.Errorf("drawing a challenge: %w", err)
	}
	_, err := fmt.Fprintln(p.stdout, hex.EncodeToString(fresh[:]))
	return err
}

type lmkProveCmd struct {
	doorFlags
	Challenge  string `required:"" placeholder:"HEX" help:"The other site's challenge, 64 hexadecimal digits."`
	Generation uint32 `placeholder:"N" help:"Which local master key; the newest by default."`
}

// Run answers a challenge.
func (c *lmkProveCmd) Run(p *program) error {
	got, err := askLMK(p.ctx, &c.doorFlags, c.Generation, c.Challenge, "")
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(p.stdout, "generation %d\ncheck value %s\nanswer %s\n", got.Proof.Generation, checkOf(got), got.Proof.Answer)
	return err
}

type lmkVerifyCmd struct {
	doorFlags
	Challenge  string `required:"" placeholder:"HEX" help:"This site's own challenge, 64 hexadecimal digits: see lmk challenge."`
	Answer     string `required:"" placeholder:"HEX" help:"The other site's answer, 32 hexadecimal digits."`
	Generation uint32 `placeholder:"N" help:"Which local master key; the newest by default."`
}

// Run compares an answer; the exit code is 3 where it is not the right one.
func (c *lmkVerifyCmd) Run(p *program) error {
	got, err := askLMK(p.ctx, &c.doorFlags, c.Generation, c.Challenge, c.Answer)
	if err != nil {
		return err
	}
	if got.Proof.Same == nil || !*got.Proof.Same {
		return &exitError{code: exitVerify, err: fmt.Errorf("not the same: the other site does not hold this site's local master key %d (check value %s), or answered another challenge",
			got.Proof.Generation, checkOf(got))}
	}
	_, err = fmt.Fprintf(p.stdout, "the same: both sites hold local master key %d, check value %s\n", got.Proof.Generation, checkOf(got))
	return err
}

func askLMK(ctx context.Context, door *doorFlags, generation uint32, challenge, answer string) (*lmkAnswer, error) {
	query := map[string]any{"Challenge": challenge}
	for flag, text := range map[string]struct {
		digits string
		bytes  int
	}{"--challenge": {challenge, 32}, "--answer": {answer, 16}} {
		if raw, err := hex.DecodeString(text.digits); (err != nil || len(raw) != text.bytes) && !(flag == "--answer" && answer == "") {
			return nil, usageError("%s: want %d hexadecimal digits", flag, 2*text.bytes)
		}
	}
	if answer != "" {
		query["Answer"] = answer
	}
	if generation != 0 {
		query["Generation"] = generation
	}
	d, err := door.open()
	if err != nil {
		return nil, err
	}
	got := new(lmkAnswer)
	return got, d.own(ctx, string(custody.OpGetLMK), query, got)
}

// checkOf is the check value of the generation that was asked about.
func checkOf(got *lmkAnswer) string {
	for _, l := range got.Generations {
		if l.Generation == got.Proof.Generation {
			return l.KeyCheckValue
		}
	}
	return ""
}
