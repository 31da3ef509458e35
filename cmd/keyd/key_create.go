package main

import (
	"fmt"
	"strings"

	"keyd.dev/keyd/keys"
)

type keyCreateCmd struct {
	doorFlags
	Usage      string   `required:"" placeholder:"CODE" help:"Two characters of X9.143: P0 PIN, M3 or M6 MAC, B0 base derivation, K0 key encryption."`
	Algorithm  string   `required:"" placeholder:"NAME" help:"TDES_2KEY, TDES_3KEY, AES_128, AES_192, AES_256, HMAC_SHA256 and its kin."`
	Mode       string   `required:"" placeholder:"CODE" help:"B both, E encipher, D decipher, C generate and verify, G generate, V verify, X derive, N any."`
	Exportable bool     `help:"The key may leave under a key encryption key."`
	Alias      string   `placeholder:"ALIAS" help:"Name it, alias/NAME."`
	Tag        []string `placeholder:"NAME=VALUE" sep:"none" help:"A tag; those that begin with keyd: are its policy. May be given several times."`
	Stopped    bool     `help:"It is not to be used until it is started."`
}

// modeMembers are the members of KeyModesOfUse that a mode sets.
var modeMembers = map[string][]string{
	"B": {"Encrypt", "Decrypt", "Wrap", "Unwrap"}, "E": {"Encrypt", "Wrap"}, "D": {"Decrypt", "Unwrap"},
	"C": {"Generate", "Verify"}, "G": {"Generate"}, "V": {"Verify"}, "S": {"Sign"}, "X": {"DeriveKey"}, "N": {"NoRestrictions"},
}

// Run makes a key in the token of the daemon.
func (c *keyCreateCmd) Run(p *program) error {
	body, err := c.body()
	if err != nil {
		return err
	}
	d, err := c.open()
	if err != nil {
		return err
	}
	var out struct{ Key keyAnswer }
	if err := d.aws(p.ctx, "CreateKey", body, &out); err != nil {
		return err
	}
	if c.Alias != "" {
		err := d.aws(p.ctx, "CreateAlias", map[string]any{"AliasName": c.Alias, "KeyArn": out.Key.KeyArn}, nil)
		if err != nil {
			return advise(err, "the key was made and has no name: `keyd key alias add ALIAS %s`", out.Key.KeyArn)
		}
	}
	_, err = fmt.Fprintf(p.stdout, "%s: check value %s, %s\n", out.Key.KeyArn, out.Key.KeyCheckValue, out.Key.state())
	return err
}

func (c *keyCreateCmd) body() (map[string]any, error) {
	usage := keys.Usage(c.Usage).Name()
	if usage == "" {
		return nil, usageError("--usage=%s is not a usage that keyd serves", c.Usage)
	}
	if _, err := keys.ParseAlgorithm(c.Algorithm); err != nil {
		return nil, usageError("--algorithm=%s is not an algorithm that keyd makes", c.Algorithm)
	}
	modes, ok := modeMembers[c.Mode]
	if !ok {
		return nil, usageError("--mode=%s is not a mode of X9.143", c.Mode)
	}
	tags, err := tagPairs(c.Tag)
	if err != nil {
		return nil, err
	}
	flags := make(map[string]bool)
	for _, member := range modes {
		flags[member] = true
	}
	return map[string]any{
		"KeyAttributes": map[string]any{"KeyUsage": usage, "KeyClass": "SYMMETRIC_KEY", "KeyAlgorithm": c.Algorithm, "KeyModesOfUse": flags},
		"Exportable":    c.Exportable, "Enabled": !c.Stopped, "Tags": tags,
	}, nil
}

// tagPairs reads NAME=VALUE texts.
func tagPairs(texts []string) ([]map[string]string, error) {
	list := []map[string]string{}
	for _, text := range texts {
		name, value, ok := strings.Cut(text, "=")
		if !ok || name == "" {
			return nil, usageError("%q: a tag is NAME=VALUE", text)
		}
		list = append(list, map[string]string{"Key": name, "Value": value})
	}
	return list, nil
}
