package ndes

import (
	"crypto/rand"
	"fmt"
	"sync"
	"time"
)

// HRESULTs that NDES reports in 1.3.6.1.4.1.311.21.33.
const (
	hresultNotFound     = 0x80070490 // ERROR_NOT_FOUND: password unknown
	hresultWrongUsage   = 0x800b0110 // CERT_E_WRONG_USAGE: password used before
	hresultNoPassword   = 0x80096004 // TRUST_E_CERT_SIGNATURE: password missing
	hresultRPC          = 0x800706ba // RPC_S_SERVER_UNAVAILABLE: the CA is down
	hresultBadSubject   = 0x80094001 // CERTSRV_E_BAD_REQUESTSUBJECT
	hresultDenied       = 0x80094014 // CERTSRV_E_ADMIN_DENIED_REQUEST
	hresultInvalidParam = 0x80070057
)

// passwordCache is NDES's one-time password cache: five slots, sixty minutes,
// emptied by a restart. A used password is remembered.
type passwordCache struct {
	now  func() time.Time
	mu   sync.Mutex
	free []slot
	used map[string]bool
}

type slot struct {
	password string
	made     time.Time
}

func (c *passwordCache) issue() (string, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.expire()
	if len(c.free) >= passwordSlots {
		return "", false
	}
	var b [8]byte
	rand.Read(b[:])
	p := fmt.Sprintf("%X", b)
	c.free = append(c.free, slot{p, c.now()})
	return p, true
}

func (c *passwordCache) expire() {
	kept := c.free[:0]
	for _, s := range c.free {
		if c.now().Sub(s.made) < passwordValidity {
			kept = append(kept, s)
		}
	}
	c.free = kept
}

// check returns 0 if the password may be used, else NDES's HRESULT.
func (c *passwordCache) check(password string) uint32 {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.expire()
	for _, s := range c.free {
		if s.password == password {
			return 0
		}
	}
	if c.used[password] {
		return hresultWrongUsage
	}
	return hresultNotFound
}

// consume removes the password once its certificate has been issued.
func (c *passwordCache) consume(password string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	kept := c.free[:0]
	for _, s := range c.free {
		if s.password != password {
			kept = append(kept, s)
		}
	}
	c.free = kept
	if c.used == nil {
		c.used = map[string]bool{}
	}
	c.used[password] = true
}

// checkPassword applies the server's mode.
func (s *Server) checkPassword(password string) uint32 {
	switch s.config.Password {
	case PasswordOff:
		return 0
	case PasswordStatic:
		if password == "" {
			return hresultNoPassword
		}
		if password != s.config.StaticPassword {
			return hresultNotFound
		}
		return 0
	default:
		if password == "" {
			return hresultNoPassword
		}
		return s.passwords.check(password)
	}
}
