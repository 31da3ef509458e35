package api

import (
	"encoding/hex"
	"strconv"
	"strings"
	"time"

	"keyd.dev/keyd/internal/custody"
)

// The operations on the registry of terminals, which only keyd has.

// Limits of a request that adds terminals: a thousand of them, each with a key
// block.
const (
	mostTerminalBody   = 1 << 20
	mostTerminalValues = 16 << 10
)

// TerminalKey is a key of a terminal in answers.
type TerminalKey struct {
	Slot          string
	KeyArn        string
	Version       uint32
	KeyCheckValue string
	Previous      bool `json:",omitempty"`
}

// Terminal is a terminal in answers. Times are RFC 3339.
type Terminal struct {
	TID           string `json:"Tid"`
	MID           string `json:"Mid"`
	Scheme        string
	Status        string
	Reason        string     `json:",omitempty"`
	Since         *time.Time `json:",omitempty"`
	Added         *time.Time `json:",omitempty"`
	MaximumAmount int64      `json:",omitempty"`

	BDK      string `json:"Bdk,omitempty"`
	Device   string `json:",omitempty"`
	MACBytes int    `json:"MacBytes,omitempty"`

	Profile    string        `json:",omitempty"`
	KeyVersion uint32        `json:",omitempty"`
	KeysMade   *time.Time    `json:",omitempty"`
	Retires    *time.Time    `json:",omitempty"`
	Keys       []TerminalKey `json:",omitempty"`
	// Of the present MAC key: messages whose MAC it was asked to verify, how many of these it may have, and when
	// it is too old. Then the terminal must sign in.
	Messages    uint64     `json:",omitempty"`
	MaxMessages uint64     `json:",omitempty"`
	KeysUntil   *time.Time `json:",omitempty"`
}

func moment(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

func wireTerminal(t custody.Terminal) Terminal {
	out := Terminal{
		TID: t.TID, MID: t.MID, Scheme: string(t.Scheme), Status: string(t.Status), Reason: t.Reason,
		Since: moment(t.Since), Added: moment(t.Added), MaximumAmount: t.Most,
		BDK: t.BDK, Device: t.Device, Profile: t.Profile,
		KeyVersion: t.Keys.Version, KeysMade: moment(t.Keys.Made), Retires: moment(t.Retires),
	}
	if t.Scheme != custody.SchemeMaster {
		out.MACBytes = t.MACBytes
	}
	return out
}

func (c *call) wireKeys(list []custody.TerminalKey) []TerminalKey {
	all := make([]TerminalKey, 0, len(list))
	for _, k := range list {
		all = append(all, TerminalKey{k.Slot, string(c.names.appendARN(nil, k.ID)), k.Version, k.Check.String(), k.Previous})
	}
	return all
}

// refusedTerminal is an entry that was refused. Where there is one, nothing of
// the request was registered.
type refusedTerminal struct {
	Index   int
	TID     string `json:"Tid"`
	Reason  string
	Message string
}

// addTerminals is AddTerminals: up to a thousand, all or none.
func (c *call) addTerminals() error {
	f := &c.form
	list := f.list(0, "Terminals", required)
	var all []custody.NewTerminal
	if list >= 0 {
		for at := list + 1; at < f.doc.nodes[list].next; at = f.doc.nodes[at].next {
			if f.doc.nodes[at].kind != kindObject {
				f.failAt(at, "must be an object")
				break
			}
			all = append(all, c.newTerminal(at))
			if len(f.wrong) > 0 {
				break // one is enough, in a list of a thousand
			}
		}
	}
	if err := c.check(); err != nil {
		return err
	}
	added, err := c.custody.AddTerminals(c.ctx, c.caller, c.id, all)
	if err != nil {
		return err
	}
	out := struct {
		Added     int
		Unchanged int
		Refused   []refusedTerminal
	}{added.Added, added.Unchanged, []refusedTerminal{}}
	for _, r := range added.Refused {
		out.Refused = append(out.Refused, refusedTerminal{r.Index, r.TID, r.Reason, r.Text})
	}
	return c.answerJSON(out)
}

// newTerminal reads one entry of AddTerminals. What its members may say is for
// custody, so that every entry gets its own answer.
func (c *call) newTerminal(at int32) custody.NewTerminal {
	f := &c.form
	text := func(name string, need bool) string {
		_, text := f.string(at, name, need)
		return string(text)
	}
	n := custody.NewTerminal{
		TID: text("Tid", required), MID: text("Mid", required), Scheme: custody.Scheme(text("Scheme", required)),
		BDK: text("Bdk", optional), KSN: text("Ksn", optional), MACBytes: f.int(at, "MacBytes", 4, 8),
		Profile: text("Profile", optional),
	}
	n.Most, _ = c.amount(at, "MaximumAmount")
	if key := f.object(at, "MasterKey", optional); key >= 0 {
		switch which, member := f.union(key, []string{"Generate", "KeyIdentifier", "Tr31KeyBlock"}, nil); which {
		case 0:
			n.Master.Generate, _ = f.bool(key, "Generate", required)
		case 1:
			n.Master.Key = c.keyRefOf(key, "KeyIdentifier")
		case 2:
			if f.doc.nodes[member].kind != kindObject {
				f.failAt(member, "must be an object")
				break
			}
			_, block := f.string(member, "WrappedKeyBlock", required)
			n.Master.TR31, n.Master.Under = string(block), c.keyRefOf(member, "WrappingKeyIdentifier")
		}
	}
	n.Keys, n.Data = c.workingKeys(at)
	return n
}

// workingKeys reads which working keys are to be made: PIN and MAC key belong
// together.
func (c *call) workingKeys(object int32) (keys, data bool) {
	f := &c.form
	list := f.list(object, "WorkingKeys", optional)
	if list < 0 {
		return false, false
	}
	found := make(map[string]bool)
	for at := list + 1; at < f.doc.nodes[list].next; at = f.doc.nodes[at].next {
		if f.doc.nodes[at].kind != kindString {
			f.failAt(at, "must be a string")
			return false, false
		}
		found[string(f.doc.bytes(f.doc.nodes[at].text))] = true
	}
	keys, data = found["TPK"] && found["TAK"], found["TDK"]
	delete(found, "TPK")
	delete(found, "TAK")
	delete(found, "TDK")
	if !keys || len(found) > 0 {
		f.failAt(list, "must be TPK and TAK, or TPK, TAK and TDK")
	}
	return keys, data
}

// amount reads an amount of money in minor units, at most 12 digits (DE 4).
func (c *call) amount(object int32, name string) (value int64, given bool) {
	at := c.form.typed(object, name, optional, kindNumber, "must be a number")
	if at < 0 {
		return 0, false
	}
	text := string(c.form.doc.bytes(c.form.doc.nodes[at].text))
	value, err := strconv.ParseInt(text, 10, 64)
	if err != nil || len(text) > 12 || value < 0 {
		c.form.failAt(at, "must be a whole number of minor units, at most 12 digits")
		return 0, false
	}
	return value, true
}

// terminalID reads the member Tid.
func (c *call) terminalID() string {
	_, tid := c.form.string(0, "Tid", required)
	c.asked = string(tid)
	return c.asked
}

// statuses are the words of requests for the status of a terminal.
func statusOf(word string) custody.TerminalStatus {
	switch word {
	case "IN_SERVICE":
		return custody.InService
	case "SUSPENDED":
		return custody.Suspended
	case "RETIRED":
		return custody.Retired
	}
	return ""
}

// changeTerminal is ChangeTerminal: status or limit, or both.
func (c *call) changeTerminal() error {
	q := custody.ChangeTerminal{TID: c.terminalID()}
	if at, word := c.form.string(0, "Status", optional); at >= 0 {
		if q.Status = statusOf(string(word)); q.Status == "" {
			c.form.failAt(at, "must be IN_SERVICE, SUSPENDED or RETIRED")
		}
	}
	_, reason := c.form.string(0, "Reason", optional)
	q.Reason = string(reason)
	if most, given := c.amount(0, "MaximumAmount"); given {
		q.Most = &most
	}
	if err := c.check(); err != nil {
		return err
	}
	t, err := c.custody.ChangeTerminal(c.ctx, c.caller, c.id, q)
	if err != nil {
		return err
	}
	return c.answerJSON(struct{ Terminal Terminal }{wireTerminal(t)})
}

// getTerminal is GetTerminal.
func (c *call) getTerminal() error {
	tid := c.terminalID()
	if err := c.check(); err != nil {
		return err
	}
	view, err := c.custody.GetTerminal(c.ctx, c.caller, c.id, tid)
	if err != nil {
		return err
	}
	out := wireTerminal(view.Terminal)
	out.Keys = c.wireKeys(view.Has)
	out.Messages, out.MaxMessages, out.KeysUntil = view.Messages, view.MostMessages, moment(view.Until)
	return c.answerJSON(struct{ Terminal Terminal }{out})
}

// listTerminals is ListTerminals: a page, in the order of the TIDs.
func (c *call) listTerminals() error {
	const most, usual = 1000, 100
	limit := c.form.int(0, "MaxResults", 1, most)
	if limit == 0 {
		limit = usual
	}
	query := string(custody.OpListTerminals)
	after := ""
	if at, token := c.form.string(0, "NextToken", optional); at >= 0 {
		var ok bool
		if after, ok = c.pages.after(c.caller.Name, query, token); !ok || len(token) > mostToken {
			c.form.failAt(at, "is not a token of this query and caller, or has expired")
		}
	}
	if err := c.check(); err != nil {
		return err
	}
	list, err := c.custody.ListTerminals(c.ctx, c.caller, c.id, after, limit)
	if err != nil {
		return err
	}
	out := struct {
		Terminals []Terminal
		NextToken string `json:",omitempty"`
	}{Terminals: make([]Terminal, 0, len(list))}
	for _, t := range list {
		out.Terminals = append(out.Terminals, wireTerminal(t))
	}
	if len(list) == limit { // there may be more
		out.NextToken = c.pages.token(c.caller.Name, query, list[limit-1].TID)
	}
	return c.answerJSON(out)
}

// distributeKeys is DistributeKeys: working keys under the terminal's master key.
func (c *call) distributeKeys() error {
	q := custody.DistributeKeys{TID: c.terminalID()}
	if at, word := c.form.string(0, "Form", required); at >= 0 {
		q.Form = custody.Delivery(strings.ToLower(string(word)))
	}
	q.Data, _ = c.form.bool(0, "DataKey", optional)
	q.Present, _ = c.form.bool(0, "Present", optional)
	if err := c.check(); err != nil {
		return err
	}
	got, err := c.custody.DistributeKeys(c.ctx, c.caller, c.id, q)
	if err != nil {
		return err
	}
	c.custodyIs = got.Custody
	type block struct {
		Slot            string
		WrappedKeyBlock string
	}
	out := struct {
		TID        string `json:"Tid"`
		Form       string
		KeyVersion uint32
		Field62    string        `json:",omitempty"` // hexadecimal, without its length
		KeyBlocks  []block       `json:",omitempty"`
		Keys       []TerminalKey // with the check values of the clear keys
		Retires    *time.Time    `json:",omitempty"` // of the keys before
	}{TID: got.TID, Form: string(q.Form), KeyVersion: got.Version, Field62: strings.ToUpper(hex.EncodeToString(got.Field)),
		Keys: c.wireKeys(got.Keys), Retires: moment(got.Retires)}
	for _, b := range got.Blocks {
		out.KeyBlocks = append(out.KeyBlocks, block{b.Slot, b.Block})
	}
	return c.answerJSON(out)
}
