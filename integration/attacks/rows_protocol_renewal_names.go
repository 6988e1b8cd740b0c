package main

import (
	"crypto/x509"
	"crypto/x509/pkix"

	"github.com/scepgate/scepgate/integration/wire"
)

// rowsRenewalNames: D10–D12 where renewals are allowed. What a
// certificate says may be asked for again, and nothing else. A renewal that
// changes it is refused without a strike: no expectation was mismatched.
func rowsRenewalNames() []vector {
	const (
		changed = "renewal_identity_changed"
		uid     = "0.9.2342.19200300.100.1.1" // the profile says that the CA drops it
	)
	subject := func(rdns ...[]byte) func(*try, *wire.Message) {
		return func(_ *try, m *wire.Message) { m.Request.Subject = wire.Name(rdns...) }
	}
	named := func(change func(t *try) string) func(*try, *wire.Message) {
		return func(t *try, m *wire.Message) { m.Request.SetSubject(change(t)) }
	}
	administrator := named(func(*try) string { return "administrator" })
	asking := func(at int, extension func(t *try) []byte) func(*try, *wire.Message) {
		return func(t *try, m *wire.Message) { m.Request.Extensions[at] = extension(t) }
	}
	without := func(at int) func(*try, *wire.Message) {
		return func(_ *try, m *wire.Message) {
			m.Request.Extensions = append(m.Request.Extensions[:at:at], m.Request.Extensions[at+1:]...)
		}
	}
	adding := func(extensions ...[]byte) func(*try, *wire.Message) {
		return func(_ *try, m *wire.Message) { m.Request.Extend(extensions...) }
	}
	names := func(names ...[]byte) func(*try, *wire.Message) {
		return asking(atSAN, func(t *try) []byte { return wire.SAN(append([][]byte{wire.DNS(t.dns())}, names...)...) })
	}
	organized := func(t *try, c *x509.Certificate) {
		c.Subject = pkix.Name{CommonName: t.CN, Organization: []string{"Example Corp"}, OrganizationalUnit: []string{"WiFi"}}
	}

	list := hostileRenewals(
		hostile{"D10", "CN=administrator, no challenge, renewals allowed", changed, "subject", nil, administrator},
		hostile{"D10", "CN=administrator, any challenge, renewals allowed", changed, "subject", nil, func(t *try, m *wire.Message) {
			administrator(t, m)
			m.Request.Challenge = [][]byte{wire.ChallengePassword(wire.Printable(newChallenge()))}
		}},

		hostile{"D11", "another device's CN", changed, "subject", nil, named(func(t *try) string { return t.CN + "-b" })},
		hostile{"D11", "the CN in upper case", changed, "subject", nil, named(func(*try) string { return "DEV-D11" })},
		hostile{"D11", "an OU added", changed, "subject", nil, func(t *try, m *wire.Message) {
			subject(single(wire.OIDCommonName, t.CN), single(wire.OIDOrgUnit, "Domain Controllers"))(t, m)
		}},
		hostile{"D11", "a second CN", changed, "subject", nil, func(t *try, m *wire.Message) {
			subject(single(wire.OIDCommonName, t.CN), single(wire.OIDCommonName, "administrator"))(t, m)
		}},
		hostile{"D11", "the CN twice", changed, "subject", nil, func(t *try, m *wire.Message) {
			subject(single(wire.OIDCommonName, t.CN), single(wire.OIDCommonName, t.CN))(t, m)
		}},
		hostile{"D11", "what the CA drops, and an OU with it in one RDN", changed, "subject", nil, func(t *try, m *wire.Message) {
			subject(single(wire.OIDCommonName, t.CN), wire.RDN(wire.ATV(uid, wire.UTF8("c02xk1")), wire.ATV(wire.OIDOrgUnit, wire.UTF8("Domain Controllers"))))(t, m)
		}},
		hostile{"D11", "what the CA drops, in place of the CN", changed, "subject", nil, subject(single(uid, "c02xk1"))},
		hostile{"D11", "no subject at all", changed, "subject", nil, subject()},

		hostile{"D12", "a second DNS name", changed, "san", nil, names(wire.UPN(renewedUPN), wire.DNS("dc01.example.com"))},
		hostile{"D12", "another user's UPN", changed, "san", nil, names(wire.UPN("bob@example.com"))},
		hostile{"D12", "the UPN left out", changed, "san", nil, names()},
		hostile{"D12", "no alternative name", changed, "san", nil, without(atSAN)},
		hostile{"D12", "a URI added", changed, "san", nil, names(wire.UPN(renewedUPN), wire.URI("https://example.com/"))},
		hostile{"D12", "another user's SID", changed, "sid", nil, asking(atSID, func(*try) []byte { return wire.SID("S-1-5-21-1-2-3-1105") })},
		hostile{"D12", "the administrator's SID", changed, "sid", nil, asking(atSID, func(*try) []byte { return wire.SID("S-1-5-21-1-2-3-500") })},
		hostile{"D12", "no SID", changed, "sid", nil, without(atSID)},
		hostile{"D12", "another SID in a URI, beside the certificate's own", changed, "sid", nil,
			names(wire.UPN(renewedUPN), wire.URI("tag:microsoft.com,2022-09-14:sid:S-1-5-21-1-2-3-500"))},
		hostile{"D12", "the extended key usage serverAuth added", changed, "ext_key_usage", nil,
			asking(atExtKeyUsage, func(*try) []byte { return wire.ExtKeyUsage(wire.EKUClientAuth, wire.EKUServerAuth) })},
		hostile{"D12", "the extended key usage of an enrollment agent", changed, "ext_key_usage", nil,
			asking(atExtKeyUsage, func(*try) []byte { return wire.ExtKeyUsage(wire.EKUEnrollmentAgent) })},
		hostile{"D12", "an application policy for agents", changed, "application_policies", nil, adding(wire.ApplicationPolicies(wire.EKUEnrollmentAgent))},
		hostile{"D12", "an application policy that repeats clientAuth", changed, "application_policies", nil, adding(wire.ApplicationPolicies(wire.EKUClientAuth))},
		hostile{"D12", "keyEncipherment alone, which picks another template", changed, "key_usage", nil, asking(atKeyUsage, func(*try) []byte { return wire.KeyUsage(5, 0x20) })},
		hostile{"D12", "digitalSignature alone, which picks another template", changed, "key_usage", nil, asking(atKeyUsage, func(*try) []byte { return wire.KeyUsage(7, 0x80) })},
		hostile{"D12", "keyCertSign added", changed, "key_usage", nil, asking(atKeyUsage, func(*try) []byte { return wire.KeyUsage(2, 0xa4) })},
		hostile{"D12", "another template by name", changed, "certificate_template", nil, adding(wire.Extension(wire.OIDMSTemplateName, false, wire.BMP("SubCA")))},
		hostile{"D12", "another template by OID", changed, "certificate_template", nil, adding(templateOID("1.3.6.1.4.1.311.21.8.1.2.3.1"))},
		hostile{"D12", "basicConstraints of a CA", "unexpected_extension", "extension", nil,
			adding(wire.Extension(wire.OIDBasicConstraints, true, wire.Sequence(wire.TLV(0x01, []byte{0xff}))))},
		hostile{"D12", "an extension that nobody knows", "unexpected_extension", "extension", nil, adding(wire.Extension("1.2.3.4.5", false, wire.Null()))},
		hostile{"D12", "an attribute with a SAN for the CA's policy module", "unexpected_attribute", "attribute", nil, func(_ *try, m *wire.Message) {
			m.Request.Attributes = [][]byte{namePair("SAN", "upn=administrator@example.com")}
		}},
		hostile{"D12", "the certificate of Microsoft's renewal attribute", "unexpected_attribute", "attribute", nil, func(t *try, m *wire.Message) {
			m.Request.Attributes = [][]byte{wire.Attribute(wire.OIDMSRenewal, t.Device.SelfSigned)}
		}},
	)
	list = append(list, honestRenewals(
		hostile{"D10", "PKCSReq 19 signed with a certificate of the CA, for its own names", "", "", nil, func(_ *try, m *wire.Message) {
			m.SignedData.Signer.MessageType = "19"
		}},
		hostile{"D10", "signed with a certificate of the CA, with a challenge that nobody registered", "", "", nil, func(_ *try, m *wire.Message) {
			m.Request.Challenge = [][]byte{wire.ChallengePassword(wire.Printable(newChallenge()))}
		}},
		hostile{"D11", "the certificate's RDNs in another order and other string types", "", "", organized, func(t *try, m *wire.Message) {
			m.Request.Subject = wire.Name(rdn(wire.OIDOrganization, wire.Printable("Example Corp")), single(wire.OIDCommonName, t.CN), single(wire.OIDOrgUnit, "WiFi"))
		}},
		hostile{"D11", "the certificate's subject and what the CA drops", "", "", nil, func(t *try, m *wire.Message) {
			subject(single(uid, "c02xk1"), single(wire.OIDCommonName, t.CN))(t, m)
		}},
		hostile{"D12", "the alternative names in another order and case", "", "", nil, asking(atSAN, func(t *try) []byte {
			return wire.SAN(wire.UPN("Ann@Example.com"), wire.DNS(t.dns()))
		})},
		hostile{"D12", "the certificate's SID in a URI", "", "", nil, func(t *try, m *wire.Message) {
			without(atSID)(t, m)
			names(wire.UPN(renewedUPN), wire.URI("tag:microsoft.com,2022-09-14:sid:"+renewedSID))(t, m)
		}},
		hostile{"D12", "the extended key usage left to the template", "", "", nil, without(atExtKeyUsage)},
		hostile{"D12", "the key usage left out, which picks the same template", "", "", nil, without(atKeyUsage)},
		hostile{"D12", "the template that its key usage picks, by name and OID", "", "", nil,
			adding(wire.Extension(wire.OIDMSTemplateName, false, wire.BMP("WiFiClient")), templateOID("1.3.6.1.4.1.311.21.8.1.2.3.3"))},
	)...)

	return append(list, vector{row: "D10", variant: "its own names, another device's valid challenge, which stays unused",
		want: forwarded, profile: "renew", act: func(t *try) { // the honest device is the other one
			m := t.renewing(t.certified(func(t *try, c *x509.Certificate) { c.Subject.CommonName = t.CN + "-b" }))
			m.Request.SetSubject(t.CN + "-b")
			m.Request.Challenge = [][]byte{wire.ChallengePassword(wire.Printable(t.Challenge))}
			t.renews(m)
			t.untouched("renew", t.ID)
			m = t.renewing(t.certified(func(t *try, c *x509.Certificate) { c.Subject.CommonName = t.CN + "-b" }))
			m.Request.Challenge = [][]byte{wire.ChallengePassword(wire.Printable(t.Challenge))}
			t.refusesFor(m, "renewal_identity_changed", "subject") // the challenge's own name
			t.untouched("renew", t.ID)
			t.enrols(t.M.Bytes())
		}})
}
