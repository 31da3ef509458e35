package main

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"keyd.dev/keyd/internal/iso8583"
	"keyd.dev/keyd/internal/profile"
	"keyd.dev/keyd/internal/sim"
)

// frontEnd is a gateway before a switch that answers some messages by itself: a
// weakness that was planted.
type frontEnd struct {
	addr string
	// answer is DE 39 of what the front end answers itself; empty: it passes it on.
	answer func(m *iso8583.Message) string
	closes func(raw []byte) bool // at what it hangs up; nil: at nothing
	behind string                // the switch; empty: that of dev.json
}

// stand begins the front end with the certificate of the issuer, which the
// terminals trust as they do the switch's.
func (f *frontEnd) stand(t *testing.T, dev *devReport) {
	t.Helper()
	pair, err := tls.LoadX509KeyPair(dev.Issuer.Cert, dev.Issuer.Key)
	if err != nil {
		t.Fatal(err)
	}
	listener, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS13})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	f.addr = listener.Addr().String()
	config, err := devTLS(dev, "terminal")
	if err != nil {
		t.Fatal(err)
	}
	behind := cmp.Or(f.behind, dev.SwitchAddr)
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go f.serve(t.Context(), conn, behind, config.Clone())
		}
	}()
}

func (f *frontEnd) serve(ctx context.Context, conn net.Conn, addr string, config *tls.Config) {
	defer func() { _ = conn.Close() }()
	behind, err := (&tls.Dialer{Config: config}).DialContext(ctx, "tcp", addr)
	if err != nil {
		return
	}
	defer func() { _ = behind.Close() }()
	go func() {
		_, _ = io.Copy(conn, behind)
		_ = conn.Close()
	}()
	for {
		raw, err := iso8583.ReadFrame(conn)
		if err != nil {
			return
		}
		if f.closes != nil && f.closes(raw) {
			return
		}
		if m, err := iso8583.ASCII87().Parse(raw, iso8583.SideTerminal); err == nil {
			if code := f.answer(m); code != "" {
				refusal, err := m.Answer("96").Set(37, "000000000001").PackWithoutMAC()
				tid := m.Text(41)
				if err != nil || send(conn, bytes.Replace(refusal, []byte("96"+tid), []byte(code+tid), 1)) != nil {
					return
				}
				continue
			}
		}
		if send(behind, raw) != nil {
			return
		}
	}
}

func send(to io.Writer, raw []byte) error {
	frame, err := iso8583.AppendFrame(nil, raw)
	if err == nil {
		_, err = to.Write(frame)
	}
	return err
}

// TestFraudFindsWeakness: before a switch stands a front end that does what the
// attacks hope for. keyd sim fraud ends with 1 and names them, and no others.
func TestFraudFindsWeakness(t *testing.T) {
	dir := t.TempDir()
	r := startDev(t, dir)
	defer r.stop()
	var seen sync.Map // STANs of sales
	for _, c := range []struct {
		name    string
		front   frontEnd
		only    string
		through []string
	}{
		{"nothing planted", frontEnd{answer: func(*iso8583.Message) string { return "" }}, "A-01,A-04,A-07,A-24", nil},
		{"a reversal without a MAC is approved", frontEnd{answer: func(m *iso8583.Message) string {
			if _, err := m.MAC(); err != nil && m.MTI().Class() == '4' {
				return "00"
			}
			return ""
		}}, "A-01,A-04,A-07,A-24", []string{"A-04.T3", "A-07.T1", "A-07.T2"}},
		{"a repeat needs no valid MAC", frontEnd{answer: func(m *iso8583.Message) string {
			if m.MTI() == iso8583.ReversalRepeat {
				return "00"
			}
			return ""
		}}, "A-01,A-24", []string{"A-24.T1", "A-24.T2", "A-24.T3"}},
		{"the effect comes, and the answer says no", frontEnd{answer: func(m *iso8583.Message) string {
			if m.MTI() != iso8583.FinancialRequest {
				return ""
			}
			if _, again := seen.LoadOrStore(m.Text(11), true); again {
				return "94"
			}
			return ""
		}}, "A-01.T1", []string{"A-01.T1"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.front.stand(t, &r.dev)
			var out, errs bytes.Buffer
			code := run(t.Context(), []string{"sim", "fraud", "--dir", dir, "--switch", c.front.addr, "--only", c.only, "--json"}, strings.NewReader(""), &out, &errs)
			var through []string
			for line := range strings.Lines(out.String()) {
				var f sim.Finding
				if err := json.Unmarshal([]byte(line), &f); err != nil {
					t.Fatal(err)
				}
				switch f.Verdict {
				case sim.FraudThrough:
					through = append(through, f.Test)
				case sim.FraudFailed:
					t.Errorf("%s could not be carried out: %s", f.Test, f.Stopped)
				}
			}
			want := exitDone
			if len(c.through) > 0 {
				want = exitFailed
			}
			if code != want || strings.Join(through, " ") != strings.Join(c.through, " ") {
				t.Errorf("status %d, got through %v; want %d, %v\n%s%s", code, through, want, c.through, &out, &errs)
			}
			for _, id := range c.through {
				if !strings.Contains(errs.String(), id) {
					t.Errorf("%s is not named:\n%s", id, &errs)
				}
			}
		})
	}
}

// fraudOf runs attacks and returns the exit code and what was found, by the test.
func fraudOf(t *testing.T, args ...string) (code int, found map[string]sim.Finding, said string) {
	t.Helper()
	var out, errs bytes.Buffer
	code = run(t.Context(), append([]string{"sim", "fraud", "--json"}, args...), strings.NewReader(""), &out, &errs)
	found = make(map[string]sim.Finding)
	for line := range strings.Lines(out.String()) {
		var f sim.Finding
		if err := json.Unmarshal([]byte(line), &f); err != nil {
			t.Fatal(err)
		}
		found[f.Test] = f
	}
	return code, found, out.String() + errs.String()
}

// masterFiles writes the file of a UnionPay test terminal behind an address.
func masterFiles(t *testing.T, dir, addr string, dev *devReport) (terminal string) {
	t.Helper()
	fixed, err := dev.terminal(fraudMaster)
	if err != nil {
		t.Fatal(err)
	}
	home := t.TempDir()
	key := filepath.Join(home, "tmk.hex")
	terminal = filepath.Join(home, "terminal.toml")
	text := fmt.Sprintf("addr = %q\nca = %q\ncert = %q\nkey = %q\ntid = %q\nmid = %q\nscheme = \"tmk\"\nkey_file = %q\nsign_in = \"004\"\ncurrency = \"156\"\n",
		addr, filepath.Join(dir, "pki/ca.pem"), filepath.Join(dir, "pki/terminal.pem"), filepath.Join(dir, "pki/terminal.key"), fixed.TID, fixed.MID, key)
	for name, text := range map[string]string{terminal: text, key: dev.TestKeys[fixed.TMK] + "\n"} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return terminal
}

// TestFraudLinearProvesNothing A-08.T2: before the switch of a UnionPay terminal
// stands a front end that hangs up at every forged 0400. None was approved; but no
// comparison refused one either, and keyd sim fraud says so and ends with 1.
func TestFraudLinearProvesNothing(t *testing.T) {
	dir := t.TempDir()
	r := startDev(t, dir, "--unionpay")
	defer r.stop()
	speaks, err := profile.Find(unionPay)
	if err != nil {
		t.Fatal(err)
	}
	var sold atomic.Value // DE 4 of the sale
	front := frontEnd{behind: r.dev.UnionPay, closes: func(raw []byte) bool {
		m, err := speaks.Dialect.Parse(raw, iso8583.SideTerminal)
		if err != nil {
			return true
		}
		if m.MTI() == iso8583.FinancialRequest {
			sold.Store(m.Text(4))
		}
		return m.MTI() == iso8583.ReversalRequest && m.Text(4) != sold.Load()
	}}
	front.stand(t, &r.dev)
	code, found, said := fraudOf(t, "--terminal", masterFiles(t, dir, front.addr, &r.dev), "--state", t.TempDir(), "--only", "A-08.T2")
	if f := found["A-08.T2"]; code != exitFailed || f.Verdict != sim.FraudFailed || !strings.Contains(f.Stopped, "closed") {
		t.Errorf("status %d, %+v; want it to fail, for the link was closed\n%s", code, f, said)
	}
}

// TestFraudCardsNothingSearched A-26.T1: where there is no database, or the metrics
// are none, nothing was searched.
func TestFraudCardsNothingSearched(t *testing.T) {
	const card = "4000001234567899"
	for _, c := range []struct {
		name, database, metrics string
		status                  int
		want                    string
	}{
		{"all is there", "sealed", "keyd_sales 1", http.StatusOK, ""},
		{"no database", "", "keyd_sales 1", http.StatusOK, "keyd.db"},
		{"no metrics", "sealed", "not here", http.StatusNotFound, "404"},
		{"metrics that fail", "sealed", "", http.StatusInternalServerError, "500"},
		{"the card in the database", "x" + card, "keyd_sales 1", http.StatusOK, errGotThrough.Error()},
		{"the card in the metrics", "sealed", card, http.StatusOK, errGotThrough.Error()},
	} {
		t.Run(c.name, func(t *testing.T) {
			ops := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.WriteHeader(c.status)
				_, _ = io.WriteString(w, c.metrics)
			}))
			defer ops.Close()
			dir := t.TempDir()
			if c.database != "" {
				if err := os.WriteFile(filepath.Join(dir, "keyd.db"), []byte(c.database), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			lab := &fraudLab{dir: dir, dev: &devReport{OpsAddr: strings.TrimPrefix(ops.URL, "http://"), AuditDir: t.TempDir()}}
			lab.Card = card
			var found sim.Finding
			err := lab.searchCards(t.Context(), &found)
			if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v; want %q", err, c.want)
			}
			if (err == nil) != (len(found.Seen) == 1) {
				t.Errorf("seen %v", found.Seen)
			}
		})
	}
}

// TestFraudCardsNeedSale A-26.T1: a switch that takes no sale has no card to keep, so
// that it is nowhere proves nothing.
func TestFraudCardsNeedSale(t *testing.T) {
	dir := t.TempDir()
	r := startDev(t, dir)
	defer r.stop()
	front := frontEnd{answer: func(m *iso8583.Message) string {
		if m.MTI() == iso8583.FinancialRequest {
			return "91"
		}
		return ""
	}}
	front.stand(t, &r.dev)
	code, found, said := fraudOf(t, "--dir", dir, "--switch", front.addr, "--only", "A-26.T1")
	if f := found["A-26.T1"]; code != exitFailed || f.Verdict != sim.FraudFailed {
		t.Errorf("status %d, %+v; want it to fail without a sale\n%s", code, f, said)
	}
	code, found, said = fraudOf(t, "--dir", dir, "--only", "A-26.T1")
	if f := found["A-26.T1"]; code != exitDone || f.Verdict != sim.FraudRefused {
		t.Errorf("status %d, %+v; want it to be refused after a sale\n%s", code, f, said)
	}
}

// TestFraudFindsLateReversal A-12.T1: the second reversal of a replayed 0400 comes to
// the issuer when the attack is over, during the next.
func TestFraudFindsLateReversal(t *testing.T) {
	dir := t.TempDir()
	r := startDev(t, dir)
	defer r.stop()
	var mu sync.Mutex
	var first string // STAN of the first sale
	planted := false
	front := frontEnd{answer: func(m *iso8583.Message) string {
		mu.Lock()
		defer mu.Unlock()
		switch stan := m.Text(11); {
		case m.MTI() != iso8583.FinancialRequest:
		case first == "":
			first = stan
		case stan != first && !planted:
			planted = true
			if err := reversedAgain(r.dev.Issuer.Book, first); err != nil {
				t.Error(err)
			}
		}
		return ""
	}}
	front.stand(t, &r.dev)
	code, found, said := fraudOf(t, "--dir", dir, "--switch", front.addr, "--only", "A-12.T1,A-13.T1")
	if a, b := found["A-12.T1"], found["A-13.T1"]; code != exitFailed || a.Verdict != sim.FraudThrough || b.Verdict != sim.FraudRefused {
		t.Errorf("status %d; want A-12.T1 alone to have got through\n%s", code, said)
	}
}

// reversedAgain writes a second number of a reversal of a terminal's sale, the last of
// the book that was reversed, as its issuer would.
func reversedAgain(book, stan string) error {
	all, err := sim.ReadBook(book)
	if err != nil {
		return err
	}
	for _, e := range slices.Backward(all) {
		if e.TID != fraudVictim || e.Effective == 0 {
			continue
		}
		e.Received, e.Named = e.Received+1, append(e.Named, "1122150000-"+stan)
		line, err := json.Marshal(e)
		if err != nil {
			return err
		}
		file, err := os.OpenFile(book, os.O_APPEND|os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		_, err = file.Write(append(line, '\n'))
		return errors.Join(err, file.Close())
	}
	return errors.New("no reversed sale in the book")
}
