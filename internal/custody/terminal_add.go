package custody

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"keyd.dev/keyd/audit"
	"keyd.dev/keyd/dukpt"
	"keyd.dev/keyd/internal/secret"
	"keyd.dev/keyd/keys"
	"keyd.dev/keyd/keys/tr31"
)

// MostTerminals is how many terminals one request may add.
const MostTerminals = 1000

// NewTerminal asks for a terminal to be registered.
type NewTerminal struct {
	TID      string
	MID      string
	Scheme   Scheme
	BDK      string // of DUKPT
	KSN      string // of DUKPT: any KSN of the device, hex
	MACBytes int    // of DUKPT; 0 is 8
	Most     int64  // minor units; 0 is no limit
	Profile  string // of SchemeMaster
	Master   NewMaster
	Keys     bool // of SchemeMaster: make PIN and MAC key now
	Data     bool // and the data key
}

// NewMaster says where a terminal's master key comes from: exactly one of its
// members but Under is set.
type NewMaster struct {
	Generate bool   // the token makes it
	Key      Ref    // it is stored already, from a ceremony or an import
	TR31     string // a key block
	Under    Ref    // the key-encryption key of TR31
}

// The reasons for which an entry of a batch is refused.
const (
	RefusedForm    = "form"      // the entry cannot be right
	RefusedTaken   = "taken"     // its TID or device is registered otherwise
	RefusedKey     = "key"       // a key that it names cannot be used so
	RefusedKeyUsed = "key_value" // another terminal has a master key of this value
)

// RefusedTerminal is an entry of a batch that was refused.
type RefusedTerminal struct {
	Index  int // in the request, from 0
	TID    string
	Reason string
	Text   string // for an operator
}

// AddedTerminals is what became of a batch. Where an entry is refused, none was added.
type AddedTerminals struct {
	Added     int
	Unchanged int // registered so already
	Refused   []RefusedTerminal
}

// batch is a request to add terminals on its way.
type batch struct {
	c       *Custody
	r       *terminals
	now     time.Time
	entries []newEntry
	near    keys.ID // how the ids of its keys begin
	keks    map[Ref]*keys.Loaded
	release []func()
	result  AddedTerminals
}

// nearIDs is how many characters the ids of a batch have in common: 62 bits at
// random, and 103 more of each id's own.
const nearIDs = 12

// newEntry is one terminal of a batch.
type newEntry struct {
	index   int
	asked   NewTerminal
	t       Terminal
	there   bool // it is registered already, and must be the same
	profile TerminalProfile
	wanted  []keys.Wanted
	slots   []slot // of wanted
	made    []KeyRecord
	process bool // a clear value crossed the process
	print   [16]byte
	value   secret.Bytes // of a master key that came in a key block
}

func (b *batch) refuse(i int, tid, reason string, err error) {
	text := err.Error()
	for _, is := range []error{ErrRequest, ErrNoKey, ErrKeyUse, ErrKeyState, ErrTerminalTaken} {
		text = strings.ReplaceAll(text, is.Error()+": ", "")
	}
	b.result.Refused = append(b.result.Refused, RefusedTerminal{i, tid, reason, text})
}

// AddTerminals registers terminals and makes the keys that they ask for, all or
// none. An entry that is registered in the same way already is left as it is, so
// that a batch can be sent again. Entries that are refused stand in the result;
// the error is for what concerns all of them: [ErrDenied], [ErrRequest] for a
// batch that is empty or too large, [ErrUnavailable].
func (c *Custody) AddTerminals(ctx context.Context, caller Caller, corr string, list []NewTerminal) (AddedTerminals, error) {
	r, err := c.registry(ctx, caller, corr, OpAddTerminals)
	if err != nil {
		return AddedTerminals{}, err
	}
	if len(list) == 0 || len(list) > MostTerminals {
		return AddedTerminals{}, fmt.Errorf("%w: %d terminals; a request has 1 to %d", ErrRequest, len(list), MostTerminals)
	}
	r.changing.Lock()
	defer r.changing.Unlock()
	b := &batch{c: c, r: r, now: c.clock().UTC(), keks: make(map[Ref]*keys.Loaded)}
	defer b.close()
	if err := b.read(ctx, caller, corr, list); err != nil {
		return AddedTerminals{}, err
	}
	if len(b.result.Refused) > 0 {
		return b.result, nil
	}
	if len(b.entries) > b.result.Unchanged {
		return b.result, b.add(ctx, caller, corr)
	}
	if err := b.store(ctx); err != nil && !errors.Is(err, errRefused) {
		return AddedTerminals{}, err
	}
	if len(b.result.Refused) > 0 {
		b.result.Unchanged = 0
	}
	return b.result, nil
}

func (b *batch) close() {
	for i := range b.entries {
		b.entries[i].value.Clear()
	}
	for _, release := range b.release {
		release()
	}
}

// read checks the entries one by one.
func (b *batch) read(ctx context.Context, caller Caller, corr string, list []NewTerminal) error {
	tids := make([]string, len(list))
	seen := make(map[string]int)
	for i, n := range list {
		tids[i] = n.TID
	}
	known, err := b.r.store.RegisteredOf(ctx, tids)
	if err != nil {
		return storeError("looking for the terminals", err)
	}
	for i, n := range list {
		if at, twice := seen[n.TID]; twice {
			b.refuse(i, n.TID, RefusedTaken, fmt.Errorf("%w: entry %d of this request has the same TID", ErrRequest, at))
			continue
		}
		seen[n.TID] = i
		e := newEntry{index: i, asked: n}
		reason, err := b.entry(ctx, caller, &e)
		old, there := known[n.TID]
		if err == nil && there {
			e.there, reason = true, RefusedTaken
			err = b.same(&e, old)
		}
		b.entries = append(b.entries, e)
		switch {
		case errors.Is(err, ErrDenied):
			return b.c.refuse(ctx, caller, corr, OpAddTerminals, err)
		case errors.Is(err, ErrUnavailable), errors.Is(err, ErrTampered):
			return err
		case err != nil:
			b.refuse(i, n.TID, reason, err)
		case there:
			b.result.Unchanged++
		}
	}
	return nil
}

// entry turns what was asked for into what is to be registered.
func (b *batch) entry(ctx context.Context, caller Caller, e *newEntry) (reason string, err error) {
	n := e.asked
	e.t = Terminal{TID: n.TID, MID: n.MID, Scheme: n.Scheme, MACBytes: n.MACBytes, Most: n.Most, Status: InService, Added: b.now}
	if e.t.MACBytes == 0 {
		e.t.MACBytes = 8
	}
	if err := checkEntry(n); err != nil {
		return RefusedForm, err
	}
	if n.Scheme == SchemeMaster {
		return b.master(ctx, caller, e)
	}
	e.t.BDK = n.BDK
	if e.t.Device, err = deviceOf(n.Scheme, n.KSN); err != nil {
		return RefusedForm, err
	}
	if _, err := b.c.book.resolve(ctx, n.BDK); err != nil {
		return RefusedKey, fmt.Errorf("BDK %s: %w", n.BDK, err)
	}
	return "", nil
}

// checkEntry looks at the form of an entry.
func checkEntry(n NewTerminal) error {
	tmk := n.Scheme == SchemeMaster
	switch {
	case !printableText(n.TID, 8):
		return fmt.Errorf("%w: a TID (DE 41) has 8 printable characters", ErrRequest)
	case !printableText(n.MID, 15):
		return fmt.Errorf("%w: a MID (DE 42) has 15 printable characters", ErrRequest)
	case !tmk && n.Scheme != SchemeTDESDUKPT && n.Scheme != SchemeAESDUKPT:
		return fmt.Errorf("%w: a scheme is %s, %s or %s", ErrRequest, SchemeTDESDUKPT, SchemeAESDUKPT, SchemeMaster)
	case n.MACBytes != 0 && n.MACBytes != 4 && n.MACBytes != 8:
		return fmt.Errorf("%w: a MAC has 8 bytes, or 4", ErrRequest)
	case n.Most < 0:
		return fmt.Errorf("%w: a largest amount is not negative", ErrRequest)
	case tmk && (n.BDK != "" || n.KSN != ""):
		return fmt.Errorf("%w: a terminal with a master key has neither BDK nor KSN", ErrRequest)
	case !tmk && (n.Profile != "" || n.Master != NewMaster{} || n.Keys || n.Data):
		return fmt.Errorf("%w: a DUKPT terminal has no profile, master key or working keys", ErrRequest)
	case !tmk && !ValidAlias(n.BDK):
		return fmt.Errorf("%w: the BDK is named by its alias, alias/…", ErrRequest)
	case n.Data && !n.Keys:
		return fmt.Errorf("%w: a data key is made together with PIN and MAC key", ErrRequest)
	}
	return nil
}

// printableText reports whether s is n printable ASCII characters, not all blank.
func printableText(s string, n int) bool {
	if len(s) != n || strings.TrimSpace(s) == "" {
		return false
	}
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}

// deviceOf is the part of a KSN that a terminal is bound to.
func deviceOf(scheme Scheme, ksn string) (string, error) {
	ksn = strings.ToUpper(ksn)
	if scheme == SchemeAESDUKPT {
		k, err := dukpt.ParseAESKSN(ksn)
		if err != nil {
			return "", fmt.Errorf("%w: %w", ErrRequest, err)
		}
		return k.Device().String()[:16], nil
	}
	k, err := dukpt.ParseTDESKSN(ksn)
	if err != nil {
		return "", fmt.Errorf("%w: %w", ErrRequest, err)
	}
	return k.Device().String(), nil
}

// master plans the keys of a terminal that has a master key.
func (b *batch) master(ctx context.Context, caller Caller, e *newEntry) (reason string, err error) {
	n := e.asked
	if e.profile, err = b.r.profile(n.Profile); err != nil {
		return RefusedForm, err
	}
	e.t.Profile = n.Profile
	sources := 0
	for _, given := range []bool{n.Master.Generate, n.Master.Key != Ref{}, n.Master.TR31 != ""} {
		if given {
			sources++
		}
	}
	switch {
	case sources != 1:
		return RefusedForm, fmt.Errorf("%w: a master key is generated, stored already, or in a key block: exactly one of these", ErrRequest)
	case (n.Master.TR31 != "") != (n.Master.Under != Ref{}):
		return RefusedForm, fmt.Errorf("%w: a key block and its key-encryption key go together", ErrRequest)
	case n.Master.TR31 != "":
		err = b.openBlock(ctx, caller, e)
	case n.Master.Key != Ref{}:
		err = b.attach(ctx, caller, e)
	default:
		err = b.want(e, slotMaster, e.profile.attributes(slotMaster), false)
	}
	if err != nil {
		return RefusedKey, err
	}
	if n.Keys {
		err = b.wantWorking(e)
	}
	return RefusedKey, err
}

// wantWorking plans PIN, MAC and data key.
func (b *batch) wantWorking(e *newEntry) error {
	slots := []slot{slotPIN, slotMAC}
	if e.asked.Data {
		slots = append(slots, slotData)
	}
	for _, s := range slots {
		if err := b.want(e, s, e.profile.attributes(s), s == slotMAC && e.profile.MACBytes == 8); err != nil {
			return err
		}
	}
	return nil
}

func (b *batch) want(e *newEntry, s slot, a keys.Attributes, single bool) error {
	origin := keys.Generated
	if s == slotMaster && e.value.Len() > 0 {
		origin = keys.External
	}
	template, _, err := b.c.template(a, 0, nil, origin)
	if err != nil {
		return err
	}
	// Ids that begin alike stand together in the database: a batch writes some
	// hundred pages of it in place of as many as it has keys.
	if b.near == "" {
		b.near = template.ID[:nearIDs]
	}
	template.ID = b.near + template.ID[nearIDs:]
	if s != slotMaster {
		template.Policy = e.profile.policy(e.t.TID, s, 0)
	}
	w := keys.Wanted{Template: template, Single: single}
	if s == slotMaster {
		w.Value = e.value
	}
	e.wanted, e.slots = append(e.wanted, w), append(e.slots, s)
	return nil
}

// attach takes a stored key as the master key.
func (b *batch) attach(ctx context.Context, caller Caller, e *newEntry) error {
	k, err := b.c.book.find(ctx, e.asked.Master.Key)
	if err != nil {
		return fmt.Errorf("master key: %w", err)
	}
	if !caller.mayUse(k.Aliases) {
		return fmt.Errorf("master key: %w: not with this key", ErrDenied)
	}
	a := k.Block.Attributes
	if a.Usage != keys.UsageKEK || a.Algorithm != e.profile.Master || a.Mode == keys.ModeDecrypt {
		return fmt.Errorf("%w: a master key of profile %s is %s and may encipher; this one is %s", ErrKeyUse, e.profile.Name, e.profile.attributes(slotMaster), a)
	}
	if err := inUse(k); err != nil {
		return fmt.Errorf("master key: %w", err)
	}
	e.t.Master = k.Block.ID
	e.print, err = b.c.printOf(ctx, k)
	return err
}

// openBlock takes the master key out of a key block of X9.143.
func (b *batch) openBlock(ctx context.Context, caller Caller, e *newEntry) error {
	block, err := tr31.Parse(e.asked.Master.TR31)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrRequest, err)
	}
	kek, k, err := b.kek(ctx, caller, e.asked.Master.Under)
	if err != nil {
		return err
	}
	value, err := block.Open(kek.Key, k.Block.Attributes.Algorithm, tr31.Policy{})
	switch {
	case errors.Is(err, tr31.ErrOpen), errors.Is(err, tr31.ErrVersion), errors.Is(err, tr31.ErrHeader), errors.Is(err, tr31.ErrStrength):
		return fmt.Errorf("%w: %w", ErrRequest, err)
	case err != nil:
		return tokenError("opening a key block", err)
	}
	e.value = value
	a, err := block.Attributes(value.Len())
	want := e.profile.attributes(slotMaster)
	if err != nil || a.Usage != want.Usage || a.Algorithm != want.Algorithm || a.Mode == keys.ModeDecrypt {
		return fmt.Errorf("%w: a master key of profile %s is %s and may encipher; the block says otherwise", ErrRequest, e.profile.Name, want)
	}
	if err := keys.CheckMaterial(a.Algorithm, value.Reveal()); err != nil {
		return fmt.Errorf("%w: %w", ErrRequest, tr31.ErrOpen) // no more of what deciphering showed
	}
	a.Mode = want.Mode
	return b.want(e, slotMaster, a, false)
}

// kek loads a key-encryption key once for all blocks of a batch.
func (b *batch) kek(ctx context.Context, caller Caller, ref Ref) (*keys.Loaded, KeyRecord, error) {
	k, err := b.c.book.find(ctx, ref)
	if err != nil {
		return nil, k, fmt.Errorf("key-encryption key: %w", err)
	}
	a := k.Block.Attributes
	switch {
	case !caller.mayUse(k.Aliases):
		return nil, k, fmt.Errorf("key-encryption key: %w: not with this key", ErrDenied)
	case a.Usage != keys.UsageKEK && a.Usage != keys.UsageKBPK || a.Mode == keys.ModeEncrypt:
		return nil, k, fmt.Errorf("%w: a key block comes under a key of usage K0 or K1 that may decipher; this one is %s", ErrKeyUse, a)
	}
	if err := inUse(k); err != nil {
		return nil, k, fmt.Errorf("key-encryption key: %w", err)
	}
	if loaded := b.keks[ref]; loaded != nil {
		return loaded, k, nil
	}
	loaded, err := b.c.load(ctx, k)
	if err != nil {
		return nil, k, err
	}
	b.keks[ref] = loaded
	b.release = append(b.release, loaded.Release)
	return loaded, k, nil
}

// same refuses an entry that is registered otherwise. A master key that came in
// a block is compared by its print, in the registry.
func (b *batch) same(e *newEntry, old Terminal) error {
	t := e.t
	if e.value.Len() > 0 {
		cipher, err := clearKey(e.profile.Master, e.value)
		if err != nil {
			return err
		}
		defer cipher.release()
		made, err := cipher.full.Encrypt(nil, keys.PrintData(e.profile.Master))
		if err != nil {
			return tokenError("making the print of a key", err)
		}
		if e.print, err = b.r.print(e.profile.Master, made); err != nil {
			return err
		}
	}
	generated := e.asked.Master.Generate || e.asked.Master.TR31 != ""
	if old.MID == t.MID && old.Scheme == t.Scheme && old.BDK == t.BDK && old.Device == t.Device && old.MACBytes == t.MACBytes &&
		old.Most == t.Most && old.Profile == t.Profile && (old.Master == t.Master || generated) &&
		(!e.asked.Keys || old.Keys.Version > 0) {
		return nil
	}
	return fmt.Errorf("%w: the TID is registered already, and differently", ErrTerminalTaken)
}

// clearKey is a key whose value is at hand.
func clearKey(a keys.Algorithm, value secret.Bytes) (*working, error) {
	if a.IsAES() {
		return clearAES(value.Reveal(), a)
	}
	return clearTDES(value.Reveal())
}

// hashOfTerminal is the digest of an entry in records.
func hashOfTerminal(t Terminal) audit.Hash {
	text, err := json.Marshal(t)
	if err != nil {
		return audit.Hash{}
	}
	return sha256.Sum256(text)
}
