package hsm

import (
	"bytes"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/miekg/pkcs11"
	"pgregory.net/rapid"

	"keyd.dev/keyd/keys"
)

// waiter is a call as the model of a queue has it.
type waiter struct {
	c    *call
	late bool
}

// queueModel checks a queue against a list: what was put in comes out once, or
// was withdrawn, or is told that the queue is closed; the first that waits is in
// the next batch; and those of a batch have everything in common.
type queueModel struct {
	q       *queue
	w       *worker
	waiting []waiter
	closed  bool
}

func (m *queueModel) add(r *rapid.T) {
	c := &call{done: make(chan struct{}, 1), until: time.Now().Add(time.Hour)}
	late := rapid.IntRange(0, 9).Draw(r, "late") == 0
	if late {
		c.until = time.Now()
	}
	c.operation = rapid.SampledFrom([]operation{encrypting, decrypting}).Draw(r, "operation")
	c.mech = rapid.SampledFrom([]uint{pkcs11.CKM_DES3_ECB, pkcs11.CKM_AES_ECB, pkcs11.CKM_DES3_CBC}).Draw(r, "mechanism")
	c.on = pair{pkcs11.ObjectHandle(rapid.IntRange(1, 2).Draw(r, "key")), pkcs11.ObjectHandle(rapid.IntRange(0, 1).Draw(r, "companion"))}
	c.in = make([]byte, rapid.SampledFrom([]int{0, 7, 8, 16, 64, 72, 4096}).Draw(r, "bytes"))
	c.alone = rapid.IntRange(0, 9).Draw(r, "alone") == 0
	if rapid.IntRange(0, 9).Draw(r, "task") == 0 {
		c.do = func(*session) error { return nil }
	}
	if m.q.add(c) == m.closed {
		r.Fatalf("add, closed: %t", m.closed)
	}
	if !m.closed {
		m.waiting = append(m.waiting, waiter{c, late})
	}
}

func (m *queueModel) take(r *rapid.T) {
	first := slices.IndexFunc(m.waiting, func(w waiter) bool { return !w.late })
	if first < 0 && !m.closed {
		r.Skip("it would wait")
	}
	c := m.q.take(m.w)
	if m.closed {
		if c != nil {
			r.Fatal("a call out of a closed queue")
		}
		return
	}
	batch := append([]*call{c}, c.joined...)
	if !slices.Contains(batch, m.waiting[first].c) {
		r.Fatal("the first that waits is not in the next batch")
	}
	total := 0
	for _, part := range batch {
		at := slices.IndexFunc(m.waiting, func(w waiter) bool { return w.c == part })
		if at < 0 || m.waiting[at].late {
			r.Fatal("a call that does not wait, or no longer")
		}
		m.waiting = slices.Delete(m.waiting, at, at+1)
		total += len(part.in)
		if part.state.Load() != taken || part.worker != m.w {
			r.Fatal("a call without its worker")
		}
		if len(batch) > 1 && (!part.joins() || part.gathering() != c.gathering()) {
			r.Fatal("calls that have not everything in common share a batch")
		}
	}
	if len(batch) > 1 && total > mostGathered {
		r.Fatalf("%d bytes in a batch", total)
	}
	c.settle(nil)
	for _, part := range batch {
		<-part.done
		if part.shared != (len(batch) > 1) || len(part.joined) != 0 || part.gathered != 0 {
			r.Fatal("a call that was answered still has others")
		}
	}
}

func (m *queueModel) withdraw(r *rapid.T) {
	if len(m.waiting) == 0 {
		r.Skip("nobody waits")
	}
	at := rapid.IntRange(0, len(m.waiting)-1).Draw(r, "who")
	c := m.waiting[at].c
	if !m.q.withdraw(c) {
		r.Fatal("a call that waits cannot be withdrawn")
	}
	if len(c.joined) != 0 || c.gathered != 0 {
		r.Fatal("a call that was withdrawn still has others")
	}
	m.waiting = slices.Delete(m.waiting, at, at+1)
}

func (m *queueModel) close(r *rapid.T) {
	if rapid.IntRange(0, 9).Draw(r, "close") > 0 {
		return
	}
	m.closed = true
	m.q.close()
	for _, w := range m.waiting {
		if w.late && w.c.state.Load() == waiting {
			continue // it had been left out before
		}
		<-w.c.done
		if !errors.Is(w.c.err, errStale) || m.q.withdraw(w.c) {
			r.Fatalf("told %v", w.c.err)
		}
	}
	m.waiting = nil
}

// check counts what the queue holds.
func (m *queueModel) check(r *rapid.T) {
	held := make(map[*call]bool)
	for _, c := range m.q.heads {
		for _, part := range append([]*call{c}, c.joined...) {
			if held[part] {
				r.Fatal("a call waits twice")
			}
			held[part] = true
		}
	}
	for _, w := range m.waiting {
		if !held[w.c] && !w.late {
			r.Fatal("a call has got lost")
		}
		delete(held, w.c)
	}
	if len(held) > 0 {
		r.Fatal("a call waits that was withdrawn or answered")
	}
	for key, c := range m.q.open {
		if !slices.Contains(m.q.heads, c) || c.gathering() != key {
			r.Fatal("a call can be joined that does not wait, or not for this")
		}
	}
}

func TestQueueModel(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		m := &queueModel{q: newQueue(true), w: new(worker)}
		r.Repeat(map[string]func(*rapid.T){"add": m.add, "take": m.take, "withdraw": m.withdraw, "close": m.close, "": m.check})
	})
}

// TestQueueTurn: who had joined a call that is gone waits for its own turn, and
// keeps those that joined with it.
func TestQueueTurn(t *testing.T) {
	one, two := pair{1, 0}, pair{2, 0}
	for _, test := range []struct {
		name string
		gone func(*queue, *call)
	}{
		{"withdrawn", func(q *queue, c *call) { q.withdraw(c) }},
		{"late", func(_ *queue, c *call) { c.until = time.Now() }},
	} {
		t.Run(test.name, func(t *testing.T) {
			q := newQueue(true)
			var all []*call
			for _, on := range []pair{one, two, one, one, two} {
				c := &call{done: make(chan struct{}, 1), until: time.Now().Add(time.Hour), on: on, in: make([]byte, 8)}
				c.operation, c.mech = encrypting, pkcs11.CKM_DES3_ECB
				q.add(c)
				all = append(all, c)
			}
			test.gone(q, all[0])
			for _, want := range [][]*call{{all[1], all[4]}, {all[2], all[3]}} {
				c := q.take(new(worker))
				if got := append([]*call{c}, c.joined...); !slices.Equal(got, want) {
					t.Errorf("a batch of %d that begins with turn %d, want %d with %d", len(got), c.turn, len(want), want[0].turn)
				}
			}
		})
	}
}

// echo answers with its input, each byte changed by the key's handle: enough to
// see whose output is where, and what is left of it.
type echo struct {
	cryptoki
	fail error
}

func (m echo) once(_ pkcs11.SessionHandle, _ operation, _ uint, _ []byte, key pkcs11.ObjectHandle, in, out []byte) (int, bool, error) {
	for i := range in {
		out[i] = in[i] ^ byte(key)
	}
	return len(in), true, m.fail
}

// TestGatherClears: what stood in the buffers of a shared call is gone once it
// is answered, whatever became of it, and what belongs to callers who have given
// up is gone too.
func TestGatherClears(t *testing.T) {
	for _, test := range []struct {
		name string
		fail error
	}{{"done", nil}, {"failed", pkcs11.Error(pkcs11.CKR_FUNCTION_FAILED)}} {
		t.Run(test.name, func(t *testing.T) {
			tok := &Token{now: time.Now}
			w := &worker{s: &session{mod: echo{fail: test.fail}, open: true, keep: true}}
			var all []*call
			for i := range 5 {
				c := tok.newCall("encrypt", time.Hour)
				c.operation, c.mech, c.on = encrypting, pkcs11.CKM_DES3_ECB, pair{0x40, 0x80}
				c.in, c.out = bytes.Repeat([]byte{byte(i + 1)}, 8*(i+1)), make([]byte, 16*(i+1))
				all = append(all, c)
			}
			q := newQueue(true)
			for _, c := range all {
				q.add(c)
			}
			head := q.take(w)
			all[1].state.Store(abandoned) // its caller has gone
			err := w.serve(head)
			if got := codeOf(err); test.fail != nil && got != test.fail {
				t.Errorf("serve: %v", err)
			}
			if head.settle(err) {
				t.Error("settle does not tell of the caller who has gone")
			}
			for name, buf := range map[string][]byte{"in": w.in, "out": w.out, "abandoned in": all[1].in, "abandoned out": all[1].out} {
				if len(buf) == 0 || len(bytes.Trim(buf, "\x00")) > 0 {
					t.Errorf("%s holds % x", name, buf)
				}
			}
			for i, c := range all {
				if i == 1 {
					continue
				}
				<-c.done
				want := append(bytes.Repeat([]byte{byte(i+1) ^ 0x40}, len(c.in)), bytes.Repeat([]byte{byte(i+1) ^ 0x80}, len(c.in))...)
				if test.fail == nil && !bytes.Equal(c.out, want) {
					t.Errorf("call %d: % x", i, c.out)
				}
				in, out := c.in, c.out
				tok.free(c)
				if len(bytes.Trim(slices.Concat(in, out), "\x00")) > 0 {
					t.Errorf("call %d leaves its data behind", i)
				}
			}
		})
	}
}

// TestEncryptBoth: only a key and its own companion go together.
func TestEncryptBoth(t *testing.T) {
	can := keys.Spec{Algorithm: keys.TDES2, Can: keys.CanEncrypt}
	one, two := &object{}, &object{}
	k := &key{o: one, spec: can}
	for _, test := range []struct {
		name  string
		k     *key
		other keys.Key
		text  []byte
		want  error
	}{
		{"the key itself", k, k, make([]byte, 8), keys.ErrForbidden},
		{"another's companion", k, &key{o: two, role: 1, spec: can}, make([]byte, 8), keys.ErrForbidden},
		{"a companion that may do something else", k, &key{o: one, role: 1, spec: keys.Spec{Algorithm: keys.TDES2, Can: keys.CanMAC}}, make([]byte, 8), keys.ErrForbidden},
		{"no companion", k, nil, make([]byte, 8), keys.ErrForbidden},
		{"neither may encipher", &key{o: one, spec: keys.Spec{Algorithm: keys.TDES2, Can: keys.CanMAC}},
			&key{o: one, role: 1, spec: keys.Spec{Algorithm: keys.TDES2, Can: keys.CanMAC}}, make([]byte, 8), keys.ErrForbidden},
		{"not whole blocks", k, &key{o: one, role: 1, spec: can}, make([]byte, 9), nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, _, err := test.k.EncryptBoth(test.other, test.text)
			if err == nil || test.want == keys.ErrForbidden && !errors.Is(err, test.want) {
				t.Errorf("%v", err)
			}
		})
	}
}
