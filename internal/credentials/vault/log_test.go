//go:build vault

package vault_test

import (
	"bytes"
	"sync"
)

// log keeps what was logged, for two goroutines.
type log struct {
	mu     sync.Mutex
	text   bytes.Buffer
	alarms []error
}

func (l *log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func (l *log) alarm(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.alarms = append(l.alarms, err)
}
