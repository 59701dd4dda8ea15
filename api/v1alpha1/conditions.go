package v1alpha1

// Condition types of a PrefetchTask. The tables in docs/status.md are generated from these
// comments and from those of the reasons.
const (
	// ConditionReady is True when every target is prefetched, and False until then or if
	// some targets failed; the reason says what happens next. It is Unknown, with the
	// reason NotFollowed, for a run that ended because its outcomes could not be read.
	ConditionReady = "Ready"
	// ConditionSubmitted is True when every target was handed over to EdgeOne. It is
	// Unknown while the outcome of a call is being looked up.
	ConditionSubmitted = "Submitted"
	// ConditionFinished is True when the run is over, whatever its outcome: Succeeded,
	// PartiallyFailed, Failed or NotFollowed.
	ConditionFinished = "Finished"
	// ConditionStalled is present and True only while user action is required. The
	// operator still rechecks from time to time.
	ConditionStalled = "Stalled"
	// ConditionQuotaExceeded is present and True only while EdgeOne's quota or the budget
	// of the account holds the task, with the reason DailyQuota, BatchQuota or Budget.
	ConditionQuotaExceeded = "QuotaExceeded"
)

// Condition reasons, a closed list. The reason says what happens next; the message says
// what went wrong.
const (
	// ReasonWaiting: the task is queued. The message says what it waits for, for example how
	// many tasks are ahead of it.
	ReasonWaiting = "Waiting"
	// ReasonSuspended: nothing is submitted while spec.suspend of the task or of its
	// EdgeOneAccount is true; calls already made are followed.
	ReasonSuspended = "Suspended"
	// ReasonPurging: EdgeOne is purging targets. They are prefetched as soon as it reports
	// that their purge has succeeded.
	ReasonPurging = "Purging"
	// ReasonFreshSinceInFuture: spec.freshSince lies in the future. Correct it; the task
	// continues at that time at the latest.
	ReasonFreshSinceInFuture = "FreshSinceInFuture"
	// ReasonHistoryUnread: EdgeOne's history must be read to find what is prefetched already,
	// and it cannot be read. Nothing is submitted before. Let the key call
	// teo:DescribePrefetchTasks, or change spec.revision and remove spec.freshSince.
	ReasonHistoryUnread = "HistoryUnread"
	// ReasonSubmitting: a call is in progress; its response is recorded next.
	ReasonSubmitting = "Submitting"
	// ReasonSubmitted: every target was handed over; the outcomes come next. EdgeOne
	// usually takes 5 to 30 minutes.
	ReasonSubmitted = "Submitted"
	// ReasonOutcomeUnknown: the response was lost, or left open whether EdgeOne executed
	// the call. The call is looked up in EdgeOne's history before anything is submitted
	// again. If the task is Stalled, the message says what to do.
	ReasonOutcomeUnknown = "OutcomeUnknown"
	// ReasonThrottled: EdgeOne throttles calls; the task keeps its place in the queue.
	ReasonThrottled = "Throttled"
	// ReasonUnavailable: EdgeOne or the Kubernetes API cannot be reached; the operator
	// retries.
	ReasonUnavailable = "Unavailable"
	// ReasonDailyQuota: the task continues when the daily quota is back, which is
	// expected at status.nextAttemptTime.
	ReasonDailyQuota = "DailyQuota"
	// ReasonBatchQuota: the zone's plan has no quota for what the task asks for, a prefetch
	// or a type of purge; change the plan.
	ReasonBatchQuota = "BatchQuota"
	// ReasonBudget: the daily budget of the EdgeOneAccount, or of the namespace in it, is
	// used up; the task continues at status.nextAttemptTime, or when the account allows
	// more.
	ReasonBudget = "Budget"
	// ReasonNotAllowed: the EdgeOneAccount does not allow the task, for the rule that the
	// message names: namespace, zone, host, mode, media segments or purge. Change the task,
	// or ask who manages the account. The operator's own key and the Secrets of tasks allow
	// the types of purges that --allow-purge names.
	ReasonNotAllowed = "NotAllowed"
	// ReasonAccountMissing: the EdgeOneAccount of the task does not exist, or this
	// operator does not use accounts; create it, or correct spec.accountRef.
	ReasonAccountMissing = "AccountMissing"
	// ReasonCredentialsMissing: a Secret, a key in it, or the operator's own
	// credentials are missing; create them.
	ReasonCredentialsMissing = "CredentialsMissing"
	// ReasonCredentialsRefused: EdgeOne does not accept the key; replace it, or correct
	// the clock.
	ReasonCredentialsRefused = "CredentialsRefused"
	// ReasonPermissionDenied: the key may not do this in this zone; correct the policy of
	// the key, or name another key.
	ReasonPermissionDenied = "PermissionDenied"
	// ReasonZoneNotFound: EdgeOne does not know the zone, or the account of the key does
	// not have it; correct spec.zoneID or name a key of the zone's account.
	ReasonZoneNotFound = "ZoneNotFound"
	// ReasonTargetsMissing: the ConfigMap of spec.targetsFrom, or the key in it, is
	// missing; create it, and the task continues.
	ReasonTargetsMissing = "TargetsMissing"
	// ReasonTargetsInvalid: the list in the ConfigMap has an error in the line that the
	// message names; correct it. Nothing of the list is submitted before.
	ReasonTargetsInvalid = "TargetsInvalid"
	// ReasonTargetsChanged: the ConfigMap no longer has the URLs that the current run
	// started with, and an earlier version of the operator started this run. Restore the
	// list, or set spec.revision to a new value, which submits the new list. In all other
	// runs, a changed list heals: the run starts again and keeps what is prefetched.
	ReasonTargetsChanged = "TargetsChanged"
	// ReasonTooLarge: the task leaves no room in etcd for its status. Remove large
	// annotations, split the list, or move it to a ConfigMap.
	ReasonTooLarge = "TooLarge"
	// ReasonSucceeded: the run is over; every target is prefetched.
	ReasonSucceeded = "Succeeded"
	// ReasonPartiallyFailed: the run is over; some targets failed, see
	// status.failedTargets. The retry annotation retries those; a new spec.revision
	// submits all.
	ReasonPartiallyFailed = "PartiallyFailed"
	// ReasonFailed: the run is over; every target failed. The retry annotation retries
	// them.
	ReasonFailed = "Failed"
	// ReasonNotFollowed: every target was handed over, but EdgeOne does not let the
	// outcomes be read. The run ends after --job-deadline, with Ready=Unknown. Outcomes
	// that can be read within --history-retention still count.
	ReasonNotFollowed = "NotFollowed"
)

// Condition reasons of an EdgeOneAccount, besides CredentialsMissing, CredentialsRefused and
// PermissionDenied.
const (
	// ReasonAccepted: EdgeOne has accepted the credentials, or STS has issued keys of the
	// role. The message names a zone that EdgeOne refuses to them.
	ReasonAccepted = "Accepted"
	// ReasonNotVerified: neither EdgeOne nor STS has answered yet, so nobody knows whether
	// the credentials work. With a zone in spec.zones, the operator asks EdgeOne before
	// any task needs it; otherwise, the first call of a task shows it.
	ReasonNotVerified = "NotVerified"
	// ReasonRoleRefused: STS does not let the operator assume a role of the account; the
	// message names the step and what to check.
	ReasonRoleRefused = "RoleRefused"
)

// Reasons of a failed target. All but Refused, PurgeFailed and NoOutcome are EdgeOne's
// statuses.
const (
	// FailedRefused: CreatePrefetchTask did not accept the target.
	FailedRefused = "Refused"
	// FailedPurge: EdgeOne refused or failed to purge the target, or what spec.purge names.
	// The target was not prefetched: EdgeOne would report success over the old copy.
	FailedPurge = "PurgeFailed"
	// FailedFailed: EdgeOne accepted the target and could not prefetch it.
	FailedFailed = "Failed"
	// FailedTimeout: EdgeOne accepted the target and did not prefetch it within its own
	// time limit.
	FailedTimeout = "Timeout"
	// FailedCanceled: EdgeOne accepted the target, and the job was canceled.
	FailedCanceled = "Canceled"
	// FailedInvalid: the origin did not answer with a 2xx status.
	FailedInvalid = "Invalid"
	// FailedNoOutcome: EdgeOne reported no outcome before --job-deadline.
	FailedNoOutcome = "NoOutcome"
)
