package credentials

import (
	"encoding/binary"
	"os"

	"golang.org/x/sys/unix"
)

// The entries of a POSIX access control list, as Linux keeps them.
const (
	aclXattr    = "system.posix_acl_access"
	aclVersion  = 2
	aclUserObj  = 0x01
	aclUser     = 0x02
	aclGroupObj = 0x04
	aclMask     = 0x10
	aclOther    = 0x20
	aclRead     = 0x04
	mostACL     = 4 + 8*16
)

// onlyFor says whether the group bits of a file are the mask of an access
// control list that lets uid read, and nobody else but the owner. That is how
// systemd hands a credential of root to a service of another user: the file has
// mode 0440, and no group may read it.
func onlyFor(f *os.File, uid int) bool {
	var list [mostACL]byte
	n, err := unix.Fgetxattr(int(f.Fd()), aclXattr, list[:])
	if err != nil || n < 4 || (n-4)%8 != 0 || binary.LittleEndian.Uint32(list[:]) != aclVersion {
		return false
	}
	for at := 4; at < n; at += 8 {
		perm := binary.LittleEndian.Uint16(list[at+2:])
		switch binary.LittleEndian.Uint16(list[at:]) {
		case aclUserObj, aclMask:
		case aclUser:
			if int(binary.LittleEndian.Uint32(list[at+4:])) != uid || perm&^aclRead != 0 {
				return false
			}
		case aclGroupObj, aclOther:
			if perm != 0 {
				return false
			}
		default: // a group by name, or what is not known
			return false
		}
	}
	return true
}
