// Package backup writes and reads the one file that a node is restored from:
// key blocks, registry and policies, as rows of the database.
//
// The file is an age file (age-encryption.org/v1) whose file key is wrapped
// under the local master key of the token, as a key block of its own kind. So
// it is authentic and complete, or it does not open; and it opens only beside
// a token that holds the same local master key. What is inside is JSON, one
// value a line: a header, the rows of one table after the other, and an end
// that says how many there are. The order and the columns are the database's.
//
// The journal of transactions is not in it: a restored node answers for
// transactions of its own.
package backup
