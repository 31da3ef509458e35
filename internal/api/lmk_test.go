package api_test

import (
	"net/http"
	"strings"
	"testing"

	"keyd.dev/keyd/internal/custody"
)

// masters lets the local master key of a bench be changed.
func masters(cfg *custody.Config) {
	cfg.Masters, cfg.LMKStore = cfg.Maker.(custody.MasterKeys), cfg.Store.(custody.LMKStore)
}

func TestLMKOperations(t *testing.T) {
	b := newBench(t, masters)
	const challenge = `"Challenge":"000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"`
	tests := []struct {
		name, client, operation, body string
		status                        int
		says                          string
	}{
		{"status", "auditor", "GetLMK", `{}`, 200, `{"Generations":[{"Generation":1,"KeyCheckValue":"`},
		{"proof", "operator", "GetLMK", `{` + challenge + `}`, 200, `"Proof":{"Generation":1,"Answer":"`},
		{"wrong answer", "operator", "GetLMK", `{` + challenge + `,"Answer":"00112233445566778899AABBCCDDEEFF","Generation":1}`, 200, `"Proof":{"Generation":1,"Same":false}`},
		{"generation that is not there", "operator", "GetLMK", `{` + challenge + `,"Generation":4}`, 400, "the token does not hold local master key 4"},
		{"short challenge", "operator", "GetLMK", `{"Challenge":"00"}`, 400, "Challenge must be 64 hexadecimal characters"},
		{"challenge that is no hex", "operator", "GetLMK", `{"Challenge":"` + strings.Repeat("zz", 32) + `"}`, 400, "Challenge must be 64 hexadecimal characters"},
		{"answer alone", "operator", "GetLMK", `{"Answer":"00112233445566778899AABBCCDDEEFF"}`, 400, "Challenge is needed beside Answer"},
		{"long answer", "operator", "GetLMK", `{` + challenge + `,"Answer":"00112233445566778899AABBCCDDEEFF00"}`, 400, "Answer must be 32 hexadecimal characters"},
		{"generation 0", "operator", "GetLMK", `{"Generation":0}`, 400, "Generation must be a whole number from 1"},
		{"status denied", "switch-a", "GetLMK", `{}`, 400, "AccessDeniedException"},
		{"re-wrap", "admin", "RewrapKeys", `{}`, 200, `"KeysMoved":0,"KeysRefused":0,"RefusedNamed":[]`},
		{"re-wrap denied", "auditor", "RewrapKeys", `{}`, 400, "AccessDeniedException"},
		{"retire the newest", "admin", "RetireLMK", `{"Generation":1}`, 400, "ConflictException"},
		{"retire nothing", "admin", "RetireLMK", `{}`, 400, "Generation is required"},
		{"retire what never was", "admin", "RetireLMK", `{"Generation":9}`, 400, "there is no local master key 9"},
		{"retire denied", "custodian", "RetireLMK", `{"Generation":1}`, 400, "AccessDeniedException"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got := b.own(t, b.client(t, test.client), test.operation, test.body)
			if got.status != test.status || !strings.Contains(string(got.body), test.says) {
				t.Errorf("status %d, want %d and %q: %s", got.status, test.status, test.says, got.body)
			}
		})
	}
}

// TestLMKProof: what one daemon answers, the other takes, and only that.
func TestLMKProof(t *testing.T) {
	b := newBench(t, masters)
	ask := func(body string) map[string]any {
		t.Helper()
		got := b.own(t, b.client(t, "operator"), "GetLMK", body)
		if got.status != http.StatusOK {
			t.Fatalf("status %d: %s", got.status, got.body)
		}
		return got.json(t)["Proof"].(map[string]any)
	}
	challenge := strings.Repeat("A5", 32)
	answer := ask(`{"Challenge":"` + challenge + `"}`)["Answer"].(string)
	for name, test := range map[string]struct {
		challenge, answer string
		same              bool
	}{
		"right":             {challenge, answer, true},
		"in lower case":     {strings.ToLower(challenge), strings.ToLower(answer), true},
		"another challenge": {strings.Repeat("A6", 32), answer, false},
		"another answer":    {challenge, strings.Repeat("00", 16), false},
	} {
		proof := ask(`{"Challenge":"` + test.challenge + `","Answer":"` + test.answer + `"}`)
		if proof["Same"] != test.same || proof["Answer"] != nil {
			t.Errorf("%s: %v, want %t and no answer", name, proof, test.same)
		}
	}
}
