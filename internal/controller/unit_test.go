package controller

import (
	"context"
	"errors"
	"maps"
	"net/http"
	"slices"
	"testing"
	"time"

	"golang.org/x/sync/semaphore"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/events"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/credentials"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/kube"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/metrics"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/queue"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/simulator"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/targetlist"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/teo"
)

// unit is an operator whose steps a test takes one by one: a fake client for the
// API server, any transport for EdgeOne. It lives in a synctest bubble.
type unit struct {
	*sharedState
	t *testing.T
}

const unitZone = "zone-1"

var unitCreds = teo.Credentials{SecretID: "AKIDunit", SecretKey: "keyofunit"}

// newUnit returns an operator of these tasks. onStatus, if there is one, stands
// before each status write.
func newUnit(t *testing.T, edgeOne http.RoundTripper, onStatus func(write func() error) error, tasks ...*v1alpha1.PrefetchTask) *unit {
	t.Helper()
	return newUnitWith(t, edgeOne, onStatus, nil, tasks...)
}

// newUnitWith is like newUnit, and reads ConfigMaps from lists if that is not nil.
func newUnitWith(
	t *testing.T, edgeOne http.RoundTripper, onStatus func(write func() error) error, lists client.Reader, tasks ...*v1alpha1.PrefetchTask,
) *unit {
	t.Helper()
	scheme := runtime.NewScheme()
	if err := errors.Join(corev1.AddToScheme(scheme), v1alpha1.AddToScheme(scheme)); err != nil {
		t.Fatal(err)
	}
	builder := fake.NewClientBuilder().WithScheme(scheme).WithStatusSubresource(&v1alpha1.PrefetchTask{})
	for _, task := range tasks {
		builder = builder.WithObjects(task)
	}
	if onStatus != nil {
		builder = builder.WithInterceptorFuncs(interceptor.Funcs{
			SubResourceUpdate: func(ctx context.Context, c client.Client, name string, obj client.Object, opts ...client.SubResourceUpdateOption) error {
				return onStatus(func() error { return c.SubResource(name).Update(ctx, obj, opts...) })
			},
		})
	}
	c := builder.Build()
	teoClient, err := teo.NewClient(teo.Options{Transport: edgeOne})
	if err != nil {
		t.Fatal(err)
	}
	critical, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	op := &sharedState{
		Options: Options{
			Batch: 500, TasksPerCall: 500, QPS: 20, QuotaInterval: 10 * time.Minute, PollInterval: 5 * time.Second, JobDeadline: 24 * time.Hour,
			RecheckInterval: 30 * time.Second, SignatureValidity: 5 * time.Minute, SettleMargin: 30 * time.Second, HistoryRetention: 72 * time.Hour,
			WriteTimeout: 10 * time.Second, CallTimeout: 10 * time.Second, ShutdownGrace: 25 * time.Second,
		},
		versions:      kube.NewTaskStore(),
		edgeOne:       teoClient,
		credentials:   &credentials.Reader{Live: c, Own: func() (teo.Credentials, error) { return unitCreds, nil }, MaxAge: time.Minute},
		EventReporter: kube.NewEventReporter(noEvents{}, metrics.ObserveRun),
		claiming:      semaphore.NewWeighted(kube.MaxStatusWriters),
		runs:          kube.NewWriteRate(kube.RunRate),
		notes:         kube.NewWriteRate(kube.NoteRate),
		critical:      critical,
	}
	leads := make(chan struct{})
	close(leads)
	op.store = kube.NewStatusWriter(c, c, op.versions, 10*time.Second)
	if lists == nil {
		lists = c
	}
	op.lists = targetlist.NewResolver(op.listConfig(lists, leads))
	return &unit{t: t, sharedState: op}
}

// Config is what readers of target lists need.
func (op *sharedState) listConfig(live client.Reader, leads <-chan struct{}) targetlist.Config {
	return targetlist.Config{
		Tasks: op.versions, Writer: op.store, EventReporter: op.EventReporter, Live: live, Leads: leads, Critical: op.critical,
		RecheckInterval: op.RecheckInterval, ReadTimeout: op.WriteTimeout,
	}
}

type noEvents struct{ events.EventRecorder }

func (noEvents) Eventf(runtime.Object, runtime.Object, string, string, string, string, ...any) {}

// unitTask is a new task of n targets.
func unitTask(name string, n int) *v1alpha1.PrefetchTask {
	task := taskOf(n)
	task.Name, task.UID = name, types.UID("uid of "+name)
	return task
}

// get reads a task as it is now.
func (u *unit) get(name string) *v1alpha1.PrefetchTask {
	u.t.Helper()
	task := &v1alpha1.PrefetchTask{}
	if err := u.store.Get(context.Background(), client.ObjectKey{Namespace: "default", Name: name}, task); err != nil {
		u.t.Fatal(err)
	}
	return task
}

// claimedAt makes the task carry a claim on all its targets.
func claimedAt(task *v1alpha1.PrefetchTask, signedAt time.Time) *v1alpha1.PrefetchTask {
	taskstate.ClaimTargets(v1alpha1.Submission{
		ClaimID: "claim of " + task.Name, ZoneID: task.Spec.ZoneID, AccountHash: unitCreds.Hash(), SignedAt: metav1.NewTime(signedAt.Truncate(time.Second)),
		Targets: taskstate.AllPositions(len(taskstate.DistinctTargets(task))).String(), Semantics: taskstate.HashSemantics(task),
	}, signedAt)(task)
	return task
}

// unitEdgeOne is a simulated EdgeOne that knows the unit's key and hosts.
func unitEdgeOne(change func(*simulator.Config)) *simulator.Simulator {
	c := simulator.Config{
		Keys:  []simulator.Key{{SecretID: unitCreds.SecretID, SecretKey: unitCreds.SecretKey, Account: "a"}},
		Zones: []simulator.Zone{{ID: unitZone, Account: "a", Domains: []string{"h"}}},
		Rate:  -1, JobDuration: -1,
	}
	if change != nil {
		change(&c)
	}
	return simulator.New(c)
}

// execute has EdgeOne execute a call of somebody else.
func execute(t *testing.T, edgeOne *simulator.Simulator, urls ...string) (jobID string) {
	t.Helper()
	c, err := teo.NewClient(teo.Options{Transport: edgeOne.RoundTripper()})
	if err != nil {
		t.Fatal(err)
	}
	resp, err := c.CreatePrefetchTask(context.Background(), unitCreds, edgeOne.Now(), teo.CreatePrefetchTaskRequest{ZoneID: unitZone, Targets: urls})
	if err != nil {
		t.Fatal(err)
	}
	return resp.JobID
}

// submitter returns the Submitter and the line of the operator's own account,
// with these tasks in it and their zone's quota known.
func (u *unit) submitter(tasks ...*v1alpha1.PrefetchTask) (*Submitter, *accountQueue) {
	s := newSubmitter(u.sharedState)
	for _, task := range tasks {
		s.versions.ObserveTask(task)
	}
	l := s.queueFor(taskstate.AccountKey{})
	return s, l
}

// planned is the line's next call.
func (u *unit) planned(l *accountQueue) *queue.Call {
	u.t.Helper()
	decision := l.queue.PlanNext(time.Now())
	if decision.ReadQuota != "" {
		l.queue.SetQuota(decision.ReadQuota, 0, -1, time.Now())
		decision = l.queue.PlanNext(time.Now())
	}
	if decision.Call == nil {
		u.t.Fatalf("no call is planned: %+v", decision)
	}
	return decision.Call
}

// poller returns the Poller with these tasks in it.
func (u *unit) poller(tasks ...*v1alpha1.PrefetchTask) *Poller {
	p := newPoller(u.sharedState, NewRecordedJobs())
	for _, task := range tasks {
		p.versions.ObserveTask(task)
	}
	return p
}

// lookUntil looks at the zone each second until a time, for lost calls and for outcomes.
func (u *unit) lookUntil(p *Poller, zoneID string, end time.Time) {
	u.t.Helper()
	for ; time.Now().Before(end); time.Sleep(time.Second) {
		for _, r := range []reconcile.TypedReconciler[zoneKey]{lostCallReconciler{p}, p} {
			if _, err := r.Reconcile(context.Background(), zoneKey{ID: zoneID}); err != nil {
				u.t.Fatal(err)
			}
		}
	}
}

// open returns the tasks of the zone that the Poller has.
func (p *Poller) open(z zoneKey) (tasks []*v1alpha1.PrefetchTask, due time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if work := p.zones[z]; work != nil {
		tasks = slices.Collect(maps.Values(work.tasks))
	}
	return tasks, due
}

// follow is the news of a look that read all jobs of a task, and all of this.
func follow(listed taskstate.JobRecords, deadline time.Duration, now, serverNow time.Time) taskstate.Transition {
	return func(task *v1alpha1.PrefetchTask) {
		taskstate.FollowJobs(readingOf(task, listed, serverNow), taskstate.OutcomeLimits{Deadline: deadline, Retention: 72 * time.Hour}, now, true)(task)
	}
}

// reopen handles a retry of which EdgeOne lists this; nil is that it was not asked.
func reopen(listed taskstate.JobRecords, now time.Time) taskstate.Transition {
	return func(task *v1alpha1.PrefetchTask) {
		read := map[string]taskstate.JobFailures{}
		for i := range task.Status.Jobs {
			if job := &task.Status.Jobs[i]; listed != nil && !taskstate.NamesAllFailures(task, job) {
				read[job.ID] = taskstate.FailuresOf(task, job, readingOf(task, listed, now))
			}
		}
		taskstate.ReopenFailed(read, now)(task)
	}
}

func readingOf(task *v1alpha1.PrefetchTask, listed taskstate.JobRecords, at time.Time) *taskstate.HistoryRead {
	seen := taskstate.NewHistoryRead(at)
	seen.Listing = listed
	for _, job := range task.Status.Jobs {
		seen.Whole[job.ID] = true
	}
	return seen
}

// roundTrip is a transport.
type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }
