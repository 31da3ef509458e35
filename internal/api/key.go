package api

import (
	"bytes"
	"errors"
	"unicode/utf8"

	"keyd.dev/keyd/internal/custody"
	"keyd.dev/keyd/keys"
)

const (
	mostTags          = 200
	mostTagName       = 128 // characters
	mostTagValue      = 256
	symmetric         = "SYMMETRIC_KEY" // the class of every key that keyd makes
	checkOfPublicKeys = "SHA_1"
)

// modeFlags are the members of KeyModesOfUse, in the order of answers, with the
// modes of X9.143 that set each (section 8.1).
func modeFlags() []modeFlag {
	return []modeFlag{
		{"Encrypt", "BE"}, {"Decrypt", "BD"}, {"Wrap", "BE"}, {"Unwrap", "BD"}, {"Generate", "CG"},
		{"Sign", "S"}, {"Verify", "CV"}, {"DeriveKey", "X"}, {"NoRestrictions", "N"},
	}
}

type modeFlag struct{ name, modes string }

func (m modeFlag) of(mode keys.Mode) bool {
	for i := range len(m.modes) {
		if m.modes[i] == byte(mode) {
			return true
		}
	}
	return false
}

// createKey is CreateKey (section 11.1).
func (c *call) createKey() error {
	q := custody.CreateKey{Attributes: c.keyAttributes(), Enabled: true}
	q.CheckBy = c.checkMethod(q.Attributes.Algorithm)
	if exportable, _ := c.form.bool(0, "Exportable", required); exportable {
		q.Attributes.Exportability = keys.Exportable
	} else {
		q.Attributes.Exportability = keys.NonExportable
	}
	if enabled, given := c.form.bool(0, "Enabled", optional); given {
		q.Enabled = enabled
	}
	q.Tags = c.tags()
	c.form.unserved(0, "DeriveKeyUsage", "ReplicationRegions")
	if len(c.form.wrong) == 0 {
		c.checkAttributes(q.Attributes)
	}
	if err := c.check(); err != nil {
		return err
	}
	return c.once(custody.OpCreateKey, func(repeat *custody.Repeat) error {
		repeat.Render = func(k custody.KeyRecord) ([]byte, error) { return c.appendKey(nil, k), nil }
		q.Once = repeat
		k, err := c.custody.CreateKey(c.ctx, c.caller, c.id, q)
		if err != nil {
			return err
		}
		c.out = c.appendKey(c.out, k)
		return nil
	})
}

// once carries out a change, or gives the stored answer where the same request
// was carried out before (section 7). Of two that run at once, one finds the
// answer of the other.
func (c *call) once(op custody.Operation, change func(*custody.Repeat) error) error {
	if known, err := c.recall(op); known || err != nil {
		return err
	}
	err := change(&custody.Repeat{Invocation: c.invocation, Body: c.digest})
	if !errors.Is(err, custody.ErrRepeated) {
		return err
	}
	if known, again := c.recall(op); known || again != nil {
		return again
	}
	return err
}

func (c *call) recall(op custody.Operation) (bool, error) {
	if c.invocation == "" {
		return false, nil
	}
	answer, known, err := c.custody.Recall(c.ctx, c.caller, c.id, op, c.invocation, c.digest, keyOfAnswer)
	if known {
		c.out = append(c.out, answer...)
	}
	return known, err
}

// keyOfAnswer is the id of the key that a stored answer is about; "" where it
// names none.
func keyOfAnswer(answer []byte) string {
	_, rest, _ := bytes.Cut(answer, []byte(`KeyArn":"`))
	arn, _, _ := bytes.Cut(rest, []byte(`"`))
	return string(arn[bytes.LastIndexByte(arn, '/')+1:])
}

// getKey is GetKey.
func (c *call) getKey() error {
	ref := c.keyRef("KeyIdentifier")
	if err := c.check(); err != nil {
		return err
	}
	k, err := c.custody.Key(c.ctx, c.caller, c.id, ref)
	if errors.Is(err, custody.ErrNoKey) && ref.ID != "" {
		var public custody.PublicKey
		if public, err = c.custody.PublicKey(c.ctx, c.caller, c.id, custody.OpGetKey, ref); err == nil {
			c.out = c.appendPublicKey(c.out, public)
			return nil
		}
	}
	if err != nil {
		c.named("KeyIdentifier")
		return err
	}
	c.out = c.appendKey(c.out, k)
	return nil
}

// listKeys is ListKeys: one page of the keys that the caller may use.
func (c *call) listKeys() error {
	q := custody.KeyQuery{State: c.keyState()}
	size := c.form.int(0, "MaxResults", 1, mostPage)
	if size == 0 {
		size = defaultPage
	}
	query := string(custody.OpListKeys) + " " + string(q.State)
	if at, token := c.form.string(0, "NextToken", optional); at >= 0 {
		after, ok := c.pages.after(c.caller.Name, query, token)
		if !ok || len(token) > mostToken {
			c.form.failAt(at, "is not a token of this query and caller, or has expired")
		}
		q.After = keys.ID(after)
	}
	if err := c.check(); err != nil {
		return err
	}
	q.Limit = size + 1 // one more tells whether there is another page
	list, err := c.custody.Keys(c.ctx, c.caller, c.id, q)
	if err != nil {
		return err
	}
	next := ""
	if len(list) > size {
		list = list[:size]
		next = c.pages.token(c.caller.Name, query, string(list[size-1].Block.ID))
	}
	c.out = append(c.out, `{"Keys":[`...)
	for i, k := range list {
		if i > 0 {
			c.out = append(c.out, ',')
		}
		c.out = c.appendSummary(c.out, k)
	}
	c.out = append(c.out, ']')
	if next != "" {
		c.out = append(c.out, `,"NextToken":`...)
		c.out = appendString(c.out, next)
	}
	c.out = append(c.out, '}')
	return nil
}

func (c *call) keyState() custody.KeyState {
	at, text := c.form.string(0, "KeyState", optional)
	if at < 0 {
		return ""
	}
	switch state := custody.KeyState(text); state {
	case custody.CreateInProgress, custody.CreateComplete, custody.DeletePending, custody.DeleteComplete:
		return state
	}
	c.form.failAt(at, "must be CREATE_IN_PROGRESS, CREATE_COMPLETE, DELETE_PENDING or DELETE_COMPLETE")
	return ""
}

// keyAttributes reads KeyAttributes, each member for itself.
func (c *call) keyAttributes() keys.Attributes { return c.keyAttributesOf(0) }

// keyAttributesOf reads them as a member of an object.
func (c *call) keyAttributesOf(object int32) (a keys.Attributes) {
	f := &c.form
	at := f.object(object, "KeyAttributes", required)
	var err error
	if usage, text := f.string(at, "KeyUsage", required); usage >= 0 {
		if a.Usage, err = keys.ParseUsage(string(text)); err != nil {
			f.failAt(usage, "is not a key usage that keyd serves")
		}
	}
	if class, text := f.string(at, "KeyClass", required); class >= 0 && string(text) != symmetric {
		f.failAt(class, "is not a key class that keyd makes; it makes "+symmetric)
	}
	if algorithm, text := f.string(at, "KeyAlgorithm", required); algorithm >= 0 {
		if a.Algorithm, err = keys.ParseAlgorithm(string(text)); err != nil {
			f.failAt(algorithm, "is not a key algorithm that keyd makes")
		}
	}
	if modes := f.object(at, "KeyModesOfUse", required); modes >= 0 {
		a.Mode = c.mode(modes)
	}
	return a
}

// mode returns the one mode that has exactly the flags that are set.
func (c *call) mode(at int32) keys.Mode {
	flags := modeFlags()
	set := make([]bool, len(flags))
	for i, flag := range flags {
		set[i], _ = c.form.bool(at, flag.name, optional)
	}
	for _, mode := range []keys.Mode{
		keys.ModeBoth, keys.ModeEncrypt, keys.ModeDecrypt, keys.ModeMAC, keys.ModeMake,
		keys.ModeVerify, keys.ModeDerive, keys.ModeSign, keys.ModeAny,
	} {
		same := true
		for i, flag := range flags {
			same = same && set[i] == flag.of(mode)
		}
		if same {
			return mode
		}
	}
	c.form.failAt(at, "is not a combination of X9.143")
	return 0
}

// checkAttributes says which of the attributes does not go with the usage.
func (c *call) checkAttributes(a keys.Attributes) { c.checkAttributesOf("", a) }

// checkAttributesOf does so where they stand below a path.
func (c *call) checkAttributesOf(path string, a keys.Attributes) {
	if a.Validate() == nil {
		return
	}
	other := a
	for _, other.Mode = range []keys.Mode{keys.ModeAny, a.Mode} {
		if other.Validate() == nil {
			c.form.fail(path+"KeyAttributes.KeyModesOfUse", "is not a permitted combination for "+a.Usage.Name())
			return
		}
	}
	c.form.fail(path+"KeyAttributes.KeyAlgorithm", "is not a permitted algorithm for "+a.Usage.Name())
}

// checkMethod reads how the check value is made; 0 is the algorithm's default.
func (c *call) checkMethod(a keys.Algorithm) keys.CheckMethod {
	at, text := c.form.string(0, "KeyCheckValueAlgorithm", optional)
	if at < 0 {
		return 0
	}
	method, err := keys.ParseCheckMethod(string(text))
	switch {
	case err != nil && string(text) != checkOfPublicKeys:
		c.form.failAt(at, "must be ANSI_X9_24, CMAC, HMAC or SHA_1")
	case a != 0 && !a.CheckableBy(method):
		c.form.failAt(at, "is not one for this key algorithm")
	}
	return method
}

// tags reads a list of Tag. Which policy tags there are is for custody.
func (c *call) tags() map[string]string {
	f := &c.form
	list := f.list(0, "Tags", optional)
	if list < 0 {
		return nil
	}
	tags := make(map[string]string)
	count := 0
	for at := list + 1; at < f.doc.nodes[list].next; at = f.doc.nodes[at].next {
		if count++; count > mostTags {
			f.failAt(list, "must have at most 200 tags")
			return nil
		}
		if f.doc.nodes[at].kind != kindObject {
			f.failAt(at, "must be an object")
			continue
		}
		nameAt, name := f.string(at, "Key", required)
		valueAt, value := f.string(at, "Value", required)
		if nameAt < 0 || valueAt < 0 {
			continue
		}
		if n := utf8.RuneCount(name); n < 1 || n > mostTagName || !printable(name) {
			f.failAt(nameAt, "must be 1 to 128 printable characters")
		}
		if utf8.RuneCount(value) > mostTagValue || !printable(value) {
			f.failAt(valueAt, "must be at most 256 printable characters")
		}
		if _, twice := tags[string(name)]; twice {
			f.failAt(nameAt, "occurs twice")
		}
		tags[string(name)] = string(value)
	}
	return tags
}

// printable reports whether text has no control characters.
func printable(text []byte) bool {
	for _, c := range text {
		if c < ' ' || c == 0x7F {
			return false
		}
	}
	return true
}

// appendKey appends an answer with the structure Key.
func (c *call) appendKey(b []byte, k custody.KeyRecord) []byte {
	b = append(b, `{"Key":{"KeyArn":"`...)
	b = c.names.appendARN(b, k.Block.ID)
	b = append(b, `","KeyAttributes":`...)
	b = appendAttributes(b, k.Block.Attributes)
	b = append(b, `,"KeyCheckValue":"`...)
	b = appendHex(b, k.Block.Check[:])
	b = append(b, `","KeyCheckValueAlgorithm":"`...)
	b = append(b, k.Block.CheckBy.String()...)
	b = append(b, `","Enabled":`...)
	b = appendBool(b, k.Enabled)
	b = append(b, `,"Exportable":`...)
	b = appendBool(b, k.Block.Attributes.Exportability != keys.NonExportable)
	b = append(b, `,"KeyState":"`...)
	b = append(b, k.State...)
	b = append(b, `","KeyOrigin":"`...)
	b = append(b, origin(k.Block.Origin)...)
	b = append(b, `","CreateTimestamp":`...)
	b = appendEpoch(b, k.Block.CreatedMs)
	b = appendTime(b, "UsageStartTimestamp", k.UsageStart)
	b = appendTime(b, "UsageStopTimestamp", k.UsageStop)
	b = appendTime(b, "DeletePendingTimestamp", k.DeletePending)
	b = appendTime(b, "DeleteTimestamp", k.Deleted)
	return append(b, `}}`...)
}

// appendSummary appends the structure KeySummary.
func (c *call) appendSummary(b []byte, k custody.KeyRecord) []byte {
	b = append(b, `{"KeyArn":"`...)
	b = c.names.appendARN(b, k.Block.ID)
	b = append(b, `","KeyState":"`...)
	b = append(b, k.State...)
	b = append(b, `","KeyAttributes":`...)
	b = appendAttributes(b, k.Block.Attributes)
	b = append(b, `,"KeyCheckValue":"`...)
	b = appendHex(b, k.Block.Check[:])
	b = append(b, `","Exportable":`...)
	b = appendBool(b, k.Block.Attributes.Exportability != keys.NonExportable)
	b = append(b, `,"Enabled":`...)
	b = appendBool(b, k.Enabled)
	return append(b, '}')
}

func appendAttributes(b []byte, a keys.Attributes) []byte {
	b = append(b, `{"KeyUsage":"`...)
	b = append(b, a.Usage.Name()...)
	b = append(b, `","KeyClass":"`+symmetric+`","KeyAlgorithm":"`...)
	b = append(b, a.Algorithm.String()...)
	b = append(b, `","KeyModesOfUse":`...)
	sep := byte('{')
	for _, flag := range modeFlags() {
		b = append(b, sep, '"')
		b = append(b, flag.name...)
		b = append(b, `":`...)
		b = appendBool(b, flag.of(a.Mode))
		sep = ','
	}
	return append(b, `}}`...)
}

func appendBool(b []byte, v bool) []byte {
	if v {
		return append(b, "true"...)
	}
	return append(b, "false"...)
}

func origin(o keys.Origin) string {
	if o == keys.External {
		return "EXTERNAL"
	}
	return "AWS_PAYMENT_CRYPTOGRAPHY"
}
