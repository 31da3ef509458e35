//go:build !linux

package audit

// kernelTimeQuality claims nothing where the kernel is not asked.
func kernelTimeQuality() (sync bool, errMicros int64) { return false, 0 }
