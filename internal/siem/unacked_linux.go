package siem

import (
	"net"
	"time"

	"golang.org/x/sys/unix"
)

// unacknowledged returns how many bytes the system holds for a connection that
// the other end's system has not acknowledged (SIOCOUTQ).
func unacknowledged(conn *net.TCPConn) (uint64, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return 0, err
	}
	held, ierr := 0, error(nil)
	err = raw.Control(func(fd uintptr) { held, ierr = unix.IoctlGetInt(int(fd), unix.SIOCOUTQ) })
	if err == nil {
		err = ierr
	}
	return uint64(max(held, 0)), err
}

// giveUpAfter ends a connection whose other end acknowledges nothing for so long.
func giveUpAfter(conn *net.TCPConn, d time.Duration) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	serr := error(nil)
	err = raw.Control(func(fd uintptr) {
		serr = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(d.Milliseconds()))
	})
	if err == nil {
		err = serr
	}
	return err
}
