package audit

import "syscall"

// kernelTimeQuality asks the kernel whether its clock is synchronised and for
// the estimated error in microseconds.
func kernelTimeQuality() (sync bool, errMicros int64) {
	const unsynchronised = 0x40 // STA_UNSYNC, adjtimex(2)
	var t syscall.Timex
	if _, err := syscall.Adjtimex(&t); err != nil {
		return false, 0
	}
	return t.Status&unsynchronised == 0, max(0, t.Esterror)
}
