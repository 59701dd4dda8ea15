package judge

import (
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/simulator"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
)

// Sighting is a task as an observer saw it at a time on EdgeOne's clock.
type Sighting struct {
	At     time.Time
	UID    types.UID
	Name   string // namespace/name
	IsGone bool   // the task was deleted

	// Run identifies the run of the status. It is empty if the spec asks for another run.
	// Began is not later than the beginning of the run.
	Run        string
	Began      time.Time
	IsPurging  bool // the run purges before it prefetches
	FreshSince time.Time
	Targets    []string // canonical URLs
	Jobs       []SeenJob

	IsReady, IsFinished bool
	Reason, Message     string // of the condition Ready
}

// SeenJob is a job in the status of a task.
type SeenJob struct {
	ID                 string
	IsPurge, IsAdopted bool
	URLs               []string // canonical; of a purge by another type than URL: its targets
}

// Observer keeps what a watch shows of tasks. Its methods may be called concurrently.
type Observer struct {
	now    func() time.Time // on EdgeOne's clock
	offset time.Duration    // how far EdgeOne's clock is ahead of the operator's

	mu   sync.Mutex
	seen []Sighting
}

// NewObserver returns an observer. now returns the time on EdgeOne's clock, and offset is
// how far this clock is ahead of the operator's.
func NewObserver(now func() time.Time, offset time.Duration) *Observer {
	return &Observer{now: now, offset: offset}
}

// Note records a version of a task, or that the task was deleted.
func (o *Observer) Note(task *v1alpha1.PrefetchTask, isGone bool) {
	s := Sighting{
		UID: task.UID, Name: task.Namespace + "/" + task.Name, IsGone: isGone,
		IsPurging: taskstate.HasPurge(task), FreshSince: task.Spec.FreshSince.Time, IsFinished: taskstate.IsFinished(task),
	}
	if c := meta.FindStatusCondition(task.Status.Conditions, v1alpha1.ConditionReady); c != nil {
		s.Reason, s.Message = c.Reason, c.Message
		s.IsReady = c.Status == metav1.ConditionTrue && task.Status.ObservedGeneration == task.Generation
	}
	for _, target := range taskstate.DistinctTargets(task) {
		s.Targets = append(s.Targets, simulator.Canonical(target))
	}
	isNewRun := taskstate.IsNewRun(task)
	if !isNewRun {
		s.Began = task.Status.StartTime.Add(o.offset)
		s.Run = string(task.UID) + " " + task.Status.Run + " " + task.Status.StartTime.UTC().Format(time.RFC3339)
	}
	for _, job := range task.Status.Jobs {
		seen := SeenJob{ID: job.ID, IsPurge: job.Kind == v1alpha1.JobPurge, IsAdopted: job.Adopted}
		if targets := taskstate.CallTargets(task, job.Kind); !isNewRun {
			for _, p := range taskstate.CoveredPositions(job.Positions, len(targets)) {
				seen.URLs = append(seen.URLs, simulator.Canonical(targets[p]))
			}
		}
		s.Jobs = append(s.Jobs, seen)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	s.At = o.now()
	o.seen = append(o.seen, s)
}

// Sightings returns what was seen so far, oldest first.
func (o *Observer) Sightings() []Sighting {
	o.mu.Lock()
	defer o.mu.Unlock()
	return append([]Sighting{}, o.seen...)
}
