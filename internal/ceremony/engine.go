package ceremony

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"keyd.dev/keyd/audit"
	"keyd.dev/keyd/internal/custody"
)

// Config is what an engine is made of. House is needed.
type Config struct {
	House House
	Log   *slog.Logger // what clients are not told; nil keeps it to itself
}

// The bounds of an engine. Ended ceremonies hold nothing but their transcript.
const (
	mostOpen = 16
	mostKept = 128
)

// Engine holds the ceremonies of a daemon, in memory alone. It is safe for
// concurrent use. [Engine.Close] ends them all.
type Engine struct {
	house House
	log   *slog.Logger

	mu   sync.Mutex
	all  map[string]*session
	ids  []string // in the order of opening
	shut bool
}

// New returns an engine.
func New(cfg Config) (*Engine, error) {
	if cfg.House == nil {
		return nil, errors.New("ceremony: a house is needed")
	}
	log := cfg.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Engine{house: cfg.House, log: log, all: make(map[string]*session)}, nil
}

// Close aborts what is under way; each abort is recorded.
func (e *Engine) Close() {
	e.mu.Lock()
	e.shut = true
	all := make([]*session, 0, len(e.all))
	for _, s := range e.all {
		all = append(all, s)
	}
	e.mu.Unlock()
	for _, s := range all {
		s.mu.Lock()
		s.end(context.Background(), Aborted, custody.SystemCaller("keyd"), audit.ReasonCancelled, "the daemon was stopped")
		s.mu.Unlock()
	}
}

// Open begins a ceremony; it needs [custody.OpOpenCeremony]. list is the text of
// an injection list, empty otherwise. It returns the ceremony as everybody sees
// it, or [ErrScript], [ErrDenied], [ErrBusy] or [ErrWork].
func (e *Engine) Open(ctx context.Context, caller custody.Caller, text, list []byte) (Status, error) {
	if err := e.house.Permit(ctx, caller, "", custody.OpOpenCeremony); err != nil {
		return Status{}, fmt.Errorf("%w: %w", ErrDenied, err)
	}
	script, err := Parse(text)
	if err != nil {
		return Status{}, err
	}
	if err := script.addList(list); err != nil {
		return Status{}, err
	}
	if err := e.house.Ready(ctx, caller, script); err != nil {
		return Status{}, fmt.Errorf("%w: %w", ErrScript, err)
	}
	s, err := e.begin(caller, script)
	if err != nil {
		return Status{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.note(ctx, caller, audit.Record{Action: audit.CeremonyOpen, Outcome: audit.OutcomeOK}, audit.Cer{Step: audit.StepOpen}); err != nil {
		s.forget(Failed)
		e.drop(s.id)
		return Status{}, err
	}
	s.event("open", caller.Name, "", "")
	s.arm()
	return s.status(), nil
}

// begin makes room for a ceremony and gives it its id.
func (e *Engine) begin(opener custody.Caller, script *Script) (*session, error) {
	key, err := newLock()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrWork, err)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.shut {
		return nil, fmt.Errorf("%w: the daemon stops", ErrBusy)
	}
	open := 0
	for _, s := range e.all {
		if !s.over() {
			open++
		}
	}
	if open >= mostOpen {
		return nil, fmt.Errorf("%w: %d of them; end one first (`keyd ceremony ls`, `keyd ceremony abort ID`)", ErrBusy, open)
	}
	s := newSession(e, script.ID+"-"+tail(), script, opener, key)
	e.all[s.id] = s
	e.ids = append(e.ids, s.id)
	e.sweep()
	return s, nil
}

// sweep lets the oldest ended ceremonies go. e.mu is held.
func (e *Engine) sweep() {
	for i := 0; len(e.ids) > mostKept && i < len(e.ids); {
		if s := e.all[e.ids[i]]; s.over() {
			delete(e.all, e.ids[i])
			e.ids = slices.Delete(e.ids, i, i+1)
			continue
		}
		i++
	}
}

func (e *Engine) drop(id string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.all, id)
	e.ids = slices.DeleteFunc(e.ids, func(other string) bool { return other == id })
}

// find returns a ceremony that the caller may see: its opener, its custodians,
// and who may list them all.
func (e *Engine) find(ctx context.Context, caller custody.Caller, id string, op custody.Operation) (*session, error) {
	if err := e.house.Permit(ctx, caller, "", op); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDenied, err)
	}
	e.mu.Lock()
	s := e.all[id]
	e.mu.Unlock()
	if s == nil {
		return nil, fmt.Errorf("%w: %q", ErrUnknown, id)
	}
	return s, nil
}

// List returns the ceremonies in the order of their opening.
func (e *Engine) List(ctx context.Context, caller custody.Caller) ([]Status, error) {
	if err := e.house.Permit(ctx, caller, "", custody.OpListCeremonies); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDenied, err)
	}
	e.mu.Lock()
	all := make([]*session, 0, len(e.ids))
	for _, id := range e.ids {
		all = append(all, e.all[id])
	}
	e.mu.Unlock()
	list := make([]Status, 0, len(all))
	for _, s := range all {
		s.mu.Lock()
		list = append(list, s.status())
		s.mu.Unlock()
	}
	return list, nil
}

// longestWait bounds a wait for news; it is below the time that the listener
// gives an answer.
const longestWait = 8 * time.Second

// Status returns a ceremony. Where its revision is seen, it waits for the next
// one, a few seconds at most.
func (e *Engine) Status(ctx context.Context, caller custody.Caller, id string, seen int) (Status, error) {
	s, err := e.find(ctx, caller, id, custody.OpListCeremonies)
	if err != nil {
		return Status{}, err
	}
	s.mu.Lock()
	now, changed := s.status(), s.changed
	s.mu.Unlock()
	if now.Revision != seen || now.Stage.Ended() {
		return now, nil
	}
	wait := time.NewTimer(longestWait)
	defer wait.Stop()
	select {
	case <-changed:
	case <-wait.C:
	case <-ctx.Done():
		return Status{}, ctx.Err()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.status(), nil
}

// Result returns the signed transcript of a ceremony that has ended, and what
// it made for the world outside.
func (e *Engine) Result(ctx context.Context, caller custody.Caller, id string) (Result, error) {
	s, err := e.find(ctx, caller, id, custody.OpListCeremonies)
	if err != nil {
		return Result{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.stage.Ended() {
		return Result{}, fmt.Errorf("%w: it is under way", ErrStage)
	}
	if s.signed == nil {
		return Result{}, fmt.Errorf("%w: its transcript could not be signed or recorded; see the daemon's log", ErrWork)
	}
	return Result{Transcript: s.signed, Injected: s.injected()}, nil
}

// Abort ends a ceremony; its opener and its custodians may.
func (e *Engine) Abort(ctx context.Context, caller custody.Caller, id, why string) error {
	s, err := e.find(ctx, caller, id, custody.OpListCeremonies)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if caller.Name != s.opener.Name && s.seat(caller.Name) == nil && !caller.Has(custody.RoleAdmin) {
		return fmt.Errorf("%w: only its opener, its custodians and administrators end a ceremony", ErrDenied)
	}
	if !printable(why, mostPurpose) {
		why = "no reason given"
	}
	s.end(ctx, Aborted, caller, audit.ReasonCancelled, why)
	return nil
}

// tailAlphabet has no letters that are taken for digits.
const tailAlphabet = "abcdefghjkmnpqrstuvwxyz23456789a"

// tail makes ceremonies of one script distinguishable: 40 bits.
func tail() string {
	var raw [8]byte
	_, _ = rand.Read(raw[:]) // never fails; it ends the process instead
	for i, b := range raw {
		raw[i] = tailAlphabet[b%32]
	}
	return string(raw[:])
}
