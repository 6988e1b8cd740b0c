package wire

import "bytes"

// What a builder of DER cannot write: the freedoms of BER, and the seams at
// which a message can be taken apart and joined again.

// Value is what one element holds, without its identifier and length.
func Value(element []byte) []byte {
	if element[1] < 0x80 {
		return element[2:]
	}
	return element[2+int(element[1]&0x7f):]
}

// Elements are the elements that stand one after the other, as Value gives
// those of a SEQUENCE.
func Elements(value []byte) [][]byte {
	var list [][]byte
	for len(value) > 0 {
		head, n := 2, int(value[1])
		if n >= 0x80 {
			octets := n & 0x7f
			head, n = 2+octets, 0
			for _, o := range value[2 : 2+octets] {
				n = n<<8 | int(o)
			}
		}
		list = append(list, value[:head+n])
		value = value[head+n:]
	}
	return list
}

// Streamed is a DER element with indefinite lengths in its outermost layers, as
// many as told.
func Streamed(element []byte, layers int) []byte {
	if layers == 0 || element[0]&0x20 == 0 {
		return element
	}
	var parts [][]byte
	for _, e := range Elements(Value(element)) {
		parts = append(parts, Streamed(e, layers-1))
	}
	return Indefinite(element[0], parts...)
}

// Chunks is an OCTET STRING of BER that holds value in pieces of n octets
// (X.690 §8.7.3). tag is the constructed one: 0x24, or a context-specific one
// in its place.
func Chunks(tag byte, value []byte, n int) []byte {
	var parts [][]byte
	for len(value) > n {
		parts, value = append(parts, Octets(value[:n])), value[n:]
	}
	return Indefinite(tag, append(parts, Octets(value))...)
}

// Nested is n SEQUENCEs of indefinite length that only begin.
func Nested(n int) []byte { return bytes.Repeat([]byte{0x30, 0x80}, n) }

// Around is the signed PKCS#10 around any bytes for its CertificationRequestInfo.
func (r *Request) Around(info []byte) []byte {
	elements := Elements(Value(r.Bytes()))
	sign := r.Sign
	if sign == nil {
		sign = func(info []byte) []byte { return SignRSA(r.Key, defaultDigest, info) }
	}
	return Sequence(info, elements[1], Bits(sign(info)))
}

// Encrypted is plaintext under the content key of e, padded as e pads.
func (e *Envelope) Encrypted(plaintext []byte) []byte { return e.encrypt(plaintext) }

// SignedAttributes are the attributes that the signer would sign over content.
func (s *Signer) SignedAttributes(content []byte) [][]byte {
	hash := s.Digest
	if hash == 0 {
		hash = defaultDigest
	}
	return s.attributes(hash, content)
}
