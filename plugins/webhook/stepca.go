package webhook

import (
	"crypto/x509"
	"errors"
	"slices"
	"time"

	"github.com/scepgate/scepgate/plugins"
)

// The body is that of step-ca 0.30's SCEPCHALLENGE webhook: the same keys, the
// same words, null where step-ca writes null. The names in it are those that
// were judged.

type stepCAQuestion struct {
	Timestamp              time.Time     `json:"timestamp"`
	ProvisionerName        string        `json:"provisionerName,omitempty"`
	X509CertificateRequest stepCARequest `json:"x509CertificateRequest"`
	SCEPChallenge          string        `json:"scepChallenge,omitempty"`
	SCEPTransactionID      string        `json:"scepTransactionID,omitempty"`
}

type stepCARequest struct {
	Version            int               `json:"version"`
	Subject            stepCASubject     `json:"subject"`
	RawSubject         []byte            `json:"rawSubject"`
	DNSNames           []string          `json:"dnsNames"`
	EmailAddresses     []string          `json:"emailAddresses"`
	IPAddresses        []string          `json:"ipAddresses"`
	URIs               []string          `json:"uris"`
	SANs               []struct{}        `json:"sans"` // step-ca leaves it null here
	Extensions         []stepCAExtension `json:"extensions"`
	KeyUsage           []string          `json:"keyUsage"`
	ExtKeyUsage        []string          `json:"extKeyUsage"`
	UnknownExtKeyUsage []string          `json:"unknownExtKeyUsage"`
	BasicConstraints   *struct{}         `json:"basicConstraints"` // never: such a request was refused
	SignatureAlgorithm string            `json:"signatureAlgorithm"`
	PublicKey          []byte            `json:"publicKey"`
	PublicKeyAlgorithm string            `json:"publicKeyAlgorithm"`
	Raw                []byte            `json:"raw"`
}

type stepCASubject struct {
	Country            []string          `json:"country,omitempty"`
	Organization       []string          `json:"organization,omitempty"`
	OrganizationalUnit []string          `json:"organizationalUnit,omitempty"`
	Locality           []string          `json:"locality,omitempty"`
	Province           []string          `json:"province,omitempty"`
	StreetAddress      []string          `json:"streetAddress,omitempty"`
	PostalCode         []string          `json:"postalCode,omitempty"`
	SerialNumber       string            `json:"serialNumber,omitempty"`
	CommonName         string            `json:"commonName,omitempty"`
	ExtraNames         []stepCAExtraName `json:"extraNames,omitempty"`
}

type stepCAExtraName struct {
	Type  string `json:"type"`
	Value string `json:"value"`
}

type stepCAExtension struct {
	ID       string `json:"id"`
	Critical bool   `json:"critical"`
	Value    []byte `json:"value"`
}

// stepCAUsages are the words that are not the API's.
var stepCAUsages = map[string]string{"nonRepudiation": "contentCommitment", "keyCertSign": "certSign", "cRLSign": "crlSign"}

var stepCAExtKeyUsages = map[string]string{
	"1.3.6.1.5.5.7.3.1":      "serverAuth",
	"1.3.6.1.5.5.7.3.2":      "clientAuth",
	"1.3.6.1.5.5.7.3.4":      "emailProtection",
	"1.3.6.1.5.5.7.3.5":      "ipsecEndSystem",
	"1.3.6.1.5.5.7.3.6":      "ipsecTunnel",
	"1.3.6.1.5.5.7.3.7":      "ipsecUser",
	"1.3.6.1.5.5.7.3.8":      "timeStamping",
	"1.3.6.1.4.1.311.10.3.3": "microsoftServerGatedCrypto",
	"2.16.840.1.113730.4.1":  "netscapeServerGatedCrypto",
	"1.3.6.1.4.1.311.2.1.22": "microsoftCommercialCodeSigning",
	"1.3.6.1.4.1.311.61.1.1": "microsoftKernelCodeSigning",
	"1.3.6.1.5.5.7.3.3":      "codeSigning",
	"1.3.6.1.5.5.7.3.9":      "ocspSigning",
	"2.5.29.37.0":            "any",
}

func (c *Config) checkStepCA() error {
	switch {
	case c.Secret == nil:
		return errors.New("format step_ca wants a secret: its receivers verify the signature")
	case c.Notify:
		return errors.New("format step_ca has no outcomes")
	case slices.Contains(c.Decides, plugins.Challenge) && !c.Reveal:
		return errors.New("format step_ca cannot decide challenge without reveal challenge")
	case slices.Contains(c.Decides, plugins.SID):
		return errors.New("format step_ca cannot decide sid: its body has no place for one")
	}
	for _, r := range c.ID {
		if r < '!' || r > '~' {
			return errors.New("the id is not printable ASCII without spaces")
		}
	}
	return nil
}

// stepCA asks in step-ca's words. hidden is the refusal of what a receiver that
// was written for step-ca does not see, nil if it sees all that is decided. There
// that is harmless, because step-ca issues only what is in the body; NDES issues
// what is in the request.
func (m *Matcher) stepCA(r *plugins.Request) (q stepCAQuestion, hidden *plugins.Answer) {
	q = stepCAQuestion{
		Timestamp: m.config.Now().UTC(), ProvisionerName: r.Profile, SCEPTransactionID: r.TransactionID,
		X509CertificateRequest: stepCARequest{
			ExtKeyUsage: []string{}, PublicKey: r.Facts.SPKI, PublicKeyAlgorithm: "RSA",
		},
	}
	x := &q.X509CertificateRequest
	refuse := func(f plugins.Field, code string) {
		if hidden == nil {
			hidden = &plugins.Answer{Code: code, Findings: []plugins.Finding{{Field: f}}}
		}
	}
	// A source vouches for whom the challenge is, so it must have seen that.
	decides := func(f plugins.Field) bool {
		return slices.Contains(r.Decides, f) || f != plugins.SID && slices.Contains(r.Decides, plugins.Challenge)
	}
	if !x.Subject.fill(r.Facts.Subject) && decides(plugins.Subject) {
		refuse(plugins.Subject, codeSubject)
	}
	if !x.names(r.Facts.SAN) && decides(plugins.SAN) {
		refuse(plugins.SAN, codeSAN)
	}
	if len(r.Facts.SIDs) > 0 && decides(plugins.SID) {
		refuse(plugins.SID, codeSID)
	}
	for _, u := range r.Facts.KeyUsage {
		if word, ok := stepCAUsages[u]; ok {
			u = word
		}
		x.KeyUsage = append(x.KeyUsage, u)
	}
	for _, oid := range r.Facts.ExtKeyUsage {
		if word, ok := stepCAExtKeyUsages[oid]; ok {
			x.ExtKeyUsage = append(x.ExtKeyUsage, word)
			continue
		}
		x.UnknownExtKeyUsage = append(x.UnknownExtKeyUsage, oid)
	}
	if m.config.Reveal {
		csr, err := x509.ParseCertificateRequest(r.PKCS10)
		if err != nil { // step-ca would refuse it too
			refuse("", codeParse)
			return q, hidden
		}
		q.SCEPChallenge = r.Challenge
		x.Version, x.RawSubject, x.Raw = csr.Version, csr.RawSubject, csr.Raw
		for _, e := range csr.Extensions {
			x.Extensions = append(x.Extensions, stepCAExtension{ID: e.Id.String(), Critical: e.Critical, Value: e.Value})
		}
	}
	return q, hidden
}

// fill reports whether nothing was lost: there is room for one serial number
// and one common name.
func (s *stepCASubject) fill(rdns [][]plugins.NameAttribute) bool {
	whole := true
	single := func(at *string, v string) {
		whole = whole && *at == ""
		*at = v // like crypto/x509, the last
	}
	for _, rdn := range rdns {
		for _, a := range rdn {
			switch a.Type {
			case "2.5.4.6":
				s.Country = append(s.Country, a.Value)
			case "2.5.4.10":
				s.Organization = append(s.Organization, a.Value)
			case "2.5.4.11":
				s.OrganizationalUnit = append(s.OrganizationalUnit, a.Value)
			case "2.5.4.7":
				s.Locality = append(s.Locality, a.Value)
			case "2.5.4.8":
				s.Province = append(s.Province, a.Value)
			case "2.5.4.9":
				s.StreetAddress = append(s.StreetAddress, a.Value)
			case "2.5.4.17":
				s.PostalCode = append(s.PostalCode, a.Value)
			case "2.5.4.5":
				single(&s.SerialNumber, a.Value)
			case "2.5.4.3":
				single(&s.CommonName, a.Value)
			default:
				s.ExtraNames = append(s.ExtraNames, stepCAExtraName{a.Type, a.Value})
			}
		}
	}
	return whole
}

// names reports whether nothing was lost: there is room for four types.
func (x *stepCARequest) names(names []plugins.AltName) bool {
	whole := true
	for _, n := range names {
		switch n.Type {
		case "dns":
			x.DNSNames = append(x.DNSNames, n.Value)
		case "email":
			x.EmailAddresses = append(x.EmailAddresses, n.Value)
		case "ip":
			x.IPAddresses = append(x.IPAddresses, n.Value)
		case "uri":
			x.URIs = append(x.URIs, n.Value)
		default:
			whole = false
		}
	}
	return whole
}

// parseStepCAAnswer reads {"allow","error":{"code","message"}}.
func parseStepCAAnswer(text []byte) (a plugins.Answer, allowed bool, err error) {
	object, err := strictObject(text)
	if err != nil {
		return plugins.Answer{}, false, err
	}
	a = stepCAAnswer(object)
	return a, a.Verdict == plugins.Agree, nil
}

// stepCAAnswer takes only true for an agreement; data would fill step-ca's
// template, and there is none here.
func stepCAAnswer(object map[string]any) plugins.Answer {
	if object["allow"] == true {
		return plugins.Answer{Verdict: plugins.Agree}
	}
	reason, _ := object["error"].(map[string]any)
	code, _ := reason["code"].(string)
	a := plugins.Answer{Code: code}
	if message, _ := reason["message"].(string); message != "" {
		a.Findings = []plugins.Finding{{Got: message}}
	}
	return a
}
