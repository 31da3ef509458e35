package main

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"time"
)

// flags are those that the daemon of the bench needs.
func (b *bench) flags() []string {
	if b.Profile == "" {
		return nil
	}
	return []string{"--pprof"}
}

// profiled runs the rows while the daemon's processor time is sampled, where
// that was asked for. The profile ends with the last row at the latest.
func (b *bench) profiled(rows func() error) error {
	if b.Profile == "" {
		return rows()
	}
	const most = 5 // rows: four of the API, and sales
	span := min(most*b.Duration*11/10, mostProfile)
	got := make(chan error, 1)
	go func() { got <- b.fetchProfile(max(span, time.Second)) }()
	return errors.Join(rows(), <-got)
}

func (b *bench) fetchProfile(span time.Duration) error {
	resp, err := http.Get(fmt.Sprintf("http://%s/debug/pprof/profile?seconds=%d", b.dev.OpsAddr, span/time.Second))
	if err != nil {
		return fmt.Errorf("profiling the daemon: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("profiling the daemon: %s", resp.Status)
	}
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return fmt.Errorf("profiling the daemon: %w", err)
	}
	return os.WriteFile(b.Profile, text, 0o600)
}
