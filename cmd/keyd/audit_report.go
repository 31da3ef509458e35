package main

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"keyd.dev/keyd/audit"
	"keyd.dev/keyd/internal/ceremony"
	"keyd.dev/keyd/internal/report"
)

type auditReportCmd struct {
	Daily    auditDailyCmd     `cmd:"" help:"What a person reviews each day: what needs an eye, alarms, refusals, access, acts of the administration, keys, readings, the clock, checkpoints."`
	Key      auditKeyReportCmd `cmd:"" help:"The life of a key: made, named, used, limited, rotated, exported, destroyed, and who consented."`
	Ceremony auditMinutesCmd   `cmd:"" help:"The minutes of a ceremony, its signatures checked."`
	Refusals auditRefusalsCmd  `cmd:"" help:"What was refused, by terminal, merchant, reason and time; floods with their exact numbers."`
	Access   auditAccessCmd    `cmd:"" help:"Who came, who was refused, and who read what of the log."`
	Time     auditTimeCmd      `cmd:"" help:"How right the clock was: steps, sources, times without one."`
}

// auditReporting is what all reports have.
type auditReporting struct {
	auditSource `embed:""`
	Since       string   `placeholder:"TIME" xor:"begin" help:"Not before: RFC 3339, a date, or a duration back from now, 2h."`
	Until       string   `placeholder:"TIME" xor:"end" help:"Before: the same forms."`
	Vkey        []string `placeholder:"FILE" help:"Verification keys of the log, as for audit verify; repeatable. Without it the key in the log's own folder is used, and the report says so."`
	Format      string   `default:"text" enum:"text,csv,html,json" help:"text, csv, html or json. html is one file that prints well. Default ${default}."`
	Output      string   `short:"o" placeholder:"FILE" type:"path" help:"Write to this file, which must not exist; default standard output."`
	Made        bool     `help:"Say in the head when the report was made. Without it the same log gives the same bytes."`
}

type auditDailyCmd struct {
	auditReporting `embed:""`
	Date           string `placeholder:"YYYY-MM-DD" xor:"begin,end" help:"The day, in UTC; default yesterday."`
}

type auditKeyReportCmd struct {
	auditReporting `embed:""`
	Key            string `arg:"" help:"Alias, ARN or key id. An alias stands for all keys that it has named."`
}

type auditMinutesCmd struct {
	auditReporting `embed:""`
	Ceremony       string   `arg:"" help:"Id of the ceremony, as keyd ceremony run prints it."`
	Transcript     string   `placeholder:"FILE" type:"path" help:"The file of the minutes, to be compared with the log."`
	Signer         []string `placeholder:"FILE" type:"path" help:"Certificates of custodians and witnesses in PEM, to check what they signed; repeatable."`
}

type auditRefusalsCmd struct {
	auditReporting `embed:""`
}

type auditAccessCmd struct {
	auditReporting `embed:""`
}

type auditTimeCmd struct {
	auditReporting `embed:""`
}

// Run makes the report of one day, or of another range.
func (c *auditDailyCmd) Run(p *program) error {
	if c.Since == "" && c.Until == "" && c.Date == "" {
		c.Date = time.Now().UTC().AddDate(0, 0, -1).Format(time.DateOnly)
	}
	if c.Date != "" {
		day, err := time.Parse(time.DateOnly, c.Date)
		if err != nil {
			return usageError("--date=%q is not a day; write 2026-11-21", c.Date)
		}
		c.Since, c.Until = c.Date, day.AddDate(0, 0, 1).Format(time.DateOnly)
	}
	return c.run(p, report.Args{Kind: report.Daily})
}

// Run makes the report of a key.
func (c *auditKeyReportCmd) Run(p *program) error {
	return c.run(p, report.Args{Kind: report.Key, Subject: c.Key})
}

// Run makes the report of a ceremony.
func (c *auditMinutesCmd) Run(p *program) error {
	args := report.Args{Kind: report.Ceremony, Subject: c.Ceremony}
	for _, file := range c.Signer {
		certs, err := readCertificates(file)
		if err != nil {
			return err
		}
		args.Certs = append(args.Certs, certs...)
	}
	if c.Transcript == "" {
		return c.run(p, args)
	}
	file, err := os.ReadFile(c.Transcript)
	if err != nil {
		return fmt.Errorf("reading the minutes: %w", err)
	}
	return c.runWith(p, args, func(vkeys []string) *report.Minutes { return readMinutes(file, vkeys) })
}

// Run makes the report.
func (c *auditRefusalsCmd) Run(p *program) error {
	return c.run(p, report.Args{Kind: report.Refusals})
}

// Run makes the report.
func (c *auditAccessCmd) Run(p *program) error { return c.run(p, report.Args{Kind: report.Access}) }

// Run makes the report.
func (c *auditTimeCmd) Run(p *program) error { return c.run(p, report.Args{Kind: report.Clock}) }

// readMinutes checks the token's signature with the key of the node's own log.
func readMinutes(file []byte, vkeys []string) *report.Minutes {
	vkey := ""
	for _, v := range vkeys {
		if origin, err := audit.OriginOf(v); err == nil && strings.HasSuffix(origin, "/"+audit.Sec.String()) {
			vkey = v
		}
	}
	t, hash, err := ceremony.ReadTranscript(file, vkey)
	if err != nil {
		return &report.Minutes{Err: err}
	}
	return &report.Minutes{Ceremony: t.Ceremony, Hash: hash}
}

func readCertificates(file string) ([]*x509.Certificate, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("reading a certificate: %w", err)
	}
	var all []*x509.Certificate
	for {
		var block *pem.Block
		if block, text = pem.Decode(text); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			continue
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("reading a certificate of %s: %w", file, err)
		}
		all = append(all, c)
	}
	if len(all) == 0 {
		return nil, usageError("no certificate in %s", file)
	}
	return all, nil
}

func (c *auditReporting) run(p *program, args report.Args) error {
	return c.runWith(p, args, func([]string) *report.Minutes { return nil })
}

// runWith verifies the log, reads it, has the reading recorded, and only then
// shows anything.
func (c *auditReporting) runWith(p *program, args report.Args, minutes func(vkeys []string) *report.Minutes) error {
	if err := c.window(&args, time.Now()); err != nil {
		return err
	}
	read := auditRead{Command: audit.QueryReport, Filter: c.text(args)}
	dir, note, err := c.open(p, read)
	if err != nil {
		return err
	}
	v := auditVerifyCmd{auditSource: c.auditSource, Vkey: c.Vkey}
	vkeys, err := v.vkeys(p, dir)
	if err != nil {
		return fmt.Errorf("verifying the audit log: %w", err)
	}
	src := report.Source{OwnKey: len(c.Vkey) == 0}
	if src.Found, err = v.verify(p.ctx, dir, vkeys); err != nil {
		return fmt.Errorf("verifying the audit log: %w", err)
	}
	args.Minutes = minutes(vkeys)
	doc, flaw := makeReport(p.ctx, dir, src, args)
	if doc == nil {
		return flaw
	}
	for _, l := range doc.Logs {
		read.Rows += l.Records
	}
	if err := note(p.ctx, p.stderr, read); err != nil {
		return err
	}
	if err := c.write(p.stdout, doc); err != nil {
		return err
	}
	return flaw
}

// makeReport reads the folder of a log. With an error there may be a report all the
// same, which says what is wrong.
func makeReport(ctx context.Context, dir string, src report.Source, args report.Args) (*report.Document, error) {
	reader, err := openLog(dir)
	if err != nil {
		return nil, err
	}
	src.Reader = reader
	doc, err := report.Make(ctx, src, args)
	switch {
	case errors.Is(err, report.ErrNothing):
		return nil, advise(fmt.Errorf("%w: %w", errNothingFound, err), "look at the spelling, and at --since and --until")
	case errors.Is(err, report.ErrArgs):
		return nil, usageError("%v", err)
	case errors.Is(err, report.ErrSignature):
		return doc, fmt.Errorf("%w: %w", errCheckFailed, err)
	case errors.Is(err, report.ErrPruned):
		err = fmt.Errorf("%w: the report lacks what is gone: %w", errUndecided, err)
	case err != nil:
		return nil, err
	}
	if !src.Found.OK() {
		return doc, fmt.Errorf("%w: the log does not verify, and the report says so on top", errCheckFailed)
	}
	return doc, err
}

// window sets the range.
func (c *auditReporting) window(args *report.Args, now time.Time) error {
	for _, end := range []struct {
		flag, text string
		at         *time.Time
	}{{"--since", c.Since, &args.From}, {"--until", c.Until, &args.To}} {
		text, err := parseMoment(end.flag, end.text, now)
		if err != nil {
			return err
		}
		if text == "" {
			continue
		}
		if *end.at, err = time.Parse(recordTime, text); err != nil {
			return err
		}
	}
	if c.Made {
		args.Made = now
	}
	return nil
}

// text is what was asked for, for the record of the reading.
func (c *auditReporting) text(args report.Args) string {
	parts := []string{"report=" + string(args.Kind)}
	for _, f := range []struct{ name, value string }{{"subject", args.Subject}, {"since", c.Since}, {"until", c.Until}} {
		if f.value != "" {
			parts = append(parts, f.name+"="+f.value)
		}
	}
	return strings.Join(parts, " ")
}

// write shows the report, or puts it into a new file.
func (c *auditReporting) write(stdout io.Writer, doc *report.Document) (err error) {
	if c.Output == "" {
		return doc.Write(stdout, report.Format(c.Format))
	}
	file, err := os.OpenFile(c.Output, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, os.ErrExist) {
		return usageError("%s exists; reports do not replace files", c.Output)
	}
	if err != nil {
		return fmt.Errorf("writing the report: %w", err)
	}
	if err := errors.Join(doc.Write(file, report.Format(c.Format)), file.Sync(), file.Close()); err != nil {
		return errors.Join(fmt.Errorf("writing the report: %w", err), os.Remove(c.Output))
	}
	return nil
}
