package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"keyd.dev/keyd/internal/hsm"
	"keyd.dev/keyd/internal/secret"
	"keyd.dev/keyd/internal/sim"
	"keyd.dev/keyd/keys"
)

// benchGroup is the benchmarks; without a word of its own it is all operations.
type benchGroup struct {
	Operations benchCmd          `cmd:"" default:"withargs" help:"Measure every operation, and sales through the switch."`
	Terminals  benchTerminalsCmd `cmd:"" help:"Measure a large registry: registration, start, cold keys, memory."`
	Forgeries  benchForgeriesCmd `cmd:"" help:"Measure honest sales beside a flood of forged reversals."`
	Journal    benchJournalCmd   `cmd:"" help:"Measure a large journal: the start, and a sale."`
	Audit      benchAuditCmd     `cmd:"" help:"Measure the audit log, with the token that signs it."`
	Fsync      benchFsyncCmd     `cmd:"" help:"Measure the disk alone: what a flush costs."`
	Find       benchFindCmd      `cmd:"" help:"Measure the search in a large audit log, and its index."`
	Soak       benchSoakCmd      `cmd:"" help:"Measure the memory of a daemon under full load over a long time."`
}

// benchCmd measures a daemon of its own, with the load generator beside it on
// the same machine. Each figure stands beside the limit of its layer: raw
// token operations, and an mTLS server that answers JSON with JSON.
type benchCmd struct {
	Duration    time.Duration `help:"Length of each measurement." default:"5s"`
	Connections int           `help:"Connections of the load generator to the API." default:"64"`
	Sellers     int           `help:"Terminals that sell at a time, each waiting for its answer." default:"40"`
	Only        string        `help:"Measure only the rows whose names contain this word, and the echo." placeholder:"WORD"`
	Check       bool          `help:"End with status 1 where a hold is missed. Holds are for a machine of two processors with nothing else to do."`
	Profile     string        `help:"Write a processor profile of the daemon under all rows of the API and the switch; scripts/pgo.sh makes cmd/keyd/default.pgo of it." type:"path" placeholder:"FILE"`
	JSON        bool          `help:"Print JSON lines." name:"json"`
	EchoListen  string        `help:"Serve the echo on this address instead; for the bench's own use." hidden:""`
	EchoDir     string        `hidden:"" type:"path"`
}

// Run measures everything and prints a table.
func (c *benchCmd) Run(p *program) error {
	if c.EchoListen != "" {
		return c.serveEcho(p)
	}
	if c.Connections < 1 || c.Sellers < 1 || c.Duration < 100*time.Millisecond {
		return usageError("want 1 or more --connections and --sellers, and a --duration of 100ms or more")
	}
	dir, clean, err := trialDir("")
	if err != nil {
		return err
	}
	defer clean()
	b := &bench{benchCmd: c}
	b.machine(p)
	if b.wants(rowToken) {
		if err := b.token(p, filepath.Join(dir, "token")); err != nil {
			return err
		}
	}
	if b.trial, err = startTrial(p, dir, b.flags()...); err != nil {
		return err
	}
	defer b.stop()
	time.Sleep(time.Second) // an idle daemon is a settled one
	idle := residentMB(b.dev.PID)
	if err := b.echo(); err != nil {
		return err
	}
	if err := b.profiled(b.daemonRows); err != nil {
		return err
	}
	b.memory(idle, residentMB(b.dev.PID))
	if err := b.print(); err != nil {
		return err
	}
	return b.judge()
}

// daemonRows measures what the daemon does.
func (b *bench) daemonRows() error {
	if err := b.operations(); err != nil {
		return err
	}
	if !b.wants(rowSales) {
		return nil
	}
	return b.sales()
}

type bench struct {
	*benchCmd
	*trial
	out      io.Writer
	figures  []figure
	verdicts []judged
	tokenPS  float64 // raw token encryptions a second; 0: not measured
	echoPS   float64
}

// Names of rows that are looked for.
const (
	rowToken = "token: TDES encryption of one block"
	rowSales = "switch: sales with PIN and MAC, both ways"
)

func (b *bench) machine(p *program) {
	b.out = p.stdout
	b.say("%d processors, %s, load generator, issuer and daemon on one machine; load %s", runtime.NumCPU(), runtime.Version(), loadAverage())
}

func (b *bench) say(format string, args ...any) {
	if !b.JSON {
		fmt.Fprintf(b.out, format+"\n", args...)
	}
}

func (b *bench) add(f figure) {
	b.figures = append(b.figures, f)
}

// token measures the bare module, in this process.
func (b *bench) token(p *program, dir string) error {
	t, err := throwAwayToken(dir)
	if err != nil {
		return err
	}
	defer func() { _ = t.Close() }()
	m := hsm.NewManager(t)
	tdes, _, err := m.Generate(p.ctx, keys.Block{ID: benchID('a'), Version: 1, LMK: 1, Origin: keys.Generated, CheckBy: keys.CheckByZeros,
		Attributes: keys.Attributes{Usage: keys.UsagePIN, Algorithm: keys.TDES2, Mode: keys.ModeBoth, Exportability: keys.NonExportable}})
	if err != nil {
		return err
	}
	aes, _, err := m.Generate(p.ctx, keys.Block{ID: benchID('b'), Version: 1, LMK: 1, Origin: keys.Generated, CheckBy: keys.CheckByCMAC,
		Attributes: keys.Attributes{Usage: keys.UsageCMAC, Algorithm: keys.AES128, Mode: keys.ModeMAC, Exportability: keys.NonExportable}})
	if err != nil {
		return err
	}
	block, message := make([]byte, 8), make([]byte, 256)
	f, err := b.tokenOp(p.ctx, t, rowToken, tdes, func(k keys.Key) error { _, err := k.Encrypt(nil, block); return err })
	if err != nil {
		return err
	}
	b.tokenPS = f.PerSecond
	_, err = b.tokenOp(p.ctx, t, "token: AES-CMAC of 256 bytes", aes, func(k keys.Key) error { _, err := k.CMAC(message); return err })
	return err
}

func (b *bench) tokenOp(ctx context.Context, t *hsm.Token, name string, block *keys.Block, op func(keys.Key) error) (figure, error) {
	loaded, err := t.Load(ctx, block)
	if err != nil {
		return figure{}, err
	}
	defer loaded.Release()
	f := load(name, 2, b.Duration/2, 0, func(int) (worker, error) {
		return worker{op: func() error { return op(loaded.Key) }, end: func() error { return nil }}, nil
	})
	b.add(f)
	return f, nil
}

// throwAwayToken makes a SoftHSM token in dir for this process.
func throwAwayToken(dir string) (*hsm.Token, error) {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	conf, err := hsm.WriteSoftHSMConfig(dir)
	if err != nil {
		return nil, err
	}
	if err := os.Setenv("SOFTHSM2_CONF", conf); err != nil {
		return nil, err
	}
	module, err := hsm.FindSoftHSM()
	if err != nil {
		return nil, err
	}
	digits := func() secret.Bytes { return secret.From([]byte("24681357")) }
	if err := hsm.InitToken(module, "bench", digits(), digits()); err != nil {
		return nil, err
	}
	t, err := hsm.Open(hsm.Config{Module: module, TokenLabel: "bench", PIN: func() (secret.Bytes, error) { return digits(), nil }, RetainPIN: true, Standing: 8})
	if err != nil {
		return nil, err
	}
	return t, hsm.NewManager(t).Init(context.Background())
}

func benchID(c byte) keys.ID { return keys.ID(strings.Repeat(string(c), 32)) }

// sales measures the switch: each terminal waits for its answer.
func (b *bench) sales() error {
	config, err := devTLS(b.dev, "terminal")
	if err != nil {
		return err
	}
	terminals := b.dev.Terminals[3:min(3+b.Sellers, len(b.dev.Terminals))]
	f := load(rowSales, len(terminals), b.Duration, b.dev.PID, func(n int) (worker, error) {
		fixed := terminals[n]
		t, err := sim.NewTerminal(sim.TerminalConfig{TID: fixed.TID, MID: fixed.MID, BDK: b.dev.TestKeys[fixed.BDK], KSN: fixed.KSN}, 0)
		if err != nil {
			return worker{}, err
		}
		link, err := sim.Dial(b.p.ctx, b.dev.SwitchAddr, config.Clone(), 30*time.Second)
		if err != nil {
			return worker{}, err
		}
		return newSeller(t, link, saleStock(b.Duration, len(terminals)))
	})
	f.OfLayer, f.Layer = f.PerSecond/b.echoPS, "echo"
	if b.tokenPS > 0 {
		f.Layer += fmt.Sprintf("; %.2f of the token's limit", f.PerSecond*saleCalls/b.tokenPS)
	}
	b.add(f)
	b.verdicts = append(b.verdicts, (&hold{perSecond: 2000, p99: 40 * time.Millisecond}).check(f)...)
	if f.Failed > 0 {
		return fmt.Errorf("%s: %d sales failed", f.Name, f.Failed)
	}
	return nil
}

// saleCalls is how many calls into the token a sale takes: the initial key's
// halves, the zone PIN key, two zone MACs of two calls, the PAN's token, and the
// card data of the journal.
const saleCalls = 2 + 1 + 2*2 + 1 + 1

func (b *bench) memory(idleMB, loadedMB float64) {
	b.add(figure{Name: "daemon: resident memory idle, MB", PerSecond: idleMB})
	b.add(figure{Name: "daemon: resident memory after the load, MB", PerSecond: loadedMB})
}

func (b *bench) print() error {
	if b.JSON {
		out := json.NewEncoder(b.out)
		for _, f := range b.figures {
			if err := out.Encode(f); err != nil {
				return err
			}
		}
		for _, v := range b.verdicts {
			if err := out.Encode(v); err != nil {
				return err
			}
		}
		return nil
	}
	b.say("\n  %-50s %10s %9s %9s %14s  %s", "", "per second", "p50", "p99", "CPU us, load's", "ratio to the limit of its layer")
	for _, f := range b.figures {
		line := fmt.Sprintf("  %-50s %10.0f", f.Name, f.PerSecond)
		if f.P50 > 0 {
			line += fmt.Sprintf(" %9s %9s", f.P50.Round(10*time.Microsecond), f.P99.Round(10*time.Microsecond))
		}
		if f.ServerCPU > 0 {
			line += fmt.Sprintf(" %7.0f %6.0f", f.ServerCPU, f.LoadCPU)
		}
		if f.Layer != "" {
			line += fmt.Sprintf("  %.2f of the %s", f.OfLayer, f.Layer)
		}
		if f.Stolen >= 0.005 {
			line += fmt.Sprintf("; the host took %.0f %% of the processors", 100*f.Stolen)
		}
		b.say("%s", line)
	}
	b.say("")
	for _, v := range b.verdicts {
		b.say("  %-6s %s: %s", map[bool]string{true: "met", false: "MISSED"}[v.Met], v.Hold, v.Got)
	}
	b.say("\n  load at the end %s", loadAverage())
	return nil
}

// judge fails where a hold is missed and somebody wants to know.
func (b *bench) judge() error {
	if !b.Check {
		return nil
	}
	missed := 0
	for _, v := range b.verdicts {
		if !v.Met {
			missed++
		}
	}
	if missed > 0 {
		return fmt.Errorf("%d of %d holds are missed", missed, len(b.verdicts))
	}
	if len(b.verdicts) == 0 {
		return errors.New("no row with a hold was measured")
	}
	return nil
}
