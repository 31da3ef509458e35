package api

import "time"

// OccupyData takes places of the data plane's gate for a client, until they are
// given back.
func (h *Handler) OccupyData(client string, places int) (giveBack func()) {
	s := h.shares.of(client)
	g := &h.gates[dataPlane]
	g.mu.Lock()
	defer g.mu.Unlock()
	g.in += places
	s.data.in += places
	return func() {
		for range places {
			g.leave(s)
		}
	}
}

// Timeouts of connections.
const (
	HeaderTimeout = headerTimeout
	MostTimeout   = time.Minute
)
