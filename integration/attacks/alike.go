package main

import (
	"bytes"
	"encoding/asn1"
	"fmt"
	"maps"
	"slices"

	"github.com/scepgate/scepgate/integration/attack"
)

// alike compares a refusal with the first one: status, headers and every byte
// but nonces, transactionID and signature (invariant 6).
func (s *stage) alike(a attack.Answer) error {
	if s.reference == nil {
		s.reference = skeleton(a)
		return nil
	}
	if got := skeleton(a); !bytes.Equal(got, s.reference) {
		return fmt.Errorf("%d octets differ from the %d of the first:\n%x\n%x", len(got), len(s.reference), got, s.reference)
	}
	return nil
}

// skeleton is a refusal without what may differ. transactionID and
// recipientNonce are the sender's own, and lengths around them follow theirs.
func skeleton(a attack.Answer) []byte {
	var b bytes.Buffer
	for _, name := range slices.Sorted(maps.Keys(a.Header)) {
		if name != "Date" && name != "Content-Length" {
			fmt.Fprintf(&b, "%s: %q\n", name, a.Header[name])
		}
	}
	fmt.Fprintln(&b, a.Status)
	body := bytes.Clone(a.Body)
	rest, err := withoutLengths(body, [][]byte{[]byte(a.Rep.TransactionID), a.Rep.RecipientNonce, a.Rep.SenderNonce})
	if err != nil {
		fmt.Fprint(&b, err)
	}
	b.Write(rest)
	return b.Bytes()
}

// withoutLengths lists the tags of a DER message with the contents of its
// primitive elements, leaving out the given values and the signature, which is
// longer than any other. What stands beside each other is sorted: the length of
// a transactionID moves its attribute in the DER SET OF.
func withoutLengths(der []byte, values [][]byte) ([]byte, error) {
	var elements [][]byte
	for len(der) > 0 {
		var value asn1.RawValue
		rest, err := asn1.Unmarshal(der, &value)
		if err != nil {
			return nil, err
		}
		element := []byte{der[0]}
		der = rest
		switch {
		case value.IsCompound:
			inner, err := withoutLengths(value.Bytes, values)
			if err != nil {
				return nil, err
			}
			element = append(element, inner...)
		case len(value.Bytes) < 128 && !slices.ContainsFunc(values, func(v []byte) bool { return bytes.Equal(v, value.Bytes) }):
			element = append(append(element, byte(len(value.Bytes))), value.Bytes...)
		}
		elements = append(elements, element)
	}
	slices.SortFunc(elements, bytes.Compare)
	return bytes.Join(elements, nil), nil
}
