package model

// execute executes a request before its signature expires, or refuses it. The other
// program is a client too.
func (u *refreshTurn) execute(id uint8) {
	k := u.s.call(id)
	create := func(accepted urls, fault bool) {
		n := u.s
		k := n.call(id)
		k.request, k.accepted, k.signed, k.closed = executed, accepted, n.signed, n.closed
		l := event{"EdgeOne executes {call}: {job} is a {action} of {targets}", id, k.prefetch, accepted}
		u.moves = append(u.moves, refreshMove{n, l, fault})
	}
	switch {
	case id == foreignPurge && k.request == unsent && u.Foreign:
		for _, one := range []urls{a, b} {
			if one&u.all() != 0 {
				create(one, true)
			}
		}
		create(u.all(), true)
	case k.request == underWay:
		create(k.planned, false)
		if u.Partial && k.planned == a|b {
			create(a, true)
			create(b, true)
		}
		if k.stage == awaits { // without a caller, this is the same as never executing it
			n := u.s
			n.call(id).request = dropped
			u.mayFail(n, event{"EdgeOne refuses {call}: not executed", id, k.prefetch, k.planned})
		}
	}
}

// work ends a target of a job: a purge deletes the copies, and a prefetch fills the cache
// where there is no copy.
func (u *refreshTurn) work(id uint8) {
	for i := range u.s.cache {
		target := urls(1 << i)
		n := u.s
		k := n.call(id)
		if k.unfinished()&target == 0 {
			continue
		}
		if u.Failing && id != foreignPurge {
			k.failed |= target
			u.mayFail(n, event{"the {action} of {targets} in {job} fails at EdgeOne", id, k.prefetch, target})
			n = u.s
		}
		if u.Slow && k.prefetch && k.fetched[i] == 0 {
			k.fetched[i] = uint8(n.origin) + 1
			u.may(n, event{"{job} reads {targets} from the origin", id, true, target})
			continue
		}
		k.done |= target
		if k.prefetch {
			version := n.origin
			if u.Slow {
				version = copies(k.fetched[i] - 1)
			}
			n.fill(i, version)
			u.may(n, event{"the prefetch of {targets} in {job} ends at EdgeOne", id, true, target})
			continue
		}
		for j := range n.cache {
			if u.cover(target)>>j&1 != 0 {
				n.purge(j, id == foreignPurge)
			}
		}
		u.may(n, event{"the purge of {targets} in {job} deletes the copies at EdgeOne", id, false, target})
	}
}

func (s *refreshState) fill(i int, version copies) {
	if s.cache[i] >= purged {
		s.cache[i] = version
	}
}

func (s *refreshState) purge(i int, foreign bool) {
	switch {
	case s.cache[i] >= purged:
	case foreign:
		s.cache[i] = taken
	default:
		s.cache[i] = purged
	}
}

// time passes the fence of a call, and the margin after it. From the fence on, EdgeOne
// refuses the request.
func (u *refreshTurn) time() {
	if u.s.closed == u.s.signed {
		return
	}
	n := u.s
	n.closed++
	if k := n.call(n.closed); k.request == underWay {
		k.request = dropped
	}
	u.may(n, event{text: "the fence of {call} and the margin pass", call: n.closed})
}

// visit lets a visitor ask for a URL that is not cached.
func (u *refreshTurn) visit() {
	for i, c := range u.s.cache {
		if c >= purged {
			n := u.s
			n.fill(i, n.origin)
			u.mayFail(n, event{text: "a visitor asks for {targets}", targets: 1 << i})
		}
	}
}

// trouble covers the actions of the user. The origin has the new version before the user
// asks for the run.
func (u *refreshTurn) trouble() {
	n := u.s
	o := n.task
	n.user++
	l := event{text: "the user publishes a version and asks for a new run"}
	switch {
	case (u.User == "edits" || u.User == "reverts") && u.s.user == 0:
		o.wants, n.origin = 2, 2
	case u.User == "reverts" && u.s.user == 1 && o.run != 2: // or it is one more run
		o.wants = 1
		l.text = "the user wants the old run after all"
	case u.User == "re-creates" && u.s.user == 0:
		o = refreshTask{}
		l.text = "the user deletes the task"
	case u.User == "re-creates" && u.s.user == 1:
		o, n.origin = refreshTask{exists: true, wants: 2}, 2
		l.text = "the user publishes a version and creates the task again"
	default:
		return
	}
	n.write(o)
	u.mayFail(n, l)
}

// hasEnded reports that the run has an outcome for every URL, or cannot continue because
// of the limit on calls.
func (e *refresh) hasEnded(s refreshState) bool {
	o := &s.task
	if !o.exists {
		return true
	}
	needsCall := o.newRun() || o.claim == 0 && in(o.purges, open)|e.toFetch(o) != 0
	if needsCall && s.signed == e.Calls {
		return true
	}
	return !o.newRun() && o.claim == 0 && e.isDone(o) && o.asked == o.retry
}

// start has a copy of an old version of each URL. The origin serves the new one.
func (e *refresh) start() refreshState {
	return refreshState{task: refreshTask{exists: true, wants: 1}, origin: 1}
}

// reduce maps a state to an equivalent one, like reduce of the other machine.
func (e *refresh) reduce(s refreshState) refreshState {
	if e.Whole || e.Lacks != "" {
		return s
	}
	asked := ids(1 << s.task.claim &^ 1) // the calls that are looked up, now or once they are claimed
	for id := uint8(1); id <= s.signed; id++ {
		k := s.call(id)
		if k.stage == claims && !k.current { // it can only meet a conflict
			k.end()
		}
		if k.stage == claims {
			asked |= 1 << id
		}
		if k.stage == sends && s.closed < id {
			// The network may delay the request for as long as its sender may pause.
			k.stage, k.request = awaits, underWay
		}
		if k.stage != claims && s.task.claim != id {
			k.end() // left alone
		}
		if k.stage == ended && k.request == unsent {
			k.request = dropped
		}
		if k.stage == ended && k.request == dropped && s.task.claim != id {
			*k = refreshCall{request: dropped}
		}
	}
	// Fences of calls that nobody waits for are irrelevant.
	for s.closed < s.signed && !asked.has(s.closed+1) && s.calls[s.closed].request != underWay {
		s.closed++
	}
	for i := range s.calls {
		if k := &s.calls[i]; k.request == executed {
			k.signed, k.closed = asked.newest(k.signed), asked.newest(k.closed)
			if k.stage == ended && s.task.claim != uint8(i+1) {
				k.planned = 0
			}
		}
	}
	return s
}
