package audit

// name returns the wire form of an enumerated value: "" for zero, "?" for a
// value outside the list.
func name(names []string, n uint8) string {
	if int(n) >= len(names) {
		return "?"
	}
	return names[n]
}

// LogID names one of the two logs of a node.
type LogID uint8

// The two logs. The action of a record decides its log.
const (
	// Sec holds ceremonies, key life cycle, administration, authentication,
	// configuration, HSM and log events: one tree for ever.
	Sec LogID = 1
	// Ops holds each operation and each refused message: one tree per UTC month.
	Ops LogID = 2
)

// String returns "sec" or "ops".
func (id LogID) String() string {
	switch id {
	case Sec:
		return "sec"
	case Ops:
		return "ops"
	}
	return "?"
}

// Phase tells an intent from an outcome. The zero value is an outcome.
type Phase uint8

// The phases: an intent is durable before a state-changing HSM call, its
// outcome before the reply.
const (
	PhaseOutcome Phase = iota
	PhaseIntent
)

// String returns the value as it stands in records.
func (p Phase) String() string {
	switch p {
	case PhaseOutcome:
		return "outcome"
	case PhaseIntent:
		return "intent"
	}
	return "?"
}

// Outcome says how it ended.
type Outcome uint8

// The values of [Outcome]; zero means absent.
const (
	_ Outcome = iota
	OutcomeOK
	OutcomeRefused
	OutcomeError
	OutcomeUnknown
)

var outcomeNames = [...]string{
	"", "ok", "refused", "error", "unknown",
}

// String returns the value as it stands in records.
func (e Outcome) String() string { return name(outcomeNames[:], uint8(e)) }

// ActorKind says what the actor is.
type ActorKind uint8

// The values of [ActorKind]; zero means absent.
const (
	_ ActorKind = iota
	ActorSwitch
	ActorUpstream
	ActorOperator
	ActorCustodian
	ActorAuditor
	ActorSystem
)

var actorKindNames = [...]string{
	"", "switch", "upstream", "operator", "custodian", "auditor", "system",
}

// String returns the value as it stands in records.
func (e ActorKind) String() string { return name(actorKindNames[:], uint8(e)) }

// Authn says how the actor was authenticated.
type Authn uint8

// The values of [Authn]; zero means absent.
const (
	_ Authn = iota
	AuthnMTLS
	AuthnCard
	AuthnLocal
	AuthnNone
)

var authnNames = [...]string{
	"", "mtls", "card", "local", "none",
}

// String returns the value as it stands in records.
func (e Authn) String() string { return name(authnNames[:], uint8(e)) }

// Custody says whether a clear secret left the token for the operation.
type Custody uint8

// The values of [Custody]; zero means absent.
const (
	_ Custody = iota
	CustodyToken
	CustodyProcess
)

var custodyNames = [...]string{
	"", "token", "process",
}

// String returns the value as it stands in records.
func (e Custody) String() string { return name(custodyNames[:], uint8(e)) }

// KeyRole is the part of a key in the operation.
type KeyRole uint8

// The values of [KeyRole]; zero means absent.
const (
	_ KeyRole = iota
	KeyRoleIn
	KeyRoleOut
	KeyRoleBDK
	KeyRoleKEK
	KeyRoleMAC
	KeyRolePIN
	KeyRoleData
	KeyRoleParent
	KeyRoleTarget
	KeyRoleTok
	KeyRoleLog
)

var keyRoleNames = [...]string{
	"", "in", "out", "bdk", "kek", "mac", "pin", "data", "parent", "target", "tok", "log",
}

// String returns the value as it stands in records.
func (e KeyRole) String() string { return name(keyRoleNames[:], uint8(e)) }

// Algo is a key's algorithm and length.
type Algo uint8

// The values of [Algo]; zero means absent.
const (
	_ Algo = iota
	AlgoDES
	AlgoTDES2
	AlgoTDES3
	AlgoAES128
	AlgoAES192
	AlgoAES256
	AlgoSM4
	AlgoHMAC224
	AlgoHMAC256
	AlgoHMAC384
	AlgoHMAC512
	AlgoRSA2048
	AlgoRSA3072
	AlgoRSA4096
	AlgoP256
	AlgoP384
	AlgoP521
	AlgoEd25519
)

var algoNames = [...]string{
	"", "des", "tdes2", "tdes3", "aes128", "aes192", "aes256", "sm4", "hmac224", "hmac256", "hmac384",
	"hmac512", "rsa2048", "rsa3072", "rsa4096", "p256", "p384", "p521", "ed25519",
}

// String returns the value as it stands in records.
func (e Algo) String() string { return name(algoNames[:], uint8(e)) }

// PINFormat is a PIN block format: of ISO 9564-1, or of before it.
type PINFormat uint8

// The values of [PINFormat]; zero means absent.
const (
	_ PINFormat = iota
	PINISO0
	PINISO1
	PINISO3
	PINISO4
	PINECI2 // of before ISO 9564, incoming only
	PINECI3
	PINVISA2
	PINVISA3
)

var pinFormatNames = [...]string{
	"", "iso0", "iso1", "iso3", "iso4", "eci2", "eci3", "visa2", "visa3",
}

// String returns the value as it stands in records.
func (e PINFormat) String() string { return name(pinFormatNames[:], uint8(e)) }

// MACAlg is a MAC algorithm; alg1 and alg3 are those of ISO 9797-1.
type MACAlg uint8

// The values of [MACAlg]; zero means absent.
const (
	_ MACAlg = iota
	MACAlg1
	MACAlg3
	MACAlg3SHA256
	MACCMACTDES
	MACCMACAES
	MACHMAC224
	MACHMAC256
	MACHMAC384
	MACHMAC512
	MACCUPECB
	MACSM4ECB
	MACSM4CBC
)

var macAlgNames = [...]string{
	"", "alg1", "alg3", "alg3_sha256", "cmac_tdes", "cmac_aes", "hmac224", "hmac256", "hmac384",
	"hmac512", "cup_ecb", "sm4_ecb", "sm4_cbc",
}

// String returns the value as it stands in records.
func (e MACAlg) String() string { return name(macAlgNames[:], uint8(e)) }

// MACVerdict is the result of a MAC check or generation.
type MACVerdict uint8

// The values of [MACVerdict]; zero means absent.
const (
	_ MACVerdict = iota
	VerdictOK
	VerdictBad
	VerdictAbsent
	VerdictLength
	VerdictNoKey
	VerdictError
)

var macVerdictNames = [...]string{
	"", "ok", "bad", "absent", "length", "nokey", "error",
}

// String returns the value as it stands in records.
func (e MACVerdict) String() string { return name(macVerdictNames[:], uint8(e)) }

// ISOAlert is the alarm class of a row of the decision table.
type ISOAlert uint8

// The values of [ISOAlert]; zero means absent.
const (
	_ ISOAlert = iota
	AlertSecurity
	AlertFraud
)

var isoAlertNames = [...]string{
	"", "security", "fraud",
}

// String returns the value as it stands in records.
func (e ISOAlert) String() string { return name(isoAlertNames[:], uint8(e)) }

// Step is a step of a key ceremony.
type Step uint8

// The values of [Step]; zero means absent.
const (
	_ Step = iota
	StepOpen
	StepJoin
	StepMaterialOut
	StepEnter
	StepCreate
	StepIssue
	StepCombine
	StepCheck
	StepSign
	StepCommit
	StepMaterialIn
	StepLoad
	StepAbort
	StepExpire
)

var stepNames = [...]string{
	"", "open", "join", "material_out", "enter", "create", "issue", "combine", "check", "sign",
	"commit", "material_in", "load", "abort", "expire",
}

// String returns the value as it stands in records.
func (e Step) String() string { return name(stepNames[:], uint8(e)) }

// ChangeKind is the kind of object that was changed.
type ChangeKind uint8

// The values of [ChangeKind]; zero means absent.
const (
	_ ChangeKind = iota
	ChangeUser
	ChangeRole
	ChangeCred
	ChangePeer
	ChangeTerminal
	ChangeProfile
	ChangeLimit
	ChangeConfig
	ChangeKey
	ChangeLog
)

var changeKindNames = [...]string{
	"", "user", "role", "cred", "peer", "terminal", "profile", "limit", "config", "key", "log",
}

// String returns the value as it stands in records.
func (e ChangeKind) String() string { return name(changeKindNames[:], uint8(e)) }

// QueryCmd is the command by which the log was read.
type QueryCmd uint8

// The values of [QueryCmd]; zero means absent.
const (
	_ QueryCmd = iota
	QueryList
	QueryGet
	QueryFind
	QueryVerify
	QueryProve
	QueryExport
	QueryReport
	QueryToken
)

var queryCmdNames = [...]string{
	"", "ls", "get", "find", "verify", "prove", "export", "report", "token",
}

// String returns the value as it stands in records.
func (e QueryCmd) String() string { return name(queryCmdNames[:], uint8(e)) }

// AlarmLevel is the severity of an alarm.
type AlarmLevel uint8

// The values of [AlarmLevel]; zero means absent.
const (
	_ AlarmLevel = iota
	LevelWarn
	LevelCritical
)

var alarmLevelNames = [...]string{
	"", "warn", "critical",
}

// String returns the value as it stands in records.
func (e AlarmLevel) String() string { return name(alarmLevelNames[:], uint8(e)) }

// scrubWhy says why a value was replaced, cut or left out.
type scrubWhy uint8

// The values of [scrubWhy]; zero means absent.
const (
	_ scrubWhy = iota
	whyPAN
	whyTrack
	whySecret
	whyUTF8
	whyLength
	whyInvalid
	whyUnregistered
)

var scrubWhyNames = [...]string{
	"", "pan", "track", "secret", "utf8", "length", "invalid", "unregistered",
}

// String returns the value as it stands in records.
func (e scrubWhy) String() string { return name(scrubWhyNames[:], uint8(e)) }
