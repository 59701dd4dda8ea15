package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"

	"github.com/prefetch-operator/teo-prefetch-operator/test/cluster"
)

// machine describes the machine and the software of a run.
type machine struct {
	CPUs                                  int
	CPU, Memory, OS, Kernel               string
	Go, Etcd, APIServer, Commit, Platform string
}

func thisMachine(ctx context.Context) (m machine, err error) {
	m = machine{
		CPUs: runtime.NumCPU(), Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH,
		CPU: fileValue("/proc/cpuinfo", "model name", ":"), OS: strings.Trim(fileValue("/etc/os-release", "PRETTY_NAME", "="), `"`),
	}
	var kilobytes int
	_, _ = fmt.Sscan(fileValue("/proc/meminfo", "MemTotal", ":"), &kilobytes)
	m.Memory = fmt.Sprintf("%d GiB", (kilobytes+1<<19)>>20)
	kernel, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		return m, err
	}
	m.Kernel = strings.TrimSpace(string(kernel))
	for name, version := range map[string]*string{"etcd": &m.Etcd, "kube-apiserver": &m.APIServer} {
		path, err := cluster.FindBinary(name)
		if err != nil {
			return m, err
		}
		text, err := output(ctx, path, "--version")
		if err != nil {
			return m, err
		}
		first, _, _ := strings.Cut(text, "\n")
		fields := strings.Fields(first) // "etcd Version: 3.7.3", "Kubernetes v1.37.2"
		*version = fields[len(fields)-1]
	}
	if m.Commit, err = output(ctx, "git", "rev-parse", "--short", "HEAD"); err != nil {
		return m, err
	}
	changed, err := output(ctx, "git", "status", "--porcelain", "--untracked-files=no")
	if changed != "" {
		m.Commit += " with changes that are not committed"
	}
	return m, err
}

// fileValue returns the text after the separator in the first line that begins with name.
func fileValue(path, name, separator string) string {
	text, err := os.ReadFile(path)
	if err != nil {
		return "unknown"
	}
	for line := range strings.Lines(string(text)) {
		if before, after, found := strings.Cut(line, separator); found && strings.TrimSpace(before) == name {
			return strings.TrimSpace(after)
		}
	}
	return "unknown"
}

func output(ctx context.Context, name string, args ...string) (string, error) {
	out, err := exec.CommandContext(ctx, name, args...).Output()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w", name, strings.Join(args, " "), err)
	}
	return strings.TrimSpace(string(out)), nil
}
