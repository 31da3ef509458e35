package custody

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"keyd.dev/keyd/audit"
	"keyd.dev/keyd/keys"
)

// KeyUse is how often a key was used, as the store keeps it.
type KeyUse struct {
	Key  keys.ID
	Uses uint64 // counted for sure
	// Reserved is what may have been used up since: after a crash it is what
	// counts, so that a limited key is never used more often than it may.
	Reserved    uint64
	First, Last time.Time // of the uses that were seen; zero: none
	WarnedUses  uint64    // the highest number of uses that was announced
	WarnedTime  time.Time // the latest moment of the cryptoperiod that was announced
}

// UsageStore keeps the counters of keys. It is safe for concurrent use.
type UsageStore interface {
	// KeyUse returns the counter of a key, zero where it has none.
	KeyUse(ctx context.Context, id keys.ID) (KeyUse, error)
	// SaveKeyUses makes counters durable, all or none. No member may fall.
	SaveKeyUses(ctx context.Context, uses []KeyUse) error
}

// flushEvery is how often counters are written down, mostFlushed how many in one
// commit, so that sales do not wait long for it.
const (
	flushEvery  = time.Minute
	mostFlushed = 256
)

// mostLeap is how many uses of a limited key are reserved at a time at most.
const mostLeap = 1 << 16

// usage counts what keys are used for, and refuses what their limits refuse.
// Counting is in memory; what limits need is made durable ahead of the uses.
type usage struct {
	store UsageStore
	clock func() time.Time

	flushing sync.Mutex
	flushed  time.Time

	mu     sync.RWMutex
	meters map[keys.ID]*meter
}

func newUsage(store UsageStore, clock func() time.Time) *usage {
	return &usage{store: store, clock: clock, meters: make(map[keys.ID]*meter)}
}

// meter is the counter of one key.
type meter struct {
	limits atomic.Pointer[limits]
	uses   atomic.Uint64
	// fence is the first count that needs more than counting: a reservation, an
	// announcement, or a refusal.
	fence atomic.Uint64
	// spare are uses that were counted for messages whose MAC was wrong; the next
	// ones take them, so that uses never falls.
	spare atomic.Int64

	mu    sync.Mutex // held for what follows, and while uses are reserved
	saved KeyUse     // as the store has it
}

// of returns the meter of a key under its present policy.
func (u *usage) of(ctx context.Context, k KeyRecord) (*meter, error) {
	b := k.Block
	u.mu.RLock()
	m := u.meters[b.ID]
	u.mu.RUnlock()
	if m != nil {
		if l := m.limits.Load(); l.mac == b.MAC && l.life == k.Life {
			return m, nil
		}
	}
	l, err := limitsOf(k)
	if err != nil {
		return nil, err
	}
	if m == nil {
		saved, err := u.store.KeyUse(ctx, b.ID)
		if err != nil {
			return nil, storeError("reading a key's counter", err)
		}
		m = u.add(b.ID, saved, l)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.limits.Store(l)
	m.refence()
	return m, nil
}

// add makes a meter unless another user has.
func (u *usage) add(id keys.ID, saved KeyUse, l *limits) *meter {
	u.mu.Lock()
	defer u.mu.Unlock()
	if m := u.meters[id]; m != nil {
		return m
	}
	saved.Key = id
	m := &meter{saved: saved}
	m.uses.Store(max(saved.Uses, saved.Reserved))
	m.limits.Store(l)
	u.meters[id] = m
	return m
}

// refence finds the next count that needs attention. The caller holds the mutex.
func (m *meter) refence() {
	l := m.limits.Load()
	if l.most == 0 {
		m.fence.Store(noFence)
		return
	}
	next := min(m.saved.Reserved, l.most) + 1
	for _, w := range l.warnUses {
		if w > m.saved.WarnedUses {
			next = min(next, w)
		}
	}
	m.fence.Store(next)
}

// ready refuses a key that is not to be used so at this time. The meter that it
// returns counts the use: see [Custody.count].
func (c *Custody) ready(ctx context.Context, k KeyRecord, way direction) (*meter, error) {
	if err := inUse(k); err != nil {
		return nil, err
	}
	m, err := c.usage.of(ctx, k)
	if err != nil {
		return nil, err
	}
	if l := m.limits.Load(); l.timed() {
		if err := l.at(c.clock(), way); err != nil {
			return nil, c.announced(ctx, k, m, err)
		}
	}
	return m, nil
}

// count takes one use of the key, directly before it. It returns [ErrKeyState]
// where no use is left, and [ErrUnavailable] where the count cannot be kept.
func (c *Custody) count(ctx context.Context, k KeyRecord, m *meter) error {
	if m.takeSpare() {
		return nil
	}
	n := m.uses.Add(1)
	if n < m.fence.Load() {
		return nil
	}
	err := c.beyond(ctx, k, m, n)
	if err != nil {
		m.uses.Add(^uint64(0))
	}
	return err
}

// takeSpare takes a use that was given back, where there is one.
func (m *meter) takeSpare() bool {
	for {
		n := m.spare.Load()
		if n <= 0 {
			return false
		}
		if m.spare.CompareAndSwap(n, n-1) {
			return true
		}
	}
}

// giveBack returns the use of a message from a terminal whose MAC was wrong. What
// limits a key's messages is what an attacker learns of it, and from a forgery he
// learns nothing; counted, forgeries would drive terminals into a new key. Guessing
// is limited by the lock-out. At the API each try stays counted.
func (a *Act) giveBack(used usedKey) {
	if used.meter != nil && a.caller.Has(RoleSwitch) {
		used.meter.spare.Add(1)
	}
}

// use is ready and count: for operations whose other checks are done.
func (c *Custody) use(ctx context.Context, k KeyRecord, way direction) error {
	m, err := c.ready(ctx, k, way)
	if err != nil {
		return err
	}
	return c.count(ctx, k, m)
}

// beyond is count at a fence.
func (c *Custody) beyond(ctx context.Context, k KeyRecord, m *meter, n uint64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	defer m.refence()
	l := m.limits.Load()
	if l.most == 0 {
		return nil
	}
	if n > l.most {
		if err := c.announceUses(ctx, k, m, l.most+1); err != nil {
			return errors.Join(errExhausted, err)
		}
		return errExhausted
	}
	if n > m.saved.Reserved {
		next := m.saved
		leap := min(max(l.most/1000, 1), mostLeap)
		next.Reserved = min(l.most, n-1+leap)
		if err := c.usage.store.SaveKeyUses(ctx, []KeyUse{next}); err != nil {
			return storeError("reserving uses of a key", err)
		}
		m.saved = next
	}
	passed := uint64(0)
	for _, w := range l.warnUses {
		if n >= w {
			passed = w
		}
	}
	return c.announceUses(ctx, k, m, passed)
}

// announceUses says once that a number of uses was reached; beyond the limit
// that none is left. The caller holds the meter's mutex.
func (c *Custody) announceUses(ctx context.Context, k KeyRecord, m *meter, reached uint64) error {
	if reached <= m.saved.WarnedUses {
		return nil
	}
	notice := limitNotice{reason: audit.ReasonKeyExhausted, blocked: reached > m.limits.Load().most, code: "key_uses"}
	if err := c.announce(ctx, k, notice); err != nil {
		return err
	}
	next := m.saved
	next.WarnedUses = reached
	return c.saveUse(ctx, m, next)
}

// announced passes a refusal by the clock on, and announces the end of the
// cryptoperiod when this is the first to meet it.
func (c *Custody) announced(ctx context.Context, k KeyRecord, m *meter, why error) error {
	if !errors.Is(why, errExpired) {
		return why
	}
	if err := c.announceTime(ctx, k, m, m.limits.Load().notAfter); err != nil {
		return errors.Join(why, err)
	}
	return why
}

// announceTime says once that a moment of the cryptoperiod was reached.
func (c *Custody) announceTime(ctx context.Context, k KeyRecord, m *meter, reached int64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.saved.WarnedTime.IsZero() && reached <= m.saved.WarnedTime.UnixNano() {
		return nil
	}
	notice := limitNotice{reason: audit.ReasonKeyExpired, blocked: reached >= m.limits.Load().notAfter, code: "key_period"}
	if err := c.announce(ctx, k, notice); err != nil {
		return err
	}
	next := m.saved
	next.WarnedTime = time.Unix(0, reached).UTC()
	return c.saveUse(ctx, m, next)
}

func (c *Custody) saveUse(ctx context.Context, m *meter, next KeyUse) error {
	if err := c.usage.store.SaveKeyUses(ctx, []KeyUse{next}); err != nil {
		return storeError("keeping what was announced of a key", err)
	}
	m.saved = next
	return nil
}

// limitNotice is what is said of a limit: a warning, or that it blocks.
type limitNotice struct {
	reason  audit.Reason
	blocked bool
	code    string
}

// announce records a limit in the log sec and raises the alarm.
func (c *Custody) announce(ctx context.Context, k KeyRecord, n limitNotice) error {
	r := audit.Record{
		Action:  audit.KeyLimit,
		Outcome: audit.OutcomeOK,
		Reason:  n.reason,
		Actor:   audit.System(),
		HSM:     audit.HSM{Serial: c.serial},
		Keys:    []audit.Key{keyEntrySec(audit.KeyRoleTarget, k.Block, keyName(k))},
		Alarm:   audit.Alarm{Code: n.code + "_warning", Level: audit.LevelWarn},
	}
	if n.blocked {
		r.Outcome = audit.OutcomeRefused
		r.Alarm = audit.Alarm{Code: n.code + "_over", Level: audit.LevelCritical}
	}
	if err := c.record(ctx, r); err != nil {
		return err
	}
	c.alarmed(r.Alarm, k.Block.ID, nil)
	return nil
}

// flush makes the counts so far durable. What was counted is exact when the
// daemon ends in order; after a crash the count of a key without a limit lacks
// what came after the last flush, that of a limited one has at most a leap more.
func (u *usage) flush(ctx context.Context, last bool) error {
	u.flushing.Lock() // a flush holds many meters at a time
	defer u.flushing.Unlock()
	now := u.clock()
	if !last && now.Sub(u.flushed).Abs() < flushEvery {
		return nil
	}
	u.mu.RLock()
	meters := make([]*meter, 0, len(u.meters))
	for _, m := range u.meters {
		meters = append(meters, m)
	}
	u.mu.RUnlock()
	for len(meters) > 0 {
		n := min(mostFlushed, len(meters))
		if err := u.save(ctx, meters[:n], now, last); err != nil {
			return err
		}
		meters = meters[n:]
	}
	u.flushed = now
	return nil
}

func (u *usage) save(ctx context.Context, meters []*meter, now time.Time, last bool) error {
	var changed []*meter
	var rows []KeyUse
	defer func() {
		for _, m := range changed {
			m.mu.Unlock()
		}
	}()
	for _, m := range meters {
		m.mu.Lock()
		next, differs := m.counted(now, last)
		if !differs {
			m.mu.Unlock()
			continue
		}
		changed, rows = append(changed, m), append(rows, next)
	}
	if len(rows) == 0 {
		return nil
	}
	if err := u.store.SaveKeyUses(ctx, rows); err != nil {
		return storeError("keeping the counters of keys", err)
	}
	for i, m := range changed {
		m.saved = rows[i]
		m.refence()
	}
	return nil
}

// counted is the row of a meter now, and whether it differs from the stored
// one. The last one gives back what is reserved and was not used. The caller
// holds the mutex.
func (m *meter) counted(now time.Time, last bool) (KeyUse, bool) {
	next := m.saved
	uses := m.uses.Load()
	limited := m.limits.Load().most > 0
	if limited && !last {
		uses = min(uses, next.Reserved) // a use that waits for its reservation is none yet
	}
	if uses > next.Uses {
		next.Uses, next.Last = uses, now
		if next.First.IsZero() {
			next.First = now
		}
	}
	if !limited || last {
		next.Reserved = next.Uses
	}
	return next, next != m.saved
}

// snapshot is the counter of a key at this moment.
func (u *usage) snapshot(ctx context.Context, id keys.ID) (KeyUse, error) {
	u.mu.RLock()
	m := u.meters[id]
	u.mu.RUnlock()
	if m == nil {
		saved, err := u.store.KeyUse(ctx, id)
		if err != nil {
			return KeyUse{}, storeError("reading a key's counter", err)
		}
		saved.Key, saved.Uses = id, max(saved.Uses, saved.Reserved)
		return saved, nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	now, _ := m.counted(u.clock(), false)
	now.Uses = m.uses.Load()
	return now, nil
}
