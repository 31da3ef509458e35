package softhsmtest_test

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"keyd.dev/keyd/internal/custody"
	"keyd.dev/keyd/internal/hsm"
	"keyd.dev/keyd/internal/iso8583"
	"keyd.dev/keyd/internal/isoswitch"
	"keyd.dev/keyd/internal/profile"
	"keyd.dev/keyd/internal/secret"
	"keyd.dev/keyd/internal/sim"
	"keyd.dev/keyd/keys"
	"keyd.dev/keyd/mac"
)

// way is a MAC algorithm of the vector file: how a profile names it, what keys it
// has, and how to make one without keyd.
type way struct {
	algorithm macSection
	kind      custody.TerminalProfile
	length    int // of the key
	make      func(key, input []byte) ([]byte, error)
}

// macSection is the section [mac.tmk] of a profile.
type macSection struct {
	name    string
	padding int
}

func overTDES(padding mac.Padding) func(key, input []byte) ([]byte, error) {
	return func(key, input []byte) ([]byte, error) {
		c, err := mac.NewTDES(key)
		if err != nil {
			return nil, err
		}
		return mac.Algorithm1(c, input, padding)
	}
}

func retail(padding mac.Padding) func(key, input []byte) ([]byte, error) {
	return func(key, input []byte) ([]byte, error) {
		left, full, err := mac.NewAlgorithm3(key)
		if err != nil {
			return nil, err
		}
		return mac.Algorithm3(left, full, input, padding)
	}
}

// ways are all algorithms of terminals with a master key, by the names of the
// vector file.
func ways() map[string]way {
	tdes := func(usage keys.Usage, length int, a custody.TerminalAlgorithm) custody.TerminalProfile {
		return custody.TerminalProfile{Master: keys.TDES2, Working: keys.TDES2, MAC: usage, MACBytes: length, Algorithm: a}
	}
	return map[string]way{
		"x9_9":                {macSection{"x9_9", 0}, tdes(keys.UsageMACAlg1, 8, ""), 8, overTDES(mac.Padding1)},
		"x9_9_pad2":           {macSection{"x9_9", 2}, tdes(keys.UsageMACAlg1, 8, ""), 8, overTDES(mac.Padding2)},
		"cbc_mac_3des":        {macSection{"cbc_mac_3des", 1}, tdes(keys.UsageMACAlg1, 16, ""), 16, overTDES(mac.Padding1)},
		"x9_19":               {macSection{"x9_19", 0}, tdes(keys.UsageMACAlg3, 16, ""), 16, retail(mac.Padding1)},
		"iso9797_1_alg3_pad2": {macSection{"x9_19", 2}, tdes(keys.UsageMACAlg3, 16, ""), 16, retail(mac.Padding2)},
		"cmac_aes128": {macSection{"cmac", 0}, custody.TerminalProfile{
			Master: keys.AES128, Working: keys.AES128, MAC: keys.UsageCMAC, MACBytes: 16,
		}, 16, func(key, input []byte) ([]byte, error) {
			c, err := mac.NewAES(key)
			if err != nil {
				return nil, err
			}
			return mac.CMAC(c, input)
		}},
		"cmac_tdes": {macSection{"cmac", 0}, tdes(keys.UsageCMAC, 16, ""), 16, func(key, input []byte) ([]byte, error) {
			c, err := mac.NewTDES(key)
			if err != nil {
				return nil, err
			}
			return mac.CMAC(c, input)
		}},
		"cup_ecb": {macSection{"cup_ecb", 0}, tdes(keys.UsageMACAlg1, 16, custody.CUPECB), 16, func(key, input []byte) ([]byte, error) {
			c, err := mac.NewTDES(key)
			if err != nil {
				return nil, err
			}
			return mac.UnionPayWhole(c, input)
		}},
	}
}

// variantText is a profile for messages of a variant of the vector file, MACs made
// one way: reversals without DE 39, and in packed messages DE 35 and 37 in all.
func variantText(variant, algorithm string) string {
	w := ways()[algorithm]
	name := strings.ReplaceAll(variant+"-"+algorithm, "_", "-")
	form := map[string]string{"ascii87": "ascii_hex_16", "unionpay_bcd": "raw_8"}[variant]
	if algorithm == "cup_ecb" {
		form = "ascii_hex_8"
	}
	text := fmt.Sprintf("name = %q\nbase = %q\nabout = \"the vector file\"\nreversal_reason_default = \"06\"\nmak_length = %d\n",
		name[:min(32, len(name))], map[string]string{"ascii87": "ascii87", "unionpay_bcd": "unionpay"}[variant], w.length)
	reversal := "[[message]]\nname = \"reversal\"\ntypes = [\"0400\", \"0401\", \"0420\", \"0421\"]\n"
	if variant == "ascii87" {
		reversal += "must = [2, 3, 4, 7, 11, 12, 13, 22, 25, 41, 42, 49, 90]\nmay = [14, 32, 37, 38, 39, 55, 95]\n" +
			"answer_must = [2, 3, 4, 7, 11, 12, 13, 37, 39, 41, 42, 49]\nanswer_may = [32, 38, 55]\n"
	} else {
		text += "tpdu_len = 0\ntpdu_swap = false\nheader_len = 0\n"
		reversal += "must = [2, 3, 4, 11, 22, 25, 41, 42, 49, 60]\nmay = [14, 23, 35, 37, 38, 39, 55, 61]\n" +
			"answer_must = [3, 4, 11, 12, 13, 37, 39, 41, 42]\nanswer_may = [2, 14, 15, 25, 32, 38, 44, 49, 60]\n"
	}
	text += fmt.Sprintf("[mac]\nformat = %q\n[mac.tmk]\nalgorithm = %q\n", form, w.algorithm.name)
	if w.algorithm.padding > 0 {
		text += fmt.Sprintf("padding = %d\n", w.algorithm.padding)
	}
	return text + reversal
}

// judged is a terminal of a variant, with a MAC key that the test knows.
type judged struct {
	variant, algorithm string
	tid, mid           string
	key                []byte
	speech             *profile.Profile
	at                 int // of the listener
}

func (j *judged) kindName() string { return strings.ReplaceAll(j.algorithm, "_", "-") }

// givenKeys makes the keys of terminals as the token does, with MAC keys of given
// values in the place of random ones. A key of single length is the token's own,
// which takes none from outside; its value is put in the place of the given one.
type givenKeys struct {
	*hsm.Manager
	values map[string][]byte // by TID
}

func (g givenKeys) GenerateBatch(ctx context.Context, wanted []keys.Wanted) ([]keys.Made, error) {
	given := slices.Clone(wanted)
	for i, w := range given {
		tid, usage := w.Template.Policy["keyd:terminal"], w.Template.Attributes.Usage
		if value := g.values[tid]; len(value) == 16 && isMAC(usage) {
			given[i].Value = secret.From(slices.Clone(value))
		}
	}
	made, err := g.Manager.GenerateBatch(ctx, given)
	for i := range made {
		tid := wanted[i].Template.Policy["keyd:terminal"]
		if err != nil || len(g.values[tid]) != 8 || !isMAC(wanted[i].Template.Attributes.Usage) {
			continue
		}
		for _, master := range made[:i] { // the last before it is the terminal's
			if master.Block.Attributes.Usage == keys.UsageKEK {
				var value secret.Bytes
				if value, err = g.WorkingValue(ctx, master.Block, made[i].Block); err == nil {
					copy(g.values[tid], value.Reveal()[:8])
				}
			}
		}
	}
	return made, err
}

func isMAC(u keys.Usage) bool {
	return u == keys.UsageMACAlg1 || u == keys.UsageMACAlg3 || u == keys.UsageCMAC
}

// newBench is a switch with a listener for every variant and algorithm that the
// terminals have.
func newBench(t testing.TB, terminals []*judged) *house {
	t.Helper()
	h := build(t, nil)
	h.rules = sim.DefaultRules()
	values := map[string][]byte{}
	var listeners []isoswitch.Listener
	places := map[string]int{}
	for _, j := range terminals {
		if values[j.tid] == nil {
			values[j.tid] = j.key
		}
		j.key = values[j.tid] // one key, whoever learns its value
		text := variantText(j.variant, j.algorithm)
		if _, ok := places[text]; !ok {
			p, err := profile.Parse("variant.toml", []byte(text))
			must(t, err)
			places[text] = len(listeners)
			listeners = append(listeners, isoswitch.Listener{Profile: p})
		}
		j.at = places[text]
		l := &listeners[j.at]
		j.speech = l.Profile
		if !slices.Contains(l.Terminals, j.tid) {
			l.Terminals = append(l.Terminals, j.tid)
		}
	}
	h.tune = func(cfg *isoswitch.Config) {
		cfg.Custody, cfg.Listeners = h.furnishJudged(terminals, values), listeners
		cfg.Limits.MaxAmount, cfg.Limits.Currencies = 999_999_999_999, []string{"156", "840", "978"}
	}
	h.startIssuer("127.0.0.1:0")
	h.moveIn()
	return h
}

// furnishJudged registers the terminals in a custody of their own.
func (h *house) furnishJudged(terminals []*judged, values map[string][]byte) *custody.Custody {
	h.t.Helper()
	var kinds []custody.TerminalProfile
	var entries []custody.NewTerminal
	for _, j := range terminals {
		kind := ways()[j.algorithm].kind
		if kind.Name = j.kindName(); !slices.ContainsFunc(kinds, func(k custody.TerminalProfile) bool { return k.Name == kind.Name }) {
			kinds = append(kinds, kind)
		}
		if !slices.ContainsFunc(entries, func(e custody.NewTerminal) bool { return e.TID == j.tid }) {
			entries = append(entries, custody.NewTerminal{
				TID: j.tid, MID: j.mid, Scheme: custody.SchemeMaster, Profile: kind.Name, Keys: true, Master: custody.NewMaster{Generate: true},
			})
		}
	}
	m := hsm.NewManager(h.token)
	c, err := custody.New(custody.Config{
		Token: h.token, Maker: m, Keeper: m, Store: h.db, Log: h.log,
		Clients: []custody.Client{{Name: "terminal", URI: "spiffe://test/terminal", Roles: []custody.Role{custody.RoleTerminal}}},
		Clock:   time.Now, Serial: h.token.Info().Serial,
		Terminals: &custody.Terminals{Store: h.db, Maker: givenKeys{m, values}, Profiles: kinds},
	})
	must(h.t, err)
	added, err := c.AddTerminals(h.t.Context(), custody.SystemCaller("test", custody.RoleAdmin, custody.RoleCustodian), "test", entries)
	must(h.t, err)
	if len(added.Refused) > 0 {
		h.t.Fatalf("refused: %+v", added.Refused)
	}
	return c.WithoutMaker()
}

// utter sends a message by a connection of its own, and returns the answer.
func (h *house) utter(j *judged, raw []byte) *iso8583.Message {
	h.t.Helper()
	link := h.dialAt(h.further[j.at], "terminal")
	defer link.Close()
	got, err := link.Exchange(raw)
	must(h.t, err)
	m, err := j.speech.Dialect.Parse(got, iso8583.SideTerminal)
	must(h.t, err)
	return m
}

// authentic checks the MAC of an answer by itself.
func (j *judged) authentic(t testing.TB, m *iso8583.Message) {
	t.Helper()
	got, err := m.MAC()
	must(t, err)
	full, err := ways()[j.algorithm].make(j.key, m.MACInput())
	must(t, err)
	if n := j.speech.Dialect.MACForm().Bytes(); string(got[:n]) != string(full[:n]) {
		t.Errorf("the MAC of the answer is wrong")
	}
}

// isoVector is a case of iso8583_mac.json.
type isoVector struct {
	ID, Variant, MTI string
	Algorithm        string `json:"mac_algorithm"`
	Key              string `json:"mac_key"`
	Fields           []struct {
		DE    int
		Value string
	}
	Message  string
	Expected struct {
		Valid bool
		Error string
	}
}

func isoVectors(t *testing.T) []isoVector {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "internal", "iso8583", "testdata", "iso8583_mac.json"))
	must(t, err)
	var file struct{ Cases []isoVector }
	must(t, json.Unmarshal(text, &file))
	return file.Cases
}

// TestVectorsThroughTheListener sends each message of the vector file to a real
// listener, before and after its terminal has an original that it could be about:
// the verdict on the MAC is that of the file, and the same both times.
func TestVectorsThroughTheListener(t *testing.T) {
	cases := isoVectors(t)
	var terminals []*judged
	for _, c := range cases {
		j := &judged{variant: c.Variant, algorithm: c.Algorithm}
		for _, f := range c.Fields {
			switch f.DE {
			case 41:
				j.tid = f.Value
			case 42:
				j.mid = f.Value
			}
		}
		var err error
		j.key, err = hex.DecodeString(c.Key)
		must(t, err)
		terminals = append(terminals, j)
	}
	h := newBench(t, terminals)
	for _, round := range []string{"without an original", "with originals"} {
		for i, c := range cases {
			t.Run(c.ID+" "+round, func(t *testing.T) {
				raw, err := hex.DecodeString(c.Message)
				must(t, err)
				if j := terminals[i]; len(j.key) == 8 { // under the token's own key
					raw = resealed(t, j, c, raw)
				}
				judgeVector(t, h, terminals[i], c, raw)
			})
		}
		for i, c := range cases {
			j := terminals[i]
			m := h.utter(j, j.original(t, c))
			j.authentic(t, m)
		}
	}
}

// resealed is a message whose MAC is made by the terminal's key, wrong by a bit
// where the case's is wrong. One without a whole MAC stays as it is.
func resealed(t *testing.T, j *judged, c isoVector, raw []byte) []byte {
	t.Helper()
	if !c.Expected.Valid && c.Expected.Error != "mac_mismatch" {
		return raw
	}
	length := 8
	if j.variant == "ascii87" {
		length = 16
	}
	input := raw[:len(raw)-length]
	full, err := ways()[j.algorithm].make(j.key, input)
	must(t, err)
	if !c.Expected.Valid {
		full[5] ^= 0x40
	}
	return slices.Concat(input, j.field(full))
}

// field is a MAC as it stands in a message of the terminal.
func (j *judged) field(full []byte) []byte {
	switch {
	case j.algorithm == "cup_ecb":
		return fmt.Appendf(nil, "%X", full[:4])
	case j.variant == "ascii87":
		return fmt.Appendf(nil, "%X", full[:8])
	}
	return full[:8]
}

func judgeVector(t *testing.T, h *house, j *judged, c isoVector, raw []byte) {
	t.Helper()
	before := len(h.records(refusedMAC))
	m := h.utter(j, raw)
	j.authentic(t, m)
	added := h.records(refusedMAC)[before:]
	wrong := j.speech.Codes.MACError
	if c.Expected.Valid {
		if len(added) > 0 || m.Text(39) == "30" || j.variant == "unionpay_bcd" && m.Text(39) == wrong {
			t.Errorf("a valid message got %s, and the records %+v", m.Text(39), added)
		}
		return
	}
	want := map[string]record{}
	for kind, v := range map[string][2]string{
		"mac_mismatch": {"D-04", "bad"}, "mac_truncated": {"D-03", "length"}, "mac_missing": {"D-03", "absent"},
	} {
		r := record{}
		r.ISO.Rule, r.MAC.Verdict = v[0], v[1]
		want[kind] = r
	}
	w := want[c.Expected.Error]
	if len(added) != 1 || added[0].ISO.Rule != w.ISO.Rule || added[0].MAC.Verdict != w.MAC.Verdict || m.Text(39) != wrong {
		t.Errorf("%s got %s and %+v, want %s, %s, %s", c.Expected.Error, m.Text(39), added, wrong, w.ISO.Rule, w.MAC.Verdict)
	}
}

func refusedMAC(r record) bool {
	return strings.HasSuffix(r.Action, ".refuse") && (r.ISO.Rule == "D-03" || r.ISO.Rule == "D-04")
}

// original is a sale with the numbers of a case, MAC and all, that a reversal of
// the case would find.
func (j *judged) original(t *testing.T, c isoVector) []byte {
	t.Helper()
	b := j.speech.Dialect.Build("0200", iso8583.SideTerminal)
	for _, f := range c.Fields {
		switch {
		case f.DE == 90 || f.DE == 52 || f.DE == 35:
		default:
			b.Set(f.DE, f.Value)
		}
	}
	open, err := b.Pack()
	must(t, err)
	full, err := ways()[j.algorithm].make(j.key, open.MACInput())
	must(t, err)
	var short [8]byte
	copy(short[:], full)
	return open.Seal(short)
}
