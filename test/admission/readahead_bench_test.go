package admission

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/pager"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/kube"
	"github.com/prefetch-operator/teo-prefetch-operator/test/cluster"
)

// listedTasks is the number of tasks that BenchmarkReadAhead lists.
const listedTasks = 20000

// BenchmarkReadAhead compares ways to list many tasks page by page: one page after the
// other, with client-go's buffering pager, and with kube.NewReadAhead. It reports each
// duration divided by that of the first way. The ways alternate, so that a busy machine
// affects all equally. The ratios are medians.
//
//	go test -run=^$ -bench=ReadAhead -benchtime=5x ./test/admission
func BenchmarkReadAhead(b *testing.B) {
	w := cluster.ForTest(b, cluster.Options{})
	var create sync.WaitGroup
	for worker := range 16 {
		create.Go(func() {
			for i := worker; i < listedTasks; i += 16 {
				task := newTask("any", fmt.Sprintf("https://www.example.com/%d", i))
				task.Name, task.Namespace = fmt.Sprintf("t%05d", i), "default"
				if err := w.Client.Create(b.Context(), task); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	create.Wait()
	listers := []func(context.Context) int{
		listPages(b, w, w.Admin),
		listBuffered(b, w),
		listPages(b, w, readAheadConfig(w)),
	}
	ratios := make([][]float64, len(listers))
	b.ResetTimer()
	for range b.N {
		var first time.Duration
		for i, list := range listers {
			start := time.Now()
			if n := list(b.Context()); n != listedTasks {
				b.Fatalf("%d tasks are listed, want %d", n, listedTasks)
			}
			took := time.Since(start)
			if i == 0 {
				first = took
			}
			ratios[i] = append(ratios[i], float64(took)/float64(first))
		}
	}
	for i, name := range []string{"", "pager/plain", "readahead/plain"} {
		if slices.Sort(ratios[i]); name != "" {
			b.ReportMetric(ratios[i][len(ratios[i])/2], name)
		}
	}
}

func readAheadConfig(w *cluster.Cluster) *rest.Config {
	cfg := rest.CopyConfig(w.Admin)
	cfg.Wrap(kube.NewReadAhead)
	return cfg
}

// listPages returns a function that lists all tasks, one page after the other.
func listPages(b *testing.B, w *cluster.Cluster, cfg *rest.Config) func(context.Context) int {
	cl, err := client.New(cfg, client.Options{Scheme: w.Client.Scheme()})
	if err != nil {
		b.Fatal(err)
	}
	return func(ctx context.Context) (n int) {
		for token := ""; ; {
			page := &v1alpha1.PrefetchTaskList{}
			if err := cl.List(ctx, page, client.InNamespace("default"), client.Limit(1000), client.Continue(token)); err != nil {
				b.Fatal(err)
			}
			if n, token = n+len(page.Items), page.Continue; token == "" {
				return n
			}
		}
	}
}

// listBuffered returns a function that lists all tasks with client-go's pager, which reads
// pages in the background.
func listBuffered(b *testing.B, w *cluster.Cluster) func(context.Context) int {
	cl, err := client.New(w.Admin, client.Options{Scheme: w.Client.Scheme()})
	if err != nil {
		b.Fatal(err)
	}
	return func(ctx context.Context) (n int) {
		pages := pager.New(func(ctx context.Context, opts metav1.ListOptions) (runtime.Object, error) {
			page := &v1alpha1.PrefetchTaskList{}
			return page, cl.List(ctx, page, client.InNamespace("default"), client.Limit(opts.Limit), client.Continue(opts.Continue))
		})
		pages.PageSize = 1000
		if err := pages.EachListItem(ctx, metav1.ListOptions{}, func(runtime.Object) error { n++; return nil }); err != nil {
			b.Fatal(err)
		}
		return n
	}
}
