package main

import (
	"database/sql"
	"errors"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	_ "github.com/mattn/go-sqlite3"

	"keyd.dev/keyd/internal/isoswitch"
	"keyd.dev/keyd/internal/sim"
)

// saleName names a sale in all three books: no terminal has two of one amount.
type saleName struct {
	tid    string
	amount int64
}

// journalSale is a row of keyd's own book.
type journalSale struct {
	name     saleName
	oid      string
	state    isoswitch.State
	answer   string
	ksn      string
	macKey   string
	reversed int64 // minor units, by partial reversals
}

// journalReversal is a reversal of keyd's own book.
type journalReversal struct {
	oid      string
	cause    isoswitch.Cause
	full     bool
	rest     int64
	state    isoswitch.ReversalState
	answer   string
	ksn      string
	upAnswer string
	tries    int
}

// reporter is told what is wrong in the books; *testing.T is one.
type reporter interface {
	Errorf(format string, args ...any)
}

// books are those of the issuer, of the terminals and of keyd.
type books struct {
	issuer    map[saleName]sim.Entry
	deals     map[saleName]*deal
	journal   map[saleName]journalSale
	reversals map[string][]journalReversal // by OID
	ksns      []string                     // of every message that had an effect
}

// journalDB opens the database to look at it, past the store: the test shall
// not depend on what it tests.
func journalDB(dir string) (*sql.DB, error) {
	return sql.Open("sqlite3", "file:"+filepath.Join(dir, "keyd.db")+"?mode=rw&_busy_timeout=10000&_query_only=on")
}

// unfinished counts what keyd still has to do.
func unfinished(dir string) (sales, reversals int, err error) {
	db, err := journalDB(dir)
	if err != nil {
		return 0, 0, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	err = db.QueryRow(`SELECT (SELECT count(*) FROM txn WHERE state IN ('RECEIVED', 'FORWARDED', 'UNKNOWN')),
		(SELECT count(*) FROM reversal WHERE state IN ('WAITING', 'QUEUED', 'SENT'))`).Scan(&sales, &reversals)
	return sales, reversals, err
}

// reversedBy is how many reversals the journal of a running keyd has of a cause.
func (k *killable) reversedBy(cause isoswitch.Cause) (n int) {
	k.t.Helper()
	db, err := journalDB(k.dir)
	if err == nil {
		err = errors.Join(db.QueryRow("SELECT count(*) FROM reversal WHERE cause = ?", string(cause)).Scan(&n), db.Close())
	}
	if err != nil {
		k.t.Fatal(err)
	}
	return n
}

// openBooks reads all three once nothing moves any more.
func openBooks(t reporter, dir string, entries []sim.Entry, tills []*till) *books {
	b := &books{
		issuer: make(map[saleName]sim.Entry), deals: make(map[saleName]*deal),
		journal: make(map[saleName]journalSale), reversals: make(map[string][]journalReversal),
	}
	for _, till := range tills {
		for _, d := range till.deals {
			b.deals[saleName{d.tid, d.amount}] = d
		}
	}
	for _, e := range entries {
		name := saleName{e.TID, e.Amount}
		if first, twice := b.issuer[name]; twice {
			t.Errorf("M-21: the issuer has one sale twice: %+v and %+v", first, e)
		}
		b.issuer[name] = e
	}
	if err := b.readJournal(t, dir); err != nil {
		t.Errorf("reading keyd's journal: %v", err)
	}
	return b
}

func (b *books) readJournal(t reporter, dir string) (err error) {
	db, err := journalDB(dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	var verdict string
	if err := db.QueryRow("PRAGMA integrity_check").Scan(&verdict); err != nil || verdict != "ok" {
		return fmt.Errorf("integrity: %q, %w", verdict, err)
	}
	rows, err := db.Query("SELECT tid, amount, hex(oid), state, answer, ksn, mac_key, reversed_amount FROM txn")
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var s journalSale
		if err := rows.Scan(&s.name.tid, &s.name.amount, &s.oid, &s.state, &s.answer, &s.ksn, &s.macKey, &s.reversed); err != nil {
			return err
		}
		if first, twice := b.journal[s.name]; twice {
			t.Errorf("M-21: the journal has one sale twice: %+v and %+v", first, s)
		}
		b.journal[s.name] = s
		if s.state != isoswitch.Tombstone { // its KSN is that of its reversal
			b.ksns = append(b.ksns, s.ksn)
		}
	}
	if err := rows.Err(); err != nil {
		return err
	}
	return b.readReversals(db)
}

func (b *books) readReversals(db *sql.DB) error {
	rows, err := db.Query("SELECT hex(oid), cause, full, rest, state, answer, ksn, up_answer, tries FROM reversal")
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var r journalReversal
		if err := rows.Scan(&r.oid, &r.cause, &r.full, &r.rest, &r.state, &r.answer, &r.ksn, &r.upAnswer, &r.tries); err != nil {
			return err
		}
		b.reversals[r.oid] = append(b.reversals[r.oid], r)
		if r.ksn != "" {
			b.ksns = append(b.ksns, r.ksn)
		}
	}
	return rows.Err()
}

// each runs a check over every deal.
func (b *books) each(check func(d *deal, e sim.Entry, atIssuer bool, j journalSale, inJournal bool)) {
	for name, d := range b.deals {
		e, atIssuer := b.issuer[name]
		j, inJournal := b.journal[name]
		check(d, e, atIssuer, j, inJournal)
	}
}

// invariant is a check over the books.
type invariant struct {
	name  string
	check func(reporter)
}

// reconcile compares the books, one subtest an invariant.
func (b *books) reconcile(t *testing.T) {
	for _, i := range b.invariants() {
		t.Run(i.name, func(t *testing.T) { i.check(t) })
	}
}

func (b *books) invariants() []invariant {
	return []invariant{
		{"R-01 what was not approved to the terminal is reversed or never was", b.nothingLeftStanding},
		{"R-36 what was approved and not taken back stands", b.approvedStands},
		{"R-08 I-1 a reversal answered 00 took effect exactly once", b.reversedOnce},
		{"R-03 I-5 what was answered is found again", b.answeredIsKept},
		{"I-2 no more is reversed than was sold", b.neverMoreThanSold},
		{"I-3 every effect has a verdict or a cause", b.causes},
		{"I-4 the journal and the issuer agree", b.agree},
		{"M-21 no KSN was accepted twice", b.ksnsOnce},
		{"R-01 nothing is in flight at the end", b.nothingInFlight},
	}
}

// nothingLeftStanding: a sale that the terminal has no approval of does not
// stand at the issuer. Of one that the terminal never asked about again keyd
// may have answered an approval that was lost on the way; then keyd says so.
func (b *books) nothingLeftStanding(t reporter) {
	b.each(func(d *deal, e sim.Entry, atIssuer bool, j journalSale, inJournal bool) {
		standing := atIssuer && e.State == "approved"
		switch {
		case d.code == "00" || !standing:
		case d.abandoned && d.code == "" && inJournal && j.state == isoswitch.Approved && j.answer == "00":
		default:
			t.Errorf("stands at the issuer: %s\nissuer %+v\njournal %+v %+v", d, e, j, b.reversals[j.oid])
		}
	})
}

// approvedStands: no reversal that the terminal did not ask for hits a sale
// whose approval was delivered.
func (b *books) approvedStands(t reporter) {
	b.each(func(d *deal, e sim.Entry, atIssuer bool, j journalSale, _ bool) {
		if d.code != "00" || d.asked {
			return
		}
		if !atIssuer || e.State != "approved" || e.Received != 0 || e.Effective != 0 || e.Reversed != 0 {
			t.Errorf("does not stand: %s\nissuer %v %+v\njournal %+v %+v", d, atIssuer, e, j, b.reversals[j.oid])
		}
	})
}

// reversedOnce: however often a reversal was sent, from the terminal or
// upstream, its effect is one.
func (b *books) reversedOnce(t reporter) {
	b.each(func(d *deal, e sim.Entry, atIssuer bool, j journalSale, _ bool) {
		say := func(what string) {
			t.Errorf("%s: %s\nissuer %v %+v\njournal %+v %+v", what, d, atIssuer, e, j, b.reversals[j.oid])
		}
		// An issuer that knows a reversal by its STAN would do a second one too.
		if e.Effective > 1 || len(e.Named) > 1 {
			say("more than one reversal")
		}
		if d.reversal != "00" {
			return
		}
		if d.code == "00" && !atIssuer {
			say("approved, and not known to the issuer")
		}
		if !atIssuer || e.Code != "00" {
			return // there was nothing to reverse
		}
		want := "reversed"
		if d.rest > 0 {
			want = "approved"
		}
		if e.Effective != 1 || e.State != want || e.Reversed != d.amount-d.rest {
			say("not reversed exactly once")
		}
	})
}

// answeredIsKept: after any number of crashes keyd knows what it has answered.
func (b *books) answeredIsKept(t reporter) {
	b.each(func(d *deal, e sim.Entry, atIssuer bool, j journalSale, inJournal bool) {
		say := func(what string) {
			t.Errorf("%s: %s\njournal %v %+v %+v", what, d, inJournal, j, b.reversals[j.oid])
		}
		switch {
		case d.asked && d.reversal == "":
			say("the reversal has no answer")
		case d.code == "00" && (!inJournal || j.answer != "00"):
			say("an approval was forgotten")
		case d.code == "00" && d.asked && d.reversal != "00":
			say("the reversal of an approved sale was refused")
		case d.reversal == "" || d.reversal == "12":
		case !b.storedAnswer(j, d):
			say("the journal has not the answer to the reversal")
		}
	})
}

// storedAnswer reports whether a reversal of the sale has the answer that the
// terminal got.
func (b *books) storedAnswer(j journalSale, d *deal) bool {
	for _, r := range b.reversals[j.oid] {
		if r.answer == d.reversal && r.full == (d.rest == 0) {
			return true
		}
	}
	// The reversal of a declined sale has no effect and no record (D-16).
	return d.advice && j.state == isoswitch.Declined
}

func (b *books) neverMoreThanSold(t reporter) {
	for _, e := range b.issuer {
		if e.Reversed > e.Amount {
			t.Errorf("the issuer's book: %+v", e)
		}
	}
	for oid, all := range b.reversals {
		full := 0
		for _, r := range all {
			if r.full {
				full++
			}
		}
		if full > 1 {
			t.Errorf("I-1: original %s has %d full reversals", oid, full)
		}
	}
}

// causes: what the terminals did not ask for, keyd had a reason for.
func (b *books) causes(t reporter) {
	for name, j := range b.journal {
		if j.macKey == "" {
			t.Errorf("no key of a verified MAC: %+v", j)
		}
		d, known := b.deals[name]
		if !known {
			t.Errorf("the journal has a sale that no terminal made: %+v", j)
			continue
		}
		for _, r := range b.reversals[j.oid] {
			if r.cause == isoswitch.ByTerminal && !d.asked {
				t.Errorf("a reversal that the terminal never asked for: %s, %+v", d, r)
			}
		}
	}
}

// agree: at the end every state of keyd's says what the issuer's book says.
func (b *books) agree(t reporter) {
	for name, e := range b.issuer {
		if _, ok := b.journal[name]; !ok {
			t.Errorf("R-03: the issuer has a sale that the journal lacks: %+v", e)
		}
		if e.Messages != 1 {
			t.Errorf("M-21: a sale went upstream %d times: %+v", e.Messages, e)
		}
		if e.PIN != "" && e.PIN != "right" {
			t.Errorf("the PIN arrived %s: %+v", e.PIN, e)
		}
	}
	for name, j := range b.journal {
		e, atIssuer := b.issuer[name]
		ok := false
		switch j.state {
		case isoswitch.Approved:
			ok = atIssuer && e.State == "approved" && e.Reversed == j.reversed
		case isoswitch.Declined:
			ok = !atIssuer || e.State == "declined"
		case isoswitch.Reversed:
			ok = atIssuer && e.State != "approved"
		case isoswitch.ReversedUnknown, isoswitch.LocalVoid, isoswitch.Tombstone:
			ok = !atIssuer
		}
		if !ok {
			t.Errorf("the journal says %s: %+v %+v\nissuer %v %+v", j.state, j, b.reversals[j.oid], atIssuer, e)
		}
	}
}

func (b *books) ksnsOnce(t reporter) {
	seen := make(map[string]bool)
	for _, ksn := range b.ksns {
		if seen[ksn] {
			t.Errorf("KSN %s had an effect twice", ksn)
		}
		seen[ksn] = true
	}
}

func (b *books) nothingInFlight(t reporter) {
	for _, j := range b.journal {
		switch j.state {
		case isoswitch.Received, isoswitch.Forwarded, isoswitch.Unknown, isoswitch.ReversalPending, isoswitch.ReversalFailed:
			t.Errorf("a sale is %s: %+v", j.state, j)
		}
		for _, r := range b.reversals[j.oid] {
			if r.state != isoswitch.Confirmed && r.state != isoswitch.Closed {
				t.Errorf("a reversal is %s: %+v", r.state, r)
			}
		}
	}
}

// count is how many deals fit.
func (b *books) count(fits func(*deal) bool) (n int) {
	for _, d := range b.deals {
		if fits(d) {
			n++
		}
	}
	return n
}

// caused is how many reversals keyd has of a cause.
func (b *books) caused(c isoswitch.Cause) (n int) {
	for _, all := range b.reversals {
		for _, r := range all {
			if r.cause == c {
				n++
			}
		}
	}
	return n
}

// settled waits until keyd has nothing more to do.
func (k *killable) settled(most time.Duration) {
	k.t.Helper()
	var sales, reversals int
	k.await("nothing is in flight", most, func() bool {
		var err error
		sales, reversals, err = unfinished(k.dir)
		if err != nil {
			k.t.Fatal(err)
		}
		return sales == 0 && reversals == 0
	})
}
