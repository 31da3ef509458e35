// Package audit is an append-only, tamper-evident log of what a node did.
//
// Records are encoded by a closed, typed encoder, made durable in a write-ahead
// log before [Ticket.Append] returns, and then laid out by a background
// integrator as Merkle trees in the C2SP tlog-tiles format. Once a second each
// tree that grew is signed as a checkpoint (a signed note) with the key that
// stands behind a [crypto.Signer].
//
// # What the log proves
//
// To whoever holds a vkey and a copy of the directory:
//
//   - each record under a checkpoint is byte for byte what was logged, at that
//     position;
//   - a later checkpoint extends an earlier one;
//   - nothing between two positions is missing;
//   - with a witness, or any party that kept an earlier checkpoint, nobody was
//     shown a different history.
//
// # What it does not prove
//
//   - An attacker with root on the node can rewrite the part that is not yet
//     signed (normally one second at most) and can stop the log.
//   - The log proves what the node chose to write, not that it wrote everything:
//     reconcile it with the HSM's own log, the switch's journal and the copies
//     that left the node.
//   - Whoever can use the checkpoint key can sign a second history, visible only
//     to a party that kept an earlier checkpoint.
//   - Time stamps are the node's claim.
//   - Storage that acknowledges a flush it did not do breaks durability.
//   - Damage confined to the very last durable batch, before any checkpoint
//     covered it and with nothing after it, cannot be told from a torn tail.
//
// No field can hold a PIN, a PIN block, a key, a component, track data or a
// full PAN; a scanner stands behind the types.
package audit
