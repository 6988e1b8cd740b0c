package badgerstore

import (
	"bytes"
	"strings"
	"time"

	"github.com/scepgate/scepgate/store"
)

// decoyID is never registered: ids are "exp_" and more.
const decoyID = "decoy"

// decoy is decoded where there is nothing to find, so that a miss costs what a hit costs.
var decoy = func() []byte {
	h, at := bytes.Repeat([]byte{0xd3}, 32), time.Unix(1700000000, 0).UTC()
	name := func(typ, v string) []store.Value { return []store.Value{{Type: typ, Value: v, Match: "exact"}} }
	e := store.Expectation{
		ID: decoyID, Profile: decoyID, ExternalID: "mdm:0123456789", Owner: "mdm", ChallengeHash: h,
		Request: []byte(`{"subject":"` + strings.Repeat("x", 400) + `"}`),
		Content: store.Content{
			Subject:     [][]store.Value{name("2.5.4.3", "C02XK1 WIFI"), name("2.5.4.11", "WiFi"), name("2.5.4.10", "Example")},
			SAN:         []store.SANRule{{Type: "dns", Match: "exact", Value: "c02xk1.example.com", Min: 1, Max: 1}},
			KeyUsage:    []string{"digitalSignature", "keyEncipherment"},
			ExtKeyUsage: []string{"1.3.6.1.5.5.7.3.2"},
		},
		MaxUses: 1, CreatedAt: at, ExpiresAt: at.Add(time.Hour), ChangedAt: at,
		State: store.Registered, Generation: 1,
		History: []store.Event{{At: at, What: "registered", By: "mdm"}},
	}
	raw, err := e.Encode()
	if err != nil {
		panic(err) // the literal above is wrong
	}
	return raw
}()
