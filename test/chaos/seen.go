package main

import (
	"context"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
	"github.com/prefetch-operator/teo-prefetch-operator/test/cluster"
)

// seen is what an observer with its own watch sees of the tasks: when each job first
// appeared in a status, and how many tasks have reached which state. Only the figures of
// recovery depend on it, and not the judge.
type seen struct {
	now func() time.Time

	mu       sync.Mutex
	jobs     map[string]time.Time
	finished map[types.UID]bool
	open     map[types.UID]bool
	live     map[types.UID]bool
}

func watchTasks(ctx context.Context, kube *cluster.Cluster, now func() time.Time) (*seen, error) {
	s := &seen{now: now, jobs: map[string]time.Time{}, finished: map[types.UID]bool{}, open: map[types.UID]bool{}, live: map[types.UID]bool{}}
	_, err := kube.WatchTasks(ctx, s.note)
	return s, err
}

func (s *seen) note(task *v1alpha1.PrefetchTask, gone bool) {
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
