package sim

import (
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"keyd.dev/keyd/internal/iso8583"
)

// served is an issuer at work on a connection, with the end of it that a switch has.
type served struct {
	*Issuer
	switchEnd net.Conn
}

// serving has an issuer serve a connection, by the given steps.
func serving(t *testing.T, steps ...Step) served {
	t.Helper()
	i, err := NewIssuer(IssuerConfig{
		TLS: &tls.Config{}, Log: slog.New(slog.DiscardHandler), Script: &Script{Steps: steps, Plain: true},
		PINKey: "606162636465666768696A6B6C6D6E6F", MACKey: "505152535455565758595A5B5C5D5E5F",
	})
	if err != nil {
		t.Fatal(err)
	}
	ours, theirs := net.Pipe()
	ended := make(chan struct{})
	go func() { i.serve(t.Context(), ours); close(ended) }()
	t.Cleanup(func() { _ = theirs.Close(); <-ended })
	return served{i, theirs}
}

// echoes are the frames of echo tests with the given STANs, one behind the other.
func (s served) echoes(t *testing.T, stans ...int) (frames []byte) {
	t.Helper()
	for _, n := range stans {
		raw, err := s.keys.all()[0].seal(s.dialect.Build(iso8583.NetworkRequest, iso8583.SideUpstream).
			Set(7, "1122093000").Set(11, fmt.Sprintf("%06d", n)).Set(41, "KEYD0001").Set(42, "KEYD00000000001").Set(70, "301"), false)
		if err == nil {
			frames, err = iso8583.AppendFrame(frames, raw)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return frames
}

// written is what one write of the issuer holds: the STANs of the answers.
func (s served) written(t *testing.T) (stans []string) {
	t.Helper()
	b := make([]byte, 1<<16)
	n, err := s.switchEnd.Read(b)
	if err != nil {
		t.Fatal(err)
	}
	for b = b[:n]; len(b) > 0; {
		size := 2 + int(b[0])<<8 + int(b[1])
		m, err := s.dialect.Parse(b[2:size], iso8583.SideUpstream)
		if err != nil {
			t.Fatal(err)
		}
		stans, b = append(stans, m.Text(11)), b[size:]
	}
	return stans
}

func (s served) write(t *testing.T, b []byte) {
	t.Helper()
	if _, err := s.switchEnd.Write(b); err != nil {
		t.Error(err)
	}
}

// Requests that come together are answered together, and none waits for what has
// not come whole.
func TestIssuerAnswersTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := serving(t)
		three, fourth := s.echoes(t, 1, 2, 3), s.echoes(t, 4)
		for _, cut := range []int{0, 1, 2, len(fourth) - 1} {
			s.write(t, append(three[:len(three):len(three)], fourth[:cut]...))
			if diff := cmp.Diff([]string{"000001", "000002", "000003"}, s.written(t)); diff != "" {
				t.Errorf("answers while %d bytes of the next request are there (-want +got):\n%s", cut, diff)
			}
			s.write(t, fourth[cut:])
			if diff := cmp.Diff([]string{"000004"}, s.written(t)); diff != "" {
				t.Errorf("the answer to the next request, after %d bytes of it (-want +got):\n%s", cut, diff)
			}
		}
	})
}

// An answer that is to come later holds up none that came with it.
func TestIssuerDelayHoldsUpNone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := serving(t, Step{STAN: "2", Chance: certainty, Do: Rule{Code: "00", Delay: time.Minute}})
		start := time.Now()
		s.write(t, s.echoes(t, 1, 2, 3))
		if diff := cmp.Diff([]string{"000001", "000003"}, s.written(t)); diff != "" {
			t.Errorf("prompt answers (-want +got):\n%s", diff)
		}
		if took := time.Since(start); took != 0 {
			t.Errorf("the prompt answers took %v", took)
		}
		if diff := cmp.Diff([]string{"000002"}, s.written(t)); diff != "" {
			t.Errorf("the late answer (-want +got):\n%s", diff)
		}
		if took := time.Since(start); took != time.Minute {
			t.Errorf("the late answer took %v, want a minute", took)
		}
	})
}

// What was answered before a request that makes the issuer hang up still leaves.
func TestIssuerAnswersBeforeItHangsUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := serving(t, Step{STAN: "2", Chance: certainty, Do: Rule{Code: "00", Close: true}})
		s.write(t, s.echoes(t, 1, 2, 3))
		if diff := cmp.Diff([]string{"000001"}, s.written(t)); diff != "" {
			t.Errorf("answers (-want +got):\n%s", diff)
		}
		if n, err := s.switchEnd.Read(make([]byte, 1)); err == nil {
			t.Errorf("%d bytes more after the issuer hung up", n)
		}
	})
}
