package gate

import (
	"bytes"
	"crypto/rsa"
	"crypto/x509"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/scepgate/scepgate/inspector"
)

// The messageTypes that have a meaning here (RFC 8894 §3.2.1.2).
const (
	typePKCSReq        = "19"
	typeRenewalReq     = "17"
	typeGetCertInitial = "20"
)

// way is how a message is judged.
type way int

const (
	nowhere   way = iota // nothing in it can be compared with anything
	foreign              // a request that nobody signed who may: refused, but its challenge's expectation hears of it
	enrolment            // a request signed by its own key
	renewal              // a request signed by a certificate of the CA
	poll                 // a GetCertInitial
)

// signatory is who signed a message.
type signatory int

const (
	somebody  signatory = iota
	itself              // its certificate is self-signed
	certified           // its certificate is signed by a pinned CA's key
)

// envelope judges what can be told from the message alone, without the store.
// A way other than nowhere does not mean that nothing was found.
func (g *Gate) envelope(r Request) (findings []Finding, to way, by signatory) {
	m, o := r.Message, r.Opened
	if m == nil || m.Signer == nil || m.Signer.PublicKey == nil || o == nil || m.TransactionID == "" {
		return []Finding{finding(MalformedMessage, "message", "", "")}, nowhere, somebody
	}
	add := func(f Finding) { findings = append(findings, f) }

	known := true
	switch m.MessageType {
	case typePKCSReq, typeRenewalReq: // architecture, invariant 4: the signer decides, not which of the two
	case typeGetCertInitial:
	default:
		known = false
		add(finding(MessageTypeRefused, "message_type", "19 or 17", m.MessageType)) // threats D07, D08, D21
	}
	if !slices.Contains(g.profile.Digests, m.Digest) {
		add(finding(AlgorithmRefused, "digest", strings.Join(g.profile.Digests, " "), m.Digest)) // threat C76
	}

	var csr *inspector.CSR
	polls := m.MessageType == typeGetCertInitial
	switch {
	case o.Err != nil:
		add(finding(ReasonOf(o.Err.Kind), "", "", o.Err.Error()))
	case polls != (o.Poll != nil), polls != (o.CSR == nil), !polls && o.CSR.PublicKey == nil: // threat D20
		add(finding(MalformedRequest, "", "", ""))
	default:
		if known {
			to = foreign
		}
		if !slices.Contains(g.profile.Ciphers, o.Cipher) {
			add(finding(AlgorithmRefused, "cipher", strings.Join(g.profile.Ciphers, " "), o.Cipher)) // threat C49
		}
		if o.KeyTransport != "pkcs1v15" && o.KeyTransport != "oaep_sha1" {
			add(finding(AlgorithmRefused, "key_transport", "pkcs1v15 oaep_sha1", o.KeyTransport))
		}
		if csr = o.CSR; csr != nil {
			findings = append(findings, g.proof(csr)...)
		}
	}
	signed, by := g.signer(m, csr)
	switch {
	case to == nowhere:
	case polls:
		to = poll
	case by == itself:
		to = enrolment
	case by == certified && g.profile.Renewal != nil:
		to = renewal
	}
	return append(findings, signed...), to, by
}

// proof judges how the request is signed, and by what key.
func (g *Gate) proof(csr *inspector.CSR) (findings []Finding) {
	if !slices.Contains(g.profile.Digests, csr.SignatureDigest) {
		findings = append(findings, finding(AlgorithmRefused, "request_digest", strings.Join(g.profile.Digests, " "), csr.SignatureDigest))
	}
	return append(findings, g.key("key", csr.PublicKey)...)
}

// key judges one public key (threats C19, C20).
func (g *Gate) key(field string, k *rsa.PublicKey) (findings []Finding) {
	if k == nil || k.N == nil {
		return []Finding{finding(KeyRefused, field, "an RSA key", "none")}
	}
	if bits := k.N.BitLen(); bits < g.profile.MinRSABits {
		findings = append(findings, finding(KeyRefused, field, fmt.Sprintf("%d bits", g.profile.MinRSABits), fmt.Sprintf("%d bits", bits)))
	}
	for _, c := range slices.Concat(g.profile.CAs, g.profile.RAs) {
		// The modulus, not the encoding: an infrastructure key in another
		// wrapping is still one.
		if theirs, ok := c.PublicKey.(*rsa.PublicKey); ok && theirs.N.Cmp(k.N) == 0 {
			findings = append(findings, finding(KeyRefused, field, "a key of its own", "the key of a CA or RA certificate"))
			break
		}
	}
	return findings
}

// signer judges who signed the message (architecture, invariant 4). Itself is
// the way of an enrolment, a certificate of the CA that of a renewal.
func (g *Gate) signer(m *inspector.Message, csr *inspector.CSR) (findings []Finding, by signatory) {
	s := m.Signer
	findings = g.key("signer_key", s.PublicKey)
	// What verifies under its own key, which is no CA's (see key), no CA has signed.
	if !s.SelfSigned && slices.ContainsFunc(g.profile.CAs, func(ca *x509.Certificate) bool { return s.SignedBy(ca) }) {
		if g.profile.Renewal == nil {
			// threats D10, D11: a certificate of the CA makes a renewal of it, with a challenge or without.
			findings = append(findings, finding(RenewalDisabled, "signer", "self-signed", "signed by the CA"))
		}
		return findings, certified
	}
	if !s.SelfSigned {
		return append(findings, finding(RenewalSignerUntrusted, "signer", "self-signed", "signed by another")), somebody // threats D09, D13
	}
	if name := nameText(s.Issuer); g.caNames[name] || name == "" && len(s.Issuer) > 2 { // 30 00 is a name without any
		// NDES may take it for one of the CA's by its name alone (threat D13).
		findings = append(findings, finding(RenewalSignerUntrusted, "signer", "an issuer of its own", "self-signed in the CA's name"))
	}
	if m.Certificates != 1 {
		findings = append(findings, finding(MalformedMessage, "certificates", "1", strconv.Itoa(m.Certificates))) // threat C67
	}
	if csr != nil && !bytes.Equal(s.SPKI, csr.SPKI) {
		// threat A12: a lifted envelope in a new signature.
		findings = append(findings, finding(SignerMismatch, "signer_key", spkiText(csr.SPKISHA256()), spkiText(s.SPKISHA256())))
	}
	return findings, itself
}

func spkiText(sum [32]byte) string { return fmt.Sprintf("%x", sum) }

// nameText makes names equal that differ only in case, string types, blanks or
// punctuation: it is for refusing.
func nameText(rawRDNSequence []byte) string {
	return inspector.NameSkeleton(rawRDNSequence)
}
