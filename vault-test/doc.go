// Command vault-test is a Vault server for keyd's own tests: the core of
// HashiCorp Vault 1.14.1, the last line under MPL-2.0 that builds, behind a TLS
// listener on loopback, with the engines that keyd speaks to. It is a module of
// its own so that neither keyd's go.mod nor its releases ever see it, and it is
// left out of the software bill of materials and of the vulnerability gate for
// that reason: it is old on purpose, and nothing of it is shipped.
//
//	vault-test -dir DIR [-listen ADDR]
//
// It keeps its storage and its TLS certificate in DIR, so that it can be ended
// and started again, writes DIR/vault.json, {"address","ca"}, once it answers,
// and ends when its standard input does. It initialises and unseals nothing:
// its users do, by the real HTTP API.
package main
