package custody_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"keyd.dev/keyd/internal/custody"
	"keyd.dev/keyd/internal/secret"
	"keyd.dev/keyd/keys"
)

func (r *lifeRoom) rotate(t *testing.T, q custody.RotateKey) custody.Rotated {
	t.Helper()
	done, err := r.RotateKey(t.Context(), admin, "t", q)
	if err != nil {
		t.Fatal(err)
	}
	return done
}

// TestRotation: under one alias a new version makes MACs at once, and those of
// the old one are good until the overlap is over, by the clock alone.
func TestRotation(t *testing.T) {
	r := newLifeRoom(t, nil)
	tags := map[string]string{"team": "acquiring", custody.TagMACMinBytes: "8"}
	first := r.made(t, "alias/mac", cmacKey, tags)
	if _, err := r.CreateAlias(t.Context(), admin, "t", custody.Alias{Name: "alias/same", Key: first.Block.ID}, nil); err != nil {
		t.Fatal(err)
	}
	before, err := r.mac(t, ref("alias/mac"))
	if err != nil {
		t.Fatal(err)
	}
	r.clock.turn(time.Hour)
	done := r.rotate(t, custody.RotateKey{Key: ref("alias/mac"), Overlap: 24 * time.Hour})

	next := done.New
	if next.Block.Version != 2 || next.Block.Attributes != first.Block.Attributes || next.Block.ID == first.Block.ID || next.Block.Check == first.Block.Check {
		t.Errorf("the new version: %+v", next.Block)
	}
	if diff := cmp.Diff(first.Block.Policy, next.Block.Policy); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(map[string]string{"team": "acquiring"}, next.Tags); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"alias/mac", "alias/same"}, next.Aliases); diff != "" {
		t.Error(diff)
	}
	for _, alias := range []string{"alias/mac", "alias/same"} {
		if a, err := r.Alias(t.Context(), admin, "t", alias); err != nil || a.Key != next.Block.ID {
			t.Errorf("%s points to %s, %v", alias, a.Key, err)
		}
	}
	after, err := r.mac(t, ref("alias/mac"))
	if err != nil || after.Key.ID != next.Block.ID {
		t.Fatalf("made by %s, %v; want %s", after.Key.ID, err, next.Block.ID)
	}
	for _, tt := range []struct {
		name string
		ref  custody.Ref
		mac  []byte
		by   keys.ID
		want error
	}{
		{"the new one by the alias", ref("alias/mac"), after.MAC, next.Block.ID, nil},
		{"the old one by the alias", ref("alias/mac"), before.MAC, first.Block.ID, nil},
		{"the old one by its id", byID(first), before.MAC, first.Block.ID, nil},
		{"the old one by the id of the new", byID(next), before.MAC, "", custody.ErrMAC},
		{"the new one by the id of the old", byID(first), after.MAC, "", custody.ErrMAC},
		{"a wrong one", ref("alias/mac"), make([]byte, 16), "", custody.ErrMAC},
		{"shorter than the policy", ref("alias/mac"), before.MAC[:4], "", custody.ErrRequest},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := r.verify(t, tt.ref, tt.mac)
			if !errors.Is(err, tt.want) || got.Key.ID != tt.by {
				t.Errorf("by %q, %v; want %q, %v", got.Key.ID, err, tt.by, tt.want)
			}
		})
	}
	if _, err := r.mac(t, byID(first)); !errors.Is(err, custody.ErrKeyState) {
		t.Errorf("the old one makes a MAC: %v", err)
	}
	r.clock.turn(24*time.Hour - time.Millisecond)
	if _, err := r.verify(t, ref("alias/mac"), before.MAC); err != nil {
		t.Errorf("at the end of the overlap: %v", err)
	}
	r.clock.turn(time.Millisecond)
	if _, err := r.verify(t, ref("alias/mac"), before.MAC); !errors.Is(err, custody.ErrMAC) {
		t.Errorf("behind the overlap, by the alias: %v, want %v", err, custody.ErrMAC)
	}
	if _, err := r.verify(t, byID(first), before.MAC); !errors.Is(err, custody.ErrKeyState) {
		t.Errorf("behind the overlap, by the id: %v, want %v", err, custody.ErrKeyState)
	}
	if _, err := r.StartKeyUsage(t.Context(), admin, "t", custody.KeyStep{Key: byID(first)}); !errors.Is(err, custody.ErrConflict) {
		t.Errorf("a replaced key was started: %v", err)
	}
	if err := r.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	if old, err := r.Key(t.Context(), admin, "t", byID(first)); err != nil || old.Enabled || !old.UsageStop.Equal(r.clock.Now()) {
		t.Errorf("after the sweep: %+v, %v", old, err)
	}
	r.gone(t, first.Block.ID)
	t.Run("the log", func(t *testing.T) {
		var versions []string
		for _, record := range r.records(t, "ops-"+time.Now().UTC().Format("2006-01")) {
			if strings.Contains(record, `"action":"mac.verify"`) && strings.Contains(record, `"outcome":"ok"`) {
				versions = append(versions, versionIn(record))
			}
		}
		if !slices.Equal(versions, []string{"2", "1", "1", "1"}) {
			t.Errorf("versions of the MACs that were good: %q", versions)
		}
	})
}

// versionIn is the version of the first key of a record.
func versionIn(record string) string {
	_, rest, _ := strings.Cut(record, `"ver":`)
	return rest[:1]
}

// TestRotationWithoutOverlap: the old version is of no use at once.
func TestRotationWithoutOverlap(t *testing.T) {
	r := newLifeRoom(t, nil)
	first := r.made(t, "alias/mac", cmacKey, nil)
	before, err := r.mac(t, ref("alias/mac"))
	if err != nil {
		t.Fatal(err)
	}
	done := r.rotate(t, custody.RotateKey{Key: ref("alias/mac")})
	if done.Old.Enabled {
		t.Error("the old version is in use")
	}
	if _, err := r.verify(t, ref("alias/mac"), before.MAC); !errors.Is(err, custody.ErrMAC) {
		t.Errorf("got %v, want %v", err, custody.ErrMAC)
	}
	r.gone(t, first.Block.ID)
}

// TestRotationTwice: two older versions side by side, each for its own time.
func TestRotationTwice(t *testing.T) {
	r := newLifeRoom(t, nil)
	r.made(t, "alias/mac", cmacKey, nil)
	var macs [][]byte
	for _, overlap := range []time.Duration{3 * time.Hour, time.Hour} {
		m, err := r.mac(t, ref("alias/mac"))
		if err != nil {
			t.Fatal(err)
		}
		macs = append(macs, m.MAC)
		r.rotate(t, custody.RotateKey{Key: ref("alias/mac"), Overlap: overlap})
	}
	for i, mac := range macs {
		if _, err := r.verify(t, ref("alias/mac"), mac); err != nil {
			t.Errorf("version %d: %v", i+1, err)
		}
	}
	r.clock.turn(2 * time.Hour)
	if _, err := r.verify(t, ref("alias/mac"), macs[0]); err != nil {
		t.Errorf("version 1 is in its overlap: %v", err)
	}
	if _, err := r.verify(t, ref("alias/mac"), macs[1]); !errors.Is(err, custody.ErrMAC) {
		t.Errorf("version 2 is not: %v", err)
	}
}

// TestRotationOfPINKeys: PIN blocks under the old version are still taken; none
// are made; the name that a client may use serves for the old version too.
func TestRotationOfPINKeys(t *testing.T) {
	r := newLifeRoom(t, nil)
	pinKey := attributes(keys.UsagePIN, keys.TDES2, keys.ModeBoth)
	first := r.made(t, "alias/zpk-in", pinKey, nil)
	r.made(t, "alias/zpk-out", pinKey, nil)
	const pan = "4012345678909"
	side := func(ref custody.Ref, f custody.PINFormat) custody.PINSide {
		s := custody.PINSide{Key: ref, Format: f, PAN: pan}
		if f == custody.ISO1 {
			s.PAN = ""
		}
		return s
	}
	translate := func(who custody.Caller, in, out custody.PINSide, block []byte) (done custody.TranslatedPIN, err error) {
		err = r.act(t, who, func(a *custody.Act) error {
			done, err = a.TranslatePIN(t.Context(), custody.TranslatePIN{In: in, Out: out, Block: block})
			return err
		})
		return done, err
	}
	// A block under the first version, for which one is sought that deciphers.
	block := r.pinBlock(t, first, pan)
	whole, err := translate(app, side(ref("alias/zpk-in"), custody.ISO0), side(ref("alias/zpk-in"), custody.ISO3), block)
	if err != nil {
		t.Fatal(err)
	}
	r.rotate(t, custody.RotateKey{Key: ref("alias/zpk-in"), Overlap: time.Hour})
	narrow := caller("narrow", custody.RoleApplication, "alias/zpk-*")
	for _, tt := range []struct {
		name    string
		in, out custody.PINSide
		block   []byte
		want    error
	}{
		{"in by the alias", side(ref("alias/zpk-in"), custody.ISO0), side(ref("alias/zpk-out"), custody.ISO0), block, nil},
		{"in by the alias, format 3", side(ref("alias/zpk-in"), custody.ISO3), side(ref("alias/zpk-out"), custody.ISO0), whole.Block, nil},
		{"in by the old id", side(byID(first), custody.ISO0), side(ref("alias/zpk-out"), custody.ISO0), block, nil},
		{"out by the old id", side(byID(first), custody.ISO0), side(byID(first), custody.ISO0), block, custody.ErrKeyState},
	} {
		t.Run(tt.name, func(t *testing.T) {
			done, err := translate(narrow, tt.in, tt.out, tt.block)
			if !errors.Is(err, tt.want) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
			if tt.want == nil && len(done.Block) != 8 {
				t.Errorf("a block of %d bytes", len(done.Block))
			}
		})
	}
	r.clock.turn(time.Hour)
	if _, err := translate(narrow, side(ref("alias/zpk-in"), custody.ISO0), side(ref("alias/zpk-out"), custody.ISO0), block); !errors.Is(err, custody.ErrPINBlock) {
		t.Errorf("behind the overlap: %v, want %v", err, custody.ErrPINBlock)
	}
	t.Run("the log names the version that it was", func(t *testing.T) {
		var versions []string
		for _, record := range r.records(t, "ops-"+time.Now().UTC().Format("2006-01")) {
			if strings.Contains(record, `"narrow"`) && strings.Contains(record, `"outcome":"ok"`) {
				versions = append(versions, versionIn(record))
			}
		}
		if !slices.Equal(versions, []string{"1", "1", "1"}) {
			t.Errorf("got %q", versions)
		}
	})
}

// pinBlock is a format 0 block of the PIN 1234 under the key, made by the key
// itself.
func (r *lifeRoom) pinBlock(t *testing.T, k custody.KeyRecord, pan string) []byte {
	t.Helper()
	loaded, err := r.token.Load(t.Context(), k.Block)
	if err != nil {
		t.Fatal(err)
	}
	defer loaded.Release()
	clear := []byte{0x04, 0x12, 0x34, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF}
	digits := []byte("0000" + pan[len(pan)-13:len(pan)-1])
	for i := range clear {
		clear[i] ^= (digits[2*i]-'0')<<4 | (digits[2*i+1] - '0')
	}
	block, err := loaded.Key.Encrypt(nil, clear)
	if err != nil {
		t.Fatal(err)
	}
	return block
}

// TestRotationBySuccessor: a value that came from outside takes the place.
func TestRotationBySuccessor(t *testing.T) {
	r := newLifeRoom(t, nil)
	first := r.made(t, "alias/mac", cmacKey, map[string]string{"team": "a", "kept": "old", custody.TagMACMinBytes: "8"})
	before, err := r.mac(t, ref("alias/mac"))
	if err != nil {
		t.Fatal(err)
	}
	value := unhex(t, "66F69CA1D7F33E1B10B8798DDA30361F")
	came, err := r.ImportClear(t.Context(), custodian, "t", custody.ImportClear{Attributes: cmacKey, Value: secret.From(value)})
	if err != nil {
		t.Fatal(err)
	}
	if err := r.TagKey(t.Context(), admin, "t", came.Block.ID, map[string]string{"team": "b"}, nil); err != nil {
		t.Fatal(err)
	}
	done := r.rotate(t, custody.RotateKey{Key: ref("alias/mac"), Successor: byID(came), Overlap: time.Hour})
	if done.New.Block.ID != came.Block.ID || done.New.Block.Version != 2 || done.New.Block.Check != came.Block.Check || done.New.Block.Origin != keys.External {
		t.Errorf("the new version: %+v", done.New.Block)
	}
	if diff := cmp.Diff(first.Block.Policy, done.New.Block.Policy); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(map[string]string{"team": "b", "kept": "old"}, done.New.Tags); diff != "" {
		t.Error(diff)
	}
	made, err := r.mac(t, ref("alias/mac"))
	if err != nil || made.Key.ID != came.Block.ID {
		t.Errorf("made by %s, %v", made.Key.ID, err)
	}
	if good, err := r.verify(t, ref("alias/mac"), before.MAC); err != nil || good.Key.ID != first.Block.ID {
		t.Errorf("verified by %s, %v", good.Key.ID, err)
	}
}

// TestRotationRefused lists what cannot be replaced, and by what.
func TestRotationRefused(t *testing.T) {
	r := newLifeRoom(t, nil)
	mac := r.made(t, "alias/mac", cmacKey, nil)
	other := r.made(t, "", attributes(keys.UsageCMAC, keys.AES256, keys.ModeMAC), nil)
	named := r.made(t, "alias/named", cmacKey, nil)
	bdk := r.made(t, "alias/bdk", attributes(keys.UsageBDK, keys.AES128, keys.ModeDerive), nil)
	replaced := r.made(t, "alias/replaced", cmacKey, nil)
	newest := r.rotate(t, custody.RotateKey{Key: byID(replaced), Overlap: time.Hour}).New
	for _, tt := range []struct {
		name string
		q    custody.RotateKey
		want error
	}{
		{"a base derivation key", custody.RotateKey{Key: byID(bdk)}, custody.ErrConflict},
		{"a key without an alias", custody.RotateKey{Key: byID(other)}, custody.ErrConflict},
		{"a key that was replaced", custody.RotateKey{Key: byID(replaced)}, custody.ErrConflict},
		{"by a key of another algorithm", custody.RotateKey{Key: byID(mac), Successor: byID(other)}, custody.ErrRequest},
		{"by itself", custody.RotateKey{Key: byID(mac), Successor: byID(mac)}, custody.ErrRequest},
		{"by a key with an alias", custody.RotateKey{Key: byID(mac), Successor: byID(named)}, custody.ErrConflict},
		{"by a version of another key", custody.RotateKey{Key: byID(mac), Successor: byID(newest)}, custody.ErrConflict},
		{"by no key", custody.RotateKey{Key: byID(mac), Successor: ref("alias/none")}, custody.ErrNoKey},
		{"an overlap of too long", custody.RotateKey{Key: byID(mac), Overlap: custody.MostOverlap + 1}, custody.ErrRequest},
		{"a negative overlap", custody.RotateKey{Key: byID(mac), Overlap: -1}, custody.ErrRequest},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := r.RotateKey(t.Context(), admin, "t", tt.q); !errors.Is(err, tt.want) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
		})
	}
	if _, err := r.RotateKey(t.Context(), app, "t", custody.RotateKey{Key: byID(mac)}); !errors.Is(err, custody.ErrDenied) {
		t.Errorf("by an application: %v", err)
	}
}

// TestRotationBeginsThePeriodAnew: the new version lives as long as the old one
// was meant to, and not until the same day.
func TestRotationBeginsThePeriodAnew(t *testing.T) {
	r := newLifeRoom(t, nil)
	begin := r.clock.Now()
	end := begin.Add(30 * 24 * time.Hour).Truncate(time.Second)
	r.made(t, "alias/mac", cmacKey, map[string]string{custody.TagNotAfter: end.Format(time.RFC3339), custody.TagMaxUses: "10"})
	r.clock.turn(29 * 24 * time.Hour)
	next := r.rotate(t, custody.RotateKey{Key: ref("alias/mac")}).New
	until, err := time.Parse(time.RFC3339, next.Block.Policy[custody.TagNotAfter])
	if err != nil {
		t.Fatal(err)
	}
	if want := r.clock.Now().Add(end.Sub(begin)); until.Sub(want).Abs() > time.Second {
		t.Errorf("it ends at %v, want %v", until, want)
	}
	if next.Block.Policy[custody.TagMaxUses] != "10" {
		t.Error("the limit is lost")
	}
}
