// Package arch holds no code: its test enforces which package may import which.
package arch
