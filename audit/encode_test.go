package audit

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"slices"
	"sort"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// jcs writes a JSON value in the form of RFC 8785, apart from the encoder.
func jcs(v any) string {
	switch v := v.(type) {
	case map[string]any:
		names := make([]string, 0, len(v))
		for name := range v {
			names = append(names, name)
		}
		sort.Strings(names) // the names are ASCII
		var parts []string
		for _, name := range names {
			parts = append(parts, jcs(name)+":"+jcs(v[name]))
		}
		return "{" + strings.Join(parts, ",") + "}"
	case []any:
		var parts []string
		for _, e := range v {
			parts = append(parts, jcs(e))
		}
		return "[" + strings.Join(parts, ",") + "]"
	case string:
		var b bytes.Buffer
		e := json.NewEncoder(&b)
		e.SetEscapeHTML(false)
		if err := e.Encode(v); err != nil {
			panic(err)
		}
		s := strings.TrimSuffix(b.String(), "\n")
		s = strings.ReplaceAll(s, `\u2028`, "\u2028")
		return strings.ReplaceAll(s, `\u2029`, "\u2029")
	case json.Number:
		return v.String()
	case bool:
		return fmt.Sprint(v)
	}
	panic(fmt.Sprintf("records have no %T", v))
}

// recanonical decodes a record and writes it again.
func recanonical(t *testing.T, record []byte) string {
	t.Helper()
	d := json.NewDecoder(bytes.NewReader(record))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		t.Fatalf("%v in %s", err, record)
	}
	return jcs(v)
}

// whole joins a draft around a seq.
func (d *draft) whole(seq int) []byte {
	return fmt.Appendf(nil, "%s%d%s", d.pre, seq, d.suf)
}

func mustTime(t *testing.T, s string) time.Time {
	t.Helper()
	at, err := time.Parse(time.RFC3339Nano, s)
	if err != nil {
		t.Fatal(err)
	}
	return at
}

func mustUUID(t *testing.T, s string) UUID {
	t.Helper()
	u, err := ParseUUID(s)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func mustHash(t *testing.T, s string) Hash {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return Hash(b)
}

func mustBase64(t *testing.T, s string) []byte {
	t.Helper()
	b, err := base64.StdEncoding.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func exampleIdentity() *identity {
	return &identity{
		node: "n1", build: "1.0.0+g1a2b3c4d5e6f", timeSource: "ntp:pool-a",
		boot: [8]byte{0x5f, 0x1d, 0x0c, 0x9a, 0x7b, 0x3e, 0x24, 0x68}, cfg: [8]byte{0xe6, 0x7d, 0x23, 0xe7, 0x82, 0x0c, 0x49, 0xa8},
	}
}

// TestExamples writes the five examples of the specification byte for byte.
func TestExamples(t *testing.T) {
	examples := []struct {
		name  string
		shard Shard
		seq   int
		mono  int64
		ts    string
		r     Record
	}{
		{
			"L-70 PIN translation", 202611, 73894, 51482394313, "2026-11-21T22:34:05.123456Z",
			Record{
				Action: PINTranslate, Outcome: OutcomeOK, ID: mustUUID(t, "01a2003e-cbc3-7b86-b273-ff34fce19d6b"), Corr: "sw-a.184467",
				Actor: Actor{ID: "switch-a", Kind: ActorSwitch, Authn: AuthnMTLS, Roles: []string{"application"}},
				Src:   Source{Addr: "10.1.2.3:53122", Conn: "c-8841"}, Custody: CustodyProcess, Duration: 812 * time.Microsecond, HSM: HSM{Serial: "A1B2C3D4"},
				Keys: []Key{
					{Role: KeyRoleOut, ID: "zpk/visa", Version: 4, KCV: "9F2A1104C7", Usage: "P0", Algo: AlgoAES128},
					{Role: KeyRoleBDK, ID: "bdk/acq-1", Version: 2, KCV: "08D7B4"},
				},
				KSN: "FFFF9876543210E00001", Mech: "CKM_DES3_ECB", PIN: PIN{PINISO0, PINISO4},
				PAN: PAN{truncated: "411111******1111", tok: "k1:gv0DR9eyf1tnkhAjMPpPKQ"},
			},
		},
		{
			"L-70 refused reversal", 202611, 73901, 51483275068, "2026-11-21T22:34:06.004211Z",
			Record{
				Action: ReversalRefuse, Outcome: OutcomeRefused, Reason: ReasonMACInvalid, RC: "CKR_SIGNATURE_INVALID",
				ID: mustUUID(t, "01a2003e-cf34-7473-9e3a-265e16eee03f"), Corr: "8583.c-17.000302", Actor: Actor{ID: "pos-link-7", Kind: ActorSwitch},
				Src: Source{Addr: "10.9.0.41:40112", Conn: "c-17"}, Custody: CustodyToken, Duration: 655 * time.Microsecond,
				ISO: ISO{
					Alert: AlertSecurity, Amount: new(int64(10000)), Currency: "156", DE39: "A0", Merchant: Registered("850100082410020"), MTI: "0400",
					Orig: Orig{MTI: "0200", STAN: "000302"}, Proc: "000000", Rule: "D-04", STAN: "000302", Terminal: Registered("98100019"),
				},
				Keys: []Key{{Role: KeyRoleMAC, ID: "tak/98100019", Version: 31, KCV: "5BB5C7"}}, MAC: MAC{MACAlg3, 8, VerdictBad},
				MsgTok: MsgTok{"k1:83QXLY57C9PSYhLv7AFXrA"}, PAN: PAN{truncated: "622424******0113", tok: "k1:eD5znYthKYZsmmO5kQfiEw"},
			},
		},
		{
			"L-70 ceremony step", 0, 4127, 3402001877, "2026-11-21T09:12:44.731020Z",
			Record{
				Action: CeremonyEnter, Outcome: OutcomeOK, ID: mustUUID(t, "01a1fd61-25bb-7e07-8085-62bedb8b60ce"), Ref: mustUUID(t, "01a1fd61-2344-7c27-8efc-16d50bd7f977"),
				Corr: "cer-2026-017", Src: Source{Addr: "unix:1002", Conn: "tty-1"},
				Actor: Actor{ID: "custodian-b", Kind: ActorCustodian, Authn: AuthnCard, Roles: []string{"custodian"},
					Cert: mustHash(t, "82be18d985fd1aee2e6ba4f338e1507bf91f4b66c12dc888d8ed7416f6c62db7")},
				Cer: &Cer{
					BagOut: "TE-00418823", Component: 2, ComponentID: "zmk-partner-x/2", ComponentKCV: "C41B07", Custodian: "custodian-b", Device: "entry-pad-02",
					ID: "cer-2026-017", M: 2, N: 3, Purpose: "Load ZMK from acquirer partner, component 2 of 3", Step: StepEnter, StepNo: 6, Witness: "security-officer-1",
					Sig:        mustBase64(t, "Umd2iCLuYk1I/OFexcp5y9YCy39MIVelFlVpkfIu+Me173sY0f9BxZNw77CFhlHUSpNsEbexRMSP4E3zxqPo2g=="),
					WitnessSig: mustBase64(t, "qmZQmJGtKAMDSbqVgejJJSj6q2o0NJBhpEtvj82NaHemewVQiYPxL4YQMC0Xg0AaB+xBx+nr1lbeNOxg2E2VEQ=="),
				},
				Keys: []Key{{Role: KeyRoleTarget, ID: "zmk/partner-x", Version: 1, Usage: "K0", Algo: AlgoTDES2}},
			},
		},
		{
			"L-70 dual control", 0, 4190, 6376271274, "2026-11-21T10:02:19.000417Z",
			Record{
				Action: PeerChange, Outcome: OutcomeOK, ID: mustUUID(t, "01a1fd8e-87f8-7b22-b777-d4dd1fc61c6f"), Corr: "adm-00912",
				Src: Source{Addr: "[2001:db8::15]:51544", Conn: "c-2207"},
				Actor: Actor{ID: "operator-anna", Kind: ActorOperator, Authn: AuthnCard, Roles: []string{"operator", "admin"},
					Cert: mustHash(t, "0b8ff7687d47b4fa2c37a68ac102d3bd12de49babf3cbf0de31f3e30d3a8ea87")},
				Approvals: []Approval{{"operator-raj", mustTime(t, "2026-11-21T10:01:58.2219Z"), mustUUID(t, "01a1fd8e-36cd-7041-bd17-a170e05fe66e")}},
				Change: &Change{
					Kind: ChangePeer, Object: "peer/pos-link-7", Before: mustHash(t, "6db7d803e74f1ffa7d8f5adc0bf95b3e15bf4c8373fffadf546227cc6c6742cb"),
					After: mustHash(t, "f39592393ef0859cb196a52693d2cea00fb2df784b3c04ae54aa7cadb8e562f8"),
				},
			},
		},
		{
			"L-70 log access", 0, 5087, 53037620865, "2026-11-21T23:00:00.350008Z",
			Record{
				Action: LogRead, Outcome: OutcomeOK, ID: mustUUID(t, "01a20056-86de-7f2d-927d-e37b942baad0"), Corr: "aud-00031",
				Src: Source{Addr: "10.4.0.9:49810", Conn: "c-9001"},
				Actor: Actor{ID: "auditor-lee", Kind: ActorAuditor, Authn: AuthnMTLS, Roles: []string{"auditor"},
					Cert: mustHash(t, "4f6962d2b67bc3aaf0a2f8b4018eea749d7879c83ec71b904678e7f4ccc64f8b")},
				Query: &Query{
					Cmd: QueryFind, Filter: "action=reversal.refuse since=2026-11-21T00:00:00Z term=98100019", Log: "ops-2026-11",
					First: new(int64(71002)), Last: new(int64(73901)), Rows: 14,
				},
			},
		},
	}
	stored, err := os.ReadFile("testdata/examples.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(string(stored)), "\n")
	for i, ex := range examples {
		t.Run(ex.name, func(t *testing.T) {
			m := &moment{wall: mustTime(t, ex.ts), mono: ex.mono, who: exampleIdentity(), sync: true, errUS: 412}
			d := encode(&ex.r, m, ex.shard)
			got := d.whole(ex.seq)
			if diff := cmp.Diff(lines[i], string(got)); diff != "" {
				t.Error(diff)
			}
			f, err := parseRecord([]byte(lines[i]))
			if err != nil || f.seq != uint64(ex.seq) || f.action != ex.r.Action {
				t.Errorf("parseRecord = %+v, %v", f, err)
			}
			if err := checkRecord(&ex.r, ex.shard.logID()); err != nil {
				t.Error(err)
			}
		})
	}
}

// fullRecord has every group filled, with values that their types allow.
func fullRecord(a Action, phase Phase) Record {
	id := UUID{0x01, 0xa2, 0x00, 0x3e, 0xcb, 0xc3, 0x7b, 0x86, 0xb2, 0x73, 0xff, 0x34, 0xfc, 0xe1, 0x9d, 0x6b}
	at := time.Date(2026, 11, 21, 22, 34, 5, 123456789, time.UTC)
	root := Hash(countingBytes(32))
	r := Record{
		Action: a, Phase: phase, ID: id, RC: "CKR_GENERAL_ERROR", Corr: "c-1", Trace: Trace(countingBytes(16)),
		Actor: Actor{ID: "switch-a", Kind: ActorSwitch, Authn: AuthnMTLS, Cert: root, Roles: []string{"b", "a"}}, Src: Source{"10.1.2.3:4", "c-2"},
		Keys: []Key{{KeyRoleKEK, "kek/1", 3, "A1B2C3D4E5", "K0", AlgoAES256, "D0112K0TB00E0000"}}, KSN: "FFFF9876543210E00001FFFF",
		Mech: "CKM_AES_CMAC", HSM: HSM{"S-1", "2.1", new(int64(0))}, Custody: CustodyToken, Duration: time.Millisecond, Replay: true,
		PIN: PIN{PINISO3, PINISO4}, PAN: PAN{"411111******1111", "k2:gv0DR9eyf1tnkhAjMPpPKQ", "k1:gv0DR9eyf1tnkhAjMPpPKQ"},
		ISO: ISO{"0400", "000302", "AB 1234", "000000", new(int64(0)), "156", "12345", Registered("98100019"), Name{value: "k1:eD5znYthKYZsmmO5kQfiEw"},
			Orig{"0200", "000302", "1121223405"}, "A0", "D-04", AlertFraud},
		MAC: MAC{MACCMACAES, 8, VerdictOK}, MsgTok: MsgTok{"k1:83QXLY57C9PSYhLv7AFXrA"},
		Cer:    &Cer{"cer-1", StepSign, 0, 2, 3, "Prüfung „ZMK“ \"quoted\" <&> \u2028 \\", "b", "w", 1, "c/1", "A1B2", "d", "o", "i", countingBytes(64), countingBytes(70)},
		Change: &Change{ChangeKey, "kek/1", root, root}, Approvals: []Approval{{"anna", at, id}},
		Query: &Query{QueryExport, "a=b", "sec", new(int64(0)), new(int64(9)), 10}, Trees: []Tree{{"sec", "audit.a/b/sec", 3, &root, new(int64(1))}},
		Vkeys: []string{vectorVkey}, WAL: &WALPos{1, 64, 0}, Sink: &Sink{"siem", time.Second, 5},
		Count: &Count{3, "peer-1", at, at.Add(time.Second), []CountBy{{ReasonDuplicate, 2}, {ReasonTimeout, 1}}},
		Alarm: Alarm{"disk_low", LevelWarn}, Disk: &Disk{1000, 9}, Step: &ClockStep{-time.Second}, Import: &Import{"hsm-1", root, new(int64(1)), new(int64(2)), new(int64(2))},
	}
	if phase == PhaseOutcome {
		r.Outcome, r.Ref = OutcomeOK, id
	}
	def := &actions[a]
	keep := def.needs | def.may
	if keep&groupK == 0 {
		r.Keys, r.KSN, r.Mech, r.Custody = nil, "", "", 0
	}
	if keep&(groupK|groupH) == 0 {
		r.HSM = HSM{}
	} else if keep&groupH == 0 {
		r.HSM = HSM{Serial: "S-1"}
	}
	if keep&(groupK|groupI) == 0 {
		r.Duration, r.Replay = 0, false
	}
	if keep&(groupP|groupI) == 0 {
		r.PAN = PAN{}
	}
	if keep&(groupI|groupM) == 0 {
		r.MsgTok = MsgTok{}
	}
	for _, drop := range []struct {
		g group
		f func()
	}{
		{groupP, func() { r.PIN = PIN{} }}, {groupM, func() { r.MAC = MAC{} }}, {groupI, func() { r.ISO = ISO{} }}, {groupC, func() { r.Cer = nil }},
		{groupA, func() { r.Change, r.Approvals = nil, nil }}, {groupQ, func() { r.Query = nil }}, {groupT, func() { r.Trees = nil }},
		{groupV, func() { r.Vkeys = nil }}, {groupW, func() { r.WAL = nil }}, {groupS, func() { r.Sink = nil }}, {groupN, func() { r.Count = nil }},
		{groupL, func() { r.Alarm = Alarm{} }}, {groupD, func() { r.Disk = nil }}, {groupX, func() { r.Step = nil }}, {groupH, func() { r.Import = nil }},
	} {
		if keep&drop.g == 0 {
			drop.f()
		}
	}
	if phase == PhaseIntent {
		r.Ref = UUID{}
	}
	return r
}

// shardFor returns a shard that holds an action.
func shardFor(a Action) Shard {
	if a.Log() == Ops {
		return 202611
	}
	return 0
}

func exampleMoment() *moment {
	return &moment{wall: time.Date(2026, 11, 21, 22, 34, 5, 123456789, time.UTC), mono: 1, who: exampleIdentity(), sync: true, errUS: 7}
}

// TestEveryAction is L-196: each action with all that it may have, and with
// what it needs alone, is canonical, has the schema, and is the golden file's.
func TestEveryAction(t *testing.T) {
	var got []string
	for a := Action(1); int(a) < len(actions); a++ {
		phases := []Phase{PhaseOutcome}
		if a.HasIntent() {
			phases = append(phases, PhaseIntent)
		}
		for _, phase := range phases {
			r := fullRecord(a, phase)
			if err := checkRecord(&r, shardFor(a).logID()); err != nil {
				t.Fatal(err)
			}
			d := encode(&r, exampleMoment(), shardFor(a))
			record := d.whole(12345)
			got = append(got, string(record))
			for _, s := range d.scrubs {
				if s.why != whyUnregistered {
					t.Errorf("L-74 %v: %s replaced: %v", a, s.field, s.why)
				}
			}
			if len(record) > maxRecord {
				t.Errorf("L-72 %v: %d bytes", a, len(record))
			}
			if again := recanonical(t, record); again != string(record) {
				t.Errorf("L-70 %v: not canonical: %s", a, cmp.Diff(again, string(record)))
			}
			f, err := parseRecord(record)
			if err != nil {
				t.Errorf("L-75 %v: %v in %s", a, err, record)
			} else if f.action != a || f.seq != 12345 || f.intent != (phase == PhaseIntent) {
				t.Errorf("%v: facts %+v", a, f)
			}
			withoutOptional(t, r)
			if len(a.String()) > 32 {
				t.Errorf("L-80 %v is longer than 32 characters", a)
			}
			if b, ok := ParseAction(a.String()); !ok || b != a {
				t.Errorf("L-80 ParseAction(%v) = %v, %v", a, b, ok)
			}
		}
	}
	golden(t, "testdata/actions.jsonl", strings.Join(got, "\n")+"\n")
}

// withoutOptional drops each optional group in turn.
func withoutOptional(t *testing.T, r Record) {
	t.Helper()
	may := actions[r.Action].may
	if may&groupK != 0 {
		r.Keys, r.KSN, r.Mech, r.Custody = nil, "", "", 0
	}
	if may&groupI != 0 {
		r.ISO = ISO{}
	}
	if may&groupM != 0 {
		r.MAC = MAC{}
	}
	if may&groupA != 0 {
		r.Change, r.Approvals = nil, nil
	}
	if may&groupL != 0 {
		r.Alarm = Alarm{}
	}
	record := encode(&r, exampleMoment(), shardFor(r.Action)).whole(0)
	if _, err := parseRecord(record); err != nil {
		t.Errorf("L-75 %v without optional groups: %v in %s", r.Action, err, record)
	}
}

func golden(t *testing.T, file, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Error(diff)
	}
}

// TestScrub is L-74: what fails its validator or the scanner is replaced or
// left out, and listed.
func TestScrub(t *testing.T) {
	base := func() Record {
		return Record{Action: PINTranslate, Outcome: OutcomeOK, Actor: Actor{ID: "switch-a", Kind: ActorSwitch},
			Keys: []Key{{Role: KeyRoleIn, ID: "zpk/a", Version: 1}}, PIN: PIN{PINISO0, PINISO3}}
	}
	tests := []struct {
		name   string
		change func(r *Record)
		field  string
		why    scrubWhy
		secret string // must not be in the record
	}{
		{"L-92 PAN in corr", func(r *Record) { r.Corr = "x4111111111111111" }, "corr", whyPAN, "4111111111111111"},
		{"L-92 PAN in actor", func(r *Record) { r.Actor.ID = "u-5500000000000004" }, "actor.id", whyPAN, "5500000000000004"},
		{"L-92 key in conn", func(r *Record) { r.Src.Conn = "0123456789abcdef0123456789ABCDEF" }, "src.conn", whySecret, "0123456789abcdef"},
		{"L-92 track in rrn", func(r *Record) { r.Action, r.ISO = SaleAccept, ISO{MTI: "0200", RRN: ";411111=2"} }, "iso.rrn", whyTrack, "411111=2"},
		{"L-74 not an id", func(r *Record) { r.Corr = "a b" }, "corr", whyInvalid, "a b"},
		{"L-74 too long", func(r *Record) { r.Corr = strings.Repeat("a", 129) }, "corr", whyLength, "aaa"},
		{"L-74 no actor", func(r *Record) { r.Actor = Actor{} }, "actor.id", whyInvalid, ""},
		{"L-91 KCV too long for DES", func(r *Record) { r.Keys[0].KCV, r.Keys[0].Algo = "A1B2C3D4", AlgoTDES2 }, "keys[].kcv", whyInvalid, "A1B2C3D4"},
		{"L-91 KCV of 16 digits", func(r *Record) { r.Keys[0].KCV = "0123456789ABCDEF" }, "keys[].kcv", whyInvalid, "0123456789ABCDEF"},
		{"L-91 KSN of 16 digits", func(r *Record) { r.KSN = "FFFF9876543210E0" }, "ksn", whyInvalid, "FFFF9876543210E0"},
		{"L-91 header with more", func(r *Record) { r.Keys[0].Header = "D0112K0TB00E0000AB" }, "keys[].hdr", whyInvalid, "D0112K0"},
		{"L-92 key that begins as a header does", func(r *Record) { r.Keys[0].Header = "D0123456789ABCDE" }, "keys[].hdr", whySecret, "D0123456789"},
		{"L-92 key that ends as a header does", func(r *Record) { r.Keys[0].Header = "D0123456789E0000" }, "keys[].hdr", whySecret, "D0123456789"},
		{"L-77 group that the action has not", func(r *Record) { r.MAC = MAC{MACAlg1, 8, VerdictOK} }, "mac", whyInvalid, "alg1"},
		{"L-74 group that is missing", func(r *Record) { r.PIN = PIN{} }, "pin", whyInvalid, ""},
		{"L-74 reason missing", func(r *Record) { r.Outcome = OutcomeRefused }, "reason", whyInvalid, ""},
		{"L-74 enumeration out of range", func(r *Record) { r.Custody = 9 }, "custody", whyInvalid, ""},
		{"L-70 number out of range", func(r *Record) { r.Action, r.ISO = SaleAccept, ISO{MTI: "0200", Amount: new(int64(-1))} }, "iso.amt", whyInvalid, `"amt":`},
		{"L-93 terminal not registered", func(r *Record) {
			r.Action, r.ISO = SaleRefuse, ISO{MTI: "0200", Terminal: Name{value: "k1:eD5znYthKYZsmmO5kQfiEw"}}
		}, "iso.term", whyUnregistered, ""},
		{"L-72 too many keys", func(r *Record) { r.Keys = slices.Repeat(r.Keys, 9) }, "keys", whyLength, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := base()
			tt.change(&r)
			if r.Action != PINTranslate {
				r.PIN, r.Keys = PIN{}, nil
			}
			r.ID = newUUID(time.Now())
			d := encode(&r, exampleMoment(), 202611)
			if !slices.Contains(d.scrubs, scrub{tt.field, tt.why}) {
				t.Errorf("scrubs = %v, want %s (%v)", d.scrubs, tt.field, tt.why)
			}
			record := d.whole(1)
			if tt.secret != "" && bytes.Contains(record, []byte(tt.secret)) {
				t.Errorf("record shows what it must not: %s", record)
			}
			if _, err := parseRecord(record); err != nil {
				t.Errorf("%v in %s", err, record)
			}
			if again := recanonical(t, record); again != string(record) {
				t.Error("not canonical")
			}
		})
	}
}

// TestHeader: a header whose characters are all hexadecimal is no key (L-91).
func TestHeader(t *testing.T) {
	for _, header := range []string{"D0112K0TB00E0000", "D0144D0AB00E0000", "B0080E0DE00E0000", "D0112M1TC00N0200"} {
		r := fullRecord(KeyImport, PhaseOutcome)
		r.Keys[0].Header = header
		if d := encode(&r, exampleMoment(), 0); len(d.scrubs) > 0 || !bytes.Contains(d.pre, []byte(`"hdr":"`+header+`"`)) {
			t.Errorf("%s: scrubs %v", header, d.scrubs)
		}
	}
}

func TestText(t *testing.T) {
	r := fullRecord(CeremonyOpen, PhaseOutcome)
	r.Cer.Purpose = strings.Repeat("ü", 200)
	d := encode(&r, exampleMoment(), 0)
	if !slices.Contains(d.scrubs, scrub{"cer.purpose", whyLength}) || !bytes.Contains(d.pre, []byte(`"purpose":"`+strings.Repeat("ü", 128)+`"`)) {
		t.Errorf("L-72: text is not cut at a character: %s", d.pre)
	}
	for _, bad := range []string{"a\x00b", "a\u0085b", "\xff", "a\nb"} {
		r.Cer.Purpose = bad
		if d := encode(&r, exampleMoment(), 0); !slices.Contains(d.scrubs, scrub{"cer.purpose", whyUTF8}) {
			t.Errorf("L-74: %q was written", bad)
		}
	}
}

// TestLargest is L-72: a record whose members are all as long as they may be.
func TestLargest(t *testing.T) {
	long := strings.Repeat("a", 128)
	for a := Action(1); int(a) < len(actions); a++ {
		r := fullRecord(a, PhaseOutcome)
		r.RC, r.Corr, r.Src = long, long, Source{long, long}
		r.Actor.ID, r.Actor.Roles = long, slices.Repeat([]string{long}, 20)
		if r.Keys != nil {
			r.Keys[0].ID = long
			r.Keys = slices.Repeat(r.Keys, 20)
			r.Mech = long
		}
		if c := r.Cer; c != nil {
			c.ID, c.Custodian, c.Witness, c.ComponentID, c.Device, c.BagOut, c.BagIn = long, long, long, long, long, long, long
			c.Purpose, c.Sig, c.WitnessSig = strings.Repeat(`"`, 300), make([]byte, 512), make([]byte, 512)
		}
		if r.Approvals != nil {
			r.Approvals[0].ID = long
			r.Approvals = slices.Repeat(r.Approvals, 20)
			r.Change.Object = long
		}
		if r.Trees != nil {
			r.Trees[0].Origin = long
			r.Trees = slices.Repeat(r.Trees, 20)
		}
		if r.Vkeys != nil {
			r.Vkeys = slices.Repeat(r.Vkeys, 20)
		}
		if r.Query != nil {
			r.Query.Filter = strings.Repeat(`\`, 600)
		}
		if r.Count != nil {
			r.Count.By = slices.Repeat(r.Count.By, 100)
		}
		record := encode(&r, exampleMoment(), shardFor(a)).whole(maxInt)
		if len(record) > maxRecord {
			t.Errorf("L-72 %v: %d bytes", a, len(record))
		}
		if _, err := parseRecord(record); err != nil {
			t.Errorf("L-72 %v: %v", a, err)
		}
	}
}

// TestStatement is L-76: what is signed is the record without seq and
// signatures, whatever happens between signing and appending.
func TestStatement(t *testing.T) {
	o, err := testOptions().withDefaults()
	if err != nil {
		t.Fatal(err)
	}
	l := &Log{o: o, started: time.Now()}
	l.identify()
	r := fullRecord(CeremonySign, PhaseOutcome)
	r.ID, r.Cer.Sig, r.Cer.WitnessSig = UUID{}, nil, nil
	st, err := l.Statement(&r)
	if err != nil {
		t.Fatal(err)
	}
	l.SetCfg(Hash{1})
	key := testSigner()
	r.Cer.Sig = ed25519.Sign(key, st)
	r.Cer.WitnessSig = ed25519.Sign(key, st)
	var v map[string]any
	dec := json.NewDecoder(bytes.NewReader(l.describe(&r, Sec).whole(77)))
	dec.UseNumber()
	if err := dec.Decode(&v); err != nil {
		t.Fatal(err)
	}
	delete(v, "seq")
	cer := v["cer"].(map[string]any)
	delete(cer, "sig")
	delete(cer, "witness_sig")
	if diff := cmp.Diff(string(st), jcs(v)); diff != "" {
		t.Error(diff)
	}
}

// TestScanner is L-92 and L-197.
func TestScanner(t *testing.T) {
	tests := []struct {
		s    string
		want scrubWhy
	}{
		{"4111111111111111", whyPAN},
		{"x4111111111111111y", whyPAN},
		{"4111 1111 1111 1111", whyPAN},
		{"4111-1111-1111-1111", whyPAN},
		{"id:4222222222222", whyPAN},                    // 13 digits
		{"6304000000000000000", whyPAN},                 // 19 digits
		{"374245455400126", whyPAN},                     // 15 digits
		{"004111111111111111100", whyPAN},               // hidden in a longer run
		{"4111111111111112", whySecret},                 // fails Luhn, but is 16 hexadecimal digits
		{"411111111111112", 0},                          // 15 digits, fails Luhn
		{"411111111111", 0},                             // 12 digits
		{"411111******1111", 0},                         // truncated
		{"4111  1111  1111  1111", 0},                   // two spaces end a run
		{"2026-11-21T22:34:05", 0},                      // a time
		{"01a2003e-cbc3-7b86-b273-ff34", 0},             // a UUID's groups
		{";4111=2512", whyTrack},                        // track 2
		{"%B4111^NAME", whyTrack},                       // track 1
		{"%b4111^NAME", whyTrack},                       //
		{";4111D2512", whyTrack},                        // track 2 with the binary separator
		{"a;b=c", 0},                                    // no digits
		{";12", 0},                                      // no separator
		{"0123456789abcdef", whySecret},                 // 8 bytes
		{"0123456789ABCDEFFEDCBA9876543210", whySecret}, // 16 bytes
		{strings.Repeat("ab", 24), whySecret},
		{strings.Repeat("ab", 32), whySecret},
		{strings.Repeat("ab", 20), 0}, // 20 bytes: a SHA-1
		{"0123456789abcde", 0},        // 15 digits
		{"0123456789abcdef0", 0},      // 17 digits
		{"", 0},
		{"switch-a", 0},
	}
	for _, tt := range tests {
		t.Run("L-92 "+tt.s, func(t *testing.T) {
			if got := scan(tt.s); got != tt.want {
				t.Errorf("scan = %v, want %v", got, tt.want)
			}
		})
	}
}

func TestTruncatePAN(t *testing.T) {
	tests := []struct {
		pan    string
		first8 bool
		want   string
	}{
		{"4111111111111111", false, "411111******1111"},
		{"4111111111111111", true, "41111111****1111"},
		{"6304000000000000000", false, "630400*********0000"},
		{"6304000000000000000", true, "63040000*******0000"},
		{"378282246310005", true, "378282*****0005"},
		{"4222222222222", false, "4222*****2222"},
		{"12345678", false, "*****678"},
		{"1234567", false, ""},
		{"12345678901234567890", false, ""},
		{"411111111111111a", false, ""},
	}
	for _, tt := range tests {
		t.Run("L-101 of "+fmt.Sprint(len(tt.pan))+" digits", func(t *testing.T) {
			got := truncatePAN([]byte(tt.pan), tt.first8)
			if got != tt.want {
				t.Errorf("truncatePAN = %s, want %s", got, tt.want)
			}
			if got != "" && !isTruncatedPAN(got) {
				t.Errorf("%s is refused by its own type", got)
			}
		})
	}
}
