package custody_test

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"keyd.dev/keyd/internal/custody"
)

// matrixOf reads the table of docs/ROLES.md.
func matrixOf(t *testing.T, path string) map[custody.Operation][]custody.Role {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	all := make(map[custody.Operation][]custody.Role)
	var heads []string
	for line := range strings.Lines(string(text)) {
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		for i := range cells {
			cells[i] = strings.TrimSpace(cells[i])
		}
		switch {
		case cells[0] == "operation":
			heads = cells
		case len(cells) == len(heads) && strings.HasPrefix(cells[0], "`"):
			op := custody.Operation(strings.Trim(cells[0], "`"))
			if _, twice := all[op]; twice {
				t.Errorf("%s stands twice", op)
			}
			all[op] = []custody.Role{}
			for i, cell := range cells {
				if cell == "yes" {
					all[op] = append(all[op], custody.Role(heads[i]))
				}
			}
			slices.Sort(all[op])
		}
	}
	return all
}

// TestR56RolesInTheDocs: the matrix that people read is the one that holds.
func TestR56RolesInTheDocs(t *testing.T) {
	want := make(map[custody.Operation][]custody.Role)
	for op, roles := range custody.Permissions() {
		want[op] = slices.Sorted(slices.Values(roles))
	}
	if diff := cmp.Diff(want, matrixOf(t, "../../docs/ROLES.md")); diff != "" {
		t.Errorf("docs/ROLES.md (-code +docs):\n%s", diff)
	}
}

// TestR56Separation is what the roles are for, said once more.
func TestR56Separation(t *testing.T) {
	uses := []custody.Operation{
		custody.OpTranslatePIN, custody.OpGenerateMAC, custody.OpVerifyMAC,
		custody.OpEncryptData, custody.OpDecryptData, custody.OpReEncryptData,
	}
	reads := func(op custody.Operation) bool {
		return strings.HasPrefix(string(op), "Get") && op != custody.OpImportParams || strings.HasPrefix(string(op), "List")
	}
	for op, roles := range custody.Permissions() {
		t.Run(string(op), func(t *testing.T) {
			using := slices.Contains(uses, op)
			may := func(r custody.Role) bool { return slices.Contains(roles, r) }
			if using && (may(custody.RoleAdmin) || may(custody.RoleOperator) || may(custody.RoleCustodian) || may(custody.RoleAuditor)) {
				t.Error("somebody who is no application uses keys")
			}
			if !using && !reads(op) && (may(custody.RoleApplication) || may(custody.RoleAuditor)) {
				t.Error("an application or an auditor changes something")
			}
			if !reads(op) && op != custody.OpJoinCeremony && may(custody.RoleCustodian) {
				t.Error("a custodian administers")
			}
			if may(custody.RoleTerminal) {
				t.Error("a terminal has something at the API")
			}
			if len(roles) == 0 {
				t.Error("nobody has it")
			}
		})
	}
}

func TestRolesApart(t *testing.T) {
	together := map[string]bool{
		"admin+operator": true, "application+operator": true, "application+terminal": true, "operator+terminal": true,
	}
	all := custody.Roles()
	slices.Sort(all)
	for i, a := range all {
		for _, b := range all[i+1:] {
			c := custody.Client{Name: "a", URI: "u", Roles: []custody.Role{a, b}}
			_, err := custody.NewClients([]custody.Client{c})
			if want := together[string(a)+"+"+string(b)]; (err == nil) != want {
				t.Errorf("%s and %s: %v, want them together: %v", a, b, err, want)
			}
		}
	}
}
