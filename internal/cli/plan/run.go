package plan

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/account"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/queue"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/target"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
)

// The operator's defaults.
const (
	batch          = 500 // URLs per call
	tasksPerCall   = 500
	callsPerSecond = 20
)

const (
	// horizon is how long the queue may wait without a call, for example for a budget to be counted again.
	horizon = time.Minute
	// quotaInterval is longer than a plan: a quota that is read again would not know the calls of the plan.
	quotaInterval = 24 * time.Hour
)

// run is the queue of one account, which makes its calls at once, and EdgeOne accepts all of them.
type run struct {
	store             *account.Store
	account           *v1alpha1.EdgeOneAccount // nil if the tasks use none
	admit             queue.AdmitFunc          // what the account allows; nil if that is everything
	batch             int                      // of World
	pause             time.Duration            // between two calls
	prefetches, purge *queue.Queue
	tasks             map[string]*v1alpha1.PrefetchTask
	plans             map[string]*TaskPlan
	now               time.Time
	calls             int
}

// addRun adds the run of a task's account, unless there is one.
func addRun(runs map[taskstate.AccountKey]*run, task *v1alpha1.PrefetchTask, store *account.Store, world World) {
	key := taskstate.AccountKeyOf(task)
	if runs[key] != nil {
		return
	}
	r := &run{store: store, tasks: map[string]*v1alpha1.PrefetchTask{}, plans: map[string]*TaskPlan{}, now: world.Now}
	r.account, r.batch, r.pause = store.Account(key.Account), world.Batch, time.Second/callsPerSecond
	if r.account != nil && r.account.Spec.Limits.CallsPerSecond > 0 {
		r.pause = max(r.pause, time.Second/time.Duration(r.account.Spec.Limits.CallsPerSecond))
	}
	limits := queue.Limits{
		Batch: cmp.Or(world.Batch, batch), TasksPerCall: tasksPerCall, QuotaInterval: quotaInterval, QuotaReset: resetOf(world.Accounts),
		QPS: callsPerSecond, StallAfter: time.Minute, SettleTime: time.Minute, PurgeTime: time.Minute, Normalize: target.Identity,
	}
	if key.Account != "" && world.Accounts != nil {
		r.admit, limits.Admit = store.Admit, store.Admit
	}
	r.prefetches = queue.NewQueue(limits)
	limits.Kind, limits.Admit = v1alpha1.JobPurge, r.admitPurge
	r.purge = queue.NewQueue(limits)
	runs[key] = r
}

// admitPurge says what may be purged now, as the operator decides it.
func (r *run) admitPurge(task *v1alpha1.PrefetchTask) taskstate.Admission {
	a := taskstate.AdmitAll
	if r.admit != nil {
		a = r.admit(task)
	}
	if a.Reason != "" {
		return a
	}
	return r.prefetches.LimitPurge(a, task, r.now)
}

// add adds a task. plan is nil for a task that is not planned.
func (r *run) add(task *v1alpha1.PrefetchTask, plan *TaskPlan) {
	key := keyOf(task)
	r.tasks[key] = task
	if plan != nil {
		r.plans[key] = plan
	}
	r.update(task)
}

func (r *run) update(task *v1alpha1.PrefetchTask) {
	r.prefetches.UpsertTask(task, r.now)
	r.purge.UpsertTask(task, r.now)
}

// planAll makes calls until there is nothing to do today for the planned tasks, and ends their plans. The time of a call matters: of two tasks that
// need more calls, the one whose last call is older goes first.
func (r *run) planAll() {
	for waited := time.Duration(0); waited < horizon && r.hasOpen(); {
		wait, isBusy := r.planNext(r.prefetches, v1alpha1.JobPrefetch)
		purgeWait, isPurging := r.planNext(r.purge, v1alpha1.JobPurge)
		if isBusy || isPurging {
			waited, r.now = 0, r.now.Add(r.pause)
			continue
		}
		if wait == 0 || purgeWait > 0 && purgeWait < wait {
			wait = purgeWait
		}
		if wait == 0 {
			break
		}
		waited += wait
		r.now = r.now.Add(wait)
	}
	notes, _ := r.prefetches.WaitingStatuses(len(r.tasks)+1, r.now.Add(2*time.Hour))
	purgeNotes, _ := r.purge.WaitingStatuses(len(r.tasks)+1, r.now.Add(2*time.Hour))
	for _, note := range append(notes, purgeNotes...) {
		if plan := r.plans[keyOf(note.Task)]; plan != nil && plan.Reason == "" && note.Reason != "" {
			plan.Reason, plan.Message = note.Reason, note.FullMessage()
		}
	}
	for key, plan := range r.plans {
		if plan.NotToday = len(taskstate.OpenPositions(r.tasks[key])); plan.NotToday == 0 {
			plan.Reason, plan.Message = "", ""
		}
	}
	clear(r.plans)
}

// hasOpen reports whether a planned task has targets to submit.
func (r *run) hasOpen() bool {
	for key := range r.plans {
		if len(taskstate.OpenPositions(r.tasks[key])) > 0 {
			return true
		}
	}
	return false
}

// planNext makes the next call of a queue, or reads a quota.
func (r *run) planNext(q *queue.Queue, kind v1alpha1.JobKind) (wait time.Duration, isBusy bool) {
	decision := q.PlanNext(r.now)
	switch {
	case decision.ReadQuota != "":
		r.setQuota(decision.ReadQuota)
	case decision.Call != nil:
		r.execute(q, decision.Call, kind)
	default:
		return decision.Wait, false
	}
	return 0, true
}

// setQuota tells the queues what is known of a zone.
func (r *run) setQuota(zoneID string) {
	zone := findZone(r.account, zoneID)
	r.prefetches.SetQuotas(zoneID, func(v1alpha1.PurgeType) queue.Quota { return r.newQuota(zone.Batch, zone.Daily, zone.Left) }, r.now)
	r.purge.SetQuotas(zoneID, func(purge v1alpha1.PurgeType) queue.Quota {
		for _, of := range zone.Purges {
			if of.Type == purge {
				return r.newQuota(of.Batch, of.Daily, of.Left)
			}
		}
		return r.newQuota(0, nil, nil)
	}, r.now)
}

// newQuota returns a quota for the queues. What is unknown here is enough.
func (r *run) newQuota(batch int32, daily, left *int32) queue.Quota {
	return queue.Quota{
		Batch: cmp.Or(r.batch, int(batch)), Left: int(ptr.Deref(left, math.MaxInt32)), None: daily != nil && *daily == 0,
	}
}

// execute makes a call that EdgeOne accepts.
func (r *run) execute(q *queue.Queue, call *queue.Call, kind v1alpha1.JobKind) {
	q.MarkSent(call)
	r.calls++
	id := fmt.Sprint("plan-", r.calls)
	if kind == v1alpha1.JobPurge {
		r.prefetches.PromisePlanned(call)
	}
	shares := taskstate.Shares{}
	if kind == v1alpha1.JobPrefetch {
		for _, part := range call.Parts {
			shares.AddTask(part.Task, part.Positions)
		}
	}
	changed := make([]*v1alpha1.PrefetchTask, len(call.Parts))
	for i, part := range call.Parts {
		shared := int32(0)
		if kind == v1alpha1.JobPrefetch {
			shared = shares.CountShared(part.Task, part.Positions)
		}
		changed[i] = r.submit(part, kind, id, shared)
		r.count(call, part, kind, int(shared))
	}
	q.RecordAccepted(call, changed, len(call.URLs), r.now)
	if kind == v1alpha1.JobPurge {
		r.prefetches.EndPromising(call, r.now)
	}
	for _, task := range changed {
		r.update(task)
	}
}

// submit returns the task of a part after its call. A purge has succeeded at once.
func (r *run) submit(part queue.CallPart, kind v1alpha1.JobKind, id string, shared int32) *v1alpha1.PrefetchTask {
	task := part.Task.DeepCopy()
	taskstate.ClaimTargets(v1alpha1.Submission{
		ClaimID: id, Kind: kind, ZoneID: task.Spec.ZoneID, SignedAt: metav1.NewTime(r.now.Truncate(time.Second)), Positions: part.Positions.String(),
		SharedURLs: shared, Semantics: taskstate.HashSemantics(task),
	}, r.now)(task)
	taskstate.RecordJob(id, nil, r.now)(task)
	endPurges(task)
	taskstate.UpdateSummary(task, r.now)
	r.store.Usage.OnTaskChange(part.Task, task)
	r.tasks[keyOf(task)] = task
	return task
}

// count adds a call to the plan of a task.
func (r *run) count(call *queue.Call, part queue.CallPart, kind v1alpha1.JobKind, shared int) {
	plan := r.plans[keyOf(part.Task)]
	if plan == nil {
		return
	}
	for _, other := range call.Parts {
		if key := keyOf(other.Task); key != keyOf(part.Task) && !slices.Contains(plan.SharedWith, key) {
			plan.SharedWith = append(plan.SharedWith, key)
		}
	}
	if kind == v1alpha1.JobPurge {
		plan.PurgeCalls++
		return
	}
	plan.Calls++
	plan.URLs += len(part.Positions) - shared
	if plan.Mode == v1alpha1.ModeEdge {
		plan.EdgeURLs = plan.URLs
	}
}
