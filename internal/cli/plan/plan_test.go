package plan_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
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
	account.Status.Zones = []v1alpha1.AccountZoneStatus{{ID: "zone-1", Left: &left, Daily: ptr.To[int32](1000), Batch: 10, Purges: []v1alpha1.AccountPurgeStatus{
		{Type: v1alpha1.PurgeURL, Batch: 7, Daily: ptr.To[int32](1000), Left: ptr.To[int32](30)},
	}}}
	return plan.World{Tasks: tasks, Accounts: []*v1alpha1.EdgeOneAccount{account}, Namespaces: map[string]map[string]string{"shop": nil}, Now: now}
}

func makePlans(tb testing.TB, w plan.World) []*plan.TaskPlan {
	tb.Helper()
	plans, err := plan.Make(tb.Context(), w)
	if err != nil {
		tb.Fatal(err)
	}
	return plans
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
		{"purges", 100, 100, newTask("a", 25, purged), "25 4 4 0 "},
		{"purges for which the quota of purges is too small", 100, 100, newTask("a", 35, purged), "0 0 0 35 DailyQuota"},
		{"purges that the quota does not cover", 12, 100, newTask("a", 25, purged), "0 0 0 25 DailyQuota"},
		{"another host", 100, 100, newTask("a", 2, func(task *v1alpha1.PrefetchTask) { task.Spec.Targets[1] = "https://b.example/x" }), "0 0 0 2 NotAllowed"},
		{"another account", 100, 100, newTask("a", 2, func(task *v1alpha1.PrefetchTask) { task.Spec.AccountRef.Name = "missing" }), "0 0 0 2 AccountMissing"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := makePlans(t, world(tt.left, tt.budget, tt.task))[0]
			got := fmt.Sprintf("%d %d %d %d %s", p.URLs, p.Calls, p.PurgeCalls, p.NotToday, p.Reason)
			if got != tt.want || p.Fits() != (p.NotToday == 0) {
				t.Errorf("got %s (%s), want %s", got, p.Message, tt.want)
			}
		})
	}
}

// submitted is a task of which EdgeOne has prefetched all targets, but the last ones, which failed. The
// status names a part of them.
func submitted(name string, n, failed, named int) plan.Task {
	task := newTask(name, n)
	taskstate.BeginRun(task.PrefetchTask, time.Now())
	task.Status.Jobs = []v1alpha1.Job{{
		ID: "j", ClaimID: "c", Positions: taskstate.AllPositions(n).String(), Succeeded: int32(n - failed), Failed: int32(failed), SubmitTime: metav1.Now(),
	}}
	for i := range named {
		task.Status.FailedTargets = append(task.Status.FailedTargets, v1alpha1.FailedTarget{URL: string(task.Spec.Targets[n-1-i]), Reason: v1alpha1.FailedFailed})
	}
	taskstate.UpdateSummary(task.PrefetchTask, time.Now())
	task.Former = task.PrefetchTask
	return task
}

// asks returns a task that asks for a retry.
func asks(task plan.Task) plan.Task {
	task.Annotations = map[string]string{v1alpha1.RetryAnnotation: "1"}
	return task
}

// edited returns a task with a new list: without its first targets, and with a new one.
func edited(task plan.Task, without int, isFormerKnown bool) plan.Task {
	task.PrefetchTask = task.DeepCopy()
	task.Spec.Targets = append([]v1alpha1.Target{"https://a.example/new"}, task.Spec.Targets[without:]...)
	if !isFormerKnown {
		task.Former = task.PrefetchTask
	}
	return task
}

func TestTasksThatHaveRunPayForWhatIsOpen(t *testing.T) {
	for _, tt := range []struct {
		name string
		task plan.Task
		want string // kept, URLs, calls
		note string
	}{
		{"everything is prefetched", submitted("a", 20, 0, 0), "20 0 0", ""},
		{"a list without five URLs and with a new one", edited(submitted("a", 20, 0, 0), 5, true), "15 1 1", ""},
		{"an edited list with failures", edited(submitted("a", 20, 3, 3), 5, true), "12 4 1", ""},
		{"an edited list with failures that the status does not name", edited(submitted("a", 20, 3, 1), 5, true), "12 4 1", "other targets of the list stand for 2 of them"},
		{"an edited list whose former is not known", edited(submitted("a", 20, 0, 0), 5, false), "0 16 2", "its list is not known here"},
		{"failures", submitted("a", 20, 3, 3), "20 0 0", ""},
		{"a retry", asks(submitted("a", 20, 3, 3)), "17 3 1", ""},
		{"a retry of failures that the status does not name", asks(submitted("a", 20, 12, 5)), "8 12 2", "other targets of the list stand for 7 of them"},
		{"a retry without failures", asks(submitted("a", 20, 0, 0)), "20 0 0", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := makePlans(t, world(100, 100, tt.task))[0]
			got := fmt.Sprintf("%d %d %d", p.Kept, p.URLs, p.Calls)
			if notes := strings.Join(p.Notes, "; "); got != tt.want || !p.Fits() || !strings.Contains(notes, tt.note) || tt.note == "" && notes != "" {
				t.Errorf("got %s (%q, %s), want %s (%q)", got, notes, p.Message, tt.want, tt.note)
			}
		})
	}
}

func TestWhatIsUnderWayIsAssumedToSucceed(t *testing.T) {
	claimed := func(kind v1alpha1.JobKind) plan.Task {
		task := newTask("a", 25, purged)
		taskstate.ClaimTargets(v1alpha1.Submission{ClaimID: "c", Kind: v1alpha1.JobPurge, ZoneID: "zone-1", Positions: "0-9"}, time.Now())(task.PrefetchTask)
		if kind == v1alpha1.JobPrefetch {
			taskstate.RecordJob("j", nil, time.Now())(task.PrefetchTask)
		}
		return task
	}
	for name, task := range map[string]plan.Task{"a purge is claimed": claimed(v1alpha1.JobPurge), "a purge is accepted": claimed(v1alpha1.JobPrefetch)} {
		if p := makePlans(t, world(100, 100, task))[0]; p.URLs != 25 || p.PurgeCalls != 3 || !p.Fits() {
			t.Errorf("%s: %+v", name, p)
		}
	}
}

func TestAccountsThatCannotBeReadAllowEverything(t *testing.T) {
	w := world(0, 0, newTask("a", 25, purged))
	w.Accounts = nil
	if p := makePlans(t, w)[0]; !p.Fits() || p.URLs != 25 || p.Left != nil {
		t.Errorf("%+v", p)
	}
}

func TestAccountsThatSelectByLabelsAllowNamespacesWhoseLabelsAreUnknown(t *testing.T) {
	for name, restrict := range map[string]func(*v1alpha1.EdgeOneAccount, v1alpha1.NamespaceSet){
		"the account": func(a *v1alpha1.EdgeOneAccount, set v1alpha1.NamespaceSet) { a.Spec.Namespaces = set },
		"its zone":    func(a *v1alpha1.EdgeOneAccount, set v1alpha1.NamespaceSet) { a.Spec.Zones[0].Namespaces = set },
	} {
		t.Run(name, func(t *testing.T) {
			makePlan := func(labels map[string]map[string]string, set v1alpha1.NamespaceSet) *plan.TaskPlan {
				w := world(100, 100, newTask("a", 25))
				w.Namespaces = labels
				restrict(w.Accounts[0], set)
				return makePlans(t, w)[0]
			}
			shops := v1alpha1.NamespaceSet{Selector: &v1alpha1.LabelSelector{MatchLabels: map[string]v1alpha1.LabelText{"kind": "shop"}}}
			if p := makePlan(nil, shops); !p.Fits() || p.URLs != 25 {
				t.Errorf("unknown labels: %+v", p)
			}
			if p := makePlan(map[string]map[string]string{"shop": {"kind": "blog"}}, shops); p.Reason != v1alpha1.ReasonNotAllowed {
				t.Errorf("other labels: %+v", p)
			}
			if p := makePlan(nil, v1alpha1.NamespaceSet{Names: []v1alpha1.NamespaceName{"blog"}}); p.Reason != v1alpha1.ReasonNotAllowed {
				t.Errorf("other names: %+v", p)
			}
		})
	}
}

func TestPlansTakeWhatTheAccountSays(t *testing.T) {
	w := world(100, 100, newTask("a", 25))
	w.Batch = 5
	if p := makePlans(t, w)[0]; p.Calls != 5 {
		t.Errorf("with a size of a call of its own: %+v", p)
	}
	w.Batch, w.Accounts[0].Status.Zones[0].Batch = 0, 0
	if p := makePlans(t, w)[0]; p.Calls != 1 {
		t.Errorf("with the operator's default: %+v", p)
	}
	*w.Accounts[0].Status.Zones[0].Daily, *w.Accounts[0].Status.Zones[0].Left = 0, 0
	if p := makePlans(t, w)[0]; p.Reason != v1alpha1.ReasonBatchQuota || p.NotToday != 25 {
		t.Errorf("without a quota: %+v", p)
	}
	w.Accounts[0].Status.Conditions = []metav1.Condition{{Type: v1alpha1.ConditionReady, Status: metav1.ConditionFalse, Reason: v1alpha1.ReasonCredentialsRefused, Message: "why"}}
	if p := makePlans(t, w)[0]; len(p.Notes) != 1 || !strings.Contains(p.Notes[0], "(CredentialsRefused), and the plan assumes that it is: why") {
		t.Errorf("with refused credentials: %+v", p)
	}
}

// The queue does not report what a status says already.
func TestTasksThatWaitAlreadyHaveTheirReason(t *testing.T) {
	task := newTask("a", 25)
	w := world(0, 100, task)
	first := makePlans(t, w)[0]
	taskstate.ReportWaiting(taskstate.WaitingStatus{Task: task.PrefetchTask, Cause: taskstate.Cause{Reason: first.Reason, Message: first.Message, Quota: true}}, w.Now)(task.PrefetchTask)
	w.Tasks[0].Former = task.PrefetchTask
	if p := makePlans(t, w)[0]; first.Reason != v1alpha1.ReasonDailyQuota || p.Reason != first.Reason || p.Message != first.Message {
		t.Errorf("%+v, and then %+v", first, p)
	}
}

func TestTasksThatWaitTakeTheQuotaFirst(t *testing.T) {
	retry := asks(submitted("r", 20, 4, 4))
	suspended := newTask("s", 5, func(task *v1alpha1.PrefetchTask) { task.Spec.Suspend = ptr.To(true) })
	waiting := []*v1alpha1.PrefetchTask{newTask("b", 5).PrefetchTask, retry.PrefetchTask, suspended.PrefetchTask}
	w := world(12, 100, newTask("a", 10))
	w.Waiting = waiting
	// A call of 10 URLs has 5 of each, and then it is the retry's turn: 2 are left.
	if p := makePlans(t, w)[0]; p.URLs != 5 || p.NotToday != 5 || p.Reason != v1alpha1.ReasonDailyQuota {
		t.Errorf("%+v", p)
	}
}

// EdgeOne counts what a zone has, whatever account, Secret or key the calls use.
func TestAccountsShareTheQuotasOfZones(t *testing.T) {
	for name, change := range map[string]func(*v1alpha1.PrefetchTask){
		"another account":    func(task *v1alpha1.PrefetchTask) { task.Spec.AccountRef.Name = "other" },
		"the operator's key": func(task *v1alpha1.PrefetchTask) { task.Spec.AccountRef.Name = "" },
		"a Secret": func(task *v1alpha1.PrefetchTask) {
			task.Spec.AccountRef.Name, task.Spec.CredentialsSecretRef.Name = "", "keys"
		},
	} {
		t.Run(name, func(t *testing.T) {
			makePlan := func(isWaiting bool, tasks ...plan.Task) []*plan.TaskPlan {
				w := world(40, 100, tasks...)
				other := w.Accounts[0].DeepCopy()
				other.Name, other.Status.Zones[0].Left = "other", ptr.To[int32](12) // it has read the quota later
				w.Accounts = append(w.Accounts, other)
				if isWaiting {
					w.Tasks, w.Waiting = tasks[:1], []*v1alpha1.PrefetchTask{tasks[1].PrefetchTask}
				}
				return makePlans(t, w)
			}
			both := makePlan(false, newTask("a", 10), newTask("b", 10, change))
			a, b := both[0], both[1]
			if a.URLs+b.URLs != 12 || a.NotToday+b.NotToday != 8 || a.Fits() && b.Fits() || *a.Left != 12 || *b.Left != 12 {
				t.Errorf("both are planned: %+v, %+v", a, b)
			}
			if p := makePlan(true, newTask("a", 10), newTask("b", 10, change))[0]; p.URLs != 2 || p.NotToday != 8 {
				t.Errorf("the other waits already: %+v", p)
			}
			purges := makePlan(false, newTask("a", 5, purged), newTask("b", 7, purged, change))
			if n := purges[0].URLs + purges[1].URLs; n != 12 || !purges[0].Fits() || !purges[1].Fits() {
				t.Errorf("with purges: %+v, %+v", purges[0], purges[1])
			}
		})
	}
}

// What waits for a user is planned after the others, and other tasks that do are not planned.
func TestWhatWaitsForAUserTakesNothingFromOthers(t *testing.T) {
	suspend := func(task *v1alpha1.PrefetchTask) { task.Spec.Suspend = ptr.To(true) }
	stall := func(task *v1alpha1.PrefetchTask) {
		task.Status.Conditions = []metav1.Condition{{
			Type: v1alpha1.ConditionStalled, Status: metav1.ConditionTrue, Reason: v1alpha1.ReasonZoneNotFound, Message: "why", ObservedGeneration: task.Generation,
		}}
	}
	edit := func(task *v1alpha1.PrefetchTask) { task.Generation++ }
	for _, tt := range []struct {
		name string
		held func(*v1alpha1.PrefetchTask)
		want string // URLs, not today, whether the plan fits
		note string
	}{
		{"suspended", suspend, "2 3 true", "the task is suspended: this is what happens when it is resumed"},
		{"Stalled", stall, "2 3 false", "the task is Stalled (ZoneNotFound), and the plan is what happens when a user has mended it: why"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := world(12, 100, newTask("a", 5, tt.held), newTask("b", 10))
			w.Waiting = []*v1alpha1.PrefetchTask{newTask("c", 5, tt.held).PrefetchTask}
			plans := makePlans(t, w)
			if p := plans[1]; p.URLs != 10 || !p.Fits() || len(p.SharedWith) > 0 {
				t.Errorf("the other task: %+v", p)
			}
			p := plans[0]
			if got := fmt.Sprint(p.URLs, p.NotToday, p.Fits()); got != tt.want || p.Reason != v1alpha1.ReasonDailyQuota || strings.Join(p.Notes, "; ") != tt.note {
				t.Errorf("got %s (%+v), want %s", got, p, tt.want)
			}
		})
	}
	if p := makePlans(t, world(4, 100, newTask("a", 5, stall, edit), newTask("b", 10)))[0]; p.URLs == 0 || len(p.Notes) > 0 {
		t.Errorf("an edited task that was Stalled: %+v", p)
	}
}

func TestTasksShareCallsAndEdgeURLsAreBilled(t *testing.T) {
	a, b := newTask("a", 3), newTask("b", 3)
	b.Spec.Targets[0] = a.Spec.Targets[0]
	w := world(100, 100, a)
	w.Waiting = []*v1alpha1.PrefetchTask{b.PrefetchTask}
	if p := makePlans(t, w)[0]; len(p.SharedWith) != 1 || p.SharedWith[0] != "shop/b" || p.Calls != 1 {
		t.Errorf("%+v", p)
	}
	edge := newTask("e", 4, func(task *v1alpha1.PrefetchTask) { task.Spec.Mode = v1alpha1.ModeEdge })
	if p := makePlans(t, world(0, 100, edge))[0]; p.EdgeURLs != 4 || !p.Fits() || p.Left != nil {
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

func TestAPlanEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if plans, err := plan.Make(ctx, world(100, 100, newTask("a", 25))); !errors.Is(err, context.Canceled) || plans != nil {
		t.Errorf("%v, %v", plans, err)
	}
}
