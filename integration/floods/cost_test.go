package floods

import (
	"crypto/rand"
	"crypto/rsa"
	"testing"
	"time"

	"github.com/scepgate/scepgate/inspector"
	"github.com/scepgate/scepgate/integration/attack"
	"github.com/scepgate/scepgate/integration/ndes"
	"github.com/scepgate/scepgate/integration/wire"
)

// dearest is how many RSA-2048 private-key operations a message may cost before
// it is refused. An honest one costs one, and three verifications.
const dearest = 8

func TestNoMessageCostsManyTimesAnHonestOne(t *testing.T) {
	if testing.Short() {
		t.Skip("measures")
	}
	server, err := ndes.New(ndes.Config{})
	if err != nil {
		t.Fatal(err)
	}
	d, err := attack.NewDevice()
	if err != nil {
		t.Fatal(err)
	}
	opener, err := inspector.NewOpener([]inspector.RAKey{{Name: "ra", Certificate: server.Exchange, Key: server.ExchangeKey()}}, make([]byte, 32))
	if err != nil {
		t.Fatal(err)
	}
	judge := func(body []byte) {
		if m, err := inspector.ParseMessage(body); err == nil {
			opener.Open(m)
		}
	}
	ciphertext := wire.EncryptKey(server.Exchange, make([]byte, 16))
	operation := func() {
		if _, err := rsa.DecryptPKCS1v15(rand.Reader, server.ExchangeKey(), ciphertext); err != nil {
			t.Fatal(err)
		}
	}
	for _, f := range messages(d.Key, d.SelfSigned, server.Exchange) {
		ratio := ratio(func() { judge(f.body) }, operation)
		t.Logf("%-48s %6d octets: %5.2f private-key operations", f.name, len(f.body), ratio)
		if ratio > dearest {
			t.Errorf("%s costs %.1f private-key operations, more than %d", f.name, ratio, dearest)
		}
	}
}

// ratio compares the least times of many interleaved runs: what else the
// machine does only makes a run longer.
func ratio(a, b func()) float64 {
	least := func(d, now time.Duration) time.Duration {
		if d == 0 || now < d {
			return now
		}
		return d
	}
	var ta, tb time.Duration
	for range 40 {
		start := time.Now()
		a()
		ta = least(ta, time.Since(start))
		start = time.Now()
		b()
		tb = least(tb, time.Since(start))
	}
	return float64(ta) / float64(tb)
}
