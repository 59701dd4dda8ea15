package e2e

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/dynamic"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/simulator"
	"github.com/prefetch-operator/teo-prefetch-operator/test/cluster"
	"github.com/prefetch-operator/teo-prefetch-operator/test/faults"
)

// watches matches the watches of the test's tasks. events matches their events.
func (w *world) watches() faults.Match {
	m := faults.TaskWatches
	m.Namespace = w.namespace
	return m
}

func (w *world) events() faults.Match {
	m := faults.TaskEvents
	m.Namespace = w.namespace
	return m
}

// touch changes all tasks, so that any cache that has not seen this is stale.
func (w *world) touch() {
	w.t.Helper()
	for _, task := range w.list() {
		w.edit(task.Name, func(task *v1alpha1.PrefetchTask) { task.Labels = map[string]string{"touched": "yes"} })
	}
}

// Status writes fail in various ways for a while. With Executed, the API server executes
// the request, but the manager cannot know this.
func TestStatusWritesThatFailDelayButDoNotHarm(t *testing.T) {
	t.Parallel()
	conflict, timeout := faults.Effect{Status: http.StatusConflict}, faults.Effect{Status: http.StatusGatewayTimeout}
	committed := faults.Effect{Status: http.StatusGatewayTimeout, Executed: true}
	lost := faults.Effect{Close: true, Executed: true}
	mostWrites := faults.StatusWrites
	mostWrites.Probability, mostWrites.Seed = 0.7, 1
	for _, tt := range []struct {
		name   string
		match  faults.Match
		effect faults.Effect
		tasks  int
	}{
		{"most writes with conflicts", mostWrites, conflict, hundreds},
		{"most writes with 429", mostWrites, faults.Effect{Status: http.StatusTooManyRequests}, hundreds},
		{"most writes with 500", mostWrites, faults.Effect{Status: http.StatusInternalServerError}, few},
		{"most writes with time-outs", mostWrites, timeout, hundreds},
		{"most writes with time-outs, though committed", mostWrites, committed, hundreds},
		{"most writes with closed connections", mostWrites, faults.Effect{Close: true}, few},
		{"most writes with closed connections, though committed", mostWrites, lost, few},
		{"all claims with conflicts", faults.Claims, conflict, few},
		{"all claims with time-outs", faults.Claims, timeout, few},
		{"all claims with closed connections, though committed", faults.Claims, lost, hundreds},
		{"all records with conflicts", faults.Records, conflict, few},
		{"all records with time-outs", faults.Records, timeout, few},
		{"all records with closed connections, though committed", faults.Records, lost, hundreds},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t, patient())
			w.proxy()
			fault := w.api.AddFault(faults.Fault{Match: tt.match, Effect: tt.effect})
			w.many(tt.tasks)
			p := w.manager(patientFlags...)
			w.eventually("each task has met it on average", func() bool { return w.api.Taken(fault) >= tt.tasks })
			w.api.RemoveFault(fault)
			w.strikes(w.api.Taken(fault))
			w.judge()
			// The response from EdgeOne is written with as many attempts as necessary, and
			// not looked up.
			if tt.match == faults.Records && strings.Contains(p.Output(), "Settled a call whose answer was lost") {
				t.Error("the answer was lost")
			}
		})
	}
}

// A claim was committed, but the manager can read neither the response nor the task
// afterwards. The task takes part in no call, but its claim is settled as if there were
// one.
func TestAClaimThatMayBeWrittenIsNotUsedAndNotForgotten(t *testing.T) {
	w := newWorld(t, patient())
	w.proxy()
	m := faults.Claims
	m.Count = hundreds
	writes := w.api.AddFault(faults.Fault{Match: m, Effect: faults.Effect{Close: true, Executed: true}})
	reads := w.api.AddFault(faults.Fault{
		Match:  faults.Match{Verb: "get", Resource: "prefetchtasks"},
		Effect: faults.Effect{Status: http.StatusServiceUnavailable},
	})
	w.many(hundreds)
	w.manager()
	w.eventually("all claims are lost", func() bool { return w.api.Taken(writes) == hundreds })
	w.eventually("they cannot be read", func() bool { return w.api.Taken(reads) >= hundreds })
	w.api.ClearFaults()
	w.strikes(hundreds)
	w.judge()
}

// The API server is slow for this manager only. Claims take longer than their signature is
// valid, so calls become smaller until they fit.
func TestCallsGetSmallerWhenTheAPIServerIsSlow(t *testing.T) {
	c := config()
	c.SignatureValidity = 10 * time.Second
	w := newWorld(t, c)
	w.proxy()
	slow := w.api.AddFault(faults.Fault{Match: faults.Claims, Effect: faults.Effect{Delay: time.Second}})
	w.many(hundreds)
	w.manager()
	w.eventuallyAll("some tasks are submitted all the same", func(tasks []v1alpha1.PrefetchTask) bool { return count(tasks, recorded) > 0 })
	w.api.RemoveFault(slow)
	w.strikes(w.api.Taken(slow))
	w.judge()
}

// The manager's cache is stale at each step: a watch delivers nothing while users change
// every task.
func TestAStaleCacheSubmitsNothingTwiceAndNothingOld(t *testing.T) {
	t.Parallel()
	t.Run("at the claim", func(t *testing.T) {
		w := newWorld(t, patient())
		w.proxy()
		old := w.many(hundreds, func(task *v1alpha1.PrefetchTask) { task.Spec.CredentialsSecretRef.Name = "keys" })
		w.managerWith(nil)
		w.eventuallyAll("all wait for credentials", func(tasks []v1alpha1.PrefetchTask) bool {
			return count(tasks, func(s v1alpha1.PrefetchTaskStatus) bool {
				return isTrue(s, v1alpha1.ConditionStalled, v1alpha1.ReasonCredentialsMissing)
			}) == hundreds
		})
		held := w.api.Hold(w.events())
		for _, task := range w.list() {
			w.edit(task.Name, func(task *v1alpha1.PrefetchTask) { task.Spec.Targets[0] += newURL })
		}
		w.must(w.Create(t.Context(), &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: "keys"},
			StringData: map[string]string{"secretId": keyID, "secretKey": keyValue}}))
		w.eventuallyAll("all are submitted", func(tasks []v1alpha1.PrefetchTask) bool { return count(tasks, recorded) == hundreds })
		held.Release()
		w.strikes(1)
		w.judge()
		for _, u := range old {
			if w.edgeOne.Executed(u) > 0 {
				t.Errorf("%s was executed, which no task asks for any more", u)
			}
		}
	})
	t.Run("at the record", func(t *testing.T) {
		w := newWorld(t, unhurried())
		w.proxy()
		answer := w.edgeOne.HoldAnswer(theCall)
		w.many(hundreds)
		w.manager(unhurriedFlags...)
		<-answer.Arrived()
		held := w.api.Hold(w.events())
		w.touch()
		answer.Release()
		w.eventuallyAll("all are recorded", func(tasks []v1alpha1.PrefetchTask) bool { return count(tasks, recorded) == hundreds })
		held.Release()
		w.strikes(1)
		w.judge()
	})
	t.Run("while a call is unsettled", func(t *testing.T) {
		w := newWorld(t, patient())
		w.proxy()
		w.edgeOne.AddFault(simulator.Fault{Match: theCall, Effect: simulator.Effect{Answer: simulator.ConnectionReset, Executed: true}})
		look := w.edgeOne.Hold(simulator.Matcher{Action: "DescribePrefetchTasks"})
		w.many(hundreds)
		w.manager()
		<-look.Arrived()
		held := w.api.Hold(w.events())
		w.touch()
		look.Release()
		w.eventuallyAll("all are settled", func(tasks []v1alpha1.PrefetchTask) bool { return count(tasks, recorded) == hundreds })
		held.Release()
		w.strikes(1)
		w.judge()
	})
	t.Run("while outcomes are awaited", func(t *testing.T) {
		c := patient()
		c.Rules = []simulator.Rule{{Status: simulator.Never}}
		w := newWorld(t, c)
		w.proxy()
		w.many(hundreds)
		w.manager()
		w.eventuallyAll("all are recorded", func(tasks []v1alpha1.PrefetchTask) bool { return count(tasks, recorded) == hundreds })
		held := w.api.Hold(w.events())
		w.touch()
		w.strikes(1)
		w.edgeOne.Finish("", "success", "", "")
		w.judge()
		held.Release()
	})
}

func TestWatchesThatBreakLoseNothing(t *testing.T) {
	t.Parallel()
	t.Run("cut again and again", func(t *testing.T) {
		w := newWorld(t, patient())
		w.proxy()
		w.manager()
		for round := range 5 {
			w.many(hundreds/5, named(fmt.Sprint("round-", round)))
			w.strikes(w.api.CutWatches(w.watches()))
			w.eventuallyAll("more are submitted", func(tasks []v1alpha1.PrefetchTask) bool { return count(tasks, recorded) > round*hundreds/5 })
		}
		w.judge()
	})
	t.Run("deaf for a while", func(t *testing.T) {
		w := newWorld(t, unhurried())
		w.proxy()
		answer := w.edgeOne.HoldAnswer(theCall)
		w.many(hundreds)
		w.manager(unhurriedFlags...)
		<-answer.Arrived()
		deaf := w.api.AddFault(faults.Fault{Match: w.events(), Effect: faults.Effect{Drop: true}})
		w.touch()
		w.many(few, named("unseen"))
		answer.Release()
		w.eventuallyAll("all are recorded", func(tasks []v1alpha1.PrefetchTask) bool { return count(tasks, recorded) == hundreds })
		w.strikes(w.api.Taken(deaf))
		w.api.RemoveFault(deaf)
		w.judge()
	})
	t.Run("and cannot go on from where they were", func(t *testing.T) {
		w := newWorld(t, unhurried())
		w.proxy()
		answer := w.edgeOne.HoldAnswer(theCall)
		w.many(hundreds)
		w.manager(unhurriedFlags...)
		<-answer.Arrived()
		held := w.api.Hold(w.watches())
		w.api.CutWatches(w.watches())
		w.touch()
		w.many(few, named("unseen"))
		answer.Release()
		<-held.Arrived()
		held.Drop()
		expired := w.watches()
		expired.Count = 1
		gone := w.api.AddFault(faults.Fault{Match: expired, Effect: faults.Effect{Status: http.StatusGone}})
		w.eventually("a watch is told that its version is gone", func() bool { return w.api.Taken(gone) == 1 })
		w.strikes(1)
		w.judge()
	})
}

// A rollout must not continue with the next replica before the manager has read the tasks.
func TestAManagerIsReadyOnceItHasReadTheTasks(t *testing.T) {
	w := newWorld(t, config())
	w.proxy()
	w.create(w.task("a", good+"a"))
	lists := faults.Match{Verb: "list", Resource: "prefetchtasks", Namespace: w.namespace}
	refused := w.api.AddFault(faults.Fault{Match: lists, Effect: faults.Effect{Status: http.StatusForbidden}})
	var allowed atomic.Bool
	go func() {
		_ = wait.PollUntilContextCancel(t.Context(), 20*time.Millisecond, true, func(context.Context) (bool, error) {
			return w.api.Taken(refused) >= 2, nil // a second apart
		})
		allowed.Store(true)
		w.api.RemoveFault(refused)
	}()
	w.manager()
	if !allowed.Load() {
		t.Error("it was ready before it could read a task")
	}
	w.untilFinished("a", v1alpha1.ReasonSucceeded)
}

// The rows that kill etcd or kube-apiserver have their own control plane, and run one
// after the other.
func TestAControlPlaneThatDiesTakesNothingWithIt(t *testing.T) {
	t.Parallel()
	kube := cluster.ForTest(t, cluster.Options{})
	here := func(t *testing.T) *world {
		w := newWorldIn(t, kube, patient())
		w.proxy()
		return w
	}
	moments := []struct {
		name  string
		fault func(w *world) (arrived <-chan struct{}, goOn func())
	}{
		{"before the claims", func(w *world) (<-chan struct{}, func()) {
			held := w.api.Hold(everyFourth(faults.Claims))
			return held.Arrived(), held.Release
		}},
		{"while EdgeOne answers", func(w *world) (<-chan struct{}, func()) {
			held := w.edgeOne.HoldAnswer(theCall)
			return held.Arrived(), held.Release
		}},
		{"before the records", func(w *world) (<-chan struct{}, func()) {
			held := w.api.Hold(everyFourth(faults.Records))
			return held.Arrived(), held.Release
		}},
	}
	for _, process := range []*cluster.Process{kube.Etcd, kube.APIServer} {
		for _, moment := range moments {
			t.Run(process.Name+"/"+moment.name, func(t *testing.T) {
				w := here(t)
				arrived, goOn := moment.fault(w)
				w.many(hundreds)
				w.manager()
				<-arrived
				process.Kill()
				w.strikes(1)
				goOn()
				w.must(process.Start(t.Context()))
				w.judge()
			})
		}
	}
	t.Run("both, with the manager", func(t *testing.T) {
		w := here(t)
		held := w.edgeOne.HoldAnswer(theCall)
		w.many(hundreds)
		p := w.manager()
		<-held.Arrived()
		kube.Etcd.Kill()
		kube.APIServer.Kill()
		p.Kill()
		w.strikes(3)
		held.Drop()
		w.must(kube.Etcd.Start(t.Context()))
		w.must(kube.APIServer.Start(t.Context()))
		w.must(p.Start(t.Context()))
		w.judge()
	})
	t.Run("etcd is compacted while the manager is away", func(t *testing.T) {
		w := here(t)
		answer := w.edgeOne.HoldAnswer(theCall)
		w.many(hundreds)
		w.manager()
		<-answer.Arrived()
		before := w.get("task-0000").ResourceVersion
		held := w.api.Hold(w.watches())
		w.api.CutWatches(w.watches())
		w.touch()
		w.many(few, named("unseen"))
		w.remove("task-0000")
		w.compact()
		// kube-apiserver could still serve compacted versions from its own cache.
		w.must(faults.Restart(t.Context(), kube.APIServer, 0))
		if err := w.watchFrom(before); !apierrors.IsResourceExpired(err) && !apierrors.IsGone(err) {
			t.Fatalf("the version that the manager knows can still be watched from: %v", err)
		}
		w.strikes(1)
		held.Release()
		answer.Release()
		w.judge()
	})
}

// compact removes all versions from etcd except the current ones.
func (w *world) compact() {
	w.t.Helper()
	call := func(path string, in map[string]any) (out struct {
		Header struct{ Revision string }
	}) {
		body, _ := json.Marshal(in)
		resp, err := http.Post(strings.TrimSuffix(w.cluster.Etcd.ReadyURL, "/readyz")+path, "application/json", bytes.NewReader(body))
		w.must(err)
		defer func() { _ = resp.Body.Close() }()
		text, err := io.ReadAll(resp.Body)
		w.must(err)
		if resp.StatusCode != http.StatusOK {
			w.t.Fatalf("etcd answered %s to %s: %s", resp.Status, path, text)
		}
		w.must(json.Unmarshal(text, &out))
		return out
	}
	now := call("/v3/kv/range", map[string]any{"key": base64.StdEncoding.EncodeToString([]byte("any"))})
	call("/v3/kv/compaction", map[string]any{"revision": now.Header.Revision, "physical": true})
}

// watchFrom returns the error of a watch of the test's tasks that starts at the given
// version.
func (w *world) watchFrom(resourceVersion string) error {
	w.t.Helper()
	cl, err := dynamic.NewForConfig(w.cluster.Admin)
	w.must(err)
	tasks := cl.Resource(schema.GroupVersionResource{Group: v1alpha1.GroupVersion.Group, Version: v1alpha1.GroupVersion.Version, Resource: "prefetchtasks"})
	watch, err := tasks.Namespace(w.namespace).Watch(w.t.Context(), metav1.ListOptions{ResourceVersion: resourceVersion})
	if err != nil {
		return err
	}
	defer watch.Stop()
	return apierrors.FromObject((<-watch.ResultChan()).Object)
}
