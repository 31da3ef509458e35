package api

import (
	"strings"
	"testing"
	"time"
)

func TestNextToken(t *testing.T) {
	now := time.Unix(1767225600, 0)
	p := newPager(0, func() time.Time { return now })
	token := p.token("switch-a", "ListKeys ", "6g1dpp3ele1d02exhhsxvp74f7g7onlp")
	if after, ok := p.after("switch-a", "ListKeys ", []byte(token)); !ok || after != "6g1dpp3ele1d02exhhsxvp74f7g7onlp" {
		t.Fatalf("own token: got %q, %v", after, ok)
	}
	other := newPager(0, p.clock)
	for _, c := range []struct {
		name, principal, query, token string
		pager                         *pager
		later                         time.Duration
	}{
		{"other principal", "switch-b", "ListKeys ", token, &p, 0},
		{"other query", "switch-a", "ListKeys CREATE_COMPLETE", token, &p, 0},
		{"parts moved between principal and query", "switch-aL", "istKeys ", token, &p, 0},
		{"other process", "switch-a", "ListKeys ", token, &other, 0},
		{"expired", "switch-a", "ListKeys ", token, &p, defaultPageLife + time.Second},
		{"first character changed", "switch-a", "ListKeys ", "B" + token[1:], &p, 0},
		{"cut", "switch-a", "ListKeys ", token[:len(token)-1], &p, 0},
		{"longer", "switch-a", "ListKeys ", token + "AA", &p, 0},
		{"empty", "switch-a", "ListKeys ", "", &p, 0},
		{"not base64", "switch-a", "ListKeys ", strings.Repeat("!", 80), &p, 0},
		{"zeros", "switch-a", "ListKeys ", strings.Repeat("A", len(token)), &p, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			was := now
			defer func() { now = was }()
			now = now.Add(c.later)
			if after, ok := c.pager.after(c.principal, c.query, []byte(c.token)); ok {
				t.Errorf("accepted; it goes on after %q", after)
			}
		})
	}
	now = now.Add(defaultPageLife - time.Second)
	if _, ok := p.after("switch-a", "ListKeys ", []byte(token)); !ok {
		t.Error("expired before its time")
	}
}
