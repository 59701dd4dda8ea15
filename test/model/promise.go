package model

// The properties of single states that make up the promise.
const (
	duplicate      = "duplicate: a URL was executed twice for one task, run and retry"
	unfailed       = "unfailed: a retry executed a URL again that had not failed"
	skipped        = "skipped: a retry counts as handled, and what had failed before was not opened"
	miscounted     = "miscounted: a URL counts as failed or not executed, but was executed for this task and run"
	predating      = "predating: a job was adopted that is older than the claim"
	otherSemantics = "other semantics: a job was adopted that fetched in another way"
	lost           = "lost: a job is recorded on none of the tasks that asked for it"
)

// promise returns all properties, the strongest first.
func (e *environment) promise() []invariant[state] {
	return []invariant[state]{
		{duplicate, e.executesOnce},
		{unfailed, e.retriesFailures},
		{skipped, e.retriesAll},
		{miscounted, e.countsTruly},
		{predating, e.adoptsNoneOlder},
		{otherSemantics, e.adoptsSameSemantics},
		{lost, e.losesNone},
	}
}

// holds returns the part of the promise that holds in the environment. The last two
// properties are about which task a job belongs to, which the history does not say. A
// claim holds its URLs, so that only one task at a time can be in doubt about them. This
// fails if other processes do not see the claim, if the user undoes it, or if another
// program submits the URLs. Then a task may adopt another task's job. Its URLs were
// prefetched all the same.
func (e *environment) holds() []invariant[state] {
	all := e.promise()
	if e.Foreign || e.Overlap && (e.Shared || e.User != "") || e.User == "re-creates" && e.Other {
		return all[:5]
	}
	return all
}

// executesOnce covers the operator's own calls, and not what another program submits.
func (e *environment) executesOnce(s state) bool {
	for t := range s.tasks {
		var done [3][maxCalls]urls // by run and retry
		for id := uint8(1); id <= s.signed; id++ {
			k := s.call(id)
			u, run, retry := k.asked(t)&k.accepted, k.runOf(t), k.retryOf(t)
			if done[run][retry]&u != 0 {
				return false
			}
			done[run][retry] |= u
		}
	}
	return true
}

func (k *call) runOf(t int) uint8 {
	if t == 0 {
		return k.run
	}
	return 1
}

func (k *call) retryOf(t int) uint8 {
	if t == 0 {
		return k.retry
	}
	return 0
}

// retriesFailures ignores URLs that were executed twice for one retry: executesOnce covers
// them.
func (e *environment) retriesFailures(s state) bool {
	for id := uint8(2); id <= s.signed; id++ {
		for before := uint8(1); before < id; before++ {
			k, l := s.call(before), s.call(id)
			if k.run == l.run && k.retry != l.retry && k.asked(0)&k.accepted&^k.counted&l.asked(0)&l.accepted != 0 {
				return false
			}
		}
	}
	return true
}

// retriesAll compares the claims under which failures were recorded with the last handled
// retry. None may be older.
func (e *environment) retriesAll(s state) bool {
	o := &s.tasks[0]
	failed := e.failed(&s, 0)
	for i, target := range e.targets(0) {
		if target&failed != 0 && !o.newRun() && s.call(o.record[i].claim).retry != o.retry {
			return false
		}
	}
	return true
}

// countsTruly covers the run that a task asks for, if the status refers to it. An
// execution may only be unrecorded while the task still has its claim, or after a retry of
// its failure.
func (e *environment) countsTruly(s state) bool {
	for t := range s.tasks {
		o := &s.tasks[t]
		for id := uint8(1); id <= s.signed && o.exists && !o.newRun(); id++ {
			k := s.call(id)
			if k.runOf(t) != o.run || o.claim == id {
				continue
			}
			counts := k.asked(t) & k.accepted
			if k.retryOf(t) < o.retry {
				counts &^= k.counted
			}
			for p, target := range e.targets(t) {
				if r := o.record[p].job; target&counts != 0 && (r == 0 || r == refused) {
					return false
				}
			}
		}
	}
	return true
}

func (e *environment) adoptsNoneOlder(s state) bool {
	return e.everyRecord(&s, func(k *call, _ int, r record) bool { return k.signed >= r.claim })
}

// adoptsSameSemantics ignores the other program's jobs, because the history does not show
// how they fetched.
func (e *environment) adoptsSameSemantics(s state) bool {
	return e.everyRecord(&s, func(k *call, t int, r record) bool {
		return r.job == foreign || e.semanticsOf(k) == e.semantics(t, s.tasks[t].run)
	})
}

func (e *environment) everyRecord(s *state, holds func(job *call, t int, r record) bool) bool {
	for t := range s.tasks {
		for _, r := range s.tasks[t].record {
			if r.job != 0 && r.job != refused && !holds(s.call(r.job), t, r) {
				return false
			}
		}
	}
	return true
}

// losesNone covers the states in which nothing is left to do. A user who deletes a task or
// asks for a new run gives up the earlier calls of the task. A claim that waits for user
// action is not a loss.
func (e *environment) losesNone(s state) bool {
	for id := uint8(1); id <= s.signed; id++ {
		k := s.call(id)
		if k.accepted == 0 || e.recorded(&s, id) {
			continue
		}
		for t := range s.tasks {
			if o := &s.tasks[t]; o.exists && o.wants == 1 && o.claim != id && k.asked(t)&k.accepted != 0 && e.ended(s) {
				return false
			}
		}
	}
	return true
}

func (e *environment) recorded(s *state, job uint8) bool {
	for t := range s.tasks {
		o := &s.tasks[t]
		if o.exists && (o.record[0].job == job || o.record[1].job == job || o.retried.has(job)) {
			return true
		}
	}
	return false
}
