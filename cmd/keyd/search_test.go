package main

import (
	"bufio"
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// The canaries are in the environment of every daemon that a script starts by
// `daemon`: a search that does not find them finds nothing.
var canaries = map[string]func([]byte) string{
	"KEYD_CANARY_RAW":    func(b []byte) string { return string(b) },
	"KEYD_CANARY_UPPER":  func(b []byte) string { return strings.ToUpper(hex.EncodeToString(b)) },
	"KEYD_CANARY_LOWER":  hex.EncodeToString,
	"KEYD_CANARY_BASE64": base64.StdEncoding.EncodeToString,
}

// canary is 16 bytes, none of them zero, that stand nowhere else: the
// environment takes no zeros. They are drawn for each form, so that one that is
// found says nothing of another.
func canary(form string) []byte {
	b := make([]byte, 16)
	for i := range b {
		b[i] = byte(0x81 + (i*37+len(form)*11+int(form[len(form)-1]))%0x7e)
	}
	return b
}

// daemon DIR starts `keyd dev` there with its log in DIR.log, and waits until it
// is ready.
func cmdDaemon(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: daemon DIR")
	}
	program := ""
	for dir := range strings.SplitSeq(ts.Getenv("PATH"), string(os.PathListSeparator)) {
		if path := filepath.Join(dir, "keyd"); program == "" && exists(path) {
			program = path
		}
	}
	dir := ts.MkAbs(args[0])
	log, err := os.OpenFile(dir+".log", os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	ts.Check(err)
	cmd := exec.Command(program, "dev", "--dir", dir)
	cmd.Dir, cmd.Stdout, cmd.Stderr = ts.MkAbs("."), log, log
	cmd.Env = os.Environ()
	for name, form := range canaries {
		cmd.Env = append(cmd.Env, name+"="+form(canary(name)))
	}
	ts.Check(cmd.Start())
	ended := make(chan struct{})
	go func() { _ = cmd.Wait(); log.Close(); close(ended) }()
	ts.Defer(func() {
		_ = cmd.Process.Signal(os.Interrupt)
		select {
		case <-ended:
		case <-time.After(deskPatience):
			_ = cmd.Process.Kill()
			<-ended
		}
	})
	for end := time.Now().Add(deskPatience); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		var dev devReport
		text, err := os.ReadFile(filepath.Join(dir, "dev.json"))
		if err == nil && json.Unmarshal(text, &dev) == nil && dev.PID == cmd.Process.Pid {
			return
		}
		select {
		case <-ended:
			text, _ := os.ReadFile(dir + ".log")
			ts.Fatalf("the daemon ended:\n%s", text)
		default:
		}
	}
	ts.Fatalf("the daemon was not ready within a minute")
}

// forgotten DEV.JSON COMPONENT… looks for components, given in hexadecimal, in
// the memory of the daemon and in every file below the script's folder, and
// fails where one is found. - in place of DEV.JSON: the daemon is gone, and
// only files are searched.
func cmdForgotten(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: forgotten DEV.JSON|- COMPONENT...")
	}
	var secrets []needle
	for _, text := range args[1:] {
		value, err := hex.DecodeString(strings.ReplaceAll(text, " ", ""))
		ts.Check(err)
		if len(value) < 16 {
			ts.Fatalf("a component has at least 16 bytes")
		}
		secrets = append(secrets, needles(value)...)
	}
	ts.Check(searchFiles(ts.MkAbs("."), secrets))
	if args[0] == "-" {
		return
	}
	var dev devReport
	ts.Check(json.Unmarshal([]byte(ts.ReadFile(args[0])), &dev))
	ts.Check(searchMemory(dev.PID, secrets))
}

// needle is one form of a secret.
type needle struct {
	form string
	text []byte
}

// needles are the forms in which a value could have been left: whole and by
// halves, as bytes, as digits, and as base64 at each of its three offsets.
func needles(value []byte) []needle {
	var all []needle
	for name, part := range map[string][]byte{"whole": value, "first half": value[:len(value)/2], "second half": value[len(value)/2:]} {
		all = append(all,
			needle{"binary, " + name, part},
			needle{"upper hex, " + name, []byte(strings.ToUpper(hex.EncodeToString(part)))},
			needle{"lower hex, " + name, []byte(hex.EncodeToString(part))},
			needle{"upper hex in groups, " + name, []byte(grouped(strings.ToUpper(hex.EncodeToString(part))))},
		)
	}
	for offset := range 3 {
		text := base64.StdEncoding.EncodeToString(append(make([]byte, offset), value...))
		all = append(all, needle{fmt.Sprintf("base64 at offset %d", offset), []byte(text[4 : len(text)-4])})
	}
	return all
}

func grouped(digits string) string {
	var b strings.Builder
	for i, c := range digits {
		if i > 0 && i%4 == 0 {
			b.WriteByte(' ')
		}
		b.WriteRune(c)
	}
	return b.String()
}

func lookFor(text []byte, all []needle) []string {
	var found []string
	for _, n := range all {
		if at := bytes.Index(text, n.text); at >= 0 {
			found = append(found, fmt.Sprintf("%s at %d", n.form, at))
		}
	}
	return found
}

// searchFiles looks into every file below a folder, after it has found one that
// it planted there.
func searchFiles(root string, secrets []needle) error {
	planted := filepath.Join(root, "canary", "below")
	if err := os.MkdirAll(filepath.Dir(planted), 0o700); err != nil {
		return err
	}
	defer os.RemoveAll(filepath.Dir(planted))
	mark := canary("file")
	if err := os.WriteFile(planted, append(make([]byte, 70_000), mark...), 0o600); err != nil {
		return err
	}
	sure := false
	var errs []error
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			if errors.Is(err, fs.ErrNotExist) {
				return nil // went away meanwhile
			}
			return err
		}
		text, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		sure = sure || len(lookFor(text, needles(mark))) > 0
		if found := lookFor(text, secrets); len(found) > 0 {
			errs = append(errs, fmt.Errorf("a component stands in %s: %s", path, strings.Join(found, "; ")))
		}
		return nil
	})
	if !sure {
		errs = append(errs, errors.New("the search of files does not find its canary"))
	}
	return errors.Join(append(errs, err)...)
}

// searchMemory looks into all readable memory of a process, after it has found
// the canaries of its environment.
func searchMemory(pid int, secrets []needle) error {
	maps, err := os.Open(fmt.Sprintf("/proc/%d/maps", pid))
	if err != nil {
		return fmt.Errorf("the memory of the daemon cannot be searched: %w", err)
	}
	defer maps.Close()
	memory, err := os.Open(fmt.Sprintf("/proc/%d/mem", pid))
	if err != nil {
		return fmt.Errorf("the memory of the daemon cannot be searched: %w", err)
	}
	defer memory.Close()
	seen := make(map[string]bool)
	var errs []error
	regions := bufio.NewScanner(maps)
	for regions.Scan() {
		// What the kernel shows of itself.
		if strings.Contains(regions.Text(), "[vvar") || strings.HasSuffix(regions.Text(), "[vsyscall]") {
			continue
		}
		// The kept PIN's page, which nobody can read from outside (C-16).
		if strings.Contains(regions.Text(), "/secretmem") {
			continue
		}
		var from, to int64
		var rights string
		if _, err := fmt.Sscanf(regions.Text(), "%x-%x %s", &from, &to, &rights); err != nil {
			return err
		}
		if rights[0] != 'r' {
			continue
		}
		// Pieces overlap, so that nothing hides on a border.
		const piece, overlap = 16 << 20, 512
		for at := from; at < to; at += piece {
			text := make([]byte, min(piece+overlap, to-at))
			n, err := memory.ReadAt(text, at)
			if err != nil && !errors.Is(err, io.EOF) && n == 0 {
				if rights[1] == 'w' {
					return fmt.Errorf("the memory of the daemon cannot be searched: %s: %w", regions.Text(), err)
				}
				continue
			}
			for name, form := range canaries {
				seen[name] = seen[name] || bytes.Contains(text[:n], []byte(form(canary(name))))
			}
			if found := lookFor(text[:n], secrets); len(found) > 0 {
				errs = append(errs, fmt.Errorf("a component is in the memory of the daemon, %s: %s", regions.Text(), strings.Join(found, "; ")))
			}
		}
	}
	for name := range canaries {
		if !seen[name] {
			errs = append(errs, fmt.Errorf("the search of memory does not find %s", name))
		}
	}
	return errors.Join(append(errs, regions.Err())...)
}

// issueCertificate signs a client certificate by the CA of a development daemon.
func issueCertificate(dir, name, uri, subject string) error {
	pair := func(file string) ([]byte, error) {
		text, err := os.ReadFile(filepath.Join(dir, "pki", file))
		if err != nil {
			return nil, err
		}
		block, _ := pem.Decode(text)
		if block == nil {
			return nil, fmt.Errorf("%s holds no PEM", file)
		}
		return block.Bytes, nil
	}
	der, err := pair("ca.pem")
	if err != nil {
		return err
	}
	authority, err := x509.ParseCertificate(der)
	if err != nil {
		return err
	}
	if der, err = pair("ca.key"); err != nil {
		return err
	}
	parsed, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return err
	}
	signer, ok := parsed.(*ecdsa.PrivateKey)
	if !ok {
		return errors.New("the CA's key is of another kind")
	}
	identity, err := url.Parse(uri)
	if err != nil {
		return err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	leaf := &x509.Certificate{
		Subject:     pkix.Name{Organization: []string{"keyd dev"}, CommonName: subject},
		URIs:        []*url.URL{identity},
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	if err := dated(leaf, time.Hour); err != nil {
		return err
	}
	cert, err := x509.CreateCertificate(rand.Reader, leaf, authority, &key.PublicKey, signer)
	if err != nil {
		return err
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	return errors.Join(
		os.WriteFile(name+".pem", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert}), 0o600),
		os.WriteFile(name+".key", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}), 0o600))
}
