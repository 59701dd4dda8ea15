package kube

import (
	"context"
	"slices"
	"sync"
)

// writePriority bounds the number of writes at a time. Urgent writes go first, in the order in
// which they came. Patient writes go a few at a time, so that an urgent one finds the API server
// idle enough. One slot in every patientShare goes to a patient write, so that a flood of new
// tasks does not keep the outcomes of old ones out of their statuses.
type writePriority struct {
	mu          sync.Mutex
	free        int
	patientFree int // of free, for patient writes
	given       int // to those who waited
	urgent      []chan struct{}
	patient     []chan struct{}
}

const (
	patientShare   = 32
	patientWriters = 4
)

// acquireSlot waits for a slot, or until ctx ends. releaseSlot gives it back.
func (t *writePriority) acquireSlot(ctx context.Context, patient bool) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	mine, line := make(chan struct{}), &t.urgent
	if patient {
		line = &t.patient
	}
	t.mu.Lock()
	*line = append(*line, mine)
	t.grantNext()
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

func (t *writePriority) releaseSlot(patient bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.free++
	if patient {
		t.patientFree++
	}
	t.grantNext()
}

// grantNext gives the free slots to writes that wait.
func (t *writePriority) grantNext() {
	for t.free > 0 {
		line := &t.urgent
		if mayGo := len(t.patient) > 0 && t.patientFree > 0; mayGo && (len(t.urgent) == 0 || (t.given+1)%patientShare == 0) {
			line = &t.patient
			t.patientFree--
		}
		if len(*line) == 0 {
			return
		}
		t.free--
		t.given++
		close((*line)[0])
		*line = (*line)[1:]
	}
}
