package preview_test

import (
	"reflect"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/cli/preview"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate/taskstatetest"
)

// state prepares a task of ten URLs.
type state = func(*v1alpha1.PrefetchTask)

var (
	// half has submitted 5 of 10 URLs, of which 2 have failed.
	half = func(task *v1alpha1.PrefetchTask) {
		task.Status.Jobs = []v1alpha1.Job{{ID: "j", Positions: "0-4", Succeeded: 3, Failed: 2}}
		taskstate.UpdateSummary(task, time.Now())
	}
	// over has submitted all, of which 2 have failed.
	over = func(task *v1alpha1.PrefetchTask) {
		task.Status.Jobs = []v1alpha1.Job{{ID: "j", Positions: "0-9", Succeeded: 8, Failed: 2}}
		taskstate.UpdateSummary(task, time.Now())
	}
	fine = func(task *v1alpha1.PrefetchTask) {
		task.Status.Jobs = []v1alpha1.Job{{ID: "j", Positions: "0-9", Succeeded: 10}}
		taskstate.UpdateSummary(task, time.Now())
	}
	retrying  = func(task *v1alpha1.PrefetchTask) { task.Annotations = map[string]string{v1alpha1.RetryAnnotation: "1"} }
	unseen    = func(task *v1alpha1.PrefetchTask) { task.Generation++ }
	suspended = func(task *v1alpha1.PrefetchTask) { task.Spec.Suspend = ptr.To(true) }
	purging   = func(task *v1alpha1.PrefetchTask) { task.Spec.Purge.Type = v1alpha1.PurgeURL }
	fresh     = func(task *v1alpha1.PrefetchTask) { task.Spec.FreshSince = metav1.Now() }
	revised   = func(task *v1alpha1.PrefetchTask) { task.Spec.Revision = "next" }
	fromMap   = func(task *v1alpha1.PrefetchTask) {
		task.Spec.Targets = nil
		task.Spec.TargetsFrom.ConfigMapKeyRef = v1alpha1.ConfigMapKeyReference{Name: "a", Key: "b"}
	}
)

func rerun(task *v1alpha1.PrefetchTask) preview.Preview { return preview.Rerun(task, "new") }

func TestWhatAChangeSubmits(t *testing.T) {
	for _, c := range []struct {
		name           string
		of             func(*v1alpha1.PrefetchTask) preview.Preview
		states, later  []state // later ones do not belong to the run in the status
		urls, purges   int
		atMost, isNone bool
		notes          int
	}{
		{name: "retry of failures", of: preview.Retry, states: []state{over}, urls: 2},
		{name: "retry without failures", of: preview.Retry, states: []state{fine}, isNone: true},
		{name: "retry of a run that is not over", of: preview.Retry, states: []state{half}, urls: preview.Unknown, notes: 1},
		{name: "retry of a run that is not over and has no failures", of: preview.Retry, urls: preview.Unknown, notes: 1},
		{name: "retry after an edit that starts no run", of: preview.Retry, states: []state{over}, later: []state{unseen}, urls: 2},
		{name: "retry without failures after such an edit", of: preview.Retry, states: []state{fine}, later: []state{unseen}, isNone: true},
		{name: "retry in a run after such an edit", of: preview.Retry, states: []state{half}, later: []state{unseen}, urls: preview.Unknown, notes: 1},
		{name: "retry of a new run", of: preview.Retry, states: []state{over}, later: []state{unseen, revised}, isNone: true},
		{name: "retry again", of: preview.Retry, states: []state{over}, later: []state{retrying}, urls: 2, notes: 1},
		{name: "retry of a suspended task", of: preview.Retry, states: []state{over}, later: []state{suspended}, urls: 2},
		{name: "resume in the middle", of: preview.Resume, states: []state{half}, later: []state{suspended}, urls: 5},
		{name: "resume before a run", of: preview.Resume, later: []state{suspended, revised}, urls: 10},
		{name: "resume with a purge", of: preview.Resume, later: []state{suspended, purging}, urls: 10, purges: 10},
		{name: "resume with freshSince", of: preview.Resume, later: []state{suspended, fresh}, urls: 10, atMost: true},
		{name: "resume after a run", of: preview.Resume, states: []state{over}, later: []state{suspended}},
		{name: "resume of a task that is not suspended", of: preview.Resume, states: []state{half}, isNone: true},
		{name: "resume of an unknown list", of: preview.Resume, later: []state{suspended, fromMap}, urls: preview.Unknown},
		{name: "suspend in the middle", of: preview.Suspend, states: []state{half}, urls: 5},
		{name: "suspend again", of: preview.Suspend, later: []state{suspended}, isNone: true},
		{name: "rerun", of: rerun, states: []state{over}, urls: 10},
		{name: "rerun in the middle", of: rerun, states: []state{half}, urls: 10, notes: 1},
		{name: "rerun in the middle after an edit that starts no run", of: rerun, states: []state{half}, later: []state{unseen}, urls: 10, notes: 1},
		{name: "rerun of a run that has not started", of: rerun, states: []state{half}, later: []state{unseen, revised}, urls: 10},
		{name: "rerun of a revision that the task has", of: func(task *v1alpha1.PrefetchTask) preview.Preview { return preview.Rerun(task, "next") }, later: []state{revised}, isNone: true},
		{name: "rerun with a purge and freshSince", of: rerun, later: []state{purging, fresh}, urls: 10, purges: 10, atMost: true},
		{name: "rerun of an unknown list", of: rerun, later: []state{fromMap}, urls: preview.Unknown},
	} {
		t.Run(c.name, func(t *testing.T) {
			task := taskstatetest.NewTask("a", taskstatetest.ListURLs("a", 10)...)
			task.Status.Run = taskstate.RunHash(task)
			task.Status.ObservedGeneration = task.Generation
			for _, change := range c.states {
				change(task)
			}
			for _, change := range c.later {
				change(task)
			}
			got := c.of(task)
			if isNone := got.Nothing != ""; isNone != c.isNone || !isNone && (got.URLs != c.urls || got.Purges != c.purges || got.IsAtMost != c.atMost || len(got.Notes) != c.notes) {
				t.Errorf("%+v", got)
			}
		})
	}
}

func TestWhatAnUpdateSubmitsAndWhy(t *testing.T) {
	relist := func(task *v1alpha1.PrefetchTask) { task.Spec.Targets = taskstatetest.ListURLs("a", 12)[1:] }
	expire := func(task *v1alpha1.PrefetchTask) { task.Spec.TTLSecondsAfterFinished = 3600 }
	for _, c := range []struct {
		name   string
		states []state // before the update
		update []state
		want   preview.Preview
	}{
		{"a revision is set", []state{over}, []state{revised}, preview.Preview{URLs: 10, Cause: "spec.revision is set"}},
		{"a revision is removed, and a purge is set", []state{revised}, []state{func(task *v1alpha1.PrefetchTask) { task.Spec.Revision = "" }, purging},
			preview.Preview{URLs: 10, Purges: 10, Cause: "spec.revision is removed and spec.purge is set"}},
		{"the list is changed", []state{over}, []state{relist}, preview.Preview{
			URLs: 11, IsAtMost: true, Cause: "the list is changed",
			Notes: []string{"2 of the URLs are new; of the others, what the run before has prefetched is not submitted"},
		}},
		{"the list is changed before its run", nil, []state{relist}, preview.Preview{URLs: 11, Cause: "the list is changed"}},
		{"what is no part of a run is changed", []state{over}, []state{expire}, preview.Preview{Nothing: "this starts no new run, so nothing more is submitted"}},
		{"what is no part of a run is changed before it starts", []state{over, revised}, []state{expire}, preview.Preview{Nothing: "this starts no new run, so nothing more is submitted"}},
		{"a revision is set back before its run has started", []state{over, revised}, []state{func(task *v1alpha1.PrefetchTask) { task.Spec.Revision = "" }},
			preview.Preview{Nothing: "this starts no new run, so nothing more is submitted"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			before := taskstatetest.NewTask("a", taskstatetest.ListURLs("a", 10)...)
			before.Status.Run, before.Status.Request = taskstate.RunHash(before), taskstate.RequestHash(before)
			for _, change := range c.states {
				change(before)
			}
			after := before.DeepCopy()
			for _, change := range c.update {
				change(after)
			}
			if got := preview.Update(before, after); !reflect.DeepEqual(got, c.want) {
				t.Errorf("%+v, want %+v", got, c.want)
			}
		})
	}
}

func TestAnEditThatIsTakenBackSubmitsTheRest(t *testing.T) {
	task := taskstatetest.NewTask("a")
	task.Spec.Targets = nil
	for _, u := range taskstatetest.ListURLs("a", 10) {
		task.Spec.Targets = append(task.Spec.Targets, v1alpha1.Target(u))
	}
	task.Status.Run = taskstate.RunHash(task)
	half(task)
	edited := task.DeepCopy()
	edited.Spec.Revision = "2"
	if p := preview.Update(edited, task); p.URLs != 5 || p.Nothing != "" || len(p.Notes) != 1 {
		t.Errorf("%+v", p)
	}
	over(task)
	if p := preview.Update(edited, task); p.Nothing == "" {
		t.Errorf("its run is over: %+v", p)
	}
}
