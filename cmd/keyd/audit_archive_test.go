package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"keyd.dev/keyd/audit"
	"keyd.dev/keyd/internal/hsm"
)

// aged is a program for scripts: it puts into the folder of a development daemon
// that has stopped a log of its token with one month that ended so many months
// ago, and prints that month's name.
func aged() {
	if err := makeAged(os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func makeAged(dir, months string) error {
	back, err := strconv.Atoi(months)
	if err != nil {
		return err
	}
	cfg, err := loadConfig(filepath.Join(dir, "keyd.toml"))
	if err != nil {
		return err
	}
	if err := setEnvironment(cfg.Token.Environment); err != nil {
		return err
	}
	token, err := hsm.Open(hsm.Config{Module: cfg.Token.Module, TokenLabel: cfg.Token.Label, PIN: pinOnce(context.Background(), &cfg.Token, nil)})
	if err != nil {
		return err
	}
	defer token.Close()
	signer, err := token.Signer()
	if err != nil {
		return err
	}
	if err := errors.Join(os.RemoveAll(cfg.Audit.Dir), os.Mkdir(cfg.Audit.Dir, 0o750)); err != nil {
		return err
	}
	now := time.Now().UTC()
	month := time.Date(now.Year(), now.Month()-time.Month(back), 1, 12, 0, 0, 0, time.UTC)
	var clock atomic.Int64
	clock.Store(month.UnixNano())
	log, err := audit.Open(cfg.Audit.Dir, signer, audit.Options{
		Site: cfg.Audit.Site, Node: cfg.Audit.Node, SegmentSize: int64(cfg.Audit.SegmentMB) << 20,
		CheckpointInterval: 100 * time.Millisecond, Clock: func() time.Time { return time.Unix(0, clock.Load()) },
	})
	if err != nil {
		return err
	}
	name := month.Format("ops-2006-01")
	err = errors.Join(refusals(log, 700), err)
	clock.Store(month.AddDate(0, 1, 0).UnixNano())
	err = errors.Join(err, refusals(log, 1), awaitClosed(cfg.Audit.Dir, name), log.Close(context.Background()))
	if err == nil {
		_, err = fmt.Println(name)
	}
	return err
}

// refusals appends so many records of messages that no dialect knows.
func refusals(log *audit.Log, n int) error {
	for n > 0 {
		batch := make([]audit.Record, min(n, 50))
		for i := range batch {
			batch[i] = audit.Record{Action: audit.FrameRefuse, Outcome: audit.OutcomeRefused, Reason: audit.ReasonFormatError,
				Actor: audit.Actor{ID: "pos-link-7", Kind: audit.ActorSwitch}, Src: audit.Source{Addr: "10.9.0.41:40112"}}
		}
		ticket, err := log.Reserve(context.Background(), audit.Ops, len(batch))
		if err != nil {
			return err
		}
		_, err = ticket.Append(batch...)
		ticket.Release()
		if err != nil {
			return err
		}
		n -= len(batch)
	}
	return nil
}

// awaitClosed waits until the log has noticed that the month is over.
func awaitClosed(dir, name string) error {
	var err error
	for end := time.Now().Add(deskPatience); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		var r *audit.Reader
		if r, err = audit.OpenReader(dir); err != nil {
			continue
		}
		if _, err = r.Closed(name); err == nil {
			return nil
		}
	}
	return err
}

// TestKeptUntil is the policy of L-173: whole months after the one that ended.
func TestKeptUntil(t *testing.T) {
	tests := []struct {
		log    string
		months int
		want   string
	}{
		{"ops-2026-01", 3, "2026-05-01"},
		{"ops-2026-10", 3, "2027-02-01"},
		{"ops-2025-12", 12, "2027-01-01"},
		{"ops-2024-02", 12, "2025-03-01"},
	}
	for _, tt := range tests {
		got, err := keptUntil(tt.log, tt.months)
		if err != nil || got.Format(time.DateOnly) != tt.want {
			t.Errorf("%s, %d months: %v, %v, want %s", tt.log, tt.months, got, err, tt.want)
		}
	}
	if _, err := keptUntil("sec", 3); err == nil {
		t.Error("sec is never pruned")
	}
}

// TestArchiveIntents: a command that never came back keeps no other from ending
// its archive, and only who began one ends it.
func TestArchiveIntents(t *testing.T) {
	var a archiveIntents
	var begun []string
	for i := range 2 * mostArchives {
		id, err := audit.ParseUUID(fmt.Sprintf("01a2003e-cbc3-7b86-b273-%012x", i))
		if err != nil {
			t.Fatal(err)
		}
		a.begin(audit.Record{Ref: id, Actor: audit.Actor{ID: "local-0"}})
		begun = append(begun, id.String())
	}
	last, left := begun[len(begun)-1], begun[0]
	if _, ok := a.end(last, "local-1000"); ok {
		t.Error("another one ended it")
	}
	if r, ok := a.end(last, "local-0"); !ok || r.Ref.String() != last {
		t.Errorf("the newest is not there: %v, %t", r.Ref, ok)
	}
	for _, id := range []string{last, left, "", begun[mostArchives-1]} {
		if _, ok := a.end(id, "local-0"); ok {
			t.Errorf("%q was ended, which is not open", id)
		}
	}
	if len(a.open) != mostArchives-1 {
		t.Errorf("%d are open, want %d", len(a.open), mostArchives-1)
	}
	if _, ok := a.end(begun[mostArchives], "local-0"); !ok {
		t.Error("the oldest that is kept is not there")
	}
}
