package main

import (
	"fmt"
)

type configCmd struct {
	Check     configCheckCmd     `cmd:"" help:"Say whether a configuration is valid, and all that is wrong with it; touches neither token nor daemon."`
	Example   configExampleCmd   `cmd:"" help:"Print a configuration in which every key stands as a comment, with its default."`
	Reference configReferenceCmd `cmd:"" help:"Print the reference of all keys as it stands in docs/OPERATIONS.md."`
}

type configCheckCmd struct {
	File string `arg:"" placeholder:"FILE" help:"The configuration, TOML."`
}

// Run reads and checks the file, as serve does before anything else.
func (c *configCheckCmd) Run(p *program) error {
	if _, err := loadConfig(c.File); err != nil {
		return err
	}
	_, err := fmt.Fprintf(p.stdout, "%s is valid\n", c.File)
	return err
}

type configExampleCmd struct{}

// Run prints the example.
func (c *configExampleCmd) Run(p *program) error {
	_, err := fmt.Fprint(p.stdout, writeExample())
	return err
}

type configReferenceCmd struct{}

// Run prints the reference.
func (c *configReferenceCmd) Run(p *program) error {
	_, err := fmt.Fprint(p.stdout, writeReference())
	return err
}
