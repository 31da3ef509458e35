package main

import (
	_ "embed"
	"fmt"
	"regexp"
	"slices"
	"strings"
)

//go:embed ids.tsv
var idList string

// rule is a line of ids.tsv.
type rule struct {
	id    string
	title string
	open  string // why no test can hold it yet; empty for one that must be held
}

// pattern is an id: of a row, an invariant, a requirement, or a test of an attack.
var pattern = regexp.MustCompile(`D-\d\d|A-\d\d\.T\d|R-\d\d|I-\d`)

// readIDs reads lines of id, title and, for an open one, the reason. Empty lines
// and those that begin with # are comments.
func readIDs(text string) ([]rule, error) {
	var all []rule
	for n, line := range strings.Split(text, "\n") {
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		fields := strings.Split(line, "\t")
		if len(fields) < 2 || len(fields) > 3 || pattern.FindString(fields[0]) != fields[0] || fields[1] == "" {
			return nil, fmt.Errorf("ids.tsv:%d: want an id, a title and maybe a reason, with tabs between", n+1)
		}
		r := rule{id: fields[0], title: fields[1]}
		if len(fields) == 3 {
			reason, ok := strings.CutPrefix(fields[2], "open: ")
			if !ok || reason == "" {
				return nil, fmt.Errorf("ids.tsv:%d: the third field is %q, want `open: ` and a reason", n+1, fields[2])
			}
			r.open = reason
		}
		if slices.ContainsFunc(all, func(o rule) bool { return o.id == r.id }) {
			return nil, fmt.Errorf("ids.tsv:%d: %s stands there twice", n+1, r.id)
		}
		all = append(all, r)
	}
	return all, nil
}

// inName is an id at the beginning of a function's name, which can have no
// punctuation: TestA12T2, TestR50EveryColumn.
var inName = regexp.MustCompile(`^Test([DRI])(\d{1,2})(?:[A-Z_/]|$)|^Test(A)(\d\d)(T\d)(?:[A-Z_/]|$)`)

// function is the id that a test's own name begins with, in the form of the
// tables, or "".
func function(test string) string {
	m := inName.FindStringSubmatch(test)
	switch {
	case m == nil:
		return ""
	case m[3] != "":
		return m[3] + "-" + m[4] + "." + m[5]
	}
	return m[1] + "-" + m[2]
}

// cited are the ids that a text names. Letters before an id or a digit behind it
// make it something else: AES-128 and SHA-256 name none.
func cited(text string) []string {
	var ids []string
	for _, at := range pattern.FindAllStringIndex(text, -1) {
		before, after := at[0] > 0 && isWord(text[at[0]-1]), at[1] < len(text) && isDigit(text[at[1]])
		if id := text[at[0]:at[1]]; !before && !after && !slices.Contains(ids, id) {
			ids = append(ids, id)
		}
	}
	return ids
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

func isWord(c byte) bool { return isDigit(c) || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' }
