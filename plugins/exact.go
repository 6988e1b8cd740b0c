package plugins

import (
	"context"
	"fmt"
	"slices"
	"strings"
)

// Exact is the matcher that always runs. It decides every field, purely from
// the request, and what it does not understand it refuses. The zero value is
// ready to use and safe for concurrent use.
type Exact struct {
	patterns patterns
}

// Info names all fields but the challenge, which the gateway itself compares.
func (x *Exact) Info() Info {
	return Info{Name: "exact", Version: "1", Decides: slices.Clone(exactFields)}
}

var exactFields = []Field{Subject, SAN, SID, KeyUsage, ExtKeyUsage, ApplicationPolicies, CertificateTemplate, Key}

// Match compares every field that r asks it to decide, and agrees if all of
// them are as expected. An expectation without any identity (no subject, no
// alternative name, no SID) is met by nothing, unless others decide who it is.
func (x *Exact) Match(ctx context.Context, r Request) (Answer, error) {
	if err := ctx.Err(); err != nil {
		return Answer{}, fmt.Errorf("exact: %w", err)
	}
	e, f := &r.Expectation, &r.Facts
	asked := func(field Field) bool { return slices.Contains(r.Decides, field) }
	var differences []Finding
	say := func(field Field, ok bool, expected, got string) {
		if asked(field) && !ok {
			differences = append(differences, Finding{Field: field, Expected: expected, Got: got})
		}
	}
	identity := len(e.Subject) > 0 || len(e.SAN) > 0 || e.SID != "" || !asked(Subject) || !asked(SAN) || !asked(SID)

	say(Subject, identity && x.subject(e.Subject, f.Subject), expectedSubjectText(e.Subject), subjectText(f.Subject))
	say(SAN, identity && x.san(e.SAN, f.SAN), expectedSANText(e.SAN), sanText(f.SAN))
	say(SID, identity && sidMatches(e.SID, f.SIDs), e.SID, strings.Join(f.SIDs, ", "))
	// threat A05: key usage is what NDES selects the template by, so bit for bit.
	say(KeyUsage, identity && len(e.KeyUsage) > 0 && sameSet(e.KeyUsage, f.KeyUsage), list(e.KeyUsage), list(f.KeyUsage))
	// Absent is accepted: the template supplies it. Present, even empty, it must
	// be the expected set (threats A07, B08-B12).
	say(ExtKeyUsage, identity && supplied(f.HasExtKeyUsage, e.ExtKeyUsage, f.ExtKeyUsage), list(e.ExtKeyUsage), list(f.ExtKeyUsage))
	// As with the extended key usage, an expectation says what a certificate may
	// contain: one that lists policies accepts a request that has none.
	say(ApplicationPolicies, identity && supplied(f.HasApplicationPolicies, e.ApplicationPolicies, f.ApplicationPolicies),
		list(e.ApplicationPolicies), list(f.ApplicationPolicies))
	say(CertificateTemplate, identity && templateMatches(e, f), templateText(e.CertificateTemplate, f.Template, f.TemplateOID),
		templateText(f.Template, f.RequestTemplateName, f.RequestTemplateOID))
	say(Key, identity && keyMatches(e, f), keyText(e.MinKeyBits, e.SPKISHA256), keyText(f.KeyBits, f.SPKISHA256))
	for _, field := range r.Decides {
		if !slices.Contains(exactFields, field) {
			differences = append(differences, Finding{Field: field}) // what it does not understand it refuses
		}
	}
	if len(differences) > 0 || len(r.Decides) == 0 {
		return Answer{Verdict: Refuse, Code: "mismatch", Findings: differences}, nil
	}
	return Answer{Verdict: Agree}, nil
}

// sidMatches wants exactly one carrier, or none: two that agree are still two
// chances to be read differently (threats B05-B07).
func sidMatches(want string, got []string) bool {
	if want == "" {
		return len(got) == 0
	}
	return len(got) == 1 && got[0] == want
}

// sameSet compares two lists as sets; a duplicate on either side makes them differ.
func sameSet(want, got []string) bool {
	if len(want) != len(got) {
		return false
	}
	seen := make(map[string]bool, len(want))
	for _, w := range want {
		if w == "" {
			return false
		}
		seen[w] = true
	}
	for _, g := range got {
		if !seen[g] {
			return false
		}
		delete(seen, g)
	}
	return true
}

// supplied judges an extension that a request may leave to the template.
func supplied(has bool, want, got []string) bool {
	if !has {
		return len(got) == 0
	}
	return len(want) > 0 && sameSet(want, got)
}

// templateMatches wants the expected template to be the one NDES will pick, and
// whatever the request names to be that one, byte for byte (threats B21-B23).
func templateMatches(e *Expectation, f *Facts) bool {
	if e.CertificateTemplate != "" && e.CertificateTemplate != f.Template {
		return false
	}
	if f.RequestTemplateName != "" && f.RequestTemplateName != f.Template {
		return false
	}
	return f.RequestTemplateOID == "" || f.RequestTemplateOID == f.TemplateOID
}

func keyMatches(e *Expectation, f *Facts) bool {
	if f.KeyBits <= 0 || f.KeyBits < e.MinKeyBits || f.SPKISHA256 == "" {
		return false
	}
	return e.SPKISHA256 == "" || e.SPKISHA256 == f.SPKISHA256
}

func list(s []string) string {
	s = slices.Clone(s)
	slices.Sort(s)
	return strings.Join(s, ", ")
}

func templateText(parts ...string) string {
	return strings.Join(slices.Compact(slices.DeleteFunc(parts, func(s string) bool { return s == "" })), ", ")
}

func keyText(bits int, spki string) string {
	var parts []string
	if bits > 0 {
		parts = append(parts, fmt.Sprintf("%d bits", bits))
	}
	if spki != "" {
		parts = append(parts, "SHA-256 "+spki)
	}
	return strings.Join(parts, ", ")
}
