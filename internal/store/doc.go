// Package store keeps what keyd must not forget: key blocks and aliases, stored
// answers, the terminal registry, KSN high-water marks and the journal of
// transactions and reversals, in one SQLite database.
//
// # Durability
//
// One goroutine writes. Functions handed to it are run in the order of arrival,
// each in a savepoint of its own, and share one commit with all that arrived
// while the commit before was being written (group commit, without a timer).
// Whoever gets nil back knows that the commit was synced; whoever gets an error
// knows that nothing of its function was committed. One reservation, which no
// database can lift: when the sync itself fails and the machine then stops
// before the next commit, what was reported as failed may be found done. So an
// answer that was never given must never be the only thing that makes an effect
// right.
//
// # Rules in the database
//
// What must hold whatever the program does stands in the schema as constraints
// and triggers: at most one full reversal of an original (I-1), reversed amounts
// never above the amount (I-2), KSN counters that only rise.
//
// # Processes
//
// One process serves from a database, and holds a lock beside it. Others may
// visit: read, and write briefly.
//
// Nothing in this package can hold a clear PIN, a PIN block, or track data.
package store
