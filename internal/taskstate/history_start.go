package taskstate

import (
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/target"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/teo"
)

// A run starts with a look at EdgeOne's history in two cases. With spec.freshSince, it does not
// submit what anybody has prefetched since then. And if only the list of targets has changed, it does
// not submit what the jobs of the run before have prefetched.

// HistoryClaim is the claim ID of a job that the operator found in EdgeOne's history and did not
// submit.
const HistoryClaim = "history"

// NeedsHistory reports whether the task's run starts with a look at EdgeOne's history, and has not
// started yet.
func NeedsHistory(task *v1alpha1.PrefetchTask) bool {
	if IsSlimmed(task) || !task.DeletionTimestamp.IsZero() || IsSuspended(task) || !IsNewRun(task) {
		return false
	}
	return !task.Spec.FreshSince.IsZero() || IsListEdit(task)
}

// IsListEdit reports whether the new run of a task differs from the one before only by its list of
// targets, and that one has made a call. A call under way comes first: what it prefetches is kept.
func IsListEdit(task *v1alpha1.PrefetchTask) bool {
	return IsNewRun(task) && task.Status.Request != "" && task.Status.Request == RequestHash(task) && (HasClaim(task) ||
		slices.ContainsFunc(task.Status.Jobs, func(job v1alpha1.Job) bool { return job.Kind == v1alpha1.JobPrefetch }))
}

// CanStartFromHistory reports whether nothing of the run before can still change what the history
// shows.
func CanStartFromHistory(task *v1alpha1.PrefetchTask) bool {
	return !HasClaim(task) && !HasOpenPurge(task) && (IsListEdit(task) || !AwaitsFormerPrefetches(task))
}

// MayAdopt reports whether the run of a task may adopt jobs that the operator has not submitted for
// it. EdgeOne's history does not show the mode, the headers and the media segments of a job.
func MayAdopt(task *v1alpha1.PrefetchTask) bool {
	return !task.Spec.FreshSince.IsZero() && !IsEdgeMode(task) && len(task.Spec.Headers) == 0 &&
		task.Spec.MediaSegments != v1alpha1.MediaSegmentsPrefetch && task.Spec.ZoneID != "*"
}

// FreshURLs has the best record of each URL in a part of EdgeOne's prefetch history, by
// target.Identity.
type FreshURLs map[string]teo.Record

// AddRecords adds records of URLs that are prefetched, or are being prefetched.
func (f FreshURLs) AddRecords(records []teo.Record) {
	for _, record := range records {
		if record.Ended() && record.Status != teo.StatusSuccess {
			continue
		}
		identity := record.Identity()
		if known, ok := f[identity]; !ok || isFresher(record, known) {
			f[identity] = record
		}
	}
}

// isFresher prefers a prefetch that has succeeded, and the later one of two.
func isFresher(a, b teo.Record) bool {
	if a.Ended() != b.Ended() {
		return a.Ended()
	}
	return a.CreateTime.After(b.CreateTime)
}

// LastPurges has the last successful purge of each target, by teo.Record.Identity. A purge under way
// counts as later than any other.
type LastPurges map[string]teo.Record

// AddRecords adds records of EdgeOne's purge history of one type of purge.
func (l LastPurges) AddRecords(records []teo.Record, purgeType string) {
	for _, record := range records {
		identity := record.Identity()
		known, isKnown := l[identity]
		switch {
		case record.Type != purgeType:
		case !record.Ended():
			l[identity] = record
		case record.Status != teo.StatusSuccess, isKnown && !known.Ended():
		case !isKnown || purgeTime(record).After(purgeTime(known)):
			l[identity] = record
		}
	}
}

// purgeTime returns when a purge has ended at the latest.
func purgeTime(record teo.Record) time.Time { return latest(record.CreateTime, record.UpdateTime) }

// purgedAt returns when a target was purged as the task asks for, and whether it was.
func (l LastPurges) purgedAt(task *v1alpha1.PrefetchTask, url string) (at time.Time, isPurged bool) {
	if purgesOwnTargets(task) {
		record, isPurged := l[url]
		return purgeTime(record), isPurged && record.Ended()
	}
	for _, identity := range CallIdentities(task, v1alpha1.JobPurge) {
		record, isPurged := l[identity]
		if !isPurged || !record.Ended() || record.Method == teo.MethodInvalidate && task.Spec.Purge.Method != v1alpha1.PurgeInvalidate {
			return time.Time{}, false
		}
		at = latest(at, purgeTime(record))
	}
	return at, true
}

// jobsOf returns the purges of what spec.purge names.
func (l LastPurges) jobsOf(task *v1alpha1.PrefetchTask) (jobs KeptJobs) {
	index := map[string]int{}
	for i, identity := range CallIdentities(task, v1alpha1.JobPurge) {
		jobs = jobs.add(index, l[identity], i, v1alpha1.JobPurge)
	}
	return jobs
}

// KeptJobs are the jobs with targets that the run of a task need not submit.
type KeptJobs []KeptJob

// KeptJob is a job in EdgeOne's history with the positions that it covers.
type KeptJob struct {
	AdoptedJob
	Kind    v1alpha1.JobKind
	Created time.Time // when EdgeOne created the job
}

// add adds a target to the job of its record. index has the jobs by ID.
func (k KeptJobs) add(index map[string]int, record teo.Record, position int, kind v1alpha1.JobKind) KeptJobs {
	i, isKnown := index[record.JobID]
	if !isKnown {
		i = len(k)
		index[record.JobID] = i
		k = append(k, KeptJob{AdoptedJob{JobID: record.JobID}, kind, record.CreateTime})
	}
	k[i].Positions = append(k[i].Positions, position)
	return k
}

// KeepFromHistory returns the jobs that a new run need not submit: own jobs of the run before, if
// only the list has changed, which read shows as a whole; and jobs since spec.freshSince.
func KeepFromHistory(task *v1alpha1.PrefetchTask, read *HistoryRead, fresh FreshURLs, purged LastPurges) (kept KeptJobs) {
	own := FreshURLs{}
	if IsListEdit(task) {
		for i := range task.Status.Jobs {
			if job := &task.Status.Jobs[i]; job.Kind == v1alpha1.JobPrefetch && read.Whole[job.ID] {
				own.addJob(read.Listing[job.ID])
			}
		}
	}
	index := map[string]int{}
	for i, url := range DistinctTargets(task) {
		identity := target.Identity(url)
		record, ok := own[identity]
		if !ok {
			record, ok = fresh[identity]
			ok = ok && isFresh(task, record, purged)
		}
		if ok {
			kept = kept.add(index, record, i, v1alpha1.JobPrefetch)
		}
	}
	kept = kept.limitAdopted(task)
	if len(kept) == 0 || !HasPurge(task) || purgesOwnTargets(task) {
		return kept
	}
	return keepPurges(task, kept, purged)
}

// isFresh reports whether a prefetch by anybody is as fresh as the task asks for.
func isFresh(task *v1alpha1.PrefetchTask, record teo.Record, purged LastPurges) bool {
	since := task.Spec.FreshSince.Time
	if !MayAdopt(task) || record.CreateTime.Before(since) {
		return false
	}
	if !HasPurge(task) {
		return true
	}
	at, isPurged := purged.purgedAt(task, record.Identity())
	return isPurged && !at.Before(since) && !record.CreateTime.Before(at)
}

// keepPurges adds the purges of what spec.purge names to the prefetches that a new run keeps: another
// purge would delete what they have prefetched. If the purges are not known, the run keeps nothing.
func keepPurges(task *v1alpha1.PrefetchTask, kept KeptJobs, purged LastPurges) KeptJobs {
	if jobs := formerPurges(task); IsListEdit(task) && jobs != nil {
		return append(jobs, kept...)
	}
	if at, isPurged := purged.purgedAt(task, ""); MayAdopt(task) && isPurged && !at.Before(task.Spec.FreshSince.Time) {
		return append(purged.jobsOf(task), kept...)
	}
	return nil
}

// maxAdoptedJobs bounds the jobs of others that a run adopts. A status with thousands of jobs would
// be too large to be written.
const maxAdoptedJobs = 1000

// limitAdopted drops the smallest prefetches that the task has not submitted, if they are too many.
// Their targets are submitted again.
func (k KeptJobs) limitAdopted(task *v1alpha1.PrefetchTask) KeptJobs {
	isOwn := make(map[string]bool, len(task.Status.Jobs))
	for i := range task.Status.Jobs {
		isOwn[task.Status.Jobs[i].ID] = true
	}
	isAdopted := func(job KeptJob) bool { return job.Kind == v1alpha1.JobPrefetch && !isOwn[job.JobID] }
	var sizes []int
	for _, job := range k {
		if isAdopted(job) {
			sizes = append(sizes, len(job.Positions))
		}
	}
	if len(sizes) <= maxAdoptedJobs {
		return k
	}
	slices.SortFunc(sizes, func(a, b int) int { return b - a })
	room, least := maxAdoptedJobs, sizes[maxAdoptedJobs-1]
	for _, n := range sizes[:maxAdoptedJobs] {
		if n > least {
			room--
		}
	}
	return slices.DeleteFunc(k, func(job KeptJob) bool { // room is how many of the least size are kept
		switch n := len(job.Positions); {
		case !isAdopted(job) || n > least:
			return false
		case n == least && room > 0:
			room--
			return false
		}
		return true
	})
}

// formerPurges returns the purges of the run before, or nil if they have not purged everything that
// spec.purge names.
func formerPurges(task *v1alpha1.PrefetchTask) (jobs KeptJobs) {
	rest := AllPositions(len(task.Spec.Purge.Targets))
	for i := range task.Status.Jobs {
		job := &task.Status.Jobs[i]
		if job.Kind != v1alpha1.JobPurge {
			continue
		}
		positions, _ := ParsePositions(job.PurgedPositions)
		if len(positions) == 0 {
			continue
		}
		rest = rest.Minus(positions)
		jobs = append(jobs, KeptJob{AdoptedJob{JobID: job.ID, Positions: positions}, job.Kind, job.SubmitTime.Time})
	}
	if len(rest) > 0 {
		return nil
	}
	return jobs
}

// addJob adds the records of a job by URL.
func (f FreshURLs) addJob(job map[string]teo.Record) {
	for _, record := range job {
		f.AddRecords([]teo.Record{record})
	}
}

// Count returns how many targets the jobs cover.
func (k KeptJobs) Count() (n int) {
	for _, job := range k {
		if job.Kind == v1alpha1.JobPrefetch {
			n += len(job.Positions)
		}
	}
	return n
}

// StartFromHistory starts the run of a task with the jobs that it need not submit.
func StartFromHistory(kept KeptJobs, now time.Time) Transition {
	return func(task *v1alpha1.PrefetchTask) {
		before := map[string]v1alpha1.Job{}
		for _, job := range task.Status.Jobs {
			before[job.ID] = job
		}
		BeginRun(task, now)
		removeConditions(task, v1alpha1.ConditionStalled)
		for _, k := range kept {
			job := v1alpha1.Job{ID: k.JobID, ClaimID: HistoryClaim, Kind: k.Kind, Adopted: true, Positions: k.Positions.String(), SubmitTime: metav1.NewTime(k.Created)}
			if old, isOwn := before[k.JobID]; isOwn {
				job.ClaimID, job.SubmitTime, job.SharedURLs = old.ClaimID, old.SubmitTime, old.SharedURLs
			}
			if k.Kind == v1alpha1.JobPurge {
				job.PurgedPositions, job.Succeeded = job.Positions, int32(len(k.Positions))
			}
			task.Status.Jobs = append(task.Status.Jobs, job)
		}
		UpdateSummary(task, now)
	}
}

// ReportHistoryUnread reports why the run of a task cannot start: EdgeOne's history cannot be read,
// or spec.freshSince lies in the future.
func ReportHistoryUnread(why Cause, isStalled bool) Transition {
	return func(task *v1alpha1.PrefetchTask) {
		startCounts(task)
		setNotReady(task, why.Reason, why.Message)
		SetCondition(task, v1alpha1.ConditionSubmitted, metav1.ConditionFalse, why.Reason, "")
		setStalled(task, isStalled, why.Reason, why.FullMessage())
		removeConditions(task, v1alpha1.ConditionQuotaExceeded)
		observeGeneration(task)
	}
}
