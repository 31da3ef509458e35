package audit

// group is a set of field groups.
type group uint32

// The groups of fields that an action needs or may have.
const (
	groupK group = 1 << iota // keys, KSN, mechanism, custody
	groupP                   // PIN block formats
	groupM                   // MAC
	groupI                   // ISO 8583
	groupC                   // ceremony
	groupA                   // change and approvals
	groupQ                   // reading of the log
	groupT                   // trees
	groupV                   // vkeys
	groupW                   // write-ahead log
	groupS                   // sink
	groupN                   // counts
	groupL                   // alarm
	groupD                   // disk
	groupX                   // clock step
	groupH                   // HSM
)

// actionDef is a row of the catalogue. A log of zero stands for both logs;
// twice says that the action has an intent and an outcome.
type actionDef struct {
	name, class string
	log         LogID
	twice       bool
	needs, may  group
}

var actions = [...]actionDef{
	KeyCreate:           {name: "key.create", class: "key", log: Sec, twice: true, needs: groupK | groupA},
	KeyImport:           {name: "key.import", class: "key", log: Sec, twice: true, needs: groupK | groupA},
	KeyExport:           {name: "key.export", class: "key", log: Sec, twice: true, needs: groupK | groupA},
	KeyDerive:           {name: "key.derive", class: "key", log: Sec, twice: true, needs: groupK | groupA},
	KeyRotate:           {name: "key.rotate", class: "key", log: Sec, twice: true, needs: groupK | groupA},
	KeyBackup:           {name: "key.backup", class: "key", log: Sec, twice: true, needs: groupK | groupA},
	KeyRestore:          {name: "key.restore", class: "key", log: Sec, twice: true, needs: groupK | groupA},
	KeyDestroy:          {name: "key.destroy", class: "key", log: Sec, twice: true, needs: groupK | groupA},
	KeyActivate:         {name: "key.activate", class: "key", log: Sec, twice: true, needs: groupK | groupA},
	KeySuspend:          {name: "key.suspend", class: "key", log: Sec, twice: true, needs: groupK | groupA},
	KeyResume:           {name: "key.resume", class: "key", log: Sec, twice: true, needs: groupK | groupA},
	KeyCompromise:       {name: "key.compromise", class: "key", log: Sec, twice: true, needs: groupK | groupA},
	KeyAttr:             {name: "key.attr", class: "key", log: Sec, twice: true, needs: groupK | groupA},
	KeyLimit:            {name: "key.limit", class: "key", log: Sec, needs: groupK | groupL},
	KeyDistribute:       {name: "key.distribute", class: "op", log: Ops, twice: true, needs: groupK, may: groupI},
	PINTranslate:        {name: "pin.translate", class: "op", log: Ops, needs: groupK | groupP, may: groupI},
	MACGenerate:         {name: "mac.generate", class: "op", log: Ops, needs: groupK | groupM, may: groupI},
	MACVerify:           {name: "mac.verify", class: "op", log: Ops, needs: groupK | groupM, may: groupI},
	PINGenerate:         {name: "pin.generate", class: "op", log: Ops, needs: groupK, may: groupP | groupI},
	PINVerify:           {name: "pin.verify", class: "op", log: Ops, needs: groupK, may: groupP | groupI},
	DataEncrypt:         {name: "data.encrypt", class: "op", log: Ops, needs: groupK, may: groupP | groupI},
	DataDecrypt:         {name: "data.decrypt", class: "op", log: Ops, needs: groupK, may: groupP | groupI},
	DataReencrypt:       {name: "data.reencrypt", class: "op", log: Ops, needs: groupK, may: groupP | groupI},
	CVVGenerate:         {name: "cvv.generate", class: "op", log: Ops, needs: groupK, may: groupP | groupI},
	CVVVerify:           {name: "cvv.verify", class: "op", log: Ops, needs: groupK, may: groupP | groupI},
	ARQCVerify:          {name: "arqc.verify", class: "op", log: Ops, needs: groupK, may: groupP | groupI},
	KSNRefuse:           {name: "ksn.refuse", class: "op", log: Ops, needs: groupK, may: groupI},
	SaleAccept:          {name: "sale.accept", class: "txn", log: Ops, needs: groupI, may: groupK | groupM},
	SaleRefuse:          {name: "sale.refuse", class: "txn", log: Ops, needs: groupI, may: groupK | groupM},
	SaleAnswer:          {name: "sale.answer", class: "txn", log: Ops, needs: groupI, may: groupK | groupM},
	ReversalAccept:      {name: "reversal.accept", class: "txn", log: Ops, needs: groupI, may: groupK | groupM},
	ReversalRepeat:      {name: "reversal.repeat", class: "txn", log: Ops, needs: groupI, may: groupK | groupM},
	ReversalHold:        {name: "reversal.hold", class: "txn", log: Ops, needs: groupI, may: groupK | groupM},
	ReversalForward:     {name: "reversal.forward", class: "txn", log: Ops, needs: groupI, may: groupK | groupM},
	ReversalAnswer:      {name: "reversal.answer", class: "txn", log: Ops, needs: groupI, may: groupK | groupM},
	ReversalClose:       {name: "reversal.close", class: "txn", log: Ops, needs: groupI, may: groupK | groupM},
	ReversalFail:        {name: "reversal.fail", class: "txn", log: Ops, needs: groupI, may: groupK | groupM},
	ReversalRefuse:      {name: "reversal.refuse", class: "txn", log: Ops, needs: groupI | groupM, may: groupK},
	AdviceAccept:        {name: "advice.accept", class: "txn", log: Ops, needs: groupI, may: groupK | groupM},
	AdviceRefuse:        {name: "advice.refuse", class: "txn", log: Ops, needs: groupI, may: groupK | groupM},
	SigninAccept:        {name: "signin.accept", class: "txn", log: Ops, needs: groupI, may: groupK | groupM},
	SigninRefuse:        {name: "signin.refuse", class: "txn", log: Ops, needs: groupI, may: groupK | groupM},
	ResponseRefuse:      {name: "response.refuse", class: "txn", log: Ops, needs: groupI, may: groupK | groupM},
	FrameRefuse:         {name: "frame.refuse", class: "txn", log: Ops, may: groupI},
	RefuseAggregate:     {name: "refuse.aggregate", class: "txn", log: Ops, needs: groupN},
	ReversalSummary:     {name: "reversal.summary", class: "txn", log: Sec, needs: groupN},
	ReversalManual:      {name: "reversal.manual", class: "admin", log: Sec, twice: true, needs: groupI | groupA},
	CeremonyOpen:        {name: "ceremony.open", class: "ceremony", log: Sec, needs: groupC, may: groupK},
	CeremonyJoin:        {name: "ceremony.join", class: "ceremony", log: Sec, needs: groupC, may: groupK},
	CeremonyMaterialOut: {name: "ceremony.material.out", class: "ceremony", log: Sec, needs: groupC, may: groupK},
	CeremonyMaterialIn:  {name: "ceremony.material.in", class: "ceremony", log: Sec, needs: groupC, may: groupK},
	CeremonyCheck:       {name: "ceremony.check", class: "ceremony", log: Sec, needs: groupC, may: groupK},
	CeremonySign:        {name: "ceremony.sign", class: "ceremony", log: Sec, needs: groupC, may: groupK},
	CeremonyAbort:       {name: "ceremony.abort", class: "ceremony", log: Sec, needs: groupC, may: groupK},
	CeremonyExpire:      {name: "ceremony.expire", class: "ceremony", log: Sec, needs: groupC, may: groupK},
	CeremonyEnter:       {name: "ceremony.enter", class: "ceremony", log: Sec, twice: true, needs: groupC, may: groupK},
	CeremonyCreate:      {name: "ceremony.create", class: "ceremony", log: Sec, twice: true, needs: groupC, may: groupK},
	CeremonyIssue:       {name: "ceremony.issue", class: "ceremony", log: Sec, twice: true, needs: groupC, may: groupK},
	CeremonyCombine:     {name: "ceremony.combine", class: "ceremony", log: Sec, twice: true, needs: groupC, may: groupK},
	CeremonyCommit:      {name: "ceremony.commit", class: "ceremony", log: Sec, twice: true, needs: groupC, may: groupK},
	CeremonyLoad:        {name: "ceremony.load", class: "ceremony", log: Sec, twice: true, needs: groupC, may: groupK},
	AdminRequest:        {name: "admin.request", class: "admin", log: Sec, needs: groupA},
	AdminApprove:        {name: "admin.approve", class: "admin", log: Sec, needs: groupA},
	AdminReject:         {name: "admin.reject", class: "admin", log: Sec, needs: groupA},
	AdminExecute:        {name: "admin.execute", class: "admin", log: Sec, needs: groupA},
	UserCreate:          {name: "user.create", class: "admin", log: Sec, needs: groupA},
	UserChange:          {name: "user.change", class: "admin", log: Sec, needs: groupA},
	UserDisable:         {name: "user.disable", class: "admin", log: Sec, needs: groupA},
	UserDelete:          {name: "user.delete", class: "admin", log: Sec, needs: groupA},
	RoleChange:          {name: "role.change", class: "admin", log: Sec, needs: groupA},
	CredChange:          {name: "cred.change", class: "admin", log: Sec, needs: groupA},
	PeerCreate:          {name: "peer.create", class: "admin", log: Sec, needs: groupA},
	PeerChange:          {name: "peer.change", class: "admin", log: Sec, needs: groupA},
	PeerDisable:         {name: "peer.disable", class: "admin", log: Sec, needs: groupA},
	TerminalChange:      {name: "terminal.change", class: "admin", log: Sec, needs: groupA},
	ProfileChange:       {name: "profile.change", class: "admin", log: Sec, needs: groupA},
	LimitChange:         {name: "limit.change", class: "admin", log: Sec, needs: groupA},
	AuthAccept:          {name: "auth.accept", class: "auth", log: Sec, may: groupA},
	AuthRefuse:          {name: "auth.refuse", class: "auth", log: Sec, may: groupA},
	AuthClose:           {name: "auth.close", class: "auth", log: Sec, may: groupA},
	AuthLock:            {name: "auth.lock", class: "auth", log: Sec, may: groupA},
	AuthUnlock:          {name: "auth.unlock", class: "auth", log: Sec, may: groupA},
	AuthDeny:            {name: "auth.deny", class: "auth", log: Sec, may: groupA},
	ConfigLoad:          {name: "config.load", class: "config", log: Sec, needs: groupA},
	ConfigChange:        {name: "config.change", class: "config", log: Sec, needs: groupA},
	ConfigRefuse:        {name: "config.refuse", class: "config", log: Sec, needs: groupA},
	LogOpen:             {name: "log.open", class: "log", needs: groupT | groupV},
	LogClose:            {name: "log.close", class: "log", needs: groupT},
	LogRotate:           {name: "log.rotate", class: "log", log: Sec, needs: groupT},
	LogCheckpoint:       {name: "log.checkpoint", class: "log", log: Sec, needs: groupT},
	LogFork:             {name: "log.fork", class: "log", log: Sec, needs: groupT},
	LogKeyRotate:        {name: "log.key.rotate", class: "log", log: Sec, needs: groupV},
	LogCheckpointFail:   {name: "log.checkpoint.fail", class: "log", log: Sec, needs: groupL},
	LogWitness:          {name: "log.witness", class: "log", log: Sec, needs: groupL},
	LogScrub:            {name: "log.scrub", class: "log", log: Sec, needs: groupL},
	LogDangling:         {name: "log.dangling", class: "log", log: Sec, needs: groupL},
	LogPoisoned:         {name: "log.poisoned", class: "log", log: Sec, needs: groupL},
	LogRecover:          {name: "log.recover", class: "log", log: Sec, needs: groupW},
	LogHeartbeat:        {name: "log.heartbeat", class: "log", needs: groupT},
	LogDisk:             {name: "log.disk", class: "log", log: Sec, needs: groupD | groupL},
	LogSink:             {name: "log.sink", class: "log", log: Sec, needs: groupS | groupL},
	LogRead:             {name: "log.read", class: "log", log: Sec, needs: groupQ},
	LogExport:           {name: "log.export", class: "log", log: Sec, needs: groupQ},
	LogProve:            {name: "log.prove", class: "log", log: Sec, needs: groupQ},
	LogVerify:           {name: "log.verify", class: "log", log: Sec, needs: groupQ},
	LogToken:            {name: "log.token", class: "log", log: Sec, needs: groupQ},
	LogArchive:          {name: "log.archive", class: "log", log: Sec, twice: true, needs: groupT | groupA},
	LogPrune:            {name: "log.prune", class: "log", log: Sec, twice: true, needs: groupT | groupA},
	HSMOpen:             {name: "hsm.open", class: "hsm", log: Sec, needs: groupH, may: groupL},
	HSMLogin:            {name: "hsm.login", class: "hsm", log: Sec, needs: groupH, may: groupL},
	HSMLogout:           {name: "hsm.logout", class: "hsm", log: Sec, needs: groupH, may: groupL},
	HSMLost:             {name: "hsm.lost", class: "hsm", log: Sec, needs: groupH, may: groupL},
	HSMBack:             {name: "hsm.back", class: "hsm", log: Sec, needs: groupH, may: groupL},
	HSMFailover:         {name: "hsm.failover", class: "hsm", log: Sec, needs: groupH, may: groupL},
	HSMError:            {name: "hsm.error", class: "hsm", log: Sec, needs: groupH, may: groupL},
	HSMInfo:             {name: "hsm.info", class: "hsm", log: Sec, needs: groupH, may: groupL},
	HSMDrift:            {name: "hsm.drift", class: "hsm", log: Sec, needs: groupH, may: groupL},
	HSMTamper:           {name: "hsm.tamper", class: "hsm", log: Sec, needs: groupH, may: groupL},
	HSMSelftest:         {name: "hsm.selftest", class: "hsm", log: Sec, needs: groupH, may: groupL},
	HSMLogImport:        {name: "hsm.log.import", class: "hsm", log: Sec, needs: groupH, may: groupL},
	SysStart:            {name: "sys.start", class: "sys", log: Sec},
	SysStop:             {name: "sys.stop", class: "sys", log: Sec},
	SysSelftest:         {name: "sys.selftest", class: "sys", log: Sec},
	SysTime:             {name: "sys.time", class: "sys", log: Sec, needs: groupX | groupL},
	SysAlarm:            {name: "sys.alarm", class: "sys", log: Sec, needs: groupL},
}

// NamesKeys reports whether records of the action name keys, and the token that
// holds them.
func (a Action) NamesKeys() bool { return a.known() && actions[a].needs&groupK != 0 }
