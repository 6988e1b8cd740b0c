package badgerstore

import (
	"crypto/sha256"
	"encoding/binary"
	"time"

	"github.com/scepgate/scepgate/store"
)

// The layout. The first byte tells the kind. Every part but the last is
// preceded by its length, so no two lists of parts make the same key, whatever
// bytes they hold; long parts are hashed.
//
//	m name                       schema version, challenge key's check value, probe
//	e profile id                 the expectation (JSON)
//	c profile challengeHash      id of the newest with this challenge
//	i profile identityHash       id of the newest with this identity
//	x profile externalID         id of the newest with this external id
//	h profile externalID id      all with this external id
//	t profile transactionID      until when, and which key (see bindingValue)
//	w profile transactionID      until when, and which expectation it was last claimed for
//	r profile messageID          until when, and which expectation (see bindingValue)
//	z certificate                until when, and which expectation's profile and id
//	d time profile id            key of the expectation that the sweeper must look at then
//	n state profile              how many, and the profile's name
//	q id                         a delivery: when it is due, its attempts, and the rest (JSON)
//	p time id                    nothing: this delivery is due then
const (
	kindRecord      = 'e'
	kindChallenge   = 'c'
	kindIdentity    = 'i'
	kindExternal    = 'x'
	kindByExternal  = 'h'
	kindBinding     = 't'
	kindHolder      = 'w'
	kindMessage     = 'r'
	kindCertificate = 'z'
	kindDue         = 'd'
	kindCount       = 'n'
	kindQueue       = 'q'
	kindQueueDue    = 'p'
)

var (
	schemaKey       = []byte("m\x00schema")
	challengeKeyKey = []byte("m\x00challenge key")
	probeKey        = []byte("m\x00probe")
)

// maxID bounds what is looked up by id; package store registers none longer than 512 bytes.
const maxID = 512

// part appends s so that where it ends is known.
func part[T string | []byte](k []byte, s T) []byte {
	if len(s) < 0xff {
		return append(append(k, byte(len(s))), s...)
	}
	h := sha256.Sum256([]byte(s))
	return append(append(k, 0xff), h[:]...)
}

func recordPrefix(profile string) []byte { return part([]byte{kindRecord}, profile) }

func recordKey(profile, id string) []byte { return append(recordPrefix(profile), id...) }

func indexKey[T string | []byte](kind byte, profile string, value T) []byte {
	return part(part([]byte{kind}, profile), value)
}

func byExternalKey(profile, externalID, id string) []byte {
	return append(indexKey(kindByExternal, profile, externalID), id...)
}

// dueKey is nil if the sweeper has nothing to do with e.
func dueKey(e *store.Expectation) []byte {
	due, ok := e.Due()
	if !ok {
		return nil
	}
	k := binary.BigEndian.AppendUint64([]byte{kindDue}, nanos(due))
	return append(part(k, e.Profile), e.ID...)
}

// dueBefore is the first key that is not yet due at now.
func dueBefore(now time.Time) []byte {
	return binary.BigEndian.AppendUint64([]byte{kindDue}, nanos(now)+1)
}

// nanos is t as an ordered number. Times before 1970 are 0, after 2262 the end of time.
func nanos(t time.Time) uint64 {
	switch {
	case t.Before(time.Unix(0, 0)):
		return 0
	case t.Year() > 2261:
		return 1<<63 - 1
	}
	return uint64(t.UnixNano())
}

// holderOf is how a record stands in the binding of a certificate.
func holderOf(e *store.Expectation) []byte { return append(part(nil, e.Profile), e.ID...) }

// bindingValue says until when a transactionID belongs to a key, or a message to
// an expectation.
func bindingValue[T string | []byte](until time.Time, to T) []byte {
	return append(binary.BigEndian.AppendUint64(nil, nanos(until)), to...)
}

// bound is what a bindingValue binds to, nil if it is over.
func bound(v []byte, now time.Time) []byte {
	if len(v) <= 8 || nanos(now) >= binary.BigEndian.Uint64(v) {
		return nil
	}
	return v[8:]
}

// states gives each state its byte in count keys. The order is part of the schema.
var states = []store.State{
	store.Registered, store.Claimed, store.Pending, store.Locked,
	store.Issued, store.Expired, store.Revoked,
}

func countKey(k store.CountKey) []byte {
	b := byte(0xff)
	for i, s := range states {
		if s == k.State {
			b = byte(i)
		}
	}
	return part([]byte{kindCount, b}, k.Profile)
}
