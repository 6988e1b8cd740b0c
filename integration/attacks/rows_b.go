package main

import (
	"slices"

	"github.com/scepgate/scepgate/integration/wire"
)

// rowsB: what AD CS makes of the things that a request carries.
func rowsB() []vector {
	return slices.Concat(rowsUPN(), rowsDNSName(), rowsSID(), rowsApplicationPolicies(), rowsPurposes(), rowsSubCA(),
		rowsExtensions(), rowsNamePairs(), rowsTemplates(), rowsClientAttributes(), rowsNested(), rowsSmuggledText(),
		rowsSubjects(), rowsOtherNames(), rowsLegacyExtensions(), rowsCritical(), rowsRelay(), rowsWeakMapping())
}

const (
	ownSID    = "S-1-5-21-1-2-3-1104"
	adminSID  = "S-1-5-21-1-2-3-500"
	sidPrefix = "tag:microsoft.com,2022-09-14:sid:"
)

// rowsUPN: B01 and B02, ESC1.
func rowsUPN() []vector {
	upn := sanOf("upn", "a@b")
	// As the catalogue writes it: a@b.
	literal := []byte{0xa0, 0x13, 0x06, 0x0a, 0x2b, 0x06, 0x01, 0x04, 0x01, 0x82, 0x37, 0x14, 0x02, 0x03, 0xa0, 0x05, 0x0c, 0x03, 'a', '@', 'b'}
	rows := []vector{
		{row: "B01", variant: "UPN a@b where none is registered", want: rejStrike, reason: "san_mismatch", finding: "san", message: askingFor(wire.SAN(literal))},
		{row: "B01", variant: "UPN of another than the registered one", want: rejStrike, reason: "san_mismatch", expect: upn,
			message: askingFor(wire.SAN(wire.UPN("administrator@corp.example")))},
		{row: "B01", variant: "the registered UPN and another", want: rejStrike, reason: "san_mismatch", expect: upn,
			message: askingFor(wire.SAN(literal, wire.UPN("administrator@corp.example")))},
		{row: "B01", variant: "the registered UPN as rfc822Name", want: rejStrike, reason: "san_mismatch", expect: sanOf("upn", "a@corp.example"),
			message: askingFor(wire.SAN(wire.Email("a@corp.example")))},
		{row: "B01", variant: "the registered UPN with U+212A for k", want: rejStrike, reason: "san_mismatch", expect: sanOf("upn", "kim@corp.example"),
			message: askingFor(wire.SAN(wire.UPN("\u212aim@corp.example")))},
		{row: "B01", variant: "the registered UPN", want: forwarded, reason: "ok", expect: upn, message: askingFor(wire.SAN(literal))},
		// Contract §4.1: case is ignored in a UPN.
		{row: "B01", variant: "the registered UPN in upper case", want: forwarded, reason: "ok", expect: upn, message: askingFor(wire.SAN(wire.UPN("A@B")))},
		{row: "B01", variant: "the UPN of an administrator, registered", want: cfg, act: func(t *try) {
			t.unprocessable(sanOf("upn", "Administrator@corp.example"), "identity_forbidden")
			t.unprocessable(sanOf("upn", "krbtgt@corp.example"), "identity_forbidden")
		}},
	}
	anyUPN := map[string]any{"san_rules": []any{map[string]any{"type": "upn", "match": "any"}}}
	for _, upn := range []string{"administrator@corp.example", "ADMINISTRATOR", `CORP\Administrator`, "krbtgt@corp.example", "\u00c0dministrator@corp.example"} {
		rows = append(rows, vector{row: "B01", variant: "where a pattern takes any UPN, " + upn, want: rejStrike, reason: "san_mismatch", profile: "patterns",
			expect: anyUPN, message: askingFor(wire.SAN(wire.UPN(upn)))})
	}
	rows = append(rows, vector{row: "B01", variant: "where a pattern takes any UPN, ann@corp.example", want: forwarded, reason: "ok", profile: "patterns",
		expect: anyUPN, message: askingFor(wire.SAN(wire.UPN("ann@corp.example")))})
	for _, v := range []struct {
		variant string
		name    []byte
	}{
		{"an IA5String", wire.OtherName(wire.OIDMSUPN, wire.IA5("a@b"))},
		{"a PrintableString", wire.OtherName(wire.OIDMSUPN, wire.Printable("a@b"))},
		{"a BMPString", wire.OtherName(wire.OIDMSUPN, wire.BMP("a@b"))},
		{"a T61String", wire.OtherName(wire.OIDMSUPN, wire.T61("a@b"))},
		{"a UniversalString", wire.OtherName(wire.OIDMSUPN, wire.Universal("a@b"))},
		{"an OCTET STRING", wire.OtherName(wire.OIDMSUPN, wire.Octets([]byte("a@b")))},
		{"explicitly tagged twice", wire.OtherName(wire.OIDMSUPN, wire.Explicit(0, wire.UTF8("a@b")))},
		{"without the explicit tag", wire.Explicit(0, wire.OID(wire.OIDMSUPN), wire.UTF8("a@b"))},
		{"implicitly tagged", wire.Explicit(0, wire.OID(wire.OIDMSUPN), wire.Implicit(0, []byte("a@b")))},
		{"with two values", wire.Explicit(0, wire.OID(wire.OIDMSUPN), wire.Explicit(0, wire.UTF8("a@b"), wire.UTF8("administrator@b")))},
		{"with a second tagged value", wire.Explicit(0, wire.OID(wire.OIDMSUPN), wire.Explicit(0, wire.UTF8("a@b")), wire.Explicit(0, wire.UTF8("administrator@b")))},
		{"with a trailing NUL", wire.UPN("a@b\x00")},
		{"with a NUL and a suffix", wire.UPN("a@b\x00.example")},
		{"that is empty", wire.UPN("")},
		{"that is no UTF-8", wire.OtherName(wire.OIDMSUPN, wire.TLV(0x0c, []byte{'a', '@', 0xff}))},
		{"in a constructed UTF8String", wire.OtherName(wire.OIDMSUPN, wire.TLV(0x2c, wire.UTF8("a@b")))},
	} {
		rows = append(rows, vector{row: "B02", variant: "the registered UPN, " + v.variant, want: rej, reason: "malformed_request",
			expect: upn, message: askingFor(wire.SAN(v.name))})
	}
	return rows
}

// rowsDNSName: B03 and B04, the names of domain controllers.
func rowsDNSName() []vector {
	const host = "dc01.corp.example"
	expected := sanOf("dns", host)
	rows := []vector{
		{row: "B03", variant: "dNSName " + host + " where none is registered", want: rejStrike, reason: "san_mismatch", finding: "san",
			message: askingFor(wire.SAN(wire.DNS(host)))},
		{row: "B03", variant: "dNSName " + host + " next to the registered one", want: rejStrike, reason: "san_mismatch",
			expect: sanOf("dns", "pc7.corp.example"), message: askingFor(wire.SAN(wire.DNS("pc7.corp.example"), wire.DNS(host)))},
		{row: "B03", variant: "CN=" + host + " in place of the registered subject", want: rejStrike, reason: "subject_mismatch",
			message: csr(func(_ *try, r *wire.Request) { r.SetSubject(host) })},
		{row: "B03", variant: "CN=DC01$ in place of the registered subject", want: rejStrike, reason: "subject_mismatch",
			message: csr(func(_ *try, r *wire.Request) { r.SetSubject("DC01$") })},

		{row: "B04", variant: "the registered name", want: forwarded, reason: "ok", expect: expected, message: askingFor(wire.SAN(wire.DNS(host)))},
		// Byte-equal after ASCII lower-casing.
		{row: "B04", variant: "DC01.CORP.example, the registered name in capitals", want: forwarded, reason: "ok", expect: expected,
			message: askingFor(wire.SAN(wire.DNS("DC01.CORP.example")))},
	}
	for _, name := range []string{"dc01", "dc01.corp", "dc01.corp.example.com", "a.dc01.corp.example", "dc-01.corp.example", "xn--dc01-8ja.corp.example"} {
		rows = append(rows, vector{row: "B04", variant: name + " for the registered name", want: rej, reason: "san_mismatch",
			expect: expected, message: askingFor(wire.SAN(wire.DNS(name)))})
	}
	for _, v := range []struct{ variant, name string }{
		{"with a trailing dot", host + "."},
		{"with a leading dot", "." + host},
		{"with an empty label", "dc01..corp.example"},
		{"with a NUL and a suffix", host + "\x00.x"},
		{"with a trailing NUL", host + "\x00"},
		{"with a trailing space", host + " "},
		{"with a leading space", " " + host},
		{"with a trailing LF", host + "\n"},
		{"with an underscore", "dc_01.corp.example"},
		{"with a wildcard", "*.corp.example"},
		{"with a letter outside of ASCII", "dç01.corp.example"},
		{"with full-width letters", "\uff44\uff4301.corp.example"},
		{"with an ideographic full stop", "dc01\u3002corp.example"},
		{"with a dollar sign", "DC01$"},
		{"that is empty", ""},
	} {
		rows = append(rows, vector{row: "B04", variant: "the registered name " + v.variant, want: rej, reason: "malformed_request",
			expect: expected, message: askingFor(wire.SAN(wire.DNS(v.name)))})
	}
	return rows
}

// rowsSubjects: B34 to B36, subjects of several parts.
func rowsSubjects() []vector {
	cn := func(t *try) []byte { return single(wire.OIDCommonName, t.CN) }
	ou := func(v string) []byte { return single(wire.OIDOrgUnit, v) }
	subject := func(of func(t *try) [][]byte) func(*try) {
		return csr(func(t *try, r *wire.Request) { r.Subject = wire.Name(of(t)...) })
	}
	mail := func(value []byte) []byte { return wire.RDN(wire.ATV(wire.OIDEmailAddress, value)) }
	twoOU := map[string]any{"subject": "CN=pc7,OU=A,OU=B"}
	pc7 := single(wire.OIDCommonName, "pc7")
	twoMail := map[string]any{"subject": "CN=pc7,E=a@example.com,E=b@example.com"}
	oneMail := map[string]any{"subject": "CN=pc7,E=a@example.com"}
	rows := []vector{
		{row: "B34", variant: "the registered CN and CN=administrator after it", want: rej, reason: "subject_mismatch",
			message: subject(func(t *try) [][]byte { return [][]byte{cn(t), single(wire.OIDCommonName, "administrator")} })},
		{row: "B34", variant: "CN=administrator before the registered CN", want: rej, reason: "subject_mismatch",
			message: subject(func(t *try) [][]byte { return [][]byte{single(wire.OIDCommonName, "administrator"), cn(t)} })},
		{row: "B34", variant: "the registered CN twice", want: rej, reason: "subject_mismatch",
			message: subject(func(t *try) [][]byte { return [][]byte{cn(t), cn(t)} })},
		{row: "B34", variant: "two CN in one RDN", want: rej, reason: "subject_mismatch",
			message: subject(func(t *try) [][]byte {
				return [][]byte{wire.RDN(wire.ATV(wire.OIDCommonName, wire.UTF8("adm")), wire.ATV(wire.OIDCommonName, wire.UTF8(t.CN)))}
			})},
		{row: "B34", variant: "two CN, registered", want: cfg, act: func(t *try) {
			t.unprocessable(map[string]any{"subject": "CN=a,CN=b"}, "common_names")
		}},
		{row: "B34", variant: "an OU where none is registered", want: rej, reason: "subject_mismatch",
			message: subject(func(t *try) [][]byte { return [][]byte{cn(t), ou("A")} })},
		{row: "B34", variant: "two OU as registered", want: forwarded, reason: "ok", expect: twoOU, message: named(pc7, ou("A"), ou("B"))},
		// Architecture: the CA rebuilds the order, so it does not count (C26).
		{row: "B34", variant: "two OU as registered, in another order", want: forwarded, reason: "ok", expect: twoOU, message: named(ou("B"), pc7, ou("A"))},
		{row: "B34", variant: "one of two registered OU", want: rej, reason: "subject_mismatch", expect: twoOU, message: named(pc7, ou("A"))},
		{row: "B34", variant: "one of two registered OU twice", want: rej, reason: "subject_mismatch", expect: twoOU, message: named(pc7, ou("A"), ou("A"))},
		{row: "B34", variant: "one of two registered OU thrice", want: rej, reason: "subject_mismatch", expect: twoOU, message: named(pc7, ou("A"), ou("B"), ou("B"))},
		{row: "B34", variant: "both registered OU in one RDN", want: rej, reason: "subject_mismatch", expect: twoOU,
			message: named(pc7, wire.RDN(wire.ATV(wire.OIDOrgUnit, wire.UTF8("A")), wire.ATV(wire.OIDOrgUnit, wire.UTF8("B"))))},
		{row: "B34", variant: "a second emailAddress", want: rej, reason: "subject_mismatch", expect: oneMail,
			message: named(pc7, mail(wire.IA5("a@example.com")), mail(wire.IA5("admin@example.com")))},
		{row: "B34", variant: "two emailAddress as registered", want: forwarded, reason: "ok", expect: twoMail,
			message: named(pc7, mail(wire.IA5("a@example.com")), mail(wire.IA5("b@example.com")))},

		{row: "B35", variant: "the subject that a victim is mapped by (X509:<S>)", want: rejStrike, reason: "subject_mismatch", finding: "CN=victim",
			message: named(wire.RDN(wire.ATV(wire.OIDDomain, wire.IA5("example"))), wire.RDN(wire.ATV(wire.OIDDomain, wire.IA5("corp"))),
				ou("Users"), single(wire.OIDCommonName, "victim"))},
		{row: "B35", variant: "the rfc822Name that a victim is mapped by (X509:<RFC822>)", want: rejStrike, reason: "san_mismatch", finding: "victim@corp.example",
			message: askingFor(wire.SAN(wire.Email("victim@corp.example")))},
		{row: "B35", variant: "the victim's rfc822Name next to the registered one", want: rejStrike, reason: "san_mismatch",
			expect: sanOf("email", "pc7@corp.example"), message: askingFor(wire.SAN(wire.Email("pc7@corp.example"), wire.Email("victim@corp.example")))},
		{row: "B35", variant: "the registered rfc822Name with its local part in capitals", want: rejStrike, reason: "san_mismatch",
			expect: sanOf("email", "pc7@corp.example"), message: askingFor(wire.SAN(wire.Email("PC7@corp.example")))},

		{row: "B36", variant: "emailAddress where none is registered", want: rejStrike, reason: "subject_mismatch", finding: "subject",
			message: subject(func(t *try) [][]byte { return [][]byte{cn(t), mail(wire.IA5("victim@corp.example"))} })},
		{row: "B36", variant: "emailAddress other than the registered one", want: rejStrike, reason: "subject_mismatch", expect: oneMail,
			message: named(pc7, mail(wire.IA5("admin@example.com")))},
		{row: "B36", variant: "the registered emailAddress in the CN's RDN", want: rejStrike, reason: "subject_mismatch", expect: oneMail,
			message: named(wire.RDN(wire.ATV(wire.OIDCommonName, wire.UTF8("pc7")), wire.ATV(wire.OIDEmailAddress, wire.IA5("a@example.com"))))},
		{row: "B36", variant: "the registered emailAddress", want: forwarded, reason: "ok", expect: oneMail, message: named(pc7, mail(wire.IA5("a@example.com")))},
		// Contract §4.1: IA5String is allowed for E beside UTF8String, which is for every type.
		{row: "B36", variant: "the registered emailAddress, a UTF8String", want: forwarded, reason: "ok", expect: oneMail, message: named(pc7, mail(wire.UTF8("a@example.com")))},
	}
	for _, v := range []struct {
		variant string
		value   []byte
	}{
		{"a BMPString", wire.BMP("a@example.com")},
		{"a T61String", wire.T61("a@example.com")},
		{"a PrintableString, which has no @", wire.Printable("a@example.com")},
		{"with a trailing NUL", wire.IA5("a@example.com\x00")},
	} {
		rows = append(rows, vector{row: "B36", variant: "the registered emailAddress, " + v.variant, want: rej, reason: "malformed_request",
			expect: oneMail, message: named(pc7, mail(v.value))})
	}
	return rows
}

// rowsOtherNames: B37 and B38, names that no expectation can hold.
func rowsOtherNames() []vector {
	var rows []vector
	types, values := strangers()
	for i, typ := range types[:4] {
		rows = append(rows, vector{row: "B37", variant: typ, want: rej, reason: "san_mismatch", message: askingFor(wire.SAN(values[i]))},
			vector{row: "B37", variant: typ + " next to the registered dNSName", want: rej, reason: "san_mismatch",
				expect: sanOf("dns", "pc7.corp.example"), message: askingFor(wire.SAN(wire.DNS("pc7.corp.example"), values[i]))})
	}
	rows = append(rows,
		vector{row: "B37", variant: "directoryName, registered", want: cfg, act: func(t *try) {
			t.unprocessable(map[string]any{"san_rules": []any{map[string]any{"type": "directoryName", "match": "exact", "value": "CN=x"}}}, "type_unknown")
		}})
	guid := wire.Octets([]byte{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16})
	for _, v := range []struct {
		variant string
		name    []byte
	}{
		{"KRB5PrincipalName", values[4]},
		{"NTDS replication (the GUID of a domain controller)", wire.OtherName("1.3.6.1.4.1.311.25.1", guid)},
		{"SRVName", wire.OtherName("1.3.6.1.5.5.7.8.7", wire.IA5("_ldap.corp.example"))},
		{"SmtpUTF8Mailbox", wire.OtherName("1.3.6.1.5.5.7.8.9", wire.UTF8("victim@corp.example"))},
		{"XmppAddr", wire.OtherName("1.3.6.1.5.5.7.8.5", wire.UTF8("victim@corp.example"))},
		{"the SID's type", wire.OtherName(wire.OIDMSSIDValue, wire.Octets([]byte(adminSID)))},
		{"the UPN's type with one more arc", wire.OtherName(wire.OIDMSUPN+".1", wire.UTF8("victim@corp.example"))},
	} {
		rows = append(rows, vector{row: "B38", variant: "otherName " + v.variant, want: rej, reason: "san_mismatch", message: askingFor(wire.SAN(v.name))})
	}
	return rows
}
