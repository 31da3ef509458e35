package custody

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"keyd.dev/keyd/audit"
	"keyd.dev/keyd/keys"
	"keyd.dev/keyd/keys/tr31"
	"keyd.dev/keyd/keys/unionpay"
)

// Delivery is the form in which working keys are given out, under the terminal's
// master key.
type Delivery string

// The forms. The first three are field 62 of UnionPay's sign-in answer.
const (
	DeliverDE62Single Delivery = "de62-001"
	DeliverDE62       Delivery = "de62-003"
	DeliverDE62Data   Delivery = "de62-004"
	DeliverTR31       Delivery = "tr31"
)

// Deliveries lists the forms.
func Deliveries() []Delivery {
	return []Delivery{DeliverDE62Single, DeliverDE62, DeliverDE62Data, DeliverTR31}
}

// form is the form of field 62, or "" for key blocks.
func (d Delivery) form() unionpay.Form {
	switch d {
	case DeliverDE62Single:
		return unionpay.Form001
	case DeliverDE62:
		return unionpay.Form003
	case DeliverDE62Data:
		return unionpay.Form004
	}
	return ""
}

// DistributeKeys asks for working keys of a terminal.
type DistributeKeys struct {
	TID  string
	Form Delivery
	Data bool // a data key too, in key blocks; the forms of field 62 say it themselves
	// Present gives out the keys that there are, in place of new ones: for those
	// that were made with the terminal, or that did not arrive.
	Present bool
}

// DistributedKeys are working keys under the terminal's master key.
type DistributedKeys struct {
	TID     string
	Version uint32
	Field   []byte             // content of field 62, without its length
	Blocks  []TerminalKeyBlock // in form tr31
	Keys    []TerminalKey
	Retires time.Time // of the keys before; zero where they are gone
	Custody audit.Custody
}

// TerminalKeyBlock is one working key in a key block of X9.143.
type TerminalKeyBlock struct {
	Slot  string
	Block string
}

// DistributeKeys makes new working keys of a terminal, or takes the present
// ones, and returns them under its master key. New keys take the place of the
// present ones at once; these verify and decipher for the overlap of the
// terminal's profile, and then no more. It returns [ErrDenied], [ErrRequest],
// [ErrNoTerminal], [ErrConflict] for a terminal that is not in service or has no
// keys to give, [ErrKeyState], [ErrApproval] or [ErrUnavailable].
func (c *Custody) DistributeKeys(ctx context.Context, caller Caller, corr string, q DistributeKeys) (DistributedKeys, error) {
	r, err := c.registry(ctx, caller, corr, OpDistributeKeys)
	if err != nil {
		return DistributedKeys{}, err
	}
	r.changing.Lock()
	defer r.changing.Unlock()
	d := &distribution{c: c, r: r, q: q, now: c.clock().UTC()}
	if err := d.find(ctx); err != nil {
		return DistributedKeys{}, err
	}
	approvals, err := c.approved(ctx, caller, corr, OpDistributeKeys, terminalObject(q.TID))
	if err != nil {
		return DistributedKeys{}, err
	}
	if err := d.run(ctx, caller, corr, approvals); err != nil {
		return DistributedKeys{}, err
	}
	return d.out, nil
}

// distribution is a change of working keys on its way.
type distribution struct {
	c   *Custody
	r   *terminals
	q   DistributeKeys
	now time.Time

	wanting *SignIn // the terminal signs in; nil where keys are given out otherwise

	t       Terminal
	profile TerminalProfile
	master  KeyRecord
	slots   []slot
	wanted  []keys.Wanted
	list    []KeyRecord // what is given out, in the order of slots
	after   Terminal
	puts    []keyPut
	process bool
	out     DistributedKeys
}

// find checks that the terminal can have the keys.
func (d *distribution) find(ctx context.Context) (err error) {
	if d.q.Form != DeliverTR31 && d.q.Form.form() == "" {
		return fmt.Errorf("%w: working keys are given out as %v", ErrRequest, Deliveries())
	}
	if d.t, err = d.r.store.Registered(ctx, d.q.TID); err != nil {
		return storeError("finding the terminal", err)
	}
	switch {
	case d.t.Scheme != SchemeMaster:
		return fmt.Errorf("%w: a terminal of scheme %s has no working keys", ErrRequest, d.t.Scheme)
	case d.t.Status != InService:
		return fmt.Errorf("%w: the terminal is %s", ErrConflict, d.t.Status)
	case d.q.Present && d.t.Keys.Version == 0:
		return fmt.Errorf("%w: the terminal has no working keys yet", ErrConflict)
	}
	if d.profile, err = d.r.profile(d.t.Profile); err != nil {
		return err
	}
	if err := d.profile.gives(d.q.Form); err != nil {
		return err
	}
	if d.wanting != nil {
		d.profile.Overlap = 0 // U-51
		if err := d.profile.suits(*d.wanting); err != nil {
			return err
		}
	}
	if d.master, err = d.c.book.find(ctx, Ref{ID: d.t.Master}); err != nil {
		return fmt.Errorf("the terminal's master key: %w", err)
	}
	if err := d.c.use(ctx, d.master, making); err != nil {
		return fmt.Errorf("the terminal's master key: %w", err)
	}
	d.slots = []slot{slotPIN, slotMAC}
	if d.q.Form == DeliverDE62Data || d.q.Form == DeliverTR31 && (d.q.Data || d.q.Present && d.t.Keys.Data != "") {
		d.slots = append(d.slots, slotData)
	}
	if d.q.Present {
		return d.present(ctx)
	}
	return d.want(ctx)
}

// gives refuses a form that the terminals of a profile do not take.
func (p TerminalProfile) gives(form Delivery) error {
	switch {
	case form == DeliverTR31 && p.MACBytes == 8:
		return fmt.Errorf("%w: profile %s has MAC keys of single length, which no key block holds", ErrRequest, p.Name)
	case form == DeliverTR31:
		return nil
	case p.Working != keys.TDES2:
		return fmt.Errorf("%w: field 62 is for TDES keys; profile %s has %s", ErrRequest, p.Name, p.Working)
	case form == DeliverDE62Single && !p.Single:
		return fmt.Errorf("%w: profile %s does not permit single-length keys (form 001)", ErrRequest, p.Name)
	}
	return nil
}

// present takes the keys that there are.
func (d *distribution) present(ctx context.Context) error {
	for _, s := range d.slots {
		id := d.t.Keys.of(s)
		if id == "" {
			return fmt.Errorf("%w: the terminal has no %s", ErrConflict, s)
		}
		k, err := d.c.book.find(ctx, Ref{ID: id})
		if err != nil {
			return fmt.Errorf("%s: %w", s, err)
		}
		if err := inUse(k); err != nil {
			return fmt.Errorf("%s: %w", s, err)
		}
		d.list = append(d.list, k)
	}
	return nil
}

// of returns the key of a slot, or "".
func (s TerminalKeys) of(at slot) keys.ID {
	switch at {
	case slotPIN:
		return s.PIN
	case slotMAC:
		return s.MAC
	case slotData:
		return s.Data
	}
	return ""
}

// want plans new keys. Where the present ones go at once their places are used
// again, and so are those of the keys before them: a terminal that changes its
// keys every day has as many rows after years.
func (d *distribution) want(ctx context.Context) error {
	reuse := d.t.Keys
	if d.profile.Overlap > 0 {
		reuse = d.t.Previous
	}
	for _, s := range d.slots {
		single := d.q.Form == DeliverDE62Single || s == slotMAC && d.profile.MACBytes == 8
		a := d.profile.attributes(s)
		if single && s == slotMAC {
			a.Usage = keys.UsageMACAlg1
		}
		template, _, err := d.c.blank(a, 0, nil, keys.Generated)
		if err != nil {
			return err
		}
		var before KeyUse
		if id := reuse.of(s); id != "" {
			template.ID = id
			if before, err = d.c.usage.snapshot(ctx, id); err != nil {
				return err
			}
		}
		template.Policy = d.profile.policy(d.t.TID, s, before.Uses)
		template.Version = d.t.Keys.Version + 1
		d.wanted = append(d.wanted, keys.Wanted{Template: template, Single: single})
	}
	return nil
}

// run makes, delivers and stores the keys. Two pairs of records tell of it: one
// of the distribution, and within it one of the change. Both intents are durable
// before the token acts, and both outcomes before the keys leave.
func (d *distribution) run(ctx context.Context, caller Caller, corr string, approvals []audit.Approval) error {
	ticket, err := d.c.log.Reserve(ctx, audit.Ops, 2)
	if err != nil {
		return fmt.Errorf("%w: no room in the audit log: %w", ErrUnavailable, err)
	}
	defer ticket.Release()
	r := audit.Record{
		Action: audit.KeyDistribute, Phase: audit.PhaseIntent,
		Actor: audit.Actor{ID: caller.Name, Kind: caller.Kind}, Src: audit.Source{Addr: caller.Addr, Conn: caller.Conn},
		Corr: corr, HSM: audit.HSM{Serial: d.c.serial},
		Keys: []audit.Key{keyEntry(audit.KeyRoleKEK, d.master)}, // the master key tells the terminal
	}
	at, err := ticket.Append(r)
	if err != nil {
		return fmt.Errorf("%w: writing the audit log: %w", ErrUnavailable, err)
	}
	failed := d.change(ctx, caller, corr, approvals)
	r.Phase, r.Ref, r.Custody = audit.PhaseOutcome, at[0].ID, d.out.Custody
	describe(&r, failed)
	for _, k := range d.list {
		r.Keys = append(r.Keys, keyEntry(audit.KeyRoleOut, k))
	}
	if _, err := ticket.Append(r); err != nil {
		return errors.Join(fmt.Errorf("%w: writing the audit log: %w", ErrUnavailable, err), failed)
	}
	return failed
}

// change makes new keys, where new ones are asked for, and packs them.
func (d *distribution) change(ctx context.Context, caller Caller, corr string, approvals []audit.Approval) error {
	if len(d.wanted) == 0 {
		d.after = d.t
		return d.deliver(ctx)
	}
	r := d.c.changeRecord(caller, corr, audit.KeyRotate, audit.ChangeTerminal, terminalObject(d.q.TID))
	r.Approvals, r.Change.Before = approvals, hashOfTerminal(d.t)
	for _, w := range d.wanted {
		r.Keys = append(r.Keys, wantedEntry(w))
	}
	err := d.c.intended(ctx, r, func(r *audit.Record) error {
		if err := d.make(ctx); err != nil {
			return err
		}
		if err := d.deliver(ctx); err != nil {
			return err
		}
		if err := d.store(ctx); err != nil {
			return err
		}
		r.Keys, r.Custody = terminalKeys(d.list), d.out.Custody
		r.Change.After = hashOfTerminal(d.after)
		return nil
	})
	if err == nil {
		d.c.letGo(d.puts)
	}
	return err
}

// make has the token make the keys.
func (d *distribution) make(ctx context.Context) error {
	made, err := d.r.maker.GenerateBatch(ctx, d.wanted)
	if err != nil {
		return tokenError("making working keys", err)
	}
	if err := distinctKeys(made); err != nil {
		return err
	}
	for _, m := range made {
		k := d.c.newRecord(*m.Block, nil, true)
		k.Block = m.Block
		d.list = append(d.list, k)
		d.process = d.process || m.InProcess
	}
	d.after = d.t
	d.after.Keys = TerminalKeys{Version: d.t.Keys.Version + 1, Made: d.now}
	for i, s := range d.slots {
		id := d.list[i].Block.ID
		switch s {
		case slotPIN:
			d.after.Keys.PIN = id
		case slotMAC:
			d.after.Keys.MAC = id
		case slotData:
			d.after.Keys.Data = id
		}
	}
	d.after.Previous, d.after.Retires = TerminalKeys{}, time.Time{}
	if d.profile.Overlap > 0 && d.t.Keys.Version > 0 {
		d.after.Previous, d.after.Retires = d.t.Keys, d.now.Add(d.profile.Overlap)
		for i, s := range d.slots {
			// Whoever verifies or deciphers with the new key is led to the old one.
			d.list[i].Life.Predecessor = d.t.Keys.of(s)
		}
	}
	return nil
}

// deliver puts the keys under the master key.
func (d *distribution) deliver(ctx context.Context) (err error) {
	if d.q.Form == DeliverTR31 {
		err = d.seal(ctx)
	} else {
		err = d.pack(ctx)
	}
	if err != nil {
		return err
	}
	d.out.TID, d.out.Version, d.out.Retires = d.t.TID, d.after.Keys.Version, d.after.Retires
	d.out.Custody = custodyClass(d.process)
	for i, k := range d.list {
		d.out.Keys = append(d.out.Keys, TerminalKey{Slot: d.slots[i].String(), ID: k.Block.ID, Version: k.Block.Version, Check: k.Block.Check})
	}
	return nil
}

// pack is the form of field 62.
func (d *distribution) pack(ctx context.Context) error {
	blocks := make([]*keys.Block, len(d.list))
	for i, k := range d.list {
		blocks[i] = k.Block
	}
	made, inProcess, err := d.r.maker.Deliver(ctx, d.master.Block, blocks)
	if err != nil {
		return tokenError("putting working keys under the master key", err)
	}
	d.process = d.process || inProcess
	set := unionpay.Set{PIN: unionpay.SlotOf(made[0]), MAC: unionpay.SlotOf(made[1])}
	if len(made) == 3 {
		data := unionpay.SlotOf(made[2])
		set.Data = &data
	}
	if d.out.Field, err = unionpay.Pack(d.q.Form.form(), set); err != nil {
		return fmt.Errorf("%w: the terminal's keys do not fit form %s: %w", ErrConflict, d.q.Form, err)
	}
	return nil
}

// seal is the form of key blocks. The value of the key is clear in the process,
// since a block's MAC is over it.
func (d *distribution) seal(ctx context.Context) error {
	d.process = true
	under, err := d.c.load(ctx, d.master)
	if err != nil {
		return err
	}
	defer under.Release()
	for i, k := range d.list {
		a := k.Block.Attributes
		if d.slots[i] != slotMAC {
			a.Mode = keys.ModeEncrypt // the terminal enciphers what keyd deciphers
		}
		value, err := d.r.maker.WorkingValue(ctx, d.master.Block, k.Block)
		if err != nil {
			return tokenError("putting working keys under the master key", err)
		}
		kbpk := d.master.Block.Attributes.Algorithm
		block, err := tr31.Seal(under.Key, kbpk, tr31.NewHeader(a, kbpk), value, tokenReader{d.c})
		value.Clear()
		switch {
		case errors.Is(err, tr31.ErrHeader), errors.Is(err, tr31.ErrStrength), errors.Is(err, tr31.ErrVersion):
			return fmt.Errorf("%w: %w", ErrKeyUse, err)
		case err != nil:
			return tokenError("putting working keys under the master key", err)
		}
		d.out.Blocks = append(d.out.Blocks, TerminalKeyBlock{d.slots[i].String(), block})
	}
	return nil
}

// tokenReader reads from the token's generator.
type tokenReader struct{ c *Custody }

var _ io.Reader = tokenReader{}

func (r tokenReader) Read(p []byte) (int, error) {
	if err := r.c.Random(p); err != nil {
		return 0, err
	}
	return len(p), nil
}

// store registers the new keys. The ones before are given the time of their end,
// as those of any rotation, or are overwritten.
func (d *distribution) store(ctx context.Context) error {
	d.c.life.Lock()
	defer d.c.life.Unlock()
	err := d.r.store.ChangeRegistry(ctx, func(change TerminalChange) error {
		for _, k := range d.list {
			old, err := change.Key(k.Block.ID)
			switch {
			case errors.Is(err, ErrNoKey):
				err = change.AddKey(k)
			case err == nil:
				d.puts = append(d.puts, keyPut{old, k})
				err = change.SetKey(k)
			}
			if err != nil {
				return err
			}
		}
		if err := d.retire(change); err != nil {
			return err
		}
		return change.SetTerminal(d.after)
	})
	if err != nil {
		return storeError("registering working keys", err)
	}
	return nil
}

// retire notes for the present keys when they stop to verify and decipher.
func (d *distribution) retire(change TerminalChange) error {
	for _, s := range []slot{slotPIN, slotMAC, slotData} {
		id := d.after.Previous.of(s)
		if id == "" {
			continue
		}
		old, err := change.Key(id)
		if err != nil {
			return err
		}
		k := old
		k.Life = Life{Successor: d.after.Keys.of(s), Retires: d.after.Retires}
		if k.Life.Successor == "" {
			k.Life.Successor = d.after.Keys.PIN // the terminal has no such key any more
		}
		d.puts = append(d.puts, keyPut{old, k})
		if err := change.SetKey(k); err != nil {
			return err
		}
	}
	return nil
}
