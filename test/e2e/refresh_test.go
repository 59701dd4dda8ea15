package e2e

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/simulator"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
	"github.com/prefetch-operator/teo-prefetch-operator/test/cluster"
	"github.com/prefetch-operator/teo-prefetch-operator/test/judge"
)

const (
	// purgeBatch is how many URLs EdgeOne accepts in a call.
	purgeBatch = 20
	// listURLs is the length of the list in a release: three calls.
	listURLs = 45
	// coldLimit is stricter than the two minutes that the operator promises, because all
	// other times are shorter here too.
	coldLimit = 8 * time.Second
)

// thePurge is the first call that purges.
var thePurge = simulator.Matcher{Action: "CreatePurgeTask", Count: 1}

// refreshConfig configures an EdgeOne whose jobs take long enough to be seen while they run.
func refreshConfig() simulator.Config {
	c := config()
	c.JobDuration, c.PurgeDuration = 200*time.Millisecond, 300*time.Millisecond
	for i := range c.Zones {
		if c.Zones[i].ID == zoneID {
			c.Zones[i].Batch = purgeBatch
			c.Zones[i].Purge = map[string]simulator.Limits{"purge_url": {Batch: purgeBatch}}
		}
	}
	return c
}

// refresh is a world in which visitors have filled the cache before the origin published a
// new version.
type refresh struct {
	*world
	observer *judge.Observer
	visits   sync.WaitGroup
	stop     context.CancelFunc
	asked    map[string]int // how often a URL may be purged; nil: once by each run that is seen

	mu   sync.Mutex
	urls []string // that are visited
}

// observers get the tasks of their namespaces from one watch.
var observers struct {
	sync.Mutex
	started bool
	by      map[string]*judge.Observer
}

// observe makes an observer note the tasks of a namespace until the test ends.
func observe(t *testing.T, namespace string, o *judge.Observer) {
	t.Helper()
	observers.Lock()
	defer observers.Unlock()
	if !observers.started {
		observers.by = map[string]*judge.Observer{}
		if _, err := shared.cluster.WatchTasks(context.Background(), func(task *v1alpha1.PrefetchTask, isGone bool) {
			observers.Lock()
			o := observers.by[task.Namespace]
			observers.Unlock()
			if o != nil {
				o.Note(task, isGone)
			}
		}); err != nil {
			t.Fatal(err)
		}
		observers.started = true
	}
	observers.by[namespace] = o
	t.Cleanup(func() {
		observers.Lock()
		defer observers.Unlock()
		delete(observers.by, namespace)
	})
}

func newRefresh(t *testing.T, c simulator.Config) *refresh {
	t.Helper()
	r := &refresh{world: newWorld(t, c)}
	r.observer = judge.NewObserver(r.edgeOne.Now, 0)
	observe(t, r.namespace, r.observer)
	var ctx context.Context
	ctx, r.stop = context.WithCancel(t.Context())
	r.visits.Go(func() { r.visit(ctx) })
	t.Cleanup(func() {
		r.stop()
		r.visits.Wait()
	})
	return r
}

// elsewhere returns the same world in another namespace, as if it were another cluster.
func (r *refresh) elsewhere() *world {
	r.t.Helper()
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "e2e-"}}
	r.must(r.Create(r.t.Context(), ns))
	observe(r.t, ns.Name, r.observer)
	return &world{Client: r.Client, t: r.t, cluster: r.cluster, namespace: ns.Name, edgeOne: r.edgeOne, url: r.url, validity: r.validity}
}

// visit visits all URLs again and again. EdgeOne stores what every other visitor gets from
// the origin.
func (r *refresh) visit(ctx context.Context) {
	for ticker := time.NewTicker(150 * time.Millisecond); ; {
		select {
		case <-ctx.Done():
			ticker.Stop()
			return
		case <-ticker.C:
			r.visitAll()
		}
	}
}

func (r *refresh) visitAll() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i, u := range r.urls {
		r.edgeOne.VisitWith(simulator.Visit{URLs: []string{u}, NoFill: i%2 == 0})
	}
}

// publish fills the cache with the current version of the URLs, and publishes another one.
func (r *refresh) publish(urls ...string) {
	selection := simulator.Selection{URLs: urls}
	r.edgeOne.Publish(simulator.Publication{Selection: selection, Tags: []string{"release"}})
	r.edgeOne.Warm(selection)
	r.edgeOne.Publish(simulator.Publication{Selection: selection, Tags: []string{"release"}})
	time.Sleep(time.Until(time.Now().Truncate(time.Second).Add(time.Second))) // the beginning of a run has whole seconds
	r.mu.Lock()
	defer r.mu.Unlock()
	r.urls = append(r.urls, urls...)
}

func purged(task *v1alpha1.PrefetchTask) { task.Spec.Purge.Type = v1alpha1.PurgeURL }

// release publishes a new version, and asks for a refresh in a task with a list and in
// n tasks with one URL each.
func (r *refresh) release(n int, changes ...func(*v1alpha1.PrefetchTask)) {
	r.t.Helper()
	r.publish(r.list()...)
	for i := range n {
		r.publishOne(i)
	}
	changes = append([]func(*v1alpha1.PrefetchTask){purged}, changes...)
	list := r.task("list", r.list()...)
	for _, change := range changes {
		change(list)
	}
	r.create(list)
	if n > 0 {
		r.many(n, changes...)
	}
}

func (r *refresh) publishOne(i int) {
	url := fmt.Sprintf("%s%s/%d", good, r.namespace, i)
	r.edgeOne.Warm(simulator.Selection{URLs: []string{url}})
	r.edgeOne.Publish(simulator.Publication{Selection: simulator.Selection{URLs: []string{url}}, Tags: []string{"release"}})
	r.mu.Lock()
	defer r.mu.Unlock()
	r.urls = append(r.urls, url)
}

func (r *refresh) list() []string { return r.world.urls(listURLs) }

// refresher starts a manager that may make all purges.
func (r *refresh) refresher(args ...string) *cluster.Process {
	r.t.Helper()
	return r.manager(append([]string{"--allow-purge=URL,Prefix,Host,CacheTag"}, args...)...)
}

// purges returns how many calls of CreatePurgeTask have arrived.
func (r *refresh) purges() int { return r.edgeOne.Stats().Calls("CreatePurgeTask") }

// judgeFresh waits until every task has succeeded. Then it compares the statuses, the ledger
// and the journal, and adds a row to the report.
func (r *refresh) judgeFresh() {
	r.t.Helper()
	r.judgeFreshBy(r.compare)
}

// judgeFreshBy is judgeFresh with another comparison of the statuses with the ledger.
func (r *refresh) judgeFreshBy(compare func([]v1alpha1.PrefetchTask, *row) []string) {
	r.t.Helper()
	tasks, stuck := r.untilAll(func(task *v1alpha1.PrefetchTask) bool {
		return task.Status.ObservedGeneration == task.Generation && !taskstate.IsNewRun(task) && succeeded(task.Status)
	})
	if stuck > 0 {
		r.t.Fatalf("%d tasks have not succeeded; as things are:\n%s", stuck, summary(tasks))
	}
	r.judgeBy(func(tasks []v1alpha1.PrefetchTask, row *row) []string {
		return append(compare(tasks, row), r.compareCache(tasks, row)...)
	})
}

// compareCache compares the journal of EdgeOne's cache with what was seen of the tasks.
func (r *refresh) compareCache(tasks []v1alpha1.PrefetchTask, row *row) (complaints []string) {
	r.t.Helper()
	for _, task := range tasks {
		r.eventually("the observer has seen the end of "+task.Name, func() bool { return r.hasSeenEnd(task) })
	}
	r.stop()
	r.visits.Wait()
	r.visitAll()
	journal := r.edgeOne.Journal()
	if journal.Dropped > 0 {
		complaints = append(complaints, "the journal is not complete")
	}
	defects, counts := judge.FindRefreshDefects(judge.RefreshEvidence{
		Ledger: r.edgeOne.Ledger(), Journal: journal, Sightings: r.observer.Sightings(), ColdLimit: coldLimit, Asked: r.asked,
	})
	for _, d := range defects {
		complaints = append(complaints, d.String())
	}
	row.refresh = &counts
	r.t.Logf("%+v", counts)
	return complaints
}

// hasSeenEnd reports whether the observer has seen the task as it is now.
func (r *refresh) hasSeenEnd(task v1alpha1.PrefetchTask) bool {
	all := r.observer.Sightings()
	for i := len(all) - 1; i >= 0; i-- {
		if all[i].UID == task.UID {
			return all[i].IsFinished == taskstate.IsFinished(&task)
		}
	}
	return false
}
