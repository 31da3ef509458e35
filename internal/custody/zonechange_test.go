package custody_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"keyd.dev/keyd/audit"
	"keyd.dev/keyd/internal/custody"
	"keyd.dev/keyd/internal/softkey"
	"keyd.dev/keyd/keys"
	"keyd.dev/keyd/mac"
)

// Zone keys of a host: what is in place, and what the host sends.
const (
	zakFirst  = "505152535455565758595A5B5C5D5E5F"
	zakSecond = "F1E0D3C2B5A497861F0E3D2C5B4A7968"
	zakThird  = "0123456789ABCDEF1032547698BADCFE"
)

var zakForm = attributes(keys.UsageMACAlg3, keys.TDES2, keys.ModeMAC)

// theHost is the switch core on behalf of a host.
func theHost() custody.Caller {
	return custody.SwitchCaller("issuer", audit.ActorUpstream, "127.0.0.1:4711", "", "")
}

// newZone is a room with a zone MAC key and key-encryption keys.
func newZone(t *testing.T, change func(*custody.Config)) *lifeRoom {
	t.Helper()
	r := newLifeRoom(t, change)
	r.key(t, "alias/kek", notExportable(keys.UsageKEK, keys.AES256, keys.ModeBoth), kekAES, nil)
	r.key(t, "alias/kek-out", notExportable(keys.UsageKEK, keys.AES256, keys.ModeEncrypt), "2"+kekAES[1:], nil)
	r.key(t, "alias/zak", zakForm, zakFirst, map[string]string{custody.TagMACMinBytes: "8"})
	return r
}

func checkOf(t *testing.T, value string) keys.KCV {
	t.Helper()
	k, err := softkey.New(keys.TDES2, unhex(t, value))
	if err != nil {
		t.Fatal(err)
	}
	v, err := keys.Check(k, keys.CheckByZeros)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// changeTo is a good change to another value.
func changeTo(t *testing.T, number uint64, value string) custody.ChangeZoneKey {
	t.Helper()
	return custody.ChangeZoneKey{
		Key: ref("alias/zak"), KEK: ref("alias/kek"), Number: number, Overlap: time.Minute, Check: checkOf(t, value),
		Block: sealed(t, kekAES, keys.AES256, header(zakForm, keys.AES256), value),
	}
}

// macOf is a host's MAC under a value.
func macOf(t *testing.T, value string, message []byte) []byte {
	t.Helper()
	left, all, err := mac.NewAlgorithm3(unhex(t, value))
	if err != nil {
		t.Fatal(err)
	}
	sum, err := mac.Algorithm3(left, all, message, mac.Padding1)
	if err != nil {
		t.Fatal(err)
	}
	return sum
}

// takes reports whether a MAC under the value is good by the alias.
func (r *lifeRoom) takes(t *testing.T, value string) bool {
	t.Helper()
	message := []byte("0210 of a host")
	err := r.act(t, theHost(), func(a *custody.Act) error {
		_, err := a.VerifyMAC(t.Context(), custody.VerifyMAC{
			Key: ref("alias/zak"), Algorithm: custody.MACAlg3, Padding: custody.Padding1, Message: message, MAC: macOf(t, value, message), Length: 8,
		})
		return err
	})
	if err != nil && !errors.Is(err, custody.ErrMAC) {
		t.Fatal(err)
	}
	return err == nil
}

// makes reports whether the alias makes MACs under the value.
func (r *lifeRoom) makes(t *testing.T, value string) bool {
	t.Helper()
	message := []byte("0200 of keyd")
	var made custody.GeneratedMAC
	err := r.act(t, theHost(), func(a *custody.Act) (err error) {
		made, err = a.GenerateMAC(t.Context(), custody.GenerateMAC{
			Key: ref("alias/zak"), Algorithm: custody.MACAlg3, Padding: custody.Padding1, Message: message, Length: 8,
		})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return slices.Equal(made.MAC, macOf(t, value, message))
}

// TestChangeZoneKey: a value that a host sends is made with at once, the old one
// goes on for answers in flight until the overlap is over.
func TestChangeZoneKey(t *testing.T) {
	r := newZone(t, nil)
	before, err := r.Key(t.Context(), admin, "t", ref("alias/zak"))
	if err != nil {
		t.Fatal(err)
	}
	q := changeTo(t, 20261122093000, zakSecond)
	done, err := r.WithoutMaker().ChangeZoneKey(t.Context(), theHost(), "t", q) // as the switch has it
	if err != nil {
		t.Fatal(err)
	}
	if done.Again || done.New.Block.Version != before.Block.Version+1 || done.New.Block.Attributes != before.Block.Attributes ||
		!done.New.Block.Check.Equal(q.Check) || done.Old.Block.ID != before.Block.ID {
		t.Errorf("%+v", done)
	}
	after, err := r.Key(t.Context(), admin, "t", ref("alias/zak"))
	if err != nil || after.Block.ID != done.New.Block.ID || after.Block.Policy[custody.TagMACMinBytes] != "8" {
		t.Errorf("the alias points to %+v, %v", after, err)
	}
	if r.makes(t, zakFirst) || !r.makes(t, zakSecond) {
		t.Error("MACs are made with the old value")
	}
	if !r.takes(t, zakFirst) || !r.takes(t, zakSecond) {
		t.Error("a MAC of the old or the new value is refused within the overlap")
	}
	// The same once more, as a host does that got no answer: nothing changes.
	again, err := r.ChangeZoneKey(t.Context(), theHost(), "t", q)
	if err != nil || !again.Again || again.New.Block.ID != done.New.Block.ID {
		t.Errorf("again: %+v, %v", again, err)
	}
	r.clock.turn(time.Minute)
	if r.takes(t, zakFirst) || !r.takes(t, zakSecond) {
		t.Error("the old value is taken behind the overlap")
	}
	second, err := r.ChangeZoneKey(t.Context(), theHost(), "t", changeTo(t, 20261122093001, zakThird))
	if err != nil || second.New.Block.Version != before.Block.Version+2 {
		t.Errorf("a second change: %+v, %v", second.New.Block, err)
	}
	if !r.makes(t, zakThird) {
		t.Error("the second change is not made with")
	}
	t.Run("the log", func(t *testing.T) {
		count := map[string]int{}
		for _, record := range r.records(t, "sec") {
			for _, action := range []string{"key.import", "key.rotate"} {
				if strings.Contains(record, `"action":"`+action+`"`) && strings.Contains(record, `"kind":"upstream"`) {
					count[action]++
				}
			}
			if strings.Contains(record, zakSecond) || strings.Contains(record, zakThird) {
				t.Error("a value stands in the log")
			}
		}
		if diff := cmp.Diff(map[string]int{"key.import": 4, "key.rotate": 4}, count); diff != "" {
			t.Error(diff) // two changes, each with intent and outcome
		}
	})
}

// TestChangeZoneKeyRefused: nothing changes, and the log says why.
func TestChangeZoneKeyRefused(t *testing.T) {
	r := newZone(t, nil)
	if _, err := r.ChangeZoneKey(t.Context(), theHost(), "t", changeTo(t, 10, zakSecond)); err != nil {
		t.Fatal(err)
	}
	with := func(change func(*custody.ChangeZoneKey)) custody.ChangeZoneKey {
		q := changeTo(t, 11, zakThird)
		change(&q)
		return q
	}
	block := func(kek string, a keys.Attributes, value string) string {
		return sealed(t, kek, keys.AES256, header(a, keys.AES256), value)
	}
	for _, tt := range []struct {
		name   string
		who    custody.Caller
		q      custody.ChangeZoneKey
		want   error
		reason string
	}{
		{"an old number", theHost(), with(func(q *custody.ChangeZoneKey) { q.Number = 9 }), custody.ErrRepeated, "duplicate"},
		{"the number of another block", theHost(), with(func(q *custody.ChangeZoneKey) { q.Number = 10 }), custody.ErrRepeated, "duplicate"},
		{"no number", theHost(), with(func(q *custody.ChangeZoneKey) { q.Number = 0 }), custody.ErrRequest, ""},
		{"another check value", theHost(), with(func(q *custody.ChangeZoneKey) { q.Check[0] ^= 1 }), custody.ErrKeyBlock, "kcv_mismatch"},
		{"under another key", theHost(), with(func(q *custody.ChangeZoneKey) { q.Block = block("1"+kekAES[1:], zakForm, zakThird) }), custody.ErrKeyBlock, "format_error"},
		{"another usage", theHost(), with(func(q *custody.ChangeZoneKey) {
			q.Block = block(kekAES, attributes(keys.UsagePIN, keys.TDES2, keys.ModeBoth), zakThird)
		}), custody.ErrKeyUse, "key_usage"},
		{"another mode", theHost(), with(func(q *custody.ChangeZoneKey) {
			q.Block = block(kekAES, attributes(keys.UsageMACAlg3, keys.TDES2, keys.ModeVerify), zakThird)
		}), custody.ErrKeyUse, "key_usage"},
		{"no key block", theHost(), with(func(q *custody.ChangeZoneKey) { q.Block = strings.Repeat("D", 80) }), custody.ErrKeyBlock, "format_error"},
		{"a key that may not unwrap", theHost(), with(func(q *custody.ChangeZoneKey) { q.KEK = ref("alias/kek-out") }), custody.ErrKeyUse, "key_usage"},
		{"a zone key as key-exchange key", theHost(), with(func(q *custody.ChangeZoneKey) { q.KEK = ref("alias/zak") }), custody.ErrKeyUse, "key_usage"},
		{"no key-exchange key", theHost(), with(func(q *custody.ChangeZoneKey) { q.KEK = ref("alias/none") }), custody.ErrNoWrappingKey, "key_unknown"},
		{"an administrator", admin, changeTo(t, 12, zakThird), custody.ErrDenied, "role_denied"},
		{"equal halves", theHost(), with(func(q *custody.ChangeZoneKey) {
			q.Block = block(kekAES, zakForm, strings.Repeat("49049D94F1F1929B", 2))
		}), custody.ErrKeyBlock, "format_error"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			before := keyCount(t, r.room)
			got, err := r.ChangeZoneKey(t.Context(), tt.who, "refused "+tt.name, tt.q)
			if !errors.Is(err, tt.want) || got.New.Block != nil {
				t.Errorf("%v, want %v", err, tt.want)
			}
			if n := keyCount(t, r.room); n != before {
				t.Errorf("%d keys, were %d", n, before)
			}
			if !r.makes(t, zakSecond) || r.takes(t, zakThird) {
				t.Error("the zone key was changed")
			}
		})
	}
	records := strings.Join(r.records(t, "sec"), "\n")
	for _, reason := range []string{"duplicate", "kcv_mismatch", "format_error", "key_usage", "key_unknown", "role_denied"} {
		if !strings.Contains(records, fmt.Sprintf(`"reason":%q`, reason)) {
			t.Errorf("no record has the reason %s", reason)
		}
	}
}

// TestChangeZoneKeyExportability: a host cannot say by its block that a zone key
// may leave, nor that it may not.
func TestChangeZoneKeyExportability(t *testing.T) {
	for _, tt := range []struct {
		name  string
		place keys.Attributes
		sent  keys.Exportability
	}{
		{"wider", notExportable(keys.UsageMACAlg3, keys.TDES2, keys.ModeMAC), keys.Exportable},
		{"sensitive", notExportable(keys.UsageMACAlg3, keys.TDES2, keys.ModeMAC), keys.Sensitive},
		{"narrower", zakForm, keys.NonExportable},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newZone(t, nil)
			r.key(t, "alias/zak-own", tt.place, zakThird, nil)
			sent := tt.place
			sent.Exportability = tt.sent
			q := changeTo(t, 10, zakSecond)
			q.Key, q.Block = ref("alias/zak-own"), sealed(t, kekAES, keys.AES256, header(sent, keys.AES256), zakSecond)
			done, err := r.ChangeZoneKey(t.Context(), theHost(), "t", q)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.place, done.New.Block.Attributes); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// TestChangeAfterRotation: a rotation by hand keeps the number, so that a
// recorded change cannot be brought again.
func TestChangeAfterRotation(t *testing.T) {
	r := newZone(t, nil)
	q := changeTo(t, 10, zakSecond)
	if _, err := r.ChangeZoneKey(t.Context(), theHost(), "t", q); err != nil {
		t.Fatal(err)
	}
	kept := r.rotate(t, custody.RotateKey{Key: ref("alias/zak")})
	other := changeTo(t, 9, zakThird)
	if _, err := r.ChangeZoneKey(t.Context(), theHost(), "t", other); !errors.Is(err, custody.ErrRepeated) {
		t.Errorf("an older change after a rotation: %v", err)
	}
	if again, err := r.ChangeZoneKey(t.Context(), theHost(), "t", q); err == nil || again.New.Block != nil {
		t.Errorf("the change once more after a rotation: %+v, %v", again.New.Block, err)
	}
	now, err := r.Key(t.Context(), admin, "t", ref("alias/zak"))
	if err != nil || now.Block.ID != kept.New.Block.ID {
		t.Errorf("the zone key is not that of the rotation: %v", err)
	}
}

// TestChangeAfterMove: a name that is moved to another key takes the number with
// it, and neither a move back nor one to a key of a lower number loses it.
func TestChangeAfterMove(t *testing.T) {
	r := newZone(t, nil)
	move := func(to keys.ID) {
		t.Helper()
		if _, err := r.UpdateAlias(t.Context(), admin, "t", custody.Alias{Name: "alias/zak", Key: to}, nil); err != nil {
			t.Fatal(err)
		}
	}
	q := changeTo(t, 10, zakSecond)
	done, err := r.ChangeZoneKey(t.Context(), theHost(), "t", q)
	if err != nil {
		t.Fatal(err)
	}
	r.key(t, "alias/zak-letter", zakForm, zakFirst, map[string]string{custody.TagMACMinBytes: "8"})
	letter, err := r.Key(t.Context(), admin, "t", ref("alias/zak-letter"))
	if err != nil {
		t.Fatal(err)
	}
	move(letter.Block.ID)
	if !r.makes(t, zakFirst) {
		t.Fatal("the name was not moved")
	}
	recorded := changeTo(t, 9, zakThird)
	refused := func(what string) {
		t.Helper()
		for _, q := range []custody.ChangeZoneKey{recorded, q} {
			if _, err := r.ChangeZoneKey(t.Context(), theHost(), "t", q); !errors.Is(err, custody.ErrRepeated) {
				t.Errorf("change %d %s: %v", q.Number, what, err)
			}
		}
	}
	refused("after a move")
	r = r.reopened(t)
	refused("after a move and a start")
	if got, err := r.Key(t.Context(), admin, "t", ref("alias/zak")); err != nil || got.Block.Policy[custody.TagMACMinBytes] != "8" || !r.makes(t, zakFirst) {
		t.Errorf("the key has lost its policy or its value: %v", err)
	}
	if _, err := r.ChangeZoneKey(t.Context(), theHost(), "t", changeTo(t, 11, zakThird)); err != nil {
		t.Fatalf("a later change: %v", err)
	}
	move(done.New.Block.ID) // that of change 10
	recorded = changeTo(t, 11, zakThird)
	refused("after a move back")
}

// cut is a store whose process ends at a change of keys: before it is on disk, or
// right behind that.
type cut struct {
	custody.Store
	before, behind bool
}

var errCut = errors.New("the process ended here")

func (c *cut) ChangeKeys(ctx context.Context, once *custody.Once, fn func(custody.KeyChange) error) error {
	if c.before {
		return errCut
	}
	err := c.Store.ChangeKeys(ctx, once, fn)
	if c.behind {
		return errors.Join(errCut, err)
	}
	return err
}

// TestChangeZoneKeyCut: where the process ends in the middle of a change there is
// the old key or the new one, whole, and the host's repeat is right in both cases.
func TestChangeZoneKeyCut(t *testing.T) {
	for _, tt := range []struct {
		name           string
		before, behind bool
		again          bool // the repeat finds it done
	}{
		{"before the commit", true, false, false},
		{"behind the commit", false, true, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			store := new(cut)
			r := newZone(t, func(cfg *custody.Config) {
				store.Store = cfg.Store
				cfg.Store = store
			})
			q := changeTo(t, 10, zakSecond)
			store.before, store.behind = tt.before, tt.behind
			if _, err := r.ChangeZoneKey(t.Context(), theHost(), "t", q); !errors.Is(err, custody.ErrUnavailable) && !errors.Is(err, errCut) {
				t.Fatalf("the end of the process gave %v", err)
			}
			store.before, store.behind = false, false
			r = r.reopened(t)
			if r.makes(t, zakSecond) != tt.again || r.makes(t, zakFirst) == tt.again {
				t.Error("the key in place is not the one on disk")
			}
			got, err := r.ChangeZoneKey(t.Context(), theHost(), "t", q)
			if err != nil || got.Again != tt.again || !r.makes(t, zakSecond) || !r.takes(t, zakFirst) {
				t.Errorf("the repeat: %+v, %v", got, err)
			}
		})
	}
}
