package badgerstore

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"

	"github.com/scepgate/scepgate/store"
)

const (
	defaultLimit = 50
	maxScan      = 5000 // records looked at for one page
)

// List pages through expectations, newest first: backwards over the ids, which
// sort by creation. What is added while a caller pages is newer and not seen.
func (s *Store) List(ctx context.Context, q store.Query) (store.Page, error) {
	page := store.Page{Items: []store.Expectation{}}
	err := s.view(ctx, func(t *tx) error { return t.list(ctx, q, &page) })
	if err != nil {
		return store.Page{}, fmt.Errorf("list: %w", err)
	}
	return page, nil
}

func (t *tx) list(ctx context.Context, q store.Query, page *store.Page) error {
	limit := q.Limit
	if limit <= 0 {
		limit = defaultLimit
	}
	prefix := recordPrefix(q.Profile)
	if q.ExternalID != "" {
		prefix = indexKey(kindByExternal, q.Profile, q.ExternalID)
	}
	// Backwards from the end of the prefix, or from the last one of the page before.
	var after []byte
	start := append(bytes.Clone(prefix), bytes.Repeat([]byte{0xff}, maxID+1)...)
	if q.Cursor != "" {
		var err error
		after, err = base64.RawURLEncoding.Strict().DecodeString(q.Cursor)
		if err != nil || len(after) <= len(prefix) || len(after) > len(start) || !bytes.HasPrefix(after, prefix) {
			return store.ErrCursor
		}
		start = after
	}
	seen, last := 0, []byte(nil)
	return t.scan(prefix, start, true, func(k, v []byte) (bool, error) {
		if bytes.Equal(k, after) {
			return true, nil
		}
		if len(page.Items) == limit || seen == maxScan {
			page.Next = base64.RawURLEncoding.EncodeToString(last)
			return false, nil
		}
		if err := ctx.Err(); err != nil {
			return false, err
		}
		seen++
		last = k
		if q.ExternalID != "" {
			var err error
			if v, err = t.get(recordKey(q.Profile, string(k[len(prefix):]))); err != nil {
				return false, err
			}
		}
		e, err := store.Decode(v)
		if err != nil {
			return false, err
		}
		e.Normalise(t.now)
		if q.Matches(&e) {
			e.Shorten()
			page.Items = append(page.Items, e)
		}
		return true, nil
	})
}
