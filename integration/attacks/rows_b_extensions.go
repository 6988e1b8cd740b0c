package main

import (
	"crypto/sha1"
	"crypto/x509"
	"encoding/asn1"

	"github.com/scepgate/scepgate/integration/wire"
)

// rowsSubCA: B13, a CA of one's own.
func rowsSubCA() []vector {
	basic := []byte{0x30, 0x0f, 0x06, 0x03, 0x55, 0x1d, 0x13, 0x01, 0x01, 0xff, 0x04, 0x05, 0x30, 0x03, 0x01, 0x01, 0xff} // as the catalogue writes it
	clientAuth := wire.ExtKeyUsage(wire.EKUClientAuth)
	usage := func(variant string, octets ...byte) vector {
		return vector{row: "B13", variant: variant, want: rej, reason: "key_usage_mismatch", message: askingOnlyFor(wire.KeyUsage(octets...), clientAuth)}
	}
	extension := func(variant string, asked ...[]byte) vector {
		return vector{row: "B13", variant: variant, want: rej, reason: "unexpected_extension", message: askingFor(asked...)}
	}
	return []vector{
		extension("basicConstraints, critical, cA TRUE", basic),
		extension("basicConstraints, not critical, cA TRUE and a pathLen", wire.Extension(wire.OIDBasicConstraints, false, wire.Sequence([]byte{1, 1, 0xff}, wire.Int(0)))),
		extension("basicConstraints, cA FALSE written out", wire.Extension(wire.OIDBasicConstraints, true, wire.Sequence([]byte{1, 1, 0}))),
		// quirk: certmonger
		{row: "B13", variant: "basicConstraints of an end entity: 30 00", want: forwarded, reason: "ok",
			message: askingFor(wire.Extension(wire.OIDBasicConstraints, true, wire.Sequence()))},
		extension("basicConstraints under the old OID 2.5.29.10", wire.Extension("2.5.29.10", false, wire.Sequence(wire.Bits([]byte{0x80})))),
		usage("keyCertSign added to the key usage", 2, 0xa4),
		usage("cRLSign added to the key usage", 1, 0xa2),
		usage("keyCertSign and cRLSign alone", 1, 0x06),
		{row: "B13", variant: "basicConstraints and keyCertSign together", want: rej, reason: "key_usage_mismatch", finding: wire.OIDBasicConstraints,
			message: askingOnlyFor(wire.KeyUsage(1, 0x06), clientAuth, basic)},
		{row: "B13", variant: "keyCertSign and cRLSign, registered", want: cfg, act: func(t *try) {
			t.unprocessable(map[string]any{"key_usage": []string{"keyCertSign"}}, "key_usage_forbidden")
			t.unprocessable(map[string]any{"key_usage": []string{"digitalSignature", "cRLSign"}}, "key_usage_forbidden")
		}},
	}
}

// rowsExtensions: B14 and B15, extensions that no expectation can hold.
func rowsExtensions() []vector {
	var rows []vector
	for _, e := range []struct {
		name, oid string
		value     []byte
	}{
		{"authorityKeyIdentifier", "2.5.29.35", wire.Sequence(wire.Implicit(0, make([]byte, 20)))},
		{"issuerAltName", "2.5.29.18", wire.Sequence(wire.DNS("ca.example.com"))},
		{"subjectDirectoryAttributes", "2.5.29.9", wire.Sequence(wire.Attribute("2.5.4.72", wire.UTF8("admin")))},
		{"nameConstraints", "2.5.29.30", wire.Sequence(wire.Explicit(0, wire.Sequence(wire.DNS(""))))},
		{"policyMappings", "2.5.29.33", wire.Sequence(wire.Sequence(wire.OID("1.2.3"), wire.OID("1.2.4")))},
		{"policyConstraints", "2.5.29.36", wire.Sequence(wire.Implicit(0, []byte{0}))},
		{"inhibitAnyPolicy", "2.5.29.54", wire.Int(0)},
		{"cRLDistributionPoints", "2.5.29.31", wire.Sequence(wire.Sequence(wire.Explicit(0, wire.Explicit(0, wire.URI("http://attacker.example/crl")))))},
		{"freshestCRL", "2.5.29.46", wire.Sequence(wire.Sequence(wire.Explicit(0, wire.Explicit(0, wire.URI("http://attacker.example/crl")))))},
		{"authorityInfoAccess", "1.3.6.1.5.5.7.1.1", wire.Sequence(wire.Sequence(wire.OID("1.3.6.1.5.5.7.48.1"), wire.URI("http://attacker.example/ocsp")))},
		{"subjectInfoAccess", "1.3.6.1.5.5.7.1.11", wire.Sequence(wire.Sequence(wire.OID("1.3.6.1.5.5.7.48.5"), wire.URI("http://attacker.example/")))},
		{"qcStatements", "1.3.6.1.5.5.7.1.3", wire.Sequence(wire.Sequence(wire.OID("0.4.0.1862.1.1")))},
		{"TLS feature", "1.3.6.1.5.5.7.1.24", wire.Sequence(wire.Int(5))},
		{"OCSP no check", "1.3.6.1.5.5.7.48.1.5", wire.Null()},
		{"signed certificate timestamps", "1.3.6.1.4.1.11129.2.4.2", wire.Octets([]byte{0, 0})},
		{"precertificate poison", "1.3.6.1.4.1.11129.2.4.3", wire.Null()},
		{"privateKeyUsagePeriod", "2.5.29.16", wire.Sequence(wire.Implicit(1, []byte("20991231235959Z")))},
		{"Netscape certificate type", "2.16.840.1.113730.1.1", wire.Bits([]byte{0xff})},
		{"Microsoft CA version", "1.3.6.1.4.1.311.21.1", wire.Int(0)},
		{"Microsoft previous CA hash", "1.3.6.1.4.1.311.21.2", wire.Octets(make([]byte, 20))},
		{"Microsoft application policy mappings", "1.3.6.1.4.1.311.21.11", wire.Sequence()},
		{"Microsoft application policy constraints", "1.3.6.1.4.1.311.21.12", wire.Sequence()},
		{"Microsoft encrypted SID neighbour 311.25.1", "1.3.6.1.4.1.311.25.1", wire.Octets(make([]byte, 16))},
		{"a private OID", "1.3.6.1.4.1.99999.1", wire.UTF8("x")},
		{"a private OID with an empty value", "1.3.6.1.4.1.99999.1", nil},
		{"a private OID with a value that is no ASN.1", "1.3.6.1.4.1.99999.1", []byte{0x30, 0x80, 0xff}},
	} {
		rows = append(rows, vector{row: "B14", variant: e.name + " (" + e.oid + ")", want: rej, reason: "unexpected_extension", finding: e.oid,
			message: askingFor(wire.Extension(e.oid, false, e.value))})
	}
	ski := func(of func(t *try) []byte) func(*try) {
		return csr(func(t *try, r *wire.Request) { r.Extend(wire.Extension(wire.OIDSubjectKeyID, false, of(t))) })
	}
	bits := func(d *device) []byte { return x509.MarshalPKCS1PublicKey(&d.Key.PublicKey) } // what the SPKI's BIT STRING holds
	hashed := func(b []byte) []byte { sum := sha1.Sum(b); return sum[:] }
	rows = append(rows,
		vector{row: "B14", variant: "subjectKeyIdentifier of the request's own key", want: forwarded, reason: "ok",
			message: ski(func(t *try) []byte { return wire.Octets(hashed(bits(t.Device))) })},
		vector{row: "B14", variant: "subjectKeyIdentifier of another key", want: rej, reason: "unexpected_extension",
			message: ski(func(t *try) []byte { return wire.Octets(hashed(bits(t.other()))) })},
		vector{row: "B14", variant: "subjectKeyIdentifier of the CA", want: rej, reason: "unexpected_extension",
			message: ski(func(t *try) []byte { return wire.Octets(t.NDES.CA.SubjectKeyId) })},
		vector{row: "B14", variant: "an empty subjectKeyIdentifier", want: rej, reason: "unexpected_extension",
			message: ski(func(*try) []byte { return wire.Octets(nil) })},
		vector{row: "B14", variant: "subjectKeyIdentifier that is no OCTET STRING", want: rej, reason: "malformed_request",
			message: ski(func(t *try) []byte { return wire.Bits(hashed(bits(t.Device))) })})

	policies := func(oids ...string) []byte {
		var list [][]byte
		for _, oid := range oids {
			list = append(list, wire.Sequence(wire.OID(oid)))
		}
		return wire.Extension(wire.OIDCertificatePolicies, false, wire.Sequence(list...))
	}
	for _, p := range []struct {
		variant string
		value   []byte
	}{
		{"an issuance policy that a group is linked to", policies("1.3.6.1.4.1.311.21.8.5.6.7.1.402")},
		{"any issuance policy", policies("2.5.29.32.0")},
		{"two issuance policies", policies("1.3.6.1.4.1.311.21.8.5.6.7.1.400", "1.3.6.1.4.1.311.21.8.5.6.7.1.402")},
		{"an issuance policy with a qualifier", wire.Extension(wire.OIDCertificatePolicies, false, wire.Sequence(wire.Sequence(
			wire.OID("1.2.3"), wire.Sequence(wire.Sequence(wire.OID("1.3.6.1.5.5.7.2.1"), wire.IA5("http://attacker.example/cps"))))))},
		{"no issuance policy: 30 00", policies()},
	} {
		rows = append(rows, vector{row: "B15", variant: p.variant, want: rejStrike, reason: "unexpected_extension", finding: wire.OIDCertificatePolicies,
			message: askingFor(p.value)})
	}
	return rows
}

// rowsLegacyExtensions: B39, what X.509 of 1993 called them.
func rowsLegacyExtensions() []vector {
	var rows []vector
	names := wire.Sequence(wire.UPN("administrator@corp.example"), wire.DNS("dc01.corp.example"))
	for _, e := range []struct {
		name, oid string
		value     []byte
	}{
		{"subjectAltName", "2.5.29.7", names},
		{"issuerAltName", "2.5.29.8", names},
		{"basicConstraints", "2.5.29.10", wire.Sequence(wire.Bits([]byte{0x80}))},
		{"keyUsageRestriction", "2.5.29.4", wire.Sequence(wire.TLV(0x03, []byte{1, 0x06}))},
		{"keyAttributes", "2.5.29.2", wire.Sequence(wire.TLV(0x03, []byte{1, 0x06}))},
		{"certificatePolicies", "2.5.29.3", wire.Sequence(wire.Sequence(wire.OID("1.2.3")))},
		{"policyMappings", "2.5.29.5", wire.Sequence()},
		{"authorityKeyIdentifier", "2.5.29.1", wire.Sequence(wire.Implicit(0, make([]byte, 20)))},
	} {
		rows = append(rows, vector{row: "B39", variant: e.name + " as " + e.oid, want: rej, reason: "unexpected_extension", finding: e.oid,
			message: askingFor(wire.Extension(e.oid, false, e.value))})
	}
	return append(rows, vector{row: "B39", variant: "subjectAltName as 2.5.29.7 next to the registered one", want: rej, reason: "unexpected_extension",
		expect: sanOf("dns", "pc7.corp.example"), message: askingFor(wire.SAN(wire.DNS("pc7.corp.example")), wire.Extension("2.5.29.7", false, names))})
}

// rowsCritical: B40.
func rowsCritical() []vector {
	dns := sanOf("dns", "pc7.corp.example")
	names := wire.Sequence(wire.DNS("pc7.corp.example"))
	usage := wire.TLV(0x03, []byte{5, 0xa0})
	purposes := wire.Sequence(wire.OID(wire.EKUClientAuth))
	flagged := func(oid string, flag, value []byte) []byte {
		return wire.Sequence(wire.OID(oid), flag, wire.Octets(value))
	}
	no, yes, one := []byte{1, 1, 0}, []byte{1, 1, 0xff}, []byte{1, 1, 1}
	template := wire.BMP("WiFiClient")
	rows := []vector{
		// quirk: Apple and others mark these, and leave keyUsage unmarked.
		{row: "B40", variant: "the registered alternative name, key usage and purpose, all critical", want: forwarded, reason: "ok", expect: dns,
			message: askingOnlyFor(flagged(wire.OIDKeyUsage, yes, usage), flagged(wire.OIDExtKeyUsage, yes, purposes), flagged(wire.OIDSubjectAltName, yes, names))},
		{row: "B40", variant: "the same, none critical", want: forwarded, reason: "ok", expect: dns,
			message: askingOnlyFor(flagged(wire.OIDKeyUsage, nil, usage), flagged(wire.OIDExtKeyUsage, nil, purposes), flagged(wire.OIDSubjectAltName, nil, names))},
		{row: "B40", variant: "an unknown extension, critical", want: rej, reason: "unexpected_extension", message: askingFor(flagged("1.3.6.1.4.1.99999.1", yes, wire.Null()))},
		{row: "B40", variant: "the right template name, critical", want: rej, reason: "unexpected_extension", finding: "critical", message: askingFor(flagged(wire.OIDMSTemplateName, yes, template))},
		{row: "B40", variant: "the registered SID, critical", want: rej, reason: "unexpected_extension", finding: "critical", expect: map[string]any{"sid": ownSID},
			message: csr(func(_ *try, r *wire.Request) {
				var sid struct {
					OID   asn1.ObjectIdentifier
					Value []byte
				}
				if _, err := asn1.Unmarshal(wire.SID(ownSID), &sid); err != nil {
					panic(err)
				}
				r.Extend(flagged(wire.OIDMSSID, yes, sid.Value))
			})},
	}
	for _, e := range []struct {
		name, oid string
		value     []byte
	}{
		{"alternative name", wire.OIDSubjectAltName, names}, {"template name", wire.OIDMSTemplateName, template}, {"unknown extension", "1.3.6.1.4.1.99999.1", wire.Null()},
	} {
		for _, f := range []struct {
			name string
			flag []byte
		}{{"FALSE, written", no}, {"TRUE as 01", one}, {"of two octets", []byte{1, 2, 0xff, 0xff}}, {"of none", []byte{1, 0}}, {"twice", append(append([]byte{}, yes...), yes...)}} {
			v := vector{row: "B40", variant: e.name + " with a critical flag " + f.name, want: rej, reason: "malformed_request", message: askingFor(flagged(e.oid, f.flag, e.value))}
			if e.oid == wire.OIDSubjectAltName {
				v.expect = dns
			}
			rows = append(rows, v)
		}
	}
	return append(rows, vector{row: "B40", variant: "the registered alternative name, the flag after its value", want: rej, reason: "malformed_request", expect: dns,
		message: askingFor(wire.Sequence(wire.OID(wire.OIDSubjectAltName), wire.Octets(names), yes))})
}
