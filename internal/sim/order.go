package sim

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Kind is what a terminal is asked to do.
type Kind string

// The kinds. The first seven are transactions.
const (
	DoSale     Kind = "sale"
	DoPreauth  Kind = "preauth"
	DoComplete Kind = "complete"
	DoVoid     Kind = "void"
	DoRefund   Kind = "refund"
	DoBalance  Kind = "balance"
	DoEcho     Kind = "echo"
	DoSignIn   Kind = "signin"
	DoSignOff  Kind = "signoff"
	DoSettle   Kind = "settle"
	DoResume   Kind = "resume" // send the pending reversal, and nothing else
)

// Kinds lists them.
func Kinds() []Kind {
	return []Kind{DoSale, DoPreauth, DoComplete, DoVoid, DoRefund, DoBalance, DoEcho, DoSignIn, DoSignOff, DoSettle, DoResume}
}

// transaction reports whether the kind is a message of class 1 or 2.
func (k Kind) transaction() bool {
	return slices.Contains([]Kind{DoSale, DoPreauth, DoComplete, DoVoid, DoRefund, DoBalance}, k)
}

// names reports whether the kind refers to a transaction of before.
func (k Kind) names() bool { return k == DoComplete || k == DoVoid || k == DoRefund }

// Order is what a terminal is asked to do.
type Order struct {
	Do     Kind
	Amount int64 // minor units; of a void that of the original
	Card   Card  // of what names no other transaction
	// Of is the transaction that a completion, a void or a refund names.
	Of     *Memory
	Faults Faults
}

func (o Order) check() error {
	switch {
	case !slices.Contains(Kinds(), o.Do):
		return fmt.Errorf("%w: %q; there are %q", ErrOrder, o.Do, Kinds())
	case o.Do.names() && o.Of == nil:
		return fmt.Errorf("%w: a %s names a transaction, and there is none", ErrOrder, o.Do)
	case o.Amount < 0:
		return fmt.Errorf("%w: an amount of %d", ErrOrder, o.Amount)
	}
	return nil
}

// Stage is a moment of an exchange at which power may be lost.
type Stage string

// The stages. Those of a reversal begin with its name.
const (
	StageWrite          Stage = "write"  // all is written down, nothing was sent
	StageSend           Stage = "send"   // the message has left
	StageAnswer         Stage = "answer" // the answer is there, and nothing was done about it
	StageReversalWrite  Stage = "reversal-write"
	StageReversalSend   Stage = "reversal-send"
	StageReversalAnswer Stage = "reversal-answer"
)

// Stages lists them.
func Stages() []Stage {
	return []Stage{StageWrite, StageSend, StageAnswer, StageReversalWrite, StageReversalSend, StageReversalAnswer}
}

// Faults are what goes wrong in one exchange. They are those of the transaction;
// PowerAt may be a stage of the reversal that goes before it.
type Faults struct {
	Delay      time.Duration // between the terminal's journal and the wire
	BadMAC     bool          // the request has a wrong MAC
	Replay     bool          // the same bytes a second time; the second answer counts
	Cut        bool          // the connection is closed when the request has left
	LoseAnswer bool          // the answer comes and is not seen
	AnswerMAC  bool          // one bit of the answer's MAC is turned on the way
	Garble     bool          // the answer is cut short on the way
	CardGone   bool          // the card refuses, or is gone, after an approval
	PowerAt    Stage         // where power is lost; "" nowhere
}

// faultNames are the faults that need no value, as scripts and flags name them.
func (f *Faults) named() map[string]*bool {
	return map[string]*bool{
		"bad-mac": &f.BadMAC, "replay": &f.Replay, "cut": &f.Cut, "lose-answer": &f.LoseAnswer,
		"answer-mac": &f.AnswerMAC, "garble": &f.Garble, "card-gone": &f.CardGone,
	}
}

// Set turns a fault on by its name: bad-mac, replay, cut, lose-answer,
// answer-mac, garble or card-gone. It returns [ErrOrder] for another.
func (f *Faults) Set(name string) error {
	all := f.named()
	on, ok := all[name]
	if !ok {
		names := make([]string, 0, len(all))
		for n := range all {
			names = append(names, n)
		}
		slices.Sort(names)
		return fmt.Errorf("%w: no fault %q; there are %s", ErrOrder, name, strings.Join(names, ", "))
	}
	*on = true
	return nil
}
