// Package sim has the two ends of a switch link for trials: an issuer behind
// keyd and POS terminals before it. Both hold their keys in the clear, as
// published test keys may be, and both speak the dialect as it is written, not
// as keyd's switch core implements it: they share with it the codec alone.
package sim
