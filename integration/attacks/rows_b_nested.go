package main

import (
	"bytes"
	"crypto"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"strings"

	"github.com/scepgate/scepgate/integration/attack"
	"github.com/scepgate/scepgate/integration/wire"
)

// rowsNested: B30 and B31, another request format in the envelope, or one
// around the PKCS#10.
func rowsNested() []vector {
	const (
		oidPKIData     = "1.3.6.1.5.5.7.12.2"
		oidRegInfo     = "1.3.6.1.5.5.7.7.18"
		oidAddAttrs    = "1.3.6.1.4.1.311.10.10.1"
		oidAddExts     = "1.3.6.1.5.5.7.7.8"
		oidRequestInfo = "1.3.6.1.4.1.311.10.10"
	)
	enveloped := func(row, variant string, plaintext func(t *try) []byte) vector {
		return vector{row: row, variant: variant, want: rej, reason: "malformed_request", message: func(t *try) { t.M.Plaintext = plaintext(t) }}
	}
	pkcs10 := func(t *try) []byte { return t.M.Request.Bytes() }
	// cmc is a full PKI request (RFC 5272 §3.2) around the honest PKCS#10.
	cmc := func(t *try, controls ...[]byte) []byte {
		data := wire.Sequence(
			wire.Sequence(controls...),
			wire.Sequence(wire.Explicit(0, wire.Int(1), pkcs10(t))),
			wire.Sequence(), wire.Sequence(),
		)
		d := wire.SignedData{Version: wire.Int(3), InnerType: wire.OID(oidPKIData), Signer: wire.Signer{
			Key: t.Device.Key, Certificate: t.Device.SelfSigned, MessageType: "19", TransactionID: "1", SenderNonce: wire.Random(16)}}
		d.Signer.Replace(wire.OIDContentType, wire.Attribute(wire.OIDContentType, wire.OID(oidPKIData)))
		return d.Bytes(data)
	}
	control := func(oid string, value []byte) []byte {
		return wire.Sequence(wire.Int(2), wire.OID(oid), wire.Set(value))
	}
	pair := wire.Sequence(wire.BMP("SAN"), wire.BMP("upn=administrator@corp.example"))
	attributes := wire.Sequence(wire.Int(0), wire.Sequence(wire.Int(1)), wire.Set(wire.Attribute(wire.OIDMSNameValuePair, pair)))
	return []vector{
		enveloped("B30", "a CMC request around the PKCS#10", func(t *try) []byte { return cmc(t) }),
		enveloped("B30", "a PKCS#7 around the PKCS#10", func(t *try) []byte {
			d := wire.SignedData{Signer: wire.Signer{Key: t.Device.Key, Certificate: t.Device.SelfSigned, MessageType: "19", TransactionID: "1", SenderNonce: wire.Random(16)}}
			return d.Bytes(pkcs10(t))
		}),
		enveloped("B30", "a ContentInfo of data around the PKCS#10", func(t *try) []byte {
			return wire.Sequence(wire.OID(wire.OIDData), wire.Explicit(0, wire.Octets(pkcs10(t))))
		}),
		enveloped("B30", "the PKCS#10 in a second envelope", func(t *try) []byte {
			e := wire.Envelope{To: t.RA}
			return e.Bytes(pkcs10(t))
		}),
		enveloped("B30", "the PKCS#10 in an OCTET STRING", func(t *try) []byte { return wire.Octets(pkcs10(t)) }),
		enveloped("B30", "the PKCS#10 in a BIT STRING", func(t *try) []byte { return wire.Bits(pkcs10(t)) }),
		enveloped("B30", "the PKCS#10 in a SEQUENCE", func(t *try) []byte { return wire.Sequence(pkcs10(t)) }),
		enveloped("B30", "the PKCS#10 as PEM", func(t *try) []byte {
			return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: pkcs10(t)})
		}),
		enveloped("B30", "the PKCS#10 as base64", func(t *try) []byte {
			return []byte(base64.StdEncoding.EncodeToString(pkcs10(t)))
		}),
		enveloped("B30", "two PKCS#10", func(t *try) []byte {
			second := t.message(t.Device)
			second.Request.SetSubject("administrator")
			return append(pkcs10(t), second.Request.Bytes()...)
		}),
		enveloped("B30", "a SignedPublicKeyAndChallenge", func(t *try) []byte {
			key := wire.Sequence(wire.PublicKey(&t.Device.Key.PublicKey), wire.IA5(t.Challenge))
			return wire.Sequence(key, wire.Algorithm(wire.OIDSHA256WithRSA), wire.Bits(wire.SignRSA(t.Device.Key, crypto.SHA256, key)))
		}),
		enveloped("B30", "a CRMF request", func(t *try) []byte {
			return wire.Sequence(wire.Sequence(wire.Sequence(wire.Int(1), wire.Sequence(
				wire.Explicit(5, t.M.Request.Subject), wire.TLV(0xa6, wire.PublicKey(&t.Device.Key.PublicKey)[4:])))))
		}),
		enveloped("B30", "a certificate", func(t *try) []byte { return t.Device.SelfSigned }),
		enveloped("B30", "nothing", func(*try) []byte { return []byte{} }),

		enveloped("B31", "a CMC with regInfo of name-value pairs", func(t *try) []byte {
			return cmc(t, control(oidRegInfo, wire.Octets([]byte("SAN=upn%3Dadministrator%40corp.example&CertificateTemplate=SubCA"))))
		}),
		enveloped("B31", "a CMC with CMC_ADD_ATTRIBUTES of a SAN", func(t *try) []byte { return cmc(t, control(oidAddAttrs, attributes)) }),
		enveloped("B31", "a CMC with addExtensions of a UPN", func(t *try) []byte {
			return cmc(t, control(oidAddExts, wire.Sequence(wire.Int(0), wire.Sequence(wire.Int(1)), wire.Sequence(wire.SAN(wire.UPN("administrator@corp.example"))))))
		}),
		{row: "B31", variant: "CMC_ADD_ATTRIBUTES as an attribute of the PKCS#10", want: rej, reason: "unexpected_attribute", finding: oidAddAttrs,
			message: bringing(wire.Attribute(oidAddAttrs, attributes))},
		{row: "B31", variant: "the request-info OID as an attribute of the PKCS#10", want: rej, reason: "unexpected_attribute", finding: oidRequestInfo,
			message: bringing(wire.Attribute(oidRequestInfo, pair))},
	}
}

// controls are the characters that must stand in no text: C0, DEL and C1, and
// the separators of lines and paragraphs.
func controls() []rune {
	list := []rune{0x2028, 0x2029}
	for r := range rune(0xa0) {
		if r < 0x20 || r >= 0x7f {
			list = append(list, r)
		}
	}
	return list
}

// rowsSmuggledText: B32. NDES hands the CA lines of text.
func rowsSmuggledText() []vector {
	// each sends one message for every control character in a field.
	each := func(field string, expect map[string]any, put func(t *try, m *wire.Message, text string)) vector {
		return vector{row: "B32", variant: fmt.Sprintf("each of %d control characters in %s", len(controls()), field), want: asDescribed, expect: expect, act: func(t *try) {
			for _, r := range controls() {
				m := t.message(t.Device)
				put(t, m, string(r))
				t.refuses(m.Bytes(), "malformed_request")
			}
			t.untouched(t.profile(), t.ID)
		}}
	}
	san := func(name func(text string) []byte) func(*try, *wire.Message, string) {
		return func(_ *try, m *wire.Message, text string) { m.Request.Extend(wire.SAN(name(text))) }
	}
	line := func(variant, reason, subject string) vector {
		return vector{row: "B32", variant: variant, want: rej, reason: reason,
			message: csr(func(t *try, r *wire.Request) { r.SetSubject(strings.ReplaceAll(subject, "x", t.CN)) })}
	}
	return []vector{
		line("CN=x<LF>SAN:upn=admin", "malformed_request", "x\nSAN:upn=admin"),
		line("CN=x<CR><LF>SAN:upn=admin", "malformed_request", "x\r\nSAN:upn=admin"),
		line("CN=x<NUL>", "malformed_request", "x\x00"),
		line("CN=x:upn=admin", "subject_mismatch", "x:upn=admin"),
		each("the common name", nil, func(t *try, m *wire.Message, text string) { m.Request.SetSubject(t.CN + text) }),
		each("an OU", map[string]any{"subject": "CN=pc7,OU=A"}, func(_ *try, m *wire.Message, text string) {
			m.Request.Subject = wire.Name(single(wire.OIDCommonName, "pc7"), single(wire.OIDOrgUnit, "A"+text))
		}),
		each("a dNSName", sanOf("dns", "a.example.com"), san(func(text string) []byte { return wire.DNS("a" + text + ".example.com") })),
		each("an rfc822Name", sanOf("email", "a@example.com"), san(func(text string) []byte { return wire.Email("a" + text + "@example.com") })),
		each("a URI", sanOf("uri", "https://example.com/a"), san(func(text string) []byte { return wire.URI("https://example.com/a" + text) })),
		each("a UPN", sanOf("upn", "a@example.com"), san(func(text string) []byte { return wire.UPN("a" + text + "@example.com") })),
		each("a SID", map[string]any{"sid": ownSID}, func(_ *try, m *wire.Message, text string) { m.Request.Extend(wire.SID(ownSID + text)) }),
		each("a template name", nil, func(_ *try, m *wire.Message, text string) {
			m.Request.Extend(wire.Extension(wire.OIDMSTemplateName, false, wire.BMP("WiFiClient"+text)))
		}),
		each("the challenge", nil, func(t *try, m *wire.Message, text string) {
			m.Request.Challenge = [][]byte{wire.ChallengePassword(wire.UTF8(t.Challenge + text))}
		}),
		{row: "B32", variant: fmt.Sprintf("each of %d control characters in the transactionID", len(controls())), want: asDescribed, act: func(t *try) {
			var first *attack.Answer
			for _, r := range controls() {
				m := t.message(t.Device)
				m.SignedData.Signer.TransactionID = "ABC" + string(r)
				a := t.post(m.Bytes())
				t.status(a, 400)
				t.decision("malformed_message")
				t.reached()
				if first == nil {
					first = &a
				} else if !bytes.Equal(a.Body, first.Body) {
					t.failf("the answers differ")
				}
			}
			t.untouched("wifi", t.ID)
		}},
		{row: "B32", variant: "control characters, registered", want: cfg, act: func(t *try) {
			for _, r := range []string{"\n", "\r", "\x00", "\x7f", "\u0085", "\u2028", "\u2029"} {
				t.unprocessable(map[string]any{"subject": nil, "subject_rdns": rdnRule("CN", "exact", "x"+r)}, "value_characters")
				t.unprocessable(sanOf("upn", "a"+r+"@example.com"), "value_characters")
			}
		}},
	}
}
