package metrics

import (
	"maps"
	"sync"

	"sigs.k8s.io/controller-runtime/pkg/client"
)

// taskCounter counts the tasks in the cache by reason. It follows the events of the
// cache, so a scrape does not list the tasks.
type taskCounter struct {
	reasonOf func(cached client.Object) string

	mu       sync.Mutex // guards byReason
	byReason map[string]int
}

// NewTaskCounter returns a counter. reasonOf returns the reason of a cached object. It
// returns "", which is not counted, for nil.
func NewTaskCounter(reasonOf func(cached client.Object) string) *taskCounter {
	return &taskCounter{reasonOf: reasonOf, byReason: map[string]int{}}
}

// CountTask records an event of the cache. before is nil for a new task, and after is nil
// for a deleted one.
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

// CountsByReason returns a copy of the counts.
func (t *taskCounter) CountsByReason() map[string]int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return maps.Clone(t.byReason)
}
