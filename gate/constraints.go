package gate

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"github.com/scepgate/scepgate/store"
)

// Constraints is what an API client may register; nil fields refuse any value
// in the field they govern (contract: a field that carries a value and has no
// key is refused). A nil *Constraints allows everything.
//
// Subject has a key per attribute type (name or OID) and lists the values
// allowed there; a type without a key is free, so that {"O":["Example Corp"]}
// holds a client to its organisation and lets it name devices. Suffixes and
// prefixes match whole labels, path segments and sub-authorities.
type Constraints struct {
	Subject              map[string][]string `json:"subject,omitempty"`
	DNSSuffixes          []string            `json:"dns_suffixes,omitempty"`
	UPNSuffixes          []string            `json:"upn_suffixes,omitempty"`
	EmailSuffixes        []string            `json:"email_suffixes,omitempty"`
	URIPrefixes          []string            `json:"uri_prefixes,omitempty"`
	IPCIDRs              []string            `json:"ip_cidrs,omitempty"`
	SIDPrefixes          []string            `json:"sid_prefixes,omitempty"`
	CertificateTemplates []string            `json:"certificate_templates,omitempty"`
	ExtKeyUsage          []string            `json:"ext_key_usage,omitempty"`
	ApplicationPolicies  []string            `json:"application_policies,omitempty"`
}

// Violations lists what c does not allow in e. Not empty: 403 at registration,
// refusal at use. Pointers are into the `effective` object.
//
// Effective values count. What e's owner left to the profile (its default
// extended key usage, the template that the key usage selects) is the
// operator's word, and needs no key; with one it is held to it as well.
func (c *Constraints) Violations(ex store.Expectation) []Problem {
	if c == nil {
		return nil
	}
	var v violations
	var said struct {
		CertificateTemplate *string  `json:"certificate_template"`
		ExtKeyUsage         []string `json:"ext_key_usage"`
	}
	saidAll := json.Unmarshal(ex.Request, &said) != nil // what cannot be read was said
	e := ex.Content
	for i, rdn := range e.Subject {
		for j, a := range rdn {
			at := fmt.Sprintf("/subject_rdns/%d/%d", i, j)
			allowed, keyed := c.subject(a.Type)
			switch {
			case keyed:
			case a.Type == oidE: // wherever it stands, it is an address
				v.field(at, "email_suffixes", a.Match, a.Value, c.EmailSuffixes != nil, func(value string) bool {
					return realmUnderSuffix(value, c.EmailSuffixes)
				})
				continue
			case c.Subject != nil:
				continue
			}
			v.field(at, "subject "+attributeName(a.Type), a.Match, a.Value, keyed, func(value string) bool {
				return slices.Contains(allowed, value)
			})
		}
	}
	for i, r := range e.SAN {
		at := fmt.Sprintf("/san_rules/%d", i)
		switch r.Type {
		case sanDNS:
			v.field(at, "dns_suffixes", r.Match, r.Value, c.DNSSuffixes != nil, func(value string) bool {
				return underSuffix(value, c.DNSSuffixes)
			})
		case sanEmail:
			v.field(at, "email_suffixes", r.Match, r.Value, c.EmailSuffixes != nil, func(value string) bool {
				return realmUnderSuffix(value, c.EmailSuffixes)
			})
		case sanUPN:
			v.field(at, "upn_suffixes", r.Match, r.Value, c.UPNSuffixes != nil, func(value string) bool {
				return realmUnderSuffix(value, c.UPNSuffixes)
			})
		case sanURI:
			v.field(at, "uri_prefixes", r.Match, r.Value, c.URIPrefixes != nil, func(value string) bool {
				return slices.ContainsFunc(c.URIPrefixes, func(prefix string) bool { return underURI(value, prefix) })
			})
		case sanIP:
			v.field(at, "ip_cidrs", r.Match, r.Value, c.IPCIDRs != nil, func(value string) bool {
				return slices.ContainsFunc(c.IPCIDRs, func(cidr string) bool { return inCIDR(value, cidr) })
			})
		default:
			v.add(at, "names of type %s are not allowed to this client", safe(r.Type, 32))
		}
	}
	if e.SID != "" {
		v.field("/sid", "sid_prefixes", matchExact, e.SID, c.SIDPrefixes != nil, func(value string) bool {
			return slices.ContainsFunc(c.SIDPrefixes, func(prefix string) bool { return underSID(value, prefix) })
		})
	}
	// A client that is held to templates is held to ones that are known: "" is
	// a template that `templates` does not name.
	if c.CertificateTemplates != nil || e.CertificateTemplate != "" && (saidAll || said.CertificateTemplate != nil) {
		v.field("/certificate_template", "certificate_templates", matchExact, e.CertificateTemplate,
			c.CertificateTemplates != nil, func(value string) bool {
				return value != "" && slices.Contains(c.CertificateTemplates, value)
			})
	}
	if c.ExtKeyUsage != nil || saidAll || said.ExtKeyUsage != nil {
		v.purposes("/ext_key_usage", "ext_key_usage", e.ExtKeyUsage, c.ExtKeyUsage)
	}
	v.purposes("/application_policies", "application_policies", e.ApplicationPolicies, c.ApplicationPolicies)
	return v
}

// subject gives the values allowed for an attribute type; false without a key.
func (c *Constraints) subject(oid string) (allowed []string, ok bool) {
	for key, values := range c.Subject {
		if keyOID, known := attributeOID(key); known && keyOID == oid {
			allowed, ok = append(allowed, values...), true
		}
	}
	return allowed, ok
}

type violations []Problem

func (v *violations) add(at, format string, args ...any) {
	*v = append(*v, Problem{Pointer: at, Code: "constraint_violation", Detail: fmt.Sprintf(format, args...)})
}

// field judges one value against the key that governs it.
func (v *violations) field(at, key, match, value string, keyed bool, allowed func(string) bool) {
	switch {
	case !keyed:
		v.add(at, "this client's constraints have no key %s, so it may register no value here", safe(key, 64))
	case match != matchExact:
		v.add(at, "a value that is not exact cannot be held to this client's constraint %s", safe(key, 64))
	case !allowed(value):
		v.add(at, "%q is not allowed by this client's constraint %s", safe(value, 64), safe(key, 64))
	}
}

func (v *violations) purposes(at, key string, have, allow []string) {
	for i, oid := range have {
		v.field(fmt.Sprintf("%s/%d", at, i), key, matchExact, oid, allow != nil, func(value string) bool {
			return slices.ContainsFunc(allow, func(a string) bool {
				allowed, ok := ekuOID(a)
				return ok && allowed == value
			})
		})
	}
}

// underSuffix reports whether name is one of suffixes or below it, by whole labels.
func underSuffix(name string, suffixes []string) bool {
	name = asciiLower(name)
	return slices.ContainsFunc(suffixes, func(s string) bool {
		s = asciiLower(s)
		return s != "" && (name == s || strings.HasSuffix(name, "."+s))
	})
}

// realmUnderSuffix is underSuffix for what follows the last '@'; there must be one.
func realmUnderSuffix(name string, suffixes []string) bool {
	at := strings.LastIndexByte(name, '@')
	return at >= 0 && underSuffix(name[at+1:], suffixes)
}

func inCIDR(address, cidr string) bool {
	a, err := netip.ParseAddr(address)
	if err != nil {
		return false
	}
	p, err := netip.ParsePrefix(cidr)
	return err == nil && p.Contains(a)
}

// underSID compares whole sub-authorities: S-1-5-21-1 is no prefix of S-1-5-21-10-….
func underSID(sid, prefix string) bool {
	return prefix != "" && (sid == prefix || strings.HasPrefix(sid, prefix+"-"))
}

// underURI reports whether uri has the same bytes as prefix and then ends a
// component, so that https://example.com covers neither https://example.com.evil
// nor https://example.com:x@evil, nor a path that climbs back out of it.
func underURI(uri, prefix string) bool {
	p, err := url.Parse(prefix)
	if err != nil || uriPrefix(p) != nil {
		return false
	}
	rest, ok := strings.CutPrefix(uri, prefix)
	if !ok {
		return false
	}
	u, err := url.Parse(uri)
	if err != nil || u.User != nil || climbs(u.Path) {
		return false
	}
	switch {
	case rest == "", strings.HasSuffix(prefix, "/"), strings.ContainsRune("/?#", rune(rest[0])):
		return true
	}
	return rest[0] == ':' && p.Path == "" && p.Port() == ""
}

func climbs(path string) bool {
	return slices.ContainsFunc(strings.FieldsFunc(path, func(r rune) bool { return r == '/' || r == '\\' }), func(segment string) bool {
		return segment == "." || segment == ".."
	})
}

// uriPrefix wants scheme and host, and nothing before the host or behind the path.
func uriPrefix(u *url.URL) error {
	if u.Scheme == "" || u.Hostname() == "" || u.User != nil || u.RawQuery != "" || u.ForceQuery || u.Fragment != "" || climbs(u.Path) {
		return errors.New("needs a scheme and a host, and may have a path")
	}
	return nil
}

// sidPrefix is the start of a SID up to a whole sub-authority.
var sidPrefix = regexp.MustCompile(`^S-1-[0-9]{1,15}(-(0|[1-9][0-9]{0,9})){1,14}$`)

// Validate reports what is wrong with c itself, e.g. a CIDR that does not parse.
func (c *Constraints) Validate() error {
	if c == nil {
		return nil
	}
	var errs []error
	types := map[string]string{}
	for _, key := range slices.Sorted(maps.Keys(c.Subject)) {
		values := c.Subject[key]
		oid, ok := attributeOID(key)
		if !ok {
			errs = append(errs, fmt.Errorf("subject: attribute type %q is not known", safe(key, 64)))
			continue
		}
		if other, twice := types[oid]; twice {
			errs = append(errs, fmt.Errorf("subject: %q and %q are the same attribute type", safe(other, 64), safe(key, 64)))
		}
		types[oid] = key
		for _, v := range values {
			if !plain(v) || v == "" || strings.Contains(v, "*") {
				errs = append(errs, fmt.Errorf("subject: %q can be no value of %s", safe(v, 64), attributeName(oid)))
			}
		}
	}
	check := func(key string, values []string, ok func(string) bool) {
		for _, v := range values {
			if !ok(v) {
				errs = append(errs, fmt.Errorf("%s: %q cannot be used", key, safe(v, 64)))
			}
		}
	}
	check("dns_suffixes", c.DNSSuffixes, dnsName)
	check("upn_suffixes", c.UPNSuffixes, dnsName)
	check("email_suffixes", c.EmailSuffixes, dnsName)
	check("uri_prefixes", c.URIPrefixes, func(v string) bool {
		u, err := url.Parse(v)
		return err == nil && printableASCII(v) && uriPrefix(u) == nil
	})
	check("ip_cidrs", c.IPCIDRs, func(v string) bool {
		p, err := netip.ParsePrefix(v)
		return err == nil && p.Masked() == p && !p.Addr().Is4In6()
	})
	check("sid_prefixes", c.SIDPrefixes, sidPrefix.MatchString)
	check("certificate_templates", c.CertificateTemplates, func(v string) bool { return v != "" && plain(v) })
	purpose := func(v string) bool { _, ok := ekuOID(v); return ok }
	check("ext_key_usage", c.ExtKeyUsage, purpose)
	check("application_policies", c.ApplicationPolicies, purpose)
	return errors.Join(errs...)
}
