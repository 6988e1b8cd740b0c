package caddymodule

import (
	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/spf13/cobra"
)

// scepSubcommands makes the commands under `scep`. A file that brings one
// appends to it in its init function.
var scepSubcommands []func() *cobra.Command

func init() {
	caddycmd.RegisterCommand(caddycmd.Command{
		Name:  "scep",
		Usage: "<command>",
		Short: "Commands for the SCEP gateway",
		Long:  "Commands for the SCEP gateway and its API.",
		CobraFunc: func(cmd *cobra.Command) {
			// Caddy asks for this when it builds its command line, after every init.
			for _, subcommand := range scepSubcommands {
				cmd.AddCommand(subcommand())
			}
			cmd.Args = cobra.NoArgs
			cmd.RunE = func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
		},
	})
}
