package main

import (
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"

	"keyd.dev/keyd/internal/iso8583"
	"keyd.dev/keyd/internal/sim"
)

// TestCanaries is A-26.T1: after sales of every end, reversals and forgeries, the
// cards, the tracks and the PIN blocks of them stand in no file of keyd's, in no
// metric, in nothing that it printed, and it leaves no core file.
func TestCanaries(t *testing.T) {
	k := newKillable(t)
	k.start()
	issuer := newKillIssuer(t, k)
	issuer.serve(sim.DefaultRules())
	k.linked()
	secrets := make(map[string][]byte)
	for n, tid := range []string{"T0000001", "T0000002"} {
		card := sim.Card{PAN: []string{"4012888888881881", "5105105105105100"}[n], PIN: testPIN}
		spend(t, k, tid, card, secrets)
	}
	metrics := scrape(t, k)
	k.stop()
	issuer.stop()
	for name, value := range secrets {
		t.Run("A-26.T1 R-55 R-07 "+name, func(t *testing.T) {
			for _, n := range needles(value) {
				if len(n.text) < 8 {
					continue // so little is found by chance
				}
				if files := k.holds(string(n.text)); files != nil {
					t.Errorf("stands in %q (%s)", files, n.form)
				}
				if strings.Contains(metrics, string(n.text)) {
					t.Errorf("stands in the metrics (%s)", n.form)
				}
			}
		})
	}
}

// spend makes sales and reversals with a card, and notes what must not be found.
func spend(t *testing.T, k *killable, tid string, card sim.Card, secrets map[string][]byte) {
	t.Helper()
	till, err := newTill(k.dev.Load(), tid, newDice(1), card)
	if err != nil {
		t.Fatal(err)
	}
	defer till.hangUp()
	track := card.PAN + "=30122010000012300"
	secrets["card of "+tid] = []byte(card.PAN)
	if secrets["packed card of "+tid], err = hex.DecodeString(card.PAN); err != nil {
		t.Fatal(err)
	}
	secrets["track of "+tid] = []byte(track)
	for _, amount := range []int64{1000, 1001, 1099, 1097, 1002} {
		sale, err := till.Sale(amount, card, func(b *iso8583.Builder) { b.Set(14, "3012").Set(35, track) })
		if err != nil {
			t.Fatal(err)
		}
		if !sale.Message.Has(52) && !sale.Message.Has(63) {
			t.Fatal("a sale without a PIN: nothing of it could be found")
		}
		for _, de := range []int{52, 63} {
			if sale.Message.Has(de) {
				secrets[fmt.Sprintf("PIN block of %s, %d", tid, amount)] = sale.Message.Bytes(de)
			}
		}
		d := &deal{tid: tid, amount: amount, sale: sale}
		till.deals = append(till.deals, d)
		if !till.exchange(t.Context(), message{deal: d, sent: sale}, till.patience()) {
			t.Fatalf("the sale of %d has no answer", amount)
		}
		switch amount {
		case 1000:
			till.reverse(t.Context(), d)
		case 1002:
			forged, err := till.Reversal(iso8583.ReversalRequest, sale, "", "", nil)
			if err != nil {
				t.Fatal(err)
			}
			forged.Raw[len(forged.Raw)-1] ^= 1
			till.exchange(t.Context(), message{deal: d, sent: forged, forged: "63"}, till.patience())
		}
	}
	for _, fault := range till.faults {
		t.Error(fault)
	}
}

// scrape reads the metrics of the daemon, and looks at its limit of core files.
func scrape(t *testing.T, k *killable) string {
	t.Helper()
	resp, err := http.Get("http://" + k.dev.Load().OpsAddr + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	if err != nil || len(text) < 1000 {
		t.Fatalf("%d bytes of metrics: %v", len(text), err)
	}
	limits, err := os.ReadFile(fmt.Sprintf("/proc/%d/limits", k.proc.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(limits)) {
		if rest, ok := strings.CutPrefix(line, "Max core file size"); ok && strings.Fields(rest)[0] != "0" {
			t.Errorf("the daemon may leave a core file: %s", line)
		}
	}
	return string(text)
}
