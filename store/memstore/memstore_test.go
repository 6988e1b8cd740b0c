package memstore_test

import (
	"testing"
	"time"

	"github.com/scepgate/scepgate/store"
	"github.com/scepgate/scepgate/store/memstore"
	"github.com/scepgate/scepgate/store/storetest"
)

func TestMemoryPassesTheSuite(t *testing.T) {
	storetest.Run(t, storetest.Engine{
		Open: func(_ *testing.T, now func() time.Time) store.Store { return memstore.New(now) },
	})
}
