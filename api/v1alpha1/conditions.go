package v1alpha1

// Condition types of a PrefetchTask. docs/status.md has a table of them and of the
// reasons that is made of these comments.
const (
	// ConditionReady is True once every target is prefetched, and False while that is not
	// so yet, or where it is not so of all; the reason says what happens next. It is
	// Unknown, with the reason NotFollowed, for a run that has ended because nobody could
	// read its outcomes.
	ConditionReady = "Ready"
	// ConditionSubmitted is True once every target was handed over to EdgeOne, and
	// Unknown while an answer was lost and the call is being looked up.
	ConditionSubmitted = "Submitted"
	// ConditionFinished is True when the run is over, in either outcome: Succeeded,
	// PartiallyFailed, Failed or NotFollowed.
	ConditionFinished = "Finished"
	// ConditionStalled is present, and True, only while nothing gets better without a
	// person. The operator still looks again now and then.
	ConditionStalled = "Stalled"
	// ConditionQuotaExceeded is present, and True, only while EdgeOne's quota holds the
	// task, with the reason DailyQuota or BatchQuota.
	ConditionQuotaExceeded = "QuotaExceeded"
)

// Condition reasons, a closed list. A reason says what happens next; what went
// wrong is the message's business.
const (
	// ReasonWaiting: the task is submitted when its turn comes.
	ReasonWaiting = "Waiting"
	// ReasonSuspended: nothing is submitted until spec.suspend is removed; calls
	// already made are followed.
	ReasonSuspended = "Suspended"
	// ReasonSubmitting: a call is being made; its answer is recorded next.
	ReasonSubmitting = "Submitting"
	// ReasonSubmitted: every target was handed over; their outcomes come next. EdgeOne
	// usually takes 5 to 30 minutes.
	ReasonSubmitted = "Submitted"
	// ReasonOutcomeUnknown: an answer was lost, or left open whether EdgeOne executed the
	// call; the call is looked up in EdgeOne's history before anything is submitted again. With Stalled, the message says what a
	// person can do.
	ReasonOutcomeUnknown = "OutcomeUnknown"
	// ReasonThrottled: EdgeOne is called more slowly; the task stays in line.
	ReasonThrottled = "Throttled"
	// ReasonUnavailable: EdgeOne, or the Kubernetes API, cannot be reached; it is tried
	// again by itself.
	ReasonUnavailable = "Unavailable"
	// ReasonDailyQuota: the task continues when the day's quota returns, which is
	// expected at status.nextAttemptTime.
	ReasonDailyQuota = "DailyQuota"
	// ReasonBatchQuota: the zone's plan has no prefetch quota; it must be changed.
	ReasonBatchQuota = "BatchQuota"
	// ReasonCredentialsMissing: a Secret, a key in it, or the operator's own
	// credentials must be supplied.
	ReasonCredentialsMissing = "CredentialsMissing"
	// ReasonCredentialsRefused: EdgeOne does not accept the key; it must be
	// replaced, or the clock set right.
	ReasonCredentialsRefused = "CredentialsRefused"
	// ReasonPermissionDenied: the key may not do this in this zone, or there is no
	// such zone; a policy or spec.zoneID must be set right.
	ReasonPermissionDenied = "PermissionDenied"
	// ReasonTargetsMissing: the ConfigMap of spec.targetsFrom, or the key in it, must
	// be supplied; the task goes on by itself then.
	ReasonTargetsMissing = "TargetsMissing"
	// ReasonTargetsInvalid: the list in the ConfigMap must be set right, in the line
	// that the message names; nothing of it is submitted before.
	ReasonTargetsInvalid = "TargetsInvalid"
	// ReasonTargetsChanged: the ConfigMap has other URLs than the run under way began
	// with, which cannot go on. The list must be restored, or spec.revision set to a
	// new value, which submits the new list.
	ReasonTargetsChanged = "TargetsChanged"
	// ReasonTooLarge: the task leaves no room in etcd for its status. Large annotations
	// must be removed, or the list split or moved to a ConfigMap.
	ReasonTooLarge = "TooLarge"
	// ReasonSucceeded: over; every target is prefetched.
	ReasonSucceeded = "Succeeded"
	// ReasonPartiallyFailed: over; some targets failed, see status.failedTargets. The
	// retry annotation tries those again, a new spec.revision all.
	ReasonPartiallyFailed = "PartiallyFailed"
	// ReasonFailed: over; every target failed. The retry annotation tries them again.
	ReasonFailed = "Failed"
	// ReasonNotFollowed: every target was handed over, but EdgeOne does not let the
	// outcomes be read. After --job-deadline the run is over, with Ready=Unknown. The
	// outcomes still count if they can be read within --history-retention.
	ReasonNotFollowed = "NotFollowed"
)

// Reasons of a failed target. Beside the first and the last they are EdgeOne's statuses
// of it.
const (
	// FailedRefused: CreatePrefetchTask did not take the target.
	FailedRefused = "Refused"
	// FailedFailed: EdgeOne took the target and could not prefetch it.
	FailedFailed = "Failed"
	// FailedTimeout: EdgeOne took the target and did not prefetch it in its own time.
	FailedTimeout = "Timeout"
	// FailedCanceled: EdgeOne took the target, and the job was canceled.
	FailedCanceled = "Canceled"
	// FailedInvalid: the origin did not answer the target with a status 2xx.
	FailedInvalid = "Invalid"
	// FailedNoOutcome: EdgeOne named no outcome before --job-deadline.
	FailedNoOutcome = "NoOutcome"
)
