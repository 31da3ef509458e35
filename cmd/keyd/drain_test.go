package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// made is one CreateKey under load, and what came of it.
type made struct {
	invocation string
	answered   bool
	arn        string
}

const createCMAC = `{"Exportable":false,` + aKeyType + `}`

// TestStopUnderLoad stops a daemon in the middle of requests of both planes.
// Each of them has a whole answer, whose record is in the log, or none and no
// effect; a CreateKey that has none is repeated after the next start, with the
// same invocation id, and there is one key.
func TestStopUnderLoad(t *testing.T) {
	for _, hard := range []bool{false, true} {
		name := "in order"
		if hard {
			name = "a second signal"
		}
		t.Run(name, func(t *testing.T) { stopUnderLoad(t, hard) })
	}
}

func stopUnderLoad(t *testing.T, hard bool) {
	c := newCrowd(t, nil, "")
	before := c.keys(t)
	var mu sync.Mutex
	var creations []made
	macs := make(map[string]bool) // request ids of answers
	var work sync.WaitGroup
	for i := range 8 {
		one, err := c.dial(c.as(t, "admin"))
		if err != nil {
			t.Fatal(err)
		}
		work.Go(func() {
			defer one.conn.Close()
			for n := 0; ; n++ {
				m := made{invocation: fmt.Sprintf("stop-%d-%d", i, n)}
				status, answer, err := one.call("/", awsTarget+"CreateKey", m.invocation, createCMAC)
				if err == nil && status == http.StatusOK {
					m.answered, m.arn = true, keyARN(t, answer)
				}
				mu.Lock()
				creations = append(creations, m)
				mu.Unlock()
				if err != nil || status == http.StatusServiceUnavailable {
					return
				}
			}
		})
	}
	for range 16 {
		one, err := c.dial(c.as(t, "switch"))
		if err != nil {
			t.Fatal(err)
		}
		work.Go(func() {
			defer one.conn.Close()
			for {
				id, err := one.request(crowdMAC)
				if err != nil {
					return
				}
				mu.Lock()
				macs[id] = true
				mu.Unlock()
			}
		})
	}
	c.k.await("there is work", 30*time.Second, func() bool {
		mu.Lock()
		defer mu.Unlock()
		return len(creations) > 40 && len(macs) > 100
	})
	if hard {
		c.endTwice(t)
	} else {
		c.k.stop()
	}
	work.Wait()
	t.Logf("%d keys asked for, %d MACs answered", len(creations), len(macs))
	c.recorded(t, macs, creations)

	c.k.start()
	one, err := c.dial(c.as(t, "admin"))
	if err != nil {
		t.Fatal(err)
	}
	defer one.conn.Close()
	open := 0
	for i, m := range creations {
		status, answer, err := one.call("/", awsTarget+"CreateKey", m.invocation, createCMAC)
		if err != nil || status != http.StatusOK {
			t.Fatalf("a repeat after the start: %d %s, %v", status, answer, err)
		}
		if arn := keyARN(t, answer); m.answered && arn != m.arn {
			t.Errorf("%s was answered %s, its repeat %s", m.invocation, m.arn, arn)
		}
		if !creations[i].answered {
			open++
		}
	}
	if got := c.keys(t) - before; got != len(creations) {
		t.Errorf("%d keys for %d calls of CreateKey, %d of which had no answer", got, len(creations), open)
	}
	c.k.stop()
	c.k.healthy()
}

// request asks for a MAC and returns the request id of a whole answer.
func (c *caller) request(body string) (id string, err error) {
	if err := c.conn.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		return "", err
	}
	head := fmt.Sprintf("POST /mac/generate HTTP/1.1\r\nHost: keyd\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n", len(body))
	if _, err := c.conn.Write([]byte(head + body)); err != nil {
		return "", err
	}
	response, err := http.ReadResponse(c.in, nil)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	var answer struct{ Mac string }
	if err := json.NewDecoder(response.Body).Decode(&answer); err != nil {
		return "", err
	}
	if response.StatusCode != http.StatusOK || answer.Mac == "" {
		return "", errors.New(response.Status)
	}
	return response.Header.Get("x-amzn-RequestId"), nil
}

func keyARN(t *testing.T, answer string) string {
	t.Helper()
	var out struct{ Key struct{ KeyArn string } }
	if err := json.Unmarshal([]byte(answer), &out); err != nil || out.Key.KeyArn == "" {
		t.Errorf("half an answer: %s", answer)
	}
	return out.Key.KeyArn
}

// endTwice sends two signals, as an operator who does not want to wait.
func (c *crowd) endTwice(t *testing.T) {
	t.Helper()
	if err := c.k.proc.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	c.k.await("it stops", 10*time.Second, func() bool { return strings.Contains(c.k.output(), `"msg":"stopping"`) || !c.k.alive() })
	_ = c.k.proc.Process.Signal(syscall.SIGTERM) // it may be gone already
	select {
	case <-c.k.ended:
	case <-time.After(10 * time.Second):
		t.Error("two signals did not end the daemon")
		c.k.kill()
	}
}

// recorded looks for the records of what was answered.
func (c *crowd) recorded(t *testing.T, macs map[string]bool, creations []made) {
	t.Helper()
	missing := len(macs)
	created := make(map[string]bool)
	c.records(t, func(action string, raw []byte) {
		var r struct {
			Corr, Outcome, Phase string
			Change               struct{ Object string }
		}
		if err := json.Unmarshal(raw, &r); err != nil {
			t.Fatal(err)
		}
		if action == "mac.generate" && macs[r.Corr] && r.Outcome == "ok" {
			missing--
		}
		if action == "key.create" && r.Outcome == "ok" {
			created[r.Change.Object] = true
		}
	})
	if missing != 0 {
		t.Errorf("%d of %d MACs that were answered have no record", missing, len(macs))
	}
	for _, m := range creations {
		if m.answered && !created[m.arn[strings.LastIndexByte(m.arn, '/')+1:]] {
			t.Errorf("%s was answered and has no record", m.arn)
		}
	}
}

// keys counts the keys there are.
func (c *crowd) keys(t *testing.T) int {
	t.Helper()
	one, err := c.dial(c.as(t, "admin"))
	if err != nil {
		t.Fatal(err)
	}
	defer one.conn.Close()
	var all []string
	for next := ""; ; {
		body := `{"MaxResults":100}`
		if next != "" {
			body = fmt.Sprintf(`{"MaxResults":100,"NextToken":%q}`, next)
		}
		status, answer, err := one.call("/", awsTarget+"ListKeys", "", body)
		if err != nil || status != http.StatusOK {
			t.Fatalf("ListKeys: %d %s, %v", status, answer, err)
		}
		var page struct {
			Keys      []struct{ KeyArn string }
			NextToken string
		}
		if err := json.Unmarshal([]byte(answer), &page); err != nil {
			t.Fatal(err)
		}
		for _, k := range page.Keys {
			all = append(all, k.KeyArn)
		}
		if next = page.NextToken; next == "" {
			break
		}
	}
	slices.Sort(all)
	return len(slices.Compact(all))
}

// TestDrainGrace: a node that stops says first that it is not ready, and takes
// requests until the grace is over.
func TestDrainGrace(t *testing.T) {
	c := newCrowd(t, map[string]string{"drain_grace": "'2s'"}, "")
	one, err := c.dial(c.as(t, "switch"))
	if err != nil {
		t.Fatal(err)
	}
	defer one.conn.Close()
	if err := c.k.proc.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	c.k.await("it says that it is not ready", 10*time.Second, func() bool {
		report, err := c.k.readiness()
		return err == nil && !report.Ready
	})
	if status, answer, err := one.call("/mac/generate", "", "", crowdMAC); err != nil || status != http.StatusOK {
		t.Errorf("in the grace: %d %s, %v", status, answer, err)
	}
	fresh, err := c.dial(c.as(t, "switch"))
	if err != nil {
		t.Fatalf("a new connection in the grace: %v", err)
	}
	defer fresh.conn.Close()
	if status, answer, err := fresh.call("/mac/generate", "", "", crowdMAC); err != nil || status != http.StatusOK {
		t.Errorf("a new connection in the grace: %d %s, %v", status, answer, err)
	}
	select {
	case <-c.k.ended:
	case <-time.After(30 * time.Second):
		t.Fatal("it did not stop")
	}
	if code := c.k.proc.ProcessState.ExitCode(); code != exitDone {
		t.Errorf("it ended with %v", c.k.proc.ProcessState)
	}
	if _, err := c.dial(c.as(t, "switch")); err == nil {
		t.Error("a connection after the end")
	}
}

// TestDrainLimit: a request that does not come to its end is cut off, and the
// daemon ends in order.
func TestDrainLimit(t *testing.T) {
	c := newCrowd(t, map[string]string{"drain_limit": "'300ms'"}, "")
	one, err := c.dial(c.as(t, "switch"))
	if err != nil {
		t.Fatal(err)
	}
	defer one.conn.Close()
	if _, err := one.conn.Write([]byte("POST /mac/generate HTTP/1.1\r\nHost: keyd\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{")); err != nil {
		t.Fatal(err)
	}
	c.k.await("the request is in work", 10*time.Second, func() bool {
		response, err := http.Get("http://" + c.dev.OpsAddr + "/metrics")
		if err != nil {
			return false
		}
		defer response.Body.Close()
		text, err := io.ReadAll(response.Body)
		return err == nil && strings.Contains(string(text), `keyd_api_client_requests{client="switch"} 1`)
	})
	start := time.Now()
	c.k.stop()
	if took := time.Since(start); took > 8*time.Second {
		t.Errorf("it took %v to stop", took)
	}
	if !strings.Contains(c.k.output(), "requests in work were cut off") {
		t.Error("the daemon's log does not say that requests were cut off")
	}
}
