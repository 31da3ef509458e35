package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"keyd.dev/keyd/internal/ceremony"
)

type ceremonyRunCmd struct {
	Script     string            `arg:"" placeholder:"FILE" help:"The script, TOML."`
	Credential []string          `sep:"none" placeholder:"NAME=CERT,KEY" help:"A custodian's certificate and key, PEM; asked for where it is missing. May be repeated."`
	Identity   map[string]string `placeholder:"NAME=FILE" help:"age identities that open the file with a custodian's component. May be repeated."`
	Config     string            `placeholder:"FILE" help:"Make a new node of this configuration; for ceremonies of kind lmk alone."`
	doorFlags
}

// transcriptWait bounds the fetching of the transcript after an interrupt.
const transcriptWait = 10 * time.Second

// Run holds a ceremony at one terminal.
func (c *ceremonyRunCmd) Run(p *program) (err error) {
	f, err := readCeremony(c.Script)
	if err != nil {
		return err
	}
	if (f.script.Kind == ceremony.LMK) != (c.Config != "") {
		return usageError("--config is for ceremonies of kind lmk, and they need it: they make the node that it describes")
	}
	if err := ceremony.Absent(f.outputs()...); err != nil {
		return err
	}
	ctx, stop, err := atTerminal(p)
	if err != nil {
		return err
	}
	defer stop()
	terminal, err := ceremony.OpenTerminal()
	if err != nil {
		return err
	}
	defer terminal.Close()
	if c.Config != "" {
		found, err := newFoundation(ctx, p, c)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, found.close(context.WithoutCancel(ctx))) }()
	}
	people, err := c.people(ctx, terminal, f.script)
	if err != nil {
		return ceremonyError(err)
	}
	opener, err := c.ceremonies()
	if err != nil {
		return err
	}
	return c.hold(ctx, p, f, terminal, opener, people)
}

// hold opens the ceremony, holds it, and writes the outputs, however it ended.
func (c *ceremonyRunCmd) hold(ctx context.Context, p *program, f *ceremonyFile, terminal *ceremony.Terminal, opener *ceremony.Client, people []*ceremony.Person) error {
	status, err := opener.Open(ctx, f.text, f.list)
	if err != nil {
		return err
	}
	desk := &ceremony.Desk{Terminal: terminal, ID: status.ID, Script: f.script.Digest()}
	end, err := desk.Hold(ctx, people)
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), transcriptWait)
	defer cancel()
	result, fetched := opener.Result(last, status.ID)
	if fetched == nil {
		var base string
		if base, fetched = f.write(result); fetched == nil {
			terminal.Say("transcript: %s.json and %s.txt", base, base)
		}
	}
	if err != nil {
		if fetched != nil {
			terminal.Say("there is no transcript: %v", fetched)
		}
		return ceremonyError(err)
	}
	if err := ended(p, end); err != nil {
		return err
	}
	return fetched
}

// people finds the credentials of the script's custodians.
func (c *ceremonyRunCmd) people(ctx context.Context, terminal *ceremony.Terminal, script *ceremony.Script) ([]*ceremony.Person, error) {
	given := make(map[string][2]string)
	for _, text := range c.Credential {
		name, files, ok := strings.Cut(text, "=")
		cert, key, both := strings.Cut(files, ",")
		if !ok || !both {
			return nil, usageError("--credential=%s: need NAME=CERT,KEY", text)
		}
		given[name] = [2]string{cert, key}
	}
	var people []*ceremony.Person
	for _, custodian := range script.Custodians {
		door := c.doorFlags
		files, ok := given[custodian.Name]
		switch {
		case ok:
			door.Cert, door.Key, door.As = files[0], files[1], ""
		case c.Dev != "":
			door.As = custodian.Name
		default:
			terminal.Say("%s takes the keyboard.", custodian.Name)
			cert, err := terminal.Ask(ctx, "Your certificate (file): ")
			if err != nil {
				return nil, err
			}
			key, err := terminal.Ask(ctx, "Its key (file): ")
			if err != nil {
				return nil, err
			}
			door.Cert, door.Key = cert, key
		}
		client, err := door.withFiles(ok).ceremonies()
		if err != nil {
			return nil, fmt.Errorf("%s: %w", custodian.Name, err)
		}
		people = append(people, &ceremony.Person{Name: custodian.Name, Client: client, Identity: c.Identity[custodian.Name]})
	}
	return people, nil
}

// withFiles makes of --dev with files of one's own the four flags that --dev
// stands for.
func (f doorFlags) withFiles(own bool) *doorFlags {
	if f.Dev == "" || !own {
		return &f
	}
	cert, key := f.Cert, f.Key
	f.As = "admin"
	if err := f.fromDev(); err == nil {
		f.Dev = ""
	}
	f.Cert, f.Key = cert, key
	return &f
}
