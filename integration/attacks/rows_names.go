package main

import (
	"net/http"
	"strings"

	"github.com/scepgate/scepgate/integration/wire"
)

// rowsNames: C2, names that two readers take for two.
func rowsNames() []vector {
	return byRow(rowsNameStructure(), rowsNameStrings(), rowsNameText(), rowsAltNames(), rowsURIs(), rowsGeneralNames(), rowsNameExpectations())
}

// rowsNameStructure: C24–C27 and C29, the RDNs.
func rowsNameStructure() []vector {
	o := rdn(wire.OIDOrganization, wire.UTF8("Example Corp"))
	c := rdn(wire.OIDCountry, wire.Printable("DE"))
	all := table(vector{row: "C24", want: rej, reason: "subject_mismatch"}, csr, []changed[wire.Request]{
		{"CN=administrator, then the expected CN", func(t *try, r *wire.Request) {
			r.Subject = wire.Name(cn(wire.UTF8("administrator")), cn(wire.UTF8(t.CN)))
		}},
		{"the expected CN, then CN=administrator", func(t *try, r *wire.Request) {
			r.Subject = wire.Name(cn(wire.UTF8(t.CN)), cn(wire.UTF8("administrator")))
		}},
		{"the expected CN twice", func(t *try, r *wire.Request) {
			r.Subject = wire.Name(cn(wire.UTF8(t.CN)), cn(wire.UTF8(t.CN)))
		}},
		{"an OU beside the expected CN", func(t *try, r *wire.Request) {
			r.Subject = wire.Name(rdn(wire.OIDOrgUnit, wire.UTF8("admins")), cn(wire.UTF8(t.CN)))
		}},
	})

	a, ou := wire.ATV(wire.OIDCommonName, wire.UTF8("joint")), wire.ATV(wire.OIDOrgUnit, wire.UTF8("WiFi"))
	joint, apart := map[string]any{"subject": "CN=joint+OU=WiFi"}, map[string]any{"subject": "CN=joint,OU=WiFi"}
	all = append(all,
		vector{row: "C25", variant: "the expected CN and CN=zz in one RDN", want: rej, reason: "subject_mismatch",
			message: csr(func(t *try, r *wire.Request) {
				r.Subject = wire.Name(wire.RDN(wire.ATV(wire.OIDCommonName, wire.UTF8(t.CN)), wire.ATV(wire.OIDCommonName, wire.UTF8(t.CN+"zz"))))
			})},
		vector{row: "C25", variant: "CN and OU in one RDN, as registered", want: forwarded, reason: "ok", expect: joint, message: csr(withSubject(wire.RDN(ou, a)))},
		vector{row: "C25", variant: "CN and OU in one RDN, registered as two", want: rej, reason: "subject_mismatch", expect: apart, message: csr(withSubject(wire.RDN(ou, a)))},
		vector{row: "C25", variant: "CN and OU in two RDNs, registered as one", want: rej, reason: "subject_mismatch", expect: joint, message: csr(withSubject(wire.RDN(ou), wire.RDN(a)))},
		vector{row: "C25", variant: "CN and OU in one RDN, as registered, not in the order of a SET OF", want: rej, reason: "malformed_request", expect: joint, message: csr(withSubject(wire.RDN(a, ou)))},
		vector{row: "C25", variant: "the expected CN twice in one RDN", want: rej, reason: "malformed_request",
			message: csr(func(t *try, r *wire.Request) {
				a := wire.ATV(wire.OIDCommonName, wire.UTF8(t.CN))
				r.Subject = wire.Name(wire.RDN(a, a))
			})},
		vector{row: "C25", variant: "an RDN of nine attributes", want: rej, reason: "malformed_request",
			message: csr(func(t *try, r *wire.Request) {
				var list [][]byte
				for i := range 9 {
					list = append(list, wire.ATV(wire.OIDOrgUnit, wire.UTF8(string(rune('a'+i)))))
				}
				r.Subject = wire.Name(wire.RDN(list...), cn(wire.UTF8(t.CN)))
			})},
	)

	// Contract §4.1 over catalogue: the CA rebuilds the order, so it is ignored;
	// how often an RDN stands is not.
	ordered := map[string]any{"subject": "CN=ordered,O=Example Corp,C=DE"}
	name := cn(wire.UTF8("ordered"))
	for _, v := range []struct {
		variant string
		subject func(*try, *wire.Request)
	}{
		{"RDNs C, O, CN, registered as text CN=…,O=…,C=…", withSubject(c, o, name)},
		{"RDNs CN, O, C, registered as text CN=…,O=…,C=…", withSubject(name, o, c)},
		{"RDNs O, CN, C, registered as text CN=…,O=…,C=…", withSubject(o, name, c)},
	} {
		all = append(all, vector{row: "C26", variant: v.variant, want: forwarded, reason: "ok", expect: ordered, message: csr(v.subject)})
	}
	twice := rdn(wire.OIDOrganization, wire.Printable("Example Corp"))
	all = append(all, table(vector{row: "C26", want: rejStrike, reason: "subject_mismatch", expect: ordered}, csr, []changed[wire.Request]{
		{"an expected RDN twice", withSubject(c, o, o, name)},
		{"an expected RDN twice, in two string types", withSubject(c, o, twice, name)},
		{"an expected RDN left out", withSubject(c, name)},
		{"two values exchanged between their types", withSubject(c, rdn(wire.OIDOrganization, wire.UTF8("ordered")), cn(wire.UTF8("Example Corp")))},
	})...)

	all = append(all, table(vector{row: "C27", want: rej, reason: "malformed_request"}, csr, []changed[wire.Request]{
		{"an empty RDN before the expected CN", func(t *try, r *wire.Request) { r.Subject = wire.Name(wire.Set(), cn(wire.UTF8(t.CN))) }},
		{"an empty RDN behind the expected CN", func(t *try, r *wire.Request) { r.Subject = wire.Name(cn(wire.UTF8(t.CN)), wire.Set()) }},
		{"an empty RDN alone", withSubject(wire.Set())},
		{"an RDN that is a SEQUENCE", func(t *try, r *wire.Request) {
			r.Subject = wire.Name(wire.Sequence(wire.ATV(wire.OIDCommonName, wire.UTF8(t.CN))))
		}},
	})...)
	nameless := map[string]any{"subject": nil, "san": map[string]any{"dns": []string{good}}}
	empty := func(_ *try, r *wire.Request) { r.Subject = wire.Name(); r.Extend(wire.SAN(wire.DNS(good))) }
	return append(all,
		vector{row: "C29", variant: "an empty subject where a CN is expected", want: rejStrike, reason: "subject_mismatch", expect: sanOf("dns", good), message: csr(empty)},
		vector{row: "C29", variant: "an empty subject, registered so, with the expected SAN", want: forwarded, reason: "ok", expect: nameless, message: csr(empty)},
		vector{row: "C29", variant: "a CN where the subject must be empty", want: rejStrike, reason: "subject_mismatch", expect: nameless, message: csr(withSAN(wire.DNS(good)))},
		vector{row: "C29", variant: "a registration of no subject and no name at all", want: cfg, act: func(t *try) {
			t.unregistrable(over(t.honest(), map[string]any{"subject": nil}), http.StatusUnprocessableEntity, "identity_empty")
		}},
	)
}

// rowsNameStrings: C28 and C30–C33, how a value can be written.
func rowsNameStrings() []vector {
	malformed := func(row string) vector { return vector{row: row, want: rej, reason: "malformed_request"} }
	value := func(write func(name string) []byte) func(*try, *wire.Request) {
		return func(t *try, r *wire.Request) { r.Subject = wire.Name(cn(write(t.CN))) }
	}
	all := table(malformed("C28"), csr, []changed[wire.Request]{
		{"CN as INTEGER", value(func(string) []byte { return wire.Int(4711) })},
		{"CN as OCTET STRING", value(func(n string) []byte { return wire.Octets([]byte(n)) })},
		{"CN as BIT STRING", value(func(n string) []byte { return wire.Bits([]byte(n)) })},
		{"CN as SEQUENCE of an UTF8String", value(func(n string) []byte { return wire.Sequence(wire.UTF8(n)) })},
		{"CN as SET of an UTF8String", value(func(n string) []byte { return wire.Set(wire.UTF8(n)) })},
		{"CN as UniversalString", value(wire.Universal)},
		{"CN as NULL", value(func(string) []byte { return wire.Null() })},
		{"CN as NumericString", value(func(string) []byte { return wire.TLV(0x12, []byte("4711")) })},
		{"CN as VisibleString", value(func(n string) []byte { return wire.TLV(0x1a, []byte(n)) })},
		{"CN as IA5String", value(wire.IA5)},
		{"CN under a context-specific tag", value(func(n string) []byte { return wire.Implicit(0, []byte(n)) })},
		{"CN as OBJECT IDENTIFIER", value(func(string) []byte { return wire.OID("1.2.3.4") })},
	})
	all = append(all, vector{row: "C28", variant: "a CN as INTEGER where no CN is expected", want: rej, reason: "malformed_request",
		expect: map[string]any{"subject": "O=Example Corp", "san": map[string]any{"dns": []string{good}}},
		message: csr(func(t *try, r *wire.Request) {
			r.Extend(wire.SAN(wire.DNS(good)))
			r.Subject = wire.Name(rdn(wire.OIDOrganization, wire.UTF8("Example Corp")), cn(wire.Int(1)))
		})})
	all = append(all, table(malformed("C30"), csr, []changed[wire.Request]{
		{"CN as BMPString", value(wire.BMP)},
		{"CN as BMPString with a trailing NUL", value(func(n string) []byte { return wire.BMP(n + "\x00") })},
		{"CN as BMPString with a NUL within", value(func(n string) []byte { return wire.BMP(n + "\x00evil") })},
		{"CN as BMPString of an odd length", value(func(n string) []byte { return wire.TLV(0x1e, wire.Value(wire.BMP(n)), []byte{0}) })},
		{"CN as BMPString with a lone surrogate", value(func(n string) []byte { return wire.TLV(0x1e, wire.Value(wire.BMP(n)), []byte{0xd8, 0x01}) })},
		{"CN as BMPString with a pair of surrogates", value(func(n string) []byte {
			return wire.TLV(0x1e, wire.Value(wire.BMP(n)), []byte{0xd8, 0x3d, 0xde, 0x00})
		})},
	})...)
	all = append(all, table(malformed("C31"), csr, []changed[wire.Request]{
		{"CN as TeletexString of ASCII", value(wire.T61)},
		{"CN as TeletexString with octet E9", value(func(n string) []byte { return wire.T61(n + "\xe9") })},
		{"CN as TeletexString with an escape sequence", value(func(n string) []byte { return wire.T61(n + "\x1b%/B") })},
		{"CN as GeneralString", value(func(n string) []byte { return wire.TLV(0x1b, []byte(n)) })},
		{"CN as UTF8String that is Latin-1", value(func(n string) []byte { return wire.UTF8(n + "\xe9") })},
		{"CN as UTF8String with an overlong sequence", value(func(n string) []byte { return wire.UTF8(n + "\xc0\xaf") })},
		{"CN as UTF8String with an encoded surrogate", value(func(n string) []byte { return wire.UTF8(n + "\xed\xa0\x80") })},
	})...)
	for _, c := range []string{"*", "&", "@", "_", "!", "\"", ";", "<", "\\", "é"} {
		all = append(all, table(malformed("C32"), csr, []changed[wire.Request]{
			{"PrintableString with " + c, value(func(n string) []byte { return wire.Printable(n + c) })},
		})...)
	}
	const alphabet = "a'()+,-./:=? Z9"
	all = append(all, vector{row: "C32", variant: "PrintableString with all that it has, as registered", want: forwarded, reason: "ok",
		expect:  map[string]any{"subject": nil, "subject_rdns": [][]map[string]string{{{"type": "CN", "value": alphabet}}}},
		message: csr(withSubject(cn(wire.Printable(alphabet))))})
	nul := func(t *try) string { return t.CN + "\x00evil" }
	return append(all, table(malformed("C33"), csr, []changed[wire.Request]{
		{"NUL in a CN, UTF8String", func(t *try, r *wire.Request) { r.Subject = wire.Name(cn(wire.UTF8(nul(t)))) }},
		{"NUL in a CN, PrintableString", func(t *try, r *wire.Request) { r.Subject = wire.Name(cn(wire.Printable(nul(t)))) }},
		{"NUL at the end of a CN", func(t *try, r *wire.Request) { r.Subject = wire.Name(cn(wire.UTF8(t.CN + "\x00"))) }},
		{"NUL in an e-mail address of the subject", func(t *try, r *wire.Request) {
			r.Subject = wire.Name(cn(wire.UTF8(t.CN)), rdn(wire.OIDEmailAddress, wire.IA5("ann@example.com\x00.evil")))
		}},
		{"NUL in a domain component", func(t *try, r *wire.Request) {
			r.Subject = wire.Name(rdn(wire.OIDDomain, wire.IA5("example\x00evil")), cn(wire.UTF8(t.CN)))
		}},
		{"NUL in a dNSName", withSAN(wire.DNS("good.example\x00.evil"))},
		{"NUL in an rfc822Name", withSAN(wire.Email("ann@good.example\x00.evil"))},
		{"NUL in a URI", withSAN(wire.URI("https://good.example\x00.evil/"))},
		{"NUL in a UPN", withSAN(wire.UPN("ann@good.example\x00.evil"))},
		{"NUL in the challenge", func(t *try, r *wire.Request) {
			r.Challenge = [][]byte{wire.ChallengePassword(wire.UTF8(t.Challenge + "\x00"))}
		}},
		{"NUL in a template name", func(_ *try, r *wire.Request) {
			r.Extend(wire.Extension(wire.OIDMSTemplateName, false, wire.BMP("WiFiClient\x00")))
		}},
		{"NUL in a SID", func(_ *try, r *wire.Request) { r.Extend(wire.SID("S-1-5-21-1-2-3-1104\x00")) }},
		{"NUL in the OS version", func(_ *try, r *wire.Request) { r.Attributes = [][]byte{osVersion("10.0\x00")} }},
		{"NUL in the name of a CSP", func(_ *try, r *wire.Request) { r.Attributes = [][]byte{enrollmentCSP(wire.BMP("CSP\x00"))} }},
		{"NUL in the name of a process", func(_ *try, r *wire.Request) { r.Attributes = [][]byte{clientInfo(wire.UTF8("certreq.exe\x00"))} }},
	})...)
}

// rowsNameText: C34 and C35, text that looks like other text.
func rowsNameText() []vector {
	var all []vector
	for _, c := range []struct{ name, text string }{
		{"U+202E right-to-left override", "\u202e"}, {"U+2066 isolate", "\u2066"}, {"U+200F right-to-left mark", "\u200f"},
		{"U+200B zero-width space", "\u200b"}, {"U+200D zero-width joiner", "\u200d"}, {"U+FEFF no-break", "\ufeff"},
		{"U+00AD soft hyphen", "\u00ad"}, {"U+2028 line separator", "\u2028"}, {"U+000A line feed", "\n"}, {"U+0085 next line", "\u0085"},
		{"U+E000 private", "\ue000"}, {"U+FE0F variation selector", "\ufe0f"}, {"U+E0041 tag", "\U000e0041"}, {"U+FFFE no character", "\ufffe"},
		{"U+115F filler", "\u115f"},
	} {
		all = append(all, table(vector{row: "C34", want: rej, reason: "malformed_request"}, csr, []changed[wire.Request]{
			{c.name + " in the CN", func(t *try, r *wire.Request) { r.SetSubject(t.CN + c.text) }},
		})...)
	}
	differs := vector{row: "C34", want: rejStrike, reason: "subject_mismatch"}
	all = append(all, table(differs, csr, []changed[wire.Request]{
		{"a Cyrillic е in the CN", func(t *try, r *wire.Request) { r.SetSubject(strings.Replace(t.CN, "e", "\u0435", 1)) }},
		{"a full-width e in the CN", func(t *try, r *wire.Request) { r.SetSubject(strings.Replace(t.CN, "e", "\uff45", 1)) }},
		{"a combining accent in the CN", func(t *try, r *wire.Request) { r.SetSubject(strings.Replace(t.CN, "e", "e\u0301", 1)) }},
		{"a non-breaking hyphen in the CN", func(t *try, r *wire.Request) { r.SetSubject(strings.Replace(t.CN, "-", "\u2011", 1)) }},
	})...)
	const composed, decomposed = "Müller", "Mu\u0308ller"
	all = append(all,
		vector{row: "C34", variant: "CN=Müller, as registered", want: forwarded, reason: "ok",
			expect: map[string]any{"subject": "CN=" + composed}, message: csr(withSubject(cn(wire.UTF8(composed))))},
		vector{row: "C34", variant: "CN=Müller, decomposed", want: rejStrike, reason: "subject_mismatch",
			expect: map[string]any{"subject": "CN=" + composed}, message: csr(withSubject(cn(wire.UTF8(decomposed))))},
		vector{row: "C34", variant: "a UPN with a Kelvin sign for its k", want: rejStrike, reason: "san_mismatch",
			expect: sanOf("upn", "kim@example.com"), message: csr(withSAN(wire.UPN("\u212aim@example.com")))},
		vector{row: "C34", variant: "registrations of text that hides or reorders", want: cfg, act: func(t *try) {
			for _, text := range []string{"ann\u202e", "ann\u200b", "ann\u00ad", "ann\ufe0f", "ann\u2028", decomposed} {
				t.unregistrable(over(t.honest(), map[string]any{"subject": "CN=" + text}), http.StatusUnprocessableEntity, "value_characters")
			}
		}},
		vector{row: "C34", variant: "registrations of administrator in look-alikes that a directory folds", want: cfg, act: func(t *try) {
			for _, name := range []string{"ＡＤＭＩＮＩＳＴＲＡＴＯＲ", "Ａdministrator", "àdministrator", "ADMINISTRATOR", "Administrator."} {
				t.unregistrable(over(t.honest(), map[string]any{"subject": "CN=" + name}), http.StatusUnprocessableEntity, "identity_forbidden")
			}
		}},
	)
	all = append(all, table(vector{row: "C35", want: rejStrike, reason: "subject_mismatch"}, csr, []changed[wire.Request]{
		{"the expected CN in upper case", func(t *try, r *wire.Request) { r.SetSubject(strings.ToUpper(t.CN)) }},
		{"the expected CN with a space behind it", func(t *try, r *wire.Request) { r.SetSubject(t.CN + " ") }},
		{"the expected CN with a space before it", func(t *try, r *wire.Request) { r.SetSubject(" " + t.CN) }},
	})...)
	return append(all,
		vector{row: "C35", variant: "two spaces where one is expected", want: rejStrike, reason: "subject_mismatch",
			expect: map[string]any{"subject": "CN=a b"}, message: csr(withSubject(cn(wire.UTF8("a  b"))))},
		vector{row: "C35", variant: "no-break space where a space is expected", want: rejStrike, reason: "subject_mismatch",
			expect: map[string]any{"subject": "CN=a c"}, message: csr(withSubject(cn(wire.UTF8("a\u00a0c"))))},
		vector{row: "C35", variant: "a name that is registered in another case too", want: rejStrike, reason: "subject_mismatch", expect: map[string]any{"subject": "CN=twin"},
			message: csr(func(t *try, r *wire.Request) {
				_, status, refusal := t.register(t.Token, t.profile(), map[string]any{"subject": "CN=TWIN", "challenge": newChallenge()})
				if status != http.StatusCreated {
					t.failf("registering the other: %d %s", status, refusal)
				}
				r.SetSubject("TWIN")
			})},
	)
}
