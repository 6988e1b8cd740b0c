package gate

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/scepgate/scepgate/inspector"
)

// The key usages that NDES reads (RFC 5280 §4.2.1.3).
const (
	digitalSignature inspector.KeyUsage = 1 << iota
	nonRepudiation
	keyEncipherment
	dataEncipherment
	keyAgreement
	keyCertSign
	cRLSign
	encipherOnly
	decipherOnly
)

// keyUsageBits are the names in bit order.
var keyUsageBits = [...]string{
	"digitalSignature", "nonRepudiation", "keyEncipherment", "dataEncipherment",
	"keyAgreement", "keyCertSign", "cRLSign", "encipherOnly", "decipherOnly",
}

// absentKeyUsage is how NDES takes a request without the extension.
const absentKeyUsage = digitalSignature | keyEncipherment

// keyUsageNames gives the names of bits in bit order. A bit without a name is
// reported as one that no expectation can hold.
func keyUsageNames(bits inspector.KeyUsage) []string {
	names := []string{}
	for i := range 16 {
		if bits&(1<<i) == 0 {
			continue
		}
		if i < len(keyUsageBits) {
			names = append(names, keyUsageBits[i])
		} else {
			names = append(names, "unknown("+strconv.Itoa(i)+")")
		}
	}
	return names
}

// parseKeyUsage is the inverse of keyUsageNames. A name may stand only once.
func parseKeyUsage(names []string) (inspector.KeyUsage, error) {
	var bits inspector.KeyUsage
	for _, n := range names {
		bit := inspector.KeyUsage(0)
		for i, known := range keyUsageBits {
			if n == known {
				bit = 1 << i
			}
		}
		switch {
		case bit == 0:
			return 0, fmt.Errorf("key usage %q is not known", safe(n, 64))
		case bits&bit != 0:
			return 0, fmt.Errorf("key usage %s stands twice", n)
		}
		bits |= bit
	}
	return bits, nil
}

// TemplateKind says which of its templates NDES chooses for a request with these
// key usages: signature, encryption or general_purpose; "" if it cannot be told
// (contract §4.1, key_usage).
func TemplateKind(keyUsage []string) string {
	bits, err := parseKeyUsage(keyUsage)
	if err != nil {
		return ""
	}
	if bits&^(digitalSignature|nonRepudiation|keyEncipherment|dataEncipherment) != 0 {
		return ""
	}
	// nonRepudiation goes only with digitalSignature, dataEncipherment only with keyEncipherment.
	if bits&nonRepudiation != 0 && bits&digitalSignature == 0 || bits&dataEncipherment != 0 && bits&keyEncipherment == 0 {
		return ""
	}
	switch bits & (digitalSignature | keyEncipherment) {
	case digitalSignature:
		return "signature"
	case keyEncipherment:
		return "encryption"
	case digitalSignature | keyEncipherment:
		return "general_purpose"
	}
	return ""
}

// pick gives the template of TemplateKind; nil if that one is not configured,
// false if NDES cannot choose one.
func (t Templates) pick(keyUsage []string) (*Template, bool) {
	switch TemplateKind(keyUsage) {
	case "signature":
		return t.Signature, true
	case "encryption":
		return t.Encryption, true
	case "general_purpose":
		return t.GeneralPurpose, true
	}
	return nil, false
}

// CheckKeyUsage reports what is wrong with names of key usages.
func CheckKeyUsage(names []string) error {
	_, err := parseKeyUsage(names)
	return err
}

// ekus are the extended key usages that have a name.
var ekus = [...]struct{ name, oid string }{
	{"serverAuth", "1.3.6.1.5.5.7.3.1"},
	{"clientAuth", "1.3.6.1.5.5.7.3.2"},
	{"codeSigning", "1.3.6.1.5.5.7.3.3"},
	{"emailProtection", "1.3.6.1.5.5.7.3.4"},
	{"ipsecEndSystem", "1.3.6.1.5.5.7.3.5"},
	{"ipsecTunnel", "1.3.6.1.5.5.7.3.6"},
	{"ipsecUser", "1.3.6.1.5.5.7.3.7"},
	{"timeStamping", "1.3.6.1.5.5.7.3.8"},
	{"OCSPSigning", "1.3.6.1.5.5.7.3.9"},
	{"ipsecIKE", "1.3.6.1.5.5.7.3.17"},
	{"anyExtendedKeyUsage", "2.5.29.37.0"},
	{"smartcardLogon", "1.3.6.1.4.1.311.20.2.2"},
	{"msSmartcardLogon", "1.3.6.1.4.1.311.20.2.2"},
}

// forbiddenEKUs may never be registered, as extended key usage or as
// application policy, and are what the name says (threats B09 B10 B11).
var forbiddenEKUs = map[string]string{
	"1.3.6.1.4.1.311.20.2.1":  "enrollment agent",
	"2.5.29.37.0":             "any purpose",
	"1.3.6.1.4.1.311.10.12.1": "any purpose",
	"1.3.6.1.5.2.3.5":         "KDC authentication",
	"1.3.6.1.5.5.7.3.9":       "OCSP signing",
	"1.3.6.1.5.5.7.3.3":       "code signing",
}

// ekuOID turns a name or a dotted OID into a dotted OID.
func ekuOID(nameOrOID string) (string, bool) {
	for _, e := range ekus {
		if e.name == nameOrOID {
			return e.oid, true
		}
	}
	return nameOrOID, IsOID(nameOrOID)
}

// ExtKeyUsageOID gives the dotted OID of an extended key usage that may be
// expected, by name or OID.
func ExtKeyUsageOID(nameOrOID string) (string, error) {
	oid, ok := ekuOID(nameOrOID)
	if !ok {
		return "", fmt.Errorf("extended key usage %q is not known", safe(nameOrOID, 64))
	}
	if what, never := forbiddenEKUs[oid]; never {
		return "", fmt.Errorf("extended key usage %s (%s) is never accepted", oid, what)
	}
	return oid, nil
}

// ekuName gives the name of an extended key usage, or its OID.
func ekuName(oid string) string {
	for _, e := range ekus {
		if e.oid == oid {
			return e.name
		}
	}
	return oid
}

// IsOID reports whether s is an OID as a request can hold it, in the one
// way in which it can be written (threat C21: 20 arcs, each below 2^31).
func IsOID(s string) bool {
	arcs := strings.Split(s, ".")
	if len(s) > 240 || len(arcs) < 2 || len(arcs) > 20 {
		return false
	}
	for i, a := range arcs {
		n, err := strconv.ParseUint(a, 10, 31)
		if err != nil || strconv.FormatUint(n, 10) != a {
			return false
		}
		// X.660: the root has three arcs, and the first two of them forty below each.
		if i == 0 && n > 2 || i == 1 && arcs[0] != "2" && n > 39 {
			return false
		}
	}
	return true
}
