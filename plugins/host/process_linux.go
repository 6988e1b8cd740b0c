package host

import (
	"os"
	"os/exec"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

const unixSockets = true

// confine makes cmd run file itself, which no rename or link can exchange any
// more (threat F20), in a process group of its own, and makes the kernel kill it
// when the gateway dies, however it dies.
func confine(cmd *exec.Cmd, file *os.File) {
	cmd.ExtraFiles = []*os.File{file} // the child's descriptor 3
	cmd.Path = "/proc/self/fd/3"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}

// startAndReap starts the process from a thread that lives as long as it does:
// Pdeathsig fires when the thread that started a process ends (golang/go#27505).
func (p *process) startAndReap() error {
	started := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := p.launch()
		started <- err
		if err == nil {
			p.reap()
		}
	}()
	return <-started
}

// awaitEnd takes with the process what it leaves behind in its group, while the
// kernel still keeps its number for it.
func (p *process) awaitEnd() error {
	for unix.Waitid(unix.P_PID, p.pid, nil, unix.WEXITED|unix.WNOWAIT, nil) == unix.EINTR {
	}
	p.mu.Lock()
	killGroup(p.cmd)
	p.over = true
	p.mu.Unlock()
	return p.cmd.Wait()
}

func killGroup(cmd *exec.Cmd) {
	_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
	_ = cmd.Process.Kill() // one that has left its group
}
