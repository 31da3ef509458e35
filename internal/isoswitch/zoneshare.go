package isoswitch

import (
	"context"
	"errors"
	"fmt"

	"keyd.dev/keyd/internal/custody"
)

// errShared: a host would change the zone key of another.
var errShared = errors.New("isoswitch: another upstream has the same zone key, and its host would not know the new one")

// changeable reports whether one of the two hosts may change its zone keys.
func changeable(a, b *Upstream) bool {
	return a.ExchangeKey != (custody.Ref{}) || b.ExchangeKey != (custody.Ref{})
}

// zoneKeys are the two that a host may change.
func (u *Upstream) zoneKeys() [2]custody.Ref { return [2]custody.Ref{u.PINKey, u.MACKey} }

// checkShared refuses upstreams that name one zone key when a host of theirs may
// change it: it would then change that of the other too.
func checkShared(list []Upstream) error {
	for i := range list {
		for n := range i {
			a, b := &list[n], &list[i]
			if changeable(a, b) && (a.PINKey == b.PINKey || a.MACKey == b.MACKey) {
				return fmt.Errorf("%w: upstreams %s and %s share a zone key, and one of them has a key-exchange key, by which its host changes that of the other: give each keys of its own", ErrConfig, a.Name, b.Name)
			}
		}
	}
	return nil
}

// ownKeys refuses to serve where two names stand for one zone key that a host may
// change.
func (h *host) ownKeys(ctx context.Context) error {
	for _, ref := range h.cfg.zoneKeys() {
		if err := h.ownKey(ctx, ref); err != nil {
			if errors.Is(err, errShared) {
				err = fmt.Errorf("%w: %w", ErrConfig, err)
			}
			return fmt.Errorf("upstream %s: %w", h.cfg.Name, err)
		}
	}
	return nil
}

// ownKey returns errShared when another upstream has this zone key, by whatever
// name, and one of the two hosts may change it. It is asked at the start and
// before each change, since a name may have been moved in between.
func (h *host) ownKey(ctx context.Context, ref custody.Ref) error {
	caller := custody.SystemCaller("keyd", custody.RoleOperator)
	own, err := h.s.custody.Key(ctx, caller, "zone", ref)
	if err != nil {
		return fmt.Errorf("finding the zone key %s: %w", ref, err)
	}
	for _, other := range h.s.hosts {
		if other == h || !changeable(&h.cfg, &other.cfg) {
			continue
		}
		for _, its := range other.cfg.zoneKeys() {
			k, err := h.s.custody.Key(ctx, caller, "zone", its)
			if err != nil {
				return fmt.Errorf("finding the zone key %s of upstream %s: %w", its, other.cfg.Name, err)
			}
			if k.Block.ID == own.Block.ID {
				return fmt.Errorf("%w: %s is %s of upstream %s", errShared, ref, its, other.cfg.Name)
			}
		}
	}
	return nil
}
