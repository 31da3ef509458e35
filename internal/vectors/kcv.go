package vectors

import (
	"bytes"
	"testing"

	"keyd.dev/keyd/internal/secret"
	"keyd.dev/keyd/keys"
)

// kcvCase is a case of kcv.json.
type kcvCase struct {
	ID, Kind, Algorithm string
	Key                 hexBytes
	Zeros3              hexBytes `json:"kcv_legacy_3"`
	Zeros2              hexBytes `json:"kcv_legacy_2"`
	CMAC5               hexBytes `json:"kcv_cmac_5"`
	CMAC3               hexBytes `json:"kcv_cmac_3"`
	ParityOdd           *bool    `json:"parity_odd"`
	ParityAdjusted      hexBytes `json:"key_parity_adjusted"`
	Components          []struct {
		Component hexBytes
		Zeros3    hexBytes `json:"kcv_legacy_3"`
		CMAC5     hexBytes `json:"kcv_cmac_5"`
	}
}

// KCV runs kcv.json: check values of keys of the factory and of clear values,
// components and parity.
func KCV(t *testing.T, f Factory) Tally {
	return each(t, "kcv", f, func(t *testing.T, f Factory, c *kcvCase) {
		var parts []secret.Bytes
		for _, p := range c.Components {
			parts = append(parts, secret.From(bytes.Clone(p.Component)))
		}
		switch c.Kind {
		case "kcv":
			kcvOfKey(t, f, c)
		case "combine":
			key := must[secret.Bytes](t)(keys.Combine(blockAlgorithms[c.Algorithm], parts...))
			same(t, "combined key", key.Reveal(), c.Key)
			kcvOfKey(t, f, c)
			for _, p := range c.Components {
				checkZeros3(t, f, c.Algorithm, p.Component, p.Zeros3)
				five := must[[5]byte](t)(keys.CheckCMAC5(blockKey(t, f, c.Algorithm, p.Component)))
				same(t, "component, CMAC of five bytes", five[:], p.CMAC5)
			}
		case "malformed":
			for _, a := range keys.Algorithms() {
				if _, err := keys.Combine(a, parts...); err == nil {
					t.Errorf("the components make a %s key", a)
				}
			}
		default:
			t.Fatalf("unknown kind %q", c.Kind)
		}
	})
}

func kcvOfKey(t *testing.T, f Factory, c *kcvCase) {
	t.Helper()
	a := blockAlgorithms[c.Algorithm]
	k := blockKey(t, f, c.Algorithm, c.Key)
	checkZeros3(t, f, c.Algorithm, c.Key, c.Zeros3)
	four := must[[4]byte](t)(keys.CheckUnionPay(k))
	same(t, "UnionPay, first three", four[:3], c.Zeros3)
	same(t, "zeros, first two", four[:2], c.Zeros2)
	three := must[keys.KCV](t)(keys.CheckCMAC(k))
	same(t, "CMAC of three bytes", three[:], c.CMAC3)
	clearThree := must[keys.KCV](t)(keys.CheckClear(a, keys.CheckByCMAC, c.Key))
	same(t, "CMAC of three bytes, clear", clearThree[:], c.CMAC3)
	five := must[[5]byte](t)(keys.CheckCMAC5(k))
	same(t, "CMAC of five bytes", five[:], c.CMAC5)
	if c.ParityOdd == nil {
		return
	}
	if keys.OddParity(c.Key) != *c.ParityOdd {
		t.Errorf("odd parity: %t, want %t", !*c.ParityOdd, *c.ParityOdd)
	}
	adjusted := bytes.Clone(c.Key)
	keys.AdjustParity(adjusted)
	same(t, "adjusted key", adjusted, c.ParityAdjusted)
	checkZeros3(t, f, c.Algorithm, adjusted, c.Zeros3)
}

func checkZeros3(t *testing.T, f Factory, cipher string, value, want []byte) {
	t.Helper()
	v := must[keys.KCV](t)(keys.CheckZeros(blockKey(t, f, cipher, value)))
	same(t, "zeros", v[:], want)
	v = must[keys.KCV](t)(keys.CheckClear(blockAlgorithms[cipher], keys.CheckByZeros, value))
	same(t, "zeros, clear", v[:], want)
}
