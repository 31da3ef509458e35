package api

import (
	"encoding/json"
	"testing"
	"time"
)

func TestAppendEpoch(t *testing.T) {
	for _, c := range []struct {
		ms   int64
		want string
	}{
		{1767225600250, "1767225600.25"},
		{1767225600000, "1767225600"},
		{1767225600001, "1767225600.001"},
		{1767225600010, "1767225600.01"},
		{1767225600100, "1767225600.1"},
		{1767225600999, "1767225600.999"},
		{0, "0"},
	} {
		if got := string(appendEpoch(nil, c.ms)); got != c.want {
			t.Errorf("%d: got %s, want %s", c.ms, got, c.want)
		}
	}
	if got := string(appendTime(nil, "X", time.Time{})); got != "" {
		t.Errorf("a time that is not: got %s", got)
	}
}

func TestAppendString(t *testing.T) {
	for _, text := range []string{"", "alias/zpk-a", `"\/`, "\x00\x1f\x7f\n", "é€😀", "\u2028"} {
		var got string
		if err := json.Unmarshal(appendString(nil, text), &got); err != nil || got != text {
			t.Errorf("%q: got %q, %v", text, got, err)
		}
	}
	if !json.Valid(appendString(nil, "\xff")) {
		t.Error("text that is not UTF-8 makes JSON that is not valid")
	}
}
