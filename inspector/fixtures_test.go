package inspector

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
)

func derIA5(s string) []byte                     { return tlv(0x16, []byte(s)) }
func explicitTag(n byte, parts ...[]byte) []byte { return tlv(0xa0|n, parts...) }
func implicitTag(n byte, value []byte) []byte    { return tlv(0x80|n, value) }
func integerOctets(octets ...byte) []byte        { return tlv(0x02, octets) }

func derBMP(s string) []byte {
	var b []byte
	for _, r := range s {
		b = append(b, byte(r>>8), byte(r))
	}
	return tlv(0x1e, b)
}

var testKeys sync.Map

// testKey gives one of a few RSA-2048 keys that all tests share: making one
// costs more than most tests.
func testKey(t testing.TB, name string) *rsa.PrivateKey {
	t.Helper()
	made, _ := testKeys.LoadOrStore(name, sync.OnceValues(func() (*rsa.PrivateKey, error) {
		return rsa.GenerateKey(rand.Reader, 2048)
	}))
	key, err := made.(func() (*rsa.PrivateKey, error))()
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// vector reads a captured message; the captures are no part of the project.
func vector(t testing.TB, name string) []byte {
	t.Helper()
	shared := os.Getenv("SCEPGATE_SHARED")
	if shared == "" {
		shared = filepath.Join("..", "..", "shared")
	}
	b, err := os.ReadFile(filepath.Join(shared, "vectors", name))
	if os.IsNotExist(err) {
		t.Skipf("no captured messages: SCEPGATE_SHARED names no folder with vectors/%s", name)
	}
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// openssl finds the second decoder that some tests ask.
func openssl(t testing.TB) string {
	t.Helper()
	path, err := exec.LookPath("openssl")
	if err != nil {
		t.Skip("needs openssl (Debian package openssl)")
	}
	return path
}

// fuzzKey is a fixed RSA-1024 key for fuzz targets, whose workers would
// otherwise each make one. It is a test fixture and protects nothing.
func fuzzKey(f *testing.F) *rsa.PrivateKey {
	f.Helper()
	der, err := base64.StdEncoding.DecodeString(fuzzKeyPKCS1)
	if err != nil {
		f.Fatal(err)
	}
	key, err := x509.ParsePKCS1PrivateKey(der)
	if err != nil {
		f.Fatal(err)
	}
	return key
}

const fuzzKeyPKCS1 = "" +
	"MIICXAIBAAKBgQCbcmcLzLMq9V5zPJKF8VWtVtzWdAdymdua0VjO7VAAS/6mWvM+5h+d7hO64/EubBsjWcbDxyS2keGA7Mwo4CIc" +
	"jw/d2EbsVfE26PCKDAsWP5aR2Z5rJVsLcSRIcRO2YzSpmI424Wq4R7orM8551MeYeCj1CV8kkX4t4n4gMTfcIwIDAQABAoGAMGL8" +
	"EIA3hTe7nsNMGMV2le5j751OdC3QXfCsZD0amf0N11qYPQwE63QgUByEBp9AE1DuviJPG0VtnGQZaN/bvevJD4abBJdTEfJ5kCm+" +
	"EibQlgvvcQkJJBPC3jFjCeCloSQID7u4aB6qniAiPTEnfuV5aCQWZAWEpBDQlP1MLIECQQDN+ZEYb4fzBX2iFrPrkKK20CTBsYSh" +
	"MTTewcZcW0EkJOEWvyf58H0cwjKb4P9SdoJrx7x4pOFlujI0HNj0I+BlAkEAwTNFhnxL3H/8q7N0GkazUodrVH5Oaok/OCU+kGNi" +
	"hvLZDQmj1rXQ3TsSwuQTQ2mUyAJHp9YR1FDQPki1slJN5wJBAIlRlLYhxRTz2Coz0Id/ybrvUVIAs1dzorfPoBr6i5c5LwcnMdOj" +
	"zQVbQrpBanbjo1ePtcsIwWw8kjPD96/sKzECQGb+Jy0na+WTUSZTVyx+zi/LwzrazoDaw5nxuOWOJcMdCPp7Th0y9bJKQJkmruI8" +
	"EbWCCaL+aqjNoAXkCwCSAbcCQCqLk15bPeGJeHFJIW+adl19hPFtkFTJrJKy0zt+uFj+2bJaZ58P+w228uDTBitjyVsJWnZSN9C/" +
	"7eRt1StjC90="
