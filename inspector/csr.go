package inspector

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/big"
	"strings"
)

// Limits of PKCS#10 attributes.
const (
	maxAttributes   = 32
	maxChallenge    = 8192 // characters: Intune's challenges have thousands
	maxOSVersion    = 64   // characters
	maxCSPName      = 256  // characters
	maxFriendlyName = 256  // characters
	maxClientText   = 256  // bytes of each text of the client info
)

// ParseCSR reads exactly one PKCS#10 (RFC 2986) as DER, every element of it
// (threats C01–C43), and verifies its signature: proof of possession. An error
// is a *ParseError of KindRequest, KindAlgorithm or KindKey, and then there is
// no CSR. DER is demanded wholly but for the order of the attributes (quirk:
// scepclient does not sort them). The CSR keeps no reference to der, which the
// caller may wipe.
func ParseCSR(der []byte) (*CSR, error) {
	if len(der) > maxInput {
		return nil, requestError("pkcs10", fmt.Errorf("request of %d bytes", len(der)))
	}
	c := &CSR{Raw: bytes.Clone(der)}
	if err := c.parse(c.Raw); err != nil {
		return nil, err
	}
	return c, nil
}

// SPKISHA256 is the fingerprint of the requested key.
func (c *CSR) SPKISHA256() [32]byte { return sha256.Sum256(c.SPKI) }

func requestError(stage string, err error) error {
	return &ParseError{Kind: KindRequest, Stage: stage, Err: err}
}

func (c *CSR) parse(der []byte) error {
	n, err := walk(der, modeDER) // threats C21–C23, B30
	if err != nil {
		return requestError("pkcs10", err)
	}
	if err := n.expect(classUniversal, tagSequence); err != nil {
		return requestError("pkcs10", err)
	}
	f := n.fields()
	info, err := f.next(classUniversal, tagSequence)
	if err != nil {
		return requestError("pkcs10", err)
	}
	algorithm, err := f.next(classUniversal, tagSequence)
	if err != nil {
		return requestError("pkcs10", err)
	}
	signature, err := f.any()
	if err != nil {
		return requestError("pkcs10", err)
	}
	signed, err := signature.wholeOctets()
	if err != nil {
		return requestError("pkcs10 signature", err)
	}
	if err := f.end(); err != nil { // threat C07
		return requestError("pkcs10", err)
	}
	if err := c.parseInfo(info); err != nil {
		return err
	}
	digest, err := requestDigest(algorithm)
	if err != nil {
		return err
	}
	c.SignatureDigest = digest.name
	if err := verifyRSA(c.PublicKey, digest, info.raw, signed); err != nil { // threat C17
		return requestError("pkcs10 signature", errors.New("signature does not verify"))
	}
	return nil
}

// requestDigest reads the signature algorithm: <digest>WithRSAEncryption with
// NULL and nothing else; md5 and PSS never. threats C17, C18
func requestDigest(n *node) (*digestAlgorithm, error) {
	oid, parameters, err := n.algorithm()
	if err != nil {
		return nil, requestError("pkcs10 signature algorithm", err)
	}
	digest := digestByRSASignature(oid)
	if digest == nil || digest.oid == oidMD5 {
		return nil, &ParseError{Kind: KindAlgorithm, Stage: "pkcs10 signature algorithm", Err: fmt.Errorf("%s is not accepted", oid)}
	}
	if parameters == nil {
		return nil, requestError("pkcs10 signature algorithm", errors.New("parameters are absent"))
	}
	if err := parameters.null(); err != nil {
		return nil, requestError("pkcs10 signature algorithm", err)
	}
	return digest, nil
}

// parseInfo reads CertificationRequestInfo (RFC 2986 §4.1).
func (c *CSR) parseInfo(info *node) error {
	f := info.fields()
	version, err := f.next(classUniversal, tagInteger)
	if err != nil {
		return requestError("pkcs10 version", err)
	}
	if c.Version, err = requestVersion(version); err != nil {
		return requestError("pkcs10 version", err)
	}
	subject, err := f.next(classUniversal, tagSequence)
	if err != nil {
		return requestError("pkcs10 subject", err)
	}
	if c.Subject, err = parseName(subject); err != nil {
		return requestError("pkcs10 subject", err)
	}
	spki, err := f.next(classUniversal, tagSequence)
	if err != nil {
		return requestError("pkcs10 key", err)
	}
	c.SPKI = spki.raw
	// Type and size before any arithmetic with the key. threat C19
	if c.PublicKey, err = parseRSAKey(spki); err != nil {
		return &ParseError{Kind: KindKey, Stage: "pkcs10 key", Err: err}
	}
	keyBits, err := spki.children[1].wholeOctets()
	if err != nil {
		return &ParseError{Kind: KindKey, Stage: "pkcs10 key", Err: err}
	}
	// RFC 2986 §4.1: the field is mandatory, its SET may be empty. threat C15
	attributes, err := f.next(classContext, 0)
	if err != nil {
		return requestError("pkcs10 attributes", err)
	}
	if err := f.end(); err != nil {
		return requestError("pkcs10", err)
	}
	if !attributes.constructed {
		return requestError("pkcs10 attributes", errors.New("attributes are primitive"))
	}
	if err := c.attributes(attributes, keyBits); err != nil {
		return requestError("pkcs10 attributes", err)
	}
	return nil
}

// requestVersion allows 0 to 2. quirk: Apple sends 2. threat C16
func requestVersion(n *node) (int, error) {
	version, err := n.integer()
	if err != nil {
		return 0, err
	}
	if version.Sign() < 0 || version.Cmp(big.NewInt(2)) > 0 {
		return 0, errors.New("version is not 0, 1 or 2")
	}
	return int(version.Int64()), nil
}

// attributes reads the attributes: those of the allow-list wholly, of others
// the identifier. Each one stands once and has one value, whatever it is.
// threats C03–C06, C10, C11, C14
func (c *CSR) attributes(n *node, keyBits []byte) error {
	if len(n.children) > maxAttributes {
		return fmt.Errorf("%d attributes, limit is %d", len(n.children), maxAttributes)
	}
	seen := make(map[string]bool, len(n.children))
	for i, child := range n.children {
		oid, value, err := singleAttribute(child)
		if err != nil {
			return fmt.Errorf("attribute %d: %w", i, err)
		}
		if seen[oid] {
			return fmt.Errorf("attribute %s twice", oid)
		}
		seen[oid] = true
		if err := c.attribute(oid, value, keyBits); err != nil {
			return fmt.Errorf("attribute %s: %w", oid, err)
		}
	}
	// Readers differ in which of the two they take. threats C01, C02
	if seen[oidExtensionRequest] && seen[oidMSCertExtensions] {
		return errors.New("extensions requested under both identifiers")
	}
	return nil
}

func (c *CSR) attribute(oid string, value *node, keyBits []byte) error {
	switch oid {
	case oidChallengePassword:
		return c.challenge(value)
	case oidExtensionRequest, oidMSCertExtensions:
		return c.extensions(value, keyBits)
	case oidMSOSVersion:
		return checkOSVersion(value)
	case oidMSCSP:
		return checkCSP(value)
	case oidMSRequestClientInfo:
		return checkClientInfo(value)
	case oidFriendlyName:
		return checkFriendlyName(value)
	}
	c.UnexpectedAttributes = append(c.UnexpectedAttributes, oid)
	return nil
}

// challenge reads challengePassword: visible ASCII in one of two types, all
// bytes kept. Blanks alone are no challenge. threats A11, C12, C13
func (c *CSR) challenge(n *node) error {
	if !n.is(classUniversal, tagPrintableString) && !n.is(classUniversal, tagUTF8String) {
		return fmt.Errorf("%s is not an accepted string type", n.describe())
	}
	if len(n.content) > maxChallenge {
		return fmt.Errorf("challenge of %d characters", len(n.content))
	}
	if !isVisibleASCII(n.content) || n.tag == tagPrintableString && !isPrintable(n.content) {
		return errors.New("challenge with a character outside of its alphabet")
	}
	if text := string(n.content); strings.TrimSpace(text) != "" {
		c.HasChallenge, c.Challenge = true, text
	}
	return nil
}

// checkOSVersion checks Microsoft's OS version: one IA5String. threat B25
func checkOSVersion(n *node) error {
	if err := n.expect(classUniversal, tagIA5String); err != nil {
		return err
	}
	if len(n.content) == 0 || len(n.content) > maxOSVersion || !isVisibleASCII(n.content) {
		return errors.New("OS version malformed")
	}
	return nil
}

// checkCSP checks CSPProvider{keySpec, cspName, signature} (MS-WCCE
// §2.2.2.7.2). Nothing is decided by it. threat B26
func checkCSP(n *node) error {
	if err := n.expect(classUniversal, tagSequence); err != nil {
		return err
	}
	f := n.fields()
	keySpec, err := f.next(classUniversal, tagInteger)
	if err != nil {
		return err
	}
	if err := checkSmall(keySpec); err != nil {
		return err
	}
	name, err := f.next(classUniversal, tagBMPString)
	if err != nil {
		return err
	}
	if _, err := name.bmpText(maxCSPName); err != nil {
		return err
	}
	signature, err := f.next(classUniversal, tagBitString)
	if err != nil {
		return err
	}
	if _, _, err := signature.bitString(); err != nil {
		return err
	}
	return f.end()
}

// checkClientInfo checks RequestClientInfo{clientId, machine, user, process}
// (MS-WCCE §2.2.2.7.4). Nothing is decided by it. threat B24
func checkClientInfo(n *node) error {
	if err := n.expect(classUniversal, tagSequence); err != nil {
		return err
	}
	f := n.fields()
	id, err := f.next(classUniversal, tagInteger)
	if err != nil {
		return err
	}
	if err := checkSmall(id); err != nil {
		return err
	}
	for range 3 {
		text, err := f.next(classUniversal, tagUTF8String)
		if err != nil {
			return err
		}
		if _, err := text.utf8Text(maxClientText); err != nil {
			return err
		}
	}
	return f.end()
}

// checkFriendlyName checks friendlyName (RFC 2985 §5.5.1): one BMPString. quirk:
// certmonger puts the nickname of its request there. Nothing is decided by it.
func checkFriendlyName(n *node) error {
	_, err := n.bmpText(maxFriendlyName)
	return err
}

// checkSmall checks an INTEGER of at most 32 bits.
func checkSmall(n *node) error {
	i, err := n.integer()
	if err != nil {
		return err
	}
	if i.BitLen() > 32 {
		return errors.New("integer too large")
	}
	return nil
}
