package cluster

import (
	"context"

	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/cache"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
)

// WatchTasks calls on for every task that exists or changes, and with gone set for every
// task that was deleted. The calls are sequential. When ctx is done, WatchTasks stops and
// closes ended.
func (c *Cluster) WatchTasks(ctx context.Context, on func(task *v1alpha1.PrefetchTask, gone bool)) (ended <-chan struct{}, err error) {
	caches, err := cache.New(c.Admin, cache.Options{Scheme: c.Client.Scheme()})
	if err != nil {
		return nil, err
	}
	informer, err := caches.GetInformer(ctx, &v1alpha1.PrefetchTask{}, cache.BlockUntilSynced(false))
	if err != nil {
		return nil, err
	}
	if _, err := informer.AddEventHandler(toolscache.ResourceEventHandlerFuncs{
		AddFunc:    func(obj any) { on(obj.(*v1alpha1.PrefetchTask), false) },
		UpdateFunc: func(_, obj any) { on(obj.(*v1alpha1.PrefetchTask), false) },
		DeleteFunc: func(obj any) {
			if last, ok := obj.(toolscache.DeletedFinalStateUnknown); ok {
				obj = last.Obj
			}
			on(obj.(*v1alpha1.PrefetchTask), true)
		},
	}); err != nil {
		return nil, err
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = caches.Start(ctx) // ends with ctx
	}()
	return done, nil
}
