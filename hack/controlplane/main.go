// Command controlplane installs prebuilt etcd, kube-apiserver and kubectl, so that the
// first `make demo` takes seconds instead of minutes. It uses setup-envtest, which
// hack/tools pins. setup-envtest finds the programs in an index, downloads them, and
// compares their checksum with the one in the index.
//
// If that fails, controlplane prints the reason and exits with status 0. make then builds
// the programs from source.
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"syscall"
	"time"
)

var programs = []string{"etcd", "kube-apiserver", "kubectl"}

// installer installs the programs of one version of Kubernetes into a folder.
type installer struct {
	version string // for example v1.37.2
	to      string
	pins    []string // files that the programs must not be older than
	index   string   // URL; if empty, nothing is downloaded
	tools   string   // the go.mod that pins setup-envtest

	lookUp   time.Duration // timeout of the index
	download time.Duration // timeout of the archive
}

func main() {
	in := installer{tools: "hack/tools/go.mod", lookUp: 10 * time.Second, download: 3 * time.Minute}
	flag.StringVar(&in.version, "version", "", "version of Kubernetes, like v1.37.2")
	flag.StringVar(&in.to, "to", "bin/k8s", "folder to install into")
	flag.StringVar(&in.index, "index", "", "URL of setup-envtest's index; empty to build from source")
	flag.Usage = func() {
		_, _ = fmt.Fprintln(flag.CommandLine.Output(), "usage: controlplane -version=… [flags] [FILE that the programs must not be older than]…")
		flag.PrintDefaults()
	}
	flag.Parse()
	in.pins = flag.Args()

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := in.run(ctx, os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "controlplane:", err)
		os.Exit(1)
	}
}

// run installs the programs unless they are up to date. It prints where they come from:
// the index, or make, which builds the programs that are not up to date. It returns an
// error only if ctx is done.
func (in *installer) run(ctx context.Context, out io.Writer) error {
	if in.upToDate() {
		return nil
	}
	what := "etcd, kube-apiserver and kubectl " + in.version
	const build = "from source, which takes about 12 minutes the first time."
	if in.index == "" {
		return say(out, "Building %s %s", what, build)
	}
	if err := say(out, "Looking for prebuilt %s…", what); err != nil {
		return err
	}
	err := in.install(ctx)
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case err != nil:
		return say(out, "Prebuilt %s are not available (%v): building them %s", what, err, build)
	}
	return say(out, "Using prebuilt %s of %s.", what, in.index)
}

func say(out io.Writer, format string, args ...any) error {
	_, err := fmt.Fprintf(out, format+"\n", args...)
	return err
}

// upToDate reports whether make would leave the programs as they are.
func (in *installer) upToDate() bool {
	for _, name := range programs {
		program, err := os.Stat(filepath.Join(in.to, name))
		if err != nil {
			return false
		}
		for _, name := range in.pins {
			if pin, err := os.Stat(name); err != nil || program.ModTime().Before(pin.ModTime()) {
				return false
			}
		}
	}
	return true
}

// install downloads the programs into a separate folder. It moves them to their place once
// all have arrived, so that an interrupted download leaves nothing behind.
func (in *installer) install(ctx context.Context) error {
	if err := os.MkdirAll(in.to, 0o755); err != nil {
		return err
	}
	to, err := filepath.Abs(in.to)
	if err != nil {
		return err
	}
	store, err := os.MkdirTemp(to, ".download-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(store) }()

	folder, err := in.fetch(ctx, store)
	if err != nil {
		return err
	}
	// setup-envtest makes all files and folders read-only.
	if err := os.Chmod(folder, 0o755); err != nil {
		return err
	}
	if err := in.check(ctx, folder); err != nil {
		return err
	}
	for _, name := range programs {
		program := filepath.Join(folder, name)
		if err := errors.Join(os.Chmod(program, 0o755), os.Rename(program, filepath.Join(to, name))); err != nil {
			return err
		}
	}
	return nil
}

// fetch lets setup-envtest download the programs, and returns their folder.
func (in *installer) fetch(ctx context.Context, store string) (folder string, err error) {
	// There is no timeout, because this may compile setup-envtest.
	tool, err := output(exec.CommandContext(ctx, "go", "tool", "-modfile="+in.tools, "-n", "setup-envtest"))
	if err != nil {
		return "", fmt.Errorf("cannot build setup-envtest: %w", err)
	}
	envtest := func(limit time.Duration, args ...string) (string, error) {
		ctx, cancel := context.WithTimeout(ctx, limit)
		defer cancel()
		args = append(args, "--index="+in.index, "--bin-dir="+store, "--use-env=false", "--installed-only=false",
			strings.TrimPrefix(in.version, "v"))
		cmd := exec.CommandContext(ctx, tool, args...)
		cmd.Env = append(os.Environ(), "TMPDIR="+store)
		out, err := output(cmd)
		if errors.Is(ctx.Err(), context.DeadlineExceeded) {
			return "", fmt.Errorf("no answer within %v", limit)
		}
		return out, err
	}
	list, err := envtest(in.lookUp, "list")
	if err != nil {
		return "", err
	}
	if list == "" {
		return "", fmt.Errorf("the index has none for %s/%s", runtime.GOOS, runtime.GOARCH)
	}
	return envtest(in.download, "use", "--print=path")
}

// check fails unless the folder has all programs, and they run and have the requested
// version.
func (in *installer) check(ctx context.Context, folder string) error {
	for _, name := range programs {
		if _, err := os.Stat(filepath.Join(folder, name)); err != nil {
			return fmt.Errorf("the archive has no %s", name)
		}
	}
	version, err := output(exec.CommandContext(ctx, filepath.Join(folder, "kube-apiserver"), "--version"))
	if err != nil {
		return fmt.Errorf("its kube-apiserver does not run here: %w", err)
	}
	if version != "Kubernetes "+in.version {
		return fmt.Errorf("the archive has %q", version)
	}
	return nil
}

// unable matches the prefixes that setup-envtest puts before a cause, one or more times.
var unable = regexp.MustCompile(`^(unable [^:]*: )+`)

// output returns the output of a command. Its error is the first line of the command's
// error message.
func output(cmd *exec.Cmd) (string, error) {
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err == nil {
		return strings.TrimSpace(string(out)), nil
	}
	said, _, _ := strings.Cut(strings.TrimSpace(stderr.String()), "\n")
	var path *fs.PathError
	switch {
	case errors.As(err, &path): // the command was not started
		return "", path.Err
	case said == "":
		return "", err
	case strings.Contains(said, "checksum mismatch"): // the rest of the line is two checksums of 128 digits
		return "", errors.New("the archive's checksum is not the one in the index")
	case strings.Contains(said, "unable to unmarshal index"):
		return "", errors.New("the index is not YAML")
	}
	return "", errors.New(unable.ReplaceAllString(said, ""))
}
