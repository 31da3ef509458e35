package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"

	"keyd.dev/keyd/internal/api"
	"keyd.dev/keyd/internal/custody"
	"keyd.dev/keyd/internal/tomlfile"
)

type callCmd struct {
	Operation  string `arg:"" optional:"" help:"GenerateMac, say; --list has them all."`
	JSON       string `name:"json" placeholder:"OBJECT" help:"The request: JSON, @FILE, or - for standard input; default an empty object."`
	Headers    bool   `help:"Print the status and all headers of the answer on standard error."`
	Invocation string `name:"invocation-id" placeholder:"ID" help:"Mark the request as one delivery of the call ID, as SDKs do; default unmarked."`
	List       bool   `help:"List the operations and who may do them."`
	doorFlags
}

// mostCall bounds what is read as a request: more than the daemon takes.
const mostCall = 2 << 20

// Run sends one request and prints the answer.
func (c *callCmd) Run(p *program) error {
	if c.List {
		return listOperations(p.stdout)
	}
	op, err := operationNamed(c.Operation)
	if err != nil {
		return err
	}
	body, err := c.body(p.stdin)
	if err != nil {
		return err
	}
	path, body, err := placeKey(op, body)
	if err != nil {
		return err
	}
	d, err := c.open()
	if err != nil {
		return err
	}
	header := http.Header{"Content-Type": {"application/json"}}
	if op.Target != "" {
		header = http.Header{"Content-Type": {"application/x-amz-json-1.0"}, "X-Amz-Target": {op.Target}}
	}
	if c.Invocation != "" {
		header["Amz-Sdk-Invocation-Id"] = []string{c.Invocation}
	}
	answer, err := d.post(p.ctx, path, header, body)
	if err != nil {
		return err
	}
	c.tell(p.stderr, answer)
	if answer.code != http.StatusOK {
		return explain(answer)
	}
	var out bytes.Buffer
	if err := json.Indent(&out, answer.body, "", "  "); err != nil {
		return fmt.Errorf("the daemon's answer is not JSON: %w", err)
	}
	_, err = fmt.Fprintln(p.stdout, out.String())
	return err
}

// body reads the request and checks that it is one before it leaves.
func (c *callCmd) body(stdin io.Reader) ([]byte, error) {
	text, from := []byte(cmp.Or(c.JSON, "{}")), "--json"
	var err error
	switch {
	case c.JSON == "-":
		from = "standard input"
		text, err = io.ReadAll(io.LimitReader(stdin, mostCall+1))
	case strings.HasPrefix(c.JSON, "@"):
		from = c.JSON[1:]
		text, err = os.ReadFile(from)
	}
	if err != nil {
		return nil, fmt.Errorf("reading the request: %w", err)
	}
	if len(text) > mostCall {
		return nil, usageError("%s: a request of more than %d MiB", from, mostCall>>20)
	}
	text = bytes.TrimSpace(text)
	if err := api.CheckBody(text); err != nil {
		return nil, usageError("%s: %w", from, err)
	}
	return text, nil
}

// operationNamed finds what keyd serves under this name, or under this target.
// A name that both planes have is that of AWS; keyd's own needs its target.
func operationNamed(name string) (api.Operation, error) {
	if name == "" {
		return api.Operation{}, usageError("name an operation; `keyd call --list` has them all")
	}
	all := api.Operations()
	for _, op := range all {
		if op.Name == name || op.Target == name {
			return op, nil
		}
	}
	if slices.Contains(api.Unserved(), name) {
		return api.Operation{}, usageError("%s: keyd does not implement this operation", name)
	}
	least := 1 + max(2, len(name)/3)
	var near []string
	for _, op := range all {
		switch d := tomlfile.Distance(strings.ToLower(name), strings.ToLower(op.Name)); {
		case d < least:
			near, least = []string{op.Name}, d
		case d == least && len(near) > 0 && !slices.Contains(near, op.Name):
			near = append(near, op.Name)
		}
	}
	if len(near) == 0 {
		return api.Operation{}, usageError("%s is no operation; `keyd call --list` has them all", name)
	}
	return api.Operation{}, usageError("%s is no operation; did you mean %s?", name, strings.Join(near, " or "))
}

// placeKey moves the member that the path names out of the body into the path.
func placeKey(op api.Operation, body []byte) (path string, rest []byte, err error) {
	if op.KeyMember == "" {
		return op.Path, body, nil
	}
	members := make(map[string]json.RawMessage)
	if len(body) > 0 {
		if err := json.Unmarshal(body, &members); err != nil {
			return "", nil, usageError("reading the request: %w", err)
		}
	}
	var key string
	if json.Unmarshal(members[op.KeyMember], &key) != nil || key == "" {
		return "", nil, usageError("%s needs the member %s, a key ARN or an alias, which goes into the path", op.Name, op.KeyMember)
	}
	delete(members, op.KeyMember)
	if rest, err = json.Marshal(members); err != nil {
		return "", nil, err
	}
	// Every reserved character, "/" too: the key is one label of the path.
	return strings.Replace(op.Path, "{"+op.KeyMember+"}", url.PathEscape(key), 1), rest, nil
}

// tell prints what stands beside the answer's body.
func (c *callCmd) tell(w io.Writer, a doorAnswer) {
	names := []string{"X-Amzn-Requestid", "X-Keyd-Custody"}
	if c.Headers {
		fmt.Fprintln(w, a.status)
		names = slices.Sorted(maps.Keys(a.header))
	}
	for _, name := range names {
		for _, value := range a.header[name] {
			fmt.Fprintf(w, "%s: %s\n", strings.ToLower(name), value)
		}
	}
}

// explain is the daemon's refusal with all that it says. A verification that
// failed has an exit code of its own.
func explain(a doorAnswer) error {
	var detail struct {
		Type       string `json:"__type"`
		Message    string
		Reason     string
		ResourceID string `json:"ResourceId"`
		FieldList  []struct {
			Path    string `json:"path"`
			Message string `json:"message"`
		} `json:"fieldList"`
	}
	if err := json.Unmarshal(a.body, &detail); err != nil || detail.Type == "" {
		return refusedBy(a.status, a.body)
	}
	err := refusedBy(a.status, a.body)
	if detail.Reason != "" {
		err = fmt.Errorf("%w; %s", err, detail.Reason)
	}
	if detail.ResourceID != "" {
		err = fmt.Errorf("%w: %s", err, detail.ResourceID)
	}
	for _, field := range detail.FieldList {
		err = fmt.Errorf("%w\n  %s: %s", err, field.Path, field.Message)
	}
	if detail.Type == "VerificationFailedException" {
		return &exitError{code: exitVerify, err: err}
	}
	return err
}

// listOperations prints what keyd serves and who may do it, in docs/ROLES.md's
// words.
func listOperations(w io.Writer) error {
	out := newTable(w, false, "OPERATION", "PLANE", "PATH OR TARGET", "ROLES")
	matrix := custody.Permissions()
	seen := make(map[string]bool)
	for _, op := range api.Operations() {
		name := op.Name
		if seen[name] {
			name = op.Target // what it is called by
		}
		seen[op.Name] = true
		var roles []string
		for _, role := range matrix[op.Permission] {
			if role != custody.RoleSwitch { // which nobody can be
				roles = append(roles, string(role))
			}
		}
		out.row(nil, name, op.Plane, cmp.Or(op.Target, op.Path), words(roles))
	}
	return out.flush()
}
