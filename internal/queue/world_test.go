package queue

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
)

// world is a queue with its environment: live tasks, and a simple EdgeOne.
type world struct {
	*testing.T
	q    *Queue
	now  time.Time
	live map[types.NamespacedName]*v1alpha1.PrefetchTask
	rv   int

	batch     int             // EdgeOne's maximum of URLs per call; 0 means no limit
	quota     int             // left today in the default mode; -1 means no limit
	edgeQuota int             // left today in the edge mode; -1 means no limit
	unread    bool            // the quota cannot be read
	bad       map[string]bool // URLs that EdgeOne refuses
	foreign   string          // a host that EdgeOne does not know

	calls, reads, extra int            // calls and quota reads made; extra counts refused calls and tests
	accepted            map[string]int // by task, run and URL
	order               []string       // tasks in the order of their calls
	claims              int

	account *account // if not nil, the tasks use an account with rules
}

// account has rules for the tasks of a world. The zero value allows nobody anything.
type account struct {
	allowed map[string]bool // by namespace
	budget  int             // URLs of all namespaces; -1 means no limit
	budgets map[string]int  // by namespace; a namespace without an entry has no limit
	used    int
	usedBy  map[string]int
}

// useAccount makes the tasks of a world use an account that allows these namespaces.
func (w *world) useAccount(namespaces ...string) *account {
	a := &account{allowed: map[string]bool{}, budget: -1, budgets: map[string]int{}, usedBy: map[string]int{}}
	for _, namespace := range namespaces {
		a.allowed[namespace] = true
	}
	w.account, w.q.limits.Admit = a, a.admit
	return a
}

func (a *account) admit(task *v1alpha1.PrefetchTask) taskstate.Admission {
	if !a.allowed[task.Namespace] {
		return taskstate.Admission{Cause: taskstate.Cause{Reason: v1alpha1.ReasonNotAllowed, Message: "not allowed", NeedsUser: true}}
	}
	admission := taskstate.AdmitAll
	if a.budget >= 0 {
		admission.Left = max(0, a.budget-a.used)
	}
	if limit, ok := a.budgets[task.Namespace]; ok {
		admission.NamespaceLeft = max(0, limit-a.usedBy[task.Namespace])
	}
	return admission
}

// charge counts the URLs of a claimed call, and returns a function that gives them back.
func (w *world) charge(call *Call) (refund func()) {
	a, planned := w.account, maps.Clone(call.planned)
	w.q.EndPlanning(call, w.now)
	if a == nil {
		return func() {}
	}
	add := func(sign int) {
		for namespace, n := range planned {
			a.used += sign * n
			a.usedBy[namespace] += sign * n
		}
	}
	add(1)
	return func() {
		add(-1)
		w.q.RefreshBudget(w.now)
	}
}

func newWorld(t *testing.T) *world {
	return &world{
		T: t, now: time.Date(2026, 7, 1, 12, 0, 0, 0, time.UTC), quota: -1, edgeQuota: -1,
		live: map[types.NamespacedName]*v1alpha1.PrefetchTask{}, accepted: map[string]int{}, bad: map[string]bool{},
		q: NewQueue(Limits{
			Batch: 500, TasksPerCall: 500, QuotaInterval: 10 * time.Minute, QPS: 20, StallAfter: time.Minute,
			SettleTime: 6 * time.Minute, Normalize: strings.ToLower,
		}),
	}
}

func keyOf(task *v1alpha1.PrefetchTask) types.NamespacedName {
	return types.NamespacedName{Namespace: task.Namespace, Name: task.Name}
}

// store makes a version of a task the live one. It does not pass it to the queue.
func (w *world) store(task *v1alpha1.PrefetchTask) *v1alpha1.PrefetchTask {
	w.rv++
	task.ResourceVersion = strconv.Itoa(w.rv)
	w.live[keyOf(task)] = task
	return task
}

func (w *world) set(tasks ...*v1alpha1.PrefetchTask) {
	for _, task := range tasks {
		w.q.UpsertTask(w.store(task), w.now)
	}
}

// edit changes the live version of a task and passes it to the queue.
func (w *world) edit(name string, f func(*v1alpha1.PrefetchTask)) {
	w.Helper()
	task := w.get(name).DeepCopy()
	f(task)
	w.set(task)
}

func (w *world) get(name string) *v1alpha1.PrefetchTask {
	w.Helper()
	namespace, short, ok := strings.Cut(name, "/")
	if !ok {
		namespace, short = "default", name
	}
	task := w.live[types.NamespacedName{Namespace: namespace, Name: short}]
	if task == nil {
		w.Fatalf("there is no task %s", name)
	}
	return task
}

func (w *world) delete(name string) {
	w.Helper()
	key := keyOf(w.get(name))
	delete(w.live, key)
	w.q.RemoveTask(key, w.now)
}

// next returns the next call. It performs the quota reads that the queue asks for before
// that call.
func (w *world) next() *Call {
	w.Helper()
	for {
		d := w.q.PlanNext(w.now)
		if d.ReadQuota == "" {
			return d.Call
		}
		w.readQuota(d.ReadQuota)
	}
}

func (w *world) readQuota(zoneID string) {
	w.reads++
	switch {
	case w.unread:
		w.q.SetQuota(zoneID, 0, -1, w.now)
	case w.quota < 0:
		w.q.SetQuota(zoneID, w.batch, 1<<30, w.now)
	default:
		w.q.SetQuota(zoneID, w.batch, w.quota, w.now)
	}
}

// none fails the test if the queue has a call to make.
func (w *world) none() {
	w.Helper()
	if call := w.next(); call != nil {
		w.Fatalf("%s has a call, want none", names(call))
	}
}

// names returns the names of a call's tasks; the namespace default is omitted.
func names(call *Call) string {
	var all []string
	for _, part := range call.Parts {
		name := part.Task.Name
		if part.Task.Namespace != "default" {
			name = part.Task.Namespace + "/" + name
		}
		all = append(all, name)
	}
	return strings.Join(all, " ")
}

// expect fails the test unless the call is of the wanted tasks, in this order.
func (w *world) expect(call *Call, want string) *Call {
	w.Helper()
	if call == nil {
		w.Fatalf("no call, want one of %s", want)
	}
	if got := names(call); got != want {
		w.Fatalf("the call is of %q, want %q", got, want)
	}
	return call
}

// claim writes a claim to the tasks of a call, except to those that changed after the
// call was planned. In tasks, a task that no longer exists is nil.
func (w *world) claim(call *Call) (claimID string, tasks []*v1alpha1.PrefetchTask) {
	w.claims++
	claimID = "claim-" + strconv.Itoa(w.claims)
	w.q.ReserveURLs(claimID, call.Lane.ZoneID, call.URLs, w.now)
	for _, part := range call.Parts {
		live := w.live[keyOf(part.Task)]
		if live != nil && live.UID != part.Task.UID {
			live = nil
		}
		if live != nil && live.ResourceVersion == part.Task.ResourceVersion {
			live = live.DeepCopy()
			if taskstate.IsNewRun(live) {
				live.Status = v1alpha1.PrefetchTaskStatus{Run: taskstate.RunHash(live), ObservedGeneration: live.Generation}
			}
			live.Status.Submission = &v1alpha1.Submission{
				ClaimID: claimID, ZoneID: call.Lane.ZoneID, Positions: part.Positions.String(), Semantics: taskstate.HashSemantics(live),
			}
			w.store(live)
		}
		tasks = append(tasks, live)
	}
	return claimID, tasks
}

// newest returns the live versions of a call's tasks.
func (w *world) newest(call *Call) []*v1alpha1.PrefetchTask {
	tasks := make([]*v1alpha1.PrefetchTask, len(call.Parts))
	for i, part := range call.Parts {
		tasks[i] = w.live[keyOf(part.Task)]
	}
	return tasks
}

func has(task *v1alpha1.PrefetchTask, claimID string) bool {
	return task != nil && task.Status.Submission != nil && task.Status.Submission.ClaimID == claimID
}

// execute counts the URLs that EdgeOne accepts for the claimed tasks. It fails the test
// if EdgeOne accepts a URL twice in a run.
func (w *world) execute(call *Call, claimID string, tasks []*v1alpha1.PrefetchTask) {
	for i, part := range call.Parts {
		if has(tasks[i], claimID) {
			targets := taskstate.DistinctTargets(part.Task)
			for _, p := range part.Positions {
				key := fmt.Sprintf("%s %s %s %s", part.Task.UID, keyOf(part.Task), taskstate.RunHash(part.Task), targets[p])
				if w.accepted[key]++; w.accepted[key] > 1 {
					w.Errorf("%s was accepted twice", key)
				}
			}
		}
	}
}

// settle changes the status of the tasks that still carry the claim, and removes the
// claim.
func (w *world) settle(tasks []*v1alpha1.PrefetchTask, claimID string, f func(*v1alpha1.PrefetchTask)) {
	for i, task := range tasks {
		if task == nil {
			continue
		}
		live := w.live[keyOf(task)]
		if live == nil || live.UID != task.UID {
			tasks[i] = nil
			continue
		}
		if has(live, claimID) {
			live = live.DeepCopy()
			f(live)
			live.Status.Submission = nil
			w.store(live)
		}
		tasks[i] = live
	}
}

// adopted returns a status change that records the job of an executed call.
func (w *world) adopted(claimID string) func(*v1alpha1.PrefetchTask) {
	return func(task *v1alpha1.PrefetchTask) {
		task.Status.Jobs = append(task.Status.Jobs, v1alpha1.Job{ID: "job-" + claimID, ClaimID: claimID, Positions: task.Status.Submission.Positions, SubmitTime: metav1.NewTime(w.now)})
	}
}

// refusedAll records all targets of the claim as refused.
func refusedAll(task *v1alpha1.PrefetchTask) {
	p, _ := taskstate.ParsePositions(task.Status.Submission.Positions)
	have, _ := taskstate.ParsePositions(task.Status.RefusedPositions)
	task.Status.RefusedPositions = have.Union(p).String()
}

func unchanged(*v1alpha1.PrefetchTask) {}

// answer simulates EdgeOne's response to a call, and records it.
func (w *world) answer(call *Call) {
	w.Helper()
	if call.Refusal != "" {
		for _, part := range call.Parts {
			live := w.live[keyOf(part.Task)]
			if live != nil && live.ResourceVersion == part.Task.ResourceVersion {
				live = live.DeepCopy()
				if taskstate.IsNewRun(live) {
					live.Status = v1alpha1.PrefetchTaskStatus{Run: taskstate.RunHash(live), ObservedGeneration: live.Generation}
				}
				have, _ := taskstate.ParsePositions(live.Status.RefusedPositions)
				live.Status.RefusedPositions = have.Union(part.Positions).String()
				w.store(live)
			}
		}
		w.q.RecordAccepted(call, w.newest(call), 0, w.now)
		return
	}
	w.calls++
	for _, part := range call.Parts {
		w.order = append(w.order, part.Task.Namespace+"/"+part.Task.Name)
	}
	w.conclude(call)
}

// conclude simulates a call that reaches EdgeOne, and records its outcome.
func (w *world) conclude(call *Call) {
	claimID, tasks := w.claim(call)
	refund := w.charge(call)
	n := len(call.URLs)
	quota := &w.quota
	if call.Lane.Edge {
		quota = &w.edgeQuota
	}
	wrong := slices.ContainsFunc(call.URLs, func(u string) bool { return w.bad[u] || w.foreign != "" && strings.Contains(u, w.foreign) })
	if call.test || wrong {
		w.extra++
	}
	if executed := !wrong && (w.batch == 0 || n <= w.batch) && (*quota < 0 || n <= *quota); !executed {
		defer refund()
	}
	switch {
	case w.batch > 0 && n > w.batch:
		w.settle(tasks, claimID, unchanged)
		w.q.ReleaseURLs(claimID, w.now)
		w.q.RecordTooLarge(call, w.now)
		w.q.RecordReleased(call, w.newest(call), w.now)
	case wrong && n == 1:
		if w.foreign != "" {
			w.q.RefuseHost(call.Lane.ZoneID, call.URLs[0], "not known", w.now.Add(10*time.Minute))
		}
		w.settle(tasks, claimID, refusedAll)
		w.q.ReleaseURLs(claimID, w.now)
		w.q.RecordAccepted(call, w.newest(call), 0, w.now)
	case wrong:
		w.settle(tasks, claimID, unchanged)
		w.q.ReleaseURLs(claimID, w.now)
		w.q.BisectRejected(call, w.newest(call), w.now)
	case *quota >= 0 && n > *quota:
		w.settle(tasks, claimID, unchanged)
		w.q.ReleaseURLs(claimID, w.now)
		w.q.RecordQuotaExhausted(call, w.now)
		w.q.RecordReleased(call, w.newest(call), w.now)
	default:
		if *quota >= 0 {
			*quota -= n
		}
		w.execute(call, claimID, tasks)
		w.settle(tasks, claimID, w.adopted(claimID))
		w.q.ReleaseURLs(claimID, w.now)
		w.q.RecordAccepted(call, w.newest(call), n, w.now)
	}
}

// lose simulates a call without a response.
func (w *world) lose(call *Call) (claimID string, tasks []*v1alpha1.PrefetchTask) {
	claimID, tasks = w.claim(call)
	w.charge(call)
	w.q.TrackLostCall(call, claimID, w.newest(call), w.now)
	return claimID, tasks
}

// find settles the tasks of a lost call, as the Poller does, and passes them to the
// queue.
func (w *world) find(tasks []*v1alpha1.PrefetchTask, claimID string, executed bool) {
	f := w.adopted(claimID)
	if !executed {
		f = func(task *v1alpha1.PrefetchTask) { task.Status.LostCalls++ }
	}
	w.settle(tasks, claimID, f)
	for _, task := range tasks {
		if task != nil {
			w.q.UpsertTask(task, w.now)
		}
	}
}

// drive makes calls one by one, 20 per second, until there is nothing left to do or the
// time limit has passed.
func (w *world) drive(limit time.Duration) {
	w.Helper()
	for end := w.now.Add(limit); !w.now.After(end); {
		switch d := w.q.PlanNext(w.now); {
		case d.Call != nil:
			w.answer(d.Call)
			if d.Call.Refusal == "" {
				w.now = w.now.Add(50 * time.Millisecond)
			}
		case d.ReadQuota != "":
			w.readQuota(d.ReadQuota)
		case d.Wait > 0:
			w.now = w.now.Add(d.Wait)
		default:
			return
		}
	}
}

// open returns the number of tasks that wait or carry a claim.
func (w *world) open() (n int) {
	for _, task := range w.live {
		if taskstate.IsWaiting(task, v1alpha1.JobPrefetch) || task.Status.Submission != nil {
			n++
		}
	}
	return n
}
