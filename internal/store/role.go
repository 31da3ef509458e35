package store

import (
	"context"
	"encoding/json"
	"fmt"

	"keyd.dev/keyd/internal/custody"
)

// SetRoles implements [custody.RoleStore].
func (db *DB) SetRoles(ctx context.Context, r custody.RoleChange) error {
	roles, err := json.Marshal(r.Roles)
	if err != nil {
		return err
	}
	values := []any{r.URI, string(roles), nanos(r.At)}
	err = db.Change(ctx, nil, func(ch *Change) error {
		if ch.has(roleTable, r.Client) {
			return ch.update(roleTable, r.Client, values, nil)
		}
		return ch.insert(roleTable, r.Client, values, nil)
	})
	if err != nil {
		return fmt.Errorf("store: roles of client %q: %w", r.Client, err)
	}
	return nil
}

// RoleChanges implements [custody.RoleStore].
func (db *DB) RoleChanges(ctx context.Context) ([]custody.RoleChange, error) {
	var all []custody.RoleChange
	err := db.viewRegistered(ctx, func(s *session, g reading) (err error) {
		all, err = collect(s, of(g, roleTable, readRoles), roleTable.selects()+"ORDER BY client")
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("store: changed roles: %w", err)
	}
	return all, nil
}

func readRoles(r scanner) (custody.RoleChange, error) {
	var c custody.RoleChange
	var roles string
	if err := r.Scan(&c.Client, &c.URI, &roles, instant{&c.At}); err != nil {
		return c, err
	}
	if err := json.Unmarshal([]byte(roles), &c.Roles); err != nil {
		return c, fmt.Errorf("%w: roles of client %q: %w", ErrCorrupt, c.Client, err)
	}
	return c, nil
}
