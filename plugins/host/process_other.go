//go:build !linux

package host

import (
	"os"
	"os/exec"
	"runtime"
)

const unixSockets = runtime.GOOS != "windows"

// confine: what was verified is run by its path, so that it matters that nobody
// else may write there. When the gateway dies, plugins.Serve ends the process.
func confine(*exec.Cmd, *os.File) {}

func (p *process) startAndReap() error {
	if err := p.launch(); err != nil {
		return err
	}
	go p.reap()
	return nil
}

func (p *process) awaitEnd() error { return p.cmd.Wait() }

func killGroup(cmd *exec.Cmd) { _ = cmd.Process.Kill() }
