package ndes

import (
	"bytes"
	"crypto"
	"crypto/aes"
	"crypto/cipher"
	"crypto/des"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/x509"
	"encoding/asn1"
	"fmt"
	"math/big"
	"sort"
	"strconv"

	"golang.org/x/crypto/cryptobyte"
	cb "golang.org/x/crypto/cryptobyte/asn1"
)

var (
	oidData          = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 1}
	oidSignedData    = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 2}
	oidEnvelopedData = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 3}
	oidContentType   = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 3}
	oidMessageDigest = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 4}
	oidSHA1          = asn1.ObjectIdentifier{1, 3, 14, 3, 2, 26}
	oidRSA           = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 1}
	oidOAEP          = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 7}
	oidDES           = asn1.ObjectIdentifier{1, 3, 14, 3, 2, 7}
	oidDES3          = asn1.ObjectIdentifier{1, 2, 840, 113549, 3, 7}
	oidAES128        = asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 1, 2}
	oidAES256        = asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 1, 42}
)

func (s *Server) success(x *exchange, cert *x509.Certificate) ([]byte, error) {
	envelope, err := s.envelop(x, certsOnly([][]byte{cert.Raw})) // the leaf only
	if err != nil {
		return nil, err
	}
	return s.certRep(x, "0", envelope, attribute(oidServerMessage, cb.UTF8String, "Issued"))
}

// failure is a signed FAILURE badRequest: HTTP 200, one byte of content.
func (s *Server) failure(x *exchange, hresult uint32, text string) ([]byte, error) {
	extra := [][]byte{
		attribute(oidFailInfo, cb.PrintableString, "2"),
		attribute(oidSCEPError, cb.PrintableString, strconv.Itoa(int(int32(hresult)))),
	}
	if text != "" {
		extra = append(extra, attribute(oidServerMessage, cb.UTF8String, text))
	}
	return s.certRep(x, "2", []byte{0}, extra...)
}

func (s *Server) pendingReply(x *exchange) ([]byte, error) {
	return s.certRep(x, "3", []byte{0}, attribute(oidServerMessage, cb.UTF8String, "Taken Under Submission"))
}

// certRep signs a reply in NDES's shape: no certificates, SHA-1, rsaEncryption,
// signed attributes in DER order, no signingTime.
func (s *Server) certRep(x *exchange, status string, content []byte, extra ...[]byte) ([]byte, error) {
	nonce := make([]byte, 16)
	rand.Read(nonce)
	digest := sha1.Sum(content)
	attrs := append([][]byte{
		attribute(oidMessageType, cb.PrintableString, "3"),
		attribute(oidPKIStatus, cb.PrintableString, status),
		rawAttributeOf(oidContentType, func(b *cryptobyte.Builder) { b.AddASN1ObjectIdentifier(oidData) }),
		attribute(oidSenderNonce, cb.OCTET_STRING, string(nonce)),
		attribute(oidRecipientNonce, cb.OCTET_STRING, string(x.senderNonce)),
		attribute(oidMessageDigest, cb.OCTET_STRING, string(digest[:])),
		attribute(oidTransactionID, cb.PrintableString, x.transactionID),
	}, extra...)
	sort.Slice(attrs, func(i, j int) bool { return bytes.Compare(attrs[i], attrs[j]) < 0 })
	signedAttrs := bytes.Join(attrs, nil)
	var set cryptobyte.Builder
	set.AddASN1(cb.SET, func(b *cryptobyte.Builder) { b.AddBytes(signedAttrs) })
	sum := sha1.Sum(set.BytesOrPanic())
	signature, err := rsa.SignPKCS1v15(rand.Reader, s.signing, crypto.SHA1, sum[:])
	if err != nil {
		return nil, err
	}
	return contentInfo(oidSignedData, func(b *cryptobyte.Builder) {
		b.AddASN1(cb.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddASN1Int64(1)
			b.AddASN1(cb.SET, func(b *cryptobyte.Builder) { addAlgorithm(b, oidSHA1) })
			b.AddASN1(cb.SEQUENCE, func(b *cryptobyte.Builder) {
				b.AddASN1ObjectIdentifier(oidData)
				b.AddASN1(cb.Tag(0).ContextSpecific().Constructed(), func(b *cryptobyte.Builder) { b.AddASN1OctetString(content) })
			})
			b.AddASN1(cb.SET, func(b *cryptobyte.Builder) {
				b.AddASN1(cb.SEQUENCE, func(b *cryptobyte.Builder) {
					b.AddASN1Int64(1)
					addIssuerAndSerial(b, s.Signing.RawIssuer, s.Signing.SerialNumber)
					addAlgorithm(b, oidSHA1)
					b.AddASN1(cb.Tag(0).ContextSpecific().Constructed(), func(b *cryptobyte.Builder) { b.AddBytes(signedAttrs) })
					addAlgorithm(b, oidRSA)
					b.AddASN1OctetString(signature)
				})
			})
		})
	}), nil
}

// envelop encrypts to the request's signer with the cipher of the request.
func (s *Server) envelop(x *exchange, plain []byte) ([]byte, error) {
	pub, ok := x.signer.PublicKey.(*rsa.PublicKey)
	if !ok {
		return nil, fmt.Errorf("signer key is not RSA")
	}
	oid, size, newBlock := oidDES3, 24, des.NewTripleDESCipher
	isAES := false
	for _, c := range []struct {
		oid  asn1.ObjectIdentifier
		size int
		make func([]byte) (cipher.Block, error)
	}{{oidAES128, 16, aes.NewCipher}, {oidAES256, 32, aes.NewCipher}, {oidDES, 8, des.NewCipher}} {
		der, _ := asn1.Marshal(c.oid)
		if bytes.Contains(x.envelope, der) {
			oid, size, newBlock = c.oid, c.size, c.make
			isAES = size != 8
			break
		}
	}
	key := make([]byte, size)
	rand.Read(key)
	block, err := newBlock(key)
	if err != nil {
		return nil, err
	}
	iv := make([]byte, block.BlockSize())
	rand.Read(iv)
	pad := block.BlockSize() - len(plain)%block.BlockSize()
	padded := append(bytes.Clone(plain), bytes.Repeat([]byte{byte(pad)}, pad)...)
	cipher.NewCBCEncrypter(block, iv).CryptBlocks(padded, padded)

	var wrapped []byte
	oaep := s.config.OAEPReplies && isAES
	if oaep {
		wrapped, err = rsa.EncryptOAEP(sha1.New(), rand.Reader, pub, key, nil)
	} else {
		wrapped, err = rsa.EncryptPKCS1v15(rand.Reader, pub, key)
	}
	if err != nil {
		return nil, err
	}
	return contentInfo(oidEnvelopedData, func(b *cryptobyte.Builder) {
		b.AddASN1(cb.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddASN1Int64(0)
			b.AddASN1(cb.SET, func(b *cryptobyte.Builder) {
				b.AddASN1(cb.SEQUENCE, func(b *cryptobyte.Builder) {
					b.AddASN1Int64(0)
					addIssuerAndSerial(b, x.signer.RawIssuer, x.signer.SerialNumber)
					if oaep {
						b.AddASN1(cb.SEQUENCE, func(b *cryptobyte.Builder) {
							b.AddASN1ObjectIdentifier(oidOAEP)
							b.AddASN1(cb.SEQUENCE, func(*cryptobyte.Builder) {})
						})
					} else {
						addAlgorithm(b, oidRSA)
					}
					b.AddASN1OctetString(wrapped)
				})
			})
			b.AddASN1(cb.SEQUENCE, func(b *cryptobyte.Builder) {
				b.AddASN1ObjectIdentifier(oidData)
				b.AddASN1(cb.SEQUENCE, func(b *cryptobyte.Builder) {
					b.AddASN1ObjectIdentifier(oid)
					b.AddASN1OctetString(iv)
				})
				b.AddASN1(cb.Tag(0).ContextSpecific(), func(b *cryptobyte.Builder) { b.AddBytes(padded) })
			})
		})
	}), nil
}

// certsOnly is a degenerate SignedData.
func certsOnly(certs [][]byte) []byte {
	return contentInfo(oidSignedData, func(b *cryptobyte.Builder) {
		b.AddASN1(cb.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddASN1Int64(1)
			b.AddASN1(cb.SET, func(*cryptobyte.Builder) {})
			b.AddASN1(cb.SEQUENCE, func(b *cryptobyte.Builder) { b.AddASN1ObjectIdentifier(oidData) })
			b.AddASN1(cb.Tag(0).ContextSpecific().Constructed(), func(b *cryptobyte.Builder) {
				for _, c := range certs {
					b.AddBytes(c)
				}
			})
			b.AddASN1(cb.SET, func(*cryptobyte.Builder) {})
		})
	})
}

func contentInfo(oid asn1.ObjectIdentifier, content func(*cryptobyte.Builder)) []byte {
	var b cryptobyte.Builder
	b.AddASN1(cb.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1ObjectIdentifier(oid)
		b.AddASN1(cb.Tag(0).ContextSpecific().Constructed(), content)
	})
	return b.BytesOrPanic()
}

func addAlgorithm(b *cryptobyte.Builder, oid asn1.ObjectIdentifier) {
	b.AddASN1(cb.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1ObjectIdentifier(oid)
		b.AddASN1NULL()
	})
}

func addIssuerAndSerial(b *cryptobyte.Builder, issuer []byte, serial *big.Int) {
	b.AddASN1(cb.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddBytes(issuer)
		b.AddASN1BigInt(serial)
	})
}

func rawAttributeOf(oid asn1.ObjectIdentifier, value func(*cryptobyte.Builder)) []byte {
	var b cryptobyte.Builder
	b.AddASN1(cb.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1ObjectIdentifier(oid)
		b.AddASN1(cb.SET, value)
	})
	return b.BytesOrPanic()
}

func attribute(oid asn1.ObjectIdentifier, tag cb.Tag, value string) []byte {
	return rawAttributeOf(oid, func(b *cryptobyte.Builder) {
		b.AddASN1(tag, func(b *cryptobyte.Builder) { b.AddBytes([]byte(value)) })
	})
}
