package postmaster

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"syscall"
)

// Child is a server program that ends when this process ends, however that
// happens.
type Child struct {
	process *os.Process
	exited  chan struct{}
	err     error // how it exited; read after exited is closed
}

// StartChild starts cmd with the kernel's promise to send it deathSignal when
// this process dies, even by kill -9.
//
// The kernel keeps that promise to a thread, not to a process: a child is
// signalled when the thread that started it ends. So the goroutine that starts
// it stays on its thread until the child has exited.
func StartChild(cmd *exec.Cmd, deathSignal syscall.Signal) (*Child, error) {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Pdeathsig = deathSignal
	// Ctrl-C on the terminal is for us; the server hears of it from us, last.
	cmd.SysProcAttr.Setpgid = true
	child := &Child{exited: make(chan struct{})}
	started := make(chan error)
	go func() {
		runtime.LockOSThread() // for good: the thread ends with this goroutine
		if err := cmd.Start(); err != nil {
			started <- err
			return
		}
		child.process = cmd.Process
		started <- nil
		child.err = cmd.Wait()
		close(child.exited)
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start %s: %w", cmd.Path, err)
	}
	return child, nil
}

// PID returns the child's process id.
func (c *Child) PID() int { return c.process.Pid }

// Exited is closed when the child has ended and was reaped.
func (c *Child) Exited() <-chan struct{} { return c.exited }

// Err returns how the child ended, once Exited is closed; nil is exit code 0.
func (c *Child) Err() error {
	<-c.exited
	return c.err
}

// Signal sends a signal; a child that has ended already is no error.
func (c *Child) Signal(signal syscall.Signal) {
	// The only error is that the process is gone, which Exited tells better.
	_ = c.process.Signal(signal)
}
