package hsm

/*
#cgo linux LDFLAGS: -ldl
#cgo noescape keyd_once
#cgo nocallback keyd_once
#cgo noescape keyd_begin
#cgo nocallback keyd_begin
#cgo noescape keyd_more
#cgo nocallback keyd_more
#cgo noescape keyd_login
#cgo nocallback keyd_login
#cgo noescape keyd_random
#cgo nocallback keyd_random
#cgo noescape keyd_reencipher
#cgo nocallback keyd_reencipher

#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>
#ifdef __GLIBC__
#include <malloc.h>
#endif

typedef unsigned long ck;
typedef struct { ck type; void *value; ck len; } keyd_attr;
typedef struct { ck type; void *param; ck len; } keyd_mech;
typedef struct { void *data; ck len; } keyd_string; // CK_KEY_DERIVATION_STRING_DATA
typedef struct { ck rv, n, begun; } keyd_result;
typedef struct { unsigned char version[2]; void *fn[68]; } keyd_list; // CK_FUNCTION_LIST of v2.40

// Places in CK_FUNCTION_LIST.
enum { LOGIN = 18, CREATE_OBJECT = 20, DESTROY_OBJECT = 22, ENCRYPT = 29, DECRYPT = 33, SIGN = 42,
	WRAP_KEY = 60, UNWRAP_KEY = 61, DERIVE_KEY = 62, RANDOM = 64 };

// A module's objects are made by whatever thread comes along and live long. In
// one arena of the allocator they lie close; in one for each thread 50,000 keys
// took a quarter more memory. It must be said before there are threads.
#ifdef __GLIBC__
__attribute__((constructor)) static void keyd_one_arena(void) { mallopt(M_ARENA_MAX, 1); }
#endif

static keyd_list *keyd_open(const char *path) {
	void *lib = dlopen(path, RTLD_NOW | RTLD_LOCAL);
	if (!lib) return NULL;
	ck (*get)(keyd_list **) = dlsym(lib, "C_GetFunctionList");
	keyd_list *list = NULL;
	if (!get || get(&list) != 0) return NULL;
	return list;
}

static const char *keyd_dlerror(void) { return dlerror(); }

// keyd_once begins an operation and ends it in one crossing. fn is the place of
// its C_...Init, which is followed by that of the one-part call.
static keyd_result keyd_once(keyd_list *l, int fn, ck session, ck type, void *iv, ck ivlen, ck key,
		void *in, ck inlen, void *out, ck outlen) {
	ck (*init)(ck, keyd_mech *, ck) = l->fn[fn];
	ck (*one)(ck, void *, ck, void *, ck *) = l->fn[fn + 1];
	keyd_mech m = { type, iv, ivlen };
	keyd_result r = { init(session, &m, key), 0, 0 };
	if (r.rv) return r;
	r.begun = 1;
	r.n = outlen;
	r.rv = one(session, in, inlen, out, &r.n);
	return r;
}

// keyd_begin begins an operation that stays open, and keyd_more puts a part
// through it. fn is the place of the C_...Init, which is followed by that of the
// one-part call and that of the next part.
static ck keyd_begin(keyd_list *l, int fn, ck session, ck type, void *iv, ck ivlen, ck key) {
	ck (*init)(ck, keyd_mech *, ck) = l->fn[fn];
	keyd_mech m = { type, iv, ivlen };
	return init(session, &m, key);
}

static keyd_result keyd_more(keyd_list *l, int fn, ck session, void *in, ck inlen, void *out, ck outlen) {
	ck (*update)(ck, void *, ck, void *, ck *) = l->fn[fn + 2];
	keyd_result r = { 0, outlen, 1 };
	r.rv = update(session, in, inlen, out, &r.n);
	return r;
}

static ck keyd_login(keyd_list *l, ck session, ck user, void *pin, ck len) {
	ck (*login)(ck, ck, void *, ck) = l->fn[LOGIN];
	return login(session, user, pin, len);
}

// keyd_scrub moves zeros as the library has moved len bytes: what a move of that
// length left in vector registers would else be saved with them when Go next
// interrupts the thread, and stay in memory.
static void keyd_scrub(ck len) {
	static void *(*volatile move)(void *, const void *, size_t) = memcpy;
	unsigned char from[128] = { 0 }, to[128];
	move(to, from, len < sizeof from ? len : sizeof from);
	move(to, from, 16);
	move(to, from, 32);
}

static ck keyd_random(keyd_list *l, ck session, void *p, ck len) {
	ck (*random)(ck, void *, ck) = l->fn[RANDOM];
	ck rv = random(session, p, len);
	keyd_scrub(len);
	return rv;
}

static keyd_result keyd_create(keyd_list *l, ck session, keyd_attr *attrs, ck count) {
	ck (*create)(ck, keyd_attr *, ck, ck *) = l->fn[CREATE_OBJECT];
	keyd_result r = { 0, 0, 0 };
	r.rv = create(session, attrs, count, &r.n);
	for (ck i = 0; i < count; i++)
		keyd_scrub(attrs[i].len);
	return r;
}

static keyd_result keyd_derive(keyd_list *l, ck session, ck type, void *data, ck len, ck base, keyd_attr *attrs, ck count) {
	ck (*derive)(ck, keyd_mech *, ck, keyd_attr *, ck, ck *) = l->fn[DERIVE_KEY];
	keyd_string s = { data, len };
	keyd_mech m = { type, &s, sizeof s };
	keyd_result r = { 0, 0, 0 };
	r.rv = derive(session, &m, base, attrs, count, &r.n);
	return r;
}

// keyd_reencipher unwraps a block under one key, wraps what came out under
// another, and destroys it: it exists for the length of this call only. begun
// is 1 when the object was left behind all the same.
static keyd_result keyd_reencipher(keyd_list *l, ck session, ck type, ck from, ck to, void *in, void *out, ck len) {
	ck (*unwrap)(ck, keyd_mech *, ck, void *, ck, keyd_attr *, ck, ck *) = l->fn[UNWRAP_KEY];
	ck (*wrap)(ck, keyd_mech *, ck, ck, void *, ck *) = l->fn[WRAP_KEY];
	ck (*destroy)(ck, ck) = l->fn[DESTROY_OBJECT];
	keyd_mech m = { type, NULL, 0 };
	ck class = 4, kind = 0x10; // CKO_SECRET_KEY; CKK_GENERIC_SECRET, since a DES type may change parity bits
	unsigned char yes = 1, no = 0;
	keyd_attr attrs[] = {
		{ 0x000, &class, sizeof class }, // CKA_CLASS
		{ 0x100, &kind, sizeof kind },   // CKA_KEY_TYPE
		{ 0x001, &no, 1 },  // CKA_TOKEN
		{ 0x002, &yes, 1 }, // CKA_PRIVATE
		{ 0x103, &yes, 1 }, // CKA_SENSITIVE
		{ 0x162, &yes, 1 }, // CKA_EXTRACTABLE, else it cannot be wrapped
		{ 0x104, &no, 1 },  // CKA_ENCRYPT
		{ 0x105, &no, 1 },  // CKA_DECRYPT
		{ 0x106, &no, 1 },  // CKA_WRAP
		{ 0x107, &no, 1 },  // CKA_UNWRAP
		{ 0x108, &no, 1 },  // CKA_SIGN
		{ 0x10A, &no, 1 },  // CKA_VERIFY
		{ 0x10C, &no, 1 },  // CKA_DERIVE
	};
	ck object = 0;
	keyd_result r = { unwrap(session, &m, from, in, len, attrs, sizeof attrs / sizeof *attrs, &object), 0, 0 };
	if (r.rv) return r;
	r.n = len;
	r.rv = wrap(session, &m, to, object, out, &r.n);
	ck rv = destroy(session, object);
	if (rv) {
		r.begun = 1;
		if (!r.rv) r.rv = rv;
	}
	return r;
}
*/
import "C"

import (
	"fmt"
	"runtime"
	"unsafe"

	"github.com/miekg/pkcs11"
)

// cryptoki is what this package asks of a module. Tests stand a failing one in
// front of the real one.
type cryptoki interface {
	Initialize(...pkcs11.InitializeOption) error
	Finalize() error
	GetInfo() (pkcs11.Info, error)
	GetSlotList(tokenPresent bool) ([]uint, error)
	GetTokenInfo(slot uint) (pkcs11.TokenInfo, error)
	OpenSession(slot uint, flags uint) (pkcs11.SessionHandle, error)
	CloseSession(pkcs11.SessionHandle) error
	GetSessionInfo(pkcs11.SessionHandle) (pkcs11.SessionInfo, error)
	FindObjectsInit(pkcs11.SessionHandle, []*pkcs11.Attribute) error
	FindObjects(s pkcs11.SessionHandle, most int) ([]pkcs11.ObjectHandle, bool, error)
	FindObjectsFinal(pkcs11.SessionHandle) error
	GetAttributeValue(pkcs11.SessionHandle, pkcs11.ObjectHandle, []*pkcs11.Attribute) ([]*pkcs11.Attribute, error)
	CopyObject(pkcs11.SessionHandle, pkcs11.ObjectHandle, []*pkcs11.Attribute) (pkcs11.ObjectHandle, error)
	DestroyObject(pkcs11.SessionHandle, pkcs11.ObjectHandle) error
	GenerateKey(pkcs11.SessionHandle, []*pkcs11.Mechanism, []*pkcs11.Attribute) (pkcs11.ObjectHandle, error)
	GenerateKeyPair(s pkcs11.SessionHandle, m []*pkcs11.Mechanism, public, private []*pkcs11.Attribute) (pkcs11.ObjectHandle, pkcs11.ObjectHandle, error)
	WrapKey(s pkcs11.SessionHandle, m []*pkcs11.Mechanism, by, key pkcs11.ObjectHandle) ([]byte, error)
	UnwrapKey(s pkcs11.SessionHandle, m []*pkcs11.Mechanism, by pkcs11.ObjectHandle, wrapped []byte, a []*pkcs11.Attribute) (pkcs11.ObjectHandle, error)
	InitToken(slot uint, pin, label string) error
	InitPIN(s pkcs11.SessionHandle, pin string) error

	// once does a one-part operation and returns the length of its output.
	// begun reports that an operation was begun and may still be open after an error.
	once(s pkcs11.SessionHandle, do operation, mech uint, iv []byte, key pkcs11.ObjectHandle, in, out []byte) (n int, begun bool, err error)
	// begin begins an operation that stays open in the session, and more puts a
	// part through it and returns the length of what came out.
	begin(s pkcs11.SessionHandle, do operation, mech uint, iv []byte, key pkcs11.ObjectHandle) error
	more(s pkcs11.SessionHandle, do operation, in, out []byte) (n int, err error)
	// keepOpen lets once go through operations that stay open for the keys used
	// most, at most so many.
	keepOpen(slot uint, most int)
	// login logs the user in. pin may be nil.
	login(s pkcs11.SessionHandle, user uint, pin []byte) error
	// random fills p from the token's generator.
	random(s pkcs11.SessionHandle, p []byte) error
	// create makes an object of attrs and, unless it is nil, CKA_VALUE.
	create(s pkcs11.SessionHandle, attrs []*pkcs11.Attribute, value []byte) (pkcs11.ObjectHandle, error)
	// derive makes an object of attrs whose value is ECB(base, data).
	derive(s pkcs11.SessionHandle, mech uint, base pkcs11.ObjectHandle, data []byte, attrs []*pkcs11.Attribute) (pkcs11.ObjectHandle, error)
	// reencipher unwraps in under one key into a secret object, wraps that under
	// another into out, which is as long, and destroys it. left reports that it
	// could not be destroyed: then the session must end.
	reencipher(s pkcs11.SessionHandle, mech uint, from, to pkcs11.ObjectHandle, in, out []byte) (n int, left bool, err error)
}

// operation is a one-part operation; its value is the place of its C_...Init
// in the function list.
type operation int

const (
	encrypting operation = C.ENCRYPT
	decrypting operation = C.DECRYPT
	signing    operation = C.SIGN
)

// native is a loaded module. It adds to the wrapper the calls through which
// secrets pass, so that these stay in Go memory, where they can be cleared:
// the wrapper leaves copies of PINs, key values and decrypted blocks behind on
// the C heap. It also makes an operation one crossing instead of two, and has
// the parameter of the derivation mechanisms, which the wrapper lacks.
type native struct {
	*pkcs11.Ctx
	list     *C.keyd_list
	standing standing
}

// load loads the module at path. The library stays loaded for the life of the
// process: some cannot be unloaded safely.
func load(path string) (cryptoki, error) {
	cpath := C.CString(path)
	defer C.free(unsafe.Pointer(cpath))
	// dlerror is per thread.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	list := C.keyd_open(cpath)
	if list == nil {
		why := "it is not a PKCS#11 module"
		if text := C.keyd_dlerror(); text != nil {
			why = C.GoString(text)
		}
		return nil, fmt.Errorf("%w: %s", ErrModule, why)
	}
	ctx := pkcs11.New(path)
	if ctx == nil {
		return nil, fmt.Errorf("%w: %s", ErrModule, path)
	}
	return &native{Ctx: ctx, list: list}, nil
}

// nothing stands for data of length zero, which modules refuse as a null pointer.
var nothing [1]byte

func pointer(p []byte) unsafe.Pointer {
	if len(p) == 0 {
		return unsafe.Pointer(&nothing[0])
	}
	return unsafe.Pointer(&p[0])
}

func (m *native) once(s pkcs11.SessionHandle, do operation, mech uint, iv []byte, key pkcs11.ObjectHandle, in, out []byte) (int, bool, error) {
	if n, ok := m.standing.through(m, standingKey{do, mech, key}, iv, in, out); ok {
		return n, true, nil
	}
	r := C.keyd_once(m.list, C.int(do), C.ck(s), C.ck(mech), unsafe.Pointer(unsafe.SliceData(iv)), C.ck(len(iv)), C.ck(key),
		pointer(in), C.ck(len(in)), pointer(out), C.ck(len(out)))
	if r.rv != 0 {
		return 0, r.begun != 0, pkcs11.Error(r.rv)
	}
	return int(r.n), true, nil
}

func (m *native) begin(s pkcs11.SessionHandle, do operation, mech uint, iv []byte, key pkcs11.ObjectHandle) error {
	return result(C.keyd_begin(m.list, C.int(do), C.ck(s), C.ck(mech), unsafe.Pointer(unsafe.SliceData(iv)), C.ck(len(iv)), C.ck(key)))
}

func (m *native) more(s pkcs11.SessionHandle, do operation, in, out []byte) (int, error) {
	r := C.keyd_more(m.list, C.int(do), C.ck(s), pointer(in), C.ck(len(in)), pointer(out), C.ck(len(out)))
	return int(r.n), result(r.rv)
}

func (m *native) login(s pkcs11.SessionHandle, user uint, pin []byte) error {
	return result(C.keyd_login(m.list, C.ck(s), C.ck(user), unsafe.Pointer(unsafe.SliceData(pin)), C.ck(len(pin))))
}

func (m *native) random(s pkcs11.SessionHandle, p []byte) error {
	if len(p) == 0 {
		return nil
	}
	return result(C.keyd_random(m.list, C.ck(s), pointer(p), C.ck(len(p))))
}

func (m *native) create(s pkcs11.SessionHandle, attrs []*pkcs11.Attribute, value []byte) (pkcs11.ObjectHandle, error) {
	var pins runtime.Pinner
	defer pins.Unpin()
	list := template(&pins, attrs)
	if value != nil {
		pins.Pin(&value[0])
		list = append(list, C.keyd_attr{pkcs11.CKA_VALUE, unsafe.Pointer(&value[0]), C.ck(len(value))})
	}
	r := C.keyd_create(m.list, C.ck(s), &list[0], C.ck(len(list)))
	return pkcs11.ObjectHandle(r.n), result(r.rv)
}

func (m *native) derive(s pkcs11.SessionHandle, mech uint, base pkcs11.ObjectHandle, data []byte, attrs []*pkcs11.Attribute) (pkcs11.ObjectHandle, error) {
	var pins runtime.Pinner
	defer pins.Unpin()
	list := template(&pins, attrs)
	r := C.keyd_derive(m.list, C.ck(s), C.ck(mech), pointer(data), C.ck(len(data)), C.ck(base), &list[0], C.ck(len(list)))
	return pkcs11.ObjectHandle(r.n), result(r.rv)
}

func (m *native) reencipher(s pkcs11.SessionHandle, mech uint, from, to pkcs11.ObjectHandle, in, out []byte) (int, bool, error) {
	if len(in) != len(out) {
		return 0, false, fmt.Errorf("hsm: re-encipher: %d bytes into %d", len(in), len(out))
	}
	r := C.keyd_reencipher(m.list, C.ck(s), C.ck(mech), C.ck(from), C.ck(to), pointer(in), pointer(out), C.ck(len(in)))
	return int(r.n), r.begun != 0, result(r.rv)
}

// template puts attrs in the form of C. It pins their values, because it stores
// pointers to them where C finds them.
func template(pins *runtime.Pinner, attrs []*pkcs11.Attribute) []C.keyd_attr {
	list := make([]C.keyd_attr, 0, len(attrs)+1)
	for _, a := range attrs {
		if len(a.Value) > 0 {
			pins.Pin(&a.Value[0])
		}
		list = append(list, C.keyd_attr{C.ck(a.Type), unsafe.Pointer(unsafe.SliceData(a.Value)), C.ck(len(a.Value))})
	}
	return list
}

// reserved keeps text in C memory for C_Initialize, as NSS wants it. It is
// never freed: the module may look at it again.
func reserved(text string) pkcs11.InitializeOption {
	return pkcs11.InitializeWithReserved(unsafe.Pointer(C.CString(text)))
}

func result(rv C.ck) error {
	if rv == 0 {
		return nil
	}
	return pkcs11.Error(rv)
}
