package report

import (
	"bytes"
	"cmp"
	"context"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"

	"keyd.dev/keyd/audit"
)

// Minutes are the signed minutes of a ceremony, from the file that its opener has.
type Minutes struct {
	Ceremony string
	Hash     [32]byte
	Err      error // why the signature of the token does not hold, or nil
}

// minutesObject is the name under which the log has the hash of the minutes.
func minutesObject(id string) string { return "ceremony/" + id }

// transcript is what the log has of a ceremony.
type transcript struct {
	id     string
	steps  []*record
	others []*record // keys made, the hash of the minutes
	sums   []*record // of the minutes
}

func makeCeremony(ctx context.Context, b *book, args Args, d *Document) error {
	d.Title = "Minutes of a ceremony"
	if args.Subject == "" {
		return fmt.Errorf("%w: name the ceremony", ErrArgs)
	}
	t := &transcript{id: args.Subject}
	needle := []byte(`"` + args.Subject + `"`)
	want := func(raw []byte) bool { return bytes.Contains(raw, needle) }
	if err := b.eachOf(ctx, audit.Sec.String(), want, t.see, nil); err != nil {
		return err
	}
	if len(t.steps) == 0 {
		return fmt.Errorf("%w: ceremony %s", ErrNothing, args.Subject)
	}
	b.finish(d)
	t.head(d)
	t.people(d)
	t.minutes(d)
	bad := t.signatures(d, args)
	bad += t.file(d, args.Minutes)
	t.made(d)
	if bad > 0 {
		d.Bad = bad
	}
	return nil
}

func (t *transcript) see(r *record) {
	switch {
	case r.Cer != nil && r.Cer.ID == t.id:
		t.steps = append(t.steps, r)
	case r.is(audit.AdminExecute) && r.object() == minutesObject(t.id):
		t.sums = append(t.sums, r)
	case r.Corr == t.id && !r.intent():
		t.others = append(t.others, r)
	}
}

func (t *transcript) head(d *Document) {
	first, last := t.steps[0], t.steps[len(t.steps)-1]
	end, ended := "the log has no end of it", last
	for _, r := range t.steps {
		if !r.intent() && (r.is(audit.CeremonyCommit) || r.is(audit.CeremonyAbort) || r.is(audit.CeremonyExpire)) {
			end, ended = r.Cer.Step+", "+r.result(), r
		}
	}
	s := d.section("The ceremony", "", "", "What", "Said")
	s.one(first, "purpose", first.Cer.Purpose)
	s.one(first, "persons needed, of those named", fmt.Sprintf("%d of %d", first.Cer.M, first.Cer.N))
	s.one(first, "begun (UTC)", short(first.Time)+" by "+first.Actor.ID)
	s.one(ended, "ended (UTC)", short(ended.Time))
	s.one(ended, "end", end)
	s.one(first, "node and build", first.Node+", "+first.Build)
	for _, r := range t.steps {
		if k := r.keyWords(); k != "" && !r.intent() {
			s.one(r, "key, by "+r.Cer.Step, k)
		}
	}
}

// people are those who acted, as they were authenticated.
func (t *transcript) people(d *Document) {
	var who tally
	for _, r := range t.steps {
		if !r.intent() {
			who.add(r, 1, r.Actor.ID, r.Actor.Kind, r.Actor.Authn, orDash(r.Actor.Cert))
		}
	}
	s := d.section("Persons", "Who acted, and the SHA-256 of the certificate by which the node knew them.", "", "Who", "Kind", "Authenticated by", "Certificate", "#Steps", "First (UTC)", "Last (UTC)")
	who.into(s, who.byKey(), true)
}

func (t *transcript) minutes(d *Document) {
	s := d.section("Steps", "In the order of the log; a step that changes the token has a beginning and an end.", "", "No.", "Time (UTC)", "Step", "Who", "With", "Component", "Check value", "Device and bags", "Outcome")
	for _, r := range t.steps {
		c := r.Cer
		component := ""
		if c.Component > 0 {
			component = fmt.Sprint(c.Component)
		}
		var things []string
		for _, x := range [][2]string{{"device ", c.Device}, {"bag opened ", c.BagOut}, {"bag closed ", c.BagIn}} {
			if x[1] != "" {
				things = append(things, x[0]+x[1])
			}
		}
		row := s.one(r, fmt.Sprint(c.No), short(r.Time), c.Step, cmp.Or(c.Custodian, r.Actor.ID), orDash(c.Witness), orDash(component), orDash(c.KCV), orDash(strings.Join(things, ", ")), r.result())
		if r.Outcome != "" && r.Outcome != audit.OutcomeOK.String() {
			row.Level = warn
		}
	}
}

// signatures checks what custodians and witnesses signed, and says what could not
// be checked. It returns how many are bad.
func (t *transcript) signatures(d *Document, args Args) (bad int) {
	s := d.section("Signatures of custodians and witnesses", "Over the record without its number and its signatures (L-76), by the certificate that was given for each person.", "", "Time (UTC)", "Step", "Who", "As", "Verdict", "Why")
	var unsigned tally
	for _, r := range t.steps {
		if r.intent() {
			continue
		}
		if len(r.Cer.Sig) == 0 && len(r.Cer.WitnessSig) == 0 {
			unsigned.add(r, 1, r.Actor.ID, r.Actor.Authn)
			continue
		}
		for _, one := range []struct {
			as, who string
			sig     []byte
			cert    string // its SHA-256, where the record has it
		}{
			{"custodian", cmp.Or(r.Cer.Custodian, r.Actor.ID), r.Cer.Sig, r.Actor.Cert},
			{"witness", r.Cer.Witness, r.Cer.WitnessSig, ""},
		} {
			if len(one.sig) == 0 {
				if one.who != "" {
					s.one(r, short(r.Time), r.Cer.Step, one.who, one.as, "not signed", "the record has no signature of theirs")
				}
				continue
			}
			verdict, why := checkSignature(args.Certs, one.cert, one.who, r.raw, one.sig)
			row := s.one(r, short(r.Time), r.Cer.Step, one.who, one.as, verdict, why)
			if verdict == broken {
				bad++
				row.Level = critical
			} else if verdict != good {
				row.Level = warn
			}
		}
	}
	for _, l := range unsigned.byKey() {
		why := "the record has no signature: " + l.key[0] + " was authenticated by " + l.key[1] + ", and the node's word stands for the step"
		s.row(l.refs, short(l.first), number(l.n)+" steps", l.key[0], "–", "not signed", why)
	}
	return bad
}

// file compares the minutes that the token signed with the hash in the log.
func (t *transcript) file(d *Document, m *Minutes) (bad int) {
	s := d.section("The signed minutes", "At its end the token signs the minutes, and the log takes their SHA-256. The command keyd ceremony verify looks into the file itself.", "The log has no hash of minutes for this ceremony.", "What", "SHA-256", "Verdict", "Why")
	for _, r := range t.sums {
		s.one(r, "in the log", r.Change.After, "recorded", "approved by "+orDash(r.approvers()))
	}
	if m == nil {
		for _, r := range t.sums {
			s.one(r, "in the file", "–", "not checked", "no file of the minutes was given (--transcript)").Level = warn
		}
		return 0
	}
	sum := hex.EncodeToString(m.Hash[:])
	var refs Refs
	verdict, why, level := good, "signed by the token, and of the same hash as in the log", ""
	fits := slices.ContainsFunc(t.sums, func(r *record) bool { return r.Change.After == sum })
	for _, r := range t.sums {
		refs.add(r.Log, r.Seq)
	}
	switch {
	case m.Err != nil:
		verdict, why, level, sum = broken, m.Err.Error(), critical, "–"
	case m.Ceremony != t.id:
		verdict, why, level = broken, "these are the minutes of "+m.Ceremony, critical
	case !fits:
		verdict, why, level = broken, "the log has another hash", critical
	}
	s.row(refs, "in the file", sum, verdict, why).Level = level
	if verdict == broken {
		return 1
	}
	return 0
}

// made is what came of it, besides its steps.
func (t *transcript) made(d *Document) {
	s := d.section("What came of it", "Other records with the ceremony's id: keys made, changed, exported or destroyed.", "No other record has the ceremony's id.", "Time (UTC)", "Who", "What", "About", "Outcome")
	for _, r := range t.others {
		s.one(r, short(r.Time), r.Actor.ID, r.Action, lifeWords(r), r.result())
	}
}
