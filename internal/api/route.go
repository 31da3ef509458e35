package api

import (
	"net/http"
	"strings"

	"keyd.dev/keyd/internal/custody"
)

// operation is a row of the tables of section 3 of the API.
type operation struct {
	name string
	do   func(*call) error // nil: known and not implemented
}

// Operations of the control plane are named by a header. Those that keyd has
// beside the ones of AWS Payment Cryptography have a prefix of their own.
const (
	targetPrefix    = "PaymentCryptographyControlPlane."
	extensionPrefix = "KeydControlPlane."
)

// dataOperations are the operations of the data plane by their path.
func dataOperations() map[string]*operation {
	return map[string]*operation{
		"/pindata/translate":           {string(custody.OpTranslatePIN), (*call).translatePINData},
		"/mac/generate":                {string(custody.OpGenerateMAC), (*call).generateMAC},
		"/mac/verify":                  {string(custody.OpVerifyMAC), (*call).verifyMAC},
		"/pindata/generate":            {"GeneratePinData", nil},
		"/pindata/verify":              {"VerifyPinData", nil},
		"/cardvalidationdata/generate": {"GenerateCardValidationData", nil},
		"/cardvalidationdata/verify":   {"VerifyCardValidationData", nil},
		"/cryptogram/verify":           {"VerifyAuthRequestCryptogram", nil},
		"/cryptogram/generate":         {"GenerateAuthRequestCryptogram", nil},
		"/macemvpinchange/generate":    {"GenerateMacEmvPinChange", nil},
		"/keymaterial/translate":       {"TranslateKeyMaterial", nil},
		"/as2805kekvalidation/generate": {
			"GenerateAs2805KekValidation", nil,
		},
	}
}

// keyOperations are those whose path names a key, by what follows it.
func keyOperations() map[string]*operation {
	return map[string]*operation{
		"encrypt":   {string(custody.OpEncryptData), (*call).encryptData},
		"decrypt":   {string(custody.OpDecryptData), (*call).decryptData},
		"reencrypt": {string(custody.OpReEncryptData), (*call).reEncryptData},
	}
}

// controlOperations are the operations of the control plane by their name.
func controlOperations() map[string]*operation {
	table := map[string]*operation{
		string(custody.OpCreateKey):   {do: (*call).createKey},
		string(custody.OpGetKey):      {do: (*call).getKey},
		string(custody.OpListKeys):    {do: (*call).listKeys},
		string(custody.OpCreateAlias): {do: (*call).createAlias},
		string(custody.OpGetAlias):    {do: (*call).getAlias},

		string(custody.OpStartKeyUsage): {do: (*call).startKeyUsage},
		string(custody.OpStopKeyUsage):  {do: (*call).stopKeyUsage},
		string(custody.OpDeleteKey):     {do: (*call).deleteKey},
		string(custody.OpRestoreKey):    {do: (*call).restoreKey},
		string(custody.OpUpdateAlias):   {do: (*call).updateAlias},
		string(custody.OpDeleteAlias):   {do: (*call).deleteAlias},
		string(custody.OpListAliases):   {do: (*call).listAliases},
		string(custody.OpTagResource):   {do: (*call).tagResource},
		string(custody.OpUntagResource): {do: (*call).untagResource},
		string(custody.OpListTags):      {do: (*call).listTags},

		string(custody.OpImportKey): {do: (*call).importKey}, string(custody.OpExportKey): {do: (*call).exportKey},
		string(custody.OpImportParams): {do: (*call).getParametersForImport}, string(custody.OpGetCertificate): {do: (*call).getPublicKeyCertificate},
	}
	table["GetParametersForExport"] = &operation{do: (*call).getParametersForExport}
	for _, name := range []string{
		"GetCertificateSigningRequest",
		"PutResourcePolicy", "GetResourcePolicy", "DeleteResourcePolicy",
		"AddKeyReplicationRegions", "RemoveKeyReplicationRegions",
		"EnableDefaultKeyReplicationRegions", "DisableDefaultKeyReplicationRegions",
		"GetDefaultKeyReplicationRegions",
		"AssociateMpaTeam", "DisassociateMpaTeam", "GetMpaTeamAssociation",
	} {
		table[name] = &operation{}
	}
	for name, op := range table {
		op.name = name
	}
	return table
}

// extensionOperations are those that keyd alone has, by their name.
func extensionOperations() map[string]*operation {
	table := map[string]*operation{
		string(custody.OpGetKey):              {do: (*call).getKeyDetail},
		string(custody.OpRotateKey):           {do: (*call).rotateKey},
		"ImportCryptogram":                    {do: (*call).importCryptogram},
		"ExportCryptogram":                    {do: (*call).exportCryptogram},
		"GetWrappingCertificate":              {do: (*call).getWrappingCertificate},
		"GetIssuingCertificateSigningRequest": {do: (*call).getIssuingRequest},
		"InstallIssuingCertificate":           {do: (*call).installIssuingCertificate},
		string(custody.OpGetLMK):              {do: (*call).getLMK},
		string(custody.OpRewrapKeys):          {do: (*call).rewrapKeys},
		string(custody.OpRetireLMK):           {do: (*call).retireLMK},
		string(custody.OpListApprovals):       {do: (*call).listApprovals},
		string(custody.OpApprove):             {do: (*call).approve},
		string(custody.OpReject):              {do: (*call).reject},
		string(custody.OpGetClients):          {do: (*call).getClients},
		string(custody.OpSetRoles):            {do: (*call).setRoles},
		string(custody.OpBackup):              {do: (*call).backup},
		string(custody.OpPruneLog):            {do: (*call).pruneLog},
		string(custody.OpGetAuditLog):         {do: (*call).getAuditLog},
		string(custody.OpGetCardToken):        {do: (*call).getCardToken},
		string(custody.OpAddTerminals):        {do: (*call).addTerminals},
		string(custody.OpChangeTerminal):      {do: (*call).changeTerminal},
		string(custody.OpGetTerminal):         {do: (*call).getTerminal},
		string(custody.OpListTerminals):       {do: (*call).listTerminals},
		string(custody.OpDistributeKeys):      {do: (*call).distributeKeys},
		string(custody.OpListReversals):       {do: (*call).listReversals},
		string(custody.OpGetReversal):         {do: (*call).getReversal},
		string(custody.OpRetryReversal):       {do: (*call).retryReversal},
		string(custody.OpParkReversal):        {do: (*call).parkReversal},
		string(custody.OpResolveReversal):     {do: (*call).resolveReversal},
		string(custody.OpReleaseReversal):     {do: (*call).releaseReversal},
		string(custody.OpRejectReversal):      {do: (*call).rejectReversal},
		string(custody.OpCloseBatch):          {do: (*call).closeBatch},
	}
	for name, op := range table {
		op.name = name
	}
	return table
}

// planeOf tells the planes apart: a POST of the root with a target is control.
func planeOf(r *http.Request, path string) plane {
	if path == "/" && r.Method == http.MethodPost && len(r.Header["X-Amz-Target"]) > 0 {
		return controlPlane
	}
	return dataPlane
}

// route finds the operation of a request. The path is the raw one, as it was
// escaped: whoever decodes it first turns %2F into a slash and loses keys.
func (h *Handler) route(r *http.Request, path string, p plane) (*operation, *fault) {
	if p == controlPlane {
		return h.target(r.Header["X-Amz-Target"])
	}
	op := h.data[path]
	if op == nil {
		op = h.keyed(path)
	}
	switch {
	case op == nil && path != "/":
		return nil, refusal(unknownOp, unknownText)
	case r.Method != http.MethodPost:
		return nil, &fault{name: unknownOp, message: "this path takes POST", status: http.StatusMethodNotAllowed}
	case op == nil || op.do == nil:
		return nil, refusal(unknownOp, unknownText)
	}
	return op, nil
}

const unknownText = "keyd does not implement this operation"

func (h *Handler) target(targets []string) (*operation, *fault) {
	if len(targets) != 1 {
		return nil, refusal(unknownOp, unknownText)
	}
	table := h.control
	name, ok := strings.CutPrefix(targets[0], targetPrefix)
	if !ok {
		table = h.extensions
		name, ok = strings.CutPrefix(targets[0], extensionPrefix)
	}
	op := table[name]
	switch {
	case !ok || op == nil:
		return nil, refusal(unknownOp, unknownText)
	case op.do == nil:
		return nil, refusal(unknownOp, "keyd does not implement "+op.name)
	}
	return op, nil
}

// keyed finds /keys/{KeyIdentifier}/… where the key is one label of the path.
func (h *Handler) keyed(path string) *operation {
	_, verb, ok := keyLabel(path)
	if !ok {
		return nil
	}
	return h.keys[verb]
}

// keyLabel takes such a path apart, as it was escaped.
func keyLabel(path string) (label, verb string, ok bool) {
	rest, ok := strings.CutPrefix(path, "/keys/")
	label, verb, ok2 := strings.Cut(rest, "/")
	return label, verb, ok && ok2 && label != ""
}
