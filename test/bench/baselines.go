package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/prefetch-operator/teo-prefetch-operator/test/cluster"
)

// prefetches are the managed resources of the Crossplane baseline. Their external name is
// the JobId.
var prefetches = kind{
	schema.GroupVersionKind{Group: "bench.prefetch-operator.io", Version: "v1alpha1", Kind: "Prefetch"}, "prefetches",
	func(u *unstructured.Unstructured) bool {
		return u.GetAnnotations()["crossplane.io/external-name"] != ""
	},
}

// baselines runs each baseline on the same work as the operator in a scenario: n one-URL
// tasks, either all alike or each with its own header.
func (b *bench) baselines(ctx context.Context, scenario string, o options, n int, alike bool) (all []outcome, err error) {
	header := func(name string) string {
		if alike {
			return ""
		}
		return name
	}
	for _, baseline := range []struct {
		name, who string
		work      func(context.Context, *world) (outcome, error)
	}{
		{"script", "script on the vendor's SDK", func(ctx context.Context, w *world) (outcome, error) {
			return w.runScript(ctx, n, header)
		}},
		{"kubebuilder", "textbook kubebuilder reconciler", func(ctx context.Context, w *world) (outcome, error) {
			return w.work(ctx, "kubebuilder", n, func(i int) client.Object {
				t := task(namespace, taskName(i), 1)
				if !alike {
					unlike(t)
				}
				return t
			})
		}},
		{"crossplane", "Crossplane's managed reconciler", func(ctx context.Context, w *world) (outcome, error) {
			return w.runCrossplane(ctx, n, header)
		}},
	} {
		var out outcome
		if err := b.inWorld(ctx, scenario+" "+baseline.name, o, func(ctx context.Context, w *world) (err error) {
			out, err = baseline.work(ctx, w)
			return err
		}); err != nil {
			return nil, err
		}
		out.who = baseline.who
		all = append(all, out)
	}
	return all, nil
}

func taskName(i int) string { return fmt.Sprintf("task-%06d", i) }

// runCrossplane creates objects of Crossplane's own kind, which is cluster-scoped.
func (w *world) runCrossplane(ctx context.Context, n int, header func(string) string) (out outcome, err error) {
	root, err := cluster.FindRoot()
	if err != nil {
		return out, err
	}
	if err := w.cluster.Apply(ctx, filepath.Join(root, "test/bench/baseline/crossplane/crd.yaml")); err != nil {
		return out, err
	}
	if err := w.track(ctx, prefetches); err != nil {
		return out, err
	}
	out, err = w.work(ctx, "crossplane", n, func(i int) client.Object {
		name := taskName(i)
		spec := map[string]any{"zoneID": zoneID, "url": targetURL(name, 0)}
		if value := header(name); value != "" {
			spec["headers"] = map[string]any{"X-Task": value}
		}
		u := &unstructured.Unstructured{Object: map[string]any{"spec": map[string]any{"forProvider": spec}}}
		u.SetGroupVersionKind(prefetches.GroupVersionKind)
		u.SetName(name)
		return u
	})
	out.follows = true
	return out, err
}

// runScript uses no API server: the tasks are the lines of a file.
func (w *world) runScript(ctx context.Context, n int, header func(string) string) (out outcome, err error) {
	var list strings.Builder
	for i := range n {
		name := taskName(i)
		fmt.Fprintln(&list, strings.TrimSpace(targetURL(name, 0)+" "+header(name)))
	}
	path := filepath.Join(w.cluster.Dir, "urls")
	if err := os.WriteFile(path, []byte(list.String()), 0o600); err != nil {
		return out, err
	}
	start := time.Now()
	for i := range n {
		w.tasks.created(w.tasks.expect(taskName(i), start), start)
	}
	p := &program{Process: &cluster.Process{
		Name: "script", Path: w.programs["script"], Tee: &jobLines{tasks: w.tasks}, Env: credentials,
		Args: []string{"-teo-endpoint=" + w.network.URL, "-zone=" + zoneID, "-list=" + path},
	}}
	if err := w.cluster.Run(ctx, p.Process); err != nil {
		return out, err
	}
	var used usage
	for done := false; !done; { // read in time: /proc has nothing about a process that has ended
		select {
		case <-p.Done():
			done = true
		case <-time.After(100 * time.Millisecond):
			if u, err := p.usage(); err == nil && u.peak > 0 {
				used = u
			}
		}
	}
	if err := p.Wait(ctx); err != nil {
		return out, err
	}
	if got := w.tasks.counts().submitted; got != n {
		return out, fmt.Errorf("the script got %d JobIds of %d\n%s", got, n, p.LastLines(10))
	}
	out = w.outcome("script", n)
	out.each, out.all = untilJobs(w.tasks.lives())
	out.usage = used
	return out, nil
}

// jobLines parses the script's output: lines with a URL and its JobId.
type jobLines struct {
	tasks *tracker
	mu    sync.Mutex
	rest  []byte
}

func (l *jobLines) Write(data []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.rest = append(l.rest, data...)
	for {
		line, rest, whole := bytes.Cut(l.rest, []byte("\n"))
		if !whole {
			return len(data), nil
		}
		l.rest = rest
		if fields := strings.Fields(string(line)); len(fields) == 2 && strings.HasPrefix(fields[0], "https://") {
			l.tasks.submittedAt(taskOf(fields[0]), time.Now())
		}
	}
}
