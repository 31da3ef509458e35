package main

import (
	"errors"
	"fmt"
	"strings"

	"keyd.dev/keyd/internal/profile"
)

type profileCmd struct {
	List  profileListCmd  `cmd:"" name:"ls" help:"List the profiles that keyd brings."`
	Show  profileShowCmd  `cmd:"" help:"Print a profile as the file that it is: a start for one of your own."`
	Check profileCheckCmd `cmd:"" help:"Say whether a profile is valid, and all that is wrong with it; touches neither token nor daemon."`
}

type profileListCmd struct {
	JSON bool `name:"json" help:"Print JSON lines."`
}

// profileLine is a profile in a list.
type profileLine struct {
	Name    string   `json:"name"`
	About   string   `json:"about"`
	Wire    string   `json:"wire"`
	MAC     []string `json:"mac"` // "tdes-dukpt=x9_19"
	Form    string   `json:"mac_format"`
	Source  string   `json:"source"`
	Fields  int      `json:"fields"`
	Warning string   `json:"warning,omitempty"`
}

func profileLineOf(p *profile.Profile) profileLine {
	spec := p.Dialect.Spec()
	l := profileLine{Name: p.Name, About: p.About, Wire: string(spec.Wire), Form: string(spec.MAC), Source: p.Source, Fields: len(spec.Fields)}
	for _, s := range p.Schemes() {
		l.MAC = append(l.MAC, fmt.Sprintf("%s=%s", s, p.MAC[s].Algorithm))
	}
	if warnings, err := p.Admit(profile.Link{TLS: true}); err == nil {
		l.Warning = strings.Join(warnings, "; ")
	}
	return l
}

// Run prints a line for each.
func (c *profileListCmd) Run(p *program) error {
	out := newTable(p.stdout, c.JSON, "NAME", "WIRE", "MAC", "FORM", "ABOUT")
	for _, name := range profile.Names() {
		found, err := profile.Builtin(name)
		if err != nil {
			return err
		}
		l := profileLineOf(found)
		out.row(l, l.Name, l.Wire, strings.Join(l.MAC, " "), l.Form, l.About)
	}
	return out.flush()
}

type profileShowCmd struct {
	Name string `arg:"" placeholder:"NAME" help:"One of those that ls lists, or a file."`
}

// Run prints the file, which was checked.
func (c *profileShowCmd) Run(p *program) error {
	found, err := findProfile(c.Name)
	if err != nil {
		return err
	}
	_, err = p.stdout.Write(found.Text)
	return err
}

type profileCheckCmd struct {
	File string `arg:"" placeholder:"FILE" help:"The profile, TOML, or the name of one that keyd brings."`
}

// Run reads and checks the file, as the daemon does at its start.
func (c *profileCheckCmd) Run(p *program) error {
	found, err := findProfile(c.File)
	if err != nil {
		return err
	}
	l := profileLineOf(found)
	if _, err = fmt.Fprintf(p.stdout, "%s is valid: profile %s, %s, MAC %s as %s\n", c.File, l.Name, l.Wire, strings.Join(l.MAC, " "), l.Form); err != nil {
		return err
	}
	if l.Warning != "" {
		_, err = fmt.Fprintf(p.stderr, "warning: profile %s: %s\n", l.Name, l.Warning)
	}
	return err
}

func findProfile(name string) (*profile.Profile, error) {
	found, err := profile.Find(name)
	if errors.Is(err, profile.ErrUnknown) {
		return nil, advise(err, "`keyd profile ls` lists those that keyd brings, and `keyd profile show` prints one as a start for your own")
	}
	return found, err
}
