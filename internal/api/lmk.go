package api

import (
	"fmt"
	"math"
	"time"

	"keyd.dev/keyd/internal/custody"
)

// The operations on the local master key, which only keyd has.

// lmkGeneration is a generation of the local master key in answers. Times are
// RFC 3339.
type lmkGeneration struct {
	Generation    uint32
	KeyCheckValue string `json:",omitempty"` // absent where the token does not hold it whole
	Held          bool
	Newest        bool
	Keys          int
	Since         *time.Time `json:",omitempty"`
	Retired       *time.Time `json:",omitempty"`
}

func wireLMK(s custody.LMKStatus) lmkGeneration {
	out := lmkGeneration{Generation: s.Generation, Held: s.Held, Newest: s.Newest, Keys: s.Keys}
	if s.Whole {
		out.KeyCheckValue = s.Check.String()
	}
	if !s.Since.IsZero() {
		out.Since = &s.Since
	}
	if !s.Retired.IsZero() {
		out.Retired = &s.Retired
	}
	return out
}

// lmkProof is the answer to a challenge, or whether one that was given is right.
type lmkProof struct {
	Generation uint32
	Answer     string `json:",omitempty"`
	Same       *bool  `json:",omitempty"`
}

// getLMK is GetLMK: the generations, and with a challenge the proof of one of
// them, the newest by default. With an Answer it says whether that is the
// answer of a token with the same local master key, and tells no answer of its own.
func (c *call) getLMK() error {
	generation := uint32(c.form.int(0, "Generation", 1, math.MaxInt32))
	_, challenge := c.form.hex(0, "Challenge", optional, "must be 64 hexadecimal characters", 64)
	_, answer := c.form.hex(0, "Answer", optional, "must be 32 hexadecimal characters", 32)
	if answer != nil && challenge == nil {
		c.form.fail("Challenge", "is needed beside Answer")
	}
	if err := c.check(); err != nil {
		return err
	}
	list, err := c.custody.LMKs(c.ctx, c.caller, c.id)
	if err != nil {
		return err
	}
	out := struct {
		Generations []lmkGeneration
		Proof       *lmkProof `json:",omitempty"`
	}{Generations: []lmkGeneration{}}
	for _, s := range list {
		out.Generations = append(out.Generations, wireLMK(s))
		if s.Newest && generation == 0 {
			generation = s.Generation
		}
	}
	if challenge != nil {
		if out.Proof, err = c.proveLMK(generation, [32]byte(challenge), answer); err != nil {
			return err
		}
	}
	return c.answerJSON(out)
}

func (c *call) proveLMK(generation uint32, challenge [32]byte, answer []byte) (*lmkProof, error) {
	if answer != nil {
		same, err := c.custody.VerifyLMK(c.ctx, c.caller, c.id, generation, challenge, [16]byte(answer))
		return &lmkProof{Generation: generation, Same: &same}, err
	}
	own, err := c.custody.ProveLMK(c.ctx, c.caller, c.id, generation, challenge)
	return &lmkProof{Generation: generation, Answer: fmt.Sprintf("%X", own)}, err
}

// refusedBlock is a key that cannot be moved, in answers.
type refusedBlock struct {
	KeyArn string
	Reason string
}

// mostRefused bounds the keys that one answer names.
const mostRefused = 100

// rewrapKeys is RewrapKeys: it goes on for about two seconds and says how far
// it is. Whoever wants all done calls it until KeysDone is KeysTotal.
func (c *call) rewrapKeys() error {
	if err := c.check(); err != nil {
		return err
	}
	p, err := c.custody.RewrapKeys(c.ctx, c.caller, c.id)
	if err != nil {
		return err
	}
	out := struct {
		Generation   uint32
		KeysTotal    int
		KeysDone     int
		KeysMoved    int // by this call
		KeysRefused  int
		RefusedNamed []refusedBlock // at most 100 of them
	}{p.Generation, p.Total, p.Done, p.Moved, len(p.Refused), []refusedBlock{}}
	for _, b := range p.Refused[:min(len(p.Refused), mostRefused)] {
		out.RefusedNamed = append(out.RefusedNamed, refusedBlock{string(c.names.appendARN(nil, b.ID)), c.faultOf(b.Why).message})
	}
	return c.answerJSON(out)
}

// retireLMK is RetireLMK.
func (c *call) retireLMK() error {
	generation := c.form.int(0, "Generation", 1, math.MaxInt32)
	if generation == 0 && len(c.form.wrong) == 0 {
		c.form.fail("Generation", "is required")
	}
	if err := c.check(); err != nil {
		return err
	}
	if err := c.custody.RetireLMK(c.ctx, c.caller, c.id, uint32(generation)); err != nil {
		return err
	}
	return c.answerJSON(struct{ Generation int }{generation})
}
