package custody

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"keyd.dev/keyd/audit"
	"keyd.dev/keyd/keys"
)

// errRefused ends a change in which an entry was refused.
var errRefused = errors.New("custody: an entry of the batch was refused")

// add makes the keys and registers the entries. For each terminal that gets keys
// the log has the intent before the token acts; for each terminal, before this
// returns, what was registered.
func (b *batch) add(ctx context.Context, caller Caller, corr string) error {
	records, err := b.open(ctx, caller, corr)
	if err != nil {
		return err
	}
	defer records.release()
	if err := records.intend(); err != nil {
		return err
	}
	failed := b.make(ctx)
	if failed == nil {
		failed = b.store(ctx)
	}
	refused := errors.Is(failed, errRefused)
	if recorded := records.conclude(b, failed); recorded != nil {
		return errors.Join(recorded, failed)
	}
	switch {
	case refused:
		b.result.Unchanged = 0
		return nil
	case failed != nil:
		return failed
	}
	b.result.Added = len(b.entries) - b.result.Unchanged
	return nil
}

// make has the token make all keys that the entries want.
func (b *batch) make(ctx context.Context) error {
	var wanted []keys.Wanted
	for _, e := range b.entries {
		if !e.there {
			wanted = append(wanted, e.wanted...)
		}
	}
	var made []keys.Made
	if len(wanted) > 0 {
		var err error
		if made, err = b.r.maker.GenerateBatch(ctx, wanted); err != nil {
			return tokenError("making the keys of terminals", err)
		}
	}
	for i := range b.entries {
		e := &b.entries[i]
		if e.there {
			continue
		}
		n := len(e.wanted)
		if err := b.take(e, made[:n]); err != nil {
			return err
		}
		made = made[n:]
	}
	return nil
}

// take puts the keys that were made for an entry in their places.
func (b *batch) take(e *newEntry, made []keys.Made) error {
	if err := distinctKeys(made); err != nil {
		return err
	}
	for i, m := range made {
		k := b.c.newRecord(*m.Block, nil, true)
		k.Block = m.Block
		e.made = append(e.made, k)
		e.process = e.process || m.InProcess
		switch e.slots[i] {
		case slotMaster:
			e.t.Master = m.Block.ID
			var err error
			if e.print, err = b.r.print(m.Block.Attributes.Algorithm, m.Print); err != nil {
				return err
			}
		case slotPIN:
			e.t.Keys.PIN = m.Block.ID
		case slotMAC:
			e.t.Keys.MAC = m.Block.ID
		case slotData:
			e.t.Keys.Data = m.Block.ID
		}
	}
	if e.t.Keys.PIN != "" {
		e.t.Keys.Version, e.t.Keys.Made = 1, b.now
	}
	return nil
}

// distinctKeys refuses keys of one terminal of which two are equal (U-50): the
// token's generator would be broken.
func distinctKeys(made []keys.Made) error {
	seen := make(map[string]bool)
	for _, m := range made {
		if seen[string(m.Print)] {
			return fmt.Errorf("%w: the token made one value twice; its random generator does not work", ErrUnavailable)
		}
		seen[string(m.Print)] = true
	}
	return nil
}

// store registers the entries with their keys in one commit. It returns
// errRefused with the reasons in the result.
func (b *batch) store(ctx context.Context) error {
	err := b.r.store.ChangeRegistry(ctx, func(change TerminalChange) error {
		for i := range b.entries {
			e := &b.entries[i]
			if e.there {
				b.compare(change, e)
				continue
			}
			if err := b.put(change, e); err != nil {
				return err
			}
		}
		if len(b.result.Refused) > 0 {
			return errRefused
		}
		return nil
	})
	switch {
	case err == nil:
		return nil
	case errors.Is(err, errRefused):
		return err
	case errors.Is(err, ErrTerminalTaken):
		// A device that another terminal has, which only the commit shows.
		b.refuse(b.taken(err), "", RefusedTaken, err)
		return fmt.Errorf("%w: %w", errRefused, err)
	}
	return storeError("registering terminals", err)
}

// put notes one new terminal and its keys.
func (b *batch) put(change TerminalChange, e *newEntry) error {
	for _, k := range e.made {
		if err := change.AddKey(k); err != nil {
			return err
		}
	}
	if e.t.Scheme == SchemeMaster {
		owner, err := change.AddPrint(e.print, e.t.TID, e.t.Master)
		if errors.Is(err, ErrTerminalTaken) {
			if owner == "" {
				owner = "of this request"
			}
			b.refuse(e.index, e.t.TID, RefusedKeyUsed, fmt.Errorf("%w: terminal %s has a master key of the same value", ErrTerminalTaken, owner))
			return nil
		}
		if err != nil {
			return err
		}
	}
	err := change.AddTerminal(e.t)
	if errors.Is(err, ErrTerminalTaken) {
		b.refuse(e.index, e.t.TID, RefusedTaken, err)
		return nil
	}
	return err
}

// compare refuses a registered terminal whose master key is not the one of the
// key block.
func (b *batch) compare(change TerminalChange, e *newEntry) {
	if e.asked.Master.TR31 == "" {
		return
	}
	if owner, err := change.PrintOwner(e.print); err != nil || owner != e.t.TID {
		b.refuse(e.index, e.t.TID, RefusedTaken, fmt.Errorf("%w: the TID is registered already, with another master key", ErrTerminalTaken))
	}
}

// taken is the entry that an error of the commit is about.
func (b *batch) taken(err error) int {
	var at *TakenError
	if errors.As(err, &at) {
		for _, e := range b.entries {
			if e.t.TID == at.TID {
				return e.index
			}
		}
	}
	return 0
}

// TakenError is an [ErrTerminalTaken] that names the terminal that was refused.
type TakenError struct {
	TID string
	Err error
}

func (e *TakenError) Error() string { return fmt.Sprintf("terminal %s: %v", e.TID, e.Err) }

func (e *TakenError) Unwrap() []error { return []error{ErrTerminalTaken, e.Err} }

// Records of a batch.

// recordsAtOnce is how many terminals share a ticket of the log: each has an
// intent and an outcome for its keys, and its registration.
const recordsAtOnce = 20

// batchRecords are the records of a batch, in pieces that the log takes.
type batchRecords struct {
	pieces []*recordPiece
}

type recordPiece struct {
	ticket  *audit.Ticket
	entries []*newEntry
	intents []audit.Record // of the entries that want keys, in order
	at      []audit.Pos
	base    audit.Record // of each registration
	began   time.Time
}

// open reserves room for everything that the batch will have to say.
func (b *batch) open(ctx context.Context, caller Caller, corr string) (_ *batchRecords, err error) {
	records := new(batchRecords)
	defer func() {
		if err != nil {
			records.release()
		}
	}()
	var fresh []*newEntry
	for i := range b.entries {
		if !b.entries[i].there {
			fresh = append(fresh, &b.entries[i])
		}
	}
	for from := 0; from < len(fresh); from += recordsAtOnce {
		p := &recordPiece{entries: fresh[from:min(from+recordsAtOnce, len(fresh))]}
		p.base = b.c.changeRecord(caller, corr, audit.TerminalChange, audit.ChangeTerminal, "")
		for _, e := range p.entries {
			if len(e.wanted) > 0 {
				p.intents = append(p.intents, b.intent(caller, corr, e))
			}
		}
		if p.ticket, err = b.c.log.Reserve(ctx, audit.Sec, 3*len(p.entries)); err != nil {
			return nil, fmt.Errorf("%w: no room in the audit log: %w", ErrUnavailable, err)
		}
		records.pieces = append(records.pieces, p)
	}
	return records, nil
}

// intent is what the token is about to make for a terminal.
func (b *batch) intent(caller Caller, corr string, e *newEntry) audit.Record {
	action := audit.KeyCreate
	if e.value.Len() > 0 {
		action = audit.KeyImport
	}
	r := b.c.changeRecord(caller, corr, action, audit.ChangeTerminal, terminalObject(e.t.TID))
	r.Phase = audit.PhaseIntent
	for _, w := range e.wanted {
		r.Keys = append(r.Keys, wantedEntry(w))
	}
	return r
}

// wantedEntry is a key in a record before it is made.
func wantedEntry(w keys.Wanted) audit.Key {
	t := w.Template
	return audit.Key{
		Role: audit.KeyRoleTarget, ID: string(t.ID), Version: int(t.Version),
		Usage: string(t.Attributes.Usage), Algo: algo(t.Attributes.Algorithm),
	}
}

// each does work for all pieces at once, so that the log writes them together.
func (r *batchRecords) each(work func(*recordPiece) error) error {
	errs := make([]error, len(r.pieces))
	var group sync.WaitGroup
	for i, p := range r.pieces {
		group.Go(func() { errs[i] = work(p) })
	}
	group.Wait()
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("%w: writing the audit log: %w", ErrUnavailable, err)
	}
	return nil
}

func (r *batchRecords) intend() error {
	return r.each(func(p *recordPiece) (err error) {
		if p.began = time.Now(); len(p.intents) > 0 {
			p.at, err = p.ticket.Append(p.intents...)
		}
		return err
	})
}

// conclude records what became of every entry.
func (r *batchRecords) conclude(b *batch, failed error) error {
	return r.each(func(p *recordPiece) error {
		var list []audit.Record
		next := 0
		for _, e := range p.entries {
			if len(e.wanted) > 0 && next < len(p.at) {
				outcome := p.intents[next]
				outcome.Phase, outcome.Ref, outcome.Duration = audit.PhaseOutcome, p.at[next].ID, time.Since(p.began)
				next++
				describeBatch(&outcome, failed)
				if failed == nil {
					outcome.Keys, outcome.Custody = terminalKeys(e.made), custodyClass(e.process)
				}
				list = append(list, outcome)
			}
			registered := p.base
			registered.Change = &audit.Change{Kind: audit.ChangeTerminal, Object: terminalObject(e.t.TID), After: hashOfTerminal(e.t)}
			describeBatch(&registered, failed)
			list = append(list, registered)
		}
		_, err := p.ticket.Append(list...)
		return err
	})
}

// describeBatch is describe for one of many: what was refused of one entry ended
// all of them.
func describeBatch(r *audit.Record, err error) {
	describe(r, err)
	if errors.Is(err, errRefused) {
		r.Outcome, r.Reason = audit.OutcomeRefused, audit.ReasonDuplicate
	}
}

func (r *batchRecords) release() {
	for _, p := range r.pieces {
		if p.ticket != nil {
			p.ticket.Release()
		}
	}
}

func terminalObject(tid string) string { return "terminal/" + tid }
