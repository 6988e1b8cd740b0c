package interop

import (
	"bytes"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"unicode/utf16"

	"github.com/scepgate/scepgate/inspector"
	"github.com/scepgate/scepgate/integration/attack"
)

// ownName is what the MDM registers for a device, and nameOf how the device
// writes it into its request.
func ownName(cn string) map[string]any {
	return map[string]any{
		"external_id": "upstream:" + cn,
		"subject":     "CN=" + cn + ",OU=WiFi,O=Example Corp",
		"san":         map[string]any{"dns": []string{cn + ".example.com"}},
		"key_usage":   []string{"digitalSignature", "keyEncipherment"},
	}
}

func nameOf(cn string) []inspector.RDN {
	return attack.Subject(attack.O, "Example Corp", attack.OU, "WiFi", attack.CN, cn)
}

// ownRequest is the request that ownName describes, with the shared secret.
func ownRequest(cn string) inspector.CSRParams {
	return inspector.CSRParams{
		Subject:   nameOf(cn),
		SAN:       []inspector.GeneralName{{Type: "dns", Value: cn + ".example.com"}},
		KeyUsage:  1<<0 | 1<<2, // digitalSignature, keyEncipherment
		Challenge: upstreamSecret,
	}
}

// enrolled is the honest device after its enrolment: what attackers copy or abuse.
type enrolled struct {
	device      *attack.Device
	message     []byte
	certificate *x509.Certificate
}

// escalation is one way to ask for more than was registered. Whoever sends it
// knows the secret, and has a registered name of its own.
type escalation struct {
	who, sent string
	replay    bool // the honest device's bytes
	change    func(m *attack.Message, honest *enrolled) error
	// carried tells whether a certificate holds what the attack is about; nil if
	// that is to get one at all.
	carried       func(c *x509.Certificate, honest *enrolled) bool
	with, without string // words for it
}

const (
	adminUPN = "administrator@example.com"
	adminSID = "S-1-5-21-1-2-3-500"
	sidURI   = "tag:microsoft.com,2022-09-14:sid:" + adminSID
)

var (
	oidSANExtension     = asn1.ObjectIdentifier{2, 5, 29, 17}
	oidBasicConstraints = asn1.ObjectIdentifier{2, 5, 29, 19}
	oidSIDExtension     = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 311, 25, 2}
	oidPolicies         = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 311, 21, 10}
	oidTemplate         = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 311, 20, 2}
	oidNameValuePair    = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 311, 13, 2, 1}
	oidAgent            = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 311, 20, 2, 1}
)

var escalations = []escalation{
	{who: "replay after success", sent: "the same bytes again", replay: true,
		carried: func(c *x509.Certificate, honest *enrolled) bool {
			return c.SerialNumber.Cmp(honest.certificate.SerialNumber) != 0
		}, with: "another certificate", without: "the same certificate"},
	{who: "second key", sent: "the enrolled device's names, a key of the sender's own",
		change: inRequest(func(p *inspector.CSRParams) { *p = ownRequest("honest") })},
	{who: "other subject", sent: "CN=administrator",
		change:  inRequest(func(p *inspector.CSRParams) { p.Subject = nameOf("administrator") }),
		carried: commonName("administrator")},
	{who: "second CN", sent: "the own CN, and CN=root-admin after it",
		change: inRequest(func(p *inspector.CSRParams) {
			p.Subject = append(p.Subject, attack.Name("root-admin")...)
		}), carried: commonName("root-admin")},
	{who: "SAN added", sent: "a second DNS name, dc01's",
		change: inRequest(func(p *inspector.CSRParams) {
			p.SAN = append(p.SAN, inspector.GeneralName{Type: "dns", Value: "dc01.example.com"})
		}), carried: inExtension(oidSANExtension, "dc01.example.com")},
	{who: "UPN added", sent: "otherName UPN " + adminUPN,
		change: inRequest(func(p *inspector.CSRParams) {
			p.SAN = append(p.SAN, inspector.GeneralName{Type: "upn", Value: adminUPN})
		}), carried: inExtension(oidSANExtension, adminUPN)},
	{who: "SID extension", sent: "the administrator's SID, …-500",
		change:  inRequest(func(p *inspector.CSRParams) { p.SID = adminSID }),
		carried: inExtension(oidSIDExtension, adminSID)},
	{who: "SID in a URI", sent: "the same SID as SAN tag:microsoft.com,2022-09-14:sid:…",
		change: inRequest(func(p *inspector.CSRParams) {
			p.SAN = append(p.SAN, inspector.GeneralName{Type: "uri", Value: sidURI})
		}), carried: inExtension(oidSANExtension, sidURI)},
	{who: "ESC15", sent: "application policy enrollment agent",
		change: func(m *attack.Message, _ *enrolled) error {
			e, err := attack.ApplicationPolicies(oidAgent)
			m.Request.ExtraExtensions = append(m.Request.ExtraExtensions, e)
			return err
		}, carried: inExtension(oidPolicies, "")},
	{who: "extended key usage", sent: "enrollment agent",
		change: inRequest(func(p *inspector.CSRParams) { p.ExtKeyUsage = []string{oidAgent.String()} }),
		carried: func(c *x509.Certificate, _ *enrolled) bool {
			for _, oid := range c.UnknownExtKeyUsage {
				if oid.Equal(oidAgent) {
					return true
				}
			}
			return false
		}},
	{who: "key usage swap", sent: "keyEncipherment alone: NDES picks another template",
		change: inRequest(func(p *inspector.CSRParams) { p.KeyUsage = 1 << 2 }),
		carried: func(c *x509.Certificate, _ *enrolled) bool {
			return c.KeyUsage == x509.KeyUsageKeyEncipherment
		}},
	{who: "CA certificate", sent: "basicConstraints CA:TRUE",
		change: func(m *attack.Message, _ *enrolled) error {
			value, err := asn1.Marshal(struct{ IsCA bool }{true})
			m.Request.ExtraExtensions = append(m.Request.ExtraExtensions, pkix.Extension{Id: oidBasicConstraints, Critical: true, Value: value})
			return err
		}, carried: func(c *x509.Certificate, _ *enrolled) bool { return c.IsCA }},
	{who: "template extension", sent: "the template name DomainController",
		change: func(m *attack.Message, _ *enrolled) error {
			value, err := asn1.Marshal(bmp("DomainController"))
			m.Request.ExtraExtensions = append(m.Request.ExtraExtensions, pkix.Extension{Id: oidTemplate, Value: value})
			return err
		}, carried: inExtension(oidTemplate, "")},
	{who: "hidden SAN", sent: "UPN " + adminUPN + " under Microsoft's extension attribute only",
		change: inRequest(func(p *inspector.CSRParams) {
			p.MicrosoftExtensions = true
			p.SAN = []inspector.GeneralName{{Type: "upn", Value: adminUPN}}
		}), carried: inExtension(oidSANExtension, adminUPN)},
	{who: "name-value pair", sent: "attribute enrollmentNameValuePair SAN=upn=" + adminUPN,
		change: func(m *attack.Message, _ *enrolled) error {
			attribute, err := nameValuePair("SAN", "upn="+adminUPN)
			m.Request.ExtraAttributes = append(m.Request.ExtraAttributes, attribute)
			return err
		}, carried: inExtension(oidSANExtension, adminUPN)},
	{who: "messageType 18", sent: "UpdateReq, CN=update-admin, no challenge",
		change: func(m *attack.Message, _ *enrolled) error {
			m.MessageType, m.Request.Subject, m.Request.Challenge = "18", nameOf("update-admin"), ""
			return nil
		}},
	{who: "messageType 18", sent: "UpdateReq, CN=patch-admin",
		change: func(m *attack.Message, _ *enrolled) error {
			m.MessageType, m.Request.Subject = "18", nameOf("patch-admin")
			return nil
		}, carried: commonName("patch-admin")},
	{who: "renewal escalation", sent: "PKCSReq signed with the honest device's certificate, CN=domain-admin",
		change: func(m *attack.Message, honest *enrolled) error {
			m.Request.Subject = nameOf("domain-admin")
			m.SignerCert, m.SignerKey = honest.certificate.Raw, honest.device.Key
			return nil
		}, carried: commonName("domain-admin")},
	{who: "renewal escalation", sent: "RenewalReq signed with it, CN=backup-admin, no challenge",
		change: func(m *attack.Message, honest *enrolled) error {
			m.MessageType, m.Request.Subject, m.Request.Challenge = "17", nameOf("backup-admin"), ""
			m.SignerCert, m.SignerKey = honest.certificate.Raw, honest.device.Key
			return nil
		}},
	{who: "foreign renewal", sent: "RenewalReq signed with another CA's certificate, CN=foreign-admin",
		change: func(m *attack.Message, _ *enrolled) (err error) {
			m.MessageType, m.Request.Subject = "17", nameOf("foreign-admin")
			m.SignerCert, m.SignerKey, err = attack.ForeignCertificate("foreign-admin")
			return err
		}, carried: commonName("foreign-admin")},
	{who: "wrong challenge", sent: "the own names, another secret",
		change: inRequest(func(p *inspector.CSRParams) { p.Challenge = "another secret altogether" })},
	{who: "no challenge", sent: "the own names, no secret",
		change: inRequest(func(p *inspector.CSRParams) { p.Challenge = "" })},
}

// inRequest is a change of the PKCS#10 alone.
func inRequest(change func(*inspector.CSRParams)) func(*attack.Message, *enrolled) error {
	return func(m *attack.Message, _ *enrolled) error {
		change(&m.Request)
		return nil
	}
}

func commonName(want string) func(*x509.Certificate, *enrolled) bool {
	return func(c *x509.Certificate, _ *enrolled) bool {
		for _, a := range c.Subject.Names {
			if a.Type.String() == attack.CN && a.Value == want {
				return true
			}
		}
		return false
	}
}

// inExtension looks for an extension, and for text in it.
func inExtension(oid asn1.ObjectIdentifier, text string) func(*x509.Certificate, *enrolled) bool {
	return func(c *x509.Certificate, _ *enrolled) bool {
		for _, e := range c.Extensions {
			if e.Id.Equal(oid) && bytes.Contains(e.Value, []byte(text)) {
				return true
			}
		}
		return false
	}
}

// bmp is a BMPString, in which Microsoft writes such text.
func bmp(text string) asn1.RawValue {
	var b []byte
	for _, u := range utf16.Encode([]rune(text)) {
		b = append(b, byte(u>>8), byte(u))
	}
	return asn1.RawValue{Class: asn1.ClassUniversal, Tag: asn1.TagBMPString, Bytes: b}
}

// nameValuePair is the attribute with which CertReq and the like pass "request
// attributes" inside a PKCS#10.
func nameValuePair(name, value string) ([]byte, error) {
	type pair struct{ Name, Value asn1.RawValue }
	return asn1.Marshal(struct {
		Type   asn1.ObjectIdentifier
		Values []pair `asn1:"set"`
	}{oidNameValuePair, []pair{{bmp(name), bmp(value)}}})
}

// answerKey is the key that the answer to m is encrypted to: the signer's.
func answerKey(d *attack.Device, m *attack.Message) *rsa.PrivateKey {
	if m.SignerKey != nil {
		return m.SignerKey
	}
	return d.Key
}
