package main

import (
	"errors"
	"strings"
	"testing"
)

// FuzzHSMLog: any file is either recorded with its number and hash or refused
// (L-83).
func FuzzHSMLog(f *testing.F) {
	f.Add("a\nb\n", "hsm-a/audit", int64(1))
	f.Add("", "hsm-a", int64(1))
	f.Add("a", "HSM", int64(-1))
	f.Add("a\n", "hsm", int64(1)<<53)
	f.Fuzz(func(t *testing.T, text, source string, first int64) {
		q, err := readHSMLog(strings.NewReader(text), source, first)
		switch {
		case err != nil && !errors.Is(err, errHSMLog):
			t.Errorf("%v is no errHSMLog", err)
		case err == nil && (q.N < 1 || q.Last < q.First || len(q.Hash) != 64):
			t.Errorf("recorded: %+v", q)
		}
	})
}
