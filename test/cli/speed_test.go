package cli

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
	"github.com/prefetch-operator/teo-prefetch-operator/test/cluster"
)

// tasks is how many tasks the cluster of BenchmarkFirstOutput has.
var tasks = flag.Int("tasks", 100, "how many tasks the cluster of BenchmarkFirstOutput has")

// BenchmarkFirstOutput measures how long the program takes, from its start, to its first output on
// standard output or standard error, and to its end. One in 20 tasks waits, and the others are over.
func BenchmarkFirstOutput(b *testing.B) {
	w := newWorldIn(b, cluster.ForTest(b, cluster.Options{}))
	program, err := cluster.Build(b.Context(), "kubectl-teo_prefetch", "./cmd/kubectl-teo_prefetch")
	w.must(err)
	w.createMany(*tasks)
	planned, err := yaml.Marshal(map[string]any{
		"apiVersion": v1alpha1.GroupVersion.String(), "kind": "PrefetchTask", "metadata": map[string]any{"name": "new"},
		"spec": map[string]any{"zoneID": zoneID, "targets": []string{good + "new"}},
	})
	w.must(err)
	for _, command := range []string{
		"plan -", "submit - --name=new --dry-run=server --zone=" + zoneID, "why many-0", "verify many-0 --timeout=1s --resolve=*:443:127.0.0.1",
		"wait many-0", "failed many-1", "retry many-1 --dry-run=server", "rerun many-1 --dry-run=server", "suspend many-0 --dry-run=server", "quota", "version",
	} {
		input := good + "new\n"
		if strings.HasPrefix(command, "plan") {
			input = string(planned)
		}
		b.Run(strings.Fields(command)[0], func(b *testing.B) {
			var first time.Duration
			for b.Loop() {
				first += w.measureFirstOutput(b, program, input, strings.Fields(command))
			}
			b.ReportMetric(float64(first.Milliseconds())/float64(b.N), "ms-to-first-output")
		})
	}
}

// createMany creates tasks of ten URLs.
func (w *world) createMany(n int) {
	w.t.Helper()
	group := errgroup.Group{}
	group.SetLimit(32)
	for i := range n {
		group.Go(func() error {
			task := w.task(fmt.Sprint("many-", i))
			for k := range 10 {
				task.Spec.Targets = append(task.Spec.Targets, v1alpha1.Target(fmt.Sprintf("%s%d/%d", good, i, k)))
			}
			if err := w.Create(w.t.Context(), task); err != nil || i%20 == 0 {
				return err
			}
			taskstate.BeginRun(task, time.Now())
			task.Status.Jobs = []v1alpha1.Job{{ID: "j", ClaimID: "c", Positions: "0-9", Succeeded: 9, Failed: 1, SubmitTime: metav1.Now()}}
			taskstate.UpdateSummary(task, time.Now())
			return w.Status().Update(w.t.Context(), task)
		})
	}
	w.must(group.Wait())
}

// measureFirstOutput runs the program, and returns the time to its first output. A command that waits is
// interrupted then.
func (w *world) measureFirstOutput(b *testing.B, program, input string, args []string) time.Duration {
	b.Helper()
	ctx, cancel := context.WithTimeout(b.Context(), patience)
	defer cancel()
	args = append([]string{"--kubeconfig=" + w.cluster.Kubeconfig, "--namespace=" + w.namespace}, args...)
	cmd := exec.CommandContext(ctx, filepath.Clean(program), args...)
	reader, writer := io.Pipe()
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(input), writer, writer
	start := time.Now()
	w.must(cmd.Start())
	go func() {
		_ = cmd.Wait()
		_ = writer.Close()
	}()
	var all bytes.Buffer
	_, err := io.CopyN(&all, reader, 1)
	first := time.Since(start)
	if err != nil {
		b.Fatalf("%q printed nothing", args)
	}
	if args[2] == "wait" {
		cancel()
	}
	_, _ = io.Copy(&all, reader)
	if strings.HasPrefix(all.String(), "Error: ") {
		b.Fatalf("%q printed %s", args, all.String())
	}
	return first
}
