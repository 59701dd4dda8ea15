package plan_test

import (
	"fmt"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/cli/plan"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate/taskstatetest"
)

// world returns a world with the account main, whose zone has left URLs of EdgeOne's quota.
func world(left, budget int32, tasks ...plan.Task) plan.World {
	now := time.Now()
	account := &v1alpha1.EdgeOneAccount{ObjectMeta: metav1.ObjectMeta{Name: "main"}}
	account.Spec.Namespaces.Names = []v1alpha1.NamespaceName{"shop"}
	account.Spec.Zones = []v1alpha1.AccountZone{{ID: "zone-1", Hosts: []v1alpha1.HostPattern{"a.example"}}}
	account.Spec.Allow = v1alpha1.AccountAllow{Purge: []v1alpha1.PurgeType{v1alpha1.PurgeURL}, Modes: []v1alpha1.PrefetchMode{v1alpha1.ModeEdge, v1alpha1.ModeDefault}}
	account.Spec.Limits.DailyURLs = &budget
	account.Status.DayStartTime = metav1.NewTime(now.Add(-time.Hour))
	account.Status.Zones = []v1alpha1.AccountZoneStatus{{ID: "zone-1", Left: &left, Daily: ptr.To[int32](1000)}}
	return plan.World{Tasks: tasks, Accounts: []*v1alpha1.EdgeOneAccount{account}, Namespaces: map[string]map[string]string{"shop": nil}, Batch: 10, Now: now}
}

func newTask(name string, n int, changes ...func(*v1alpha1.PrefetchTask)) plan.Task {
	task := taskstatetest.NewTask("shop/"+name, taskstatetest.ListURLs(name, n)...)
	task.Spec.AccountRef.Name = "main"
	for _, change := range changes {
		change(task)
	}
	return plan.Task{PrefetchTask: task}
}

func purged(task *v1alpha1.PrefetchTask) { task.Spec.Purge.Type = v1alpha1.PurgeURL }

func TestPlansSayWhatIsSubmittedTodayAndWhyTheRestIsNot(t *testing.T) {
	for _, tt := range []struct {
		name         string
		left, budget int32
		task         plan.Task
		want         string // URLs, calls, calls of purges, not today, reason
	}{
		{"everything fits", 100, 100, newTask("a", 25), "25 3 0 0 "},
		{"the budget is smaller", 100, 15, newTask("a", 25), "15 2 0 10 Budget"},
		{"the quota is smaller", 12, 100, newTask("a", 25), "12 2 0 13 DailyQuota"},
		{"no quota is left", 0, 100, newTask("a", 25), "0 0 0 25 DailyQuota"},
		{"purges", 100, 100, newTask("a", 25, purged), "25 3 3 0 "},
		{"purges that the quota does not cover", 12, 100, newTask("a", 25, purged), "0 0 0 25 DailyQuota"},
		{"another host", 100, 100, newTask("a", 2, func(task *v1alpha1.PrefetchTask) { task.Spec.Targets[1] = "https://b.example/x" }), "0 0 0 2 NotAllowed"},
		{"another account", 100, 100, newTask("a", 2, func(task *v1alpha1.PrefetchTask) { task.Spec.AccountRef.Name = "missing" }), "0 0 0 2 AccountMissing"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := plan.Make(world(tt.left, tt.budget, tt.task))[0]
			got := fmt.Sprintf("%d %d %d %d %s", p.URLs, p.Calls, p.PurgeCalls, p.NotToday, p.Reason)
			if got != tt.want || p.Fits() != (p.NotToday == 0) {
				t.Errorf("got %s (%s), want %s", got, p.Message, tt.want)
			}
		})
	}
}

func TestAnEditedListPaysForWhatIsNew(t *testing.T) {
	task := newTask("a", 20)
	former := task.DeepCopy()
	taskstate.BeginRun(former, time.Now())
	former.Status.Jobs = []v1alpha1.Job{{ID: "j", ClaimID: "c", Positions: "0-19", Succeeded: 20, SubmitTime: metav1.Now()}}
	taskstate.UpdateSummary(former, time.Now())
	task.Status = *former.Status.DeepCopy()
	task.Spec.Targets = append([]v1alpha1.Target{"https://a.example/new"}, task.Spec.Targets[5:]...)
	task.Former = former
	if p := plan.Make(world(100, 100, task))[0]; p.Kept != 15 || p.URLs != 1 || p.Calls != 1 {
		t.Errorf("%+v", p)
	}
}

func TestTasksShareCallsAndEdgeURLsAreBilled(t *testing.T) {
	a, b := newTask("a", 3), newTask("b", 3)
	b.Spec.Targets[0] = a.Spec.Targets[0]
	w := world(100, 100, a)
	w.Waiting = []*v1alpha1.PrefetchTask{b.PrefetchTask}
	if p := plan.Make(w)[0]; len(p.SharedWith) != 1 || p.SharedWith[0] != "shop/b" || p.Calls != 1 {
		t.Errorf("%+v", p)
	}
	edge := newTask("e", 4, func(task *v1alpha1.PrefetchTask) { task.Spec.Mode = v1alpha1.ModeEdge })
	if p := plan.Make(world(0, 100, edge))[0]; p.EdgeURLs != 4 || !p.Fits() || p.Left != nil {
		t.Errorf("%+v", p)
	}
}

func TestProbableMistakesAreNamed(t *testing.T) {
	task := newTask("a", 1)
	task.Spec.Targets = []v1alpha1.Target{
		"http://a.example/x", "https://a.example/dir/", "https://a.example/?utm_source=x", "https://a.example/中", "https://a.example/%E4%B8%AD", "https://a.example/",
	}
	codes := ""
	for _, f := range plan.Lint(task.PrefetchTask) {
		codes += fmt.Sprint(f.Code, f.Count, " ")
	}
	if codes != "HTTP1 Directory1 QueryNoise1 DuplicateSpelling1 " {
		t.Error(codes)
	}
}
