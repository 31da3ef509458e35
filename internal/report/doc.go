// Package report turns the audit log into what a person reviews and signs: the
// day, the life of a key, the minutes of a ceremony, what was refused, who had
// access, and the clock (section 15 of the log's specification, PCI DSS 10.4.1).
//
// A report says nothing that is not in a record: each figure names the records
// that it was counted from, as LOG:SEQ, and the head names the checkpoint under
// which they stand and whether they were verified. Times are those of the
// records; the same log gives the same bytes.
//
// [Make] reads the log and returns a [Document], which is written as text, CSV,
// JSON, or HTML that prints on paper.
package report

import "errors"

var (
	// ErrNothing: the log has no record of the subject of the report.
	ErrNothing = errors.New("report: the log has no record of it")
	// ErrArgs: the report cannot be made with these arguments.
	ErrArgs = errors.New("report: wrong arguments")
	// ErrSignature: a signature of a ceremony does not verify.
	ErrSignature = errors.New("report: a signature does not verify")
	// ErrPruned: records of the range are gone from the log.
	ErrPruned = errors.New("report: the log was pruned within the range")
)
