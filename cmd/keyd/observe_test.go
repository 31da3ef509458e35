package main

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"maps"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

const (
	operationsDoc = "../../docs/OPERATIONS.md"
	rulesFile     = "../../deploy/prometheus/keyd.rules.yml"
	rulesTests    = "../../deploy/prometheus/keyd.rules.test.yml"
	dashboardFile = "../../deploy/grafana/keyd.json"
)

// family is a metric as it is exported or documented.
type family struct {
	Type   string
	Labels string // sorted, with commas; without le
}

var seriesLine = regexp.MustCompile(`^([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? \S+$`)

// exported reads the text form of the metrics.
func exported(t *testing.T, body string) map[string]family {
	t.Helper()
	all, labels := make(map[string]family), make(map[string]map[string]bool)
	for line := range strings.Lines(body) {
		line = strings.TrimSpace(line)
		if rest, is := strings.CutPrefix(line, "# TYPE "); is {
			name, kind, _ := strings.Cut(rest, " ")
			all[name], labels[name] = family{Type: kind}, make(map[string]bool)
			continue
		}
		if strings.HasPrefix(line, "#") || line == "" {
			continue
		}
		m := seriesLine.FindStringSubmatch(line)
		if m == nil {
			t.Fatalf("not a series: %q", line)
		}
		name := m[1]
		if labels[name] == nil {
			name = familyOf(name)
		}
		for pair := range strings.SplitSeq(promText.ReplaceAllString(m[2], ""), ",") {
			if label, _, ok := strings.Cut(pair, "="); ok && label != "le" {
				labels[name][label] = true
			}
		}
	}
	for name, f := range all {
		f.Labels = strings.Join(slices.Sorted(maps.Keys(labels[name])), ",")
		all[name] = f
	}
	return all
}

var (
	metricRow = regexp.MustCompile("(?m)^\\| `(keyd_[a-z_]+)` \\| (\\w+) \\|([^|]*)\\| [^|]+ \\|$")
	quotedRun = regexp.MustCompile("`([^`]+)`")
)

// documented reads the table of metrics of docs/OPERATIONS.md.
func documented(t *testing.T) map[string]family {
	t.Helper()
	all := make(map[string]family)
	for _, m := range metricRow.FindAllStringSubmatch(readText(t, operationsDoc), -1) {
		var labels []string
		for _, l := range quotedRun.FindAllStringSubmatch(m[3], -1) {
			labels = append(labels, l[1])
		}
		slices.Sort(labels)
		all[m[1]] = family{Type: m[2], Labels: strings.Join(labels, ",")}
	}
	return all
}

func readText(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestMetrics compares what a daemon exports that has everything, the switch,
// Vault and a revocation list, with the list in the documentation, with the
// alert rules and with the dashboard.
func TestMetrics(t *testing.T) {
	families := exported(t, everything(t))
	t.Run("documented", func(t *testing.T) {
		got := maps.Clone(families)
		maps.DeleteFunc(got, func(name string, _ family) bool { return !strings.HasPrefix(name, "keyd_") })
		if diff := cmp.Diff(documented(t), got); diff != "" {
			t.Errorf("docs/OPERATIONS.md section 6 against the daemon (-documented +exported):\n%s", diff)
		}
	})
	known := func(where, expr string) {
		t.Helper()
		for _, name := range metricsOf(plainExpr(expr)) {
			if _, ok := families[familyOf(name)]; !ok && name != "up" {
				t.Errorf("%s: no daemon exports %s", where, name)
			}
		}
	}
	for _, r := range alertRules(t) {
		known("alert "+r.name, r.expr)
	}
	for where, expr := range panelExprs(t) {
		known("panel "+where, expr)
	}
}

// everything is the metrics of a daemon that has done one of each.
func everything(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	startDev(t, dir, "--no-sim").stop()
	list := filepath.Join(dir, "pki", "crl.pem")
	if err := os.WriteFile(list, emptyCRL(t, filepath.Join(dir, "pki")), 0o600); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "keyd.toml")
	text := strings.Replace(readText(t, file), "[api]\n", fmt.Sprintf("[api]\ncrl = %q\n", list), 1)
	text = strings.Replace(text, "[vault]\n", "[vault]\naddress = \"https://127.0.0.1:1\"\nca = \"pki/ca.pem\"\n", 1)
	text += fmt.Sprintf("\n[[audit_sink]]\nname = \"copy\"\ntype = \"file\"\npath = %q\npen = 32473\n", filepath.Join(dir, "copy.log"))
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	r := startDev(t, dir)
	defer r.stop()
	poll(t, "the upstream link", func() bool {
		_, body := r.get("/readyz")
		return strings.Contains(body, `"upstream":{"ok":true}`)
	})
	r.must("sim", "pos", "sale", "--dir", dir, "--amount", "1000")
	r.must("sim", "pos", "reversal", "--dir", dir)
	end := time.Now().AddDate(1, 0, 0).UTC().Format(time.RFC3339)
	admin := r.dev.Clients["admin"]
	r.must("key", "create", "--usage", "M6", "--algorithm", "AES_128", "--mode", "C", "--alias", "alias/dev/timed", "--tag", "keyd:not-after="+end,
		"--url", r.dev.APIURL, "--ca", r.dev.CACert, "--cert", admin.Cert, "--key", admin.Key)
	var body string
	poll(t, "the sweeper has seen the new key", func() bool {
		_, body = r.get("/metrics")
		return strings.Contains(body, "\nkeyd_keys_next_end_seconds ")
	})
	return body
}

// must runs a command that has to succeed.
func (r *running) must(args ...string) {
	r.t.Helper()
	var out, errs bytes.Buffer
	if code := run(r.t.Context(), args, strings.NewReader(""), &out, &errs); code != exitDone {
		r.t.Fatalf("keyd %s ended with %d:\n%s%s", strings.Join(args, " "), code, &out, &errs)
	}
}

// emptyCRL is a revocation list of the development CA that revokes nobody.
func emptyCRL(t *testing.T, pki string) []byte {
	t.Helper()
	block := func(name string) []byte {
		b, _ := pem.Decode([]byte(readText(t, filepath.Join(pki, name))))
		if b == nil {
			t.Fatalf("%s is no PEM", name)
		}
		return b.Bytes
	}
	ca, err := x509.ParseCertificate(block("ca.pem"))
	if err != nil {
		t.Fatal(err)
	}
	key, err := x509.ParsePKCS8PrivateKey(block("ca.key"))
	if err != nil {
		t.Fatal(err)
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		t.Fatalf("the CA's key is a %T", key)
	}
	der, err := x509.CreateRevocationList(rand.Reader, &x509.RevocationList{
		Number: big.NewInt(1), ThisUpdate: time.Now(), NextUpdate: time.Now().Add(24 * time.Hour),
	}, ca, signer)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: der})
}

// alertRule is an alert of the rules file.
type alertRule struct{ name, expr, runbook, severity string }

var alertForm = regexp.MustCompile(`(?m)^      - alert: (\w+)\n        expr: '([^\n]*)'\n        for: \w+\n        labels:\n          severity: (\w+)\n        annotations:\n` +
	`          summary: '[^\n]+'\n          description: '[^\n]+'\n          runbook_url: '([^\n]+)'$`)

// alertRules reads the rules; one of another form would be left out, and is an
// error.
func alertRules(t *testing.T) []alertRule {
	t.Helper()
	text := readText(t, rulesFile)
	var all []alertRule
	for _, m := range alertForm.FindAllStringSubmatch(text, -1) {
		all = append(all, alertRule{name: m[1], expr: strings.ReplaceAll(m[2], "''", "'"), severity: m[3], runbook: m[4]})
	}
	if n := strings.Count(text, "- alert:"); n != len(all) || n == 0 {
		t.Fatalf("%d of %d alerts have the form of the file", len(all), n)
	}
	return all
}

// panelExprs are the expressions of the dashboard, by panel.
func panelExprs(t *testing.T) map[string]string {
	t.Helper()
	var board struct {
		Title, UID  string
		Annotations struct {
			List []struct{ Name, Expr string }
		}
		Panels []struct {
			ID          int
			Title, Type string
			Targets     []struct{ RefID, Expr string }
			GridPos     struct{ W, H int }
		}
	}
	if err := json.Unmarshal([]byte(readText(t, dashboardFile)), &board); err != nil {
		t.Fatalf("%s: %v", dashboardFile, err)
	}
	all, ids := make(map[string]string), make(map[int]bool)
	for _, a := range board.Annotations.List {
		all["annotation "+a.Name] = a.Expr
	}
	for _, p := range board.Panels {
		if ids[p.ID] || p.Title == "" || p.GridPos.W == 0 || p.GridPos.H == 0 || p.Type != "row" && len(p.Targets) == 0 {
			t.Errorf("panel %d %q: its id stands twice, or it has no title, place or target", p.ID, p.Title)
		}
		ids[p.ID] = true
		for _, target := range p.Targets {
			all[fmt.Sprintf("%d %s %s", p.ID, p.Title, target.RefID)] = target.Expr
		}
	}
	if len(all) < 20 {
		t.Fatalf("%s has only %d expressions", dashboardFile, len(all))
	}
	return all
}

// promtool runs Prometheus' tool, which make testdeps installs.
func promtool(t *testing.T, args ...string) (string, error) {
	t.Helper()
	path, err := exec.LookPath("promtool")
	if err != nil {
		t.Fatal("promtool is missing: apt-get install prometheus, or make testdeps")
	}
	out, err := exec.Command(path, args...).CombinedOutput()
	return string(out), err
}

// TestAlertRules: the rules are good, and every alert fires in a case of its own
// and stays silent on a node in good health.
func TestAlertRules(t *testing.T) {
	if out, err := promtool(t, "check", "rules", rulesFile); err != nil {
		t.Errorf("promtool check rules: %v\n%s", err, out)
	}
	if out, err := promtool(t, "test", "rules", rulesTests); err != nil {
		t.Errorf("promtool test rules: %v\n%s", err, out)
	}
	cases := readText(t, rulesTests)
	quiet := cases[strings.Index(cases, "- name: a node in good health"):]
	for _, r := range alertRules(t) {
		t.Run("R-26 "+r.name+" fires when it should and only then", func(t *testing.T) {
			fires := regexp.MustCompile(`alertname: ` + r.name + `\n        exp_alerts:\n`)
			if !fires.MatchString(cases) {
				t.Error("no case in which it fires")
			}
			if !strings.Contains(quiet, "alertname: "+r.name+"\n") {
				t.Error("it is not tried on a node in good health")
			}
		})
		if !slices.Contains([]string{"critical", "warning", "info"}, r.severity) {
			t.Errorf("%s has severity %q", r.name, r.severity)
		}
	}
}

// TestDashboard: every expression of the dashboard is PromQL.
func TestDashboard(t *testing.T) {
	var rules strings.Builder
	rules.WriteString("groups:\n  - name: dashboard\n    rules:\n")
	exprs := panelExprs(t)
	for n, where := range slices.Sorted(maps.Keys(exprs)) {
		fmt.Fprintf(&rules, "      - record: panel_%d # %s\n        expr: %q\n", n, where, plainExpr(exprs[where]))
	}
	file := filepath.Join(t.TempDir(), "dashboard.yml")
	if err := os.WriteFile(file, []byte(rules.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := promtool(t, "check", "rules", file); err != nil {
		t.Errorf("promtool: %v\n%s", err, out)
	}
}
