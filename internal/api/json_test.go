package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// tree is what a document holds, in the types of encoding/json.
func (d *document) tree(at int32) any {
	n := d.nodes[at]
	switch n.kind {
	case kindFalse, kindTrue:
		return n.kind == kindTrue
	case kindNumber:
		return json.Number(d.bytes(n.text))
	case kindString:
		return string(d.bytes(n.text))
	case kindArray:
		list := []any{}
		for i := at + 1; i < n.next; i = d.nodes[i].next {
			list = append(list, d.tree(i))
		}
		return list
	case kindObject:
		object := map[string]any{}
		for i := at + 1; i < n.next; i = d.nodes[i].next {
			object[string(d.bytes(d.nodes[i].name))] = d.tree(i)
		}
		return object
	}
	return nil
}

func nested(open, inner, end string, depth int) string {
	return strings.Repeat(open, depth) + inner + strings.Repeat(end, depth)
}

func manyMembers(n int, last string) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, `"m%d":%d,`, i, i)
	}
	return "{" + b.String() + `"` + last + `":1}`
}

func TestParse(t *testing.T) {
	for _, c := range []struct {
		name, text string
		want       error
	}{
		{"empty body is an empty object", "", nil},
		{"empty object", "{}", nil},
		{"space everywhere", " \t\r\n{ \"a\" : [ 1 , 2 ] , \"b\" : { } } \n", nil},
		{"every kind", `{"s":"x","n":-0.5e+3,"t":true,"f":false,"z":null,"a":[],"o":{}}`, nil},
		{"escapes", `{"a\u0062":"\"\\\/\b\f\n\r\t\u00e9\ud83d\ude00"}`, nil},
		{"text behind escapes", `{"a":"\n` + strings.Repeat("é", 40) + `"}`, nil},
		{"names that differ in case only", `{"Mac":1,"mac":2}`, nil},
		{"same name in other objects", `{"a":{"x":1},"b":{"x":1},"c":[{"x":1},{"x":1}]}`, nil},
		{"depth 32", nested(`{"a":`, "1", "}", 32), nil},
		{"depth 33", nested(`{"a":`, "1", "}", 33), tooDeep},
		{"lists count for depth", `{"a":` + nested("[", "", "]", 32) + "}", tooDeep},
		{"many members", manyMembers(100, "x"), nil},

		{"name twice", `{"a":1,"a":1}`, nameTwice},
		{"name twice, once escaped", `{"a":1,"\u0061":1}`, nameTwice},
		{"name twice below", `{"a":{"b":[{"c":1,"d":{},"c":2}]}}`, nameTwice},
		{"name twice, once null", `{"a":null,"a":1}`, nameTwice},
		{"name twice among many", manyMembers(100, "m3"), nameTwice},
		{"last name twice at the limit of few", manyMembers(fewMembers, "m0"), nameTwice},

		{"byte order mark", "\xEF\xBB\xBF{}", notJSON},
		{"not UTF-8", "{\"a\":\"\xFF\"}", notUTF8},
		{"UTF-16", "{\x00}\x00", notJSON},
		{"list", "[]", notObject},
		{"text", `"a"`, notObject},
		{"number", "1", notObject},
		{"null", "null", notObject},
		{"only space", " ", notJSON},
		{"two values", "{}{}", notJSON},
		{"text behind", "{} x", notJSON},
		{"comma at the end of an object", `{"a":1,}`, notJSON},
		{"comma at the end of a list", `{"a":[1,]}`, notJSON},
		{"no colon", `{"a" 1}`, notJSON},
		{"no value", `{"a":}`, notJSON},
		{"no name", `{:1}`, notJSON},
		{"name without quotes", `{a:1}`, notJSON},
		{"single quotes", `{'a':1}`, notJSON},
		{"comment", `{/**/}`, notJSON},
		{"open object", `{"a":1`, notJSON},
		{"open list", `{"a":[1`, notJSON},
		{"open string", `{"a":"x`, notJSON},
		{"open string at a backslash", `{"a":"x\`, notJSON},
		{"closed by the other bracket", `{"a":[1}`, notJSON},
		{"zero in front", `{"a":01}`, notJSON},
		{"plus sign", `{"a":+1}`, notJSON},
		{"no digit", `{"a":-}`, notJSON},
		{"no digit behind the point", `{"a":1.}`, notJSON},
		{"no digit in front of the point", `{"a":.5}`, notJSON},
		{"no digit in the exponent", `{"a":1e}`, notJSON},
		{"NaN", `{"a":NaN}`, notJSON},
		{"wrong word", `{"a":trve}`, notJSON},
		{"cut word", `{"a":tru`, notJSON},
		{"control character", "{\"a\":\"\n\"}", notJSON},
		{"control character behind an escape", "{\"a\":\"\\n\n\"}", notJSON},
		{"unknown escape", `{"a":"\x"}`, notJSON},
		{"short escape", `{"a":"\u12"}`, notJSON},
		{"escape with another digit", `{"a":"\u12g4"}`, notJSON},
		{"high surrogate alone", `{"a":"\ud83d"}`, notJSON},
		{"low surrogate alone", `{"a":"\ude00"}`, notJSON},
		{"high surrogate and another", `{"a":"\ud83d\u0041"}`, notJSON},
		{"zero byte", "{\"a\":\x00}", notJSON},
		{"too many values", `{"a":[` + strings.Repeat("1,", mostValues) + "1]}", tooManyParts},
	} {
		t.Run(c.name, func(t *testing.T) {
			var d document
			err := d.parse([]byte(c.text))
			if !errors.Is(err, c.want) || (err == nil) != (c.want == nil) {
				t.Fatalf("got error %v, want %v", err, c.want)
			}
			if err == nil && c.text != "" {
				compareTree(t, &d, c.text)
			}
		})
	}
}

// compareTree holds a document against what encoding/json makes of the same text.
func compareTree(t *testing.T, d *document, text string) {
	t.Helper()
	decoder := json.NewDecoder(strings.NewReader(text))
	decoder.UseNumber()
	var want any
	if err := decoder.Decode(&want); err != nil {
		t.Fatalf("accepted what encoding/json refuses: %v", err)
	}
	if diff := cmp.Diff(want, d.tree(0)); diff != "" {
		t.Errorf("the tree differs from that of encoding/json (-want +got):\n%s", diff)
	}
}

// FuzzParse: no input breaks the parser, and what it accepts encoding/json
// reads in the same way.
func FuzzParse(f *testing.F) {
	for _, e := range loadExamples(f).Examples {
		f.Add([]byte(e.Request))
	}
	f.Add([]byte(`{"a\u0062":"\"\\\/\b\f\n\r\t\u00e9\ud83d\ude00","n":[-0.5e+3,1,true,null]}`))
	f.Add([]byte(nested(`{"a":`, "1", "}", 33)))
	f.Fuzz(func(t *testing.T, text []byte) {
		var d document
		if err := d.parse(bytes.Clone(text)); err != nil {
			var m malformed
			if !errors.As(err, &m) {
				t.Fatalf("error of another type: %v", err)
			}
			return
		}
		if len(text) > 0 {
			compareTree(t, &d, string(text))
		}
	})
}

// FuzzHex: the form reads exactly what is hexadecimal, in either case.
func FuzzHex(f *testing.F) {
	f.Add("00ffFF")
	f.Add("0g")
	f.Fuzz(func(t *testing.T, text string) {
		body, err := json.Marshal(map[string]string{"h": text})
		if err != nil {
			t.Fatal(err)
		}
		var form form
		if err := form.read(body); err != nil {
			t.Fatal(err)
		}
		at, value := form.hexRange(0, "h", required, 2, 64)
		if ok := isHex(text) && len(text) >= 2 && len(text) <= 64; ok != (at >= 0) || ok != (len(form.wrong) == 0) {
			t.Fatalf("hexadecimal: %v, accepted: %v, complaints: %d", ok, at >= 0, len(form.wrong))
		}
		if at >= 0 && !strings.EqualFold(string(appendHex(nil, value)), text) {
			t.Fatal("the value is not that of the text")
		}
	})
}

func isHex(text string) bool {
	return len(text)%2 == 0 && strings.Trim(text, "0123456789abcdefABCDEF") == ""
}

func BenchmarkDecodeTranslate(b *testing.B) {
	var body []byte
	for _, e := range loadExamples(b).Examples {
		if e.ID == "tp-dukpt-tdes" {
			body = e.Request
		}
	}
	h := &Handler{names: namer{local: arnPrefix + DefaultRegion + ":" + DefaultAccount + ":"}}
	c := &call{Handler: h}
	text := make([]byte, len(body))
	b.ReportAllocs()
	for b.Loop() {
		copy(text, body)
		if err := c.form.read(text); err != nil {
			b.Fatal(err)
		}
		in, out := c.pinSide(incoming()), c.pinSide(outgoing())
		if len(c.pinBlock(in.Format)) != 8 || len(c.form.wrong) != 0 || out.Format == 0 {
			b.Fatal("not read")
		}
	}
}
