package audit

// Action is what was done. The list is closed; an action decides the log, the
// class and the groups of its record.
type Action uint8

// The actions (section 8 of the log's specification).
const (
	_ Action = iota
	KeyCreate
	KeyImport
	KeyExport
	KeyDerive
	KeyRotate
	KeyBackup
	KeyRestore
	KeyDestroy
	KeyActivate
	KeySuspend
	KeyResume
	KeyCompromise
	KeyAttr
	KeyLimit
	KeyDistribute
	PINTranslate
	MACGenerate
	MACVerify
	PINGenerate
	PINVerify
	DataEncrypt
	DataDecrypt
	DataReencrypt
	CVVGenerate
	CVVVerify
	ARQCVerify
	KSNRefuse
	SaleAccept
	SaleRefuse
	SaleAnswer
	ReversalAccept
	ReversalRepeat
	ReversalHold
	ReversalForward
	ReversalAnswer
	ReversalClose
	ReversalFail
	ReversalRefuse
	AdviceAccept
	AdviceRefuse
	SigninAccept
	SigninRefuse
	ResponseRefuse
	FrameRefuse
	RefuseAggregate
	ReversalSummary
	ReversalManual
	CeremonyOpen
	CeremonyJoin
	CeremonyMaterialOut
	CeremonyMaterialIn
	CeremonyCheck
	CeremonySign
	CeremonyAbort
	CeremonyExpire
	CeremonyEnter
	CeremonyCreate
	CeremonyIssue
	CeremonyCombine
	CeremonyCommit
	CeremonyLoad
	AdminRequest
	AdminApprove
	AdminReject
	AdminExecute
	UserCreate
	UserChange
	UserDisable
	UserDelete
	RoleChange
	CredChange
	PeerCreate
	PeerChange
	PeerDisable
	TerminalChange
	ProfileChange
	LimitChange
	AuthAccept
	AuthRefuse
	AuthClose
	AuthLock
	AuthUnlock
	AuthDeny
	ConfigLoad
	ConfigChange
	ConfigRefuse
	LogOpen
	LogClose
	LogRotate
	LogCheckpoint
	LogFork
	LogKeyRotate
	LogCheckpointFail
	LogWitness
	LogScrub
	LogDangling
	LogPoisoned
	LogRecover
	LogHeartbeat
	LogDisk
	LogSink
	LogRead
	LogExport
	LogProve
	LogVerify
	LogToken
	LogArchive
	LogPrune
	HSMOpen
	HSMLogin
	HSMLogout
	HSMLost
	HSMBack
	HSMFailover
	HSMError
	HSMInfo
	HSMDrift
	HSMTamper
	HSMSelftest
	HSMLogImport
	SysStart
	SysStop
	SysSelftest
	SysTime
	SysAlarm
)

func (a Action) known() bool { return a > 0 && int(a) < len(actions) }

// String returns the action as it stands in records, "?" for an unknown one.
func (a Action) String() string {
	if !a.known() {
		return "?"
	}
	return actions[a].name
}

// Class returns the event class of the action.
func (a Action) Class() string {
	if !a.known() {
		return "?"
	}
	return actions[a].class
}

// Log returns the log that holds the action; it is zero for the actions that
// the package itself writes to both.
func (a Action) Log() LogID {
	if !a.known() {
		return 0
	}
	return actions[a].log
}

// HasIntent reports whether the action has two records, an intent that is
// durable before the HSM acts and an outcome.
func (a Action) HasIntent() bool { return a.known() && actions[a].twice }

// ParseAction returns the action with that name; false when there is none.
func ParseAction(s string) (Action, bool) {
	for i := range actions {
		if i > 0 && actions[i].name == s {
			return Action(i), true
		}
	}
	return 0, false
}
