package custody

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"time"

	"keyd.dev/keyd/audit"
	"keyd.dev/keyd/internal/secret"
	"keyd.dev/keyd/keys"
)

// lmkGeneration is the generation of the local master key of new blocks.
const lmkGeneration = 1

// Key returns the key that ref names. It returns [ErrDenied], [ErrNoKey] or
// [ErrUnavailable].
func (c *Custody) Key(ctx context.Context, caller Caller, corr string, ref Ref) (KeyRecord, error) {
	k, err := c.book.permit(ctx, caller.Client, OpGetKey, ref)
	return k, c.refuse(ctx, caller, corr, OpGetKey, err)
}

// Keys lists the keys that the caller may use, in the order of their ids. It
// returns [ErrDenied] or [ErrUnavailable].
func (c *Custody) Keys(ctx context.Context, caller Caller, corr string, q KeyQuery) ([]KeyRecord, error) {
	if !caller.may(OpListKeys) {
		return nil, c.refuse(ctx, caller, corr, OpListKeys, fmt.Errorf("%w: no role of the caller has %s", ErrDenied, OpListKeys))
	}
	var list []KeyRecord
	for {
		page, err := c.book.store.Keys(ctx, q)
		if err != nil {
			return nil, storeError("listing keys", err)
		}
		for _, k := range page {
			if caller.mayUse(k.Aliases) {
				list = append(list, k)
			}
			if len(list) == q.Limit {
				return list, nil
			}
		}
		if len(page) < q.Limit {
			return list, nil
		}
		q.After = page[len(page)-1].Block.ID
	}
}

// Alias returns an alias. It returns [ErrDenied], [ErrNoAlias] or [ErrUnavailable].
func (c *Custody) Alias(ctx context.Context, caller Caller, corr, name string) (Alias, error) {
	if !caller.may(OpGetAlias) || !caller.mayUse([]string{name}) {
		return Alias{}, c.refuse(ctx, caller, corr, OpGetAlias, fmt.Errorf("%w: not this alias", ErrDenied))
	}
	alias, err := c.book.store.Alias(ctx, name)
	if err != nil {
		return Alias{}, storeError("finding the alias", err)
	}
	return alias, nil
}

// Recall returns the stored answer of an earlier invocation, if there is one.
// It returns [ErrRequest] when the invocation was for something else. The
// replay is recorded, with the key or alias that about finds in the answer.
func (c *Custody) Recall(ctx context.Context, caller Caller, corr string, op Operation, invocation string, body [32]byte, about func(answer []byte) string) (answer []byte, found bool, err error) {
	if invocation == "" {
		return nil, false, nil
	}
	once, err := c.book.store.Recall(ctx, caller.Name, invocation)
	switch {
	case errors.Is(err, ErrNoAnswer):
		return nil, false, nil
	case err != nil:
		return nil, false, storeError("recalling an answer", err)
	case once.Operation != op || once.Body != body:
		return nil, false, fmt.Errorf("%w: the invocation id was used for another request", ErrRequest)
	}
	r := c.changeRecord(caller, corr, audit.KeyAttr, audit.ChangeKey, string(op))
	r.Replay = true
	// A record of this action names something: the operation, where the answer
	// names no key.
	r.Keys = []audit.Key{{Role: audit.KeyRoleTarget, ID: cmp.Or(about(once.Answer), string(op))}}
	if err := c.intended(ctx, r, func(*audit.Record) error { return nil }); err != nil {
		return nil, false, err
	}
	return once.Answer, true, nil
}

// CreateKey makes a new key. The intent is durable before the token makes it,
// the outcome before this returns. It returns [ErrDenied], [ErrRequest],
// [ErrRepeated] or [ErrUnavailable].
func (c *Custody) CreateKey(ctx context.Context, caller Caller, corr string, q CreateKey) (KeyRecord, error) {
	if !caller.may(OpCreateKey) {
		return KeyRecord{}, c.refuse(ctx, caller, corr, OpCreateKey, fmt.Errorf("%w: no role of the caller has %s", ErrDenied, OpCreateKey))
	}
	template, tags, err := c.template(q.Attributes, q.CheckBy, q.Tags, keys.Generated)
	if err != nil {
		return KeyRecord{}, err
	}
	if err := c.room(ctx); err != nil {
		return KeyRecord{}, err
	}
	approvals, err := c.approved(ctx, caller, corr, OpCreateKey, described(q.Attributes), q.Attributes.Usage)
	if err != nil {
		return KeyRecord{}, err
	}
	k := c.newRecord(template, tags, q.Enabled)
	err = c.changeWith(ctx, caller, corr, approvals, audit.KeyCreate, &template, func(r *audit.Record) error {
		block, inProcess, err := c.maker.Generate(ctx, template)
		if err != nil {
			return tokenError("generating a key", err)
		}
		k.Block, r.Custody = block, custodyClass(inProcess)
		r.Keys = []audit.Key{keyEntrySec(audit.KeyRoleTarget, block, keyName(k))}
		return c.addKey(ctx, caller, k, OpCreateKey, q.Once)
	})
	if err != nil {
		return KeyRecord{}, err
	}
	return k, nil
}

// ImportClear asks for a key from its clear value. It is for the test keys of
// `keyd dev` and for ceremonies, never for the network.
type ImportClear struct {
	Attributes keys.Attributes
	CheckBy    keys.CheckMethod
	Policy     map[string]string
	Value      secret.Bytes // cleared by the caller
	Alias      string       // may be empty
	Origin     keys.Origin  // 0: from outside
}

// ImportClear makes a key from a clear value; the caller must be a custodian, or
// have the quorum of a ceremony. It returns [ErrDenied], [ErrRequest], [ErrAliasExists] or [ErrUnavailable].
func (c *Custody) ImportClear(ctx context.Context, caller Caller, corr string, q ImportClear) (KeyRecord, error) {
	if !caller.Has(RoleCustodian) {
		if err := c.quorum(caller); err != nil {
			return KeyRecord{}, c.refuse(ctx, caller, corr, "ImportClear", fmt.Errorf("%w: only custodians import clear keys", err))
		}
	}
	if q.Origin == 0 {
		q.Origin = keys.External
	}
	template, tags, err := c.template(q.Attributes, q.CheckBy, q.Policy, q.Origin)
	if err != nil {
		return KeyRecord{}, err
	}
	if q.Alias != "" && !ValidAlias(q.Alias) {
		return KeyRecord{}, fmt.Errorf("%w: %q is not an alias", ErrRequest, q.Alias)
	}
	k := c.newRecord(template, tags, true)
	action := audit.KeyImport
	if q.Origin == keys.Generated {
		action = audit.KeyCreate
	}
	err = c.change(ctx, caller, corr, action, &template, func(r *audit.Record) error {
		block, err := c.maker.Import(ctx, template, q.Value)
		if errors.Is(err, keys.ErrMaterial) {
			return fmt.Errorf("%w: %w", ErrRequest, err)
		}
		if err != nil {
			return tokenError("importing a key", err)
		}
		k.Block, r.Custody = block, audit.CustodyProcess
		r.Keys = []audit.Key{keyEntrySec(audit.KeyRoleTarget, block, keyName(k))}
		if q.Alias != "" {
			k.Aliases = []string{q.Alias}
			r.Change = namedToo(*r.Change, q.Alias)
		}
		return c.addKey(ctx, caller, k, "ImportClear", nil)
	})
	if err != nil {
		return KeyRecord{}, err
	}
	return k, nil
}

// CreateAlias names a key. Naming the same key again is no error. It returns
// [ErrDenied], [ErrRequest], [ErrNoKey], [ErrAliasExists], [ErrRepeated] or
// [ErrUnavailable].
func (c *Custody) CreateAlias(ctx context.Context, caller Caller, corr string, alias Alias, once *Repeat) (Alias, error) {
	if !caller.may(OpCreateAlias) || !caller.mayUse([]string{alias.Name}) {
		return Alias{}, c.refuse(ctx, caller, corr, OpCreateAlias, fmt.Errorf("%w: not this alias", ErrDenied))
	}
	if !ValidAlias(alias.Name) {
		return Alias{}, fmt.Errorf("%w: not an alias name", ErrRequest)
	}
	var k KeyRecord
	if alias.Key != "" {
		var err error
		if k, err = c.book.find(ctx, Ref{ID: alias.Key}); err != nil {
			return Alias{}, err
		}
		// Whoever could give a foreign key one of his own names could use it.
		if len(k.Aliases) > 0 && !caller.mayUse(k.Aliases) {
			return Alias{}, c.refuse(ctx, caller, corr, OpCreateAlias, fmt.Errorf("%w: not this key", ErrDenied))
		}
	}
	k.Aliases = []string{alias.Name}
	r := c.changeRecord(caller, corr, audit.KeyAttr, audit.ChangeKey, alias.Name)
	r.Keys = aliased(alias, k)
	stored, err := c.once(caller, OpCreateAlias, once, k)
	if err != nil {
		return Alias{}, err
	}
	err = c.intended(ctx, r, func(*audit.Record) error { return c.addAlias(ctx, alias, stored) })
	if err != nil {
		return Alias{}, err
	}
	return alias, nil
}

// aliased names the key of an alias in a record; the alias itself, without a
// version, where it names none.
func aliased(alias Alias, k KeyRecord) []audit.Key {
	if k.Block == nil {
		return []audit.Key{{Role: audit.KeyRoleTarget, ID: alias.Name}}
	}
	return []audit.Key{keyEntrySec(audit.KeyRoleTarget, k.Block, keyName(k))}
}

var aliasForm = regexp.MustCompile(`^alias/[a-zA-Z0-9/_-]{1,250}$`)

// ValidAlias reports whether name has the form of an alias.
func ValidAlias(name string) bool { return aliasForm.MatchString(name) }

// template checks what a new key is asked to be.
func (c *Custody) template(a keys.Attributes, by keys.CheckMethod, tags map[string]string, origin keys.Origin) (keys.Block, map[string]string, error) {
	if c.maker == nil {
		return keys.Block{}, nil, fmt.Errorf("%w: this process makes no keys", ErrUnavailable)
	}
	return c.blank(a, by, tags, origin)
}

// blank is template for whoever has a maker of his own.
func (c *Custody) blank(a keys.Attributes, by keys.CheckMethod, tags map[string]string, origin keys.Origin) (keys.Block, map[string]string, error) {
	if err := a.Validate(); err != nil {
		return keys.Block{}, nil, fmt.Errorf("%w: %w", ErrRequest, err)
	}
	if by == 0 {
		by = a.Algorithm.CheckMethod()
	}
	if !a.Algorithm.CheckableBy(by) {
		return keys.Block{}, nil, fmt.Errorf("%w: no check value by %s for %s", ErrRequest, by, a.Algorithm)
	}
	policy, rest, err := splitTags(tags, c.lists.Load().legacyPIN)
	if err == nil {
		err = suits(policy, a)
	}
	if err != nil {
		return keys.Block{}, nil, err
	}
	id, err := newID()
	if err != nil {
		return keys.Block{}, nil, err
	}
	return keys.Block{
		ID:         id,
		Version:    1,
		LMK:        lmkGeneration,
		Attributes: a,
		Origin:     origin,
		CheckBy:    by,
		CreatedMs:  c.clock().UnixMilli(),
		Policy:     policy,
	}, rest, nil
}

func (c *Custody) newRecord(template keys.Block, tags map[string]string, enabled bool) KeyRecord {
	k := KeyRecord{Block: &template, State: CreateComplete, Enabled: enabled, Tags: maps.Clone(tags)}
	if enabled {
		k.UsageStart = time.UnixMilli(template.CreatedMs).UTC()
	}
	return k
}

// addKey stores a key with the answer that a repeat of the request gets.
func (c *Custody) addKey(ctx context.Context, caller Caller, k KeyRecord, op Operation, repeat *Repeat) error {
	stored, err := c.once(caller, op, repeat, k)
	if err != nil {
		return err
	}
	if err := c.withinQuota(ctx, k.Aliases, func() error { return c.book.store.AddKey(ctx, k, stored) }); err != nil {
		return storeError("storing the key", err)
	}
	return nil
}

func (c *Custody) addAlias(ctx context.Context, alias Alias, stored *Once) error {
	if err := c.aliasWithinQuota(ctx, alias.Name, func() error { return c.book.store.AddAlias(ctx, alias, stored) }); err != nil {
		return storeError("storing the alias", err)
	}
	c.book.forgetAll()
	return nil
}

// namedToo is a change of a key that gets a name in the same step. A name that
// is too long for an id of a record is left out.
func namedToo(change audit.Change, alias string) *audit.Change {
	if object := change.Object + "/" + alias; len(object) <= mostID {
		change.Object = object
	}
	return &change
}

// once is the stored answer of a request that can be repeated.
func (c *Custody) once(caller Caller, op Operation, repeat *Repeat, k KeyRecord) (*Once, error) {
	if repeat == nil || repeat.Invocation == "" {
		return nil, nil
	}
	answer, err := repeat.Render(k)
	if err != nil {
		return nil, fmt.Errorf("custody: rendering the answer: %w", err)
	}
	return &Once{
		Principal:  caller.Name,
		Invocation: repeat.Invocation,
		Operation:  op,
		Body:       repeat.Body,
		Answer:     answer,
		At:         c.clock(),
	}, nil
}

// change runs a change of a key between its intent and its outcome.
func (c *Custody) change(ctx context.Context, caller Caller, corr string, action audit.Action, template *keys.Block, work func(*audit.Record) error) error {
	return c.changeWith(ctx, caller, corr, caller.Quorum, action, template, work)
}

// changeWith is change with the consent of others.
func (c *Custody) changeWith(ctx context.Context, caller Caller, corr string, approvals []audit.Approval, action audit.Action, template *keys.Block, work func(*audit.Record) error) error {
	r := c.changeRecord(caller, corr, action, audit.ChangeKey, string(template.ID))
	r.Approvals = approvals
	r.Keys = []audit.Key{{
		Role: audit.KeyRoleTarget, ID: string(template.ID), Version: int(template.Version),
		Usage: string(template.Attributes.Usage), Algo: algo(template.Attributes.Algorithm),
	}}
	return c.intended(ctx, r, work)
}

// intended makes the intent durable, works, and makes the outcome durable. When
// the outcome cannot be recorded the caller is told that nothing is sure
// (L-132); the intent remains.
func (c *Custody) intended(ctx context.Context, r audit.Record, work func(*audit.Record) error) error {
	ticket, err := c.log.Reserve(ctx, audit.Sec, 2)
	if err != nil {
		return fmt.Errorf("%w: no room in the audit log: %w", ErrUnavailable, err)
	}
	defer ticket.Release()
	intent := r
	intent.Phase = audit.PhaseIntent
	at, err := ticket.Append(intent)
	if err != nil {
		return fmt.Errorf("%w: writing the audit log: %w", ErrUnavailable, err)
	}
	start := time.Now()
	failed := work(&r)
	r.Ref = at[0].ID
	if r.Action != audit.LogPrune { // whose records have no duration
		r.Duration = time.Since(start)
	}
	describe(&r, failed)
	if _, err := ticket.Append(r); err != nil {
		return errors.Join(fmt.Errorf("%w: writing the audit log: %w", ErrUnavailable, err), failed)
	}
	return failed
}

func (c *Custody) changeRecord(caller Caller, corr string, action audit.Action, kind audit.ChangeKind, object string) audit.Record {
	r := audit.Record{
		Action: action,
		Actor:  actorSec(caller),
		Src:    audit.Source{Addr: caller.Addr, Conn: caller.Conn},
		Corr:   corr,
		Change: &audit.Change{Kind: kind, Object: object},
	}
	if action.NamesKeys() {
		r.HSM = audit.HSM{Serial: c.serial}
	}
	return r
}

// refuse records that a caller may not do what it asked for; other errors and
// nil pass through.
func (c *Custody) refuse(ctx context.Context, caller Caller, corr string, op Operation, err error) error {
	if !errors.Is(err, ErrDenied) {
		return err
	}
	if recorded := c.denials.record(ctx, c.denial(caller, corr, op)); recorded != nil {
		return recorded
	}
	return err
}

func custodyClass(inProcess bool) audit.Custody {
	if inProcess {
		return audit.CustodyProcess
	}
	return audit.CustodyToken
}

const idAlphabet = "0123456789abcdefghijklmnopqrstuvwxyz"

// newID draws 32 characters of [0-9a-z]: 165 bits.
func newID() (keys.ID, error) {
	id := make([]byte, 0, 32)
	var draw [64]byte
	for {
		if _, err := rand.Read(draw[:]); err != nil {
			return "", fmt.Errorf("%w: %w", ErrUnavailable, err)
		}
		for _, b := range draw {
			if b < 252 { // 7 × 36: no character is likelier than another
				id = append(id, idAlphabet[b%36])
			}
			if len(id) == cap(id) {
				return keys.ID(id), nil
			}
		}
	}
}
