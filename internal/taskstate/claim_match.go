package taskstate

import (
	"maps"
	"slices"
	"time"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/target"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/teo"
)

// ClockSkew is how far two of EdgeOne's clocks may differ: the clock in the Date of its
// responses, by which the operator signs calls, and the clock that writes CreateTime.
// EdgeOne reports both in whole seconds. So the window of a claim starts this much before
// its signature; see JobRecords.SelectWindow.
const ClockSkew = 3 * time.Second

// JobRecords holds EdgeOne's history by job ID and normalized URL.
type JobRecords map[string]map[string]teo.Record

// AddTasks adds records by job and URL. It merges records of the same URL in the same job.
func (l JobRecords) AddTasks(tasks []teo.Record) {
	for _, task := range tasks {
		job := l[task.JobID]
		if job == nil {
			job = map[string]teo.Record{}
			l[task.JobID] = job
		}
		identity := task.Identity()
		if known, ok := job[identity]; ok { // another spelling of the URL, or an earlier read
			task = task.Merge(known)
		}
		job[identity] = task
	}
}

// SelectWindow returns the part of the history that can contain a call signed at start
// that cannot be executed after end. The part begins ClockSkew before start, so it can
// contain earlier calls. From the time before start, SelectWindow leaves out jobs that are
// known to belong to other calls.
func (l JobRecords) SelectWindow(start, end time.Time, isOthers func(jobID string) bool) JobRecords {
	part := JobRecords{}
	start = start.Truncate(time.Second)
	for id, job := range l {
		for u, task := range job {
			at := task.CreateTime
			isOutside := at.Before(start.Add(-ClockSkew)) || at.After(end) || at.Before(start) && isOthers(id)
			if isOutside && !at.IsZero() { // a record without a time may be inside the window
				continue
			}
			if part[id] == nil {
				part[id] = map[string]teo.Record{}
			}
			part[id][u] = task
		}
	}
	return part
}

// ClaimDecision is the conclusion about one claimed task from the history.
type ClaimDecision int

// The decisions.
const (
	Undecided   ClaimDecision = iota // read again later
	Found                            // adopt the jobs; targets that they do not cover are queued again
	NotExecuted                      // the call was not executed and never will be

)

// MatchClaim decides the outcome of a task's claim. targets are its CallTargets, or their
// CallIdentities.
//
// Before the fence, MatchClaim accepts a job only if the job lists all URLs of the claim
// and no other claim has recorded it. After the fence, nothing signed for the claim can
// execute any more, and the window is complete. So MatchClaim decides for each URL
// separately: a URL that any job lists was executed, whichever claim recorded that job. A
// URL that no job lists was not executed. A record by another claim never proves that
// something was not executed.
func MatchClaim(
	submission *v1alpha1.Submission, targets []string, history JobRecords, pastFence bool, takenBy func(jobID string) (claimID string),
) (ClaimDecision, []AdoptedJob) {
	if submission.Kind == v1alpha1.JobPurge {
		return matchPurge(submission, targets, history, pastFence)
	}
	positions := CoveredPositions(submission.Positions, len(targets))
	// A job without a URL of the claim is no candidate.
	var candidates []claimCandidate
	for id, job := range history {
		c := claimCandidate{id: id, job: job, exact: hashJob(job) == submission.CallHash}
		for _, i := range positions {
			if _, ok := job[target.Identity(targets[i])]; ok {
				c.covers = append(c.covers, i)
			}
		}
		if len(c.covers) == 0 {
			continue
		}
		owner := takenBy(id)
		c.others = owner != "" && owner != submission.ClaimID
		if pastFence || !c.others && len(c.covers) == len(positions) {
			candidates = append(candidates, c)
		}
	}
	slices.SortFunc(candidates, claimCandidate.compareTo)
	// The likeliest job takes its positions first. Each position goes to one job only.
	var jobs []AdoptedJob
	for _, c := range candidates {
		covered := c.covers
		for _, job := range jobs {
			covered = covered.Minus(job.Positions)
		}
		if len(covered) > 0 {
			jobs = append(jobs, AdoptedJob{c.id, covered})
		}
	}
	switch {
	case len(jobs) > 0:
		return Found, jobs
	case pastFence:
		return NotExecuted, nil
	}
	return Undecided, nil
}

// MatchCall returns the job of a prefetch whose URLs are no longer known: one that lists exactly the
// URLs of the planned call, and that no other claim has recorded. It returns nil if there is none.
func MatchCall(submission *v1alpha1.Submission, history JobRecords, takenBy func(jobID string) (claimID string)) []AdoptedJob {
	if submission.Kind == v1alpha1.JobPurge || submission.CallHash == "" {
		return nil
	}
	for _, id := range slices.Sorted(maps.Keys(history)) {
		if owner := takenBy(id); (owner == "" || owner == submission.ClaimID) && hashJob(history[id]) == submission.CallHash {
			positions, _ := ParsePositions(submission.Positions)
			return []AdoptedJob{{id, positions}}
		}
	}
	return nil
}

// matchPurge decides the outcome of a purge. Before the fence, a job that lists the same targets may
// be of another call, and the call of the claim may still arrive: it would delete what is prefetched
// by then. After the fence, each job that lists targets of the claim may have been created by it, so
// all of them must end before these targets are prefetched. A target that no job lists is purged
// again.
func matchPurge(submission *v1alpha1.Submission, identities []string, history JobRecords, pastFence bool) (ClaimDecision, []AdoptedJob) {
	if !pastFence {
		return Undecided, nil
	}
	positions := CoveredPositions(submission.Positions, len(identities))
	var jobs []AdoptedJob
	for _, id := range slices.Sorted(maps.Keys(history)) {
		var covered Positions
		for _, i := range positions {
			record, ok := history[id][identities[i]]
			switch {
			case !ok:
			case !record.CreateTime.IsZero() && record.CreateTime.Before(submission.SignedAt.Time):
				// By EdgeOne's clocks, it may be older than the claim. Then it purged nothing that
				// is newer. It must have ended, but it does not count.
				if !record.Ended() {
					return Undecided, nil
				}
			default:
				covered = append(covered, i)
			}
		}
		if len(covered) > 0 {
			jobs = append(jobs, AdoptedJob{id, covered})
		}
	}
	if len(jobs) == 0 {
		return NotExecuted, nil
	}
	return Found, jobs
}

// claimCandidate is a job that may belong to the claim.
type claimCandidate struct {
	id     string
	job    map[string]teo.Record
	covers Positions
	exact  bool // the job lists exactly the URLs of the planned call
	others bool // another claim has recorded it
}

// compareTo orders candidates by likelihood, the likeliest first. A job that another claim
// has recorded comes last. An exact match comes first. Otherwise, a job ranks higher with
// more URLs of the claim and fewer other URLs.
func (c claimCandidate) compareTo(d claimCandidate) int {
	score := func(c claimCandidate) int {
		n := 2*len(c.covers) - len(c.job)
		if c.exact {
			n += 1 << 24
		}
		if c.others {
			n -= 1 << 28
		}
		return n
	}
	if a, b := score(c), score(d); a != b {
		return b - a
	}
	if c.id < d.id {
		return -1
	}
	return 1
}

// hashJob returns the hash of a job's URLs, comparable with Submission.CallHash.
func hashJob(job map[string]teo.Record) string {
	urls := make([]string, 0, len(job))
	for u := range job {
		urls = append(urls, u)
	}
	return HashURLs(urls)
}

// HashCall returns a hash of a call's URLs. All spellings of a URL have the same hash.
func HashCall(urls []string) string {
	normal := make([]string, len(urls))
	for i, u := range urls {
		normal[i] = target.Identity(u)
	}
	return HashURLs(normal)
}
