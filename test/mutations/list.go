package main

const (
	client     = "./internal/teo"
	line       = "./internal/taskstate ./internal/queue"
	controller = "./internal/controller/... ./internal/targetlist ./internal/kube ./internal/credentials ./internal/backoff -skip ^TestHistories$"
	histories  = "./internal/controller -run ^TestHistories$ -short"
	identity   = "./internal/sts/... ./internal/credentials"
)

// mutations are the safeguards of the promise that no URL is submitted twice and no job is
// lost. Each comes with the code that is left without the safeguard.
var mutations = []mutation{
	// Upgrades.
	{
		name: "a run has another name than in the statuses of earlier versions", file: "internal/taskstate/run.go",
		old:    `parts := []any{task.Spec.ZoneID, targets, HashSemantics(task), task.Spec.EncodeURL, task.Spec.Revision}`,
		new:    `parts := []any{task.Spec.ZoneID, targets, HashSemantics(task), task.Spec.EncodeURL, task.Spec.Revision, ""}`,
		suites: []string{line},
	},
	{
		name: "a retry that was handled is due again after an upgrade", file: "internal/taskstate/run.go",
		old:    `retry != task.Status.LastHandledRetry && IsFinished(task)`,
		new:    `IsFinished(task)`,
		suites: []string{line, controller},
	},
	{
		name: "the positions of a claim that an earlier version wrote are not read", file: "internal/taskstate/upgrade.go",
		old:    `moveField(&s.Submission.FormerTargets, &s.Submission.Positions)`,
		new:    ``,
		suites: []string{line},
	},
	{
		name: "the cache keeps jobs as an earlier version wrote them", file: "internal/kube/cache.go",
		old: `			NormalizeTask(task)
			jobs.ObserveTask(task)`,
		new:    `			jobs.ObserveTask(task)`,
		suites: []string{controller},
	},
	{
		name: "a live read returns a status as an earlier version wrote it", file: "internal/kube/status_writer.go",
		old:    `	NormalizeTask(&now)`,
		new:    ``,
		suites: []string{controller},
	},
	{
		name: "the read of a long list brings a status as an earlier version wrote it", file: "internal/targetlist/loader.go",
		old:    `	kube.NormalizeTask(&now)`,
		new:    `	_ = kube.NormalizeTask`,
		suites: []string{controller},
	},
	// Whose keys sign the calls of an account.
	{
		name: "an account that does not exist uses the operator's own keys", file: "internal/credentials/accounts.go",
		old: `	account, err := c.accountNamed(name)
	if err != nil {
		return teo.Credentials{}, err
	}`,
		new: `	account, err := c.accountNamed(name)
	if err != nil {
		return c.readCached(ctx, taskstate.AccountKey{})
	}`,
		suites: []string{identity},
	},
	{
		name: "an account whose credentials changed keeps the keys of its old role", file: "internal/credentials/accounts.go",
		old:    `if known.spec == account.Spec.Credentials {`,
		new:    `if known.provider != nil {`,
		suites: []string{identity},
	},
	{
		name: "an account that is gone has its role refreshed", file: "internal/credentials/accounts.go",
		old:    `c.roles.byName[name].provider.Stop()`,
		new:    ``,
		suites: []string{identity},
	},
	{
		name: "a refresh that ends after an account is gone counts for it", file: "internal/credentials/accounts.go",
		old:    `if r.byName[source.account] != role {`,
		new:    `if r.byName == nil {`,
		suites: []string{identity},
	},
	{
		name: "the Secret of an account is read elsewhere than in the operator's namespace", file: "internal/credentials/accounts.go",
		old:    `return taskstate.AccountKey{Namespace: c.Identity.Namespace, Secret: account.Spec.Credentials.SecretRef.Name}`,
		new:    `return taskstate.AccountKey{Namespace: "shop", Secret: account.Spec.Credentials.SecretRef.Name}`,
		suites: []string{identity},
	},
	{
		name: "the keys of the source sign the calls of an account with a role on top", file: "internal/credentials/accounts.go",
		old:    `if assume := s.spec.AssumeRole; err == nil && assume.RoleARN != "" {`,
		new:    `if assume := s.spec.AssumeRole; err == nil && assume.RoleARN == "" {`,
		suites: []string{identity},
	},
	{
		name: "accounts may use the role of the node without the flag", file: "cmd/manager/identity.go",
		old:    `if o.identity.allowCVM {`,
		new:    `if o.accounts {`,
		suites: []string{"./cmd/manager"},
	},
	{
		name: "keys of a role are used after they have expired", file: "internal/sts/provider.go",
		old:    `func (p *Provider) areValid(now time.Time) bool { return now.Before(p.keys.Expires) }`,
		new:    `func (p *Provider) areValid(now time.Time) bool { return p.keys.SecretID != "" }`,
		suites: []string{identity},
	},
	{
		name: "a refused key has the keys of other roles refreshed", file: "internal/sts/provider.go",
		old:    `if p.keys.SecretID != secretID || !p.forcedAt.IsZero() && now.Sub(p.forcedAt) < forceInterval {`,
		new:    `if !p.forcedAt.IsZero() && now.Sub(p.forcedAt) < forceInterval {`,
		suites: []string{identity},
	},
	{
		name: "a metadata service that repeats its keys is asked all the time", file: "internal/sts/provider.go",
		old:    `return max(min(lifetime*8/10, lifetime-refreshBefore), lifetime/2, failureMemory)`,
		new:    `return max(min(lifetime*8/10, lifetime-refreshBefore), lifetime/2)`,
		suites: []string{identity},
	},
	{
		name: "the name of a CVM role may be another path", file: "internal/sts/cvm.go",
		old:    `if len(role) > 128 || !cvmRoleName.MatchString(role) {`,
		new:    `if len(role) > 128 {`,
		suites: []string{identity},
	},
	{
		name: "keys are read from where the metadata service redirects to", file: "internal/sts/cvm.go",
		old: `		CheckRedirect: func(*http.Request, []*http.Request) error {
			return http.ErrUseLastResponse
		},`,
		new:    ``,
		suites: []string{identity},
	},
	// The meaning of responses.
	{
		name: "a request is sent however old its signature is", file: "internal/teo/create.go",
		old:    `if c.ServerTime().After(c.SendBefore(signedAt)) {`,
		new:    `if signedAt.IsZero() {`,
		suites: []string{client},
	},
	{
		name: "redirects are followed", file: "internal/teo/client.go",
		old:    `CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },`,
		new:    ``,
		suites: []string{client},
	},
	{
		name: "a transport may send a body again", file: "internal/teo/client.go",
		old: `	req.ContentLength = int64(len(content))
`,
		new: `	req.ContentLength = int64(len(content))
	again, _ := http.NewRequest(http.MethodPost, c.endpoint.String(), bytes.NewReader(content))
	req.GetBody = again.GetBody
`,
		suites: []string{client},
	},
	{
		name: "a request that went out whole counts as not sent", file: "internal/teo/body.go",
		old: `		return sentAll
	case b.begun:`,
		new: `		return unsent
	case b.begun:`,
		suites: []string{client},
	},
	{
		name: "a call that counts as not sent can still go out", file: "internal/teo/body.go",
		old:    `if b.sealed {`,
		new:    `if b.sealed && len(b.rest) == 0 {`,
		suites: []string{client},
	},
	{
		name: "a call that was certainly not sent counts as perhaps executed", file: "internal/teo/errors.go",
		old:    `Kind: Unavailable, Message: "not sent: "`,
		new:    `Kind: Ambiguous, Message: "not sent: "`,
		suites: []string{client},
	},
	{
		name: "a call that was cut off looks like one that never left", file: "internal/teo/body.go",
		old: `	b.begun = true
`,
		new:    ``,
		suites: []string{client},
	},
	{
		name: "a call that was cut off counts as perhaps executed", file: "internal/teo/errors.go",
		old:    `Kind: Unavailable, Message: "not sent completely: "`,
		new:    `Kind: Ambiguous, Message: "not sent completely: "`,
		suites: []string{client},
	},
	{
		name: "a plan without a quota counts as one whose quota is used up today", file: "internal/teo/quota.go",
		old:    `return q.Batch <= 0 || q.Daily <= 0`,
		new:    `return q.Batch <= 0`,
		suites: []string{client},
	},
	{
		name: "credentials of any length are sent", file: "internal/teo/credentials.go",
		old:    `if len(c.SecretID) > maxKey || len(c.SecretKey) > maxKey || len(c.Token) > maxToken {`,
		new:    `if len(c.SecretID) < 0 {`,
		suites: []string{client},
	},
	{
		name: "a lost answer counts as not executed", file: "internal/teo/errors.go",
		old:    `Kind: classify(action, ""), Message: "no answer: "`,
		new:    `Kind: Unavailable, Message: "no answer: "`,
		suites: []string{client},
	},
	{
		name: "an InternalError counts as not executed", file: "internal/teo/error_codes.go",
		old:    `{code: "InternalError.*", kind: Ambiguous},`,
		new:    `{code: "InternalError.*", kind: Unavailable},`,
		suites: []string{client},
	},
	{
		name: "a code that nobody knows counts as a refusal", file: "internal/teo/error_codes.go",
		old:    `return Ambiguous, false`,
		new:    `return Rejected, false`,
		suites: []string{client},
	},
	{
		name: "the lost answer to a purge counts as not executed", file: "internal/teo/actions.go",
		old:    `action == ActionCreatePrefetchTask || action == ActionCreatePurgeTask`,
		new:    `action == ActionCreatePrefetchTask`,
		suites: []string{client},
	},
	{
		name: "a run that keeps prefetches purges their prefix again", file: "internal/taskstate/history_start.go",
		old:    `	return keepPurges(task, kept, purged)`,
		new:    `	return kept`,
		suites: []string{line},
	},
	{
		name: "a purge by somebody else before freshSince counts", file: "internal/taskstate/history_start.go",
		old:    `	return isPurged && !at.Before(since) && !record.CreateTime.Before(at)`,
		new:    `	return isPurged && !record.CreateTime.Before(at)`,
		suites: []string{line},
	},
	{
		name: "a prefetch from before the purge counts as fresh", file: "internal/taskstate/history_start.go",
		old:    `	return isPurged && !at.Before(since) && !record.CreateTime.Before(at)`,
		new:    `	return isPurged && !at.Before(since)`,
		suites: []string{line},
	},
	{
		name: "copies that were invalidated count as deleted", file: "internal/taskstate/history_start.go",
		old:    `!isPurged || !record.Ended() || record.Method == teo.MethodInvalidate && task.Spec.Purge.Method != v1alpha1.PurgeInvalidate`,
		new:    `!isPurged || !record.Ended()`,
		suites: []string{line},
	},
	{
		name: "a whole zone is purged", file: "internal/teo/purge.go",
		old:    `if !isPurgeType(r.Type) {`,
		new:    `if r.Type == "" {`,
		suites: []string{client},
	},
	{
		name: "tags are compared as URLs", file: "internal/teo/purge.go",
		old: `	case TypePurgeCacheTag:
		return text
`,
		new:    ``,
		suites: []string{client},
	},
	{
		name: "the history of prefetches stands for that of purges", file: "internal/teo/history.go",
		old:    `if h == PurgeHistory {`,
		new:    `if h < PrefetchHistory {`,
		suites: []string{client},
	},
	{
		name: "a plan that lacks a type of purge counts as a bad target", file: "internal/teo/error_codes.go",
		old:    `{code: codePlanLacking, kind: Denied, zone: true},`,
		new:    `{code: codePlanLacking, kind: Rejected},`,
		suites: []string{client},
	},
	{
		name: "a plan that lacks a type of purge holds all calls in the zone", file: "internal/backoff/backoff.go",
		old:    `return Plan{ScopeLane, wait, why}`,
		new:    `return Plan{ScopeBlamed, wait, why}`,
		suites: []string{controller},
	},
	{
		name: "a gateway's answer with another status than 200 is believed", file: "internal/teo/client.go",
		old:    `(answer.requestID == "" || resp.StatusCode != http.StatusOK)`,
		new:    `answer.requestID == ""`,
		suites: []string{client},
	},
	{
		name: "a refusal that names a job is believed", file: "internal/teo/answer.go",
		old:    `(answer.failure.code == "" || answer.jobID != "")`,
		new:    `answer.failure.code == ""`,
		suites: []string{client},
	},
	{
		name: "an answer without a JobId is a success", file: "internal/teo/create.go",
		old:    `return errors.New("neither a JobId nor every target in FailedList")`,
		new:    `return errors.Join()`,
		suites: []string{client},
	},
	{
		name: "EdgeOne's clock is learned from gateways too", file: "internal/teo/client.go",
		old: `	if answer.requestID != "" {
		c.clock.learn`,
		new: `	if resp != nil {
		c.clock.learn`,
		suites: []string{client},
	},
	{
		name: "EdgeOne's clock goes by the answer that was read last", file: "internal/teo/clock.go",
		old:    `if received.After(c.received) {`,
		new:    `if !received.IsZero() {`,
		suites: []string{client},
	},

	// Listings.
	{
		name: "a listing ends with its first page", file: "internal/teo/reading.go",
		old:    `return n == 0 || n < r.full && len(r.records) >= r.total`,
		new:    `return r.pages > 0`,
		suites: []string{client},
	},
	{
		name: "a listing may grow while it is read", file: "internal/teo/reading.go",
		old:    `if page.TotalCount != r.total || `,
		new:    `if r.total = page.TotalCount; `,
		suites: []string{client},
	},
	{
		name: "a listing ends where its count says", file: "internal/teo/reading.go",
		old:    `n < r.full && len(r.records) >= r.total`,
		new:    `len(r.records) >= r.total`,
		suites: []string{client},
	},
	{
		name: "a listing that changes is taken for whole when it is read again", file: "internal/teo/listing.go",
		old:    `if n > 0 && sum == before {`,
		new:    `if n > 0 || sum == before {`,
		suites: []string{client},
	},
	{
		name: "a listing with a URL on two pages is never whole", file: "internal/teo/listing.go",
		old:    `if n > 0 && sum == before {`,
		new:    `if n > readings && sum == before {`,
		suites: []string{client},
	},
	{
		name: "a failure of one spelling of a URL counts more than the success of another", file: "internal/teo/history.go",
		old: `	case r.Status == StatusSuccess:
		return 2`,
		new: `	case r.Status == StatusSuccess:
		return 0`,
		suites: []string{client},
	},
	{
		name: "answers of any number of records are built", file: "internal/teo/answer.go",
		old:    `if n == limit {`,
		new:    `if n == limit && limit < 0 {`,
		suites: []string{client},
	},
	{
		name: "answers with words of any length are built", file: "internal/teo/answer.go",
		old:    `if b.token > maxString || b.depth > maxDepth {`,
		new:    `if b.depth > maxDepth {`,
		suites: []string{client},
	},
	{
		name: "EdgeOne's words are told as they are", file: "internal/teo/redact.go",
		old: `		text = strings.ReplaceAll(text, secret, redacted)
`,
		new: `		_ = secret
`,
		suites: []string{client},
	},
	{
		name: "the errors of libraries are told as they are", file: "internal/teo/redact.go",
		old: `	text := r.words(cause.Error(), maxWords)
`,
		new: `	text := cause.Error()
`,
		suites: []string{client},
	},
	{
		name: "a listing's records may move while it is read", file: "internal/teo/reading.go",
		old:    `if seen, ok := r.pageOf[key]; ok && seen != r.pages {`,
		new:    `if seen, ok := r.pageOf[key]; ok && seen < 0 {`,
		suites: []string{client},
	},
	{
		name: "a listing without a count is empty", file: "internal/teo/listing.go",
		old: `	if a.total == nil || *a.total < 0 {
		return errors.New("no TotalCount")
	}
`,
		new: `	if a.total == nil {
		a.total = new(int)
	}
`,
		suites: []string{client},
	},

	{
		name: "of two records of a URL the last one counts", file: "internal/taskstate/claim_match.go",
		old: `			task = task.Merge(known)
`,
		new: `			_ = known
`,
		suites: []string{controller},
	},

	// The rate limit.
	{
		name: "what waits for a slot goes in the order it was planned", file: "internal/controller/submit/attempt.go",
		old:    `teo.Turn{Line: a.account.account.String(), Number: a.call.Sequence}`,
		new:    `teo.Turn{Line: a.account.account.String()}`,
		suites: []string{controller},
	},
	{
		name: "what is claimed is sent though its account is held", file: "internal/controller/submit/attempt.go",
		old:    `a.account.queue.IsBackedOff(a.call, time.Now()) || !a.isAllowed()`,
		new:    `!a.isAllowed()`,
		suites: []string{controller},
	},
	{
		name: "only a free slot lets another namespace's call be claimed", file: "internal/controller/submit/account_queue.go",
		old:    `if turn < other {`,
		new:    `if turn < other && turn < 0 {`,
		suites: []string{controller},
	},
	{
		name: "a slot is free at the answer, not a second after it", file: "internal/teo/slot.go",
		old:    `free := at.Add(window)`,
		new:    `free := at`,
		suites: []string{client},
	},
	{
		name: "a proxy's interim answer counts as EdgeOne's", file: "internal/teo/slot.go",
		old:    `error { tell(time.Time{}); return nil }`,
		new:    `error { return nil }`,
		suites: []string{client},
	},
	{
		name: "a slot does not know when the answer to its call began to come", file: "internal/controller/submit/attempt.go",
		old:    `a.EdgeOne.CreateTask(slots.withSlots(ctx), a.creds, a.signedAt`,
		new:    `a.EdgeOne.CreateTask(ctx, a.creds, a.signedAt`,
		suites: []string{controller},
	},
	{
		name: "a slot does not know when the answer to its look-up began to come", file: "internal/teo/client.go",
		old:    `c.call(slot.For(ctx), request`,
		new:    `c.call(ctx, request`,
		suites: []string{client},
	},
	{
		name: "throttled answers do not slow down", file: "internal/teo/slot.go",
		old:    `if throttled {`,
		new:    `if throttled && l.limit == 0 {`,
		suites: []string{client},
	},
	{
		name: "there is one slot too many", file: "internal/teo/limiter.go",
		old:    `n = l.inUse(now) - l.out - len(later)`,
		new:    `n = l.inUse(now) + 1 - l.out - len(later)`,
		suites: []string{client},
	},
	{
		name: "a new process starts with all slots free", file: "internal/teo/limiter.go",
		old:    `free := since.Add(window)`,
		new:    `free := since`,
		suites: []string{client},
	},
	{
		name: "who writes another's SecretId into a Secret shares its limiter", file: "internal/teo/limiters.go",
		old:    `sha256.Sum256(append(text, creds.SecretKey...))`,
		new:    `sha256.Sum256(text)`,
		suites: []string{client},
	},
	{
		name: "accepted keys of one SecretId have a limit each", file: "internal/teo/limiters.go",
		old: `		s.pairs[p] = known
	}
}`,
		new: `	}
}`,
		suites: []string{client},
	},
	{
		name: "what a gateway says proves keys", file: "internal/teo/limiters.go",
		old:    `return kind == Exhausted || kind == Rejected || kind == Denied && zone`,
		new:    `return zone || kind != ""`,
		suites: []string{client},
	},
	{
		name: "a limiter that merges forgets the calls under way", file: "internal/teo/limiter.go",
		old: `	into.out += l.out
`,
		new: `	into.out -= l.out
`,
		suites: []string{client},
	},
	{
		name: "a limiter is forgotten while calls are under way", file: "internal/teo/limiter.go",
		old:    `return n == l.limit && len(l.lines) == 0`,
		new:    `return n >= 0`,
		suites: []string{client},
	},
	{
		name: "a line is served until it is empty", file: "internal/teo/limiter.go",
		old:    `if served || len(q.waiting) == 0 {`,
		new:    `if len(q.waiting) == 0 {`,
		suites: []string{client},
	},
	{
		name: "who plans by the limiter is not told of others' answers", file: "internal/controller/submit/slots.go",
		old:    `limiter.Free(account, lookahead, changed)`,
		new:    `limiter.Free(account, lookahead, func() { _ = changed })`,
		suites: []string{controller},
	},

	// What an account allows.
	{
		name: "a task is claimed although its account no longer allows it", file: "internal/controller/submit/claim.go",
		old:    `if a.Accounts.Admit(part.Task).Reason != "" {`,
		new:    `if a.Accounts.Admit(part.Task).Reason == "never" {`,
		suites: []string{"./internal/controller/submit"},
	},
	{
		name: "a call is sent although its account no longer allows it", file: "internal/controller/submit/attempt.go",
		old:    `a.account.queue.IsBackedOff(a.call, time.Now()) || !a.isAllowed()`,
		new:    `a.account.queue.IsBackedOff(a.call, time.Now())`,
		suites: []string{"./internal/controller/submit"},
	},
	{
		name: "a zone's namespaces are not asked", file: "internal/account/rules.go",
		old:    `zone.namespaces != nil && !zone.namespaces.contains(task.Namespace, of, known)`,
		new:    `zone.namespaces != nil && zone.namespaces == nil`,
		suites: []string{"./internal/account"},
	},
	{
		name: "an account allows all types of purges", file: "internal/account/rules.go",
		old:    `case !slices.Contains(r.purges, purge.Type):`,
		new:    `case len(r.purges) == len(purge.Type):`,
		suites: []string{"./internal/account"},
	},
	{
		name: "the hosts of a purge are not checked", file: "internal/account/rules.go",
		old:    `for _, purged := range purge.Targets {`,
		new:    `for _, purged := range purge.Targets[:0] {`,
		suites: []string{"./internal/account"},
	},
	{
		name: "a cache tag is allowed where hosts are listed", file: "internal/account/rules.go",
		old:    `case purge.Type == v1alpha1.PurgeCacheTag:`,
		new:    `case purge.Type == v1alpha1.PurgeCacheTag && zone.hosts == nil:`,
		suites: []string{"./internal/account"},
	},
	{
		name: "a wildcard stands for its own name too", file: "internal/account/hosts.go",
		old:    `strings.HasSuffix(host, suffix)`,
		new:    `strings.HasSuffix("."+host, suffix)`,
		suites: []string{"./internal/account"},
	},
	{
		name: "a host with characters of no host name is compared as it is", file: "internal/account/hosts.go",
		old:    `case !isHostName(host):`,
		new:    `case host == "":`,
		suites: []string{"./internal/account"},
	},
	{
		name: "planned calls do not count against a budget", file: "internal/targetlist/resolver.go",
		old:    `l.size -= w.list.size`,
		new:    `l.size -= 0 * w.list.size`,
		suites: []string{line},
	},
	{
		name: "a denied task stays in its suspect groups", file: "internal/queue/denial.go",
		old:    "q.clearSuspect(it)\n\tq.removeFromLine(it)",
		new:    "q.removeFromLine(it)",
		suites: []string{line},
	},
	{
		name: "the jobs of a former run no longer count against a budget", file: "internal/account/usage.go",
		old:    `if before.Status.Run == after.Status.Run {`,
		new:    `if after != nil {`,
		suites: []string{"./internal/account"},
	},
	{
		name: "a status of an account and its tasks both count after a restart", file: "internal/account/usage.go",
		old:    `use.total += max(0, said.total-counted.total)`,
		new:    `use.total += max(0, said.total-0*counted.total)`,
		suites: []string{"./internal/account"},
	},
	{
		name: "each task of a call counts a URL that all of them have", file: "internal/controller/submit/account.go",
		old:    `return shares.RecordShares(record, jobID)`,
		new:    `return record`,
		suites: []string{"./internal/controller/submit"},
	},
	{
		name: "a task that names no account keeps the account named default", file: "internal/taskstate/account_key.go",
		old:    `case implied && !exists:`,
		new:    `case implied && exists && !exists:`,
		suites: []string{"./internal/controller/submit"},
	},

	// The queue.
	{
		name: "what a job covers counts as not handed over", file: "internal/taskstate/run.go",
		old:    `range CoveredPositions(job.Positions, n).Minus(RetriedPositions(job, n)) {`,
		new:    `range CoveredPositions(job.Positions, n).Minus(AllPositions(n)) {`,
		suites: []string{line},
	},
	{
		name: "what EdgeOne refused is submitted again", file: "internal/taskstate/run.go",
		old:    `for _, i := range refused {`,
		new:    `for _, i := range refused[:0] {`,
		suites: []string{line},
	},
	{
		name: "a suspended task is submitted", file: "internal/taskstate/run.go",
		old:    `if IsSlimmed(task) || !task.DeletionTimestamp.IsZero() || IsSuspended(task) {`,
		new:    `if IsSlimmed(task) || !task.DeletionTimestamp.IsZero() {`,
		suites: []string{line},
	},
	{
		name: "what happened to a task while its call was under way is forgotten", file: "internal/controller/follow/lost_calls.go",
		old:    `task := tasks[i]`,
		new:    `_, task := tasks[i], part.Task`,
		suites: []string{line},
	},
	{
		name: "an event ends a hold of the account", file: "internal/queue/plan.go",
		old:    `if q.accountBackOff.isActive(now) {`,
		new:    `if q.accountBackOff.isActive(now) && q.accountBackOff.probe && q.probeInFlight {`,
		suites: []string{line},
	},
	{
		name: "a claim that only a person can settle holds its URLs for ever", file: "internal/queue/reservations.go",
		old:    `c != nil && !now.Before(c.until) {`,
		new:    `c != nil && c.until.IsZero() {`,
		suites: []string{line},
	},
	{
		name: "a task goes out again while it is in a call", file: "internal/queue/queue.go",
		old: `		if it.inFlight {
			it.task, it.deleted = task, false
`,
		new: `		if it.inFlight && it.deleted {
			it.task, it.deleted = task, false
`,
		suites: []string{line},
	},
	{
		name: "an older version of a task replaces a newer one", file: "internal/kube/task_store.go",
		old:    `order > 0 ||`,
		new:    `order != 0 ||`,
		suites: []string{controller},
	},
	{
		name: "a task that is gone comes back with a late write", file: "internal/kube/task_store.go",
		old:    `return known != nil && known.UID == task.UID && isNewerVersion(task, known)`,
		new:    `return known == nil || isNewerVersion(task, known)`,
		suites: []string{controller},
	},
	{
		name: "that a task is gone removes the one that was made since", file: "internal/kube/task_store.go",
		old:    `return known != nil && known.UID == task.UID })`,
		new:    `return known != nil })`,
		suites: []string{controller},
	},
	{
		name: "a task of another Secret goes back into the line after a call", file: "internal/controller/submit/account_queue.go",
		old:    `task != nil && taskstate.AccountKeyOf(task) == l.account {`,
		new:    `task != nil {`,
		suites: []string{controller},
	},
	{
		name: "what becomes due before the controller has its queue is forgotten", file: "internal/kube/delayed_queue.go",
		old:    `for k, at := range w.early {`,
		new:    `for k, at := range map[key]time.Time{} {`,
		suites: []string{controller},
	},
	{
		name: "the second witness is looked for next to the first", file: "internal/queue/rejections.go",
		old:    `call.lane.reverseSuspects(part.item)`,
		new:    `_ = call.lane.reverseSuspects`,
		suites: []string{line},
	},
	{
		name: "what a task has beyond a call that was cut off waits for it", file: "internal/queue/bisect.go",
		old:    `if rest := q.openPositions(part.Task).Minus(part.Positions); len(rest) > 0 {`,
		new:    `if rest := q.openPositions(part.Task).Minus(part.Positions); len(rest) < 0 {`,
		suites: []string{line},
	},
	{
		name: "edits of a task keep its list in memory", file: "internal/targetlist/loader.go",
		old:    `case before != nil && after != nil && hasProgress(before, after):`,
		new:    `case before != nil && after != nil:`,
		suites: []string{controller},
	},
	{
		name: "a look for a lost call keeps all that others did", file: "internal/controller/follow/claim_history.go",
		old:    `return l.wanted == nil || l.wanted[identity]`,
		new:    `return true`,
		suites: []string{controller},
	},
	{
		name: "a lost call is halved in a lane that was forgotten", file: "internal/queue/lost_calls.go",
		old:    `part.item.lane = q.laneForKey(part.item.lane.BatchKey)`,
		new:    `_ = q.laneForKey(part.item.lane.BatchKey)`,
		suites: []string{line},
	},
	{
		name: "what tasks are told does not give way to new ones", file: "internal/controller/submit/waiting_status.go",
		old:    `s.Writer.WithLowPriority().WriteStatus(s.Critical, note.Task, taskstate.ReportWaiting(note, time.Now()))`,
		new:    `s.Writer.WriteStatus(s.Critical, note.Task, taskstate.ReportWaiting(note, time.Now()))`,
		suites: []string{controller},
	},
	{
		name: "halves have different spellings of a URL", file: "internal/queue/bisect.go",
		old:    `if order[u] < urls/2 {`,
		new:    `if order[u] < urls && i < part.Positions[len(part.Positions)/2] {`,
		suites: []string{line},
	},
	{
		name: "what is tried by halves does not wait for a claim that may have its URLs", file: "internal/queue/bisect.go",
		old:    `g = q.setAsideBlocked(l, slices.DeleteFunc(g, func(s suspect) bool { return !s.isCurrent() }))`,
		new:    `g = slices.DeleteFunc(g, func(s suspect) bool { return !s.isCurrent() })`,
		suites: []string{line},
	},
	{
		name: "a task does not wait for a claim that may have its URLs", file: "internal/queue/refused_hosts.go",
		old: `if len(p.refusedHosts) == 0 {
		return open`,
		new: `if len(p.refusedHosts) >= 0 {
		return open`,
		suites: []string{line},
	},
	{
		name: "claims that another process made hold no URLs", file: "internal/queue/reservations.go",
		old:    `q.reserve(held, targets, now)`,
		new:    `q.reserve(held, nil, now)`,
		suites: []string{line},
	},
	{
		name: "a deleted task's call holds its URLs no longer", file: "internal/queue/queue.go",
		old: `	q.abandonClaim(key, now)
	q.dropPromise(key, now)
`,
		new: `	if c := q.detachClaim(key, now); c != nil {
		q.ReleaseURLs(c.id, now)
	}
	q.dropPromise(key, now)
`,
		suites: []string{line},
	},
	{
		name: "a new run does not wait for the claim of one that fetched in another way", file: "internal/taskstate/run.go",
		old:    `return !HasClaim(task) || isNew && !HasPurge(task) && claim.Semantics == HashSemantics(task)`,
		new:    `return isNew`,
		suites: []string{line},
	},
	{
		name: "a claimed task is submitted", file: "internal/taskstate/run.go",
		old:    `if claim := task.Status.Submission; claim != nil {`,
		new:    `if claim := task.Status.Submission; claim != nil && IsNewRun(task) {`,
		suites: []string{line},
	},
	{
		name: "nonsense in a status counts as not handed over", file: "internal/taskstate/positions.go",
		old:    `return AllPositions(n)`,
		new:    `return p`,
		suites: []string{line},
	},
	{
		name: "a URL of two tasks is sent twice in a call", file: "internal/queue/call.go",
		old:    `if !urls.contains(u) {`,
		new:    `if len(u) > 0 {`,
		suites: []string{line},
	},
	{
		name: "a change of the spec that sends nothing else starts a new run", file: "internal/taskstate/run.go",
		old:    `parts := []any{task.Spec.ZoneID, targets, HashSemantics(task), task.Spec.EncodeURL, task.Spec.Revision}`,
		new:    `parts := []any{task.Spec.ZoneID, targets, HashSemantics(task), task.Spec.EncodeURL, task.Spec.Revision, task.Generation}`,
		suites: []string{line},
	},

	// Bisection.
	{
		name: "what shared a call that was not executed shares the next one", file: "internal/queue/lost_calls.go",
		old:    `groups := q.splitParts(parts)`,
		new:    `groups := []suspectGroup{markSuspects(parts)}`,
		suites: []string{line, controller},
	},
	{
		name: "who waited for a lost call makes a call of its own", file: "internal/queue/lost_calls.go",
		old:    `q.joinWaiting(lost, l, groups, now)`,
		new:    `q.placeWaiting(lost, now)`,
		suites: []string{line},
	},
	{
		name: "a lost call holds the other URLs of those who wait for it", file: "internal/queue/reservations.go",
		old:    `by == nil || len(free) > 0 && !by.inFlight`,
		new:    `by == nil`,
		suites: []string{line},
	},
	{
		name: "the message of a waiting task names a task of another namespace", file: "internal/queue/reservations.go",
		old:    `key.Namespace == it.key.Namespace`,
		new:    `key.Name != ""`,
		suites: []string{line},
	},
	{
		name: "targets of a task wait for one of it that EdgeOne cannot take", file: "internal/queue/lost_calls.go",
		old: `	q.queueSuspectsLast(l, others...)
`,
		new:    ``,
		suites: []string{controller},
	},
	{
		name: "a namespace whose calls get lost shares the next ones with others", file: "internal/queue/lost_calls.go",
		old: `	q.separateTenants(call, now)
`,
		new:    ``,
		suites: []string{line},
	},
	{
		name: "one namespace's failures hold a mode for all", file: "internal/queue/attribution.go",
		old: `	return !slices.ContainsFunc(b.namespaces, func(ns string) bool { return slices.Contains(a.namespaces, ns) })
`,
		new: `	return len(a.namespaces) > 0
`,
		suites: []string{line},
	},
	{
		name: "the quotas of a namespace's zones are read before another's", file: "internal/queue/quota_reads.go",
		old:    `for len(r.underWay) < maxQuotaReads {`,
		new:    `for len(r.underWay) < 1<<30 {`,
		suites: []string{line},
	},
	{
		name: "a key that may not work is tried with all tasks", file: "internal/queue/queue.go",
		old:    `accountBackOff:    backOff{probe: true},`,
		new:    `accountBackOff:    backOff{},`,
		suites: []string{line},
	},
	{
		name: "a refused header holds the mode", file: "internal/queue/batch_key.go",
		old:    `return l.headers == "" && !l.MediaSegments`,
		new:    `return l.ZoneID != ""`,
		suites: []string{line},
	},
	{
		name: "a namespace may have any number of lanes refused", file: "internal/queue/attribution.go",
		old:    `.failures[way].calls < deniedLanes:`,
		new:    `.failures[way].calls < 1<<30:`,
		suites: []string{line},
	},
	{
		name: "one URL that is refused in general words fails its task", file: "internal/queue/rejections.go",
		old: `case v.way != way:`,
		new: `case v.way == "":
			v.way, v.url, v.refusal = way, url, message
		case v.way != way:`,
		suites: []string{line},
	},
	{
		name: "an odd spelling of a host has the host refused", file: "internal/queue/refused_hosts.go",
		old:    `c == '-' || c == '.'; !ok {`,
		new:    `c == '-' || c == '.'; !ok && c > 0x7f {`,
		suites: []string{line},
	},
	{
		name: "a zone and zone * do not wait for each other's lost calls", file: "internal/queue/batch_key.go",
		old:    `return l.ZoneID == other.ZoneID || l.ZoneID == "*" || other.ZoneID == "*"`,
		new:    `return l.ZoneID == other.ZoneID`,
		suites: []string{line},
	},
	{
		name: "a call that the path cuts off is sent again as it is", file: "internal/controller/submit/backoff.go",
		old:    `case errors.Is(err, teo.ErrCutOff):`,
		new:    `case errors.Is(err, teo.ErrCutOff) && call == nil:`,
		suites: []string{controller},
	},
	{
		name: "EdgeOne's words about a call of unknown outcome are not told", file: "internal/controller/submit/outcome.go",
		old:    `if teo.Code(err) != "" {`,
		new:    `if teo.Code(err) == "none" {`,
		suites: []string{controller},
	},
	{
		name: "a task is stalled for what shared its calls", file: "internal/taskstate/transitions.go",
		old:    `if len(jobs) == 0 && single && HasRepeatedLosses(task)`,
		new:    `if len(jobs) == 0 && (single || task != nil) && HasRepeatedLosses(task)`,
		suites: []string{controller},
	},

	// Claim, call and record.
	{
		name: "status writes are not locked", file: "internal/kube/status_writer.go",
		old: `	if err := s.Status().Update(ctx, written); err != nil {
`,
		new: `	if now, err := s.readTask(ctx, task); err == nil && now != nil {
		written.ResourceVersion = now.ResourceVersion
	}
	if err := s.Status().Update(ctx, written); err != nil {
`,
		suites: []string{controller, histories},
	},
	{
		name: "a status write sends the whole task", file: "internal/kube/status_writer.go",
		old:    `ObjectMeta: metav1.ObjectMeta{Namespace: task.Namespace, Name: task.Name, UID: task.UID, ResourceVersion: task.ResourceVersion},`,
		new:    `ObjectMeta: metav1.ObjectMeta(changed.ObjectMeta), Spec: changed.Spec,`,
		suites: []string{controller},
	},
	{
		name: "a claim that lost a conflict is made on what is there now", file: "internal/kube/status_writer.go",
		old: `	claimed, err := s.writeWholeStatus(ctx, task, c)
`,
		new: `	claimed, err := s.writeWholeStatus(ctx, task, c)
	if now, _ := s.readTask(ctx, task); err != nil && now != nil {
		claimed, err = s.writeWholeStatus(ctx, now, c)
	}
`,
		suites: []string{controller, histories},
	},
	{
		name: "an answer is recorded on a task that no longer carries the claim", file: "internal/kube/status_writer.go",
		old:    `now == nil || !IsClaimedBy(now, claimID) {`,
		new:    `now == nil || now.Status.Submission == nil {`,
		suites: []string{controller, histories},
	},
	{
		name: "the answer of a call is dropped after some failed writes", file: "internal/kube/status_writer.go",
		old:    `ended := backoff.DelayFunc().Until(ctx, true, true, func(ctx context.Context) (bool, error) {`,
		new:    `ended := wait.ExponentialBackoffWithContext(ctx, backoff, func(ctx context.Context) (bool, error) {`,
		suites: []string{controller, histories},
	},
	{
		name: "a claim whose write was not acknowledged stays on the task", file: "internal/kube/status_writer.go",
		old:    `if now != nil && IsClaimedBy(now, submission.ClaimID) {`,
		new:    `if now != nil && now == task {`,
		suites: []string{controller, histories},
	},
	{
		name: "a task that was made again under its name is taken for the old one", file: "internal/kube/status_writer.go",
		old:    `err == nil && now.UID != task.UID {`,
		new:    `err == nil && now.UID == "" {`,
		suites: []string{controller, histories},
	},
	{
		name: "a task whose claim was not acknowledged is sent", file: "internal/controller/submit/claim.go",
		old: `if !part.isClaimed {
			continue`,
		new: `if !part.isClaimed && part.Task == nil {
			continue`,
		suites: []string{controller, histories},
	},
	{
		name: "a write is known only when an event of it comes", file: "internal/kube/status_writer.go",
		old: `	s.versions.LearnVersion(written)
`,
		new:    ``,
		suites: []string{controller},
	},
	{
		name: "the cache slims a finished task whose spec asks for another run", file: "internal/kube/finished_task.go",
		old:    `task.Status.Submission != nil || taskstate.IsNewRun(task) || `,
		new:    `task.Status.Submission != nil || taskstate.IsNewRun(task) && task.Name == "" || `,
		suites: []string{controller, histories},
	},
	{
		name: "the cache slims a finished task that asks for a retry", file: "internal/kube/finished_task.go",
		old:    `taskstate.IsNewRun(task) || taskstate.IsRetryDue(task)`,
		new:    `taskstate.IsNewRun(task)`,
		suites: []string{controller},
	},
	{
		name: "what Argo CD, Flux or Helm would make again is deleted", file: "internal/taskstate/expiry.go",
		old:    ` || RecreatedBy(task) != "" {`,
		new:    ` {`,
		suites: []string{controller},
	},
	{
		name: "a task that has changed since it was over is deleted", file: "internal/controller/ttl/ttl.go",
		old:    `client.Preconditions{UID: &e.uid, ResourceVersion: ptr.To(e.resourceVersion)},`,
		new:    `client.Preconditions{UID: ptr.To(e.uid)},`,
		suites: []string{controller},
	},
	// What the API server rejects.
	{
		name: "a status may be as large as it likes", file: "internal/kube/status_writer.go",
		old:    `taskstate.TrimStatus(&changed.Status, room)`,
		new:    `_ = room`,
		suites: []string{controller},
	},
	{
		name: "a status that etcd does not take is written again as it is", file: "internal/kube/status_writer.go",
		old:    `if !isTooLarge(err) || len(changed.Status.FailedTargets) == 0 {`,
		new:    `if err == nil || !isTooLarge(err) || room >= 0 {`,
		suites: []string{controller},
	},
	{
		name: "a status that is refused is tried at each look", file: "internal/kube/status_writer.go",
		old:    `if known.err != nil && known.version == task.ResourceVersion {`,
		new:    `if known.err != nil && known.version == "" {`,
		suites: []string{controller},
	},
	{
		name: "a record that is not taken keeps its lane", file: "internal/controller/submit/late_outcome.go",
		old:    `after, err := s.Writer.SettleClaim(ctx, before, claimID, c, kube.UnlimitedTries)`,
		new:    `after, err := s.Writer.SettleClaim(ctx, before, claimID, c, unlimitedTries)`,
		suites: []string{controller},
	},
	{
		name: "an answer that a task does not take is forgotten", file: "internal/controller/submit/late_outcome.go",
		old:    `s.unrecorded.addOutcome(after, unrecordedOutcome{`,
		new:    `_ = (unrecordedOutcome{`,
		suites: []string{controller},
	},
	{
		name: "a claim that is not taken is tried again at once", file: "internal/queue/postpone.go",
		old:    `func (it *queueItem) isPostponed(now time.Time) bool { return now.Before(it.postponed.until) }`,
		new:    `func (it *queueItem) isPostponed(time.Time) bool { return false }`,
		suites: []string{controller},
	},
	{
		name: "a task starts as many runs as its revision has values", file: "internal/controller/submit/claim.go",
		old:    `if isNewRun && a.Runs.WaitTime(part.Task) > 0 {`,
		new:    `if isNewRun && part.Task == nil {`,
		suites: []string{controller},
	},
	{
		name: "each stalled task has an Event", file: "internal/kube/events.go",
		old:    `sent = r.limits.allowEvent(task, reason); sent {`,
		new:    `sent = r.limits.allowEvent(task, reason) || task != nil; sent {`,
		suites: []string{controller},
	},
	{
		name: "what a retry clears counts for its room", file: "internal/taskstate/retry.go",
		old:    `JSONSize(opened) > MaxStatus {`,
		new:    `JSONSize(s) > MaxStatus {`,
		suites: []string{controller},
	},
	// Retries.
	{
		name: "a retry is not noted with what it opens", file: "internal/taskstate/retry.go",
		old:    "\ts.LastHandledRetry = RequestedRetry(task)",
		new:    "\t_ = RequestedRetry(task)",
		suites: []string{controller},
	},
	{
		name: "a retry asked for is done although the status notes it", file: "internal/taskstate/run.go",
		old:    `retry != task.Status.LastHandledRetry && `,
		new:    ``,
		suites: []string{controller},
	},
	{
		name: "a new run leaves a retry to do that was asked for before", file: "internal/taskstate/transitions.go",
		old:    `, LastHandledRetry: RequestedRetry(task)}`,
		new:    `}`,
		suites: []string{controller},
	},
	{
		name: "a retry goes by a listing that EdgeOne has forgotten", file: "internal/taskstate/retry.go",
		old:    `return JobFailures{failed, len(failed) <= count}`,
		new:    `return JobFailures{failed, true}`,
		suites: []string{controller},
	},
	{
		name: "a look that was begun before a retry was asked for tells what failed", file: "internal/controller/follow/retries.go",
		old:    `seen.HasWholeJob(task, job) {`,
		new:    `seen != nil {`,
		suites: []string{controller},
	},
	{
		name: "a task that came during a look is late if EdgeOne was not asked about it", file: "internal/taskstate/outcomes.go",
		old:    `seen.Listing[job.ID] == nil && !seen.Whole[job.ID] {`,
		new:    `seen == nil {`,
		suites: []string{controller},
	},
	{
		name: "a retry takes the job that failed for its own", file: "internal/controller/submit/claim.go",
		old:    `(newRun || job.RetriedPositions != "") && `,
		new:    `newRun && `,
		suites: []string{controller},
	},
	{
		name: "a status edited by hand reopens what succeeded", file: "internal/taskstate/run.go",
		old:    `if err != nil || len(p) > int(job.Failed) || `,
		new:    `if err != nil || `,
		suites: []string{controller},
	},
	{
		name: "who recorded a job is forgotten while a claim may ask", file: "internal/controller/follow/garbage.go",
		old:    `claim != nil && !p.isForgotten(claim, now) {`,
		new:    `claim != nil && p.zones == nil {`,
		suites: []string{controller, histories},
	},
	{
		name: "one old claim keeps all recorded jobs since in memory", file: "internal/controller/follow/garbage.go",
		old:    `i < len(signed) && !signed[i].After(job.Add(before))`,
		new:    `(i < 0 || len(signed) > 0 && job.After(signed[0].Add(-before)))`,
		suites: []string{controller},
	},
	{
		name: "nothing bounds how many recorded jobs are remembered", file: "internal/controller/follow/recorded_jobs.go",
		old:    `excess := len(j.claims) - limit`,
		new:    `excess := min(0, limit)`,
		suites: []string{controller},
	},
	{
		name: "the claim is written after the call", file: "internal/controller/submit/attempt.go",
		old: `	err := a.claimInOrder(ctx)
`,
		new: `	a.signedAt = a.EdgeOne.ServerTime().Truncate(time.Second)
	early, earlyErr := a.send(ctx, a.call.URLs)
	err := a.claimInOrder(ctx)
	if ctx != nil {
		a.updateQueue(a.account, func() { a.account.claiming -= len(a.parts) })
		a.recordOutcome(ctx, len(a.call.URLs), early, earlyErr)
		return
	}
`,
		suites: []string{controller, histories},
	},
	{
		name: "a call is signed when it is sent, not when it is claimed", file: "internal/controller/submit/attempt.go",
		old:    `a.EdgeOne.CreateTask(slots.withSlots(ctx), a.creds, a.signedAt, a.createRequest(urls))`,
		new:    `a.EdgeOne.CreateTask(slots.withSlots(ctx), a.creds, a.EdgeOne.ServerTime(), a.createRequest(urls))`,
		suites: []string{controller, histories},
	},
	{
		name: "a call ends with the pass that started it", file: "internal/controller/submit/attempt.go",
		old:    `a.run(log.IntoContext(s.Critical, `,
		new:    `a.run(log.IntoContext(ctx, `,
		suites: []string{controller, histories},
	},
	{
		name: "the process ends without waiting for its calls", file: "internal/controller/submit/shutdown.go",
		old: `	select {
	case <-done:
	case <-time.After(g.Grace):
	}
`,
		new:    ``,
		suites: []string{controller, histories},
	},
	{
		name: "calls are started while the process is stopping", file: "internal/controller/submit/shutdown.go",
		old:    `if c.stopping {`,
		new:    `if c.stopping && claimID == "" {`,
		suites: []string{controller, histories},
	},
	{
		name: "a call of unknown outcome counts as not executed", file: "internal/controller/submit/outcome.go",
		old: `case kind == teo.Ambiguous:
		// The claim stays`,
		new: `case kind == teo.Ambiguous && ctx == nil:
		// The claim stays`,
		suites: []string{controller, histories},
	},
	{
		name: "what EdgeOne did not accept of a call counts as submitted", file: "internal/taskstate/claim_match.go",
		old:    `if _, ok := job[target.Identity(targets[i])]; ok {`,
		new:    `if reason, ok := job[target.Identity(targets[i])]; ok && reason == "" {`,
		suites: []string{controller, histories},
	},
	{
		name: "one bad URL fails all that share its call", file: "internal/controller/submit/outcome.go",
		old:    `!teo.IsPlanLacking(err) && len(call.URLs) == 1:`,
		new:    `!teo.IsPlanLacking(err):`,
		suites: []string{controller, histories},
	},
	{
		name: "a new run starts with the status of the one before", file: "internal/taskstate/transitions.go",
		old:    `task.Status = begun`,
		new:    `task.Status.Run = begun.Run`,
		suites: []string{controller, histories},
	},

	// Evidence.
	{
		name: "a job that EdgeOne rejects keeps all of its zone from being read", file: "internal/controller/follow/history.go",
		old:    `return teo.KindOf(err) == teo.Rejected || errors.Is(err, teo.ErrTooManyPages)`,
		new:    `return errors.Is(err, teo.ErrTooManyPages)`,
		suites: []string{controller},
	},
	{
		name: "outcomes are read in a window that does not hold still", file: "internal/controller/follow/history.go",
		old:    `EndTime:  earliest(jobs[len(jobs)-1].signed.Add(r.CallTimeout+taskstate.ClockSkew), r.historyTime().Add(-taskstate.ClockSkew)),`,
		new:    `EndTime:  r.historyTime().Add(time.Minute),`,
		suites: []string{controller},
	},
	{
		name: "one look reads whatever the history holds", file: "internal/controller/follow/history.go",
		old:    `MaxPages: min(room, worth),`,
		new:    `MaxPages: worth,`,
		suites: []string{controller},
	},
	{
		name: "what a window does not show has no outcome", file: "internal/taskstate/history_read.go",
		old:    `case !r.Whole[job.ID] || age <= l.Deadline:`,
		new:    `case age <= l.Deadline:`,
		suites: []string{controller},
	},
	{
		name: "what EdgeOne has forgotten has failed", file: "internal/taskstate/history_read.go",
		old:    `case !isListed && age > l.Retention:`,
		new:    `case job == nil:`,
		suites: []string{controller},
	},
	{
		name: "a minute without permission ends a run", file: "internal/controller/follow/unread.go",
		old:    `case u.said > deadline:`,
		new:    `case u.refused >= 2*recheck:`,
		suites: []string{controller},
	},
	{
		name: "a run that nobody could read is Ready", file: "internal/taskstate/outcomes.go",
		old:    `SetCondition(task, v1alpha1.ConditionReady, metav1.ConditionUnknown, v1alpha1.ReasonNotFollowed, message)`,
		new:    `SetCondition(task, v1alpha1.ConditionReady, metav1.ConditionTrue, v1alpha1.ReasonNotFollowed, message)`,
		suites: []string{controller},
	},
	{
		name: "that outcomes cannot be read is said when they can", file: "internal/taskstate/outcomes.go",
		old:    `if isRead && IsUnreadReported(task) {`,
		new:    `if isRead && task == nil {`,
		suites: []string{controller},
	},
	{
		name: "the cache slims a run that may still be read", file: "internal/kube/cache.go",
		old:    `if jobs.MayStillBeSeen(task) {`,
		new:    `if jobs == nil {`,
		suites: []string{controller},
	},
	{
		name: "a retry of what had no outcome does not look first", file: "internal/taskstate/retry.go",
		old:    `isCertain = isCertain && reason != v1alpha1.FailedNoOutcome`,
		new:    `isCertain = isCertain && reason != ""`,
		suites: []string{controller},
	},
	{
		name: "the window of a claim starts at its signature", file: "internal/controller/follow/claim_history.go",
		old:    `historyWindow{claim.SignedAt.Add(-taskstate.ClockSkew), p.completeTime(claim), []string{id}}`,
		new:    `historyWindow{claim.SignedAt.Time, p.completeTime(claim), []string{id}}`,
		suites: []string{controller},
	},
	{
		name: "a job that was recorded before a claim is taken for the claim's", file: "internal/taskstate/claim_match.go",
		old:    `at.After(end) || at.Before(start) && isOthers(id)`,
		new:    `at.After(end)`,
		suites: []string{controller},
	},
	{
		name: "a job that was answered before a claim is taken for the claim's", file: "internal/controller/submit/claim.go",
		old:    `return !a.lane.SharesZone(lane) })`,
		new:    `return !a.lane.SharesZone(lane) || a.lane.IsSameIgnoringTenant(lane) })`,
		suites: []string{controller},
	},
	{
		name: "looks into invented zones take all workers", file: "internal/controller/follow/zone_state.go",
		old: `	if isProven {
`,
		new: `	if isProven || z.ID != "" {
`,
		suites: []string{controller},
	},

	// Settling.
	{
		name: "the fence is not waited for", file: "internal/controller/follow/claim_history.go",
		old:    `return p.fenceTime(claim).Add(p.SettleMargin)`,
		new:    `return claim.SignedAt.Add(p.SettleMargin)`,
		suites: []string{controller, histories},
	},
	{
		name: "EdgeOne's history is taken for complete at the fence", file: "internal/controller/follow/claim_history.go",
		old:    `return p.fenceTime(claim).Add(p.SettleMargin)`,
		new:    `return p.fenceTime(claim)`,
		suites: []string{controller, histories},
	},
	{
		name: "EdgeOne's clock is believed before it has told it", file: "internal/controller/follow/claim_history.go",
		old:    `l.timed && serverNow.After(p.completeTime(claim)) && !p.isForgotten`,
		new:    `serverNow.After(p.completeTime(claim)) && !p.isForgotten`,
		suites: []string{controller, histories},
	},
	{
		name: "a call is made before EdgeOne has told its time", file: "internal/controller/submit/quota.go",
		old:    `case !s.EdgeOne.ServerTimeKnown():`,
		new:    `case l == nil:`,
		suites: []string{controller, histories},
	},
	{
		name: "a call that EdgeOne's history has forgotten counts as not executed", file: "internal/controller/follow/claim_history.go",
		old:    `return serverNow.Sub(claim.SignedAt.Time) > p.HistoryRetention`,
		new:    `return serverNow.IsZero()`,
		suites: []string{controller, histories},
	},
	{
		name: "the look comes first and the fence second", file: "internal/controller/follow/lost_calls.go",
		old: `			s.settleClaims(ctx, z, seen, isFenced)
`,
		new: `			seen.fenced = s.planClaimsRead(tasks).fenced
			s.settleClaims(ctx, z, seen, isFenced)
`,
		suites: []string{controller, histories},
	},
	{
		name: "a look that EdgeOne refused found nothing", file: "internal/controller/follow/lost_calls.go",
		old: `seen, isFenced); err != nil {
			return err
		}
`,
		new: `seen, isFenced); err != nil && ctx == nil {
			return err
		}
`,
		suites: []string{controller, histories},
	},
	{
		name: "windows of claims that overlap are read to the end of the first", file: "internal/controller/follow/claim_history.go",
		old:    `merged[last].end = latestTime(merged[last].end, w.end)`,
		new:    `merged[last].end = latestTime(merged[last].end)`,
		suites: []string{controller, histories},
	},
	{
		name: "the second in which a claim was made is not part of its window", file: "internal/taskstate/claim_match.go",
		old: `	start = start.Truncate(time.Second)
	for id`,
		new:    `	for id`,
		suites: []string{controller, histories},
	},
	{
		name: "a URL that EdgeOne spells in another way is another URL", file: "internal/taskstate/claim_match.go",
		old:    `identity := task.Identity()`,
		new:    `identity := task.Target`,
		suites: []string{controller, histories},
	},
	{
		name: "jobs from before or after a claim's window are taken for the claim's", file: "internal/controller/follow/settle.go",
		old:    `history := l.Listing.SelectWindow(claim.SignedAt.Time, p.completeTime(claim), isOthers)`,
		new:    `history := l.Listing.SelectWindow(time.Time{}, time.Now().Add(time.Hour), isOthers)`,
		suites: []string{controller, histories},
	},
	{
		name: "a job that another claim recorded says that ours was not executed", file: "internal/taskstate/claim_match.go",
		old:    `if pastFence || !c.others && len(c.covers) == len(positions) {`,
		new:    `if !c.others && (pastFence || len(c.covers) == len(positions)) {`,
		suites: []string{controller, histories},
	},
	{
		name: "a job that lists a part of a call is adopted before the fence", file: "internal/taskstate/claim_match.go",
		old:    `if pastFence || !c.others && len(c.covers) == len(positions) {`,
		new:    `if pastFence || !c.others {`,
		suites: []string{controller, histories},
	},
	{
		name: "a job that another claim recorded is adopted before the fence", file: "internal/taskstate/claim_match.go",
		old:    `if pastFence || !c.others && len(c.covers) == len(positions) {`,
		new:    `if pastFence || len(c.covers) == len(positions) {`,
		suites: []string{controller, histories},
	},
	{
		name: "a new run goes out while the call of the one before may still come", file: "internal/controller/follow/settle.go",
		old: `		if p.isBygone(task, claim, l) {
			return taskstate.ExpireClaim
`,
		new: `		if p.EdgeOne.ServerTimeKnown() {
			return taskstate.ExpireClaim
`,
		suites: []string{controller, histories},
	},
	{
		name: "the claim of an earlier run is given up without a look", file: "internal/controller/follow/settle.go",
		old:    `if p.isBygone(task, claim, l) { return taskstate.ExpireClaim }`,
		new:    `if p.isBygone(task, claim, l) { return releaseClaim(noReason, time.Now()) }`,
		suites: []string{controller, histories},
	},
	{
		name: "a call that may have been executed is not looked for once its run is back", file: "internal/taskstate/run.go",
		old:    `return claim != nil && !(claim.Expired && IsNewRun(task))`,
		new:    `return claim != nil && !claim.Expired`,
		suites: []string{line, controller, histories},
	},
	{
		name: "a job of the run before is taken for the new run's", file: "internal/controller/follow/settle.go",
		old:    `delete(history, id)`,
		new:    `delete(history, "job "+id)`,
		suites: []string{controller, histories},
	},
	{
		name: "a claim does not say which jobs are the run's before", file: "internal/controller/submit/claim.go",
		old:    `jobsSince(part.Task, a.signedAt.Add(-a.SignatureValidity)),`,
		new:    `jobsSince(part.Task, a.signedAt),`,
		suites: []string{controller, histories},
	},
	{
		name: "an answer that comes after an edit is read by the new targets", file: "internal/taskstate/positions.go",
		old: `	if !knowsTargets(task) {
		positions, _ := ParsePositions(text)
		return positions
	}
`,
		new:    ``,
		suites: []string{controller, histories},
	},
	{
		name: "a run goes on with another list than it began with", file: "internal/taskstate/run.go",
		old:    `return !IsBoundToList(task) || task.Status.TargetsHash == hash`,
		new:    `return true`,
		suites: []string{controller, histories},
	},
	{
		name: "a run begins with a list that was read before the task was seen", file: "internal/targetlist/config_maps.go",
		old: `		asked := r.next
		r.next = nil
		l.mu.Unlock()
		read, err := l.getList(from)
`,
		new: `		l.mu.Unlock()
		read, err := l.getList(from)
		l.mu.Lock()
		asked := r.next
		r.next = nil
		l.mu.Unlock()
`,
		suites: []string{controller},
	},
	{
		name: "lists from ConfigMaps are all kept", file: "internal/targetlist/resolver.go",
		old:    `for l.size >= MaxListed {`,
		new:    `for l.size < 0 {`,
		suites: []string{controller},
	},
	{
		name: "a list from a ConfigMap that made room is not read again", file: "internal/targetlist/resolver.go",
		old:    `go l.dropList(w, w.task)`,
		new:    `go l.versions.dropTargets(w.task)`,
		suites: []string{controller},
	},
	{
		name: "what is not known of a task's targets is taken for nothing to do", file: "internal/taskstate/positions.go",
		old:    `return !IsNewRun(task) && !IsUnresolved(task)`,
		new:    `return !IsNewRun(task)`,
		suites: []string{controller, histories},
	},
	{
		name: "a task whose targets are not known is looked for", file: "internal/controller/follow/zone_state.go",
		old:    `|| taskstate.IsUnresolved(task) && !taskstate.IsNewRun(task) {`,
		new:    `|| taskstate.IsUnresolved(task) && task.Name == "" {`,
		suites: []string{controller, histories},
	},
	{
		name: "a task that is being deleted is looked for", file: "internal/controller/follow/zone_state.go",
		old:    `if !task.DeletionTimestamp.IsZero() || taskstate.IsUnresolved`,
		new:    `if taskstate.IsUnresolved`,
		suites: []string{controller},
	},
	{
		name: "a claim ends when its task is made again under its name", file: "internal/queue/reservations.go",
		old:    `if q.holders[key].uid != task.UID {`,
		new:    `if q.holders[key].uid != task.UID && task.UID == "" {`,
		suites: []string{controller},
	},
	{
		name: "a write to a task without its list in memory forgets which run it is", file: "internal/kube/status_writer.go",
		old:    `written = taskstate.ElideTargets(written)`,
		new:    `written.Spec.Targets = nil`,
		suites: []string{controller},
	},
	{
		name: "long lists of all tasks that wait are kept", file: "internal/targetlist/loaded_lists.go",
		old:    `return l.size >= MaxLoaded, idlest, since`,
		new:    `return false, idlest, since`,
		suites: []string{controller},
	},
	{
		name: "a long list is kept although nothing happens to its task", file: "internal/targetlist/loader.go",
		old:    `if wait := MaxLoadedIdle - time.Since(since); wait > 0 {`,
		new:    `if wait := time.Hour - time.Since(since); wait > 0 {`,
		suites: []string{controller},
	},
	{
		name: "a long list that could not be read is not read again", file: "internal/targetlist/loader.go",
		old:    `time.AfterFunc(LoadAgain, func() {`,
		new:    `time.AfterFunc(LoadAgain<<20, func() {`,
		suites: []string{controller},
	},
	{
		name: "a job whose ID is rejected is not looked for by its time", file: "internal/controller/follow/history.go",
		old:    `r.AddTasks(slices.DeleteFunc(tasks, func(task teo.Record) bool { return task.JobID != job.id }))`,
		new:    `r.AddTasks(nil)`,
		suites: []string{controller},
	},
	{
		name: "a run starts with a list that was read hours ago", file: "internal/controller/submit/claim.go",
		old:    `if !a.Lists.IsFresh(part.Task) {`,
		new:    `if a.Lists == nil {`,
		suites: []string{controller},
	},
	{
		name: "a list with a bad line is submitted without it", file: "internal/targetlist/parse_targets.go",
		old:    `return nil, fmt.Errorf("line %d, %q: %s", number, startOfLine(line), problem)`,
		new:    `continue`,
		suites: []string{controller},
	},
	{
		name: "another account's history says that a call was not executed", file: "internal/controller/follow/settle.go",
		old:    `if claim.ZoneID == "*" && claim.AccountHash != l.account {`,
		new:    `if claim.AccountHash == "" {`,
		suites: []string{controller, histories},
	},
	{
		name: "a call that this process still makes is settled", file: "internal/controller/follow/lost_calls.go",
		old: `		if !p.isCallInFlight(task) {
`,
		new: `		if task != nil {
`,
		suites: []string{controller, histories},
	},
}
