// Package interop proves that strictness locks no real device out: real SCEP
// clients, the message shapes of clients that cannot run here, and other SCEP
// servers, all through the real gateway binary. It is tests only; it trusts
// the simulator's issue log for what reached the CA and the gateway's log for
// what the operator saw.
package interop
