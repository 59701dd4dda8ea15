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

// RecordedJobs remembers which claims have recorded which of EdgeOne's jobs lately, those
// of finished tasks too. Settling asks: a job that another call has recorded is
// hardly the one that is looked for.
type RecordedJobs struct {
	mu        sync.Mutex
	claims    map[string]recordedJob // by job
	retention time.Duration          // how long EdgeOne's history shows a job
}

// recordedJob has the claims of the call that made a job, and of calls whose tasks
// found it in EdgeOne's history.
type recordedJob struct {
	claims []string
	at     time.Time
}

// NewRecordedJobs returns a memory of no jobs.
func NewRecordedJobs() *RecordedJobs { return &RecordedJobs{claims: map[string]recordedJob{}} }

// ObserveTask remembers the jobs of a task.
func (j *RecordedJobs) ObserveTask(task *v1alpha1.PrefetchTask) {
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

// ownerOf returns a claim that has recorded the job, preferably another one than the
// given; "" if there is none.
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

// belongsToOthers says whether claims have recorded the job, and the given one has not.
func (j *RecordedJobs) belongsToOthers(jobID, claimID string) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	known, isRecorded := j.claims[jobID]
	return isRecorded && !slices.Contains(known.claims, claimID)
}

// setRetention has the cache keep tasks whose runs ended unseen while EdgeOne's history
// shows their jobs.
func (j *RecordedJobs) setRetention(retention time.Duration) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.retention = retention
}

// MayStillBeSeen says whether the run has ended because nobody could read its outcomes,
// and somebody still may.
func (j *RecordedJobs) MayStillBeSeen(task *v1alpha1.PrefetchTask) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return taskstate.IsUnseen(task) && !taskstate.IsPastRetention(task, j.retention, time.Now())
}

// maxRecordedJobs bounds how many jobs are remembered. EdgeOne takes 20 calls a
// second of an account, so this is more than half an hour of its jobs.
const maxRecordedJobs = 50_000

// collectGarbage drops the jobs for which no claim can ask, and the oldest of the others if
// there are more than limit. A job that is forgotten too early may be taken for that
// of another claim that lists its URLs; nothing is submitted twice for that reason.
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
