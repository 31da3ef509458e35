package main

import (
	"bytes"
	"encoding/json"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestAuditKill is L-191 on the daemon: it is killed while many connections of the
// API are at work, and each request that it answered is in its log afterwards,
// which it opened by itself. KEYD_AUDIT_DAEMON_KILLS makes it longer.
func TestAuditKill(t *testing.T) {
	rounds := int(setting(t, "KEYD_AUDIT_DAEMON_KILLS", 3))
	seed := setting(t, "KEYD_KILL_SEED", randomSeed(t))
	t.Logf("KEYD_AUDIT_DAEMON_KILLS=%d KEYD_KILL_SEED=%d", rounds, seed)
	dice := newDice(seed)
	k := newKillable(t)
	answered := make(map[string]bool)
	for round := range rounds {
		k.start()
		before := len(answered)
		k.callUntilKilled(dice, answered)
		if err := k.verify(t.Context()); err != nil {
			t.Errorf("L-191 round %d: before recovery: %v", round, err)
		}
		if len(answered) == before {
			t.Errorf("round %d: nothing was answered", round)
		}
	}
	k.start()
	if err := k.verify(t.Context()); err != nil {
		t.Errorf("L-191 after recovery: %v", err)
	}
	recorded := k.recordedCorr("mac.generate")
	for corr := range answered {
		if !recorded[corr] {
			t.Errorf("L-13: request %s was answered and is not in the log", corr)
		}
	}
	t.Logf("%d requests were answered, none lost", len(answered))
	k.stop()
	k.healthy()
}

// callUntilKilled has sixteen connections ask for MACs, kills the daemon, and notes
// the ids of the requests that were answered.
func (k *killable) callUntilKilled(dice *dice, answered map[string]bool) {
	k.t.Helper()
	config, err := devTLS(k.dev.Load(), "switch")
	if err != nil {
		k.t.Fatal(err)
	}
	url := k.dev.Load().APIURL + "/mac/generate"
	var work sync.WaitGroup
	var mu sync.Mutex
	before := len(answered)
	for range 16 {
		work.Go(func() {
			client := http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{TLSClientConfig: config.Clone()}}
			defer client.CloseIdleConnections()
			for {
				resp, err := client.Post(url, "application/json", strings.NewReader(crowdMAC))
				if err != nil {
					return // killed
				}
				_ = resp.Body.Close()
				if resp.StatusCode == http.StatusOK {
					mu.Lock()
					answered[resp.Header.Get("X-Amzn-Requestid")] = true
					mu.Unlock()
				}
			}
		})
	}
	wait(k.t.Context(), dice.between(200*time.Millisecond, 1500*time.Millisecond))
	for end := time.Now().Add(killableStop); time.Now().Before(end); wait(k.t.Context(), 10*time.Millisecond) {
		mu.Lock()
		n := len(answered)
		mu.Unlock()
		if n > before {
			break
		}
	}
	k.kill()
	work.Wait()
}

// recordedCorr are the request ids of an action in the log.
func (k *killable) recordedCorr(action string) map[string]bool {
	k.t.Helper()
	out, err := keydCommand(k.t.Context(), "audit", "ls", "--dir", filepath.Join(k.dir, "audit"), "--action", action, "--limit", "0", "--json").Output()
	if err != nil {
		k.t.Fatalf("keyd audit ls: %v", err)
	}
	all := make(map[string]bool)
	for line := range bytes.Lines(out) {
		var r struct{ Corr string }
		if err := json.Unmarshal(line, &r); err != nil {
			k.t.Fatal(err)
		}
		all[r.Corr] = true
	}
	return all
}
