//go:build !linux

package cluster

import "syscall"

// sysProcAttr puts a process in its own group.
func sysProcAttr() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true}
}
