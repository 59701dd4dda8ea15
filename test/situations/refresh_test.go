package situations

import (
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/simulator"
)

const createPurge = "CreatePurgeTask"

// refreshes are the situations of tasks that purge, or that start with EdgeOne's history.
var refreshes = []situation{
	{
		slug: "purging", title: "EdgeOne is purging", reason: v1alpha1.ReasonPurging,
		what: "The task has `spec.purge`. EdgeOne has accepted the purge and has not finished it.",
		now:  "Wait; it usually takes less than a minute: [Purging](troubleshooting.md#purging).",
		bring: func(s *scene) {
			s.operator.addRules(simulator.Rule{Action: createPurge, URL: "/purging/", Status: simulator.Never})
			s.create(taskName, purgeURLs, "purging/index.html", "purging/app.js")
		},
	},
	{
		slug: "purge-suspended", title: "Suspended between purge and prefetch", reason: v1alpha1.ReasonSuspended, events: []string{"Purged", "Suspended"},
		what: "`spec.suspend` became true after the purge and before the prefetch.",
		now:  "Remove `spec.suspend` soon, because visitors wait for the origin; runbook [TEOPrefetchTargetsCold](runbooks/TEOPrefetchTargetsCold.md).",
		bring: func(s *scene) {
			held := s.operator.edgeOne.HoldAnswer(simulator.Matcher{Action: createPurge, ZoneID: s.zoneID})
			s.create(taskName, purgeURLs, "index.html", "app.js")
			<-held.Arrived()
			outcome := s.operator.edgeOne.HoldAnswer(simulator.Matcher{Action: "DescribePurgeTasks", ZoneID: s.zoneID})
			s.edit(taskName, func(task *v1alpha1.PrefetchTask) { task.Spec.Suspend = ptr.To(true) })
			held.Release()
			s.untilEvent(s.reason)
			outcome.Release()
			s.until(taskName, s.reason, says("purged and not prefetched yet"))
		},
	},
	{
		slug: "purge-lost", title: "The answer to a purge is lost", reason: v1alpha1.ReasonOutcomeUnknown, events: []string{"OutcomeUnknown"}, log: []string{"failed"},
		what: "The connection broke before EdgeOne's response to the purge came.",
		now:  "Wait until the time in the message: [OutcomeUnknown](troubleshooting.md#outcomeunknown).",
		bring: func(s *scene) {
			s.fault(simulator.Matcher{Action: createPurge}, simulator.Effect{Answer: simulator.ConnectionClosed})
			s.create(taskName, purgeURLs, "index.html", "app.js")
		},
	},
	{
		slug: "purge-failed", title: "A purge failed", reason: v1alpha1.ReasonPartiallyFailed, events: []string{v1alpha1.FailedPurge, v1alpha1.ReasonPartiallyFailed},
		what: "EdgeOne failed to purge one of two URLs, so the operator did not prefetch it.",
		now:  "[Retry](status.md#retries): it purges and prefetches what failed; [PartiallyFailed](troubleshooting.md#partiallyfailed-failed).",
		bring: func(s *scene) {
			s.operator.addRules(simulator.Rule{Action: createPurge, URL: "/purge-failed/app", Status: "failed"})
			s.create(taskName, purgeURLs, "purge-failed/index.html", "purge-failed/app.js")
		},
	},
	{
		slug: "purge-unread", title: "The outcome of a purge cannot be read", reason: v1alpha1.ReasonPermissionDenied, events: []string{v1alpha1.ReasonPermissionDenied},
		what: "The policy of the key lost `teo:DescribePurgeTasks` during a purge.",
		now:  "Correct the key's policy; runbook [TEOPrefetchTargetsCold](runbooks/TEOPrefetchTargetsCold.md).",
		bring: func(s *scene) {
			s.operator.addRules(simulator.Rule{Action: createPurge, URL: "/purge-unread/", Status: simulator.Never})
			s.create(taskName, purgeURLs, "purge-unread/index.html", "purge-unread/app.js")
			s.until(taskName, v1alpha1.ReasonPurging)
			s.fault(simulator.Matcher{Action: "DescribePurgeTasks"}, simulator.Effect{Code: "UnauthorizedOperation.CamUnauthorized", Message: "The key may not call teo:DescribePurgeTasks."})
			s.until(taskName, s.reason, isStalled)
		},
	},
	{
		slug: "purge-quota", title: "The quota does not cover the prefetch", reason: v1alpha1.ReasonDailyQuota,
		zone:   simulator.Zone{Daily: 3},
		events: []string{v1alpha1.ReasonDailyQuota},
		what:   "The daily prefetch quota of the zone has one URL left. The task has two, so the operator purges neither.",
		now:    "Wait until `nextAttemptTime`, or buy quota; runbook [TEOPrefetchQuotaNearlyUsedUp](runbooks/TEOPrefetchQuotaNearlyUsedUp.md).",
		bring: func(s *scene) {
			s.create("other", nil, "1.html", "2.html")
			s.until("other", v1alpha1.ReasonSucceeded)
			s.create(taskName, purgeURLs, "index.html", "app.js")
			s.until(taskName, s.reason)
		},
	},
	{
		slug: "purge-not-allowed", title: "The purge is not allowed", reason: v1alpha1.ReasonNotAllowed,
		events: []string{v1alpha1.ReasonNotAllowed},
		what:   "The task purges a host. Without an EdgeOneAccount, tasks may only purge their own URLs.",
		now:    "Purge with the type URL, or ask who manages the operator: [NotAllowed](troubleshooting.md#notallowed).",
		bring: func(s *scene) {
			s.create(taskName, purgeHost, "index.html", "app.js")
			s.until(taskName, s.reason, isStalled)
		},
	},
	{
		slug: "purge-no-quota", title: "The plan lacks the type of purge", reason: v1alpha1.ReasonBatchQuota,
		zone:   simulator.Zone{Purge: map[string]simulator.Limits{"purge_host": {NotAllowed: true, Unlisted: true}}},
		events: []string{v1alpha1.ReasonBatchQuota},
		what:   "The EdgeOneAccount allows purges of hosts, and the plan of the zone does not include them.",
		now:    "Change the type of `spec.purge`, or the plan of the zone: [BatchQuota](troubleshooting.md#batchquota).",
		bring: func(s *scene) {
			s.createAccount(func(spec *v1alpha1.EdgeOneAccountSpec) {
				spec.Allow.Purge = []v1alpha1.PurgeType{v1alpha1.PurgeURL, v1alpha1.PurgeHost}
			})
			s.create(taskName, func(task *v1alpha1.PrefetchTask) { s.useAccount(task); purgeHost(task) }, "index.html", "app.js")
			s.until(taskName, s.reason, isStalled)
		},
	},
	{
		slug: "fresh-future", title: "freshSince lies in the future", reason: v1alpha1.ReasonFreshSinceInFuture,
		what: "`spec.freshSince` is later than now.",
		now:  "Set it to the time of a release: [FreshSinceInFuture](troubleshooting.md#freshsinceinfuture).",
		bring: func(s *scene) {
			s.create(taskName, freshSince(24*time.Hour), "index.html", "app.js")
			s.until(taskName, s.reason, isStalled)
		},
	},
	{
		slug: "kept", title: "Kept from EdgeOne's history", reason: v1alpha1.ReasonSucceeded, events: []string{"KeptFromHistory", v1alpha1.ReasonSucceeded},
		what: "Another task has prefetched two of three URLs since `spec.freshSince`.",
		now:  "Nothing; only the third URL was submitted.",
		bring: func(s *scene) {
			s.create("other", nil, "index.html", "app.js")
			s.until("other", v1alpha1.ReasonSucceeded)
			s.create(taskName, freshSince(-time.Hour), "index.html", "app.js", "style.css")
		},
	},
	{
		slug: "edited", title: "The list was edited", reason: v1alpha1.ReasonSucceeded, events: []string{"KeptFromHistory", v1alpha1.ReasonSucceeded},
		what: "A URL was added to the list of a finished task.",
		now:  "Nothing; only the new URL was submitted.",
		bring: func(s *scene) {
			s.create(taskName, nil, "index.html", "app.js")
			s.until(taskName, v1alpha1.ReasonSucceeded)
			s.untilEvent(v1alpha1.ReasonSucceeded)
			s.edit(taskName, func(task *v1alpha1.PrefetchTask) { task.Spec.Targets = append(task.Spec.Targets, site+"style.css") })
			s.until(taskName, s.reason, succeeded(3))
		},
	},
	{
		slug: "history-unread", title: "EdgeOne's history cannot be read", reason: v1alpha1.ReasonPermissionDenied,
		key:  simulator.Key{Actions: []string{create, quota}},
		what: "The task has `spec.freshSince`, and the policy of the key does not allow `teo:DescribePrefetchTasks`.",
		now:  "Correct the key's policy: [HistoryUnread](troubleshooting.md#historyunread).",
		bring: func(s *scene) {
			s.create(taskName, freshSince(-time.Hour), "index.html", "app.js")
			s.until(taskName, s.reason, isStalled)
		},
	},
}

func purgeURLs(task *v1alpha1.PrefetchTask) { task.Spec.Purge.Type = v1alpha1.PurgeURL }

func purgeHost(task *v1alpha1.PrefetchTask) {
	task.Spec.Purge = v1alpha1.Purge{Type: v1alpha1.PurgeHost, Targets: []v1alpha1.PurgeTarget{"www.example.com"}}
}

// freshSince returns the change that asks for copies from a time on, counted from now.
func freshSince(from time.Duration) func(*v1alpha1.PrefetchTask) {
	return func(task *v1alpha1.PrefetchTask) {
		task.Spec.FreshSince = metav1.NewTime(time.Now().Add(from).Truncate(time.Second))
	}
}
