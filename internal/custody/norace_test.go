//go:build !race

package custody_test

// mostSets is how many fields 62 TestA19T1 opens.
const mostSets = 10_000
