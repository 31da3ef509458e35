package custody_test

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"keyd.dev/keyd/audit"
	"keyd.dev/keyd/dukpt"
	"keyd.dev/keyd/internal/custody"
	"keyd.dev/keyd/internal/softkey"
	"keyd.dev/keyd/keys"
	"keyd.dev/keyd/pin"
	softhsmtest "keyd.dev/keyd/softhsm-test"
)

// TestOnSoftokn runs all tests of this package once more, on softokn.
func TestOnSoftokn(t *testing.T) { softhsmtest.Again(t) }

// The keys of the translations in the token.
const (
	unseenIn  = "A2C4C2E0EA4C7F5E0D6173D6D0DCE5E3"
	unseenOut = "49049D94F1F1929B1A83192CF71038CB"
	zpkAES    = "5A21DD2D7A7C4A7DF1B1C0A45FCB3B29"
	tpkAES    = "0E3C1BF8D84B9A4E11F0BD4C9F77F8A5"
)

var tokenPolicy = map[string]string{"keyd:custody": "token"}

// unseenKeys imports PIN keys with the policy and without, and BDKs.
func unseenKeys(t *testing.T, r *room) {
	t.Helper()
	for _, k := range []struct {
		alias  string
		a      keys.Algorithm
		mode   keys.Mode
		value  string
		policy map[string]string
	}{
		{"in", keys.TDES2, 'D', unseenIn, tokenPolicy},
		{"out", keys.TDES2, 'E', unseenOut, tokenPolicy},
		{"both", keys.TDES2, 'B', unseenOut, tokenPolicy},
		{"any-in", keys.TDES2, 'B', unseenIn, nil},
		{"any-out", keys.TDES2, 'B', unseenOut, nil},
		{"aes-in", keys.AES128, 'D', tpkAES, tokenPolicy},
		{"aes-out", keys.AES128, 'E', zpkAES, tokenPolicy},
		{"aes-12", keys.AES128, 'E', zpkAES, map[string]string{"keyd:custody": "token", "keyd:iso4-pan": "rightmost12"}},
		{"aes-any", keys.AES128, 'B', zpkAES, nil},
	} {
		r.key(t, "alias/"+k.alias, attributes(keys.UsagePIN, k.a, k.mode), k.value, k.policy)
	}
	r.key(t, "alias/bdk", attributes(keys.UsageBDK, keys.AES128, 'X'), bdkAES, tokenPolicy)
	r.key(t, "alias/bdk-any", attributes(keys.UsageBDK, keys.AES128, 'X'), bdkAES, nil)
	r.key(t, "alias/bdk-tdes", attributes(keys.UsageBDK, keys.TDES2, 'X'), bdkTDES, nil)
}

// The PIN and the PAN of the blocks, and the KSN under bdkAES.
const (
	unseenPIN = "1234"
	unseenPAN = "4111111111111111"
	unseenKSN = "123456789012345600000001"
)

// softPIN is a key in the process.
func softPIN(t *testing.T, a keys.Algorithm, value string) *softkey.Key {
	t.Helper()
	raw := unhex(t, value)
	if a.IsTDES() {
		keys.AdjustParity(raw)
	}
	k, err := softkey.New(a, raw)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// enciphered makes the block of unseenPIN under a key in the process, and the
// clear field of it.
func enciphered(t *testing.T, k *softkey.Key, f custody.PINFormat, rule pin.PANRule) ([]byte, pin.Field) {
	t.Helper()
	side := softSide(t, f, rule)
	p, err := pin.ParsePIN([]byte(unseenPIN))
	if err != nil {
		t.Fatal(err)
	}
	field, err := pin.Encode(&side, &p, bytes.NewReader(bytes.Repeat([]byte{0x2B}, 64)))
	if err != nil {
		t.Fatal(err)
	}
	block, err := pin.Encipher(k, &side, &field)
	if err != nil {
		t.Fatal(err)
	}
	return block, field
}

func softSide(t *testing.T, f custody.PINFormat, rule pin.PANRule) pin.Side {
	t.Helper()
	pan, err := pin.ParsePAN(unseenPAN)
	if err != nil {
		t.Fatal(err)
	}
	return pin.Side{Format: pin.Format(f), PAN: pan, Rule: rule}
}

// side is one side of a request.
func side(t *testing.T, alias string, f custody.PINFormat) custody.PINSide {
	s := custody.PINSide{Key: ref("alias/" + alias), Format: f, PAN: unseenPAN}
	if f == custody.ISO1 {
		s.PAN = ""
	}
	if strings.HasPrefix(alias, "bdk") {
		s.DUKPT = &custody.DUKPT{KSN: unhex(t, unseenKSN)}
	}
	return s
}

// TestUnseen moves blocks within the token and compares with the same clear
// field under the outgoing key in software; on a module that cannot, each is
// refused. Either key's policy binds both.
func TestUnseen(t *testing.T) {
	pinKey := workingKey(t, dukpt.AES128)
	pinTDES, err := softkey.New(keys.TDES2, unhex(t, workingKey(t, dukpt.TDES2))) // its parity as it comes
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		in, out  string
		format   custody.PINFormat
		from, to *softkey.Key
		rule     pin.PANRule // outgoing
		derive   keys.Algorithm
	}{
		{"in", "out", custody.ISO0, softPIN(t, keys.TDES2, unseenIn), softPIN(t, keys.TDES2, unseenOut), 0, 0},
		{"in", "out", custody.ISO1, softPIN(t, keys.TDES2, unseenIn), softPIN(t, keys.TDES2, unseenOut), 0, 0},
		{"in", "out", custody.ISO3, softPIN(t, keys.TDES2, unseenIn), softPIN(t, keys.TDES2, unseenOut), 0, 0},
		{"in", "any-out", custody.ISO0, softPIN(t, keys.TDES2, unseenIn), softPIN(t, keys.TDES2, unseenOut), 0, 0},
		{"any-in", "out", custody.ISO3, softPIN(t, keys.TDES2, unseenIn), softPIN(t, keys.TDES2, unseenOut), 0, 0},
		{"both", "both", custody.ISO0, softPIN(t, keys.TDES2, unseenOut), softPIN(t, keys.TDES2, unseenOut), 0, 0},
		{"aes-in", "aes-out", custody.ISO4, softPIN(t, keys.AES128, tpkAES), softPIN(t, keys.AES128, zpkAES), 0, 0},
		{"aes-in", "aes-12", custody.ISO4, softPIN(t, keys.AES128, tpkAES), softPIN(t, keys.AES128, zpkAES), pin.Rightmost12, 0},
		{"bdk", "aes-any", custody.ISO4, softPIN(t, keys.AES128, pinKey), softPIN(t, keys.AES128, zpkAES), 0, 0},
		{"bdk-any", "aes-out", custody.ISO4, softPIN(t, keys.AES128, pinKey), softPIN(t, keys.AES128, zpkAES), 0, 0},
		{"aes-in", "bdk", custody.ISO4, softPIN(t, keys.AES128, tpkAES), softPIN(t, keys.AES128, pinKey), 0, 0},
		{"bdk", "out", custody.ISO0, pinTDES, softPIN(t, keys.TDES2, unseenOut), 0, keys.TDES2},
	}
	softhsmtest.Each(t, func(t *testing.T, m softhsmtest.Module) {
		token := m.Token(t)
		r := newRoomOver(t, token, nil)
		unseenKeys(t, r)
		for _, test := range tests {
			t.Run(fmt.Sprintf("%s to %s, format %d", test.in, test.out, test.format-1), func(t *testing.T) {
				block, field := enciphered(t, test.from, test.format, 0)
				q := custody.TranslatePIN{In: side(t, test.in, test.format), Out: side(t, test.out, test.format), Block: block}
				if test.derive != 0 {
					q.In.DUKPT.Derive = test.derive
				}
				var got custody.TranslatedPIN
				err := r.act(t, app, func(a *custody.Act) (err error) {
					got, err = a.TranslatePIN(t.Context(), q)
					return err
				})
				if !token.Reenciphers(keys.TDES2) {
					if !errors.Is(err, custody.ErrCustody) || got.Block != nil {
						t.Errorf("%+v, %v, want %v", got, err, custody.ErrCustody)
					}
					return
				}
				to := softSide(t, test.format, test.rule)
				want, werr := pin.Encipher(test.to, &to, &field)
				if err != nil || werr != nil || !bytes.Equal(got.Block, want) || got.Custody != audit.CustodyToken {
					t.Errorf("custody %v, %v, or the block differs", got.Custody, err)
				}
			})
		}
		t.Run("objects", func(t *testing.T) { unseenObjects(t, r) })
		t.Run("records", func(t *testing.T) { unseenRecords(t, r) })
	})
}

// unseenRecords reads the custody class out of the log.
func unseenRecords(t *testing.T, r *room) {
	want := map[string]string{"ok": "token", "refused": ""}
	translations := 0
	for _, record := range r.records(t, opsLog()) {
		var got struct{ Action, Outcome, Custody string }
		if err := json.Unmarshal([]byte(record), &got); err != nil {
			t.Fatal(err)
		}
		if strings.Contains(record, unseenPAN) {
			t.Error("a record holds the PAN")
		}
		if got.Action != audit.PINTranslate.String() {
			continue
		}
		translations++
		if class, ok := want[got.Outcome]; !ok || got.Custody != class {
			t.Errorf("outcome %s in custody %q, want %q", got.Outcome, got.Custody, class)
		}
	}
	if translations < 12 {
		t.Errorf("%d records of translations", translations)
	}
}

// unseenObjects holds that nothing made for one translation outlives it.
func unseenObjects(t *testing.T, r *room) {
	s := r.token.Stats()
	live := s.Made - s.Destroyed
	for range 50 {
		for _, in := range []string{"aes-in", "bdk"} {
			_ = r.act(t, app, func(a *custody.Act) error {
				_, err := a.TranslatePIN(t.Context(), custody.TranslatePIN{
					In: side(t, in, custody.ISO4), Out: side(t, "aes-out", custody.ISO4), Block: make([]byte, 16),
				})
				return err
			})
		}
	}
	if s = r.token.Stats(); s.Made-s.Destroyed != live {
		t.Errorf("%d objects more than before", s.Made-s.Destroyed-live)
	}
}

// workingKey is the PIN key of unseenKSN under bdkAES, derived in the process.
func workingKey(t *testing.T, want dukpt.KeyType) string {
	t.Helper()
	bdk, err := dukpt.NewKey(dukpt.AES128, unhex(t, bdkAES))
	if err != nil {
		t.Fatal(err)
	}
	ksn, err := dukpt.ParseAESKSN(unseenKSN)
	if err != nil {
		t.Fatal(err)
	}
	ik, err := dukpt.AESInitialKey(&bdk, ksn.InitialKeyID())
	if err != nil {
		t.Fatal(err)
	}
	transaction, err := dukpt.AESWalk(&ik, ksn)
	if err != nil {
		t.Fatal(err)
	}
	key, err := dukpt.AESWorkingKey(&transaction, ksn, dukpt.PIN, want)
	if err != nil {
		t.Fatal(err)
	}
	return hex.EncodeToString(key.Bytes())
}

// TestUnseenRefuses asks for what cannot be done unseen on any module.
func TestUnseenRefuses(t *testing.T) {
	softhsmtest.Each(t, func(t *testing.T, m softhsmtest.Module) {
		r := newRoomOver(t, m.Token(t), func(c *custody.Config) { c.LegacyPIN = []string{"visa3"} })
		unseenKeys(t, r)
		r.key(t, "alias/legacy", attributes(keys.UsagePIN, keys.TDES2, 'D'), unseenIn, map[string]string{"keyd:custody": "token", "keyd:pin-format": "visa3"})
		for _, test := range []struct {
			name    string
			in, out custody.PINSide
			n       int
			want    error
		}{
			{"format 0 to 3", side(t, "in", custody.ISO0), side(t, "out", custody.ISO3), 8, custody.ErrCustody},
			{"format 0 to 4", side(t, "in", custody.ISO0), side(t, "aes-out", custody.ISO4), 8, custody.ErrCustody},
			{"format 4 to 0", side(t, "aes-in", custody.ISO4), side(t, "any-out", custody.ISO0), 16, custody.ErrCustody},
			{"legacy format to 0", side(t, "legacy", custody.ISO1), side(t, "out", custody.ISO0), 8, custody.ErrCustody},
			{"legacy format to 1", side(t, "legacy", custody.ISO1), side(t, "out", custody.ISO1), 8, custody.ErrRequest},
			{"TDES DUKPT in", tdesSide(t), side(t, "out", custody.ISO0), 8, custody.ErrCustody},
			{"TDES DUKPT out", side(t, "in", custody.ISO0), tdesSide(t), 8, custody.ErrCustody},
			{"PAN changes", side(t, "in", custody.ISO0), otherPAN(side(t, "out", custody.ISO0)), 8, custody.ErrRequest},
			{"format 0 to 1", side(t, "in", custody.ISO0), side(t, "out", custody.ISO1), 8, custody.ErrRequest},
			{"outgoing key comes in", side(t, "out", custody.ISO0), side(t, "out", custody.ISO0), 8, custody.ErrKeyUse},
			{"incoming key goes out", side(t, "in", custody.ISO0), side(t, "in", custody.ISO0), 8, custody.ErrKeyUse},
			{"AES key in format 0", side(t, "aes-in", custody.ISO0), side(t, "aes-out", custody.ISO0), 8, custody.ErrKeyUse},
			{"TDES key in format 4", side(t, "in", custody.ISO4), side(t, "out", custody.ISO4), 16, custody.ErrKeyUse},
		} {
			t.Run(test.name, func(t *testing.T) {
				err := r.act(t, app, func(a *custody.Act) error {
					_, err := a.TranslatePIN(t.Context(), custody.TranslatePIN{In: test.in, Out: test.out, Block: make([]byte, test.n)})
					return err
				})
				if !errors.Is(err, test.want) {
					t.Errorf("got %v, want %v", err, test.want)
				}
			})
		}
	})
}

func tdesSide(t *testing.T) custody.PINSide {
	s := side(t, "bdk-tdes", custody.ISO0)
	s.DUKPT.KSN = unhex(t, "FFFF9876543210E00001")
	return s
}

func otherPAN(s custody.PINSide) custody.PINSide {
	s.PAN = "4012345678909"
	return s
}

// TestUnseenBlocks sends what is no block: of a right length it is moved like
// any other, as often as anybody likes, and of a wrong one it is refused.
func TestUnseenBlocks(t *testing.T) {
	r := newRoomOver(t, softhsmtest.Softokn().Token(t), func(c *custody.Config) { c.Malformed = custody.Malformed{PerMinute: 1, PerHour: 1} })
	unseenKeys(t, r)
	translate := func(in, out string, n int) error {
		return r.act(t, app, func(a *custody.Act) error {
			_, err := a.TranslatePIN(t.Context(), custody.TranslatePIN{
				In: side(t, in, custody.ISO0), Out: side(t, out, custody.ISO0), Block: make([]byte, n),
			})
			return err
		})
	}
	for range 5 {
		if err := translate("in", "out", 8); err != nil {
			t.Errorf("garbage of 8 bytes: %v", err)
		}
	}
	for _, n := range []int{0, 7, 9, 16} {
		if err := translate("in", "out", n); !errors.Is(err, custody.ErrRequest) {
			t.Errorf("%d bytes: %v, want %v", n, err, custody.ErrRequest)
		}
	}
	// The limits hold for what is seen.
	if err := translate("any-in", "any-out", 8); !errors.Is(err, custody.ErrPINBlock) {
		t.Errorf("seen: %v, want %v", err, custody.ErrPINBlock)
	}
	if err := translate("any-in", "any-out", 8); !errors.Is(err, custody.ErrTooMany) {
		t.Errorf("seen again: %v, want %v", err, custody.ErrTooMany)
	}
}

// TestCreateTokenOnly makes keys whose policy lets nothing clear out.
func TestCreateTokenOnly(t *testing.T) {
	r := newRoom(t, nil)
	for _, test := range []struct {
		a    keys.Attributes
		want error
	}{
		{attributes(keys.UsageMACAlg3, keys.TDES2, keys.ModeMAC), custody.ErrCustody},
		{attributes(keys.UsageBDK, keys.TDES2, keys.ModeDerive), custody.ErrCustody},
		{attributes(keys.UsageBDK, keys.AES128, keys.ModeDerive), nil},
	} {
		k, err := r.CreateKey(t.Context(), admin, "t", custody.CreateKey{Attributes: test.a, Enabled: true, Tags: tokenPolicy})
		if !errors.Is(err, test.want) || (k.Block == nil) != (err != nil) {
			t.Errorf("%s: %v, want %v", test.a, err, test.want)
		}
	}
}

// blindToken is a token that offers no way to move a block.
type blindToken struct{ custody.Token }

func TestNoTranslator(t *testing.T) {
	r := newRoomOver(t, softhsmtest.Softokn().Token(t), func(c *custody.Config) { c.Token = blindToken{c.Token} })
	unseenKeys(t, r)
	err := r.act(t, app, func(a *custody.Act) error {
		_, err := a.TranslatePIN(t.Context(), custody.TranslatePIN{
			In: side(t, "in", custody.ISO0), Out: side(t, "out", custody.ISO0), Block: make([]byte, 8),
		})
		return err
	})
	if !errors.Is(err, custody.ErrCustody) {
		t.Errorf("got %v, want %v", err, custody.ErrCustody)
	}
}
