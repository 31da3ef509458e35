package credentials

import (
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// aclEntry is one entry of an access control list.
type aclEntry struct {
	tag, perm uint16
	id        uint32
}

const nobodyID = 0xFFFFFFFF // of entries without an id

func setACL(t *testing.T, path string, entries []aclEntry) {
	t.Helper()
	list := binary.LittleEndian.AppendUint32(nil, aclVersion)
	for _, e := range entries {
		list = binary.LittleEndian.AppendUint16(list, e.tag)
		list = binary.LittleEndian.AppendUint16(list, e.perm)
		list = binary.LittleEndian.AppendUint32(list, e.id)
	}
	if err := unix.Setxattr(path, aclXattr, list, 0); err != nil {
		t.Fatalf("this file system keeps no access control lists: %v", err)
	}
}

// TestPINCredentialACL: systemd gives a credential to a service of another user
// by an access control list, which shows as a group bit.
func TestPINCredentialACL(t *testing.T) {
	own := uint32(os.Geteuid())
	base := func(more ...aclEntry) []aclEntry {
		list := append([]aclEntry{{aclUserObj, 4, nobodyID}}, more...)
		return append(list, aclEntry{aclMask, 4, nobodyID}, aclEntry{aclOther, 0, nobodyID})
	}
	const aclGroup = 0x08
	for _, tt := range []struct {
		name string
		acl  []aclEntry
		err  error
	}{
		{"C-01 read by the own user alone", base(aclEntry{aclUser, 4, own}, aclEntry{aclGroupObj, 0, nobodyID}), nil},
		{"C-01 read by another user", base(aclEntry{aclUser, 4, own}, aclEntry{aclUser, 4, own + 1}, aclEntry{aclGroupObj, 0, nobodyID}), ErrUnsafe},
		{"C-01 read by the owner's group", base(aclEntry{aclUser, 4, own}, aclEntry{aclGroupObj, 4, nobodyID}), ErrUnsafe},
		{"C-01 read by a group", base(aclEntry{aclGroupObj, 0, nobodyID}, aclEntry{aclGroup, 4, 4711}), ErrUnsafe},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path := writePIN(t, goodPIN, 0o400)
			setACL(t, path, tt.acl)
			t.Setenv("CREDENTIALS_DIRECTORY", filepath.Dir(path))
			want := goodPIN
			if tt.err != nil {
				want = ""
			}
			got, err := readSource(t, "systemd:pin", false)
			checkPIN(t, got, err, want, tt.err)
			if _, err := readSource(t, "file:"+path, false); !errors.Is(err, ErrUnsafe) {
				t.Errorf("as file: %v, want ErrUnsafe", err)
			}
		})
	}
	t.Run("C-01 a group bit without a list", func(t *testing.T) {
		path := writePIN(t, goodPIN, 0o440)
		t.Setenv("CREDENTIALS_DIRECTORY", filepath.Dir(path))
		got, err := readSource(t, "systemd:pin", false)
		checkPIN(t, got, err, "", ErrUnsafe)
	})
}
