package caddymodule

import (
	"crypto/sha256"
	"errors"
	"fmt"

	"github.com/scepgate/scepgate/gate"
	"github.com/scepgate/scepgate/inspector"
)

// boundedWalk reports whether a message failed the bounded walk, a limit that
// holds in mode observe too. An error of unknown kind counts as one.
func boundedWalk(err error) bool {
	var parse *inspector.ParseError
	return !errors.As(err, &parse) || parse.Stage == inspector.StageWalk
}

// unjudged is the answer while a dependency is down: 503 for everybody, or, in
// mode observe only, a forward without a judgement (contract §3.3).
func (v *visit) unjudged(reason gate.Reason, message []byte, judged [sha256.Size]byte) response {
	if !v.observing() {
		return v.fail(reason, errDown)
	}
	v.record.Reason = reason
	return v.forwardUnjudged(message, judged)
}

// unjudgedHoldingSlot is unjudged for a caller that has a forward slot.
func (v *visit) unjudgedHoldingSlot(reason gate.Reason, message []byte, judged [sha256.Size]byte) response {
	if !v.observing() {
		return v.fail(reason, errDown)
	}
	v.record.Reason = reason
	return v.sendUnjudged(message, judged)
}

// forwardUnjudged forwards what could not be judged. Limits are as ever.
func (v *visit) forwardUnjudged(message []byte, judged [sha256.Size]byte) response {
	release, err := v.g.forwards.acquire(v.r.Context())
	if err != nil {
		return v.fail(gate.Overloaded, err)
	}
	defer release()
	return v.sendUnjudged(message, judged)
}

// sendUnjudged passes NDES's answer on if it looks like one: without the
// message's facts nothing more can be compared.
func (v *visit) sendUnjudged(message []byte, judged [sha256.Size]byte) response {
	files := v.g.profile.files.Load()
	upstream := v.toUpstream(files, "")
	post := v.acceptsPOST(files, upstream)
	rep, _, err := v.send(message, judged, post)
	if err != nil {
		return v.failUpstream(fmt.Errorf("%w: %w", errNoReply, err))
	}
	if err := checkForm(rep); err != nil {
		return v.failUpstream(err)
	}
	v.record.Forward, v.record.Observed, v.record.Unjudged = true, true, true
	return v.passed(rep)
}
