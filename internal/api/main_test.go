package api_test

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"sync"
	"testing"
)

// done is which examples of the API document the tests have run, each by its
// request at the listener and its answer compared.
var done sync.Map

// executed notes one.
func executed(id string) { done.Store(id, true) }

// TestMain fails a run of all tests that leaves out an example of
// testdata/examples.json.
func TestMain(m *testing.M) {
	code := m.Run()
	if code == 0 && everything() {
		code = unexecuted()
	}
	os.Exit(code)
}

// everything reports whether no flag has left tests out.
func everything() bool {
	for _, name := range []string{"run", "skip", "list", "fuzz", "bench"} {
		if f := flag.Lookup("test." + name); f != nil && f.Value.String() != "" {
			return false
		}
	}
	return flag.Lookup("test.fuzzworker").Value.String() != "true"
}

// unexecuted says which examples no test has run.
func unexecuted() (code int) {
	raw, err := os.ReadFile("testdata/examples.json")
	if err != nil {
		fmt.Println(err)
		return 1
	}
	var file struct{ Examples []struct{ ID string } }
	if err := json.Unmarshal(raw, &file); err != nil {
		fmt.Println(err)
		return 1
	}
	for _, e := range file.Examples {
		if _, ok := done.Load(e.ID); !ok {
			fmt.Printf("FAIL: no test ran the example %s\n", e.ID)
			code = 1
		}
	}
	return code
}
