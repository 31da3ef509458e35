package ceremony

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"sync"
	"time"

	"keyd.dev/keyd/audit"
	"keyd.dev/keyd/internal/custody"
	"keyd.dev/keyd/keys"
)

// session is one ceremony.
type session struct {
	e      *Engine
	house  House
	id     string
	script *Script
	opener custody.Caller
	opened time.Time

	mu       sync.Mutex
	stage    Stage
	stages   []Stage
	revision int
	changed  chan struct{} // closed at the next change
	seats    []*seat
	deadline time.Time // of the step
	timer    *time.Timer
	whole    *time.Timer

	lock    *lock  // components are sealed to it
	check   string // of the whole key
	steps   int
	events  []Event
	made    Made
	done    bool // the work was done
	why     string
	ended   time.Time
	signed  []byte
	devices []Device

	algorithm keys.Algorithm   // of the parts
	method    keys.CheckMethod // of their check values
}

// seat is the place of one custodian.
type seat struct {
	part   CustodianPart
	number int // of its component, from 1

	caller custody.Caller // once it has joined
	joined bool
	public []byte // what is for it is sealed to this
	in     []byte // its component, sealed to the session's lock
	out    []byte // its component, sealed to public
	check  string // of its component
	fresh  bool   // it has done the present stage

	approval audit.Approval
}

func newSession(e *Engine, id string, script *Script, opener custody.Caller, key *lock) *session {
	s := &session{
		e: e, house: e.house, id: id, script: script, opener: opener, opened: time.Now().UTC(),
		stages: script.stages(), stage: Joining, changed: make(chan struct{}), lock: key, devices: script.device,
		algorithm: script.algorithm(), method: script.checkMethod(),
	}
	for i, part := range script.Custodians {
		s.seats = append(s.seats, &seat{part: part, number: i + 1})
	}
	return s
}

func (s *session) seat(name string) *seat {
	for _, t := range s.seats {
		if t.part.Name == name {
			return t
		}
	}
	return nil
}

func (s *session) over() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stage.Ended()
}

// at is where a component of this ceremony belongs.
func (s *session) at(t *seat, w way) place {
	return place{ceremony: s.id, custodian: t.part.Name, component: t.number, way: w}
}

// arm gives the step, and at the beginning the whole, its time.
func (s *session) arm() {
	if s.whole == nil {
		s.whole = time.AfterFunc(time.Duration(s.script.Timeout), func() { s.expire(time.Time{}) })
	}
	if s.timer != nil {
		s.timer.Stop()
	}
	deadline := time.Now().Add(time.Duration(s.script.StepTimeout))
	s.deadline = deadline
	s.timer = time.AfterFunc(time.Duration(s.script.StepTimeout), func() { s.expire(deadline) })
}

// expire ends the ceremony, unless the step that took too long was done while
// the timer fired.
func (s *session) expire(deadline time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !deadline.IsZero() && !deadline.Equal(s.deadline) {
		return
	}
	s.end(context.Background(), Expired, custody.SystemCaller("keyd"), audit.ReasonTimeout, "a step or the whole took too long")
}

// touch tells everybody who waits that something changed.
func (s *session) touch() {
	s.revision++
	close(s.changed)
	s.changed = make(chan struct{})
}

// forget lets go of everything secret and ends the clocks.
func (s *session) forget(stage Stage) {
	s.lock.forget()
	for _, t := range s.seats {
		t.in, t.out, t.public = nil, nil, nil
	}
	for _, timer := range []*time.Timer{s.timer, s.whole} {
		if timer != nil {
			timer.Stop()
		}
	}
	s.stage, s.ended = stage, time.Now().UTC()
}

// end forgets, records why, and signs the transcript. Ending what has ended
// does nothing.
func (s *session) end(ctx context.Context, stage Stage, by custody.Caller, reason audit.Reason, why string) {
	if s.stage.Ended() {
		return
	}
	at := s.stage
	s.forget(stage)
	s.why = why
	s.event(string(stage), by.Name, "", why)
	r, step := audit.Record{Action: audit.CeremonyAbort, Outcome: audit.OutcomeOK, Reason: reason}, audit.StepAbort
	switch stage {
	case Expired:
		r.Action, step = audit.CeremonyExpire, audit.StepExpire
	case Failed:
		r.Outcome = audit.OutcomeRefused
	}
	ctx = context.WithoutCancel(ctx)
	if err := s.note(ctx, by, r, audit.Cer{Step: step}); err != nil {
		s.e.log.Error("end of a ceremony not recorded", "ceremony", s.id, "stage", string(at), "error", err)
	}
	s.sign(ctx)
	s.touch()
}

// failure ends the ceremony for a cause that the log has a reason for.
func (s *session) failure(ctx context.Context, by custody.Caller, err error) error {
	stage := s.stage
	s.end(ctx, Failed, by, reasonOf(err), plain(err))
	s.e.log.Warn("ceremony failed", "ceremony", s.id, "stage", string(stage), "error", err)
	return err
}

// note makes a record of one phase.
func (s *session) note(ctx context.Context, by custody.Caller, r audit.Record, cer audit.Cer) error {
	r.Cer = s.cer(cer)
	if err := s.house.Note(ctx, by, s.id, r); err != nil {
		return fmt.Errorf("%w: recording the step: %w", ErrWork, err)
	}
	return nil
}

// step makes a record of intent, works, and makes one of the outcome.
func (s *session) step(ctx context.Context, by custody.Caller, action audit.Action, cer audit.Cer, work func(*audit.Record) error) error {
	r := audit.Record{Action: action, Cer: s.cer(cer)}
	err := s.house.Step(context.WithoutCancel(ctx), by, s.id, r, func(r *audit.Record) error {
		if err := work(r); err != nil {
			return custody.Reasoned(reasonOf(err), err)
		}
		return nil
	})
	if err != nil && codeOf(err) == "" {
		return fmt.Errorf("%w: %w", ErrWork, err)
	}
	return err
}

// cer fills in what every record of this ceremony says.
func (s *session) cer(cer audit.Cer) *audit.Cer {
	cer.ID, cer.Purpose = s.id, s.script.Purpose
	cer.N, cer.M = len(s.seats), len(s.seats)
	cer.StepNo = s.steps
	s.steps++
	return &cer
}

// event adds a line to the transcript.
func (s *session) event(step, who, check, note string) {
	s.events = append(s.events, Event{At: time.Now().UTC(), Step: step, Who: who, Check: check, Note: note})
}

// reasonOf is the log's word for what went wrong.
func reasonOf(err error) audit.Reason {
	for _, m := range []struct {
		is  error
		why audit.Reason
	}{
		{ErrSamePerson, audit.ReasonSamePerson},
		{ErrCheck, audit.ReasonKCVMismatch},
		{ErrComponent, audit.ReasonFormatError},
		{ErrSeal, audit.ReasonFormatError},
		{ErrConfirm, audit.ReasonCancelled},
		{ErrDenied, audit.ReasonRoleDenied},
		{ErrStage, audit.ReasonQuorumMissing},
	} {
		if errors.Is(err, m.is) {
			return m.why
		}
	}
	return custody.ReasonOf(err)
}

// plain is an error as a record of people may have it.
func plain(err error) string {
	text := []byte(err.Error())
	for i, b := range text {
		if b < 0x20 || b > 0x7e {
			text[i] = '?'
		}
	}
	return string(text[:min(len(text), mostPurpose)])
}

// newUUID makes a UUID of version 7 (RFC 9562), so that one record can name
// another that is not written yet.
func newUUID(at time.Time) audit.UUID {
	var u audit.UUID
	_, _ = rand.Read(u[6:]) // never fails; it ends the process instead
	ms := uint64(at.UnixMilli())
	for i := range 6 {
		u[i] = byte(ms >> (40 - 8*i))
	}
	u[6], u[8] = u[6]&0x0f|0x70, u[8]&0x3f|0x80
	return u
}
