package main

import (
	"context"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"
	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/cache"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
	"github.com/prefetch-operator/teo-prefetch-operator/test/cluster"
)

// seen is what a bystander with a watch of its own sees of the tasks: when each
// job was first named in a status, and how many tasks are how far. The judge does
// not rest on it, only the figures of recovery do.
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
	caches, err := cache.New(kube.Admin, cache.Options{Scheme: kube.Client.Scheme()})
	if err != nil {
		return nil, err
	}
	informer, err := caches.GetInformer(ctx, &v1alpha1.PrefetchTask{}, cache.BlockUntilSynced(false))
	if err != nil {
		return nil, err
	}
	if _, err := informer.AddEventHandler(toolscache.ResourceEventHandlerFuncs{
		AddFunc:    s.note,
		UpdateFunc: func(_, obj any) { s.note(obj) },
		DeleteFunc: s.forget,
	}); err != nil {
		return nil, err
	}
	go func() { _ = caches.Start(ctx) }()
	return s, nil
}

func (s *seen) note(obj any) {
	task := obj.(*v1alpha1.PrefetchTask)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.live[task.UID] = true
	for _, job := range task.Status.Jobs {
		if _, ok := s.jobs[job.ID]; !ok {
			s.jobs[job.ID] = s.now()
		}
	}
	set(s.finished, task.UID, taskstate.IsFinished(task))
	set(s.open, task.UID, task.Status.Submission != nil)
}

func set(in map[types.UID]bool, uid types.UID, value bool) {
	if value {
		in[uid] = true
	} else {
		delete(in, uid)
	}
}

func (s *seen) forget(obj any) {
	if gone, ok := obj.(toolscache.DeletedFinalStateUnknown); ok {
		obj = gone.Obj
	}
	if task, ok := obj.(*v1alpha1.PrefetchTask); ok {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.finished, task.UID)
		delete(s.open, task.UID)
		delete(s.live, task.UID)
	}
}

func (s *seen) counts() (live, open, finished int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.live), len(s.open), len(s.finished)
}
