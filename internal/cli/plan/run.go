package plan

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

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

// run is the queues of one account, which makes its calls at once, and EdgeOne accepts all of them.
type run struct {
	store             *account.Store
	quotas            *quotas
	seen              map[string]int  // by zone that the queues know: the calls of quotas that they know
	admit             queue.AdmitFunc // what the account allows; nil if that is everything
	batch             int             // of World
	pause             time.Duration   // between two calls
	prefetches, purge *queue.Queue
	tasks             map[string]*v1alpha1.PrefetchTask
	plans             map[string]*TaskPlan
	open              int // how many targets of the planned tasks are not submitted
	now               time.Time
	idle              time.Duration // since the last call; horizon if nothing is left to do
	calls             int
}

// newRun returns the run of an account.
func newRun(key taskstate.AccountKey, store *account.Store, zones *quotas, world World) *run {
	r := &run{
		store: store, quotas: zones, seen: map[string]int{}, batch: world.Batch, pause: time.Second / callsPerSecond, now: world.Now,
		tasks: map[string]*v1alpha1.PrefetchTask{}, plans: map[string]*TaskPlan{},
	}
	if a := store.Account(key.Account); a != nil && a.Spec.Limits.CallsPerSecond > 0 {
		r.pause = max(r.pause, time.Second/time.Duration(a.Spec.Limits.CallsPerSecond))
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
	return r
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
		plan.NotToday = plan.Targets - plan.Kept
		r.open += plan.NotToday
	}
	r.update(task)
}

func (r *run) update(task *v1alpha1.PrefetchTask) {
	r.prefetches.UpsertTask(task, r.now)
	r.purge.UpsertTask(task, r.now)
}

// step makes the calls that are due, or waits until some may be. The time of a call matters: of two tasks that
// need more calls, the one whose last call is older goes first.
func (r *run) step() {
	for zoneID, calls := range r.seen {
		if r.quotas.calls[zoneID] != calls { // another account has made calls
			r.setQuota(zoneID)
		}
	}
	wait, isBusy := r.planNext(r.prefetches, v1alpha1.JobPrefetch)
	purgeWait, isPurging := r.planNext(r.purge, v1alpha1.JobPurge)
	if isBusy || isPurging {
		r.idle, r.now = 0, r.now.Add(r.pause)
		return
	}
	if wait == 0 || purgeWait > 0 && purgeWait < wait {
		wait = purgeWait
	}
	if wait == 0 {
		r.idle = horizon
		return
	}
	r.idle += wait
	r.now = r.now.Add(wait)
}

// end ends the plans: it says why targets are not submitted today.
func (r *run) end() {
	if r.open > 0 {
		notes, _ := r.prefetches.WaitingStatuses(len(r.tasks)+1, r.now.Add(2*time.Hour))
		purgeNotes, _ := r.purge.WaitingStatuses(len(r.tasks)+1, r.now.Add(2*time.Hour))
		for _, note := range append(notes, purgeNotes...) {
			if plan := r.plans[keyOf(note.Task)]; plan != nil && plan.NotToday > 0 && plan.Reason == "" && note.Reason != "" {
				plan.Reason, plan.Message = note.Reason, note.FullMessage()
			}
		}
	}
	clear(r.plans)
	r.open = 0
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
	r.seen[zoneID] = r.quotas.calls[zoneID]
	zone := r.quotas.find(zoneID)
	r.prefetches.SetQuotas(zoneID, func(v1alpha1.PurgeType) queue.Quota {
		return newQuota(cmp.Or(r.batch, int(zone.Batch)), zone.Daily, zone.Left)
	}, r.now)
	r.purge.SetQuotas(zoneID, func(purge v1alpha1.PurgeType) queue.Quota {
		if of := findPurge(&zone, purge); of != nil {
			return newQuota(cmp.Or(r.batch, int(of.Batch)), of.Daily, of.Left)
		}
		return newQuota(r.batch, nil, nil)
	}, r.now)
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
	r.quotas.charge(call, kind)
	r.seen[call.Lane.ZoneID]++
	if kind == v1alpha1.JobPurge {
		r.prefetches.EndPromising(call, r.now)
	}
	for _, task := range changed {
		r.update(task)
	}
}

// planClaim is the claim of the calls of the plan.
const planClaim = "plan"

// submit returns the task of a part after its call. A purge has succeeded at once.
func (r *run) submit(part queue.CallPart, kind v1alpha1.JobKind, id string, shared int32) *v1alpha1.PrefetchTask {
	task := withOwnStatus(part.Task)
	taskstate.BeginRun(task, r.now)
	task.Status.Submission = &v1alpha1.Submission{
		ClaimID: planClaim, Kind: kind, ZoneID: task.Spec.ZoneID, SignedAt: metav1.NewTime(r.now.Truncate(time.Second)), Positions: part.Positions.String(),
		SharedURLs: shared, Semantics: taskstate.HashSemantics(task),
	}
	taskstate.RecordJob(id, nil, r.now)(task)
	r.store.Usage.OnTaskChange(part.Task, task)
	mergeLastJob(task)
	if kind == v1alpha1.JobPurge {
		endPurges(task)
		taskstate.UpdateSummary(task, r.now)
	}
	r.tasks[keyOf(task)] = task
	return task
}

// mergeLastJob merges the last job of a task with the one that the plan's calls of its kind had before. So a task
// has few jobs, and its next call does not take longer than its last one.
func mergeLastJob(task *v1alpha1.PrefetchTask) {
	jobs := task.Status.Jobs
	last := &jobs[len(jobs)-1]
	isBefore := func(job v1alpha1.Job) bool {
		return job.ClaimID == planClaim && job.Kind == last.Kind && job.ID != last.ID
	}
	if i := slices.IndexFunc(jobs, isBefore); i >= 0 {
		before, _ := taskstate.ParsePositions(jobs[i].Positions)
		positions, _ := taskstate.ParsePositions(last.Positions)
		last.Positions, last.SharedURLs = before.Union(positions).String(), last.SharedURLs+jobs[i].SharedURLs
		task.Status.Jobs = slices.Delete(jobs, i, i+1)
	}
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
	plan.NotToday -= len(part.Positions)
	r.open -= len(part.Positions)
	plan.URLs += len(part.Positions) - shared
	if plan.Mode == v1alpha1.ModeEdge {
		plan.EdgeURLs = plan.URLs
	}
}
