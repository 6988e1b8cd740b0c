package gate

import (
	"slices"

	"github.com/scepgate/scepgate/inspector"
	"github.com/scepgate/scepgate/plugins"
)

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
	RenewalSignerExpired        Reason = "renewal_signer_expired"
	RenewalSignerRevoked        Reason = "renewal_signer_revoked"
	RenewalIdentityChanged      Reason = "renewal_identity_changed"
	RenewalTooEarly             Reason = "renewal_too_early"
	RenewalKeyReused            Reason = "renewal_key_reused"
	RenewalUsed                 Reason = "renewal_used"
	RenewalNotRegistered        Reason = "renewal_not_registered"
	TransactionUnknown          Reason = "transaction_unknown"
	MatcherRefused              Reason = "matcher_refused"
	MatcherFailed               Reason = "matcher_failed"
	StoreUnavailable            Reason = "store_unavailable"
	KeyUnavailable              Reason = "key_unavailable"
	UpstreamUnavailable         Reason = "upstream_unavailable"
	UpstreamInvalid             Reason = "upstream_invalid"
	Overloaded                  Reason = "overloaded"
)

var inOrder = [...]Reason{
	OK,
	MalformedMessage, BadSignature, MessageTypeRefused, TransactionConflict, Undecryptable, MalformedRequest,
	AlgorithmRefused, KeyRefused, SignerMismatch,
	ChallengeMissing, ChallengeUnknown, IdentityUnknown, ChallengeExpired, ChallengeRevoked, ChallengeLocked,
	ChallengeUsed, ChallengeInUse,
	SubjectMismatch, SANMismatch, SIDMismatch, KeyUsageMismatch, ExtKeyUsageMismatch, ApplicationPoliciesMismatch,
	TemplateMismatch, KeyMismatch, UnexpectedExtension, UnexpectedAttribute,
	RenewalDisabled, RenewalSignerUntrusted, RenewalSignerExpired, RenewalSignerRevoked, RenewalIdentityChanged,
	RenewalTooEarly, RenewalKeyReused, RenewalUsed, RenewalNotRegistered, TransactionUnknown,
	MatcherRefused, MatcherFailed, StoreUnavailable, KeyUnavailable, UpstreamUnavailable, UpstreamInvalid, Overloaded,
}

// Reasons returns all reasons, in the order in which findings are reported.
func Reasons() []Reason { return slices.Clone(inOrder[:]) }

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

// fieldReason maps a matcher's field to a reason; false for a field that does not exist.
func fieldReason(f plugins.Field) (Reason, bool) {
	switch f {
	case plugins.Subject:
		return SubjectMismatch, true
	case plugins.SAN:
		return SANMismatch, true
	case plugins.SID:
		return SIDMismatch, true
	case plugins.KeyUsage:
		return KeyUsageMismatch, true
	case plugins.ExtKeyUsage:
		return ExtKeyUsageMismatch, true
	case plugins.ApplicationPolicies:
		return ApplicationPoliciesMismatch, true
	case plugins.CertificateTemplate:
		return TemplateMismatch, true
	case plugins.Key:
		return KeyMismatch, true
	}
	return MatcherFailed, false
}

// aboutIdentity reports whether r says that the challenge was right and what
// the request asks for was not.
func (r Reason) aboutIdentity() bool {
	i := slices.Index(inOrder[:], r)
	return i >= slices.Index(inOrder[:], SubjectMismatch) && i <= slices.Index(inOrder[:], UnexpectedAttribute)
}

// aboutIdentity reports whether f says so: also a matcher's refusal does, of
// who it is that asks.
func (f Finding) aboutIdentity() bool {
	if f.Reason != MatcherRefused {
		return f.Reason.aboutIdentity()
	}
	return f.Field == string(plugins.Subject) || f.Field == string(plugins.SAN) || f.Field == string(plugins.SID)
}

// Finding is one thing that is not as it must be. Expected and Got are escaped
// and bounded.
type Finding struct {
	Reason   Reason `json:"reason"`
	Field    string `json:"field,omitempty"`
	Expected string `json:"expected,omitempty"`
	Got      string `json:"got,omitempty"`
	Matcher  string `json:"matcher,omitempty"` // of matcher_refused and matcher_failed
	Code     string `json:"code,omitempty"`    // matcher_refused: the matcher's, [a-z0-9_]{1,48}
}

// finding makes a Finding out of text of any origin.
func finding(r Reason, field, expected, got string) Finding {
	return Finding{Reason: r, Field: field, Expected: safe(expected, maxFieldText), Got: safe(got, maxFieldText)}
}

// sorted puts findings into the order of the reasons and bounds their number:
// the first is the decisive one.
func sorted(findings []Finding) []Finding {
	findings = slices.Clone(findings)
	slices.SortStableFunc(findings, func(a, b Finding) int {
		return slices.Index(inOrder[:], a.Reason) - slices.Index(inOrder[:], b.Reason)
	})
	return findings[:min(len(findings), maxFindings)]
}
