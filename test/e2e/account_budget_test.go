package e2e

import (
	"testing"
	"time"

	"k8s.io/utils/ptr"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/test/cluster"
)

// What a task has purged is prefetched before anything else of its account: the budgets leave room
// for it, and nothing is purged without that room.
func TestBudgetsLeaveRoomForWhatIsPurged(t *testing.T) {
	t.Parallel()
	c := config()
	c.JobDuration, c.PurgeDuration = 200*time.Millisecond, 5*time.Second
	w := newWorldIn(t, cluster.ForTest(t, cluster.Options{}), c)
	w.setSecret("edgeone-main", keyValue)
	account := w.account("main", v1alpha1.AccountCredentials{SecretRef: v1alpha1.AccountSecretReference{Name: "edgeone-main"}})
	account.Spec.Limits.DailyURLs, account.Spec.Allow.Purge = ptr.To[int32](10), []v1alpha1.PurgeType{v1alpha1.PurgeURL}
	w.must(w.Create(t.Context(), account))
	w.manager()

	paid := func(name string, n int, changes ...func(*v1alpha1.PrefetchTask)) {
		task := w.task(name)
		for i := range n {
			task.Spec.Targets = append(task.Spec.Targets, v1alpha1.Target(good+w.namespace+"/"+name+"-"+string(rune('a'+i))))
		}
		task.Spec.AccountRef.Name = "main"
		for _, change := range changes {
			change(task)
		}
		w.create(task)
	}
	paid("first", 8, purged)
	w.until("first", "its purge is accepted", func(s v1alpha1.PrefetchTaskStatus) bool { return len(s.Jobs) == 1 })
	paid("second", 8, purged)
	paid("plain", 5)
	w.untilFinished("first", v1alpha1.ReasonSucceeded)
	submitted := 0
	for _, name := range []string{"first", "second", "plain"} {
		if name != "first" {
			w.untilReason(name, v1alpha1.ReasonBudget)
		}
		task := w.get(name)
		submitted += int(*task.Status.Targets.Submitted)
		if task.Spec.Purge.Type != "" && ptr.Deref(task.Status.Purge.Submitted, 0) != *task.Status.Targets.Submitted {
			t.Errorf("%s has %d URLs purged and %d submitted", name, ptr.Deref(task.Status.Purge.Submitted, 0), *task.Status.Targets.Submitted)
		}
	}
	if submitted != 10 {
		t.Errorf("%d URLs are submitted with a budget of 10", submitted)
	}
}
