package store

import "keyd.dev/keyd/internal/isoswitch"

// Live implements [isoswitch.Tx]. Its condition is that of the index txn_refers,
// word for word: only so does SQLite use it.
func (t *tx) Live(oid isoswitch.OID) (*isoswitch.Txn, error) {
	return oneSealed(t, txnTable, readTxn,
		"WHERE refers_to = ? AND state NOT IN ('DECLINED', 'REVERSED', 'REVERSED_UNKNOWN', 'LOCAL_VOID')", oid[:])
}
