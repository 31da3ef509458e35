package main

import (
	"fmt"
	"reflect"
)

// merged is what a daemon does with a file that is read again: the keys that a
// running daemon takes are those of the file, all others those with which it
// runs.
type merged struct {
	config
	changed []string // keys that have another value now
	waiting []string // keys whose new value waits for a restart
}

// mergeConfig takes from next what the tags of the struct allow.
func mergeConfig(running, next *config) merged {
	m := merged{config: *running}
	m.tables("", reflect.ValueOf(&m.config).Elem(), reflect.ValueOf(next).Elem())
	return m
}

// tables takes over what may be taken over of the tables below a struct.
func (m *merged) tables(prefix string, into, from reflect.Value) {
	for i := range into.NumField() {
		field := into.Type().Field(i)
		name, a, b := prefix+tomlName(field), into.Field(i), from.Field(i)
		switch {
		case field.Type.Kind() == reflect.Struct:
			m.tables(name+".", a, b)
		case isList(field.Type) && taken(field.Type.Elem()):
			m.changed = append(m.changed, entriesThatDiffer(name, a, b)...)
			a.Set(b)
		case same(a, b):
		case field.Tag.Get("reload") == "yes":
			m.changed = append(m.changed, name)
			a.Set(b)
		default:
			m.waiting = append(m.waiting, name)
		}
	}
}

// taken says whether a running daemon takes every key of a table.
func taken(t reflect.Type) bool {
	for i := range t.NumField() {
		if t.Field(i).Tag.Get("reload") != "yes" {
			return false
		}
	}
	return true
}

// entriesThatDiffer names what differs between two lists of tables with a name:
// client[back-end].roles, client[shop] (new), client[old] (gone).
func entriesThatDiffer(list string, a, b reflect.Value) []string {
	var out []string
	before := byName(a)
	for i := range b.Len() {
		entry := b.Index(i)
		name := nameOf(entry)
		at := fmt.Sprintf("%s[%s]", list, name)
		was, known := before[name]
		delete(before, name)
		if !known {
			out = append(out, at+" (new)")
			continue
		}
		for f := range entry.NumField() {
			if !same(was.Field(f), entry.Field(f)) {
				out = append(out, at+"."+tomlName(entry.Type().Field(f)))
			}
		}
	}
	for i := range a.Len() {
		if name := nameOf(a.Index(i)); before[name].IsValid() {
			out = append(out, fmt.Sprintf("%s[%s] (gone)", list, name))
		}
	}
	return out
}

func byName(list reflect.Value) map[string]reflect.Value {
	all := make(map[string]reflect.Value, list.Len())
	for i := range list.Len() {
		all[nameOf(list.Index(i))] = list.Index(i)
	}
	return all
}

func nameOf(entry reflect.Value) string { return entry.FieldByName("Name").String() }

// same compares two values of one key. No list and an empty one are the same.
func same(a, b reflect.Value) bool {
	if k := a.Kind(); (k == reflect.Slice || k == reflect.Map) && a.Len() == 0 && b.Len() == 0 {
		return true
	}
	return reflect.DeepEqual(a.Interface(), b.Interface())
}
