package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/alecthomas/kong"
)

// The exit codes of every command; those of `keyd audit` stand in audit_exit.go.
const (
	exitDone     = 0
	exitFailed   = 1
	exitUsage    = 2
	exitVerify   = 3 // a MAC, a log or a check value did not verify
	exitPIN      = 4 // the token refused the PIN: who starts keyd again by itself uses the tries up
	programName  = "keyd"
	programAbout = "Payment cryptography beside an HSM, and a switch core that refuses every reversal it cannot authenticate."
)

// program is what a command runs in.
type program struct {
	ctx    context.Context // ends at the first SIGINT or SIGTERM
	stdin  io.Reader
	stdout io.Writer
	stderr io.Writer
}

// cli is the command line, one field a command; each stands in a file of its own.
type cli struct {
	Init       initCmd       `cmd:"" help:"Make the token's master keys, the database and the audit log of a new node."`
	Serve      serveCmd      `cmd:"" help:"Run the daemon."`
	Dev        devCmd        `cmd:"" help:"Run a daemon for development: SoftHSM token, certificates, published test keys, simulated issuer."`
	Key        keyCmd        `cmd:"" help:"Look at keys, make, change, exchange and end them."`
	LMK        lmkCmd        `cmd:"" name:"lmk" help:"Look at, compare and change the local master key, under which all keys are."`
	Client     clientCmd     `cmd:"" help:"Look at and change the roles of clients."`
	Approve    approveCmd    `cmd:"" help:"Be the second person: consent to what another administrator asked for."`
	Reject     rejectCmd     `cmd:"" help:"Close a request for approval, or take an approval back."`
	Approvals  approvalsCmd  `cmd:"" help:"Look at the requests that need a second person."`
	Call       callCmd       `cmd:"" help:"Try any operation of the API by hand: JSON in, JSON out."`
	Register   registerCmd   `cmd:"" help:"What the token knows of the database: see that, and set it right after an upgrade or a restore."`
	Terminal   terminalCmd   `cmd:"" help:"The registry of terminals and their keys."`
	Reversal   reversalCmd   `cmd:"" help:"The queue of reversals: what waits, what was given up, and what to do about it."`
	Ceremony   ceremonyCmd   `cmd:"" help:"Bring keys in, take them out, change and end them, under dual control."`
	Backup     backupCmd     `cmd:"" help:"Back a node up, prove a backup, make a new node of one."`
	Journal    journalCmd    `cmd:"" help:"The journal of originals and reversals."`
	Audit      auditCmd      `cmd:"" help:"Read and verify the audit log."`
	Config     configCmd     `cmd:"" help:"Check a configuration, and print what can stand in one."`
	Profiles   profileCmd    `cmd:"" name:"profile" help:"Kinds of terminals: what they speak, how their MACs are made, what they may reverse."`
	Upstream   upstreamCmd   `cmd:"" help:"How the upstreams and the links to them are."`
	Reload     reloadCmd     `cmd:"" help:"Let a daemon read its configuration again."`
	Sim        simCmd        `cmd:"" help:"Simulate an issuer or a POS terminal."`
	Demo       demoCmd       `cmd:"" help:"Show the main job end to end, with a daemon of its own."`
	Bench      benchGroup    `cmd:"" help:"Measure a daemon of its own on this machine."`
	Doctor     doctorCmd     `cmd:"" help:"Say what is missing on this machine and how to mend it."`
	Version    versionCmd    `cmd:"" help:"Print the version."`
	Completion completionCmd `cmd:"" help:"Print a script by which a shell completes commands, flags and files."`
}

// run is the whole program: it parses args, runs one command, prints one error,
// and returns the exit code.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	helped := false
	parser, err := kong.New(&cli{},
		kong.Name(programName),
		kong.Description(programAbout),
		kong.UsageOnError(),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true}),
		kong.Writers(stdout, stderr),
		kong.Exit(func(int) { helped = true }),
	)
	if err != nil {
		fmt.Fprintf(stderr, "%s: %v\n", programName, err)
		return exitFailed
	}
	if len(args) == 0 {
		args = []string{"--help"}
	}
	parsed, err := parser.Parse(args)
	switch {
	case helped:
		return exitDone
	case err != nil:
		fmt.Fprintf(stderr, "%s: %v; `%s --help` lists the commands\n", programName, err, programName)
		return exitUsage
	}
	err = parsed.Run(&program{ctx: ctx, stdin: stdin, stdout: stdout, stderr: stderr})
	if strings.HasPrefix(parsed.Command(), "audit ") {
		err = auditExit(err)
	}
	if err == nil {
		return exitDone
	}
	var exit *exitError
	if !errors.As(err, &exit) {
		exit = &exitError{code: exitFailed, err: err}
	}
	if exit.err != nil {
		fmt.Fprintf(stderr, "%s: %v\n", programName, exit.err)
	}
	return exit.code
}

// exitError ends the program with a code of its own. A nil err prints nothing:
// the command has said what there is to say.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string {
	if e.err == nil {
		return "exit"
	}
	return e.err.Error()
}

func (e *exitError) Unwrap() error { return e.err }

// usageError is wrong usage that the parser could not see.
func usageError(format string, args ...any) error {
	return &exitError{code: exitUsage, err: fmt.Errorf(format, args...)}
}

// advised is an error with what to do about it.
type advised struct {
	err    error
	advice string
}

func (a *advised) Error() string { return a.err.Error() + "; " + a.advice }
func (a *advised) Unwrap() error { return a.err }

// advise adds to err what the reader can do about it. A nil err stays nil.
func advise(err error, format string, args ...any) error {
	if err == nil {
		return nil
	}
	return &advised{err: err, advice: fmt.Sprintf(format, args...)}
}
