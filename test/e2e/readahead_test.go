package e2e

import (
	"net/http"
	"sync/atomic"
	"testing"

	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/kube"
)

type counting struct {
	http.RoundTripper
	requests *atomic.Int32
}

func (c counting) RoundTrip(req *http.Request) (*http.Response, error) {
	c.requests.Add(1)
	return c.RoundTripper.RoundTrip(req)
}

// The API server's lists must end as internal/controller expects. Otherwise the manager
// would wait for every page, and only the duration would show it.
func TestPagesOfTheAPIServerAreReadAhead(t *testing.T) {
	w := newWorld(t, config())
	for _, name := range []string{"a", "b", "c"} {
		w.create(w.task(name, good+name))
	}
	var requests atomic.Int32
	cfg := rest.CopyConfig(w.cluster.Admin)
	cfg.Wrap(func(to http.RoundTripper) http.RoundTripper { return counting{to, &requests} })
	cfg.Wrap(kube.NewReadAhead)
	cl, err := client.New(cfg, client.Options{Scheme: w.Scheme()})
	w.must(err)
	w.must(cl.List(t.Context(), &v1alpha1.PrefetchTaskList{}, client.InNamespace(w.namespace))) // discovers the API
	before, names, token := requests.Load(), "", ""
	for i, want := range []int32{2, 3, 3} {
		page := &v1alpha1.PrefetchTaskList{}
		w.must(cl.List(t.Context(), page, client.InNamespace(w.namespace), client.Limit(1), client.Continue(token)))
		w.eventually("the next page is asked for", func() bool { return requests.Load()-before == want })
		names, token = names+page.Items[0].Name, page.Continue
		if i == 2 && (names != "abc" || token != "") {
			t.Errorf("the pages are %s, and go on with %q", names, token)
		}
	}
}
