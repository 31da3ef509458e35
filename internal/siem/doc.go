// Package siem carries a copy of the audit log to somebody else: every record
// and every published checkpoint, as messages of RFC 5424, by TLS (RFC 5425) or
// into a file (L-160 to L-164).
//
// A sink has a cursor, the next record of each log, that moves only past what
// need not be sent again, and stands on disk. Each record is delivered at least
// once, its bytes unchanged, in the order of its log; log and seq tell a
// receiver which ones it has. The checkpoint messages between them let it prove
// that none is missing: see [Check].
//
// Nothing here is on the way of an answer: an exporter reads the log's files as
// any reader does, and what a receiver does or fails to do is felt by its sink
// alone (L-16, L-136).
package siem
