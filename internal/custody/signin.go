package custody

import (
	"context"
	"fmt"
	"slices"
)

// SignIn asks for the working keys of a terminal that signs in by an 0800.
type SignIn struct {
	TID string
	// Form is the network code of the 0800, field 60.3: 001, 003 or 004 (U-12).
	Form string
	// Algorithm is the MAC algorithm of the dialect that the terminal speaks. Keys
	// for another one would be of no use to it, and are not given out.
	Algorithm TerminalAlgorithm
	MACBytes  int // the length of the MAC key in that dialect, 8 or 16; form 001 has 8
}

// SignIn makes new working keys of a terminal and returns field 62 of its 0810.
// They take the place of the present ones at once, whatever the overlap of the
// profile says (U-51): a message under an old one has a wrong MAC from now on.
// Only the switch may. Both the keys and the records of their making are durable
// when it returns.
//
// It returns [ErrDenied], [ErrNoTerminal], [ErrRequest] for a form that the
// terminal's profile does not permit or that is none, [ErrConflict] for a
// terminal that is not in service or a profile with keys for another algorithm,
// [ErrKeyState] for a master key that is not in use, or [ErrUnavailable].
func (c *Custody) SignIn(ctx context.Context, caller Caller, corr string, q SignIn) (DistributedKeys, error) {
	if !caller.Has(RoleSwitch) {
		return DistributedKeys{}, c.refuse(ctx, caller, corr, OpDistributeKeys, fmt.Errorf("%w: a sign-in comes by the switch", ErrDenied))
	}
	if c.signIns == nil {
		return DistributedKeys{}, fmt.Errorf("%w: this process has no registry of terminals", ErrUnavailable)
	}
	form := Delivery("de62-" + q.Form)
	if !slices.Contains(Deliveries(), form) || form.form() == "" {
		return DistributedKeys{}, fmt.Errorf("%w: no working keys are asked for by the network code %q", ErrRequest, q.Form)
	}
	c.signIns.changing.Lock()
	defer c.signIns.changing.Unlock()
	d := &distribution{
		c: c, r: c.signIns, q: DistributeKeys{TID: q.TID, Form: form}, now: c.clock().UTC(),
		wanting: &q,
	}
	if err := d.find(ctx); err != nil {
		return DistributedKeys{}, err
	}
	if err := d.run(ctx, caller, corr, nil); err != nil {
		return DistributedKeys{}, err
	}
	return d.out, nil
}
