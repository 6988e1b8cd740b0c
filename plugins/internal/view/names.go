package view

var attributeTypes = map[string]string{
	"2.5.4.3":                    "CN",
	"2.5.4.11":                   "OU",
	"2.5.4.10":                   "O",
	"2.5.4.7":                    "L",
	"2.5.4.8":                    "ST",
	"2.5.4.6":                    "C",
	"0.9.2342.19200300.100.1.25": "DC",
	"2.5.4.9":                    "STREET",
	"1.2.840.113549.1.9.1":       "emailAddress",
	"2.5.4.5":                    "serialNumber",
	"0.9.2342.19200300.100.1.1":  "UID",
	"2.5.4.12":                   "T",
	"2.5.4.42":                   "GN",
	"2.5.4.4":                    "SN",
	"1.2.840.113549.1.9.2":       "unstructuredName",
	"1.2.840.113549.1.9.8":       "unstructuredAddress",
	"2.5.4.46":                   "dnQualifier",
}

var extKeyUsages = map[string]string{
	"1.3.6.1.5.5.7.3.1":      "serverAuth",
	"1.3.6.1.5.5.7.3.2":      "clientAuth",
	"1.3.6.1.5.5.7.3.3":      "codeSigning",
	"1.3.6.1.5.5.7.3.4":      "emailProtection",
	"1.3.6.1.5.5.7.3.5":      "ipsecEndSystem",
	"1.3.6.1.5.5.7.3.6":      "ipsecTunnel",
	"1.3.6.1.5.5.7.3.7":      "ipsecUser",
	"1.3.6.1.5.5.7.3.8":      "timeStamping",
	"1.3.6.1.5.5.7.3.9":      "OCSPSigning",
	"1.3.6.1.5.5.7.3.17":     "ipsecIKE",
	"2.5.29.37.0":            "anyExtendedKeyUsage",
	"1.3.6.1.4.1.311.20.2.2": "smartcardLogon",
}

// AttributeType names an attribute type as the API does; a dotted OID that has
// no name stays one.
func AttributeType(oid string) string {
	if name, ok := attributeTypes[oid]; ok {
		return name
	}
	return oid
}

// ExtKeyUsage names a usage as the API does; a dotted OID that has no name
// stays one.
func ExtKeyUsage(oid string) string {
	if name, ok := extKeyUsages[oid]; ok {
		return name
	}
	return oid
}
