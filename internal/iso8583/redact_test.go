package iso8583

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
)

// secrets returns what may not stand in any log, as itself and in the forms
// that fmt gives bytes.
func secrets() []string {
	var out []string
	for _, s := range []string{testPAN, testTrack, testPIN} {
		decimal := strings.Trim(fmt.Sprint([]byte(s)), "[]")
		out = append(out, s, fmt.Sprintf("%x", s), fmt.Sprintf("%X", s), decimal)
	}
	return out
}

func TestRedaction(t *testing.T) {
	d := ASCII87()
	f := sample("0200", SideTerminal)
	m, err := d.Parse(wire("0200", f), SideTerminal)
	if err != nil {
		t.Fatal(err)
	}
	b := build(d, "0200", SideTerminal, f)
	u, err := b.Pack()
	if err != nil {
		t.Fatal(err)
	}
	_, ferr := d.Parse(wire("0200", f.with(fields{49: "EUR"})), SideTerminal)
	var fe *FormatError
	if !errors.As(ferr, &fe) {
		t.Fatal(ferr)
	}
	values := map[string]any{
		"*Message": m, "Message": *m, "[]*Message": []*Message{m}, "*Builder": b, "Builder": *b,
		"Unsealed": u, "*Unsealed": &u, "*FormatError": fe, "FormatError": *fe,
		"struct": struct{ M *Message }{m}, "struct of a copy": struct{ M Message }{*m},
	}
	for name, v := range values {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%o", "%c", "%U"} {
			t.Run(name+" "+verb, func(t *testing.T) { wantNoSecret(t, fmt.Sprintf(verb, v)) })
		}
		t.Run(name+" JSON and slog", func(t *testing.T) {
			var log bytes.Buffer
			slog.New(slog.NewJSONHandler(&log, nil)).Info("message", "m", v)
			slog.New(slog.NewTextHandler(&log, nil)).Info("message", "m", v)
			wantNoSecret(t, log.String())
			text, err := json.Marshal(v)
			if err != nil {
				t.Fatal(err)
			}
			wantNoSecret(t, string(text))
		})
	}
	t.Run("what is printed", func(t *testing.T) {
		if got, want := m.String(), `0200 stan=000001 tid="T0000001"`; got != want {
			t.Errorf("got %s, want %s", got, want)
		}
		var log bytes.Buffer
		slog.New(slog.NewTextHandler(&log, nil)).Info("in", "m", m)
		if want := "m.mti=0200 m.stan=000001 m.tid=T0000001"; !strings.Contains(log.String(), want) {
			t.Errorf("log %s lacks %s", log.String(), want)
		}
	})
}

func wantNoSecret(t *testing.T, text string) {
	t.Helper()
	for i, s := range secrets() {
		if strings.Contains(text, s) {
			t.Errorf("secret %d is printed", i)
		}
	}
}

// TestErrorsHoldNoContent puts a marker into every field and looks for it in
// the error.
func TestErrorsHoldNoContent(t *testing.T) {
	d := ASCII87()
	raw := wire("0200", sample("0200", SideTerminal))
	for i := 20; i < len(raw); i++ {
		bad := bytes.Clone(raw)
		bad[i] = '#'
		if _, err := d.Parse(bad, SideTerminal); err != nil {
			if text := err.Error(); strings.Contains(text, "#") || strings.Contains(text, testPAN[:6]) {
				t.Errorf("byte %d: content in %q", i, text)
			}
		}
	}
}
