package host

import (
	"errors"
	"strings"
)

// Cause says in one stable word why a plugin could not be started, or did not
// answer: for the log's field `cause` and as a metric's label.
type Cause string

// Why a plugin does not start. All but CannotStart are the operator's or the
// maker's to mend.
const (
	MissingFile          Cause = "missing_file"           // the binary, or its .sig
	UnusableFile         Cause = "unusable_file"          // unreadable, not a regular file, not executable
	UnsafeFile           Cause = "unsafe_file"            // others could change it, or a folder on its way
	WrongChecksum        Cause = "wrong_checksum"         // not the SHA-256 that the configuration names
	WrongSignature       Cause = "wrong_signature"        // .sig is not this key's over this file
	ExitedAtStart        Cause = "exited_at_start"        // before it could be asked anything
	StartTimedOut        Cause = "start_timed_out"        // not ready within ten seconds
	NotAPlugin           Cause = "not_a_plugin"           // greets or speaks like something else
	WrongProtocolVersion Cause = "wrong_protocol_version" // a plugin for another gateway
	WrongConfiguration   Cause = "wrong_configuration"    // it refuses its `config`
	LacksField           Cause = "lacks_field"            // it cannot decide what it shall
	CannotStart          Cause = "cannot_start"           // the system has no folder, pipe or process for it
)

// Why a plugin that runs does not answer.
const (
	Crashed       Cause = "crashed"        // the process ended
	Hung          Cause = "hung"           // alive and silent: it was killed
	TimedOut      Cause = "timed_out"      // no answer to this call in time
	Unreachable   Cause = "unreachable"    // the connection failed, the process lives
	GarbageAnswer Cause = "garbage_answer" // unreadable, too large, or about another request
	PluginError   Cause = "plugin_error"   // it says itself that it cannot decide
	QueueFull     Cause = "queue_full"     // too many calls at once
	Closed        Cause = "closed"
)

// Error is every error of this package that is the plugin's, or its file's.
// Its text is bounded and printable, whatever the plugin wrote.
type Error struct {
	Cause  Cause
	Detail string
	Err    error // nil, or what errors.Is shall find
}

func (e *Error) Error() string {
	text := strings.ReplaceAll(string(e.Cause), "_", " ")
	if e.Detail != "" {
		text += ": " + e.Detail
	}
	return text
}

func (e *Error) Unwrap() error { return e.Err }

// CauseOf is the cause of err, or "" if it has none: the caller gave up.
func CauseOf(err error) Cause {
	var e *Error
	if errors.As(err, &e) {
		return e.Cause
	}
	return ""
}

const maxDetail = 512 // bytes

// because makes the one kind of error that leaves this package.
func because(cause Cause, detail string, err error) *Error {
	return &Error{Cause: cause, Detail: printable(detail, maxDetail), Err: err}
}
