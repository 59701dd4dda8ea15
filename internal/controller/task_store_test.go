package controller

import (
	"testing"
	"testing/synctest"

	"sigs.k8s.io/controller-runtime/pkg/controller/priorityqueue"

	"github.com/prefetch-operator/teo-prefetch-operator/internal/kube"
)

func TestAKeyThatIsWokenHasTheUsualPriority(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		queue := priorityqueue.New[string]("keys")
		defer queue.ShutDown()
		var w kube.DelayedQueue[string]
		w.EnqueueAfter("early", 0)
		w.UseQueue(queue)
		w.EnqueueAfter("later", 0)
		synctest.Wait()
		for range queue.Len() {
			if key, priority, _ := queue.GetWithPriority(); priority != 0 {
				t.Errorf("%s has priority %d", key, priority)
			}
		}
	})
}
