package schedule

import "slices"

// InTurn is what waits in each namespace, of which one has its turn after the other. The
// zero value is empty.
type InTurn[T comparable] struct {
	waiting map[string][]T // by namespace
	turn    []string       // the namespaces of which something waits
}

// IsEmpty says whether nothing waits.
func (q *InTurn[T]) IsEmpty() bool { return len(q.turn) == 0 }

// Push puts something behind all else of its namespace.
func (q *InTurn[T]) Push(namespace string, what T) {
	if q.waiting == nil {
		q.waiting = map[string][]T{}
	}
	if len(q.waiting[namespace]) == 0 {
		q.turn = append(q.turn, namespace)
	}
	q.waiting[namespace] = append(q.waiting[namespace], what)
}

// Pop returns what waits longest in the namespace whose turn it is. Something must wait.
func (q *InTurn[T]) Pop() T {
	namespace := q.turn[0]
	first := q.waiting[namespace][0]
	q.turn = q.turn[1:]
	if q.waiting[namespace] = q.waiting[namespace][1:]; len(q.waiting[namespace]) > 0 {
		q.turn = append(q.turn, namespace)
	} else {
		delete(q.waiting, namespace)
	}
	return first
}

// Remove takes something out, and says whether it was there.
func (q *InTurn[T]) Remove(namespace string, what T) bool {
	i := slices.Index(q.waiting[namespace], what)
	if i < 0 {
		return false
	}
	if q.waiting[namespace] = slices.Delete(q.waiting[namespace], i, i+1); len(q.waiting[namespace]) == 0 {
		delete(q.waiting, namespace)
		q.turn = slices.DeleteFunc(q.turn, func(name string) bool { return name == namespace })
	}
	return true
}

// Len is how much of a namespace waits.
func (q *InTurn[T]) Len(namespace string) int { return len(q.waiting[namespace]) }
