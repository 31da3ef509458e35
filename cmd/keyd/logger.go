package main

import (
	"io"
	"log/slog"
)

// newLogger returns the operator's log: JSON lines on w. It never holds card
// data, PINs or keys: what is logged names things, it does not show them.
func newLogger(w io.Writer, level string) *slog.Logger {
	var l slog.Level
	if err := l.UnmarshalText([]byte(level)); err != nil {
		l = slog.LevelInfo
	}
	return slog.New(slog.NewJSONHandler(w, &slog.HandlerOptions{Level: l}))
}
