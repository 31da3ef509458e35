package keys

// GF multiplies and inverts in the field of the shares.
func GF(a, b byte) (product, inverse byte) { return gfMul(a, b), gfInverse(a) }

// Interpolate gives the polynomials' values at x.
var Interpolate = interpolate
