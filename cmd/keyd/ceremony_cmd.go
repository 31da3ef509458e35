package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"keyd.dev/keyd/audit"
	"keyd.dev/keyd/internal/ceremony"
)

type ceremonyCmd struct {
	Check  ceremonyCheckCmd  `cmd:"" help:"Say in plain words what a ceremony will do. Changes nothing."`
	Run    ceremonyRunCmd    `cmd:"" help:"Hold a ceremony at this terminal, one custodian after the other."`
	Open   ceremonyOpenCmd   `cmd:"" help:"Open a ceremony for custodians in different rooms, and print its id."`
	Join   ceremonyJoinCmd   `cmd:"" help:"Take part in an open ceremony, as one custodian, at this terminal."`
	Ls     ceremonyLsCmd     `cmd:"" help:"List the ceremonies that the daemon holds."`
	Abort  ceremonyAbortCmd  `cmd:"" help:"End a ceremony; everything in it is forgotten."`
	Fetch  ceremonyFetchCmd  `cmd:"" help:"Write the outputs of a ceremony that has ended, as its script names them."`
	Verify ceremonyVerifyCmd `cmd:"" help:"Check a transcript: the token's signature, its contents, its hash in the audit log."`
}

// ceremonyFile is a script with what it names, as the command found them.
type ceremonyFile struct {
	script *ceremony.Script
	text   []byte
	list   []byte
}

func readCeremony(path string) (*ceremonyFile, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("reading the script: %w", err)
	}
	script, err := ceremony.Parse(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	f := &ceremonyFile{script: script, text: text}
	if script.Injection == nil {
		return f, nil
	}
	if f.list, err = os.ReadFile(script.Injection.List); err != nil {
		return nil, fmt.Errorf("reading the injection list: %w", err)
	}
	if _, err := ceremony.ParseList(f.list); err != nil {
		return nil, fmt.Errorf("%s: %w", script.Injection.List, err)
	}
	return f, nil
}

// outputs are the files that this command will write; none may be there.
func (f *ceremonyFile) outputs() []string {
	base := f.script.Output.Transcript
	paths := []string{base + ".json", base + ".txt"}
	if f.script.Injection != nil {
		paths = append(paths, f.script.Injection.Output)
	}
	return paths
}

// write puts what is left of a ceremony into the files that the script names. A
// ceremony that carried nothing out has its id in the transcript's name, so that
// the next one by the same script finds its place free. It returns the
// transcript's path without .json and .txt.
func (f *ceremonyFile) write(result ceremony.Result) (string, error) {
	t, hash, err := ceremony.ReadTranscript(result.Transcript, "")
	if err != nil {
		return "", err
	}
	base := f.script.Output.Transcript
	if !t.Carried {
		base += "." + t.Ceremony
	}
	if err := ceremony.WriteNew(base+".json", result.Transcript); err != nil {
		return "", err
	}
	if err := ceremony.WriteNew(base+".txt", []byte(t.Text(hash))); err != nil {
		return "", err
	}
	if len(result.Injected) == 0 {
		return base, nil
	}
	text, err := ceremony.InjectionFile(result.Injected)
	if err != nil {
		return "", err
	}
	return base, ceremony.WriteNew(f.script.Injection.Output, text)
}

type ceremonyCheckCmd struct {
	Script string `arg:"" placeholder:"FILE" help:"The script, TOML."`
}

// Run explains a script.
func (c *ceremonyCheckCmd) Run(p *program) error {
	f, err := readCeremony(c.Script)
	if err != nil {
		return err
	}
	if err := ceremony.Absent(f.outputs()...); err != nil {
		return err
	}
	_, err = fmt.Fprint(p.stdout, f.script.Explain())
	return err
}

type ceremonyOpenCmd struct {
	Script string `arg:"" placeholder:"FILE" help:"The script, TOML."`
	doorFlags
}

// Run opens a ceremony and leaves it to its custodians.
func (c *ceremonyOpenCmd) Run(p *program) error {
	f, client, err := c.withScript(c.Script)
	if err != nil {
		return err
	}
	status, err := client.Open(p.ctx, f.text, f.list)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(p.stdout, status.ID)
	return err
}

// withScript reads a script none of whose outputs is there yet, and opens the way
// to the daemon's ceremonies.
func (f *doorFlags) withScript(path string) (*ceremonyFile, *ceremony.Client, error) {
	script, err := readCeremony(path)
	if err != nil {
		return nil, nil, err
	}
	if err := ceremony.Absent(script.outputs()...); err != nil {
		return nil, nil, err
	}
	client, err := f.ceremonies()
	return script, client, err
}

// ceremonies is the way to the daemon's ceremonies under these flags.
func (f *doorFlags) ceremonies() (*ceremony.Client, error) {
	d, err := f.open()
	if err != nil {
		return nil, err
	}
	return &ceremony.Client{URL: d.url, HTTP: d.client}, nil
}

type ceremonyJoinCmd struct {
	ID       string `arg:"" placeholder:"ID" help:"The ceremony, as keyd ceremony open printed it."`
	Script   string `placeholder:"FILE" help:"The script that you have reviewed: the command goes no further where the daemon has another."`
	Identity string `placeholder:"FILE" help:"age identities that open the file with your component, where you bring one."`
	doorFlags
}

// Run seats one custodian until the ceremony ends.
func (c *ceremonyJoinCmd) Run(p *program) error {
	ctx, stop, err := atTerminal(p)
	if err != nil {
		return err
	}
	defer stop()
	client, err := c.ceremonies()
	if err != nil {
		return err
	}
	desk := &ceremony.Desk{ID: c.ID}
	if c.Script != "" {
		f, err := readCeremony(c.Script)
		if err != nil {
			return err
		}
		desk.Script = f.script.Digest()
	}
	if desk.Terminal, err = ceremony.OpenTerminal(); err != nil {
		return err
	}
	defer desk.Terminal.Close()
	end, err := desk.Hold(ctx, []*ceremony.Person{{Name: "custodian", Client: client, Identity: c.Identity}})
	if err != nil {
		return ceremonyError(err)
	}
	return ended(p, end)
}

// atTerminal keeps components out of core files, and makes a hang-up of the
// terminal an end in order.
func atTerminal(p *program) (context.Context, context.CancelFunc, error) {
	if err := harden(); err != nil {
		return nil, nil, err
	}
	if _, err := lockMemory(); err != nil {
		fmt.Fprintf(p.stderr, "%s: the memory of this command can be swapped to disk: %v\n", programName, err)
	}
	ctx, stop := signal.NotifyContext(p.ctx, syscall.SIGHUP)
	return ctx, stop, nil
}

// ceremonyError gives a wrong check value the exit code of a verification.
func ceremonyError(err error) error {
	if errors.Is(err, ceremony.ErrCheck) {
		return &exitError{code: exitVerify, err: err}
	}
	if errors.Is(err, context.Canceled) {
		return errors.New("interrupted; the ceremony has ended and nothing has changed")
	}
	return err
}

// ended says how a ceremony ended.
func ended(p *program, end ceremony.Status) error {
	if end.Stage != ceremony.Done {
		return fmt.Errorf("the ceremony %s has ended: %s: %s", end.ID, end.Stage, end.Why)
	}
	text := "ceremony " + end.ID + " done"
	if end.Check != "" {
		text += ", check value " + end.Check
	}
	if end.KeyID != "" {
		text += ", key " + end.KeyID
	}
	_, err := fmt.Fprintln(p.stdout, text)
	return err
}

type ceremonyLsCmd struct {
	doorFlags
}

// Run lists the ceremonies.
func (c *ceremonyLsCmd) Run(p *program) error {
	client, err := c.ceremonies()
	if err != nil {
		return err
	}
	list, err := client.List(p.ctx)
	if err != nil {
		return err
	}
	w := tabwriter.NewWriter(p.stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "ID\tKIND\tOBJECT\tSTAGE\tWAITING FOR\tUNTIL")
	for _, s := range list {
		var missing []string
		for _, seat := range s.Custodians {
			if !seat.Ready && !s.Stage.Ended() {
				missing = append(missing, seat.Name)
			}
		}
		until := s.Deadline.Format(time.RFC3339)
		if s.Stage.Ended() {
			until = "-"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", s.ID, s.Kind, s.Object, s.Stage, orDash(strings.Join(missing, " ")), until)
	}
	return w.Flush()
}

func orDash(text string) string {
	if text == "" {
		return "-"
	}
	return text
}

type ceremonyAbortCmd struct {
	ID  string `arg:"" placeholder:"ID" help:"The ceremony."`
	Why string `placeholder:"TEXT" default:"ended by hand" help:"The reason, for the log and the transcript."`
	doorFlags
}

// Run ends a ceremony.
func (c *ceremonyAbortCmd) Run(p *program) error {
	client, err := c.ceremonies()
	if err != nil {
		return err
	}
	return client.Abort(p.ctx, c.ID, c.Why)
}

type ceremonyFetchCmd struct {
	ID     string `arg:"" placeholder:"ID" help:"The ceremony."`
	Script string `arg:"" placeholder:"FILE" help:"Its script, which names the outputs."`
	doorFlags
}

// Run writes the outputs of a ceremony.
func (c *ceremonyFetchCmd) Run(p *program) error {
	f, client, err := c.withScript(c.Script)
	if err != nil {
		return err
	}
	result, err := client.Result(p.ctx, c.ID)
	if err != nil {
		return err
	}
	t, _, err := ceremony.ReadTranscript(result.Transcript, "")
	if err != nil {
		return err
	}
	if t.Script != f.script.Hash() {
		return fmt.Errorf("%s is not the script of %s: SHA-256 %s, and the ceremony's has %s", c.Script, c.ID, f.script.Hash(), t.Script)
	}
	base, err := f.write(result)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(p.stdout, "transcript: %s.json and %s.txt\n", base, base)
	return err
}

type ceremonyVerifyCmd struct {
	Transcript string `arg:"" placeholder:"FILE" help:"The transcript, JSON."`
	Vkey       string `placeholder:"KEY" help:"Verification key of the audit log sec, or a file with it. Without it the key in the transcript is taken, which proves only that nothing was changed since."`
	AuditDir   string `placeholder:"DIR" help:"The audit log's folder: look for the transcript's hash in it."`
}

// Run verifies a transcript.
func (c *ceremonyVerifyCmd) Run(p *program) error {
	text, err := os.ReadFile(c.Transcript)
	if err != nil {
		return fmt.Errorf("reading the transcript: %w", err)
	}
	vkey, err := vkeyOf(c.Vkey)
	if err != nil {
		return err
	}
	t, hash, err := ceremony.ReadTranscript(text, vkey)
	if err != nil {
		return &exitError{code: exitVerify, err: err}
	}
	signed := "signed by the key of " + c.Vkey
	if c.Vkey == "" {
		signed = "unchanged since it was signed; by whom shows only --vkey"
	}
	logged := "not looked for in the audit log: give --audit-dir"
	if c.AuditDir != "" {
		r, err := audit.OpenReader(c.AuditDir)
		if err != nil {
			return fmt.Errorf("opening the audit log: %w", err)
		}
		if err := t.InLog(r.Records(audit.Sec.String(), 0), hash); err != nil {
			return &exitError{code: exitVerify, err: err}
		}
		logged = "its hash is in the audit log"
	}
	_, err = fmt.Fprintf(p.stdout, "OK %s: %s, SHA-256 %x\n%s\n%s\n", t.Ceremony, t.Outcome, hash, signed, logged)
	return err
}

// vkeyOf reads a vkey that was given as itself or in a file.
func vkeyOf(given string) (string, error) {
	if given == "" || strings.Contains(given, "+") {
		return given, nil
	}
	text, err := os.ReadFile(given)
	if err != nil {
		return "", fmt.Errorf("reading the verification key: %w", err)
	}
	return strings.TrimSpace(string(text)), nil
}
