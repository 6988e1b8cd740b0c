package store

import (
	"encoding/json"
	"errors"
	"fmt"
)

// Encode is the one stored form of an expectation, whatever the engine.
func (e *Expectation) Encode() ([]byte, error) {
	b, err := json.Marshal(e)
	if err != nil {
		return nil, fmt.Errorf("encoding expectation: %w", err)
	}
	return b, nil
}

// Decode reads what Encode wrote. Every call makes a new copy.
func Decode(b []byte) (Expectation, error) {
	var e Expectation
	if err := json.Unmarshal(b, &e); err != nil {
		return Expectation{}, fmt.Errorf("decoding expectation: %w", err)
	}
	if e.ID == "" || e.Profile == "" {
		return Expectation{}, errors.New("decoding expectation: no id or profile")
	}
	switch e.State {
	case Registered, Claimed, Pending, Locked, Issued, Expired, Revoked:
		return e, nil
	}
	return Expectation{}, fmt.Errorf("decoding expectation: state %.32q is unknown", e.State)
}
