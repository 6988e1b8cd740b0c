package gate

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"errors"
	"slices"
	"time"

	"github.com/scepgate/scepgate/inspector"
	"github.com/scepgate/scepgate/store"
)

const (
	// dependencyTimeout bounds everything that one judgement, or one
	// settlement, waits for.
	dependencyTimeout = 10 * time.Second
	// maxReads is how often an expectation that others are changing is judged
	// anew before the gate gives up. Whenever it is, somebody else got on: with
	// max_uses at its highest, all of them and their answers fit in.
	maxReads = 5 * maxUsesLimit
)

// asked is one message and what the store is asked about it.
type asked struct {
	lookup        store.Lookup
	way           way
	by            signatory
	real          bool      // the lookup is by what the message says; otherwise by a random key
	findings      []Finding // what can be told without the store
	w             *wanted   // nil: no request that could be compared
	poll          *inspector.IssuerAndSubject
	old           *renewed // the certificate that signs; nil: no renewal
	made          bool     // nobody registered it, a renewal or what a source vouches for: the claim makes the record
	key           []byte   // SHA-256 of the SubjectPublicKeyInfo that holds, or shall hold, a use
	identity      []byte   // identity digest
	subject       []byte   // subject digest
	transactionID string
	senderNonce   []byte
	clientIP      string // escaped, bounded
	userAgent     string
	messageType   string
	query         string // of the URL, without the message; escaped, bounded
}

// Judge decides and, if it is to be forwarded, claims. It asks s exactly one
// Find in every case, but for a second one after a lost race for a renewal that
// nobody registered. A Forward decision must be followed by exactly one Settle.
//
// A panic, wherever it comes from, refuses. In mode observe what would be
// refused is forwarded without a claim, and marked.
func (g *Gate) Judge(ctx context.Context, s store.Store, r Request) (d Decision) {
	observing := g.observing()
	unjudged := r.Opened == nil || r.Opened.Err != nil
	defer func() {
		if p := recover(); p != nil { // invariant 5
			unjudged = true
			d.refuse([]Finding{finding(MalformedRequest, "", "", "judging panicked")})
		}
		if observing && !d.Forward && r.Message != nil {
			d.observe(r.Message.SenderNonce, unjudged)
		}
	}()
	ctx, cancel := context.WithTimeout(ctx, dependencyTimeout)
	defer cancel()

	d = newDecision(r)
	q := g.ask(ctx, r, &d)
	e, err := g.find(ctx, s, &q)
	if err != nil {
		d.fail(StoreUnavailable)
		return d
	}
	if q.old != nil && q.old.stale { // threat D15: a CRL that is not there is no CRL without this certificate
		d.fail(UpstreamUnavailable)
		d.Findings[0].Field = "crl"
		return d
	}
	if e == nil {
		d.refuse(q.findings)
		return d
	}
	for range maxReads {
		d.ExpectationID, d.ExternalID, d.Labels = e.ID, safe(e.ExternalID, maxFieldText), e.Labels
		if r.Record && q.w != nil {
			question := g.question(&q, e)
			d.Question = &question
		}
		findings, wrong, err := g.against(ctx, &q, e, &d)
		if err != nil {
			d.fail(StoreUnavailable)
			return d
		}
		if len(findings) > 0 {
			if undecided(findings) {
				d.undecided(findings)
				return d
			}
			g.reject(ctx, s, &q, e, findings, wrong && !observing, &d)
			return d
		}
		switch err := g.claim(ctx, s, &q, e, &d); {
		case err == nil:
			return d
		case errors.Is(err, store.ErrTransactionConflict), errors.Is(err, store.ErrKeyConflict), errors.Is(err, store.ErrUsed), errors.Is(err, store.ErrChallengeUsed):
			g.reject(ctx, s, &q, e, []Finding{q.lost(err, e)}, false, &d)
			return d
		case errors.Is(err, store.ErrGeneration), errors.Is(err, store.ErrNotRegistered):
			// Somebody changed it between the read and the claim (threat D02). It
			// is read again by its id, not found again, and judged anew. What only
			// the claim would have made has no id yet.
			if q.made {
				e, err = g.find(ctx, s, &q)
			} else {
				e, err = get(ctx, s, g.profile.Name, e.ID)
			}
			if err != nil {
				d.fail(StoreUnavailable)
				return d
			}
			if e == nil {
				d.ExpectationID = ""
				d.refuse(q.findings)
				return d
			}
		default:
			d.fail(StoreUnavailable)
			return d
		}
	}
	d.fail(StoreUnavailable)
	return d
}

// ask judges what needs no store, and makes the question for the store: by what
// the message says where it says something, by a random key in every other case,
// so that the store is asked once and alike (invariant 6, threat D29).
func (g *Gate) ask(ctx context.Context, r Request, d *Decision) asked {
	q := asked{
		lookup:    store.Lookup{Profile: g.profile.Name},
		clientIP:  safe(r.ClientIP, maxFieldText),
		userAgent: safe(r.UserAgent, maxFieldText),
		query:     safe(r.Query, maxFieldText),

		messageType: d.MessageType,
	}
	q.findings, q.way, q.by = g.envelope(r)
	if m := r.Message; m != nil {
		q.transactionID, q.senderNonce = m.TransactionID, m.SenderNonce
		q.lookup.TransactionID = m.TransactionID
		if m.Signer != nil {
			spki := m.Signer.SPKISHA256()
			q.key = spki[:]
		}
	}
	var by []byte
	switch q.way {
	case foreign, enrolment:
		q.request(g, r.Opened.CSR)
		var missing []Finding
		if by, missing = g.challenge(q.w, d); q.way == enrolment { // nothing else needs a challenge
			q.findings = append(q.findings, missing...)
		}
		q.real = by != nil
	case renewal:
		g.askRenewal(ctx, &q, r, d)
		return q
	case poll:
		g.askPoll(&q, r)
	}
	if by == nil {
		by = make([]byte, 32)
		rand.Read(by) // never fails
	}
	if g.profile.Source == SourceNDESStatic {
		q.lookup.IdentityHash = by
	} else {
		q.lookup.ChallengeHash = by
	}
	return q
}

// request takes what a request asks for.
func (q *asked) request(g *Gate, csr *inspector.CSR) {
	q.w = g.read(csr)
	q.identity, q.subject = q.w.digest(), subjectDigest(csr.Subject)
}

// find asks the store, and gives what the message is to be judged against: nil
// if there is nothing, which the findings then say.
func (g *Gate) find(ctx context.Context, s store.Store, q *asked) (*store.Expectation, error) {
	hit, err := find(ctx, s, q.lookup)
	if err == nil && !q.answeredBy(hit) {
		err = errors.New("store answered something else")
	}
	if err != nil {
		return nil, err
	}
	if q.way != poll && hit.TransactionKey != nil && !bytes.Equal(hit.TransactionKey, q.key) {
		q.findings = append(q.findings, finding(TransactionConflict, "transaction_id", "", q.transactionID)) // threat D22
	}
	e := hit.Expectation
	q.made = false
	switch q.way {
	case enrolment:
		switch {
		case e != nil || !q.real:
		case g.profile.Source == SourceMatcher && len(q.findings) == 0:
			q.made, e = true, g.vouch(q)
		default:
			q.findings = append(q.findings, g.unknown())
		}
	case renewal:
		switch {
		case e != nil:
		case g.profile.Renewal.Registered:
			q.findings = append(q.findings, finding(RenewalNotRegistered, "renewal", "", ""))
		case len(q.findings) == 0 && q.old.content != nil && !q.old.stale:
			q.made, e = true, g.startRenewal(q.old)
		}
	case poll:
		if e = q.polled(hit.Holder); e == nil {
			q.findings = append(q.findings, finding(TransactionUnknown, "transaction_id", "", q.transactionID)) // threat D19
		}
	}
	return e, nil
}

// challenge gives what the expectation is found by: the challenge's keyed hash,
// or in ndes_static, if the password is right, the identity's.
func (g *Gate) challenge(w *wanted, d *Decision) ([]byte, []Finding) {
	if !w.csr.HasChallenge || w.csr.Challenge == "" {
		return nil, []Finding{finding(ChallengeMissing, "challenge", "", "")} // threat A11: "" is never a lookup key
	}
	hash := g.hasher.Challenge(g.profile.Name, w.csr.Challenge)
	d.ChallengeFingerprint = Fingerprint(hash)
	if g.profile.Source != SourceNDESStatic {
		return hash, nil
	}
	// Two keyed hashes, so that the time tells nothing of the password.
	if !hmac.Equal(hash, g.hasher.Challenge(g.profile.Name, g.profile.StaticPassword)) {
		return nil, []Finding{finding(ChallengeUnknown, "challenge", "", "")}
	}
	return g.hasher.Identity(g.profile.Name, w.identity().canonical()), nil
}

// unknown says that there is nothing under what the request says.
func (g *Gate) unknown() Finding {
	if g.profile.Source == SourceNDESStatic {
		return finding(IdentityUnknown, "subject", "", "")
	}
	return finding(ChallengeUnknown, "challenge", "", "")
}

// answeredBy reports whether the store has answered this question: a record
// that was not asked for is no answer.
func (q *asked) answeredBy(hit store.Found) bool {
	if h := hit.Holder; h != nil && (!q.lookup.Poll || h.ID == "" || h.Profile != q.lookup.Profile) {
		return false
	}
	e := hit.Expectation
	if e == nil {
		return true
	}
	if !q.real || e.ID == "" || e.Profile != q.lookup.Profile {
		return false
	}
	if q.way == renewal {
		return e.Renews != nil && q.old.keeps(e)
	}
	return e.Renews == nil &&
		hmac.Equal(e.ChallengeHash, q.lookup.ChallengeHash) &&
		hmac.Equal(e.IdentityHash, q.lookup.IdentityHash)
}

// against judges the message against e as it was just read. wrong is true if
// the request's identity is all that is wrong with it: a strike (D30).
func (g *Gate) against(ctx context.Context, q *asked, e *store.Expectation, d *Decision) (findings []Finding, wrong bool, err error) {
	switch q.way {
	case enrolment:
	case renewal:
		findings, d.TheftSuspected, err = g.againstRenewal(ctx, q, e, d)
		return findings, false, err
	case poll:
		findings, err = g.againstPoll(q, e, d)
		return findings, false, err
	default: // refused already, whatever e says; e only gets to know of it
		if len(q.findings) == 0 {
			return nil, false, errors.New("nobody signed it, and nothing was found")
		}
		return slices.Clone(q.findings), false, nil
	}
	ended, theft, err := g.life(q, e)
	if err != nil {
		return nil, false, err
	}
	d.TheftSuspected = theft
	findings = append(findings, q.findings...)
	findings = append(findings, ended...)
	if !g.vouched(e) {
		findings = append(findings, g.permitted(e)...)
	}
	wrong = len(findings) == 0
	differences, calls := g.compare(ctx, q, e, !wrong)
	d.MatcherCalls = append(d.MatcherCalls, calls...)
	for _, f := range differences {
		wrong = wrong && f.aboutIdentity()
		findings = append(findings, f)
	}
	return findings, wrong && len(findings) > 0, nil
}

// lost says why a claim failed for good: somebody was faster.
func (q *asked) lost(err error, e *store.Expectation) Finding {
	say := wordsOf(e)
	switch {
	case q.way == poll:
		return finding(TransactionUnknown, "transaction_id", "", q.transactionID)
	case errors.Is(err, store.ErrTransactionConflict):
		return finding(TransactionConflict, "transaction_id", "", q.transactionID)
	case errors.Is(err, store.ErrKeyConflict):
		return finding(say.held, say.field, "", "")
	}
	return finding(say.used, say.field, "", "")
}

// reject refuses somebody who knew the challenge, and lets the expectation's
// history know. It stays the same refusal if that cannot be written: another
// answer would tell who knew the challenge (invariant 6). The store has then
// failed for whoever called it, and the next message meets a 503.
func (g *Gate) reject(ctx context.Context, s store.Store, q *asked, e *store.Expectation, findings []Finding, strike bool, d *Decision) {
	d.refuse(findings)
	if !g.observing() { // what is only observed goes on to NDES
		defer g.tellRefused(ctx, s, q, d)
	}
	if q.made { // there is no record of it
		d.ExpectationID = ""
		return
	}
	first := d.Findings[0]
	ev := store.Event{
		At: g.now().UTC(), What: "refused", Reason: string(first.Reason), TransactionID: d.TransactionID,
		SPKISHA256: d.SPKISHA256, ClientIP: q.clientIP, Text: safe(first.Got, maxFieldText),
	}
	var identity []byte
	max := 0
	if strike {
		ev.What, identity = "mismatch", q.identity
		if g.profile.Source != SourceNDESStatic { // the password is everybody's: a lock would hit the honest
			max = g.profile.MaxMismatches
		}
	}
	if err := guarded(func() (err error) {
		_, d.Locked, err = s.Mismatch(ctx, g.profile.Name, e.ID, identity, max, ev)
		return err
	}); err != nil {
		d.Locked = false
	}
}

// claim binds e to the request's key, durably, and only then says Forward
// (invariant 3).
func (g *Gate) claim(ctx context.Context, s store.Store, q *asked, e *store.Expectation, d *Decision) error {
	var (
		held store.Expectation
		use  store.Use
	)
	c := store.Claim{
		Profile: g.profile.Name, ID: e.ID, Generation: e.Generation,
		Key: q.key, Identity: q.identity, Subject: q.subject, TransactionID: q.transactionID, SenderNonce: q.senderNonce,
		ClientIP: q.clientIP, UserAgent: q.userAgent,
		RetryWindow: g.profile.RetryWindow, ReleaseAfter: g.profile.InDoubtRelease, Poll: q.way == poll,
	}
	if q.made {
		c.New = e
	}
	if q.w != nil {
		c.Notices = g.notices(q, d.MatcherCalls)
	}
	if q.old != nil {
		c.RetainUntil, c.Certificate = q.old.signer.NotAfter, q.old.identity
	}
	err := guarded(func() (err error) {
		held, use, err = s.Claim(ctx, c)
		return err
	})
	if err != nil {
		return err
	}
	if held.ID != e.ID || !bytes.Equal(use.Key, q.key) || use.State != stateOf(e.Use(q.key)) {
		return errors.New("store claimed something else")
	}
	if err := ctx.Err(); err != nil {
		// Too late to forward: as if it had never been claimed.
		undo, cancel := context.WithTimeout(context.WithoutCancel(ctx), dependencyTimeout)
		defer cancel()
		_ = guarded(func() error {
			_, err := s.Settle(undo, store.Settlement{
				Profile: g.profile.Name, ID: e.ID, UseGeneration: use.Generation,
				Outcome: store.OutcomeUnsent, TransactionID: q.transactionID,
			})
			return err
		})
		return err
	}
	d.Forward, d.Reason, d.Findings = true, OK, nil
	d.claim = &claimRef{id: e.ID, generation: use.Generation}
	d.nonces = withNonce(use.SenderNonces, q.senderNonce)
	return nil
}

// stateOf is the state in which a claim must leave a use: its own, which a
// retry does not change, or claimed if there was none.
func stateOf(u *store.Use) store.State {
	if u == nil {
		return store.Claimed
	}
	return u.State
}

// observe forwards what would have been refused (contract §3.3).
func (d *Decision) observe(nonce []byte, unjudged bool) {
	d.Unjudged = unjudged || d.Failed
	d.Forward, d.Observed, d.Failed, d.claim = true, true, false, nil
	d.nonces = [][]byte{nonce}
}

func find(ctx context.Context, s store.Store, l store.Lookup) (hit store.Found, err error) {
	err = guarded(func() (err error) {
		hit, err = s.Find(ctx, l)
		return err
	})
	if err == nil {
		err = ctx.Err() // threat F14: an answer that comes too late is none
	}
	return hit, err
}

func get(ctx context.Context, s store.Store, profile, id string) (*store.Expectation, error) {
	var e store.Expectation
	err := guarded(func() (err error) {
		e, err = s.Get(ctx, profile, id)
		return err
	})
	return &e, err
}

// guarded calls the store. A panic there is an error like any other.
func guarded(call func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = errors.New("store panicked")
		}
	}()
	return call()
}
