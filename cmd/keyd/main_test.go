package main

import (
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"keyd": main, "age-plugin-safe": safePlugin, "keyd-inside": inside, "keyd-filtered": filtered, "keyd-planted": planted})
}
