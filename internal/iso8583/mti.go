package iso8583

// MTI is a message type indicator of ISO 8583:1987: version, class, function,
// origin.
type MTI string

// The requests and advices. [MTI.Response] gives their answers.
const (
	AuthorizationRequest MTI = "0100"
	FinancialRequest     MTI = "0200"
	FinancialAdvice      MTI = "0220"
	ReversalRequest      MTI = "0400"
	ReversalRepeat       MTI = "0401"
	ReversalAdvice       MTI = "0420"
	ReversalAdviceRepeat MTI = "0421"
	NetworkRequest       MTI = "0800"
)

// Class returns the second digit: '1' authorization, '2' financial, '4'
// reversal, '8' network management; 0 when m is not an MTI.
func (m MTI) Class() byte {
	if !m.wellFormed() {
		return 0
	}
	return m[1]
}

// IsRequest reports whether m asks for an answer: a request, an advice or a
// repeat of one.
func (m MTI) IsRequest() bool { return m.wellFormed() && (m[2] == '0' || m[2] == '2') }

// IsAdvice reports whether m tells of something that is done already.
func (m MTI) IsAdvice() bool { return m.wellFormed() && m[2] == '2' }

// IsResponse reports whether m is an answer.
func (m MTI) IsResponse() bool { return m.wellFormed() && (m[2] == '1' || m[2] == '3') }

// Response returns the type of the answer to m: m + 10 with the repeat digit
// 0, so that 0400 and 0401 give 0410, 0420 and 0421 give 0430. It is empty when
// m is not a request.
func (m MTI) Response() MTI {
	if !m.IsRequest() {
		return ""
	}
	return MTI([]byte{m[0], m[1], m[2] + 1, '0'})
}

func (m MTI) wellFormed() bool {
	return len(m) == 4 && classN.holds([]byte(m))
}
