package differential

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/asn1"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/scepgate/scepgate/inspector"
)

// maxOpenSSLRefusals is the share of inputs that the inspector accepts and
// OpenSSL does not read: a refusal is not another meaning, but were it common
// there would be nothing to compare.
//
// They come from the signer's certificate, of which the inspector takes the
// frame only, and from alternative names that can not be expected anyhow.
const maxOpenSSLRefusals = 0.05

// openSSL is the third reader: the command line of OpenSSL.
type openSSL struct {
	path string
	dir  string
	mu   sync.Mutex
	oids map[string]string // as it prints them, by dotted form
}

// errRefused is OpenSSL's: it does not read the input.
var errRefused = errors.New("OpenSSL refuses")

func (o *openSSL) run(input []byte, args ...string) (stdout, stderr string, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, o.path, args...)
	cmd.Dir = o.dir
	cmd.Env = []string{"PATH=/usr/bin:/bin", "OPENSSL_CONF=/dev/null"}
	cmd.Stdin = bytes.NewReader(input)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return out.String(), errs.String(), fmt.Errorf("%w: %s %s: %v: %s", errRefused, args[0], args[1], err, strings.TrimSpace(errs.String()))
	}
	return out.String(), errs.String(), nil
}

// oid gives an identifier as OpenSSL prints it, asking by its dotted form.
func (o *openSSL) oid(dotted string) (string, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if name, ok := o.oids[dotted]; ok {
		return name, nil
	}
	out, _, err := o.run(nil, "asn1parse", "-genstr", "OID:"+dotted)
	if err != nil {
		return "", err
	}
	_, name, _ := strings.Cut(strings.TrimSuffix(out, "\n"), "OBJECT            :")
	o.oids[dotted] = name
	return name, nil
}

// universal are the types as asn1parse calls them.
var universal = map[int]string{
	1: "BOOLEAN", 2: "INTEGER", 3: "BIT STRING", 4: "OCTET STRING", 5: "NULL", 6: "OBJECT", 12: "UTF8STRING", 16: "SEQUENCE", 17: "SET",
	19: "PRINTABLESTRING", 20: "T61STRING", 22: "IA5STRING", 23: "UTCTIME", 24: "GENERALIZEDTIME", 30: "BMPSTRING",
}

// compareTree holds OpenSSL's listing of all elements against the elements that
// encoding/asn1 finds: place, depth, header, length, type and, but for bit
// strings, the value.
func (o *openSSL) compareTree(der []byte) error {
	listing, _, err := o.run(der, "asn1parse", "-inform", "DER")
	if err != nil {
		return err
	}
	root, err := single(der)
	if err != nil {
		return err
	}
	rest, err := o.expect(listing, root, 0, 0)
	if err == nil && rest != "" {
		err = fmt.Errorf("OpenSSL lists more elements: %.200q", rest)
	}
	return err
}

func (o *openSSL) expect(listing string, v asn1.RawValue, offset, depth int) (rest string, err error) {
	head := len(v.FullBytes) - len(v.Bytes)
	form, name := "prim", ""
	if v.IsCompound {
		form = "cons"
	}
	switch v.Class {
	case asn1.ClassUniversal:
		name = universal[v.Tag]
	case asn1.ClassApplication:
		name = fmt.Sprintf("appl [ %d ]", v.Tag)
	case asn1.ClassContextSpecific:
		name = fmt.Sprintf("cont [ %d ]", v.Tag)
	default:
		name = fmt.Sprintf("priv [ %d ]", v.Tag)
	}
	line := fmt.Sprintf("%5d:d=%-2d hl=%d l=%4d %s: ", offset, depth, head, len(v.Bytes), form)
	if name != "" {
		line += fmt.Sprintf("%-18s", name)
	}
	value, known, err := o.value(v)
	if err != nil {
		return "", err
	}
	if known {
		line += value + "\n"
	}
	after, ok := strings.CutPrefix(listing, line)
	if !ok {
		return "", fmt.Errorf("OpenSSL lists %.300q where %q must be", listing, line)
	}
	if !known {
		_, after, _ = strings.Cut(after, "\n")
	}
	if !v.IsCompound {
		return after, nil
	}
	list, err := children(v)
	if err != nil {
		return "", err
	}
	offset += head
	for _, child := range list {
		if after, err = o.expect(after, child, offset, depth+1); err != nil {
			return "", err
		}
		offset += len(child.FullBytes)
	}
	return after, nil
}

// value is what asn1parse prints behind the type; known is false where it is not
// foreseen.
func (o *openSSL) value(v asn1.RawValue) (value string, known bool, err error) {
	switch {
	case v.IsCompound, v.Class != asn1.ClassUniversal:
		return "", true, nil
	case v.Tag == asn1.TagOID:
		dotted, err := identifier(v)
		if err != nil {
			return "", false, nil // inside of what has no meaning here
		}
		name, err := o.oid(dotted)
		return ":" + name, true, err
	case v.Tag == asn1.TagInteger:
		i, err := integer(v)
		if err != nil {
			return "", false, nil
		}
		digits := strings.ToUpper(i.Text(16))
		sign := ""
		if i.Sign() < 0 {
			sign, digits = "-", digits[1:]
		}
		return ":" + sign + strings.Repeat("0", len(digits)%2) + digits, true, nil
	case v.Tag == asn1.TagBoolean && len(v.Bytes) == 1:
		return ":" + strconv.Itoa(int(v.Bytes[0])), true, nil
	case v.Tag == asn1.TagOctetString && len(v.Bytes) > 0:
		for _, b := range v.Bytes {
			if (b < ' ' && b != '\n' && b != '\r' && b != '\t') || b > '~' {
				return "[HEX DUMP]:" + strings.ToUpper(hex.EncodeToString(v.Bytes)), true, nil
			}
		}
		return ":" + string(v.Bytes), true, nil
	case v.Tag == asn1.TagUTF8String, v.Tag == asn1.TagPrintableString, v.Tag == asn1.TagIA5String, v.Tag == asn1.TagUTCTime, v.Tag == asn1.TagGeneralizedTime:
		return ":" + string(v.Bytes), true, nil
	}
	return "", false, nil
}

// keyUsageNames are the bits as OpenSSL calls them.
var keyUsageNames = []string{
	"Digital Signature", "Non Repudiation", "Key Encipherment", "Data Encipherment", "Key Agreement", "Certificate Sign", "CRL Sign", "Encipher Only", "Decipher Only",
}

// extensionLine begins an extension in the text of a request.
var extensionLine = regexp.MustCompile(`(?m)^ {16}(\S.*): (critical)?$`)

// compareRequest holds what OpenSSL reads in an accepted PKCS#10 against what
// the inspector reports.
func (o *openSSL) compareRequest(der []byte) error {
	c, err := inspector.ParseCSR(der)
	if err != nil {
		return err
	}
	second, err := DecodeRequest(der)
	if err != nil {
		return err
	}
	text, notes, err := o.run(der, "req", "-inform", "DER", "-noout", "-verify", "-subject", "-pubkey", "-text", "-nameopt", "oid,dump_all,dump_der,sep_comma_plus")
	if err != nil {
		return err
	}
	if !strings.Contains(notes, "verify OK") {
		return fmt.Errorf("signature: %s", notes)
	}
	if block, _ := pem.Decode([]byte(text)); block == nil || !bytes.Equal(block.Bytes, c.SPKI) {
		return errors.New("OpenSSL reads another key")
	}
	if want := "\nsubject=" + subjectText(c.Subject) + "\n"; !strings.Contains(text, want) {
		return fmt.Errorf("subject is not %q in:\n%s", want, text)
	}
	version := fmt.Sprintf("Version: %d (0x%x)\n", c.Version+1, c.Version)
	if c.Version != 0 { // the only one that RFC 2986 knows
		version = fmt.Sprintf("Version: Unknown (%d)\n", c.Version)
	}
	if !strings.Contains(text, version) {
		return fmt.Errorf("version is not %q in:\n%s", version, text)
	}
	if want := "Signature Algorithm: " + c.SignatureDigest + "WithRSAEncryption\n"; !strings.Contains(text, want) {
		return fmt.Errorf("signature algorithm is not %q in:\n%s", want, text)
	}
	if err := o.compareExtensions(text, c, second); err != nil {
		return fmt.Errorf("%w in:\n%s", err, text)
	}
	return o.compareTree(der)
}

// subjectText writes a name in OpenSSL's way: types dotted, values as DER in hex.
func subjectText(name []inspector.RDN) string {
	var rdns []string
	for _, rdn := range name {
		var items []string
		for _, a := range rdn {
			items = append(items, fmt.Sprintf("%s=#%X", a.Type, writeText(a.Tag, a.Value)))
		}
		rdns = append(rdns, strings.Join(items, "+"))
	}
	return strings.Join(rdns, ",")
}

// compareExtensions compares the list of extensions in its order, and the values
// of those that OpenSSL explains.
func (o *openSSL) compareExtensions(text string, c *inspector.CSR, second *Request) error {
	var want []Extension
	for _, a := range second.Attributes {
		if list, ok := a.meaning.(extensionList); ok {
			want = list
		}
	}
	_, section, _ := strings.Cut(text, "Requested Extensions:\n")
	section, _, _ = strings.Cut(section, "    Signature Algorithm: ")
	heads := extensionLine.FindAllStringSubmatchIndex(section, -1)
	if len(heads) != len(want) {
		return fmt.Errorf("OpenSSL lists %d extensions, not %d", len(heads), len(want))
	}
	for i, e := range want {
		name, err := o.oid(e.ID)
		if err != nil {
			return err
		}
		at := heads[i]
		if section[at[2]:at[3]] != name || (at[4] >= 0) != e.Critical {
			return fmt.Errorf("extension %d is %q", i, section[at[0]:at[1]])
		}
		value := section[at[1]:]
		if i+1 < len(heads) {
			value = section[at[1]:heads[i+1][0]]
		}
		value = strings.Trim(value, "\n")
		pattern := ""
		switch e.ID {
		case subjectAltName:
			if pattern, err = sanPattern(c.SAN); err != nil {
				return err
			}
		case keyUsage:
			var names []string
			for bit, name := range keyUsageNames {
				if c.KeyUsage&(1<<bit) != 0 {
					names = append(names, name)
				}
			}
			pattern = regexp.QuoteMeta(strings.Join(names, ", "))
		case extKeyUsage:
			var names []string
			for _, oid := range c.ExtKeyUsage {
				name, err := o.oid(oid)
				if err != nil {
					return err
				}
				names = append(names, name)
			}
			pattern = regexp.QuoteMeta(strings.Join(names, ", "))
		default: // its octets stand in the tree
			continue
		}
		ok, err := regexp.MatchString("^ {20}"+pattern+"$", value)
		if e.ID == subjectAltName && err == nil && !ok && holdsForeignName(c.SAN) && !explainedSAN.MatchString(value) {
			return fmt.Errorf("%w the alternative name: %q", errRefused, value)
		}
		if err != nil || !ok {
			return errors.Join(err, fmt.Errorf("%s is %q, not %q", name, value, pattern))
		}
	}
	return nil
}

// explainedSAN begins what OpenSSL prints of a list of names that it can read.
var explainedSAN = regexp.MustCompile(`^ {20}(DNS|email|URI|IP Address|othername|Registered ID|DirName|X400Name|EdiPartyName):`)

// holdsForeignName: the inspector keeps such a name as a fact that nothing can
// expect, without reading what is in it. OpenSSL reads it and may refuse.
func holdsForeignName(names []inspector.GeneralName) bool {
	for _, n := range names {
		if n.Type == "other" {
			return true
		}
	}
	return false
}

// sanPattern fits what OpenSSL prints for these names.
func sanPattern(names []inspector.GeneralName) (string, error) {
	heads := map[string]string{"dns": "DNS:", "email": "email:", "uri": "URI:", "upn": "othername: UPN::"}
	others := map[string]string{"3": "X400Name:.*", "4": "DirName:.*", "5": "EdiPartyName:.*", "8": "Registered ID:.*"}
	var list []string
	for _, n := range names {
		switch n.Type {
		case "ip":
			address, err := netip.ParseAddr(n.Value)
			if err != nil {
				return "", err
			}
			shown := address.String()
			if address.Is6() {
				b := address.As16()
				var groups []string
				for i := 0; i < 16; i += 2 {
					groups = append(groups, fmt.Sprintf("%X", int(b[i])<<8|int(b[i+1])))
				}
				shown = strings.Join(groups, ":")
			}
			list = append(list, "IP Address:"+regexp.QuoteMeta(shown))
		case "other":
			pattern, ok := others[n.Value]
			if !ok {
				pattern = "othername: ?.*"
			}
			list = append(list, pattern)
		default:
			list = append(list, regexp.QuoteMeta(heads[n.Type]+n.Value))
		}
	}
	return strings.Join(list, ", "), nil
}

// compareMessage lets OpenSSL verify a message, name its signer and decrypt the
// request, and holds that against what the inspector reports.
func (o *openSSL) compareMessage(w *world, raw []byte, number int) error {
	f, err := w.inspectMessage(raw)
	if err != nil {
		return err
	}
	signer := filepath.Join(o.dir, fmt.Sprintf("signer-%d.pem", number))
	content, _, err := o.run(raw, "cms", "-verify", "-noverify", "-binary", "-inform", "DER", "-signer", signer)
	if err != nil {
		return err
	}
	text, err := os.ReadFile(signer)
	if err != nil {
		return err
	}
	if block, _ := pem.Decode(text); block == nil || hex.EncodeToString(block.Bytes) != f.Raw {
		return errors.New("OpenSSL finds another signer")
	}
	der, err := definite(raw)
	if err != nil {
		return err
	}
	m, err := DecodeMessage(der)
	if err != nil {
		return err
	}
	if content != string(m.Content) {
		return errors.New("OpenSSL reads other content")
	}
	if f.Request != "" {
		args := []string{"cms", "-decrypt", "-binary", "-inform", "DER", "-recip", f.RA + ".crt", "-inkey", f.RA + ".key"}
		if f.Cipher == "des" {
			args = append(args, "-provider", "default", "-provider", "legacy")
		}
		request, _, err := o.run(m.Content, args...)
		if err != nil {
			return err
		}
		if hex.EncodeToString([]byte(request)) != f.Request {
			return errors.New("OpenSSL decrypts another request")
		}
	}
	return o.compareTree(der)
}

func (w *world) newOpenSSL(t *testing.T) *openSSL {
	t.Helper()
	if testing.Short() {
		t.Skip("starts processes")
	}
	path, err := exec.LookPath("openssl")
	if err != nil {
		t.Skip("needs openssl (Debian package openssl)")
	}
	o := &openSSL{path: path, dir: t.TempDir(), oids: map[string]string{}}
	for _, ra := range w.ra {
		key, err := x509.MarshalPKCS8PrivateKey(ra.Key)
		check(t, err)
		for name, block := range map[string]*pem.Block{
			ra.Name + ".crt": {Type: "CERTIFICATE", Bytes: ra.Certificate.Raw},
			ra.Name + ".key": {Type: "PRIVATE KEY", Bytes: key},
		} {
			check(t, os.WriteFile(filepath.Join(o.dir, name), pem.EncodeToMemory(block), 0o600))
		}
	}
	return o
}

// openSSLInput is one accepted input for OpenSSL.
type openSSLInput struct {
	index uint64
	sample
}

// threats C01–C79, as facts: what is accepted means to OpenSSL what it means to
// the inspector.
func TestAcceptedInputsMeanTheSameToOpenSSL(t *testing.T) {
	w := newWorld(t, *seed)
	o := w.newOpenSSL(t)
	var inputs []openSSLInput
	for i := uint64(0); len(inputs) < *openSSLCount && i < *mutations; i++ {
		s := w.sample(i)
		v := w.judge(s)
		if v.problem != "" {
			t.Fatalf("seed %d, input %d: %s\n%x", *seed, i, v.problem, v.culprit)
		}
		if v.accepted && s.changed {
			if ber := s.twins["outer layer"]; ber != nil && i%2 == 0 { // OpenSSL reads BER as well
				s.der = ber
			}
			inputs = append(inputs, openSSLInput{i, s})
		}
	}
	var (
		mu      sync.Mutex
		wait    sync.WaitGroup
		refused int
		kinds   = map[string]int{}
		queue   = make(chan int)
	)
	for range 2 {
		wait.Go(func() {
			for n := range queue {
				in := inputs[n]
				var err error
				if in.kind == "request" {
					err = o.compareRequest(in.der)
				} else {
					err = o.compareMessage(w, in.der, n)
				}
				mu.Lock()
				kinds[in.kind]++
				switch {
				case errors.Is(err, errRefused):
					refused++
					reason, _, _ := strings.Cut(err.Error(), "\n")
					t.Logf("input %d, %s %q, %s: %s", in.index, in.kind, in.base, strings.Join(in.done, ", "), reason)
				case err != nil:
					t.Errorf("seed %d, input %d, %s %q, %s: %v\n%x", *seed, in.index, in.kind, in.base, strings.Join(in.done, ", "), err, in.der)
				}
				mu.Unlock()
			}
		})
	}
	for n := range inputs {
		queue <- n
	}
	close(queue)
	wait.Wait()
	t.Logf("seed %d: OpenSSL read %d requests and %d messages, refused %d of them", *seed, kinds["request"], kinds["message"], refused)
	if float64(refused) > maxOpenSSLRefusals*float64(len(inputs))+2 {
		t.Errorf("OpenSSL refuses %d of %d accepted inputs", refused, len(inputs))
	}
}
