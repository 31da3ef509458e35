package api_test

import (
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

// model is a trimmed service model of testdata: the reference for answers.
type model struct {
	Operations map[string]struct {
		Output struct{ Shape string }
		Errors []struct{ Shape string }
	}
	Shapes map[string]shape
}

type shape struct {
	Type     string
	Union    bool
	Required []string
	Members  map[string]struct{ Shape string }
	Member   struct{ Shape string }
	Key      struct{ Shape string }
	Value    struct{ Shape string }
	Min, Max *int
	Pattern  string
	Enum     []string
}

func loadModel(tb testing.TB, plane string) *model {
	tb.Helper()
	raw, err := os.ReadFile("testdata/model-" + plane + ".json")
	if err != nil {
		tb.Fatal(err)
	}
	m := new(model)
	if err := json.Unmarshal(raw, m); err != nil {
		tb.Fatal(err)
	}
	if len(m.Operations) == 0 {
		tb.Fatal("the model has no operations")
	}
	return m
}

// checkOutput holds the body of a success against the operation's output.
func (m *model) checkOutput(tb testing.TB, operation string, body []byte) {
	tb.Helper()
	m.check(tb, m.Operations[operation].Output.Shape, body)
}

// checkError holds the body of an error against the model's structure of it.
// Names that the model does not have are checked for what every error has.
func (m *model) checkError(tb testing.TB, body []byte) {
	tb.Helper()
	var v map[string]json.RawMessage
	if err := json.Unmarshal(body, &v); err != nil {
		tb.Fatalf("the error is not a JSON object: %v", err)
	}
	var name, message string
	if json.Unmarshal(v["__type"], &name) != nil || json.Unmarshal(v["Message"], &message) != nil || name == "" || message == "" {
		tb.Fatal("an error without __type or Message")
	}
	s, known := m.Shapes[name]
	if !known {
		return
	}
	delete(v, "__type")
	if _, has := s.Members["Message"]; !has {
		delete(v, "Message") // which every error carries besides
	}
	rest, err := json.Marshal(v)
	if err != nil {
		tb.Fatal(err)
	}
	m.check(tb, name, rest)
}

func (m *model) check(tb testing.TB, name string, body []byte) {
	tb.Helper()
	decoder := json.NewDecoder(strings.NewReader(string(body)))
	decoder.UseNumber()
	var v any
	if err := decoder.Decode(&v); err != nil {
		tb.Fatalf("%v", err)
	}
	for _, wrong := range m.faults(name, v, name) {
		tb.Errorf("against the model: %s", wrong)
	}
}

// faults says where a value is not of the shape.
func (m *model) faults(name string, v any, path string) []string {
	s, ok := m.Shapes[name]
	if !ok {
		return []string{path + ": no shape " + name}
	}
	switch s.Type {
	case "structure":
		return m.structureFaults(s, v, path)
	case "list":
		list, ok := v.([]any)
		if !ok || !within(len(list), s) {
			return []string{path + ": not a list of that length"}
		}
		var wrong []string
		for i, each := range list {
			wrong = append(wrong, m.faults(s.Member.Shape, each, fmt.Sprintf("%s[%d]", path, i))...)
		}
		return wrong
	case "string":
		return stringFaults(s, v, path)
	case "boolean":
		if _, ok := v.(bool); !ok {
			return []string{path + ": not a boolean"}
		}
	case "integer":
		n, ok := v.(json.Number)
		if i, err := n.Int64(); !ok || err != nil || !within(int(i), s) {
			return []string{path + ": not an integer in range"}
		}
	case "timestamp":
		n, ok := v.(json.Number)
		if !ok || !regexp.MustCompile(`^[0-9]+(\.[0-9]{1,3})?$`).MatchString(n.String()) {
			return []string{path + ": not a number of seconds with at most three decimals"}
		}
	default:
		return []string{path + ": type " + s.Type + " is not checked"}
	}
	return nil
}

func (m *model) structureFaults(s shape, v any, path string) []string {
	object, ok := v.(map[string]any)
	if !ok {
		return []string{path + ": not an object"}
	}
	var wrong []string
	for _, name := range s.Required {
		if _, has := object[name]; !has {
			wrong = append(wrong, path+"."+name+": missing")
		}
	}
	for name, each := range object {
		member, known := s.Members[name]
		switch {
		case !known:
			wrong = append(wrong, path+"."+name+": not in the model")
		case each == nil || each == "":
			wrong = append(wrong, path+"."+name+": without a value")
		default:
			wrong = append(wrong, m.faults(member.Shape, each, path+"."+name)...)
		}
	}
	if s.Union && len(object) != 1 {
		wrong = append(wrong, path+": a union with other than one member")
	}
	return wrong
}

func stringFaults(s shape, v any, path string) []string {
	text, ok := v.(string)
	switch {
	case !ok:
		return []string{path + ": not a string"}
	case !within(utf8.RuneCountInString(text), s):
		return []string{path + ": length out of range"}
	case s.Pattern != "" && !regexp.MustCompile(`^(?:`+s.Pattern+`)$`).MatchString(text):
		return []string{path + ": not of the pattern"}
	case len(s.Enum) > 0 && !slices.Contains(s.Enum, text):
		return []string{path + ": not one of the values"}
	}
	return nil
}

func within(n int, s shape) bool {
	return (s.Min == nil || n >= *s.Min) && (s.Max == nil || n <= *s.Max)
}

// TestModelCheck: the check itself finds what is wrong.
func TestModelCheck(t *testing.T) {
	data, control := loadModel(t, "data"), loadModel(t, "control")
	const arn = `"arn:aws:payment-cryptography:xx-keyd-1:000000000000:key/6g1dpp3ele1d02exhhsxvp74f7g7onlp"`
	for _, c := range []struct {
		name   string
		m      *model
		shape  string
		text   string
		faults int
	}{
		{"good", data, "VerifyMacOutput", `{"KeyArn":` + arn + `,"KeyCheckValue":"08D7B4"}`, 0},
		{"missing member", data, "VerifyMacOutput", `{"KeyArn":` + arn + `}`, 1},
		{"null", data, "VerifyMacOutput", `{"KeyArn":` + arn + `,"KeyCheckValue":null}`, 1},
		{"member of another name", data, "VerifyMacOutput", `{"KeyArn":` + arn + `,"KeyCheckValue":"08D7B4","Mac":"00"}`, 1},
		{"short ARN", data, "VerifyMacOutput", `{"KeyArn":"arn:aws:payment-cryptography:xx-keyd-1:000000000000:key/abc","KeyCheckValue":"08D7B4"}`, 1},
		{"not hexadecimal", data, "VerifyMacOutput", `{"KeyArn":` + arn + `,"KeyCheckValue":"xyzxyz"}`, 1},
		{"text for a list", control, "ListKeysOutput", `{"Keys":""}`, 1},
		{"text for a timestamp", control, "Key", `{"CreateTimestamp":"2026-01-01T00:00:00Z"}`, 9},
		{"four decimals", control, "Timestamp", `1.2345`, 1},
		{"three decimals", control, "Timestamp", `1.234`, 0},
		{"unknown value", control, "KeyState", `"GONE"`, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			decoder := json.NewDecoder(strings.NewReader(c.text))
			decoder.UseNumber()
			var v any
			if err := decoder.Decode(&v); err != nil {
				t.Fatal(err)
			}
			if got := c.m.faults(c.shape, v, c.shape); len(got) != c.faults {
				t.Errorf("got %d faults, want %d: %v", len(got), c.faults, got)
			}
		})
	}
}
