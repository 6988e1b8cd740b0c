package inspector

// Object identifiers that this package knows, in dotted form: a switch over
// text reads better than one over integer slices.
const (
	// CMS content types (RFC 5652) and signed attributes.
	oidData          = "1.2.840.113549.1.7.1"
	oidSignedData    = "1.2.840.113549.1.7.2"
	oidEnvelopedData = "1.2.840.113549.1.7.3"
	oidContentType   = "1.2.840.113549.1.9.3"
	oidMessageDigest = "1.2.840.113549.1.9.4"
	oidSigningTime   = "1.2.840.113549.1.9.5"

	// SCEP signed attributes (RFC 8894 §3.2.1).
	oidMessageType    = "2.16.840.1.113733.1.9.2"
	oidPKIStatus      = "2.16.840.1.113733.1.9.3"
	oidFailInfo       = "2.16.840.1.113733.1.9.4"
	oidSenderNonce    = "2.16.840.1.113733.1.9.5"
	oidRecipientNonce = "2.16.840.1.113733.1.9.6"
	oidTransactionID  = "2.16.840.1.113733.1.9.7"

	// What NDES adds to its answers.
	oidSCEPError         = "1.3.6.1.4.1.311.21.33" // HRESULT as signed decimal
	oidSCEPServerMessage = "1.3.6.1.4.1.311.21.38"

	// PKCS#10 attributes.
	oidChallengePassword   = "1.2.840.113549.1.9.7"
	oidExtensionRequest    = "1.2.840.113549.1.9.14"
	oidMSCertExtensions    = "1.3.6.1.4.1.311.2.1.14" // Microsoft's older extensionRequest
	oidMSOSVersion         = "1.3.6.1.4.1.311.13.2.3"
	oidMSCSP               = "1.3.6.1.4.1.311.13.2.2"
	oidMSRequestClientInfo = "1.3.6.1.4.1.311.21.20"
	oidFriendlyName        = "1.2.840.113549.1.9.20"

	// Extensions a request may carry.
	oidSubjectKeyIdentifier  = "2.5.29.14"
	oidKeyUsage              = "2.5.29.15"
	oidSubjectAltName        = "2.5.29.17"
	oidBasicConstraints      = "2.5.29.19"
	oidExtKeyUsage           = "2.5.29.37"
	oidMSTemplateName        = "1.3.6.1.4.1.311.20.2"
	oidMSTemplateOID         = "1.3.6.1.4.1.311.21.7"
	oidMSApplicationPolicies = "1.3.6.1.4.1.311.21.10"
	oidMSSID                 = "1.3.6.1.4.1.311.25.2"
	oidMSSIDValue            = "1.3.6.1.4.1.311.25.2.1"
	oidMSUPN                 = "1.3.6.1.4.1.311.20.2.3"

	// Name attributes: the usual one, and those that may be IA5String.
	oidCommonName       = "2.5.4.3"
	oidEmailAddress     = "1.2.840.113549.1.9.1"
	oidUnstructuredName = "1.2.840.113549.1.9.2"
	oidDomainComponent  = "0.9.2342.19200300.100.1.25"
)
