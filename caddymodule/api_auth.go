package caddymodule

import (
	"net"
	"net/http"
	"net/netip"
	"strings"

	"go.uber.org/zap"
)

const realm = `Bearer realm="scepgate"`

// authenticate finds out who calls: the client of a bearer token, or of a TLS
// certificate that Caddy verified. An Authorization header decides alone: a
// wrong token is not made good by a certificate.
func (h *API) authenticate(c *call) (*client, *problem) {
	known := h.clients.set.Load()
	authorization := c.r.Header.Values("Authorization")
	var found *client
	if len(authorization) == 0 {
		if spki := verifiedSPKI(c); spki != nil {
			found = known.byCertificate(spki, c.now)
		}
	} else {
		if !confidential(c.r) {
			// Right or wrong, it has been on the wire: that must show at once,
			// not when somebody else has used it.
			return nil, newProblem(http.StatusForbidden, "tls_required", "a bearer token is taken over TLS only")
		}
		if token, ok := bearerToken(authorization); ok {
			found = known.byToken(token, c.now)
		}
	}
	if found != nil {
		return found, nil
	}
	// Whoever is known is not locked out by what others try from his address;
	// what they could guess is too long to guess.
	source := failureSource(clientIP(c.r))
	if wait := h.failures.wait(source); wait > 0 {
		p := newProblem(http.StatusTooManyRequests, "too_many_failures", "too many failed attempts from this address")
		p.retryAfter = wait
		return nil, p
	}
	h.failures.fail(source)
	h.log.Warn("api caller not known",
		zap.String("client_ip", logText(clientIP(c.r))),
		zap.String("method", logText(c.r.Method)),
		zap.Bool("token", len(authorization) > 0))
	p := newProblem(http.StatusUnauthorized, "unauthorized", "the caller is not known")
	p.authenticate = realm
	if len(authorization) > 0 {
		p.authenticate += `, error="invalid_token"` // RFC 6750 §3.1
	}
	return nil, p
}

// bearerToken reads one Authorization header (RFC 6750 §2.1).
func bearerToken(values []string) (string, bool) {
	if len(values) != 1 {
		return "", false
	}
	scheme, token, ok := strings.Cut(values[0], " ")
	if !ok || !strings.EqualFold(scheme, "Bearer") {
		return "", false
	}
	return strings.TrimLeft(token, " "), true
}

// verifiedSPKI is the SubjectPublicKeyInfo of the caller's certificate, only if
// Caddy's TLS configuration verified it. A certificate that was merely asked
// for proves possession of a key that anybody can make (threat F07).
func verifiedSPKI(c *call) []byte {
	state := c.r.TLS
	if state == nil || len(state.VerifiedChains) == 0 || len(state.VerifiedChains[0]) == 0 {
		return nil
	}
	leaf := state.VerifiedChains[0][0]
	// A resumed session brings the chains of a handshake that may be long ago.
	if c.now.After(leaf.NotAfter) {
		return nil
	}
	return leaf.RawSubjectPublicKeyInfo
}

// confidential reports whether nobody else could read the request: TLS, or a
// peer on this machine. It asks for the peer itself, not for the client that a
// trusted proxy reports.
func confidential(r *http.Request) bool {
	if r.TLS != nil {
		return true
	}
	if local, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr); ok && local.Network() == "unix" {
		return true
	}
	peer, err := netip.ParseAddrPort(r.RemoteAddr)
	return err == nil && peer.Addr().Unmap().IsLoopback()
}
