// Command specs says which test holds which rule of the specifications, from
// the results of a test run. The ids and their titles stand in ids.tsv.
//
//	specs test --to FILE -- go test -json ./...   runs tests, keeps their results
//	specs report FILE                             id, result and test, one a line
//
// An id counts as held only where the name of a test or subtest cites it, as in
// t.Run("D-04 wrong MAC", …), and that test ran and passed. Of a script in
// cmd/keyd/testdata/script its comments do.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
)

const usage = `usage: specs test --to FILE -- go test -json [ARG...]
       specs report FILE`

// errUsage: the command line is not one of those above.
var errUsage = errors.New(usage)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "specs:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, out io.Writer) error {
	switch {
	case len(args) > 4 && args[0] == "test" && args[1] == "--to" && args[3] == "--":
		return test(ctx, args[2], args[4:], out)
	case len(args) == 2 && args[0] == "report":
		return report(args[1], out)
	}
	return errUsage
}

// report prints the table of the results in a file and returns what is missing.
// It reads the scripts of the working directory, the root of the repository.
func report(path string, out io.Writer) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("results of a test run: %w; `make test` writes them", err)
	}
	defer func() { _ = f.Close() }()
	results, err := readResults(f)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	ids, err := readIDs(idList)
	if err != nil {
		return err
	}
	if newer, err := newerTest(path); err != nil || newer != "" {
		return errors.Join(err, fmt.Errorf("%s is older than %s: run `make test`, or remove it to run the tests anew", path, newer))
	}
	notes, err := readScripts(filepath.Join("cmd", "keyd", "testdata", "script"))
	if err != nil {
		return err
	}
	actions, err := readList(actionList)
	if err != nil {
		return err
	}
	rules, err := readRules(auditRules)
	if err != nil {
		return err
	}
	return errors.Join(compare(ids, results, notes).print(out), printActions(actions, results, out), printRules(rules, results, out))
}
