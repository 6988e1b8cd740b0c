package main

import (
	"slices"

	"github.com/scepgate/scepgate/integration/wire"
)

// rowsRequest: C1, the PKCS#10 whose readers differ.
func rowsRequest() []vector {
	return byRow(
		rowsExtensionLists(), rowsSeams(),
		rowsChallengeAttribute(), rowsAttributes(),
		rowsRequestSignature(), rowsRequestKey(),
		rowsRequestLimits(), rowsRequestEncoding(),
	)
}

const (
	good = "good.example"
	evil = "evil.example"
)

// takeExtensions gives the extensions of a request, and more, as the value of an
// attribute that the caller writes.
func takeExtensions(r *wire.Request, more ...[]byte) []byte {
	list := wire.Sequence(append(slices.Clone(r.Extensions), more...)...)
	r.Extensions = nil
	return list
}

// attributesAsGiven writes the attributes in this order.
func attributesAsGiven(r *wire.Request, attributes ...[]byte) {
	r.AttributesField = wire.Explicit(0, attributes...)
}

// rowsExtensionLists: C01–C05, where extensions can stand.
func rowsExtensionLists() []vector {
	expected := sanOf("dns", good)
	malformed := vector{want: rej, reason: "malformed_request", expect: expected}
	of := func(row string) vector { v := malformed; v.row = row; return v }

	all := []vector{
		{row: "C01", variant: "the expected SAN, under Microsoft's attribute only", want: forwarded, reason: "ok", expect: expected,
			message: csr(func(_ *try, r *wire.Request) {
				r.ExtensionsOID = wire.OIDMSCertExtensions
				r.Extend(wire.SAN(wire.DNS(good)))
			})},
		{row: "C01", variant: "another SAN, under Microsoft's attribute only", want: rejStrike, reason: "san_mismatch", expect: expected,
			message: csr(func(_ *try, r *wire.Request) {
				r.ExtensionsOID = wire.OIDMSCertExtensions
				r.Extend(wire.SAN(wire.DNS(evil)))
			})},
		{row: "C01", variant: "a SAN where none is expected, under Microsoft's attribute only", want: rejStrike, reason: "san_mismatch",
			message: csr(func(_ *try, r *wire.Request) {
				r.ExtensionsOID = wire.OIDMSCertExtensions
				r.Extend(wire.SAN(wire.DNS(evil)))
			})},
	}
	all = append(all, table(of("C02"), csr, []changed[wire.Request]{
		{"the expected SAN under PKCS#9's attribute, another under Microsoft's", func(_ *try, r *wire.Request) {
			r.Extend(wire.SAN(wire.DNS(good)))
			r.Attributes = [][]byte{wire.Attribute(wire.OIDMSCertExtensions, wire.Sequence(wire.SAN(wire.DNS(evil))))}
		}},
		{"another SAN under PKCS#9's attribute, the expected one under Microsoft's", func(_ *try, r *wire.Request) {
			r.Extend(wire.SAN(wire.DNS(evil)))
			r.Attributes = [][]byte{wire.Attribute(wire.OIDMSCertExtensions, wire.Sequence(wire.SAN(wire.DNS(good))))}
		}},
		{"the same extensions under both attributes", func(_ *try, r *wire.Request) {
			list := takeExtensions(r, wire.SAN(wire.DNS(good)))
			r.Attributes = [][]byte{wire.Attribute(wire.OIDExtensionRequest, list), wire.Attribute(wire.OIDMSCertExtensions, list)}
		}},
	})...)
	twoLists := func(first, second []byte) func(*try, *wire.Request) {
		return func(_ *try, r *wire.Request) {
			list := takeExtensions(r, first)
			attributesAsGiven(r, r.Challenge[0],
				wire.Attribute(wire.OIDExtensionRequest, list), wire.Attribute(wire.OIDExtensionRequest, wire.Sequence(second)))
		}
	}
	all = append(all, table(of("C03"), csr, []changed[wire.Request]{
		{"two extensionRequests: the expected SAN, then a SID", twoLists(wire.SAN(wire.DNS(good)), wire.SID("S-1-5-21-1-2-3-500"))},
		{"two extensionRequests: the expected SAN, then application policies", twoLists(wire.SAN(wire.DNS(good)), wire.ApplicationPolicies(wire.EKUEnrollmentAgent))},
	})...)
	all = append(all, table(of("C04"), csr, []changed[wire.Request]{
		{"two extensionRequests with a SAN each: the expected one first", twoLists(wire.SAN(wire.DNS(good)), wire.SAN(wire.DNS(evil)))},
		{"two extensionRequests with a SAN each: the expected one last", twoLists(wire.SAN(wire.DNS(evil)), wire.SAN(wire.DNS(good)))},
		{"two extensionRequests with the same SAN", twoLists(wire.SAN(wire.DNS(good)), wire.SAN(wire.DNS(good)))},
	})...)
	twoValues := func(oid string, first, second []byte) func(*try, *wire.Request) {
		return func(_ *try, r *wire.Request) {
			list := takeExtensions(r, first)
			r.Attributes = [][]byte{wire.Attribute(oid, list, wire.Sequence(second))}
		}
	}
	return append(all, table(of("C05"), csr, []changed[wire.Request]{
		{"two values in one extensionRequest: the expected SAN first", twoValues(wire.OIDExtensionRequest, wire.SAN(wire.DNS(good)), wire.SAN(wire.DNS(evil)))},
		{"two values in one extensionRequest: the expected SAN last", twoValues(wire.OIDExtensionRequest, wire.SAN(wire.DNS(evil)), wire.SAN(wire.DNS(good)))},
		{"two values in one of Microsoft's attribute", twoValues(wire.OIDMSCertExtensions, wire.SAN(wire.DNS(good)), wire.SAN(wire.DNS(evil)))},
	})...)
}

// rowsSeams: C06–C09, attributes and extensions that some readers skip or cut.
func rowsSeams() []vector {
	of := func(row string) vector { return vector{row: row, want: rej, reason: "malformed_request"} }
	unread := func(attribute func(list []byte) []byte) func(*try, *wire.Request) {
		return func(_ *try, r *wire.Request) {
			r.Attributes = [][]byte{attribute(takeExtensions(r, wire.SAN(wire.DNS(evil))))}
		}
	}
	oid := wire.OID(wire.OIDExtensionRequest)
	padded := wire.TLV(0x06, []byte{0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x09, 0x80, 0x0e})
	all := table(of("C06"), csr, []changed[wire.Request]{
		{"a SAN in an extensionRequest whose SET is a SEQUENCE", unread(func(list []byte) []byte { return wire.Sequence(oid, wire.Sequence(list)) })},
		{"an extensionRequest whose SET is empty", unread(func([]byte) []byte { return wire.Sequence(oid, wire.Set()) })},
		{"a SAN in an extensionRequest whose SET has a long length", unread(func(list []byte) []byte { return wire.Sequence(oid, wire.LongForm(0x31, list)) })},
		{"a SAN in an extensionRequest whose OID has a padded arc", unread(func(list []byte) []byte { return wire.Sequence(padded, wire.Set(list)) })},
		{"an attribute that is no SEQUENCE", unread(func(list []byte) []byte { return wire.Set(oid, wire.Set(list)) })},
	})
	san := wire.Sequence(wire.DNS(good))
	all = append(all, table(of("C07"), csr, []changed[wire.Request]{
		{"one element more in an Attribute", unread(func(list []byte) []byte { return wire.Sequence(oid, wire.Set(list), wire.Null()) })},
		{"one element more in an Extension", func(_ *try, r *wire.Request) {
			r.Extend(wire.Sequence(wire.OID(wire.OIDSubjectAltName), wire.Octets(san), wire.Null()))
		}},
		{"one element more in an AttributeTypeAndValue", func(t *try, r *wire.Request) {
			r.Subject = wire.Name(wire.RDN(wire.Sequence(wire.OID(wire.OIDCommonName), wire.UTF8(t.CN), wire.UTF8("administrator"))))
		}},
		{"one element more in the CertificationRequest", func(_ *try, r *wire.Request) { r.Tail = wire.Null() }},
		{"one element more in the CertificationRequestInfo", func(_ *try, r *wire.Request) { r.InfoTail = wire.Explicit(1, wire.Null()) }},
	})...)
	all = append(all, vector{row: "C07", variant: "one element more in the SubjectPublicKeyInfo", want: rej, reason: "key_refused",
		message: csr(func(_ *try, r *wire.Request) {
			r.SPKI = wire.Sequence(wire.Value(wire.PublicKey(&r.Key.PublicKey)), wire.Null())
		})})
	value := func(oid string, value ...[]byte) func(*try, *wire.Request) {
		return func(_ *try, r *wire.Request) {
			r.Extensions = append(r.Extensions, wire.Sequence(wire.OID(oid), wire.TLV(0x04, value...)))
		}
	}
	expecting := of("C08")
	expecting.expect = sanOf("dns", good)
	all = append(all, table(expecting, csr, []changed[wire.Request]{
		{"an extension's value: the expected SAN, then another", value(wire.OIDSubjectAltName, san, wire.Sequence(wire.DNS(evil)))},
		{"an extension's value: the expected SAN, then two octets", value(wire.OIDSubjectAltName, san, []byte{0xde, 0xad})},
		{"an extension's value: the expected SAN, then a zero octet", value(wire.OIDSubjectAltName, san, []byte{0})},
	})...)
	all = append(all, table(of("C08"), csr, []changed[wire.Request]{
		{"a key usage, then another", func(_ *try, r *wire.Request) {
			r.Extensions = [][]byte{wire.Sequence(wire.OID(wire.OIDKeyUsage), wire.TLV(0x04, wire.TLV(3, []byte{5, 0xa0}), wire.TLV(3, []byte{1, 6}))), wire.ExtKeyUsage(wire.EKUClientAuth)}
		}},
		{"extended key usages, then others", func(_ *try, r *wire.Request) {
			r.Extensions = [][]byte{wire.KeyUsage(5, 0xa0), wire.Sequence(wire.OID(wire.OIDExtKeyUsage),
				wire.TLV(0x04, wire.Sequence(wire.OID(wire.EKUClientAuth)), wire.Sequence(wire.OID(wire.EKUEnrollmentAgent))))}
		}},
	})...)
	expecting.row = "C09"
	all = append(all, table(expecting, csr, []changed[wire.Request]{
		{"two SANs in one list: the expected one first", func(_ *try, r *wire.Request) { r.Extend(wire.SAN(wire.DNS(good)), wire.SAN(wire.DNS(evil))) }},
		{"two SANs in one list: the expected one last", func(_ *try, r *wire.Request) { r.Extend(wire.SAN(wire.DNS(evil)), wire.SAN(wire.DNS(good))) }},
		{"the expected SAN twice", func(_ *try, r *wire.Request) { r.Extend(wire.SAN(wire.DNS(good)), wire.SAN(wire.DNS(good))) }},
	})...)
	return append(all, table(of("C09"), csr, []changed[wire.Request]{
		{"two key usages", func(_ *try, r *wire.Request) { r.Extend(wire.KeyUsage(1, 0x06)) }},
	})...)
}
