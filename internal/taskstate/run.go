package taskstate

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
)

// DistinctTargets returns the distinct targets of a task in list order. Positions are
// indexes into this list. Callers share the list and must not change it.
func DistinctTargets(task *v1alpha1.PrefetchTask) []string {
	return deriveList(task.Spec.Targets).targets
}

// RunHash identifies what a task submits. Only a change of these fields starts a new run:
// suspend, credentials and labels do not. If the targets are in a ConfigMap, RunHash
// covers the reference to the ConfigMap, and HashTargets covers its content.
func RunHash(task *v1alpha1.PrefetchTask) string {
	if IsElided(task) {
		return task.Annotations[elidedRun]
	}
	name := func(targets any) string {
		parts := []any{task.Spec.ZoneID, targets, HashSemantics(task), task.Spec.EncodeURL, task.Spec.Revision}
		return hashParts(append(parts, laterParts(task)...)...)
	}
	switch {
	case IsFromConfigMap(task):
		return name(task.Spec.TargetsFrom)
	case len(task.Spec.Targets) < longList:
		return name(DistinctTargets(task))
	}
	list := deriveList(task.Spec.Targets)
	return list.runHash(name(nil), func() string { return name(list.targets) })
}

// RequestHash identifies what a task asks for apart from the list of targets.
func RequestHash(task *v1alpha1.PrefetchTask) string {
	parts := []any{task.Spec.ZoneID, HashSemantics(task), task.Spec.EncodeURL, task.Spec.Revision}
	return hashParts(append(parts, laterParts(task)...)...)
}

// laterParts returns the parts of a run that the first version of the API did not have. A task
// without them keeps its hash.
func laterParts(task *v1alpha1.PrefetchTask) []any {
	if !HasPurge(task) && task.Spec.FreshSince.IsZero() {
		return nil
	}
	return []any{task.Spec.Purge, task.Spec.FreshSince.Unix()}
}

// IsFromConfigMap reports whether the task takes its targets from a ConfigMap. Once the
// targets are known, the spec in memory contains them as well.
func IsFromConfigMap(task *v1alpha1.PrefetchTask) bool {
	return task.Spec.TargetsFrom != v1alpha1.TargetsSource{}
}

// IsUnresolved reports whether the task's targets are in a ConfigMap and unknown. The
// positions of such a task have no meaning.
func IsUnresolved(task *v1alpha1.PrefetchTask) bool {
	return IsFromConfigMap(task) && len(task.Spec.Targets) == 0
}

// IsBoundToList reports whether a target of the task's run was submitted, or may have
// been. Then the run is bound to its list of targets, because positions depend on the
// order of that list.
func IsBoundToList(task *v1alpha1.PrefetchTask) bool {
	s := &task.Status
	return (s.Submission != nil || len(s.Jobs) > 0 || s.RefusedPositions != "" || s.Purge.FailedPositions != "") && !IsNewRun(task)
}

// NeedsTargetList reports whether the task needs the targets from its ConfigMap: to start
// a run, or to follow a run that is not finished.
func NeedsTargetList(task *v1alpha1.PrefetchTask) bool {
	if !IsFromConfigMap(task) || !task.DeletionTimestamp.IsZero() {
		return false
	}
	if IsBoundToList(task) {
		return !IsFinished(task) || IsRetryDue(task) || IsUnseen(task)
	}
	return mayStartCall(task) || NeedsHistory(task)
}

// HashTargets identifies the targets of a task and their order.
func HashTargets(task *v1alpha1.PrefetchTask) string {
	if len(task.Spec.Targets) < longList {
		return hashParts(DistinctTargets(task))
	}
	list := deriveList(task.Spec.Targets)
	return list.runHash("targets", func() string { return hashParts(list.targets) })
}

// HashSemantics identifies how EdgeOne fetches the targets, independent of the targets.
// The operator must not take an old call with other semantics for a new one.
func HashSemantics(task *v1alpha1.PrefetchTask) string {
	headers := slices.Clone(task.Spec.Headers)
	slices.SortFunc(headers, CompareHeaderNames)
	return hashParts(IsEdgeMode(task), headers, task.Spec.MediaSegments == v1alpha1.MediaSegmentsPrefetch)
}

// IsEdgeMode reports whether the task asks for the edge mode.
func IsEdgeMode(task *v1alpha1.PrefetchTask) bool { return task.Spec.Mode == v1alpha1.ModeEdge }

// hashParts returns a hash of 20 hexadecimal digits. It is short enough for a status, and
// long enough that two runs of a task never have the same hash.
func hashParts(parts ...any) string {
	text, err := json.Marshal(parts)
	if err != nil {
		panic(err) // strings, booleans and headers always marshal
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:10])
}

// HashURLs identifies a set of URLs, independent of their order.
func HashURLs(urls []string) string {
	sorted := slices.Sorted(slices.Values(urls))
	return hashParts(slices.Compact(sorted))
}

// IsNewRun reports whether the task asks for another run than the run in its status.
func IsNewRun(task *v1alpha1.PrefetchTask) bool {
	return !IsSlimmed(task) && (task.Status.Run == "" || task.Status.Run != RunHash(task) || hasNewList(task))
}

// hasNewList reports whether the ConfigMap of the task has another list than the one that the run
// started with.
func hasNewList(task *v1alpha1.PrefetchTask) bool {
	s := &task.Status
	return IsFromConfigMap(task) && len(task.Spec.Targets) > 0 && s.TargetsHash != "" && s.Request != "" && s.TargetsHash != HashTargets(task)
}

// IsSlimmed reports whether this is the cache's short form of a finished task. The short
// form has no spec, because a finished task needs no further work.
func IsSlimmed(task *v1alpha1.PrefetchTask) bool { return task.Spec.ZoneID == "" }

// HandedOverPositions returns the positions of the status's run that EdgeOne has accepted
// or refused, and the refused positions among them. A run may have thousands of jobs, so
// the function marks positions in one slice instead of joining the positions of each job.
func HandedOverPositions(task *v1alpha1.PrefetchTask) (all, refused Positions) {
	n := CountTargets(task)
	refused = CoveredPositions(task.Status.RefusedPositions, n)
	isHandedOver := make([]bool, n)
	for _, i := range refused {
		isHandedOver[i] = true
	}
	for k := range task.Status.Jobs {
		job := &task.Status.Jobs[k]
		if job.Kind == v1alpha1.JobPurge {
			continue
		}
		for _, i := range CoveredPositions(job.Positions, n).Minus(RetriedPositions(job, n)) {
			isHandedOver[i] = true
		}
	}
	for i, is := range isHandedOver {
		if is {
			all = append(all, i)
		}
	}
	return all, refused
}

// RetriedPositions returns the failed positions of a job that a retry has reopened, in a
// run of n targets. If the text is invalid, a user has edited the status. Then the job has
// no retried positions, and its targets stay handed over.
func RetriedPositions(job *v1alpha1.Job, n int) Positions {
	p, err := ParsePositions(job.RetriedPositions)
	if err != nil || len(p) > int(job.Failed) || len(p) > 0 && p[len(p)-1] >= n {
		return nil
	}
	return p
}

// RequestedRetry returns the retry that the task asks for, or "" if it asks for none. It
// returns the value in the form that the status stores: a long value of the annotation is
// hashed.
func RequestedRetry(task *v1alpha1.PrefetchTask) string {
	const room = 256 // longest value in the status, in bytes
	if asked := task.Annotations[v1alpha1.RetryAnnotation]; len(asked) <= room {
		return asked
	}
	return hashParts(task.Annotations[v1alpha1.RetryAnnotation])
}

// IsRetryDue reports whether the task asks to submit the failed targets of its run again.
// Before the run is finished, the failed targets are not final.
func IsRetryDue(task *v1alpha1.PrefetchTask) bool {
	retry := RequestedRetry(task)
	return retry != "" && retry != task.Status.LastHandledRetry && IsFinished(task) && task.Status.Submission == nil && task.DeletionTimestamp.IsZero()
}

// OpenPositions returns the positions that the task has yet to hand over. A new run has
// all of them open. The current run has those open that no job and no refusal covers.
func OpenPositions(task *v1alpha1.PrefetchTask) Positions {
	all := AllPositions(CountTargets(task))
	if IsNewRun(task) {
		return all
	}
	done, _ := HandedOverPositions(task)
	return all.Minus(done)
}

// IsWaiting reports whether the task needs a call of a kind now: it has targets for it,
// nothing blocks it, and no call of it has an unknown outcome.
//
// A claim of a previous run counts only if its call purges, or fetched the targets with other
// semantics, and can still be executed. Then the new run waits, so that it does not take
// the job of the old call for its own, and no old purge deletes what it prefetches. If the
// new run purges, any such claim counts: an old prefetch could store an older copy after
// the purge.
func IsWaiting(task *v1alpha1.PrefetchTask, kind v1alpha1.JobKind) bool {
	return !IsElided(task) && NeedsCallOf(task, kind)
}

// NeedsCall reports whether the task needs a call of any kind now. Its targets may be left out
// in memory.
func NeedsCall(task *v1alpha1.PrefetchTask) bool {
	return NeedsCallOf(task, v1alpha1.JobPrefetch) || NeedsCallOf(task, v1alpha1.JobPurge)
}

// NeedsCallOf is IsWaiting for a task whose targets may be left out in memory.
func NeedsCallOf(task *v1alpha1.PrefetchTask, kind v1alpha1.JobKind) bool {
	if kind == v1alpha1.JobPurge && !HasPurge(task) {
		return false
	}
	return mayStartCall(task) && len(CallPositions(task, kind)) > 0
}

// mayStartCall is IsWaiting for a task that has open targets.
func mayStartCall(task *v1alpha1.PrefetchTask) bool {
	if IsSlimmed(task) || !task.DeletionTimestamp.IsZero() || IsSuspended(task) {
		return false
	}
	isNew := IsNewRun(task)
	if isNew && (NeedsHistory(task) || awaitsFormerJobs(task)) {
		return false
	}
	if claim := task.Status.Submission; claim != nil {
		return !HasClaim(task) || isNew && !HasPurge(task) && claim.Semantics == HashSemantics(task)
	}
	return isNew || !IsRunOver(task)
}

// IsFinished reports whether the run that the task asks for is finished.
func IsFinished(task *v1alpha1.PrefetchTask) bool {
	return meta.IsStatusConditionTrue(task.Status.Conditions, v1alpha1.ConditionFinished) && !IsNewRun(task)
}

// IsUnseen reports whether the run ended because its outcomes could not be read. While
// EdgeOne's history shows them, the operator may still read them.
func IsUnseen(task *v1alpha1.PrefetchTask) bool {
	ended := meta.FindStatusCondition(task.Status.Conditions, v1alpha1.ConditionFinished)
	ready := meta.FindStatusCondition(task.Status.Conditions, v1alpha1.ConditionReady)
	return IsFinished(task) && ended.Reason == v1alpha1.ReasonNotFollowed && ready != nil && ready.Status == metav1.ConditionUnknown
}

// HasClaim reports whether the task has a call of unknown outcome that matters. If the
// spec no longer asks for the run of the call, the claim stops to matter once the call can
// no longer be executed.
func HasClaim(task *v1alpha1.PrefetchTask) bool {
	claim := task.Status.Submission
	return claim != nil && !(claim.Expired && IsNewRun(task))
}

// MaxLostCalls is how many calls a run may lose before its status asks for user action.
// The operator continues to submit the run, but less often. It is safe to do so: a lost
// call counts only after it is certain that the call was not executed, so nothing is sent
// twice.
const MaxLostCalls = 3

// HasRepeatedLosses reports whether the run has lost MaxLostCalls calls. The operator
// submits such a run less often.
func HasRepeatedLosses(task *v1alpha1.PrefetchTask) bool {
	return !IsNewRun(task) && task.Status.LostCalls >= MaxLostCalls
}

// IsSuspended reports whether the task is suspended.
func IsSuspended(task *v1alpha1.PrefetchTask) bool {
	return task.Spec.Suspend != nil && *task.Spec.Suspend
}

// CompareHeaderNames compares headers by name.
func CompareHeaderNames(a, b v1alpha1.HTTPHeader) int { return cmp.Compare(a.Name, b.Name) }

// IsPastRetention reports whether EdgeOne's history no longer shows any of the task's
// jobs.
func IsPastRetention(task *v1alpha1.PrefetchTask, retention time.Duration, now time.Time) bool {
	return !slices.ContainsFunc(task.Status.Jobs, func(job v1alpha1.Job) bool { return now.Sub(job.SubmitTime.Time) <= retention })
}

// MatchesList reports whether the task may get targets of this hash: those of its run, or those of an
// edited list. A run of the same request starts again with other targets, once no call is open, and
// keeps what it has prefetched; see IsListEdit.
func MatchesList(task *v1alpha1.PrefetchTask, hash string) bool {
	isSameRequest := task.Status.Request != "" && task.Status.Request == RequestHash(task)
	return HasList(task, hash) || isSameRequest
}

// HasList reports whether the positions in the task's status can be about targets of this hash. If
// nothing is submitted, they can be about any.
func HasList(task *v1alpha1.PrefetchTask, hash string) bool {
	return !IsBoundToList(task) || task.Status.TargetsHash == hash
}
