package gate

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"github.com/scepgate/scepgate/store"
)

// words are the reasons for which an expectation is not honoured.
type words struct {
	field                                string
	expired, revoked, locked, used, held Reason
}

// wordsOf gives the reasons for e. Nobody holds a renewal but by its
// certificate, so that it says less.
func wordsOf(e *store.Expectation) words {
	if e.Renews != nil {
		return words{"renewal", RenewalNotRegistered, RenewalNotRegistered, ChallengeLocked, RenewalUsed, RenewalUsed}
	}
	return words{"challenge", ChallengeExpired, ChallengeRevoked, ChallengeLocked, ChallengeUsed, ChallengeInUse}
}

// life judges whether e may be honoured for this key now (architecture, "The
// life of an expectation"). theft is true if another key holds it and somebody
// else seems to be asking. An unknown state is an error.
func (g *Gate) life(q *asked, e *store.Expectation) (findings []Finding, theft bool, err error) {
	say := wordsOf(e)
	no := func(r Reason, got string) []Finding { return []Finding{finding(r, say.field, "", got)} }
	over := !g.now().Before(e.ExpiresAt) // threat D33: at its end it is over
	mine := e.Use(q.key)
	switch e.State {
	case store.Registered:
		if over {
			return no(say.expired, e.ExpiresAt.UTC().Format(timeLayout)), false, nil
		}
	case store.Claimed, store.Pending, store.Issued:
		if mine == nil {
			if over && len(e.Uses) < e.MaxUses {
				return no(say.expired, e.ExpiresAt.UTC().Format(timeLayout)), false, nil
			}
			return no(say.held, ""), q.another(e.Uses), nil // threats A08, A14
		}
	case store.Expired:
		return no(say.expired, e.ExpiresAt.UTC().Format(timeLayout)), false, nil
	case store.Revoked:
		return no(say.revoked, ""), false, nil
	case store.Locked:
		return no(say.locked, ""), false, nil
	default:
		return nil, false, fmt.Errorf("state %q is not known", safe(string(e.State), 32))
	}
	if mine != nil && !g.retry(q, mine) {
		return no(say.used, ""), false, nil
	}
	return nil, false, nil
}

// retry judges whether the use may be forwarded once more: only for the very
// same identity, and once it is issued only the same transaction, for as long as
// its answer may have been lost on the way (threat D01).
func (g *Gate) retry(q *asked, u *store.Use) bool {
	if !bytes.Equal(u.Identity, q.identity) {
		return false
	}
	switch u.State {
	case store.Claimed, store.Pending:
		return true
	case store.Issued:
		return slices.Contains(u.TransactionIDs, q.transactionID) && g.now().Before(u.SettledAt.Add(g.profile.RetryWindow))
	}
	return false
}

const timeLayout = "2006-01-02T15:04:05Z"

// another reports whether q differs in identity, address or agent from all who
// hold the expectation.
func (q *asked) another(uses []store.Use) bool {
	for i := range uses {
		u := &uses[i]
		if bytes.Equal(u.Identity, q.identity) && u.ClientIP == q.clientIP && u.UserAgent == q.userAgent {
			return false
		}
	}
	return len(uses) > 0
}

// permitted judges whether the client that registered e still might: gone, or
// held to other constraints, its expectations fall with it (threat F09).
func (g *Gate) permitted(e *store.Expectation) (findings []Finding) {
	c, ok := g.profile.Constraints(e.Owner)
	if !ok {
		return []Finding{finding(ChallengeRevoked, "owner", "", e.Owner)}
	}
	for _, p := range c.Violations(*e) {
		findings = append(findings, finding(reasonAt(p.Pointer), strings.TrimPrefix(p.Pointer, "/"), "", p.Detail))
	}
	return findings
}

// reasonAt maps a place in the effective expectation to a reason.
func reasonAt(pointer string) Reason {
	field, _, _ := strings.Cut(strings.TrimPrefix(pointer, "/"), "/")
	switch field {
	case "subject_rdns":
		return SubjectMismatch
	case "san_rules":
		return SANMismatch
	case "sid":
		return SIDMismatch
	case "key_usage":
		return KeyUsageMismatch
	case "ext_key_usage":
		return ExtKeyUsageMismatch
	case "application_policies":
		return ApplicationPoliciesMismatch
	case "certificate_template":
		return TemplateMismatch
	case "key":
		return KeyMismatch
	}
	return ChallengeRevoked
}
