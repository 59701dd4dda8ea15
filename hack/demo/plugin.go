package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// launch creates the task of the list hack/demo/launch.txt.
const launch = "kubectl teo-prefetch submit hack/demo/launch.txt --zone=zone-2x9examplea --account=store --purge=URL"

// showPlugin plans and submits a list of URLs, asks a node of EdgeOne for them, and explains a task
// that waits, with the plugin of kubectl.
func (d *demo) showPlugin(ctx context.Context) error {
	for _, s := range []struct {
		subject, command string
		code             int
	}{
		{"What a list of URLs will take", launch + " \\\n  --dry-run=client -o yaml | kubectl teo-prefetch plan -", 0},
		{"A step of a release, which ends when the URLs are prefetched", launch + " --wait", 0},
		{"What a visitor gets", "kubectl teo-prefetch verify launch", 2},
		{"What a task waits for", "kubectl teo-prefetch why over-quota", 0},
	} {
		title(s.subject)
		fmt.Println(paint(green, "$") + " " + s.command)
		err := d.runCommand(ctx, "sh", "-c", s.command)
		if exit := (*exec.ExitError)(nil); s.code != 0 && errors.As(err, &exit) && exit.ExitCode() == s.code {
			continue
		}
		if err != nil || s.code != 0 {
			return fmt.Errorf("%s: %w, want exit code %d", s.command, err, s.code)
		}
	}
	return nil
}

// runCommand runs a command in the root of the repository, with kubectl and its plugin in PATH. The
// command reads and writes where this program does.
func (d *demo) runCommand(ctx context.Context, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.Dir = d.root
	cmd.Env = append(os.Environ(), "KUBECONFIG="+d.cluster.Kubeconfig, "PATH="+d.programs+":"+os.Getenv("PATH"),
		"EDGEONE="+d.edgeOne.URL, "KUBECACHEDIR="+filepath.Join(d.cluster.Dir, "kubectl"))
	cmd.Env = append(cmd.Env, d.edge.proxyVariables()...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	err := cmd.Run()
	if ctx.Err() != nil {
		return errors.Join(ctx.Err(), err)
	}
	return err
}
