package hsm

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"unsafe"

	"keyd.dev/keyd/internal/secret"
)

const pinCanary = "493-pin-of-a-test-871"

// flagsOf are the kernel's notes on the mapping that holds an address.
func flagsOf(t *testing.T, address uintptr) []string {
	t.Helper()
	text, err := os.ReadFile("/proc/self/smaps")
	if err != nil {
		t.Fatal(err)
	}
	inside := false
	for line := range strings.Lines(string(text)) {
		var from, to uintptr
		if n, _ := fmt.Sscanf(line, "%x-%x ", &from, &to); n == 2 {
			inside = from <= address && address < to
		}
		if flags, ok := strings.CutPrefix(line, "VmFlags:"); ok && inside {
			return strings.Fields(flags)
		}
	}
	t.Fatalf("no mapping at %x", address)
	return nil
}

func has(flags []string, flag string) bool {
	for _, f := range flags {
		if f == flag {
			return true
		}
	}
	return false
}

// readable reads an address as a debugger would.
func readable(t *testing.T, address uintptr, n int) ([]byte, error) {
	t.Helper()
	f, err := os.Open("/proc/self/mem")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b := make([]byte, n)
	_, err = f.ReadAt(b, int64(address))
	return b, err
}

func TestKeptPIN(t *testing.T) {
	given := secret.From([]byte(pinCanary))
	var k keptPIN
	if err := k.keep(given); err != nil {
		t.Fatal(err)
	}
	if !given.Equal(secret.New(len(pinCanary))) {
		t.Error("C-14 the original still holds the PIN")
	}
	if !k.pin.Equal(secret.From([]byte(pinCanary))) {
		t.Fatal("the page does not hold the PIN")
	}
	address := uintptr(unsafe.Pointer(&k.page[0]))
	flags := flagsOf(t, address)
	if !has(flags, "dd") {
		t.Errorf("C-16 the page can get into a core file: %v", flags)
	}
	t.Logf("the page is %s", k.kind)
	switch k.kind {
	case pageSecret:
		if _, err := readable(t, address, len(pinCanary)); err == nil {
			t.Error("C-16 a debugger can read the page")
		}
	case pageLocked:
		if !has(flags, "lo") {
			t.Errorf("C-16 the page is not locked: %v", flags)
		}
	}
	if err := k.drop(); err != nil || k.pin.Len() != 0 {
		t.Errorf("drop: %v, %d bytes", err, k.pin.Len())
	}
	if err := k.drop(); err != nil {
		t.Errorf("drop twice: %v", err)
	}
}

// TestPrivatePage is what there is where the kernel has no memfd_secret.
func TestPrivatePage(t *testing.T) {
	page, kind, err := newPrivatePage()
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := freePage(page); err != nil {
			t.Error(err)
		}
	}()
	copy(page, pinCanary)
	address := uintptr(unsafe.Pointer(&page[0]))
	flags := flagsOf(t, address)
	if !has(flags, "dd") || !has(flags, "dc") {
		t.Errorf("C-16 a core file or a child gets the page: %v", flags)
	}
	if locked := has(flags, "lo"); locked != (kind == pageLocked) {
		t.Errorf("C-16 the page is said to be %q, and the kernel says %v", kind, flags)
	}
	// That a debugger reads this one shows that the test above tells anything.
	if b, err := readable(t, address, len(pinCanary)); err != nil || !bytes.Equal(b, []byte(pinCanary)) {
		t.Errorf("the test's reader does not read: %v", err)
	}
}

func TestKeptPINTooLong(t *testing.T) {
	var k keptPIN
	if err := k.keep(secret.New(os.Getpagesize() + 1)); !errors.Is(err, ErrPIN) {
		t.Errorf("%v, want ErrPIN", err)
	}
}
