package sim

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"keyd.dev/keyd/internal/iso8583"
)

// Kinds of zone keys, as a script names them.
const (
	zonePIN = "pin"
	zoneMAC = "mac"
)

// keyring are the issuer's zone keys: those in use, those of before, for what is
// in flight, and those that were offered and not yet taken. It is safe for
// concurrent use.
type keyring struct {
	path string // of the file; "" keeps them in memory

	how Sealing

	mu      sync.Mutex
	values  zoneValues
	now     zone
	old     *zone
	offered []offered // the newest last
}

// offered is a key that was sent to the switch. Whether the switch took it is
// known by its answer, or by what it makes with it.
type offered struct {
	values zoneValues
	zone   zone
}

// mostOffered is how many that were not answered are kept.
const mostOffered = 8

// zoneValues are the keys on file: published test keys, or those that the issuer
// made for a trial.
type zoneValues struct {
	PIN    string `json:"pin"`
	MAC    string `json:"mac"`
	Number uint64 `json:"number"` // of the last change
}

// newKeyring begins with the keys on file, else with those given.
func newKeyring(path, pinKey, macKey string, how Sealing) (*keyring, error) {
	k := &keyring{path: path, how: how, values: zoneValues{PIN: pinKey, MAC: macKey}}
	if path != "" {
		raw, err := os.ReadFile(path)
		if err == nil {
			err = json.Unmarshal(raw, &k.values)
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("sim: issuer's keys %s: %w", path, err)
		}
	}
	var err error
	k.now, err = k.values.zone(how)
	return k, err
}

func (v zoneValues) zone(how Sealing) (zone, error) {
	pinKey, err := unhex("the zone PIN key", v.PIN)
	if err != nil {
		return zone{}, err
	}
	macKey, err := unhex("the zone MAC key", v.MAC)
	if err != nil {
		return zone{}, err
	}
	return newZone(pinKey, macKey, how)
}

// with are the values with another key.
func (v zoneValues) with(kind string, key []byte, number uint64) zoneValues {
	if v.Number = number; kind == zonePIN {
		v.PIN = hex.EncodeToString(key)
	} else {
		v.MAC = hex.EncodeToString(key)
	}
	return v
}

// all are the zones under which a message may have come, the likeliest first.
func (k *keyring) all() []zone {
	k.mu.Lock()
	defer k.mu.Unlock()
	zones := []zone{k.now}
	for _, o := range slices.Backward(k.offered) {
		zones = append(zones, o.zone)
	}
	if k.old != nil {
		zones = append(zones, *k.old)
	}
	return zones
}

func (k *keyring) current() zone {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.now
}

func (k *keyring) genuine(m *iso8583.Message) bool {
	for _, z := range k.all() {
		if z.genuine(m) {
			return true
		}
	}
	return false
}

// genuineRequest is genuine for a request of the switch. One that it could make
// only with a key on offer shows that it has this key, also where its answer was
// lost: the key is adopted.
func (k *keyring) genuineRequest(m *iso8583.Message) (ok bool, err error) {
	if !k.genuine(m) {
		return false, nil
	}
	err = k.taken(func(z zone) bool { return z.genuine(m) })
	if err == nil && m.Has(52) {
		err = k.taken(func(z zone) bool { _, ok := z.pinFits(m); return ok })
	}
	return true, err
}

// taken adopts the key on offer under which something fits that does under no key
// in use, nor under the last one, of which a message may be in flight.
func (k *keyring) taken(fits func(zone) bool) error {
	k.mu.Lock()
	offers := slices.Clone(k.offered)
	known := fits(k.now) || k.old != nil && fits(*k.old)
	number := k.values.Number
	k.mu.Unlock()
	if known {
		return nil
	}
	for _, o := range slices.Backward(offers) {
		if o.values.Number > number && fits(o.zone) {
			return k.adopt(o.values)
		}
	}
	return nil
}

func (k *keyring) pinFits(m *iso8583.Message) (digest [sha256.Size]byte, ok bool) {
	for _, z := range k.all() {
		if digest, ok = z.pinFits(m); ok {
			break
		}
	}
	return digest, ok
}

// offer makes a key one under which messages may come, and returns the zone with it.
func (k *keyring) offer(kind string, key []byte, number uint64) (zoneValues, zone, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	values := k.values.with(kind, key, number)
	z, err := values.zone(k.how)
	if err != nil {
		return values, zone{}, err
	}
	k.offered = slices.DeleteFunc(k.offered, func(o offered) bool { return o.values == values })
	k.offered = append(k.offered, offered{values, z})
	k.offered = k.offered[max(0, len(k.offered)-mostOffered):]
	return values, z, nil
}

// adopt puts what was offered into use, once the switch has shown that it has it.
func (k *keyring) adopt(values zoneValues) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if values == k.values {
		return nil // it was adopted before
	}
	at := slices.IndexFunc(k.offered, func(o offered) bool { return o.values == values })
	if at < 0 {
		return errors.New("sim: a key that was not offered cannot be adopted")
	}
	old := k.now
	k.old, k.now, k.offered, k.values = &old, k.offered[at].zone, nil, values
	if k.path == "" {
		return nil
	}
	raw, err := json.Marshal(values)
	if err != nil {
		return err
	}
	return replaceFile(k.path, raw)
}

// replaceFile puts a file in the place of another: after a crash there is the one
// or the other, whole.
func replaceFile(path string, raw []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	_, err = f.Write(raw)
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// number of the last change that the switch took.
func (k *keyring) number() uint64 {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.values.Number
}
