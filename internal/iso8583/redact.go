package iso8583

import (
	"fmt"
	"io"
	"log/slog"
)

// String returns type, STAN and TID: what may stand in a log. The printing
// methods have value receivers, so that a copy prints no more than a pointer.
func (m Message) String() string {
	return fmt.Sprintf("%s stan=%s tid=%q", m.mti, m.Text(11), m.Text(41))
}

// Format prints what String returns, whatever the verb.
func (m Message) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, m.String()) }

// LogValue returns type, STAN and TID.
func (m Message) LogValue() slog.Value {
	return slog.GroupValue(
		slog.String("mti", string(m.mti)),
		slog.String("stan", m.Text(11)),
		slog.String("tid", m.Text(41)),
	)
}

// String returns the type of the message.
func (b Builder) String() string { return string(b.mti) }

// Format prints what String returns, whatever the verb.
func (b Builder) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, b.String()) }

// String returns the type of the message.
func (u Unsealed) String() string { return string(u.mti) }

// Format prints what String returns, whatever the verb.
func (u Unsealed) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, u.String()) }
