package gate

import (
	"crypto/sha256"
	"encoding/binary"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/scepgate/scepgate/inspector"
	"github.com/scepgate/scepgate/store"
)

// attr is one attribute of a name: dotted OID and decoded value.
type attr struct{ Type, Value string }

// altName is one subject alternative name of a type that can be expected.
type altName struct{ Type, Value string }

// identity is whom a certificate is for.
type identity struct {
	Subject [][]attr
	SAN     []altName // without the URI that carries a SID
	SID     string
}

// requestIdentity is the identity that a request asks for. The caller has taken
// the URI that carries a SID out of san.
func requestIdentity(subject []inspector.RDN, san []inspector.GeneralName, sid string) identity {
	i := identity{SID: sid}
	for _, rdn := range subject {
		attrs := make([]attr, 0, len(rdn))
		for _, a := range rdn {
			attrs = append(attrs, attr{a.Type, a.Value})
		}
		i.Subject = append(i.Subject, attrs)
	}
	for _, n := range san {
		i.SAN = append(i.SAN, altName{n.Type, n.Value})
	}
	return i
}

// expectedIdentity is the identity that c expects; false if c leaves any of it
// open, because then there is more than one.
func expectedIdentity(c store.Content) (identity, bool) {
	i := identity{SID: c.SID}
	for _, rdn := range c.Subject {
		attrs := make([]attr, 0, len(rdn))
		for _, v := range rdn {
			if v.Match != matchExact {
				return identity{}, false
			}
			attrs = append(attrs, attr{v.Type, v.Value})
		}
		i.Subject = append(i.Subject, attrs)
	}
	for _, r := range c.SAN {
		if r.Match != matchExact || r.Min != 1 || r.Max != 1 {
			return identity{}, false
		}
		i.SAN = append(i.SAN, altName{r.Type, r.Value})
	}
	return i, true
}

// canonical is equal for two identities exactly if they are the same: the
// subject is a multiset of RDNs, each a multiset of attributes, compared as
// decoded bytes; the alternative names are a set. Every part carries its
// length, so that no value can pass for structure (threat C43).
func (i identity) canonical() string {
	rdns := make([]string, 0, len(i.Subject))
	for _, rdn := range i.Subject {
		attrs := make([]string, 0, len(rdn))
		for _, a := range rdn {
			attrs = append(attrs, encode(a.Type, a.Value))
		}
		slices.Sort(attrs)
		rdns = append(rdns, encode(attrs...))
	}
	slices.Sort(rdns)
	san := make([]string, 0, len(i.SAN))
	for _, n := range i.SAN {
		san = append(san, encode(n.Type, foldAltName(n.Type, n.Value)))
	}
	slices.Sort(san)
	return encode(encode(rdns...), encode(slices.Compact(san)...), i.SID)
}

// digest is SHA-256 over the canonical identity and extra, in this order.
func (i identity) digest(extra ...string) []byte {
	sum := sha256.Sum256([]byte(encode(append([]string{i.canonical()}, extra...)...)))
	return sum[:]
}

// Identity is the lookup key where one static challenge serves all: HMAC-SHA-256
// over profile and canonical identity.
func (h *Hasher) Identity(profile string, canonical string) []byte {
	return h.mac("identity", profile, canonical)
}

// encode joins parts, with their number and each one's length before it.
func encode(parts ...string) string {
	b := binary.BigEndian.AppendUint32(nil, uint32(len(parts)))
	for _, p := range parts {
		b = binary.BigEndian.AppendUint32(b, uint32(len(p)))
		b = append(b, p...)
	}
	return string(b)
}

// foldAltName removes the differences that do not count: case in dns, in the
// domain of email and in upn. Other types are compared as they are.
func foldAltName(typ, value string) string {
	switch typ {
	case sanDNS:
		return asciiLower(value)
	case sanEmail:
		if at := strings.LastIndexByte(value, '@'); at >= 0 {
			return value[:at] + asciiLower(value[at:])
		}
		return value
	case sanUPN:
		return lower(value)
	}
	return value
}

// asciiLower leaves everything but A to Z alone: no locale, no surprise.
func asciiLower(s string) string {
	b := []byte(s)
	for i, c := range b {
		if 'A' <= c && c <= 'Z' {
			b[i] = c + 'a' - 'A'
		}
	}
	return string(b)
}

// lower ignores case, but turns no other letter into an ASCII one: the Kelvin
// sign is not a k, and a dotted capital I not an i (threat C34).
func lower(s string) string {
	if !utf8.ValidString(s) {
		return s
	}
	return strings.Map(func(r rune) rune {
		if l := unicode.ToLower(r); r < utf8.RuneSelf || l >= utf8.RuneSelf {
			return l
		}
		return r
	}, s)
}
