// Package controllertest contains test helpers that several controllers share: an operator that
// a test drives step by step (unit.go), tasks in all states (tasks.go), ConfigMaps (lists.go)
// and the values of metrics (series.go). It does not import the controllers.
package controllertest

import (
	"context"
	"errors"
	"net/http"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/events"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/credentials"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/kube"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/metrics"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/simulator"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/targetlist"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/teo"
)

// Unit is an operator that a test drives step by step. It has a fake client for the API server,
// and any transport for EdgeOne. It runs in a synctest bubble.
type Unit struct {
	T *testing.T

	Batch, TasksPerCall, QPS                                  int
	QuotaInterval, PollInterval, JobDeadline, RecheckInterval time.Duration
	SignatureValidity, SettleMargin, HistoryRetention         time.Duration
	WriteTimeout, CallTimeout                                 time.Duration

	Tasks       *kube.TaskStore
	Writer      kube.StatusWriter
	Events      *kube.EventReporter
	EdgeOne     *teo.Client
	Credentials *credentials.Reader
	Lists       *targetlist.Resolver
	Runs        *kube.WriteRate
	Targets     *metrics.TargetCounter // counts what Writer writes
	Critical    context.Context
}

// Zone is the only zone of NewEdgeOne.
const Zone = "zone-1"

// Creds are the keys that NewEdgeOne accepts.
var Creds = teo.Credentials{SecretID: "AKIDunit", SecretKey: "keyofunit"}

// NewUnit returns an operator with these tasks. If onStatus is not nil, it wraps each status
// write.
func NewUnit(t *testing.T, edgeOne http.RoundTripper, onStatus func(write func() error) error, tasks ...*v1alpha1.PrefetchTask) *Unit {
	t.Helper()
	return NewUnitReading(t, edgeOne, onStatus, nil, tasks...)
}

// NewUnitReading is like NewUnit, but reads ConfigMaps from lists if lists is not nil.
func NewUnitReading(
	t *testing.T, edgeOne http.RoundTripper, onStatus func(write func() error) error, lists client.Reader, tasks ...*v1alpha1.PrefetchTask,
) *Unit {
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
	leads := make(chan struct{})
	close(leads)
	versions := kube.NewTaskStore()
	targets := metrics.NewTargetCounter()
	u := &Unit{
		T:     t,
		Batch: 500, TasksPerCall: 500, QPS: 20, QuotaInterval: 10 * time.Minute, PollInterval: 5 * time.Second, JobDeadline: 24 * time.Hour,
		RecheckInterval: 30 * time.Second, SignatureValidity: 5 * time.Minute, SettleMargin: 30 * time.Second, HistoryRetention: 72 * time.Hour,
		WriteTimeout: 10 * time.Second, CallTimeout: 10 * time.Second,
		Tasks:       versions,
		Writer:      kube.NewStatusWriter(c, c, versions, 10*time.Second, targets.ObserveStatusWrite),
		EdgeOne:     teoClient,
		Credentials: &credentials.Reader{Live: c, Own: func() (teo.Credentials, error) { return Creds, nil }, MaxAge: time.Minute},
		Events:      kube.NewEventReporter(NoEvents{}, metrics.ObserveRun),
		Runs:        kube.NewWriteRate(kube.RunRate),
		Targets:     targets,
		Critical:    critical,
	}
	if lists == nil {
		lists = c
	}
	u.Lists = targetlist.NewResolver(u.ListConfig(lists, leads))
	return u
}

// ListConfig returns the configuration for readers of target lists.
func (u *Unit) ListConfig(live client.Reader, leads <-chan struct{}) targetlist.Config {
	return targetlist.Config{
		Tasks: u.Tasks, Writer: u.Writer, EventReporter: u.Events, Live: live, Leads: leads, Critical: u.Critical,
		RecheckInterval: u.RecheckInterval, ReadTimeout: u.WriteTimeout,
	}
}

// NoEvents drops all Events.
type NoEvents struct{ events.EventRecorder }

// Eventf does nothing.
func (NoEvents) Eventf(runtime.Object, runtime.Object, string, string, string, string, ...any) {}

// NewTask returns a new task with n targets.
func NewTask(name string, n int) *v1alpha1.PrefetchTask {
	task := TaskOf(n)
	task.Name, task.UID = name, types.UID("uid of "+name)
	return task
}

// ReadTask reads the current version of a task.
func (u *Unit) ReadTask(name string) *v1alpha1.PrefetchTask {
	u.T.Helper()
	task := &v1alpha1.PrefetchTask{}
	if err := u.Writer.Get(context.Background(), client.ObjectKey{Namespace: "default", Name: name}, task); err != nil {
		u.T.Fatal(err)
	}
	return task
}

// ClaimedAt adds a claim on all targets to the task, and returns the task.
func ClaimedAt(task *v1alpha1.PrefetchTask, signedAt time.Time) *v1alpha1.PrefetchTask {
	taskstate.ClaimTargets(v1alpha1.Submission{
		ClaimID: "claim of " + task.Name, ZoneID: task.Spec.ZoneID, AccountHash: Creds.Hash(), SignedAt: metav1.NewTime(signedAt.Truncate(time.Second)),
		Positions: taskstate.AllPositions(len(taskstate.DistinctTargets(task))).String(), Semantics: taskstate.HashSemantics(task),
	}, signedAt)(task)
	return task
}

// NewEdgeOne returns a simulated EdgeOne that accepts the unit's key and hosts. change, if it is
// not nil, edits the configuration first.
func NewEdgeOne(change func(*simulator.Config)) *simulator.Simulator {
	c := simulator.Config{
		Keys:  []simulator.Key{{SecretID: Creds.SecretID, SecretKey: Creds.SecretKey, Account: "a"}},
		Zones: []simulator.Zone{{ID: Zone, Account: "a", Domains: []string{"h"}}},
		Rate:  -1, JobDuration: -1,
	}
	if change != nil {
		change(&c)
	}
	return simulator.New(c)
}

// Execute makes EdgeOne execute a call that does not come from the operator.
func Execute(t *testing.T, edgeOne *simulator.Simulator, urls ...string) (jobID string) {
	t.Helper()
	c, err := teo.NewClient(teo.Options{Transport: edgeOne.RoundTripper()})
	if err != nil {
		t.Fatal(err)
	}
	resp, err := c.CreateTask(context.Background(), Creds, edgeOne.Now(), teo.CreatePrefetchTaskRequest{ZoneID: Zone, Targets: urls})
	if err != nil {
		t.Fatal(err)
	}
	return resp.JobID
}

// FollowJobs returns the transition of a pass that read all jobs of a task completely, with the
// records in listed.
func FollowJobs(listed taskstate.JobRecords, deadline time.Duration, now, serverNow time.Time) taskstate.Transition {
	return func(task *v1alpha1.PrefetchTask) {
		taskstate.FollowJobs(ReadingOf(task, listed, serverNow), taskstate.OutcomeLimits{Deadline: deadline, Retention: 72 * time.Hour}, now, true)(task)
	}
}

// ReadingOf returns a history read with the records in listed, which shows all jobs of the task
// completely.
func ReadingOf(task *v1alpha1.PrefetchTask, listed taskstate.JobRecords, at time.Time) *taskstate.HistoryRead {
	seen := taskstate.NewHistoryRead(at)
	seen.Listing = listed
	for _, job := range task.Status.Jobs {
		seen.Whole[job.ID] = true
	}
	return seen
}

// RoundTripFunc is a function that serves as a transport.
type RoundTripFunc func(*http.Request) (*http.Response, error)

// RoundTrip calls f.
func (f RoundTripFunc) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }

// Validity and Margin are a Unit's SignatureValidity and SettleMargin: how long a signature is
// valid, and how long after that the history is complete.
const (
	Validity = 5 * time.Minute
	Margin   = 30 * time.Second
)

// LearnTime makes a call, so that the client learns EdgeOne's time from the answer.
func (u *Unit) LearnTime() {
	u.T.Helper()
	if _, err := u.EdgeOne.DescribeContentQuota(context.Background(), Creds, Zone); err != nil {
		u.T.Fatal(err)
	}
}

// PrefetchTasks is the resource in errors of the API server.
var PrefetchTasks = v1alpha1.GroupVersion.WithResource("prefetchtasks").GroupResource()
