package cli

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/cli"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
	"github.com/prefetch-operator/teo-prefetch-operator/test/faults"
)

func TestWaitReportsEachOutcomeWithItsExitCode(t *testing.T) {
	w := newWorld(t)
	quota := w.task("quota", "https://small.example.net/1", "https://small.example.net/2", "https://small.example.net/3", "https://small.example.net/4")
	quota.Spec.ZoneID = smallZone
	secret := w.task("no-secret", good+"secret.html")
	secret.Spec.CredentialsSecretRef.Name = "missing"
	w.create(w.task("good", good+"index.html", good+"app.js"), w.task("one-bad", good+"a.html", good+"missing/b.html"), secret, quota)
	w.operate(nil)
	t.Run("success", func(t *testing.T) {
		r := w.run("wait", "good")
		r.is(t, 0, "good: Succeeded: All 2 targets are prefetched\n", r.err)
		if strings.Contains(r.err, "Succeeded") { // a pipeline shows both
			t.Errorf("the outcome is there twice: %+v", r)
		}
	})
	t.Run("a bad URL", func(t *testing.T) {
		r := w.run("wait", "good", "pft/one-bad")
		want := "good: Succeeded: All 2 targets are prefetched\n" +
			"one-bad: Failed: 1 of 2 targets failed: https://www.example.com/missing/b.html (Invalid: The origin answered 404.)\n"
		if r.code != 2 || r.out != want || !strings.Contains(r.err, "\n  https://www.example.com/missing/b.html  Invalid: The origin answered 404.\n") {
			t.Errorf("%+v", r)
		}
	})
	t.Run("a missing Secret", func(t *testing.T) {
		r := w.run("wait", "no-secret", "--stalled-grace=100ms")
		if r.code != 3 || !strings.HasPrefix(r.out, "no-secret: Stalled: ") || strings.Count(r.out, "\n") != 1 {
			t.Errorf("%+v", r)
		}
	})
	t.Run("the quota is used up", func(t *testing.T) {
		w.until("quota", "held", func(task *v1alpha1.PrefetchTask) bool {
			return taskstate.ReadyReason(task) == v1alpha1.ReasonDailyQuota
		})
		r := w.run("wait", "quota", "--timeout=1s")
		if r.code != 4 || !strings.HasPrefix(r.out, "quota: Running: 3 of 4 targets submitted, 1 waiting. ") ||
			!strings.Contains(r.err, "To wait again: kubectl teo-prefetch wait quota --timeout=1s -n "+w.namespace+"\n") {
			t.Errorf("%+v", r)
		}
	})
	t.Run("JSON", func(t *testing.T) {
		r := w.run("wait", "one-bad", "-o", "json")
		var got cli.WaitResult
		w.must(json.Unmarshal([]byte(r.out), &got))
		if r.code != 2 || got.APIVersion != cli.OutputVersion || got.Kind != "WaitResult" || got.ExitCode != 2 || len(got.Tasks) != 1 ||
			got.Tasks[0].Targets != (cli.TargetCounts{Total: 2, Submitted: 2, Succeeded: 1, Failed: 1}) ||
			len(got.Tasks[0].FailedTargets) != 1 || got.Tasks[0].FailedTargets[0].Reason != v1alpha1.FailedInvalid {
			t.Errorf("%+v", got)
		}
	})
}

func TestWaitOutlivesAShortLackOfASecret(t *testing.T) {
	w := newWorld(t)
	task := w.task("early", good+"early.html")
	task.Spec.CredentialsSecretRef.Name = "keys"
	w.create(task)
	w.operate(nil)
	c := w.start("", "wait", "early", "--stalled-grace=1m")
	c.waitForErr("early: CredentialsMissing")
	w.create(&corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: "keys"},
		StringData: map[string]string{"secretId": "AKIDdemo", "secretKey": "demo-secret-key"},
	})
	if r := c.wait(); r.code != 0 {
		t.Errorf("%+v", r)
	}
}

func TestWaitDoesNotTakeAnEarlierRunForTheCurrentOne(t *testing.T) {
	w := newWorld(t)
	w.create(w.task("again", good+"again.html"))
	w.setStatus("again", succeeded)
	if r := w.run("wait", "again"); r.code != 0 {
		t.Fatalf("%+v", r)
	}
	w.edit("again", func(task *v1alpha1.PrefetchTask) { task.Spec.Revision = "2" })
	c := w.start("", "wait", "again")
	c.waitForErr("again: NotObserved (0/1)")
	w.setStatus("again", succeeded)
	if r := c.wait(); r.code != 0 {
		t.Errorf("%+v", r)
	}
	w.setStatus("again", func(task *v1alpha1.PrefetchTask) { taskstate.FinishRun(task, 1, 1, metav1.Now().Time) })
	w.edit("again", func(task *v1alpha1.PrefetchTask) { task.Annotations = map[string]string{v1alpha1.RetryAnnotation: "1"} })
	c = w.start("", "wait", "again")
	c.waitForErr("again: RetryRequested (1/1)")
	w.setStatus("again", func(task *v1alpha1.PrefetchTask) { task.Status.LastHandledRetry = "1" })
	if r := c.wait(); r.code != 2 {
		t.Errorf("%+v", r)
	}
}

func TestWaitKnowsWhatADeletionMeans(t *testing.T) {
	w := newWorld(t)
	w.create(w.task("over", good), w.task("open", good), w.task("other", good))
	w.setStatus("over", succeeded)
	c := w.start("", "wait", "over", "open", "other")
	c.waitForErr("open: NotObserved")
	c.waitForErr("other: NotObserved")
	w.must(w.Delete(t.Context(), w.get("over")))
	w.must(w.Delete(t.Context(), w.get("open")))
	c.waitForErr("open: Deleted")
	w.setStatus("other", succeeded)
	c.wait().is(t, 1, "over: Succeeded: The target is prefetched\nopen: Deleted: The task was deleted before its run was over\nother: Succeeded: The target is prefetched\n",
		c.err.String())
}

func TestWaitForASelectorWaitsForTheTasksThatMatchAtTheStart(t *testing.T) {
	w := newWorld(t)
	a, b := w.task("a", good), w.task("b", good)
	a.Labels, b.Labels = map[string]string{"release": "1"}, map[string]string{"release": "1"}
	w.create(a, b)
	w.setStatus("a", succeeded)
	c := w.start("", "wait", "-l", "release=1")
	c.waitForErr("b: NotObserved")
	w.edit("b", func(task *v1alpha1.PrefetchTask) { task.Labels = nil })
	late := w.task("late", good)
	late.Labels = a.Labels
	w.create(late)
	w.setStatus("b", succeeded)
	if r := c.wait(); r.code != 0 || r.out != "a: Succeeded: The target is prefetched\nb: Succeeded: The target is prefetched\n" {
		t.Errorf("%+v", r)
	}
	w.run("wait", "-l", "release=3").is(t, 1, "", "Error: no task matches --selector release=3 in namespace \""+w.namespace+"\"\n")
}

func TestWaitSaysHowToContinueASuspendedTask(t *testing.T) {
	w := newWorld(t)
	task := w.task("held", good+"held.html")
	task.Spec.Suspend = ptr.To(true)
	w.create(task)
	w.operate(nil)
	c := w.start("", "wait", "held")
	c.waitForErr("held: Suspended (0/1): Nothing is submitted while spec.suspend is true; continues after: kubectl teo-prefetch resume held -n " + w.namespace + "\n")
	w.edit("held", func(task *v1alpha1.PrefetchTask) { task.Spec.Suspend = nil })
	if r := c.wait(); r.code != 0 {
		t.Errorf("%+v", r)
	}
}

func TestCtrlCLeavesTheTaskAndSaysHowToGoOn(t *testing.T) {
	w := newWorld(t)
	w.create(w.task("open", good))
	c := w.start("", "wait", "open")
	c.waitForErr("open: NotObserved")
	c.interrupt()
	r := c.wait()
	want := "Error: interrupted; the tasks continue. To wait again: kubectl teo-prefetch wait open -n " + w.namespace + "\n"
	if r.code != 130 || r.out != "" || !strings.HasSuffix(r.err, want) {
		t.Errorf("%+v", r)
	}
	w.get("open")
}

var (
	taskLists = faults.Match{Verb: "list", Resource: "prefetchtasks"}
	refuse    = func(m faults.Match, status, count int) faults.Fault {
		m.Count = count
		return faults.Fault{Match: m, Effect: faults.Effect{Status: status}}
	}
)

// startProxy starts a proxy in front of the API server.
func (w *world) startProxy() *faults.Proxy {
	w.t.Helper()
	proxy, err := faults.StartProxy(shared.cluster)
	w.must(err)
	return proxy
}

func TestWaitMissesNothingWhileItsWatchIsBroken(t *testing.T) {
	w := newWorld(t)
	w.create(w.task("open", good), w.task("gone", good))
	proxy := w.startProxy()
	c := w.startWith(proxy.Config(shared.cluster.Admin), "", "wait", "open", "gone")
	c.waitForErr("open: NotObserved")
	c.waitForErr("gone: NotObserved")
	areWatched := func() bool { return proxy.CountWatches(faults.TaskWatches) == 2 }
	w.eventually("both tasks are watched", areWatched)
	expired := proxy.AddFault(refuse(faults.TaskWatches, 410, 2))
	proxy.CutWatches(faults.TaskWatches)
	w.eventually("the watches have expired", func() bool { return proxy.Taken(expired) == 2 })
	w.eventually("both tasks are watched again", areWatched)
	broken := proxy.AddFault(faults.Fault{Match: faults.Match{Resource: "prefetchtasks"}, Effect: faults.Effect{Close: true}})
	proxy.CutWatches(faults.TaskWatches)
	w.setStatus("open", succeeded)
	w.must(w.Delete(t.Context(), w.get("gone")))
	c.waitForErr("The tasks cannot be read (")
	proxy.RemoveFault(broken)
	if r := c.wait(); r.code != 1 || !strings.HasPrefix(r.out, "open: Succeeded: ") || !strings.Contains(r.out, "\ngone: Deleted: ") ||
		strings.Count(r.err, "; trying again\n") != 1 {
		t.Errorf("%+v", r)
	}
}

func TestWaitOutlivesARefusalThatEnds(t *testing.T) {
	for _, status := range []int{401, 403, 404} {
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			w := newWorld(t)
			w.create(w.task("home", good))
			proxy := w.startProxy()
			c := w.startWith(proxy.Config(shared.cluster.Admin), "", "wait", "home")
			c.waitForErr("home: NotObserved")
			w.eventually("the task is watched", func() bool { return proxy.CountWatches(faults.TaskWatches) == 1 })
			proxy.AddFault(refuse(faults.TaskWatches, status, 2))
			proxy.CutWatches(faults.TaskWatches)
			c.waitForErr("trying again")
			w.setStatus("home", succeeded)
			if r := c.wait(); r.code != 0 {
				t.Errorf("%+v", r)
			}
		})
	}
}

func TestARefusalThatLastsEndsWait(t *testing.T) {
	w := newWorld(t)
	w.create(w.task("home", good))
	proxy := w.startProxy()
	c := w.startWith(proxy.Config(shared.cluster.Admin), "", "wait", "home")
	c.waitForErr("home: NotObserved")
	w.eventually("the task is watched", func() bool { return proxy.CountWatches(faults.TaskWatches) == 1 })
	proxy.AddFault(refuse(faults.TaskWatches, 403, 0))
	proxy.CutWatches(faults.TaskWatches)
	if r := c.wait(); r.code != 1 || r.out != "" || !strings.HasSuffix(r.err, "; ask who manages the cluster for the role edit (or view, to read only)\n") {
		t.Errorf("%+v", r)
	}
}

func TestWaitKnowsADeletionBeforeItsFirstLook(t *testing.T) {
	w := newWorld(t)
	for _, args := range [][]string{{"home"}, {"-l", "for=" + w.namespace}} {
		task := w.task("home", good)
		task.Labels = map[string]string{"for": w.namespace}
		w.create(task)
		proxy := w.startProxy()
		lists := taskLists
		if args[0] == "-l" { // the first one selects the tasks
			lists.Nth = 2
		}
		list := proxy.Hold(lists)
		c := w.startWith(proxy.Config(shared.cluster.Admin), "", append([]string{"rerun", "--yes", "--wait"}, args...)...)
		<-list.Arrived()
		w.must(w.Delete(t.Context(), w.get("home")))
		list.Release()
		if r := c.wait(); r.code != 1 || r.out != "home: Deleted: The task was deleted before its run was over\n" {
			t.Errorf("%+v", r)
		}
	}
}

func TestTheTimeOfWaitIncludesItsStart(t *testing.T) {
	w := newWorld(t)
	w.create(w.task("home", good))
	proxy := w.startProxy()
	proxy.Hold(taskLists)
	r := w.startWith(proxy.Config(shared.cluster.Admin), "", "wait", "home", "--timeout=100ms").wait()
	if r.code != 4 || r.out != "home: Running: The cluster has not said yet how far the task is\n" {
		t.Errorf("%+v", r)
	}
	r = w.startWith(proxy.Config(shared.cluster.Admin), "", "wait", "-l", "a=b", "-o", "json", "--timeout=100ms").wait()
	var got cli.WaitResult
	w.must(json.Unmarshal([]byte(r.out), &got))
	if r.code != 4 || got.ExitCode != 4 || got.Tasks == nil || len(got.Tasks) != 0 {
		t.Errorf("%+v", r)
	}
}

func TestATaskThatIsSelectedNoMoreIsNotTakenForDeleted(t *testing.T) {
	w := newWorld(t)
	task := w.task("home", good)
	task.Labels = map[string]string{"for": w.namespace}
	w.create(task)
	proxy := w.startProxy()
	c := w.startWith(proxy.Config(shared.cluster.Admin), "", "wait", "-l", "for="+w.namespace)
	c.waitForErr("home: NotObserved")
	w.eventually("the tasks are watched", func() bool { return proxy.CountWatches(faults.TaskWatches) == 1 })
	proxy.AddFault(refuse(taskLists, 500, 1))
	w.edit("home", func(task *v1alpha1.PrefetchTask) { task.Labels = nil })
	c.waitForErr("trying again")
	w.setStatus("home", succeeded)
	if r := c.wait(); r.code != 0 {
		t.Errorf("%+v", r)
	}
}

func TestManyTasksAreFollowedByOneWatch(t *testing.T) {
	w := newWorld(t)
	for i := range 4 {
		task := w.task(fmt.Sprint("home-", i), good)
		task.Labels = map[string]string{"for": w.namespace}
		w.create(task)
	}
	proxy := w.startProxy()
	c := w.startWith(proxy.Config(shared.cluster.Admin), "", "rerun", "-l", "for="+w.namespace, "--yes", "--wait")
	for i := range 4 {
		c.waitForErr(fmt.Sprintf("home-%d: NotObserved", i))
		w.setStatus(fmt.Sprint("home-", i), succeeded)
		if i < 3 {
			c.waitForErr(fmt.Sprintf("home-%d: Succeeded", i))
		}
		if n := proxy.CountWatches(faults.TaskWatches); n > 1 {
			t.Errorf("%d watches", n)
		}
	}
	if r := c.wait(); r.code != 0 || strings.Count(r.out, ": Succeeded: ") != 4 {
		t.Errorf("%+v", r)
	}
}

func TestACacheThatLagsDoesNotEndWait(t *testing.T) {
	w := newWorld(t)
	task := w.task("home", good)
	task.Labels = map[string]string{"for": w.namespace}
	w.create(task)
	w.setStatus("home", succeeded)
	lagging := w.startLaggingCache()
	for _, args := range [][]string{{"rerun", "home", "--yes", "--wait"}, {"rerun", "-l", "for=" + w.namespace, "--yes", "--wait"}, {"wait", "home"}} {
		if args[0] == "wait" {
			w.edit("home", func(task *v1alpha1.PrefetchTask) { task.Spec.Revision = "next" })
		}
		c := w.startWith(lagging, "", args...)
		c.waitForErr("home: NotObserved")
		w.setStatus("home", failed)
		if r := c.wait(); r.code != 2 || r.out != "home: Failed: The target failed\n" || strings.Contains(r.err, "The target failed") {
			t.Errorf("%q: %+v", args, r)
		}
	}
}

// failed writes the status of a run of which the only target failed.
func failed(task *v1alpha1.PrefetchTask) {
	succeeded(task)
	task.Status.Targets.Succeeded, task.Status.Targets.Failed = ptr.To[int32](0), ptr.To[int32](1)
	taskstate.FinishRun(task, 1, 1, metav1.Now().Time)
}

// startLaggingCache starts an API server whose cache of tasks stays as it is now. Lists that need not be
// consistent come from there.
func (w *world) startLaggingCache() *rest.Config {
	w.t.Helper()
	cached := &v1alpha1.PrefetchTaskList{}
	w.must(w.List(w.t.Context(), cached, client.InNamespace(w.namespace)))
	cached.SetGroupVersionKind(v1alpha1.GroupVersion.WithKind("PrefetchTaskList"))
	transport, err := rest.TransportFor(shared.cluster.Admin)
	w.must(err)
	host, err := url.Parse(shared.cluster.Admin.Host)
	w.must(err)
	proxy := httputil.NewSingleHostReverseProxy(host)
	proxy.Transport, proxy.FlushInterval = transport, -1
	server := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		query := r.URL.Query()
		switch {
		case query.Get("sendInitialEvents") != "": // not every API server can
			rw.WriteHeader(http.StatusUnprocessableEntity)
		case query.Get("resourceVersion") == "0" && strings.HasSuffix(r.URL.Path, "/prefetchtasks"):
			rw.Header().Set("Content-Type", "application/json")
			_ = json.NewEncoder(rw).Encode(cached)
		default:
			proxy.ServeHTTP(rw, r)
		}
	}))
	w.t.Cleanup(func() { server.CloseClientConnections(); server.Close() })
	return &rest.Config{Host: server.URL}
}

func TestWaitWithBadArguments(t *testing.T) {
	w := newWorld(t)
	for _, c := range []struct{ args, err string }{
		{"wait", "no task is named: give its name, or --selector"},
		{"wait a -l b=c", "give names or --selector, not both"},
		{"wait a -A", "a name is of one namespace: give --namespace in place of --all-namespaces, or --selector in place of names"},
		{"wait a --timeout=45", `--timeout is "45": give a duration in h, m or s, such as 24h, 45m or 30s`},
		{"rerun a --wait=45m", `--wait is "45m", and has no value: for a limit, give --wait --timeout=45m`},
		{"rerun a --yes=x", `--yes is "x": give it without a value, or true or false`},
		{"verify a --sample=x", `--sample is "x": give a whole number`},
		{"rerun a --timeout=45m", "--timeout and --stalled-grace are of no use without --wait: give --wait as well"},
		{"why", "no task is named: give its name"},
		{"failed a b", "2 tasks are named, and the command is about one: give one name"},
		{"wait a -o xml", `unknown output format "xml": use one of json, yaml`},
		{"wait none", `there is no PrefetchTask "none" in namespace "` + w.namespace + `": check the name and --namespace`},
	} {
		w.run(strings.Fields(c.args)...).is(t, 1, "", "Error: "+c.err+"\n")
	}
}

// succeeded writes the status of a run of which every target is prefetched.
func succeeded(task *v1alpha1.PrefetchTask) {
	task.Status.ObservedGeneration, task.Status.Run = task.Generation, taskstate.RunHash(task)
	n := len(task.Spec.Targets)
	task.Status.Targets = v1alpha1.TargetCounts{Total: ptr.To(int32(n)), Submitted: ptr.To(int32(n)), Succeeded: ptr.To(int32(n)), Failed: ptr.To[int32](0)}
	taskstate.FinishRun(task, n, 0, metav1.Now().Time)
}

// edit changes a task.
func (w *world) edit(name string, change func(*v1alpha1.PrefetchTask)) {
	w.t.Helper()
	task := w.get(name)
	before := task.DeepCopy()
	change(task)
	w.must(w.Patch(w.t.Context(), task, client.MergeFrom(before)))
}

func TestWaitDoesNotTakeTheRunBeforeForOneWithoutItsList(t *testing.T) {
	w := newWorld(t)
	list := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: "urls"}, Data: map[string]string{"list": good + "1\n"}}
	task := w.task("from-map")
	task.Spec.TargetsFrom.ConfigMapKeyRef = v1alpha1.ConfigMapKeyReference{Name: "urls", Key: "list"}
	w.create(list, task)
	w.operate(nil)
	if r := w.run("wait", "from-map"); r.code != 0 {
		t.Fatalf("%+v", r)
	}
	w.must(w.Delete(t.Context(), list))
	r := w.run("rerun", "from-map", "--revision=2", "--yes", "--wait", "--stalled-grace=0s")
	if r.code != 3 || !strings.HasPrefix(r.out, "from-map: Stalled: ") || !strings.Contains(r.err, "submits an unknown number of URLs") {
		t.Errorf("%+v", r)
	}
}
