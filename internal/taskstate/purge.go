package taskstate

import (
	"fmt"
	"slices"
	"time"

	"k8s.io/utils/ptr"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/teo"
)

// A run with spec.purge makes calls of two kinds. Each target goes through them in order: it is
// purged, EdgeOne lists that purge as a success, and then it is prefetched. With the type URL,
// the next batch of targets is purged only when every target that is purged is handed over for
// its prefetch, so that few targets are cold at a time. With the other types, everything in
// spec.purge.targets is purged before the first prefetch.

// PurgeTypeNames has EdgeOne's names of the types of purges.
var PurgeTypeNames = map[v1alpha1.PurgeType]string{
	v1alpha1.PurgeURL: teo.TypePurgeURL, v1alpha1.PurgePrefix: teo.TypePurgePrefix,
	v1alpha1.PurgeHost: teo.TypePurgeHost, v1alpha1.PurgeCacheTag: teo.TypePurgeCacheTag,
}

// HasPurge reports whether the task asks for a purge before its prefetch.
func HasPurge(task *v1alpha1.PrefetchTask) bool { return task.Spec.Purge.Type != "" }

// purgesOwnTargets reports whether the purge of a task is about the targets of the task.
func purgesOwnTargets(task *v1alpha1.PrefetchTask) bool {
	return task.Spec.Purge.Type == v1alpha1.PurgeURL
}

// CallPositions returns the positions that the next call of a kind may contain.
func CallPositions(task *v1alpha1.PrefetchTask, kind v1alpha1.JobKind) Positions {
	if !HasPurge(task) {
		if kind == v1alpha1.JobPurge {
			return nil
		}
		return OpenPositions(task)
	}
	open, state := OpenPositions(task), purgeStateOf(task)
	switch {
	case len(open) == 0:
		return nil
	case kind == v1alpha1.JobPrefetch:
		return state.readyOf(task, open)
	case len(state.underWay) > 0:
		return nil
	case !purgesOwnTargets(task):
		return state.rest
	case len(state.readyOf(task, open)) > 0:
		return nil // prefetch these first
	}
	return open.Intersect(state.rest)
}

// purgeState is how far the purge of a run is, by position in CallTargets.
type purgeState struct {
	purged   Positions // EdgeOne has purged them, in time, and no later purge of them is under way
	underWay Positions // a purge of them is accepted, and its outcome is not known
	failed   Positions // EdgeOne refused or failed to purge them
	rest     Positions // all others
}

// purgeStateOf returns the state of the purge of the task's run. Nothing of a new run is purged.
func purgeStateOf(task *v1alpha1.PrefetchTask) (state purgeState) {
	n := countCallTargets(task, v1alpha1.JobPurge)
	state.rest = AllPositions(n)
	if IsNewRun(task) {
		return state
	}
	state.failed = CoveredPositions(task.Status.Purge.FailedPositions, n)
	for i := range task.Status.Jobs {
		job := &task.Status.Jobs[i]
		if job.Kind != v1alpha1.JobPurge {
			continue
		}
		purged, _ := ParsePositions(job.PurgedPositions)
		state.purged = state.purged.Union(purged)
		state.underWay = state.underWay.Union(openPurgePositions(task, job))
	}
	state.purged = state.purged.Minus(state.underWay).Minus(state.failed)
	state.rest = state.rest.Minus(state.purged).Minus(state.underWay).Minus(state.failed)
	return state
}

// openPurgePositions returns the positions of a purge whose outcome is not known.
func openPurgePositions(task *v1alpha1.PrefetchTask, job *v1alpha1.Job) Positions {
	if !IsPurgeOpen(*job) {
		return nil // it ended while the spec asked for another run, and nobody knows for which targets
	}
	n := countCallTargets(task, v1alpha1.JobPurge)
	purged, _ := ParsePositions(job.PurgedPositions)
	open := CoveredPositions(job.Positions, n).Minus(purged).Minus(RetriedPositions(job, n))
	return open.Minus(CoveredPositions(task.Status.Purge.FailedPositions, n))
}

// readyOf returns the open targets that may be prefetched.
func (s purgeState) readyOf(task *v1alpha1.PrefetchTask, open Positions) Positions {
	switch {
	case purgesOwnTargets(task):
		return open.Intersect(s.purged)
	case len(s.rest)+len(s.underWay)+len(s.failed) > 0:
		return nil
	}
	return open
}

// IsPurgeOpen reports whether the outcome of a purge is missing. It counts, so that it is also
// right for the purge of a run that the spec no longer asks for.
func IsPurgeOpen(job v1alpha1.Job) bool {
	if job.Kind != v1alpha1.JobPurge {
		return false
	}
	positions, _ := ParsePositions(job.Positions)
	return int(job.Succeeded+job.Failed) < len(positions)
}

// HasEndedPurge reports whether the status records the purge of a claim, and all of its outcomes.
func HasEndedPurge(task *v1alpha1.PrefetchTask, claimID string) bool {
	return slices.ContainsFunc(task.Status.Jobs, func(job v1alpha1.Job) bool {
		return job.Kind == v1alpha1.JobPurge && job.ClaimID == claimID && !IsPurgeOpen(job)
	})
}

// HasOpenPurge reports whether EdgeOne may still execute a purge that the status records. The
// next run waits for it: it would delete what that run prefetches.
func HasOpenPurge(task *v1alpha1.PrefetchTask) bool {
	for _, job := range task.Status.Jobs {
		if IsPurgeOpen(job) {
			return true
		}
	}
	return false
}

// awaitsFormerJobs reports whether a new run waits for jobs of the run before. A purge would delete
// what the new run prefetches. A prefetch that began before the purge of the new run could store an
// older copy after it.
func awaitsFormerJobs(task *v1alpha1.PrefetchTask) bool {
	return HasOpenPurge(task) || HasPurge(task) && slices.ContainsFunc(task.Status.Jobs, IsJobOpen)
}

// AwaitsFormerPrefetches reports whether a new run waits for prefetches of the run before.
func AwaitsFormerPrefetches(task *v1alpha1.PrefetchTask) bool {
	return IsNewRun(task) && HasPurge(task) && slices.ContainsFunc(task.Status.Jobs, IsJobOpen)
}

// OpenPurge returns the job of a purge under way, and the targets that it may still purge. The
// targets are unknown if the spec no longer asks for the run of the purge.
func OpenPurge(task *v1alpha1.PrefetchTask) (job *v1alpha1.Job, targets []string) {
	for i := range task.Status.Jobs {
		if job = &task.Status.Jobs[i]; !IsPurgeOpen(*job) {
			continue
		}
		if IsNewRun(task) || LacksTargets(task) && purgesOwnTargets(task) {
			return job, nil
		}
		all := CallTargets(task, v1alpha1.JobPurge)
		for _, p := range openPurgePositions(task, job) {
			targets = append(targets, all[p])
		}
		return job, targets
	}
	return nil, nil
}

// CountCold returns how many targets of the task's run are purged, or may be, and are not
// handed over for their prefetch.
func CountCold(task *v1alpha1.PrefetchTask) int {
	n, _ := ColdTargets(task)
	return n
}

// ColdTargets returns CountCold, and when the first purge of one of these targets was signed.
func ColdTargets(task *v1alpha1.PrefetchTask) (n int, since time.Time) {
	if !HasPurge(task) || IsNewRun(task) {
		return 0, time.Time{}
	}
	open, state := OpenPositions(task), purgeStateOf(task)
	cold := state.purged.Union(state.underWay)
	claim := task.Status.Submission
	if claim != nil && claim.Kind == v1alpha1.JobPurge {
		cold = cold.Union(statusCallPositions(task, claim.Positions, claim.Kind))
		since = claim.SignedAt.Time
	}
	isOwn := purgesOwnTargets(task)
	if isOwn {
		open = open.Intersect(cold)
	}
	if len(cold) == 0 || len(open) == 0 {
		return 0, time.Time{}
	}
	for i := range task.Status.Jobs {
		job := &task.Status.Jobs[i]
		if job.Kind != v1alpha1.JobPurge {
			continue
		}
		if isOwn {
			purged, _ := ParsePositions(job.PurgedPositions)
			if len(open.Intersect(purged.Union(openPurgePositions(task, job)))) == 0 {
				continue
			}
		}
		if since.IsZero() || job.SubmitTime.Time.Before(since) {
			since = job.SubmitTime.Time
		}
	}
	return len(open), since
}

// CountUnpurged returns how many purges the task's run has yet to ask for.
func CountUnpurged(task *v1alpha1.PrefetchTask) int {
	if !purgesOwnTargets(task) {
		return len(purgeStateOf(task).rest)
	}
	return len(OpenPositions(task).Intersect(purgeStateOf(task).rest))
}

// IsPurgeComplete reports whether everything that the task's run purges has its outcome, and the
// targets of the run are known.
func IsPurgeComplete(task *v1alpha1.PrefetchTask) bool {
	claim := task.Status.Submission
	return HasPurge(task) && !IsNewRun(task) && !IsUnresolved(task) && !HasOpenPurge(task) &&
		(claim == nil || claim.Kind != v1alpha1.JobPurge) && CountUnpurged(task) == 0
}

// CountPurgeJobs returns how many of the task's jobs purge.
func CountPurgeJobs(task *v1alpha1.PrefetchTask) (n int) {
	for i := range task.Status.Jobs {
		if task.Status.Jobs[i].Kind == v1alpha1.JobPurge {
			n++
		}
	}
	return n
}

// coldMessage says how many targets are purged and not prefetched yet, for the message of a task
// that waits.
func coldMessage(task *v1alpha1.PrefetchTask) string {
	upTo, n := "", CountCold(task)
	if claim := task.Status.Submission; claim != nil && claim.Kind == v1alpha1.JobPurge {
		upTo = "Up to " // the purge may not have been executed yet
	}
	switch n {
	case 0:
		return ""
	case 1:
		return upTo + "1 target is purged and not prefetched yet. "
	}
	return fmt.Sprintf("%s%d targets are purged and not prefetched yet. ", upTo, n)
}

// statusCallPositions is statusPositions for a call of a kind.
func statusCallPositions(task *v1alpha1.PrefetchTask, text string, kind v1alpha1.JobKind) Positions {
	if kind == v1alpha1.JobPurge && HasPurge(task) && !purgesOwnTargets(task) && !IsNewRun(task) {
		return CoveredPositions(text, len(task.Spec.Purge.Targets))
	}
	return statusPositions(task, text)
}

// purgingMessage is the message of a run that waits for the outcome of a purge.
func purgingMessage(task *v1alpha1.PrefetchTask) string {
	if !purgesOwnTargets(task) {
		return "EdgeOne is purging what spec.purge names; the targets are prefetched next"
	}
	submitted, total := ptr.Deref(task.Status.Targets.Submitted, 0), ptr.Deref(task.Status.Targets.Total, 0)
	return fmt.Sprintf("%d of %d targets submitted. EdgeOne is purging %d; they are prefetched next", submitted, total, CountCold(task))
}

// failPurge records positions that EdgeOne refused or failed to purge. With the type URL, these
// targets have failed: a prefetch would report success over the old copy.
func failPurge(task *v1alpha1.PrefetchTask, positions Positions, message func(position int) string) {
	if len(positions) == 0 {
		return
	}
	have, _ := ParsePositions(task.Status.Purge.FailedPositions)
	task.Status.Purge.FailedPositions = have.Union(positions).String()
	if !knowsTargets(task) {
		return
	}
	if purgesOwnTargets(task) {
		targets := DistinctTargets(task)
		for _, i := range positions {
			addFailedTarget(task, targets[i], v1alpha1.FailedPurge, message(i))
		}
		addRefused(task, positions)
		return
	}
	// One purge of the run has failed: no target may be prefetched. It ends with the last one.
	if state := purgeStateOf(task); len(state.rest)+len(state.underWay) == 0 {
		open, targets := OpenPositions(task), DistinctTargets(task)
		for _, i := range open {
			addFailedTarget(task, targets[i], v1alpha1.FailedPurge, joinSentences(string(task.Spec.Purge.Targets[positions[0]]), message(positions[0])))
		}
		addRefused(task, open)
	}
}

// updatePurgeCounts computes the counts of the purge from the rest of the status.
func updatePurgeCounts(task *v1alpha1.PrefetchTask) {
	if !HasPurge(task) {
		return
	}
	state, counts := purgeStateOf(task), &task.Status.Purge
	counts.Submitted = countPointer(len(state.purged) + len(state.underWay) + len(state.failed))
	counts.Succeeded, counts.Failed = countPointer(len(state.purged)), countPointer(len(state.failed))
}
