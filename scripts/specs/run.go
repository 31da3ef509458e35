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
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("%s: %w", strings.Join(args, " "), err)
	}
	return nil
}

// printer holds back what tests say until it is known whether they fail.
type printer struct {
	out  io.Writer
	said map[name][]string
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
		for n, said := range p.said {
			if n.pkg == e.Package {
				fmt.Fprint(p.out, strings.Join(said, ""))
				delete(p.said, n)
			}
		}
	case e.Action == "fail":
		fmt.Fprint(p.out, strings.Join(p.said[k], ""))
		delete(p.said, k)
	case e.ends():
		delete(p.said, k)
	}
}
