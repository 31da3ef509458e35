package main

import (
	"fmt"
	"strings"
	"time"

	"keyd.dev/keyd/internal/custody"
)

type keyCmd struct {
	Ls      keyLsCmd      `cmd:"" help:"List the keys: what they are and may do, never their values."`
	Create  keyCreateCmd  `cmd:"" help:"Make a key in the token."`
	Show    keyShowCmd    `cmd:"" help:"Print what a key is, its dates, versions, counters and limits."`
	Start   keyStartCmd   `cmd:"" help:"Let a key be used again."`
	Stop    keyStopCmd    `cmd:"" help:"End the use of a key at once."`
	Delete  keyDeleteCmd  `cmd:"" help:"Stop a key and have it destroyed after some days."`
	Restore keyRestoreCmd `cmd:"" help:"Take a deletion back; the key stays stopped."`
	Rotate  keyRotateCmd  `cmd:"" help:"Put a new version in the place of a key, under the same names."`
	Tag     keyTagCmd     `cmd:"" help:"Set tags of a key."`
	Untag   keyUntagCmd   `cmd:"" help:"Take tags of a key away."`
	Alias   keyAliasCmd   `cmd:"" help:"The names of keys."`

	Import       keyImportCmd       `cmd:"" help:"Take a key in from outside."`
	Export       keyExportCmd       `cmd:"" help:"Let a key out under another key."`
	ImportParams keyImportParamsCmd `cmd:"" help:"Make a wrapping certificate under which partners send keys in."`
	CSR          keyCSRCmd          `cmd:"" name:"csr" help:"Ask for a signing request of the key that issues wrapping certificates."`
	Certificate  keyCertificateCmd  `cmd:"" help:"Get or install the certificate of that key."`
}

type keyLsCmd struct {
	Config string `required:"" placeholder:"FILE" help:"The configuration, TOML."`
	JSON   bool   `help:"Print JSON lines."`
}

// keyLine is a key as it is printed.
type keyLine struct {
	ID            string   `json:"id"`
	Aliases       []string `json:"aliases"`
	Usage         string   `json:"usage"`
	Algorithm     string   `json:"algorithm"`
	Mode          string   `json:"mode"`
	Exportability string   `json:"exportability"`
	KCV           string   `json:"kcv"`
	State         string   `json:"state"`
	Enabled       bool     `json:"enabled"`
	Created       string   `json:"created"`
}

// Run lists the keys of the database, also beside a running daemon. What it
// shows is not secret.
func (c *keyLsCmd) Run(p *program) error {
	cfg, err := loadConfig(c.Config)
	if err != nil {
		return err
	}
	db, err := visitStore(p.ctx, cfg)
	if err != nil {
		return err
	}
	defer db.Close()
	out := newTable(p.stdout, c.JSON, "ID", "ALIAS", "USAGE", "ALGORITHM", "MODE", "EXPORT", "KCV", "STATE", "CREATED")
	q := custody.KeyQuery{Limit: 1000}
	for {
		page, err := db.Keys(p.ctx, q)
		if err != nil {
			return err
		}
		for _, k := range page {
			line := lineOf(k)
			out.row(line, line.ID, strings.Join(line.Aliases, ","), line.Usage, line.Algorithm, line.Mode,
				line.Exportability, line.KCV, stateOf(line), line.Created)
			q.After = k.Block.ID
		}
		if len(page) < q.Limit {
			return out.flush()
		}
	}
}

func lineOf(k custody.KeyRecord) keyLine {
	b := k.Block
	aliases := k.Aliases
	if aliases == nil {
		aliases = []string{}
	}
	return keyLine{
		ID: string(b.ID), Aliases: aliases, Usage: string(b.Attributes.Usage), Algorithm: b.Attributes.Algorithm.String(),
		Mode: string(rune(b.Attributes.Mode)), Exportability: string(rune(b.Attributes.Exportability)),
		KCV: fmt.Sprintf("%X", b.Check[:]), State: string(k.State), Enabled: k.Enabled,
		Created: time.UnixMilli(b.CreatedMs).UTC().Format(time.RFC3339),
	}
}

func stateOf(k keyLine) string {
	if !k.Enabled {
		return k.State + " (disabled)"
	}
	return k.State
}
