package isoswitch

import "keyd.dev/keyd/audit"

// offLink refuses a terminal that may not come by this link (D-02, A-18.T2): the
// client of the link's certificate says which may. It is asked after the MAC, so
// that a forgery is a forgery on every link and tells nobody where a terminal
// belongs; and before all that changes anything, the counter of its KSN and the
// look for an original included. An 0800, which may have no MAC, is asked at once:
// a sign-in from elsewhere would take the keys away from a terminal at work.
func (s *Switch) offLink(r *request) *verdict {
	if r.scope.Has(r.terminal.TID, r.terminal.MID) {
		if r.macKey != "" {
			r.peer.lockout.prove()
		}
		return nil
	}
	v := r.refusal("D-02")
	v.reason = audit.ReasonTerminalLink
	s.log.Warn("a terminal comes by a link that is not its own", "corr", r.corr, "client", r.peer.caller.Name, "tid", r.terminal.TID)
	s.observe(Event{Name: "foreign_link", Rule: v.rule})
	return v
}
