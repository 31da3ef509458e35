package api

import (
	"encoding/json"
	"os"
	"testing"
)

// examples is testdata/examples.json.
type examples struct {
	Examples []example      `json:"examples"`
	Errors   []errorExample `json:"errors"`
}

type example struct {
	ID, Plane, Operation string
	Request, Response    json.RawMessage
}

type errorExample struct {
	ID, Plane, Name string
	Status          int
	Body            json.RawMessage
}

func loadExamples(tb testing.TB) examples {
	tb.Helper()
	raw, err := os.ReadFile("testdata/examples.json")
	if err != nil {
		tb.Fatal(err)
	}
	var all examples
	if err := json.Unmarshal(raw, &all); err != nil {
		tb.Fatal(err)
	}
	if len(all.Examples) != 46 || len(all.Errors) != 24 {
		tb.Fatalf("%d examples and %d errors, want 46 and 24", len(all.Examples), len(all.Errors))
	}
	return all
}
