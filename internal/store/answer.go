package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"keyd.dev/keyd/internal/custody"
)

const (
	// answerLife is how long a repeated request gets the first one's answer;
	// section 7 of the API.
	answerLife = 24 * time.Hour
	// mostSwept bounds the expired answers that go when one is stored.
	mostSwept = 32
)

// addAnswer stores the answer of once, if there is one, and lets expired ones go.
func (db *DB) addAnswer(s *session, once *custody.Once) error {
	if once == nil {
		return nil
	}
	expired := nanos(db.clock().Add(-answerLife))
	_, err := s.exec(`DELETE FROM answer WHERE (principal, invocation) IN
		(SELECT principal, invocation FROM answer WHERE at <= ? ORDER BY at LIMIT ?)`, expired, mostSwept)
	if err != nil {
		return err
	}
	_, err = s.exec("DELETE FROM answer WHERE principal = ? AND invocation = ? AND at <= ?",
		once.Principal, once.Invocation, expired)
	if err != nil {
		return err
	}
	_, err = s.exec("INSERT INTO answer (principal, invocation, operation, body, answer, at) VALUES (?, ?, ?, ?, ?, ?)",
		once.Principal, once.Invocation, string(once.Operation), once.Body[:], notNull(once.Answer), nanos(once.At))
	if taken(err) {
		return custody.ErrRepeated
	}
	return err
}

// Recall returns the answer stored for an invocation within the last 24 hours,
// or [custody.ErrNoAnswer].
func (db *DB) Recall(ctx context.Context, principal, invocation string) (custody.Once, error) {
	once := custody.Once{Principal: principal, Invocation: invocation}
	expired := nanos(db.clock().Add(-answerLife))
	err := db.read(ctx, func(s *session) error {
		row := s.query("SELECT operation, body, answer, at FROM answer WHERE principal = ? AND invocation = ? AND at > ?",
			principal, invocation, expired)
		return row.Scan(&once.Operation, digest{&once.Body}, (*[]byte)(&once.Answer), instant{&once.At})
	})
	if errors.Is(err, sql.ErrNoRows) {
		err = custody.ErrNoAnswer
	}
	if err != nil {
		return custody.Once{}, fmt.Errorf("store: recall: %w", err)
	}
	return once, nil
}
