package cluster

import "syscall"

// sysProcAttr puts a process in its own group, and kills it when this program ends.
func sysProcAttr() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
