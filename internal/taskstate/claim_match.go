package taskstate

import (
	"slices"
	"time"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/target"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/teo"
)

// ClockSkew is how far EdgeOne's own clocks may differ: the one whose time answers
// carry, by which calls are signed, and the one that writes CreateTime. EdgeOne
// tells both to the second only. So the window of a claim starts this much before
// its signature; see JobRecords.SelectWindow.
const ClockSkew = 3 * time.Second

// JobRecords is EdgeOne's history by job and normalised URL.
type JobRecords map[string]map[string]teo.PrefetchTask

// AddTasks adds records by job and URL.
func (l JobRecords) AddTasks(tasks []teo.PrefetchTask) {
	for _, task := range tasks {
		job := l[task.JobID]
		if job == nil {
			job = map[string]teo.PrefetchTask{}
			l[task.JobID] = job
		}
		identity := target.Identity(task.Target)
		if known, ok := job[identity]; ok { // another spelling of it, or another look
			task = task.Merge(known)
		}
		job[identity] = task
	}
}

// SelectWindow returns the part of the history in which a call can be that was signed at
// start and cannot be executed after end. It begins ClockSkew before start, so it can
// show calls that were made before. Of that time it leaves out the jobs that are known
// to be another call's.
func (l JobRecords) SelectWindow(start, end time.Time, isOthers func(jobID string) bool) JobRecords {
	part := JobRecords{}
	start = start.Truncate(time.Second)
	for id, job := range l {
		for u, task := range job {
			at := task.CreateTime
			isOutside := at.Before(start.Add(-ClockSkew)) || at.After(end) || at.Before(start) && isOthers(id)
			if isOutside && !at.IsZero() { // one without a time may well be inside
				continue
			}
			if part[id] == nil {
				part[id] = map[string]teo.PrefetchTask{}
			}
			part[id][u] = task
		}
	}
	return part
}

// ClaimDecision is what the history says about one claimed task.
type ClaimDecision int

// The decisions.
const (
	Undecided   ClaimDecision = iota // read again later
	Found                            // adopt the jobs; what they do not cover goes back
	NotExecuted                      // and it never will be

)

// MatchClaim decides what became of a task's claim.
//
// Before the fence only a job that lists all the task's URLs is taken for its
// own, and only one that no other claim has recorded. After the fence nothing
// signed for the claim can execute any more and the window is complete, so each
// URL stands for itself: one that any job lists was executed, whoever recorded
// that job; one that none lists was not. That a job is recorded elsewhere is
// never evidence that something was not executed.
func MatchClaim(
	submission *v1alpha1.Submission, targets []string, history JobRecords, pastFence bool, takenBy func(jobID string) (claimID string),
) (ClaimDecision, []AdoptedJob) {
	positions := CoveredPositions(submission.Targets, len(targets))
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

// claimCandidate is a job that may be the claim's.
type claimCandidate struct {
	id     string
	job    map[string]teo.PrefetchTask
	covers Positions
	exact  bool // it lists just what the call was planned to hold
	others bool // another claim has recorded it
}

// compareTo puts the likeliest job first.
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

func hashJob(job map[string]teo.PrefetchTask) string {
	urls := make([]string, 0, len(job))
	for u := range job {
		urls = append(urls, u)
	}
	return HashURLs(urls)
}

// HashCall returns a hash of a call's URLs, the same for all spellings of them.
func HashCall(urls []string) string {
	normal := make([]string, len(urls))
	for i, u := range urls {
		normal[i] = target.Identity(u)
	}
	return HashURLs(normal)
}
