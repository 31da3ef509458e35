package api_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"unicode/utf8"
)

// model is a trimmed service model of testdata: the reference for answers.
type model struct {
	Operations map[string]struct {
		HTTP   struct{ RequestURI string }
		Output struct{ Shape string }
		Errors []struct{ Shape string }
	}
	Shapes map[string]shape
}

// models are those of the two planes, read once.
var models = sync.OnceValues(func() (map[string]*model, error) {
	both := make(map[string]*model)
	for _, plane := range []string{"data", "control"} {
		raw, err := os.ReadFile("testdata/model-" + plane + ".json")
		if err != nil {
			return nil, err
		}
		both[plane] = new(model)
		if err := json.Unmarshal(raw, both[plane]); err != nil {
			return nil, err
		}
		if len(both[plane].Operations) == 0 {
			return nil, errors.New("the model has no operations")
		}
	}
	return both, nil
})

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
	both, err := models()
	if err != nil {
		tb.Fatal(err)
	}
	return both[plane]
}

// checkOutput holds the body of a success against the operation's output.
func (m *model) checkOutput(tb testing.TB, operation string, body []byte) {
	tb.Helper()
	for _, wrong := range m.outputFaults(operation, body) {
		tb.Errorf("%s against the model: %s", operation, wrong)
	}
}

// outputFaults says what is wrong with the body of a success.
func (m *model) outputFaults(operation string, body []byte) []string {
	op, ok := m.Operations[operation]
	if !ok {
		return []string{"no such operation"}
	}
	if op.Output.Shape == "" {
		return []string{"the operation has no output"}
	}
	return m.bodyFaults(op.Output.Shape, body)
}

// checkError holds the body of an error against the model's structure of it.
func (m *model) checkError(tb testing.TB, body []byte) {
	tb.Helper()
	for _, wrong := range m.errorFaults(body) {
		tb.Errorf("against the model: %s", wrong)
	}
}

// errorFaults says what is wrong with the body of an error. Names that the model
// does not have are looked at for what every error has.
func (m *model) errorFaults(body []byte) []string {
	var v map[string]json.RawMessage
	if err := json.Unmarshal(body, &v); err != nil {
		return []string{"the error is not a JSON object"}
	}
	var name, message string
	if json.Unmarshal(v["__type"], &name) != nil || json.Unmarshal(v["Message"], &message) != nil || name == "" || message == "" {
		return []string{"an error without __type or Message"}
	}
	s, known := m.Shapes[name]
	if !known {
		return nil
	}
	delete(v, "__type")
	if _, has := s.Members["Message"]; !has {
		delete(v, "Message") // which every error carries besides
	}
	rest, err := json.Marshal(v)
	if err != nil {
		return []string{err.Error()}
	}
	return m.bodyFaults(name, rest)
}

// bodyFaults says where a body is not of the shape.
func (m *model) bodyFaults(name string, body []byte) []string {
	decoder := json.NewDecoder(bytes.NewReader(body))
	decoder.UseNumber()
	var v any
	if err := decoder.Decode(&v); err != nil {
		return []string{err.Error()}
	}
	return m.faults(name, v, name)
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
