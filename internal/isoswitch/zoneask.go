package isoswitch

import (
	"context"
	"fmt"
	"time"

	"keyd.dev/keyd/internal/custody"
	"keyd.dev/keyd/internal/iso8583"
)

// keyWanted is the code of DE 70 of an 0800 in which keyd asks the host for a new
// zone key. The host answers it, and sends the key by an 0800 of its own.
const keyWanted = "162"

// Bounds of the time between two looks at the age of the zone keys, and between
// two requests for the same one.
const (
	keyLookLeast = 500 * time.Millisecond
	keyLookMost  = time.Minute
	keyAskMost   = 10 * time.Minute
)

// keepKeys asks the host for new zone keys when those in place are older than the
// upstream says, until ctx ends. A host that does not send one is asked again.
func (h *host) keepKeys(ctx context.Context) {
	after := h.cfg.KeyAge
	if after == 0 || h.cfg.ExchangeKey == (custody.Ref{}) {
		return
	}
	asked := make(map[string]time.Time)
	for ctx.Err() == nil {
		sleep(ctx, max(keyLookLeast, min(after/10, keyLookMost)))
		z := h.zone.Load()
		for kind, ref := range map[string]custody.Ref{zoneMAC: z.mac, zonePIN: z.pin} {
			now := h.s.now()
			if now.Sub(asked[kind]) < min(after, keyAskMost) || !h.outworn(ctx, ref, now) {
				continue
			}
			l := h.chosen.Load()
			if l == nil || l.signState() != signedOn {
				continue
			}
			asked[kind] = now
			if err := l.askKey(ctx, kind); err != nil && ctx.Err() == nil {
				h.s.log.Warn("upstream: the host was asked for a new zone key and did not agree", "upstream", h.cfg.Name, "link", l.cfg.Name, "key", ref.String(), "error", err)
			}
		}
	}
}

// outworn reports whether a key was made longer ago than the upstream lets it be
// in use.
func (h *host) outworn(ctx context.Context, ref custody.Ref, now time.Time) bool {
	k, err := h.s.custody.Key(ctx, custody.SystemCaller("keyd", custody.RoleOperator), "age", ref)
	if err != nil {
		h.s.log.Error("upstream: the age of a zone key cannot be told", "upstream", h.cfg.Name, "key", ref.String(), "error", err)
		return false
	}
	return now.Sub(time.UnixMilli(k.Block.CreatedMs)) >= h.cfg.KeyAge
}

// askKey asks for one of the zone keys.
func (l *link) askKey(ctx context.Context, kind string) error {
	conn := l.current()
	if conn == nil {
		return errLinkDown
	}
	return l.manage(ctx, conn, keyWanted, func(b *iso8583.Builder) { b.Set(53, kind+fmt.Sprintf("%014d", 0)) })
}
