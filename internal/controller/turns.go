package controller

import (
	"context"
	"slices"
	"sync"
)

// turns lets so many writes go on at once. Of those that wait the urgent go first,
// in the order they came; but one turn in every patientShare goes to the others, so
// that a flood of new tasks does not hide for ever what became of the old ones.
type turns struct {
	mu      sync.Mutex
	free    int
	given   int // to those who waited
	urgent  []chan struct{}
	patient []chan struct{}
}

const patientShare = 8

// take waits for a turn, or until ctx ends.
func (t *turns) take(ctx context.Context, patient bool) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	t.mu.Lock()
	if t.free > 0 {
		t.free--
		t.mu.Unlock()
		return nil
	}
	mine, line := make(chan struct{}), &t.urgent
	if patient {
		line = &t.patient
	}
	*line = append(*line, mine)
	t.mu.Unlock()
	select {
	case <-mine:
		return nil
	case <-ctx.Done():
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if i := slices.Index(*line, mine); i >= 0 {
		*line = slices.Delete(*line, i, i+1)
		return ctx.Err()
	}
	return nil // the turn came just now
}

// give passes a turn on.
func (t *turns) give() {
	t.mu.Lock()
	defer t.mu.Unlock()
	line := &t.urgent
	if len(t.urgent) == 0 || len(t.patient) > 0 && (t.given+1)%patientShare == 0 {
		line = &t.patient
	}
	if len(*line) == 0 {
		t.free++
		return
	}
	t.given++
	close((*line)[0])
	*line = (*line)[1:]
}
