package caddymodule

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"runtime/debug"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/scepgate/scepgate/gate"
	"github.com/scepgate/scepgate/store"
)

// Limits of a batch (contract §4).
const (
	maxBatchLines    = 10_000
	maxBatchBytes    = 32 << 20
	maxBatches       = 4  // at once, per handler; each holds its body in memory
	batchWindow      = 32 // lines written together, so that they share a disk flush
	batchReadTimeout = 2 * time.Minute
	batchSendTimeout = 30 * time.Second // for one window's answers
)

// Batch modes.
const (
	batchCreate = "create"
	batchUpsert = "upsert"
)

// batchAnswer is one line of the answer: an expectation or a problem.
type batchAnswer struct {
	Line        int                `json:"line"`
	Status      int                `json:"status"`
	Expectation *expectationAnswer `json:"expectation,omitempty"`
	Problem     *problem           `json:"problem,omitempty"`
}

// batchLine is one line at work.
type batchLine struct {
	number     int
	text       []byte
	externalID string
	prepared   gate.Prepared
	replaces   *store.Expectation // with upsert: the live one of this external id, before this batch's window
	answer     batchAnswer
}

func (l *batchLine) fail(p *problem) {
	l.answer = batchAnswer{Line: l.number, Status: p.Status, Problem: p}
}

func (l *batchLine) succeed(status int, e expectationAnswer) {
	l.answer = batchAnswer{Line: l.number, Status: status, Expectation: &e}
}

// batchRun is one batch at work.
type batchRun struct {
	*call
	h      *API
	mode   string
	dryRun bool
	taken  map[string]string // dry run: what earlier lines would hold, and their external ids
	freed  map[string]bool   // dry run: ids of what earlier lines would replace
}

// batch registers line by line. The body is read whole before the first line
// is written: a client that sends everything before it reads anything cannot
// lock itself up, and a batch over a limit has no effect at all.
func (h *API) batch(c *call) *problem {
	b := &batchRun{call: c, h: h, taken: make(map[string]string), freed: make(map[string]bool)}
	if p := b.readOptions(); p != nil {
		return p
	}
	select {
	case h.batches <- struct{}{}:
		defer func() { <-h.batches }()
	default:
		return busy()
	}
	body, p := c.readBody(maxBatchBytes, batchReadTimeout, "application/x-ndjson", "application/ndjson", "application/jsonl", "application/json")
	if p != nil {
		return p
	}
	lines, p := splitBatch(body)
	if p != nil {
		return p
	}
	c.w.Header().Set("Content-Type", "application/x-ndjson")
	c.w.WriteHeader(http.StatusOK)
	c.started = true
	b.run(lines)
	return nil
}

func (b *batchRun) readOptions() *problem {
	switch mode, given := b.query["mode"]; {
	case !given:
		b.mode = batchCreate
	case mode == batchCreate, mode == batchUpsert:
		b.mode = mode
	default:
		return invalidParameter("mode", "must be create or upsert")
	}
	switch dryRun, given := b.query["dry_run"]; {
	case !given, dryRun == "false":
	case dryRun == "true":
		b.dryRun = true
	default:
		return invalidParameter("dry_run", "must be true or false")
	}
	return nil
}

// splitBatch gives the lines that are not blank, numbered as they stand in the body.
func splitBatch(body []byte) ([]*batchLine, *problem) {
	var lines []*batchLine
	number := 0
	for text := range bytes.Lines(body) {
		number++
		if text = bytes.TrimSpace(text); len(text) == 0 {
			continue
		}
		if len(lines) == maxBatchLines {
			return nil, tooLarge(fmt.Sprintf("the batch has more than %d lines", maxBatchLines))
		}
		lines = append(lines, &batchLine{number: number, text: text})
	}
	return lines, nil
}

// run answers all lines in order. Lines are prepared one after the other and
// written in windows; two lines that could be in each other's way never share
// a window, so the outcome is as if each had been written alone.
func (b *batchRun) run(lines []*batchLine) {
	var window []*batchLine
	held := make(map[string]bool)
	flush := func() bool {
		ok := b.flush(window)
		window = window[:0]
		clear(held)
		return ok
	}
	for _, line := range lines {
		b.prepareLine(line)
		keys := append(line.keys(), line.frees()...)
		for _, key := range keys {
			if held[key.key] {
				if !flush() {
					return
				}
				break
			}
		}
		window = append(window, line)
		for _, key := range keys {
			held[key.key] = true
		}
		if len(window) == batchWindow && !flush() {
			return
		}
	}
	flush()
}

// batchKey is one thing that only one live expectation can hold.
type batchKey struct {
	key     string
	problem error
}

// keys is what a line would hold in the store; nothing if it is refused already.
func (l *batchLine) keys() []batchKey {
	if l.answer.Status >= http.StatusBadRequest {
		return nil
	}
	e := l.prepared.Expectation
	var keys []batchKey
	if e.ExternalID != "" {
		keys = append(keys, batchKey{"x" + e.ExternalID, store.ErrExternalIDInUse})
	}
	if len(e.ChallengeHash) > 0 {
		keys = append(keys, batchKey{"c" + string(e.ChallengeHash), store.ErrChallengeInUse})
	}
	if len(e.IdentityHash) > 0 {
		keys = append(keys, batchKey{"i" + string(e.IdentityHash), store.ErrIdentityInUse})
	}
	return keys
}

// frees is what a line gives back to others by replacing what had it.
func (l *batchLine) frees() []batchKey {
	if l.replaces == nil {
		return nil
	}
	var keys []batchKey
	if h := l.replaces.ChallengeHash; len(h) > 0 {
		keys = append(keys, batchKey{key: "c" + string(h)})
	}
	if h := l.replaces.IdentityHash; len(h) > 0 {
		keys = append(keys, batchKey{key: "i" + string(h)})
	}
	return keys
}

// conflict refuses a line of a dry run for what an earlier line would hold by
// then. With upsert a line replaces an earlier one of the same external id.
func (b *batchRun) conflict(line *batchLine) {
	for _, k := range line.keys() {
		owner, taken := b.taken[k.key]
		if taken && (b.mode == batchCreate || owner != line.externalID) {
			line.fail(storeProblem(k.problem))
			return
		}
	}
}

func (b *batchRun) take(line *batchLine) {
	for _, k := range line.keys() {
		b.taken[k.key] = line.externalID
	}
	if line.replaces != nil && line.answer.Status < http.StatusBadRequest {
		b.freed[line.replaces.ID] = true
	}
}

func (b *batchRun) prepareLine(line *batchLine) {
	text := line.text
	line.text = nil // done with: the challenge in it should not live longer than needed
	if len(text) > maxAPIBody {
		line.fail(tooLarge(fmt.Sprintf("the line is larger than %d bytes", maxAPIBody)))
		return
	}
	var r gate.Registration
	if p := parseJSON(text, &r); p != nil {
		line.fail(p)
		return
	}
	line.externalID = orBlank(r.ExternalID)
	if b.mode == batchUpsert && line.externalID == "" {
		line.fail(invalidRegistration([]gate.Problem{{Pointer: "/external_id", Code: "required", Detail: "is required with mode=upsert"}}))
		return
	}
	var p *problem
	if line.prepared, p = b.prepare(r); p == nil && b.mode == batchUpsert {
		p = b.h.withStore(b.call, func(ctx context.Context, s store.Store) (p *problem) {
			var err error
			if line.replaces, err = liveByExternalID(ctx, s, line.prepared.Expectation.Profile, line.externalID); err != nil {
				p = b.h.failed(err)
			}
			return p
		})
	}
	if p != nil {
		line.fail(p)
	}
}

// flush writes a window and sends its answers. It is false if nobody reads any
// more: the lines after it are then not begun.
func (b *batchRun) flush(window []*batchLine) bool {
	if len(window) == 0 {
		return true
	}
	if b.r.Context().Err() != nil {
		return false
	}
	var work sync.WaitGroup
	begun := time.Now()
	for _, line := range window {
		if b.dryRun {
			b.conflict(line)
		}
		if line.answer.Status == 0 {
			work.Go(func() { b.writeLine(line) })
		}
	}
	work.Wait()
	var out bytes.Buffer
	for _, line := range window {
		if b.dryRun {
			b.take(line)
		}
		text, err := json.Marshal(line.answer)
		if err != nil {
			return false
		}
		out.Write(text)
		out.WriteByte('\n')
		if !b.dryRun || line.answer.Status == http.StatusConflict { // who asks what others hold is seen
			b.logWritten(line)
		}
	}
	controller := http.NewResponseController(b.w)
	_ = controller.SetWriteDeadline(time.Now().Add(batchSendTimeout)) // not every writer can
	defer func() { _ = controller.SetWriteDeadline(time.Time{}) }()   // it would outlive the request
	if _, err := b.w.Write(out.Bytes()); err != nil {
		return false
	}
	_ = controller.Flush()
	if !b.dryRun && len(window) == batchWindow { // there may be more
		rest(b.r.Context(), time.Since(begun))
	}
	return true
}

func (b *batchRun) logWritten(line *batchLine) {
	id, code := "", ""
	if line.answer.Expectation != nil {
		id = line.answer.Expectation.ID
	}
	if line.answer.Problem != nil {
		code = line.answer.Problem.Code
	}
	what := "batch " + b.mode
	if b.dryRun {
		what += ", dry run"
	}
	b.h.logLine(b.call, what, line.answer.Status, code, id, line.externalID)
}

// writeLine runs on its own goroutine, where a panic would end the process
// (threat E35).
func (b *batchRun) writeLine(line *batchLine) {
	defer func() {
		if v := recover(); v != nil {
			b.h.log.Error("panic in the API", zap.String("type", fmt.Sprintf("%T", v)), zap.ByteString("stack", debug.Stack()))
			line.fail(internalError())
		}
	}()
	p := b.h.withStore(b.call, func(ctx context.Context, s store.Store) *problem {
		if b.dryRun {
			return b.tryLine(ctx, s, line)
		}
		made, status := store.Expectation{}, http.StatusCreated
		var p *problem
		if b.mode == batchUpsert {
			made, status, p = b.h.upsert(ctx, s, b.client, line.prepared)
		} else {
			made, p = b.h.create(ctx, s, line.prepared)
		}
		if p == nil {
			line.succeed(status, madeAnswer(made, line.prepared))
		}
		return p
	})
	if p != nil {
		line.fail(p)
	}
}

// tryLine says what writing the line would come to now, and writes nothing.
// The answer has no id and no challenge, since there is nothing they would open.
func (b *batchRun) tryLine(ctx context.Context, s store.Store, line *batchLine) *problem {
	e := line.prepared.Expectation
	var live *store.Expectation
	if e.ExternalID != "" {
		var err error
		if live, err = liveByExternalID(ctx, s, e.Profile, e.ExternalID); err != nil {
			return b.h.failed(err)
		}
	}
	if live != nil {
		switch {
		case b.mode == batchCreate, !b.client.seesOwner(live.Owner):
			return storeProblem(store.ErrExternalIDInUse)
		case live.State == store.Claimed, live.State == store.Pending:
			return storeProblem(store.ErrExpectationInUse)
		}
	}
	found, err := s.Find(ctx, store.Lookup{Profile: e.Profile, ChallengeHash: e.ChallengeHash, IdentityHash: e.IdentityHash})
	if err != nil {
		return b.h.failed(err)
	}
	if old := found.Expectation; old != nil && (live == nil || old.ID != live.ID) && !b.freed[old.ID] {
		switch {
		case old.State.Live() && len(e.IdentityHash) > 0:
			return storeProblem(store.ErrIdentityInUse)
		case old.State.Live():
			return storeProblem(store.ErrChallengeInUse)
		case old.EverClaimed && len(e.ChallengeHash) > 0:
			return storeProblem(store.ErrChallengeUsed)
		}
	}
	e.ID, e.State = "", store.Registered
	shown := answerOf(e)
	shown.Warnings = orEmpty(line.prepared.Warnings)
	if line.prepared.Challenge != "" {
		shown.ChallengeFingerprint = nil
	}
	would := http.StatusCreated
	if live != nil {
		would = http.StatusOK
	}
	line.succeed(would, shown)
	return nil
}
