package main

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"keyd.dev/keyd/internal/hsm"
	"keyd.dev/keyd/internal/secret"
)

// operation is something that keyd does with keys, and what it takes of a
// module to do it without a clear secret in the process.
type operation struct {
	name string
	// needs are the functions without which no clear secret can stay inside.
	needs []hsm.Function
	// seen: keyd does it in the process unless a key's policy demands otherwise.
	seen bool
	// never says why it cannot be done inside, whatever the module.
	never string
	// binds: no policy forbids it; a policy binds what is done with the key later.
	binds bool
	note  func(hsm.Info) string
}

// The custody classes of the table.
const (
	classToken   = "token"
	classProcess = "process"
	classRefused = "refused"
)

// operations are what keyd does with keys.
func operations() []operation {
	return []operation{
		{name: "MAC, ISO 9797-1 algorithms 1 and 3, stored key", needs: []hsm.Function{hsm.TDES}},
		{name: "MAC of UnionPay terminals, stored key", needs: []hsm.Function{hsm.TDES}},
		{name: "CMAC, AES, stored key", needs: []hsm.Function{hsm.AESCMAC}},
		{name: "CMAC, TDES, stored key", needs: []hsm.Function{hsm.TDES}, note: func(i hsm.Info) string {
			if i.Can(hsm.TDESCMAC) {
				return ""
			}
			return "chained by keyd: the CMAC's two subkeys are in the process, the key is not"
		}},
		{name: "HMAC, SHA-224", needs: []hsm.Function{hsm.HMAC224}},
		{name: "HMAC, SHA-256", needs: []hsm.Function{hsm.HMAC256}},
		{name: "HMAC, SHA-384", needs: []hsm.Function{hsm.HMAC384}},
		{name: "HMAC, SHA-512", needs: []hsm.Function{hsm.HMAC512}},
		{name: "MAC under AES DUKPT", needs: []hsm.Function{hsm.DeriveECB, hsm.AESCMAC}, seen: true},
		{name: "MAC under TDES DUKPT", never: "the walk is in the process"},
		{name: "PIN translation, formats 0, 1, 3, same format and PAN", needs: []hsm.Function{hsm.ReencipherTDES}, seen: true},
		{name: "PIN translation, format 4, same PAN", needs: []hsm.Function{hsm.ReencipherAES}, seen: true},
		{name: "PIN translation, the same with a side under AES DUKPT", needs: []hsm.Function{hsm.ReencipherAES, hsm.DeriveECB}, seen: true},
		{name: "PIN translation, a side under TDES DUKPT", never: "the walk is in the process"},
		{name: "PIN translation, the format changes", never: "the PIN is in the process"},
		{name: "data, stored TDES key", needs: []hsm.Function{hsm.TDES}},
		{name: "data, stored AES key", needs: []hsm.Function{hsm.AES}},
		{name: "data under AES DUKPT", needs: []hsm.Function{hsm.DeriveECB}, seen: true},
		{name: "data under TDES DUKPT", never: "the walk is in the process"},
		{name: "data from one key to another", never: "the plain text is in the process between the two"},
		{name: "PIN translation and data, a key in a key block", never: "the block authenticates the clear key"},
		{name: "key generation", needs: []hsm.Function{hsm.KeyWrap}},
		{name: "key generation, TDES BDK and algorithm 3", never: "they are two objects, made of one value"},
		{name: "key import from components", never: "the components are in the process; a policy binds the key from then on", binds: true},
		{name: "key check value", needs: []hsm.Function{hsm.KeyWrap}},
		{name: "signature of the audit log", needs: []hsm.Function{hsm.P256}, note: func(i hsm.Info) string {
			if i.Can(hsm.Ed25519) {
				return "Ed25519"
			}
			return "ECDSA P-256"
		}},
	}
}

// custodyRow is an operation at the module at hand.
type custodyRow struct {
	Operation string `json:"operation"`
	Any       string `json:"any"`   // custody class under keyd:custody = any, the default
	Token     string `json:"token"` // under keyd:custody = token: token or refused
	Note      string `json:"note,omitempty"`
}

func (o *operation) at(info hsm.Info) custodyRow {
	row := custodyRow{Operation: o.name, Any: classToken, Token: classToken}
	if o.note != nil {
		row.Note = o.note(info)
	}
	var missing []string
	for _, f := range o.needs {
		if !info.Can(f) {
			missing = append(missing, string(f))
		}
	}
	switch {
	case o.never != "":
		row.Any, row.Token, row.Note = classProcess, classRefused, o.never
	case len(missing) > 0:
		row.Any, row.Token, row.Note = classRefused, classRefused, "the module lacks: "+strings.Join(missing, "; ")
	}
	if o.seen {
		row.Any = classProcess
	}
	if o.binds {
		row.Token = row.Any
	}
	return row
}

// tokenReport is what `keyd doctor --token` has found.
type tokenReport struct {
	Module     string           `json:"module"`
	Library    string           `json:"library"`
	Label      string           `json:"label"`
	Model      string           `json:"model"`
	SelfTest   string           `json:"self_test"`
	Operations []custodyRow     `json:"operations"`
	Functions  []functionReport `json:"functions"`
	Findings   []string         `json:"findings"`
}

type functionReport struct {
	Function hsm.Function `json:"function"`
	Works    bool         `json:"works"`
	Answer   string       `json:"answer,omitempty"`
}

// token opens the token, which tries what its module can, and prints what
// follows from it. Unlike the other checks it logs in.
func (c *doctorCmd) token(p *program) (err error) {
	token, err := c.openAny(p)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, token.Close()) }()
	report := newTokenReport(token.Info())
	if c.JSON {
		return json.NewEncoder(p.stdout).Encode(report)
	}
	return report.print(p)
}

// openAny opens the token of the configuration, or a new one of SoftHSM that
// nobody keeps.
func (c *doctorCmd) openAny(p *program) (*hsm.Token, error) {
	if c.Config == "" {
		return openThrowaway()
	}
	cfg, err := loadConfig(c.Config)
	if err != nil {
		return nil, err
	}
	return openToken(p.ctx, cfg, newLogger(p.stderr, "error"), newMetrics())
}

func openThrowaway() (_ *hsm.Token, err error) {
	module, err := findModule("")
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "keyd-doctor-")
	if err != nil {
		return nil, err
	}
	// SoftHSM has read what it needs once the token is open.
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	conf, err := hsm.WriteSoftHSMConfig(filepath.Join(dir, "softhsm"))
	if err != nil {
		return nil, err
	}
	if err := setEnvironment(map[string]string{"SOFTHSM2_CONF": conf}); err != nil {
		return nil, err
	}
	var digits [16]byte
	_, _ = rand.Read(digits[:]) // it never fails
	pin := func() (secret.Bytes, error) { return secret.From([]byte(hex.EncodeToString(digits[:]))), nil }
	value, _ := pin()
	const label = "keyd-doctor"
	if err := hsm.InitToken(module, label, value, value); err != nil {
		return nil, err
	}
	return hsm.Open(hsm.Config{Module: module, TokenLabel: label, PIN: pin})
}

func newTokenReport(info hsm.Info) *tokenReport {
	r := &tokenReport{
		Module: info.Module, Library: info.Library, Label: info.Label, Model: info.Model,
		SelfTest: info.SelfTest.String(), Findings: append([]string{}, info.Findings...),
	}
	for _, o := range operations() {
		r.Operations = append(r.Operations, o.at(info))
	}
	for _, t := range info.Trials {
		r.Functions = append(r.Functions, functionReport(t))
	}
	return r
}

func (r *tokenReport) print(p *program) error {
	fmt.Fprintf(p.stdout, "module    %s (%s)\ntoken     %q, %s\nself-test %s\n\n", r.Module, r.Library, r.Label, r.Model, r.SelfTest)
	ops := newTable(p.stdout, false, "OPERATION", "CUSTODY ANY", "CUSTODY TOKEN", "")
	for _, row := range r.Operations {
		ops.row(nil, row.Operation, row.Any, row.Token, row.Note)
	}
	if err := ops.flush(); err != nil {
		return err
	}
	fmt.Fprintln(p.stdout)
	functions := newTable(p.stdout, false, "FUNCTION, TRIED", "WORKS", "")
	for _, f := range r.Functions {
		functions.row(nil, string(f.Function), map[bool]string{true: "yes", false: "no"}[f.Works], f.Answer)
	}
	if err := functions.flush(); err != nil {
		return err
	}
	if len(r.Findings) > 0 {
		fmt.Fprintln(p.stdout, "\nThe module does not enforce what its objects say: whoever has its session gets past keyd.")
	}
	for _, finding := range slices.Sorted(slices.Values(r.Findings)) {
		fmt.Fprintf(p.stdout, "  it %s\n", finding)
	}
	return nil
}
