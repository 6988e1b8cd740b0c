package gate

import (
	"context"
	"crypto/hmac"
	"errors"

	"github.com/scepgate/scepgate/inspector"
	"github.com/scepgate/scepgate/store"
)

// Verdict is the answer of a dry run.
type Verdict struct {
	Verdict  string    `json:"verdict"` // accept refuse
	Reason   Reason    `json:"reason"`
	Findings []Finding `json:"findings"`
}

// Check judges a PKCS#10 against an expectation without side effects, by the
// comparison that [Gate.Judge] uses. With compareChallenge the expectation is
// one of the store: its challenge is compared, and whether it would be honoured
// for this key now.
func (g *Gate) Check(ctx context.Context, csrDER []byte, e store.Expectation, compareChallenge bool) (v Verdict) {
	defer func() {
		if p := recover(); p != nil {
			v = verdict([]Finding{finding(MalformedRequest, "", "", "checking panicked")})
		}
	}()
	ctx, cancel := context.WithTimeout(ctx, dependencyTimeout)
	defer cancel()

	csr, err := inspector.ParseCSR(csrDER)
	if err != nil {
		reason := MalformedRequest
		if parse := (*inspector.ParseError)(nil); errors.As(err, &parse) {
			reason = ReasonOf(parse.Kind)
		}
		return verdict([]Finding{finding(reason, "", "", err.Error())})
	}
	findings := g.proof(csr)
	if e.Renews != nil { // what a renewal may contain is in the certificate that signs it
		return verdict(append(findings, finding(RenewalSignerUntrusted, "signer", "the certificate to renew", "a request alone")))
	}
	w := g.read(csr)
	q := asked{w: w, identity: w.digest(), messageType: "pkcs_req"}
	if compareChallenge {
		spki := csr.SPKISHA256()
		q.key = spki[:]
		findings = append(findings, g.sameChallenge(csr, &e)...)
		ended, _, err := g.life(&q, &e)
		if err != nil {
			ended = []Finding{finding(StoreUnavailable, "", "", err.Error())}
		}
		findings = append(findings, ended...)
	}
	if !g.vouched(&e) {
		findings = append(findings, g.permitted(&e)...)
	}
	differences, _ := g.compare(ctx, &q, &e, len(findings) > 0)
	return verdict(append(findings, differences...))
}

// sameChallenge judges the request's challenge against the expectation's own.
func (g *Gate) sameChallenge(csr *inspector.CSR, e *store.Expectation) []Finding {
	if !csr.HasChallenge || csr.Challenge == "" {
		return []Finding{finding(ChallengeMissing, "challenge", "", "")}
	}
	want := e.ChallengeHash
	if g.profile.Source == SourceNDESStatic {
		want = g.hasher.Challenge(g.profile.Name, g.profile.StaticPassword)
	}
	if !hmac.Equal(g.hasher.Challenge(g.profile.Name, csr.Challenge), want) {
		return []Finding{finding(ChallengeUnknown, "challenge", "", "")}
	}
	return nil
}

func verdict(findings []Finding) Verdict {
	if len(findings) == 0 {
		return Verdict{Verdict: "accept", Reason: OK, Findings: []Finding{}}
	}
	findings = sorted(findings)
	return Verdict{Verdict: "refuse", Reason: findings[0].Reason, Findings: findings}
}
