package plan

import (
	"fmt"
	"math"
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/account"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/queue"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/target"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
)

const (
	tasksPerCall  = 500 // the operator's default
	quotaInterval = 10 * time.Minute
	// horizon is how long the queue may wait, for example for a budget to be counted again.
	horizon = time.Minute
)

// run is the queue of one account, which makes its calls at once, and EdgeOne accepts all of them.
type run struct {
	store             *account.Store
	prefetches, purge *queue.Queue
	tasks             map[string]*v1alpha1.PrefetchTask
	plans             map[string]*TaskPlan
	now               time.Time
	calls             int
}

// runOf returns the run of a task's account. It creates the run if there is none.
func runOf(runs map[taskstate.AccountKey]*run, task *v1alpha1.PrefetchTask, store *account.Store, world World) *run {
	key := taskstate.AccountKeyOf(task)
	if runs[key] != nil {
		return runs[key]
	}
	r := &run{store: store, tasks: map[string]*v1alpha1.PrefetchTask{}, plans: map[string]*TaskPlan{}, now: world.Now}
	limits := queue.Limits{
		Batch: world.Batch, TasksPerCall: tasksPerCall, QuotaInterval: quotaInterval, QuotaReset: resetOf(world.Accounts),
		QPS: 20, StallAfter: time.Minute, SettleTime: time.Minute, PurgeTime: time.Minute, Normalize: target.Identity,
	}
	if key.Account != "" {
		limits.Admit = store.Admit
	}
	r.prefetches = queue.NewQueue(limits)
	limits.Kind, limits.Admit = v1alpha1.JobPurge, r.admitPurge
	r.purge = queue.NewQueue(limits)
	runs[key] = r
	return r
}

// admitPurge says what may be purged now, as the operator decides it.
func (r *run) admitPurge(task *v1alpha1.PrefetchTask) taskstate.Admission {
	a := taskstate.AdmitAll
	if taskstate.AccountKeyOf(task).Account != "" {
		a = r.store.Admit(task)
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

// planAll makes calls until there is nothing to do today.
func (r *run) planAll() {
	end := r.now.Add(horizon)
	for r.now.Before(end) {
		wait, isBusy := r.planNext(r.prefetches, v1alpha1.JobPrefetch)
		purgeWait, isPurging := r.planNext(r.purge, v1alpha1.JobPurge)
		if isBusy || isPurging {
			continue
		}
		if wait == 0 || purgeWait > 0 && purgeWait < wait {
			wait = purgeWait
		}
		if wait == 0 {
			break
		}
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
	quota := queue.Quota{Left: math.MaxInt32} // unknown here: the operator reads it before its first call
	for _, task := range r.tasks {
		a := r.store.Account(taskstate.AccountKeyOf(task).Account)
		if left := leftOf(a, &TaskPlan{ZoneID: zoneID, Mode: v1alpha1.ModeDefault}); left != nil {
			quota.Left = int(*left)
		}
		break // all tasks of a run have the same account
	}
	r.prefetches.SetQuotas(zoneID, func(v1alpha1.PurgeType) queue.Quota { return quota }, r.now)
	r.purge.SetQuotas(zoneID, func(v1alpha1.PurgeType) queue.Quota { return queue.Quota{Left: -1} }, r.now)
}

// execute makes a call that EdgeOne accepts.
func (r *run) execute(q *queue.Queue, call *queue.Call, kind v1alpha1.JobKind) {
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
		ClaimID: id, Kind: kind, ZoneID: task.Spec.ZoneID, SignedAt: metav1.NewTime(r.now), Positions: part.Positions.String(),
		SharedURLs: shared, Semantics: taskstate.HashSemantics(task),
	}, r.now)(task)
	taskstate.RecordJob(id, nil, r.now)(task)
	for i := range task.Status.Jobs {
		if job := &task.Status.Jobs[i]; job.ID == id && kind == v1alpha1.JobPurge {
			job.PurgedPositions, job.Succeeded = job.Positions, int32(len(part.Positions))
		}
	}
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
