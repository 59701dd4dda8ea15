package ttl

import (
	"context"
	"math"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/controller/controllertest"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/kube"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
)

// expired returns a finished task that expires one minute after T0.
func expired() *v1alpha1.PrefetchTask {
	task := controllertest.NewTask("a", 1)
	task.ResourceVersion = "1"
	task.Spec.TTLSecondsAfterFinished = 60
	taskstate.RefuseTargets(v1alpha1.JobPrefetch, taskstate.AllPositions(1), "no", controllertest.T0)(task)
	return task
}

func TestATaskExpiresUnlessItWouldBeMadeAgain(t *testing.T) {
	annotated := func(marks ...string) taskstate.Transition {
		return func(task *v1alpha1.PrefetchTask) {
			for _, mark := range marks {
				metav1.SetMetaDataAnnotation(&task.ObjectMeta, mark, "x")
			}
		}
	}
	labelled := func(mark string) taskstate.Transition {
		return func(task *v1alpha1.PrefetchTask) { metav1.SetMetaDataLabel(&task.ObjectMeta, mark, "x") }
	}
	then := func(changes ...taskstate.Transition) taskstate.Transition {
		return func(task *v1alpha1.PrefetchTask) {
			for _, c := range changes {
				c(task)
			}
		}
	}
	for _, c := range []struct {
		name    string
		change  taskstate.Transition
		expires bool
	}{
		{"made by hand", then(), true},
		{"without a time", func(task *v1alpha1.PrefetchTask) { task.Spec.TTLSecondsAfterFinished = 0 }, false},
		{"not over", func(task *v1alpha1.PrefetchTask) { task.Status = v1alpha1.PrefetchTaskStatus{} }, false},
		{"another run is asked for", func(task *v1alpha1.PrefetchTask) { task.Spec.Revision = "2" }, false},
		{"a retry is asked for", controllertest.Asking("1"), false},
		{"deleted", func(task *v1alpha1.PrefetchTask) { task.DeletionTimestamp = &metav1.Time{Time: controllertest.T0} }, false},
		{"of Argo CD", annotated("argocd.argoproj.io/tracking-id"), false},
		{"of Argo CD that tracks by label", labelled("app.kubernetes.io/instance"), false},
		{"of Argo CD that tracks by a label of its own", labelled("argocd.argoproj.io/instance"), false},
		{"a hook of Argo CD", annotated("argocd.argoproj.io/tracking-id", "argocd.argoproj.io/hook"), true},
		{"of a Flux Kustomization", labelled("kustomize.toolkit.fluxcd.io/name"), false},
		{"of a Flux Kustomization, marked as a hook", then(annotated("helm.sh/hook"), labelled("kustomize.toolkit.fluxcd.io/name")), false},
		{"of a Flux HelmRelease", labelled("helm.toolkit.fluxcd.io/name"), false},
		{"a hook of a Flux HelmRelease", then(annotated("helm.sh/hook"), labelled("helm.toolkit.fluxcd.io/name")), true},
		{"of Helm", annotated("meta.helm.sh/release-name"), false},
		{"a hook of Helm", then(annotated("helm.sh/hook"), labelled("app.kubernetes.io/instance")), true},
		{"of a pipeline, with the labels of its chart", then(labelled("app.kubernetes.io/instance"), func(task *v1alpha1.PrefetchTask) { task.GenerateName = "release-" }), true},
		{"with an annotation of its user's", annotated("expiry"), true},
	} {
		t.Run(c.name, func(t *testing.T) {
			task := expired()
			c.change(task)
			kept := kube.PruneFinishedTask(task)
			e, ok := expiringTaskOf(kept)
			if ok != c.expires {
				t.Fatalf("expires: %v, want %v", ok, c.expires)
			}
			if ok && (time.Unix(e.at, 0).Sub(controllertest.T0) != time.Minute || e.uid != task.UID || e.resourceVersion != task.ResourceVersion) {
				t.Errorf("expires as %+v", e)
			}
		})
	}
}

func TestAUsersAnnotationExpiresNothing(t *testing.T) {
	task := controllertest.TaskOf(1)
	metav1.SetMetaDataAnnotation(&task.ObjectMeta, "expiry", controllertest.T0.Format(time.RFC3339))
	if _, ok := expiringTaskOf(kube.PruneFinishedTask(task)); ok {
		t.Error("it would be deleted")
	}
}

// reaperOf returns a ttl controller without tasks, and a function that makes one pass and returns
// the time until the next.
func reaperOf(t *testing.T, u *controllertest.Unit) (r *ttlController, reconcile func() time.Duration) {
	r = &ttlController{Client: u.Writer.Client, tasks: map[types.UID]expiringTask{}}
	return r, func() time.Duration {
		t.Helper()
		result, err := r.Reconcile(context.Background(), expiryRequest{})
		if err != nil {
			t.Fatal(err)
		}
		return result.RequeueAfter
	}
}

func TestATaskIsDeletedWhenItExpiresUnlessItHasChanged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := controllertest.NewUnit(t, nil, nil, func() *v1alpha1.PrefetchTask { task := expired(); task.ResourceVersion = ""; return task }())
		r, reconcile := reaperOf(t, u)
		task := u.ReadTask("a")
		task.Status.CompletionTime = metav1.NewTime(time.Now())
		seen := func() client.Object { return kube.PruneFinishedTask(task.DeepCopy()) }
		exists := func() bool {
			err := u.Writer.Get(context.Background(), client.ObjectKeyFromObject(task), &v1alpha1.PrefetchTask{})
			return !apierrors.IsNotFound(err)
		}
		if at, ok := r.trackExpiry(nil, seen()); !ok || time.Until(at) != time.Minute {
			t.Errorf("it expires at %s, %t", at, ok)
		}
		if wait := reconcile(); wait != time.Minute || !exists() {
			t.Errorf("it is deleted, or waits for %s", wait)
		}
		time.Sleep(2 * time.Minute)
		if err := u.Writer.Update(context.Background(), u.ReadTask("a")); err != nil { // a user changes it
			t.Fatal(err)
		}
		if reconcile(); !exists() {
			t.Error("deleted as it is no longer")
		}
		before := seen()
		task.ResourceVersion = u.ReadTask("a").ResourceVersion
		r.trackExpiry(before, seen())
		if reconcile(); exists() {
			t.Error("not deleted")
		}
		r.trackExpiry(nil, seen()) // track a task that is already gone
		reconcile()
		if len(r.tasks) != 0 {
			t.Errorf("it keeps %v", r.tasks)
		}
	})
}

func TestNothingIsKeptOfAnExpiringTaskThatChangesOrGoes(t *testing.T) {
	r := &ttlController{tasks: map[types.UID]expiringTask{}}
	task := expired()
	var before client.Object
	for version := range 120 {
		task.ResourceVersion = strconv.Itoa(version)
		after := kube.PruneFinishedTask(task.DeepCopy())
		r.trackExpiry(before, after)
		before = after
	}
	if len(r.tasks) != 1 || r.tasks[task.UID].resourceVersion != "119" {
		t.Errorf("after 120 changes it keeps %v", r.tasks)
	}
	again := expired()
	again.UID = "again"
	after := kube.PruneFinishedTask(again)
	if r.trackExpiry(before, after); len(r.tasks) != 1 || r.tasks["again"].uid != "again" {
		t.Errorf("of a task that was deleted and made again unseen it keeps %v", r.tasks)
	}
	if r.trackExpiry(after, nil); len(r.tasks) != 0 {
		t.Errorf("of a task that is gone it keeps %v", r.tasks)
	}
}

func TestATaskThatCannotBeDeletedKeepsNoOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := controllertest.NewUnit(t, nil, nil)
		r, reconcile := reaperOf(t, u)
		var tried []string
		refused := true
		r.Client = interceptor.NewClient(u.Writer.Client.(client.WithWatch), interceptor.Funcs{
			Delete: func(_ context.Context, _ client.WithWatch, obj client.Object, _ ...client.DeleteOption) error {
				tried = append(tried, obj.GetName())
				if obj.GetName() == "held" && refused {
					return apierrors.NewForbidden(v1alpha1.GroupVersion.WithResource("prefetchtasks").GroupResource(), "held", nil)
				}
				return nil
			},
		})
		for _, name := range []string{"a", "held", "b"} {
			task := expired()
			task.Name, task.UID = name, types.UID(name)
			task.Status.CompletionTime = metav1.NewTime(time.Now().Add(-time.Hour))
			r.trackExpiry(nil, kube.PruneFinishedTask(task))
		}
		if wait := reconcile(); len(tried) != 3 || len(r.tasks) != 1 || wait != expiryRetry {
			t.Errorf("tried %v, kept %v, and comes again in %s", tried, r.tasks, wait)
		}
		refused = false
		time.Sleep(expiryRetry)
		if wait := reconcile(); len(tried) != 4 || len(r.tasks) != 0 {
			t.Errorf("tried %v, kept %v, and comes again in %s", tried, r.tasks, wait)
		}
	})
}

func TestTheLongestTTLIsNoOverflow(t *testing.T) {
	task := expired()
	task.Spec.TTLSecondsAfterFinished = math.MaxInt32
	e, ok := expiringTaskOf(kube.PruneFinishedTask(task))
	if want := controllertest.T0.Add(math.MaxInt32 * time.Second); !ok || e.at != want.Unix() {
		t.Errorf("it expires at %s, %t; want %s", time.Unix(e.at, 0), ok, want)
	}
}
