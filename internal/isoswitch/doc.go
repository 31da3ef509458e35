// Package isoswitch is the switch core: it takes ISO 8583 messages from
// terminals, sends sales to the acquirer host or issuer, and honours each
// reversal that it can authenticate exactly once.
//
// Three flows, each one function from top to bottom: a sale ([Switch.sale]), a
// reversal ([Switch.reversal]) and the store-and-forward of reversals
// ([Switch.forward]). What undoes a sale is in the journal before the sale
// leaves; no reply leaves before the journal and the audit log are durable. A
// reversal that a terminal asks for, one that a timeout or a bad answer causes,
// and one that a restart finds, all end in the same store-and-forward loop.
//
// The package knows no key and no cipher: it speaks package custody. What it
// needs of a database is [Journal].
package isoswitch
