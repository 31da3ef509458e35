// Package profile is what keyd knows of a kind of terminals: the dialect that
// they speak, how their MACs are made, what they are answered, what they may
// reverse. A profile is a TOML file. The two that keyd brings, ascii87 and
// unionpay, are such files too and are read by the same code, so that a file of a
// user's own has the same powers.
//
// A profile that leaves a message of class 1, 2 or 4 without a MAC, or lets it
// come without, cannot be loaded (M-06, A-07). All that is wrong with a file is
// said at once, each with file, line and key.
//
// The package holds no keys, opens no connections and takes no decisions.
package profile
