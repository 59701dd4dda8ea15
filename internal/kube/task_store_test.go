package kube

import (
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
)

func TestTheNewestVersionIsDecidedInOnePlace(t *testing.T) {
	type step struct {
		how  string // see, learn, remove, gone (a live read does not find it), finished
		uid  string
		rv   string
		want string // UID and resourceVersion of the newest version afterwards, or "" if there is none
	}
	for _, tt := range []struct {
		name  string
		steps []step
	}{
		{"the watch brings newer versions", []step{{"see", "x", "1", "x 1"}, {"see", "x", "2", "x 2"}}},
		{"the watch lags behind a write", []step{{"see", "x", "1", "x 1"}, {"learn", "x", "3", "x 3"}, {"see", "x", "2", "x 3"}, {"see", "x", "4", "x 4"}}},
		{"a write lags behind the watch", []step{{"see", "x", "9", "x 9"}, {"learn", "x", "8", "x 9"}}},
		{"versions are numbers", []step{{"see", "x", "9", "x 9"}, {"learn", "x", "10", "x 10"}, {"see", "x", "9", "x 10"}}},
		{"a write alone makes no task known", []step{{"learn", "x", "1", ""}}},
		{"a write to a task that is gone", []step{{"see", "x", "1", "x 1"}, {"remove", "x", "2", ""}, {"learn", "x", "3", ""}}},
		{"a write to the task that had the name before", []step{{"see", "x", "1", "x 1"}, {"remove", "x", "2", ""}, {"see", "y", "3", "y 3"}, {"learn", "x", "4", "y 3"}}},
		{"made again, and the watch did not tell of the deletion", []step{{"see", "x", "1", "x 1"}, {"see", "y", "3", "y 3"}}},
		{"the deletion of the one before comes late", []step{{"see", "x", "1", "x 1"}, {"see", "y", "3", "y 3"}, {"remove", "x", "2", "y 3"}}},
		{"an old version of the one before comes late", []step{{"see", "x", "1", "x 1"}, {"see", "y", "3", "y 3"}, {"see", "x", "2", "y 3"}}},
		{"a live read finds it gone", []step{{"see", "x", "1", "x 1"}, {"gone", "x", "1", ""}, {"see", "x", "2", ""}, {"learn", "x", "2", ""}, {"remove", "x", "3", ""}}},
		{"and it was made again", []step{{"see", "x", "1", "x 1"}, {"gone", "x", "1", ""}, {"see", "y", "3", "y 3"}, {"gone", "x", "1", "y 3"}, {"learn", "y", "4", "y 4"}}},
		{"finished, and later asked to do more", []step{{"see", "x", "1", "x 1"}, {"finished", "x", "2", ""}, {"learn", "x", "2", ""}, {"see", "x", "3", "x 3"}}},
		{"finished by a write", []step{{"see", "x", "1", "x 1"}, {"learn", "x", "2", "x 2"}, {"finished", "x", "2", ""}}},
		{"finished before what is known", []step{{"see", "x", "1", "x 1"}, {"learn", "x", "3", "x 3"}, {"finished", "x", "2", "x 3"}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			v := NewTaskStore()
			told := ""
			v.Subscribe(func(_, after *v1alpha1.PrefetchTask) {
				told = ""
				if after != nil {
					told = string(after.UID) + " " + after.ResourceVersion
				}
			})
			for i, s := range tt.steps {
				switch task := version(s.uid, s.rv); s.how {
				case "see":
					v.ObserveTask(task)
				case "learn":
					v.LearnVersion(task)
				case "remove":
					v.RemoveTask(task)
				case "gone":
					v.learnDeleted(task)
				case "finished":
					task.Spec = v1alpha1.PrefetchTaskSpec{}
					v.ObserveTask(task)
				}
				got := ""
				if newest := v.NewestVersion(client.ObjectKey{Namespace: "default", Name: "a"}); newest != nil {
					got = string(newest.UID) + " " + newest.ResourceVersion
				}
				if got != s.want || told != s.want {
					t.Fatalf("step %d, %s %s %s: the newest is %q and told is %q, want %q", i, s.how, s.uid, s.rv, got, told, s.want)
				}
			}
			v.RemoveTask(version("x", "99"))
			v.RemoveTask(version("y", "99"))
			if len(v.tasks)+len(v.deleted)+len(v.accounts) > 0 {
				t.Errorf("of what is gone stays %v, %v, %v", v.tasks, v.deleted, v.accounts)
			}
		})
	}
}

// version returns a version of the task default/a.
func version(uid, resourceVersion string) *v1alpha1.PrefetchTask {
	return &v1alpha1.PrefetchTask{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "a", UID: types.UID(uid), ResourceVersion: resourceVersion},
		Spec:       v1alpha1.PrefetchTaskSpec{ZoneID: "zone-1", Targets: []v1alpha1.Target{"https://h/0"}},
	}
}
