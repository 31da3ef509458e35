package custody_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"

	"keyd.dev/keyd/internal/custody"
)

// request is what the model knows of one: at most one of a principal, operation
// and body is open.
type request struct {
	ref     string
	asker   string
	state   custody.ApprovalState
	asked   time.Time
	decided time.Time
}

func (r *request) at(now time.Time) custody.ApprovalState {
	if r.state == custody.ApprovalWaiting && now.Sub(r.asked) >= 24*time.Hour || r.state == custody.ApprovalApproved && now.Sub(r.decided) >= 15*time.Minute {
		return custody.ApprovalExpired
	}
	return r.state
}

// approvalModel is the rules of section 5.1 in a few lines, beside the office.
type approvalModel struct {
	t     *testing.T
	o     *office
	now   *custody.Custody
	refs  map[string]*request // by reference
	open  map[string]*request // by who and what
	names []string
}

func (m *approvalModel) somebody(t *rapid.T) string {
	return rapid.SampledFrom([]string{"anna", "raj", "lee"}).Draw(t, "who")
}

// ask repeats a request, in either round.
func (m *approvalModel) ask(t *rapid.T) {
	who, body := m.somebody(t), rapid.SampledFrom([]string{"a", "b"}).Draw(t, "body")
	op := rapid.SampledFrom([]custody.Operation{custody.OpDeleteKey, custody.OpExportKey}).Draw(t, "op")
	what := who + body + string(op)
	got, err := m.now.Approved(m.t.Context(), m.o.someone(m.t, who, body), "t", op, "alias/zmk")
	r := m.open[what]
	state := custody.ApprovalState("")
	if r != nil {
		state = r.at(m.o.clock.now())
	}
	ref := custody.PendingRef(err)
	switch {
	case state == custody.ApprovalApproved:
		if err != nil || len(got) != 1 || got[0].ID == who {
			t.Fatalf("an approved request: %v, %v", got, err)
		}
		r.state = custody.ApprovalSpent
		delete(m.open, what)
	case !errors.Is(err, custody.ErrApproval) || got != nil:
		t.Fatalf("a request in state %q: %v, %v", state, got, err)
	case state == custody.ApprovalWaiting:
		if ref != r.ref {
			t.Fatalf("reference %s of a request that waits as %s", ref, r.ref)
		}
	default:
		if m.refs[ref] != nil {
			t.Fatalf("reference %s was used before", ref)
		}
		if r != nil {
			r.state = custody.ApprovalExpired
		}
		fresh := &request{ref: ref, asker: who, state: custody.ApprovalWaiting, asked: m.o.clock.now()}
		m.refs[ref], m.open[what] = fresh, fresh
		m.names = append(m.names, ref)
	}
}

// decide approves or rejects any request there ever was.
func (m *approvalModel) decide(t *rapid.T) {
	if len(m.names) == 0 {
		return
	}
	r := m.refs[rapid.SampledFrom(m.names).Draw(t, "ref")]
	who, approve := m.somebody(t), rapid.Bool().Draw(t, "approve")
	state := r.at(m.o.clock.now())
	do, to := m.now.Reject, custody.ApprovalRejected
	may := state == custody.ApprovalWaiting || state == custody.ApprovalApproved
	if approve {
		do, to = m.now.Approve, custody.ApprovalApproved
		may = state == custody.ApprovalWaiting && who != r.asker
	}
	_, err := do(m.t.Context(), m.o.someone(m.t, who, "decide"), "t", r.ref)
	if (err == nil) != may {
		t.Fatalf("%s decides %s on a request of %s in state %s: %v", who, to, r.asker, state, err)
	}
	if !may {
		return
	}
	r.state, r.decided = to, m.o.clock.now()
	if to == custody.ApprovalRejected {
		for what, open := range m.open {
			if open == r {
				delete(m.open, what)
			}
		}
	}
}

func (m *approvalModel) pass(t *rapid.T) {
	m.o.clock.pass(time.Duration(rapid.IntRange(1, 30*3600).Draw(t, "seconds")) * time.Second)
}

func (m *approvalModel) minutes(t *rapid.T) {
	m.o.clock.pass(time.Duration(rapid.IntRange(1, 16).Draw(t, "minutes")) * time.Minute)
}

func (m *approvalModel) restart(*rapid.T) { m.now = m.o.again(m.t) }

// Check compares the list of open requests with the model.
func (m *approvalModel) Check(t *rapid.T) {
	list, err := m.now.Approvals(m.t.Context(), m.o.someone(m.t, "eve", ""), "t", false)
	if err != nil {
		t.Fatal(err)
	}
	shown := make(map[string]custody.ApprovalState)
	for _, a := range list {
		shown[a.Ref] = a.State
	}
	for ref, r := range m.refs {
		want := r.at(m.o.clock.now())
		if want != custody.ApprovalWaiting && want != custody.ApprovalApproved {
			want = "" // closed
		}
		if shown[ref] != want {
			t.Fatalf("request %s is shown as %q, want %q", ref, shown[ref], want)
		}
	}
}

// modelRuns is how many runs of some thirty steps there are: each change of a
// request is anchored in the token.
const modelRuns = 15

func TestApprovalStateMachine(t *testing.T) {
	o := newOffice(t)
	runs, failed := 0, false
	rapid.Check(t, func(rt *rapid.T) {
		if runs++; runs > modelRuns && !failed {
			return
		}
		defer func() { failed = failed || rt.Failed() }()
		m := &approvalModel{t: t, o: o, now: o.Custody, refs: make(map[string]*request), open: make(map[string]*request)}
		m.close(rt)
		rt.Repeat(map[string]func(*rapid.T){
			"": m.Check, "ask": m.ask, "ask again": m.ask, "decide": m.decide, "approve": m.decide,
			"pass": m.pass, "minutes": m.minutes, "restart": m.restart,
		})
	})
}

// close rejects what an earlier run left open.
func (m *approvalModel) close(t *rapid.T) {
	list, err := m.now.Approvals(m.t.Context(), m.o.someone(m.t, "eve", ""), "t", false)
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range list {
		if _, err := m.now.Reject(m.t.Context(), m.o.someone(m.t, "raj", "r"), "t", a.Ref); err != nil {
			t.Fatal(fmt.Errorf("closing %s: %w", a.Ref, err))
		}
	}
}
