// Package memstore keeps expectations in memory: for tests, and for trials with
// `store memory`. Nothing survives the process, so a claim does not either: a
// gateway on it must not be trusted to hand out a one-time challenge only once
// over a restart.
//
// It trusts its caller as package store says. The one call is [New].
package memstore

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/scepgate/scepgate/store"
)

const (
	defaultLimit = 50
	maxScan      = 5000 // records looked at for one page
)

// Store is a store.Store in memory.
type Store struct {
	now    func() time.Time
	opened time.Time

	mu       sync.RWMutex // guards everything below; each method holds it throughout, which makes it atomic
	closed   bool
	check    []byte
	profiles map[string]*profile
	counts   map[store.CountKey]int

	certificates map[string]binding // by Claim.Certificate, to a profile and an id
	queue        map[string]queued  // deliveries by id
}

// profile holds one profile's records, encoded, so that nobody can share one.
type profile struct {
	records   map[string]record
	ids       []string           // sorted: by creation
	challenge map[string]string  // hash → id
	identity  map[string]string  // hash → id
	external  map[string]string  // external id → newest id
	tx        map[string]binding // by transactionID, to a key
	holders   map[string]binding // by transactionID, to an expectation
	messages  map[string]binding // by Claim.MessageID, to an expectation
}

type record struct {
	data       []byte
	externalID string
	state      store.State
	due        time.Time // zero: nothing for the sweeper
}

type binding struct {
	to    []byte
	until time.Time
}

// taken reports whether m binds k to something else.
func taken(m map[string]binding, k string, to []byte, now time.Time) bool {
	b, ok := m[k]
	return ok && now.Before(b.until) && !bytes.Equal(b.to, to)
}

var _ store.Store = (*Store)(nil)

// New makes an empty store. A nil clock is the system's.
func New(now func() time.Time) *Store {
	if now == nil {
		now = time.Now
	}
	return &Store{now: now, opened: now(), profiles: map[string]*profile{}, counts: map[store.CountKey]int{}, certificates: map[string]binding{}, queue: map[string]queued{}}
}

// read begins a read; its result ends it.
func (s *Store) read(ctx context.Context) (func(), error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	s.mu.RLock()
	if s.closed {
		s.mu.RUnlock()
		return nil, store.ErrClosed
	}
	return s.mu.RUnlock, nil
}

func (s *Store) write(ctx context.Context) (func(), error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil, store.ErrClosed
	}
	return s.mu.Unlock, nil
}

func (s *Store) profile(name string) *profile {
	p := s.profiles[name]
	if p == nil {
		p = &profile{
			records: map[string]record{}, challenge: map[string]string{}, identity: map[string]string{},
			external: map[string]string{}, tx: map[string]binding{}, messages: map[string]binding{}, holders: map[string]binding{},
		}
		s.profiles[name] = p
	}
	return p
}

// load returns one, up to date.
func (s *Store) load(profile, id string) (store.Expectation, error) {
	if p := s.profiles[profile]; p != nil {
		if r, ok := p.records[id]; ok {
			e, err := store.Decode(r.data)
			if err != nil {
				return store.Expectation{}, err
			}
			e.Normalise(s.now())
			return e, nil
		}
	}
	return store.Expectation{}, store.ErrNotFound
}

func (s *Store) save(e *store.Expectation) error {
	data, err := e.Encode()
	if err != nil {
		return err
	}
	p := s.profile(e.Profile)
	old, existed := p.records[e.ID]
	if existed {
		s.count(e.Profile, old.state, -1)
	} else {
		i, _ := slices.BinarySearch(p.ids, e.ID)
		p.ids = slices.Insert(p.ids, i, e.ID)
	}
	r := record{data: data, externalID: e.ExternalID, state: e.State}
	if due, ok := e.Due(); ok {
		r.due = due
	}
	p.records[e.ID] = r
	s.count(e.Profile, e.State, 1)
	return nil
}

func (s *Store) remove(e *store.Expectation) {
	p := s.profile(e.Profile)
	s.count(e.Profile, p.records[e.ID].state, -1)
	delete(p.records, e.ID)
	if i, ok := slices.BinarySearch(p.ids, e.ID); ok {
		p.ids = slices.Delete(p.ids, i, i+1)
	}
	// An index entry that leads to a newer one stays.
	for index, k := range map[*map[string]string]string{
		&p.challenge: string(e.ChallengeHash), &p.identity: string(e.IdentityHash), &p.external: e.ExternalID,
	} {
		if (*index)[k] == e.ID {
			delete(*index, k)
		}
	}
}

func (s *Store) count(profile string, state store.State, by int) {
	k := store.CountKey{Profile: profile, State: state}
	if s.counts[k] += by; s.counts[k] == 0 {
		delete(s.counts, k)
	}
}

// Register adds e.
func (s *Store) Register(ctx context.Context, e store.Expectation) (store.Expectation, error) {
	end, err := s.write(ctx)
	if err != nil {
		return store.Expectation{}, fmt.Errorf("register: %w", err)
	}
	defer end()
	out, err := s.register(e, "")
	if err != nil {
		return store.Expectation{}, fmt.Errorf("register: %w", err)
	}
	return out, nil
}

// register adds e; what the expectation replaces holds is not in its way.
func (s *Store) register(e store.Expectation, replaces string) (store.Expectation, error) {
	e, err := s.admissible(e, replaces)
	if err != nil {
		return store.Expectation{}, err
	}
	if err := s.save(&e); err != nil {
		return store.Expectation{}, err
	}
	s.index(&e)
	return s.load(e.Profile, e.ID)
}

// start is register without saving, for a claim. Whatever is kept under its
// hash is in its way.
func (s *Store) start(e store.Expectation) (store.Expectation, error) {
	if p := s.profiles[e.Profile]; p != nil {
		id, ok := p.challenge[string(e.ChallengeHash)]
		if len(e.ChallengeHash) == 0 {
			id, ok = p.identity[string(e.IdentityHash)]
		}
		if ok {
			kept, err := s.load(e.Profile, id)
			if err == nil {
				err = kept.Bars(s.now()) // threats F12, F13
			}
			return store.Expectation{}, err
		}
	}
	return s.admissible(e.Clone(), "")
}

// admissible makes e a registration that nothing is in the way of.
func (s *Store) admissible(e store.Expectation, replaces string) (store.Expectation, error) {
	now := s.now()
	if err := e.Start(now); err != nil {
		return store.Expectation{}, err
	}
	p := s.profile(e.Profile)
	if _, ok := p.records[e.ID]; ok {
		return store.Expectation{}, errors.New("id is taken")
	}
	if id, ok := p.challenge[string(e.ChallengeHash)]; ok && len(e.ChallengeHash) > 0 {
		old, err := s.load(e.Profile, id)
		if err != nil {
			return store.Expectation{}, err
		}
		if id == replaces {
			err = old.Tombstone(now)
		} else {
			err = old.ChallengeFree(now)
		}
		if err != nil {
			return store.Expectation{}, err
		}
	}
	if id, ok := p.identity[string(e.IdentityHash)]; ok && len(e.IdentityHash) > 0 && id != replaces {
		if old, err := s.load(e.Profile, id); err != nil {
			return store.Expectation{}, err
		} else if old.State.Live() {
			return store.Expectation{}, store.ErrIdentityInUse
		}
	}
	if id, ok := p.external[e.ExternalID]; ok && e.ExternalID != "" && id != replaces {
		if old, err := s.load(e.Profile, id); err != nil {
			return store.Expectation{}, err
		} else if old.State.Live() {
			return store.Expectation{}, store.ErrExternalIDInUse
		}
	}
	return e, nil
}

// index makes e the one that is found.
func (s *Store) index(e *store.Expectation) {
	p := s.profile(e.Profile)
	if len(e.ChallengeHash) > 0 {
		p.challenge[string(e.ChallengeHash)] = e.ID
	} else {
		p.identity[string(e.IdentityHash)] = e.ID
	}
	if e.ExternalID != "" {
		p.external[e.ExternalID] = e.ID
	}
}

// Replace registers e in place of the live one with its external id.
func (s *Store) Replace(ctx context.Context, e store.Expectation, same func(store.Expectation) bool) (store.Expectation, bool, error) {
	end, err := s.write(ctx)
	if err != nil {
		return store.Expectation{}, false, fmt.Errorf("replace: %w", err)
	}
	defer end()
	out, replaced, err := s.replace(e, same)
	if err != nil {
		return store.Expectation{}, false, fmt.Errorf("replace: %w", err)
	}
	return out, replaced, nil
}

func (s *Store) replace(e store.Expectation, same func(store.Expectation) bool) (store.Expectation, bool, error) {
	now := s.now()
	if e.ExternalID == "" {
		return store.Expectation{}, false, errors.New("no external id")
	}
	id, ok := s.profile(e.Profile).external[e.ExternalID]
	if !ok {
		out, err := s.register(e, "")
		return out, false, err
	}
	old, err := s.load(e.Profile, id)
	if err != nil {
		return store.Expectation{}, false, err
	}
	if !old.State.Live() {
		out, err := s.register(e, "")
		return out, false, err
	}
	if old.State == store.Registered && same != nil {
		asked, err := s.load(e.Profile, id)
		if err != nil {
			return store.Expectation{}, false, err
		}
		if same(asked) {
			if err := old.Renew(now, e.ExpiresAt, e.Owner); err != nil {
				return store.Expectation{}, false, err
			}
			if err := s.save(&old); err != nil {
				return store.Expectation{}, false, err
			}
			return old, true, nil
		}
	}
	if err := old.Replaceable(); err != nil {
		return store.Expectation{}, false, err
	}
	out, err := s.register(e, old.ID)
	if err != nil {
		return store.Expectation{}, false, err
	}
	old.Supersede(now, e.Owner)
	return out, true, s.save(&old)
}

// Get returns one by id.
func (s *Store) Get(ctx context.Context, profile, id string) (store.Expectation, error) {
	end, err := s.read(ctx)
	if err != nil {
		return store.Expectation{}, fmt.Errorf("get: %w", err)
	}
	defer end()
	e, err := s.load(profile, id)
	if err != nil {
		return store.Expectation{}, fmt.Errorf("get: %w", err)
	}
	return e, nil
}

// Find answers a Lookup.
func (s *Store) Find(ctx context.Context, l store.Lookup) (store.Found, error) {
	end, err := s.read(ctx)
	if err != nil {
		return store.Found{}, fmt.Errorf("find: %w", err)
	}
	defer end()
	if len(l.ChallengeHash) == 0 && len(l.IdentityHash) == 0 {
		return store.Found{}, errors.New("find: neither a challenge hash nor an identity hash")
	}
	p := s.profiles[l.Profile]
	if p == nil {
		return store.Found{}, nil
	}
	var f store.Found
	var hits [2]*store.Expectation
	for i, h := range [][]byte{l.ChallengeHash, l.IdentityHash} {
		id, ok := []map[string]string{p.challenge, p.identity}[i][string(h)]
		if !ok || len(h) == 0 {
			continue
		}
		e, err := s.load(l.Profile, id)
		if err != nil {
			return store.Found{}, fmt.Errorf("find: %w", err)
		}
		hits[i] = &e
	}
	f.Expectation = store.Decisive(hits[0], hits[1])
	if b, ok := p.holders[l.TransactionID]; ok && l.Poll && s.now().Before(b.until) {
		e, err := s.load(l.Profile, string(b.to))
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			return store.Found{}, fmt.Errorf("find: %w", err)
		}
		if err == nil {
			f.Holder = &e
		}
	}
	if b, ok := p.tx[l.TransactionID]; ok && s.now().Before(b.until) {
		f.TransactionKey = bytes.Clone(b.to)
	}
	return f, nil
}

// Claim binds one use to a key.
func (s *Store) Claim(ctx context.Context, c store.Claim) (store.Expectation, store.Use, error) {
	var u store.Use
	e, err := s.change(ctx, "claim", c.Profile, c.ID, c.New, func(e *store.Expectation, now time.Time) (err error) {
		if u, err = e.Claim(now, c); err != nil {
			return err
		}
		p := s.profile(c.Profile)
		message, until := string(c.MessageID()), now.Add(store.Retention)
		switch {
		case taken(p.tx, c.TransactionID, c.Key, now):
			return store.ErrTransactionConflict
		case len(c.Certificate) > 0 && taken(s.certificates, string(c.Certificate), holderOf(e), now):
			return store.ErrKeyConflict
		case len(e.IdentityHash) == 0:
		case taken(p.messages, message, []byte(e.ID), now):
			return store.ErrUsed
		default:
			p.messages[message] = binding{[]byte(e.ID), until}
		}
		if len(c.Certificate) > 0 {
			if c.RetainUntil.After(until) {
				until = c.RetainUntil
			}
			s.certificates[string(c.Certificate)] = binding{holderOf(e), until}
			until = now.Add(store.Retention)
		}
		p.tx[c.TransactionID] = binding{bytes.Clone(c.Key), until}
		p.holders[c.TransactionID] = binding{[]byte(e.ID), until}
		return nil
	})
	if err != nil {
		return store.Expectation{}, store.Use{}, err
	}
	return e, u, nil
}

// change loads one, or starts a new one that nothing stands in the way of, lets
// f change it, and saves it unless f fails.
func (s *Store) change(ctx context.Context, what, profile, id string, new *store.Expectation, f func(*store.Expectation, time.Time) error) (store.Expectation, error) {
	end, err := s.write(ctx)
	if err != nil {
		return store.Expectation{}, fmt.Errorf("%s: %w", what, err)
	}
	defer end()
	var e store.Expectation
	if new != nil {
		e, err = s.start(*new)
	} else {
		e, err = s.load(profile, id)
	}
	held := certificates(&e)
	if err == nil {
		err = f(&e, s.now())
	}
	if err == nil {
		s.givenBack(&e, held)
	}
	if err == nil {
		err = s.save(&e)
	}
	if err == nil && new != nil {
		s.index(&e)
	}
	if err != nil {
		return store.Expectation{}, fmt.Errorf("%s: %w", what, err)
	}
	return e, nil
}

// holderOf is how a record stands in the binding of a certificate.
func holderOf(e *store.Expectation) []byte { return []byte(e.Profile + "\x00" + e.ID) }

// certificates lists what e has uses for.
func certificates(e *store.Expectation) (list []string) {
	for _, u := range e.Uses {
		if len(u.Certificate) > 0 {
			list = append(list, string(u.Certificate))
		}
	}
	return list
}

// givenBack ends the bindings of certificates that e has no use for any more.
func (s *Store) givenBack(e *store.Expectation, before []string) {
	for _, certificate := range before {
		if !slices.Contains(certificates(e), certificate) && bytes.Equal(s.certificates[certificate].to, holderOf(e)) {
			delete(s.certificates, certificate)
		}
	}
}

// Settle ends one forward.
func (s *Store) Settle(ctx context.Context, t store.Settlement) (store.Expectation, error) {
	return s.change(ctx, "settle", t.Profile, t.ID, nil, func(e *store.Expectation, now time.Time) error {
		return s.enqueue(e.Settle(now, t))
	})
}

// Mismatch records a refused attempt.
func (s *Store) Mismatch(ctx context.Context, profile, id string, identity []byte, max int, ev store.Event) (store.Expectation, bool, error) {
	var locked bool
	e, err := s.change(ctx, "mismatch", profile, id, nil, func(e *store.Expectation, now time.Time) error {
		locked = e.Mismatch(now, identity, max, ev)
		return nil
	})
	return e, locked && err == nil, err
}

// Revoke ends an expectation.
func (s *Store) Revoke(ctx context.Context, profile, id, by string) (store.Expectation, error) {
	return s.change(ctx, "revoke", profile, id, nil, func(e *store.Expectation, now time.Time) error {
		e.Revoke(now, by)
		return nil
	})
}

// Release ends what keeps an honest device out.
func (s *Store) Release(ctx context.Context, profile, id, by string) (store.Expectation, error) {
	return s.change(ctx, "release", profile, id, nil, func(e *store.Expectation, now time.Time) error {
		return e.Release(now, s.opened, by)
	})
}

// Extend moves the end of a registered one.
func (s *Store) Extend(ctx context.Context, profile, id string, expiresAt time.Time, by string) (store.Expectation, error) {
	return s.change(ctx, "extend", profile, id, nil, func(e *store.Expectation, now time.Time) error {
		return e.Extend(now, expiresAt, by)
	})
}

// List pages through expectations, newest first.
func (s *Store) List(ctx context.Context, q store.Query) (store.Page, error) {
	end, err := s.read(ctx)
	if err != nil {
		return store.Page{}, fmt.Errorf("list: %w", err)
	}
	defer end()
	page := store.Page{Items: []store.Expectation{}}
	limit := q.Limit
	if limit <= 0 {
		limit = defaultLimit
	}
	p := s.profiles[q.Profile]
	if p == nil {
		p = &profile{}
	}
	i := len(p.ids)
	if q.Cursor != "" {
		raw, err := base64.RawURLEncoding.Strict().DecodeString(q.Cursor)
		id, ok := strings.CutPrefix(string(raw), q.Profile+"\x00")
		if err != nil || !ok || id == "" {
			return store.Page{}, fmt.Errorf("list: %w", store.ErrCursor)
		}
		i, _ = slices.BinarySearch(p.ids, id)
	}
	for seen := 0; i > 0; seen++ {
		if len(page.Items) == limit || seen == maxScan {
			page.Next = base64.RawURLEncoding.EncodeToString([]byte(q.Profile + "\x00" + p.ids[i]))
			break
		}
		i--
		if q.ExternalID != "" && p.records[p.ids[i]].externalID != q.ExternalID {
			continue // not worth decoding
		}
		e, err := s.load(q.Profile, p.ids[i])
		if err != nil {
			return store.Page{}, fmt.Errorf("list: %w", err)
		}
		if q.Matches(&e) {
			e.Shorten()
			page.Items = append(page.Items, e)
		}
	}
	return page, nil
}

// Sweep marks what has expired and removes what is past its retention.
func (s *Store) Sweep(ctx context.Context, max int) (store.Swept, error) {
	var n store.Swept
	end, err := s.write(ctx)
	if err != nil {
		return n, fmt.Errorf("sweep: %w", err)
	}
	defer end()
	now := s.now()
	n.Undelivered = s.sweepQueue(now, max)
	n.Changes = n.Undelivered
	for _, p := range s.profiles {
		for _, m := range []map[string]binding{p.tx, p.messages, p.holders, s.certificates} {
			maps.DeleteFunc(m, func(_ string, b binding) bool { return !now.Before(b.until) })
		}
		for id, r := range p.records {
			if n.Changes >= max {
				return n, nil
			}
			if r.due.IsZero() || now.Before(r.due) {
				continue
			}
			e, err := store.Decode(r.data)
			if err != nil {
				return n, fmt.Errorf("sweep: %.64q: %w", id, err)
			}
			held := certificates(&e)
			remove, changed, doubt := e.Sweep(now, s.opened)
			if !remove { // what it held stays bound until the certificate's end
				s.givenBack(&e, held)
			}
			switch {
			case remove:
				s.remove(&e)
			case changed:
				if err := s.save(&e); err != nil {
					return n, fmt.Errorf("sweep: %w", err)
				}
			default:
				continue
			}
			n.Changes++
			if doubt {
				n.InDoubt = append(n.InDoubt, e.Clone())
			}
		}
	}
	return n, nil
}

// Counts counts by stored state: what has expired counts as such once swept.
func (s *Store) Counts(ctx context.Context) (map[store.CountKey]int, error) {
	end, err := s.read(ctx)
	if err != nil {
		return nil, fmt.Errorf("counts: %w", err)
	}
	defer end()
	return maps.Clone(s.counts), nil
}

// BindChallengeKey keeps check, or compares it with the one kept.
func (s *Store) BindChallengeKey(ctx context.Context, check []byte) error {
	end, err := s.write(ctx)
	if err != nil {
		return fmt.Errorf("challenge key: %w", err)
	}
	defer end()
	if len(check) == 0 {
		return errors.New("challenge key: no check value")
	}
	if s.check == nil {
		if len(s.counts) > 0 { // records whose hashes nobody can vouch for
			return fmt.Errorf("challenge key: %w", store.ErrChallengeKey)
		}
		s.check = slices.Clone(check)
	}
	if string(s.check) != string(check) {
		return fmt.Errorf("challenge key: %w", store.ErrChallengeKey)
	}
	return nil
}

// Check reports whether the store is open.
func (s *Store) Check(ctx context.Context) error {
	end, err := s.write(ctx)
	if err != nil {
		return fmt.Errorf("check: %w", err)
	}
	end()
	return nil
}

// Close forgets everything.
func (s *Store) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return store.ErrClosed
	}
	s.closed, s.profiles, s.counts, s.queue = true, nil, nil, nil
	return nil
}
