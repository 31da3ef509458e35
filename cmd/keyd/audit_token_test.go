package main

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"keyd.dev/keyd/internal/logindex"
)

// TestL105ReadCard: one card number on standard input, and no error that repeats
// a digit of what is none.
func TestL105ReadCard(t *testing.T) {
	tests := []struct{ name, in, want string }{
		{"digits", "4111111111111111", "4111111111111111"},
		{"with a newline", "4111111111111111\n", "4111111111111111"},
		{"with a newline of Windows", "4111111111111111\r\n", "4111111111111111"},
		{"in groups", "4111 1111 1111 1111\n", "4111111111111111"},
		{"with dashes", "4111-1111-1111-1111", "4111111111111111"},
		{"nothing", "", ""},
		{"an empty line", "\n", ""},
		{"too short", "4111111\n", ""},
		{"too long", "41111111111111111111\n", ""},
		{"two lines", "4111111111111111\n4111111111111111\n", ""},
		{"a track", "4111111111111111=2512101", ""},
		{"more than a line", strings.Repeat("4111111111111111 ", 9), ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := readCard(strings.NewReader(tt.in))
			if string(got) != tt.want || (err == nil) != (tt.want != "") {
				t.Fatalf("readCard = %d digits, %v", len(got), err)
			}
			if err != nil && strings.Contains(err.Error(), "4111") {
				t.Error("the error repeats what was read")
			}
		})
	}
}

// TestL104BothTokens: while the key of the tokens changes, a card is found under
// either.
func TestL104BothTokens(t *testing.T) {
	card := func(token string) logindex.Term { return logindex.Term{Kind: logindex.Card, Value: token} }
	other := []logindex.Term{{Kind: logindex.RRN, Value: "1"}}
	got := orTokens([][]logindex.Term{other, {card("k2:new")}}, "k2:new", []string{"k1:old"})
	want := [][]logindex.Term{other, {card("k2:new"), card("k1:old")}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// FuzzAuditFiles: whatever a daemon answers, it is files or an error.
func FuzzAuditFiles(f *testing.F) {
	f.Add([]byte("\x01\x00\x00\x00\x01x\x00\x00\x00\x00\x00"), 2)
	f.Add([]byte("\x01\xff\xff\xff\xff"), 1)
	f.Add([]byte("\x00\x00\x00\x00\x01x"), 1)
	f.Fuzz(func(t *testing.T, answer []byte, n int) {
		if n < 1 || n > 32 {
			return
		}
		files, err := readFiles(strings.NewReader(string(answer)), n)
		if err != nil {
			return
		}
		total := 5 * n
		for _, file := range files {
			total += len(file)
		}
		if len(files) != n || total != len(answer) {
			t.Fatalf("%d files with %d bytes from an answer of %d", len(files), total, len(answer))
		}
	})
}
