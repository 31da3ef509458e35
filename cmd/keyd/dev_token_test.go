package main

import (
	"os"
	"path/filepath"
	"testing"
)

// TestMendToken: what SoftHSM leaves when it is killed in a login is mended from
// the copy, and a whole token stays as it is.
func TestMendToken(t *testing.T) {
	d := &devDir{path: t.TempDir()}
	object := d.file(devTokens, "0123", "token.object")
	write := func(text string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(object), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(object, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	mend := func(want bool, text string) {
		t.Helper()
		mended, err := d.mendToken()
		if err != nil || mended != want {
			t.Errorf("mended = %v, %v; want %v", mended, err, want)
		}
		if raw, err := os.ReadFile(object); err != nil || string(raw) != text {
			t.Errorf("the token is %q, %v; want %q", raw, err, text)
		}
	}
	write("whole")
	mend(false, "whole") // no copy yet
	if err := d.keepToken(); err != nil {
		t.Fatal(err)
	}
	mend(false, "whole")
	write("")
	mend(true, "whole")
	write("who")
	mend(true, "whole")
	later := d.file(devTokens, "0123", "later.object")
	if err := os.WriteFile(later, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(object); err != nil {
		t.Fatal(err)
	}
	mend(true, "whole")
	if _, err := os.Stat(later); err != nil {
		t.Errorf("an object that was made later is gone: %v", err)
	}
	info, err := os.Stat(object)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
}
