package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/cli"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/simulator"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
	"github.com/prefetch-operator/teo-prefetch-operator/test/faults"
)

func TestRetrySubmitsTheFailedURLsAndNothingElse(t *testing.T) {
	w := newWorld(t)
	w.create(w.task("home", good+"a.html", good+"flaky/b.html", good+"refused/c.html"))
	w.operate(func(c *simulator.Config) {
		c.Rules = append(c.Rules, simulator.Rule{URL: "/flaky/", Status: "failed"})
	})
	if r := w.run("wait", "home"); r.code != 2 {
		t.Fatalf("%+v", r)
	}
	before := w.countSubmissions()
	r := w.run("retry", "home")
	r.is(t, 1, "", "home: submits 2 URLs\nThis takes 2 URLs from the daily quota of zone zone-2x9examplea\n"+
		"Error: nothing was changed: nobody can be asked, because this is not a terminal; give --yes to confirm\n")
	r = w.run("retry", "home", "--yes", "--dry-run=server")
	r.is(t, 0, "prefetchtask.teo.prefetch-operator.io/home retry requested (server dry run)\n", r.err)
	if now := w.get("home").Annotations[v1alpha1.RetryAnnotation]; now != "" {
		t.Errorf("a dry run changed the task: %s", now)
	}
	r = w.run("retry", "home", "--yes", "--wait")
	if r.code != 2 || !strings.HasPrefix(r.out, "home: Failed: 2 of 3 targets failed: ") {
		t.Errorf("%+v", r)
	}
	if after := w.countSubmissions(); after[good+"a.html"] != before[good+"a.html"] || after[good+"flaky/b.html"] != before[good+"flaky/b.html"]+1 ||
		after[good+"refused/c.html"] != before[good+"refused/c.html"]+1 {
		t.Errorf("before %v, after %v", before, after)
	}
	w.create(w.task("fine", good+"fine.html"))
	w.run("wait", "fine")
	w.run("retry", "fine", "--yes").is(t, 0, "prefetchtask.teo.prefetch-operator.io/fine unchanged\n", "fine: nothing to do, no target has failed\n")
}

func TestRetryIsRequestedAlsoBeforeTheOperatorHasSeenAnEdit(t *testing.T) {
	w := newWorld(t)
	w.create(w.task("home", good+"1", good+"2"), w.task("running", good+"1", good+"2"))
	w.setStatus("home", func(task *v1alpha1.PrefetchTask) {
		task.Status.Run, task.Status.RefusedPositions = taskstate.RunHash(task), "1"
		task.Status.Jobs = []v1alpha1.Job{{ID: "a", ClaimID: "a", Positions: "0", SubmitTime: metav1.Now(), Succeeded: 1}}
		taskstate.UpdateSummary(task, metav1.Now().Time)
	})
	w.edit("home", func(task *v1alpha1.PrefetchTask) { task.Spec.TTLSecondsAfterFinished = 3600 })
	w.run("retry", "home", "--yes").is(t, 0, "prefetchtask.teo.prefetch-operator.io/home retry requested\n", "home: submits 1 URL\nThis takes 1 URL from the daily quota of zone zone-2x9examplea\n")
	if w.get("home").Annotations[v1alpha1.RetryAnnotation] == "" {
		t.Error("no retry is requested")
	}
	w.setStatus("running", func(task *v1alpha1.PrefetchTask) {
		task.Status.Run = taskstate.RunHash(task)
		task.Status.Jobs = []v1alpha1.Job{{ID: "a", ClaimID: "a", Positions: "0-1", SubmitTime: metav1.Now()}}
		taskstate.UpdateSummary(task, metav1.Now().Time)
	})
	r := w.run("retry", "running", "--dry-run=client")
	r.is(t, 0, "prefetchtask.teo.prefetch-operator.io/running retry requested (dry run)\n",
		"running: submits an unknown number of URLs\n"+
			"running: note: the run is not over: what has failed when it ends is submitted again (so far 0 targets)\n"+
			"This takes an unknown number of URLs from the daily quota of zone zone-2x9examplea\n")
}

func TestRerunSubmitsEveryURL(t *testing.T) {
	w := newWorld(t)
	w.create(&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: "urls"}, Data: map[string]string{"list": good + "1\n" + good + "2\n"}})
	fromMap := w.task("from-map")
	fromMap.Spec.TargetsFrom.ConfigMapKeyRef = v1alpha1.ConfigMapKeyReference{Name: "urls", Key: "list"}
	w.create(w.task("home", good+"a.html", good+"b.html", good+"a.html"), fromMap)
	w.operate(nil)
	w.run("wait", "home", "from-map")
	before := w.countSubmissions()
	r := w.run("rerun", "home", "from-map", "--revision=2", "--yes", "-o", "json")
	var got cli.ActResult
	w.must(json.Unmarshal([]byte(r.out), &got))
	if r.code != 0 || len(got.Tasks) != 2 || *got.Tasks[0].URLs != 2 || *got.Tasks[1].URLs != 2 || !got.Tasks[0].Changed {
		t.Errorf("%+v", r)
	}
	if r := w.run("wait", "home", "from-map"); r.code != 0 {
		t.Errorf("%+v", r)
	}
	for _, url := range []string{good + "a.html", good + "b.html", good + "1", good + "2"} {
		if n := w.countSubmissions()[url] - before[url]; n != 1 {
			t.Errorf("%s was submitted %d times more", url, n)
		}
	}
	w.run("rerun", "home", "--revision=2", "--yes").is(t, 0, "prefetchtask.teo.prefetch-operator.io/home unchanged\n",
		"home: nothing to do, its revision is \"2\" already; another revision submits every target again\n")
	w.create(w.task("new", good+"new.html"))
	before = w.countSubmissions()
	if r := w.run("rerun", "home", "new", "--revision=2", "--yes", "--wait"); r.code != 0 || w.get("new").Spec.Revision != "2" {
		t.Errorf("some tasks have the revision already: %+v", r)
	}
	if n := w.countSubmissions()[good+"a.html"] - before[good+"a.html"]; n != 0 {
		t.Errorf("a task that has the revision already was submitted %d times more", n)
	}
	if r := w.run("rerun", "home", "--yes", "-o", "name"); r.out != "prefetchtask.teo.prefetch-operator.io/home\n" || w.get("home").Spec.Revision == "2" {
		t.Errorf("%+v", r)
	}
}

func TestActionsInAllNamespacesNameThem(t *testing.T) {
	w, other := newWorld(t), newSecondWorld(t)
	var names, texts string
	for _, in := range []*world{w, other} {
		task := in.task("home", good)
		task.Labels = map[string]string{"for": w.namespace}
		in.create(task)
		names += "prefetchtask.teo.prefetch-operator.io/home\n"
	}
	namespaces := []string{w.namespace, other.namespace}
	slices.Sort(namespaces)
	for _, namespace := range namespaces {
		texts += "prefetchtask.teo.prefetch-operator.io/home suspended in namespace " + namespace + " (server dry run)\n"
	}
	args := []string{"suspend", "-A", "-l", "for=" + w.namespace, "--dry-run=server"}
	r := w.run(args...)
	r.is(t, 0, texts, r.err)
	r = w.run(append(args, "-o", "name")...)
	r.is(t, 0, names, r.err)
}

func TestActionsSayWhatAllTasksTakeOfEachQuota(t *testing.T) {
	w := newWorld(t)
	account := &v1alpha1.EdgeOneAccount{ObjectMeta: metav1.ObjectMeta{Name: w.namespace}}
	account.Spec.Credentials.SecretRef.Name = "keys"
	w.create(account)
	t.Cleanup(func() { _ = w.Delete(context.WithoutCancel(t.Context()), account) })
	account.Status = v1alpha1.EdgeOneAccountStatus{
		ObservedGeneration: account.Generation, DayStartTime: metav1.NewTime(time.Now().Add(-time.Hour)),
		Zones: []v1alpha1.AccountZoneStatus{{ID: zoneID, Daily: ptr.To[int32](10), Left: ptr.To[int32](3)}},
	}
	w.must(w.Status().Update(t.Context(), account))
	newTask := func(name string, change func(*v1alpha1.PrefetchTask)) {
		task := w.task(name, good+"1", good+"2")
		task.Labels = map[string]string{"release": "1"}
		task.Spec.AccountRef.Name = w.namespace
		change(task)
		w.create(task)
	}
	newTask("a", func(*v1alpha1.PrefetchTask) {})
	w.run("rerun", "a", "--dry-run=client").is(t, 0, "prefetchtask.teo.prefetch-operator.io/a rerun requested (dry run)\n",
		"a: submits 2 URLs\nThis takes 2 URLs from the daily quota of zone zone-2x9examplea, of which 3 are left today\n")
	newTask("b", func(*v1alpha1.PrefetchTask) {})
	newTask("edge", func(task *v1alpha1.PrefetchTask) { task.Spec.Mode = v1alpha1.ModeEdge })
	newTask("other", func(task *v1alpha1.PrefetchTask) { task.Spec.ZoneID = smallZone })
	newTask("same", func(task *v1alpha1.PrefetchTask) { task.Spec.Revision = "2" })
	newTask("unread", func(task *v1alpha1.PrefetchTask) {
		task.Spec.Targets = nil
		task.Spec.TargetsFrom.ConfigMapKeyRef = v1alpha1.ConfigMapKeyReference{Name: "missing", Key: "list"}
	})
	r := w.run("rerun", "-l", "release=1", "--revision=2", "--dry-run=client", "-o", "json")
	want := "a: submits 2 URLs\nb: submits 2 URLs\nedge: submits 2 URLs\nother: submits 2 URLs\n" +
		"same: nothing to do, its revision is \"2\" already; another revision submits every target again\n" +
		"Warning: the ConfigMap \"missing\" of task unread does not exist: create it, or correct spec.targetsFrom\n" +
		"unread: submits an unknown number of URLs\n" +
		"This takes at most 4 URLs and an unknown number of others from the daily quota of zone zone-2x9examplea, of which 3 are left today; the rest waits for new quota\n" +
		"This takes 2 URLs from the Edge quota of zone zone-2x9examplea\n" +
		"This takes 2 URLs from the daily quota of zone zone-3smallquota0\n"
	if !strings.HasSuffix(r.err, want) {
		t.Errorf("%s\nwant\n%s", r.err, want)
	}
}

func TestSuspendAndResume(t *testing.T) {
	w := newWorld(t)
	w.create(w.task("home", good+"a.html", good+"b.html"))
	w.run("suspend", "home").is(t, 0, "prefetchtask.teo.prefetch-operator.io/home suspended\n",
		"home: stops; 2 URLs are not submitted until it is resumed\n")
	w.run("suspend", "home").is(t, 0, "prefetchtask.teo.prefetch-operator.io/home unchanged\n", "home: nothing to do, it is suspended already\n")
	w.operate(nil)
	w.until("home", "suspended", func(task *v1alpha1.PrefetchTask) bool { return taskstate.ReadyReason(task) == v1alpha1.ReasonSuspended })
	if n := len(w.countSubmissions()); n != 0 {
		t.Errorf("%d URLs were submitted", n)
	}
	r := w.run("resume", "home", "--yes", "--wait")
	if r.code != 0 || r.out != "home: Succeeded: All 2 targets are prefetched\n" || !strings.HasPrefix(r.err, "home: submits 2 URLs\n") {
		t.Errorf("%+v", r)
	}
	w.run("resume", "home", "--yes").is(t, 0, "prefetchtask.teo.prefetch-operator.io/home unchanged\n", "home: nothing to do, it is not suspended\n")
}

func TestActionsSayWhichToolUndoesThem(t *testing.T) {
	w := newWorld(t)
	task := w.task("home", good)
	task.Annotations = map[string]string{"argocd.argoproj.io/tracking-id": "shop"}
	w.create(task)
	r := w.run("rerun", "home", "--yes")
	if r.code != 0 || !strings.Contains(r.err, "home: note: Argo CD manages this task: if its source sets spec.revision, the next sync sets it back, which submits everything once more; change it there\n") {
		t.Errorf("%+v", r)
	}
	fields := w.get("home").ManagedFields
	if last := fields[len(fields)-1]; last.Manager != "teo-prefetch" || last.FieldsV1.GetRawString() != `{"f:spec":{"f:revision":{}}}` {
		t.Errorf("%s owns %s", last.Manager, last.FieldsV1.GetRawString())
	}
}

func TestActionsCheckEveryTaskBeforeTheyChangeOne(t *testing.T) {
	w := newWorld(t)
	w.create(w.task("home", good))
	w.run("rerun", "home", "missing", "--yes").is(t, 1, "", "Error: there is no PrefetchTask \"missing\" in namespace \""+w.namespace+"\": check the name and --namespace\n")
	w.run("rerun", "home", "--yes", "--dry-run=yes").is(t, 1, "", "Error: unknown value \"yes\" of --dry-run: use none, client or server\n")
	if revision := w.get("home").Spec.Revision; revision != "" {
		t.Errorf("the task was changed: %q", revision)
	}
}

func TestFailedNamesWhatTheStatusAllowsToName(t *testing.T) {
	w := newWorld(t)
	var urls []string
	for i := range 150 {
		urls = append(urls, fmt.Sprintf("%s%d", good, i))
	}
	w.create(w.task("some", urls...))
	w.setStatus("some", func(task *v1alpha1.PrefetchTask) {
		s := &task.Status
		s.ObservedGeneration, s.Run, s.RefusedPositions = task.Generation, taskstate.RunHash(task), "0-9"
		s.Jobs = []v1alpha1.Job{
			{ID: "whole", ClaimID: "a", Positions: "10-19", SubmitTime: metav1.Now(), Failed: 10},
			{ID: "part", ClaimID: "b", Positions: "20-149", SubmitTime: metav1.Now(), Failed: 7, Succeeded: 123},
		}
		s.FailedTargets = []v1alpha1.FailedTarget{{URL: urls[25], Reason: "Invalid", Message: "The origin answered 404."}}
		taskstate.UpdateSummary(task, metav1.Now().Time)
	})
	r := w.run("failed", "some", "-o", "urls")
	want := append([]string{urls[25]}, urls[:20]...)
	r.is(t, 0, strings.Join(want, "\n")+"\n", "6 of 27 failed targets are not named: the status of a task has no room for all. "+
		"They are retried with the others: kubectl teo-prefetch retry some -n "+w.namespace+"\n")
	r = w.run("failed", "some")
	if lines := strings.Split(r.out, "\n"); len(lines) != 23 || strings.Join(strings.Fields(lines[0]), " ") != "URL REASON MESSAGE" ||
		strings.Join(strings.Fields(lines[1]), " ") != urls[25]+" Invalid The origin answered 404." || !strings.Contains(lines[2], "Refused") || !strings.Contains(lines[12], "<none>") {
		t.Errorf("%s", r.out)
	}
	var got cli.FailedResult
	w.must(json.Unmarshal([]byte(w.run("failed", "some", "-o", "json").out), &got))
	if got.Failed != 27 || got.Unnamed != 6 || len(got.FailedTargets) != 21 {
		t.Errorf("%+v", got)
	}
	w.create(w.task("new", good))
	w.run("failed", "new").is(t, 0, "", "No target of new has failed so far. Its run is not over.\n")
	w.setStatus("new", succeeded)
	w.run("failed", "new").is(t, 0, "", "No target of new has failed.\n")
}

// countSubmissions returns how often each URL was submitted.
func (w *world) countSubmissions() map[string]int {
	n := map[string]int{}
	for _, call := range w.edgeOne.Calls() {
		if call.Action == "CreatePrefetchTask" {
			for _, url := range call.URLs {
				n[url]++
			}
		}
	}
	return n
}

func TestActionsReadASelectionPageByPage(t *testing.T) {
	w := newWorld(t)
	const tasks = 60 // more than a page has
	for i := range tasks {
		task := w.task(fmt.Sprintf("home-%02d", i), good+"1", good+"2")
		if task.Labels = map[string]string{"for": w.namespace}; i == 0 {
			task.Spec.Suspend = ptr.To(true)
		}
		w.create(task)
	}
	proxy := w.startProxy()
	gets := proxy.AddFault(faults.Fault{Match: faults.Match{Verb: "get", Resource: "prefetchtasks"}, Effect: faults.Effect{Delay: 1}})
	r := w.startWith(proxy.Config(shared.cluster.Admin), "", "suspend", "-l", "for="+w.namespace).wait()
	if r.code != 0 || strings.Count(r.out, " suspended\n") != tasks-1 || strings.Count(r.out, " unchanged\n") != 1 ||
		strings.Count(r.err, ": stops; 2 URLs are not submitted until it is resumed\n") != tasks-1 || proxy.Taken(gets) != 0 {
		t.Errorf("%d reads of one task, %+v", proxy.Taken(gets), r)
	}
}
