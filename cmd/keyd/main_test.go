package main

import (
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"keyd": saying, "age-plugin-safe": safePlugin, "keyd-inside": inside, "keyd-filtered": filtered, "keyd-planted": planted, "keyd-aged": aged, "keyd-lost": lostHalves, "keyd-cut-off": cutOff, "keyd-answers": answers})
}
