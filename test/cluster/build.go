package cluster

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

const module = "github.com/prefetch-operator/teo-prefetch-operator"

// FindRoot finds the root of this module, starting from the working directory. The working
// directory of a test is the folder of its package.
func FindRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for ; ; dir = filepath.Dir(dir) {
		if declaresModule(filepath.Join(dir, "go.mod"), module) {
			return dir, nil
		}
		if dir == filepath.Dir(dir) {
			return "", fmt.Errorf("not inside a checkout of %s", module)
		}
	}
}

func declaresModule(goMod, module string) bool {
	f, err := os.Open(goMod)
	if err != nil {
		return false
	}
	defer func() { _ = f.Close() }()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if name, ok := strings.CutPrefix(lines.Text(), "module "); ok {
			return strings.TrimSpace(name) == module
		}
	}
	return false
}

// FindBinary returns the path of a program that the Makefile builds from hack/, for
// example kube-apiserver or helm. It looks in the folder that KUBEBUILDER_ASSETS names,
// then in bin/k8s and bin, where `make control-plane cluster-tools` puts the programs.
func FindBinary(name string) (string, error) {
	root, err := FindRoot()
	if err != nil {
		return "", err
	}
	for _, dir := range []string{os.Getenv("KUBEBUILDER_ASSETS"), filepath.Join(root, "bin", "k8s"), filepath.Join(root, "bin")} {
		path := filepath.Join(dir, name)
		if info, err := os.Stat(path); dir != "" && err == nil && !info.IsDir() {
			return path, nil
		}
	}
	return "", fmt.Errorf("%s is missing: run `make control-plane cluster-tools`, or set KUBEBUILDER_ASSETS to the folder it is in", name)
}

// Build builds a command of this module, for example "./cmd/manager", as bin/NAME and
// returns its path. If nothing has changed, this takes only a moment.
func Build(ctx context.Context, name, pkg string) (path string, err error) {
	return BuildModule(ctx, name, ".", pkg)
}

// BuildModule is like Build, for a command of the module in the given folder of this
// repository.
func BuildModule(ctx context.Context, name, folder, pkg string) (path string, err error) {
	root, err := FindRoot()
	if err != nil {
		return "", err
	}
	path = filepath.Join(root, "bin", name)

	unlock, err := lockFile(path + ".lock")
	if err != nil {
		return "", fmt.Errorf("building %s: %w", pkg, err)
	}
	defer func() { err = errors.Join(err, unlock()) }()
	cmd := exec.CommandContext(ctx, "go", "build", "-o", path, pkg)
	cmd.Dir = filepath.Join(root, folder)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0") // as in the Makefile, for the same build cache
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building %s: %w\n%s", pkg, err, out)
	}
	return path, nil
}

// RunMake runs make in a folder and returns its output. An error contains the output too.
// The command does not inherit the variables of a make that runs the test.
func RunMake(ctx context.Context, dir string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "make", append([]string{"-C", dir}, args...)...)
	cmd.Env = slices.DeleteFunc(os.Environ(), func(v string) bool {
		return strings.HasPrefix(v, "MAKE") || strings.HasPrefix(v, "MFLAGS=")
	})
	out, err := cmd.CombinedOutput()
	if err != nil {
		err = fmt.Errorf("make %s: %w\n%s", strings.Join(args, " "), err, out)
	}
	return string(out), err
}

// lockFile waits for a file lock, because tests of several packages build the same
// command.
func lockFile(path string) (unlock func() error, err error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f.Close, nil
}
