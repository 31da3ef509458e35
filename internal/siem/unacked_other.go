//go:build !linux

package siem

import (
	"net"
	"time"
)

// unacknowledged returns the most that can be unacknowledged, where the system
// does not say how much it is.
func unacknowledged(*net.TCPConn) (uint64, error) { return 4 * sendBuffer, nil }

// giveUpAfter leaves it to the system's own times where they cannot be set.
func giveUpAfter(*net.TCPConn, time.Duration) error { return nil }
