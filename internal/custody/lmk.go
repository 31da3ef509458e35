package custody

import (
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"keyd.dev/keyd/audit"
	"keyd.dev/keyd/internal/secret"
	"keyd.dev/keyd/keys"
)

// MasterKeys is what custody needs of the boundary to change the local master
// key. *hsm.Manager has it. Its errors wrap the sentinels of package keys.
type MasterKeys interface {
	// LMKs lists the generations that the token holds, in their order.
	LMKs(ctx context.Context) ([]keys.LMK, error)
	// CheckLMK computes in the process the check value of a generation.
	CheckLMK(lmk secret.Bytes, generation uint32) (keys.KCV, error)
	// AddLMK puts another generation beside them, of which new blocks are from then on.
	AddLMK(ctx context.Context, lmk secret.Bytes) (generation uint32, err error)
	// Prove answers a challenge as every token with this generation does.
	Prove(ctx context.Context, generation uint32, challenge [32]byte) ([16]byte, error)
	// RewrapAll moves blocks to the newest generation inside the token; the
	// answers stand in the order of the blocks.
	RewrapAll(ctx context.Context, blocks []*keys.Block) ([]keys.Rewrapped, error)
	// Outdate takes the objects of blocks that were replaced out of the token, as
	// soon as nobody uses them.
	Outdate(blocks []*keys.Block)
	// RetireLMK destroys a generation, under which so many blocks are, and looks
	// for it: [keys.ErrNotDestroyed].
	RetireLMK(ctx context.Context, generation uint32, blocks int) error
}

// LMKStore keeps what is known of the generations, and moves blocks between
// them. It is safe for concurrent use.
type LMKStore interface {
	// LMKs returns the generations that were noted, in their order.
	LMKs(ctx context.Context) ([]LMKNote, error)
	// NoteLMK notes a generation; one that was noted before stays as it is.
	NoteLMK(ctx context.Context, generation uint32, since time.Time) error
	// RetireLMK notes that a generation is retired: the store takes no block of
	// it any more. It returns [ErrConflict] while it has one.
	RetireLMK(ctx context.Context, generation uint32, at time.Time) error
	// CountByLMK returns how many blocks are under each generation.
	CountByLMK(ctx context.Context) (map[uint32]int, error)
	// BlocksUnder returns up to limit blocks under a generation, those after the
	// id, in the order of their ids.
	BlocksUnder(ctx context.Context, generation uint32, after keys.ID, limit int) ([]*keys.Block, error)
	// ReplaceBlocks puts each new block in the place of the old one, in one
	// commit, and returns which. A key whose block is not the old one any more is
	// left as it is; nothing else of a key is changed.
	ReplaceBlocks(ctx context.Context, all []BlockChange) (done []BlockChange, err error)
}

// LMKNote is a generation as the store knows it.
type LMKNote struct {
	Generation uint32
	Since      time.Time // when keyd first knew of it
	Retired    time.Time // zero: it was not
}

// BlockChange is a block and the one that takes its place.
type BlockChange struct{ Old, New *keys.Block }

// LMKStatus is a generation of the local master key.
type LMKStatus struct {
	keys.LMK           // zero but for Generation where the token does not hold it
	Held     bool      // by the token
	Newest   bool      // new blocks are put under it
	Since    time.Time // when keyd first knew of it
	Retired  time.Time // zero: it was not
	Keys     int       // blocks under it
}

// LMKs lists the generations of the local master key: those that the token
// holds, and those that were retired. It returns [ErrDenied] or [ErrUnavailable].
func (c *Custody) LMKs(ctx context.Context, caller Caller, corr string) ([]LMKStatus, error) {
	if err := c.mayLMK(ctx, caller, corr, OpGetLMK); err != nil {
		return nil, err
	}
	return c.lmks(ctx)
}

// mayLMK reports whether the caller may do op, and whether this process can.
func (c *Custody) mayLMK(ctx context.Context, caller Caller, corr string, ops ...Operation) error {
	for _, op := range ops {
		if caller.may(op) {
			if c.masters == nil {
				return fmt.Errorf("%w: this process changes no local master key", ErrUnavailable)
			}
			return nil
		}
	}
	return c.refuse(ctx, caller, corr, ops[0], fmt.Errorf("%w: no role of the caller has %s", ErrDenied, ops[0]))
}

func (c *Custody) lmks(ctx context.Context) ([]LMKStatus, error) {
	held, err := c.masters.LMKs(ctx)
	if err != nil {
		return nil, tokenError("listing the local master keys", err)
	}
	var newest uint32
	for _, g := range held {
		if !g.Whole {
			continue
		}
		newest = g.Generation
		if err := c.lmkStore.NoteLMK(ctx, g.Generation, c.clock()); err != nil {
			return nil, storeError("noting a local master key", err)
		}
	}
	notes, err := c.lmkStore.LMKs(ctx)
	if err != nil {
		return nil, storeError("listing the local master keys", err)
	}
	counts, err := c.lmkStore.CountByLMK(ctx)
	if err != nil {
		return nil, storeError("counting keys", err)
	}
	by := make(map[uint32]LMKStatus)
	at := func(generation uint32, set func(*LMKStatus)) {
		s := by[generation]
		s.Generation = generation
		set(&s)
		by[generation] = s
	}
	for _, g := range held {
		at(g.Generation, func(s *LMKStatus) { s.LMK, s.Held, s.Newest = g, true, g.Generation == newest })
	}
	for _, n := range notes {
		at(n.Generation, func(s *LMKStatus) { s.Since, s.Retired = n.Since, n.Retired })
	}
	for generation, n := range counts {
		at(generation, func(s *LMKStatus) { s.Keys = n })
	}
	list := make([]LMKStatus, 0, len(by))
	for _, s := range by {
		list = append(list, s)
	}
	slices.SortFunc(list, func(a, b LMKStatus) int { return int(int64(a.Generation) - int64(b.Generation)) })
	return list, nil
}

// newestLMK returns the generation that new blocks are put under.
func (c *Custody) newestLMK(ctx context.Context) (keys.LMK, error) {
	held, err := c.masters.LMKs(ctx)
	if err != nil {
		return keys.LMK{}, tokenError("listing the local master keys", err)
	}
	var newest keys.LMK
	for _, g := range held {
		if g.Whole {
			newest = g
		}
	}
	return newest, nil
}

// NextLMK returns the generation that [Custody.AddLMK] would make.
func (c *Custody) NextLMK(ctx context.Context) (uint32, error) {
	if c.masters == nil {
		return 0, fmt.Errorf("%w: this process changes no local master key", ErrUnavailable)
	}
	newest, err := c.newestLMK(ctx)
	return newest.Generation + 1, err
}

// CheckLMK computes in the process the check value that a local master key has
// in a generation. It returns [ErrRequest] for a value that is none.
func (c *Custody) CheckLMK(lmk secret.Bytes, generation uint32) (keys.KCV, error) {
	if c.masters == nil {
		return keys.KCV{}, fmt.Errorf("%w: this process changes no local master key", ErrUnavailable)
	}
	check, err := c.masters.CheckLMK(lmk, generation)
	if err != nil {
		return keys.KCV{}, fmt.Errorf("%w: %w", ErrRequest, err)
	}
	return check, nil
}

// lmkApprovals is how many different people must stand behind a new local
// master key.
const lmkApprovals = 2

// AddLMK puts a local master key that a ceremony has put together beside those
// of the token. The caller must be one of a ceremony, approvals those whose
// components made it: two or more, of different people. New blocks are under it
// from then on; [Custody.RewrapKeys] moves the others. The value is the caller's
// to clear. It returns [ErrDenied], [ErrRequest] for a value that is none,
// [ErrConflict] for one that the token holds already, or [ErrUnavailable].
func (c *Custody) AddLMK(ctx context.Context, caller Caller, corr string, lmk secret.Bytes, approvals []audit.Approval) (generation uint32, err error) {
	if err := c.mayLMK(ctx, caller, corr, OpOpenCeremony, OpJoinCeremony); err != nil {
		return 0, err
	}
	if people(approvals) < lmkApprovals {
		return 0, c.refuse(ctx, caller, corr, OpOpenCeremony, fmt.Errorf("%w: a local master key takes %d custodians", ErrDenied, lmkApprovals))
	}
	next, err := c.NextLMK(ctx)
	if err != nil {
		return 0, err
	}
	check, err := c.CheckLMK(lmk, next)
	if err != nil {
		return 0, err
	}
	r := c.lmkRecord(caller, corr, audit.KeyImport, keys.LMK{Generation: next, Check: check}, audit.KeyRoleTarget)
	r.Approvals, r.Custody = approvals, audit.CustodyProcess
	err = c.intended(ctx, r, func(r *audit.Record) error {
		generation, err = c.masters.AddLMK(ctx, lmk)
		switch {
		case errors.Is(err, keys.ErrMaterial):
			return fmt.Errorf("%w: %w", ErrRequest, err)
		case errors.Is(err, keys.ErrSameLMK):
			return fmt.Errorf("%w: the token holds this local master key already", ErrConflict)
		case err != nil:
			return tokenError("adding a local master key", err)
		case generation != next:
			return fmt.Errorf("%w: the token made generation %d in place of %d", ErrUnavailable, generation, next)
		}
		if err := c.lmkStore.NoteLMK(ctx, generation, c.clock()); err != nil {
			return storeError("noting a local master key", err)
		}
		return nil
	})
	if err != nil {
		return 0, err
	}
	return generation, nil
}

// people counts the different people among approvals, of those that name a
// record in which the log shows it.
func people(approvals []audit.Approval) int {
	ids := make(map[string]bool)
	for _, a := range approvals {
		if a.ID != "" && a.Ref != (audit.UUID{}) {
			ids[a.ID] = true
		}
	}
	return len(ids)
}

// lmkObject names a generation in records, and for those who approve.
func lmkObject(generation uint32) string {
	return "lmk/" + strconv.FormatUint(uint64(generation), 10)
}

func (c *Custody) lmkRecord(caller Caller, corr string, action audit.Action, lmk keys.LMK, role audit.KeyRole) audit.Record {
	r := c.changeRecord(caller, corr, action, audit.ChangeKey, lmkObject(lmk.Generation))
	key := audit.Key{Role: role, ID: lmkObject(lmk.Generation), Version: int(lmk.Generation), Algo: audit.AlgoAES256}
	if lmk.Check != (keys.KCV{}) {
		key.KCV = lmk.Check.String()
	}
	r.Keys = []audit.Key{key}
	return r
}

// ProveLMK answers a challenge that another site has set: see [MasterKeys.Prove].
// It returns [ErrDenied], [ErrRequest] for a generation that the token does not
// hold, or [ErrUnavailable].
func (c *Custody) ProveLMK(ctx context.Context, caller Caller, corr string, generation uint32, challenge [32]byte) ([16]byte, error) {
	if err := c.mayLMK(ctx, caller, corr, OpGetLMK); err != nil {
		return [16]byte{}, err
	}
	answer, err := c.masters.Prove(ctx, generation, challenge)
	if errors.Is(err, keys.ErrLMK) {
		return [16]byte{}, fmt.Errorf("%w: the token does not hold local master key %d", ErrRequest, generation)
	}
	if err != nil {
		return [16]byte{}, tokenError("proving the local master key", err)
	}
	return answer, nil
}

// VerifyLMK reports whether the answer is that of a token with the same local
// master key. Errors are those of [Custody.ProveLMK].
func (c *Custody) VerifyLMK(ctx context.Context, caller Caller, corr string, generation uint32, challenge [32]byte, answer [16]byte) (bool, error) {
	own, err := c.ProveLMK(ctx, caller, corr, generation, challenge)
	return err == nil && subtle.ConstantTimeCompare(own[:], answer[:]) == 1, err
}

// RetireLMK destroys a generation of the local master key that no block is
// under any more. It returns [ErrDenied], [ErrRequest] for a generation that was
// never there, [ErrConflict] for the newest and while keys are under it,
// [ErrApproval], or [ErrUnavailable]; after that the call can be repeated. A
// generation that is still in the token afterwards raises the alarm
// lmk_not_destroyed.
func (c *Custody) RetireLMK(ctx context.Context, caller Caller, corr string, generation uint32) error {
	if err := c.mayLMK(ctx, caller, corr, OpRetireLMK); err != nil {
		return err
	}
	list, err := c.lmks(ctx)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(list, func(s LMKStatus) bool { return s.Generation == generation })
	switch {
	case i < 0:
		return fmt.Errorf("%w: there is no local master key %d", ErrRequest, generation)
	case list[i].Newest:
		return fmt.Errorf("%w: local master key %d is the newest", ErrConflict, generation)
	case list[i].Keys > 0:
		return fmt.Errorf("%w: %d keys are under local master key %d; re-wrap them first", ErrConflict, list[i].Keys, generation)
	case !list[i].Held && !list[i].Retired.IsZero():
		return fmt.Errorf("%w: local master key %d was retired", ErrConflict, generation)
	}
	approvals, err := c.approved(ctx, caller, corr, OpRetireLMK, lmkObject(generation))
	if err != nil {
		return err
	}
	r := c.lmkRecord(caller, corr, audit.KeyDestroy, list[i].LMK, audit.KeyRoleTarget)
	r.Approvals = approvals
	return c.intended(ctx, r, func(*audit.Record) error { return c.retireLMK(ctx, caller, corr, generation) })
}

func (c *Custody) retireLMK(ctx context.Context, caller Caller, corr string, generation uint32) error {
	// From here on the store takes no block of it, so that none can come between.
	if err := c.lmkStore.RetireLMK(ctx, generation, c.clock()); err != nil {
		return storeError("retiring a local master key", err)
	}
	c.book.forgetAll()
	counts, err := c.lmkStore.CountByLMK(ctx)
	if err != nil {
		return storeError("counting keys", err)
	}
	err = c.masters.RetireLMK(ctx, generation, counts[generation])
	if errors.Is(err, keys.ErrNotDestroyed) {
		alarm := audit.Record{
			Action: audit.SysAlarm, Outcome: audit.OutcomeError, Reason: audit.ReasonInternal,
			Alarm: audit.Alarm{Code: "lmk_not_destroyed", Level: audit.LevelCritical},
		}
		c.alarmed(alarm.Alarm, "", err)
		err = errors.Join(err, c.Record(ctx, caller, corr, alarm))
	}
	if err != nil && !errors.Is(err, keys.ErrLMK) { // gone: by an earlier try that could not say so
		return tokenError("retiring a local master key", err)
	}
	return nil
}
