package isoswitch

import (
	"sync"
	"time"

	"keyd.dev/keyd/audit"
	"keyd.dev/keyd/internal/iso8583"
	"keyd.dev/keyd/internal/profile"
)

// Where a profile's reversals name their original by batch, a message has no DE 7
// and no DE 90: STAN (DE 11), batch (DE 60.2) and the class that DE 60.1 says name
// it (reversals section 4.1, U-65). The batch, six digits, stands where DE 7 would.

// batchDigits is the length of a batch number.
const batchDigits = 6

// byBatch reports whether the profile's terminals have batches.
func (p speech) byBatch() bool { return p.Original == profile.ByBatch }

// sentOf is what dates a message of a terminal: DE 7, or its batch.
func (p speech) sentOf(m *iso8583.Message) string {
	if !p.byBatch() {
		return m.Text(7)
	}
	return batchOf(m)
}

// sentAt is when a message was sent: what DE 7 says, or when it came. It is false
// where DE 7 is no date.
func (r *request) sentAt() (time.Time, bool) {
	if r.speech.byBatch() {
		return r.at, true
	}
	return timeOf(r.msg.Text(7), r.at)
}

// localTime is DE 12 and DE 13 of a message, or those of the host (U-26).
func (r *request) localTime() (hhmmss, mmdd string) {
	if !r.speech.byBatch() {
		return r.msg.Text(12), r.msg.Text(13)
	}
	return r.at.Format("150405"), r.at.Format("0102")
}

// original is what names the original of a reversal, and whether that can be read.
func (p speech) original(m *iso8583.Message) (iso8583.OriginalData, bool) {
	if !p.byBatch() {
		return m.Original()
	}
	return iso8583.OriginalData{MTI: classOf(typeOf60(m)), STAN: m.Text(11), DateTime: p.sentOf(m)}, true
}

// panOf is the card number: DE 2, or where a dialect has it so, that of track 2.
func panOf(m *iso8583.Message) string {
	if m.Has(2) {
		return m.Text(2)
	}
	return trackPAN(m.Text(35))
}

// batchOf is DE 60.2, and typeOf60 DE 60.1 (U-37).
func batchOf(m *iso8583.Message) string {
	if text := m.Text(60); len(text) >= 8 {
		return text[2:8]
	}
	return "000000"
}

func typeOf60(m *iso8583.Message) string {
	if text := m.Text(60); len(text) >= 2 {
		return text[:2]
	}
	return ""
}

// classOf is the message type of an original with this DE 60.1; empty for one that
// no reversal may name.
func classOf(type60 string) iso8583.MTI {
	switch type60 {
	case "10", "11":
		return iso8583.AuthorizationRequest
	case "20", "21", "22", "23":
		return iso8583.FinancialRequest
	}
	return ""
}

// names is what a void, a completion or a refund refers to, and whether the message
// says so: DE 90, or by batch DE 61 with the class that DE 60.1 says (U-38, U-65).
func (p speech) names(m *iso8583.Message) (iso8583.OriginalData, bool) {
	if !p.byBatch() {
		return m.Original()
	}
	mti, text := namedBy(typeOf60(m)), m.Text(61)
	if mti == "" || len(text) < 12 {
		return iso8583.OriginalData{}, false
	}
	if unknown := text[:6] == "000000" || text[6:12] == "000000"; unknown && typeOf60(m) == refund60 {
		return iso8583.OriginalData{}, false // of a sale that the terminal has no more
	}
	return iso8583.OriginalData{MTI: mti, STAN: text[6:12], DateTime: text[:6]}, true
}

// refund60 is DE 60.1 of a refund (U-20).
const refund60 = "25"

// namedBy is the message type of what a transaction of this DE 60.1 refers to;
// empty for one that refers to nothing.
func namedBy(type60 string) iso8583.MTI {
	switch type60 {
	case "11", "20": // void and completion of a pre-authorization
		return iso8583.AuthorizationRequest
	case "21", "23", refund60: // void of a completion, of a sale; refund of either
		return iso8583.FinancialRequest
	}
	return ""
}

// type60Of is DE 60.1 of a transaction of these types, empty for one that is not
// of the dialect (U-15 to U-19).
func type60Of(mti iso8583.MTI, processing, condition string) string {
	financial, authorization := mti == iso8583.FinancialRequest, mti == iso8583.AuthorizationRequest
	switch {
	case mti == iso8583.FinancialAdvice && processing == "200000" && condition == "00":
		return refund60
	case financial && processing == "000000" && condition == "00":
		return "22"
	case financial && processing == "200000" && condition == "00":
		return "23"
	case financial && processing == "310000" && condition == "00":
		return "01"
	case financial && processing == "000000" && condition == "06":
		return "20"
	case financial && processing == "200000" && condition == "06":
		return "21"
	case authorization && processing == "030000" && condition == "06":
		return "10"
	case authorization && processing == "200000" && condition == "06":
		return "11"
	}
	return ""
}

// fits61 reports whether DE 61 of a reversal is what it must be (U-65, section
// 4.3). Where the original refers to another transaction it names that, or is not
// there; a part of zeros fits any. Else the profile says: it is not there, or it
// names the original itself.
func (p policy) fits61(q question, refers *Txn) bool {
	batch, stan := q.names.DateTime, q.names.STAN
	switch {
	case refers != nil:
		if q.named61 == "" {
			return true
		}
		batch, stan = refers.Sent, refers.STAN
	case !p.profile.DE61Always:
		return q.named61 == ""
	}
	fits := func(part, want string) bool { return part == want || part == "000000" }
	return len(q.named61) >= 12 && fits(q.named61[:6], batch) && fits(q.named61[6:12], stan)
}

// permitType refuses a transaction that is not of the dialect, and one whose DE
// 60.1 or DE 61 says that it is another.
func (r *request) permitType() *verdict {
	if !r.speech.byBatch() {
		return nil
	}
	m := r.msg
	of := type60Of(m.MTI(), m.Text(3), m.Text(25))
	_, named := r.speech.names(m)
	switch {
	case of == "":
		return &verdict{code: codeNoFunction, reason: audit.ReasonProfileDenied}
	case of == refund60 && typeOf60(m) != refund60: // an offline sale, an adjustment, a tip
		return &verdict{code: codeNoFunction, reason: audit.ReasonProfileDenied}
	case of == refund60 && (named || !r.speech.linear(r.terminal.Scheme)):
		return nil
	case of != typeOf60(m), m.Has(61) != (namedBy(of) != ""), named != m.Has(61):
		return &verdict{code: codeInvalid, reason: audit.ReasonAttributeMismatch}
	}
	return nil
}

// linear reports whether who can change a message on the way can leave its MAC as
// it was. A refund then names what it gives back, so that card and amount
// are compared with it.
func (p speech) linear(scheme Scheme) bool {
	return p.MAC[profile.Scheme(scheme)].Algorithm == profile.CUPECB
}

// fillUpstream adds what the dialect upstream demands and a terminal of the profile
// need not send.
func (r *request) fillUpstream(b *iso8583.Builder, t *Txn) {
	if !r.speech.byBatch() {
		return
	}
	b.Set(2, string(r.pan)).Set(12, t.Time).Set(13, t.Date)
	if !b.Has(4) { // a balance inquiry
		b.Set(4, "000000000000")
	}
}

// fillTimes adds the host's time to an answer by which a terminal sets its clock
// (U-26).
func (p speech) fillTimes(b *iso8583.Builder, now time.Time) {
	if !p.byBatch() {
		return
	}
	now = now.UTC()
	b.Set(12, now.Format("150405")).Set(13, now.Format("0102"))
}

// batches are the batches that terminals are in: of each the one of its last sale
// whose MAC was good. It is safe for concurrent use. A restart forgets them, and
// then a reversal without an original leaves a tombstone, which is safe (note
// D-10).
type batches struct {
	mu  sync.Mutex
	now map[string]string // by TID
}

// enter notes the batch of a sale.
func (b *batches) enter(tid, batch string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.now == nil {
		b.now = map[string]string{}
	}
	b.now[tid] = batch
}

// open reports whether sales of this batch can still come.
func (b *batches) open(tid, batch string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	now, known := b.now[tid]
	return !known || now == batch
}
