package secret_test

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/gob"
	"encoding/hex"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	html "html/template"
	"io"
	"log"
	"log/slog"
	"strings"
	"testing"
	"text/template"

	"github.com/pelletier/go-toml/v2"

	"keyd.dev/keyd/internal/secret"
)

type embedding struct{ secret.Bytes }

// holders are the places in which a secret can come to whoever prints or
// encodes: as itself, behind pointers, in fields that are exported and not, in
// lists, arrays, maps and interfaces.
func holders(t *testing.T) map[string]any {
	t.Helper()
	s := secret.From([]byte(canary))
	within := secret.Within([]byte(canary))
	// The schedule of AES begins with the key itself.
	c, err := secret.NewAES([]byte(canary + "-0123"))
	if err != nil {
		t.Fatal(err)
	}
	pointer := &s
	type exported struct {
		Key     secret.Bytes
		Pointer *secret.Bytes
		Cipher  secret.Cipher
	}
	type hidden struct {
		key     secret.Bytes
		pointer *secret.Bytes
		cipher  secret.Cipher
		any     any
		array   [1]secret.Bytes
	}
	type deep struct {
		Outer  exported
		inner  hidden
		anyone any
	}
	e, h := exported{s, &s, c}, hidden{s, &s, c, s, [1]secret.Bytes{s}}
	return map[string]any{
		"value": s, "pointer": &s, "pointer to pointer": &pointer, "within": within,
		"cipher": c, "pointer to a cipher": &c,
		"exported fields": e, "pointer to exported fields": &e, "hidden fields": h, "pointer to hidden fields": &h,
		"deep": deep{e, h, h}, "pointer to deep": &deep{e, h, &h}, "embedded": embedding{s}, "pointer to embedded": &embedding{s},
		"slice": []secret.Bytes{s}, "slice of pointers": []*secret.Bytes{&s}, "array": [2]secret.Bytes{s, s}, "anything": []any{s, &s, c},
		"map value": map[string]secret.Bytes{"k": s}, "map key": map[secret.Bytes]int{s: 1}, "map of hidden": map[string]hidden{"k": h},
		"error": fmt.Errorf("working: %w", errors.New(s.String())), "attribute": slog.Any("key", s),
	}
}

// TestEveryVerb prints each holder with each letter as the verb, and each flag.
func TestEveryVerb(t *testing.T) {
	tried := 0
	for name, v := range holders(t) {
		for verb := byte('A'); verb <= 'z'; verb++ {
			if verb > 'Z' && verb < 'a' {
				continue
			}
			for _, flags := range []string{"", "+", "#", " ", "+#", "30", ".3"} {
				format := "%" + flags + string(verb)
				tried++
				if leaks(fmt.Sprintf(format, v)) {
					t.Errorf("C-14 %s of %s shows the secret", format, name)
				}
			}
		}
		if leaks(fmt.Errorf("%v %w", v, io.EOF).Error()) || leaks(fmt.Sprintf("%*v %[1]v", 20, v)) || leaks(fmt.Sprint(v)) || leaks(fmt.Sprintln(v)) || leaks(string(fmt.Append(nil, v))) {
			t.Errorf("C-14 Print of %s shows the secret", name)
		}
	}
	if tried < 5_000 {
		t.Errorf("only %d forms were tried", tried)
	}
}

// TestEveryEncoder gives each holder to each way in which a value gets out of a
// program. That an encoder fails is as good as the placeholder.
func TestEveryEncoder(t *testing.T) {
	encoders := map[string]func(io.Writer, any) error{
		"json": func(w io.Writer, v any) error { return json.NewEncoder(w).Encode(v) },
		"json indented": func(w io.Writer, v any) error {
			b, err := json.MarshalIndent(v, "", " ")
			_, _ = w.Write(b)
			return err
		},
		"xml":       func(w io.Writer, v any) error { return xml.NewEncoder(w).Encode(v) },
		"gob":       func(w io.Writer, v any) error { return gob.NewEncoder(w).Encode(v) },
		"toml":      func(w io.Writer, v any) error { return toml.NewEncoder(w).Encode(v) },
		"binary":    func(w io.Writer, v any) error { return binary.Write(w, binary.BigEndian, v) },
		"slog text": func(w io.Writer, v any) error { slog.New(slog.NewTextHandler(w, nil)).Info("x", "v", v); return nil },
		"slog json": func(w io.Writer, v any) error { slog.New(slog.NewJSONHandler(w, nil)).Info("x", "v", v); return nil },
		"slog group": func(w io.Writer, v any) error {
			slog.New(slog.NewJSONHandler(w, nil)).WithGroup("g").With("a", v).Info("x", slog.Group("h", slog.Any("v", v)))
			return nil
		},
		"log":   func(w io.Writer, v any) error { log.New(w, "", 0).Printf("%v %+v %#v", v, v, v); return nil },
		"panic": func(w io.Writer, v any) (err error) { defer func() { fmt.Fprint(w, recover()) }(); panic(v) },
		"template": func(w io.Writer, v any) error {
			return template.Must(template.New("").Parse(`{{.}} {{printf "%#v" .}} {{html .}} {{js .}} {{urlquery .}}`)).Execute(w, v)
		},
		"html template": func(w io.Writer, v any) error {
			return html.Must(html.New("").Parse(`<a href="{{.}}">{{.}}</a><script>var x = {{.}}</script>`)).Execute(w, v)
		},
		"range": func(w io.Writer, v any) error {
			return template.Must(template.New("").Parse(`{{range $k, $v := .}}{{$k}}{{$v}}{{end}}`)).Execute(w, v)
		},
		"fields": func(w io.Writer, v any) error {
			return template.Must(template.New("").Parse(`{{.Key}}{{.Outer.Key}}{{.Cipher}}`)).Execute(w, v)
		},
	}
	for encoder, encode := range encoders {
		shown := 0
		for name, v := range holders(t) {
			var out bytes.Buffer
			err := encode(&out, v)
			text := out.String()
			if err != nil {
				text += err.Error()
			}
			if leaks(text) || leaks(decoded(text)) {
				t.Errorf("C-14 %s of %s shows the secret", encoder, name)
			}
			if strings.Contains(text, secret.Placeholder) {
				shown++
			}
		}
		t.Logf("%s: %d holders with the placeholder", encoder, shown)
	}
}

// decoded is text with what looks like base64 or hexadecimal undone.
func decoded(text string) string {
	var out strings.Builder
	for _, word := range strings.FieldsFunc(text, func(r rune) bool { return strings.ContainsRune(` "'<>{}[](),:;`, r) }) {
		if b, err := base64.StdEncoding.DecodeString(word); err == nil {
			out.Write(b)
		}
		if b, err := hex.DecodeString(strings.TrimPrefix(word, "0x")); err == nil {
			out.Write(b)
		}
	}
	return out.String()
}

// TestNothingReadsASecret: no decoder fills a secret, by the placeholder say.
func TestNothingReadsASecret(t *testing.T) {
	type document struct{ Key secret.Bytes }
	for name, read := range map[string]func(*document) error{
		"json": func(d *document) error { return json.Unmarshal([]byte(`{"Key":"[secret]"}`), d) },
		"toml": func(d *document) error { return toml.Unmarshal([]byte("Key = \"[secret]\""), d) },
		"xml":  func(d *document) error { return xml.Unmarshal([]byte("<document><Key>[secret]</Key></document>"), d) },
	} {
		var d document
		if err := read(&d); d.Key.Len() > 0 {
			t.Errorf("C-14 %s filled a secret: %v", name, err)
		}
	}
}

func TestWithin(t *testing.T) {
	memory := []byte(canary)
	s := secret.Within(memory)
	if !s.Equal(secret.From([]byte(canary))) {
		t.Error("the secret does not hold the bytes")
	}
	s.Clear()
	if !bytes.Equal(memory, make([]byte, len(canary))) {
		t.Error("C-14 the memory still holds the secret")
	}
}
