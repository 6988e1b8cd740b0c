package main

import (
	"net/http"
	"strings"

	"github.com/scepgate/scepgate/integration/wire"
)

// namePair is the attribute by which a request tells AD CS what else it wants
// (MS-WCCE §2.2.2.7.10).
func namePair(name, value string) []byte {
	return wire.Attribute(wire.OIDMSNameValuePair, wire.Sequence(wire.BMP(name), wire.BMP(value)))
}

// rowsNamePairs: B16 to B20, in which AD CS would find what no extension says.
func rowsNamePairs() []vector {
	var rows []vector
	unexpected := func(row, variant string, attribute []byte) {
		rows = append(rows, vector{row: row, variant: variant, want: rej, reason: "unexpected_attribute", finding: wire.OIDMSNameValuePair, message: bringing(attribute)})
	}
	malformed := func(row, variant string, attributes ...[]byte) {
		rows = append(rows, vector{row: row, variant: variant, want: rej, reason: "malformed_request", message: bringing(attributes...)})
	}
	// As the catalogue writes it: SAN = "upn=a".
	literal := []byte{
		0x30, 0x24, 0x06, 0x0a, 0x2b, 0x06, 0x01, 0x04, 0x01, 0x82, 0x37, 0x0d, 0x02, 0x01, 0x31, 0x16, 0x30, 0x14,
		0x1e, 0x06, 0, 'S', 0, 'A', 0, 'N', 0x1e, 0x0a, 0, 'u', 0, 'p', 0, 'n', 0, '=', 0, 'a',
	}
	unexpected("B16", "SAN = upn=a", literal)
	for _, p := range []struct{ name, value string }{
		{"SAN", "upn=administrator@corp.example&dns=dc01.corp.example"},
		{"CertificateUsage", wire.EKUClientAuth}, {"ValidityPeriod", "Years"}, {"ValidityPeriodUnits", "10"},
		{"ExpirationDate", "Fri, 31 Dec 2100 23:59:59 GMT"}, {"cdc", "attacker.example"}, {"rmd", "attacker.example"},
		{"CertificateTemplate", "SubCA"},
		// The catalogue leaves this one to an option, which the contract does not have.
		{"CertificateTemplate", "WiFiClient"},
		{"RequestId", "1"}, {"", ""},
	} {
		unexpected("B16", "pair "+p.name+" = "+p.value, namePair(p.name, p.value))
	}
	unexpected("B16", "a pair whose name has half a character", wire.Attribute(wire.OIDMSNameValuePair,
		wire.Sequence(wire.TLV(0x1e, []byte{0, 'S', 0, 'A', 0, 'N', 0}), wire.BMP("upn=a"))))
	unexpected("B16", "a pair of UTF8Strings", wire.Attribute(wire.OIDMSNameValuePair, wire.Sequence(wire.UTF8("SAN"), wire.UTF8("upn=a"))))
	unexpected("B16", "a pair of three", wire.Attribute(wire.OIDMSNameValuePair, wire.Sequence(wire.BMP("x"), wire.BMP("y"), wire.BMP("SAN"))))
	// One value in each attribute, each attribute once: structure.
	malformed("B16", "an attribute without a pair: 31 00", wire.Attribute(wire.OIDMSNameValuePair))
	malformed("B16", "two pairs in one attribute", wire.Attribute(wire.OIDMSNameValuePair,
		wire.Sequence(wire.BMP("CertificateTemplate"), wire.BMP("WiFiClient")), wire.Sequence(wire.BMP("SAN"), wire.BMP("upn=a"))))
	malformed("B16", "two attributes of one pair", namePair("CertificateTemplate", "WiFiClient"), namePair("SAN", "upn=a"))

	for _, name := range []string{"S-A-N", " san ", "sAn", "San", "s a n", "-SAN", "Certificate-Usage", "CERTIFICATEUSAGE", "certificate usage"} {
		unexpected("B17", "pair "+strings.ReplaceAll(name, " ", "␣"), namePair(name, "upn=administrator@corp.example"))
	}
	unexpected("B18", "CertificateUsage = certificate request agent", namePair("CertificateUsage", wire.EKUEnrollmentAgent))
	unexpected("B18", "CertificateUsage = smart card logon", namePair("CertificateUsage", wire.EKUSmartCardLogon))
	rows = append(rows, vector{row: "B18", variant: "CertificateUsage without an extended key usage", want: rej, reason: "unexpected_attribute",
		message: csr(func(_ *try, r *wire.Request) {
			r.Extensions = [][]byte{wire.KeyUsage(5, 0xa0)}
			r.Attributes = [][]byte{namePair("CertificateUsage", wire.EKUEnrollmentAgent)}
		})})
	unexpected("B19", "ValidityPeriod = Years", namePair("ValidityPeriod", "Years"))
	unexpected("B19", "ValidityPeriodUnits = 100", namePair("ValidityPeriodUnits", "100"))
	unexpected("B19", "ExpirationDate in 2100", namePair("ExpirationDate", "Fri, 31 Dec 2100 23:59:59 GMT"))
	unexpected("B20", "cdc = attacker.example", namePair("cdc", "attacker.example"))
	unexpected("B20", "rmd = attacker.example", namePair("rmd", "attacker.example"))
	unexpected("B20", `cdc = \\attacker.example\pipe`, namePair("cdc", `\\attacker.example\pipe`))
	return rows
}

// rowsClientAttributes: B24 to B29, what Windows clients send beside extensions.
func rowsClientAttributes() []vector {
	info := func(parts ...[]byte) []byte {
		return wire.Attribute(wire.OIDMSRequestClientInfo, wire.Sequence(parts...))
	}
	said := func(machine, user, process string) []byte {
		return info(wire.Int(9), wire.UTF8(machine), wire.UTF8(user), wire.UTF8(process))
	}
	csp := func(parts ...[]byte) []byte { return wire.Attribute(wire.OIDMSEnrollmentCSP, wire.Sequence(parts...)) }
	version := func(values ...[]byte) []byte { return wire.Attribute(wire.OIDMSOSVersion, values...) }
	good := func(row, variant string, attributes ...[]byte) vector {
		return vector{row: row, variant: variant, want: forwarded, reason: "ok", message: bringing(attributes...)}
	}
	malformed := func(row, variant string, attributes ...[]byte) vector {
		return vector{row: row, variant: variant, want: rej, reason: "malformed_request", message: bringing(attributes...)}
	}
	long := strings.Repeat("A", 64<<10)
	rows := []vector{
		// Windows sends it. Nothing is decided by it, and nothing of it is logged.
		good("B24", "client info that names a domain controller and certreq.exe", said("DC01.corp.example", `CORP\Administrator`, "certreq.exe")),
		good("B24", "client info, OS version and CSP, as Windows sends them", said("pc7.corp.example", `CORP\ann`, "taskhostw.exe"),
			version(wire.IA5("10.0.19045.2")), csp(wire.Int(1), wire.BMP("Microsoft Software Key Storage Provider"), wire.Bits(nil))),
		{row: "B24", variant: "client info that names an administrator, with his subject", want: rej, reason: "subject_mismatch",
			message: csr(func(_ *try, r *wire.Request) {
				r.SetSubject("administrator")
				r.Attributes = [][]byte{said("DC01.corp.example", `CORP\Administrator`, "certreq.exe")}
			})},
		malformed("B24", "client info with CRLF in the machine's name", said("pc7\r\nSAN:upn=administrator", "u", "p")),
		malformed("B24", "client info with CRLF in the process's name", said("m", "u", "certreq.exe\r\n")),
		malformed("B24", "client info with a NUL in the user's name", said("m", "u\x00admin", "p")),
		malformed("B24", "client info with an escape sequence", said("m\x1b[2J", "u", "p")),
		malformed("B24", "client info with a machine's name of 16 KiB", said(long[:16<<10], "u", "p")),
		{row: "B24", variant: "client info with a machine's name of 64 KiB", want: pre, status: http.StatusRequestEntityTooLarge, message: bringing(said(long, "u", "p"))},
		malformed("B24", "client info twice", said("m", "u", "p"), said("DC01", "administrator", "certreq.exe")),
		malformed("B24", "client info with two values", wire.Attribute(wire.OIDMSRequestClientInfo, wire.Sequence(wire.Int(9), wire.UTF8("m"), wire.UTF8("u"), wire.UTF8("p")), wire.Sequence(wire.Int(10), wire.UTF8("m"), wire.UTF8("u"), wire.UTF8("p")))),
		malformed("B24", "client info with a fourth text", info(wire.Int(9), wire.UTF8("m"), wire.UTF8("u"), wire.UTF8("p"), wire.UTF8("x"))),
		malformed("B24", "client info with two texts", info(wire.Int(9), wire.UTF8("m"), wire.UTF8("u"))),
		malformed("B24", "client info with a BMPString", info(wire.Int(9), wire.BMP("m"), wire.UTF8("u"), wire.UTF8("p"))),
		malformed("B24", "client info with a number of 41 bits", info(wire.Int(1<<40), wire.UTF8("m"), wire.UTF8("u"), wire.UTF8("p"))),

		good("B25", "one OS version", version(wire.IA5("10.0.19045.2"))),
		malformed("B25", "OS version with two values", version(wire.IA5("10.0.19045.2"), wire.IA5("6.1.7601.2"))),
		malformed("B25", "OS version with the same value twice", version(wire.IA5("10.0.19045.2"), wire.IA5("10.0.19045.2"))),
		malformed("B25", "OS version without a value", version()),
		malformed("B25", "OS version twice", version(wire.IA5("10.0.19045.2")), version(wire.IA5("6.1.7601.2"))),
		malformed("B25", "OS version, a UTF8String", version(wire.UTF8("10.0.19045.2"))),
		malformed("B25", "OS version with LF", version(wire.IA5("10\nSAN:upn=administrator"))),
		malformed("B25", "OS version of 65 characters", version(wire.IA5(strings.Repeat("1", 65)))),

		good("B26", "CSP of a smart card that there is not", csp(wire.Int(1), wire.BMP("Microsoft Smart Card Key Storage Provider"), wire.Bits(nil))),
		malformed("B26", "CSP twice", csp(wire.Int(1), wire.BMP("Microsoft Software Key Storage Provider"), wire.Bits(nil)), csp(wire.Int(1), wire.BMP("Microsoft Platform Crypto Provider"), wire.Bits(nil))),
		malformed("B26", "CSP with half a character", csp(wire.Int(1), wire.TLV(0x1e, []byte{0, 'M', 0}), wire.Bits(nil))),
		malformed("B26", "CSP with a surrogate", csp(wire.Int(1), wire.TLV(0x1e, []byte{0xd8, 0x3d, 0xde, 0x00}), wire.Bits(nil))),
		malformed("B26", "CSP with a NUL", csp(wire.Int(1), wire.BMP("Microsoft\x00"), wire.Bits(nil))),
		malformed("B26", "CSP with LF", csp(wire.Int(1), wire.BMP("x\nSAN:upn=a"), wire.Bits(nil))),
		malformed("B26", "CSP with a name of 257 characters", csp(wire.Int(1), wire.BMP(long[:257]), wire.Bits(nil))),
		malformed("B26", "CSP with a UTF8String", csp(wire.Int(1), wire.UTF8("x"), wire.Bits(nil))),
		malformed("B26", "CSP without its signature", csp(wire.Int(1), wire.BMP("x"))),
		malformed("B26", "CSP with a fourth element", csp(wire.Int(1), wire.BMP("x"), wire.Bits(nil), wire.Null())),

		{row: "B27", variant: "renewal certificate of somebody else", want: rej, reason: "unexpected_attribute", finding: wire.OIDMSRenewal,
			message: csr(func(t *try, r *wire.Request) {
				r.Attributes = [][]byte{wire.Attribute(wire.OIDMSRenewal, t.NDES.Signing.Raw)}
			})},
		{row: "B27", variant: "renewal certificate that is the CA's", want: rej, reason: "unexpected_attribute",
			message: csr(func(t *try, r *wire.Request) {
				r.Attributes = [][]byte{wire.Attribute(wire.OIDMSRenewal, t.NDES.CA.Raw)}
			})},
		{row: "B27", variant: "renewal certificate that is empty", want: rej, reason: "unexpected_attribute", message: bringing(wire.Attribute(wire.OIDMSRenewal, wire.Sequence()))},
	}
	for _, a := range []struct{ row, name, oid string }{
		{"B28", "archived key", "1.3.6.1.4.1.311.21.13"},
		{"B28", "encrypted key hash", "1.3.6.1.4.1.311.21.21"},
		{"B29", "endorsement key information", "1.3.6.1.4.1.311.21.23"},
		{"B29", "attestation statement", "1.3.6.1.4.1.311.21.24"},
		{"B29", "key storage provider's name", "1.3.6.1.4.1.311.21.25"},
		{"B29", "attestation identity key", "1.3.6.1.4.1.311.21.39"},
	} {
		rows = append(rows, vector{row: a.row, variant: a.name + " (" + a.oid + ")", want: rej, reason: "unexpected_attribute", finding: a.oid,
			message: bringing(wire.Attribute(a.oid, wire.Octets(make([]byte, 64))))})
	}
	return rows
}
