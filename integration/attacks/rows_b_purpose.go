package main

import (
	"github.com/scepgate/scepgate/integration/wire"
)

const ekuIPsecUser = "1.3.6.1.5.5.7.3.7"

// purposesOnly gives a request these extended key usages and no others.
func purposesOnly(oids ...string) func(*try) {
	return askingOnlyFor(wire.KeyUsage(5, 0xa0), wire.ExtKeyUsage(oids...))
}

// rowsApplicationPolicies: B08, ESC15.
func rowsApplicationPolicies() []vector {
	listed := map[string]any{"application_policies": []string{"clientAuth"}}
	// As the catalogue writes it, for clientAuth.
	literal := []byte{
		0x30, 0x1b, 0x06, 0x09, 0x2b, 0x06, 0x01, 0x04, 0x01, 0x82, 0x37, 0x15, 0x0a, 0x04, 0x0e, 0x30, 0x0c,
		0x30, 0x0a, 0x06, 0x08, 0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x02,
	}
	policies := func(critical bool, value ...[]byte) []byte {
		return wire.Extension(wire.OIDMSAppPolicies, critical, wire.Sequence(value...))
	}
	rows := []vector{
		{row: "B08", variant: "policy clientAuth where none is registered", want: rejStrike, reason: "application_policies_mismatch", finding: "application_policies", message: askingFor(literal)},
		{row: "B08", variant: "policy clientAuth as registered", want: forwarded, reason: "ok", expect: listed, message: askingFor(literal)},
		{row: "B08", variant: "the registered policy and one more", want: rejStrike, reason: "application_policies_mismatch", expect: listed,
			message: askingFor(wire.ApplicationPolicies(wire.EKUClientAuth, wire.EKUSmartCardLogon))},
		{row: "B08", variant: "another than the registered policy", want: rejStrike, reason: "application_policies_mismatch", expect: listed,
			message: askingFor(wire.ApplicationPolicies(wire.EKUServerAuth))},
		{row: "B08", variant: "policies in place of the extended key usage", want: rejStrike, reason: "application_policies_mismatch",
			message: askingOnlyFor(wire.KeyUsage(5, 0xa0), wire.ApplicationPolicies(wire.EKUClientAuth))},
		{row: "B08", variant: "the registered policy, marked critical", want: rejStrike, reason: "unexpected_extension", expect: listed,
			message: askingFor(policies(true, wire.Sequence(wire.OID(wire.EKUClientAuth))))},
	}
	for _, p := range []struct{ name, oid string }{
		{"certificate request agent", wire.EKUEnrollmentAgent}, {"any application policy", wire.PolicyAny}, {"any extended key usage", wire.EKUAny},
		{"smart card logon", wire.EKUSmartCardLogon}, {"PKINIT client", wire.EKUPKINITClient}, {"serverAuth", wire.EKUServerAuth},
	} {
		rows = append(rows, vector{row: "B08", variant: "policy " + p.name + " where none is registered", want: rejStrike, reason: "application_policies_mismatch",
			message: askingFor(wire.ApplicationPolicies(p.oid))})
	}
	for _, v := range []struct {
		variant string
		asked   [][]byte
	}{
		{"with a qualifier", [][]byte{policies(false, wire.Sequence(wire.OID(wire.EKUClientAuth), wire.Sequence(wire.Null())))}},
		{"without its SEQUENCE", [][]byte{policies(false, wire.OID(wire.EKUClientAuth))}},
		{"twice", [][]byte{policies(false, wire.Sequence(wire.OID(wire.EKUClientAuth)), wire.Sequence(wire.OID(wire.EKUClientAuth)))}},
		{"in two extensions", [][]byte{wire.ApplicationPolicies(wire.EKUClientAuth), wire.ApplicationPolicies(wire.EKUClientAuth)}},
		{"replaced by an empty list", [][]byte{policies(false)}},
	} {
		rows = append(rows, vector{row: "B08", variant: "the registered policy " + v.variant, want: rej, reason: "malformed_request", expect: listed, message: askingFor(v.asked...)})
	}
	return rows
}

// rowsPurposes: B09 to B12, purposes that make more of a certificate.
func rowsPurposes() []vector {
	var rows []vector
	// asked demands that a purpose is refused where it is not registered, by both
	// extensions, alone and beside what is.
	asked := func(row, name, oid string) {
		rows = append(rows,
			vector{row: row, variant: name + " next to clientAuth", want: rejStrike, reason: "ext_key_usage_mismatch", finding: "ext_key_usage", message: purposesOnly(wire.EKUClientAuth, oid)},
			vector{row: row, variant: name + " in place of clientAuth", want: rejStrike, reason: "ext_key_usage_mismatch", message: purposesOnly(oid)},
			vector{row: row, variant: name + " as application policy", want: rejStrike, reason: "application_policies_mismatch", message: askingFor(wire.ApplicationPolicies(oid))})
	}
	never := func(row, name, oid string) {
		rows = append(rows, vector{row: row, variant: name + ", registered", want: cfg, act: func(t *try) {
			t.unprocessable(map[string]any{"ext_key_usage": []string{"clientAuth", oid}}, "purpose_forbidden")
			t.unprocessable(map[string]any{"application_policies": []string{oid}}, "purpose_forbidden")
		}})
	}
	registered := func(row, name, oid string) {
		rows = append(rows, vector{row: row, variant: name + " as registered", want: forwarded, reason: "ok",
			expect: map[string]any{"ext_key_usage": []string{"clientAuth", oid}}, message: purposesOnly(wire.EKUClientAuth, oid)})
	}

	asked("B09", "certificate request agent", wire.EKUEnrollmentAgent)
	never("B09", "certificate request agent", wire.EKUEnrollmentAgent)

	asked("B10", "any extended key usage", wire.EKUAny)
	asked("B10", "any application policy", wire.PolicyAny)
	never("B10", "any extended key usage", wire.EKUAny)
	never("B10", "any application policy", wire.PolicyAny)
	rows = append(rows,
		// REJ# in the catalogue: an empty list is no extended key usage at all
		// (RFC 5280 §4.2.1.12), and that is seen before the identity.
		vector{row: "B10", variant: "an empty list of purposes: 30 00", want: rej, reason: "malformed_request", message: purposesOnly()},
		vector{row: "B10", variant: "an empty list of application policies", want: rej, reason: "malformed_request", message: askingFor(wire.ApplicationPolicies())},
		vector{row: "B10", variant: "an empty extension", want: rej, reason: "malformed_request",
			message: askingOnlyFor(wire.KeyUsage(5, 0xa0), wire.Extension(wire.OIDExtKeyUsage, false, nil))})

	asked("B11", "PKINIT client", wire.EKUPKINITClient)
	asked("B11", "KDC authentication", wire.EKUPKINITKDC)
	asked("B11", "smart card logon", wire.EKUSmartCardLogon)
	registered("B11", "PKINIT client", wire.EKUPKINITClient)
	registered("B11", "smart card logon", wire.EKUSmartCardLogon)
	never("B11", "KDC authentication", wire.EKUPKINITKDC)
	never("B11", "OCSP signing", wire.EKUOCSPSigning)
	never("B11", "code signing", wire.EKUCodeSigning)

	wsus := wire.SAN(wire.DNS("wsus.corp.example"))
	server := wire.ExtKeyUsage(wire.EKUServerAuth)
	own := sanOf("dns", "pc7.corp.example")
	return append(rows,
		vector{row: "B12", variant: "serverAuth and the dNSName of a server", want: rejStrike, reason: "san_mismatch", finding: "ext_key_usage",
			message: askingOnlyFor(wire.KeyUsage(5, 0xa0), server, wsus)},
		vector{row: "B12", variant: "serverAuth and the registered dNSName", want: rejStrike, reason: "ext_key_usage_mismatch", expect: own,
			message: askingOnlyFor(wire.KeyUsage(5, 0xa0), server, wire.SAN(wire.DNS("pc7.corp.example")))},
		vector{row: "B12", variant: "the dNSName of a server next to the registered one", want: rejStrike, reason: "san_mismatch", expect: own,
			message: askingFor(wire.SAN(wire.DNS("pc7.corp.example"), wire.DNS("wsus.corp.example")))},
		vector{row: "B12", variant: "serverAuth next to clientAuth, no alternative name", want: rejStrike, reason: "ext_key_usage_mismatch",
			message: purposesOnly(wire.EKUClientAuth, wire.EKUServerAuth)})
}

// rowsTemplates: B21 to B23, templates that the request names.
func rowsTemplates() []vector {
	const (
		own   = "1.3.6.1.4.1.311.21.8.1.2.3.3" // of WiFiClient, which the honest key usage selects
		other = "1.3.6.1.4.1.311.21.8.1.2.3.1" // of WiFiSignature
	)
	name := func(value []byte) []byte { return wire.Extension(wire.OIDMSTemplateName, false, value) }
	oid := func(parts ...[]byte) []byte {
		return wire.Extension(wire.OIDMSTemplate, false, wire.Sequence(parts...))
	}
	mismatch := func(row, variant string, asked ...[]byte) vector {
		return vector{row: row, variant: variant, want: rejStrike, reason: "template_mismatch", finding: "certificate_template", message: askingFor(asked...)}
	}
	malformed := func(row, variant string, asked ...[]byte) vector {
		return vector{row: row, variant: variant, want: rej, reason: "malformed_request", message: askingFor(asked...)}
	}
	good := func(row, variant string, asked ...[]byte) vector {
		return vector{row: row, variant: variant, want: forwarded, reason: "ok", message: askingFor(asked...)}
	}
	unnamed := mismatch("B21", "a template name where the profile names no templates", name(wire.BMP("WiFiClient")))
	unnamed.profile = "vpn"
	unnamedOID := mismatch("B22", "a template OID where the profile names no templates", oid(wire.OID(own)))
	unnamedOID.profile = "vpn"
	return []vector{
		mismatch("B21", "template name SubCA", name(wire.BMP("SubCA"))),
		mismatch("B21", "template name User", name(wire.BMP("User"))),
		mismatch("B21", "name of the template for another key usage", name(wire.BMP("WiFiSignature"))),
		mismatch("B21", "the right name in another case", name(wire.BMP("wificlient"))),
		mismatch("B21", "the right name with a trailing space", name(wire.BMP("WiFiClient "))),
		mismatch("B21", "the beginning of the right name", name(wire.BMP("WiFi"))),
		unnamed,
		good("B21", "the right name", name(wire.BMP("WiFiClient"))),
		malformed("B21", "the right name, a UTF8String", name(wire.UTF8("WiFiClient"))),
		malformed("B21", "the right name, a PrintableString", name(wire.Printable("WiFiClient"))),
		malformed("B21", "the right name with a trailing NUL", name(wire.BMP("WiFiClient\x00"))),
		malformed("B21", "the right name and half a character", name(wire.TLV(0x1e, wire.BMP("WiFiClient")[2:], []byte{0}))),
		malformed("B21", "an empty name", name(wire.BMP(""))),
		malformed("B21", "the right name and bytes after it", name(append(wire.BMP("WiFiClient"), 5, 0))),
		malformed("B21", "two names", name(wire.BMP("WiFiClient")), name(wire.BMP("SubCA"))),
		{row: "B21", variant: "a template that the key usage does not select, registered", want: cfg, act: func(t *try) {
			t.unprocessable(map[string]any{"certificate_template": "SubCA"}, "template_mismatch")
			t.unprocessable(map[string]any{"certificate_template": "WiFiSignature"}, "template_mismatch")
		}},

		mismatch("B22", "OID of a template that nobody configured", oid(wire.OID("1.3.6.1.4.1.311.21.8.9.9.9"), wire.Int(100), wire.Int(4))),
		mismatch("B22", "OID of the template for another key usage", oid(wire.OID(other), wire.Int(100), wire.Int(4))),
		mismatch("B22", "the right OID with one more arc", oid(wire.OID(own+".1"), wire.Int(100), wire.Int(4))),
		unnamedOID,
		good("B22", "the right OID with versions", oid(wire.OID(own), wire.Int(100), wire.Int(4))),
		good("B22", "the right OID with one version", oid(wire.OID(own), wire.Int(100))),
		good("B22", "the right OID alone", oid(wire.OID(own))),
		malformed("B22", "the right OID with three versions", oid(wire.OID(own), wire.Int(100), wire.Int(4), wire.Int(1))),
		malformed("B22", "the right OID with a negative version", oid(wire.OID(own), wire.Int(-1))),
		malformed("B22", "the right OID with a version of 41 bits", oid(wire.OID(own), wire.Int(1<<40))),
		malformed("B22", "two OIDs", oid(wire.OID(own), wire.OID(other))),
		malformed("B22", "no OID", oid()),
		malformed("B22", "the extension twice", oid(wire.OID(own)), oid(wire.OID(other))),

		mismatch("B23", "the right name, OID of another template", name(wire.BMP("WiFiClient")), oid(wire.OID(other))),
		mismatch("B23", "the right OID, name of another template", name(wire.BMP("WiFiSignature")), oid(wire.OID(own))),
		mismatch("B23", "name and OID of the same other template", name(wire.BMP("WiFiSignature")), oid(wire.OID(other))),
		good("B23", "the right name and the right OID", name(wire.BMP("WiFiClient")), oid(wire.OID(own))),
	}
}
