package taskstate_test

import (
	"fmt"
	"slices"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate/taskstatetest"
)

func TestWhatStartsANewRun(t *testing.T) {
	type edit = func(*v1alpha1.PrefetchTask)
	for _, c := range []struct {
		name           string
		edit           edit
		run, semantics bool
	}{
		{"suspend", func(p *v1alpha1.PrefetchTask) { p.Spec.Suspend = ptr.To(true) }, false, false},
		{"credentials", func(p *v1alpha1.PrefetchTask) { p.Spec.CredentialsSecretRef.Name = "other" }, false, false},
		{"labels", func(p *v1alpha1.PrefetchTask) { p.Labels = map[string]string{"a": "b"} }, false, false},
		{"the order of headers", func(p *v1alpha1.PrefetchTask) {
			h := p.Spec.Headers
			p.Spec.Headers = []v1alpha1.HTTPHeader{h[1], h[0]}
		}, false, false},
		{"a default spelled out", func(p *v1alpha1.PrefetchTask) {
			p.Spec.Mode, p.Spec.MediaSegments = v1alpha1.ModeDefault, v1alpha1.MediaSegmentsIgnore
		}, false, false},
		{"a target listed again", func(p *v1alpha1.PrefetchTask) { p.Spec.Targets = append(p.Spec.Targets, p.Spec.Targets[0]) }, false, false},
		{"another target", func(p *v1alpha1.PrefetchTask) { p.Spec.Targets = append(p.Spec.Targets, "https://a.example/new") }, true, false},
		{"another zone", func(p *v1alpha1.PrefetchTask) { p.Spec.ZoneID = "zone-2" }, true, false},
		{"a revision", func(p *v1alpha1.PrefetchTask) { p.Spec.Revision = "2" }, true, false},
		{"encodeURL", func(p *v1alpha1.PrefetchTask) { p.Spec.EncodeURL = ptr.To(false) }, true, false},
		{"the mode", func(p *v1alpha1.PrefetchTask) { p.Spec.Mode = v1alpha1.ModeEdge }, true, true},
		{"the value of a header", func(p *v1alpha1.PrefetchTask) { p.Spec.Headers[0].Value = "x" }, true, true},
		{"media segments", func(p *v1alpha1.PrefetchTask) { p.Spec.MediaSegments = v1alpha1.MediaSegmentsPrefetch }, true, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := taskstatetest.NewTask("a", taskstatetest.ListURLs("a", 3)...)
			a.Spec.Headers = []v1alpha1.HTTPHeader{{Name: "B", Value: "1"}, {Name: "A", Value: "2"}}
			b := a.DeepCopy()
			c.edit(b)
			if got := taskstate.RunHash(a) != taskstate.RunHash(b); got != c.run {
				t.Errorf("it starts a new run: %v", got)
			}
			if got := taskstate.HashSemantics(a) != taskstate.HashSemantics(b); got != c.semantics {
				t.Errorf("it changes how targets are fetched: %v", got)
			}
		})
	}
}

func TestWaiting(t *testing.T) {
	claimed := func(p *v1alpha1.PrefetchTask) {
		p.Status.Submission = &v1alpha1.Submission{ClaimID: "c", ZoneID: "zone-1", Positions: "0-3", Semantics: taskstate.HashSemantics(p)}
	}
	type edit = func(*v1alpha1.PrefetchTask)
	for _, c := range []struct {
		name  string
		edits []edit
		waits bool
		open  string
	}{
		{"a new task waits with all its targets", nil, true, "0-3"},
		{"one whose run has begun waits for the rest", []edit{taskstatetest.Begun("0-1")}, true, "2-3"},
		{"refused targets are not open", []edit{taskstatetest.Begun("0-1"), func(p *v1alpha1.PrefetchTask) { p.Status.RefusedPositions = "2" }}, true, "3"},
		{"one that is handed over does not wait", []edit{taskstatetest.Begun("0-3")}, false, ""},
		{"a claimed one does not wait", []edit{taskstatetest.Begun(""), claimed}, false, "0-3"},
		{"a claim of an earlier run does not count", []edit{taskstatetest.Begun(""), claimed, taskstatetest.Revise}, true, "0-3"},
		{"but it does if targets were fetched in another way", []edit{taskstatetest.Begun(""), claimed, taskstatetest.UseEdgeMode}, false, "0-3"},
		{"a suspended one does not wait", []edit{taskstatetest.Suspend}, false, "0-3"},
		{"one that goes away does not wait", []edit{func(p *v1alpha1.PrefetchTask) { p.DeletionTimestamp = ptr.To(metav1.Now()) }}, false, "0-3"},
		{"lost calls do not end the waiting", []edit{taskstatetest.Begun(""), taskstatetest.WithLostCalls(3)}, true, "0-3"},
		{"a finished one does not wait", []edit{taskstatetest.Begun(""), taskstatetest.Finish}, false, "0-3"},
		{"until a new run is asked for", []edit{taskstatetest.Begun("0-3"), taskstatetest.Finish, taskstatetest.Revise}, true, "0-3"},
		{"what was edited into nonsense counts as handed over", []edit{taskstatetest.Begun("x")}, false, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			task := taskstatetest.NewTask("a", taskstatetest.ListURLs("a", 4)...)
			for _, edit := range c.edits {
				edit(task)
			}
			if got := taskstate.IsWaiting(task, v1alpha1.JobPrefetch); got != c.waits {
				t.Errorf("it waits: %v", got)
			}
			if got := taskstate.OpenPositions(task).String(); got != c.open {
				t.Errorf("open is %q, want %q", got, c.open)
			}
		})
	}
}

// The values derived from a long list are cached. A cached value must not be used for
// another list.
func TestRunsOfLongListsDifferAsThoseOfShortOnes(t *testing.T) {
	long := make([]v1alpha1.Target, 512)
	for i := range long {
		long[i] = v1alpha1.Target(fmt.Sprintf("https://h/%d", i))
	}
	one := taskstatetest.NewTask("one", long...)
	other := taskstatetest.NewTask("other", append(slices.Clone(long[:len(long)-1]), "https://h/other")...)
	revised := taskstatetest.NewTask("revised", long...)
	revised.Spec.Revision = "2"
	part := taskstatetest.NewTask("part", long[:256]...)
	names := map[string]string{}
	for range 2 { // the second pass uses the cache
		for _, task := range []*v1alpha1.PrefetchTask{one, other, revised, part} {
			run := taskstate.RunHash(task)
			if known, ok := names[run]; ok && known != task.Name {
				t.Errorf("%s and %s have the run %s", known, task.Name, run)
			}
			names[run] = task.Name
		}
	}
	if len(names) != 4 || len(taskstate.DistinctTargets(part)) != 256 {
		t.Errorf("runs: %v", names)
	}
	if fresh := taskstatetest.NewTask("one", slices.Clone(long)...); taskstate.RunHash(fresh) != taskstate.RunHash(one) {
		t.Error("the same list in another place is another run")
	}
}
