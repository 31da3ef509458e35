package ceremony_test

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"keyd.dev/keyd/audit"
	"keyd.dev/keyd/internal/ceremony"
	"keyd.dev/keyd/internal/custody"
	"keyd.dev/keyd/internal/secret"
	"keyd.dev/keyd/keys"
)

func newEngine(t testing.TB) (*ceremony.Engine, *house) {
	t.Helper()
	h := newHouse(t)
	e, err := ceremony.New(ceremony.Config{House: h})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.Close)
	return e, h
}

// opened is a ceremony of two custodians, a and b, who have joined.
func opened(t testing.TB, e *ceremony.Engine, script string) (string, map[string]ceremony.Place) {
	t.Helper()
	s, err := e.Open(t.Context(), admin(), []byte(script), nil)
	if err != nil {
		t.Fatal(err)
	}
	places := make(map[string]ceremony.Place)
	for _, name := range []string{"a", "b"} {
		if places[name], err = e.Join(t.Context(), custodian(name), s.ID, public(t)); err != nil {
			t.Fatal(err)
		}
	}
	return s.ID, places
}

func stageOf(t testing.TB, e *ceremony.Engine, id string) ceremony.Status {
	t.Helper()
	s, err := e.Status(t.Context(), admin(), id, -1)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestImport(t *testing.T) {
	e, h := newEngine(t)
	id, places := opened(t, e, good)
	a, b := component(t), component(t)
	for name, value := range map[string][]byte{"a": a, "b": b} {
		if _, err := e.Give(t.Context(), custodian(name), id, sealed(t, places[name], value), checkOf(t, value)); err != nil {
			t.Fatal(err)
		}
	}
	now := stageOf(t, e, id)
	whole, err := keys.Combine(keys.TDES2, secret.From(bytes.Clone(a)), secret.From(bytes.Clone(b)))
	if err != nil {
		t.Fatal(err)
	}
	if want := checkOf(t, whole.Reveal()); now.Check != want || now.Stage != ceremony.Confirming {
		t.Fatalf("stage %s, check value %s, want %s", now.Stage, now.Check, want)
	}
	for _, name := range []string{"a", "b"} {
		if len(h.imported) > 0 {
			t.Error("R-41 stored before everybody has confirmed")
		}
		if _, err := e.Confirm(t.Context(), custodian(name), id, "alias/zmk", now.Check); err != nil {
			t.Fatal(err)
		}
	}
	if len(h.imported) != 1 || !bytes.Equal(h.imported[0], whole.Reveal()) {
		t.Fatal("the key that was stored is not the one of the components")
	}
	for action, want := range map[audit.Action]int{
		audit.CeremonyOpen: 1, audit.CeremonyJoin: 2, audit.CeremonyEnter: 2, audit.CeremonyCombine: 1,
		audit.CeremonyCheck: 2, audit.CeremonyCommit: 1, audit.AdminExecute: 1,
	} {
		if n := h.outcomes(action, 0); n != want {
			t.Errorf("%d records of action %v, want %d", n, action, want)
		}
	}
}

// TestTranscript: the minutes verify, and nothing else does.
func TestTranscript(t *testing.T) {
	e, h := newEngine(t)
	id, _ := opened(t, e, good)
	if _, err := e.Result(t.Context(), admin(), id); !errors.Is(err, ceremony.ErrStage) {
		t.Errorf("before the end: %v", err)
	}
	if err := e.Abort(t.Context(), custodian("a"), id, "fire alarm"); err != nil {
		t.Fatal(err)
	}
	r, err := e.Result(t.Context(), admin(), id)
	if err != nil {
		t.Fatal(err)
	}
	minutes, hash, err := ceremony.ReadTranscript(r.Transcript, "")
	if err != nil {
		t.Fatal(err)
	}
	if minutes.Outcome != ceremony.Aborted || minutes.Why != "fire alarm" || minutes.Carried {
		t.Errorf("outcome %s (%s), carried out %t", minutes.Outcome, minutes.Why, minutes.Carried)
	}
	last := h.records[len(h.records)-1]
	if last.Action != audit.AdminExecute || last.Change.After != audit.Hash(hash) {
		t.Error("the last record is not the transcript's hash")
	}
	if text := minutes.Text(hash); !strings.Contains(text, "fire alarm") || !strings.Contains(text, "CN=a") {
		t.Errorf("the text lacks who or why:\n%s", text)
	}
	for name, change := range map[string]func([]byte) []byte{
		"outcome": func(b []byte) []byte { return bytes.Replace(b, []byte(`"aborted"`), []byte(`"done"`), 1) },
		"person":  func(b []byte) []byte { return bytes.Replace(b, []byte(`CN=a`), []byte(`CN=z`), 1) },
		"signature": func(b []byte) []byte {
			return bytes.Replace(b, []byte(`"signature": "`), []byte(`"signature": "AAAA`), 1)
		},
		"a member":   func(b []byte) []byte { return bytes.Replace(b, []byte(`"vkey"`), []byte(`"more": 1, "vkey"`), 1) },
		"cut off":    func(b []byte) []byte { return b[:len(b)/2] },
		"other vkey": nil,
	} {
		t.Run(name, func(t *testing.T) {
			text, vkey := r.Transcript, ""
			if change == nil {
				_, vkey, err = newHouse(t).Attest("x y", nil)
				if err != nil {
					t.Fatal(err)
				}
			} else if text = change(bytes.Clone(text)); bytes.Equal(text, r.Transcript) {
				t.Fatal("the case changes nothing")
			}
			if _, _, err := ceremony.ReadTranscript(text, vkey); !errors.Is(err, ceremony.ErrTranscript) {
				t.Errorf("%v", err)
			}
		})
	}
}

// TestSamePerson: one person's certificates count as one, whatever their number.
func TestSamePerson(t *testing.T) {
	for name, change := range map[string]func(*custody.Caller){
		"subject":              func(c *custody.Caller) { c.Subject = "CN=a" },
		"subject of the admin": func(c *custody.Caller) { c.Subject = "CN=admin" },
		"certificate":          func(c *custody.Caller) { c.Cert = custodian("a").Cert },
		"identity":             func(c *custody.Caller) { c.URI = custodian("a").URI },
	} {
		t.Run("R-41 "+name, func(t *testing.T) {
			e, h := newEngine(t)
			s, err := e.Open(t.Context(), admin(), []byte(good), nil)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := e.Join(t.Context(), custodian("a"), s.ID, public(t)); err != nil {
				t.Fatal(err)
			}
			b := custodian("b")
			change(&b)
			if _, err := e.Join(t.Context(), b, s.ID, public(t)); !errors.Is(err, ceremony.ErrSamePerson) {
				t.Fatalf("R-41: %v", err)
			}
			if h.outcomes(audit.CeremonyJoin, audit.ReasonSamePerson) != 1 {
				t.Error("R-41 the attempt is not in the log")
			}
			if now := stageOf(t, e, s.ID); now.Stage != ceremony.Joining || now.Custodians[1].Joined {
				t.Error("the seat was taken all the same")
			}
		})
	}
}

func TestRefused(t *testing.T) {
	e, _ := newEngine(t)
	id, places := opened(t, e, good)
	ctx := t.Context()
	value := component(t)
	nobody := custodian("a")
	nobody.Roles = []custody.Role{custody.RoleApplication}
	other := custodian("a")
	other.Cert = "11"
	for name, c := range map[string]struct {
		do   func() error
		want error
	}{
		"open as a custodian": {func() error { _, err := e.Open(ctx, custodian("a"), []byte(good), nil); return err }, ceremony.ErrDenied},
		"list as nobody":      {func() error { _, err := e.List(ctx, nobody); return err }, ceremony.ErrDenied},
		"no such ceremony":    {func() error { _, err := e.Status(ctx, admin(), "x", -1); return err }, ceremony.ErrUnknown},
		"join late":           {func() error { _, err := e.Join(ctx, custodian("c"), id, public(t)); return err }, ceremony.ErrStage},
		"give as admin":       {func() error { _, err := e.Give(ctx, admin(), id, nil, ""); return err }, ceremony.ErrDenied},
		"give with another certificate": {func() error {
			_, err := e.Give(ctx, other, id, sealed(t, places["a"], value), checkOf(t, value))
			return err
		}, ceremony.ErrDenied},
		"confirm before the time": {func() error { _, err := e.Confirm(ctx, custodian("a"), id, "alias/zmk", ""); return err }, ceremony.ErrStage},
		"take what there is not":  {func() error { _, err := e.Take(ctx, custodian("a"), id); return err }, ceremony.ErrStage},
		"abort as a stranger":     {func() error { return e.Abort(ctx, custodian("c"), id, "no") }, ceremony.ErrDenied},
		"list for an import":      {func() error { _, err := e.Open(ctx, admin(), []byte(good), []byte("TID,KSN\n")); return err }, ceremony.ErrScript},
	} {
		if err := c.do(); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
	if now := stageOf(t, e, id); now.Stage != ceremony.Giving {
		t.Errorf("the ceremony is at %s: what was refused has moved it", now.Stage)
	}
}

// TestFails: what does not fit ends the ceremony for everybody.
func TestFails(t *testing.T) {
	value, zero := []byte("0123456789abcdef"), make([]byte, 16)
	for name, c := range map[string]struct {
		give func(t *testing.T, p map[string]ceremony.Place) ([]byte, string)
		want error
		why  audit.Reason
	}{
		"wrong check value": {func(t *testing.T, p map[string]ceremony.Place) ([]byte, string) {
			return sealed(t, p["a"], value), "000000"
		}, ceremony.ErrCheck, audit.ReasonKCVMismatch},
		"no check value": {func(t *testing.T, p map[string]ceremony.Place) ([]byte, string) {
			return sealed(t, p["a"], value), ""
		}, ceremony.ErrCheck, audit.ReasonKCVMismatch},
		"sealed for another": {func(t *testing.T, p map[string]ceremony.Place) ([]byte, string) {
			return sealed(t, p["b"], value), checkOf(t, value)
		}, ceremony.ErrSeal, audit.ReasonFormatError},
		"not sealed": {func(*testing.T, map[string]ceremony.Place) ([]byte, string) {
			return value, checkOf(t, value)
		}, ceremony.ErrSeal, audit.ReasonFormatError},
		"too short": {func(t *testing.T, p map[string]ceremony.Place) ([]byte, string) {
			return sealed(t, p["a"], value[:8]), "000000"
		}, ceremony.ErrComponent, audit.ReasonFormatError},
		"zeros": {func(t *testing.T, p map[string]ceremony.Place) ([]byte, string) {
			return sealed(t, p["a"], zero), checkOf(t, zero)
		}, ceremony.ErrComponent, audit.ReasonFormatError},
	} {
		t.Run(name, func(t *testing.T) {
			e, h := newEngine(t)
			id, places := opened(t, e, good)
			text, check := c.give(t, places)
			if _, err := e.Give(t.Context(), custodian("a"), id, text, check); !errors.Is(err, c.want) {
				t.Errorf("%v, want %v", err, c.want)
			}
			if now := stageOf(t, e, id); now.Stage != ceremony.Failed {
				t.Errorf("it goes on: %s", now.Stage)
			}
			if h.outcomes(audit.CeremonyEnter, c.why) != 1 || h.outcomes(audit.CeremonyAbort, c.why) != 1 {
				t.Error("the log lacks the reason")
			}
			if _, err := e.Give(t.Context(), custodian("b"), id, sealed(t, places["b"], value), checkOf(t, value)); !errors.Is(err, ceremony.ErrEnded) {
				t.Errorf("the other goes on: %v", err)
			}
		})
	}
}

// TestWorkFails: a token that refuses at the last moment leaves no key, and the
// minutes say so.
func TestWorkFails(t *testing.T) {
	e, h := newEngine(t)
	h.fail = custody.ErrUnavailable
	id, places := opened(t, e, good)
	for _, name := range []string{"a", "b"} {
		value := component(t)
		if _, err := e.Give(t.Context(), custodian(name), id, sealed(t, places[name], value), checkOf(t, value)); err != nil {
			t.Fatal(err)
		}
	}
	check := stageOf(t, e, id).Check
	if _, err := e.Confirm(t.Context(), custodian("a"), id, "alias/zmk", check); err != nil {
		t.Fatal(err)
	}
	if _, err := e.Confirm(t.Context(), custodian("b"), id, "alias/zmk", check); !errors.Is(err, ceremony.ErrWork) {
		t.Fatal(err)
	}
	if h.outcomes(audit.CeremonyCommit, audit.ReasonHSMUnavailable) != 1 || stageOf(t, e, id).Stage != ceremony.Failed {
		t.Error("the failure is not told")
	}
}

// TestExpiry: a step and the whole end in their time, to the second.
func TestExpiry(t *testing.T) {
	script := strings.Replace(good, "kind =", "step_timeout = \"1m\"\ntimeout = \"150s\"\nkind =", 1)
	synctest.Test(t, func(t *testing.T) {
		e, h := newEngine(t)
		id, places := opened(t, e, script)
		value := component(t)
		time.Sleep(59 * time.Second)
		if _, err := e.Give(t.Context(), custodian("a"), id, sealed(t, places["a"], value), checkOf(t, value)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(59 * time.Second) // the step began anew
		synctest.Wait()
		if now := stageOf(t, e, id); now.Stage != ceremony.Giving {
			t.Fatalf("stage %s before the time", now.Stage)
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if now := stageOf(t, e, id); now.Stage != ceremony.Expired {
			t.Fatalf("stage %s after the time of a step", now.Stage)
		}
		if h.outcomes(audit.CeremonyExpire, audit.ReasonTimeout) != 1 {
			t.Error("the log does not have it")
		}

		id, places = opened(t, e, script)
		for _, name := range []string{"a", "b"} {
			time.Sleep(55 * time.Second)
			if _, err := e.Give(t.Context(), custodian(name), id, sealed(t, places[name], value[:]), checkOf(t, value)); err != nil && name == "a" {
				t.Fatal(err)
			}
		}
		time.Sleep(41 * time.Second)
		synctest.Wait()
		if now := stageOf(t, e, id); !now.Stage.Ended() {
			t.Errorf("stage %s after the time of the whole", now.Stage)
		}
	})
}

// TestStatusWaits: whoever waits hears of a change at once, and is not kept.
func TestStatusWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, _ := newEngine(t)
		s, err := e.Open(t.Context(), admin(), []byte(good), nil)
		if err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		if now, err := e.Status(t.Context(), admin(), s.ID, s.Revision); err != nil || now.Revision != s.Revision || time.Since(start) > 10*time.Second {
			t.Errorf("nothing new: revision %d after %s: %v", now.Revision, time.Since(start), err)
		}
		heard := make(chan ceremony.Status, 1)
		go func() {
			now, _ := e.Status(context.Background(), admin(), s.ID, s.Revision)
			heard <- now
		}()
		synctest.Wait()
		if _, err := e.Join(t.Context(), custodian("a"), s.ID, public(t)); err != nil {
			t.Fatal(err)
		}
		if now := <-heard; now.Revision == s.Revision || !now.Custodians[0].Joined {
			t.Error("the change was not told")
		}
		e.Close()
	})
}

func TestBusy(t *testing.T) {
	e, _ := newEngine(t)
	var first string
	for i := range 16 {
		s, err := e.Open(t.Context(), admin(), []byte(good), nil)
		if err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			first = s.ID
		}
	}
	if _, err := e.Open(t.Context(), admin(), []byte(good), nil); !errors.Is(err, ceremony.ErrBusy) {
		t.Errorf("the 17th: %v", err)
	}
	if err := e.Abort(t.Context(), admin(), first, "make room"); err != nil {
		t.Fatal(err)
	}
	if _, err := e.Open(t.Context(), admin(), []byte(good), nil); err != nil {
		t.Errorf("after one has ended: %v", err)
	}
	list, err := e.List(t.Context(), admin())
	if err != nil || len(list) != 17 {
		t.Errorf("%d listed: %v", len(list), err)
	}
}

// TestMachine: whatever people do in whatever order, no key comes about without
// every custodian's component and word, and nothing is left of a ceremony that
// has ended.
func TestMachine(t *testing.T) {
	script := strings.Replace(good, "[output]", "[[custodian]]\nname = \"c\"\n[output]", 1)
	names := []string{"a", "b", "c"}
	rapid.Check(t, func(rt *rapid.T) {
		h := newHouse(t)
		e, err := ceremony.New(ceremony.Config{House: h})
		if err != nil {
			rt.Fatal(err)
		}
		defer e.Close()
		s, err := e.Open(t.Context(), admin(), []byte(script), nil)
		if err != nil {
			rt.Fatal(err)
		}
		joined, gave, said := map[string]ceremony.Place{}, map[string][]byte{}, map[string]bool{}
		for range rapid.IntRange(1, 40).Draw(rt, "steps") {
			name := rapid.SampledFrom(names).Draw(rt, "who")
			who := custodian(name)
			switch rapid.SampledFrom([]string{"join", "join", "join", "give", "give", "give", "confirm", "confirm", "confirm", "twin", "wrong", "abort"}).Draw(rt, "what") {
			case "join":
				if place, err := e.Join(t.Context(), who, s.ID, public(t)); err == nil {
					joined[name] = place
				}
			case "twin":
				who.Subject = "CN=" + rapid.SampledFrom(names).Draw(rt, "as")
				_, sits := joined[strings.TrimPrefix(who.Subject, "CN=")]
				if _, err := e.Join(t.Context(), who, s.ID, public(t)); err == nil {
					if sits {
						rt.Fatal("R-41 one person has two seats")
					}
					return // this person is another from now on: a story of its own
				}
			case "give":
				value := component(t)
				if _, err := e.Give(t.Context(), who, s.ID, sealed(t, place(joined, name, s.ID, t), value), checkOf(t, value)); err == nil {
					gave[name] = value
				}
			case "wrong":
				value := component(t)
				if _, err := e.Give(t.Context(), who, s.ID, sealed(t, place(joined, name, s.ID, t), value), "000000"); err == nil {
					rt.Fatal("a wrong check value was taken")
				}
			case "confirm":
				now := stageOf(t, e, s.ID)
				if _, err := e.Confirm(t.Context(), who, s.ID, "alias/zmk", now.Check); err == nil {
					said[name] = true
				}
			case "abort":
				_ = e.Abort(t.Context(), who, s.ID, "enough")
			}
			now := stageOf(t, e, s.ID)
			everybody := len(joined) == 3 && len(gave) == 3 && len(said) == 3
			if (len(h.imported) > 0) != everybody || (now.Stage == ceremony.Done) != everybody {
				rt.Fatalf("R-41 stage %s with %d seated, %d components, %d words; %d keys", now.Stage, len(joined), len(gave), len(said), len(h.imported))
			}
			if now.Stage.Ended() && e.Holds(s.ID) {
				rt.Fatal("the engine still holds something of a ceremony that has ended")
			}
		}
		if len(h.imported) > 0 {
			want := make([]byte, 16)
			for _, value := range gave {
				for i := range want {
					want[i] ^= value[i]
				}
			}
			if !slices.Equal(want, h.imported[0]) {
				rt.Fatal("another key than the components make")
			}
		}
	})
}

// place is where somebody sits, or a place that nobody gave it.
func place(joined map[string]ceremony.Place, name, id string, t testing.TB) ceremony.Place {
	if p, ok := joined[name]; ok {
		return p
	}
	return ceremony.Place{Ceremony: id, Custodian: name, Component: 1, Public: public(t)}
}
