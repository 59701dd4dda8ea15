package cluster

import "syscall"

// sysProcAttr puts a process in a group of its own and ties its life to ours.
func sysProcAttr() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
