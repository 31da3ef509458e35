package api

import (
	"slices"
	"strings"
	"testing"

	"keyd.dev/keyd/internal/custody"
)

// TestOperations: the list has each operation of the router once, and each has
// a row of the permission matrix.
func TestOperations(t *testing.T) {
	matrix := custody.Permissions()
	seen := make(map[string]bool)
	served := make(map[string]bool)
	for _, op := range Operations() {
		if len(matrix[op.Permission]) == 0 {
			t.Errorf("%s: nobody may %q", op.Name, op.Permission)
		}
		if seen[op.Plane+op.Name] {
			t.Errorf("%s is listed twice", op.Name)
		}
		seen[op.Plane+op.Name] = true
		served[op.Name] = true
		if strings.Contains(op.Path, "{") != (op.KeyMember != "") {
			t.Errorf("%s: path %s and member %q", op.Name, op.Path, op.KeyMember)
		}
		if (op.Target == "") != (op.Plane == "data") {
			t.Errorf("%s of plane %s has the target %q", op.Name, op.Plane, op.Target)
		}
	}
	for plane, names := range map[string][]string{
		"data":    {"TranslatePinData", "GenerateMac", "VerifyMac"},
		"control": {"CreateKey", "GetParametersForExport", "UntagResource"},
		"keyd":    {"GetKey", "RotateKey", "AddTerminals"},
	} {
		for _, name := range names {
			if !seen[plane+name] {
				t.Errorf("%s is not listed", name)
			}
		}
	}
	unserved := Unserved()
	for _, name := range []string{"GeneratePinData", "GetResourcePolicy"} {
		if !slices.Contains(unserved, name) {
			t.Errorf("%s is not known as not served", name)
		}
	}
	for _, name := range unserved {
		if served[name] {
			t.Errorf("%s is served and is not", name)
		}
	}
}

func TestCheckBody(t *testing.T) {
	for _, c := range []struct {
		name, body string
		want       error
	}{
		{"empty", "", nil},
		{"an object, escapes left alone", `{"A":"\u0041"}`, nil},
		{"a list", "[]", notObject},
		{"not JSON", `{"A":}`, notJSON},
		{"a name twice", `{"A":1,"A":2}`, nameTwice},
		{"not UTF-8", "{\"A\":\"\xff\"}", notUTF8},
		{"too deep", `{"A":` + strings.Repeat("[", 40) + strings.Repeat("]", 40) + `}`, tooDeep},
	} {
		t.Run(c.name, func(t *testing.T) {
			body := []byte(c.body)
			if got := CheckBody(body); got != c.want {
				t.Errorf("got %v, want %v", got, c.want)
			}
			if string(body) != c.body {
				t.Error("the caller's bytes were changed")
			}
		})
	}
}
