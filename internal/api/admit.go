package api

import (
	"bytes"
	"cmp"
	"context"
	"net/http"
	"strings"
	"time"

	"keyd.dev/keyd/audit"
	"keyd.dev/keyd/internal/custody"
)

// mostHeaders is how many header fields a request may have; SDKs send a dozen.
const mostHeaders = 64

// admit counts the request in as one of the client's, or refuses it at once
// (section 7 of the API: who would wait too long is told so, and does not wait).
func (c *call) admit(r *http.Request) error {
	s := c.shares.of(c.caller.Name)
	if why, ok := s.enter(c.clock); !ok {
		return c.throttle(s, why)
	}
	c.share = s
	if len(r.Header) > mostHeaders {
		return &fault{name: validation, message: "the request has too many header fields", hangUp: true}
	}
	c.deadline = deadline(r.Header["Amz-Sdk-Request"])
	return c.late()
}

// work carries the operation out when the request's turn has come. The body has
// been read by then and the answer is written after it, so that a slow client
// holds nobody's place.
func (c *call) work(op *operation) error {
	g := &c.gates[c.plane]
	in, err := g.enter(c.ctx, c.share, c.shares.limits.Load().Wait)
	if err != nil {
		return err
	}
	if !in {
		return c.throttle(c.share, tooLong)
	}
	defer g.leave(c.share)
	if err := c.late(); err != nil {
		return err
	}
	return op.do(c)
}

// late refuses a request for whose answer nobody waits any more (section 3.3).
func (c *call) late() error {
	if !c.deadline.IsZero() && c.clock().After(c.deadline) {
		return refusal(throttling, "the deadline of the request has passed")
	}
	return nil
}

// deadline reads the ttl that some SDKs send with a repeated request:
// "attempt=2; max=5; ttl=20060102T150405Z". It is zero where there is none that
// can be read.
func deadline(values []string) time.Time {
	if len(values) != 1 {
		return time.Time{}
	}
	_, ttl, found := strings.Cut(values[0], "ttl=")
	if !found {
		return time.Time{}
	}
	ttl, _, _ = strings.Cut(ttl, ";")
	at, err := time.Parse("20060102T150405Z", strings.TrimSpace(ttl))
	if err != nil {
		return time.Time{}
	}
	return at
}

// The pace of refusals to one client. The first ones are told at once. Who goes
// on asking is told after a moment, so that a flood that gets nothing does not
// take the processors with it; and who has too many such answers coming to him
// loses the connection.
const (
	refusalRate  = 200 // in a second, at once
	refusalBurst = 500
	refusalPause = 100 * time.Millisecond
)

// pace holds the answer to a request back that was refused, where its client was
// refused very often. A verification that failed is a result, and no refusal.
func (c *call) pace(f *fault) {
	if f.name == verification {
		return
	}
	s := c.share
	if s == nil {
		s = c.shares.of(cmp.Or(c.caller.Name, strangers))
	}
	if s.told.take(c.clock().UnixNano(), refusalRate, refusalBurst) {
		return
	}
	defer s.paused.Add(-1)
	if s.paused.Add(1) > int64(s.limits.Load().Concurrent) {
		f.hangUp = true
		return
	}
	timer := time.NewTimer(refusalPause)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-c.ctx.Done():
	}
}

// throttle counts a refusal for its number and is the answer to it. The daemon's
// log hears once a minute of a client, the audit log gets one count ([Handler.Report]).
func (c *call) throttle(s *share, why cause) error {
	c.Handler.turnedAway(s, why)
	switch why {
	case tooMany:
		return refusal(throttling, "too many requests at a time")
	case tooLong:
		return refusal(throttling, "no capacity is available")
	}
	return refusal(throttling, "request rate exceeded")
}

// turnedAway counts a request or a connection that was refused for its number.
func (h *Handler) turnedAway(s *share, why cause) {
	s.refused[why].Add(1)
	reason := audit.ReasonRateLimited
	if why == tooLong {
		reason = audit.ReasonQueueFull
	}
	h.tally.add(s.name, reason)
	if s.tell(h.clock()) {
		h.log.Warn("client throttled", "client", s.name, "limit", why.String())
	}
}

// beside is who calls a handler beside the API, and the id of the request.
type beside struct {
	caller custody.Caller
	id     string
}

type besideKey struct{}

// Beside puts another handler beside the API: its clients are the same, known by
// the same certificates and under the same limits of rate and number. What is
// refused here is answered in JSON with a code, as ceremonies answer.
func (h *Handler) Beside(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c := h.calls.Get().(*call)
		defer h.release(c)
		c.ctx, c.id = r.Context(), c.ids.next()
		var err error
		if c.caller, err = c.identify(r); err == nil {
			err = c.admit(r)
		}
		if err == nil {
			next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), besideKey{}, beside{c.caller, c.id})))
			return
		}
		f := c.faultOf(err)
		c.pace(f)
		status, code := f.name.status(dataPlane), "denied"
		if f.name == throttling {
			code = "throttled"
		}
		if f.name == validation {
			code = "request"
		}
		if f.hangUp {
			w.Header().Set("Connection", "close")
		}
		text := bytes.NewBufferString(`{"code":`)
		text.Write(appendString(nil, code))
		text.WriteString(`,"message":`)
		text.Write(appendString(nil, f.message))
		text.WriteString("}")
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		// A client that is gone is not told.
		_, _ = w.Write(text.Bytes())
	})
}
