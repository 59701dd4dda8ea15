package follow

import (
	"maps"
	"slices"
	"sync"
	"time"
	"unique"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
)

// RecordedJobs remembers which claims recently recorded which of EdgeOne's jobs. It
// includes the jobs of finished tasks. Settling a claim uses it: a job that another call
// has recorded hardly belongs to the claim.
type RecordedJobs struct {
	mu        sync.Mutex
	claims    map[string]recordedJob // by job ID
	retention time.Duration          // how long EdgeOne's history shows a job
}

// recordedJob holds the claim of the call that created a job, and the claims of calls
// whose tasks found the job in EdgeOne's history.
type recordedJob struct {
	claims []string
	at     time.Time // when the call was signed
}

// NewRecordedJobs returns an empty RecordedJobs.
func NewRecordedJobs() *RecordedJobs { return &RecordedJobs{claims: map[string]recordedJob{}} }

// ObserveTask records the jobs of a task.
func (j *RecordedJobs) ObserveTask(task *v1alpha1.PrefetchTask) {
	if len(task.Status.Jobs) == 0 {
		return
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, job := range task.Status.Jobs {
		if job.ClaimID == taskstate.HistoryClaim {
			continue // the operator does not know whose call it was
		}
		if known := j.claims[job.ID]; !slices.Contains(known.claims, job.ClaimID) {
			// Copy the strings: the task's strings may share memory with a large text.
			id, claim := unique.Make(job.ID).Value(), unique.Make(job.ClaimID).Value()
			j.claims[id] = recordedJob{append(known.claims, claim), job.SubmitTime.Time}
		}
	}
}

// ownerOf returns a claim that has recorded the job, or "" if there is none. It prefers a
// claim other than the given one.
func (j *RecordedJobs) ownerOf(jobID, claimID string) string {
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

// belongsToOthers reports whether only other claims than the given one have recorded the
// job.
func (j *RecordedJobs) belongsToOthers(jobID, claimID string) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	known, isRecorded := j.claims[jobID]
	return isRecorded && !slices.Contains(known.claims, claimID)
}

// setRetention sets how long EdgeOne's history shows a job. During this time, the cache
// keeps tasks whose runs ended with unread outcomes.
func (j *RecordedJobs) setRetention(retention time.Duration) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.retention = retention
}

// MayStillBeSeen reports whether the run ended because its outcomes could not be read, and
// EdgeOne's history may still show them.
func (j *RecordedJobs) MayStillBeSeen(task *v1alpha1.PrefetchTask) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return taskstate.IsUnseen(task) && !taskstate.IsPastRetention(task, j.retention, time.Now())
}

// maxRecordedJobs bounds the number of recorded jobs. EdgeOne accepts 20 calls a second
// per account, so the bound covers more than half an hour of one account's jobs.
const maxRecordedJobs = 50_000

// collectGarbage drops the jobs that no claim can ask for. If more than limit jobs remain,
// it drops the oldest of them.
//
// Settling may take a job that was dropped too early for the job of another claim that
// lists the same URLs. Even then, nothing is submitted twice.
func (j *RecordedJobs) collectGarbage(mayBeAsked func(signedAt time.Time) bool, limit int) {
	j.mu.Lock()
	defer j.mu.Unlock()
	maps.DeleteFunc(j.claims, func(_ string, job recordedJob) bool { return !mayBeAsked(job.at) })
	excess := len(j.claims) - limit
	if excess <= 0 {
		return
	}
	oldest := slices.SortedFunc(maps.Keys(j.claims), func(a, b string) int { return j.claims[a].at.Compare(j.claims[b].at) })
	for _, id := range oldest[:excess] {
		delete(j.claims, id)
	}
}
