package e2e

import (
	"maps"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
)

// restore restores an object from a backup as Velero does: it keeps the name, the labels and the
// annotations of the metadata, and creates the object without a status. If the status is restored
// too, a second request writes it, at the version that the first one has created.
func (w *world) restore(backup *unstructured.Unstructured, withStatus bool) {
	w.t.Helper()
	object := backup.DeepCopy()
	metadata := map[string]any{"name": object.GetName(), "namespace": w.namespace}
	for _, field := range []string{"labels", "annotations"} {
		if kept, ok := backup.Object["metadata"].(map[string]any)[field]; ok {
			metadata[field] = kept
		}
	}
	object.Object["metadata"] = metadata
	labels := map[string]string{"velero.io/backup-name": "backup", "velero.io/restore-name": "restore"}
	maps.Copy(labels, backup.GetLabels())
	object.SetLabels(labels)
	status := object.Object["status"]
	unstructured.RemoveNestedField(object.Object, "status")
	w.must(w.Create(w.t.Context(), object))
	if !withStatus {
		return
	}
	object.Object["status"] = status
	if err := w.Status().Update(w.t.Context(), object); err != nil && !apierrors.IsConflict(err) { // Velero reports the conflict as a warning
		w.t.Fatal(err)
	}
}

// A task whose status was restored continues from it. A task without its status is a new one,
// which submits everything again unless it says since when a copy is good enough.
func TestARestoredTaskSubmitsNothingTwice(t *testing.T) {
	tests := []struct {
		name       string
		isFresh    bool // the task has freshSince
		isPurged   bool
		isStopped  bool // the operator is stopped during the restore
		withStatus bool
		elsewhere  bool // restored in another namespace, as in another cluster
		executed   int  // how often EdgeOne executes each URL in all
	}{
		{name: "without its status", executed: 2},
		{name: "without its status, with freshSince", isFresh: true, executed: 1},
		{name: "without its status, with freshSince, in another cluster", isFresh: true, elsewhere: true, executed: 1},
		{name: "without its status, with freshSince and purge", isFresh: true, isPurged: true, executed: 1},
		{name: "with its status, the operator is stopped", isStopped: true, withStatus: true, executed: 1},
		{name: "with its status, the operator is stopped, with purge", isStopped: true, isPurged: true, withStatus: true, executed: 1},
		{name: "with its status, the operator runs, with freshSince", isFresh: true, withStatus: true, executed: 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w, other := newWorldPair(t)
			urls := []string{good + "a.js", good + "b.js", good + "c.js"}
			task := w.task("release", urls...)
			task.Annotations = map[string]string{"velero.io/restore-status": "true"}
			if tt.isFresh {
				task.Spec.FreshSince = metav1.NewTime(time.Now().Add(-time.Second).Truncate(time.Second))
			}
			if tt.isPurged {
				task.Spec.Purge.Type = v1alpha1.PurgeURL
			}
			w.create(task)
			manager := w.manager()
			w.untilFinished("release", v1alpha1.ReasonSucceeded)
			w.edit("release", func(task *v1alpha1.PrefetchTask) { task.Spec.Suspend = ptr.To(false) }) // a second generation
			w.until("release", "seen again", func(s v1alpha1.PrefetchTaskStatus) bool { return s.ObservedGeneration == 2 })

			backup := &unstructured.Unstructured{}
			backup.SetGroupVersionKind(v1alpha1.GroupVersion.WithKind("PrefetchTask"))
			w.must(w.Get(t.Context(), client.ObjectKeyFromObject(task), backup))
			w.must(w.Delete(t.Context(), w.get("release")))
			if tt.isStopped || tt.elsewhere {
				manager.Kill()
			}
			in := w
			if tt.elsewhere {
				in = other
				in.manager()
			}
			in.restore(backup, tt.withStatus)
			if tt.isStopped {
				in.manager()
			}

			in.untilFinished("release", v1alpha1.ReasonSucceeded)
			in.create(in.task("later", good+"later.js"))
			in.untilFinished("later", v1alpha1.ReasonSucceeded) // the operator has seen the restored task by then
			restored := in.untilFinished("release", v1alpha1.ReasonSucceeded)
			if n := ptr.Deref(restored.Status.Targets.Succeeded, 0); int(n) != len(urls) {
				t.Errorf("%d targets count as prefetched, want %d", n, len(urls))
			}
			for _, u := range urls {
				if n := w.edgeOne.Executed(u); n != tt.executed {
					t.Errorf("EdgeOne prefetched %s %d times, want %d", u, n, tt.executed)
				}
				if n := w.edgeOne.Purged(u); n != 0 && !tt.isPurged || n != 1 && tt.isPurged {
					t.Errorf("EdgeOne purged %s %d times", u, n)
				}
			}
		})
	}
}
