package caddymodule

import (
	"context"
	"encoding/json"
	"hash/maphash"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/scepgate/scepgate/gate"
	"github.com/scepgate/scepgate/store"
)

// The answer object: what was registered, and what became of it. All keys are
// always there; null means absent. Times are UTC, in whole seconds.
type expectationAnswer struct {
	ID                   string            `json:"id"`
	Profile              string            `json:"profile"`
	State                store.State       `json:"state"`
	ExternalID           *string           `json:"external_id"`
	Challenge            *string           `json:"challenge"`
	ChallengeFingerprint *string           `json:"challenge_fingerprint"`
	Subject              *string           `json:"subject"`
	SubjectRDNs          [][]nameAnswer    `json:"subject_rdns"`
	Variables            map[string]string `json:"variables"`
	SAN                  *sanAnswer        `json:"san"`
	SANRules             []sanRuleAnswer   `json:"san_rules"`
	SID                  *string           `json:"sid"`
	CertificateTemplate  *string           `json:"certificate_template"`
	KeyUsage             []string          `json:"key_usage"`
	ExtKeyUsage          []string          `json:"ext_key_usage"`
	ApplicationPolicies  []string          `json:"application_policies"`
	Key                  *keyAnswer        `json:"key"`
	TTLSeconds           *int64            `json:"ttl_seconds"`
	MaxUses              int               `json:"max_uses"`
	Labels               map[string]string `json:"labels"`
	Renews               *renewsAnswer     `json:"renews"`
	CreatedAt            time.Time         `json:"created_at"`
	ExpiresAt            time.Time         `json:"expires_at"`
	Effective            effectiveAnswer   `json:"effective"`
	Warnings             []string          `json:"warnings"`
	History              []eventAnswer     `json:"history"`
}

type nameAnswer struct {
	Type   string   `json:"type"`
	Value  *string  `json:"value"`
	Match  *string  `json:"match"`
	Values []string `json:"values"`
}

type sanAnswer struct {
	DNS   []string `json:"dns"`
	Email []string `json:"email"`
	URI   []string `json:"uri"`
	IP    []string `json:"ip"`
	UPN   []string `json:"upn"`
}

type sanRuleAnswer struct {
	Type   string   `json:"type"`
	Match  *string  `json:"match"`
	Value  *string  `json:"value"`
	Values []string `json:"values"`
	Min    *int     `json:"min"`
	Max    *int     `json:"max"`
}

type keyAnswer struct {
	MinBits    *int    `json:"min_bits"`
	SPKISHA256 *string `json:"spki_sha256"`
}

type renewsAnswer struct {
	Serial *string `json:"serial"`
	SHA256 *string `json:"sha256"`
}

type effectiveAnswer struct {
	SubjectRDNs         [][]nameAnswer  `json:"subject_rdns"`
	SANRules            []sanRuleAnswer `json:"san_rules"`
	SID                 *string         `json:"sid"`
	CertificateTemplate *string         `json:"certificate_template"`
	KeyUsage            []string        `json:"key_usage"`
	ExtKeyUsage         []string        `json:"ext_key_usage"`
	ApplicationPolicies []string        `json:"application_policies"`
	Key                 keyAnswer       `json:"key"`
}

type eventAnswer struct {
	At            time.Time `json:"at"`
	What          string    `json:"what"`
	By            *string   `json:"by"`
	Reason        *string   `json:"reason"`
	TransactionID *string   `json:"transaction_id"`
	SPKISHA256    *string   `json:"spki_sha256"`
	ClientIP      *string   `json:"client_ip"`
	HRESULT       *string   `json:"hresult"`
	Text          *string   `json:"text"`
}

type listAnswer struct {
	Items      []expectationAnswer `json:"items"`
	NextCursor *string             `json:"next_cursor"`
}

// answerOf shows e. The registration as it was sent is in the store without its
// challenge, so there is nothing here that could show one.
func answerOf(e store.Expectation) expectationAnswer {
	var r gate.Registration
	if len(e.Request) > 0 {
		_ = json.Unmarshal(e.Request, &r) // written by gate.Prepare; at worst its fields are null
	}
	a := expectationAnswer{
		ID: e.ID, Profile: e.Profile, State: e.State,
		ExternalID:           orNull(e.ExternalID),
		ChallengeFingerprint: orNull(gate.Fingerprint(e.ChallengeHash)),
		Subject:              r.Subject, Variables: r.Variables, SID: r.SID, CertificateTemplate: r.CertificateTemplate,
		KeyUsage: r.KeyUsage, ExtKeyUsage: r.ExtKeyUsage, ApplicationPolicies: r.ApplicationPolicies,
		TTLSeconds: r.TTLSeconds, MaxUses: e.MaxUses, Labels: e.Labels,
		CreatedAt: wholeSeconds(e.CreatedAt), ExpiresAt: wholeSeconds(e.ExpiresAt),
		Warnings: []string{},
	}
	_ = json.Unmarshal(gate.Effective(e), &a.Effective) // the same words; here with every key
	if e.Renews != nil {
		a.Renews = &renewsAnswer{Serial: orNull(e.Renews.Serial), SHA256: orNull(e.Renews.SHA256)}
		a.ChallengeFingerprint = nil // it is found by a certificate
		a.Effective = effectiveAnswer{
			SubjectRDNs: [][]nameAnswer{}, SANRules: []sanRuleAnswer{}, KeyUsage: []string{}, ExtKeyUsage: []string{}, ApplicationPolicies: []string{},
		}
	}
	for _, rdn := range r.SubjectRDNs {
		names := make([]nameAnswer, 0, len(rdn))
		for _, n := range rdn {
			names = append(names, nameAnswer(n))
		}
		a.SubjectRDNs = append(a.SubjectRDNs, names)
	}
	if s := r.SAN; s != nil {
		a.SAN = &sanAnswer{DNS: orEmpty(s.DNS), Email: orEmpty(s.Email), URI: orEmpty(s.URI), IP: orEmpty(s.IP), UPN: orEmpty(s.UPN)}
	}
	for _, rule := range r.SANRules {
		a.SANRules = append(a.SANRules, sanRuleAnswer(rule))
	}
	if r.Key != nil {
		a.Key = &keyAnswer{MinBits: r.Key.MinBits, SPKISHA256: r.Key.SPKISHA256}
	}
	return a
}

// madeAnswer shows what was just registered: the one time that a challenge made
// here is seen (contract §4.1).
func madeAnswer(e store.Expectation, p gate.Prepared) expectationAnswer {
	a := answerOf(e)
	a.Warnings = orEmpty(p.Warnings)
	if p.Challenge != "" && e.ID == p.Expectation.ID {
		a.Challenge = &p.Challenge
	}
	return a
}

func historyOf(events []store.Event) []eventAnswer {
	if len(events) > store.MaxHistory {
		events = events[len(events)-store.MaxHistory:]
	}
	answers := make([]eventAnswer, 0, len(events))
	for _, e := range events {
		answers = append(answers, eventAnswer{
			At: wholeSeconds(e.At), What: e.What, By: orNull(e.By), Reason: orNull(e.Reason),
			TransactionID: orNull(e.TransactionID), SPKISHA256: orNull(e.SPKISHA256),
			ClientIP: orNull(e.ClientIP), HRESULT: orNull(e.HRESULT), Text: orNull(e.Text),
		})
	}
	return answers
}

func orNull(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

func orEmpty(s []string) []string {
	if s == nil {
		return []string{}
	}
	return s
}

func wholeSeconds(t time.Time) time.Time { return t.UTC().Truncate(time.Second) }

// prepare turns a registration into one that the store can take, and holds it
// against what the client may register.
func (c *call) prepare(r gate.Registration) (gate.Prepared, *problem) {
	p, problems := c.files.gate.Prepare(r, c.client.name)
	if len(problems) > 0 {
		return gate.Prepared{}, invalidRegistration(problems)
	}
	if violations := c.client.violations(p); len(violations) > 0 {
		return gate.Prepared{}, newProblem(http.StatusForbidden, "constraint_violated", "this client may not register this", violations...)
	}
	return p, nil
}

func (h *API) postExpectation(c *call) (answer, *problem) {
	var r gate.Registration
	if p := c.readJSON(&r); p != nil {
		return answer{}, p
	}
	c.externalID = orBlank(r.ExternalID)
	prepared, p := c.prepare(r)
	if p != nil {
		return answer{}, p
	}
	var made store.Expectation
	p = h.withStore(c, func(ctx context.Context, s store.Store) *problem {
		var p *problem
		made, p = h.create(ctx, s, prepared)
		return p
	})
	if p != nil {
		return answer{}, p
	}
	c.expectationID = made.ID
	return answer{http.StatusCreated, madeAnswer(made, prepared)}, nil
}

func (h *API) putExpectation(c *call) (answer, *problem) {
	var r gate.Registration
	c.externalID = c.params["external_id"]
	if p := c.readJSON(&r); p != nil {
		return answer{}, p
	}
	if r.ExternalID != nil && *r.ExternalID != c.externalID {
		return answer{}, invalidRegistration([]gate.Problem{{Pointer: "/external_id", Code: "external_id_mismatch", Detail: "differs from the one in the path"}})
	}
	r.ExternalID = &c.externalID
	prepared, p := c.prepare(r)
	if p != nil {
		return answer{}, p
	}
	var put store.Expectation
	var status int
	p = h.withStore(c, func(ctx context.Context, s store.Store) *problem {
		var p *problem
		put, status, p = h.upsert(ctx, s, c.client, prepared)
		return p
	})
	if p != nil {
		return answer{}, p
	}
	c.expectationID = put.ID
	return answer{status, madeAnswer(put, prepared)}, nil
}

func orBlank(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

// writeLocks serialises writes of one external id, so that what upsert finds is
// what it replaces. The number of locks only bounds memory.
type writeLocks [64]sync.Mutex

var writeLockSeed = maphash.MakeSeed()

func (l *writeLocks) lock(profile, externalID string) (unlock func()) {
	var hash maphash.Hash
	hash.SetSeed(writeLockSeed)
	hash.WriteString(profile)
	hash.WriteByte(0)
	hash.WriteString(externalID)
	mu := &l[hash.Sum64()%uint64(len(l))]
	mu.Lock()
	return mu.Unlock
}

// create registers what was prepared.
func (h *API) create(ctx context.Context, s store.Store, p gate.Prepared) (store.Expectation, *problem) {
	if id := p.Expectation.ExternalID; id != "" {
		defer expectationWrites.lock(p.Expectation.Profile, id)()
	}
	made, err := s.Register(ctx, p.Expectation)
	if err != nil {
		return store.Expectation{}, h.failed(err)
	}
	return made, nil
}

// upsert registers what was prepared in place of the live expectation that has
// its external id, unless that belongs to a client that the caller cannot see:
// then the id is taken, and nothing of the other client's changes.
func (h *API) upsert(ctx context.Context, s store.Store, c *client, p gate.Prepared) (store.Expectation, int, *problem) {
	e := p.Expectation
	defer expectationWrites.lock(e.Profile, e.ExternalID)()
	live, err := liveByExternalID(ctx, s, e.Profile, e.ExternalID)
	if err != nil {
		return store.Expectation{}, 0, h.failed(err)
	}
	if live != nil && !c.seesOwner(live.Owner) {
		return store.Expectation{}, 0, storeProblem(store.ErrExternalIDInUse)
	}
	// A challenge made here is never the same: the caller gets a new one, which
	// it needs if the answer with the old one was lost.
	put, replaced, err := s.Replace(ctx, e, func(old store.Expectation) bool {
		return gate.SameRegistration(old, e)
	})
	if err != nil {
		return store.Expectation{}, 0, h.failed(err)
	}
	if replaced {
		return put, http.StatusOK, nil
	}
	return put, http.StatusCreated, nil
}

// expectationWrites is one for the process: several scep_api, and the ones of
// the configuration before, write to one store.
var expectationWrites writeLocks

// liveByExternalID finds the live expectation that has an external id.
func liveByExternalID(ctx context.Context, s store.Store, profile, externalID string) (*store.Expectation, error) {
	q := store.Query{Profile: profile, ExternalID: externalID, Limit: maxListLimit}
	for {
		page, err := s.List(ctx, q)
		if err != nil {
			return nil, err
		}
		for i := range page.Items {
			if page.Items[i].State.Live() {
				return &page.Items[i], nil
			}
		}
		if page.Next == "" {
			return nil, nil
		}
		q.Cursor = page.Next
	}
}

// listStates are the values of the query parameter state.
var listStates = []store.State{store.Registered, store.Claimed, store.Pending, store.Locked, store.Issued, store.Expired, store.Revoked}

func (h *API) listExpectations(c *call) (answer, *problem) {
	q, p := c.listQuery()
	if p != nil {
		return answer{}, p
	}
	list := listAnswer{Items: []expectationAnswer{}}
	p = h.withStore(c, func(ctx context.Context, s store.Store) *problem {
		page, err := s.List(ctx, q)
		if err != nil {
			return h.failed(err)
		}
		for _, e := range page.Items {
			list.Items = append(list.Items, answerOf(e))
		}
		list.NextCursor = orNull(page.Next)
		return nil
	})
	if p != nil {
		return answer{}, p
	}
	return answer{http.StatusOK, list}, nil
}

func (c *call) listQuery() (store.Query, *problem) {
	q := store.Query{Profile: c.profile.name, Limit: defaultListLimit}
	if !c.client.seesAll {
		q.Owner = c.client.name
	}
	for name, value := range c.query {
		if value == "" {
			return q, invalidParameter(name, "is empty")
		}
		switch name {
		case "state":
			for _, s := range listStates {
				if value == string(s) {
					q.State = s
				}
			}
			if q.State == "" {
				return q, invalidParameter(name, "is not a state")
			}
		case "label":
			key, v, ok := strings.Cut(value, "=")
			if !ok || key == "" {
				return q, invalidParameter(name, "must be key=value")
			}
			q.LabelKey, q.LabelValue = key, v
		case "external_id":
			q.ExternalID = value
		case "limit":
			n, err := strconv.Atoi(value)
			if err != nil || n < 1 || n > maxListLimit {
				return q, invalidParameter(name, "must be from 1 to "+strconv.Itoa(maxListLimit))
			}
			q.Limit = n
		case "cursor":
			q.Cursor = value
		}
	}
	return q, nil
}

// visible reads one expectation. One of another client is not found: its
// existence is not told (sees "own").
func (h *API) visible(ctx context.Context, s store.Store, c *call, id string) (store.Expectation, *problem) {
	e, err := s.Get(ctx, c.profile.name, id)
	if err != nil {
		return store.Expectation{}, h.failed(err)
	}
	if !c.client.seesOwner(e.Owner) {
		return store.Expectation{}, noSuchExpectation()
	}
	return e, nil
}

func (h *API) getExpectation(c *call) (answer, *problem) {
	var a expectationAnswer
	p := h.withStore(c, func(ctx context.Context, s store.Store) *problem {
		e, p := h.visible(ctx, s, c, c.params["id"])
		if p != nil {
			return p
		}
		a = answerOf(e)
		a.History = historyOf(e.History)
		return nil
	})
	if p != nil {
		return answer{}, p
	}
	return answer{http.StatusOK, a}, nil
}

// extension is the body of PATCH.
type extension struct {
	ExpiresAt *time.Time `json:"expires_at"`
}

func (h *API) patchExpectation(c *call) (answer, *problem) {
	c.expectationID = c.params["id"]
	var x extension
	if p := c.readJSON(&x); p != nil {
		return answer{}, p
	}
	invalid := func(code, detail string) *problem {
		return invalidRegistration([]gate.Problem{{Pointer: "/expires_at", Code: code, Detail: detail}})
	}
	switch {
	case x.ExpiresAt == nil:
		return answer{}, invalid("required", "is required")
	case !x.ExpiresAt.After(c.now):
		return answer{}, invalid("expires_at_past", "has passed; to end an expectation, delete it")
	case x.ExpiresAt.Sub(c.now) > maxTTL:
		return answer{}, invalid("expires_at_too_late", "is more than 30 days away")
	}
	return h.change(c, func(ctx context.Context, s store.Store, e store.Expectation) (store.Expectation, error) {
		return s.Extend(ctx, e.Profile, e.ID, x.ExpiresAt.UTC(), c.client.name)
	})
}

// change changes the expectation that the path names, if the caller sees it,
// and answers with what it is then.
func (h *API) change(c *call, f func(context.Context, store.Store, store.Expectation) (store.Expectation, error)) (answer, *problem) {
	c.expectationID = c.params["id"]
	var a expectationAnswer
	p := h.withStore(c, func(ctx context.Context, s store.Store) *problem {
		e, p := h.visible(ctx, s, c, c.expectationID)
		if p != nil {
			return p
		}
		c.externalID = e.ExternalID
		changed, err := f(ctx, s, e)
		if err != nil {
			return h.failed(err)
		}
		a = answerOf(changed)
		return nil
	})
	if p != nil {
		return answer{}, p
	}
	return answer{http.StatusOK, a}, nil
}

func (h *API) deleteExpectation(c *call) (answer, *problem) {
	_, p := h.change(c, func(ctx context.Context, s store.Store, e store.Expectation) (store.Expectation, error) {
		return s.Revoke(ctx, e.Profile, e.ID, c.client.name)
	})
	if p != nil {
		return answer{}, p
	}
	return answer{status: http.StatusNoContent}, nil
}

// releaseExpectation gives an expectation back to its device: one that is
// locked, or one whose key got no answer.
func (h *API) releaseExpectation(c *call) (answer, *problem) {
	return h.change(c, func(ctx context.Context, s store.Store, e store.Expectation) (store.Expectation, error) {
		return s.Release(ctx, e.Profile, e.ID, c.client.name)
	})
}
