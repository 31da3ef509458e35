package main

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/pelletier/go-toml/v2"
)

// goodConfig passes every check; the tables below spoil it.
const goodConfig = `[token]
module = "/usr/lib/softhsm/libsofthsm2.so"
pin_source = "file:/run/keyd/pin"
[store]
path = "keyd.db"
[audit]
dir = "audit"
site = "test.example"
node = "n1"
[api]
listen = "127.0.0.1:8443"
cert = "server.pem"
key = "server.key"
client_ca = "ca.pem"
[switch]
listen = "127.0.0.1:8583"
cert = "server.pem"
key = "server.key"
client_ca = "ca.pem"
[ops]
listen = "127.0.0.1:9100"
[[upstream]]
name = "host"
addr = "host.example:8583"
ca = "ca.pem"
zpk = "alias/zpk"
zak = "alias/zak"
[[client]]
name = "switch"
uri = "keyd://client/switch"
roles = ["application"]
keys = ["alias/*"]
`

func loadText(t *testing.T, text string) (*configFile, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "keyd.toml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return loadConfig(path)
}

func TestConfigDefaults(t *testing.T) {
	cfg, err := loadText(t, goodConfig)
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Dir(cfg.path)
	got := []any{
		cfg.Token.Label, *cfg.Token.PINRetain, cfg.Token.Sessions, cfg.Store.Path, cfg.Ops.Socket, cfg.API.Cert,
		cfg.API.Region, cfg.API.Account, cfg.Switch.TUpstream.std(), cfg.Switch.MaxAmount, cfg.Switch.Currencies,
		cfg.Upstream[0].CA, cfg.Audit.SegmentMB,
	}
	want := []any{
		"keyd", true, 2, dir + "/keyd.db", dir + "/keyd.sock", dir + "/server.pem",
		"xx-keyd-1", "000000000000", 25 * time.Second, int64(5_000_000), []string{"978", "156"},
		dir + "/ca.pem", 64,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("defaults (-want +got):\n%s", diff)
	}
}

func TestConfigRefused(t *testing.T) {
	tests := []struct{ name, old, new, want string }{
		{"unknown section", "[ops]", "[opps]", `unknown key "opps"; did you mean "ops"?`},
		{"unknown key far from any", "site =", "xyzzyxyzzy =", `unknown key "audit.xyzzyxyzzy"; known here are dir, site,`},
		{"unknown key in a list", "zpk =", "zpkk =", `unknown key "upstream.zpkk"; did you mean "zpk"?`},
		{"C-01 PIN in the file", `"file:/run/keyd/pin"`, `"1234"`, "token.pin_source: credentials: not a PIN source"},
		{"C-01 env without leave", `"file:/run/keyd/pin"`, `"env:PIN"`, "insecure_allow_env_pin"},
		{"C-01 two sources", "[store]", "no_pin = true\n[store]", "token.pin_source: stands beside no_pin"},
		{"C-01 no source", `pin_source = "file:/run/keyd/pin"`, ``, "token.pin_source: needs the one place"},
		{"C-02 two sections", "[store]", "[token]", "token"},
		{"C-07 TLS 1.1", `[ops]`, `min_tls = "1.1"` + "\n[ops]", `switch.min_tls: "1.1" must be "1.3" or "1.2"`},
		{"C-06 strict without a list", `[ops]`, "crl_strict = true\n[ops]", "switch.crl_strict: without crl"},
		{"no server certificate", `cert = "server.pem"` + "\nkey = \"server.key\"\nclient_ca = \"ca.pem\"\n[ops]", "[ops]", "switch.cert: needs"},
		{"site in capitals", `"test.example"`, `"Test"`, "audit.site"},
		{"R-07 ops open to the network", `listen = "127.0.0.1:9100"`, `listen = "0.0.0.0:9100"`, "ops.listen: must be a loopback"},
		{"profiles open to the network", `listen = "127.0.0.1:9100"`, "listen = \"0.0.0.0:9100\"\ninsecure_allow_remote = true\npprof = true", "ops.pprof: is offered on a loopback address only"},
		{"port out of range", "8443", "84430", "api.listen"},
		{"timers of section 6", "[ops]", "t_switch = \"70s\"\n[ops]", "switch.t_switch: 1m10s must be below t_terminal, 1m0s"},
		{"hold above terminal", "[ops]", "t_hold = \"2m\"\n[ops]", "switch.t_hold: 2m0s must be below t_terminal"},
		{"max_age above look_back", "[ops]", "max_age = \"200h\"\n[ops]", "switch.max_age: 200h0m0s is not 1m0s to 168h0m0s"},
		{"not a duration", "[ops]", "t_hold = 20\n[ops]", "t_hold"},
		{"no currency", "[ops]", "currencies = []\n[ops]", "switch.currencies: names no currency"},
		{"currency as letters", "[ops]", "currencies = [\"EUR\"]\n[ops]", `switch.currencies: "EUR"`},
		{"partial of another type", "[ops]", "partial_types = [\"31\"]\n[ops]", `switch.partial_types: "31"`},
		{"R-48 hours that are none", "[ops]", "hours = [\"8-22\"]\n[ops]", `switch.hours: "8-22" is no time of the day`},
		{"R-39 cut-over without an end", "[ops]", "cutover = [\"08:00-08:00\"]\n[ops]", "switch.cutover:"},
		{"R-48 time zone", "[ops]", "time_zone = \"Mars/Base\"\n[ops]", `switch.time_zone: time zone "Mars/Base"`},
		{"R-72 entry mode", "[ops]", "entry_modes = [\"5\"]\n[ops]", `switch.entry_modes: entry mode "5" is not three digits`},
		{"R-48 type of no dialect", "[ops]", "processing_codes = [\"99\"]\n[ops]", `switch.processing_codes: processing codes "99" are not of the dialect; there are 00, 03, 20, 31`},
		{"D-35 action", "[ops]", "reversal_rate_action = \"drop\"\n[ops]", `switch.reversal_rate_action: "drop" is not observe, refuse or hold`},
		{"A-03 cash without reasons", "[ops]", "cash_reversals_per_hour = 3\n[ops]", "no reason is one"},
		{"completion of more than twice", "[ops]", "completion_percent = 201\n[ops]", "switch.completion_percent: 201 is not 1 to 200"},
		{"rule without a name", "[[client]]", "[[switch_rule]]\nmax_amount = 5\n[[client]]", "switch_rule[0].name: needs a name"},
		{"rule for no terminal", "[[client]]", "[[switch_rule]]\nname = \"a\"\nterminals = [\"[\"]\n[[client]]", `switch_rule[0].terminals: "[" is no pattern`},
		{"two rules of a name", "[[client]]", "[[switch_rule]]\nname = \"a\"\n[[switch_rule]]\nname = \"a\"\n[[client]]", `switch_rule[1].name: "a" stands twice`},
		{"R-17 listener without an address", "[[client]]", "[[switch_listener]]\nprofile = \"unionpay\"\n[[client]]", "switch_listener[0].listen: \"\" is not an address"},
		{"R-17 listener without a profile", "[[client]]", "[[switch_listener]]\nlisten = \":1\"\n[[client]]", "switch_listener[0].profile: "},
		{"R-17 listener for nobody", "[[client]]", "[[switch_listener]]\nlisten = \":1\"\nprofile = \"unionpay\"\n[[switch_listener]]\nlisten = \":2\"\nprofile = \"/dev/null\"\n[[client]]", "switch_listener[1].profile: "},
		{"R-17 listener with a bad pattern", "[[client]]", "[[switch_listener]]\nlisten = \":1\"\nprofile = \"unionpay\"\nterminals = [\"[\"]\n[[client]]", `switch_listener[0].terminals: "[" is no pattern of a TID`},
		{"no upstream", "[[upstream]]", "[[client]]", `unknown key "client.addr"`},
		{"two upstreams", "[[client]]", "[[upstream]]\n[[client]]", "upstream[1].name: needs a name"},
		{"zone key is no alias", `"alias/zpk"`, `"zpk"`, `upstream[0].zpk: "zpk" is not an alias`},
		{"client without identity", `uri = "keyd://client/switch"`, ``, "client[0].uri: needs"},
		{"client with a bad pattern", `"alias/*"`, `"alias/["`, "client[0].keys"},
		{"client with a key id as pattern", `"alias/*"`, `"abc"`, "client[0].keys"},
		{"terminals of an application", `"alias/*"]`, `"alias/*"]
terminals = ["T0000001"]`, "client[0].terminals: is for a client whose one role is terminal"},
		{"merchants of an application", `"alias/*"]`, `"alias/*"]
merchants = ["M0000000000000?"]`, "client[0].merchants: is for"},
		{"an application of many certificates", `"keyd://client/switch"`, `"keyd://client/{tid}"`, "client[0].uri: {tid} may stand once"},
		{"the switch's own role", `"application"`, `"switch"`, `client[0].roles: "switch" is not a role`},
		{"environment name", "[store]", "environment = {\"LD PRELOAD\" = \"x\"}\n[store]", "token.environment"},
		{"segment too small", `node = "n1"`, "node = \"n1\"\nsegment_mb = 4", "audit.segment_mb: 4 is not 8 to 256"},
		{"log level", "[ops]", "[log]\nlevel = \"loud\"\n[ops]", "log.level"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			text := strings.Replace(goodConfig, tt.old, tt.new, 1)
			if text == goodConfig {
				t.Fatal("the case changes nothing")
			}
			_, err := loadText(t, text)
			if !errors.Is(err, errConfig) {
				t.Fatalf("error = %v, want errConfig", err)
			}
			if !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %q does not say %q", err, tt.want)
			}
		})
	}
}

func TestConfigNamesLines(t *testing.T) {
	_, err := loadText(t, strings.Replace(goodConfig, `"alias/zak"`, `"zak"`, 1))
	if err == nil || !strings.Contains(err.Error(), "keyd.toml:27: upstream[0].zak:") {
		t.Errorf("error %v does not name line 27", err)
	}
}

// TestConfigSurvivesWriting: what `keyd dev` writes reads back as it was.
func TestConfigSurvivesWriting(t *testing.T) {
	d := &devDir{path: "/tmp/somewhere"}
	made, err := d.newConfig(&devCmd{}, "/usr/lib/softhsm/libsofthsm2.so")
	if err != nil {
		t.Fatal(err)
	}
	text, err := toml.Marshal(&made.config)
	if err != nil {
		t.Fatal(err)
	}
	read, err := loadText(t, devHeader+string(text))
	if err != nil {
		t.Fatal(err)
	}
	made.Ops.Socket = "/tmp/somewhere/keyd.sock" // filled in on reading
	for i := range made.Client {                 // nil and empty are one in TOML
		if len(made.Client[i].Keys) == 0 {
			made.Client[i].Keys = read.Client[i].Keys
		}
	}
	if diff := cmp.Diff(made.config, read.config); diff != "" {
		t.Errorf("written and read (-made +read):\n%s", diff)
	}
}

// TestNoSwitchTurnsTheLogOff is L-137: no key of the configuration and no flag
// means "run without audit", nor any milder form of it.
func TestNoSwitchTurnsTheLogOff(t *testing.T) {
	forbidden := []string{"off", "disable", "best_effort", "besteffort", "degraded", "skip", "no_audit", "optional", "fail_open"}
	var names []string
	var walk func(prefix string, typ reflect.Type)
	walk = func(prefix string, typ reflect.Type) {
		for typ.Kind() == reflect.Slice || typ.Kind() == reflect.Pointer {
			typ = typ.Elem()
		}
		if typ.Kind() != reflect.Struct {
			return
		}
		for i := range typ.NumField() {
			f := typ.Field(i)
			name := strings.ToLower(prefix + tomlName(f) + f.Tag.Get("name"))
			if tomlName(f)+f.Tag.Get("name") == "" {
				name = strings.ToLower(prefix + f.Name)
			}
			names = append(names, name)
			walk(name+".", f.Type)
		}
	}
	walk("", reflect.TypeFor[config]())
	walk("--", reflect.TypeFor[cli]())
	if len(names) < 100 {
		t.Fatalf("only %d names found: the walk is wrong", len(names))
	}
	for _, name := range names {
		for _, word := range forbidden {
			if strings.Contains(strings.ReplaceAll(name, "signoff", ""), word) { // a sign-off is a message
				t.Errorf("L-137: %s has the sound of a switch that weakens the log", name)
			}
		}
	}
	if field, ok := reflect.TypeFor[auditConfig]().FieldByName("Enabled"); ok {
		t.Errorf("L-137: %s", field.Name)
	}
	_, err := loadText(t, strings.Replace(goodConfig, `dir = "audit"`, `dir = ""`, 1))
	if err == nil || !strings.Contains(err.Error(), "audit.dir: needs the folder of the log") {
		t.Errorf("L-65: a configuration without a log gives %v", err)
	}
}

// TestEverySettingIsDocumented: each key has a comment, and so has the file that
// `keyd dev` writes.
func TestEverySettingIsDocumented(t *testing.T) {
	var walk func(prefix string, typ reflect.Type)
	walk = func(prefix string, typ reflect.Type) {
		for typ.Kind() == reflect.Slice {
			typ = typ.Elem()
		}
		if typ.Kind() != reflect.Struct {
			return
		}
		for i := range typ.NumField() {
			f := typ.Field(i)
			if tomlName(f) == "" || f.Tag.Get("comment") == "" {
				t.Errorf("%s%s has no name or no comment", prefix, f.Name)
			}
			if strings.Contains(f.Tag.Get("toml"), "omitempty") && f.Type.Kind() != reflect.Slice && f.Type.Kind() != reflect.Map && f.Type.Kind() != reflect.Struct &&
				!strings.Contains(f.Tag.Get("comment"), "efault") {
				switch tomlName(f) {
				case "reserved", "key":
				default:
					t.Errorf("%s%s does not name its default", prefix, tomlName(f))
				}
			}
			walk(prefix+tomlName(f)+".", f.Type)
		}
	}
	walk("", reflect.TypeFor[config]())
}
