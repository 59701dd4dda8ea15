package schedule

import (
	"fmt"
	"slices"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
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
			a := NewTask("a", ListURLs("a", 3)...)
			a.Spec.Headers = []v1alpha1.HTTPHeader{{Name: "B", Value: "1"}, {Name: "A", Value: "2"}}
			b := a.DeepCopy()
			c.edit(b)
			if got := RunHash(a) != RunHash(b); got != c.run {
				t.Errorf("it starts a new run: %v", got)
			}
			if got := HashSemantics(a) != HashSemantics(b); got != c.semantics {
				t.Errorf("it changes how targets are fetched: %v", got)
			}
		})
	}
}

func TestWaiting(t *testing.T) {
	claimed := func(p *v1alpha1.PrefetchTask) {
		p.Status.Submission = &v1alpha1.Submission{ClaimID: "c", ZoneID: "zone-1", Targets: "0-3", Semantics: HashSemantics(p)}
	}
	type edit = func(*v1alpha1.PrefetchTask)
	for _, c := range []struct {
		name  string
		edits []edit
		waits bool
		open  string
	}{
		{"a new task waits with all its targets", nil, true, "0-3"},
		{"one whose run has begun waits for the rest", []edit{Begun("0-1")}, true, "2-3"},
		{"refused targets are not open", []edit{Begun("0-1"), func(p *v1alpha1.PrefetchTask) { p.Status.RefusedTargets = "2" }}, true, "3"},
		{"one that is handed over does not wait", []edit{Begun("0-3")}, false, ""},
		{"a claimed one does not wait", []edit{Begun(""), claimed}, false, "0-3"},
		{"a claim of an earlier run does not count", []edit{Begun(""), claimed, Revise}, true, "0-3"},
		{"but it does if targets were fetched in another way", []edit{Begun(""), claimed, UseEdgeMode}, false, "0-3"},
		{"a suspended one does not wait", []edit{Suspend}, false, "0-3"},
		{"one that goes away does not wait", []edit{func(p *v1alpha1.PrefetchTask) { p.DeletionTimestamp = ptr.To(metav1.Now()) }}, false, "0-3"},
		{"lost calls do not end the waiting", []edit{Begun(""), WithLostCalls(3)}, true, "0-3"},
		{"a finished one does not wait", []edit{Begun(""), Finish}, false, "0-3"},
		{"until a new run is asked for", []edit{Begun("0-3"), Finish, Revise}, true, "0-3"},
		{"what was edited into nonsense counts as handed over", []edit{Begun("x")}, false, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			task := NewTask("a", ListURLs("a", 4)...)
			for _, edit := range c.edits {
				edit(task)
			}
			if got := IsWaiting(task); got != c.waits {
				t.Errorf("it waits: %v", got)
			}
			if got := OpenPositions(task).String(); got != c.open {
				t.Errorf("open is %q, want %q", got, c.open)
			}
		})
	}
}

// What follows from a long list is found out once, and must not be another list's.
func TestRunsOfLongListsDifferAsThoseOfShortOnes(t *testing.T) {
	long := make([]v1alpha1.Target, 512)
	for i := range long {
		long[i] = v1alpha1.Target(fmt.Sprintf("https://h/%d", i))
	}
	one := NewTask("one", long...)
	other := NewTask("other", append(slices.Clone(long[:len(long)-1]), "https://h/other")...)
	revised := NewTask("revised", long...)
	revised.Spec.Revision = "2"
	part := NewTask("part", long[:256]...)
	names := map[string]string{}
	for range 2 { // the second time from memory
		for _, task := range []*v1alpha1.PrefetchTask{one, other, revised, part} {
			run := RunHash(task)
			if known, ok := names[run]; ok && known != task.Name {
				t.Errorf("%s and %s have the run %s", known, task.Name, run)
			}
			names[run] = task.Name
		}
	}
	if len(names) != 4 || len(DistinctTargets(part)) != 256 {
		t.Errorf("runs: %v", names)
	}
	if fresh := NewTask("one", slices.Clone(long)...); RunHash(fresh) != RunHash(one) {
		t.Error("the same list in another place is another run")
	}
}
