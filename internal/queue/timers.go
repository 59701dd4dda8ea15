package queue

import (
	"container/heap"
	"time"
)

// timerHeap are what ends at a time and is looked at then, the next one first.
type timerHeap []timer

type timer struct {
	at   time.Time
	then func(now time.Time)
}

func (e timerHeap) Len() int { return len(e) }

func (e timerHeap) Less(i, j int) bool { return e[i].at.Before(e[j].at) }

func (e timerHeap) Swap(i, j int) { e[i], e[j] = e[j], e[i] }

func (e *timerHeap) Push(x any) { *e = append(*e, x.(timer)) }

func (e *timerHeap) Pop() any {
	last := len(*e) - 1
	x := (*e)[last]
	(*e)[last] = timer{}
	*e = (*e)[:last]
	return x
}

// nextTime is when the first one ends; zero if there is none.
func (e timerHeap) nextTime() time.Time {
	if len(e) == 0 {
		return time.Time{}
	}
	return e[0].at
}

// runAt has something done at a time. What is done looks at whether there is still
// reason to: a hold may have been extended meanwhile.
func (q *Queue) runAt(at time.Time, then func(now time.Time)) {
	heap.Push(&q.timers, timer{at, then})
}

// runDueTimers does what is due.
func (q *Queue) runDueTimers(now time.Time) {
	for len(q.timers) > 0 && !now.Before(q.timers[0].at) {
		heap.Pop(&q.timers).(timer).then(now)
	}
}
