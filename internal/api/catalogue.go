package api

import (
	"bytes"
	"slices"
	"strings"

	"keyd.dev/keyd/internal/custody"
)

// Operation is an operation that keyd serves, as a caller needs to know it.
type Operation struct {
	Name       string
	Plane      string            // "data", "control", or "keyd" for what keyd alone has
	Path       string            // of the request; "{Member}" stands for the key that Member names
	Target     string            // the header X-Amz-Target; "" on the data plane
	KeyMember  string            // the member that is in the path, escaped; "" for none
	Permission custody.Operation // what the caller's roles must have
}

// Operations lists what keyd serves, by plane and name.
func Operations() []Operation {
	var all []Operation
	for path, op := range dataOperations() {
		if op.do != nil {
			all = append(all, Operation{Name: op.name, Plane: "data", Path: path})
		}
	}
	for verb, op := range keyOperations() {
		member := "KeyIdentifier"
		if op.name == "ReEncryptData" {
			member = "IncomingKeyIdentifier"
		}
		if op.do != nil {
			all = append(all, Operation{Name: op.name, Plane: "data", Path: "/keys/{" + member + "}/" + verb, KeyMember: member})
		}
	}
	for _, op := range controlOperations() {
		if op.do != nil {
			all = append(all, Operation{Name: op.name, Plane: "control", Path: "/", Target: targetPrefix + op.name})
		}
	}
	for _, op := range extensionOperations() {
		all = append(all, Operation{Name: op.name, Plane: "keyd", Path: "/", Target: extensionPrefix + op.name})
	}
	for i := range all {
		all[i].Permission = permission(all[i].Name)
	}
	planes := []string{"data", "control", "keyd"}
	slices.SortFunc(all, func(a, b Operation) int {
		if a.Plane != b.Plane {
			return slices.Index(planes, a.Plane) - slices.Index(planes, b.Plane)
		}
		return strings.Compare(a.Name, b.Name)
	})
	return all
}

// permission is the row of the matrix that an operation needs: its own, but for
// those that are another form of a known one.
func permission(name string) custody.Operation {
	switch name {
	case "GetParametersForExport", "ExportCryptogram":
		return custody.OpExportKey
	case "ImportCryptogram", "InstallIssuingCertificate":
		return custody.OpImportKey
	case "GetWrappingCertificate":
		return custody.OpGetCertificate
	case "GetIssuingCertificateSigningRequest":
		return custody.OpGetCSR
	}
	return custody.Operation(name)
}

// CheckBody says why the daemon would not read these bytes as a request's
// object, before it looks at any member. It repeats none of them.
func CheckBody(body []byte) error {
	d := document{most: mostTerminalValues}
	return d.parse(bytes.Clone(body)) // which resolves escapes in place
}

// Unserved lists the operations of the models that keyd does not serve, by name.
func Unserved() []string {
	var names []string
	for _, table := range []map[string]*operation{dataOperations(), keyOperations(), controlOperations()} {
		for _, op := range table {
			if op.do == nil {
				names = append(names, op.name)
			}
		}
	}
	slices.Sort(names)
	return names
}
