package main

import (
	"encoding/json"
	"testing"
	"time"

	"keyd.dev/keyd/internal/iso8583"
	"keyd.dev/keyd/internal/sim"
)

// TestReversalSummary (L-81): what a client's reversals were refused stands in the
// log of the node with its exact number and reasons, also where a flood shares
// records with forged sales, and when the daemon stops before its minute is over.
func TestReversalSummary(t *testing.T) {
	k := newKillable(t)
	k.start()
	dev := k.dev.Load()
	const links, batches, batch = 3, 4, 100
	for n := range links {
		link, reversal, sale := forgedLink(t, dev, n)
		for range batches {
			for range batch {
				mustSend(t, link, reversal)
			}
			mustSend(t, link, sale)
			for range batch + 1 {
				mustRefuse(t, link)
			}
		}
		if err := link.Close(); err != nil {
			t.Fatal(err)
		}
	}
	k.stop()
	actsIn(t, dev.AuditDir)

	var summed, reasons, alone, shared int64
	(&crowd{k: k}).records(t, func(action string, raw []byte) {
		var r struct {
			ISO   struct{ MTI string }
			Count struct {
				N    int64
				Peer string
				By   []struct{ N int64 }
			}
		}
		if err := json.Unmarshal(raw, &r); err != nil {
			t.Fatal(err)
		}
		switch action {
		case "reversal.refuse":
			alone++
		case "refuse.aggregate":
			shared += r.Count.N
		case "reversal.summary":
			if r.Count.Peer != "terminal" {
				t.Errorf("a summary of %q", r.Count.Peer)
			}
			summed += r.Count.N
			for _, by := range r.Count.By {
				reasons += by.N
			}
		}
	})
	if want := int64(links * batches * batch); summed != want || reasons != want {
		t.Errorf("%d refused reversals in summaries, %d by their reasons, want %d", summed, reasons, want)
	}
	if alone == 0 || shared == 0 || alone >= summed {
		t.Errorf("%d alone, %d in shared records: the flood was none", alone, shared)
	}
}

// forgedLink connects a terminal of its own, with a reversal and a sale of which the
// MAC is wrong.
func forgedLink(t *testing.T, dev *devReport, n int) (link *sim.Link, reversal, sale []byte) {
	t.Helper()
	fixed := dev.Terminals[3+n]
	terminal, err := sim.NewTerminal(sim.TerminalConfig{TID: fixed.TID, MID: fixed.MID, BDK: dev.TestKeys[fixed.BDK], KSN: fixed.KSN}, 0)
	if err != nil {
		t.Fatal(err)
	}
	sold, err := terminal.Sale(1000, sim.Card{PAN: demoPANTDES}, nil)
	if err != nil {
		t.Fatal(err)
	}
	undone, err := terminal.Reversal(iso8583.ReversalRequest, sold, "", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, sent := range []*sim.Sent{sold, undone} {
		last := len(sent.Raw) - 1
		sent.Raw[last] = "10"[min(1, sent.Raw[last]&1)]
	}
	config, err := devTLS(dev, "terminal")
	if err != nil {
		t.Fatal(err)
	}
	link, err = sim.Dial(t.Context(), dev.SwitchAddr, config, 30*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	return link, undone.Raw, sold.Raw
}

func mustSend(t *testing.T, link *sim.Link, raw []byte) {
	t.Helper()
	if err := link.Send(raw); err != nil {
		t.Fatal(err)
	}
}

func mustRefuse(t *testing.T, link *sim.Link) {
	t.Helper()
	raw, err := link.Receive()
	if err != nil {
		t.Fatal(err)
	}
	m, err := iso8583.ASCII87().Parse(raw, iso8583.SideTerminal)
	if err != nil {
		t.Fatal(err)
	}
	if m.Text(39) == "00" {
		t.Fatal("a forgery was approved")
	}
}
