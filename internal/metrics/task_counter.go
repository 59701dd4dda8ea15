package metrics

import (
	"maps"
	"sync"

	"sigs.k8s.io/controller-runtime/pkg/client"
)

// taskCounter counts the tasks in the cache, as it changes.
type taskCounter struct {
	reasonOf func(cached client.Object) string

	mu       sync.Mutex
	byReason map[string]int
}

// NewTaskCounter returns a counter that counts each version in the cache by its reason. The
// reason of nil is "", which is not counted.
func NewTaskCounter(reasonOf func(cached client.Object) string) *taskCounter {
	return &taskCounter{reasonOf: reasonOf, byReason: map[string]int{}}
}

// CountTask counts what an event did to the cache: nil is before a task was there, or
// after it is gone.
func (t *taskCounter) CountTask(before, after client.Object) {
	from, to := t.reasonOf(before), t.reasonOf(after)
	if from == to {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if from != "" {
		if t.byReason[from]--; t.byReason[from] == 0 {
			delete(t.byReason, from)
		}
	}
	if to != "" {
		t.byReason[to]++
	}
}

func (t *taskCounter) CountsByReason() map[string]int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return maps.Clone(t.byReason)
}
