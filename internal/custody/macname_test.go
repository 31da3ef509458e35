package custody_test

import (
	"context"
	"encoding/json"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"keyd.dev/keyd/audit"
	"keyd.dev/keyd/internal/custody"
	"keyd.dev/keyd/keys"
)

// TestExpectedMAC: mac.alg is the expected algorithm, so a record has it even
// where the request ended before its key was found. L-11, L-74, L-90.
func TestExpectedMAC(t *testing.T) {
	tdes, aes := unhex(t, "FFFF9876543210E00001"), unhex(t, "123456789012345600000001")
	tests := []struct {
		name      string
		algorithm custody.MACAlgorithm
		said      audit.MACAlg
		dukpt     *custody.DUKPT
		want      string
	}{
		{"L-74 algorithm 1", custody.MACAlg1, 0, nil, "alg1"},
		{"L-74 algorithm 3", custody.MACAlg3, 0, nil, "alg3"},
		{"L-74 UnionPay's", custody.MACUnionPay, 0, nil, "cup_ecb"},
		{"L-74 CMAC under a KSN of TDES", custody.MACCMAC, 0, &custody.DUKPT{KSN: tdes}, "cmac_tdes"},
		{"L-74 CMAC under a KSN of AES", custody.MACCMAC, 0, &custody.DUKPT{KSN: aes}, "cmac_aes"},
		{"L-74 CMAC by a key derived for TDES", custody.MACCMAC, 0, &custody.DUKPT{KSN: aes, Derive: keys.TDES2}, "cmac_tdes"},
		{"L-74 CMAC", custody.MACCMAC, 0, nil, "cmac_aes"},
		{"L-74 CMAC that the caller calls TDES", custody.MACCMAC, audit.MACCMACTDES, nil, "cmac_tdes"},
		{"L-74 HMAC", custody.MACHMAC, 0, nil, "hmac256"},
		{"L-74 HMAC of a hash that the caller names", custody.MACHMAC, custody.HMACName(keys.HMACSHA384), nil, "hmac384"},
	}
	r := withKeys(t, newRoom(t, nil))
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			for _, end := range []struct {
				name string
				ctx  context.Context
				key  custody.Ref
				want error
			}{
				{"cancelled", gone, ref("alias/tak-42"), context.Canceled},
				{"no such key", t.Context(), ref("alias/none"), custody.ErrNoKey},
			} {
				err := r.act(t, app, func(a *custody.Act) error {
					_, made := a.GenerateMAC(end.ctx, custody.GenerateMAC{
						Key: end.key, Algorithm: test.algorithm, DUKPT: test.dukpt, Message: []byte("m"), Expected: test.said,
					})
					_, verified := a.VerifyMAC(end.ctx, custody.VerifyMAC{
						Key: end.key, Algorithm: test.algorithm, DUKPT: test.dukpt, Message: []byte("m"), MAC: make([]byte, 4), Expected: test.said,
					})
					if !errors.Is(verified, end.want) {
						t.Errorf("%s: the verification ended with %v", end.name, verified)
					}
					return made
				})
				if !errors.Is(err, end.want) {
					t.Errorf("%s: the generation ended with %v", end.name, err)
				}
			}
		})
	}
	var want []string
	for _, test := range tests {
		want = append(want, test.want, test.want, test.want, test.want)
	}
	r.expectAlgorithms(t, want)
}

// TestExpectedTerminalMAC is the same for terminals with a master key.
func TestExpectedTerminalMAC(t *testing.T) {
	r := withKeys(t, newRoom(t, nil))
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	var all []string
	for _, test := range []struct {
		algorithm custody.TerminalAlgorithm
		want      string
	}{
		{custody.X99, "alg1"}, {custody.X919, "alg3"}, {custody.CBCMAC3DES, "alg1"}, {custody.CUPECB, "cup_ecb"}, {custody.CMAC, "cmac_tdes"},
	} {
		t.Run("L-74 "+string(test.algorithm), func(t *testing.T) {
			q := custody.TerminalMAC{TID: "T0000001", Key: "gone", Algorithm: test.algorithm, Message: []byte("m"), Bytes: 8}
			for _, ctx := range []context.Context{gone, t.Context()} {
				err := r.act(t, theSwitch, func(a *custody.Act) error {
					_, made := a.SealTerminal(ctx, q)
					checked := q
					checked.MAC = make([]byte, 8)
					if _, err := a.VerifyTerminalMAC(ctx, checked); err == nil {
						t.Error("a MAC was verified under a key that is not there")
					}
					return made
				})
				if err == nil {
					t.Error("a MAC was made under a key that is not there")
				}
			}
		})
		all = append(all, test.want, test.want, test.want, test.want)
	}
	r.expectAlgorithms(t, all)
}

// expectAlgorithms wants these in the records of MACs, one a record, and nothing
// scrubbed.
func (r *room) expectAlgorithms(t *testing.T, want []string) {
	t.Helper()
	var got []string
	for _, text := range r.records(t, opsLog()) {
		var record struct {
			MAC   struct{ Alg string }
			Scrub []any
		}
		if err := json.Unmarshal([]byte(text), &record); err != nil {
			t.Fatal(err)
		}
		if record.MAC.Alg != "" {
			got = append(got, record.MAC.Alg)
		}
		if record.Scrub != nil {
			t.Errorf("scrubbed: %s", text)
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the algorithms in the records (-want +got):\n%s", diff)
	}
}
