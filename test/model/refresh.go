package model

import "strings"

// This file is the protocol of a run that purges its URLs and then prefetches them. It is
// a machine of its own: one task with the URLs a and b, up to maxRefreshCalls calls of
// both actions, and the cache. refresh_edgeone.go is the environment, and
// refresh_promise.go has the properties that must hold.
//
// For each URL the cache has a copy of version 0, 1 or 2, or none. The origin publishes
// version r before the user asks for run r. A purge deletes the copies when its job ends,
// at any time after EdgeOne has executed the call. A prefetch fills the cache only where
// there is no copy. Visitors may fill it with the origin's version at any time.
//
// As in protocol.go, a process exists only as its possible next steps, any number of
// processes may believe that they lead, and the optimistic lock decides whose write is
// carried out. Some steps of protocol.go are merged here, because nothing that happens
// between them changes their result: the fence and the margin after it; a look-up and the
// write of its result; a response and its record. The history shows a job at once: a job
// that it shows later equals a look-up that happens later.
//
// The model is freer than the operator: it may purge ahead by more than one batch. It
// omits look-ups that are refused, the retention of the history, and other tasks. A purge
// of another task is like a purge of another program.

const (
	maxRefreshCalls = 5
	// foreignPurge is the number of the purge that another program makes.
	foreignPurge = maxRefreshCalls + 1
)

// refreshTask is a task with spec.purge as stored in the API server.
type refreshTask struct {
	exists  bool
	wants   uint8       // the run that the spec asks for
	run     uint8       // the run that the status refers to; 0 if none
	claim   uint8       // the call with unknown outcome, of either action; 0 if none
	purges  [2]progress // by purge target
	fetches [2]progress // by URL
	late    ids         // the purge jobs that missed the deadline
	asked   uint8       // the last retry that the user asked for
	retry   uint8       // the last retry that the status records as handled
}

// progress is what the status says about a purge target, or about the prefetch of a URL.
type progress struct {
	is  outcome
	job uint8 // while the job is under way
}

type outcome uint8

const (
	open outcome = iota
	inJob
	succeeded
	failed
)

func (o *refreshTask) newRun() bool { return o.run != o.wants }

// refreshCall is everything about one claim ID.
type refreshCall struct {
	stage    refreshStage
	prefetch bool
	current  bool // the task has not been written since the call was planned
	run      uint8
	retry    uint8
	planned  urls // targets: URLs, or prefixes

	request  request
	stale    bool  // signed after the claim's fence; only a weaker variant does that
	accepted urls  // the targets of the job
	done     urls  // the targets of the job that have succeeded
	failed   urls  // the targets of the job that have failed
	signed   uint8 // with closed: the state's counters when the job was created
	closed   uint8
	fetched  [2]uint8 // with Slow: what the job has read from the origin, version + 1
}

type refreshStage uint8

const (
	ended refreshStage = iota // done, or the caller is gone
	claims
	doubts // the write of the claim was not acknowledged
	sends
	awaits
)

// copies is what the cache has of a URL: a version, or the reason why there is none.
type copies uint8

const (
	purged copies = 10 // by the operator
	taken  copies = 11 // by another program
)

type refreshState struct {
	task   refreshTask
	calls  [foreignPurge]refreshCall // the last one is the other program's
	cache  [2]copies
	origin copies // the version that the origin serves
	signed uint8  // number of calls so far
	closed uint8  // calls 1 to closed can no longer execute, and the history is complete up to there
	user   uint8  // number of the user's changes so far
}

func (s *refreshState) call(id uint8) *refreshCall { return &s.calls[id-1] }

// write stores a new version of the task. It voids what was planned for the previous
// version.
func (s *refreshState) write(o refreshTask) {
	s.task = o
	for i := range s.calls {
		s.calls[i].current = false
	}
}

func (k *refreshCall) end() { k.stage, k.current = ended, false }

// unfinished returns the targets of a job that have no outcome yet.
func (k *refreshCall) unfinished() urls { return k.accepted &^ (k.done | k.failed) }

// refresh defines what may happen.
type refresh struct {
	Calls    uint8  // number of calls in total
	One      bool   // the task has only URL a
	Prefixes bool   // the run purges two prefixes that overlap: one has both URLs, the other one only b
	Batches  bool   // a purge call has one target
	User     string // what the user does: "edits" (publishes, and asks for a new run), "reverts" or "re-creates"
	Failing  bool   // purges and prefetches may fail, target by target
	Partial  bool   // EdgeOne refuses some targets of a call
	Foreign  bool   // another program purges one of the targets, or both
	Deadline bool   // a purge may miss the deadline, and end later
	Slow     bool   // a prefetch reads the origin some time before it fills the cache
	Patient  bool   // a new run waits for the prefetches of the old run as well
	Retries  uint8  // how many times the user asks for a retry
	Lacks    weakness
	Whole    bool // disables the reduction of states
}

const (
	purgeNotLocked      weakness = "no lock on the claim of a purge"
	purgeAdoptedEarly   weakness = "a lost purge that is adopted before the fence"
	purgeReleasedEarly  weakness = "a lost purge that is released before the fence"
	purgeSignedAgain    weakness = "a purge that is signed when sent"
	purgeAnswered       weakness = "prefetching when a purge is answered"
	purgeFailureIgnored weakness = "prefetching although the purge failed"
	purgeLookalike      weakness = "a purge from before the claim that counts as the run's own"
	purgeOneOfSeveral   weakness = "adopting one of several purges without waiting for the others"
	purgeOneIsEnough    weakness = "prefetching when one of the purges that cover a URL has succeeded"
	purgeOutlivesRun    weakness = "a new run that does not wait for the purge of the old run"
	purgeJobOutlivesRun weakness = "a new run that waits for the fence of the old purge, and not for its job"
	purgeGivenUp        weakness = "a retry that does not wait for a purge that missed the deadline"
	purgePrefixAgain    weakness = "a retry of a prefetch that purges its prefix again"
)

// all returns the targets of the task.
func (e *refresh) all() urls {
	if e.One {
		return a
	}
	return a | b
}

// cover returns the URLs that purge targets cover.
func (e *refresh) cover(targets urls) urls {
	if e.Prefixes && targets&a != 0 {
		return a | b
	}
	return targets
}

// purgesOf returns the purge targets that cover a URL.
func (e *refresh) purgesOf(u urls) (targets urls) {
	for _, target := range []urls{a, b} {
		if target&e.all() != 0 && e.cover(target)&u != 0 {
			targets |= target
		}
	}
	return targets
}

// in returns the targets whose progress is one of the given.
func in(all [2]progress, states ...outcome) (targets urls) {
	for i, p := range all {
		for _, is := range states {
			if p.is == is {
				targets |= 1 << i
			}
		}
	}
	return targets
}

// toFetch returns the URLs that may be prefetched: every purge that covers them is listed
// as a success.
func (e *refresh) toFetch(o *refreshTask) (us urls) {
	enough := in(o.purges, succeeded)
	switch e.Lacks {
	case purgeAnswered:
		enough |= in(o.purges, inJob)
	case purgeFailureIgnored:
		enough |= in(o.purges, failed)
	}
	for _, u := range []urls{a, b} {
		needed := e.purgesOf(u)
		if enough&needed == needed || e.Lacks == purgeOneIsEnough && enough&needed != 0 {
			us |= u
		}
	}
	return us & in(o.fetches, open) & e.all()
}

// isDone reports whether the run has an outcome for every URL: prefetched, failed, or not
// prefetched because its purge failed.
func (e *refresh) isDone(o *refreshTask) bool {
	done := in(o.fetches, succeeded, failed) | e.cover(in(o.purges, failed))
	return done == e.all() && in(o.purges, open, inJob)&e.all() == 0 && in(o.fetches, inJob) == 0 && e.toFetch(o) == 0
}

// mayStart reports whether a new run may begin: no purge of the run before can still
// execute, and all its purge jobs have ended. For the jobs of a claim that nobody has
// settled this needs a look-up, although the spec has a new run: whatever was executed
// for it since it was signed must have ended. With Patient, the same applies to prefetches.
func (e *refresh) mayStart(s *refreshState) bool {
	o := &s.task
	if e.Lacks == purgeOutlivesRun {
		return true
	}
	unclear := o.claim != 0 && (e.Patient || !s.call(o.claim).prefetch)
	switch {
	case unclear && s.closed < o.claim:
		return false
	case e.Lacks == purgeJobOutlivesRun:
		return true
	case unclear && s.windowUnfinished(o.claim), s.unfinished(&o.purges), e.Patient && s.unfinished(&o.fetches):
		return false
	}
	return !s.lateUnfinished()
}

// windowUnfinished reports whether a job in the window of a claim has a target of the
// claim, and has not ended.
func (s *refreshState) windowUnfinished(claim uint8) bool {
	for id := uint8(1); id <= foreignPurge; id++ {
		if s.window(claim, id)&s.call(id).unfinished()&s.call(claim).planned != 0 {
			return true
		}
	}
	return false
}

// unfinished reports whether a recorded job has not ended.
func (s *refreshState) unfinished(all *[2]progress) bool {
	for i, p := range all {
		if p.is == inJob && s.call(p.job).unfinished()&(1<<i) != 0 {
			return true
		}
	}
	return false
}

func (s *refreshState) lateUnfinished() bool {
	for id := uint8(1); id <= foreignPurge; id++ {
		if s.task.late.has(id) && s.call(id).unfinished() != 0 {
			return true
		}
	}
	return false
}

// window returns the targets of a job if it has the claim's action and was created after
// the claim was signed and before its fence and margin had passed.
func (s *refreshState) window(claim, job uint8) urls {
	k := s.call(job)
	if k.request != executed || k.prefetch != s.call(claim).prefetch || k.signed < claim || k.closed >= claim {
		return 0
	}
	return k.accepted
}

// retryIsDue reports whether a retry is requested and its targets are known. It waits for
// purges that missed the deadline: they could delete what the retry prefetches.
func (e *refresh) retryIsDue(s *refreshState) bool {
	o := &s.task
	if !o.exists || o.newRun() || o.claim != 0 || o.asked <= o.retry || !e.isDone(o) {
		return false
	}
	return e.Lacks == purgeGivenUp || !s.lateUnfinished()
}

type refreshMove = step[refreshState, event]

// refreshTurn collects the possible next steps.
type refreshTurn struct {
	*refresh
	s     refreshState
	moves []refreshMove
}

func (u *refreshTurn) may(to refreshState, l event) {
	u.moves = append(u.moves, refreshMove{to: to, label: l})
}

func (u *refreshTurn) mayFail(to refreshState, l event) {
	u.moves = append(u.moves, refreshMove{to: to, label: l, fault: true})
}

func (e *refresh) next(s refreshState, moves []refreshMove) []refreshMove {
	u := refreshTurn{e, s, moves}
	u.plan()
	for id := uint8(1); id <= s.signed; id++ {
		u.carryOn(id)
	}
	u.look()
	u.follow()
	u.reopen()
	for id := uint8(1); id <= foreignPurge; id++ {
		u.execute(id)
		u.work(id)
	}
	u.time()
	u.visit()
	u.trouble()
	return u.moves
}

// plan signs a call for everything that is ready for an action.
func (u *refreshTurn) plan() {
	o := &u.s.task
	switch {
	case u.s.signed == u.Calls || !o.exists:
	case o.newRun():
		if u.mayStart(&u.s) {
			u.sign(false, u.all())
		}
	case o.claim == 0:
		u.sign(false, in(o.purges, open)&u.all())
		u.sign(true, u.toFetch(o))
	}
}

func (u *refreshTurn) sign(prefetch bool, targets urls) {
	if targets == 0 {
		return
	}
	if u.Batches && !prefetch && targets == a|b {
		targets = a
	}
	n := u.s
	n.signed++
	k := n.call(n.signed)
	k.stage, k.current, k.prefetch, k.planned = claims, true, prefetch, targets
	k.run, k.retry = n.task.wants, n.task.retry
	if n.task.newRun() {
		k.retry = n.task.asked
	}
	u.may(n, event{"{call} is planned for a {action} of {targets} and signed", n.signed, prefetch, targets})
}

// carryOn makes the next step of a caller, or ends the caller.
func (u *refreshTurn) carryOn(id uint8) {
	n := u.s
	k := n.call(id)
	l := func(text string) event { return event{text, id, k.prefetch, k.planned} }
	switch {
	case k.stage == ended:
		return
	case k.stage == claims:
		u.claim(id)
	case k.stage == doubts:
		u.release(id, l("the claim of {call} was not acknowledged: released"))
	case k.stage == sends && n.closed >= id && u.Lacks != purgeSignedAgain:
		u.release(id, l("{call} is too old to be sent: released"))
	case k.stage == sends:
		k.stage, k.request, k.stale = awaits, underWay, n.closed >= id
		u.may(n, l("the {action} of {targets}, {call}, is sent"))
	case k.request == executed:
		u.record(id)
	case k.request == dropped:
		u.release(id, l("the answer to {call} says that it was not executed: released"))
	}
	n = u.s
	n.call(id).end()
	u.mayFail(n, l("whoever makes {call} dies, or gets no answer"))
}

// claim writes the intent to the task under the optimistic lock.
func (u *refreshTurn) claim(id uint8) {
	n := u.s
	k, o := n.call(id), n.task
	if !k.current && (u.Lacks != purgeNotLocked || k.prefetch || !o.exists) {
		k.end()
		u.may(n, event{"the claim of {call} meets a conflict", id, k.prefetch, k.planned})
		return
	}
	if o.newRun() {
		o.purges, o.fetches, o.late, o.retry = [2]progress{}, [2]progress{}, 0, o.asked
	}
	o.run, o.claim = o.wants, id
	n.write(o)
	k.stage = sends
	u.may(n, event{"the task is claimed for {call}", id, k.prefetch, k.planned})
	k.stage = doubts
	u.mayFail(n, event{"the task is claimed for {call}, but the acknowledgement is lost", id, k.prefetch, k.planned})
}

func (u *refreshTurn) release(id uint8, l event) {
	n := u.s
	n.call(id).end()
	if o := n.task; o.claim == id {
		o.claim = 0
		n.write(o)
	}
	u.may(n, l)
}

// record writes EdgeOne's response, if the task still has the claim.
func (u *refreshTurn) record(id uint8) {
	n := u.s
	k, o := n.call(id), n.task
	l := event{"{job}, the {action} of {targets}, is recorded", id, k.prefetch, k.accepted}
	if o.claim == id {
		all := o.progress(k.prefetch)
		for i := range all {
			switch target := urls(1 << i); {
			case k.accepted&target != 0:
				all[i] = progress{inJob, id}
			case k.planned&target != 0:
				all[i] = progress{is: failed}
			}
		}
		o.claim = 0
		n.write(o)
	} else {
		l.text = "the task is left alone: it no longer carries {call}"
	}
	n.call(id).end()
	u.may(n, l)
}

func (o *refreshTask) progress(prefetch bool) *[2]progress {
	if prefetch {
		return &o.fetches
	}
	return &o.purges
}

// look looks up a claim and writes what it finds: the jobs of the targets that were
// executed, and nothing for the others, which become open again. A prefetch whose job
// lists all targets is adopted at once. A purge is looked up only when it can no longer
// execute: a job that looks like it does not tell that it will not come.
func (u *refreshTurn) look() {
	id := u.s.task.claim
	if !u.s.task.exists || id == 0 || u.s.task.newRun() {
		return
	}
	k := u.s.call(id)
	closed := u.s.closed >= id
	early := k.prefetch || u.Lacks == purgeAdoptedEarly || u.Lacks == purgeReleasedEarly
	if !closed && !early {
		return
	}
	for _, lowest := range []bool{true, false} { // which of two jobs comes first
		jobs, certain := u.evidence(id, lowest)
		all := jobs[0] != 0 || k.planned&a == 0
		all = all && (jobs[1] != 0 || k.planned&b == 0)
		if !certain || !closed && !all && (k.prefetch || u.Lacks != purgeReleasedEarly) {
			continue
		}
		n := u.s
		o := n.task
		var found urls
		for i, job := range jobs {
			if job != 0 {
				o.progress(k.prefetch)[i] = progress{inJob, job}
				found |= 1 << i
			}
		}
		o.claim = 0
		n.write(o)
		u.may(n, event{"a look for {call} finds a {action} of {targets}, which is written", id, k.prefetch, found})
	}
}

// evidence returns for each target of a claim the job that has it. It is not certain while
// one of several purge jobs that have a target is unfinished: the claim's own job might be
// the one that ends last.
func (u *refreshTurn) evidence(id uint8, lowest bool) (jobs [2]uint8, certain bool) {
	claimed := u.s.call(id)
	certain = true
	for i := range jobs {
		target := urls(1 << i)
		several, unfinished := 0, false
		for j := uint8(1); j <= foreignPurge; j++ {
			job := j
			if !lowest {
				job = foreignPurge + 1 - j
			}
			k := u.s.call(job)
			lists := u.s.window(id, job)
			if u.Lacks == purgeLookalike && !k.prefetch && k.request == executed && k.closed < id {
				lists = k.accepted
			}
			if claimed.planned&lists&target == 0 {
				continue
			}
			several++
			unfinished = unfinished || k.unfinished()&target != 0
			if jobs[i] == 0 || u.s.call(jobs[i]).done&target == 0 && k.done&target != 0 && u.Lacks != purgeOneOfSeveral {
				jobs[i] = job
			}
		}
		if several > 1 && unfinished && !claimed.prefetch && u.Lacks != purgeOneOfSeveral {
			certain = false
		}
	}
	return jobs, certain
}

// follow writes how a target of a job ended, or that its purge missed the deadline.
func (u *refreshTurn) follow() {
	if !u.s.task.exists {
		return
	}
	for _, prefetch := range []bool{false, true} {
		for i, p := range *u.s.task.progress(prefetch) {
			if p.is != inJob {
				continue
			}
			target := urls(1 << i)
			n := u.s
			o := n.task
			record := &o.progress(prefetch)[i]
			k := n.call(p.job)
			l := event{"the {action} of {targets} in {job} succeeded: written", p.job, prefetch, target}
			switch {
			case k.done&target != 0:
				*record = progress{is: succeeded}
				n.write(o)
				u.may(n, l)
			case k.failed&target != 0:
				l.text = "the {action} of {targets} in {job} failed: written"
				*record = progress{is: failed}
				n.write(o)
				u.may(n, l)
			case u.Deadline && !prefetch:
				l.text = "the {action} of {targets} in {job} misses the deadline: written"
				*record = progress{is: failed}
				o.late |= 1 << p.job
				n.write(o)
				u.mayFail(n, l)
			}
		}
	}
}

// reopen covers the user's request for a retry, and the single write that handles it.
// Targets whose purge failed are purged again. URLs whose prefetch failed are prefetched
// again, after another purge or without it: the run's purge still counts. A prefix is
// never purged again for that, because it has other URLs.
func (u *refreshTurn) reopen() {
	o := u.s.task
	if o.exists && o.asked < u.Retries {
		o.asked++
		n := u.s
		n.write(o)
		u.mayFail(n, event{text: "the user asks for a retry"})
	}
	if !u.retryIsDue(&u.s) {
		return
	}
	o = u.s.task
	o.retry, o.late = o.asked, 0
	again := in(o.fetches, failed)
	openTargets(&o.purges, in(o.purges, failed))
	openTargets(&o.fetches, again)
	n := u.s
	n.write(o)
	u.may(n, event{text: "a retry opens what failed"})
	if again != 0 && (!u.Prefixes || u.Lacks == purgePrefixAgain) {
		openTargets(&o.purges, u.purgesOf(again))
		n.write(o)
		u.may(n, event{text: "a retry opens what failed, and purges {targets} again", targets: again})
	}
}

func openTargets(all *[2]progress, targets urls) {
	for i := range all {
		if targets>>i&1 != 0 {
			all[i] = progress{}
		}
	}
}

// event describes a step.
type event struct {
	text     string
	call     uint8
	prefetch bool
	targets  urls
}

func (l event) String() string {
	number := "of another program"
	if l.call != foreignPurge {
		number = string('0' + rune(l.call))
	}
	action := "purge"
	if l.prefetch {
		action = "prefetch"
	}
	return strings.NewReplacer(
		"{call}", "call "+number,
		"{job}", "job "+number,
		"{action}", action,
		"{targets}", l.targets.String(),
	).Replace(l.text)
}
