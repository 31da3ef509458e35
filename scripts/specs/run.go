package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"strings"
)

// test runs `go test -json`, prints what go test prints without -json, and keeps
// the results of the tests, not their output, in a file. It fails when they do.
func test(ctx context.Context, path string, args []string, out io.Writer) (err error) {
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Stderr = os.Stderr
	events, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	p := printer{out: out, said: make(map[name][]string)}
	if err := p.follow(events, file); err != nil {
		return errors.Join(err, cmd.Wait())
	}
	p.sum()
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("%s: %w", strings.Join(args, " "), err)
	}
	return nil
}

// printer holds back what tests say until it is known whether they fail.
type printer struct {
	out     io.Writer
	said    map[name][]string
	reasons []string // of the tests that failed, with their names
}

// mostReasons is how many reasons of one test are said again at the end.
const mostReasons = 10

// What the testing package says itself is, for one, that there was a race: the
// detector's report is the package's output, not the test's.
var reasonRE = regexp.MustCompile(`_test\.go:\d+: |^ +testing\.go:\d+: |^panic: `)

// fail prints what a failed test said and keeps its reasons.
func (p *printer) fail(n name) {
	fmt.Fprint(p.out, strings.Join(p.said[n], ""))
	p.reasons = append(p.reasons, n.String()+"\n")
	most := len(p.reasons) + mostReasons
	for _, line := range p.said[n] {
		if reasonRE.MatchString(line) && len(p.reasons) < most {
			p.reasons = append(p.reasons, line)
		}
	}
	delete(p.said, n)
}

// sum says again why what failed: all else that a test said, and what came after
// it, may stand between.
func (p *printer) sum() {
	if len(p.reasons) > 0 {
		fmt.Fprintf(p.out, "what failed, and why:\n%s", strings.Join(p.reasons, ""))
	}
}

// follow reads events to their end and writes the results among them to file.
func (p *printer) follow(events io.Reader, file io.Writer) error {
	lines := bufio.NewReader(events)
	for {
		line, err := lines.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		var e event
		if json.Unmarshal(line, &e) != nil { // from the tool itself
			fmt.Fprintf(p.out, "%s", line)
			continue
		}
		p.show(e)
		if !e.ends() {
			continue
		}
		kept, err := json.Marshal(e)
		if err != nil {
			return err
		}
		if _, err := file.Write(append(kept, '\n')); err != nil {
			return err
		}
	}
}

func (p *printer) show(e event) {
	k := name{e.Package, e.Test}
	switch {
	case e.Action == "build-output":
		fmt.Fprint(p.out, e.Output)
	case e.Action == "output" && e.Test == "":
		if e.Output != "PASS\n" {
			fmt.Fprint(p.out, e.Output)
		}
	case e.Action == "output" && !strings.HasPrefix(e.Output, "=== "):
		p.said[k] = append(p.said[k], e.Output)
	case e.Action == "fail" && e.Test == "": // a test that never ended is among these
		for n := range p.said {
			if n.pkg == e.Package {
				p.fail(n)
			}
		}
	case e.Action == "fail":
		p.fail(k)
	case e.ends():
		delete(p.said, k)
	}
}
