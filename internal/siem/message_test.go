package siem

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// examplePEN is the number that is for examples only (RFC 5612).
const examplePEN = 32473

// records are those of the specification's examples and one of each action.
func records(t testing.TB) [][]byte {
	t.Helper()
	var all [][]byte
	for _, name := range []string{"examples.jsonl", "actions.jsonl"} {
		text, err := os.ReadFile(filepath.Join("..", "..", "audit", "testdata", name))
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, bytes.Split(bytes.TrimSpace(text), []byte("\n"))...)
	}
	return all
}

func formatter(t testing.TB) *Formatter {
	t.Helper()
	f, err := NewFormatter(examplePEN, DefaultFacility)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// TestMessage: L-162: the message of the specification's first example, by hand.
func TestMessage(t *testing.T) {
	record := records(t)[1]
	got, _, err := formatter(t).AppendRecord(nil, record)
	if err != nil {
		t.Fatal(err)
	}
	want := `<108>1 2026-11-21T22:34:06.004211Z n1 keyd 5f1d0c9a7b3e2468 reversal.refuse ` +
		`[keyd@32473 log="ops-2026-11" seq="73901" id="01a2003e-cf34-7473-9e3a-265e16eee03f"] ` + "\ufeff" + string(record)
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Error(diff)
	}
}

// TestMessageOfEachAction: L-162: for a record of every action the header is what
// the standard's grammar wants and says what the record says, the severity is
// that of the outcome or the alarm, and the record's bytes travel unchanged
// (L-160).
func TestMessageOfEachAction(t *testing.T) {
	header := regexp.MustCompile(`^<(\d{1,3})>1 (\S{1,64}) (\S{1,255}) (\S{1,48}) (\S{1,128}) (\S{1,32}) \[keyd@32473 log="([^"\\\]]+)" seq="(\d+)" id="([^"\\\]]+)"\] `)
	for _, record := range records(t) {
		message, head, err := formatter(t).AppendRecord(nil, record)
		if err != nil {
			t.Fatalf("%.60s: %v", record, err)
		}
		m := header.FindStringSubmatch(string(message))
		if m == nil {
			t.Fatalf("not a message of RFC 5424: %.200s", message)
		}
		var r struct {
			Log, ID, TS, Node, Boot, Action, Outcome string
			Seq                                      uint64
			Alarm                                    struct{ Level string }
		}
		if err := json.Unmarshal(record, &r); err != nil {
			t.Fatal(err)
		}
		severity := map[string]int{"": 6, "ok": 6, "refused": 4, "error": 3, "unknown": 2}[r.Outcome]
		if r.Alarm.Level == "warn" {
			severity = min(severity, 4)
		}
		if r.Alarm.Level == "critical" {
			severity = 1
		}
		want := []string{fmt.Sprint(13*8 + severity), r.TS, r.Node, "keyd", r.Boot, r.Action, r.Log, fmt.Sprint(r.Seq), r.ID}
		if diff := cmp.Diff(want, m[1:]); diff != "" {
			t.Errorf("%s (-want +got):\n%s", r.Action, diff)
		}
		if rest := string(message[len(m[0]):]); rest != "\ufeff"+string(record) {
			t.Errorf("%s: what follows the header is not the mark and the record's bytes", r.Action)
		}
		if diff := cmp.Diff(Head{Log: r.Log, Seq: r.Seq, ID: r.ID, Time: r.TS, Node: r.Node, Boot: r.Boot, Action: r.Action, Outcome: r.Outcome, AlarmLevel: r.Alarm.Level}, head); diff != "" {
			t.Errorf("%s: head (-want +got):\n%s", r.Action, diff)
		}
	}
}

const noteExample = "audit.example/n1/sec\n3\nDjC/DnbNh0JKVtLl6cdrQKKPb9scQA8VKFKawT0kkH8=\n\n— audit.example/n1/sec yGGOIgSsdIjHNfFj0iEN2v9njzHuNkkHhiA0dTt3WbMXJegQi2VuWpu/vmxrzQFfRqw3clBpWODHh8NYv3q05rCcDwI=\n"

// TestCheckpointMessage: L-163: a checkpoint is one line, from which the signed
// note comes out as it was published.
func TestCheckpointMessage(t *testing.T) {
	at := time.Date(2026, 11, 22, 1, 2, 3, 4000, time.UTC)
	got, err := formatter(t).AppendCheckpoint(nil, Checkpoint{Log: "sec", Note: []byte(noteExample), At: at, Node: "n1", Boot: "5f1d0c9a7b3e2468"})
	if err != nil {
		t.Fatal(err)
	}
	head, body, ok := strings.Cut(string(got), "\ufeff")
	if want := `<110>1 2026-11-22T01:02:03.000004Z n1 keyd 5f1d0c9a7b3e2468 checkpoint [keyd@32473 log="sec" size="3"] `; !ok || head != want {
		t.Errorf("header %q, want %q", head, want)
	}
	if strings.Contains(string(got), "\n") {
		t.Error("the message has several lines")
	}
	var c checkpointBody
	if err := json.Unmarshal([]byte(body), &c); err != nil || c.Checkpoint != noteExample || c.Log != "sec" {
		t.Errorf("the note came out as %q, %v", c.Checkpoint, err)
	}
}

// TestFormatterRefuses: L-162: the enterprise number has no default, a facility
// is one of the standard's, and what is no record or no checkpoint is not sent.
func TestFormatterRefuses(t *testing.T) {
	for _, c := range []struct{ pen, facility int }{{0, 13}, {-1, 13}, {1 << 32, 13}, {examplePEN, 24}, {examplePEN, -1}} {
		if _, err := NewFormatter(c.pen, c.facility); !errors.Is(err, ErrConfig) {
			t.Errorf("number %d, facility %d: %v", c.pen, c.facility, err)
		}
	}
	good := string(records(t)[0])
	for name, record := range map[string]string{
		"empty":              "",
		"no object":          `[1]`,
		"white space":        " " + good,
		"cut":                good[:len(good)-1],
		"trailing":           good + "}",
		"no seq":             strings.Replace(good, `"seq":`, `"sec":`, 1),
		"negative seq":       strings.Replace(good, `"seq":7`, `"seq":-7`, 1),
		"quote in the id":    strings.Replace(good, `"id":"01a2003e`, `"id":"01a2\"03e`, 1),
		"bracket in the id":  strings.Replace(good, `"id":"01a2003e`, `"id":"01a2]03e`, 1),
		"space in the node":  strings.Replace(good, `"node":"n1"`, `"node":"n 1"`, 1),
		"newline in the log": strings.Replace(good, `"log":"ops`, "\"log\":\"\nops", 1),
		"long action":        strings.Replace(good, `"pin.translate"`, `"`+strings.Repeat("a", 33)+`"`, 1),
	} {
		if record == good {
			t.Fatalf("%s changes nothing", name)
		}
		if got, _, err := formatter(t).AppendRecord(nil, []byte(record)); !errors.Is(err, ErrFormat) || len(got) != 0 {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, note := range map[string]string{
		"unsigned": strings.SplitAfter(noteExample, "\n\n")[0], "no size": strings.Replace(noteExample, "\n3\n", "\n-3\n", 1),
		"short root": strings.Replace(noteExample, "DjC/", "", 1), "four lines": strings.Replace(noteExample, "\n3\n", "\n3\n3\n", 1),
	} {
		if _, err := formatter(t).AppendCheckpoint(nil, Checkpoint{Log: "sec", Note: []byte(note)}); !errors.Is(err, ErrFormat) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := formatter(t).AppendCheckpoint(nil, Checkpoint{Log: `s"c`, Note: []byte(noteExample)}); !errors.Is(err, ErrFormat) {
		t.Errorf("log with a quote: %v", err)
	}
}

// TestFrame: RFC 5425, section 4.3: the length counts octets.
func TestFrame(t *testing.T) {
	if got := string(AppendFrame([]byte("x"), []byte("\ufeffab"))); got != "x5 \ufeffab" {
		t.Errorf("%q", got)
	}
}

// FuzzParseHead: no record brings it down, and what it accepts can stand in a
// header.
func FuzzParseHead(f *testing.F) {
	for _, record := range records(f) {
		f.Add(record)
	}
	f.Fuzz(func(t *testing.T, record []byte) {
		h, err := ParseHead(record)
		if err != nil {
			return
		}
		for _, s := range []string{h.Log, h.ID, h.Time, h.Node, h.Boot, h.Action} {
			if !plain(s) {
				t.Errorf("%q cannot stand in a header", s)
			}
		}
	})
}

func BenchmarkAppendRecord(b *testing.B) {
	f, record, dst := formatter(b), records(b)[0], []byte(nil)
	for b.Loop() {
		dst, _, _ = f.AppendRecord(dst[:0], record)
	}
}
