package main

const (
	refresh = "./internal/controller -run "
	fresh   = "./internal/taskstate"
)

// refreshes are the safeguards of purges and of runs that start with EdgeOne's history: no visitor
// gets an older version after Ready, no URL is cold without need, and nothing fresh is submitted.
var refreshes = []mutation{
	// Order.
	{
		name: "a target is prefetched before it is purged", file: "internal/taskstate/purge.go",
		old:    `return open.Intersect(s.purged)`,
		new:    `return open`,
		suites: []string{refresh + "TestATaskPurgesItsTargets"},
	},
	{
		name: "a target is prefetched as soon as EdgeOne accepts its purge", file: "internal/taskstate/purge.go",
		old:    `return open.Intersect(s.purged)`,
		new:    `return open.Intersect(s.purged.Union(s.underWay))`,
		suites: []string{refresh + "TestATaskPurgesItsTargets"},
	},
	{
		name: "a prefix is prefetched while EdgeOne purges it", file: "internal/taskstate/purge.go",
		old:    `case len(s.rest)+len(s.underWay)+len(s.failed) > 0:`,
		new:    `case len(s.rest)+len(s.failed) > 0:`,
		suites: []string{refresh + "TestATaskPurgesItsTargets"},
	},
	{
		name: "a list is purged at once", file: "internal/taskstate/purge.go",
		old: `	case len(state.underWay) > 0:
		return nil
`,
		new: `	case len(state.underWay) > len(open):
		return nil
`,
		suites: []string{refresh + "TestAListIsPurgedBatchByBatch"},
	},
	{
		name: "a batch is purged before the one ahead is handed over", file: "internal/taskstate/purge.go",
		old:    `case len(state.readyOf(task, open)) > 0:`,
		new:    `case len(state.readyOf(task, open)) > len(open):`,
		suites: []string{fresh + " -run TestWhichTargets"},
	},
	{
		name: "other tasks prefetch what a call purges", file: "internal/controller/submit/attempt.go",
		old:    `l.prefetches.queue.ReservePurge(a.claimID, call.Lane.ZoneID, call.Lane.PurgeType, call.URLs, time.Now())`,
		new:    `l.prefetches.queue.ReservePurge(a.claimID, call.Lane.ZoneID, call.Lane.PurgeType, nil, time.Now())`,
		suites: []string{refresh + "TestNothingIsPrefetchedThatAPlanned"},
	},
	{
		name: "a lost purge is adopted before its call can no longer arrive", file: "internal/taskstate/claim_match.go",
		old: `	if !pastFence {
		return Undecided, nil
	}
	positions := CoveredPositions(submission.Positions, len(identities))
`,
		new: `	positions := CoveredPositions(submission.Positions, len(identities))
`,
		suites: []string{refresh + "TestALostPurge"},
	},
	{
		name: "a lost call of an edited list is not looked for", file: "internal/controller/follow/settle.go",
		old:    `if taskstate.IsListEdit(task) && l.unread[claim.ClaimID] == nil {`,
		new:    `if taskstate.IsListEdit(task) && l.unread[claim.ClaimID] != nil {`,
		suites: []string{refresh + "TestAnEditWhileACallIsLost"},
	},
	{
		name: "the history of purges is checked up to EdgeOne's present", file: "internal/controller/submit/quota.go",
		old:    `const checkedHistoryAge = time.Hour`,
		new:    `const checkedHistoryAge = 0 * time.Hour`,
		suites: []string{refresh + "TestAHistoryOfPurges"},
	},
	{
		name: "budgets leave no room for what is purged", file: "internal/queue/denial.go",
		old:    `if q.promises[it.key].urls == 0 { // only`,
		new:    `if q.promises[it.key].urls < 0 { // only`,
		suites: []string{"./internal/queue -run TestBudgetsLeaveRoom"},
	},
	{
		name: "a planned purge is promised nothing", file: "internal/queue/promises.go",
		old:    `q.promised.add(part.Task.Namespace, urls)`,
		new:    `q.promised.add(part.Task.Namespace, 0)`,
		suites: []string{"./internal/queue -run TestBudgetsLeaveRoom"},
	},
	// What cannot be prefetched.
	{
		name: "what the prefetch quota does not cover is purged", file: "internal/queue/promises.go",
		old:    `if left >= p.dayNeed(task, need) {`,
		new:    `if left > 0 {`,
		suites: []string{refresh + "TestNothingIsPurged"},
	},
	{
		name: "other tasks get the quota of purged targets", file: "internal/queue/promises.go",
		old:    `if a.Reason != "" || p.promised == 0 || p.edge || p.remaining < 0 || q.promises[it.key].urls > 0 {`,
		new:    `if true || p == nil {`,
		suites: []string{refresh + "TestPurgesGetTheQuota"},
	},
	{
		name: "the history of purges is not read before the first purge", file: "internal/controller/submit/quota.go",
		old:    `if historyErr := s.checkPurgeHistory(ctx, creds, zoneID); historyErr != nil {`,
		new:    `if historyErr := s.checkPurgeHistory(ctx, creds, zoneID); historyErr != nil && l == nil {`,
		suites: []string{refresh + "TestAKeyThatMayNotReadTheHistory"},
	},
	{
		name: "a target whose purge failed is prefetched", file: "internal/taskstate/outcomes.go",
		old: `		default:
			failed = append(failed, i)
		}
`,
		new: `		default:
			purged = purged.Union(Positions{i})
		}
`,
		suites: []string{refresh + "TestATargetWhosePurgeFails"},
	},
	// The run before.
	{
		name: "a new run does not wait for the purge of the run before", file: "internal/taskstate/purge.go",
		old:    `return HasOpenPurge(task) || HasPurge(task) && slices.ContainsFunc(task.Status.Jobs, IsJobOpen)`,
		new:    `return HasPurge(task) && slices.ContainsFunc(task.Status.Jobs, IsJobOpen)`,
		suites: []string{fresh + " -run TestWhichTargets"},
	},
	{
		name: "a new run does not wait for the prefetches of the run before", file: "internal/taskstate/purge.go",
		old:    `return HasOpenPurge(task) || HasPurge(task) && slices.ContainsFunc(task.Status.Jobs, IsJobOpen)`,
		new:    `return HasOpenPurge(task)`,
		suites: []string{fresh},
	},
	// freshSince and edits of lists.
	{
		name: "a run with freshSince starts without EdgeOne's history", file: "internal/taskstate/history_start.go",
		old:    `return !task.Spec.FreshSince.IsZero() || IsListEdit(task)`,
		new:    `return IsListEdit(task)`,
		suites: []string{refresh + "TestWhatIsFresh"},
	},
	{
		name: "an edit of a list submits the whole list", file: "internal/taskstate/history_start.go",
		old:    `return !task.Spec.FreshSince.IsZero() || IsListEdit(task)`,
		new:    `return !task.Spec.FreshSince.IsZero()`,
		suites: []string{refresh + "TestAnEditOfAListPays"},
	},
	{
		name: "a prefetch with other headers counts as fresh", file: "internal/taskstate/history_start.go",
		old:    `len(task.Spec.Headers) == 0`,
		new:    `len(task.Spec.Headers) >= 0`,
		suites: []string{fresh},
	},
	{
		name: "a prefetch before freshSince counts as fresh", file: "internal/taskstate/history_start.go",
		old:    `if !MayAdopt(task) || record.CreateTime.Before(since) {`,
		new:    `if !MayAdopt(task) {`,
		suites: []string{fresh},
	},
	{
		name: "a prefetch before the last purge counts as fresh", file: "internal/taskstate/history_start.go",
		old:    `return isPurged && !at.Before(since) && !record.CreateTime.Before(at)`,
		new:    `return isPurged && !at.Before(since)`,
		suites: []string{fresh},
	},
	{
		name: "a failed prefetch counts as fresh", file: "internal/taskstate/history_start.go",
		old:    `if record.Ended() && record.Status != teo.StatusSuccess {`,
		new:    `if record.Ended() && record.Status == "" {`,
		suites: []string{fresh},
	},
	{
		name: "a run with freshSince in the future starts", file: "internal/controller/follow/starts.go",
		old:    `if task.Spec.FreshSince.Sub(p.EdgeOne.ServerTime()) > taskstate.ClockSkew && p.EdgeOne.ServerTimeKnown() {`,
		new:    `if p.EdgeOne == nil {`,
		suites: []string{refresh + "TestANewProcessStartsNothing"},
	},
	{
		name: "a process that does not know EdgeOne's time starts a run of the future", file: "internal/controller/follow/starts.go",
		old:    `if isFuture && !p.EdgeOne.ServerTimeKnown() {`,
		new:    `if isFuture && p.EdgeOne == nil {`,
		suites: []string{refresh + "TestANewProcessStartsNothing"},
	},
	// Signals.
	{
		name: "purged targets of a suspended task are not cold", file: "internal/queue/stats.go",
		old:    `zone.Cold = zone.Cold.Merge(Backlog{p.urls, p.since})`,
		new:    `_ = Backlog{p.urls, p.since}`,
		suites: []string{refresh + "TestTheGaugesSay"},
	},
	{
		name: "jobs that purge count as jobs that prefetch", file: "internal/kube/events.go",
		old:    `jobs := int(after.Status.JobCount) - taskstate.CountPurgeJobs(after)`,
		new:    `jobs := int(after.Status.JobCount)`,
		suites: []string{refresh + "TestTheEventsOfARun"},
	},
}

func init() { mutations = append(mutations, refreshes...) }
