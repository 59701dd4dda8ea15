package e2e

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/simulator"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
	"github.com/prefetch-operator/teo-prefetch-operator/test/faults"
)

// act is a user's change to a task, and the work that results for EdgeOne.
type act struct {
	name   string
	change func(w *world, name string)
	// undo runs when all other tasks have finished.
	undo func(w *world, name string)
	// asks is what the task requests after the change. The task's first URL may already
	// have been executed once.
	asks work
}

// work is what a task requests after a user's act.
type work string

const (
	theSame   work = "the same"             // the run continues
	nothing   work = "nothing"              // the task is gone
	again     work = "the same once more"   // a new run of the same URL
	otherURL  work = "another URL"          // newURL
	otherWays work = "the URL, differently" // with a header
)

const newURL = "/new" // follows the old one

var acts = []act{
	{name: "left-alone", asks: theSame, change: func(*world, string) {}},
	{name: "deleted", asks: nothing, change: (*world).remove},
	{name: "recreated", asks: otherURL, change: func(w *world, name string) { w.recreate(name, newURL) }},
	{name: "recreated-alike", asks: again, change: func(w *world, name string) { w.recreate(name, "") }},
	{name: "other-url", asks: otherURL, change: func(w *world, name string) {
		w.edit(name, func(task *v1alpha1.PrefetchTask) { task.Spec.Targets[0] += newURL })
	}},
	{name: "other-revision", asks: again, change: func(w *world, name string) {
		w.edit(name, func(task *v1alpha1.PrefetchTask) { task.Spec.Revision = "v2" })
	}},
	{name: "other-headers", asks: otherWays, change: func(w *world, name string) {
		w.edit(name, func(task *v1alpha1.PrefetchTask) { task.Spec.Headers = newHeader })
	}},
	{name: "reverted", asks: theSame, change: func(w *world, name string) {
		w.edit(name, func(task *v1alpha1.PrefetchTask) { task.Spec.Suspend, task.Spec.Headers = ptr.To(true), newHeader })
	}, undo: func(w *world, name string) {
		w.edit(name, func(task *v1alpha1.PrefetchTask) { task.Spec.Suspend, task.Spec.Headers = nil, nil })
	}},
	{name: "suspended", asks: theSame, change: func(w *world, name string) {
		w.edit(name, func(task *v1alpha1.PrefetchTask) { task.Spec.Suspend = ptr.To(true) })
	}, undo: func(w *world, name string) {
		w.edit(name, func(task *v1alpha1.PrefetchTask) { task.Spec.Suspend = nil })
	}},
	{name: "labelled", asks: theSame, change: func(w *world, name string) {
		w.edit(name, func(task *v1alpha1.PrefetchTask) { task.Labels = map[string]string{"touched": "yes"} })
	}},
}

var newHeader = []v1alpha1.HTTPHeader{{Name: "X-New", Value: "1"}}

func (w *world) remove(name string) {
	w.t.Helper()
	w.must(w.Delete(w.t.Context(), &v1alpha1.PrefetchTask{ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: name}}))
}

// recreate deletes a task and creates one with the same name at once.
func (w *world) recreate(name, suffix string) {
	w.t.Helper()
	target := string(w.get(name).Spec.Targets[0])
	w.remove(name)
	w.create(w.task(name, target+suffix))
}

// handedOver reports whether the task has nothing to submit and nothing to settle.
func handedOver(task *v1alpha1.PrefetchTask) bool {
	return !taskstate.IsNewRun(task) && len(taskstate.OpenPositions(task)) == 0 && task.Status.Submission == nil
}

// Users act on tasks that share a call, at every step of the call.
func TestWhatUsersDoAtAnyStepIsSubmittedOnce(t *testing.T) {
	t.Parallel()
	const each = 8 // tasks per act
	steps := []struct {
		name string
		step func(w *world) (goOn func())
	}{
		{"before its claim", func(w *world) func() {
			held := w.api.Hold(faults.Claims)
			w.manager()
			<-held.Arrived()
			return held.Release
		}},
		{"after its claim", func(w *world) func() {
			held := w.api.HoldAnswer(faults.Claims)
			w.manager()
			<-held.Arrived()
			return held.Release
		}},
		{"before EdgeOne sees the call", func(w *world) func() {
			held := w.edgeOne.Hold(theCall)
			w.manager()
			<-held.Arrived()
			return held.Release
		}},
		{"before EdgeOne answers", func(w *world) func() {
			held := w.edgeOne.HoldAnswer(theCall)
			w.manager()
			<-held.Arrived()
			return held.Release
		}},
		{"before its record", func(w *world) func() {
			held := w.api.Hold(faults.Records)
			w.manager()
			<-held.Arrived()
			return held.Release
		}},
		{"while an executed call is unsettled", func(w *world) func() {
			w.edgeOne.AddFault(simulator.Fault{Match: theCall, Effect: simulator.Effect{Answer: simulator.ConnectionReset, Executed: true}})
			held := w.edgeOne.Hold(simulator.Matcher{Action: "DescribePrefetchTasks"})
			w.manager()
			<-held.Arrived()
			return held.Release
		}},
		{"while a call that was not executed is unsettled", func(w *world) func() {
			w.edgeOne.AddFault(simulator.Fault{Match: theCall, Effect: simulator.Effect{Answer: simulator.ConnectionReset}})
			held := w.edgeOne.Hold(simulator.Matcher{Action: "DescribePrefetchTasks", Count: 1})
			w.manager()
			<-held.Arrived()
			return held.Release
		}},
		{"while EdgeOne works", func(w *world) func() {
			w.manager()
			w.eventuallyAll("the job is recorded", func(tasks []v1alpha1.PrefetchTask) bool { return count(tasks, recorded) == len(tasks) })
			return func() {}
		}},
	}
	for _, tt := range steps {
		t.Run(tt.name, func(t *testing.T) {
			c := config()
			c.SignatureValidity = 10 * time.Second
			c.Rules = append([]simulator.Rule{{URL: good, Status: simulator.Never}}, c.Rules...)
			w := newWorld(t, c)
			w.proxy()
			name := func(i int) string { return fmt.Sprintf("%s-%d", acts[i%len(acts)].name, i/len(acts)) }
			i := 0
			old := w.many(each*len(acts), func(task *v1alpha1.PrefetchTask) {
				task.Name = name(i)
				i++
			})
			goOn := tt.step(w)
			for i := range old {
				acts[i%len(acts)].change(w, name(i))
			}
			w.strikes(len(old))
			goOn()
			if _, stuck := w.untilAll(func(task *v1alpha1.PrefetchTask) bool {
				return handedOver(task) || taskstate.IsSuspended(task) && !taskstate.HasClaim(task)
			}); stuck > 0 {
				t.Errorf("%d tasks are stuck, some of them not suspended", stuck)
			}
			for i := range old {
				if undo := acts[i%len(acts)].undo; undo != nil {
					undo(w, name(i))
				}
			}
			w.edgeOne.SetRules()
			w.edgeOne.Finish("", "success", "", "")
			w.judgeBy(func(tasks []v1alpha1.PrefetchTask, r *row) (complaints []string) {
				byName := map[string]*v1alpha1.PrefetchTask{}
				for i := range tasks {
					byName[tasks[i].Name] = &tasks[i]
				}
				for i, u := range old {
					for _, complaint := range acts[i%len(acts)].judge(w, byName[name(i)], u, r) {
						complaints = append(complaints, name(i)+": "+complaint)
					}
				}
				return complaints
			})
		})
	}
}

// judge compares a task on which the user acted with the ledger. What the task requests
// now must have been executed once, and what it requested before at most once.
func (a act) judge(w *world, task *v1alpha1.PrefetchTask, old string, r *row) (complaints []string) {
	expect := func(what string, n, atLeast, atMost int) {
		r.losses += max(0, atLeast-n)
		r.duplicates += max(0, n-atMost)
		if n < atLeast || n > atMost {
			complaints = append(complaints, fmt.Sprintf("%s was executed %d times, want %d to %d", what, n, atLeast, atMost))
		}
	}
	plain, withHeader, other := 0, 0, 0
	jobs := map[string]simulator.Execution{}
	for _, execution := range w.edgeOne.Ledger() {
		jobs[execution.JobID] = execution
		for _, u := range execution.Accepted {
			switch {
			case u == old+newURL:
				other++
			case u == old && len(execution.Headers) > 0:
				withHeader++
			case u == old:
				plain++
			}
		}
	}
	limits := map[work][3][2]int{ // minimum and maximum of executions: as before, with a header, another URL
		theSame:   {{1, 1}, {0, 0}, {0, 0}},
		nothing:   {{0, 1}, {0, 0}, {0, 0}},
		again:     {{1, 2}, {0, 0}, {0, 0}},
		otherURL:  {{0, 1}, {0, 0}, {1, 1}},
		otherWays: {{0, 1}, {1, 1}, {0, 0}},
	}[a.asks]
	expect("its first URL", plain, limits[0][0], limits[0][1])
	expect("its URL with a header", withHeader, limits[1][0], limits[1][1])
	expect("its new URL", other, limits[2][0], limits[2][1])
	if a.asks == nothing || task == nil {
		if a.asks != nothing || task != nil {
			complaints = append(complaints, "a task is there that should not be, or the other way round")
		}
		return complaints
	}
	for _, job := range task.Status.Jobs {
		execution, ok := jobs[job.ID]
		if !ok || !slices.Contains(execution.Accepted, string(task.Spec.Targets[0])) || len(execution.Headers) != len(task.Spec.Headers) {
			complaints = append(complaints, fmt.Sprintf("it took job %s for its own, which is %+v", job.ID, execution))
		}
	}
	return complaints
}

// A deleted namespace takes its tasks with it. Because there is no namespace controller
// here, the test does the same in the same order. The API server marks the namespace as
// Terminating, and then rejects new objects in it, including the operator's Events.
// Afterwards the tasks are deleted.
func TestANamespaceDeletedWithItsTasksDoesNotDisturbOthers(t *testing.T) {
	w := newWorld(t, patient())
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "e2e-"}}
	w.must(w.Create(t.Context(), ns))
	other := &world{Client: w.Client, t: t, cluster: w.cluster, namespace: ns.Name, edgeOne: w.edgeOne}
	held := w.edgeOne.HoldAnswer(theCall)
	w.many(hundreds / 2)
	gone := other.many(hundreds / 2)
	w.manager(append(patientFlags, "--watch-namespaces="+w.namespace+","+other.namespace)...)
	<-held.Arrived()
	w.must(w.Delete(t.Context(), ns))
	if err := other.Create(t.Context(), other.task("late", good+"late")); !apierrors.IsForbidden(err) {
		t.Errorf("creating a task in a namespace that is being deleted: %v", err)
	}
	for _, task := range other.list() {
		other.remove(task.Name)
	}
	held.Release()
	w.strikes(1)
	w.many(few, named("later"))
	w.judge()
	for _, u := range gone {
		if n := w.edgeOne.Executed(u); n > 1 {
			t.Errorf("EdgeOne executed %s %d times, whose task was deleted", u, n)
		}
	}
}

// The keys of an account change while a call is in progress, or while its response is
// lost. The new key belongs to the same account, as when keys are rotated.
func TestCredentialsThatChangeInFlightChangeNothing(t *testing.T) {
	t.Parallel()
	secret := func(w *world, id string) *corev1.Secret {
		return &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: "keys"},
			StringData: map[string]string{"secretId": id, "secretKey": keyValue}}
	}
	changes := []struct {
		name         string
		change, heal func(w *world)
	}{
		{"rotated", func(w *world) {
			w.must(w.Update(w.t.Context(), secret(w, "AKIDnext")))
			w.edgeOne.RemoveKey(keyID)
		}, nil},
		{"deleted and restored", func(w *world) {
			w.must(w.Delete(w.t.Context(), secret(w, keyID)))
		}, func(w *world) {
			w.must(w.Create(w.t.Context(), secret(w, keyID)))
		}},
		{"disabled and restored", func(w *world) {
			w.edgeOne.SetKey(simulator.Key{SecretID: keyID, SecretKey: keyValue, Account: "demo", Disabled: true})
		}, func(w *world) {
			w.edgeOne.SetKey(simulator.Key{SecretID: keyID, SecretKey: keyValue, Account: "demo"})
		}},
		{"deleted and replaced by a rotated key", func(w *world) {
			w.must(w.Delete(w.t.Context(), secret(w, keyID)))
			w.edgeOne.RemoveKey(keyID)
		}, func(w *world) {
			w.must(w.Create(w.t.Context(), secret(w, "AKIDnext")))
		}},
	}
	moments := []struct {
		name  string
		fault func(w *world) (arrived <-chan struct{}, goOn func())
	}{
		{"before the answer", func(w *world) (<-chan struct{}, func()) {
			held := w.edgeOne.HoldAnswer(theCall)
			return held.Arrived(), held.Release
		}},
		{"after an executed call was lost", func(w *world) (<-chan struct{}, func()) {
			held := w.edgeOne.HoldAnswer(theCall)
			return held.Arrived(), held.Drop
		}},
		{"after a call was lost", func(w *world) (<-chan struct{}, func()) {
			held := w.edgeOne.HoldExecution(theCall)
			return held.Arrived(), held.Drop
		}},
	}
	for _, change := range changes {
		for _, moment := range moments {
			t.Run(change.name+"/"+moment.name, func(t *testing.T) {
				c := config()
				c.SignatureValidity = 10 * time.Second
				c.Keys = append(c.Keys, simulator.Key{SecretID: "AKIDnext", SecretKey: keyValue, Account: "demo"})
				w := newWorld(t, c)
				w.must(w.Create(t.Context(), secret(w, keyID)))
				arrived, goOn := moment.fault(w)
				w.many(few, func(task *v1alpha1.PrefetchTask) { task.Spec.CredentialsSecretRef.Name = "keys" })
				p := w.managerWith(nil)
				<-arrived
				change.change(w)
				goOn()
				if change.heal != nil {
					w.eventuallyAll("the manager misses the keys, or needs them no more", func(tasks []v1alpha1.PrefetchTask) bool {
						out := p.Output()
						missed := strings.Contains(out, "Could not read EdgeOne's history") || strings.Contains(out, "Could not look up a lost call")
						return missed || count(tasks, succeeded) == len(tasks)
					})
					change.heal(w)
				}
				w.strikes(1)
				w.judge()
			})
		}
	}
}
