package differential

import (
	"bytes"
	"crypto/rsa"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/scepgate/scepgate/inspector"
)

// requestFacts puts what the inspector reports into the common form.
func requestFacts(c *inspector.CSR) Facts {
	f := Facts{
		Version:              strconv.Itoa(c.Version),
		SPKI:                 hex.EncodeToString(c.SPKI),
		Modulus:              c.PublicKey.N.Text(16),
		Exponent:             strconv.Itoa(c.PublicKey.E),
		Digest:               c.SignatureDigest,
		HasChallenge:         c.HasChallenge,
		Challenge:            c.Challenge,
		SID:                  c.SID,
		HasKeyUsage:          c.HasKeyUsage,
		ExtKeyUsage:          c.ExtKeyUsage,
		ApplicationPolicies:  c.ApplicationPolicies,
		TemplateName:         c.TemplateName,
		TemplateOID:          c.TemplateOID,
		UnexpectedExtensions: c.UnexpectedExtensions,
		UnexpectedAttributes: c.UnexpectedAttributes,
	}
	for _, rdn := range c.Subject {
		var list []NameAttribute
		for _, a := range rdn {
			list = append(list, NameAttribute{a.Type, a.Tag, a.Value})
		}
		f.Subject = append(f.Subject, list)
	}
	for bit := range 16 {
		if c.KeyUsage&(1<<bit) != 0 {
			f.KeyUsage = append(f.KeyUsage, bit)
		}
	}
	for _, n := range c.SAN {
		name := AltName{n.Type, n.Value}
		if n.Type == "ip" {
			name.Value = "not an address"
			if address, err := netip.ParseAddr(n.Value); err == nil {
				name.Value = hex.EncodeToString(address.AsSlice())
			}
		}
		f.SAN = append(f.SAN, name)
	}
	return f
}

// compareRequest holds the two readers of a PKCS#10 against each other. The
// problem is "" if the inspector refuses der or both read the same.
func compareRequest(der []byte) (accepted bool, problem string) {
	c, err := inspector.ParseCSR(der)
	if err != nil {
		return false, ""
	}
	r, err := DecodeRequest(der)
	if err != nil {
		return true, fmt.Sprintf("the second reader refuses the request: %v", err)
	}
	if diff := cmp.Diff(requestFacts(c), r.Facts(), cmpopts.EquateEmpty()); diff != "" {
		return true, "facts differ (-inspector +second):\n" + diff
	}
	if !bytes.Equal(c.Raw, der) {
		return true, "the inspector keeps other bytes than it was given"
	}
	if (len(c.ExtKeyUsage) > 0) != c.HasExtKeyUsage || (len(c.ApplicationPolicies) > 0) != c.HasApplicationPolicies {
		return true, "a list is there and empty, or absent and not empty"
	}
	// threat P10: one encoding. Only the order of the attributes is the sender's.
	if written := r.DER(); !bytes.Equal(written, der) {
		return true, fmt.Sprintf("what was read is written otherwise: %x", written)
	}
	return true, ""
}

// messageFacts are the facts of a pkiMessage in a form that can be compared.
type messageFacts struct {
	MessageType, TransactionID, SenderNonce, Digest string
	Certificates                                    int
	Raw, Issuer, Subject, Serial, SPKI              string
	Modulus                                         string
	NotBefore, NotAfter                             time.Time
	SelfSigned                                      bool

	Cipher, KeyTransport, RA string // "" if the envelope is refused
	Request                  string // in hex; "" if it is not opened
	Facts                    Facts
}

// inspectMessage gives what the inspector reads.
func (w *world) inspectMessage(raw []byte) (*messageFacts, error) {
	m, err := inspector.ParseMessage(raw)
	if err != nil {
		return nil, err
	}
	f := &messageFacts{
		MessageType: m.MessageType, TransactionID: m.TransactionID, SenderNonce: hex.EncodeToString(m.SenderNonce), Digest: m.Digest,
		Certificates: m.Certificates,
		Raw:          hex.EncodeToString(m.Signer.Raw), Issuer: hex.EncodeToString(m.Signer.Issuer), Subject: hex.EncodeToString(m.Signer.Subject),
		Serial: m.Signer.Serial.String(), SPKI: hex.EncodeToString(m.Signer.SPKI), Modulus: m.Signer.PublicKey.N.Text(16),
		NotBefore: m.Signer.NotBefore.UTC(), NotAfter: m.Signer.NotAfter.UTC(), SelfSigned: m.Signer.SelfSigned,
	}
	opened := w.opener.Open(m)
	f.Cipher, f.KeyTransport, f.RA = opened.Cipher, opened.KeyTransport, opened.RA
	if opened.Err == nil {
		f.Request, f.Facts = hex.EncodeToString(opened.CSR.Raw), requestFacts(opened.CSR)
	}
	return f, nil
}

// knownSignedAttributes may stand in a pkiMessage; RFC 8894 §3.2.1 and what
// clients are known to add.
var knownSignedAttributes = []string{
	attrContentType, attrDigest, attrMessageType, attrTransaction, attrSenderNonce,
	"1.2.840.113549.1.9.5", "1.2.840.113549.1.9.15", "1.2.840.113549.1.9.52",
}

// readMessage gives what the second reader reads of a message, of which the
// inspector has read want: no less may be readable.
func (w *world) readMessage(raw []byte, want *messageFacts) (*messageFacts, error) {
	der, err := definite(raw)
	if err != nil {
		return nil, err
	}
	m, err := DecodeMessage(der)
	if err != nil {
		return nil, err
	}
	for oid := range m.Attributes {
		if !slices.Contains(knownSignedAttributes, oid) {
			return nil, fmt.Errorf("signed attribute %s", oid)
		}
	}
	key, err := single(m.Signer.SPKI)
	if err != nil {
		return nil, err
	}
	public, err := publicKey(key)
	if err != nil {
		return nil, err
	}
	f := &messageFacts{
		MessageType: m.MessageType, TransactionID: m.TransactionID, SenderNonce: hex.EncodeToString(m.SenderNonce), Digest: m.Digest,
		Certificates: m.Certificates,
		Raw:          hex.EncodeToString(m.Signer.Raw), Issuer: hex.EncodeToString(m.Signer.Issuer), Subject: hex.EncodeToString(m.Signer.Subject),
		Serial: m.Signer.Serial.String(), SPKI: hex.EncodeToString(m.Signer.SPKI), Modulus: public.N.Text(16),
		NotBefore: m.Signer.NotBefore.UTC(), NotAfter: m.Signer.NotAfter.UTC(), SelfSigned: m.Signer.SelfSigned,
	}
	if want.Cipher == "" {
		return f, nil
	}
	if m.Content, err = definiteEnvelope(m.Content); err != nil {
		return nil, fmt.Errorf("envelope: %w", err)
	}
	e, err := m.Envelope()
	if err != nil {
		return nil, fmt.Errorf("envelope: %w", err)
	}
	f.Cipher, f.KeyTransport = e.Cipher(), e.KeyTransport
	var ra *rsa.PrivateKey
	for _, candidate := range w.ra {
		if bytes.Equal(candidate.Certificate.RawIssuer, e.Issuer) && candidate.Certificate.SerialNumber.Cmp(e.Serial) == 0 {
			f.RA, ra = candidate.Name, candidate.Key.(*rsa.PrivateKey)
		}
	}
	if want.Request == "" {
		return f, nil
	}
	if ra == nil {
		return nil, errors.New("recipient is none of ours")
	}
	plain, err := e.Open(ra)
	if err != nil {
		return nil, fmt.Errorf("decrypting: %w", err)
	}
	r, err := DecodeRequest(plain)
	if err != nil {
		return nil, fmt.Errorf("request inside: %w", err)
	}
	if !bytes.Equal(r.DER(), plain) {
		return nil, errors.New("the request inside is written otherwise")
	}
	f.Request, f.Facts = hex.EncodeToString(plain), r.Facts()
	return f, nil
}

// compareMessage holds the two readers of a pkiMessage against each other.
// opened is whether the request inside was reached.
func (w *world) compareMessage(raw []byte) (f *messageFacts, problem string) {
	f, err := w.inspectMessage(raw)
	if err != nil {
		return nil, ""
	}
	second, err := w.readMessage(raw, f)
	if err != nil {
		return f, fmt.Sprintf("the second reader refuses the message: %v", err)
	}
	if diff := cmp.Diff(f, second, cmpopts.EquateEmpty()); diff != "" {
		return f, "facts differ (-inspector +second):\n" + diff
	}
	return f, ""
}

// verdict is what came of one sample.
type verdict struct {
	accepted, opened bool
	problem          string
	culprit          []byte
}

// judge compares the readers on s and, for a message, its BER twins with it.
// A panic is a problem like any other.
func (w *world) judge(s sample) (v verdict) {
	v.culprit = s.der
	defer func() {
		if p := recover(); p != nil {
			v.problem = fmt.Sprintf("panic: %v", p)
		}
	}()
	if s.kind == "request" {
		v.accepted, v.problem = compareRequest(s.der)
		v.opened = v.accepted
		return v
	}
	f, problem := w.compareMessage(s.der)
	v.accepted, v.opened, v.problem = f != nil, f != nil && f.Request != "", problem
	for _, name := range []string{"outer layer", "both layers"} {
		twin := s.twins[name]
		if twin == nil || v.problem != "" {
			continue
		}
		v.culprit = twin
		g, problem := w.compareMessage(twin)
		switch {
		case problem != "":
			v.problem = "BER of " + name + ": " + problem
		case (f == nil) != (g == nil):
			v.problem = fmt.Sprintf("BER of %s: accepted %t, in DER %t: %x", name, g != nil, f != nil, s.der)
		case f != nil:
			if diff := cmp.Diff(f, g, cmpopts.EquateEmpty()); diff != "" {
				v.problem = "BER of " + name + " has other facts (-DER +BER):\n" + diff
			}
		}
	}
	return v
}
