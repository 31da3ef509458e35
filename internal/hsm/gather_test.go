package hsm_test

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/pkcs11"
	"pgregory.net/rapid"

	"keyd.dev/keyd/dukpt"
	"keyd.dev/keyd/internal/hsm"
	"keyd.dev/keyd/internal/secret"
	"keyd.dev/keyd/keys"
)

// twin is a key in the token and the same key in software.
type twin struct {
	name  string
	token *keys.Loaded
	soft  secret.Cipher // of the key
	other secret.Cipher // of its companion, of a BDK
	bdk   bool
}

// twins are keys of both ciphers, several of each: their blocks must not mix.
func twins(t *testing.T, token *hsm.Token) []twin {
	t.Helper()
	m := hsm.NewManager(token)
	var all []twin
	for i, a := range []struct {
		usage     keys.Usage
		algorithm keys.Algorithm
		mode      keys.Mode
	}{
		{"P0", keys.TDES2, 'B'}, {"P0", keys.TDES2, 'B'}, {"P0", keys.AES128, 'B'}, {"P0", keys.AES256, 'B'}, {"B0", keys.TDES2, 'X'}, {"B0", keys.TDES2, 'X'},
	} {
		value := make([]byte, a.algorithm.KeyBytes())
		_, _ = rand.Read(value)
		for j := range value {
			value[j] = oddParity(value[j])
		}
		tmpl := template(a.usage, a.algorithm, a.mode)
		tmpl.ID = keys.ID(fmt.Sprintf("%032d", i))
		w := twin{name: fmt.Sprint(a.usage, i), bdk: a.usage == "B0"}
		newCipher := secret.NewAES
		if a.algorithm.IsTDES() {
			newCipher = secret.NewTDES
		}
		w.soft = must(newCipher(value))(t)
		if w.bdk {
			companion := dukpt.Companion((*[16]byte)(value))
			w.other = must(newCipher(companion[:]))(t)
		}
		w.token = loaded(t, token, imported(t, m, tmpl, value))
		all = append(all, w)
	}
	return all
}

func oddParity(b byte) byte {
	b &^= 1
	ones := byte(1)
	for x := b; x != 0; x &= x - 1 {
		ones ^= 1
	}
	return b | ones
}

// deed is one use of a key.
type deed struct {
	on      twin
	decrypt bool
	both    bool // under key and companion
	chained bool // CBC, which shares with nobody
	text    []byte
}

func (d deed) String() string {
	return fmt.Sprintf("%s decrypt=%t both=%t chained=%t %d bytes", d.on.name, d.decrypt, d.both, d.chained, len(d.text))
}

// inToken does it and returns what came out.
func (d deed) inToken() ([]byte, error) {
	switch {
	case d.both:
		own, other, err := d.on.token.EncryptBoth(d.text)
		return slices.Concat(own, other), err
	case d.decrypt:
		return d.on.token.Key.Decrypt(d.iv(), d.text)
	}
	return d.on.token.Key.Encrypt(d.iv(), d.text)
}

// inSoftware is the known answer; nil where the text is not whole blocks.
func (d deed) inSoftware() []byte {
	if len(d.text) == 0 || len(d.text)%d.on.soft.BlockSize() != 0 {
		return nil
	}
	own := d.on.soft.Encrypt
	if d.decrypt {
		own = d.on.soft.Decrypt
	}
	out, err := own(d.iv(), d.text)
	if err != nil {
		panic(err) // whole blocks
	}
	if d.both {
		other, err := d.on.other.Encrypt(nil, d.text)
		if err != nil {
			panic(err)
		}
		out = append(out, other...)
	}
	return out
}

func (d deed) iv() []byte {
	if !d.chained {
		return nil
	}
	return bytes.Repeat([]byte{0x5A}, d.on.soft.BlockSize())
}

// deeds draws uses of keys, among them some whose text is not whole blocks.
func deeds(all []twin) *rapid.Generator[deed] {
	return rapid.Custom(func(r *rapid.T) deed {
		d := deed{on: rapid.SampledFrom(all).Draw(r, "key")}
		d.both = d.on.bdk && rapid.Bool().Draw(r, "both")
		if !d.on.bdk {
			d.decrypt = rapid.Bool().Draw(r, "decrypt")
			d.chained = rapid.IntRange(0, 7).Draw(r, "chained") == 0
		}
		n := rapid.IntRange(1, 5).Draw(r, "blocks") * d.on.soft.BlockSize()
		if rapid.IntRange(0, 9).Draw(r, "wrong length") == 0 {
			n -= rapid.IntRange(1, d.on.soft.BlockSize()).Draw(r, "missing")
		}
		d.text = make([]byte, n)
		_, _ = rand.Read(d.text)
		return d
	})
}

// held makes the only session of a token wait in a call until release.
func held(t *testing.T, token *hsm.Token, faulty *hsm.Faulty) (release func()) {
	t.Helper()
	inside := make(chan struct{}, 1)
	let := make(chan struct{})
	done := make(chan error, 1)
	faulty.Set(func(call string) error {
		if call == "C_GenerateRandom" {
			inside <- struct{}{}
			<-let
		}
		return nil
	})
	go func() { done <- token.Random(make([]byte, 8)) }()
	<-inside
	faulty.Set(nil)
	return func() {
		close(let)
		if err := <-done; err != nil {
			t.Errorf("Random: %v", err)
		}
	}
}

// together starts all deeds behind a call that hangs, so that they gather, lets
// go on by release, and returns what each of them gave.
func together(token *hsm.Token, all []deed, release func()) ([][]byte, []error) {
	out, errs := make([][]byte, len(all)), make([]error, len(all))
	var group sync.WaitGroup
	waits := 0
	for i, d := range all {
		if d.inSoftware() != nil { // else it is refused before it waits
			waits++
		}
		group.Go(func() { out[i], errs[i] = d.inToken() })
	}
	for late := time.Now().Add(time.Second); token.Stats().Waiting < int64(waits) && time.Now().Before(late); {
		runtime.Gosched()
	}
	release()
	group.Wait()
	return out, errs
}

// TestGather: uses of many keys that share calls get the answers that they would
// have got alone, whatever else is in the batch: texts of wrong lengths, other
// keys, other directions, chained modes.
func TestGather(t *testing.T) {
	cfg := initialised(t)
	cfg.Sessions = 1
	token, faulty, err := hsm.OpenFaulty(cfg, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer token.Close()
	kinds := twins(t, token)
	rapid.Check(t, func(r *rapid.T) {
		all := rapid.SliceOfN(deeds(kinds), 1, 60).Draw(r, "deeds")
		out, errs := together(token, all, held(t, token, faulty))
		for i, d := range all {
			want := d.inSoftware()
			switch {
			case want == nil && errs[i] == nil:
				r.Errorf("%v: not refused", d)
			case want != nil && errs[i] != nil:
				r.Errorf("%v: %v", d, errs[i])
			case !bytes.Equal(want, out[i]):
				r.Errorf("%v: not the answer of this key to this text", d)
			}
		}
	})
	if s := token.Stats(); s.Gathered == 0 || s.Waiting != 0 || s.Busy != 0 {
		t.Errorf("nothing gathered, or something is left: %+v", s)
	}
}

// TestGatherAlone: who finds a session free goes at once, and in a call of its own.
func TestGatherAlone(t *testing.T) {
	bubble(t, nil, func(t *testing.T, token *hsm.Token, faulty *hsm.Faulty) {
		kind := twins(t, token)[0]
		before, began := token.Stats(), time.Now()
		const uses = 20
		for range uses {
			must(kind.token.Key.Encrypt(nil, make([]byte, 8)))(t)
		}
		after := token.Stats()
		if waited := time.Since(began); waited != 0 {
			t.Errorf("waited %v", waited)
		}
		if after.Calls-before.Calls != uses || after.Gathered != before.Gathered {
			t.Errorf("%d uses made %d calls, %d gathered", uses, after.Calls-before.Calls, after.Gathered-before.Gathered)
		}
	})
}

// TestGatherCount: many uses of one key that wait make one call.
func TestGatherCount(t *testing.T) {
	cfg := initialised(t)
	cfg.Sessions = 1
	token, faulty, err := hsm.OpenFaulty(cfg, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer token.Close()
	kinds := twins(t, token)
	for _, test := range []struct {
		name  string
		deed  deed
		calls int // into the module
	}{
		{"one key", deed{on: kinds[0], text: make([]byte, 8)}, 1},
		{"key and companion", deed{on: kinds[4], both: true, text: make([]byte, 8)}, 2},
		{"chained", deed{on: kinds[0], chained: true, text: make([]byte, 8)}, 40},
		{"long texts", deed{on: kinds[0], text: make([]byte, 72)}, 40},
	} {
		t.Run(test.name, func(t *testing.T) {
			release := held(t, token, faulty)
			before := faulty.Count("one-part")
			_, errs := together(token, slices.Repeat([]deed{test.deed}, 40), release)
			if err := errors.Join(errs...); err != nil {
				t.Error(err)
			}
			if calls := faulty.Count("one-part") - before; calls != test.calls {
				t.Errorf("%d calls, want %d", calls, test.calls)
			}
		})
	}
}

// TestGatherFails: a call that several share fails. Those who share it do not
// answer for each other: what was lost is brought back, what the module refuses
// together each does alone, and nobody gets another's answer or half of one.
func TestGatherFails(t *testing.T) {
	for _, test := range []struct {
		name  string
		kind  string // of the call that fails
		times int
		begun bool
		why   error
		fails bool // for everybody
	}{
		{"a session is lost", "many blocks", 1, true, pkcs11.Error(pkcs11.CKR_SESSION_HANDLE_INVALID), false},
		{"the device is gone for a moment", "many blocks", 1, false, pkcs11.Error(pkcs11.CKR_DEVICE_ERROR), false},
		{"the module takes one block at a time", "many blocks", 1 << 30, true, pkcs11.Error(pkcs11.CKR_DATA_LEN_RANGE), false},
		{"the module takes one block at a time, and loses its session over more", "many blocks", 1 << 30, true, pkcs11.Error(pkcs11.CKR_GENERAL_ERROR), false},
		{"the module does nothing", "one-part", 1 << 30, true, pkcs11.Error(pkcs11.CKR_FUNCTION_FAILED), true},
	} {
		t.Run(test.name, func(t *testing.T) {
			bubble(t, func(c *hsm.Config) { c.Sessions = 1; c.RetainPIN = true }, func(t *testing.T, token *hsm.Token, faulty *hsm.Faulty) {
				kinds := twins(t, token)
				var all []deed
				for i := range 60 {
					d := deed{on: kinds[i%len(kinds)], both: kinds[i%len(kinds)].bdk}
					d.text = make([]byte, d.on.soft.BlockSize())
					_, _ = rand.Read(d.text)
					all = append(all, d)
				}
				release := held(t, token, faulty)
				out, errs := together(token, all, func() {
					failing(faulty, test.kind, test.times, test.begun, test.why)
					release()
				})
				for i, d := range all {
					switch {
					case test.fails && (errs[i] == nil || out[i] != nil):
						t.Errorf("%v: %x, %v; want an error and nothing else", d, out[i], errs[i])
					case !test.fails && errs[i] != nil:
						t.Errorf("%v: %v", d, errs[i])
					case !test.fails && !bytes.Equal(out[i], d.inSoftware()):
						t.Errorf("%v: not the answer of this key to this text", d)
					}
				}
			})
		})
	}
}

// failing makes the next calls of a kind fail.
func failing(faulty *hsm.Faulty, kind string, times int, begun bool, why error) {
	faulty.Begun = begun
	var mu sync.Mutex
	faulty.Set(func(call string) error {
		mu.Lock()
		defer mu.Unlock()
		if call != kind || times == 0 {
			return nil
		}
		times--
		return why
	})
}

// TestGatherLost loses all sessions, the login and every handle while uses of
// many keys wait: each is answered by its own key in the new epoch, where
// handles have other numbers.
func TestGatherLost(t *testing.T) {
	bubble(t, func(c *hsm.Config) { c.Sessions = 1; c.RetainPIN = true }, func(t *testing.T, token *hsm.Token, faulty *hsm.Faulty) {
		kinds := twins(t, token)
		for range 10 {
			var all []deed
			for i := range 40 {
				d := deed{on: kinds[i%len(kinds)], both: kinds[i%len(kinds)].bdk}
				d.text = make([]byte, 2*d.on.soft.BlockSize())
				_, _ = rand.Read(d.text)
				all = append(all, d)
			}
			release := held(t, token, faulty)
			out, errs := together(token, all, func() {
				if err := token.LoseAll(); err != nil {
					t.Error(err)
				}
				release()
			})
			for i, d := range all {
				if errs[i] != nil && !errors.Is(errs[i], keys.ErrUnavailable) {
					t.Errorf("%v: %v", d, errs[i])
				}
				if errs[i] == nil && !bytes.Equal(out[i], d.inSoftware()) {
					t.Errorf("%v: not the answer of this key to this text", d)
				}
			}
			slices.Reverse(kinds) // objects come into being in another order
		}
	})
}

// TestGatherDeadline: of those who share a call that hangs each waits until its
// own deadline and no longer, and those that wait when it comes back get their
// answers. The worker is replaced once.
func TestGatherDeadline(t *testing.T) {
	bubble(t, func(c *hsm.Config) { c.Sessions = 4; c.KeepAlive = time.Hour }, func(t *testing.T, token *hsm.Token, faulty *hsm.Faulty) {
		kind := twins(t, token)[0]
		hold := hang(faulty, 4, "C_GenerateRandom")
		for range 4 {
			go func() { _ = token.Random(make([]byte, 8)) }()
		}
		synctest.Wait()
		type outcome struct {
			d    deed
			out  []byte
			err  error
			took time.Duration
		}
		ended := make(chan outcome, 3)
		for i := range 3 {
			d := deed{on: kind, text: bytes.Repeat([]byte{byte(i)}, 16)}
			go func() {
				began := time.Now()
				out, err := d.inToken()
				ended <- outcome{d, out, err, time.Since(began)}
			}()
			time.Sleep(time.Second / 2)
		}
		release := hang(faulty, 1, "many blocks")
		hold()
		time.Sleep(800 * time.Millisecond) // 2.3 s after the first, 1.8 s after the second
		release()
		for range 3 {
			o := <-ended
			if o.d.text[0] == 0 {
				if !errors.Is(o.err, keys.ErrUnavailable) || o.took != 2*time.Second || o.out != nil {
					t.Errorf("the first: %x, %v after %v; want %v after 2s", o.out, o.err, o.took, keys.ErrUnavailable)
				}
				continue
			}
			if o.err != nil || !bytes.Equal(o.out, o.d.inSoftware()) || o.took >= 2*time.Second {
				t.Errorf("a later one: %v after %v, or not its answer", o.err, o.took)
			}
		}
		synctest.Wait()
		if s := token.Stats(); s.Abandoned != 1 || s.Stuck != 0 || s.Epochs != 1 {
			t.Errorf("abandoned %d, stuck %d, epochs %d; want 1, 0, 1", s.Abandoned, s.Stuck, s.Epochs)
		}
		if got := must(kind.token.Key.Encrypt(nil, make([]byte, 8)))(t); !bytes.Equal(got, deed{on: kind, text: make([]byte, 8)}.inSoftware()) {
			t.Error("another answer afterwards")
		}
	})
}
