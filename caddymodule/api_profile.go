package caddymodule

import (
	"crypto/sha1"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"runtime/debug"
	"time"

	"github.com/scepgate/scepgate/gate"
)

// profileAnswer is what an MDM's "test connection" and payload need.
type profileAnswer struct {
	Name         string            `json:"name"`
	SCEPURL      *string           `json:"scep_url"`
	Challenge    profileChallenge  `json:"challenge"`
	CA           []profileCA       `json:"ca"`
	RA           []profileRA       `json:"ra"`
	Templates    profileTemplates  `json:"templates"`
	Defaults     profileDefaults   `json:"defaults"`
	Algorithms   profileAlgorithms `json:"algorithms"`
	Limits       profileLimits     `json:"limits"`
	Features     []string          `json:"features"`
	Mode         string            `json:"mode"`
	ObserveUntil *time.Time        `json:"observe_until"`
	Version      string            `json:"version"`
}

type profileChallenge struct {
	Source     string `json:"source"`
	TTLSeconds int64  `json:"ttl_seconds"`
}

type profileCA struct {
	SHA1    string `json:"sha1"` // what Apple's and Windows's payloads take
	SHA256  string `json:"sha256"`
	Subject string `json:"subject"`
}

type profileRA struct {
	Name     string    `json:"name"`
	NotAfter time.Time `json:"not_after"`
}

type profileTemplate struct {
	Name string  `json:"name"`
	OID  *string `json:"oid"`
}

type profileTemplates struct {
	Signature      *profileTemplate `json:"signature"`
	Encryption     *profileTemplate `json:"encryption"`
	GeneralPurpose *profileTemplate `json:"general_purpose"`
}

type profileDefaults struct {
	KeyUsage    []string `json:"key_usage"`
	ExtKeyUsage []string `json:"ext_key_usage"`
}

type profileAlgorithms struct {
	Digest     []string `json:"digest"`
	Cipher     []string `json:"cipher"`
	MinRSABits int      `json:"min_rsa_bits"`
}

type profileLimits struct {
	MaxMessage       int `json:"max_message"`
	MaxBody          int `json:"max_body"`
	MaxBatchLines    int `json:"max_batch_lines"`
	MaxBatchBytes    int `json:"max_batch_bytes"`
	MaxTTLSeconds    int `json:"max_ttl_seconds"`
	MaxListLimit     int `json:"max_list_limit"`
	MinChallengeSize int `json:"min_challenge_length"`
	MaxChallengeSize int `json:"max_challenge_length"`
}

// apiMaxMessage is the device message that every gateway takes by default.
const apiMaxMessage = 64 << 10

func (h *API) getProfile(c *call) (answer, *problem) {
	p := c.profile.config
	a := profileAnswer{
		Name:       c.profile.name,
		SCEPURL:    orNull(h.PublicURL),
		Challenge:  profileChallenge{Source: p.Challenge.Source, TTLSeconds: int64(time.Duration(p.Challenge.TTL) / time.Second)},
		CA:         []profileCA{},
		RA:         []profileRA{},
		Defaults:   profileDefaults{KeyUsage: orEmpty(p.Defaults.KeyUsage), ExtKeyUsage: orEmpty(p.Defaults.ExtKeyUsage)},
		Algorithms: profileAlgorithms{Digest: orEmpty(p.Algorithms.Digest), Cipher: orEmpty(p.Algorithms.Cipher), MinRSABits: p.Algorithms.MinRSABits},
		Limits: profileLimits{
			MaxMessage: apiMaxMessage, MaxBody: maxAPIBody, MaxBatchLines: maxBatchLines, MaxBatchBytes: maxBatchBytes,
			MaxTTLSeconds: int(maxTTL / time.Second), MaxListLimit: maxListLimit, MinChallengeSize: 8, MaxChallengeSize: 8192,
		},
		Features: features(p),
		Mode:     modeEnforce,
		Version:  version(),
	}
	if c.profile.observing(c.now) {
		until := wholeSeconds(p.observeUntil())
		a.Mode, a.ObserveUntil = modeObserve, &until
	}
	for _, ca := range c.files.cas {
		one, two := sha1.Sum(ca.Raw), sha256.Sum256(ca.Raw)
		a.CA = append(a.CA, profileCA{SHA1: hex.EncodeToString(one[:]), SHA256: hex.EncodeToString(two[:]), Subject: ca.Subject.String()})
	}
	for _, ra := range c.files.ras {
		a.RA = append(a.RA, profileRA{Name: ra.name, NotAfter: wholeSeconds(ra.certificate.NotAfter)})
	}
	if t := p.Templates; t != nil {
		a.Templates = profileTemplates{Signature: t.Signature.answer(), Encryption: t.Encryption.answer(), GeneralPurpose: t.GeneralPurpose.answer()}
	}
	return answer{http.StatusOK, a}, nil
}

func (t *Template) answer() *profileTemplate {
	if t == nil {
		return nil
	}
	return &profileTemplate{Name: t.Name, OID: orNull(t.OID)}
}

// features names what a client may rely on, so that it need not compare versions.
func features(p *Profile) []string {
	names := []string{"batch", "check", "labels", "release", "upsert", "variables"}
	if p.allowsPatterns() {
		names = append(names, "patterns")
	}
	if !p.Renewal.off() {
		names = append(names, "renewal")
	}
	switch gate.Source(p.Challenge.Source) {
	case gate.SourceGateway:
		names = append(names, "made_challenges", "max_uses")
	case gate.SourceNDESStatic:
		names = append(names, "max_uses")
	}
	return names
}

const modulePath = "github.com/scepgate/scepgate"

// version is the module's, whether it is the program or built into another Caddy.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	if info.Main.Path == modulePath && info.Main.Version != "" {
		return info.Main.Version
	}
	for _, dep := range info.Deps {
		if dep.Path == modulePath {
			return dep.Version
		}
	}
	return "unknown"
}
