package follow

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/controller/controllertest"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/kube"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
)

func TestWhoRecordedAJobIsRememberedForAsLongAsAClaimMayAsk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := controllertest.NewUnit(t, controllertest.NewEdgeOne(nil).RoundTripper(), nil)
		p := pollerOf(u)
		see := kube.CacheOptions(p.Jobs).DefaultTransform
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error)
		go func() {
			done <- garbageCollector{[]*Poller{p}, func(context.Context) error { return nil }, func() {}}.Start(ctx)
		}()
		finish := func(name string) {
			task := controllertest.ClaimedAt(controllertest.NewTask(name, 1), time.Now())
			taskstate.RecordJob("job of "+name, nil, time.Now())(task)
			task.Status.Jobs[0].Succeeded = 1
			taskstate.UpdateSummary(task, time.Now())
			if kept, err := see(task); err != nil || !taskstate.IsSlimmed(kube.CachedTask(kept.(client.Object))) {
				t.Errorf("the cache keeps %v (%v)", kept, err)
			}
		}
		finish("old")
		time.Sleep(time.Hour)
		claimed := controllertest.ClaimedAt(controllertest.NewTask("claimed", 1), time.Now())
		p.Tasks.ObserveTask(claimed)
		finish("beside")
		time.Sleep(time.Hour)
		if p.Jobs.ownerOf("job of old", "") != "" || p.Jobs.ownerOf("job of beside", "") != "claim of beside" {
			t.Errorf("remembered: %v", p.Jobs.claims)
		}
		p.Tasks.RemoveTask(claimed)
		time.Sleep(time.Hour)
		if p.Jobs.ownerOf("job of beside", "") != "" {
			t.Errorf("remembered, though nobody can ask: %v", p.Jobs.claims)
		}
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func TestAnOldClaimKeepsTheJobsOfItsWindowInMemoryAndNoOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := controllertest.NewUnit(t, controllertest.NewEdgeOne(nil).RoundTripper(), nil)
		stuck := controllertest.ClaimedAt(controllertest.NewTask("stuck", 1), time.Now())
		p := pollerOf(u, stuck)
		u.LearnTime()
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error)
		go func() {
			done <- garbageCollector{[]*Poller{p}, func(context.Context) error { return nil }, func() {}}.Start(ctx)
		}()
		begin := time.Now()
		record := func(id string) {
			other := controllertest.NewTask("other", 1)
			other.Status.Jobs = []v1alpha1.Job{{ID: id, ClaimID: "claim of " + id, SubmitTime: metav1.Now()}}
			p.Jobs.ObserveTask(other)
		}
		record("at once")
		time.Sleep(p.SignatureValidity + p.SettleMargin)
		record("at the end of the window")
		for hour := range 48 {
			time.Sleep(time.Hour)
			record(fmt.Sprint("after hours: ", hour))
		}
		time.Sleep(time.Minute)
		for id, want := range map[string]bool{"at once": true, "at the end of the window": true, "after hours: 1": false, "after hours: 46": false, "after hours: 47": true} {
			if kept := p.Jobs.ownerOf(id, "") != ""; kept != want {
				t.Errorf("a job recorded %s is kept: %v", id, kept)
			}
		}
		controllertest.Pass(time.Until(begin.Add(p.HistoryRetention + time.Hour)))
		if n := len(p.Jobs.claims); n != 0 {
			t.Errorf("%d jobs are kept for a claim that EdgeOne has forgotten", n)
		}
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func TestTheOldestRecordedJobsAreForgottenWhereThereAreTooMany(t *testing.T) {
	jobs := NewRecordedJobs()
	for i := range 5 {
		task := controllertest.NewTask("a", 1)
		task.Status.Jobs = []v1alpha1.Job{{ID: fmt.Sprint(i), ClaimID: "c", SubmitTime: metav1.NewTime(controllertest.T0.Add(time.Duration(i) * time.Second))}}
		jobs.ObserveTask(task)
	}
	jobs.collectGarbage(func(time.Time) bool { return true }, 3)
	for i := range 5 {
		if kept := jobs.ownerOf(fmt.Sprint(i), "") != ""; kept != (i >= 2) {
			t.Errorf("job %d is kept: %v", i, kept)
		}
	}
}
