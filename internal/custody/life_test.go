package custody_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"keyd.dev/keyd/audit"
	"keyd.dev/keyd/internal/custody"
	"keyd.dev/keyd/internal/hsm"
	"keyd.dev/keyd/keys"
)

// dial is a clock that tests turn.
type dial struct {
	mu  sync.Mutex
	now time.Time
}

func (d *dial) Now() time.Time {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.now
}

func (d *dial) turn(by time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.now = d.now.Add(by)
}

// lifeRoom is a room whose clock can be turned.
type lifeRoom struct {
	*room
	clock  *dial
	m      *hsm.Manager
	config custody.Config

	mu     sync.Mutex
	alarms []string
}

func newLifeRoom(t testing.TB, change func(*custody.Config)) *lifeRoom {
	t.Helper()
	r := &lifeRoom{clock: &dial{now: time.Now().UTC().Truncate(time.Millisecond)}}
	r.room = newRoom(t, func(cfg *custody.Config) {
		cfg.Clock = r.clock.Now
		for _, name := range []string{"anna", "raj"} {
			cfg.Clients = append(cfg.Clients, custody.Client{Name: name, URI: "keyd://client/" + name, Roles: []custody.Role{custody.RoleCustodian}})
		}
		cfg.Alarm = func(a audit.Alarm, _ keys.ID, _ error) {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.alarms = append(r.alarms, a.Code)
		}
		if change != nil {
			change(cfg)
		}
		r.config = *cfg
	})
	r.m = hsm.NewManager(r.token)
	return r
}

// raised returns the alarms so far.
func (r *lifeRoom) raised() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.alarms)
}

// reopened is the Custody of a process that was started again, without an
// orderly end of the one before.
func (r *lifeRoom) reopened(t testing.TB) *lifeRoom {
	t.Helper()
	c, err := custody.New(r.config)
	if err != nil {
		t.Fatal(err)
	}
	again := *r.room
	again.Custody = c
	return &lifeRoom{room: &again, clock: r.clock, m: r.m, config: r.config}
}

// made is a new key under an alias.
func (r *lifeRoom) made(t *testing.T, alias string, a keys.Attributes, tags map[string]string) custody.KeyRecord {
	t.Helper()
	k, err := r.CreateKey(t.Context(), admin, "t", custody.CreateKey{Attributes: a, Enabled: true, Tags: tags})
	if err != nil {
		t.Fatal(err)
	}
	if alias == "" {
		return k
	}
	if _, err := r.CreateAlias(t.Context(), admin, "t", custody.Alias{Name: alias, Key: k.Block.ID}, nil); err != nil {
		t.Fatal(err)
	}
	return k
}

var cmacKey = attributes(keys.UsageCMAC, keys.AES128, keys.ModeMAC)

func (r *lifeRoom) mac(t *testing.T, ref custody.Ref) (made custody.GeneratedMAC, err error) {
	t.Helper()
	err = r.act(t, app, func(a *custody.Act) error {
		made, err = a.GenerateMAC(t.Context(), custody.GenerateMAC{Key: ref, Algorithm: custody.MACCMAC, Message: []byte("message")})
		return err
	})
	return made, err
}

func (r *lifeRoom) verify(t *testing.T, ref custody.Ref, mac []byte) (good custody.VerifiedMAC, err error) {
	t.Helper()
	err = r.act(t, app, func(a *custody.Act) error {
		good, err = a.VerifyMAC(t.Context(), custody.VerifyMAC{Key: ref, Algorithm: custody.MACCMAC, Message: []byte("message"), MAC: mac})
		return err
	})
	return good, err
}

func byID(k custody.KeyRecord) custody.Ref { return custody.Ref{ID: k.Block.ID} }

// gone waits until the token shows no object of the key: they go when the last
// use is over.
func (r *lifeRoom) gone(t *testing.T, id keys.ID) {
	t.Helper()
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(time.Millisecond) {
		n, err := r.m.Objects(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		if n == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d objects in the token", n)
		}
	}
}

// TestStopAndStart: a stopped key is of no use from the return on, and its
// object leaves the token; a started one is of use again.
func TestStopAndStart(t *testing.T) {
	r := newLifeRoom(t, nil)
	k := r.made(t, "alias/mac", cmacKey, nil)
	if _, err := r.mac(t, ref("alias/mac")); err != nil {
		t.Fatal(err)
	}
	r.clock.turn(time.Hour)
	stopped, err := r.StopKeyUsage(t.Context(), admin, "t", custody.KeyStep{Key: ref("alias/mac")})
	if err != nil {
		t.Fatal(err)
	}
	if stopped.Enabled || !stopped.UsageStop.Equal(r.clock.Now()) || !stopped.UsageStart.Equal(k.UsageStart) {
		t.Errorf("stopped: %+v", stopped)
	}
	for _, name := range []custody.Ref{ref("alias/mac"), byID(k)} {
		if _, err := r.mac(t, name); !errors.Is(err, custody.ErrKeyState) {
			t.Errorf("use of %v: %v, want %v", name, err, custody.ErrKeyState)
		}
	}
	r.gone(t, k.Block.ID)
	r.clock.turn(time.Hour)
	again, err := r.StopKeyUsage(t.Context(), admin, "t", custody.KeyStep{Key: byID(k)})
	if err != nil || !again.UsageStop.Equal(stopped.UsageStop) {
		t.Errorf("stopped twice: %v, %v", again.UsageStop, err)
	}
	started, err := r.StartKeyUsage(t.Context(), admin, "t", custody.KeyStep{Key: byID(k)})
	if err != nil || !started.Enabled || !started.UsageStart.Equal(r.clock.Now()) || !started.UsageStop.IsZero() {
		t.Errorf("started: %+v, %v", started, err)
	}
	if _, err := r.mac(t, ref("alias/mac")); err != nil {
		t.Errorf("use after the start: %v", err)
	}
	sec := strings.Join(r.records(t, "sec"), "\n")
	for _, action := range []string{"key.suspend", "key.resume"} {
		if !strings.Contains(sec, `"action":"`+action+`"`) {
			t.Errorf("no %s in the log", action)
		}
	}
}

// TestLifeConflicts: what the state of a key does not admit (section 8.3).
func TestLifeConflicts(t *testing.T) {
	r := newLifeRoom(t, nil)
	present := r.made(t, "", cmacKey, nil)
	pending := r.made(t, "", cmacKey, nil)
	if _, err := r.DeleteKey(t.Context(), admin, "t", custody.KeyStep{Key: byID(pending)}, 0); err != nil {
		t.Fatal(err)
	}
	destroyed := r.made(t, "", cmacKey, nil)
	if _, err := r.DestroyKey(t.Context(), ceremony(), "t", byID(destroyed)); err != nil {
		t.Fatal(err)
	}
	steps := map[string]func(custody.KeyStep) error{
		"start":   func(q custody.KeyStep) error { _, err := r.StartKeyUsage(t.Context(), admin, "t", q); return err },
		"stop":    func(q custody.KeyStep) error { _, err := r.StopKeyUsage(t.Context(), admin, "t", q); return err },
		"delete":  func(q custody.KeyStep) error { _, err := r.DeleteKey(t.Context(), admin, "t", q, 7); return err },
		"restore": func(q custody.KeyStep) error { _, err := r.RestoreKey(t.Context(), admin, "t", q); return err },
		"tag": func(q custody.KeyStep) error {
			return r.TagKey(t.Context(), admin, "t", q.Key.ID, map[string]string{"a": "b"}, nil)
		},
		"rotate": func(q custody.KeyStep) error {
			_, err := r.RotateKey(t.Context(), admin, "t", custody.RotateKey{Key: q.Key})
			return err
		},
		"destroy": func(q custody.KeyStep) error { _, err := r.DestroyKey(t.Context(), ceremony(), "t", q.Key); return err },
	}
	for _, tt := range []struct {
		step string
		key  custody.KeyRecord
		want error
	}{
		{"start", pending, custody.ErrConflict}, {"stop", pending, custody.ErrConflict},
		{"delete", pending, custody.ErrConflict}, {"tag", pending, custody.ErrConflict}, {"rotate", pending, custody.ErrConflict},
		{"start", destroyed, custody.ErrConflict}, {"stop", destroyed, custody.ErrConflict},
		{"delete", destroyed, custody.ErrConflict}, {"restore", destroyed, custody.ErrConflict},
		{"tag", destroyed, custody.ErrConflict}, {"rotate", destroyed, custody.ErrConflict}, {"destroy", destroyed, custody.ErrConflict},
		{"restore", present, custody.ErrConflict},
		{"start", custody.KeyRecord{Block: &keys.Block{ID: "00000000000000000000000000000000"}}, custody.ErrNoKey},
	} {
		t.Run(tt.step+" "+string(tt.key.State), func(t *testing.T) {
			if err := steps[tt.step](custody.KeyStep{Key: byID(tt.key)}); !errors.Is(err, tt.want) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
		})
	}
	for _, days := range []int{-1, 1, 2, 181} {
		if _, err := r.DeleteKey(t.Context(), admin, "t", custody.KeyStep{Key: byID(present)}, days); !errors.Is(err, custody.ErrRequest) {
			t.Errorf("%d days: %v, want %v", days, err, custody.ErrRequest)
		}
	}
	if _, err := r.DestroyKey(t.Context(), admin, "t", byID(present)); !errors.Is(err, custody.ErrDenied) {
		t.Errorf("destroyed at once without custodians: %v, want %v", err, custody.ErrDenied)
	}
}

// ceremony is an administrator for whom two custodians stand.
func ceremony() custody.Caller {
	who := admin
	at := time.Now()
	who.Quorum = []audit.Approval{{ID: "anna", At: at}, {ID: "raj", At: at}}
	return who
}

// TestDeleteAndRestore: a deletion can be taken back until the day, and leaves
// the key stopped.
func TestDeleteAndRestore(t *testing.T) {
	r := newLifeRoom(t, nil)
	k := r.made(t, "alias/mac", cmacKey, nil)
	pending, err := r.DeleteKey(t.Context(), admin, "t", custody.KeyStep{Key: byID(k)}, 3)
	if err != nil {
		t.Fatal(err)
	}
	if pending.State != custody.DeletePending || pending.Enabled || !pending.DeletePending.Equal(r.clock.Now().AddDate(0, 0, 3)) {
		t.Errorf("pending: %+v", pending)
	}
	if _, err := r.mac(t, ref("alias/mac")); !errors.Is(err, custody.ErrKeyState) {
		t.Errorf("use through the alias: %v, want %v", err, custody.ErrKeyState)
	}
	r.clock.turn(72*time.Hour - time.Second)
	if err := r.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	restored, err := r.RestoreKey(t.Context(), admin, "t", custody.KeyStep{Key: byID(k)})
	if err != nil || restored.State != custody.CreateComplete || restored.Enabled || !restored.DeletePending.IsZero() {
		t.Errorf("restored: %+v, %v", restored, err)
	}
	r.clock.turn(time.Hour)
	if err := r.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := r.StartKeyUsage(t.Context(), admin, "t", custody.KeyStep{Key: byID(k)}); err != nil {
		t.Fatal(err)
	}
	if _, err := r.mac(t, ref("alias/mac")); err != nil {
		t.Errorf("use after the restoration and the start: %v", err)
	}
}

// TestDestruction: when its time is over a key is gone from the token, from the
// row, and from the files of the database; what it was is kept.
func TestDestruction(t *testing.T) {
	r := newLifeRoom(t, nil)
	k := r.made(t, "alias/mac", cmacKey, map[string]string{"team": "acquiring"})
	other := r.made(t, "alias/other", cmacKey, nil)
	if _, err := r.mac(t, ref("alias/mac")); err != nil {
		t.Fatal(err)
	}
	wrapped := bytes.Clone(k.Block.Wrapped)
	if !r.inFiles(t, wrapped) {
		t.Fatal("the wrapped value is not where the test looks")
	}
	if _, err := r.DeleteKey(t.Context(), admin, "t", custody.KeyStep{Key: byID(k)}, 7); err != nil {
		t.Fatal(err)
	}
	r.clock.turn(7 * 24 * time.Hour)
	if err := r.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	got, err := r.Key(t.Context(), admin, "t", byID(k))
	if err != nil {
		t.Fatal(err)
	}
	if got.State != custody.DeleteComplete || !got.Deleted.Equal(r.clock.Now()) || len(got.Block.Wrapped)+len(got.Block.Companion) > 0 {
		t.Errorf("destroyed: %+v", got)
	}
	if got.Block.Check != k.Block.Check || got.Block.Attributes != k.Block.Attributes || got.Tags["team"] != "acquiring" {
		t.Errorf("what it was is lost: %+v", got)
	}
	if _, err := r.mac(t, ref("alias/mac")); !errors.Is(err, custody.ErrNoKey) {
		t.Errorf("use through the alias: %v, want %v", err, custody.ErrNoKey)
	}
	if n, err := r.m.Objects(t.Context(), k.Block.ID); err != nil || n != 0 {
		t.Errorf("%d objects in the token, %v", n, err)
	}
	if r.inFiles(t, wrapped) {
		t.Error("the wrapped value is still in the files of the database")
	}
	if _, err := r.token.Load(t.Context(), k.Block); !errors.Is(err, keys.ErrNoKey) {
		t.Errorf("loading its old block: %v, want %v", err, keys.ErrNoKey)
	}
	if _, err := r.mac(t, byID(other)); err != nil {
		t.Errorf("another key: %v", err)
	}
	if len(r.raised()) != 0 {
		t.Errorf("alarms %q", r.raised())
	}
	outcomes := r.recorded(t, "sec", "key.destroy")
	if len(outcomes) != 2 || outcomes[1]["outcome"] != "ok" || outcomes[1]["phase"] != "outcome" {
		t.Errorf("records of the destruction: %v", outcomes)
	}
}

// inFiles reports whether the files of the database hold the bytes.
func (r *lifeRoom) inFiles(t *testing.T, needle []byte) bool {
	t.Helper()
	for _, name := range []string{"keyd.db", "keyd.db-wal"} {
		raw, err := os.ReadFile(filepath.Join(r.dir, name))
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
		if bytes.Contains(raw, needle) {
			return true
		}
	}
	return false
}

// recorded returns the records of an action.
func (r *lifeRoom) recorded(t *testing.T, log, action string) (all []map[string]any) {
	t.Helper()
	for _, raw := range r.records(t, log) {
		var record map[string]any
		if err := json.Unmarshal([]byte(raw), &record); err != nil {
			t.Fatal(err)
		}
		if record["action"] == action {
			all = append(all, record)
		}
	}
	return all
}

// liar keeps what it was told to destroy.
type liar struct {
	custody.Keeper
	destroy error
	objects int
}

func (l *liar) Destroy(context.Context, keys.ID) error        { return l.destroy }
func (l *liar) Objects(context.Context, keys.ID) (int, error) { return l.objects, nil }

// TestKeyThatComesBack: a token that still shows the key, before or after it
// said that it was gone, raises the alarm: in both records and with the
// operator. The value goes from the database all the same.
func TestKeyThatComesBack(t *testing.T) {
	for _, tt := range []struct {
		name string
		lie  liar
	}{
		{"never gone", liar{destroy: keys.ErrNotDestroyed}},
		{"gone and back", liar{objects: 1}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newLifeRoom(t, func(cfg *custody.Config) {
				tt.lie.Keeper = cfg.Keeper
				cfg.Keeper = &tt.lie
			})
			k := r.made(t, "", cmacKey, nil)
			if _, err := r.DeleteKey(t.Context(), admin, "t", custody.KeyStep{Key: byID(k)}, 3); err != nil {
				t.Fatal(err)
			}
			r.clock.turn(72 * time.Hour)
			if err := r.Sweep(t.Context()); !errors.Is(err, custody.ErrNotDestroyed) {
				t.Fatalf("got %v, want %v", err, custody.ErrNotDestroyed)
			}
			if got := r.raised(); !slices.Equal(got, []string{"key_not_destroyed"}) {
				t.Errorf("alarms %q", got)
			}
			got, err := r.Key(t.Context(), admin, "t", byID(k))
			if err != nil || len(got.Block.Wrapped) > 0 || got.State != custody.DeleteComplete {
				t.Errorf("the row: %+v, %v", got, err)
			}
			if err := r.Sweep(t.Context()); err != nil {
				t.Errorf("the next sweep: %v", err)
			}
			destroyed := r.recorded(t, "sec", "key.destroy")
			if len(destroyed) != 2 || destroyed[1]["outcome"] != "error" || destroyed[1]["reason"] != "hsm_error" {
				t.Errorf("records of the destruction: %v", destroyed)
			}
			if alarms := r.recorded(t, "sec", "sys.alarm"); len(alarms) != 1 {
				t.Errorf("records of the alarm: %v", alarms)
			}
		})
	}
}

// TestDestructionAwaitsTheToken: while the token cannot be asked the key waits,
// unusable, and the next try is later and not at every sweep.
func TestDestructionAwaitsTheToken(t *testing.T) {
	lie := &liar{destroy: keys.ErrUnavailable}
	r := newLifeRoom(t, func(cfg *custody.Config) {
		lie.Keeper = cfg.Keeper
		cfg.Keeper = lie
	})
	k := r.made(t, "", cmacKey, nil)
	if _, err := r.DeleteKey(t.Context(), admin, "t", custody.KeyStep{Key: byID(k)}, 3); err != nil {
		t.Fatal(err)
	}
	r.clock.turn(72 * time.Hour)
	if err := r.Sweep(t.Context()); !errors.Is(err, custody.ErrUnavailable) {
		t.Fatalf("got %v, want %v", err, custody.ErrUnavailable)
	}
	if err := r.Sweep(t.Context()); err != nil {
		t.Errorf("tried again at once: %v", err)
	}
	if got, err := r.Key(t.Context(), admin, "t", byID(k)); err != nil || got.State != custody.DeletePending {
		t.Errorf("%+v, %v", got, err)
	}
	lie.destroy = nil
	r.clock.turn(2 * time.Minute)
	if err := r.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got, err := r.Key(t.Context(), admin, "t", byID(k)); err != nil || got.State != custody.DeleteComplete {
		t.Errorf("%+v, %v", got, err)
	}
}
