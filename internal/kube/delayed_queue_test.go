package kube

import (
	"testing"
	"testing/synctest"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/controller/priorityqueue"
)

func TestKeysThatAreDueBeforeTheQueueIsThereAreHandedOverOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var d DelayedQueue[string]
		d.EnqueueAfter("a", time.Minute)
		d.EnqueueAfter("a", time.Second)
		d.EnqueueAfter("b", 0)
		keys := priorityqueue.New[string]("keys")
		defer keys.ShutDown()
		d.UseQueue(keys)
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if keys.Len() != 2 || d.early != nil {
			t.Errorf("%d keys are due, and %v are kept", keys.Len(), d.early)
		}
	})
}
