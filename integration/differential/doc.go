// Package differential is a second reader of what devices send, against which
// the inspector is held: whatever the inspector accepts must mean the same here.
//
// It is written from RFC 2986, 5280, 5652 and 8894 over encoding/asn1 alone: it
// shares no line with package inspector and does not use crypto/x509, whose
// shortcuts both would then have in common. It has no policy and hardly a limit.
// It refuses what is not DER and what would leave a fact with two values, and
// keeps all else as facts. It trusts nothing that it is given, but it is a
// measure for tests and stands in no request's way.
//
// DecodeRequest reads a PKCS#10, DecodeMessage a pkiMessage, Envelope what the
// message carries. encoding/asn1 has no indefinite lengths, so both messages
// must be DER; a BER message is held against its DER twin by the tests.
//
// The tests change honest requests and messages below every element, sign them
// again, and compare what both readers say of those that the inspector accepts;
// OpenSSL reads some of them as a third. A run says its seed; the whole of it is
//
//	go test ./integration/differential -v -mutations 100000 -openssl 1000 -seed 1
package differential
