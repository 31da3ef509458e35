package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"keyd.dev/keyd/internal/api"
)

type terminalKeysCmd struct {
	TID     string `arg:"" name:"tid" help:"DE 41, 8 characters."`
	Form    string `required:"" enum:"de62-001,de62-003,de62-004,tr31" placeholder:"FORM" help:"How the keys are given out: ${enum}."`
	Data    bool   `name:"data-key" help:"With tr31: a key for track data too."`
	Present bool   `help:"Give out the keys that there are, in place of new ones."`
	Out     string `placeholder:"FILE" help:"Write the keys, under the master key, to this file; it must not exist yet."`
	JSON    bool   `help:"Print JSON."`
	doorFlags
}

// distributed is the answer of DistributeKeys.
type distributed struct {
	TID        string `json:"Tid"`
	Form       string
	KeyVersion uint32
	Field62    string `json:",omitempty"`
	KeyBlocks  []struct {
		Slot            string
		WrappedKeyBlock string
	} `json:",omitempty"`
	Keys    []api.TerminalKey
	Retires *time.Time `json:",omitempty"`
}

// Run gives a terminal new working keys, or gives out the present ones.
func (c *terminalKeysCmd) Run(p *program) error {
	d, err := c.open()
	if err != nil {
		return err
	}
	if c.Out == "" {
		return c.give(p, d, p.stdout)
	}
	// Before the keys are made: they would be lost.
	file, err := os.OpenFile(c.Out, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, os.ErrExist) {
		return advise(fmt.Errorf("--out=%s: the file exists", c.Out), "nothing is overwritten; name another file")
	}
	if err != nil {
		return fmt.Errorf("writing the keys: %w", err)
	}
	err = c.give(p, d, file)
	return errors.Join(err, c.finish(file, err))
}

// give asks for the keys and writes them.
func (c *terminalKeysCmd) give(p *program, d *door, to io.Writer) error {
	body := map[string]any{"Tid": c.TID, "Form": c.Form, "DataKey": c.Data, "Present": c.Present}
	var answer distributed
	if err := d.own(p.ctx, "DistributeKeys", body, &answer); err != nil {
		return err
	}
	if err := c.write(to, answer); err != nil {
		return err
	}
	if c.JSON && c.Out == "" {
		return nil
	}
	return c.tell(p.stdout, answer)
}

// finish closes the file, and takes it away where it holds nothing.
func (c *terminalKeysCmd) finish(file *os.File, failed error) error {
	err := file.Close()
	if failed != nil {
		err = errors.Join(err, os.Remove(c.Out))
	}
	return err
}

// write writes the keys alone: field 62 as hexadecimal digits, or a line for
// each key block.
func (c *terminalKeysCmd) write(to io.Writer, answer distributed) error {
	if c.JSON {
		return json.NewEncoder(to).Encode(answer)
	}
	text := answer.Field62 + "\n"
	if answer.Field62 == "" {
		var lines strings.Builder
		for _, b := range answer.KeyBlocks {
			fmt.Fprintf(&lines, "%s %s\n", b.Slot, b.WrappedKeyBlock)
		}
		text = lines.String()
	}
	_, err := io.WriteString(to, text)
	return err
}

// tell says which keys they are.
func (c *terminalKeysCmd) tell(out io.Writer, answer distributed) error {
	var line strings.Builder
	fmt.Fprintf(&line, "terminal %s: version %d", answer.TID, answer.KeyVersion)
	for _, k := range answer.Keys {
		fmt.Fprintf(&line, ", %s KCV %s", k.Slot, k.KeyCheckValue)
	}
	if answer.Retires != nil {
		fmt.Fprintf(&line, "; the keys before are accepted until %s", answer.Retires.Format(time.RFC3339))
	}
	_, err := fmt.Fprintln(out, line.String())
	return err
}
