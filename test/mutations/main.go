// Command mutations checks that the tests notice when a safeguard is missing. It removes
// one safeguard at a time from a copy of the repository (see list.go), runs the tests that
// should notice, and prints which test did. It fails if a mutation survives, or if one no
// longer fits the code.
//
//   - list, bounds, urls, refresh: the safeguards, each as a code fragment with its replacement
//   - fragment: finds a fragment, whatever names the code uses
//   - update: writes the current names and files into the lists
//
// The command treats the code as text and knows the tests only by their exit status. It
// imports neither.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"
)

// mutation removes one safeguard: it replaces old with new. Old is a fragment of Go code.
// It fits the code whatever the variables, functions and types are called, and wherever
// they are, so that the mutation survives renames and moves. See match.
type mutation struct {
	name     string // what is broken by the mutation
	file     string // the file of old, if it fits several files equally well
	old, new string
	// suites are arguments of `go test`, the fastest first. The first suite that fails has
	// caught the mutation.
	suites []string
}

// result is the result of one mutation.
type result struct {
	mutation
	caughtBy string // the name of the test, or "" if the mutation survived
	invalid  error  // why the mutation proves nothing
	took     time.Duration
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	pattern := flag.String("run", "", "try only the mutations whose name or file matches this regular expression")
	update := flag.Bool("update", false, "only write the names and files of today's code into the list of mutations")
	flag.Parse()
	do := run
	if *update {
		do = func(context.Context, string) error { return updateList(".") }
	}
	if err := do(ctx, *pattern); err != nil {
		fmt.Fprintln(os.Stderr, "mutations:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, pattern string) error {
	selected, err := choose(pattern)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "mutations-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	if err := copyTree(ctx, dir); err != nil {
		return err
	}
	sources, err := readSources(dir)
	if err != nil {
		return err
	}
	t := tree{dir, sources}
	start := time.Now()
	if err := t.sound(ctx, selected); err != nil {
		return err
	}
	var results []result
	for i, m := range selected {
		r := t.try(ctx, m)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		results = append(results, r)
		fmt.Printf("[%d/%d] %s: %s (%.0f s)\n", i+1, len(selected), m.name, r.verdict(), r.took.Seconds())
	}
	return report(results, time.Since(start))
}

func choose(pattern string) ([]mutation, error) {
	re, err := regexp.Compile(pattern)
	if err != nil {
		return nil, err
	}
	var selected []mutation
	for _, m := range mutations {
		if re.MatchString(m.name) || re.MatchString(m.file) {
			selected = append(selected, m)
		}
	}
	if len(selected) == 0 {
		return nil, fmt.Errorf("no mutation has a name or file that matches %q", pattern)
	}
	return selected, nil
}

// copyTree copies the files that git tracks, with their content in the work tree.
func copyTree(ctx context.Context, to string) error {
	list, err := exec.CommandContext(ctx, "git", "ls-files", "-z").Output()
	if err != nil {
		return fmt.Errorf("git ls-files: %w", err)
	}
	for name := range strings.SplitSeq(strings.TrimSuffix(string(list), "\x00"), "\x00") {
		content, err := os.ReadFile(name)
		if errors.Is(err, os.ErrNotExist) {
			continue // deleted, but not committed yet
		}
		if err != nil {
			return err
		}
		path := filepath.Join(to, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, content, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// tree is the copy in which mutations are applied and reverted.
type tree struct {
	dir     string
	sources []source
}

// sound returns an error if a suite fails without any mutation: such a suite proves
// nothing.
func (t tree) sound(ctx context.Context, selected []mutation) error {
	var suites []string
	for _, m := range selected {
		suites = append(suites, m.suites...)
	}
	slices.Sort(suites)
	for _, suite := range slices.Compact(suites) {
		start := time.Now()
		failed, err := t.test(ctx, suite)
		switch {
		case err != nil:
			return err
		case failed != "":
			return fmt.Errorf("%s fails in go test %s without any mutation", failed, suite)
		}
		fmt.Printf("passes without a mutation: go test %s (%.0f s)\n", suite, time.Since(start).Seconds())
	}
	return nil
}

// try applies a mutation, runs its suites until one fails, and reverts the mutation.
func (t tree) try(ctx context.Context, m mutation) (r result) {
	start := time.Now()
	defer func() { r.took = time.Since(start) }()
	r = result{mutation: m}
	at, err := m.locate(t.sources)
	if err != nil {
		r.invalid = err
		return r
	}
	broken, err := m.apply(at)
	if err == nil {
		err = os.WriteFile(filepath.Join(t.dir, at.path), []byte(broken), 0o644)
	}
	if err != nil {
		r.invalid = err
		return r
	}
	defer func() { _ = os.WriteFile(filepath.Join(t.dir, at.path), []byte(at.text), 0o644) }()
	for _, suite := range m.suites {
		if r.caughtBy, r.invalid = t.test(ctx, suite); r.caughtBy != "" || r.invalid != nil {
			break
		}
	}
	return r
}

var (
	failure  = regexp.MustCompile(`(?m)^\s*--- FAIL: (\S+)`)
	running  = regexp.MustCompile(`(?m)^\t(Test|Fuzz)(\w+)`) // from a test binary that was killed
	panicked = regexp.MustCompile(`(?m)^(panic|fatal error): (.*)$`)
)

// test runs a suite and returns the name of the test that failed, or "" if none did.
func (t tree) test(ctx context.Context, suite string) (failed string, err error) {
	// Vet and debug information are disabled, because they take longer than most of these
	// tests.
	args := append([]string{"test", "-vet=off", "-ldflags=-s -w", "-failfast", "-timeout=5m"}, strings.Fields(suite)...)
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = t.dir
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGINT) } // lets it stop the processes that it started
	cmd.WaitDelay = 10 * time.Second
	out, err := cmd.CombinedOutput()
	if ctx.Err() != nil {
		return "", ctx.Err()
	}
	var exit *exec.ExitError
	switch {
	case err == nil && strings.Contains(string(out), "no tests to run"):
		return "", fmt.Errorf("go test %s runs no test", suite)
	case err == nil:
		return "", nil
	case !errors.As(err, &exit):
		return "", err
	case strings.Contains(string(out), "[build failed]") || strings.Contains(string(out), "[setup failed]"):
		return "", fmt.Errorf("does not compile, and proves nothing: %s", out)
	}
	if all := failure.FindAllStringSubmatch(string(out), -1); all != nil {
		failed = all[len(all)-1][1] // the innermost subtest of the last failure
	} else if m := running.FindStringSubmatch(string(out)); m != nil {
		failed = m[1] + m[2]
	} else {
		failed = "go test " + suite
	}
	if m := panicked.FindStringSubmatch(string(out)); m != nil {
		failed += " (" + m[1] + ")"
	}
	return failed, nil
}

func (r result) verdict() string {
	switch {
	case r.invalid != nil:
		return "INVALID: " + r.invalid.Error()
	case r.caughtBy == "":
		return "SURVIVED"
	}
	return "caught by " + r.caughtBy
}

func report(results []result, took time.Duration) error {
	fmt.Printf("\n| mutation | caught by | seconds |\n|---|---|---|\n")
	var missed []string
	for _, r := range results {
		verdict, _, _ := strings.Cut(strings.TrimPrefix(r.verdict(), "caught by "), "\n")
		fmt.Printf("| %s | %s | %.0f |\n", r.name, verdict, r.took.Seconds())
		if r.caughtBy == "" {
			missed = append(missed, r.name)
		}
	}
	fmt.Printf("\n%d of %d mutations caught in %s\n", len(results)-len(missed), len(results), took.Round(time.Second))
	if len(missed) > 0 {
		return fmt.Errorf("not caught: %s", strings.Join(missed, "; "))
	}
	return nil
}
