package api_test

import (
	"fmt"
	"strings"
	"testing"

	"keyd.dev/keyd/internal/custody"
	"keyd.dev/keyd/internal/hsm"
)

// withTerminals gives a bench a registry.
func withTerminals(cfg *custody.Config) {
	cfg.Terminals = &custody.Terminals{Store: cfg.Store.(custody.TerminalStore), Maker: cfg.Maker.(*hsm.Manager)}
}

// entry is a terminal of AddTerminals with more members.
func entry(n int, more string) string {
	return fmt.Sprintf(`{"Tid":"T%07d","Mid":"M00000000000001","Scheme":"tmk","Profile":"unionpay","MasterKey":{"Generate":true}%s}`, n, more)
}

// TestTerminalOperations is the wire form of the registry: a thousand terminals
// fit one request, and what is wrong is named by member.
func TestTerminalOperations(t *testing.T) {
	b := newBench(t, withTerminals)
	admin := b.client(t, "admin")
	many := make([]string, custody.MostTerminals+1)
	for i := range many {
		many[i] = entry(i, "")
	}
	list := func(entries ...string) string { return `{"Terminals":[` + strings.Join(entries, ",") + `]}` }
	for _, step := range []struct {
		name, operation, body string
		status                int
		want                  string
	}{
		{"a thousand", "AddTerminals", list(many[:custody.MostTerminals]...), 200, `"Added":1000,"Unchanged":0,"Refused":[]`},
		{"again, and one more", "AddTerminals", list(many[1], entry(2000, `,"WorkingKeys":["TPK","TAK"],"MaximumAmount":5000`)), 200, `"Added":1,"Unchanged":1`},
		{"registered otherwise", "AddTerminals", list(entry(2001, ""), entry(1, `,"MaximumAmount":1`)), 200, `"Added":0,"Unchanged":0,"Refused":[{"Index":1,"Tid":"T0000001","Reason":"taken"`},
		{"more than a thousand", "AddTerminals", list(many...), 400, "a request has 1 to 1000"},
		{"none", "AddTerminals", `{"Terminals":[]}`, 400, "a request has 1 to 1000"},
		{"half of the working keys", "AddTerminals", list(entry(3, `,"WorkingKeys":["TPK"]`)), 400, "Terminals[0].WorkingKeys must be TPK and TAK"},
		{"amount", "AddTerminals", list(entry(3, `,"MaximumAmount":1.5`)), 400, "Terminals[0].MaximumAmount must be a whole number"},
		{"no TID", "AddTerminals", `{"Terminals":[{}]}`, 400, "Terminals[0].Tid is required"},
		{"two sources", "AddTerminals", `{"Terminals":[{"Tid":"T0000003","Mid":"M00000000000001","Scheme":"tmk","Profile":"aes","MasterKey":{"Generate":true,"KeyIdentifier":"alias/x"}}]}`, 400, "must have exactly one of the members"},
		{"get", "GetTerminal", `{"Tid":"T0002000"}`, 200, `"MaximumAmount":5000,"Profile":"unionpay","KeyVersion":1`},
		{"no such terminal", "GetTerminal", `{"Tid":"T9999999"}`, 400, "no such terminal"},
		{"status", "ChangeTerminal", `{"Tid":"T0002000","Status":"GONE"}`, 400, "Status must be IN_SERVICE, SUSPENDED or RETIRED"},
		{"suspend", "ChangeTerminal", `{"Tid":"T0002000","Status":"SUSPENDED","Reason":"stolen"}`, 200, `"Status":"suspended","Reason":"stolen"`},
		{"keys of a suspended terminal", "DistributeKeys", `{"Tid":"T0002000","Form":"DE62-003"}`, 400, "the terminal is suspended"},
		{"resume", "ChangeTerminal", `{"Tid":"T0002000","Status":"IN_SERVICE"}`, 200, `"Status":"in service"`},
		{"keys", "DistributeKeys", `{"Tid":"T0002000","Form":"DE62-003"}`, 200, `"KeyVersion":2,"Field62":"`},
		{"form", "DistributeKeys", `{"Tid":"T0002000","Form":"none"}`, 400, "working keys are given out as"},
		{"list", "ListTerminals", `{"MaxResults":2}`, 200, `"NextToken":"`},
		{"a strange token", "ListTerminals", `{"NextToken":"x"}`, 400, "NextToken is not a token of this query"},
	} {
		t.Run(step.name, func(t *testing.T) {
			got := b.own(t, admin, step.operation, step.body)
			if got.status != step.status || !strings.Contains(string(got.body), step.want) {
				t.Errorf("%d %.300s; want %d and %q", got.status, got.body, step.status, step.want)
			}
		})
	}
	for _, operation := range []string{"AddTerminals", "ChangeTerminal", "DistributeKeys", "GetTerminal", "ListTerminals"} {
		body := `{"Tid":"T0002000","Form":"DE62-003","Status":"IN_SERVICE","Terminals":[` + entry(1, "") + `]}`
		if got := b.own(t, b.client(t, "switch-a"), operation, body); got.status != 400 || !strings.Contains(string(got.body), "caller may not perform") {
			t.Errorf("%s by an application: %d %s", operation, got.status, got.body)
		}
	}
}
