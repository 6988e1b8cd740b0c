package caddymodule

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/scepgate/scepgate/inspector"
)

// maxCRLSize bounds a CRL: a quarter of a million entries.
const maxCRLSize = 10 << 20

// crlSkew is how far a CRL's beginning may be ahead of our clock.
const crlSkew = 5 * time.Minute

// crl is a complete certificate revocation list that a configured CA signed.
type crl struct {
	place      string
	ca         *x509.Certificate // whose key signed it
	thisUpdate time.Time
	nextUpdate time.Time
	serials    map[string]struct{} // revoked serial numbers, in hex
}

// current reports whether the list may still be relied on.
func (l *crl) current(now time.Time) bool { return l != nil && now.Before(l.nextUpdate) }

// parseCRL reads one CRL, DER or PEM, that the key of one of cas signed in its
// name. What it cannot read wholly it refuses: a list that covers only a part
// would let the other part pass.
func parseCRL(place string, raw []byte, cas []*x509.Certificate, now time.Time) (*crl, error) {
	if len(raw) > maxCRLSize {
		return nil, fmt.Errorf("is larger than %d bytes", maxCRLSize)
	}
	if isPEM(raw) {
		block, rest := pem.Decode(raw)
		if block == nil || block.Type != "X509 CRL" {
			return nil, errors.New("holds no CRL")
		}
		if len(bytes.TrimSpace(rest)) > 0 {
			return nil, errors.New("is not a CRL alone: more follows it; name each in a file of its own")
		}
		raw = block.Bytes
	}
	list, err := x509.ParseRevocationList(raw)
	if err != nil {
		return nil, fmt.Errorf("is not a CRL: %w", err)
	}
	if len(list.Raw) != len(raw) { // the library stops at its end
		return nil, errors.New("is not a CRL alone: bytes follow it")
	}
	signer, err := crlSigner(list, cas)
	if err != nil {
		return nil, err
	}
	if err := checkCRLScope(list); err != nil {
		return nil, err
	}
	switch {
	case list.NextUpdate.IsZero(): // RFC 5280 §5.1.2.5
		return nil, errors.New("has no nextUpdate")
	case list.ThisUpdate.After(now.Add(crlSkew)):
		return nil, fmt.Errorf("is not valid before %s", list.ThisUpdate.UTC().Format(time.RFC3339))
	}
	l := &crl{
		place: place, ca: signer, thisUpdate: list.ThisUpdate, nextUpdate: list.NextUpdate,
		serials: make(map[string]struct{}, len(list.RevokedCertificateEntries)),
	}
	for _, entry := range list.RevokedCertificateEntries {
		for _, e := range entry.Extensions {
			if e.Critical { // RFC 5280 §5.3: such as the issuer of an entry in an indirect CRL
				return nil, fmt.Errorf("has an entry with the critical extension %s, which is not known", e.Id)
			}
		}
		l.serials[entry.SerialNumber.Text(16)] = struct{}{}
	}
	return l, nil
}

// crlSigner finds the CA that is the list's issuer, by name and by key.
func crlSigner(list *x509.RevocationList, cas []*x509.Certificate) (*x509.Certificate, error) {
	named := false
	for _, ca := range cas {
		if !bytes.Equal(list.RawIssuer, ca.RawSubject) {
			continue
		}
		named = true
		if list.CheckSignatureFrom(ca) == nil { // verifies cRLSign too (RFC 5280 §6.3.3 f)
			return ca, nil
		}
	}
	if named {
		return nil, errors.New("is not signed by the key of a ca_certificate that may sign CRLs")
	}
	return nil, errors.New("is not a ca_certificate's: the issuer is another")
}

// Extensions of a CRL (RFC 5280 §5.2).
const (
	oidCRLNumber                = "2.5.29.20"
	oidDeltaCRLIndicator        = "2.5.29.27"
	oidIssuingDistributionPoint = "2.5.29.28"
	oidCRLAuthorityKey          = "2.5.29.35"
)

// checkCRLScope refuses a list that is not complete for the certificates of devices.
func checkCRLScope(list *x509.RevocationList) error {
	for _, e := range list.Extensions {
		switch oid := e.Id.String(); {
		case oid == oidDeltaCRLIndicator:
			return errors.New("is a delta CRL; name the base CRL")
		case oid == oidIssuingDistributionPoint:
			if err := checkDistributionPoint(e.Value); err != nil {
				return err
			}
		case e.Critical && oid != oidCRLNumber && oid != oidCRLAuthorityKey:
			return fmt.Errorf("has the critical extension %s, which is not known", oid)
		}
	}
	return nil
}

// checkDistributionPoint reads an IssuingDistributionPoint (RFC 5280 §5.2.5),
// which Microsoft's CA adds on request.
func checkDistributionPoint(der []byte) error {
	in, point := cryptobyte.String(der), cryptobyte.String(nil)
	if !in.ReadASN1(&point, cbasn1.SEQUENCE) || !in.Empty() {
		return errors.New("has an issuing distribution point that cannot be read")
	}
	for !point.Empty() {
		var field cryptobyte.String
		var tag cbasn1.Tag
		if !point.ReadAnyASN1(&field, &tag) {
			return errors.New("has an issuing distribution point that cannot be read")
		}
		switch tag {
		case cbasn1.Tag(0).ContextSpecific().Constructed(), // where it is published
			cbasn1.Tag(1).ContextSpecific(): // only end entities, as devices are
		default: // only CAs, some reasons, indirect, attribute certificates
			return errors.New("covers only a part of the certificates, or those of other issuers")
		}
	}
	return nil
}

// revocation is what the CRLs of one profile say, those that were read together
// with its other files and those that are fetched. Nil: none is configured.
type revocation struct {
	cas     []*x509.Certificate
	read    []*crl
	fetched []*crlSlot
	now     func() time.Time
}

// crlSlot holds the newest list that was fetched from one URL.
type crlSlot struct {
	url  string
	held atomic.Pointer[crl]
}

// lists gives every configured list; nil stands for one that is not there, or
// whose signer is no ca_certificate any more.
func (r *revocation) lists() []*crl {
	lists := slices.Clone(r.read)
	for _, slot := range r.fetched {
		l := slot.held.Load()
		if l != nil && !slices.ContainsFunc(r.cas, l.ca.Equal) {
			l = nil
		}
		lists = append(lists, l)
	}
	return lists
}

// fresh reports whether every configured list is there and current.
func (r *revocation) fresh() bool {
	if r == nil {
		return true
	}
	now := r.now()
	return !slices.ContainsFunc(r.lists(), func(l *crl) bool { return !l.current(now) })
}

// revoked reports whether a list of the CA whose key signed the certificate has
// its serial number. fresh is false if there is no such list, or one of any CA
// is not current.
func (r *revocation) revoked(s *inspector.Signer) (revoked, fresh bool) {
	if s == nil || s.Serial == nil {
		return false, false
	}
	covered, serial := false, s.Serial.Text(16)
	for _, l := range r.lists() {
		if l == nil || !s.SignedBy(l.ca) {
			continue
		}
		covered = true
		if _, listed := l.serials[serial]; listed {
			revoked = true
		}
	}
	return revoked, covered && r.fresh()
}

// stale names the lists that are missing or past their nextUpdate.
func (r *revocation) stale() (places []string) {
	if r == nil {
		return nil
	}
	now := r.now()
	for i, l := range r.lists() {
		if l.current(now) {
			continue
		}
		if i < len(r.read) {
			places = append(places, r.read[i].place)
		} else {
			places = append(places, r.fetched[i-len(r.read)].url)
		}
	}
	return places
}
