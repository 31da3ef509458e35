package main

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"keyd.dev/keyd/internal/iso8583"
	"keyd.dev/keyd/internal/sim"
)

// TestSeller: a seller sends what it has prepared and then what it makes, each
// message once, and judges the answers in the end: these are the sales themselves,
// whose MACs are no answer's.
func TestSeller(t *testing.T) {
	at, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = at.Close() }()
	seen := make(chan string, 10)
	go func() {
		conn, err := at.Accept()
		if err != nil {
			return
		}
		for {
			raw, err := iso8583.ReadFrame(conn)
			if err != nil {
				close(seen)
				return
			}
			seen <- string(raw)
			frame, err := iso8583.AppendFrame(nil, raw)
			if err != nil {
				t.Error(err)
			}
			if _, err := conn.Write(frame); err != nil {
				t.Error(err)
			}
		}
	}()
	bdk := make([]byte, 16)
	if _, err := rand.Read(bdk); err != nil {
		t.Fatal(err)
	}
	terminal, err := sim.NewTerminal(sim.TerminalConfig{TID: "T0000001", MID: "M00000000000001", BDK: hex.EncodeToString(bdk), KSN: "FFFF9876543210E00001"}, 0)
	if err != nil {
		t.Fatal(err)
	}
	link, err := sim.Dial(t.Context(), at.Addr().String(), nil, 10*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	w, err := newSeller(terminal, link, 2)
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if err := w.op(); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.end(); !errors.Is(err, sim.ErrAnswer) {
		t.Errorf("the end says %v, want %v", err, sim.ErrAnswer)
	}
	sales := map[string]bool{}
	for raw := range seen {
		sales[raw] = true
	}
	if len(sales) != 3 {
		t.Errorf("%d different sales came, want 3", len(sales))
	}
	if err := w.op(); !errors.Is(err, net.ErrClosed) && !errors.Is(err, io.EOF) {
		t.Errorf("a sale by a closed link: %v", err)
	}
}

// TestSaleStock: enough for the fastest switch, and bounded.
func TestSaleStock(t *testing.T) {
	for length, want := range map[time.Duration]int{100 * time.Millisecond: 12, 5 * time.Second: 551, time.Hour: 1501} {
		if got := saleStock(length, 40); got != want {
			t.Errorf("%d for %v, want %d", got, length, want)
		}
	}
}
