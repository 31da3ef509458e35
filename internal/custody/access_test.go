package custody_test

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"keyd.dev/keyd/audit"
	"keyd.dev/keyd/internal/custody"
	"keyd.dev/keyd/keys"
)

// matrix says which role may do what.
var matrix = map[custody.Operation][]custody.Role{
	custody.OpTranslatePIN: {custody.RoleApplication, custody.RoleSwitch},
	custody.OpGenerateMAC:  {custody.RoleApplication, custody.RoleSwitch},
	custody.OpVerifyMAC:    {custody.RoleApplication, custody.RoleSwitch},
	custody.OpCreateKey:    {custody.RoleAdmin},
	custody.OpCreateAlias:  {custody.RoleAdmin},
	custody.OpGetKey:       {custody.RoleApplication, custody.RoleAdmin, custody.RoleOperator},
	custody.OpListKeys:     {custody.RoleApplication, custody.RoleAdmin, custody.RoleOperator},
	custody.OpGetAlias:     {custody.RoleApplication, custody.RoleAdmin, custody.RoleOperator},
}

func TestR56RolesByOperation(t *testing.T) {
	r := withKeys(t, newRoom(t, nil))
	try := map[custody.Operation]func(custody.Caller) error{
		custody.OpTranslatePIN: func(who custody.Caller) error {
			return r.act(t, who, func(a *custody.Act) error {
				side := custody.PINSide{Key: ref("alias/zpk-a"), Format: custody.ISO0, PAN: "4012345678909"}
				_, err := a.TranslatePIN(t.Context(), custody.TranslatePIN{In: side, Out: side, Block: make([]byte, 8)})
				return err
			})
		},
		custody.OpGenerateMAC: func(who custody.Caller) error {
			return r.act(t, who, func(a *custody.Act) error {
				_, err := a.GenerateMAC(t.Context(), custody.GenerateMAC{Key: ref("alias/tak-42"), Algorithm: custody.MACAlg3, Message: make([]byte, 8)})
				return err
			})
		},
		custody.OpVerifyMAC: func(who custody.Caller) error {
			return r.act(t, who, func(a *custody.Act) error {
				_, err := a.VerifyMAC(t.Context(), custody.VerifyMAC{Key: ref("alias/tak-42"), Algorithm: custody.MACAlg3, Message: make([]byte, 8), MAC: make([]byte, 8)})
				return err
			})
		},
		custody.OpCreateKey: func(who custody.Caller) error {
			_, err := r.CreateKey(t.Context(), who, "t", custody.CreateKey{Attributes: attributes(keys.UsageCMAC, keys.AES128, keys.ModeMAC), Enabled: true})
			return err
		},
		custody.OpCreateAlias: func(who custody.Caller) error {
			_, err := r.CreateAlias(t.Context(), who, "t", custody.Alias{Name: "alias/empty"}, nil)
			return err
		},
		custody.OpGetKey: func(who custody.Caller) error {
			_, err := r.Key(t.Context(), who, "t", ref("alias/zpk-a"))
			return err
		},
		custody.OpListKeys: func(who custody.Caller) error {
			_, err := r.Keys(t.Context(), who, "t", custody.KeyQuery{Limit: 3})
			return err
		},
		custody.OpGetAlias: func(who custody.Caller) error {
			_, err := r.Alias(t.Context(), who, "t", "alias/zpk-a")
			return err
		},
	}
	denied := 0
	for op, may := range matrix {
		for _, role := range append(custody.Roles(), custody.RoleSwitch, "") {
			t.Run(string(op)+" by "+string(role), func(t *testing.T) {
				who := caller("someone", role, "*")
				err := try[op](who)
				if want := !slices.Contains(may, role); errors.Is(err, custody.ErrDenied) != want {
					t.Errorf("denied = %v, want %v (%v)", !want, want, err)
				}
				if errors.Is(err, custody.ErrDenied) {
					denied++
				}
			})
		}
	}
	t.Run("each refusal is in the log, with who and what", func(t *testing.T) {
		logged := 0
		for _, record := range r.records(t, "sec") {
			if strings.Contains(record, `"action":"auth.deny"`) && strings.Contains(record, `"id":"someone"`) {
				logged++
			}
		}
		if logged != denied {
			t.Errorf("%d refusals, %d in the log", denied, logged)
		}
	})
}

func TestKeyPatterns(t *testing.T) {
	r := withKeys(t, newRoom(t, nil))
	created, err := r.CreateKey(t.Context(), admin, "t", custody.CreateKey{Attributes: attributes(keys.UsageCMAC, keys.AES256, keys.ModeMAC), Enabled: true})
	if err != nil {
		t.Fatal(err)
	}
	zpk, err := r.Key(t.Context(), app, "t", ref("alias/zpk-a"))
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name    string
		pattern string
		ref     custody.Ref
		want    error
	}{
		{"by its alias", "alias/zpk-*", ref("alias/zpk-a"), nil},
		{"by its id, an alias fits", "alias/zpk-*", custody.Ref{ID: zpk.Block.ID}, nil},
		{"other alias", "alias/zpk-*", ref("alias/tak-42"), custody.ErrDenied},
		{"other alias that does not exist", "alias/zpk-*", ref("alias/none"), custody.ErrDenied},
		{"own alias that does not exist", "alias/zpk-*", ref("alias/zpk-none"), custody.ErrNoKey},
		{"a key without alias", "alias/*", custody.Ref{ID: created.Block.ID}, custody.ErrDenied},
		{"a key without alias under *", "*", custody.Ref{ID: created.Block.ID}, nil},
		{"an id that does not exist", "alias/*", custody.Ref{ID: "none"}, custody.ErrDenied},
		{"an id that does not exist under *", "*", custody.Ref{ID: "none"}, custody.ErrNoKey},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			_, err := r.Key(t.Context(), caller("someone", custody.RoleApplication, test.pattern), "t", test.ref)
			if !errors.Is(err, test.want) {
				t.Errorf("got %v, want %v", err, test.want)
			}
		})
	}
}

func TestAliasesOfForeignKeys(t *testing.T) {
	r := withKeys(t, newRoom(t, nil))
	zpk, err := r.Key(t.Context(), app, "t", ref("alias/zpk-a"))
	if err != nil {
		t.Fatal(err)
	}
	limited := caller("limited", custody.RoleAdmin, "alias/test/*")
	_, err = r.CreateAlias(t.Context(), limited, "t", custody.Alias{Name: "alias/test/mine", Key: zpk.Block.ID}, nil)
	if !errors.Is(err, custody.ErrDenied) {
		t.Errorf("a foreign key got a name of the caller's own: %v", err)
	}
	fresh, err := r.CreateKey(t.Context(), limited, "t", custody.CreateKey{Attributes: attributes(keys.UsageCMAC, keys.AES128, keys.ModeMAC), Enabled: true})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.CreateAlias(t.Context(), limited, "t", custody.Alias{Name: "alias/test/new", Key: fresh.Block.ID}, nil); err != nil {
		t.Errorf("a key without a name: %v", err)
	}
}

func TestRefusedConfigurations(t *testing.T) {
	tests := []struct {
		name   string
		client custody.Client
		want   string
	}{
		{"no identity", custody.Client{Name: "a"}, "name and an identity"},
		{"unknown role", custody.Client{Name: "a", URI: "u", Roles: []custody.Role{"root"}}, "unknown role"},
		{"the switch's own role", custody.Client{Name: "a", URI: "u", Roles: []custody.Role{custody.RoleSwitch}}, "unknown role"},
		{"administers and uses", custody.Client{Name: "a", URI: "u", Roles: []custody.Role{custody.RoleAdmin, custody.RoleApplication}}, "nobody may be both"},
		{"bad pattern", custody.Client{Name: "a", URI: "u", Keys: []string{"alias/["}}, "pattern"},
	}
	r := newRoom(t, nil)
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			_, err := custody.New(custody.Config{Token: r.token, Store: r.db, Log: r.log, Clock: time.Now, Clients: []custody.Client{test.client}})
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want an error with %q", err, test.want)
			}
		})
	}
}

func TestCreateKeyOnce(t *testing.T) {
	r := newRoom(t, nil)
	body := sha256.Sum256([]byte("body"))
	q := custody.CreateKey{
		Attributes: attributes(keys.UsageBDK, keys.TDES2, keys.ModeDerive), Enabled: true,
		Tags: map[string]string{"estate": "north", "keyd:mac-padding": "1"},
		Once: &custody.Repeat{Invocation: "i-1", Body: body, Render: func(k custody.KeyRecord) ([]byte, error) {
			return json.Marshal(string(k.Block.ID))
		}},
	}
	k, err := r.CreateKey(t.Context(), admin, "t", q)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string]string{"keyd:mac-padding": "1"}, k.Block.Policy); diff != "" {
		t.Errorf("policy (-want +got):\n%s", diff)
	}
	answer, found, err := r.Recall(t.Context(), admin, "t", custody.OpCreateKey, "i-1", body, func([]byte) string { return "" })
	if err != nil || !found || string(answer) != `"`+string(k.Block.ID)+`"` {
		t.Errorf("recall: %s, %v, %v", answer, found, err)
	}
	if _, _, err := r.Recall(t.Context(), admin, "t", custody.OpCreateAlias, "i-1", body, func([]byte) string { return "" }); !errors.Is(err, custody.ErrRequest) {
		t.Errorf("an id used for another operation: %v", err)
	}
	if _, err := r.CreateKey(t.Context(), admin, "t", q); !errors.Is(err, custody.ErrRepeated) {
		t.Errorf("the same invocation again: %v", err)
	}
	list, err := r.Keys(t.Context(), admin, "t", custody.KeyQuery{Limit: 10})
	if err != nil || len(list) != 1 {
		t.Errorf("%d keys after one invocation, %v", len(list), err)
	}
	t.Run("L-11 intent before outcome", func(t *testing.T) {
		var phases []string
		for _, record := range r.records(t, "sec") {
			if strings.Contains(record, `"action":"key.create"`) {
				phase := "intent"
				if strings.Contains(record, `"phase":"outcome"`) {
					phase = "outcome"
				}
				phases = append(phases, phase)
			}
		}
		if want := []string{"intent", "outcome", "intent", "outcome"}; !slices.Equal(phases, want) {
			t.Errorf("phases %v, want %v", phases, want)
		}
	})
}

func TestUnknownPolicyIsRefused(t *testing.T) {
	r := newRoom(t, nil)
	for _, tags := range []map[string]string{
		{"keyd:unknown": "1"}, {"keyd:custody": "maybe"}, {"aws:x": "1"}, {"keyd:ksn-guard": "maybe"}, {"keyd:ksn-guard": "monotonic"},
		{"keyd:mac-algorithm": "KEYD_UNIONPAY_ECB"}, {"keyd:mac-algorithm": "KEYD_SM4_CBC"},
	} {
		_, err := r.CreateKey(t.Context(), admin, "t", custody.CreateKey{Attributes: attributes(keys.UsageCMAC, keys.AES128, keys.ModeMAC), Tags: tags})
		if !errors.Is(err, custody.ErrRequest) {
			t.Errorf("tags %v: %v", tags, err)
		}
	}
}

func TestWithoutMaker(t *testing.T) {
	r := withKeys(t, newRoom(t, nil))
	user := r.WithoutMaker()
	if _, err := user.CreateKey(t.Context(), admin, "t", custody.CreateKey{Attributes: attributes(keys.UsageCMAC, keys.AES128, keys.ModeMAC)}); !errors.Is(err, custody.ErrUnavailable) {
		t.Errorf("it made a key: %v", err)
	}
	if _, err := user.Key(t.Context(), app, "t", ref("alias/zpk-a")); err != nil {
		t.Errorf("it finds no key: %v", err)
	}
}

func TestL131NothingWithoutTheLog(t *testing.T) {
	r := withKeys(t, newRoom(t, nil))
	calls := r.token.Stats().Calls
	if err := r.log.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Begin(t.Context(), app, "t"); !errors.Is(err, custody.ErrUnavailable) {
		t.Errorf("an act began without a log: %v", err)
	}
	if _, err := r.CreateKey(t.Context(), admin, "t", custody.CreateKey{Attributes: attributes(keys.UsageCMAC, keys.AES128, keys.ModeMAC)}); !errors.Is(err, custody.ErrUnavailable) {
		t.Errorf("a key was made without a log: %v", err)
	}
	if err := r.Ready(); !errors.Is(err, custody.ErrUnavailable) {
		t.Errorf("ready without a log: %v", err)
	}
	if now := r.token.Stats().Calls; now > calls+4 { // the last checkpoints are signed at closing
		t.Errorf("the token was used %d times for refused work", now-calls)
	}
}

func TestTamperedBlock(t *testing.T) {
	r := withKeys(t, newRoom(t, nil))
	k, err := r.Key(t.Context(), app, "t", ref("alias/tak-cmac"))
	if err != nil {
		t.Fatal(err)
	}
	swapped := *k.Block
	swapped.ID = "0123456789abcdefghijklmnopqrstuv"
	swapped.Attributes.Mode = keys.ModeAny
	if err := r.db.AddKey(t.Context(), custody.KeyRecord{
		Block: &swapped, State: custody.CreateComplete, Enabled: true, Aliases: []string{"alias/swapped"},
	}, nil); err != nil {
		t.Fatal(err)
	}
	err = r.act(t, app, func(a *custody.Act) error {
		_, err := a.GenerateMAC(t.Context(), custody.GenerateMAC{Key: ref("alias/swapped"), Algorithm: custody.MACCMAC, Message: []byte("m")})
		return err
	})
	if !errors.Is(err, custody.ErrTampered) {
		t.Errorf("a block with another mode of use: %v", err)
	}
}

func TestCard(t *testing.T) {
	r := newRoom(t, nil)
	protect := func(pan, expiry string) (card custody.Card, err error) {
		failed := r.act(t, app, func(a *custody.Act) error {
			card, err = a.Protect(t.Context(), custody.PAN(pan), expiry)
			return err
		})
		return card, failed
	}
	for _, test := range []struct{ pan, expiry string }{
		{"4111111111111111", "2912"}, {"6011000990139424", ""}, {"4012345678909", "3001"}, {"6799998900000200018", "2801"},
	} {
		card, err := protect(test.pan, test.expiry)
		if err != nil {
			t.Fatal(err)
		}
		pan, expiry, err := r.Reveal(t.Context(), card)
		if err != nil || string(pan) != test.pan || expiry != test.expiry {
			t.Errorf("a card of %d digits came back wrong: %v", len(test.pan), err)
		}
		again, err := protect(test.pan, test.expiry)
		if err != nil || again.Token != card.Token || slices.Equal(again.Sealed, card.Sealed) {
			t.Errorf("R-55: equal cards have equal tokens and different ciphertexts; %v", err)
		}
		card.Sealed[20] ^= 1
		if _, _, err := r.Reveal(t.Context(), card); !errors.Is(err, custody.ErrTampered) {
			t.Errorf("a changed record was revealed: %v", err)
		}
	}
	for _, bad := range []string{"", "41111111x1111111", "12345678901234567890"} {
		if _, err := protect(bad, ""); !errors.Is(err, custody.ErrRequest) {
			t.Errorf("a PAN of %d characters: %v", len(bad), err)
		}
	}
}

func TestMalformedBlocksAreLimited(t *testing.T) {
	r := withKeys(t, newRoom(t, func(c *custody.Config) { c.Malformed = custody.Malformed{PerMinute: 3, PerHour: 4} }))
	bad := func() error {
		return r.act(t, app, func(a *custody.Act) error {
			side := custody.PINSide{Key: ref("alias/zpk-a"), Format: custody.ISO0, PAN: "4012345678909"}
			_, err := a.TranslatePIN(t.Context(), custody.TranslatePIN{In: side, Out: side, Block: make([]byte, 8)})
			return err
		})
	}
	for i := range 3 {
		if err := bad(); !errors.Is(err, custody.ErrPINBlock) {
			t.Fatalf("try %d: %v", i, err)
		}
	}
	if err := bad(); !errors.Is(err, custody.ErrTooMany) {
		t.Errorf("fourth try: %v", err)
	}
}

func TestMalformedWindows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		limit := custody.NewRefusals(custody.Malformed{PerMinute: 2, PerHour: 3})
		count := func(want bool) {
			t.Helper()
			if got := limit.Count("c", "k"); got != want {
				t.Errorf("stopped = %v, want %v", got, want)
			}
		}
		allow := func(want error) {
			t.Helper()
			if err := limit.Allow("c", "k"); !errors.Is(err, want) {
				t.Errorf("got %v, want %v", err, want)
			}
		}
		allow(nil)
		count(false)
		count(false)
		allow(custody.ErrTooMany)
		time.Sleep(61 * time.Second)
		allow(nil)
		count(true)
		allow(custody.ErrTooMany)
		time.Sleep(2 * time.Hour)
		allow(custody.ErrTooMany)
		if err := limit.Allow("other", "k"); err != nil {
			t.Errorf("another client is stopped too: %v", err)
		}
	})
}

func TestIdentify(t *testing.T) {
	r := newRoom(t, func(c *custody.Config) {
		c.Clients = []custody.Client{{Name: "sw", URI: "keyd://client/switch", Roles: []custody.Role{custody.RoleApplication}, Keys: []string{"*"}}, {Name: "dns", URI: "pos.example"}}
	})
	tests := []struct {
		name, uri, dns, want string
	}{
		{"C-06 by URI", "keyd://client/switch", "pos.example", "sw"},
		{"C-06 by DNS name", "", "pos.example", "dns"},
		{"C-06 the URI counts first", "keyd://client/other", "pos.example", ""},
		{"C-06 nothing", "", "", ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			client, err := r.Identify(certificate(t, test.uri, test.dns))
			if client.Name != test.want || (err == nil) != (test.want != "") {
				t.Errorf("got %q, %v; want %q", client.Name, err, test.want)
			}
		})
	}
}

var _ custody.Log = (*audit.Log)(nil)
