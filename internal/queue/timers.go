package queue

import (
	"container/heap"
	"time"
)

// timerHeap holds functions to run at a given time, the earliest first. The queue has no
// goroutine: PlanNext and IsIdle run the functions that are due.
type timerHeap []timer

// timer is a function to run at a given time. The function gets the current time, which
// may be later.
type timer struct {
	at   time.Time
	then func(now time.Time)
}

// Len, Less, Swap, Push and Pop implement heap.Interface.
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

// nextTime returns the time of the earliest timer, or the zero time if there is none.
func (e timerHeap) nextTime() time.Time {
	if len(e) == 0 {
		return time.Time{}
	}
	return e[0].at
}

// runAt schedules a function. The function must check that its reason still applies,
// because a back-off may have been extended in the meantime.
func (q *Queue) runAt(at time.Time, then func(now time.Time)) {
	heap.Push(&q.timers, timer{at, then})
}

// runDueTimers runs all functions that are due, the earliest first.
func (q *Queue) runDueTimers(now time.Time) {
	for len(q.timers) > 0 && !now.Before(q.timers[0].at) {
		heap.Pop(&q.timers).(timer).then(now)
	}
}
