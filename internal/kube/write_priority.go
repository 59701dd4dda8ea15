package kube

import (
	"context"
	"slices"
	"sync"
)

// writePriority limits the number of concurrent writes. Urgent writes get their slots
// first, in the order of their requests. Only patientWriters patient writes run at a
// time, so that the API server has capacity for urgent writes. One slot in every
// patientShare goes to a patient write, so that a flood of new tasks does not keep the
// outcomes of old tasks out of their statuses.
type writePriority struct {
	mu          sync.Mutex
	free        int             // number of free slots
	patientFree int             // number of further patient writes that may run
	given       int             // number of slots granted so far
	urgent      []chan struct{} // waiting urgent writes, the oldest first
	patient     []chan struct{} // waiting patient writes, the oldest first
}

const (
	// patientShare is the number of granted slots of which one goes to a patient write.
	patientShare = 32
	// patientWriters is the maximum number of concurrent patient writes.
	patientWriters = 4
)

// acquireSlot waits until a write has a slot, or until ctx ends. If the error is nil, the
// caller must call releaseSlot with the same patient.
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
	return nil // the slot was granted just before ctx ended
}

// releaseSlot returns a slot, and grants it to the next write.
func (t *writePriority) releaseSlot(patient bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.free++
	if patient {
		t.patientFree++
	}
	t.grantNext()
}

// grantNext grants the free slots to waiting writes. The caller holds the lock.
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
