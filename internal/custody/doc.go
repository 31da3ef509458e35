// Package custody is the one door to the use of keys: authorise, do, record.
//
// Whoever wants something done with a key opens an [Act] for its caller, asks
// for operations, and commits. Each operation checks that the caller may do it
// with this key, finds and checks the key, does the work, and leaves a record
// of what it did or why it did not. [Act.Commit] makes the records durable and
// gives a [Receipt]; nothing that depends on a result may leave the process
// before that. Where the log cannot take the records, nothing is answered.
//
// A clear PIN or key exists here only where the token leaves no other way, for
// one operation, and every result says so by its custody class.
package custody
