package caddymodule

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/spf13/cobra"

	"github.com/scepgate/scepgate/gate"
	"github.com/scepgate/scepgate/inspector"
)

func init() {
	scepSubcommands = append(scepSubcommands, enrollCommand)
	// One of the commands that stand directly under scepgate (contract §1).
	caddycmd.RegisterCommand(caddycmd.Command{
		Name:      "enroll",
		Short:     enrollShort,
		Long:      enrollLong,
		CobraFunc: func(cmd *cobra.Command) { enrollFlags(cmd) },
	})
}

const (
	enrollShort = "Enrolls once by SCEP, as a device would"
	enrollLong  = `
Makes a key and asks a SCEP server for a certificate. It is a test client: it
shows that a gateway, NDES and an expectation fit together. Without --cert the
certificate goes to standard output; without --key the key is not kept.

Exit status: 0 a certificate was issued, 1 anything else.
`
	enrollUsage = "enroll --url <url> --subject <dn> --challenge-file <file> [--key <file>] [--cert <file>]"
)

// Bounds of what a server may answer, and of how long all of it may take.
const (
	enrollReply   = 1 << 20
	enrollTimeout = 2 * time.Minute
)

// enrollCommand is `scepgate scep enroll`.
func enrollCommand() *cobra.Command {
	cmd := &cobra.Command{Use: enrollUsage, Short: enrollShort, Long: enrollLong}
	enrollFlags(cmd)
	return cmd
}

// enrollment is what the flags say.
type enrollment struct {
	url, subject, challengeFile string
	dns, email, uri, ip, upn    []string
	sid                         string
	cipher, digest              string
	oaep                        bool
	bits                        int
	keyFile, certFile           string
	client                      *http.Client
}

func enrollFlags(cmd *cobra.Command) {
	e := &enrollment{}
	f := cmd.Flags()
	f.StringVar(&e.url, "url", "", "SCEP URL, for example http://gateway/certsrv/mscep/mscep.dll")
	f.StringVar(&e.subject, "subject", "", "subject, for example CN=device,O=Example Corp (RFC 4514)")
	f.StringVar(&e.challengeFile, "challenge-file", "", "file with the challenge password, - for standard input")
	f.StringArrayVar(&e.dns, "san-dns", nil, "DNS name (repeatable)")
	f.StringArrayVar(&e.email, "san-email", nil, "e-mail address (repeatable)")
	f.StringArrayVar(&e.uri, "san-uri", nil, "URI (repeatable)")
	f.StringArrayVar(&e.ip, "san-ip", nil, "IP address (repeatable)")
	f.StringArrayVar(&e.upn, "upn", nil, "user principal name (repeatable)")
	f.StringVar(&e.sid, "sid", "", "security identifier, as the extension 1.3.6.1.4.1.311.25.2")
	f.StringVar(&e.cipher, "cipher", "aes128", "content cipher: des, des3, aes128 or aes256")
	f.StringVar(&e.digest, "digest", "sha256", "digest: sha1, sha256, sha384 or sha512")
	f.BoolVar(&e.oaep, "oaep", false, "encrypt the content key with RSAES-OAEP, as Windows does")
	f.IntVar(&e.bits, "bits", 2048, "size of the RSA key")
	f.StringVar(&e.keyFile, "key", "", "where the private key is written (PEM, 0600; must not exist)")
	f.StringVar(&e.certFile, "cert", "", "where the certificate is written (PEM)")
	cmd.Args = cobra.NoArgs
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		cmd.SilenceUsage = true
		ctx, cancel := context.WithTimeout(cmd.Context(), enrollTimeout)
		defer cancel()
		return e.run(ctx, cmd.InOrStdin(), cmd.OutOrStdout())
	}
}

func (e *enrollment) run(ctx context.Context, in io.Reader, out io.Writer) error {
	if err := e.check(); err != nil {
		return err
	}
	challenge, err := readChallenge(e.challengeFile, in)
	if err != nil {
		return err
	}
	subject, err := gate.ParseSubject(e.subject)
	if err != nil {
		return fmt.Errorf("--subject: %w", err)
	}
	caps, err := e.ask(ctx, inspector.GetCACaps, "")
	if err != nil {
		return err
	}
	bundle, err := e.ask(ctx, inspector.GetCACert, "")
	if err != nil {
		return err
	}
	certificates, err := inspector.ParseCACert(bundle)
	if err != nil {
		return err
	}
	key, err := rsa.GenerateKey(rand.Reader, e.bits)
	if err != nil {
		return err
	}
	certificate, text, err := e.enroll(ctx, key, subject, challenge, certificates, inspector.ParseCACaps(caps)["POSTPKIOperation"])
	if err != nil {
		return err
	}
	if e.keyFile != "" {
		if err := writeKey(e.keyFile, key); err != nil {
			return err
		}
	}
	encoded := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate.Raw})
	if e.certFile == "" {
		_, err = out.Write(encoded)
		return err
	}
	if err := os.WriteFile(e.certFile, encoded, 0o644); err != nil {
		return err
	}
	_, err = fmt.Fprintf(out, "issued %s to %s by %s until %s%s\n",
		certificate.SerialNumber.Text(16), printable(certificate.Subject.String(), maxErrorText),
		printable(certificate.Issuer.String(), maxErrorText), certificate.NotAfter.UTC().Format(time.RFC3339), text)
	return err
}

func (e *enrollment) check() error {
	for _, required := range [][2]string{
		{"url", e.url}, {"subject", e.subject}, {"challenge-file", e.challengeFile},
	} {
		if required[1] == "" {
			return fmt.Errorf("--%s is required", required[0])
		}
	}
	if e.bits < 1024 || e.bits > 8192 {
		return errors.New("--bits: must be from 1024 to 8192")
	}
	u, err := url.Parse(e.url)
	if err != nil || u.Host == "" || u.RawQuery != "" || u.Fragment != "" || u.Scheme != "http" && u.Scheme != "https" {
		return errors.New("--url: must be an http or https URL without a query")
	}
	if _, err := os.Stat(e.keyFile); e.keyFile != "" && err == nil {
		return fmt.Errorf("--key: %s exists", e.keyFile)
	}
	if e.client == nil {
		e.client = &http.Client{
			Timeout:       time.Minute,
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		}
	}
	return nil
}

func readChallenge(file string, in io.Reader) (string, error) {
	var raw []byte
	var err error
	if file == "-" {
		raw, err = io.ReadAll(io.LimitReader(in, 16<<10))
	} else {
		raw, err = os.ReadFile(file)
	}
	if err != nil {
		return "", fmt.Errorf("--challenge-file: %w", err)
	}
	challenge := strings.TrimRight(string(raw), "\r\n")
	if challenge == "" {
		return "", errors.New("--challenge-file: is empty")
	}
	return challenge, nil
}

// ask sends an operation by GET and gives the body of a 200.
func (e *enrollment) ask(ctx context.Context, operation inspector.Operation, message string) ([]byte, error) {
	target := e.url + "?operation=" + string(operation)
	if message != "" {
		target += "&message=" + url.QueryEscape(message)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, target, nil)
	if err != nil {
		return nil, err
	}
	return e.do(req, operation)
}

func (e *enrollment) do(req *http.Request, operation inspector.Operation) ([]byte, error) {
	req.Header.Set("User-Agent", "scepgate-enroll")
	res, err := e.client.Do(req)
	if err != nil {
		var withURL *url.Error // its text has the message in it
		if errors.As(err, &withURL) {
			err = withURL.Err
		}
		return nil, fmt.Errorf("%s: %w", operation, err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, enrollReply+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("%s: %w", operation, err)
	case res.StatusCode != http.StatusOK:
		return nil, fmt.Errorf("%s: the server answered %s", operation, printable(res.Status, maxErrorText))
	case len(body) > enrollReply:
		return nil, fmt.Errorf("%s: answer too large", operation)
	}
	return body, nil
}

// enroll sends one PKCSReq and gives the certificate, and what the server says about it.
func (e *enrollment) enroll(ctx context.Context, key *rsa.PrivateKey, subject []inspector.RDN, challenge string, bundle []*x509.Certificate, post bool) (*x509.Certificate, string, error) {
	recipient, err := recipientOf(bundle)
	if err != nil {
		return nil, "", err
	}
	csr, err := inspector.BuildCSR(inspector.CSRParams{
		Subject: subject, SAN: e.names(), SID: e.sid,
		KeyUsage: 1<<0 | 1<<2, // digitalSignature, keyEncipherment
		Digest:   e.digest, Challenge: challenge,
	}, key)
	if err != nil {
		return nil, "", err
	}
	signer, err := inspector.SelfSignedCertificate(subject, time.Now(), key)
	if err != nil {
		return nil, "", err
	}
	spki, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		return nil, "", err
	}
	nonce := make([]byte, 16)
	rand.Read(nonce) // never fails (crypto/rand)
	transactionID := fmt.Sprintf("%X", sha1.Sum(spki))
	message, err := inspector.BuildPKIMessage(inspector.PKIMessage{
		MessageType: "19", TransactionID: transactionID, SenderNonce: nonce,
		Content: csr, Recipient: recipient, SignerCert: signer, SignerKey: key,
		Digest: e.digest, Cipher: e.cipher, OAEP: e.oaep,
	})
	if err != nil {
		return nil, "", err
	}
	answer, err := e.send(ctx, message, post)
	if err != nil {
		return nil, "", err
	}
	return readEnrolled(answer, key, bundle, transactionID, nonce)
}

func (e *enrollment) send(ctx context.Context, message []byte, post bool) ([]byte, error) {
	if !post {
		return e.ask(ctx, inspector.PKIOperation, base64.StdEncoding.EncodeToString(message))
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, e.url+"?operation="+string(inspector.PKIOperation), bytes.NewReader(message))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", mediaPKIMessage)
	return e.do(req, inspector.PKIOperation)
}

// readEnrolled believes an answer that a certificate of the bundle signed for
// this transaction, and picks the certificate with our key.
func readEnrolled(answer []byte, key *rsa.PrivateKey, bundle []*x509.Certificate, transactionID string, nonce []byte) (*x509.Certificate, string, error) {
	rep, err := inspector.ParseCertRep(answer)
	if err != nil {
		return nil, "", err
	}
	if rep.TransactionID != transactionID || !bytes.Equal(rep.RecipientNonce, nonce) {
		return nil, "", errors.New("the answer is for another request")
	}
	text := ""
	if rep.HasHRESULT {
		text += fmt.Sprintf(", 0x%08X", rep.HRESULT)
	}
	if rep.ServerMessage != "" {
		text += ", " + printable(rep.ServerMessage, maxErrorText)
	}
	if rep.PKIStatus != "0" {
		// A gateway signs its refusals with the RA, which is in the bundle too.
		_, err := rep.VerifySigner(bundle)
		trust := "signed by the server"
		if err != nil {
			trust = "signer unknown"
		}
		if rep.PKIStatus == "3" {
			return nil, "", fmt.Errorf("pending (%s%s)", trust, text)
		}
		return nil, "", fmt.Errorf("refused: failInfo %s (%s%s)", rep.FailInfo, trust, text)
	}
	if _, err := rep.VerifySigner(bundle); err != nil {
		return nil, "", fmt.Errorf("the answer's signer is not in GetCACert: %w", err)
	}
	certificates, err := inspector.OpenCertRep(answer, key)
	if err != nil {
		return nil, "", err
	}
	i := slices.IndexFunc(certificates, func(c *x509.Certificate) bool { return key.PublicKey.Equal(c.PublicKey) })
	if i < 0 {
		return nil, "", errors.New("the answer holds no certificate for this key")
	}
	return certificates[i], text, nil
}

// recipientOf picks the certificate to encrypt to: the RA's, by its key usage
// (RFC 8894 §4.2.1.2), or the CA's where there is no RA.
func recipientOf(bundle []*x509.Certificate) (*x509.Certificate, error) {
	for _, ca := range []bool{false, true} {
		for _, c := range bundle {
			if c.IsCA == ca && (c.KeyUsage == 0 || c.KeyUsage&x509.KeyUsageKeyEncipherment != 0) {
				return c, nil
			}
		}
	}
	return nil, errors.New("GetCACert: no certificate to encrypt to")
}

func (e *enrollment) names() []inspector.GeneralName {
	var names []inspector.GeneralName
	for _, kind := range []struct {
		name   string
		values []string
	}{{"dns", e.dns}, {"email", e.email}, {"uri", e.uri}, {"ip", e.ip}, {"upn", e.upn}} {
		for _, value := range kind.values {
			names = append(names, inspector.GeneralName{Type: kind.name, Value: value})
		}
	}
	return names
}

func writeKey(path string, key *rsa.PrivateKey) error {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	return errors.Join(pem.Encode(f, &pem.Block{Type: "PRIVATE KEY", Bytes: der}), f.Close())
}
