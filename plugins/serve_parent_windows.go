package plugins

import (
	"os"
	"syscall"
)

const noSuchProcess = syscall.Errno(87) // ERROR_INVALID_PARAMETER

// parentEnds returns when the process that started this one has died. Windows
// keeps naming a parent that is gone, so its handle is waited for.
func parentEnds() {
	parent, err := syscall.OpenProcess(syscall.SYNCHRONIZE, false, uint32(os.Getppid()))
	if err == noSuchProcess {
		return
	}
	if err == nil {
		defer syscall.CloseHandle(parent)
		_, err = syscall.WaitForSingleObject(parent, syscall.INFINITE)
	}
	if err != nil {
		select {} // it lives, but may not be watched
	}
}
