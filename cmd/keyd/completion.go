package main

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/alecthomas/kong"
)

type completionCmd struct {
	Shell string `arg:"" enum:"bash,zsh,fish" help:"bash, zsh or fish."`
}

// Help says how the script is used.
func (c *completionCmd) Help() string {
	return "bash:  keyd completion bash >/usr/share/bash-completion/completions/keyd\n" +
		"zsh:   keyd completion zsh >/usr/share/zsh/vendor-completions/_keyd\n" +
		"fish:  keyd completion fish >/usr/share/fish/vendor_completions.d/keyd.fish\n\n" +
		"To try it: source <(keyd completion bash)"
}

// Run prints the script of a shell.
func (c *completionCmd) Run(p *program) error {
	parser, err := kong.New(&cli{}, kong.Name(programName), kong.Description(programAbout))
	if err != nil {
		return err
	}
	places := completions(parser.Model.Node, programName)
	switch c.Shell {
	case "bash":
		return writeBash(p.stdout, places)
	case "zsh":
		return writeZsh(p.stdout, places)
	}
	return writeFish(p.stdout, places)
}

// place is where on the command line the cursor can be: behind a command.
type place struct {
	path     string // "keyd key create"
	commands []choice
	flags    []completedFlag
	value    valueKind // of the arguments
	choices  []string  // of the arguments, where these are all
}

type choice struct{ word, help string }

// completedFlag is one flag; a switch takes no value.
type completedFlag struct {
	choice
	short    string
	isSwitch bool
	value    valueKind
	words    []string
}

// valueKind says what a shell can offer for a value.
type valueKind int

const (
	valueOther  valueKind = iota // nothing: a name, a number, a key
	valueFile                    // a file
	valueFolder                  // a folder
	valueWords                   // one of words
)

// completions lists the places of the command line, the program itself first.
func completions(n *kong.Node, path string) []place {
	here := place{path: path}
	for _, group := range n.AllFlags(true) {
		for _, f := range group {
			here.flags = append(here.flags, flagOf(f))
		}
	}
	for _, arg := range n.Positional {
		here.value, here.choices = kindOf(arg)
		break // the arguments that follow one another are of one kind
	}
	var below []place
	for _, child := range n.Children {
		if child.Hidden || child.Type != kong.CommandNode {
			continue
		}
		here.commands = append(here.commands, choice{child.Name, child.Help})
		below = append(below, completions(child, path+" "+child.Name)...)
	}
	return append([]place{here}, below...)
}

func flagOf(f *kong.Flag) completedFlag {
	c := completedFlag{choice: choice{"--" + f.Name, f.Help}, isSwitch: f.IsBool()}
	if f.Short != 0 {
		c.short = "-" + string(f.Short)
	}
	c.value, c.words = kindOf(f.Value)
	return c
}

// kindOf tells the kind of a value by its type and by the word that stands for
// it in the help.
func kindOf(v *kong.Value) (valueKind, []string) {
	if v.Enum != "" {
		return valueWords, v.EnumSlice()
	}
	word := v.Tag.PlaceHolder
	if word == "" {
		word = strings.ToUpper(v.Name)
	}
	switch {
	case word == "DIR" || strings.HasSuffix(word, "-DIR"):
		return valueFolder, nil
	case word == "FILE" || strings.HasPrefix(word, "FILE.") || slices.Contains([]string{"SCRIPT", "TRANSCRIPT"}, word):
		return valueFile, nil
	}
	return valueOther, nil
}

// quoteShell makes one word of text for bash and zsh.
func quoteShell(text string) string { return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'" }

// oneLine is a help without what ends its first sentence.
func oneLine(help string) string {
	help, _, _ = strings.Cut(help, "\n")
	return strings.TrimSuffix(help, ".")
}

// lines writes one line after the other and keeps the first error.
type lines struct {
	w   io.Writer
	err error
}

func (l *lines) say(format string, args ...any) {
	if l.err == nil {
		_, l.err = fmt.Fprintf(l.w, format+"\n", args...)
	}
}
