package main

import (
	"encoding/json"
	"os"
)

// Names of files in the folder of a development daemon, beside those of
// devDir.config.
const (
	devBook = "issuer-book.jsonl"
	devVkey = "audit.vkey"
)

// devReport is dev.json (W-12): how to reach the daemon, and its test keys.
// Paths are absolute.
type devReport struct {
	APIURL     string               `json:"api_url"`
	SwitchAddr string               `json:"switch_addr"`
	UnionPay   string               `json:"unionpay_addr,omitempty"` // where UnionPay terminals are let in
	OpsAddr    string               `json:"ops_addr"`
	CACert     string               `json:"ca_cert"`
	Config     string               `json:"config"`
	AuditDir   string               `json:"audit_dir"`
	AuditVkey  string               `json:"audit_vkey"`
	Region     string               `json:"region"`
	Account    string               `json:"account"`
	Clients    map[string]devClient `json:"clients"`
	Issuer     devIssuer            `json:"issuer"`
	TestKeys   map[string]string    `json:"test_keys"`
	Terminals  []testTerminal       `json:"terminals"`
	PID        int                  `json:"pid"`
}

// devClient is a client certificate.
type devClient struct {
	Cert  string   `json:"cert"`
	Key   string   `json:"key"`
	Roles []string `json:"roles"`
}

// devIssuer is where keyd connects to, and the certificate for an issuer there.
type devIssuer struct {
	Addr string `json:"addr"`
	Cert string `json:"cert"`
	Key  string `json:"key"`
	Book string `json:"book"`
}

// report describes the daemon of a configuration.
func (d *devDir) report(cfg *configFile) devReport {
	r := devReport{
		APIURL:     "https://" + cfg.API.Listen,
		SwitchAddr: cfg.Switch.Listen,
		UnionPay:   cfg.unionPayAddr(),
		OpsAddr:    cfg.Ops.Listen,
		CACert:     d.file("pki", "ca.pem"),
		Config:     cfg.path,
		AuditDir:   cfg.Audit.Dir,
		AuditVkey:  d.file(devVkey),
		Region:     cfg.API.Region,
		Account:    cfg.API.Account,
		Clients:    make(map[string]devClient),
		Issuer: devIssuer{
			Addr: *cfg.issuerAddr(), Cert: d.file("pki", "issuer.pem"), Key: d.file("pki", "issuer.key"), Book: d.file(devBook),
		},
		TestKeys:  make(map[string]string),
		Terminals: testTerminals(),
		PID:       os.Getpid(),
	}
	for _, c := range devClients() {
		r.Clients[c.Name] = devClient{Cert: d.file("pki", c.Name+".pem"), Key: d.file("pki", c.Name+".key"), Roles: c.Roles}
	}
	for _, k := range testKeys() {
		r.TestKeys[k.alias] = k.value
	}
	if r.UnionPay == "" {
		return r
	}
	r.Terminals = append(r.Terminals, masterTerminals()...)
	for _, k := range masterKeys() {
		r.TestKeys[k.alias] = k.value
	}
	return r
}

// writeJSON writes dev.json at once as a whole: who finds it finds all of it.
func (d *devDir) writeJSON(cfg *configFile) error {
	text, err := json.MarshalIndent(d.report(cfg), "", "  ")
	if err != nil {
		return err
	}
	return writeFile(d.file("dev.json"), append(text, '\n'), 0o600)
}
