package main

import (
	"cmp"
	"errors"
	"fmt"
	"strings"
	"time"

	"keyd.dev/keyd/internal/sim"
)

// row is one kind of request to the API.
type row struct {
	name, path string
	bodies     [][]byte
	calls      float64 // uses of a key in the token, each
	hold       *hold   // nil: none
}

// hold is what a row has to reach on a machine of two processors, with the load
// generator and the durable log on it.
type hold struct {
	perSecond float64
	p99       time.Duration // 0: any
	ofEcho    float64
}

// The names of the rows that have a hold.
const (
	rowPIN  = "API: PIN translation, TDES DUKPT to zone key"
	rowCMAC = "API: MAC generation, AES-CMAC, 200 bytes"
)

// rows are the requests of the data plane that are measured.
func (b *bench) rows() ([]row, error) {
	pins, err := b.pinRequests()
	if err != nil {
		return nil, err
	}
	cmac, err := b.cmacKey()
	if err != nil {
		return nil, err
	}
	return []row{
		// Two for the initial key, one for the zone key, one for the PAN's token.
		{rowPIN, "/pindata/translate", pins, 4, &hold{10_000, 15 * time.Millisecond, 0.25}},
		{rowCMAC, "/mac/generate", [][]byte{macRequest(cmac, `{"Algorithm":"CMAC"}`)}, 1, &hold{15_000, 0, 0.25}},
		{"API: MAC generation, algorithm 3, 200 bytes", "/mac/generate", [][]byte{macRequest(aliasZAK, `{"Algorithm":"ISO9797_ALGORITHM3"}`)}, 2, nil},
		{"API: MAC generation, AES DUKPT CMAC, 200 bytes", "/mac/generate", [][]byte{macRequest(aliasBDKAES,
			`{"DukptCmac":{"KeySerialNumber":"123456789012345600000001","DukptKeyVariant":"RESPONSE","DukptDerivationType":"AES_128"}}`)}, 1, nil},
	}, nil
}

// operations measures the data plane.
func (b *bench) operations() error {
	rows, err := b.rows()
	if err != nil {
		return err
	}
	for _, r := range rows {
		if !b.wants(r.name) {
			continue
		}
		f, err := b.requests(r.name, b.apiHost(), r.path, r.bodies, b.dev.PID)
		if err != nil {
			return err
		}
		f.OfLayer, f.Layer = f.PerSecond/b.echoPS, "echo"
		if b.tokenPS > 0 {
			f.Layer += fmt.Sprintf("; %.2f of the token's limit", f.PerSecond*r.calls/b.tokenPS)
		}
		b.add(f)
		if r.hold != nil {
			b.verdicts = append(b.verdicts, r.hold.check(f)...)
		}
	}
	return nil
}

// judged says whether a hold was reached.
type judged struct {
	Hold string `json:"hold"`
	Got  string `json:"got"`
	Met  bool   `json:"met"`
}

// check compares a row with its hold.
func (h *hold) check(f figure) []judged {
	all := []judged{
		{fmt.Sprintf("%s: at least %.0f/s", f.Name, h.perSecond), fmt.Sprintf("%.0f/s", f.PerSecond), f.PerSecond >= h.perSecond},
	}
	if h.ofEcho > 0 {
		all = append(all, judged{fmt.Sprintf("%s: at least %.2f of the echo", f.Name, h.ofEcho), fmt.Sprintf("%.2f", f.OfLayer), f.OfLayer >= h.ofEcho})
	}
	if h.p99 > 0 {
		all = append(all, judged{fmt.Sprintf("%s: p99 at most %v", f.Name, h.p99), f.P99.Round(10 * time.Microsecond).String(), f.P99 <= h.p99})
	}
	return all
}

// wants reports whether a row is to be measured.
func (b *bench) wants(name string) bool {
	return strings.Contains(strings.ToLower(name), strings.ToLower(b.Only))
}

func (b *bench) apiHost() string { return strings.TrimPrefix(b.dev.APIURL, "https://") }

func macRequest(key, attributes string) []byte {
	return []byte(`{"KeyIdentifier":"` + key + `","MessageData":"` + strings.Repeat("30", 200) + `","GenerationAttributes":` + attributes + `,"MacLength":8}`)
}

// cmacKey makes a key of AES-CMAC, through the API as any administrator would.
func (b *bench) cmacKey() (string, error) {
	d, err := (&doorFlags{Dev: b.devDir(), As: "admin"}).open()
	if err != nil {
		return "", err
	}
	var made struct{ Key struct{ KeyArn string } }
	err = d.aws(b.p.ctx, "CreateKey", map[string]any{"Exportable": false, "KeyAttributes": map[string]any{
		"KeyUsage": "TR31_M6_ISO_9797_5_CMAC_KEY", "KeyClass": "SYMMETRIC_KEY", "KeyAlgorithm": "AES_128",
		"KeyModesOfUse": map[string]bool{"Generate": true, "Verify": true},
	}}, &made)
	if err == nil && made.Key.KeyArn == "" {
		err = errors.New("the answer names no key")
	}
	if err != nil {
		return "", fmt.Errorf("making a key of AES-CMAC: %w", err)
	}
	return made.Key.KeyArn, nil
}

// pinRequests are translations of different devices, counters and cards.
func (b *bench) pinRequests() ([][]byte, error) {
	var bodies [][]byte
	for _, fixed := range b.dev.Terminals[3:] {
		t, err := sim.NewTerminal(sim.TerminalConfig{TID: fixed.TID, MID: fixed.MID, BDK: b.dev.TestKeys[fixed.BDK], KSN: fixed.KSN}, 0)
		if err != nil {
			return nil, err
		}
		for range 8 {
			pan := fmt.Sprintf("541333%010d", 7919*len(bodies))
			sale, err := t.Sale(demoAmountTDES, sim.Card{PAN: pan, PIN: testPIN}, nil)
			if err != nil {
				return nil, err
			}
			bodies = append(bodies, fmt.Appendf(nil, `{"IncomingKeyIdentifier":"alias/dev/bdk-tdes","OutgoingKeyIdentifier":"alias/dev/zpk",`+
				`"IncomingTranslationAttributes":{"IsoFormat0":{"PrimaryAccountNumber":"%[1]s"}},"OutgoingTranslationAttributes":{"IsoFormat0":{"PrimaryAccountNumber":"%[1]s"}},`+
				`"EncryptedPinBlock":"%[2]s","IncomingDukptAttributes":{"KeySerialNumber":"%[3]s","DukptKeyDerivationType":"TDES_2KEY"}}`,
				pan, sale.Message.Text(52), sale.KSN))
		}
	}
	return bodies, nil
}

// requests posts the bodies in turn over the connections, each of which waits
// for its answer.
func (b *bench) requests(name, host, path string, bodies [][]byte, server int) (figure, error) {
	f := load(name, b.Connections, b.Duration, server, b.poster(host, path, bodies))
	if f.Failed > 0 {
		return f, fmt.Errorf("%s: %d connections failed", name, f.Failed)
	}
	return f, nil
}

// poster prepares a worker: a connection of its own, which begins at another
// body than its neighbours.
func (b *bench) poster(host, path string, bodies [][]byte) func(int) (worker, error) {
	config, err := devTLS(b.dev, "switch")
	whole := make([][]byte, len(bodies))
	for i, body := range bodies {
		whole[i] = requestOf(host, path, body)
	}
	return func(n int) (worker, error) {
		if err != nil {
			return worker{}, err
		}
		conn, err := dialHTTP(b.p.ctx, host, config)
		if err != nil {
			return worker{}, err
		}
		next := n * cmp.Or(len(whole)/b.Connections, 1)
		return worker{end: conn.close, op: func() error {
			next++
			return conn.send(whole[next%len(whole)])
		}}, nil
	}
}
