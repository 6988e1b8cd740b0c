package main

import (
	"slices"
	"strings"

	"github.com/scepgate/scepgate/integration/wire"
)

// rowsA: the escalation that SCEP itself allows (CERT/CC VU#971035).
func rowsA() []vector {
	return slices.Concat(rowsIdentitySwap(), rowsPurposeSwap(), rowsChallenge(), rowsSharedChallenge(), rowsNoChallenge(),
		rowsSigner(), rowsStolenChallenge(), rowsExpectation(), rowsMisplacedChallenge(), rowsDowngrade(), rowsRenewalEscalation())
}

// ownSAN is an honest device with a name of each type that can be expected.
var ownSAN = map[string]any{"san": map[string]any{
	"dns": []string{"own.example.com"}, "email": []string{"own@example.com"}, "uri": []string{"https://own.example.com/id"},
	"ip": []string{"192.0.2.7"}, "upn": []string{"own@example.com"},
}}

// ownNames are the names of ownSAN, victims the same of somebody else.
func ownNames() [][]byte {
	return [][]byte{
		wire.DNS("own.example.com"), wire.Email("own@example.com"), wire.URI("https://own.example.com/id"),
		wire.IP(192, 0, 2, 7), wire.UPN("own@example.com"),
	}
}

func victims() [][]byte {
	return [][]byte{
		wire.DNS("victim.example.com"), wire.Email("victim@example.com"), wire.URI("https://victim.example.com/id"),
		wire.IP(192, 0, 2, 8), wire.UPN("victim@example.com"),
	}
}

// strangers are GeneralNames of types that no expectation can hold.
func strangers() ([]string, [][]byte) {
	return []string{"directoryName", "registeredID", "x400Address", "ediPartyName", "otherName krb5"}, [][]byte{
		wire.DirectoryName(wire.CommonName("victim")), wire.RegisteredID("1.2.3.4"),
		wire.TLV(0xa3, wire.Sequence(wire.TLV(0x61, wire.TLV(0x13, []byte("US"))))),
		wire.TLV(0xa5, wire.Explicit(1, wire.UTF8("victim"))),
		wire.OtherName("1.3.6.1.5.2.2", wire.Sequence(wire.Explicit(0, wire.TLV(0x1b, []byte("EXAMPLE.COM"))),
			wire.Explicit(1, wire.Sequence(wire.Explicit(0, wire.Int(1)), wire.Explicit(1, wire.Sequence(wire.TLV(0x1b, []byte("victim")))))))),
	}
}

// rowsIdentitySwap: A01 to A04, another name than the registered one.
func rowsIdentitySwap() []vector {
	rows := []vector{
		{row: "A01", variant: "the registered subject", want: forwarded, reason: "ok"},
		{row: "A01", variant: "challenge of a device, subject CN=administrator", want: rejStrike, reason: "subject_mismatch",
			message: csr(func(_ *try, r *wire.Request) { r.SetSubject("administrator") })},
		{row: "A01", variant: "subject of another device", want: rejStrike, reason: "subject_mismatch",
			message: csr(func(_ *try, r *wire.Request) { r.SetSubject("dev-somebody-else") })},
		{row: "A01", variant: "the subject differs in one bit", want: rejStrike, reason: "subject_mismatch", finding: "subject",
			message: csr(func(t *try, r *wire.Request) { r.SetSubject(t.CN[:len(t.CN)-1] + string(t.CN[len(t.CN)-1]^1)) })},
		{row: "A01", variant: "the subject in upper case", want: rejStrike, reason: "subject_mismatch",
			message: csr(func(t *try, r *wire.Request) { r.SetSubject(strings.ToUpper(t.CN)) })},
		{row: "A01", variant: "an O added to the subject", want: rejStrike, reason: "subject_mismatch",
			message: csr(func(t *try, r *wire.Request) {
				r.Subject = wire.Name(single(wire.OIDCommonName, t.CN), single(wire.OIDOrganization, "Domain Admins"))
			})},
		{row: "A01", variant: "an empty subject", want: rejStrike, reason: "subject_mismatch", message: named()},

		{row: "A02", variant: "the registered names of every type", want: forwarded, reason: "ok", expect: ownSAN,
			message: askingFor(wire.SAN(ownNames()...))},
	}
	types := []string{"dNSName", "rfc822Name", "URI", "iPAddress", "UPN"}
	for i, typ := range types {
		names := ownNames()
		names[i] = victims()[i]
		rows = append(rows, vector{row: "A02", variant: typ + " of the victim in place of the device's own", want: rejStrike,
			reason: "san_mismatch", finding: "san", expect: ownSAN, message: askingFor(wire.SAN(names...))})
	}
	other, values := strangers()
	for i, typ := range other {
		names := append(ownNames()[1:], values[i])
		rows = append(rows, vector{row: "A02", variant: typ + " in place of the device's dNSName", want: rejStrike,
			reason: "san_mismatch", expect: ownSAN, message: askingFor(wire.SAN(names...))})
	}
	for i, typ := range append(types, other...) {
		added := append(victims(), values...)[i]
		rows = append(rows,
			vector{row: "A03", variant: typ + " where none is registered", want: rejStrike, reason: "san_mismatch", finding: "san",
				message: askingFor(wire.SAN(added))},
			vector{row: "A03", variant: typ + " next to the registered names", want: rejStrike, reason: "san_mismatch", expect: ownSAN,
				message: askingFor(wire.SAN(append(ownNames(), added)...))})
	}
	rows = append(rows,
		vector{row: "A04", variant: "no alternative name where five are registered", want: rejStrike, reason: "san_mismatch", expect: ownSAN, message: asItIs},
		vector{row: "A04", variant: "no SID where one is registered", want: rejStrike, reason: "sid_mismatch", finding: "sid",
			expect: map[string]any{"sid": ownSID}, message: asItIs})
	for i, typ := range types {
		rows = append(rows, vector{row: "A04", variant: typ + " left out of the registered names", want: rejStrike, reason: "san_mismatch",
			expect: ownSAN, message: askingFor(wire.SAN(slices.Delete(ownNames(), i, i+1)...))})
	}
	return rows
}

// usages are the key usages by which NDES tells its three templates.
var usages = []struct {
	template string
	names    []string
	octets   []byte
}{
	{"signature", []string{"digitalSignature"}, []byte{7, 0x80}},
	{"encryption", []string{"keyEncipherment"}, []byte{5, 0x20}},
	{"general purpose", []string{"digitalSignature", "keyEncipherment"}, []byte{5, 0xa0}},
}

// rowsPurposeSwap: A05 to A07, another purpose under the right name.
func rowsPurposeSwap() []vector {
	var rows []vector
	clientAuth := wire.ExtKeyUsage(wire.EKUClientAuth)
	for _, registered := range usages {
		for _, asked := range usages {
			v := vector{row: "A05", variant: "key usage of " + asked.template + ", registered for " + registered.template,
				want: rejStrike, reason: "key_usage_mismatch", finding: "certificate_template",
				expect: map[string]any{"key_usage": registered.names}, message: askingOnlyFor(wire.KeyUsage(asked.octets...), clientAuth)}
			if asked.template == registered.template {
				v.want, v.reason, v.finding = forwarded, "ok", ""
			}
			rows = append(rows, v)
		}
	}
	for _, u := range []struct {
		variant string
		octets  []byte
	}{
		{"nonRepudiation added, which selects the same template", []byte{5, 0xe0}},
		{"dataEncipherment added, which selects the same template", []byte{4, 0xb0}},
		{"keyAgreement alone, for which NDES has no template", []byte{3, 0x08}},
	} {
		rows = append(rows, vector{row: "A05", variant: u.variant, want: rejStrike, reason: "key_usage_mismatch", finding: "key_usage",
			message: askingOnlyFor(wire.KeyUsage(u.octets...), clientAuth)})
	}

	rows = append(rows,
		// Contract §4.1: a request without the extension counts as both bits.
		vector{row: "A06", variant: "no key usage, registered for general purpose", want: forwarded, reason: "ok", message: askingOnlyFor(clientAuth)},
		vector{row: "A06", variant: "no key usage, registered for signature", want: rej, reason: "key_usage_mismatch",
			expect: map[string]any{"key_usage": []string{"digitalSignature"}}, message: askingOnlyFor(clientAuth)},
		vector{row: "A06", variant: "decipherOnly, the ninth bit, added", want: rej, reason: "key_usage_mismatch",
			message: askingOnlyFor(wire.KeyUsage(7, 0xa0, 0x80), clientAuth)},
		vector{row: "A06", variant: "the extension twice, alike", want: rej, reason: "malformed_request", message: askingFor(wire.KeyUsage(5, 0xa0))},
		vector{row: "A06", variant: "the extension twice, with different bits", want: rej, reason: "malformed_request", message: askingFor(wire.KeyUsage(5, 0x20))})
	for _, u := range []struct {
		variant string
		octets  []byte
	}{
		{"no bit: 03 01 00", []byte{0}},
		{"no bit in one octet: 03 02 07 00", []byte{7, 0}},
		{"fewer unused bits than there are: 03 02 04 a0", []byte{4, 0xa0}},
		{"no unused bits: 03 02 00 a0", []byte{0, 0xa0}},
		{"more unused bits than there are: 03 02 06 a0", []byte{6, 0xa0}},
		{"eight unused bits: 03 02 08 a0", []byte{8, 0xa0}},
		{"a trailing octet of zeros: 03 03 07 a0 00", []byte{7, 0xa0, 0}},
		{"ten bits: 03 03 06 a0 40", []byte{6, 0xa0, 0x40}},
		{"three octets", []byte{7, 0xa0, 0x80, 0x80}},
		{"not even the count of unused bits: 03 00", nil},
	} {
		rows = append(rows, vector{row: "A06", variant: u.variant, want: rej, reason: "malformed_request",
			message: askingOnlyFor(wire.KeyUsage(u.octets...), clientAuth)})
	}

	both := wire.KeyUsage(5, 0xa0)
	two := map[string]any{"ext_key_usage": []string{"clientAuth", wire.EKUSmartCardLogon}}
	return append(rows,
		vector{row: "A07", variant: "smart card logon added to clientAuth", want: rejStrike, reason: "ext_key_usage_mismatch", finding: "ext_key_usage",
			message: askingOnlyFor(both, wire.ExtKeyUsage(wire.EKUClientAuth, wire.EKUSmartCardLogon))},
		vector{row: "A07", variant: "smart card logon in place of clientAuth", want: rejStrike, reason: "ext_key_usage_mismatch",
			message: askingOnlyFor(both, wire.ExtKeyUsage(wire.EKUSmartCardLogon))},
		vector{row: "A07", variant: "smart card logon as application policy", want: rejStrike, reason: "application_policies_mismatch",
			message: askingFor(wire.ApplicationPolicies(wire.EKUSmartCardLogon))},
		vector{row: "A07", variant: "one purpose less than registered", want: rejStrike, reason: "ext_key_usage_mismatch", expect: two, message: asItIs},
		vector{row: "A07", variant: "both registered purposes in another order", want: forwarded, reason: "ok", expect: two,
			message: askingOnlyFor(both, wire.ExtKeyUsage(wire.EKUSmartCardLogon, wire.EKUClientAuth))},
		// Contract §4.1: a request may leave it out, the template supplies it.
		vector{row: "A07", variant: "no extended key usage", want: forwarded, reason: "ok", message: askingOnlyFor(both)},
		// Structure, before any identity is judged: no strike.
		vector{row: "A07", variant: "clientAuth twice in the list", want: rej, reason: "malformed_request",
			message: askingOnlyFor(both, wire.ExtKeyUsage(wire.EKUClientAuth, wire.EKUClientAuth))},
		vector{row: "A07", variant: "the extension twice, the second with smart card logon", want: rej, reason: "malformed_request",
			message: askingFor(wire.ExtKeyUsage(wire.EKUSmartCardLogon))})
}
