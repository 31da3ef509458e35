// Package api is the network interface of keyd: one HTTP handler for the data
// plane and the control plane, API-compatible with AWS Payment Cryptography
// (subset), for callers that a client certificate names.
//
// A request goes through the same steps in the same order (section 5 of the
// API): the certificate's principal, the route, the body's size and shape, then
// package custody, which authorises, finds the key, does the work and records
// it. What custody refuses becomes an HTTP error in one place, [faultOf]. No
// value of a request appears in an error but the name of a key or alias.
//
// Bodies are read by a strict parser of our own: names match in their exact
// case, a name may not occur twice, and depth and size have limits, none of
// which encoding/json gives.
//
// Not affiliated with, endorsed or sponsored by Amazon. AWS and AWS Payment
// Cryptography are trademarks of Amazon.com, Inc. or its affiliates.
package api
