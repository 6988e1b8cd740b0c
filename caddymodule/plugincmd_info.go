package caddymodule

import (
	"encoding/hex"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/scepgate/scepgate/gate"
	"github.com/scepgate/scepgate/plugins"
)

func pluginInfoCommand() *cobra.Command {
	var config []string
	cmd := &cobra.Command{
		Use:   "info [--config <key>=<value>]... <binary>",
		Short: "Shows what a plugin is, and the lines for the Caddyfile",
		Long: `
Starts a plugin as the gateway would, asks it what it is, and ends it. Prints its
name, version, what it can decide, whether it wants to hear of outcomes, its
SHA-256, and the lines to paste into a profile. What it logs goes to standard
error.

Exit status: 0 it could be asked, 1 anything else.
`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			cmd.SilenceUsage = true
			p, err := try(cmd.Context(), args[0], config, cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			err = p.describe(cmd.OutOrStdout())
			if closing := p.Close(); err == nil {
				err = closing
			}
			return err
		},
	}
	cmd.Flags().StringArrayVar(&config, "config", nil, "what it would find in its `config` block (repeatable)")
	return cmd
}

func (p *tried) describe(out io.Writer) error {
	outcomes := "no"
	if p.WantsOutcomes() {
		outcomes = "yes"
	}
	decides := fieldList(p.info.Decides)
	if decides == "" {
		decides = "nothing, it can only object"
	}
	_, err := fmt.Fprintf(out, "name      %s\nversion   %s\ndecides   %s\noutcomes  %s\nsha256    %s\n\nFor a profile in the Caddyfile:\n\n%s",
		p.info.Name, p.info.Version, decides, outcomes, hex.EncodeToString(p.sum[:]), p.caddyfile())
	return err
}

// caddyfile is the block that configures the plugin to decide all that it can
// and may.
func (p *tried) caddyfile() string {
	var b strings.Builder
	decides := slices.DeleteFunc(p.Info().Decides, func(f plugins.Field) bool { return !slices.Contains(gate.Decidable, f) })
	source := slices.Contains(decides, plugins.Challenge)
	if source {
		b.WriteString("challenge matcher\n")
	}
	fmt.Fprintf(&b, "matcher exec %s {\n", quoted(p.path))
	if p.info.Name != "exec" && p.info.Name != "exact" { // the default, and whose name nobody else may have
		fmt.Fprintf(&b, "\tname %s\n", p.info.Name)
	}
	fmt.Fprintf(&b, "\tsha256 %s\n", hex.EncodeToString(p.sum[:]))
	if len(decides) > 0 {
		fmt.Fprintf(&b, "\tdecides %s\n", fieldList(decides))
	}
	if source {
		fmt.Fprintf(&b, "\treveal %s\n", revealChallenge)
	}
	if len(p.config) > 0 {
		b.WriteString("\tconfig {\n")
		for _, key := range slices.Sorted(maps.Keys(p.config)) {
			fmt.Fprintf(&b, "\t\t%s %s\n", quoted(key), quoted(p.config[key]))
		}
		b.WriteString("\t}\n")
	}
	b.WriteString("}\n")
	return b.String()
}

// quoted is s as one token of a Caddyfile: in backquotes it stands as it is, but
// for {$NAME}, which is replaced wherever it stands.
func quoted(s string) string {
	if !strings.HasPrefix(s, "<<") && s != "" && !strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || strings.ContainsRune("\"`{}#\\", r) }) {
		return s
	}
	if !strings.Contains(s, "`") {
		return "`" + s + "`"
	}
	return `"` + strings.ReplaceAll(s, `"`, `\"`) + `"`
}
