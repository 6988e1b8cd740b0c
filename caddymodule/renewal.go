package caddymodule

import (
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/scepgate/scepgate/gate"
)

// Renewal says whether a certificate may be renewed with itself instead of with
// a challenge, and how.
type Renewal struct {
	// `off`: a request that is signed with an old certificate is refused. `on`:
	// it is judged by what follows. Required.
	Mode string `json:"mode,omitempty"`

	// The last part of a certificate's validity in which it may be renewed: a
	// share of it in percent, or a duration. Default: 33%.
	Window string `json:"window,omitempty"`

	// Whether the new certificate must be for another key.
	RequireNewKey bool `json:"require_new_key,omitempty"`

	// The extended key usages that the old certificate must have, no more and no
	// less. Default: those of `defaults`.
	ExtKeyUsage []string `json:"ext_key_usage,omitempty"`

	// The types of names that the CA leaves out of certificates, by name or
	// object identifier: a request may have them all the same.
	CADrops []string `json:"ca_drops,omitempty"`

	// Files or http(s) URLs with the revocation lists of the CAs that devices'
	// certificates come from. While one of them is missing or past its
	// nextUpdate, every message is answered with 503.
	CRL []string `json:"crl,omitempty"`

	// `none`: whoever has a certificate may renew it, once. `required`: the MDM
	// registers each renewal. Default: none.
	Registration string `json:"registration,omitempty"`
}

// The words of `renewal`.
const (
	renewalOff           = "off"
	renewalOn            = "on"
	registrationNone     = "none"
	registrationRequired = "required"
)

const defaultRenewalWindow = "33%"

// off reports whether renewals are refused. What is not written refuses.
func (r *Renewal) off() bool { return r == nil || r.Mode != renewalOn }

// normalize fills in the defaults and checks everything that needs no file.
// usages are those of `defaults`.
func (r *Renewal) normalize(expand func(option string, value *string) error, usages []string) error {
	if r == nil {
		return nil
	}
	switch r.Mode {
	case renewalOff:
		if r.Window != "" || r.RequireNewKey || len(r.ExtKeyUsage)+len(r.CADrops)+len(r.CRL) > 0 || r.Registration != "" {
			return errors.New("renewal off: takes no options")
		}
		return nil
	case renewalOn:
	default:
		return fmt.Errorf("renewal: unknown mode %q; known: %s %s", r.Mode, renewalOff, renewalOn)
	}
	if r.Window == "" {
		r.Window = defaultRenewalWindow
	}
	if _, _, err := parseWindow(r.Window); err != nil {
		return fmt.Errorf("renewal window: %w", err)
	}
	if len(r.ExtKeyUsage) == 0 {
		r.ExtKeyUsage = slices.Clone(usages)
	}
	if _, err := oidsOf("renewal ext_key_usage", r.ExtKeyUsage, gate.ExtKeyUsageOID); err != nil {
		return err
	}
	if _, err := oidsOf("renewal ca_drops", r.CADrops, nameTypeOID); err != nil {
		return err
	}
	for i := range r.CRL {
		if err := expand("renewal crl", &r.CRL[i]); err != nil {
			return err
		}
		if err := checkCRLPlace(r.CRL[i]); err != nil {
			return fmt.Errorf("renewal crl: %w", err)
		}
		if slices.Contains(r.CRL[:i], r.CRL[i]) {
			return fmt.Errorf("renewal crl: %s stands twice", r.CRL[i])
		}
	}
	if r.Registration == "" {
		r.Registration = registrationNone
	}
	return checkWords("renewal registration", []string{r.Registration}, []string{registrationNone, registrationRequired}, nil)
}

// parseWindow reads a share of a validity, or a duration. Exactly one is set.
func parseWindow(s string) (percent int, d time.Duration, err error) {
	if digits, ok := strings.CutSuffix(s, "%"); ok {
		n, err := strconv.ParseUint(digits, 10, 8)
		if err != nil || n < 1 || n > 100 {
			return 0, 0, fmt.Errorf("%q is not from 1%% to 100%%", s)
		}
		return int(n), 0, nil
	}
	if d, err = caddy.ParseDuration(s); err != nil || d <= 0 {
		return 0, 0, fmt.Errorf("%q is neither a share (33%%) nor a positive duration (30d)", s)
	}
	return 0, d, nil
}

// oidsOf turns names or dotted OIDs into dotted OIDs, each at most once.
func oidsOf(option string, names []string, oidOf func(string) (string, error)) ([]string, error) {
	oids := make([]string, 0, len(names))
	for _, name := range names {
		oid, err := oidOf(name)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", option, err)
		}
		if slices.Contains(oids, oid) {
			return nil, fmt.Errorf("%s: %s stands twice", option, name)
		}
		oids = append(oids, oid)
	}
	return oids, nil
}

var wordPattern = regexp.MustCompile(`^[A-Za-z0-9.]{1,240}$`)

// nameTypeOID gives the dotted OID of an attribute type of a name, as the gate
// reads it in a subject.
func nameTypeOID(nameOrOID string) (string, error) {
	if wordPattern.MatchString(nameOrOID) {
		if rdns, err := gate.ParseSubject(nameOrOID + "=x"); err == nil && len(rdns) == 1 && len(rdns[0]) == 1 {
			return rdns[0][0].Type, nil
		}
	}
	return "", fmt.Errorf("%q is not a type of name", printable(nameOrOID, 64))
}

// isURL reports whether a CRL is fetched rather than read.
func isURL(place string) bool { return strings.Contains(place, "://") }

func checkCRLPlace(place string) error {
	if !isURL(place) {
		return nil
	}
	u, err := url.Parse(place)
	switch {
	case err != nil || u.Host == "" || u.User != nil || u.Fragment != "":
		return fmt.Errorf("%q is not a URL without user and fragment", place)
	case u.Scheme != "http" && u.Scheme != "https":
		return fmt.Errorf("%q: only files, http and https are read", place)
	}
	return nil
}

// crlFiles lists the CRLs that are read, crlURLs those that are fetched.
func (r *Renewal) crlFiles() []string { return r.crls(false) }
func (r *Renewal) crlURLs() []string  { return r.crls(true) }

func (r *Renewal) crls(fetched bool) (places []string) {
	if r.off() {
		return nil
	}
	for _, place := range r.CRL {
		if isURL(place) == fetched {
			places = append(places, place)
		}
	}
	return places
}

// compile gives what the gate demands of a renewal, nil if there is none.
func (r *Renewal) compile(rev *revocation) (*gate.Renewal, error) {
	if r.off() {
		return nil, nil
	}
	percent, window, err := parseWindow(r.Window)
	if err != nil {
		return nil, fmt.Errorf("renewal window: %w", err)
	}
	compiled := &gate.Renewal{
		WindowPercent: percent, Window: window, RequireNewKey: r.RequireNewKey,
		Registered: r.Registration != registrationNone, // whatever is not understood asks for more
	}
	if compiled.ExtKeyUsage, err = oidsOf("renewal ext_key_usage", r.ExtKeyUsage, gate.ExtKeyUsageOID); err != nil {
		return nil, err
	}
	if compiled.CADrops, err = oidsOf("renewal ca_drops", r.CADrops, nameTypeOID); err != nil {
		return nil, err
	}
	if rev != nil {
		compiled.Revoked = rev.revoked
	}
	return compiled, nil
}

// unmarshalRenewal reads `renewal off`, or a block.
func (p *Profile) unmarshalRenewal(d *caddyfile.Dispenser) error {
	if args := d.RemainingArgs(); len(args) > 0 {
		if len(args) != 1 || args[0] != renewalOff {
			return d.Errf("renewal: must be off, or a block")
		}
		p.Renewal = &Renewal{Mode: renewalOff}
		return noBlock(d)
	}
	r := &Renewal{Mode: renewalOn}
	p.Renewal = r
	seen := make(once)
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		option := d.Val()
		if err := seen.option(d); err != nil {
			return err
		}
		var err error
		switch option {
		case "window":
			if r.Window, err = oneArg(d); err == nil {
				if _, _, bad := parseWindow(r.Window); bad != nil {
					err = d.Errf("renewal window: %v", bad)
				}
			}
		case "require_new_key":
			r.RequireNewKey = true
			if d.NextArg() {
				err = d.ArgErr()
			}
		case "ext_key_usage":
			r.ExtKeyUsage, err = someArgs(d)
		case "ca_drops":
			r.CADrops, err = someArgs(d)
		case "crl":
			r.CRL, err = someArgs(d)
		case "registration":
			if r.Registration, err = oneArg(d); err == nil && r.Registration != registrationNone && r.Registration != registrationRequired {
				err = d.Errf("renewal registration: must be none or required")
			}
		default:
			err = d.Errf("renewal: unrecognized option: %s", option)
		}
		if err != nil {
			return err
		}
	}
	if d.Val() != "}" { // neither a word nor a block
		return d.Errf("renewal: must be off, or a block")
	}
	return nil
}
