package main

import (
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/scepgate/scepgate/integration/wire"
)

// spelling is an alternative name that is none.
type spelling struct{ what, text string }

// rowsAltNames: C36–C39, names that hosts and mail systems read in their own way.
// What no request may carry cannot be registered either.
func rowsAltNames() []vector {
	label := strings.Repeat("a", 64)
	long := strings.Repeat("a23456789.", 25) + "abcd" // 254 characters
	dns := []spelling{
		{"a trailing dot", "good.example."}, {"a leading dot", ".good.example"}, {"an empty label", "good..example"},
		{"a wildcard label", "*.example"}, {"a label of 64 characters", label + ".example"}, {"254 characters", long},
		{"an underscore", "good_.example"}, {"an IPv4 address", "10.0.0.1"}, {"an IPv6 address", "::1"}, {"a port", "good.example:443"},
		{"a path", "good.example/x"}, {"a space behind it", "good.example "}, {"a hyphen before it", "-good.example"}, {"a hyphen behind it", "good-.example"},
		{"nothing in it", ""}, {"a number at its end", "good.example.1"}, {"an at sign", "ann@good.example"},
	}
	idna := []spelling{{"a letter beyond ASCII", "müller.example"}, {"a full-width dot", "good\u3002example"}, {"an octet beyond ASCII", "good\xe9.example"}}
	mail := []spelling{
		{"a display name", "Ann <ann@good.example>"}, {"a quoted local part", `"ann"@good.example`}, {"two at signs", "ann@evil.example@good.example"},
		{"no at sign", "good.example"}, {"a letter beyond ASCII", "änn@good.example"}, {"a comment", "ann(x)@good.example"}, {"an address literal", "ann@[10.0.0.1]"},
		{"a space", "ann @good.example"}, {"two dots", "ann..x@good.example"}, {"no local part", "@good.example"}, {"no domain", "ann@"},
		{"a trailing dot", "ann@good.example."}, {"a local part of 65 characters", strings.Repeat("a", 65) + "@good.example"}, {"two addresses", "ann@good.example,bob@good.example"},
	}
	var all []vector
	each := func(row, kind string, list []spelling, name func(string) []byte) {
		for _, s := range list {
			all = append(all, vector{row: row, variant: kind + " with " + s.what, want: rej, reason: "malformed_request", message: csr(withSAN(name(s.text)))})
		}
	}
	unregistrable := func(row, typ string, list []spelling, codes ...string) {
		all = append(all, vector{row: row, variant: fmt.Sprintf("registrations of the same, %s", typ), want: cfg, act: func(t *try) {
			for i, s := range list {
				code := codes[min(i, len(codes)-1)]
				t.unregistrable(over(t.honest(), sanOf(typ, s.text)), http.StatusUnprocessableEntity, code)
			}
		}})
	}
	each("C36", "dNSName", dns, wire.DNS)
	// What the request's grammar refuses, the registration's refuses under the
	// code that says most: empty, too long or a wildcard.
	unregistrable("C36", "dns", slices.DeleteFunc(slices.Clone(dns), func(s spelling) bool { return s.text == "" || strings.Contains(s.text, "*") }), "dns_syntax")
	all = append(all,
		vector{row: "C36", variant: "registrations of a wildcard", want: cfg, act: func(t *try) {
			for _, name := range []string{"*", "*.example", "a*.example"} {
				t.unregistrable(over(t.honest(), sanOf("dns", name)), http.StatusUnprocessableEntity, "wildcard")
			}
		}},
		vector{row: "C36", variant: "the expected dNSName in upper case", want: forwarded, reason: "ok", expect: sanOf("dns", good), message: csr(withSAN(wire.DNS("GOOD.Example")))},
		vector{row: "C36", variant: "a name below the expected dNSName", want: rejStrike, reason: "san_mismatch", expect: sanOf("dns", good), message: csr(withSAN(wire.DNS("www." + good)))},
	)

	each("C37", "dNSName", idna, wire.DNS)
	unregistrable("C37", "dns", idna[:2], "dns_syntax")
	const punycode = "xn--mller-kva.example"
	all = append(all,
		vector{row: "C37", variant: "xn--mller-kva.example, as registered", want: forwarded, reason: "ok", expect: sanOf("dns", punycode), message: csr(withSAN(wire.DNS(punycode)))},
		vector{row: "C37", variant: "an xn-- name in the place of its look-alike", want: rejStrike, reason: "san_mismatch", expect: sanOf("dns", "apple.example"), message: csr(withSAN(wire.DNS("xn--pple-43d.example")))},
		vector{row: "C37", variant: "an xn-- name that decodes to the expected one", want: rej, reason: "malformed_request", expect: sanOf("dns", good), message: csr(withSAN(wire.DNS("xn--good-.example")))},
	)

	mapped := append(make([]byte, 10), 0xff, 0xff, 10, 0, 0, 1)
	for _, octets := range [][]byte{nil, {10, 0, 0}, {10, 0, 0, 1, 0}, {10, 0, 0, 1, 255, 255, 255, 255}, make([]byte, 17), make([]byte, 32)} {
		all = append(all, vector{row: "C38", variant: fmt.Sprintf("iPAddress of %d octets", len(octets)), want: rej, reason: "malformed_request",
			expect: sanOf("ip", "10.0.0.1"), message: csr(withSAN(wire.IP(octets...)))})
	}
	v6 := append([]byte{0x20, 0x01, 0x0d, 0xb8}, append(make([]byte, 11), 1)...)
	all = append(all,
		vector{row: "C38", variant: "the expected IPv4 address, mapped into IPv6", want: rej, reason: "malformed_request", expect: sanOf("ip", "10.0.0.1"), message: csr(withSAN(wire.IP(mapped...)))},
		vector{row: "C38", variant: "the expected IPv4 address in 16 octets after zeros", want: rejStrike, reason: "san_mismatch", expect: sanOf("ip", "10.0.0.1"), message: csr(withSAN(wire.IP(append(make([]byte, 12), 10, 0, 0, 1)...)))},
		vector{row: "C38", variant: "the expected IPv4 address as text in a dNSName", want: rej, reason: "malformed_request", expect: sanOf("ip", "10.0.0.1"), message: csr(withSAN(wire.DNS("10.0.0.1")))},
		vector{row: "C38", variant: "another IPv4 address", want: rejStrike, reason: "san_mismatch", expect: sanOf("ip", "10.0.0.1"), message: csr(withSAN(wire.IP(10, 0, 0, 2)))},
		vector{row: "C38", variant: "the expected IPv4 address", want: forwarded, reason: "ok", expect: sanOf("ip", "10.0.0.1"), message: csr(withSAN(wire.IP(10, 0, 0, 1)))},
		vector{row: "C38", variant: "the expected IPv6 address", want: forwarded, reason: "ok", expect: sanOf("ip", "2001:db8::1"), message: csr(withSAN(wire.IP(v6...)))},
		vector{row: "C38", variant: "registrations of a mapped address, a zone, a network", want: cfg, act: func(t *try) {
			for _, a := range []string{"::ffff:10.0.0.1", "fe80::1%eth0", "10.0.0.0/8", "010.0.0.1", "10.1"} {
				t.unregistrable(over(t.honest(), sanOf("ip", a)), http.StatusUnprocessableEntity, "ip_syntax")
			}
		}},
	)

	each("C39", "rfc822Name", mail, wire.Email)
	unregistrable("C39", "email", mail, "email_syntax")
	return append(all,
		vector{row: "C39", variant: "the expected rfc822Name", want: forwarded, reason: "ok", expect: sanOf("email", "ann@good.example"), message: csr(withSAN(wire.Email("ann@GOOD.example")))},
		vector{row: "C39", variant: "the expected rfc822Name with its local part in upper case", want: rejStrike, reason: "san_mismatch", expect: sanOf("email", "ann@good.example"), message: csr(withSAN(wire.Email("ANN@good.example")))},
		vector{row: "C39", variant: "the expected rfc822Name with a tag", want: rejStrike, reason: "san_mismatch", expect: sanOf("email", "ann@good.example"), message: csr(withSAN(wire.Email("ann+x@good.example")))},
	)
}

// rowsURIs: C40.
func rowsURIs() []vector {
	expected := sanOf("uri", "https://good.example/a%2Fb")
	all := table(vector{row: "C40", want: rejStrike, reason: "san_mismatch", expect: expected}, csr, []changed[wire.Request]{
		{"another escape of the same octet", withSAN(wire.URI("https://good.example/a%2fb"))},
		{"the escape undone", withSAN(wire.URI("https://good.example/a/b"))},
		{"a letter escaped that need not be", withSAN(wire.URI("https://good.example/%61%2Fb"))},
		{"the host in upper case", withSAN(wire.URI("https://GOOD.example/a%2Fb"))},
		{"the scheme in upper case", withSAN(wire.URI("HTTPS://good.example/a%2Fb"))},
		{"the default port written", withSAN(wire.URI("https://good.example:443/a%2Fb"))},
		{"a fragment", withSAN(wire.URI("https://good.example/a%2Fb#x"))},
		{"a dot segment", withSAN(wire.URI("https://good.example/./a%2Fb"))},
		{"userinfo that looks like the host", withSAN(wire.URI("https://good.example@evil.example/a%2Fb"))},
		{"javascript:", withSAN(wire.URI("javascript:alert(1)"))},
		{"file:", withSAN(wire.URI("file:///etc/passwd"))},
	})
	all = append(all, table(vector{row: "C40", want: rej, reason: "malformed_request", expect: expected}, csr, []changed[wire.Request]{
		{"a NUL", withSAN(wire.URI("https://good.example/a%2Fb\x00"))},
		{"a space", withSAN(wire.URI("https://good.example/a b"))},
		{"a line feed", withSAN(wire.URI("https://good.example/a\nb"))},
		{"a letter beyond ASCII", withSAN(wire.URI("https://good.example/ä"))},
		{"a broken escape", withSAN(wire.URI("https://good.example/%2"))},
		{"no scheme", withSAN(wire.URI("//good.example/a%2Fb"))},
		{"an escape in the host", withSAN(wire.URI("https://good%2eexample/"))},
		{"nothing", withSAN(wire.URI(""))},
		{"2049 octets", withSAN(wire.URI("https://good.example/" + strings.Repeat("a", 2049-21)))},
	})...)
	return append(all,
		vector{row: "C40", variant: "100 KiB", want: pre, status: http.StatusRequestEntityTooLarge, reason: "malformed_message",
			message: csr(withSAN(wire.URI("https://good.example/" + strings.Repeat("a", 100<<10))))},
		vector{row: "C40", variant: "the expected octets", want: forwarded, reason: "ok", expect: expected, message: csr(withSAN(wire.URI("https://good.example/a%2Fb")))},
		vector{row: "C40", variant: "registrations of what no request may carry", want: cfg, act: func(t *try) {
			for _, uri := range []string{"https://good.example/a b", "https://good.example/%2", "//good.example/", "https://good%2eexample/", "https://good.example/ä"} {
				t.unregistrable(over(t.honest(), sanOf("uri", uri)), http.StatusUnprocessableEntity, "uri_syntax")
			}
		}},
	)
}

// rowsGeneralNames: C41 and C42, how a name is tagged and how many there are.
func rowsGeneralNames() []vector {
	name := []byte(evil)
	all := table(vector{row: "C41", want: rej, reason: "malformed_request"}, csr, []changed[wire.Request]{
		{"dNSName constructed, tag A2", withSAN(wire.TLV(0xa2, wire.IA5(evil)))},
		{"dNSName in pieces, tag A2", withSAN(wire.TLV(0xa2, wire.Octets(name[:4]), wire.Octets(name[4:])))},
		{"dNSName under the universal tag 02", withSAN(wire.TLV(0x02, name))},
		{"dNSName under the application tag 42", withSAN(wire.TLV(0x42, name))},
		{"dNSName under the private tag C2", withSAN(wire.TLV(0xc2, name))},
		{"dNSName under the high tag 9F 02", withSAN(append([]byte{0x9f, 0x02, byte(len(name))}, name...))},
		{"dNSName as a bare IA5String", withSAN(wire.IA5(evil))},
		{"dNSName within a SEQUENCE of its own", withSAN(wire.Sequence(wire.DNS(evil)))},
		{"a name of tag 89, which there is not", withSAN(wire.Implicit(9, name))},
		{"otherName primitive, tag 80", withSAN(wire.Implicit(0, wire.Value(wire.UPN("ann@evil.example"))))},
		{"directoryName primitive, tag 84", withSAN(wire.Implicit(4, wire.CommonName("administrator")))},
		{"SAN as a SET", func(_ *try, r *wire.Request) {
			r.Extend(wire.Extension(wire.OIDSubjectAltName, false, wire.Set(wire.DNS(evil))))
		}},
		{"SAN as a bare name", func(_ *try, r *wire.Request) { r.Extend(wire.Extension(wire.OIDSubjectAltName, false, wire.DNS(evil))) }},
	})
	many := func(n int) (names []string, der [][]byte) {
		for i := range n {
			names = append(names, fmt.Sprintf("n%d", i))
			der = append(der, wire.DNS(names[i]))
		}
		return names, der
	}
	names, der := many(64)
	malformed := vector{row: "C42", want: rej, reason: "malformed_request", expect: sanOf("dns", good)}
	all = append(all, table(malformed, csr, []changed[wire.Request]{
		{"a SAN without a name", withSAN()},
		{"the expected name twice", withSAN(wire.DNS(good), wire.DNS(good))},
		{"the expected name twice, once in upper case", withSAN(wire.DNS(good), wire.DNS(strings.ToUpper(good)))},
		{"the expected name among 65", withSAN(append([][]byte{wire.DNS(good)}, der...)...)},
		{"10,000 names", func(_ *try, r *wire.Request) {
			var list [][]byte
			for i := range 10000 {
				list = append(list, wire.DNS(string([]byte{byte('a' + i/26%26), byte('a' + i%26)})))
			}
			r.Extend(wire.SAN(list...))
		}},
	})...)
	return append(all,
		vector{row: "C42", variant: "64 names, as registered", want: forwarded, reason: "ok", expect: sanOf("dns", names...), message: csr(withSAN(der...))},
		vector{row: "C42", variant: "63 of 64 expected names", want: rejStrike, reason: "san_mismatch", expect: sanOf("dns", names...), message: csr(withSAN(der[1:]...))},
		vector{row: "C42", variant: "registrations of one name twice, and of 65", want: cfg, act: func(t *try) {
			t.unregistrable(over(t.honest(), sanOf("dns", good, good)), http.StatusUnprocessableEntity, "duplicate")
			t.unregistrable(over(t.honest(), sanOf("dns", good, strings.ToUpper(good))), http.StatusUnprocessableEntity, "duplicate")
			t.unregistrable(over(t.honest(), sanOf("dns", append(names, good)...)), http.StatusUnprocessableEntity, "too_many")
		}},
	)
}

// rowsNameExpectations: C43, names as text.
func rowsNameExpectations() []vector {
	text := func(subject string) map[string]any { return map[string]any{"subject": subject} }
	ou := rdn(wire.OIDOrgUnit, wire.UTF8("admins"))
	value := cn(wire.UTF8("a,OU=admins"))
	filled := map[string]any{"subject": "CN=%Name%", "variables": map[string]string{"Name": "a,OU=admins"}}
	joined := cn(wire.UTF8("a+OU=admins"))
	plain := cn(wire.UTF8("a"))
	all := []vector{
		{row: "C43", variant: `one value with a comma, registered as CN=a\,OU\=admins`, want: forwarded, reason: "ok", expect: text(`CN=a\,OU\=admins`), message: csr(withSubject(value))},
		{row: "C43", variant: `two RDNs, registered as CN=a\,OU\=admins`, want: rejStrike, reason: "subject_mismatch", expect: text(`CN=a\,OU\=admins`), message: csr(withSubject(ou, plain))},
		{row: "C43", variant: "one value with a comma, registered as CN=a,OU=admins", want: rejStrike, reason: "subject_mismatch", expect: text("CN=a,OU=admins"), message: csr(withSubject(value))},
		{row: "C43", variant: "two RDNs, registered as CN=a,OU=admins", want: forwarded, reason: "ok", expect: text("CN=a,OU=admins"), message: csr(withSubject(ou, plain))},
		{row: "C43", variant: "one value with a plus, registered as CN=a+OU=admins", want: rejStrike, reason: "subject_mismatch", expect: text("CN=a+OU=admins"), message: csr(withSubject(joined))},
		{row: "C43", variant: `CN=a\, written into the value, registered as CN=a\,b`, want: rejStrike, reason: "subject_mismatch", expect: text(`CN=a\,b`), message: csr(withSubject(cn(wire.UTF8(`a\,b`))))},
		{row: "C43", variant: "a variable with a comma: one value", want: forwarded, reason: "ok", expect: filled, message: csr(withSubject(value))},
		{row: "C43", variant: "a variable with a comma: two RDNs", want: rejStrike, reason: "subject_mismatch", expect: filled, message: csr(withSubject(ou, plain))},
		{row: "C43", variant: "an umlaut registered as escaped octets", want: forwarded, reason: "ok", expect: text(`CN=M\C3\BCller 2`), message: csr(withSubject(cn(wire.UTF8("Müller 2"))))},
		{row: "C43", variant: "the type written as its OID", want: forwarded, reason: "ok", expect: text("2.5.4.3=by oid"), message: csr(withSubject(cn(wire.UTF8("by oid"))))},
	}
	for _, r := range []struct{ subject, code string }{
		{`CN=#0C0161`, "subject_syntax"}, {`CN=a\`, "subject_syntax"}, {`CN=a\xb`, "subject_syntax"}, {`CN="a,OU=admins"`, "subject_syntax"},
		{`CN=a;OU=admins`, "subject_syntax"}, {"CN", "subject_syntax"}, {"CN=a,", "subject_syntax"}, {"CN= a", "subject_syntax"}, {"CN=a ", "subject_syntax"},
		{`CN=\FF`, "subject_syntax"}, {"nothing=a", "subject_syntax"}, {`CN=a\00b`, "value_characters"}, {`CN=a\0Ab`, "value_characters"}, {"CN=", "value_empty"},
		{"CN=a,CN=b", "common_names"}, {"CN=a+CN=b", "common_names"},
	} {
		all = append(all, vector{row: "C43", variant: "registration of " + r.subject, want: cfg, act: func(t *try) {
			t.unregistrable(over(t.honest(), text(r.subject)), http.StatusUnprocessableEntity, r.code)
		}})
	}
	return all
}
