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

// DistinctTargets are the distinct targets of a task in list order. Positions count in
// this list. It is shared: nobody may change it.
func DistinctTargets(task *v1alpha1.PrefetchTask) []string {
	return deriveList(task.Spec.Targets).targets
}

// RunHash names what a task submits. Nothing else starts a new run: not suspend, not
// credentials, no label. Of targets in a ConfigMap it names the place: what is
// there, HashTargets tells.
func RunHash(task *v1alpha1.PrefetchTask) string {
	if IsElided(task) {
		return task.Annotations[elidedRun]
	}
	name := func(targets any) string {
		return hashParts(task.Spec.ZoneID, targets, HashSemantics(task), task.Spec.EncodeURL, task.Spec.Revision)
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

// IsFromConfigMap says whether the task takes its targets from a ConfigMap. In
// memory they are in its spec as well, once they are known.
func IsFromConfigMap(task *v1alpha1.PrefetchTask) bool {
	return task.Spec.TargetsFrom != v1alpha1.TargetsSource{}
}

// IsUnresolved says whether the task's targets are in a ConfigMap and not known.
// Nothing can be said of its positions then.
func IsUnresolved(task *v1alpha1.PrefetchTask) bool {
	return IsFromConfigMap(task) && len(task.Spec.Targets) == 0
}

// IsBoundToList says whether something of the task's run was submitted, or may have been.
// Then the run is tied to its targets, by whose order positions count.
func IsBoundToList(task *v1alpha1.PrefetchTask) bool {
	s := &task.Status
	return (s.Submission != nil || len(s.Jobs) > 0 || s.RefusedTargets != "") && !IsNewRun(task)
}

// NeedsTargetList says whether the task's targets are in a ConfigMap and are needed:
// to start a run, or to follow one that is not over.
func NeedsTargetList(task *v1alpha1.PrefetchTask) bool {
	if !IsFromConfigMap(task) || !task.DeletionTimestamp.IsZero() {
		return false
	}
	if IsBoundToList(task) {
		return !IsFinished(task) || IsRetryDue(task) || IsUnseen(task)
	}
	return mayStartCall(task)
}

// HashTargets names the targets of a task, and their order.
func HashTargets(task *v1alpha1.PrefetchTask) string { return hashParts(DistinctTargets(task)) }

// HashSemantics names how a target is fetched, apart from which ones. An old call
// with other semantics must not be taken for a new one.
func HashSemantics(task *v1alpha1.PrefetchTask) string {
	headers := slices.Clone(task.Spec.Headers)
	slices.SortFunc(headers, CompareHeaderNames)
	return hashParts(IsEdgeMode(task), headers, task.Spec.MediaSegments == v1alpha1.MediaSegmentsPrefetch)
}

// IsEdgeMode says whether the task asks for the edge mode.
func IsEdgeMode(task *v1alpha1.PrefetchTask) bool { return task.Spec.Mode == v1alpha1.ModeEdge }

// hashParts is short enough for a status, and long enough that two runs of a task
// never share one.
func hashParts(parts ...any) string {
	text, err := json.Marshal(parts)
	if err != nil {
		panic(err) // strings, booleans and headers always marshal
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:10])
}

// HashURLs names a set of URLs, whatever their order.
func HashURLs(urls []string) string {
	sorted := slices.Sorted(slices.Values(urls))
	return hashParts(slices.Compact(sorted))
}

// IsNewRun says whether the task asks for a run that its status does not speak of.
func IsNewRun(task *v1alpha1.PrefetchTask) bool {
	return !IsSlimmed(task) && (task.Status.Run == "" || task.Status.Run != RunHash(task))
}

// IsSlimmed says whether this is what the cache keeps of a finished task: no spec,
// as nothing is left to do for it.
func IsSlimmed(task *v1alpha1.PrefetchTask) bool { return task.Spec.ZoneID == "" }

// HandedOverPositions are the positions of the status's run that EdgeOne has answered
// for, and those of them that it refused. A run may have thousands of jobs, so
// positions are marked, not joined job by job.
func HandedOverPositions(task *v1alpha1.PrefetchTask) (all, refused Positions) {
	n := CountTargets(task)
	refused = CoveredPositions(task.Status.RefusedTargets, n)
	isHandedOver := make([]bool, n)
	for _, i := range refused {
		isHandedOver[i] = true
	}
	for k := range task.Status.Jobs {
		job := &task.Status.Jobs[k]
		for _, i := range CoveredPositions(job.Targets, n).Minus(RetriedPositions(job, n)) {
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

// RetriedPositions are the positions of a job of a run of n targets that failed and that a
// retry opened again. A status that was edited into nonsense has none: such targets
// stay handed over.
func RetriedPositions(job *v1alpha1.Job, n int) Positions {
	p, err := ParsePositions(job.Retried)
	if err != nil || len(p) > int(job.Failed) || len(p) > 0 && p[len(p)-1] >= n {
		return nil
	}
	return p
}

// RequestedRetry is the retry that the task asks for, as its status notes it once it is
// handled; "" if it asks for none.
func RequestedRetry(task *v1alpha1.PrefetchTask) string {
	const room = 256 // in the status
	if asked := task.Annotations[v1alpha1.RetryAnnotation]; len(asked) <= room {
		return asked
	}
	return hashParts(task.Annotations[v1alpha1.RetryAnnotation])
}

// IsRetryDue says whether the task asks for what failed of its run to be submitted
// again. Before the run is over nobody can tell what that is.
func IsRetryDue(task *v1alpha1.PrefetchTask) bool {
	retry := RequestedRetry(task)
	return retry != "" && retry != task.Status.LastHandledRetry && IsFinished(task) && task.Status.Submission == nil && task.DeletionTimestamp.IsZero()
}

// OpenPositions are the positions that the task still wants handed over: everything for
// a new run, and what no job and no refusal covers for the one under way.
func OpenPositions(task *v1alpha1.PrefetchTask) Positions {
	all := AllPositions(CountTargets(task))
	if IsNewRun(task) {
		return all
	}
	done, _ := HandedOverPositions(task)
	return all.Minus(done)
}

// IsWaiting says whether the task wants a call now: it has something to hand over,
// nothing holds it back, and no call of it has an unknown outcome. A claim of an
// earlier run counts only if that call fetched the targets in another way and can
// still be executed: then the new run waits, lest it takes the old call's job for
// its own.
func IsWaiting(task *v1alpha1.PrefetchTask) bool { return !IsElided(task) && NeedsCall(task) }

// NeedsCall is Waiting for a task whose list may be left out in memory.
func NeedsCall(task *v1alpha1.PrefetchTask) bool {
	return mayStartCall(task) && len(OpenPositions(task)) > 0
}

// mayStartCall is Waiting for one that has something to hand over.
func mayStartCall(task *v1alpha1.PrefetchTask) bool {
	if IsSlimmed(task) || !task.DeletionTimestamp.IsZero() || IsSuspended(task) {
		return false
	}
	if claim := task.Status.Submission; claim != nil {
		return !HasClaim(task) || IsNewRun(task) && claim.Semantics == HashSemantics(task)
	}
	return !IsFinished(task)
}

// IsFinished says whether the run that the task asks for is over.
func IsFinished(task *v1alpha1.PrefetchTask) bool {
	return meta.IsStatusConditionTrue(task.Status.Conditions, v1alpha1.ConditionFinished) && !IsNewRun(task)
}

// IsUnseen says whether the run has ended because nobody could read its outcomes. As long
// as EdgeOne's history shows them they may still be read.
func IsUnseen(task *v1alpha1.PrefetchTask) bool {
	ended := meta.FindStatusCondition(task.Status.Conditions, v1alpha1.ConditionFinished)
	ready := meta.FindStatusCondition(task.Status.Conditions, v1alpha1.ConditionReady)
	return IsFinished(task) && ended.Reason == v1alpha1.ReasonNotFollowed && ready != nil && ready.Status == metav1.ConditionUnknown
}

// HasClaim says whether a call of the task has an unknown outcome that matters. That
// of a run which the spec no longer asks for does not, once it cannot be executed.
func HasClaim(task *v1alpha1.PrefetchTask) bool {
	claim := task.Status.Submission
	return claim != nil && !(claim.Expired && IsNewRun(task))
}

// MaxLostCalls is how many lost calls of a run there may be before a person is
// told. It is tried again all the same, more seldom: that a lost call was not
// executed is certain by then, so trying again sends nothing twice.
const MaxLostCalls = 3

// HasRepeatedLosses says whether the run lost so many calls that it is tried seldom.
func HasRepeatedLosses(task *v1alpha1.PrefetchTask) bool {
	return !IsNewRun(task) && task.Status.LostCalls >= MaxLostCalls
}

// IsSuspended says whether the task asks not to be submitted.
func IsSuspended(task *v1alpha1.PrefetchTask) bool {
	return task.Spec.Suspend != nil && *task.Spec.Suspend
}

// CompareHeaderNames orders headers by their names.
func CompareHeaderNames(a, b v1alpha1.HTTPHeader) int { return cmp.Compare(a.Name, b.Name) }

// IsPastRetention says whether EdgeOne's history shows none of the task's jobs any more.
func IsPastRetention(task *v1alpha1.PrefetchTask, retention time.Duration, now time.Time) bool {
	return !slices.ContainsFunc(task.Status.Jobs, func(job v1alpha1.Job) bool { return now.Sub(job.SubmitTime.Time) <= retention })
}
