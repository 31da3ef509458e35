// Package hook tells one configured receiver what becomes of reversals: events
// out of the journal's outbox, by HTTPS, signed by a key of the token, until each
// is acknowledged.
//
// An event is written by the change that it tells of, in the same transaction of
// the database, so that none is lost and none tells of what was undone. It is
// delivered at least once, always under the same id, and those of one original in
// their order. No event holds anything of a card.
package hook
