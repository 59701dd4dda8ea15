// Package model checks the submission protocol, claim → call → record → settle, in every
// order in which its steps and faults can happen.
//
//	go test ./test/model                     # the smaller environments
//	go test ./test/model -v                  # also prints what was explored, and a trace for each weaker variant
//	go test ./test/model -v -timeout 2h -args -exhaustive   # the larger environments as well
//
// checker.go explores any machine of states and steps. protocol.go is the protocol as such
// a machine: two tasks with up to two URLs each, up to three calls, and an adversarial
// environment. promise.go has the properties that must hold. reduce.go defines which
// states are equivalent. model_test.go lists the environments in which the protocol must
// hold, and the weaker variants that must fail. refresh.go is another machine: a run that
// purges its URLs before it prefetches them.
//
// # What the model represents
//
// The model has no processes. It represents a process only by its possible next steps. So
// each call has a caller that may stop for good at any moment, and any process may look up
// a claim. With Shared set, there are any number of processes, and each believes that it
// leads. Without it, there is one process with one call per lane at a time, which does not
// look up its own calls. Only the number of calls limits faults: each call may be lost,
// partly acknowledged and abandoned.
//
// The model has no caches either. A decision from a stale copy of a task is a decision
// that was made before the writes that the copy has missed. When the decision is carried
// out, the optimistic lock of the write decides. A stale copy of the *other* task may hide
// a claim or a record. With Shared set, the model tries both possibilities wherever the
// protocol reads the other task.
//
// After a failed write of a response, or one whose acknowledgement is lost, the operator
// reads the task live. In the model this is one of two steps: leave the task alone because
// the claim is gone, or write again because it is not.
//
// In environments with retries, EdgeOne also reports how the jobs of the first task end,
// target by target. Whether a target succeeded or failed is decided when it is read for
// the first time. In other environments a target is done once it is handed over.
//
// The model omits what changes only when something happens, and not what: back-off and
// slow retry after calls that were settled as not executed, holds, and the limiter. It
// also omits that a retry is refused if no source shows any more which targets failed.
//
// The model omits seconds too. EdgeOne's clocks differ, so the operator starts the window
// of a claim some seconds before its signature, and excludes jobs in these seconds that it
// knows to belong to other calls. Here the window starts with the claim, which gives the
// same result for every known job. An unknown job, of a task that was deleted within these
// seconds, counts as executed, like a job of another program.
package model

import (
	"math/bits"
	"strings"
)

const maxCalls = 3

// foreign is the number of the job that another program submits.
const foreign = maxCalls + 1

// urls is a set of URLs.
type urls uint8

const (
	a urls = 1 << iota
	b
	c
)

func (u urls) String() string {
	var names []string
	for i, name := range []string{"a", "b", "c"} {
		if u>>i&1 != 0 {
			names = append(names, name)
		}
	}
	return "{" + strings.Join(names, ",") + "}"
}

func (u urls) len() int { return bits.OnesCount8(uint8(u)) }

// tasks is a set of tasks.
type tasks uint8

func (ts tasks) has(t int) bool { return ts>>t&1 != 0 }

func only(t int) tasks { return 1 << t }

// task is a task as stored in the API server.
type task struct {
	exists bool
	wants  uint8     // the run that the spec asks for
	run    uint8     // the run that the status refers to; 0 if none
	claim  uint8     // the call with unknown outcome; 0 if none
	record [2]record // by target
	found  finding   // what a look-up found and nothing has written yet

	ended   urls  // the URLs whose success or failure the status knows
	asked   uint8 // the last retry that the user asked for
	retry   uint8 // the last retry that the status records as handled
	retried ids   // the jobs of the targets that a retry has reopened
}

// record is what the status says about a target. Either nothing is recorded; or job has
// the target, recorded under claim; or job is refused, because EdgeOne refused the target.
type record struct{ job, claim uint8 }

const refused = 15 // in place of a job

// finding is the result of a look-up for a claimed task: for each target the job that
// lists it, or 0. A write to the task voids it, because the resulting write is locked.
type finding struct {
	made bool
	job  [2]uint8
}

func (t *task) newRun() bool { return t.run != t.wants }

// call is everything about one claim ID: the plan, the caller's stage, the only request
// that may be sent for it, and the job that the request created.
type call struct {
	stage   stage
	todo    tasks   // tasks that this stage still has to write
	current tasks   // tasks that have not been written since they were planned
	unsure  tasks   // tasks whose claim was not acknowledged
	claimed tasks   // tasks whose claim was acknowledged; the call is sent for them
	run     uint8   // the first task's run when planned
	retry   uint8   // the first task's retry when planned
	planned [2]urls // by task

	request        request
	stale          bool // signed after the claim's fence; only a weaker variant does that
	accepted       urls // the URLs of the job
	listed         urls // the URLs of the job that the history shows
	failed         urls // the URLs of the job that were read as failed
	counted        urls // the claimed URLs that were read as failed, in this job or in another job taken for it
	signed, fenced uint8
	closed         uint8 // with signed and fenced: the state's counters when the job was created
}

type stage uint8

const (
	over stage = iota // done, or the caller is gone
	claiming
	sending
	awaiting
	recording
	releasing
)

type request uint8

const (
	unsent request = iota
	underWay
	dropped // not executed, and never will be
	executed
)

func (k *call) urls() urls { return k.planned[0] | k.planned[1] }

// asked returns the URLs that the call was sent for on behalf of a task.
func (k *call) asked(t int) urls {
	if !k.claimed.has(t) {
		return 0
	}
	return k.planned[t]
}

// state is the state of the API server, of EdgeOne, and of everything between them. Calls
// serve as the clock. They are numbered in the order of their signatures, so their fences
// pass in that order.
type state struct {
	tasks     [2]task
	calls     [foreign]call // the last one is the other program's
	signed    uint8         // number of calls so far
	fenced    uint8         // calls 1 to fenced can no longer execute
	closed    uint8         // the margin after the fence of calls 1 to closed has passed
	forgotten uint8         // the history no longer includes the time of calls 1 to forgotten
	user      uint8         // number of the user's changes so far
	looks     access
}

// access is whether the operator may read EdgeOne's history.
type access uint8

const (
	allowed access = iota
	denied
	allowedAgain
)

func (s *state) call(id uint8) *call { return &s.calls[id-1] }

// write stores a new version of a task. It voids what was planned or found for the
// previous version.
func (s *state) write(t int, o task) {
	o.found = finding{}
	s.tasks[t] = o
	for i := range s.calls {
		s.calls[i].current &^= only(t)
	}
}

// environment defines what may happen.
type environment struct {
	Calls   uint8  // number of calls in total
	Alone   bool   // only the first task exists
	Shared  bool   // several processes act, and caches may hide what others do
	Overlap bool   // both tasks have URL b
	Lanes   bool   // the tasks fetch in different ways, and share no call
	User    string // what the user does to the first task: "edits", "reverts", "deletes" or "re-creates"
	Other   bool   // after this, the first task fetches in another way than before
	Partial bool   // EdgeOne refuses some URLs of a call
	Growing bool   // the history shows a job URL by URL
	Denied  bool   // reading the history is refused for a while
	Foreign bool   // another program submits one of the URLs, or two
	Forgets bool   // the history has a limited retention
	Retries uint8  // how many times the user asks for a retry of the first task
	Lacks   weakness
	Whole   bool // disables the reduction of states
}

// weakness is the safeguard that a weaker variant of the protocol lacks.
type weakness string

const (
	noLock             weakness = "no lock on the claim"
	fenceAfterLook     weakness = "fence after the look-up"
	signedWhenSent     weakness = "signed when sent"
	readYourWrites     weakness = "no claim, only reading one's own writes"
	lostMeansFailed    weakness = "create-pending, with a time-out taken for a failure"
	recordedElsewhere  weakness = "recorded elsewhere, so not ours"
	earlyPartial       weakness = "early adoption of a part"
	windowTooEarly     weakness = "a window that starts before the claim"
	sentUnacknowledged weakness = "sending a task whose claim was not acknowledged"
	shortMargin        weakness = "listing takes longer than the margin"
	forgottenReleased  weakness = "releasing what the history forgot"
	deniedReleased     weakness = "releasing when looking is refused"
	newRunAtOnce       weakness = "a new run that fetches in another way and does not wait"
	oldRunForgotten    weakness = "dropping the claim of an old run without a look"
	endlessHold        weakness = "a claim that holds other tasks' URLs until it is settled"
	retryAtOnce        weakness = "a retry that does not wait for the end of the run"
	retryOpensFirst    weakness = "a retry that is noted after what it opens"
	retryNotedFirst    weakness = "a retry that is noted before what it opens"
	failedTaken        weakness = "a retry that may take the job that failed for its own"
)

// targets returns the URLs of a task by position; 0 means none.
func (e *environment) targets(t int) [2]urls {
	switch {
	case t == 0:
		return [2]urls{a, b}
	case e.Overlap:
		return [2]urls{b, c}
	}
	return [2]urls{c}
}

// semantics returns how a task's run fetches its URLs.
func (e *environment) semantics(t int, run uint8) uint8 {
	switch {
	case t == 0 && run == 2 && e.Other:
		return 2
	case t == 1 && e.Lanes:
		return 1
	}
	return 0
}

func (e *environment) semanticsOf(k *call) uint8 {
	if k.planned[0] != 0 {
		return e.semantics(0, k.run)
	}
	return e.semantics(1, 1)
}

// open returns the URLs that the requested run of a task still has to hand over.
func (e *environment) open(t int, o *task) (open urls) {
	for i, u := range e.targets(t) {
		if o.newRun() || o.record[i].job == 0 {
			open |= u
		}
	}
	return open
}

// retryOf returns the retry that a call belongs to if it is planned for the task now. A
// new run ignores retries that were requested before it started.
func (e *environment) retryOf(o *task) uint8 {
	if o.newRun() || e.Lacks == retryOpensFirst {
		return o.asked
	}
	return o.retry
}

// failed returns the targets that EdgeOne refused or that failed, according to the status.
func (e *environment) failed(s *state, t int) (failed urls) {
	o := &s.tasks[t]
	for i, target := range e.targets(t) {
		switch job := o.record[i].job; job {
		case 0:
		case refused:
			failed |= target
		default:
			failed |= target & o.ended & s.call(job).failed
		}
	}
	return failed
}

// unread returns the targets in jobs whose outcome the status does not know.
func (e *environment) unread(t int, o *task) (unread urls) {
	for i, target := range e.targets(t) {
		if job := o.record[i].job; job != 0 && job != refused {
			unread |= target &^ o.ended
		}
	}
	return unread
}

// retryDue reports whether a retry is requested and its targets are known.
func (e *environment) retryDue(t int, o *task) bool {
	if !o.exists || o.newRun() || o.asked <= o.retry {
		return false
	}
	return o.claim == 0 && e.open(t, o)|e.unread(t, o) == 0 || e.Lacks == retryAtOnce
}

// waiting reports whether a task needs a call. A new run waits for an unsettled call of
// the previous run only if that call fetches in another way, and only until the call can
// no longer be executed. The old claim stays until the new run is claimed, because the
// user may change back to the old run.
func (e *environment) waiting(s *state, t int) bool {
	o := &s.tasks[t]
	if !o.exists || o.claim == 0 {
		return o.exists && e.open(t, o) != 0
	}
	same := e.semantics(t, o.run) == e.semantics(t, o.wants)
	return o.newRun() && (same || s.closed >= o.claim || e.Lacks == newRunAtOnce)
}

// held reports whether a claim, in any lane, holds URLs that the task needs. The hold ends
// with the margin after the claim's fence: a later job is not in the claim's window.
func (e *environment) held(s *state, t int) bool {
	open := e.open(t, &s.tasks[t])
	for i := range s.calls {
		if k := &s.calls[i]; k.stage != over && !e.Shared && k.urls()&open != 0 {
			return true
		}
	}
	other := &s.tasks[1-t]
	ended := s.closed >= other.claim && e.Lacks != endlessHold
	return other.exists && other.claim != 0 && !other.newRun() && !ended && e.open(1-t, other)&open != 0
}

type move = step[state, label]

// turn collects the possible next steps.
type turn struct {
	*environment
	s     state
	moves []move
}

func (u *turn) may(to state, l label) { u.moves = append(u.moves, move{to: to, label: l}) }

func (u *turn) mayFail(to state, l label) {
	u.moves = append(u.moves, move{to: to, label: l, fault: true})
}

func (e *environment) next(s state, moves []move) []move {
	u := turn{e, s, moves}
	for id := uint8(1); id <= s.signed; id++ {
		u.carryOn(id)
	}
	for t := range s.tasks {
		u.settle(t)
		u.look(t)
	}
	u.plan()
	for id := uint8(1); id <= foreign; id++ {
		u.edgeOne(id)
	}
	u.time()
	u.trouble()
	if u.Retries > 0 {
		u.follow()
		u.reopen()
	}
	return u.moves
}

// plan signs a call for any subset of the ready tasks. A task that becomes ready later is
// not part of the call.
func (u *turn) plan() {
	if u.s.signed == u.Calls {
		return
	}
	var ready, held tasks
	for t := range u.s.tasks {
		if u.waiting(&u.s, t) {
			ready |= only(t)
			if u.held(&u.s, t) {
				held |= only(t)
			}
		}
	}
	if !u.Shared {
		ready &^= held
	}
	for chosen := tasks(1); chosen < 4; chosen++ {
		if chosen&^ready != 0 || chosen == 3 && u.semantics(0, u.s.tasks[0].wants) != u.semantics(1, 1) {
			continue
		}
		n := u.s
		n.signed++
		k := n.call(n.signed)
		k.stage, k.todo, k.current = claiming, chosen, chosen
		for t := range n.tasks {
			if chosen.has(t) {
				k.planned[t] = u.open(t, &n.tasks[t])
			}
		}
		if chosen.has(0) {
			k.run, k.retry = n.tasks[0].wants, u.retryOf(&n.tasks[0])
		}
		if u.Lacks == readYourWrites {
			k.stage, k.todo, k.claimed = sending, 0, chosen
		}
		if !u.Shared && u.laneBusy(&n, n.signed) {
			continue
		}
		l := label{text: "{call} is planned for {tasks} and signed", call: n.signed, tasks: chosen}
		if chosen&held != 0 {
			u.mayFail(n, l) // a stale cache does not show the other claim
		} else {
			u.may(n, l)
		}
	}
}

// laneBusy reports whether the lane of a call has another call that is not finished.
func (e *environment) laneBusy(s *state, id uint8) bool {
	for other := uint8(1); other < id; other++ {
		if s.call(other).stage != over && e.semanticsOf(s.call(other)) == e.semanticsOf(s.call(id)) {
			return true
		}
	}
	return false
}

// carryOn makes the next step of a caller, or ends the caller.
func (u *turn) carryOn(id uint8) {
	k := u.s.call(id)
	switch k.stage {
	case over:
		return
	case claiming:
		u.claim(id)
	case sending:
		u.send(id)
	case awaiting:
		u.answer(id)
	case recording, releasing:
		u.conclude(id)
	}
	for t := range u.s.tasks {
		if k.unsure.has(t) {
			n := u.s
			n.call(id).unsure &^= only(t)
			u.release(&n, t, id)
			u.may(n, label{text: "the claim of {call} on {tasks} was not acknowledged: released", call: id, tasks: only(t)})
		}
	}
	n := u.s
	n.call(id).end()
	u.mayFail(n, label{text: "whoever makes {call} dies, or gets no answer", call: id})
}

func (k *call) end() { k.stage, k.todo, k.current, k.unsure = over, 0, 0, 0 }

// claim writes the intent to the next task under the optimistic lock. It succeeds only for
// the version that was planned.
func (u *turn) claim(id uint8) {
	for t := range u.s.tasks {
		k := u.s.call(id)
		if !k.todo.has(t) {
			continue
		}
		o := u.s.tasks[t]
		done := func(n state, acknowledged, unsure bool) state {
			k := n.call(id)
			k.todo &^= only(t)
			if acknowledged {
				k.claimed |= only(t)
			}
			if unsure {
				k.unsure |= only(t)
			}
			if k.todo == 0 {
				k.stage = sending
				if k.claimed == 0 && k.unsure == 0 {
					k.end()
				}
			}
			return n
		}
		if !k.current.has(t) && (u.Lacks != noLock || !o.exists) {
			u.may(done(u.s, false, false), label{text: "the claim of {call} on {tasks} meets a conflict", call: id, tasks: only(t)})
			if u.Lacks == sentUnacknowledged {
				u.mayFail(done(u.s, true, false), label{text: "the claim of {call} on {tasks} meets a conflict, but that answer is lost", call: id, tasks: only(t)})
			}
			continue
		}
		if o.newRun() {
			o.record, o.ended, o.retried, o.retry = [2]record{}, 0, 0, o.asked
		}
		o.run, o.claim = o.wants, id
		n := u.s
		n.write(t, o)
		u.may(done(n, true, false), label{text: "{tasks} is claimed for {call}", call: id, tasks: only(t)})
		sends := u.Lacks == sentUnacknowledged
		u.mayFail(done(n, sends, !sends), label{text: "{tasks} is claimed for {call}, but the acknowledgement is lost", call: id, tasks: only(t)})
	}
}

// send sends the call for the tasks whose claims were acknowledged. The signature has the
// time of the claim.
func (u *turn) send(id uint8) {
	n := u.s
	k := n.call(id)
	switch {
	case k.claimed == 0:
		k.end()
		u.may(n, label{text: "{call} has nobody to be sent for", call: id})
	case n.fenced >= id && u.Lacks != signedWhenSent:
		k.stage, k.todo = releasing, k.claimed
		u.may(n, label{text: "{call} is too old to be sent", call: id})
	default:
		k.stage, k.request, k.stale = awaiting, underWay, n.fenced >= id
		u.may(n, label{text: "{call} is sent for {tasks}", call: id, tasks: k.claimed})
	}
}

// answer delivers EdgeOne's response. If there is none, carryOn ends the caller.
func (u *turn) answer(id uint8) {
	n := u.s
	k := n.call(id)
	k.todo = k.claimed
	switch k.request {
	case executed:
		k.stage = recording
		u.may(n, label{text: "the answer to {call} arrives", call: id})
	case dropped:
		k.stage = releasing
		u.may(n, label{text: "the answer to {call} says that it was not executed", call: id})
	}
	if u.Lacks == lostMeansFailed {
		k.stage = releasing
		u.mayFail(n, label{text: "the answer to {call} does not come", call: id})
	}
}

// conclude writes the response to the next task, if the task still has the claim.
func (u *turn) conclude(id uint8) {
	for t := range u.s.tasks {
		k := u.s.call(id)
		if !k.todo.has(t) {
			continue
		}
		n := u.s
		l := label{text: "{tasks} is released from {call}", call: id, tasks: only(t)}
		switch o := n.tasks[t]; {
		case !o.exists || o.claim != id && u.Lacks != readYourWrites:
			l.text = "{tasks} is left alone: it no longer carries {call}"
		case k.stage == releasing:
			u.release(&n, t, id)
		default:
			l.text = "{job} is recorded on {tasks}"
			for i, target := range u.targets(t) {
				switch {
				case target&k.planned[t]&k.accepted != 0:
					o.record[i] = record{id, id}
				case target&k.planned[t] != 0:
					o.record[i] = record{refused, id}
				}
			}
			o.run, o.claim = max(o.run, 1), 0
			n.write(t, o)
			u.mayFail(n, label{text: "{job} is recorded on {tasks}, but the acknowledgement is lost", call: id, tasks: only(t)})
		}
		if n.call(id).todo &^= only(t); n.call(id).todo == 0 {
			n.call(id).end()
		}
		u.may(n, l)
	}
}

func (u *turn) release(s *state, t int, id uint8) {
	if o := s.tasks[t]; o.exists && o.claim == id {
		o.claim = 0
		s.write(t, o)
	}
}

// look looks up a claimed task in the history and stores the result for settle. It finds
// nothing out while reading is refused, or if the history no longer includes the claim's
// time.
func (u *turn) look(t int) {
	o := &u.s.tasks[t]
	id := o.claim
	if !o.exists || id == 0 || o.found.made || !u.Shared && u.s.call(id).stage != over {
		return // a second look-up finds no less, and equals a first look-up that happens later
	}
	if u.s.looks == denied && u.Lacks != deniedReleased {
		return
	}
	closed := u.s.closed >= id
	find := func(f finding) {
		n := u.s
		n.tasks[t].found = f
		u.may(n, label{text: "a look for {call} of {tasks} finds {found}", call: id, tasks: only(t), found: f.job})
	}
	switch {
	case o.newRun(): // the spec no longer has the URLs of the claim
		if closed && u.Lacks == oldRunForgotten {
			find(finding{made: true})
		}
		return
	case u.s.forgotten >= id && u.Lacks != forgottenReleased:
		return
	}
	for _, shown := range []bool{true, false} { // whether the cache shows what is recorded on the other task
		if !shown && !u.Shared {
			break
		}
		for _, lowest := range []bool{true, false} { // which of two equivalent jobs comes first
			f := u.evidence(t, closed, shown, lowest)
			if f.job != [2]uint8{} || closed || u.Lacks == fenceAfterLook {
				find(f)
			}
		}
	}
}

// evidence decides which jobs have the open targets of a claimed task. Before the fence
// and its margin have passed, only a job counts that lists all of them and is not recorded
// under another claim. Afterwards every job in the window counts, and the most likely one
// wins.
func (u *turn) evidence(t int, closed, shown, lowest bool) finding {
	o := &u.s.tasks[t]
	open := u.open(t, o)
	f := finding{made: true}
	best := [2]int{}
	for i := uint8(1); i <= foreign; i++ {
		job := i
		if !lowest {
			job = foreign + 1 - i
		}
		lists := u.listed(job, t)
		elsewhere := u.elsewhere(job, t, shown)
		early := !closed && (elsewhere || lists&open != open && u.Lacks != earlyPartial)
		if lists&open == 0 || early || elsewhere && u.Lacks == recordedElsewhere {
			continue
		}
		score := 1000 + 2*(lists&open).len() - lists.len()
		if lists == u.s.call(o.claim).urls() {
			score += 100
		}
		if elsewhere {
			score -= 500
		}
		for p, target := range u.targets(t) {
			if target&open&lists != 0 && score > best[p] {
				f.job[p], best[p] = job, score
			}
		}
	}
	return f
}

// listed returns the URLs that the history shows of a job in the window of a task's claim.
// The window lasts from the signature of the claim to the end of the margin after its
// fence. EdgeOne's times have a precision of one second, so a job that failed just before
// the claim may seem to be in the window, but the claim knows these jobs.
func (u *turn) listed(job uint8, t int) urls {
	k, o := u.s.call(job), &u.s.tasks[t]
	claim := o.claim
	switch {
	case u.Lacks == failedTaken && o.retried.has(job):
	case u.s.looks == denied, k.signed <= u.s.forgotten:
		return 0
	case k.signed < claim && u.Lacks != windowTooEarly, k.closed >= claim:
		return 0
	}
	return k.listed
}

// elsewhere reports whether a job is recorded under another claim than the task's.
func (u *turn) elsewhere(job uint8, t int, shown bool) bool {
	for q := range u.s.tasks {
		if o := &u.s.tasks[q]; o.exists && (q == t || shown) {
			if o.retried.has(job) {
				return true
			}
			for _, r := range o.record {
				if r.job == job && r.claim != u.s.tasks[t].claim {
					return true
				}
			}
		}
	}
	return false
}

// settle writes what a look-up found. Targets that no job lists become open again.
func (u *turn) settle(t int) {
	o := u.s.tasks[t]
	id := o.claim
	if !o.found.made || u.Lacks == fenceAfterLook && o.found.job == [2]uint8{} && u.s.closed < id {
		return
	}
	for i, job := range o.found.job {
		if job != 0 {
			o.record[i] = record{job, id}
		}
	}
	o.claim = 0
	n := u.s
	n.write(t, o)
	u.may(n, label{text: "what was found for {call} is written to {tasks}: {found}", call: id, tasks: only(t), found: u.s.tasks[t].found.job})
}

// edgeOne executes a request before its signature expires, or responds that it did not.
// Later it lists the job. The other program is a client too.
func (u *turn) edgeOne(id uint8) {
	k := u.s.call(id)
	execute := func(accepted urls, fault bool) {
		n := u.s
		k := n.call(id)
		k.request, k.accepted, k.signed, k.fenced, k.closed = executed, accepted, n.signed, n.fenced, n.closed
		u.moves = append(u.moves, move{n, label{text: "EdgeOne executes {call}: {job} has {urls}", call: id, urls: accepted}, fault})
	}
	switch {
	case id == foreign && k.request == unsent && u.Foreign:
		execute(b, true)
		execute(a|b, true)
	case k.request == underWay && u.s.fenced >= id && !k.stale:
		n := u.s
		n.call(id).request = dropped
		u.may(n, label{text: "EdgeOne finds the signature of {call} too old", call: id})
	case k.request == underWay:
		sent := k.asked(0) | k.asked(1)
		execute(sent, false)
		if u.Partial {
			execute(0, true)
			for _, one := range []urls{a, b, c} {
				if sent&one != 0 && sent != one {
					execute(sent&^one, true)
				}
			}
		}
		if k.stage == awaiting { // without a caller, this is the same as never executing it
			n := u.s
			n.call(id).request = dropped
			u.mayFail(n, label{text: "EdgeOne refuses {call}: not executed", call: id})
		}
	case k.listed != k.accepted && !u.Growing:
		n := u.s
		n.call(id).listed = k.accepted
		u.may(n, label{text: "the history shows {job}", call: id})
	case k.listed != k.accepted:
		for _, one := range []urls{a, b, c} {
			if (k.accepted&^k.listed)&one != 0 {
				n := u.s
				n.call(id).listed |= one
				u.may(n, label{text: "the history shows {urls} of {job}", call: id, urls: one})
			}
		}
	}
}

// time passes fences, the margins after them, and the retention of the history. The margin
// is long enough to list all jobs that were executed before the fence.
func (u *turn) time() {
	if u.s.fenced < u.s.signed {
		n := u.s
		n.fenced++
		u.may(n, label{text: "the fence of {call} passes", call: n.fenced})
	}
	if u.s.closed < u.s.fenced && (u.listingDone() || u.Lacks == shortMargin) {
		n := u.s
		n.closed++
		u.may(n, label{text: "the margin after the fence of {call} passes", call: n.closed})
	}
	if u.Forgets && u.s.forgotten < u.s.closed {
		n := u.s
		n.forgotten++
		u.mayFail(n, label{text: "the history forgets the time of {call}", call: n.forgotten})
	}
}

func (u *turn) listingDone() bool {
	for i := range u.s.calls {
		if k := &u.s.calls[i]; k.listed != k.accepted && k.fenced <= u.s.closed {
			return false
		}
	}
	return true
}

// trouble covers the actions of the user and the permissions of the key.
func (u *turn) trouble() {
	n := u.s
	o := n.tasks[0]
	n.user++
	switch {
	case (u.User == "edits" || u.User == "reverts") && u.s.user == 0:
		o.wants = 2
		n.write(0, o)
		u.mayFail(n, label{text: "the user asks {tasks} for a new run", tasks: only(0)})
	case u.User == "reverts" && u.s.user == 1 && o.run != 2: // or it is one more run
		o.wants = 1
		n.write(0, o)
		u.mayFail(n, label{text: "the user wants the old run of {tasks} after all", tasks: only(0)})
	case (u.User == "deletes" || u.User == "re-creates") && u.s.user == 0:
		n.write(0, task{})
		u.mayFail(n, label{text: "the user deletes {tasks}", tasks: only(0)})
	case u.User == "re-creates" && u.s.user == 1:
		n.write(0, task{exists: true, wants: 2})
		u.mayFail(n, label{text: "the user creates {tasks} again", tasks: only(0)})
	}
	switch n := u.s; {
	case u.Denied && n.looks == allowed:
		n.looks = denied
		u.mayFail(n, label{text: "looking is refused"})
	case n.looks == denied:
		n.looks = allowedAgain
		u.may(n, label{text: "looking is allowed again"})
	}
}

// follow writes how a target of a job ended.
func (u *turn) follow() {
	for t := range u.s.tasks[:1] {
		o := u.s.tasks[t]
		if !o.exists || o.newRun() || u.s.looks == denied {
			continue
		}
		for i, target := range u.targets(t) {
			if target&u.unread(t, &o) == 0 {
				continue
			}
			id, claim := o.record[i].job, o.record[i].claim
			after := o
			after.ended |= target
			n := u.s
			n.write(t, after)
			if n.call(id).failed&target == 0 {
				u.may(n, label{text: "{urls} of {job} succeeded: written to {tasks}", call: id, urls: target, tasks: only(t)})
			}
			n.call(id).failed |= target
			n.call(claim).counted |= target
			u.mayFail(n, label{text: "{urls} of {job} failed: written to {tasks}", call: id, urls: target, tasks: only(t)})
		}
	}
}

// reopen covers the user's request for a retry, and the single write that handles it.
func (u *turn) reopen() {
	for t := range u.s.tasks[:1] {
		o := u.s.tasks[t]
		if o.exists && o.asked < u.Retries {
			asked := o
			asked.asked++
			n := u.s
			n.write(t, asked)
			u.mayFail(n, label{text: "the user asks for a retry of {tasks}", tasks: only(t)})
		}
		if !u.retryDue(t, &o) {
			continue
		}
		again := u.failed(&u.s, t)
		if u.Lacks == retryAtOnce {
			again |= u.unread(t, &o)
		}
		opened := o
		for i, target := range u.targets(t) {
			if target&again == 0 {
				continue
			}
			if job := o.record[i].job; job != refused {
				opened.retried |= 1 << job
			}
			opened.record[i] = record{}
			opened.ended &^= target
		}
		noted := o
		noted.retry = o.asked
		n := u.s
		switch u.Lacks {
		case retryOpensFirst:
			n.write(t, opened)
			u.mayFail(n, label{text: "{urls} of {tasks} are opened, and whoever would note the retry dies", urls: again, tasks: only(t)})
		case retryNotedFirst:
			n.write(t, noted)
			u.mayFail(n, label{text: "the retry of {tasks} is noted, and whoever would open {urls} dies", urls: again, tasks: only(t)})
		}
		opened.retry = o.asked
		n.write(t, opened)
		u.may(n, label{text: "a retry opens {urls} of {tasks}", urls: again, tasks: only(t)})
	}
}

// ended reports that every task is done, or needs user action because the history has
// forgotten its call, or cannot continue because of the limit on calls.
func (e *environment) ended(s state) bool {
	for t := range s.tasks {
		o := &s.tasks[t]
		switch {
		case !o.exists:
		case e.waiting(&s, t):
			if s.signed < e.Calls {
				return false
			}
		case o.claim != 0 && (o.newRun() || s.forgotten < o.claim):
			return false
		case e.Retries > 0 && t == 0 && (e.unread(t, o) != 0 || e.retryDue(t, o)):
			return false
		}
	}
	return true
}

func (e *environment) start() state {
	return state{tasks: [2]task{{exists: true, wants: 1}, {exists: !e.Alone, wants: 1}}}
}

// label describes a step.
type label struct {
	text  string
	tasks tasks
	call  uint8
	urls  urls
	found [2]uint8
}

func (l label) String() string {
	number := func(id uint8) string {
		if id == foreign {
			return "of another program"
		}
		return string('0' + rune(id))
	}
	var found []string
	for _, job := range l.found {
		if job != 0 {
			found = append(found, "job "+number(job))
		}
	}
	if len(found) == 0 {
		found = []string{"nothing"}
	}
	return strings.NewReplacer(
		"{tasks}", [...]string{"", "T1", "T2", "T1 and T2"}[l.tasks],
		"{call}", "call "+number(l.call),
		"{job}", "job "+number(l.call),
		"{urls}", l.urls.String(),
		"{found}", strings.Join(found, " and "),
	).Replace(l.text)
}
