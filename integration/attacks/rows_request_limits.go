package main

import (
	"bytes"
	"crypto"
	"fmt"
	"net/http"
	"strings"

	"github.com/scepgate/scepgate/integration/wire"
)

// rowsRequestLimits: C21, what is larger than anything that an honest request has.
func rowsRequestLimits() []vector {
	tooLarge := vector{row: "C21", want: pre, status: http.StatusRequestEntityTooLarge, reason: "malformed_message"}
	malformed := vector{row: "C21", want: rej, reason: "malformed_request"}
	all := table(tooLarge, csr, []changed[wire.Request]{
		{"RSA modulus of 1 MiB", func(_ *try, r *wire.Request) { r.SPKI = rsaKey(modulus(8<<20), f4) }},
		{"CN of 64 KiB", func(_ *try, r *wire.Request) { r.SetSubject(strings.Repeat("a", 64<<10)) }},
	})
	arcs := func(n int) []byte { return wire.TLV(0x06, bytes.Repeat([]byte{0x2a}, n)) }
	extension := func(oid []byte) func(*try, *wire.Request) {
		return func(_ *try, r *wire.Request) { r.Extend(wire.Sequence(oid, wire.Octets(wire.Null()))) }
	}
	all = append(all, table(malformed, csr, []changed[wire.Request]{
		{"attribute whose OID has 10,001 arcs", func(_ *try, r *wire.Request) {
			r.Attributes = [][]byte{wire.Sequence(arcs(10000), wire.Set(wire.Null()))}
		}},
		{"extension whose OID has 21 arcs", extension(arcs(20))},
		{"extension whose OID has an arc of 2³¹", extension(wire.OID("2.5.29.2147483648"))},
		// In 32 bits the arc is that of subjectAltName.
		{"extension whose OID has an arc of 2³²+17", extension(wire.OID("2.5.29.4294967313"))},
		{"extension whose OID has an arc of 2⁶⁴+17", extension(wire.TLV(0x06, []byte{0x55, 0x1d, 0x82, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x11}))},
		{"extension with an empty OID", extension(wire.TLV(0x06))},
		{"extension whose OID ends within an arc", extension(wire.TLV(0x06, []byte{0x55, 0x1d, 0x91}))},
		{"CN of 257 characters", func(_ *try, r *wire.Request) { r.SetSubject(strings.Repeat("a", 257)) }},
		{"CN of 32 KiB", func(_ *try, r *wire.Request) { r.SetSubject(strings.Repeat("a", 32<<10)) }},
		{"CN of no characters", func(_ *try, r *wire.Request) { r.SetSubject("") }},
		{"65 RDNs", func(_ *try, r *wire.Request) {
			r.Subject = wire.Name(bytes.Repeat(rdn(wire.OIDOrgUnit, wire.UTF8("x")), 65))
		}},
		{"33 attributes", func(_ *try, r *wire.Request) {
			for i := range 33 {
				r.Attributes = append(r.Attributes, wire.Attribute(fmt.Sprintf("1.3.6.1.4.1.99999.%d", i), wire.Null()))
			}
		}},
		{"66 extensions", func(_ *try, r *wire.Request) {
			for i := range 64 {
				r.Extend(wire.Extension(fmt.Sprintf("1.3.6.1.4.1.99999.%d", i), false, wire.Null()))
			}
		}},
		{"33 extended key usages", func(_ *try, r *wire.Request) {
			var oids []string
			for i := range 33 {
				oids = append(oids, fmt.Sprintf("1.3.6.1.4.1.99999.%d", i))
			}
			r.Extensions = [][]byte{wire.KeyUsage(5, 0xa0), wire.ExtKeyUsage(oids...)}
		}},
	})...)
	// Devices exceed the 64 characters of RFC 5280; what is registered passes.
	longest := strings.Repeat("long", 64)
	return append(all, vector{row: "C21", variant: "CN of 256 characters, as registered", want: forwarded, reason: "ok",
		expect: map[string]any{"subject": "CN=" + longest}, message: csr(withSubject(cn(wire.UTF8(longest))))})
}

// rowsRequestEncoding: C22 and C23, one request and nothing else, in DER.
func rowsRequestEncoding() []vector {
	malformed := func(row string) vector { return vector{row: row, want: rej, reason: "malformed_request"} }
	all := table(malformed("C22"), csr, []changed[wire.Request]{
		{"a zero octet behind the PKCS#10", func(_ *try, r *wire.Request) { r.After = []byte{0} }},
		{"16 zero octets behind the PKCS#10", func(_ *try, r *wire.Request) { r.After = make([]byte, 16) }},
		{"1000 octets behind the PKCS#10", func(_ *try, r *wire.Request) { r.After = wire.Random(1000) }},
		{"what looks like padding behind the PKCS#10", func(_ *try, r *wire.Request) { r.After = []byte{4, 4, 4, 4} }},
		{"a second PKCS#10 behind the first", func(t *try, r *wire.Request) {
			second := *r
			second.SetSubject("administrator")
			r.After = second.Bytes()
		}},
	})
	all = append(all,
		vector{row: "C22", variant: "nothing in the envelope", want: rej, reason: "malformed_request", message: func(t *try) { t.M.Plaintext = []byte{} }},
		vector{row: "C22", variant: "half a PKCS#10", want: rej, reason: "malformed_request", message: func(t *try) { t.M.Plaintext = t.M.Request.Bytes()[:300] }},
		vector{row: "C22", variant: "a second PKCS#10 before the one that is expected", want: rej, reason: "malformed_request", message: func(t *try) {
			second := t.M.Request
			second.SetSubject("administrator")
			t.M.Plaintext = append(second.Bytes(), t.M.Request.Bytes()...)
		}},
	)
	around := func(info func(t *try) []byte) func(*try) {
		return func(t *try) { t.M.Plaintext = t.M.Request.Around(info(t)) }
	}
	all = append(all,
		vector{row: "C23", variant: "PKCS#10 of indefinite length", want: rej, reason: "malformed_request",
			message: func(t *try) { t.M.Plaintext = wire.Streamed(t.M.Request.Bytes(), 1) }},
		vector{row: "C23", variant: "PKCS#10 with a long length", want: rej, reason: "malformed_request",
			message: func(t *try) { t.M.Plaintext = wire.LongForm(0x30, wire.Value(t.M.Request.Bytes())) }},
		vector{row: "C23", variant: "CertificationRequestInfo of indefinite length", want: rej, reason: "malformed_request",
			message: around(func(t *try) []byte { return wire.Streamed(t.M.Request.Info(), 1) })},
		vector{row: "C23", variant: "CertificationRequestInfo with a long length", want: rej, reason: "malformed_request",
			message: around(func(t *try) []byte { return wire.LongForm(0x30, wire.Value(t.M.Request.Info())) })},
		vector{row: "C23", variant: "a length of four octets", want: rej, reason: "malformed_request",
			message: around(func(t *try) []byte {
				v := wire.Value(t.M.Request.Info())
				return append([]byte{0x30, 0x84, 0, 0, byte(len(v) >> 8), byte(len(v))}, v...)
			})},
	)
	san := wire.Octets(wire.Sequence(wire.DNS(good)))
	all = append(all, table(malformed("C23"), csr, []changed[wire.Request]{
		{"CN in pieces", func(t *try, r *wire.Request) {
			r.Subject = wire.Name(cn(wire.TLV(0x2c, wire.UTF8(t.CN[:3]), wire.UTF8(t.CN[3:]))))
		}},
		{"CN of indefinite length", func(t *try, r *wire.Request) { r.Subject = wire.Name(cn(wire.Indefinite(0x2c, wire.UTF8(t.CN)))) }},
		{"an extension's value in pieces", func(_ *try, r *wire.Request) {
			r.Extend(wire.Sequence(wire.OID(wire.OIDSubjectAltName), wire.TLV(0x24, san)))
		}},
		{"an extension's value with an indefinite length in it", func(_ *try, r *wire.Request) {
			r.Extend(wire.Sequence(wire.OID(wire.OIDSubjectAltName), wire.Octets(wire.Indefinite(0x30, wire.DNS(good)))))
		}},
		{"critical is 01", func(_ *try, r *wire.Request) {
			r.Extend(wire.Sequence(wire.OID(wire.OIDSubjectAltName), []byte{1, 1, 1}, san))
		}},
		{"critical is FALSE, and written", func(_ *try, r *wire.Request) {
			r.Extend(wire.Sequence(wire.OID(wire.OIDSubjectAltName), []byte{1, 1, 0}, san))
		}},
		{"critical is a BOOLEAN of two octets", func(_ *try, r *wire.Request) {
			r.Extend(wire.Sequence(wire.OID(wire.OIDSubjectAltName), []byte{1, 2, 0, 0xff}, san))
		}},
		{"the signature in pieces", func(_ *try, r *wire.Request) {
			r.SignatureField = wire.TLV(0x23, wire.Bits(wire.Random(256)))
		}},
		{"a primitive SEQUENCE", func(_ *try, r *wire.Request) { r.Extend(wire.TLV(0x10, wire.OID(wire.OIDSubjectAltName), san)) }},
	})...)
	// Contract over catalogue: scepclient does not sort its attributes.
	return append(all, vector{row: "C23", variant: "the attributes not in the order of a SET OF, as scepclient writes them", want: forwarded, reason: "ok",
		message: csr(func(_ *try, r *wire.Request) {
			sorted := r.AllAttributes()
			attributesAsGiven(r, sorted[1], sorted[0])
			r.Sign = func(info []byte) []byte { return wire.SignRSA(r.Key, crypto.SHA256, info) }
		})})
}
