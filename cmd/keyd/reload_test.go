package main

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptrace"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// fullConfig is goodConfig with one of each list.
func fullConfig(t *testing.T) *configFile {
	t.Helper()
	f, err := parseConfig("keyd.toml", "/etc/keyd/keyd.toml", []byte(goodConfig+"[[terminal_profile]]\nname = \"shop\"\n[[switch_rule]]\nname = \"kiosk\"\n[[switch_listener]]\nlisten = \"127.0.0.1:0\"\nprofile = \"unionpay\"\n"))
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// spoil gives a key another value.
func spoil(v reflect.Value) {
	switch v.Kind() {
	case reflect.String:
		v.SetString(v.String() + "x")
	case reflect.Bool:
		v.SetBool(!v.Bool())
	case reflect.Int, reflect.Int64:
		v.SetInt(v.Int() + int64(time.Second))
	case reflect.Slice:
		v.Set(reflect.Append(v, reflect.New(v.Type().Elem()).Elem()))
	case reflect.Map:
		v.Set(reflect.ValueOf(map[string]string{"X": "y"}))
	case reflect.Pointer:
		to := reflect.New(v.Type().Elem())
		if !v.IsNil() {
			to.Elem().Set(v.Elem())
		}
		spoil(to.Elem())
		v.Set(to)
	}
}

// TestReloadTakesWhatTheTagsSay: a key that the reference calls reloadable reaches
// a part of the daemon, and one that it does not waits and reaches none.
func TestReloadTakesWhatTheTagsSay(t *testing.T) {
	running := &fullConfig(t).config
	n := 0
	var walk func(name string, path []int, typ reflect.Type)
	walk = func(name string, path []int, typ reflect.Type) {
		for i := range typ.NumField() {
			f := typ.Field(i)
			key, at := name+tomlName(f), append(slices.Clone(path), i)
			if f.Type.Kind() == reflect.Struct {
				walk(key+".", at, f.Type)
				continue
			}
			if isList(f.Type) {
				continue
			}
			n++
			next := &fullConfig(t).config
			spoil(reflect.ValueOf(next).Elem().FieldByIndex(at))
			checkReload(t, key, f.Tag.Get("reload") == "yes", running, next)
		}
	}
	walk("", nil, reflect.TypeFor[config]())
	for _, list := range []struct {
		name string
		of   func(*config) reflect.Value
	}{
		{"client", func(c *config) reflect.Value { return reflect.ValueOf(&c.Client[0]).Elem() }},
		{"terminal_profile", func(c *config) reflect.Value { return reflect.ValueOf(&c.Profile[0]).Elem() }},
		{"switch_rule", func(c *config) reflect.Value { return reflect.ValueOf(&c.Rule[0]).Elem() }},
		{"switch_listener", func(c *config) reflect.Value { return reflect.ValueOf(&c.Listener[0]).Elem() }},
		{"upstream", func(c *config) reflect.Value { return reflect.ValueOf(&c.Upstream[0]).Elem() }},
	} {
		typ := list.of(running).Type()
		for i := range typ.NumField() {
			n++
			next := &fullConfig(t).config
			spoil(list.of(next).Field(i))
			checkReload(t, list.name+"[]."+tomlName(typ.Field(i)), typ.Field(i).Tag.Get("reload") == "yes", running, next)
		}
	}
	if n < 100 {
		t.Fatalf("only %d keys: the walk is wrong", n)
	}
}

func checkReload(t *testing.T, key string, reloads bool, running, next *config) {
	t.Helper()
	m := mergeConfig(running, next)
	reaches := !reflect.DeepEqual(running.runningSettings(), m.config.runningSettings())
	switch {
	case reloads && (len(m.changed) == 0 || len(m.waiting) > 0):
		t.Errorf("%s: changed %v, waiting %v", key, m.changed, m.waiting)
	case reloads && !reaches && key != "switch.t_terminal": // which bounds the others alone
		t.Errorf("%s has the tag reload and reaches no part of a running daemon", key)
	case !reloads && (len(m.waiting) != 1 || len(m.changed) > 0 || reaches):
		t.Errorf("%s has no tag reload: changed %v, waiting %v, reaches a part: %v", key, m.changed, m.waiting, reaches)
	}
}

func TestMergeNamesWhatDiffers(t *testing.T) {
	running, next := &fullConfig(t).config, &fullConfig(t).config
	running.Client = append(running.Client, clientConfig{Name: "old", URI: "u"})
	next.Client[0].Roles, next.Client[0].Keys = []string{"operator"}, nil
	next.Client = append(next.Client, clientConfig{Name: "shop", URI: "s"})
	next.Switch.MaxAmount, next.Switch.Connections = 7, 8
	next.Token.Environment = map[string]string{} // none, as before
	m := mergeConfig(running, next)
	wantChanged := []string{"switch.max_amount", "client[switch].roles", "client[switch].keys", "client[shop] (new)", "client[old] (gone)"}
	if diff := cmp.Diff(wantChanged, m.changed); diff != "" {
		t.Errorf("changed (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"switch.connections"}, m.waiting); diff != "" {
		t.Errorf("waiting (-want +got):\n%s", diff)
	}
	if m.config.Switch.Connections != 1024 || m.config.Switch.MaxAmount != 7 || len(running.Client) != 2 {
		t.Errorf("merged: %+v", m.config.Switch)
	}
}

// reloading is a development daemon whose configuration changes.
type reloading struct {
	*running
	t    *testing.T
	file string
	text string // as `keyd dev` wrote it
}

func startReloading(t *testing.T) *reloading {
	t.Helper()
	r := startDev(t, t.TempDir(), "--no-sim")
	text, err := os.ReadFile(r.dev.Config)
	if err != nil {
		t.Fatal(err)
	}
	return &reloading{r, t, r.dev.Config, string(text)}
}

// write puts an edited file in the place of the old one, as editors do.
func (r *reloading) write(edits ...string) {
	r.t.Helper()
	text := strings.NewReplacer(edits...).Replace(r.text)
	if len(edits) > 0 && text == r.text {
		r.t.Fatal("the edit changes nothing")
	}
	beside := filepath.Join(filepath.Dir(r.file), "keyd.toml.new")
	if err := os.WriteFile(beside, []byte(text), 0o600); err != nil {
		r.t.Fatal(err)
	}
	if err := os.Rename(beside, r.file); err != nil {
		r.t.Fatal(err)
	}
}

// hangup sends SIGHUP and waits until the daemon has told of it.
func (r *reloading) hangup(line string) {
	r.t.Helper()
	before := strings.Count(r.stderr.String(), line)
	if err := syscall.Kill(os.Getpid(), syscall.SIGHUP); err != nil {
		r.t.Fatal(err)
	}
	poll(r.t, line, func() bool { return strings.Count(r.stderr.String(), line) > before })
}

// command is `keyd reload` with its exit code and what it says.
func (r *reloading) command(args ...string) (int, string) {
	r.t.Helper()
	var out bytes.Buffer
	code := run(r.t.Context(), append([]string{"reload", "--config", r.file}, args...), strings.NewReader(""), &out, &out)
	return code, out.String()
}

// kept is a client that stays on one connection.
type kept struct {
	r      *reloading
	client *http.Client
	fresh  atomic.Int32 // connections that were opened
}

func (r *reloading) keep(name string) *kept {
	return &kept{r: r, client: &http.Client{Transport: &http.Transport{TLSClientConfig: r.tls(name), MaxConnsPerHost: 1}, Timeout: 20 * time.Second}}
}

// call sends a request and returns its status and body.
func (k *kept) call(path, target, body string) (int, string, error) {
	trace := &httptrace.ClientTrace{GotConn: func(info httptrace.GotConnInfo) {
		if !info.Reused {
			k.fresh.Add(1)
		}
	}}
	req, err := http.NewRequestWithContext(httptrace.WithClientTrace(k.r.t.Context(), trace), http.MethodPost, k.r.dev.APIURL+path, strings.NewReader(body))
	if err != nil {
		return 0, "", err
	}
	req.Header.Set("Content-Type", "application/json")
	if target != "" {
		req.Header.Set("Content-Type", "application/x-amz-json-1.0")
		req.Header.Set("X-Amz-Target", "PaymentCryptographyControlPlane."+target)
	}
	resp, err := k.client.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(text), err
}

func (k *kept) mac() (int, string, error) {
	return k.call("/mac/generate", "", `{"KeyIdentifier":"alias/dev/zak","MessageData":"0011223344556677","GenerationAttributes":{"Algorithm":"ISO9797_ALGORITHM3"}}`)
}

// want sends a request and wants a status.
func (k *kept) want(status int, send func() (int, string, error)) {
	k.r.t.Helper()
	got, body, err := send()
	if err != nil || got != status {
		k.r.t.Fatalf("status %d, %v, want %d: %s", got, err, status, body)
	}
}

// TestReloadHoldsOnOpenConnections: a client that is taken away, narrowed or given
// back in the middle of a connection notices at its next request.
func TestReloadHoldsOnOpenConnections(t *testing.T) {
	r := startReloading(t)
	defer r.stop()
	const done = `"msg":"configuration read again"`
	operator, app := r.keep("operator"), r.keep("switch")
	list := func() (int, string, error) { return operator.call("/", "ListKeys", "{}") }
	operator.want(http.StatusOK, list)
	app.want(http.StatusOK, app.mac)

	r.write("keyd://client/operator", "keyd://client/somebody-else", "name = 'operator'", "name = 'somebody-else'")
	r.hangup(done)
	operator.want(http.StatusBadRequest, list) // AccessDeniedException of the control plane
	app.want(http.StatusOK, app.mac)

	r.write("name = 'switch'\n", "name = 'switch'\noperations = ['VerifyMac']\n")
	if code, text := r.command(); code != exitDone || !strings.Contains(text, "changed: client[switch].operations\n") || !strings.Contains(text, "changed: client[operator] (new)\n") {
		t.Fatalf("keyd reload: %d, %s", code, text)
	}
	operator.want(http.StatusOK, list)
	app.want(http.StatusForbidden, app.mac)

	r.write()
	r.hangup(done)
	app.want(http.StatusOK, app.mac)
	if operator.fresh.Load() != 1 || app.fresh.Load() != 1 {
		t.Errorf("%d and %d connections were opened, want one each", operator.fresh.Load(), app.fresh.Load())
	}
}

// TestReloadRefusesBadFile: the old configuration stays, and the reason names file,
// line and key.
func TestReloadRefusesBadFile(t *testing.T) {
	tests := []struct {
		name  string
		edits []string
		want  string
	}{
		{"syntax", []string{"[api]", "[api"}, "keyd.toml:"},
		{"unknown key", []string{"max_amount =", "maxamount ="}, `unknown key \"switch.maxamount\"; did you mean \"max_amount\"?`},
		{"value out of range", []string{"t_upstream = '2s'", "t_upstream = '40s'"}, "switch.t_upstream: 40s must be below t_switch"},
		{"role that there is not", []string{"'operator'", "'emperor'"}, `\"emperor\" is not a role`},
	}
	r := startReloading(t)
	defer r.stop()
	app := r.keep("switch")
	for n, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r.t = t
			r.write(append(tt.edits, "name = 'switch'", "name = 'other'")...)
			r.hangup("the configuration is refused; the one of before stays")
			if said := r.stderr.String(); !strings.Contains(said, tt.want) {
				t.Errorf("the log does not say %q:\n%s", tt.want, said)
			}
			code, text := r.command()
			if want := strings.ReplaceAll(tt.want, `\"`, `"`); code != exitFailed || !strings.Contains(text, want) {
				t.Errorf("keyd reload: %d, %s", code, text)
			}
			app.want(http.StatusOK, app.mac)
			if _, ready := r.get("/readyz"); !strings.Contains(ready, `"ready":true`) && !strings.Contains(ready, `"config":{"ok":false`) {
				t.Errorf("/readyz: %s", ready)
			}
			_, metrics := r.get("/metrics")
			for _, line := range []string{"keyd_config_last_reload_successful 0\n", "keyd_config_reloads_total{result=\"ok\"} 0\n"} {
				if !strings.Contains(metrics, line) {
					t.Errorf("case %d: /metrics has no line %q", n, line)
				}
			}
		})
	}
	r.t = t
	r.write()
	if code, text := r.command(); code != exitDone || strings.Contains(text, "changed:") {
		t.Errorf("the file of before: %d, %s", code, text)
	}
	if _, metrics := r.get("/metrics"); !strings.Contains(metrics, "keyd_config_last_reload_successful 1\n") {
		t.Error("the last reload was good, and the metric says otherwise")
	}
}

// TestReloadWhileAtWork: a hundred reloads under load, and no request of a client
// that stays notices. Run it with -race.
func TestReloadWhileAtWork(t *testing.T) {
	r := startReloading(t)
	defer r.stop()
	done := make(chan struct{})
	var work sync.WaitGroup
	var served atomic.Int64
	for range 4 {
		work.Go(func() {
			app := r.keep("switch")
			for {
				select {
				case <-done:
					return
				default:
				}
				status, body, err := app.mac()
				if err != nil || status != http.StatusOK {
					t.Errorf("status %d, %v: %s", status, err, body)
					return
				}
				served.Add(1)
			}
		})
	}
	for n := range 100 {
		edits := []string{"max_amount = 5000000", "max_amount = " + []string{"400", "500"}[n%2]}
		if n%2 == 0 {
			edits = append(edits, "name = 'operator'", "name = 'operator-2'", "requests_in_work = 64", "requests_in_work = 8", "level = 'info'", "level = 'warn'")
		}
		r.write(edits...)
		if code, text := r.command(); code != exitDone || !strings.Contains(text, "changed: switch.max_amount") {
			t.Fatalf("reload %d: %d, %s", n, code, text)
		}
	}
	close(done)
	work.Wait()
	if served.Load() < 100 {
		t.Errorf("only %d requests were served meanwhile", served.Load())
	}
}
