package main

import (
	"net/http"

	"github.com/scepgate/scepgate/integration/wire"
)

// rowsSharedChallenge: A10, one challenge for many devices.
func rowsSharedChallenge() []vector {
	// The static password is everybody's. Who asks for a name that nobody
	// registered cannot be held against a device.
	static := func(variant string, v vector) vector {
		v.row, v.variant, v.profile = "A10", variant, "static"
		return v
	}
	return []vector{
		{row: "A10", variant: "a challenge that is registered for another device, again", want: cfg, act: func(t *try) {
			id := t.registers("wifi", nil)
			t.conflicts("wifi", map[string]any{"external_id": "attacks:2:" + t.CN, "subject": "CN=" + t.CN + "-2"}, "challenge_in_use")
			t.revokes("wifi", id)
		}},
		{row: "A10", variant: "a one-time challenge that is registered for another device, again", want: cfg, profile: "onetime", act: func(t *try) {
			id := t.registers("onetime", nil)
			t.conflicts("onetime", map[string]any{"external_id": "attacks:2:" + t.CN, "subject": "CN=" + t.CN + "-2"}, "challenge_in_use")
			t.revokes("onetime", id)
		}},
		static("the static password with the registered name", vector{want: forwarded, reason: "ok"}),
		static("the static password with a name that is not registered", vector{want: rej, reason: "identity_unknown",
			message: csr(func(t *try, r *wire.Request) { r.SetSubject(t.CN + "-2") })}),
		static("the static password with a registered name and one more", vector{want: rej, reason: "identity_unknown",
			message: askingFor(wire.SAN(wire.DNS("victim.example.com")))}),
		static("the registered name with another password", vector{want: rej, reason: "challenge_unknown",
			message: csr(func(_ *try, r *wire.Request) {
				r.Challenge = [][]byte{wire.ChallengePassword(wire.Printable(staticPassword + "1"))}
			})}),
		static("the static password, registered as a challenge", vector{want: cfg, act: func(t *try) {
			t.unprocessable(map[string]any{"challenge": "ABCDEFGHIJKLMNOP"}, "challenge_not_allowed")
		}}),
		static("one identity, registered twice", vector{want: cfg, act: func(t *try) {
			id := t.registers("static", nil)
			t.conflicts("static", map[string]any{"external_id": "attacks:2:" + t.CN}, "identity_in_use")
			t.revokes("static", id)
		}}),
		static("an identity that a pattern leaves open, registered", vector{want: cfg, act: func(t *try) {
			t.unprocessable(map[string]any{"subject": nil, "subject_rdns": rdnRule("CN", "prefix", "dev-")}, "patterns_not_allowed")
		}}),
	}
}

// rdnRule is a subject of one RDN that is matched in some way.
func rdnRule(typ, match, value string) any {
	rule := map[string]any{"type": typ, "match": match}
	if value != "" {
		rule["value"] = value
	}
	return [][]any{{rule}}
}

// rowsExpectation: A16 and A17, an expectation that is not one identity.
func rowsExpectation() []vector {
	refused := func(variant, code string, e map[string]any) vector {
		return vector{row: "A16", variant: variant + ", registered", want: cfg, act: func(t *try) { t.unprocessable(e, code) }}
	}
	subject := func(s string) map[string]any { return map[string]any{"subject": s} }
	serial := map[string]any{"subject": "CN=%SerialNumber%", "variables": map[string]string{"SerialNumber": "C02XK1"}}
	comma := map[string]any{"subject": "CN=%Name%", "variables": map[string]string{"Name": "x,O=Domain Admins"}}
	pattern := func(match, value string) map[string]any {
		return map[string]any{"subject": nil, "subject_rdns": rdnRule("CN", match, value)}
	}
	rows := []vector{}
	for _, placeholder := range []string{"%SerialNumber%", "{{device}}", "${SerialNumber}", "$SERIALNUMBER", "{device}", "dev-%HardwareUUID%", `\25SerialNumber\25`} {
		rows = append(rows, refused("subject CN="+placeholder, "placeholder_unresolved", subject("CN="+placeholder)))
	}
	rows = append(rows,
		refused("subject CN=*", "wildcard", subject("CN=*")),
		refused("subject CN=dev-*", "wildcard", subject("CN=dev-*")),
		refused("an empty subject and nothing else", "identity_empty", subject("")),
		refused("neither subject nor alternative name nor SID", "identity_empty", map[string]any{"subject": nil}),
		refused("dNSName *.example.com", "wildcard", map[string]any{"san": map[string]any{"dns": []string{"*.example.com"}}}),
		refused("dNSName {{name}}.example.com", "placeholder_unresolved", map[string]any{"san": map[string]any{"dns": []string{"{{name}}.example.com"}}}),
		refused("UPN %UserName%@example.com", "placeholder_unresolved", map[string]any{"san": map[string]any{"upn": []string{"%UserName%@example.com"}}}),
		refused("challenge %CHALLENGE%", "placeholder_unresolved", map[string]any{"challenge": "%CHALLENGE%"}),
		refused("a variable that stands for a placeholder", "placeholder_unresolved",
			map[string]any{"subject": "CN=%Name%", "variables": map[string]string{"Name": "%Other%"}}))
	for _, match := range []string{"regex", "prefix", "exact_ignore_case"} {
		rows = append(rows, refused("match "+match+" where patterns are not allowed", "patterns_not_allowed", pattern(match, "dev-1")))
	}
	rows = append(rows, refused("match any where patterns are not allowed", "patterns_not_allowed", pattern("any", "")))
	allowed := func(variant, code string, e map[string]any) {
		v := refused(variant+", where patterns are allowed", code, e)
		v.profile = "patterns"
		rows = append(rows, v)
	}
	allowed("a subject that may be anything", "identity_empty", pattern("any", ""))
	allowed("a subject of regex .*", "identity_empty", pattern("regex", ".*"))
	allowed("a regex for administrators", "identity_forbidden", pattern("regex", "(?i)administrator"))
	allowed("a prefix with *", "wildcard", pattern("prefix", "dev-*"))

	rows = append(rows,
		vector{row: "A16", variant: "the placeholder's value", want: forwarded, reason: "ok", expect: serial,
			message: csr(func(_ *try, r *wire.Request) { r.SetSubject("C02XK1") })},
		vector{row: "A16", variant: "the placeholder itself as the subject", want: rejStrike, reason: "subject_mismatch", expect: serial,
			message: csr(func(_ *try, r *wire.Request) { r.SetSubject("%SerialNumber%") })},
		vector{row: "A16", variant: "two RDNs where a value has a comma", want: rejStrike, reason: "subject_mismatch", expect: comma,
			message: named(single(wire.OIDCommonName, "x"), single(wire.OIDOrganization, "Domain Admins"))},
		vector{row: "A16", variant: "one RDN with the comma in its value", want: forwarded, reason: "ok", expect: comma,
			message: csr(func(_ *try, r *wire.Request) { r.SetSubject("x,O=Domain Admins") })},
		vector{row: "A16", variant: "a name with the prefix in its middle", want: rejStrike, reason: "subject_mismatch", profile: "patterns",
			expect: pattern("prefix", "kiosk-"), message: csr(func(_ *try, r *wire.Request) { r.SetSubject("admin-kiosk-1") })},
		vector{row: "A16", variant: "a name that the regex matches in part", want: rejStrike, reason: "subject_mismatch", profile: "patterns",
			expect: pattern("regex", "kiosk-[0-9]+"), message: csr(func(_ *try, r *wire.Request) { r.SetSubject("kiosk-1.admin") })},
		vector{row: "A16", variant: "administrator, which a wide pattern lets through", want: rejStrike, reason: "subject_mismatch", profile: "patterns",
			expect: pattern("regex", "[a-z0-9-]{3,20}"), message: csr(func(_ *try, r *wire.Request) { r.SetSubject("administrator") })})
	return append(rows, rowsMixed()...)
}

// rowsMixed: A17, parts of two expectations in one request.
func rowsMixed() []vector {
	sid := "S-1-5-21-1-2-3-2204"
	first := map[string]any{"san": map[string]any{"dns": []string{"first.example.com"}}, "sid": ownSID}
	second := func(t *try) map[string]any {
		return map[string]any{
			"external_id": "attacks:second:" + t.CN, "challenge": newChallenge(), "subject": "CN=" + t.CN + "-second",
			"san": map[string]any{"dns": []string{"second.example.com"}}, "sid": sid,
			"key_usage": []string{"digitalSignature"}, "ext_key_usage": []string{"clientAuth", "ipsecUser"},
		}
	}
	parts := []struct{ name, reason string }{
		{"subject", "subject_mismatch"}, {"alternative name", "san_mismatch"}, {"SID", "sid_mismatch"},
		{"key usage", "key_usage_mismatch"}, {"extended key usage", "ext_key_usage_mismatch"},
	}
	// from makes a request of the second's parts where mine says so.
	from := func(t *try, theirs func(part int) bool) {
		pick := func(part int, own, other []byte) []byte {
			if theirs(part) {
				return other
			}
			return own
		}
		t.M.Request.Subject = pick(0, wire.CommonName(t.CN), wire.CommonName(t.CN+"-second"))
		t.M.Request.Extensions = [][]byte{
			pick(1, wire.SAN(wire.DNS("first.example.com")), wire.SAN(wire.DNS("second.example.com"))),
			pick(2, wire.SID(ownSID), wire.SID(sid)),
			pick(3, wire.KeyUsage(5, 0xa0), wire.KeyUsage(7, 0x80)),
			pick(4, wire.ExtKeyUsage(wire.EKUClientAuth), wire.ExtKeyUsage(wire.EKUClientAuth, ekuIPsecUser)),
		}
	}
	mixed := func(variant, reason string, theirs func(part int) bool) vector {
		return vector{row: "A17", variant: variant, want: asDescribed, expect: first, act: func(t *try) {
			id := t.registers("wifi", second(t))
			from(t, theirs)
			t.refuses(t.M.Bytes(), reason)
			t.struck(t.ID)
			t.untouched("wifi", id)
		}}
	}
	rows := []vector{{row: "A17", variant: "everything of the one whose challenge it is", want: forwarded, reason: "ok", expect: first,
		message: func(t *try) { from(t, func(int) bool { return false }) }}}
	for i, p := range parts {
		first := parts[0].reason // of what then differs
		if i == 0 {
			first = parts[1].reason
		}
		rows = append(rows,
			mixed("the "+p.name+" of another device, the rest as registered", p.reason, func(part int) bool { return part == i }),
			mixed("the "+p.name+" as registered, the rest of another device", first, func(part int) bool { return part != i }))
	}
	return append(rows,
		mixed("everything of one under the challenge of another", "subject_mismatch", func(int) bool { return true }),
		vector{row: "A17", variant: "subject of one, alternative name of another, under the static password", want: asDescribed, profile: "static",
			unregistered: true, act: func(t *try) {
				own := t.registers("static", map[string]any{"san": map[string]any{"dns": []string{t.CN + ".example.com"}}})
				other := t.registers("static", map[string]any{"external_id": "attacks:second:" + t.CN, "subject": "CN=" + t.CN + "-second",
					"san": map[string]any{"dns": []string{t.CN + "-second.example.com"}}})
				t.M.Request.Extend(wire.SAN(wire.DNS(t.CN + "-second.example.com")))
				t.refuses(t.M.Bytes(), "identity_unknown")
				t.untouched("static", own)
				t.untouched("static", other)
			}},
		vector{row: "A17", variant: "two subjects in one registration", want: cfg, act: func(t *try) {
			t.unregistrable(over(t.honest(), map[string]any{"subject_rdns": rdnRule("CN", "exact", "second")}), http.StatusUnprocessableEntity, "subject_twice")
		}})
}
