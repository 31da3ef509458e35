package main

import (
	"io"
	"log/slog"
)

// newLogger returns the operator's log: JSON lines on w. It never holds card
// data, PINs or keys: what is logged names things, it does not show them.
func newLogger(w io.Writer, level string) *slog.Logger {
	return leveledLogger(w, levelOf(level))
}

// leveledLogger is newLogger with a level that may change.
func leveledLogger(w io.Writer, level slog.Leveler) *slog.Logger {
	return slog.New(slog.NewJSONHandler(w, &slog.HandlerOptions{Level: level}))
}

func levelOf(name string) slog.Level {
	var l slog.Level
	if err := l.UnmarshalText([]byte(name)); err != nil {
		return slog.LevelInfo
	}
	return l
}
