// Command plugincmd is a plugin to try the commands with: it takes one key of
// configuration, wants to hear of outcomes, and agrees with whatever it is asked.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/scepgate/scepgate/plugins"
)

func main() { plugins.Serve(new(agreeable)) }

type agreeable struct{}

func (*agreeable) Info() plugins.Info {
	return plugins.Info{
		Name: "agreeable", Version: "1.4.0",
		Decides: []plugins.Field{plugins.Challenge, plugins.Subject, plugins.Key},
	}
}

func (*agreeable) Configure(_ context.Context, config map[string]string) error {
	for key := range config {
		if key != "url" {
			return fmt.Errorf("unknown key %q", key)
		}
	}
	if config["url"] == "" {
		return errors.New("url is missing")
	}
	return nil
}

func (*agreeable) Match(_ context.Context, r plugins.Request) (plugins.Answer, error) {
	switch r.TransactionID {
	case "crash":
		os.Exit(7)
	case "speak":
		fmt.Fprintln(os.Stderr, "asked to speak")
	}
	return plugins.Answer{Verdict: plugins.Agree}, nil
}

func (*agreeable) Notified(context.Context, plugins.Outcome) error { return nil }
