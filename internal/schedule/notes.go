package schedule

import (
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
)

// Note is something to tell a task in its status that is not about a call.
type Note struct {
	Task *v1alpha1.PrefetchTask
	// Why it waits; no Reason if only the generation is to be acknowledged.
	Why
	// Stalled: it will not get better without a person.
	Stalled bool
	// NextAttempt is when quota is expected to return to a task held by it.
	NextAttempt time.Time
}

const (
	// patience is how long a task waits without being told what keeps it. Those that
	// go out at once are spared the write.
	patience = 10 * time.Second
	// inLine is how long a task waits without being told that only its turn is to
	// come. A write for each of thousands would keep all of them waiting longer.
	inLine = time.Minute
)

type later struct {
	at   time.Time
	item *item     // to be told if it still waits
	turn time.Time // when it is told also if it waits for nothing but its turn
	all  func()    // or what else to do
}

// mustTell says whether the task's status must be written for another reason
// than a call: it speaks of an old generation and nothing else will write it, or
// does not say that the task is suspended.
func mustTell(task *v1alpha1.PrefetchTask) bool {
	if !task.DeletionTimestamp.IsZero() || Waiting(task) || Unresolved(task) && WantsTargets(task) {
		return false
	}
	return task.Status.ObservedGeneration != task.Generation || Suspended(task) && wantsCalls(task) && reason(task) != v1alpha1.ReasonSuspended
}

// wantsCalls says whether a suspended task would be submitted if it were not.
func wantsCalls(task *v1alpha1.PrefetchTask) bool {
	return !Claimed(task) && (len(Open(task)) > 0 || Unresolved(task) && !finished(task))
}

func reason(task *v1alpha1.PrefetchTask) string {
	if ready := meta.FindStatusCondition(task.Status.Conditions, v1alpha1.ConditionReady); ready != nil {
		return ready.Reason
	}
	return ""
}

// sayIf has a task told that must be: at once, or in a while if its call would tell it and
// only its list is to be read before.
func (q *Queue) sayIf(it *item, must bool, now time.Time) {
	switch {
	case must && isAway(it.task):
		q.sayLater(it, now)
	case must:
		q.sayNow(it)
	}
}

func (q *Queue) sayNow(it *item) {
	if !it.unsaid {
		it.unsaid = true
		q.soon = append(q.soon, it)
	}
	if len(q.soon) > 2*len(q.items)+spare {
		q.soon = slices.DeleteFunc(q.soon, func(it *item) bool { return it.deleted })
	}
}

func (q *Queue) sayLater(it *item, now time.Time) {
	q.later = append(q.later, later{at: now.Add(patience), item: it, turn: now.Add(inLine)})
	if len(q.later) > 2*len(q.items)+spare {
		times := map[*item]int{}
		for _, l := range q.later {
			times[l.item]++
		}
		q.later = slices.DeleteFunc(q.later, func(l later) bool {
			times[l.item]--
			return l.item != nil && (l.item.deleted || times[l.item] > 0)
		})
	}
}

// spare is how much longer than the queue the lists of what is to be told may
// get. Nobody reads them while another process leads.
const spare = 1024

func (q *Queue) sayAll(l *lane) {
	for _, s := range l.turn {
		for _, it := range s.items {
			q.sayNow(it)
		}
	}
	for _, g := range l.suspects {
		for _, s := range g {
			q.sayNow(s.item)
		}
	}
	for g := range l.postponed {
		for _, s := range *g {
			q.sayNow(s.item)
		}
	}
}

// Notes returns at most n things to tell, and when the next one is due (zero if
// none is). What a task's status already says is not told again.
func (q *Queue) Notes(n int, now time.Time) (notes []Note, next time.Time) {
	for len(q.later) > 0 && !now.Before(q.later[0].at) {
		l := q.later[0]
		q.later = q.later[1:]
		switch {
		case l.all != nil:
			l.all()
		case l.item.deleted || l.item.inFlight:
		case now.Before(l.turn) && !l.item.parked && q.explain(l.item, now).Reason == v1alpha1.ReasonWaiting:
			l.at = now.Add(patience)
			q.later = append(q.later, l)
		default:
			q.sayNow(l.item)
		}
	}
	for len(q.soon) > 0 && len(notes) < n {
		it := q.soon[0]
		q.soon = q.soon[1:]
		it.unsaid = false
		if it.deleted || it.inFlight || q.items[it.key] != it {
			continue
		}
		if note := q.explain(it, now); !note.told() {
			notes = append(notes, note)
		}
	}
	switch {
	case len(q.soon) > 0:
		next = now
	case len(q.later) > 0:
		next = q.later[0].at
	}
	return notes, next
}

// Untold puts back a note that could not be written.
func (q *Queue) Untold(note Note, now time.Time) {
	if it := q.items[types.NamespacedName{Namespace: note.Task.Namespace, Name: note.Task.Name}]; it != nil {
		q.sayLater(it, now)
	}
}

// explain says why a task waits.
func (q *Queue) explain(it *item, now time.Time) Note {
	note := Note{Task: it.task}
	if !Waiting(it.task) {
		if Suspended(it.task) && wantsCalls(it.task) {
			note.Why = Why{Reason: v1alpha1.ReasonSuspended, Message: "Nothing is submitted while spec.suspend is true"}
		}
		return note
	}
	if it.isPostponed(now) {
		note.Why, note.Stalled = it.postponed.Why, it.postponed.Person
		return note
	}
	// What keeps it now, or what its next call is to find out about.
	holds := append(q.holds(it.lane), &it.hold)
	i := slices.IndexFunc(holds, func(h *hold) bool { return h.at(now) })
	if i < 0 {
		i = slices.IndexFunc(holds, func(h *hold) bool { return h.Reason != "" })
	}
	switch {
	case i < 0 && OftenLost(it.task) && reason(it.task) == v1alpha1.ReasonOutcomeUnknown:
		return note // its status says so, until a call of it gets an answer
	case i < 0:
		note.Why = Why{Reason: v1alpha1.ReasonWaiting, Message: "Submitted when its turn comes"}
		return note
	}
	h := *holds[i]
	note.Why, note.Stalled = h.Why, q.stalled(h, now) || h.Person && h.Quota
	if h.Quota {
		note.NextAttempt = h.next
	}
	return note
}

// toldWhen says whether a status names the next attempt well enough. A later one
// than ours may be another leader's; two of them would go on correcting each other.
func (n Note) toldWhen(next time.Time) bool {
	return next.IsZero() == n.NextAttempt.IsZero() && next.Unix() >= metav1.NewTime(n.NextAttempt).Unix()
}

// told says whether the task's status has the note already. A later time of the
// next attempt alone is not worth a write more often than once a day.
func (n Note) told() bool {
	task := n.Task
	if task.Status.ObservedGeneration != task.Generation {
		return false
	}
	if n.Reason == "" {
		return true
	}
	ready := meta.FindStatusCondition(task.Status.Conditions, v1alpha1.ConditionReady)
	return ready != nil && ready.Reason == n.Reason && ready.Message == n.Message &&
		n.toldWhen(task.Status.NextAttemptTime.Time) &&
		meta.IsStatusConditionTrue(task.Status.Conditions, v1alpha1.ConditionStalled) == n.Stalled
}
