package controller

import (
	"fmt"
	"runtime/debug"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	kruntime "k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/recorder"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/simulator"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/teo"
)

// calm is a simulation without faults that counts the cost of work: calls, status writes and
// Events. Days of virtual time take a moment.
type calm struct {
	*simulation

	mu       sync.Mutex
	writes   map[client.ObjectKey][]time.Time
	reported map[client.ObjectKey][]string // reasons of Events, by task
	notes    map[client.ObjectKey][]string // Events as "type reason: note", by task
}

// inCalm runs f in a separate bubble, with two zones of one account, and then stops all
// processes. Options that f changes apply to processes that f starts afterwards.
func inCalm(t *testing.T, edgeOne simulator.Config, f func(t *testing.T, w *calm)) {
	t.Helper()
	if testing.Short() || raceDetector() {
		t.Skip("takes ten times longer under the race detector; make test runs it without it, too")
	}
	forgetTimes()
	defer debug.SetGCPercent(debug.SetGCPercent(400))
	synctest.Test(t, func(t *testing.T) {
		w := &calm{simulation: newSimulation(t, plan{}, 1), writes: map[client.ObjectKey][]time.Time{}, reported: map[client.ObjectKey][]string{}}
		w.notes = map[client.ObjectKey][]string{}
		w.simulation.edgeOne.Close()
		for _, pair := range keys {
			edgeOne.Keys = append(edgeOne.Keys, pair...)
		}
		if edgeOne.Zones == nil {
			edgeOne.Zones = []simulator.Zone{zoneA1, zoneA2}
		}
		w.edgeOne = simulator.New(edgeOne)
		w.ways.api, w.ways.event, w.ways.edgeOne = 3*time.Millisecond, time.Microsecond, 10*time.Millisecond
		w.events = &reporter{w: w}
		w.server.onStatus = func(_, after *v1alpha1.PrefetchTask) {
			w.mu.Lock()
			defer w.mu.Unlock()
			key := client.ObjectKeyFromObject(after)
			w.writes[key] = append(w.writes[key], time.Now())
		}
		defer w.end()
		f(t, w)
	})
}

var (
	zoneA1 = simulator.Zone{ID: "zone-a1", Account: "a", Domains: []string{"a1.example.com"}, EdgeMode: true, Daily: 1 << 30}
	zoneA2 = simulator.Zone{ID: "zone-a2", Account: "a", Domains: []string{"a2.example.com"}, Daily: 1 << 30}
)

// reporter counts Events.
type reporter struct {
	recorder.EventRecorder
	w *calm
}

func (r *reporter) Eventf(task kruntime.Object, _ kruntime.Object, eventType, reason, _, note string, args ...any) {
	r.w.mu.Lock()
	defer r.w.mu.Unlock()
	key := client.ObjectKeyFromObject(task.(*v1alpha1.PrefetchTask))
	r.w.reported[key] = append(r.w.reported[key], reason)
	r.w.notes[key] = append(r.w.notes[key], fmt.Sprintf("%s %s: %s", eventType, reason, fmt.Sprintf(note, args...)))
}

// create creates a task with these targets in zone-a1. changes edit its spec first.
func (w *calm) create(namespace, name string, targets []v1alpha1.Target, changes ...func(*v1alpha1.PrefetchTaskSpec)) client.ObjectKey {
	task := &v1alpha1.PrefetchTask{ObjectMeta: objectMeta(client.ObjectKey{Namespace: namespace, Name: name})}
	task.Spec.ZoneID, task.Spec.Targets = "zone-a1", targets
	for _, change := range changes {
		change(&task.Spec)
	}
	return client.ObjectKeyFromObject(w.server.create(task))
}

// createMany creates n tasks with one URL each. If change is not nil, it edits the spec of each
// task; i is the task's number.
func (w *calm) createMany(namespace string, n int, change func(i int, spec *v1alpha1.PrefetchTaskSpec)) {
	for i := range n {
		w.create(namespace, fmt.Sprint("t", i), urls(namespace+fmt.Sprint("/", i), 1), func(spec *v1alpha1.PrefetchTaskSpec) {
			if change != nil {
				change(i, spec)
			}
		})
	}
}

func urls(path string, n int) []v1alpha1.Target {
	targets := make([]v1alpha1.Target, n)
	for i := range targets {
		targets[i] = v1alpha1.Target(fmt.Sprintf("https://a1.example.com/%s/%d", path, i))
	}
	return targets
}

func inZoneA2(spec *v1alpha1.PrefetchTaskSpec) {
	spec.ZoneID = "zone-a2"
	for i, target := range spec.Targets {
		spec.Targets[i] = "https://a2.example.com" + target[len("https://a1.example.com"):]
	}
}

// ownLane gives a task unique headers, so that it shares no call.
func ownLane(i int, spec *v1alpha1.PrefetchTaskSpec) {
	spec.Headers = []v1alpha1.HTTPHeader{{Name: "X-Lane", Value: fmt.Sprint(i)}}
}

// await advances the time until isOver returns true, which it reports, or until limit has passed.
func (w *calm) await(limit time.Duration, isOver func() bool) bool {
	for end := time.Now().Add(limit); !isOver(); time.Sleep(100 * time.Millisecond) {
		if time.Now().After(end) {
			return false
		}
	}
	return true
}

// awaitAll advances the time until every task is finished. It fails the test if this takes
// longer than limit.
func (w *calm) awaitAll(limit time.Duration) {
	w.t.Helper()
	if !w.await(limit, func() bool { return w.unfinished() == 0 }) {
		w.t.Fatalf("%d tasks are not finished after %s", w.unfinished(), limit)
	}
}

func (w *calm) unfinished() int {
	return w.countTasks(func(task *v1alpha1.PrefetchTask) bool { return !taskstate.IsRunOver(task) })
}

func (w *calm) countTasks(which func(*v1alpha1.PrefetchTask) bool) (n int) {
	w.server.mu.Lock()
	defer w.server.mu.Unlock()
	for _, task := range w.server.tasks {
		if which(task) {
			n++
		}
	}
	return n
}

// calls returns the calls of an action, in the order in which EdgeOne received them.
func (w *calm) calls(action string) []simulator.Call {
	calls := slices.DeleteFunc(w.edgeOne.Calls(), func(call simulator.Call) bool { return call.Action != action })
	slices.SortStableFunc(calls, func(a, b simulator.Call) int { return a.Time.Compare(b.Time) })
	return calls
}

// submissions returns the CreatePrefetchTask calls.
func (w *calm) submissions() []simulator.Call { return w.calls(teo.ActionCreatePrefetchTask) }

// allWrites returns the number of status writes.
func (w *calm) allWrites() (n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, times := range w.writes {
		n += len(times)
	}
	return n
}
