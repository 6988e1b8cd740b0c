package ndes_test

import (
	"bytes"
	"crypto/x509"
	"encoding/asn1"
	"encoding/base64"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/scepgate/scepgate/inspector"
	"github.com/scepgate/scepgate/integration/attack"
	"github.com/scepgate/scepgate/integration/ndes"
)

type fixture struct {
	*ndes.Server
	url string
	now time.Time
}

func start(t *testing.T, c ndes.Config) *fixture {
	t.Helper()
	f := &fixture{now: time.Now()}
	c.Now = func() time.Time { return f.now }
	var err error
	if f.Server, err = ndes.New(c); err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(f.Handler())
	t.Cleanup(server.Close)
	f.url = server.URL
	return f
}

var device = sync.OnceValue(func() *attack.Device {
	d, err := attack.NewDevice()
	if err != nil {
		panic(err)
	}
	return d
})

func (f *fixture) post(t *testing.T, message []byte) attack.Answer {
	t.Helper()
	a, err := attack.Post(http.DefaultClient, f.url, message)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func (f *fixture) send(t *testing.T, d *attack.Device, m attack.Message) attack.Answer {
	t.Helper()
	message, err := d.Build(m, f.Exchange)
	if err != nil {
		t.Fatal(err)
	}
	return f.post(t, message)
}

func request(cn, challenge string) attack.Message {
	return attack.Message{Request: inspector.CSRParams{Subject: attack.Name(cn), Challenge: challenge}}
}

func status(a attack.Answer) string {
	if a.Rep == nil {
		return "none"
	}
	return a.Rep.PKIStatus
}

func TestIssuesWhateverIsAskedFor(t *testing.T) {
	f := start(t, ndes.Config{})
	m := request("administrator", "")
	policies, err := attack.ApplicationPolicies(asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 311, 20, 2, 1})
	if err != nil {
		t.Fatal(err)
	}
	m.Request.SID = "S-1-5-21-1-2-3-500"
	m.Request.SAN = []inspector.GeneralName{{Type: "upn", Value: "administrator@example.com"}, {Type: "dns", Value: "dc01.example.com"}}
	m.Request.ExtraExtensions = append(m.Request.ExtraExtensions, policies)
	cert, err := device().Certificate(f.send(t, device(), m))
	if err != nil {
		t.Fatal(err)
	}
	if err := cert.CheckSignatureFrom(f.CA); err != nil {
		t.Error(err)
	}
	have := map[string]bool{}
	for _, e := range cert.Extensions {
		have[e.Id.String()] = true
	}
	for _, oid := range []string{"2.5.29.17", "1.3.6.1.4.1.311.25.2", "1.3.6.1.4.1.311.21.10"} {
		if !have[oid] {
			t.Errorf("the certificate does not carry %s, which was asked for", oid)
		}
	}
	if cert.Subject.CommonName != "administrator" || len(f.Issued()) != 1 {
		t.Errorf("subject %v, issue log %d", cert.Subject, len(f.Issued()))
	}
}

func TestMicrosoftsExtensionAttributeCounts(t *testing.T) {
	f := start(t, ndes.Config{})
	m := request("dev", "")
	m.Request.MicrosoftExtensions = true
	m.Request.SAN = []inspector.GeneralName{{Type: "dns", Value: "dc01.example.com"}}
	cert, err := device().Certificate(f.send(t, device(), m))
	if err != nil {
		t.Fatal(err)
	}
	if len(cert.DNSNames) != 1 {
		t.Errorf("DNS names %v: MS-WCCE adds extensions of either attribute", cert.DNSNames)
	}
}

func TestPasswordModesAnswerAsNDESDoes(t *testing.T) {
	oneTime := start(t, ndes.Config{Password: ndes.PasswordOneTime})
	password, ok := oneTime.NewPassword()
	if !ok || len(password) != 16 || strings.ToUpper(password) != password {
		t.Fatalf("password %q, want 16 upper-case hex digits", password)
	}
	static := start(t, ndes.Config{Password: ndes.PasswordStatic, StaticPassword: "0123456789ABCDEF"})
	for _, c := range []struct {
		name, challenge string
		on              *fixture
		status          string
		hresult         uint32
	}{
		{"unknown password", "AAAAAAAAAAAAAAAA", oneTime, "2", 0x80070490},
		{"no password", "", oneTime, "2", 0x80096004},
		{"valid password", password, oneTime, "0", 0},
		{"used password", password, oneTime, "2", 0x800b0110},
		{"static right", "0123456789ABCDEF", static, "0", 0},
		{"static wrong", "0123456789ABCDEE", static, "2", 0x80070490},
	} {
		t.Run(c.name, func(t *testing.T) {
			d, err := attack.NewDevice() // another key and so another transactionID
			if err != nil {
				t.Fatal(err)
			}
			a := c.on.send(t, d, request("dev", c.challenge))
			if status(a) != c.status {
				t.Fatalf("pkiStatus %s, want %s", status(a), c.status)
			}
			if a.Rep.HRESULT != c.hresult {
				t.Errorf("HRESULT %#x, want %#x", a.Rep.HRESULT, c.hresult)
			}
		})
	}
}

func TestPasswordsFillFiveSlotsForSixtyMinutes(t *testing.T) {
	f := start(t, ndes.Config{Password: ndes.PasswordOneTime})
	for i := range 5 {
		if _, ok := f.NewPassword(); !ok {
			t.Fatalf("slot %d refused", i)
		}
	}
	if _, ok := f.NewPassword(); ok {
		t.Error("a sixth password was made")
	}
	f.now = f.now.Add(61 * time.Minute)
	if _, ok := f.NewPassword(); !ok {
		t.Error("the slots are not free after 61 minutes")
	}
}

func TestRepliesHaveTheShapeOfTheCaptures(t *testing.T) {
	f := start(t, ndes.Config{Password: ndes.PasswordStatic, StaticPassword: "0123456789ABCDEF"})
	for name, challenge := range map[string]string{"SUCCESS": "0123456789ABCDEF", "FAILURE": "wrong"} {
		a := f.send(t, device(), request("dev", challenge))
		if a.Rep == nil {
			t.Fatalf("%s: no CertRep", name)
		}
		if _, err := a.Rep.VerifySigner([]*x509.Certificate{f.Exchange, f.Signing}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if bytes.Contains(a.Body, f.Signing.Raw) {
			t.Errorf("%s carries a certificate", name)
		}
		if a.ContentType != "application/x-pki-message" {
			t.Errorf("%s: Content-Type %s", name, a.ContentType)
		}
	}
}

func TestRetryGetsTheCertificateAgain(t *testing.T) {
	f := start(t, ndes.Config{})
	first := f.send(t, device(), request("dev", ""))
	again := f.send(t, device(), request("dev", ""))
	one, err1 := device().Certificate(first)
	two, err2 := device().Certificate(again)
	if err1 != nil || err2 != nil || !one.Equal(two) || len(f.Issued()) != 1 {
		t.Errorf("a retry was issued anew: %v %v, issue log %d", err1, err2, len(f.Issued()))
	}
	f.now = f.now.Add(21 * time.Minute)
	f.send(t, device(), request("dev", ""))
	if len(f.Issued()) != 2 {
		t.Error("the retry cache outlives its 20 minutes")
	}
}

func TestPendingWaitsForApproval(t *testing.T) {
	for name, c := range map[string]struct {
		decide func(*ndes.Server, string) bool
		want   string
	}{"approved": {(*ndes.Server).Approve, "0"}, "denied": {(*ndes.Server).Deny, "2"}} {
		t.Run(name, func(t *testing.T) {
			f := start(t, ndes.Config{Pending: true})
			a := f.send(t, device(), request("dev", ""))
			if status(a) != "3" {
				t.Fatalf("pkiStatus %s, want 3", status(a))
			}
			poll := request("dev", "")
			poll.MessageType = "20"
			if got := status(f.send(t, device(), poll)); got != "3" {
				t.Errorf("poll before the decision: %s, want 3", got)
			}
			if !c.decide(f.Server, a.Rep.TransactionID) {
				t.Fatal("nothing is pending")
			}
			if got := status(f.send(t, device(), poll)); got != c.want {
				t.Errorf("poll after the decision: %s, want %s", got, c.want)
			}
			if got := status(f.send(t, device(), request("dev", ""))); got != c.want {
				t.Errorf("the same PKCSReq as a poll: %s, want %s", got, c.want)
			}
		})
	}
}

// poll is d's GetCertInitial for a transaction, not necessarily its own.
func (f *fixture) poll(t *testing.T, d *attack.Device, transactionID, cn string) attack.Answer {
	t.Helper()
	content, err := inspector.BuildIssuerAndSubject(f.CA.RawSubject, attack.Name(cn))
	if err != nil {
		t.Fatal(err)
	}
	message, err := inspector.BuildPKIMessage(inspector.PKIMessage{
		MessageType: "20", TransactionID: transactionID, Content: content, Recipient: f.Exchange, SignerCert: d.SelfSigned, SignerKey: d.Key,
	})
	if err != nil {
		t.Fatal(err)
	}
	return f.post(t, message)
}

func TestPollsGoByTheTransactionIDAlone(t *testing.T) {
	f := start(t, ndes.Config{Pending: true})
	id := f.send(t, device(), request("dev", "")).Rep.TransactionID
	if diff := cmp.Diff([]string{id}, f.Waiting()); diff != "" {
		t.Errorf("waiting (-want +got):\n%s", diff)
	}
	stranger, err := attack.NewDevice()
	if err != nil {
		t.Fatal(err)
	}
	if got := status(f.poll(t, stranger, id, "somebody")); got != "3" {
		t.Errorf("before the decision: %s, want 3", got)
	}
	if got := status(f.poll(t, device(), "another", "dev")); got != "2" {
		t.Errorf("another transactionID: %s, want 2", got)
	}
	f.Approve(id)
	if len(f.Waiting()) != 0 {
		t.Error("what is approved still waits")
	}
	// Once issued, it is there at any age.
	for range 2 {
		cert, err := stranger.Certificate(f.poll(t, stranger, id, "somebody"))
		if err != nil {
			t.Fatal(err)
		}
		if cert.Subject.CommonName != "dev" || len(f.Issued()) != 1 {
			t.Errorf("certificate for %s, %d issued", cert.Subject, len(f.Issued()))
		}
		f.now = f.now.AddDate(0, 0, 7)
	}
}

func TestARenewalThatWaitedIsARenewal(t *testing.T) {
	f := start(t, ndes.Config{Template: "WiFiClient"})
	old, err := device().Certificate(f.send(t, device(), request("dev", "")))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(old.Raw, []byte("\x00W\x00i\x00F\x00i\x00C\x00l\x00i\x00e\x00n\x00t")) {
		t.Error("the certificate does not name its template")
	}
	next, err := attack.NewDevice()
	if err != nil {
		t.Fatal(err)
	}
	f.Hold(true)
	m := request("dev", "")
	m.MessageType, m.SignerCert, m.SignerKey = "17", old.Raw, device().Key
	a := f.send(t, next, m)
	if status(a) != "3" || !f.Approve(a.Rep.TransactionID) {
		t.Fatalf("pkiStatus %s, want 3", status(a))
	}
	if got := status(f.poll(t, device(), a.Rep.TransactionID, "dev")); got != "0" {
		t.Errorf("pkiStatus %s, want 0", got)
	}
	if issued := f.Issued(); len(issued) != 2 || issued[0].Renewal || !issued[1].Renewal {
		t.Errorf("issued: %+v", issued)
	}
}

func TestRenewalNeedsNoPasswordButTheSameSubject(t *testing.T) {
	f := start(t, ndes.Config{Password: ndes.PasswordStatic, StaticPassword: "0123456789ABCDEF"})
	old, err := device().Certificate(f.send(t, device(), request("dev", "0123456789ABCDEF")))
	if err != nil {
		t.Fatal(err)
	}
	for cn, want := range map[string]string{"dev": "0", "administrator": "2"} {
		next, err := attack.NewDevice()
		if err != nil {
			t.Fatal(err)
		}
		m := request(cn, "")
		m.MessageType, m.SignerCert, m.SignerKey = "17", old.Raw, device().Key
		if got := status(f.send(t, next, m)); got != want {
			t.Errorf("renewal as %s: %s, want %s", cn, got, want)
		}
	}
}

func TestHTTPSurface(t *testing.T) {
	f := start(t, ndes.Config{PolicyModule: true})
	message, err := device().Build(request("dev", ""), f.Exchange)
	if err != nil {
		t.Fatal(err)
	}
	noRedirect := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	get := base64.StdEncoding.EncodeToString(message)
	for _, c := range []struct {
		name, method, path string
		body               io.Reader
		want               int
	}{
		{"caps", "GET", "/certsrv/mscep/mscep.dll?operation=GetCACaps&message=x", nil, 200},
		{"case and path info", "GET", "/CertSrv/MSCEP/mscep.dll/pkiclient.exe?operation=GetCACert", nil, 200},
		{"no slash", "GET", "/certsrv/mscep?operation=GetCACaps", nil, 301},
		{"bare page with a policy module", "GET", "/certsrv/mscep/", nil, 403},
		{"unknown page", "GET", "/certsrv/", nil, 404},
		{"garbage", "POST", "/certsrv/mscep/mscep.dll?operation=PKIOperation", strings.NewReader("garbage"), 500},
		{"GET, escaped", "GET", "/certsrv/mscep/mscep.dll?operation=PKIOperation&message=" + url.QueryEscape(get), nil, 200},
		{"GET, raw plus signs", "GET", "/certsrv/mscep/mscep.dll?operation=PKIOperation&message=" + strings.ReplaceAll(get, "=", "%3D"), nil, 200},
		{"chunked POST", "POST", "/certsrv/mscep/mscep.dll?operation=PKIOperation", io.MultiReader(bytes.NewReader(message)), 411},
		{"challenge minting", "GET", "/certsrv/mscep/mscep.dll?operation=NDESGenerateChallenge", nil, 200},
	} {
		t.Run(c.name, func(t *testing.T) {
			req, err := http.NewRequest(c.method, f.url+c.path, c.body)
			if err != nil {
				t.Fatal(err)
			}
			resp, err := noRedirect.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			if resp.StatusCode != c.want {
				t.Errorf("status %d, want %d", resp.StatusCode, c.want)
			}
		})
	}
}

func TestGetCACertHasTheTwoRACertificatesAndTheCA(t *testing.T) {
	f := start(t, ndes.Config{IncludeRoot: true})
	resp, err := http.Get(f.url + "/certsrv/mscep/mscep.dll?operation=GetCACert")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	certs, err := inspector.ParseCACert(body)
	if err != nil {
		t.Fatal(err)
	}
	if len(certs) != 4 || !certs[0].Equal(f.Signing) || !certs[1].Equal(f.Exchange) || !certs[2].Equal(f.CA) || !certs[3].Equal(f.Root) {
		t.Errorf("%d certificates, want signing, exchange, CA and root", len(certs))
	}
	if f.Signing.KeyUsage&f.Exchange.KeyUsage != 0 {
		t.Error("the RA certificates share a key usage")
	}
}

func TestAdminPageIsUTF16(t *testing.T) {
	f := start(t, ndes.Config{Password: ndes.PasswordOneTime})
	resp, err := http.Get(f.url + "/certsrv/mscep_admin/")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	page := string(bytes.ReplaceAll(body, []byte{0}, nil))
	if len(page)*2 != len(body) || !strings.Contains(page, "The enrollment challenge password is: <B> ") {
		t.Errorf("page of %d bytes: %q", len(body), page)
	}
}

func TestManyDevicesAtOnceEachGetTheirOwn(t *testing.T) {
	f := start(t, ndes.Config{})
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			d, err := attack.NewDevice()
			if err != nil {
				t.Error(err)
				return
			}
			message, err := d.Build(request("dev", ""), f.Exchange)
			if err != nil {
				t.Error(err)
				return
			}
			a, err := attack.Post(http.DefaultClient, f.url, message)
			if err != nil || status(a) != "0" {
				t.Errorf("status %s, %v", status(a), err)
			}
		})
	}
	wg.Wait()
	if len(f.Issued()) != 8 {
		t.Errorf("%d issued, want 8", len(f.Issued()))
	}
}
