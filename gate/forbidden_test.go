package gate

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"testing"

	"github.com/scepgate/scepgate/plugins"
)

// namedCertificate is a certificate of which only the subject matters.
func namedCertificate(name pkix.Name) *x509.Certificate {
	var subject pkix.Name
	rdns := name.ToRDNSequence()
	subject.FillFromRDNSequence(&rdns)
	return &x509.Certificate{Subject: subject}
}

func authorityProfile() *Profile {
	return &Profile{
		CAs: []*x509.Certificate{
			namedCertificate(pkix.Name{CommonName: "Example Issuing CA", Organization: []string{"Example Corp"}}),
			namedCertificate(pkix.Name{OrganizationalUnit: []string{"Old Root"}}),
			nil,
		},
		RAs: []*x509.Certificate{namedCertificate(pkix.Name{CommonName: "NDES-MSCEP-RA", Country: []string{"US"}})},
	}
}

func TestSomeIdentitiesAreForNobody(t *testing.T) {
	p := authorityProfile()
	cn := func(v string) identity { return identity{Subject: [][]attr{{{"2.5.4.10", "x"}}, {{oidCN, v}}}} }
	upn := func(v string) identity { return identity{SAN: []altName{{"dns", "a"}, {"upn", v}}} }
	for _, tc := range []struct {
		name  string
		id    identity
		field plugins.Field // "" if somebody may have it
	}{
		{"administrator", cn("administrator"), plugins.Subject},
		{"in another case", cn("AdMiNiStRaToR"), plugins.Subject},
		{"krbtgt", cn("KRBTGT"), plugins.Subject},
		{"spaces around", cn(" administrator "), plugins.Subject},
		{"spaces inside", cn("admini strator"), plugins.Subject},
		{"no-break space", cn("administrator\u00a0"), plugins.Subject},
		{"dots", cn("administrator."), plugins.Subject},
		{"full width", cn("ａdministrator"), plugins.Subject},
		{"accent", cn("ádministrator"), plugins.Subject},
		{"decomposed accent", cn("a\u0301dministrator"), plugins.Subject},
		{"zero width", cn("admin\u200bistrator"), plugins.Subject},
		{"dotless i", cn("adm\u0131nistrator"), plugins.Subject},
		{"with a domain", cn(`CORP\Administrator`), plugins.Subject},
		{"with a realm", cn("Administrator@corp.example"), plugins.Subject},
		{"full-width at sign", cn("Administrator＠corp.example"), plugins.Subject},
		{"multi-valued RDN", identity{Subject: [][]attr{{{"2.5.4.11", "x"}, {oidCN, "krbtgt"}}}}, plugins.Subject},
		{"UPN", upn("Administrator@corp.example"), plugins.SAN},
		{"UPN with dots", upn("krb.tgt@corp.example"), plugins.SAN},
		{"UPN with two at signs", upn("administrator@x@y"), plugins.SAN},
		{"CN of a CA", cn("EXAMPLE issuing CA"), plugins.Subject},
		{"CN of an RA", cn("ndes-mscep-ra"), plugins.Subject},
		{"whole subject of a CA without CN", identity{Subject: [][]attr{{{"2.5.4.11", "old root"}}}}, plugins.Subject},
		{"whole subject of a CA in one RDN", identity{Subject: [][]attr{{{"2.5.4.10", "Example Corp"}, {oidCN, "Example Issuing CA"}}}}, plugins.Subject},
		{"SID of Administrator", identity{SID: "S-1-5-21-1-2-3-500"}, plugins.SID},
		{"SID of krbtgt", identity{SID: "S-1-5-21-1-2-3-502"}, plugins.SID},
		{"SID of Domain Admins", identity{SID: "S-1-5-21-1-2-3-512"}, plugins.SID},
		{"SID of Domain Controllers", identity{SID: "S-1-5-21-1-2-3-516"}, plugins.SID},
		{"SID of Schema Admins", identity{SID: "S-1-5-21-1-2-3-518"}, plugins.SID},
		{"SID of Enterprise Admins", identity{SID: "S-1-5-21-1-2-3-519"}, plugins.SID},
		{"SID with a leading zero", identity{SID: "S-1-5-21-1-2-3-0500"}, plugins.SID},

		{"nobody", identity{}, ""},
		{"a device", cn("C02XK1 WIFI"), ""},
		{"a longer name", cn("administrator2"), ""},
		{"a name that begins otherwise", cn("wifi administrator of site 4"), ""},
		{"the CA's organization with another CN", identity{Subject: [][]attr{{{"2.5.4.10", "Example Corp"}}, {{oidCN, "a"}}}}, ""},
		{"the CA's organization alone", identity{Subject: [][]attr{{{"2.5.4.10", "Example Corp"}}}}, ""},
		{"more than a CA's subject", identity{Subject: [][]attr{{{"2.5.4.11", "Old Root"}}, {{oidCN, "a"}}}}, ""},
		{"a user", upn("ann@administrator.example"), ""},
		{"a SID that only ends in the digits", identity{SID: "S-1-5-21-1-2-3-1500"}, ""},
		{"a SID with such a part elsewhere", identity{SID: "S-1-5-21-500-2-3-1104"}, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			field, why := forbiddenIdentity(p, tc.id)
			if field != tc.field || (why == "") != (field == "") {
				t.Errorf("%q, %q", field, why)
			}
		})
	}
}

func TestACertificateWithoutNamesForbidsNothing(t *testing.T) {
	p := &Profile{CAs: []*x509.Certificate{{}}}
	for _, id := range []identity{{}, {Subject: [][]attr{{{oidCN, ""}}}}, {Subject: [][]attr{{{oidCN, " "}}}}} {
		if field, why := forbiddenIdentity(p, id); why != "" {
			t.Errorf("%v: %q %q", id, field, why)
		}
	}
}
