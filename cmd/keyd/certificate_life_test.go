package main

import (
	"testing"
	"time"

	"keyd.dev/keyd/internal/credentials"
)

func TestLifeOf(t *testing.T) {
	begin := time.Date(2026, 11, 22, 0, 0, 0, 0, time.UTC)
	life := credentials.Life{Begins: begin, Ends: begin.Add(100 * time.Hour)}
	for _, tt := range []struct {
		name      string
		life      credentials.Life
		after     time.Duration
		renewable bool
		want      string
	}{
		{"C-08 young", life, 49 * time.Hour, false, ""},
		{"C-08 half, Vault away", life, 50 * time.Hour, false, "1/2"},
		{"C-08 half, renewal still to come", life, 50 * time.Hour, true, ""},
		{"C-08 a quarter", life, 75 * time.Hour, true, "1/4"},
		{"C-08 a quarter, Vault away", life, 75 * time.Hour, false, "1/4"},
		{"C-08 a tenth", life, 90 * time.Hour, true, "1/10"},
		{"C-08 over", life, 100 * time.Hour, true, "expired"},
		{"C-08 no certificate of our own", credentials.Life{}, time.Hour, true, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := lifeOf(tt.life, begin.Add(tt.after), tt.renewable); got.name != tt.want {
				t.Errorf("alarm %q, want %q", got.name, tt.want)
			}
		})
	}
}
