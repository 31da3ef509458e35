package custody

import "slices"

// Operation names what a caller may be allowed to do. The names are those of
// the API where it has one; the switch uses the same.
type Operation string

// The operations of AWS Payment Cryptography.
const (
	OpTranslatePIN   Operation = "TranslatePinData"
	OpGenerateMAC    Operation = "GenerateMac"
	OpVerifyMAC      Operation = "VerifyMac"
	OpEncryptData    Operation = "EncryptData"
	OpDecryptData    Operation = "DecryptData"
	OpReEncryptData  Operation = "ReEncryptData"
	OpCreateKey      Operation = "CreateKey"
	OpImportKey      Operation = "ImportKey"
	OpExportKey      Operation = "ExportKey"
	OpImportParams   Operation = "GetParametersForImport"
	OpStartKeyUsage  Operation = "StartKeyUsage"
	OpStopKeyUsage   Operation = "StopKeyUsage"
	OpDeleteKey      Operation = "DeleteKey"
	OpRestoreKey     Operation = "RestoreKey"
	OpTagResource    Operation = "TagResource"
	OpUntagResource  Operation = "UntagResource"
	OpListTags       Operation = "ListTagsForResource"
	OpGetKey         Operation = "GetKey"
	OpListKeys       Operation = "ListKeys"
	OpCreateAlias    Operation = "CreateAlias"
	OpUpdateAlias    Operation = "UpdateAlias"
	OpDeleteAlias    Operation = "DeleteAlias"
	OpGetAlias       Operation = "GetAlias"
	OpListAliases    Operation = "ListAliases"
	OpGetCertificate Operation = "GetPublicKeyCertificate"
	OpGetCSR         Operation = "GetCertificateSigningRequest"
)

// The operations that keyd has beside them.
const (
	OpRotateKey      Operation = "RotateKey"      // a new version under the same alias
	OpListApprovals  Operation = "ListApprovals"  // what waits for a second person
	OpApprove        Operation = "Approve"        // be the second person
	OpReject         Operation = "Reject"         //
	OpAddTerminals   Operation = "AddTerminals"   // one, or a batch
	OpChangeTerminal Operation = "ChangeTerminal" // status, limits, keys
	OpGetTerminal    Operation = "GetTerminal"
	OpListTerminals  Operation = "ListTerminals"
	OpDistributeKeys Operation = "DistributeKeys" // new working keys of a terminal, under its master key
	OpChangeZoneKey  Operation = "ChangeZoneKey"  // a new value of a zone key, sent by the host
	OpOpenCeremony   Operation = "OpenCeremony"   // lay down who does what
	OpJoinCeremony   Operation = "JoinCeremony"   // give or take a component
	OpListCeremonies Operation = "ListCeremonies"
	OpGetLMK         Operation = "GetLMK"     // generations, check values, challenge
	OpRewrapKeys     Operation = "RewrapKeys" // move blocks to the newest local master key
	OpRetireLMK      Operation = "RetireLMK"
	OpBackup         Operation = "Backup"
	OpPruneLog       Operation = "PruneLog"   // remove a closed month of the log, which an archive holds
	OpGetClients     Operation = "GetClients" // who there is, in which roles
	OpSetRoles       Operation = "SetRoles"
	OpGetAuditLog    Operation = "GetAuditLog"  // read the audit log, from another machine
	OpGetCardToken   Operation = "GetCardToken" // by which a card is found in the audit log

	OpListReversals   Operation = "ListReversals" // the queue, and what became of each
	OpGetReversal     Operation = "GetReversal"
	OpRetryReversal   Operation = "RetryReversal"
	OpParkReversal    Operation = "ParkReversal"
	OpResolveReversal Operation = "ResolveReversal" // close one that was given up, with a case
	OpReleaseReversal Operation = "ReleaseReversal" // let one that a rule held go on
	OpRejectReversal  Operation = "RejectReversal"  // end one that a rule held
	OpCloseBatch      Operation = "CloseBatch"      // of a terminal, or of all
)

// Role is what a principal is; it decides which operations it may do.
type Role string

// The roles.
const (
	RoleApplication Role = "application" // uses keys, reads keys and aliases
	RoleAdmin       Role = "admin"       // the control plane, no key use
	RoleOperator    Role = "operator"    // reads the control plane
	RoleCustodian   Role = "custodian"   // ceremonies only
	RoleAuditor     Role = "auditor"     // reads the log, and what a ceremony or an approval was about
	RoleTerminal    Role = "terminal"    // the switch listener only
	RoleSwitch      Role = "switch"      // keyd's own switch core; never in a config
)

// Roles lists the roles that a config may give.
func Roles() []Role {
	return []Role{RoleApplication, RoleAdmin, RoleOperator, RoleCustodian, RoleAuditor, RoleTerminal}
}

// Permissions is the permission matrix: who may do each operation.
// docs/ROLES.md shows the same, and a test compares them.
func Permissions() map[Operation][]Role {
	uses := []Role{RoleApplication, RoleSwitch}
	changes := []Role{RoleAdmin}
	reads := []Role{RoleApplication, RoleAdmin, RoleOperator}
	sees := []Role{RoleAdmin, RoleOperator, RoleAuditor}
	return map[Operation][]Role{
		OpTranslatePIN: uses, OpGenerateMAC: uses, OpVerifyMAC: uses,
		OpEncryptData: {RoleApplication}, OpDecryptData: {RoleApplication}, OpReEncryptData: {RoleApplication},

		OpCreateKey: changes, OpImportKey: changes, OpExportKey: changes, OpImportParams: changes,
		OpStartKeyUsage: changes, OpStopKeyUsage: changes, OpDeleteKey: changes, OpRestoreKey: changes,
		OpRotateKey: changes, OpTagResource: changes, OpUntagResource: changes,
		OpCreateAlias: changes, OpUpdateAlias: changes, OpDeleteAlias: changes,
		OpAddTerminals: changes, OpChangeTerminal: changes, OpDistributeKeys: {RoleAdmin, RoleSwitch},
		OpChangeZoneKey: {RoleSwitch},
		OpRewrapKeys:    changes, OpRetireLMK: changes, OpApprove: changes, OpReject: changes,
		OpOpenCeremony: changes, OpSetRoles: changes, OpPruneLog: changes,

		OpGetKey: reads, OpListKeys: reads, OpGetAlias: reads, OpListAliases: reads, OpListTags: reads,
		OpGetCertificate: reads, OpGetCSR: reads,

		OpGetTerminal: sees, OpListTerminals: sees, OpListApprovals: sees, OpGetClients: sees,
		OpListCeremonies: {RoleAdmin, RoleOperator, RoleAuditor, RoleCustodian},
		OpGetLMK:         {RoleAdmin, RoleOperator, RoleAuditor, RoleCustodian},

		OpListReversals: sees, OpGetReversal: sees,
		OpRetryReversal: {RoleAdmin, RoleOperator}, OpParkReversal: {RoleAdmin, RoleOperator},
		OpResolveReversal: {RoleAdmin, RoleOperator},
		OpReleaseReversal: {RoleAdmin, RoleOperator}, OpRejectReversal: {RoleAdmin, RoleOperator},
		OpCloseBatch: {RoleAdmin, RoleOperator},

		OpGetAuditLog: {RoleAuditor}, OpGetCardToken: {RoleAuditor},

		OpJoinCeremony: {RoleCustodian},
		OpBackup:       {RoleAdmin, RoleOperator},
	}
}

// permitted is the matrix turned round, for the path of transactions.
var permitted = turned(Permissions())

func turned(matrix map[Operation][]Role) map[Role]map[Operation]bool {
	all := make(map[Role]map[Operation]bool)
	for op, roles := range matrix {
		for _, role := range roles {
			if all[role] == nil {
				all[role] = make(map[Operation]bool)
			}
			all[role][op] = true
		}
	}
	return all
}

// may is the permission matrix: whether the role has the operation.
func (r Role) may(op Operation) bool { return permitted[r][op] }

// conflict finds two roles that nobody may have together: whoever administers keys
// may not use them, custodians do neither, and auditors change nothing.
func conflict(roles []Role) (a, b Role, found bool) {
	apart := [][]Role{
		{RoleAdmin, RoleApplication}, {RoleCustodian, RoleApplication}, {RoleCustodian, RoleAdmin},
		{RoleAuditor, RoleAdmin}, {RoleAuditor, RoleCustodian}, {RoleAuditor, RoleApplication},
		{RoleAdmin, RoleTerminal}, {RoleCustodian, RoleTerminal}, {RoleAuditor, RoleTerminal},
		{RoleCustodian, RoleOperator}, {RoleAuditor, RoleOperator}, // operators write backups
	}
	for _, pair := range apart {
		if slices.Contains(roles, pair[0]) && slices.Contains(roles, pair[1]) {
			return pair[0], pair[1], true
		}
	}
	return "", "", false
}
