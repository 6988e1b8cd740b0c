package gate

import (
	"bytes"
	"crypto/hmac"
	"encoding/hex"
	"fmt"
	"slices"

	"github.com/scepgate/scepgate/inspector"
	"github.com/scepgate/scepgate/store"
)

// askPoll judges a GetCertInitial as far as it needs no store, and asks for
// what its transactionID was last claimed for. There is no challenge in it, so
// that the lookup is by a random key otherwise.
func (g *Gate) askPoll(q *asked, r Request) {
	q.lookup.Poll = true
	q.poll = r.Opened.Poll
	q.subject = subjectDigest(q.poll.Subject)
	if q.by == certified && g.profile.Renewal != nil {
		q.old = g.renewed(r.Message.Signer)
		q.findings = append(q.findings, g.renewalSigner(q.old)...)
	}
}

// polled gives what the poll is about, nil unless its signer has a part in it:
// a stranger who knows a transactionID leaves nothing in its history.
func (q *asked) polled(holder *store.Expectation) *store.Expectation {
	if holder == nil || q.polledUse(holder) == nil {
		return nil
	}
	return holder
}

// polledUse gives the use of e that the poll's signer may ask for: its own key's,
// or where e is a renewal that of the certificate which signs.
func (q *asked) polledUse(e *store.Expectation) *store.Use {
	switch {
	case q.by == itself && e.Renews == nil:
		return e.Use(q.key)
	case q.by == certified && e.Renews != nil && q.old != nil && q.old.keeps(e):
		for i := range e.Uses {
			if slices.Contains(e.Uses[i].TransactionIDs, q.transactionID) {
				return &e.Uses[i]
			}
		}
	}
	return nil
}

// keeps reports whether the renewal of this certificate is kept in e.
func (c *renewed) keeps(e *store.Expectation) bool {
	return hmac.Equal(e.ChallengeHash, c.byHash) && len(e.IdentityHash) == 0 ||
		hmac.Equal(e.IdentityHash, c.bySerial) && len(e.ChallengeHash) == 0
}

// againstPoll judges a poll against e as it was just read: it goes on only for
// what this gateway has forwarded for the same key or certificate, transaction
// and subject, and what is pending (threat D19). A strike it never is.
func (g *Gate) againstPoll(q *asked, e *store.Expectation, d *Decision) (findings []Finding, err error) {
	no := func(field, expected, got string) {
		findings = append(findings, finding(TransactionUnknown, field, expected, got))
	}
	findings = slices.Clone(q.findings)
	switch e.State {
	case store.Registered, store.Claimed, store.Pending, store.Issued:
	case store.Expired, store.Revoked, store.Locked:
		no("state", string(store.Pending), string(e.State))
	default:
		return nil, fmt.Errorf("state %q is not known", safe(string(e.State), 32))
	}
	u := q.polledUse(e)
	switch {
	case u == nil || !slices.Contains(u.TransactionIDs, q.transactionID):
		no("transaction_id", "", q.transactionID)
	case u.State != store.Pending:
		no("state", string(store.Pending), string(u.State))
	case !bytes.Equal(u.Subject, q.subject):
		no("subject", "", subjectText(q.poll.Subject))
	default:
		q.key, d.SPKISHA256 = u.Key, hex.EncodeToString(u.Key)
	}
	if !g.issues(q.poll.Issuer) {
		no("issuer", "the name of a CA or RA certificate", nameText(q.poll.Issuer))
	}
	permitted := g.permitted
	if e.Renews != nil && q.old != nil {
		permitted = func(e *store.Expectation) []Finding { return g.permittedRenewal(e, q.old.content) }
	}
	for _, f := range permitted(e) {
		no(f.Field, "", f.Got)
	}
	return findings, nil
}

// issues reports whether a name is that of a configured CA. quirk: strongSwan
// and sscep give the RA's, whose certificate they were told to verify with.
func (g *Gate) issues(name []byte) bool {
	text := nameText(name)
	for _, c := range authorities(&g.profile) {
		if bytes.Equal(c.RawSubject, name) || text != "" && nameText(c.RawSubject) == text {
			return true
		}
	}
	return false
}

// subjectDigest is equal for subjects that are the same, whatever string types
// and order they are written in.
func subjectDigest(subject []inspector.RDN) []byte {
	return requestIdentity(subject, nil, "").digest("subject")
}
