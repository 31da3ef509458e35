package audit

// fieldKind is the type of a member of a record (section 7.1).
type fieldKind uint8

const (
	kindObject fieldKind = iota
	kindArray
	kindInt
	kindSint
	kindBool
	kindTS
	kindUUID
	kindID
	kindHex    // lower case, lo digits
	kindHEX    // upper case, lo to hi digits
	kindKSN    // upper case, 20 or 24 digits
	kindNum    // lo to hi decimal digits
	kindAn     // up to hi printable ASCII characters
	kindAnTok  // kindAn or a token
	kindText   // up to hi bytes
	kindB64    // standard base64
	kindTok    // keyed token
	kindPAN    // truncated PAN
	kindVkey   // note verifier key
	kindLog    // sec or ops-yyyy-mm
	kindOrigin // of a log
	kindDT     // date, or date and time, of an original
	kindEnum   // one of values
)

// field describes a member. Members of an object stand in the order of their
// names.
type field struct {
	name   string
	kind   fieldKind
	lo, hi int
	values []string
	group  group // that allow it; zero for base
	need   bool  // may not be absent where its object is there
	sec    bool  // only in sec
	of     []field
}

// schema is the record of section 7.2: what [Verify] accepts. The encoder is
// written apart from it.
var schema = []field{
	{name: "action", kind: kindEnum, values: actionNames(), need: true},
	{name: "actor", need: true, of: []field{
		{name: "authn", kind: kindEnum, values: authnNames[1:], need: true, sec: true},
		{name: "cert", kind: kindHex, lo: 64, sec: true},
		{name: "id", kind: kindID, need: true},
		{name: "kind", kind: kindEnum, values: actorKindNames[1:], need: true},
		{name: "roles", kind: kindArray, need: true, sec: true, of: []field{{kind: kindID}}},
	}},
	{name: "alarm", group: groupL, of: []field{
		{name: "code", kind: kindID, need: true},
		{name: "level", kind: kindEnum, values: alarmLevelNames[1:], need: true},
	}},
	{name: "approvals", kind: kindArray, group: groupA, of: []field{{of: []field{
		{name: "id", kind: kindID, need: true},
		{name: "ref", kind: kindUUID, need: true},
		{name: "ts", kind: kindTS, need: true},
	}}}},
	{name: "boot", kind: kindHex, lo: 16, need: true},
	{name: "build", kind: kindID, need: true, sec: true},
	{name: "cer", group: groupC, of: []field{
		{name: "bag_in", kind: kindID},
		{name: "bag_out", kind: kindID},
		{name: "component", kind: kindInt},
		{name: "component_id", kind: kindID},
		{name: "component_kcv", kind: kindHEX, lo: 4, hi: 10},
		{name: "custodian", kind: kindID},
		{name: "device", kind: kindID},
		{name: "id", kind: kindID, need: true},
		{name: "m", kind: kindInt, need: true},
		{name: "n", kind: kindInt, need: true},
		{name: "purpose", kind: kindText, hi: maxPurpose, need: true},
		{name: "sig", kind: kindB64},
		{name: "step", kind: kindEnum, values: stepNames[1:], need: true},
		{name: "step_no", kind: kindInt, need: true},
		{name: "witness", kind: kindID},
		{name: "witness_sig", kind: kindB64},
	}},
	{name: "cfg", kind: kindHex, lo: 16, need: true},
	{name: "change", group: groupA, of: []field{
		{name: "after", kind: kindHex, lo: 64},
		{name: "before", kind: kindHex, lo: 64},
		{name: "kind", kind: kindEnum, values: changeKindNames[1:], need: true},
		{name: "object", kind: kindID, need: true},
	}},
	{name: "class", kind: kindEnum, values: []string{"admin", "auth", "ceremony", "config", "hsm", "key", "log", "op", "sys", "txn"}, need: true},
	{name: "corr", kind: kindID},
	{name: "count", group: groupN, of: []field{
		{name: "by", kind: kindArray, need: true, of: []field{{of: []field{
			{name: "n", kind: kindInt, need: true},
			{name: "reason", kind: kindEnum, values: reasonNames[1:], need: true},
		}}}},
		{name: "from", kind: kindTS, need: true},
		{name: "n", kind: kindInt, need: true},
		{name: "peer", kind: kindID, need: true},
		{name: "to", kind: kindTS, need: true},
	}},
	{name: "custody", kind: kindEnum, values: custodyNames[1:], group: groupK},
	{name: "disk", group: groupD, of: []field{
		{name: "free_mb", kind: kindInt, need: true},
		{name: "free_pct", kind: kindInt, need: true},
	}},
	{name: "dur_us", kind: kindInt, group: groupK | groupI},
	{name: "hsm", group: groupK | groupH, of: []field{
		{name: "fw", kind: kindID, group: groupH},
		{name: "serial", kind: kindID, need: true},
		{name: "slot", kind: kindInt, group: groupH},
	}},
	{name: "id", kind: kindUUID, need: true},
	{name: "import", group: groupH, of: []field{
		{name: "first", kind: kindInt},
		{name: "hash", kind: kindHex, lo: 64},
		{name: "last", kind: kindInt},
		{name: "n", kind: kindInt},
		{name: "source", kind: kindID},
	}},
	{name: "iso", group: groupI, of: []field{
		{name: "acq", kind: kindNum, lo: 1, hi: 11},
		{name: "alert", kind: kindEnum, values: isoAlertNames[1:]},
		{name: "amt", kind: kindInt},
		{name: "cur", kind: kindNum, lo: 3, hi: 3},
		{name: "de39", kind: kindAn, hi: 2},
		{name: "merch", kind: kindAnTok, hi: 15},
		{name: "mti", kind: kindNum, lo: 4, hi: 4, need: true},
		{name: "orig", of: []field{
			{name: "dt", kind: kindDT},
			{name: "mti", kind: kindNum, lo: 4, hi: 4},
			{name: "stan", kind: kindNum, lo: 6, hi: 12},
		}},
		{name: "proc", kind: kindNum, lo: 6, hi: 6},
		{name: "rrn", kind: kindAn, hi: 12},
		{name: "rule", kind: kindID},
		{name: "stan", kind: kindNum, lo: 6, hi: 12},
		{name: "term", kind: kindAnTok, hi: 8},
	}},
	{name: "keys", kind: kindArray, group: groupK, of: []field{{of: []field{
		{name: "algo", kind: kindEnum, values: algoNames[1:], sec: true},
		{name: "hdr", kind: kindAn, hi: 16},
		{name: "id", kind: kindID, need: true},
		{name: "kcv", kind: kindHEX, lo: 4, hi: 10},
		{name: "role", kind: kindEnum, values: keyRoleNames[1:], need: true},
		{name: "usage", kind: kindID, sec: true},
		{name: "ver", kind: kindInt, need: true},
	}}}},
	{name: "ksn", kind: kindKSN, group: groupK},
	{name: "log", kind: kindLog, need: true},
	{name: "mac", group: groupM, of: []field{
		{name: "alg", kind: kindEnum, values: macAlgNames[1:], need: true},
		{name: "len", kind: kindInt, need: true},
		{name: "verdict", kind: kindEnum, values: macVerdictNames[1:], need: true},
	}},
	{name: "mech", kind: kindID, group: groupK},
	{name: "mono", kind: kindInt, need: true},
	{name: "msg_tok", kind: kindTok, group: groupI | groupM},
	{name: "node", kind: kindID, need: true},
	{name: "outcome", kind: kindEnum, values: outcomeNames[1:]},
	{name: "pan", kind: kindPAN, group: groupP | groupI},
	{name: "pan_tok", kind: kindTok, group: groupP | groupI},
	{name: "pan_tok_prev", kind: kindTok, group: groupP | groupI},
	{name: "phase", kind: kindEnum, values: []string{"intent", "outcome"}, need: true},
	{name: "pin", group: groupP, of: []field{
		{name: "fmt_in", kind: kindEnum, values: pinFormatNames[1:], need: true},
		{name: "fmt_out", kind: kindEnum, values: pinFormatNames[1:], need: true},
	}},
	{name: "query", group: groupQ, of: []field{
		{name: "cmd", kind: kindEnum, values: queryCmdNames[1:], need: true},
		{name: "filter", kind: kindText, hi: maxFilter},
		{name: "first", kind: kindInt},
		{name: "last", kind: kindInt},
		{name: "log", kind: kindLog},
		{name: "rows", kind: kindInt, need: true},
	}},
	{name: "rc", kind: kindID},
	{name: "reason", kind: kindEnum, values: reasonNames[1:]},
	{name: "ref", kind: kindUUID},
	{name: "replay", kind: kindBool, group: groupK | groupI},
	{name: "scrub", kind: kindArray, of: []field{{of: []field{
		{name: "field", kind: kindID, need: true},
		{name: "why", kind: kindEnum, values: scrubWhyNames[1:], need: true},
	}}}},
	{name: "seq", kind: kindInt, need: true},
	{name: "sink", group: groupS, of: []field{
		{name: "lag_ms", kind: kindInt, need: true},
		{name: "lag_rec", kind: kindInt, need: true},
		{name: "name", kind: kindID, need: true},
	}},
	{name: "src", of: []field{
		{name: "addr", kind: kindID},
		{name: "conn", kind: kindID},
	}},
	{name: "step", group: groupX, of: []field{
		{name: "wall_us", kind: kindSint, need: true},
	}},
	{name: "trace", kind: kindHex, lo: 32},
	{name: "trees", kind: kindArray, group: groupT, of: []field{{of: []field{
		{name: "first", kind: kindInt},
		{name: "log", kind: kindLog, need: true},
		{name: "origin", kind: kindOrigin, need: true},
		{name: "root", kind: kindB64},
		{name: "size", kind: kindInt, need: true},
	}}}},
	{name: "ts", kind: kindTS, need: true},
	{name: "tsq", need: true, of: []field{
		{name: "err_us", kind: kindInt, need: true, sec: true},
		{name: "src", kind: kindID, need: true, sec: true},
		{name: "sync", kind: kindBool, need: true},
	}},
	{name: "v", kind: kindInt, need: true},
	{name: "vkeys", kind: kindArray, group: groupV, of: []field{{kind: kindVkey}}},
	{name: "wal", group: groupW, of: []field{
		{name: "dropped", kind: kindInt, need: true},
		{name: "offset", kind: kindInt, need: true},
		{name: "segment", kind: kindInt, need: true},
	}},
}

// groupField is the member that shows a group to be there.
var groupField = []struct {
	group group
	name  string
}{
	{groupK, "keys"}, {groupP, "pin"}, {groupM, "mac"}, {groupI, "iso"}, {groupC, "cer"}, {groupA, "change"},
	{groupQ, "query"}, {groupT, "trees"}, {groupV, "vkeys"}, {groupW, "wal"}, {groupS, "sink"}, {groupN, "count"},
	{groupL, "alarm"}, {groupD, "disk"}, {groupX, "step"}, {groupH, "hsm"},
}

func actionNames() []string {
	var names []string
	for i := 1; i < len(actions); i++ {
		names = append(names, actions[i].name)
	}
	return names
}
