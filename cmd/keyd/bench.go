package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
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
}

// benchCmd measures a daemon of its own, with the load generator beside it on
// the same machine. Each figure stands beside the limit of its layer: raw
// token operations, and an mTLS server that answers JSON with JSON.
type benchCmd struct {
	Duration    time.Duration `help:"Length of each measurement." default:"5s"`
	Connections int           `help:"Connections of the load generator to the API." default:"64"`
	JSON        bool          `help:"Print JSON lines." name:"json"`
	EchoListen  string        `help:"Serve the echo on this address instead; for the bench's own use." hidden:""`
	EchoDir     string        `hidden:"" type:"path"`
}

// figure is one measured rate.
type figure struct {
	Name      string        `json:"name"`
	PerSecond float64       `json:"per_second"`
	P50       time.Duration `json:"p50_ns,omitempty"`
	P99       time.Duration `json:"p99_ns,omitempty"`
	Failed    int           `json:"failed"`
	OfLayer   float64       `json:"of_layer,omitempty"` // ratio to the raw limit of its layer
	Layer     string        `json:"layer,omitempty"`
}

// Run measures everything and prints a table.
func (c *benchCmd) Run(p *program) error {
	if c.EchoListen != "" {
		return c.serveEcho(p)
	}
	dir, clean, err := trialDir("")
	if err != nil {
		return err
	}
	defer clean()
	b := &bench{benchCmd: c}
	b.machine(p)
	if err := b.token(p, filepath.Join(dir, "token")); err != nil {
		return err
	}
	if b.trial, err = startTrial(p, dir); err != nil {
		return err
	}
	defer b.stop()
	time.Sleep(time.Second) // an idle daemon is a settled one
	idle := residentMB(b.dev.PID)
	if err := b.echo(); err != nil {
		return err
	}
	if err := b.operations(); err != nil {
		return err
	}
	if err := b.sales(); err != nil {
		return err
	}
	b.memory(idle, residentMB(b.dev.PID))
	return b.print()
}

type bench struct {
	*benchCmd
	*trial
	out     io.Writer
	figures []figure
	tokenPS float64 // raw token encryptions a second
	echoPS  float64
}

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
	f, err := b.tokenOp(p.ctx, t, "token: TDES encryption of one block", tdes, func(k keys.Key) error { _, err := k.Encrypt(nil, block); return err })
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
	f := load(name, 2, b.Duration/2, func(int) (func() error, func(), error) {
		return func() error { return op(loaded.Key) }, func() {}, nil
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
	t, err := hsm.Open(hsm.Config{Module: module, TokenLabel: "bench", PIN: func() (secret.Bytes, error) { return digits(), nil }, RetainPIN: true})
	if err != nil {
		return nil, err
	}
	return t, hsm.NewManager(t).Init(context.Background())
}

func benchID(c byte) keys.ID { return keys.ID(strings.Repeat(string(c), 32)) }

// echo measures the server that does nothing: the limit of TLS, HTTP and JSON.
func (b *bench) echo() error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	server := exec.Command(self, "bench", "--echo-listen", "127.0.0.1:0", "--echo-dir", filepath.Join(b.dir, "dev"))
	out, err := server.StdoutPipe()
	if err != nil {
		return err
	}
	server.Stderr = b.p.stderr
	if err := server.Start(); err != nil {
		return err
	}
	defer func() { _ = server.Process.Signal(syscall.SIGTERM); _ = server.Wait() }()
	addr := make([]byte, 64)
	n, err := out.Read(addr)
	if err != nil {
		return fmt.Errorf("starting the echo: %w", err)
	}
	f, err := b.requests("echo: empty mTLS JSON", strings.TrimSpace(string(addr[:n])), "/", [][]byte{[]byte("{}")})
	if err != nil {
		return err
	}
	b.echoPS = f.PerSecond
	b.add(f)
	return nil
}

// serveEcho answers every request with an empty JSON object.
func (c *benchCmd) serveEcho(p *program) error {
	dev, err := readDev(c.EchoDir)
	if err != nil {
		return err
	}
	config, err := devTLS(dev, "switch")
	if err != nil {
		return err
	}
	server, err := tls.LoadX509KeyPair(dev.Issuer.Cert, dev.Issuer.Key)
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", c.EchoListen)
	if err != nil {
		return err
	}
	fmt.Fprintln(p.stdout, listener.Addr())
	s := &http.Server{
		ReadHeaderTimeout: 5 * time.Second,
		TLSConfig:         &tls.Config{Certificates: []tls.Certificate{server}, ClientCAs: config.RootCAs, ClientAuth: tls.RequireAndVerifyClientCert, MinVersion: tls.VersionTLS13, SessionTicketsDisabled: true},
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			var in any
			if json.NewDecoder(io.LimitReader(r.Body, 1<<16)).Decode(&in) != nil {
				w.WriteHeader(http.StatusBadRequest)
				return
			}
			w.Header().Set("Content-Type", "application/json")
			_ = json.NewEncoder(w).Encode(in)
		}),
	}
	stop := context.AfterFunc(p.ctx, func() { _ = s.Close() })
	defer stop()
	if err := s.ServeTLS(listener, "", ""); err != nil && p.ctx.Err() == nil {
		return err
	}
	return nil
}

// operations measures the data plane.
func (b *bench) operations() error {
	pins, err := b.pinRequests()
	if err != nil {
		return err
	}
	host := strings.TrimPrefix(b.dev.APIURL, "https://")
	rows := []struct {
		name, path string
		bodies     [][]byte
		calls      float64 // into the token, each
	}{
		{"API: PIN translation, TDES DUKPT to zone key", "/pindata/translate", pins, 4}, // two for the initial key, the zone key, the PAN's token
		{"API: MAC generation, algorithm 3, 200 bytes", "/mac/generate", [][]byte{macRequest("alias/dev/zak", `{"Algorithm":"ISO9797_ALGORITHM3"}`)}, 2},
		{"API: MAC generation, AES DUKPT CMAC, 200 bytes", "/mac/generate", [][]byte{macRequest("alias/dev/bdk-aes", `{"DukptCmac":{"KeySerialNumber":"123456789012345600000001","DukptKeyVariant":"RESPONSE","DukptDerivationType":"AES_128"}}`)}, 1},
	}
	for _, row := range rows {
		f, err := b.requests(row.name, host, row.path, row.bodies)
		if err != nil {
			return err
		}
		f.OfLayer, f.Layer = f.PerSecond/b.echoPS, fmt.Sprintf("echo; %.2f of the token's limit", f.PerSecond*row.calls/b.tokenPS)
		b.add(f)
	}
	return nil
}

func macRequest(key, attributes string) []byte {
	return []byte(`{"KeyIdentifier":"` + key + `","MessageData":"` + strings.Repeat("30", 200) + `","GenerationAttributes":` + attributes + `,"MacLength":8}`)
}

// pinRequests are translations of different devices and counters.
func (b *bench) pinRequests() ([][]byte, error) {
	const pan = demoPANTDES
	var bodies [][]byte
	for _, fixed := range b.dev.Terminals[3:] {
		t, err := sim.NewTerminal(sim.TerminalConfig{TID: fixed.TID, MID: fixed.MID, BDK: b.dev.TestKeys[fixed.BDK], KSN: fixed.KSN}, 0)
		if err != nil {
			return nil, err
		}
		for range 8 {
			sale, err := t.Sale(demoAmountTDES, sim.Card{PAN: pan, PIN: testPIN}, nil)
			if err != nil {
				return nil, err
			}
			bodies = append(bodies, fmt.Appendf(nil, `{"IncomingKeyIdentifier":"alias/dev/bdk-tdes","OutgoingKeyIdentifier":"alias/dev/zpk",`+
				`"IncomingTranslationAttributes":{"IsoFormat0":{"PrimaryAccountNumber":"%[1]s"}},"OutgoingTranslationAttributes":{"IsoFormat0":{"PrimaryAccountNumber":"%[1]s"}},`+
				`"EncryptedPinBlock":"%[2]s","IncomingDukptAttributes":{"KeySerialNumber":"%[3]s","DukptKeyDerivationType":"TDES_2KEY"}}`,
				pan, sale.Message.Text(52), sale.KSN))
		}
	}
	return bodies, nil
}

// requests posts the bodies in turn over the connections, each of which waits
// for its answer.
func (b *bench) requests(name, host, path string, bodies [][]byte) (figure, error) {
	config, err := devTLS(b.dev, "switch")
	if err != nil {
		return figure{}, err
	}
	config.NextProtos = []string{"http/1.1"}
	f := load(name, b.Connections, b.Duration, func(worker int) (func() error, func(), error) {
		conn, err := dialHTTP(b.p.ctx, host, config)
		if err != nil {
			return nil, nil, err
		}
		next := worker
		return func() error {
			next++
			return conn.post(path, bodies[next%len(bodies)])
		}, conn.close, nil
	})
	if f.Failed > 0 {
		return f, fmt.Errorf("%s: %d requests failed", name, f.Failed)
	}
	return f, nil
}

// sales measures the switch: each terminal waits for its answer.
func (b *bench) sales() error {
	config, err := devTLS(b.dev, "terminal")
	if err != nil {
		return err
	}
	terminals := b.dev.Terminals[3:]
	f := load("switch: sales with PIN and MAC, both ways", len(terminals), b.Duration, func(worker int) (func() error, func(), error) {
		fixed := terminals[worker]
		t, err := sim.NewTerminal(sim.TerminalConfig{TID: fixed.TID, MID: fixed.MID, BDK: b.dev.TestKeys[fixed.BDK], KSN: fixed.KSN}, 0)
		if err != nil {
			return nil, nil, err
		}
		link, err := sim.Dial(b.p.ctx, b.dev.SwitchAddr, config.Clone(), 30*time.Second)
		if err != nil {
			return nil, nil, err
		}
		return func() error { return oneSale(t, link) }, func() { _ = link.Close() }, nil
	})
	f.OfLayer, f.Layer = f.PerSecond/b.echoPS, fmt.Sprintf("echo; %.2f of the token's limit", f.PerSecond*saleCalls/b.tokenPS)
	b.add(f)
	if f.Failed > 0 {
		return fmt.Errorf("%s: %d sales failed", f.Name, f.Failed)
	}
	return nil
}

// saleCalls is how many calls into the token a sale takes: three initial keys,
// the zone PIN key, two zone MACs of two calls, the PAN's token twice, and the
// card data of the journal.
const saleCalls = 3*2 + 1 + 2*2 + 2 + 1

func oneSale(t *sim.Terminal, link *sim.Link) error {
	sent, err := t.Sale(demoAmountTDES, sim.Card{PAN: demoPANTDES, PIN: testPIN}, nil)
	if err != nil {
		return err
	}
	raw, err := link.Exchange(sent.Raw)
	if err != nil {
		return err
	}
	answer, err := t.Answer(sent, raw)
	if err != nil {
		return err
	}
	if code := answer.Text(39); code != "00" {
		return fmt.Errorf("sale answered with %s (%s)", code, meaning(code))
	}
	return nil
}

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
		return nil
	}
	b.say("\n  %-50s %12s %10s %10s  %s", "", "per second", "p50", "p99", "ratio to the limit of its layer")
	for _, f := range b.figures {
		line := fmt.Sprintf("  %-50s %12.0f", f.Name, f.PerSecond)
		if f.P50 > 0 {
			line += fmt.Sprintf(" %10s %10s", f.P50.Round(10*time.Microsecond), f.P99.Round(10*time.Microsecond))
		}
		if f.Layer != "" {
			line += fmt.Sprintf("  %.2f of the %s", f.OfLayer, f.Layer)
		}
		b.say("%s", line)
	}
	b.say("\n  load at the end %s", loadAverage())
	return nil
}

// load runs workers for a time. prepare gives a worker's operation and its end.
func load(name string, workers int, length time.Duration, prepare func(worker int) (func() error, func(), error)) figure {
	type result struct {
		took   []time.Duration
		failed int
	}
	results := make(chan result, workers)
	begin := make(chan struct{})
	ready := make(chan struct{}, workers)
	for worker := range workers {
		go func() {
			op, end, err := prepare(worker)
			ready <- struct{}{}
			if err != nil {
				fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
				results <- result{failed: 1}
				return
			}
			defer end()
			<-begin
			var r result
			for until := time.Now().Add(length); ; {
				start := time.Now()
				if start.After(until) {
					break
				}
				if err := op(); err != nil {
					if r.failed == 0 {
						fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
					}
					r.failed++
					break
				}
				r.took = append(r.took, time.Since(start))
			}
			results <- r
		}()
	}
	for range workers {
		<-ready
	}
	start := time.Now()
	close(begin)
	f := figure{Name: name}
	var all []time.Duration
	for range workers {
		r := <-results
		all = append(all, r.took...)
		f.Failed += r.failed
	}
	f.PerSecond = float64(len(all)) / time.Since(start).Seconds()
	slices.Sort(all)
	if len(all) > 0 {
		f.P50, f.P99 = all[len(all)/2], all[len(all)*99/100]
	}
	return f
}

// residentMB is the resident memory of a process in megabytes.
func residentMB(pid int) float64 {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	for line := range bytes.Lines(raw) {
		if rest, ok := bytes.CutPrefix(line, []byte("VmRSS:")); ok {
			kb, err := strconv.ParseFloat(strings.Fields(string(rest))[0], 64)
			if err != nil {
				return 0
			}
			return kb / 1000
		}
	}
	return 0
}

func loadAverage() string {
	raw, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "unknown"
	}
	return strings.Join(strings.Fields(string(raw))[:3], " ")
}
