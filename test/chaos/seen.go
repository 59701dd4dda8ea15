package main

import (
	"context"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
	"github.com/prefetch-operator/teo-prefetch-operator/test/cluster"
	"github.com/prefetch-operator/teo-prefetch-operator/test/judge"
)

// seen is what an observer with its own watch sees of the tasks: when each job first
// appeared in a status, how many tasks have reached which state, and what the statuses of
// releases say. Of the judge, only that of releases depends on it.
type seen struct {
	now      func() time.Time
	releases *judge.Observer

	mu       sync.Mutex
	jobs     map[string]time.Time
	finished map[types.UID]bool
	open     map[types.UID]bool
	live     map[types.UID]bool
}

func watchTasks(ctx context.Context, kube *cluster.Cluster, now func() time.Time, offset time.Duration) (*seen, error) {
	s := &seen{
		now: now, releases: judge.NewObserver(now, offset),
		jobs: map[string]time.Time{}, finished: map[types.UID]bool{}, open: map[types.UID]bool{}, live: map[types.UID]bool{},
	}
	_, err := kube.WatchTasks(ctx, s.note)
	return s, err
}

func (s *seen) note(task *v1alpha1.PrefetchTask, gone bool) {
	if task.Spec.ZoneID == refreshZone.id {
		s.releases.Note(task, gone)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	set(s.live, task.UID, !gone)
	set(s.finished, task.UID, !gone && taskstate.IsFinished(task))
	set(s.open, task.UID, !gone && task.Status.Submission != nil)
	if gone {
		return
	}
	for _, job := range task.Status.Jobs {
		if _, ok := s.jobs[job.ID]; !ok {
			s.jobs[job.ID] = s.now()
		}
	}
}

func set(in map[types.UID]bool, uid types.UID, value bool) {
	if value {
		in[uid] = true
	} else {
		delete(in, uid)
	}
}

func (s *seen) counts() (live, open, finished int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.live), len(s.open), len(s.finished)
}
