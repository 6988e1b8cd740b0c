package caddymodule

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/scepgate/scepgate/plugins"
	"github.com/scepgate/scepgate/plugins/host"
)

func init() { scepSubcommands = append(scepSubcommands, pluginCommand) }

func pluginCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "plugin",
		Short: "For those who write matchers",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(pluginInitCommand(), pluginTestCommand(), pluginInfoCommand(), pluginRecordCommand())
	return cmd
}

// describeTimeout bounds the start of a plugin, which the host bounds too.
const describeTimeout = 15 * time.Second

// tried is a plugin that was started to look at it: as the gateway starts it,
// with its checksum pinned to what lies there now.
type tried struct {
	*host.Host
	info   plugins.Info // what it says of itself
	path   string
	sum    [sha256.Size]byte
	config map[string]string
}

// Info is the plugin's own, and not what a configuration would make of it.
func (p *tried) Info() plugins.Info {
	i := p.info
	i.Decides = slices.Clone(i.Decides)
	return i
}

// Configure starts the plugin once more, with config besides, and gives the
// error by which it does not come up: a running one is configured only once.
func (p *tried) Configure(ctx context.Context, config map[string]string) error {
	all := maps.Clone(p.config)
	maps.Copy(all, config)
	h, err := host.New(host.Config{Path: p.path, SHA256: p.sum, Config: all})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, describeTimeout)
	defer cancel()
	_, err = h.Described(ctx)
	return errors.Join(err, h.Close())
}

// try starts a plugin. What it logs goes to log. It must be closed.
func try(ctx context.Context, binary string, config []string, log io.Writer) (*tried, error) {
	p := &tried{config: make(map[string]string)}
	for _, entry := range config {
		key, value, ok := strings.Cut(entry, "=")
		if _, twice := p.config[key]; !ok || key == "" || twice {
			return nil, fmt.Errorf("--config %s: must be <key>=<value>, each key once", printable(entry, maxUserAgent))
		}
		p.config[key] = value
	}
	var err error
	if p.path, err = filepath.Abs(binary); err != nil {
		return nil, err
	}
	if p.sum, err = sumOf(p.path); err != nil {
		return nil, err
	}
	logger := zap.New(&pluginVoice{zapcore.NewCore(zapcore.NewConsoleEncoder(zapcore.EncoderConfig{
		MessageKey: "msg", LevelKey: "level", EncodeLevel: zapcore.LowercaseLevelEncoder,
	}), zapcore.AddSync(log), zapcore.DebugLevel)})
	if p.Host, err = host.New(host.Config{Path: p.path, SHA256: p.sum, Config: p.config, Logger: logger}); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, describeTimeout)
	defer cancel()
	if p.info, err = p.Described(ctx); err == nil {
		err = p.info.Validate()
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", printable(binary, maxUserAgent), err), p.Close())
	}
	return p, nil
}

// pluginVoice lets through what the plugin says, and what is wrong with it.
type pluginVoice struct{ zapcore.Core }

func (v *pluginVoice) Check(e zapcore.Entry, checked *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if e.Level >= zapcore.WarnLevel || e.Message == "plugin says" {
		return checked.AddCore(e, v)
	}
	return checked
}

func sumOf(path string) (sum [sha256.Size]byte, err error) {
	info, err := os.Stat(path)
	if err != nil {
		return sum, err
	}
	if !info.Mode().IsRegular() { // a FIFO has no end
		return sum, fmt.Errorf("%s: not a regular file", path)
	}
	f, err := os.Open(path)
	if err != nil {
		return sum, err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return sum, err
	}
	h.Sum(sum[:0])
	return sum, nil
}

// Interface guards
var (
	_ plugins.Matcher    = (*tried)(nil)
	_ plugins.Configurer = (*tried)(nil)
)
