package badgerstore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/scepgate/scepgate/store"
)

// Register adds e.
func (s *Store) Register(ctx context.Context, e store.Expectation) (store.Expectation, error) {
	err := s.update(ctx, func(t *tx) error { return t.register(&e, "") })
	if err != nil {
		return store.Expectation{}, fmt.Errorf("register: %w", err)
	}
	return s.owned(&e)
}

// owned gives e without anything that the caller's argument shares with it.
func (s *Store) owned(e *store.Expectation) (store.Expectation, error) {
	raw, err := e.Encode()
	if err != nil {
		return store.Expectation{}, err
	}
	return store.Decode(raw)
}

// register adds e; what the expectation replaces holds is not in its way.
func (t *tx) register(e *store.Expectation, replaces string) error {
	if err := e.Start(t.now); err != nil {
		return err
	}
	if taken, err := t.get(recordKey(e.Profile, e.ID)); err != nil {
		return err
	} else if taken != nil {
		return errors.New("id is taken")
	}
	index := func(k []byte, check func(*store.Expectation) error) error {
		id, err := t.get(k)
		if err != nil {
			return err
		}
		if id != nil {
			old, _, err := t.load(recordKey(e.Profile, string(id)))
			if err != nil {
				return fmt.Errorf("index leads nowhere: %w", err)
			}
			if err := check(&old); err != nil {
				return err
			}
		}
		t.set(k, []byte(e.ID))
		return nil
	}
	if len(e.ChallengeHash) > 0 {
		err := index(indexKey(kindChallenge, e.Profile, e.ChallengeHash), func(old *store.Expectation) error {
			if old.ID == replaces {
				return old.Tombstone(t.now)
			}
			return old.ChallengeFree(t.now)
		})
		if err != nil {
			return err
		}
	} else {
		err := index(indexKey(kindIdentity, e.Profile, e.IdentityHash), func(old *store.Expectation) error {
			if old.ID != replaces && old.State.Live() {
				return store.ErrIdentityInUse
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	if e.ExternalID != "" {
		err := index(indexKey(kindExternal, e.Profile, e.ExternalID), func(old *store.Expectation) error {
			if old.ID != replaces && old.State.Live() {
				return store.ErrExternalIDInUse
			}
			return nil
		})
		if err != nil {
			return err
		}
		t.set(byExternalKey(e.Profile, e.ExternalID, e.ID), []byte{})
	}
	return t.save(e, prior{})
}

// start registers a copy of e, unless something is kept under its hash
// (threats F12, F13).
func (t *tx) start(e *store.Expectation) (store.Expectation, error) {
	c := e.Clone()
	id, err := t.find(store.Lookup{Profile: c.Profile, ChallengeHash: c.ChallengeHash, IdentityHash: c.IdentityHash})
	if err != nil {
		return store.Expectation{}, err
	}
	if id != nil {
		kept, _, err := t.load(recordKey(c.Profile, string(id)))
		if err != nil {
			return store.Expectation{}, fmt.Errorf("index leads nowhere: %w", err)
		}
		return store.Expectation{}, kept.Bars(t.now)
	}
	return c, t.register(&c, "")
}

// Replace registers e in place of the live one with its external id.
func (s *Store) Replace(ctx context.Context, e store.Expectation, same func(store.Expectation) bool) (store.Expectation, bool, error) {
	var out store.Expectation
	var replaced bool
	err := s.update(ctx, func(t *tx) (err error) {
		out, replaced, err = t.replace(e, same)
		return err
	})
	if err != nil {
		return store.Expectation{}, false, fmt.Errorf("replace: %w", err)
	}
	out, err = s.owned(&out)
	return out, replaced, err
}

func (t *tx) replace(e store.Expectation, same func(store.Expectation) bool) (store.Expectation, bool, error) {
	if e.ExternalID == "" {
		return store.Expectation{}, false, errors.New("no external id")
	}
	id, err := t.get(indexKey(kindExternal, e.Profile, e.ExternalID))
	if err != nil {
		return store.Expectation{}, false, err
	}
	if id == nil {
		err := t.register(&e, "")
		return e, false, err
	}
	key := recordKey(e.Profile, string(id))
	old, p, err := t.load(key)
	if err != nil {
		return store.Expectation{}, false, err
	}
	if !old.State.Live() {
		err := t.register(&e, "")
		return e, false, err
	}
	if old.State == store.Registered && same != nil {
		asked, _, err := t.load(key) // its own copy
		if err != nil {
			return store.Expectation{}, false, err
		}
		if same(asked) {
			if err := old.Renew(t.now, e.ExpiresAt, e.Owner); err != nil {
				return store.Expectation{}, false, err
			}
			return old, true, t.save(&old, p)
		}
	}
	if err := old.Replaceable(); err != nil {
		return store.Expectation{}, false, err
	}
	if err := t.register(&e, old.ID); err != nil {
		return store.Expectation{}, false, err
	}
	old.Supersede(t.now, e.Owner)
	return e, true, t.save(&old, p)
}

// Get returns one by id.
func (s *Store) Get(ctx context.Context, profile, id string) (store.Expectation, error) {
	var e store.Expectation
	err := s.view(ctx, func(t *tx) (err error) {
		if len(id) > maxID {
			return store.ErrNotFound
		}
		e, _, err = t.load(recordKey(profile, id))
		return err
	})
	if err != nil {
		return store.Expectation{}, fmt.Errorf("get: %w", err)
	}
	return e, nil
}

// Find answers a Lookup. It reads an index, a binding and a record and decodes
// one, whether or not they are there (threat D29).
func (s *Store) Find(ctx context.Context, l store.Lookup) (store.Found, error) {
	if len(l.ChallengeHash) == 0 && len(l.IdentityHash) == 0 {
		return store.Found{}, errors.New("find: neither a challenge hash nor an identity hash")
	}
	var f store.Found
	err := s.view(ctx, func(t *tx) error {
		id, err := t.find(l)
		if err != nil {
			return err
		}
		if len(l.ChallengeHash) > 0 && len(l.IdentityHash) > 0 {
			if id, err = t.decisive(l); err != nil {
				return err
			}
		}
		if l.Poll {
			if f.Holder, err = t.holder(l); err != nil {
				return err
			}
		}
		binding, err := t.get(indexKey(kindBinding, l.Profile, l.TransactionID))
		if err != nil {
			return err
		}
		f.TransactionKey = bound(binding, t.now)
		if id == nil {
			if _, err := t.get(recordKey(l.Profile, decoyID)); err != nil {
				return err
			}
			_, err := store.Decode(decoy)
			return err
		}
		e, _, err := t.load(recordKey(l.Profile, string(id)))
		if err != nil {
			return fmt.Errorf("index leads nowhere: %w", err)
		}
		f.Expectation = &e
		return nil
	})
	if err != nil {
		return store.Found{}, fmt.Errorf("find: %w", err)
	}
	return f, nil
}

// find gives the id under the hash that is asked for, or the first of two.
func (t *tx) find(l store.Lookup) (id []byte, err error) {
	if len(l.ChallengeHash) > 0 {
		if id, err = t.get(indexKey(kindChallenge, l.Profile, l.ChallengeHash)); id != nil || err != nil {
			return id, err
		}
	}
	if len(l.IdentityHash) > 0 {
		return t.get(indexKey(kindIdentity, l.Profile, l.IdentityHash))
	}
	return nil, nil
}

// decisive gives the id of that one of a renewal's two records which counts.
func (t *tx) decisive(l store.Lookup) ([]byte, error) {
	var both [2]*store.Expectation
	for i, k := range [][]byte{indexKey(kindChallenge, l.Profile, l.ChallengeHash), indexKey(kindIdentity, l.Profile, l.IdentityHash)} {
		id, err := t.get(k)
		if err != nil {
			return nil, err
		}
		if id == nil {
			continue
		}
		e, _, err := t.load(recordKey(l.Profile, string(id)))
		if err != nil {
			return nil, fmt.Errorf("index leads nowhere: %w", err)
		}
		both[i] = &e
	}
	e := store.Decisive(both[0], both[1])
	if e == nil {
		return nil, nil
	}
	return []byte(e.ID), nil
}

// holder gives the expectation that a transactionID was last claimed for.
func (t *tx) holder(l store.Lookup) (*store.Expectation, error) {
	binding, err := t.get(indexKey(kindHolder, l.Profile, l.TransactionID))
	if err != nil {
		return nil, err
	}
	id := bound(binding, t.now)
	if id == nil {
		return nil, nil
	}
	e, _, err := t.load(recordKey(l.Profile, string(id)))
	if errors.Is(err, store.ErrNotFound) {
		return nil, nil // swept; the binding lives a little longer
	}
	return &e, err
}

// Claim binds one use to a key.
func (s *Store) Claim(ctx context.Context, c store.Claim) (store.Expectation, store.Use, error) {
	var u store.Use
	e, err := s.change(ctx, "claim", c.Profile, c.ID, c.New, func(t *tx, e *store.Expectation) (err error) {
		if u, err = e.Claim(t.now, c); err != nil {
			return err
		}
		if err := t.bind(indexKey(kindBinding, c.Profile, c.TransactionID), c.Key, store.ErrTransactionConflict); err != nil {
			return err
		}
		if len(c.Certificate) > 0 {
			if err := t.bindUntil(part([]byte{kindCertificate}, c.Certificate), holderOf(e), later(t.now.Add(store.Retention), c.RetainUntil), store.ErrKeyConflict); err != nil {
				return err
			}
		}
		t.put(indexKey(kindHolder, c.Profile, c.TransactionID), entry{bindingValue(t.now.Add(store.Retention), e.ID), store.Retention + 24*time.Hour})
		if len(e.IdentityHash) > 0 {
			return t.bind(indexKey(kindMessage, c.Profile, c.MessageID()), []byte(e.ID), store.ErrUsed)
		}
		return nil
	})
	if err != nil {
		return store.Expectation{}, store.Use{}, err
	}
	return e, u, nil
}

// bind binds k for Retention, unless it is bound to something else.
func (t *tx) bind(k, to []byte, conflict error) error {
	return t.bindUntil(k, to, t.now.Add(store.Retention), conflict)
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// givenBack ends the bindings of certificates that e has no use for any more.
func (t *tx) givenBack(e *store.Expectation, before [][]byte) error {
	for _, certificate := range before {
		if slices.ContainsFunc(e.Uses, func(u store.Use) bool { return bytes.Equal(u.Certificate, certificate) }) {
			continue
		}
		k := part([]byte{kindCertificate}, certificate)
		v, err := t.get(k)
		if err != nil {
			return err
		}
		if bytes.Equal(bound(v, t.now), holderOf(e)) {
			t.delete(k)
		}
	}
	return nil
}

// certificates lists what e has uses for.
func certificates(e *store.Expectation) (list [][]byte) {
	for _, u := range e.Uses {
		if len(u.Certificate) > 0 {
			list = append(list, bytes.Clone(u.Certificate))
		}
	}
	return list
}

// maxTTL is the longest time after which Badger is asked to forget something.
const maxTTL = 100 * 365 * 24 * time.Hour

func (t *tx) bindUntil(k, to []byte, until time.Time, conflict error) error {
	v, err := t.get(k)
	if err != nil {
		return err
	}
	if held := bound(v, t.now); held != nil && !bytes.Equal(held, to) {
		return conflict
	}
	// Badger forgets it some time after it is over; its clock is not ours.
	ttl := until.Sub(t.now)
	if ttl > maxTTL { // a certificate without an end: kept for good, where a sum would overflow
		ttl = 0
	} else {
		ttl += 24 * time.Hour
	}
	t.put(k, entry{bindingValue(until, to), ttl})
	return nil
}

// change loads one, or starts a new one that nothing stands in the way of, lets
// f change it, and saves it unless f fails.
func (s *Store) change(ctx context.Context, what, profile, id string, new *store.Expectation, f func(*tx, *store.Expectation) error) (store.Expectation, error) {
	var e store.Expectation
	err := s.update(ctx, func(t *tx) (err error) {
		if len(id) > maxID {
			return store.ErrNotFound
		}
		var p prior
		if new != nil {
			if e, err = t.start(new); err != nil {
				return err
			}
			id = e.ID
		}
		if e, p, err = t.load(recordKey(profile, id)); err != nil {
			return err
		}
		held := certificates(&e)
		if err := f(t, &e); err != nil {
			return err
		}
		if err := t.givenBack(&e, held); err != nil {
			return err
		}
		return t.save(&e, p)
	})
	if err != nil {
		return store.Expectation{}, fmt.Errorf("%s: %w", what, err)
	}
	return e, nil
}

// Settle ends one forward.
func (s *Store) Settle(ctx context.Context, x store.Settlement) (store.Expectation, error) {
	return s.change(ctx, "settle", x.Profile, x.ID, nil, func(t *tx, e *store.Expectation) error {
		for _, d := range e.Settle(t.now, x) {
			if err := t.enqueue(&d); err != nil {
				return err
			}
		}
		return nil
	})
}

// Mismatch records a refused attempt.
func (s *Store) Mismatch(ctx context.Context, profile, id string, identity []byte, max int, ev store.Event) (store.Expectation, bool, error) {
	var locked bool
	e, err := s.change(ctx, "mismatch", profile, id, nil, func(t *tx, e *store.Expectation) error {
		locked = e.Mismatch(t.now, identity, max, ev)
		return nil
	})
	return e, locked && err == nil, err
}

// Revoke ends an expectation.
func (s *Store) Revoke(ctx context.Context, profile, id, by string) (store.Expectation, error) {
	return s.change(ctx, "revoke", profile, id, nil, func(t *tx, e *store.Expectation) error {
		e.Revoke(t.now, by)
		return nil
	})
}

// Release ends what keeps an honest device out.
func (s *Store) Release(ctx context.Context, profile, id, by string) (store.Expectation, error) {
	return s.change(ctx, "release", profile, id, nil, func(t *tx, e *store.Expectation) error {
		return e.Release(t.now, s.opened, by)
	})
}

// Extend moves the end of a registered one.
func (s *Store) Extend(ctx context.Context, profile, id string, expiresAt time.Time, by string) (store.Expectation, error) {
	return s.change(ctx, "extend", profile, id, nil, func(t *tx, e *store.Expectation) error {
		return e.Extend(t.now, expiresAt, by)
	})
}
