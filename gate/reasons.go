package gate

import "github.com/scepgate/scepgate/inspector"

// Reason says why. The same word stands in logs, metrics, events, history and
// the dry run; docs/reasons.md explains each.
type Reason string

// The reasons, in the order in which findings are reported.
const (
	OK                          Reason = "ok"
	MalformedMessage            Reason = "malformed_message"
	BadSignature                Reason = "bad_signature"
	MessageTypeRefused          Reason = "message_type_refused"
	TransactionConflict         Reason = "transaction_conflict"
	Undecryptable               Reason = "undecryptable"
	MalformedRequest            Reason = "malformed_request"
	AlgorithmRefused            Reason = "algorithm_refused"
	KeyRefused                  Reason = "key_refused"
	SignerMismatch              Reason = "signer_mismatch"
	ChallengeMissing            Reason = "challenge_missing"
	ChallengeUnknown            Reason = "challenge_unknown"
	IdentityUnknown             Reason = "identity_unknown"
	ChallengeExpired            Reason = "challenge_expired"
	ChallengeRevoked            Reason = "challenge_revoked"
	ChallengeLocked             Reason = "challenge_locked"
	ChallengeUsed               Reason = "challenge_used"
	ChallengeInUse              Reason = "challenge_in_use"
	SubjectMismatch             Reason = "subject_mismatch"
	SANMismatch                 Reason = "san_mismatch"
	SIDMismatch                 Reason = "sid_mismatch"
	KeyUsageMismatch            Reason = "key_usage_mismatch"
	ExtKeyUsageMismatch         Reason = "ext_key_usage_mismatch"
	ApplicationPoliciesMismatch Reason = "application_policies_mismatch"
	TemplateMismatch            Reason = "template_mismatch"
	KeyMismatch                 Reason = "key_mismatch"
	UnexpectedExtension         Reason = "unexpected_extension"
	UnexpectedAttribute         Reason = "unexpected_attribute"
	RenewalDisabled             Reason = "renewal_disabled"
	RenewalSignerUntrusted      Reason = "renewal_signer_untrusted"
	TransactionUnknown          Reason = "transaction_unknown"
	MatcherFailed               Reason = "matcher_failed"
	StoreUnavailable            Reason = "store_unavailable"
	KeyUnavailable              Reason = "key_unavailable"
	UpstreamUnavailable         Reason = "upstream_unavailable"
	UpstreamInvalid             Reason = "upstream_invalid"
	Overloaded                  Reason = "overloaded"
)

// ReasonOf maps a stage of opening to a reason.
func ReasonOf(k inspector.Kind) Reason {
	switch k {
	case inspector.KindSignature:
		return BadSignature
	case inspector.KindUndecryptable:
		return Undecryptable
	case inspector.KindRequest:
		return MalformedRequest
	case inspector.KindAlgorithm:
		return AlgorithmRefused
	case inspector.KindKey:
		return KeyRefused
	default:
		return MalformedMessage
	}
}

// Finding is one thing that is not as it must be. Expected and Got are escaped
// and bounded.
type Finding struct {
	Reason   Reason `json:"reason"`
	Field    string `json:"field,omitempty"`
	Expected string `json:"expected,omitempty"`
	Got      string `json:"got,omitempty"`
}
