package situations

import (
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/simulator"
)

const (
	create   = "CreatePrefetchTask"
	describe = "DescribePrefetchTasks"
	quota    = "DescribeContentQuota"
)

// situations are the sections of the page, in its order.
var situations = slices.Concat(prefetches, refreshes)

// prefetches are the situations of tasks without a purge and without freshSince.
var prefetches = []situation{
	{
		slug: "new", title: "New, and no operator has seen it", operator: absent,
		what: "The task was applied, and nothing else has happened.",
		now:  "If this lasts for more than a minute, no operator serves the namespace: [No reason at all](troubleshooting.md#no-reason-at-all).",
		bring: func(s *scene) {
			s.create(taskName, nil, "index.html")
		},
	},
	{
		slug: "suspended", title: "Suspended", reason: v1alpha1.ReasonSuspended, events: []string{"Suspended"},
		what: "`spec.suspend` is true.",
		now:  "Nothing, or remove `spec.suspend`: [Suspended](troubleshooting.md#suspended).",
		bring: func(s *scene) {
			s.create(taskName, func(task *v1alpha1.PrefetchTask) { task.Spec.Suspend = ptr.To(true) }, "index.html", "app.js")
		},
	},
	{
		slug: "secret-missing", title: "The Secret is missing", reason: v1alpha1.ReasonCredentialsMissing, noKey: true,
		events: []string{v1alpha1.ReasonCredentialsMissing}, log: []string{"on hold"},
		what:  "The Secret of `spec.credentialsSecretRef` does not exist.",
		now:   "Create the Secret in the task's namespace: [CredentialsMissing](troubleshooting.md#credentialsmissing).",
		bring: createAndStall,
	},
	{
		slug: "wrong-key-name", title: "The Secret has a wrong key name", reason: v1alpha1.ReasonCredentialsMissing, noKey: true,
		events: []string{v1alpha1.ReasonCredentialsMissing}, log: []string{"on hold"},
		what: "The Secret has `SecretId` instead of `secretId`.",
		now:  "Rename the key of the Secret: [CredentialsMissing](troubleshooting.md#credentialsmissing).",
		bring: func(s *scene) {
			s.secret(map[string]string{"SecretId": "AKID" + s.slug, "secretKey": "a-secret-key-of-" + s.slug})
			createAndStall(s)
		},
	},
	{
		slug: "no-own-credentials", title: "The operator has no credentials", reason: v1alpha1.ReasonCredentialsMissing,
		events: []string{v1alpha1.ReasonCredentialsMissing}, log: []string{"on hold"}, account: `operator"`,
		what: "The task names no Secret, and the operator has no credentials of its own.",
		now:  "Create the operator's Secret `teo-credentials`, or name a Secret in the task: [CredentialsMissing](troubleshooting.md#credentialsmissing).",
		bring: func(s *scene) {
			s.create(taskName, func(task *v1alpha1.PrefetchTask) { task.Spec.CredentialsSecretRef.Name = "" }, "index.html")
			s.until(taskName, s.reason, isStalled)
		},
	},
	{
		slug: "key-refused", title: "EdgeOne refuses the key", reason: v1alpha1.ReasonCredentialsRefused, noKey: true,
		events: []string{v1alpha1.ReasonCredentialsRefused}, log: []string{"on hold"},
		what: "The SecretKey does not belong to the SecretId.",
		now:  "Replace the values in the Secret; runbook [TEOPrefetchCredentialsRefused](runbooks/TEOPrefetchCredentialsRefused.md).",
		bring: func(s *scene) {
			s.secret(map[string]string{"secretId": "AKID" + s.slug, "secretKey": "another-secret-key"})
			createAndStall(s)
		},
	},
	{
		slug: "permission-denied", title: "The key may not submit", reason: v1alpha1.ReasonPermissionDenied,
		key:    simulator.Key{Actions: []string{describe, quota}},
		events: []string{v1alpha1.ReasonPermissionDenied}, log: []string{"on hold"},
		what:  "The policy of the key does not allow `teo:CreatePrefetchTask`.",
		now:   "Correct the key's policy in Tencent's console: [PermissionDenied](troubleshooting.md#permissiondenied).",
		bring: createAndStall,
	},
	{
		slug: "wrong-zone", title: "The zone is wrong", reason: v1alpha1.ReasonZoneNotFound,
		events: []string{v1alpha1.ReasonZoneNotFound}, log: []string{"on hold"},
		what: "EdgeOne does not know `spec.zoneID`, or the key belongs to another account.",
		now:  "Correct `spec.zoneID`: [ZoneNotFound](troubleshooting.md#zonenotfound).",
		bring: func(s *scene) {
			s.create(taskName, func(task *v1alpha1.PrefetchTask) { task.Spec.ZoneID = "zone-notthere0000" }, "index.html")
			s.until(taskName, s.reason, isStalled)
		},
	},
	{
		slug: "not-allowed", title: "The account does not allow a host", reason: v1alpha1.ReasonNotAllowed,
		events: []string{v1alpha1.ReasonNotAllowed},
		what:   "The task names an EdgeOneAccount that allows only the host `static.example.com` in this zone.",
		now:    "Change the URL, or ask who manages the account: [NotAllowed](troubleshooting.md#notallowed).",
		bring: func(s *scene) {
			s.createAccount(func(spec *v1alpha1.EdgeOneAccountSpec) {
				spec.Zones = []v1alpha1.AccountZone{{ID: s.zoneID, Hosts: []v1alpha1.HostPattern{"static.example.com"}}}
			})
			s.create(taskName, s.useAccount, "index.html", "app.js")
			s.until(taskName, s.reason, isStalled)
		},
	},
	{
		slug: "account-missing", title: "The account is missing", reason: v1alpha1.ReasonAccountMissing,
		events: []string{v1alpha1.ReasonAccountMissing},
		what:   "The EdgeOneAccount of `spec.accountRef` does not exist.",
		now:    "Create the account, or correct `spec.accountRef`: [AccountMissing](troubleshooting.md#accountmissing).",
		bring: func(s *scene) {
			s.create(taskName, s.useAccount, "index.html")
			s.until(taskName, s.reason, isStalled)
		},
	},
	{
		slug: "account-suspended", title: "The account is suspended", reason: v1alpha1.ReasonSuspended,
		what: "`spec.suspend` of the EdgeOneAccount is true.",
		now:  "Nothing, or ask who manages the account: [Suspended](troubleshooting.md#suspended).",
		bring: func(s *scene) {
			s.createAccount(func(spec *v1alpha1.EdgeOneAccountSpec) { spec.Suspend = ptr.To(true) })
			s.create(taskName, s.useAccount, "index.html", "app.js")
			s.until(taskName, s.reason)
		},
	},
	{
		slug: "list-missing", title: "The list is missing", reason: v1alpha1.ReasonTargetsMissing,
		events: []string{v1alpha1.ReasonTargetsMissing}, log: []string{"no target list"},
		what: "The ConfigMap of `spec.targetsFrom` does not exist.",
		now:  "Create the ConfigMap in the task's namespace: [TargetsMissing](troubleshooting.md#targetsmissing-targetsinvalid-targetschanged).",
		bring: func(s *scene) {
			s.createFromList()
			s.until(taskName, s.reason, isStalled)
		},
	},
	{
		slug: "list-invalid", title: "The list has an error", reason: v1alpha1.ReasonTargetsInvalid,
		events: []string{v1alpha1.ReasonTargetsInvalid},
		what:   "A line of the list is not a URL.",
		now:    "Correct the line in the ConfigMap: [TargetsInvalid](troubleshooting.md#targetsmissing-targetsinvalid-targetschanged).",
		bring: func(s *scene) {
			s.list(site+"index.html", "www.example.com/app.js")
			s.createFromList()
			s.until(taskName, s.reason, isStalled)
		},
	},
	{
		slug: "list-changed", title: "The list changed during the run", reason: v1alpha1.ReasonDailyQuota, operator: own,
		zone:   simulator.Zone{Daily: 2},
		events: []string{"KeptFromHistory"},
		what:   "Two of four URLs were submitted, the ConfigMap was changed, and the operator restarted. The run continues with the new list, and keeps what is prefetched.",
		now:    "Nothing; [an edit of a list](status.md) submits only what is new.",
		bring: func(s *scene) {
			s.list(site+"1.html", site+"2.html", site+"3.html", site+"4.html")
			s.createFromList()
			s.world.start(s.T, s.operator, s.namespace)
			s.until(taskName, v1alpha1.ReasonDailyQuota)
			s.untilEvent(v1alpha1.ReasonDailyQuota)
			s.operator.manager.Kill()
			s.list(site+"1.html", site+"2.html", site+"5.html")
			s.world.start(s.T, s.operator, s.namespace)
			s.until(taskName, s.reason, says("2 of 3"))
		},
	},
	{
		slug: "daily-quota", title: "Waiting for quota", reason: v1alpha1.ReasonDailyQuota,
		zone:   simulator.Zone{Daily: 3},
		events: []string{v1alpha1.ReasonDailyQuota}, log: []string{"on hold"},
		what: "The daily quota of the zone is used up after three of five URLs.",
		now:  "Wait until `nextAttemptTime`, or buy quota; runbook [TEOPrefetchQuotaNearlyUsedUp](runbooks/TEOPrefetchQuotaNearlyUsedUp.md).",
		bring: func(s *scene) {
			s.create(taskName, nil, "1.html", "2.html", "3.html", "4.html", "5.html")
			s.until(taskName, s.reason, succeeded(3))
		},
	},
	{
		slug: "budget", title: "Waiting for the account's budget", reason: v1alpha1.ReasonBudget,
		events: []string{v1alpha1.ReasonBudget},
		what:   "The EdgeOneAccount allows each namespace two URLs a day; the task has three.",
		now:    "Wait until `nextAttemptTime`, or ask who manages the account: [Budget](troubleshooting.md#budget).",
		bring: func(s *scene) {
			s.createAccount(func(spec *v1alpha1.EdgeOneAccountSpec) { spec.Limits.DailyURLsPerNamespace = ptr.To[int32](2) })
			s.create(taskName, s.useAccount, "index.html", "app.js", "style.css")
			s.until(taskName, s.reason, succeeded(2))
		},
	},
	{
		slug: "no-quota", title: "The plan has no prefetch quota", reason: v1alpha1.ReasonBatchQuota,
		zone:   simulator.Zone{Batch: -1, Daily: -1},
		events: []string{v1alpha1.ReasonBatchQuota},
		what:   "The plan of the zone does not include prefetch.",
		now:    "Change the plan of the zone, or `spec.zoneID`: [BatchQuota](troubleshooting.md#batchquota).",
		bring: func(s *scene) {
			s.create(taskName, nil, "index.html")
			s.until(taskName, s.reason)
		},
	},
	{
		slug: "throttled", title: "Throttled", reason: v1alpha1.ReasonThrottled, log: []string{"on hold"},
		what: "Other programs use up the account's 20 calls per second.",
		now:  "Find the other programs, or give this operator a share: runbook [TEOPrefetchThrottled](runbooks/TEOPrefetchThrottled.md).",
		bring: func(s *scene) {
			s.fault(simulator.Matcher{}, simulator.Effect{Code: "RequestLimitExceeded", Message: "Your current request times equals to `21` in a second, which exceeds the frequency limit `20` for a second. Please reduce the frequency of calls."})
			s.create(taskName, nil, "index.html", "app.js")
		},
	},
	{
		slug: "unreachable", title: "EdgeOne cannot be reached", reason: v1alpha1.ReasonUnavailable, operator: offline, log: []string{"on hold"},
		what: "A proxy, a NetworkPolicy or DNS blocks the connection to EdgeOne.",
		now:  "Run `helm test`, and allow egress to EdgeOne: [Unavailable](troubleshooting.md#unavailable).",
		bring: func(s *scene) {
			s.create(taskName, nil, "index.html")
		},
	},
	{
		slug: "queued", title: "Waiting for its turn", reason: v1alpha1.ReasonWaiting,
		what: "The tasks of the account wait for the response to a call. The task `other` is older.",
		now:  "Nothing; [who goes next](sharing.md): [Waiting](troubleshooting.md#waiting).",
		bring: func(s *scene) {
			held := s.operator.edgeOne.HoldAnswer(simulator.Matcher{Action: create, ZoneID: s.zoneID})
			s.create("first", nil, "first.html")
			<-held.Arrived()
			s.create("other", nil, "other.html", "other.js")
			s.create(taskName, nil, "index.html", "app.js")
			s.until(taskName, s.reason, says("ahead"))
		},
	},
	{
		slug: "submitting", title: "A call is in progress", reason: v1alpha1.ReasonSubmitting,
		what: "The operator has sent the call and waits for EdgeOne's response.",
		now:  "Nothing; after a minute: [Submitting](troubleshooting.md#submitting).",
		bring: func(s *scene) {
			held := s.operator.edgeOne.HoldAnswer(simulator.Matcher{Action: create, ZoneID: s.zoneID})
			s.create(taskName, nil, "index.html", "app.js")
			<-held.Arrived()
		},
	},
	{
		slug: "submitted", title: "EdgeOne is prefetching", reason: v1alpha1.ReasonSubmitted, events: []string{"Submitted"},
		what: "Every URL is submitted. One of four is prefetched, one has failed.",
		now:  "Wait; it usually takes 5 to 30 minutes: [Submitted](troubleshooting.md#submitted).",
		bring: func(s *scene) {
			s.operator.addRules(
				simulator.Rule{URL: "/submitted/video", Status: simulator.Never},
				simulator.Rule{URL: "/submitted/missing", Status: "invalid", FailMessage: "The origin answered 404."})
			s.create(taskName, nil, "submitted/index.html", "submitted/missing.js", "submitted/video-1.mp4", "submitted/video-2.mp4")
			s.until(taskName, s.reason, succeeded(1), failed(1))
		},
	},
	{
		slug: "lost", title: "A call is lost", reason: v1alpha1.ReasonOutcomeUnknown, events: []string{"OutcomeUnknown"}, log: []string{"failed"},
		what: "The connection broke before EdgeOne's response came.",
		now:  "Wait until the time in the message: [OutcomeUnknown](troubleshooting.md#outcomeunknown).",
		bring: func(s *scene) {
			s.fault(simulator.Matcher{}, simulator.Effect{Answer: simulator.ConnectionClosed})
			s.create(taskName, nil, "index.html", "app.js")
		},
	},
	{
		slug: "others-lost", title: "Waiting for another task's lost call", reason: v1alpha1.ReasonWaiting,
		what: "The lost call of the task `other` contains one of this task's two URLs.",
		now:  "Wait until the other task's call is settled: [Waiting](troubleshooting.md#waiting).",
		bring: func(s *scene) {
			s.fault(simulator.Matcher{URL: "/shared.js"}, simulator.Effect{Answer: simulator.ConnectionClosed})
			s.create("other", nil, "shared.js")
			s.until("other", v1alpha1.ReasonOutcomeUnknown)
			s.create(taskName, nil, "shared.js", "index.html")
			s.until(taskName, s.reason, says("other"), succeeded(1))
		},
	},
	{
		slug: "found", title: "A lost call is found", reason: v1alpha1.ReasonSucceeded, log: []string{"Settled"}, events: []string{v1alpha1.ReasonSucceeded},
		what: "EdgeOne executed the call whose response was lost, and its history shows it.",
		now:  "Nothing; nothing was sent twice.",
		bring: func(s *scene) {
			s.fault(simulator.Matcher{Count: 1}, simulator.Effect{Answer: simulator.ConnectionClosed, Executed: true})
			s.create(taskName, nil, "index.html", "app.js")
		},
	},
	{
		slug: "repeated", title: "A lost call is repeated", reason: v1alpha1.ReasonSucceeded, operator: hasty, log: []string{"Settled"}, events: []string{v1alpha1.ReasonSucceeded},
		what: "EdgeOne's history shows that the lost call was not executed, so the operator sends it again.",
		now:  "Nothing.",
		bring: func(s *scene) {
			s.fault(simulator.Matcher{Count: 1}, simulator.Effect{Answer: simulator.ConnectionClosed})
			s.create(taskName, nil, "index.html", "app.js")
		},
	},
	{
		slug: "always-lost", title: "EdgeOne leaves open whether it executed the call", reason: v1alpha1.ReasonOutcomeUnknown, operator: hasty,
		events: []string{"OutcomeUnknown"},
		what:   "EdgeOne answers each call with this URL with an internal error, and executes none of them.",
		now:    "Check the URL and its domain in EdgeOne's console: [OutcomeUnknown](troubleshooting.md#outcomeunknown).",
		bring: func(s *scene) {
			s.fault(simulator.Matcher{URL: "badcfg"}, simulator.Effect{Code: "InternalError.DomainConfig", Message: "The origin configuration is unavailable."})
			s.create(taskName, nil, "badcfg.html")
			s.until(taskName, s.reason, isStalled)
		},
	},
	{
		slug: "refused", title: "EdgeOne refuses every URL", reason: v1alpha1.ReasonFailed, events: []string{v1alpha1.ReasonFailed},
		what: "The host does not belong to the zone.",
		now:  "Correct the URLs or `spec.zoneID`, which starts a new run: [Failed](troubleshooting.md#partiallyfailed-failed).",
		bring: func(s *scene) {
			s.create(taskName, func(task *v1alpha1.PrefetchTask) {
				task.Spec.Targets = []v1alpha1.Target{"https://cdn.example.org/index.html", "https://cdn.example.org/app.js"}
			})
		},
	},
	{
		slug: "partly-failed", title: "Some URLs failed, for three causes", reason: v1alpha1.ReasonPartiallyFailed, events: []string{v1alpha1.ReasonPartiallyFailed},
		what: "EdgeOne refused one URL, the origin does not have the second, and EdgeOne gave up the third.",
		now:  "Fix the causes that the failed targets name, then [retry](status.md#retries): [PartiallyFailed](troubleshooting.md#partiallyfailed-failed).",
		bring: func(s *scene) {
			s.operator.addRules(
				simulator.Rule{URL: "/partly-failed/private", Refuse: "The resource is not allowed to be prefetched."},
				simulator.Rule{URL: "/partly-failed/missing", Status: "invalid", FailMessage: "The origin answered 404."},
				simulator.Rule{URL: "/partly-failed/huge", Status: "timeout", FailType: "originPullFailed", FailMessage: "The origin did not answer in time."})
			s.create(taskName, nil, "partly-failed/index.html", "partly-failed/app.js", "partly-failed/private.html", "partly-failed/missing.jpg", "partly-failed/huge.iso")
		},
	},
	{
		slug: "retried", title: "Retried", reason: v1alpha1.ReasonSucceeded, events: []string{"Retried", v1alpha1.ReasonPartiallyFailed, v1alpha1.ReasonSucceeded},
		what: "One of two URLs failed, the origin was fixed, and the annotation asked for a retry.",
		now:  "Nothing.",
		bring: func(s *scene) {
			s.operator.addRules(simulator.Rule{URL: "/retried/missing", Status: "invalid", FailMessage: "The origin answered 404."})
			s.create(taskName, nil, "retried/index.html", "retried/missing.jpg")
			s.until(taskName, v1alpha1.ReasonPartiallyFailed)
			s.operator.removeRules("/retried/")
			s.retry()
		},
	},
	{
		slug: "nothing-to-retry", title: "A retry with nothing to do", reason: v1alpha1.ReasonSucceeded, events: []string{"NothingToRetry"},
		what: "The annotation asks for a retry, and no URL of the run has failed.",
		now:  "Set a new `spec.revision` to submit everything again: [It runs again, or does not](troubleshooting.md#it-runs-again-or-does-not).",
		bring: func(s *scene) {
			s.create(taskName, nil, "index.html")
			s.until(taskName, v1alpha1.ReasonSucceeded)
			s.retry()
		},
	},
	{
		slug: "unread", title: "The outcomes cannot be read", reason: v1alpha1.ReasonPermissionDenied,
		key:    simulator.Key{Actions: []string{create, quota}},
		events: []string{v1alpha1.ReasonPermissionDenied}, log: []string{"Cannot read"},
		what:  "Every URL is submitted, but the policy of the key does not allow `teo:DescribePrefetchTasks`.",
		now:   "Correct the key's policy; no URL is submitted again: [NotFollowed](troubleshooting.md#notfollowed).",
		bring: createAndStall,
	},
	{
		slug: "not-followed", title: "Finished, with unknown outcomes", reason: v1alpha1.ReasonNotFollowed, operator: deadline,
		key:    simulator.Key{Actions: []string{create, quota}},
		events: []string{v1alpha1.ReasonNotFollowed},
		what:   "The key's policy was not corrected within 24 hours (`--job-deadline`).",
		now:    "Correct the key's policy; the outcomes are read within 10 minutes: [NotFollowed](troubleshooting.md#notfollowed).",
		bring: func(s *scene) {
			s.create(taskName, nil, "index.html", "app.js")
		},
	},
	{
		slug: "no-outcome", title: "No outcome within 24 hours", reason: v1alpha1.ReasonPartiallyFailed, operator: deadline,
		events: []string{v1alpha1.ReasonPartiallyFailed},
		what:   "EdgeOne still shows one of two URLs as in progress after 24 hours (`--job-deadline`).",
		now:    "Look up the job in EdgeOne's console, and [retry](status.md#retries): [PartiallyFailed](troubleshooting.md#partiallyfailed-failed).",
		bring: func(s *scene) {
			s.operator.addRules(simulator.Rule{URL: "/no-outcome/video", Status: simulator.Never})
			s.create(taskName, nil, "no-outcome/index.html", "no-outcome/video.mp4")
		},
	},
	{
		slug: "not-deleted", title: "Finished, and not deleted", reason: v1alpha1.ReasonSucceeded, events: []string{"NotDeleted", v1alpha1.ReasonSucceeded},
		what: "The task has `spec.ttlSecondsAfterFinished`, and Argo CD manages it.",
		now:  "Remove the field: [Deletion](status.md#deletion).",
		bring: func(s *scene) {
			s.create(taskName, func(task *v1alpha1.PrefetchTask) {
				task.Spec.TTLSecondsAfterFinished = 60
				metav1.SetMetaDataAnnotation(&task.ObjectMeta, "argocd.argoproj.io/tracking-id", "shop:teo.prefetch-operator.io/PrefetchTask:"+s.namespace+"/"+taskName)
			}, "index.html")
		},
	},
	{
		slug: "succeeded", title: "Finished", reason: v1alpha1.ReasonSucceeded, events: []string{"Resumed", v1alpha1.ReasonSucceeded},
		what: "A task that was created with `spec.suspend`, and released.",
		now:  "Nothing.",
		bring: func(s *scene) {
			s.create(taskName, func(task *v1alpha1.PrefetchTask) { task.Spec.Suspend = ptr.To(true) }, "index.html", "app.js", "style.css")
			s.until(taskName, v1alpha1.ReasonSuspended)
			s.edit(taskName, func(task *v1alpha1.PrefetchTask) { task.Spec.Suspend = nil })
		},
	},
}

// createAndStall creates the task and waits until it needs a user.
func createAndStall(s *scene) {
	s.create(taskName, nil, "index.html", "app.js")
	s.until(taskName, s.reason, isStalled)
}

// says returns whether the message of the condition Ready contains a text.
func says(text string) func(*v1alpha1.PrefetchTaskStatus) bool {
	return func(status *v1alpha1.PrefetchTaskStatus) bool {
		ready := meta.FindStatusCondition(status.Conditions, v1alpha1.ConditionReady)
		return ready != nil && strings.Contains(ready.Message, text)
	}
}

// succeeded returns whether so many targets have succeeded.
func succeeded(n int32) func(*v1alpha1.PrefetchTaskStatus) bool {
	return func(status *v1alpha1.PrefetchTaskStatus) bool { return ptr.Deref(status.Targets.Succeeded, 0) == n }
}

// failed returns whether so many targets have failed.
func failed(n int32) func(*v1alpha1.PrefetchTaskStatus) bool {
	return func(status *v1alpha1.PrefetchTaskStatus) bool { return ptr.Deref(status.Targets.Failed, 0) == n }
}
