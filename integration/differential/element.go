package differential

import (
	"encoding/asn1"
	"errors"
	"fmt"
	"math/big"
	"time"
	"unicode/utf16"
)

var errTrailing = errors.New("bytes after the element")

// single reads der as exactly one element. encoding/asn1 checks the identifier
// and length octets: definite and minimal.
func single(der []byte) (asn1.RawValue, error) {
	var v asn1.RawValue
	rest, err := asn1.Unmarshal(der, &v)
	if err != nil {
		return v, err
	}
	if len(rest) != 0 {
		return v, errTrailing
	}
	return v, nil
}

// children reads the elements inside of v.
func children(v asn1.RawValue) ([]asn1.RawValue, error) {
	if !v.IsCompound {
		return nil, fmt.Errorf("tag %d/%d is primitive", v.Class, v.Tag)
	}
	var list []asn1.RawValue
	for rest := v.Bytes; len(rest) > 0; {
		var child asn1.RawValue
		var err error
		if rest, err = asn1.Unmarshal(rest, &child); err != nil {
			return nil, err
		}
		list = append(list, child)
	}
	return list, nil
}

// inside reads the elements of v, which must have this class and tag.
func inside(v asn1.RawValue, class, tag int) ([]asn1.RawValue, error) {
	if v.Class != class || v.Tag != tag {
		return nil, fmt.Errorf("tag %d/%d where %d/%d must be", v.Class, v.Tag, class, tag)
	}
	return children(v)
}

// sequence reads a SEQUENCE of at least low and at most high elements; high -1
// is without end.
func sequence(v asn1.RawValue, low, high int) ([]asn1.RawValue, error) {
	return counted(v, asn1.ClassUniversal, asn1.TagSequence, low, high)
}

func counted(v asn1.RawValue, class, tag, low, high int) ([]asn1.RawValue, error) {
	list, err := inside(v, class, tag)
	if err != nil {
		return nil, err
	}
	if len(list) < low || high >= 0 && len(list) > high {
		return nil, fmt.Errorf("%d elements in tag %d/%d", len(list), class, tag)
	}
	return list, nil
}

// explicit reads what the context tag number wraps, one element.
func explicit(v asn1.RawValue, number int) (asn1.RawValue, error) {
	list, err := counted(v, asn1.ClassContextSpecific, number, 1, 1)
	if err != nil {
		return asn1.RawValue{}, err
	}
	return list[0], nil
}

// typed lets encoding/asn1 read v as the Go type of the result.
func typed[T any](v asn1.RawValue) (T, error) {
	var to T
	rest, err := asn1.Unmarshal(v.FullBytes, &to)
	if err == nil && len(rest) != 0 {
		err = errTrailing
	}
	return to, err
}

func identifier(v asn1.RawValue) (string, error) {
	oid, err := typed[asn1.ObjectIdentifier](v)
	return oid.String(), err
}

func integer(v asn1.RawValue) (*big.Int, error) { return typed[*big.Int](v) }

func octets(v asn1.RawValue) ([]byte, error) { return typed[[]byte](v) }

func instant(v asn1.RawValue) (time.Time, error) { return typed[time.Time](v) }

// wholeBits reads a BIT STRING of whole octets.
func wholeBits(v asn1.RawValue) ([]byte, error) {
	bits, err := typed[asn1.BitString](v)
	if err != nil {
		return nil, err
	}
	if bits.BitLength%8 != 0 {
		return nil, errors.New("bit string is not of whole octets")
	}
	return bits.Bytes, nil
}

// null checks a NULL.
func null(v asn1.RawValue) error {
	if v.Class != asn1.ClassUniversal || v.Tag != asn1.TagNull || v.IsCompound || len(v.Bytes) != 0 {
		return errors.New("not a NULL")
	}
	return nil
}

// text gives the octets of a string of one of these universal types, none
// constructed.
func text(v asn1.RawValue, tags ...int) (string, error) {
	if v.Class == asn1.ClassUniversal && !v.IsCompound {
		for _, tag := range tags {
			if v.Tag == tag {
				return string(v.Bytes), nil
			}
		}
	}
	return "", fmt.Errorf("tag %d/%d is not the string that must be", v.Class, v.Tag)
}

// wide reads a BMPString.
func wide(v asn1.RawValue) (string, error) {
	raw, err := text(v, asn1.TagBMPString)
	if err != nil || len(raw)%2 != 0 {
		return "", errors.Join(err, errors.New("not a BMPString"))
	}
	var units []uint16
	for i := 0; i < len(raw); i += 2 {
		units = append(units, uint16(raw[i])<<8|uint16(raw[i+1]))
	}
	return string(utf16.Decode(units)), nil
}

// algorithm reads an AlgorithmIdentifier (RFC 5280 §4.1.1.2); parameters is nil
// where they are absent.
func algorithm(v asn1.RawValue) (oid string, parameters *asn1.RawValue, err error) {
	list, err := sequence(v, 1, 2)
	if err != nil {
		return "", nil, err
	}
	if len(list) == 2 {
		parameters = &list[1]
	}
	oid, err = identifier(list[0])
	return oid, parameters, err
}

// plainAlgorithm reads an AlgorithmIdentifier whose parameters are NULL or, if
// it may be, absent.
func plainAlgorithm(v asn1.RawValue, mayBeAbsent bool) (string, error) {
	oid, parameters, err := algorithm(v)
	if err != nil {
		return "", err
	}
	if parameters == nil {
		if !mayBeAbsent {
			return "", errors.New("algorithm without parameters")
		}
		return oid, nil
	}
	return oid, null(*parameters)
}

// oneValue reads an Attribute (RFC 5652 §5.3, RFC 2986 §4.1) that has one value.
func oneValue(v asn1.RawValue) (oid string, value asn1.RawValue, err error) {
	list, err := sequence(v, 2, 2)
	if err != nil {
		return "", value, err
	}
	if oid, err = identifier(list[0]); err != nil {
		return "", value, err
	}
	values, err := counted(list[1], asn1.ClassUniversal, asn1.TagSet, 1, 1)
	if err != nil {
		return "", value, err
	}
	return oid, values[0], nil
}
