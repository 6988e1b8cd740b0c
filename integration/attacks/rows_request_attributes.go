package main

import (
	"bytes"
	"crypto"
	"slices"
	"strings"

	"github.com/scepgate/scepgate/integration/wire"
)

// longest is a challenge of as many characters as are accepted.
var longest = canary + strings.Repeat("A", 8192-len(canary))

// rowsChallengeAttribute: C10–C13.
func rowsChallengeAttribute() []vector {
	other := wire.Printable(canary + "-somebody-else")
	malformed := func(row string) vector { return vector{row: row, want: rej, reason: "malformed_request"} }
	challenges := func(values func(t *try, own []byte) [][]byte) func(*try, *wire.Request) {
		return func(t *try, r *wire.Request) {
			r.Challenge = nil
			attributesAsGiven(r, slices.Concat(values(t, wire.Printable(t.Challenge)), r.AllAttributes())...)
		}
	}
	all := table(malformed("C10"), csr, []changed[wire.Request]{
		{"two challengePasswords: the registered one first", challenges(func(_ *try, own []byte) [][]byte {
			return [][]byte{wire.ChallengePassword(own), wire.ChallengePassword(other)}
		})},
		{"two challengePasswords: the registered one last", challenges(func(_ *try, own []byte) [][]byte {
			return [][]byte{wire.ChallengePassword(other), wire.ChallengePassword(own)}
		})},
		{"the registered challengePassword twice", challenges(func(_ *try, own []byte) [][]byte {
			return [][]byte{wire.ChallengePassword(own), wire.ChallengePassword(own)}
		})},
	})
	all = append(all, table(malformed("C11"), csr, []changed[wire.Request]{
		{"two values in one challengePassword: the registered one first", challenges(func(_ *try, own []byte) [][]byte {
			return [][]byte{wire.ChallengePassword(own, other)}
		})},
		{"two values in one challengePassword: the registered one last", challenges(func(_ *try, own []byte) [][]byte {
			return [][]byte{wire.ChallengePassword(other, own)}
		})},
		{"no value in the challengePassword", challenges(func(*try, []byte) [][]byte { return [][]byte{wire.ChallengePassword()} })},
	})...)
	as := func(value func(challenge string) []byte) func(*try, *wire.Request) {
		return func(t *try, r *wire.Request) { r.Challenge = [][]byte{wire.ChallengePassword(value(t.Challenge))} }
	}
	all = append(all, vector{row: "C12", variant: "challenge as UTF8String", want: forwarded, reason: "ok", message: csr(as(wire.UTF8))})
	all = append(all, table(malformed("C12"), csr, []changed[wire.Request]{
		{"challenge as BMPString", as(wire.BMP)},
		{"challenge as BMPString with a trailing NUL", as(func(c string) []byte { return wire.BMP(c + "\x00") })},
		{"challenge as TeletexString", as(wire.T61)},
		{"challenge as TeletexString with text behind a NUL", as(func(c string) []byte { return wire.T61(c + "\x00x") })},
		{"challenge as IA5String", as(wire.IA5)},
		{"challenge as UniversalString", as(wire.Universal)},
		{"challenge as OCTET STRING", as(func(c string) []byte { return wire.Octets([]byte(c)) })},
		{"challenge as SEQUENCE of a PrintableString", as(func(c string) []byte { return wire.Sequence(wire.Printable(c)) })},
		{"challenge as UTF8String with a control character", as(func(c string) []byte { return wire.UTF8(c + "\n") })},
		{"challenge as UTF8String with a letter beyond ASCII", as(func(c string) []byte { return wire.UTF8(c + "é") })},
		{"challenge as PrintableString with a character it does not have", as(func(c string) []byte { return wire.Printable(c + "*") })},
		// Contract §4.1: 8 to 8192 characters, where the catalogue has 128.
		{"challenge of 8193 characters", as(func(string) []byte { return wire.Printable(longest + "A") })},
	})...)
	all = append(all, vector{row: "C12", variant: "challenge of 8192 characters, as registered", want: forwarded, reason: "ok",
		expect:  map[string]any{"challenge": longest},
		message: csr(as(func(string) []byte { return wire.Printable(longest) }))})
	unknown := vector{row: "C13", want: rej, reason: "challenge_unknown"}
	return append(all, table(unknown, csr, []changed[wire.Request]{
		{"challenge with a space behind it", as(func(c string) []byte { return wire.Printable(c + " ") })},
		{"challenge with a space before it", as(func(c string) []byte { return wire.Printable(" " + c) })},
		{"challenge in lower case", as(func(c string) []byte { return wire.Printable(strings.ToLower(c)) })},
		{"challenge without its last character", as(func(c string) []byte { return wire.Printable(c[:len(c)-1]) })},
	})...)
}

// What Windows adds to a request, well-formed.
func osVersion(text string) []byte { return wire.Attribute(wire.OIDMSOSVersion, wire.IA5(text)) }
func enrollmentCSP(name []byte) []byte {
	return wire.Attribute(wire.OIDMSEnrollmentCSP, wire.Sequence(wire.Int(1), name, wire.Bits(nil)))
}
func clientInfo(process []byte) []byte {
	return wire.Attribute(wire.OIDMSRequestClientInfo, wire.Sequence(wire.Int(5), wire.UTF8("dev.example"), wire.UTF8(`EXAMPLE\dev`), process))
}

// rowsAttributes: C14–C16, the attributes field and the version.
func rowsAttributes() []vector {
	add := func(attributes ...[]byte) func(*try, *wire.Request) {
		return func(_ *try, r *wire.Request) { r.Attributes = append(r.Attributes, attributes...) }
	}
	all := []vector{{row: "C14", variant: "the three attributes that Windows adds", want: forwarded, reason: "ok",
		message: csr(add(osVersion("10.0.22631.2"), enrollmentCSP(wire.BMP("Microsoft Software Key Storage Provider")), clientInfo(wire.UTF8("taskhostw.exe"))))}}
	all = append(all, table(vector{row: "C14", want: rej, reason: "unexpected_attribute", finding: "attribute"}, csr, []changed[wire.Request]{
		{"an attribute that nobody knows", add(wire.Attribute("1.3.6.1.4.1.99999.1", wire.UTF8("x")))},
		{"unstructuredName as an attribute", add(wire.Attribute(wire.OIDUnstructuredName, wire.UTF8("administrator")))},
		{"unstructuredAddress as an attribute", add(wire.Attribute(wire.OIDUnstructuredAddress, wire.UTF8("10.0.0.1")))},
		{"an e-mail address as an attribute", add(wire.Attribute(wire.OIDEmailAddress, wire.IA5("ann@example.com")))},
		{"a second key usage as an attribute of its own", add(wire.Attribute(wire.OIDKeyUsage, wire.TLV(3, []byte{1, 6})))},
	})...)
	field := func(write func(attributes []byte) []byte) func(*try, *wire.Request) {
		return func(_ *try, r *wire.Request) { r.AttributesField = write(bytes.Join(r.AllAttributes(), nil)) }
	}
	all = append(all, table(vector{row: "C15", want: rej, reason: "malformed_request"}, csr, []changed[wire.Request]{
		{"the attributes are absent", field(func([]byte) []byte { return []byte{} })},
		{"the attributes are primitive, tag 80", field(func(a []byte) []byte { return wire.Implicit(0, a) })},
		{"the attributes are a SET, tag 31", field(func(a []byte) []byte { return wire.Set(a) })},
		{"the attributes have tag A1", field(func(a []byte) []byte { return wire.Explicit(1, a) })},
		{"the attributes are a SET inside of [0]", field(func(a []byte) []byte { return wire.Explicit(0, wire.Set(a)) })},
		{"the attributes are there twice", field(func(a []byte) []byte { return append(wire.Explicit(0, a), wire.Explicit(0, a)...) })},
	})...)
	all = append(all, vector{row: "C15", variant: "the attributes are there and empty", want: rej, reason: "challenge_missing",
		message: csr(field(func([]byte) []byte { return wire.Explicit(0) }))})

	// Contract over catalogue: Apple sends version 2, so 0 to 2 pass.
	version := func(v []byte) func(*try, *wire.Request) {
		return func(_ *try, r *wire.Request) { r.Version = v }
	}
	all = append(all, table(vector{row: "C16", want: forwarded, reason: "ok"}, csr, []changed[wire.Request]{
		{"PKCS#10 version 1", version(wire.Int(1))}, {"PKCS#10 version 2, as Apple sends it", version(wire.Int(2))},
	})...)
	return append(all, table(vector{row: "C16", want: rej, reason: "malformed_request"}, csr, []changed[wire.Request]{
		{"PKCS#10 version 3", version(wire.Int(3))}, {"PKCS#10 version 5", version(wire.Int(5))},
		{"PKCS#10 version −1", version(wire.Int(-1))}, {"PKCS#10 version 2³²", version(wire.Int(1 << 32))},
		{"PKCS#10 version as ENUMERATED", version(wire.TLV(0x0a, []byte{0}))}, {"PKCS#10 without a version", version([]byte{})},
		{"PKCS#10 version 0 in two octets", version(wire.TLV(0x02, []byte{0, 0}))},
	})...)
}

// rowsRequestSignature: C17 and C18, proof of possession.
func rowsRequestSignature() []vector {
	algorithm := func(a []byte) func(*try, *wire.Request) {
		return func(_ *try, r *wire.Request) { r.SignatureAlgorithm = a }
	}
	sha256WithRSA := wire.OID(wire.OIDSHA256WithRSA)
	all := table(vector{row: "C17", want: rej, reason: "malformed_request"}, csr, []changed[wire.Request]{
		{"one bit of the PKCS#10's signature flipped", func(_ *try, r *wire.Request) {
			r.Sign = func(info []byte) []byte { s := wire.SignRSA(r.Key, crypto.SHA256, info); s[100] ^= 1; return s }
		}},
		{"PKCS#10 signed over other bytes", func(_ *try, r *wire.Request) {
			r.Sign = func(info []byte) []byte { return wire.SignRSA(r.Key, crypto.SHA256, append(info, 0)) }
		}},
		{"PKCS#10 signed by another key", func(t *try, r *wire.Request) {
			r.Sign = func(info []byte) []byte { return wire.SignRSA(t.other().Key, crypto.SHA256, info) }
		}},
		{"PKCS#10 signed with another digest than it names", func(_ *try, r *wire.Request) {
			r.Sign = func(info []byte) []byte { return wire.SignRSA(r.Key, crypto.SHA512, info) }
		}},
		{"PKCS#10 signature empty", func(_ *try, r *wire.Request) { r.Sign = func([]byte) []byte { return nil } }},
		{"PKCS#10 signature with unused bits", func(_ *try, r *wire.Request) {
			r.SignatureField = wire.TLV(3, []byte{1}, wire.Random(255), []byte{0})
		}},
		{"PKCS#10 signature as OCTET STRING", func(_ *try, r *wire.Request) { r.SignatureField = wire.Octets(wire.Random(256)) }},
	})
	all = append(all, table(vector{row: "C17", want: rej, reason: "algorithm_refused"}, csr, []changed[wire.Request]{
		{"PKCS#10 signature algorithm that nobody knows", algorithm(wire.Algorithm("1.3.6.1.4.1.99999.2"))},
		{"PKCS#10 signed with MD5", func(_ *try, r *wire.Request) {
			r.SignatureAlgorithm = wire.Algorithm(wire.OIDMD5WithRSA)
			r.Sign = func(info []byte) []byte { return wire.SignRSA(r.Key, crypto.MD5, info) }
		}},
	})...)
	all = append(all, vector{row: "C17", variant: "public key of an algorithm that nobody knows", want: rej, reason: "key_refused",
		message: csr(func(_ *try, r *wire.Request) {
			r.SPKI = wire.Sequence(wire.Sequence(wire.OID("1.3.6.1.4.1.99999.3"), wire.Null()), wire.Bits(wire.Random(270)))
		})})
	all = append(all, table(vector{row: "C18", want: rej, reason: "malformed_request"}, csr, []changed[wire.Request]{
		{"signature algorithm without NULL", algorithm(wire.Sequence(sha256WithRSA))},
		{"signature algorithm with two NULLs", algorithm(wire.Sequence(sha256WithRSA, wire.Null(), wire.Null()))},
		{"signature algorithm with an INTEGER", algorithm(wire.Sequence(sha256WithRSA, wire.Int(1)))},
		{"signature algorithm with an empty SEQUENCE", algorithm(wire.Sequence(sha256WithRSA, wire.Sequence()))},
		{"signature algorithm whose NULL has content", algorithm(wire.Sequence(sha256WithRSA, []byte{5, 1, 0}))},
	})...)
	pss := func(parameters []byte) func(*try, *wire.Request) {
		return func(_ *try, r *wire.Request) {
			r.SignatureAlgorithm = wire.Sequence(wire.OID(wire.OIDRSASSAPSS), parameters)
			r.Sign = func(info []byte) []byte { return signPSS(r.Key, info) }
		}
	}
	sha256 := wire.Explicit(0, wire.Algorithm(wire.OIDSHA256))
	mgf := func(digest string) []byte {
		return wire.Explicit(1, wire.Sequence(wire.OID(wire.OIDMGF1), wire.Algorithm(digest)))
	}
	all = append(all, table(vector{row: "C18", want: rej, reason: "algorithm_refused"}, csr, []changed[wire.Request]{
		{"PSS with SHA-256", pss(wire.Sequence(sha256, mgf(wire.OIDSHA256), wire.Explicit(2, wire.Int(32))))},
		{"PSS with SHA-256 and a mask of SHA-1", pss(wire.Sequence(sha256, mgf(wire.OIDSHA1), wire.Explicit(2, wire.Int(32))))},
		{"PSS with a salt of 0", pss(wire.Sequence(sha256, mgf(wire.OIDSHA256), wire.Explicit(2, wire.Int(0))))},
		{"PSS without parameters", pss(wire.Sequence())},
	})...)
	spki := func(algorithm []byte) func(*try, *wire.Request) {
		return func(_ *try, r *wire.Request) {
			r.SPKI = wire.Sequence(algorithm, wire.Elements(wire.Value(wire.PublicKey(&r.Key.PublicKey)))[1])
		}
	}
	return append(all, table(vector{row: "C18", want: rej, reason: "key_refused"}, csr, []changed[wire.Request]{
		{"RSA key without NULL", spki(wire.Sequence(wire.OID(wire.OIDRSAEncryption)))},
		{"RSA key with two NULLs", spki(wire.Sequence(wire.OID(wire.OIDRSAEncryption), wire.Null(), wire.Null()))},
		{"RSA key with an INTEGER in place of NULL", spki(wire.Sequence(wire.OID(wire.OIDRSAEncryption), wire.Int(0)))},
		{"RSA key for PSS only", spki(wire.Sequence(wire.OID(wire.OIDRSASSAPSS)))},
		{"RSA key for OAEP only", spki(wire.Algorithm(wire.OIDRSAESOAEP))},
	})...)
}
