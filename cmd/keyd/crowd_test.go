package main

import (
	"encoding/json"
	"net/http"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"keyd.dev/keyd/audit"
)

// records reads all records of a daemon that has ended.
func (c *crowd) records(t *testing.T, see func(action string, raw []byte)) {
	t.Helper()
	reader, err := audit.OpenReader(filepath.Join(c.k.dir, "audit"))
	if err != nil {
		t.Fatal(err)
	}
	logs, err := reader.Logs()
	if err != nil {
		t.Fatal(err)
	}
	for _, log := range logs {
		for entry, err := range reader.Records(log, 0) {
			if err != nil {
				t.Fatal(err)
			}
			var r struct{ Action string }
			if err := json.Unmarshal(entry.Raw, &r); err != nil {
				t.Fatal(err)
			}
			see(r.Action, entry.Raw)
		}
	}
}

// TestManyConnections: a thousand connections that are idle and two hundred that
// are busy, together; no call fails, and the idle ones serve afterwards.
func TestManyConnections(t *testing.T) {
	const idle, busy, rounds = 1000, 200, 10
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	if limit.Cur < 2*(idle+busy)+200 {
		t.Fatalf("this test needs %d file descriptors, and may open %d: raise ulimit -n", 2*(idle+busy)+200, limit.Cur)
	}
	c := newCrowd(t, nil, "")
	quiet := c.many(t, "switch", idle)
	var calls atomic.Int64
	var work sync.WaitGroup
	for _, one := range c.many(t, floodClient, busy) {
		work.Go(func() {
			for range rounds {
				if status, answer, err := one.call("/mac/generate", "", "", crowdMAC); err != nil || status != http.StatusOK {
					t.Errorf("a busy connection: %d %s, %v", status, answer, err)
					return
				}
				calls.Add(1)
			}
		})
	}
	work.Wait()
	for i, one := range quiet {
		if i%10 != 0 {
			continue
		}
		if status, answer, err := one.call("/mac/generate", "", "", crowdMAC); err != nil || status != http.StatusOK {
			t.Errorf("an idle connection: %d %s, %v", status, answer, err)
		}
	}
	if calls.Load() != busy*rounds {
		t.Errorf("%d calls of %d", calls.Load(), busy*rounds)
	}
	c.k.stop()
}

// many makes connections of one client, a few at a time, and a call on each: who
// never says anything is let go after some seconds.
func (c *crowd) many(t *testing.T, client string, n int) []*caller {
	t.Helper()
	config := c.as(t, client)
	all := make([]*caller, n)
	var work sync.WaitGroup
	for from := range 16 {
		work.Go(func() {
			for i := from; i < n; i += 16 {
				one, err := c.dial(config)
				if err == nil {
					all[i] = one
					_, _, err = one.call("/", awsTarget+"ListKeys", "", `{"MaxResults":1}`)
				}
				if err != nil {
					t.Errorf("connection %d of %s: %v", i, client, err)
					return
				}
			}
		})
	}
	work.Wait()
	t.Cleanup(func() {
		for _, one := range all {
			if one != nil {
				_ = one.conn.Close()
			}
		}
	})
	if t.Failed() {
		t.FailNow()
	}
	return all
}
