// Package logindex finds records of an audit log by what they say: a terminal,
// a key serial number, a card's token, a request. It keeps small files beside
// the log, one for each 65,536 records, that say which records may hold a value.
//
// The files are derived and never an authority. Every record that is found is
// read from the log itself, is proved under the checkpoint, and is compared
// again with what was asked for; so a false file can neither invent a record
// nor alter one. A file that is missing, damaged, or not made of these tiles is
// not used: what no file covers is read from the log. That a file leaves nothing
// out is what [Index.Check] proves, by making it again.
package logindex
