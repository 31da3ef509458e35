package isoswitch

import "keyd.dev/keyd/internal/iso8583"

// kind is what a transaction does. Its name is nowhere in the message: it follows
// from the MTI, DE 3, and whether another transaction is named.
type kind uint8

// The kinds.
const (
	noKind       kind = iota // not of the dialect
	saleKind                 // also an authorization
	refundKind               // may name the sale that it gives back
	balanceKind              // moves no money
	preauthKind              // reserves; a completion books
	completeKind             // of a pre-authorization, which it names
	voidKind                 // of a sale, a pre-authorization or a completion, which it names
)

// The types of transactions: the first two digits of DE 3. W-06, U-15 to U-19.
const (
	typeSale    = "00"
	typePreauth = "03"
	typeRefund  = "20" // and void
	typeBalance = "31"
)

// processingTypes are all types of transactions.
func processingTypes() []string { return []string{typeSale, typePreauth, typeRefund, typeBalance} }

// kindOf is the kind of a 0100, 0200 or 0220 with this DE 3; names says that it
// names another transaction.
func kindOf(mti iso8583.MTI, processing string, names bool) kind {
	request := mti == iso8583.AuthorizationRequest || mti == iso8583.FinancialRequest
	switch typeOf(processing) {
	case typeSale:
		switch {
		case names && mti == iso8583.FinancialRequest:
			return completeKind
		case !names && request:
			return saleKind
		}
	case typePreauth:
		if !names && mti == iso8583.AuthorizationRequest {
			return preauthKind
		}
	case typeRefund:
		switch {
		case names && request:
			return voidKind
		case mti == iso8583.FinancialAdvice, !names && mti == iso8583.FinancialRequest:
			return refundKind
		}
	case typeBalance:
		if !names && request {
			return balanceKind
		}
	}
	return noKind
}

// kind is what the original does.
func (t *Txn) kind() kind {
	return kindOf(iso8583.MTI(t.MTI), t.Processing, t.RefersTo != OID{})
}

func typeOf(processing string) string { return processing[:min(2, len(processing))] }

// reversible reports whether a transaction with this DE 3 moves or reserves
// money.
func reversible(processing string) bool {
	switch typeOf(processing) {
	case typeSale, typePreauth, typeRefund:
		return true
	}
	return false
}
