package v1alpha1

// Condition types of a PrefetchTask.
const (
	// ConditionReady is True once every target is prefetched, or was handed over
	// where outcomes cannot be read. While it is False, its reason says what
	// happens next.
	ConditionReady = "Ready"
	// ConditionStalled is present, and True, only while nothing gets better
	// without a person. The operator still looks again every minute or so.
	ConditionStalled = "Stalled"
	// ConditionSubmitted is True once every target was handed over to EdgeOne,
	// and Unknown while the outcome of a call is being looked up.
	ConditionSubmitted = "Submitted"
	// ConditionQuotaExceeded is present, and True, only while EdgeOne's quota
	// holds the task.
	ConditionQuotaExceeded = "QuotaExceeded"
	// ConditionFinished is True when the run is over, in either outcome.
	ConditionFinished = "Finished"
)

// Condition reasons, a closed list. A reason says what happens next; what went
// wrong is the message's business.
const (
	// ReasonWaiting: the task is submitted when its turn comes.
	ReasonWaiting = "Waiting"
	// ReasonSuspended: nothing is submitted until spec.suspend is removed.
	ReasonSuspended = "Suspended"
	// ReasonSubmitting: a call is being made; its answer is recorded next.
	ReasonSubmitting = "Submitting"
	// ReasonSubmitted: every target was handed over; their outcomes come next.
	ReasonSubmitted = "Submitted"
	// ReasonOutcomeUnknown: an answer was lost. The call is looked up in EdgeOne's
	// history before anything is submitted again.
	ReasonOutcomeUnknown = "OutcomeUnknown"
	// ReasonThrottled: EdgeOne is called more slowly; the task stays in line.
	ReasonThrottled = "Throttled"
	// ReasonUnavailable: EdgeOne cannot be reached; it is tried again by itself.
	ReasonUnavailable = "Unavailable"
	// ReasonDailyQuota: the task continues when the day's quota returns.
	ReasonDailyQuota = "DailyQuota"
	// ReasonBatchQuota: the plan has no prefetch quota; it must be changed.
	ReasonBatchQuota = "BatchQuota"
	// ReasonCredentialsMissing: a Secret, a key in it, or the operator's own
	// credentials must be supplied.
	ReasonCredentialsMissing = "CredentialsMissing"
	// ReasonCredentialsRefused: EdgeOne does not accept the key; it must be
	// replaced, or the clock set right.
	ReasonCredentialsRefused = "CredentialsRefused"
	// ReasonPermissionDenied: the key may not do this in this zone, or the zone
	// does not exist; a policy or the zone must be set right.
	ReasonPermissionDenied = "PermissionDenied"
	// ReasonTargetsMissing: the ConfigMap of spec.targetsFrom, or the key in it, must
	// be supplied.
	ReasonTargetsMissing = "TargetsMissing"
	// ReasonTargetsInvalid: the list in the ConfigMap must be set right; nothing of
	// it is submitted before.
	ReasonTargetsInvalid = "TargetsInvalid"
	// ReasonTargetsChanged: the list in the ConfigMap is no longer the one of the
	// run under way, which cannot go on. The list must be restored, or spec.revision
	// set to a new value for a run with the new one.
	ReasonTargetsChanged = "TargetsChanged"
	// ReasonNotFollowed: the run is over; every target was handed over, but
	// EdgeOne does not let the outcome be read.
	ReasonNotFollowed = "NotFollowed"
	// ReasonSucceeded: the run is over; every target is prefetched.
	ReasonSucceeded = "Succeeded"
	// ReasonPartiallyFailed: the run is over; some targets failed, see
	// status.failedTargets. The retry annotation tries those again, a new
	// spec.revision all.
	ReasonPartiallyFailed = "PartiallyFailed"
	// ReasonFailed: the run is over; every target failed.
	ReasonFailed = "Failed"
)

// Reasons of a failed target that are not EdgeOne's statuses.
const (
	// FailedRefused: CreatePrefetchTask did not take the target.
	FailedRefused = "Refused"
	// FailedNoOutcome: EdgeOne named no outcome before the deadline.
	FailedNoOutcome = "NoOutcome"
)
