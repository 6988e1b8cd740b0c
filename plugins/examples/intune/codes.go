package main

import (
	"regexp"
	"strings"

	"github.com/scepgate/scepgate/plugins"
)

// success is the only code that is an agreement.
const success = "Success"

// unknown is the service's word for what it has no other for.
const unknown = "Unknown"

// refusals are the codes of IntuneScepServiceException.ErrorCode that say what
// is wrong with a request, and the field that they are about.
var refusals = map[string]plugins.Field{
	unknown:                                  "",
	"CertificateRequestDecodingFailed":       "",
	"ChallengePasswordMissing":               plugins.Challenge,
	"ChallengeDeserializationError":          plugins.Challenge,
	"ChallengeDecryptionError":               plugins.Challenge,
	"ChallengeDecodingError":                 plugins.Challenge,
	"ChallengeInvalidTimestamp":              plugins.Challenge,
	"ChallengeExpired":                       plugins.Challenge,
	"SubjectNameMissing":                     plugins.Subject,
	"SubjectNameMismatch":                    plugins.Subject,
	"SubjectAltNameMissing":                  plugins.SAN,
	"SubjectAltNameMismatch":                 plugins.SAN,
	"KeyUsageMismatch":                       plugins.KeyUsage,
	"KeyLengthMismatch":                      plugins.Key,
	"EnhancedKeyUsageMissing":                plugins.ExtKeyUsage,
	"EnhancedKeyUsageMismatch":               plugins.ExtKeyUsage,
	"AadKeyIdentifierListMissing":            plugins.Key,
	"RegisteredKeyMismatch":                  plugins.Key,
	"SigningCertThumbprintMismatch":          "",
	"ScepProfileNoLongerTargetedToTheClient": plugins.Challenge,
	"SignatureValidationFailed":              plugins.Challenge,
	"BadCertificateRequestIdInChallenge":     plugins.Challenge,
	"BadDeviceIdInChallenge":                 plugins.Challenge,
	"BadUserIdInChallenge":                   plugins.Challenge,
}

// boundary is where a new word begins.
var boundary = regexp.MustCompile(`([a-z0-9])([A-Z])`)

// word is a code as the gateway writes it: ChallengeExpired is challenge_expired.
func word(code string) string {
	if _, ok := refusals[code]; !ok {
		return "intune_code_unknown" // a code of tomorrow is no agreement
	}
	return strings.ToLower(boundary.ReplaceAllString(code, "${1}_${2}"))
}
