package controller

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"
	"unique"

	"k8s.io/apimachinery/pkg/util/wait"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
)

// Jobs remembers which claims have recorded which of EdgeOne's jobs lately, those
// of finished tasks too. Settling asks: a job that another call has recorded is
// hardly the one that is looked for.
type Jobs struct {
	mu     sync.Mutex
	claims map[string]recordedJob // by job
}

// recordedJob has the claims of the call that made a job, and of calls whose tasks
// found it in EdgeOne's history.
type recordedJob struct {
	claims []string
	at     time.Time
}

// NewJobs returns a memory of no jobs.
func NewJobs() *Jobs { return &Jobs{claims: map[string]recordedJob{}} }

// see remembers the jobs of a task.
func (j *Jobs) see(task *v1alpha1.PrefetchTask) {
	if len(task.Status.Jobs) == 0 {
		return
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, job := range task.Status.Jobs {
		if known := j.claims[job.ID]; !slices.Contains(known.claims, job.ClaimID) {
			// Copies of their own: the task's may be parts of a large text.
			id, claim := unique.Make(job.ID).Value(), unique.Make(job.ClaimID).Value()
			j.claims[id] = recordedJob{append(known.claims, claim), job.SubmitTime.Time}
		}
	}
}

// owner returns a claim that has recorded the job, preferably another one than the
// given; "" if there is none.
func (j *Jobs) owner(jobID, claimID string) string {
	j.mu.Lock()
	defer j.mu.Unlock()
	owner := ""
	for _, id := range j.claims[jobID].claims {
		if owner == "" || id != claimID {
			owner = id
		}
	}
	return owner
}

func (j *Jobs) forget(before time.Time) {
	j.mu.Lock()
	defer j.mu.Unlock()
	maps.DeleteFunc(j.claims, func(_ string, job recordedJob) bool { return job.at.Before(before) })
}

// forgetting forgets recorded jobs that no open claim can ask about any more:
// those that were made before the window of the oldest.
type forgetting struct {
	*Poller
	synced func(context.Context) // returns when all tasks are known
}

// NeedLeaderElection is false: the tasks come to those that do not lead as well.
func (forgetting) NeedLeaderElection() bool { return false }

// Start does so from time to time.
func (f forgetting) Start(ctx context.Context) error {
	f.synced(ctx)
	wait.UntilWithContext(ctx, func(context.Context) {
		oldest := f.edgeOne.ServerTime().Add(-f.SignatureValidity - f.SettleMargin)
		f.mu.Lock()
		for _, work := range f.zones {
			for _, task := range work.tasks {
				if claim := task.Status.Submission; claim != nil && claim.SignedAt.Time.Before(oldest) {
					oldest = claim.SignedAt.Time
				}
			}
		}
		f.mu.Unlock()
		f.jobs.forget(oldest.Add(-answerMemory))
	}, f.SignatureValidity)
	return nil
}
