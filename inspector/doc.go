// Package inspector turns SCEP bytes into facts, and nothing else.
//
// It opens what a device sent (the query, the outer SignedData, the
// EnvelopedData, the PKCS#10) and what NDES answers (CertRep, GetCACert,
// GetCACaps), and makes the two messages the project needs to send itself: a
// signed FAILURE and a client's PKIMessage.
//
// It trusts nothing it is given: every byte is walked by a bounded reader
// before any library sees it, every structure must have the exact profile of
// RFC 8894, and what is not understood is an error or a fact that the gate can
// refuse. It is pure: no I/O, no log, no clock, no policy. Policy (which
// digest, which cipher, which names) belongs to package gate.
//
// The way through it, in the order of cost:
//
//	ParseQuery → ParseMessage → Opener.Open → (gate decides) → ParseCertRep
package inspector
