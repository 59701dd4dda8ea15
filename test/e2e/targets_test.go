package e2e

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/simulator"
)

// targetsFrom returns a new task that takes its targets from the key urls.txt of a
// ConfigMap.
func (w *world) targetsFrom(name, configMap string) *v1alpha1.PrefetchTask {
	task := w.task(name)
	task.Spec.TargetsFrom.ConfigMapKeyRef = v1alpha1.ConfigMapKeyReference{Name: configMap, Key: "urls.txt"}
	return task
}

// putList writes a ConfigMap whose key urls.txt has these lines.
func (w *world) putList(name string, lines ...string) {
	w.t.Helper()
	configMap := &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: name},
		Data:       map[string]string{"urls.txt": strings.Join(lines, "\n")},
	}
	err := w.Create(w.t.Context(), configMap)
	if err != nil {
		err = w.Update(w.t.Context(), configMap)
	}
	w.must(err)
}

// longURLs returns n URLs of 100 bytes each that only this test uses.
func (w *world) longURLs(n int) (urls []string) {
	for i := range n {
		u := fmt.Sprintf("%s%s/%d/", good, w.namespace, i)
		urls = append(urls, u+strings.Repeat("x", 100-len(u)))
	}
	return urls
}

// Two tasks share a list of 10,000 URLs. The manager is killed while their calls are being
// sent, and restarted. No URL is executed more than once for each of them, and the
// statuses stay small.
func TestALargeListIsSharedAndSubmittedOnceThroughAKilledManager(t *testing.T) {
	c := patient()
	c.Zones[1].Batch, c.Zones[1].Daily = 2000, 100_000
	w := newWorld(t, c)
	urls := w.longURLs(10_000)
	w.putList("shared", append([]string{"# the release", ""}, urls...)...)
	w.create(w.targetsFrom("one", "shared"), w.targetsFrom("two", "shared"))
	held := w.edgeOne.HoldAnswer(simulator.Matcher{Action: "CreatePrefetchTask", Nth: 5, Count: 1})
	first := w.manager()
	<-held.Arrived()
	first.Kill()
	held.Drop()
	w.manager()
	for _, name := range []string{"one", "two"} {
		task := w.untilFinished(name, v1alpha1.ReasonSucceeded)
		if got, want := counts(task.Status), "10000 submitted, 10000 succeeded, 0 failed of 10000"; got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
		status, err := json.Marshal(task.Status)
		w.must(err)
		t.Logf("%s: %d jobs, a status of %d bytes", name, len(task.Status.Jobs), len(status))
		if len(status) > 10_000 {
			t.Errorf("%s: the status has %d bytes", name, len(status))
		}
	}
	for _, u := range urls {
		if n := w.edgeOne.Executed(u); n < 1 || n > 2 {
			t.Errorf("EdgeOne executed %s %d times for two tasks", u, n)
		}
	}
	t.Logf("%d calls", w.creates())
	if batch := c.Zones[1].Batch; w.creates() > 2*len(urls)/batch {
		t.Errorf("%d calls of %d URLs for twice %d", w.creates(), batch, len(urls))
	}
}

// The same list in a spec.
func TestALargeTaskStaysAboutAsLargeAsItWasApplied(t *testing.T) {
	w := newWorld(t, patient())
	urls := w.longURLs(10_000)
	w.create(w.task("inline", urls...))
	applied, err := json.Marshal(w.get("inline"))
	w.must(err)
	w.manager()
	task := w.untilFinished("inline", v1alpha1.ReasonSucceeded)
	end, err := json.Marshal(task)
	w.must(err)
	t.Logf("%d bytes as applied, %d at the end, in %d jobs", len(applied), len(end), len(task.Status.Jobs))
	if 2*len(end) >= 3*len(applied) {
		t.Errorf("%d bytes as applied, %d at the end", len(applied), len(end))
	}
	w.once(urls...)
}

func TestAListThatIsWrongOrMissingIsToldOfAndHealed(t *testing.T) {
	tests := []struct {
		name   string
		reason string
		setUp  func(*world)
		want   string
	}{
		{"a missing ConfigMap", v1alpha1.ReasonTargetsMissing, func(*world) {}, `ConfigMap "list" does not exist in namespace`},
		{"a missing key", v1alpha1.ReasonTargetsMissing, func(w *world) {
			w.must(w.Create(w.t.Context(), &corev1.ConfigMap{
				ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: "list"}, Data: map[string]string{"other": good},
			}))
		}, "has no key urls.txt. Add it"},
		{"a bad line", v1alpha1.ReasonTargetsInvalid, func(w *world) { w.putList("list", good+"a", "# b", "www.example.com/b") },
			`Key "urls.txt" of ConfigMap "list": line 3, "www.example.com/b": must be a full URL that starts with http:// or https://`},
		{"an empty list", v1alpha1.ReasonTargetsInvalid, func(w *world) { w.putList("list", "# nothing", "") }, "it has no URLs"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t, config())
			tt.setUp(w)
			w.create(w.targetsFrom("task", "list"))
			w.manager()
			stalled := w.until("task", "Stalled for "+tt.reason, func(s v1alpha1.PrefetchTaskStatus) bool {
				return isTrue(s, v1alpha1.ConditionStalled, tt.reason)
			})
			if message := meta.FindStatusCondition(stalled.Status.Conditions, v1alpha1.ConditionStalled).Message; !strings.Contains(message, tt.want) {
				t.Errorf("it says %q, want %q in it", message, tt.want)
			}
			if n := w.creates(); n != 0 {
				t.Errorf("%d calls without a list", n)
			}
			w.putList("list", good+"a", good+"b\r", "", good+"a", "# c")
			done := w.untilFinished("task", v1alpha1.ReasonSucceeded)
			if meta.FindStatusCondition(done.Status.Conditions, v1alpha1.ConditionStalled) != nil || counts(done.Status) != "2 submitted, 2 succeeded, 0 failed of 2" {
				t.Errorf("at the end: %+v", done.Status)
			}
			w.once(good+"a", good+"b")
		})
	}
}

func TestAChangedListStartsNoRunAndANewRevisionDoes(t *testing.T) {
	w := newWorld(t, config())
	w.putList("list", good+"a", good+"b")
	w.create(w.targetsFrom("task", "list"))
	first := w.manager()
	w.untilFinished("task", v1alpha1.ReasonSucceeded)
	w.putList("list", good+"c", good+"d")
	first.Kill() // a finished task does not need its list, not even after a restart
	w.manager()
	w.create(w.task("later", good+"z"))
	w.untilFinished("later", v1alpha1.ReasonSucceeded)
	w.once(good+"a", good+"b")
	if n := w.edgeOne.Executed(good + "c"); n != 0 {
		t.Errorf("the changed list was submitted %d times without a new revision", n)
	}
	w.edit("task", func(task *v1alpha1.PrefetchTask) { task.Spec.Revision = "v2" })
	w.eventually("the new list is submitted", func() bool { return w.edgeOne.Executed(good+"c") == 1 && w.edgeOne.Executed(good+"d") == 1 })
	w.putList("list-2", good+"e")
	w.edit("task", func(task *v1alpha1.PrefetchTask) { task.Spec.TargetsFrom.ConfigMapKeyRef.Name = "list-2" })
	w.eventually("the list of another name is submitted", func() bool { return w.edgeOne.Executed(good+"e") == 1 })
	w.untilFinished("task", v1alpha1.ReasonSucceeded)
	w.once(good+"a", good+"b", good+"c", good+"d", good+"e")
}

// A list accepts the same lines that a spec accepts as targets.
func TestListsAndSpecsTakeTheSameURLs(t *testing.T) {
	w := newWorld(t, config())
	lines := []string{
		good + "a?b=c&d=e#f", good + "%20", good + "ü", good + "a\tb", good + "%zz", good + "{}|^`\"<>", good + "a\\b", good + "[", good + "a b",
		"https://www.example.com", "https://www.example.com:443/", "https://www.example.com:port/", "https://user@www.example.com/", "https://[::1]/",
		"https://[::1/", "https://?a", "https://:80/", "https:///a", "http:a", "HTTPS://www.example.com/", "//www.example.com/", "https://a_b.example.com/",
		"https://www.example.com/*", "https://exa mple.com/", "https://www.example.com#a", "https://www.example.com/\x7f", "https://www.example.com/\u00a0x",
		good + strings.Repeat("ü", 2048-len(good)), good + strings.Repeat("ü", 2049-len(good)),
	}
	taken := 0
	for i, line := range lines {
		err := w.Create(t.Context(), w.task(fmt.Sprint("spec-", i), line), client.DryRunAll)
		if err == nil {
			taken++
		}
		lines[i] = fmt.Sprint(err == nil, " ", line)
		name := fmt.Sprint("list-", i)
		w.putList(name, line)
		w.create(w.targetsFrom(name, name))
	}
	if taken < 8 || taken > len(lines)-8 {
		t.Fatalf("the API server takes %d of %d", taken, len(lines))
	}
	w.manager()
	for i, line := range lines {
		inSpec := strings.HasPrefix(line, "true")
		task := w.until(fmt.Sprint("list-", i), line+" is judged", func(s v1alpha1.PrefetchTaskStatus) bool {
			return isTrue(s, v1alpha1.ConditionStalled, v1alpha1.ReasonTargetsInvalid) || s.Run != ""
		})
		if inList := task.Status.Run != ""; inList != inSpec {
			t.Errorf("%.200s: in a list %v: %+v", line, inList, task.Status.Conditions)
		}
	}
}

// A list changes during a run. This does not affect the manager that started the run. With a
// manager that starts afterwards, the run starts again with the new list, and keeps what is
// recorded as prefetched, in whatever order.
func TestAListThatChangesDuringARunHeals(t *testing.T) {
	c := config()
	c.Zones[1].Batch = 2
	w := newWorld(t, c)
	list := []string{good + "a", good + "b", good + "c", good + "d", good + "e"}
	w.putList("list", list...)
	w.create(w.targetsFrom("task", "list"))
	held := w.edgeOne.HoldAnswer(simulator.Matcher{Action: "CreatePrefetchTask", Nth: 2, Count: 1})
	first := w.manager()
	<-held.Arrived()
	first.Kill()
	held.Drop()
	w.putList("list", good+"x", list[4], list[3], list[2], list[1], list[0])
	w.manager()
	w.untilFinished("task", v1alpha1.ReasonSucceeded)
	if task := w.get("task"); counts(task.Status) != "6 submitted, 6 succeeded, 0 failed of 6" {
		t.Errorf("counts: %s", counts(task.Status))
	}
	w.once(list[0], list[1], list[4], good+"x")
	for _, u := range list[2:4] { // their call was lost, and the new run does not look for it
		if n := w.edgeOne.Executed(u); n > 2 {
			t.Errorf("EdgeOne executed %s %d times", u, n)
		}
	}
}
