package main

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"keyd.dev/keyd/audit"
	"keyd.dev/keyd/internal/custody"
)

// objectsOf are the records of what a new configuration changes beside itself:
// principals, profiles and limits. Each has the digests of the object's JSON form
// before and after. What waits for a restart is not among them.
func objectsOf(who audit.Record, was, next *configFile, waiting []string) []audit.Record {
	records := principalsOf(who, was, next, waiting)
	before, after := profilesByName(was), profilesByName(next)
	for _, name := range namesOf(before, after) {
		if r, ok := objectChange(who, audit.ChangeProfile, "profile/"+name, before[name], after[name]); ok {
			r.Action = audit.ProfileChange
			records = append(records, r)
		}
	}
	bounds := func(c *configFile) digest { return digestOf([]any{c.limits(), c.quotas()}) }
	if r, ok := objectChange(who, audit.ChangeLimit, "limits", bounds(was), bounds(next)); ok {
		r.Action = audit.LimitChange
		records = append(records, r)
	}
	return records
}

// principalsOf are the records of principals that were added, changed or taken
// out. Those with a role that only people have are users, the others peers.
func principalsOf(who audit.Record, was, next *configFile, waiting []string) []audit.Record {
	old, now := clientsByName(was), clientsByName(next)
	var records []audit.Record
	for _, name := range namesOf(old, now) {
		if slices.ContainsFunc(waiting, func(key string) bool { return strings.HasPrefix(key, "client["+name+"]") }) {
			continue
		}
		before, there := old[name]
		after, stays := now[name]
		kind := audit.ChangePeer
		if person(before) || person(after) {
			kind = audit.ChangeUser
		}
		var from, to digest
		if there {
			from = digestOf(before)
		}
		if stays {
			to = digestOf(after)
		}
		r, changed := objectChange(who, kind, "client/"+name, from, to)
		if !changed {
			continue
		}
		r.Action = principalAction(kind, there, stays, len(before.Roles) > 0 && len(after.Roles) == 0)
		records = append(records, r)
	}
	return records
}

// principalAction names what became of a principal. One without a role may do
// nothing: it is disabled, and so is a peer that is there no more.
func principalAction(kind audit.ChangeKind, there, stays, emptied bool) audit.Action {
	row := 0
	if kind == audit.ChangeUser {
		row = 1
	}
	actions := [2][4]audit.Action{
		{audit.PeerCreate, audit.PeerChange, audit.PeerDisable, audit.PeerDisable},
		{audit.UserCreate, audit.UserChange, audit.UserDisable, audit.UserDelete},
	}
	switch {
	case !there:
		return actions[row][0]
	case !stays:
		return actions[row][3]
	case emptied:
		return actions[row][2]
	}
	return actions[row][1]
}

// person reports whether a principal has a role that machines do not have.
func person(c custody.Client) bool {
	return slices.ContainsFunc(c.Roles, func(r custody.Role) bool {
		return r != custody.RoleApplication && r != custody.RoleTerminal
	})
}

// digest is that of an object; the zero value is that of none.
type digest = audit.Hash

// digestOf is the SHA-256 of an object's JSON form.
func digestOf(object any) digest {
	text, err := json.Marshal(object)
	if err != nil {
		text = fmt.Appendf(nil, "%T", object) // no object here has what JSON cannot say
	}
	return sha256.Sum256(text)
}

// objectChange is the record of one object; false where it is the same.
func objectChange(who audit.Record, kind audit.ChangeKind, object string, before, after digest) (audit.Record, bool) {
	who.Change = &audit.Change{Kind: kind, Object: object[:min(len(object), mostObject)], Before: before, After: after}
	return who, before != after
}

func clientsByName(c *configFile) map[string]custody.Client {
	all := make(map[string]custody.Client)
	for _, client := range c.clients() {
		all[client.Name] = client
	}
	return all
}

func profilesByName(c *configFile) map[string]digest {
	all := make(map[string]digest)
	for i := range c.Profile {
		all[c.Profile[i].Name] = digestOf(c.Profile[i])
	}
	return all
}

// namesOf are the names in either, sorted.
func namesOf[V any](a, b map[string]V) []string {
	names := slices.AppendSeq(slices.Collect(maps.Keys(a)), maps.Keys(b))
	slices.Sort(names)
	return slices.Compact(names)
}

// credentialChanged records that one end has another certificate or other
// authorities than before.
func (d *daemon) credentialChanged(section string, before, after [32]byte) {
	err := d.node.record(context.Background(), audit.Record{
		Action: audit.CredChange, Actor: audit.System(), Outcome: audit.OutcomeOK,
		Change: &audit.Change{Kind: audit.ChangeCred, Object: "tls/" + section, Before: before, After: after},
	})
	if err != nil {
		d.log.Error("the new certificate could not be recorded", "section", section, "err", err)
	}
}
