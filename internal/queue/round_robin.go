package queue

import "slices"

// RoundRobin holds waiting elements by namespace. Namespaces take turns. The zero value
// is empty.
type RoundRobin[T comparable] struct {
	waiting  map[string][]T // by namespace
	rotation []string       // the namespaces with elements, the next one first
}

// IsEmpty reports whether no element waits.
func (q *RoundRobin[T]) IsEmpty() bool { return len(q.rotation) == 0 }

// Push adds an element after all others of its namespace.
func (q *RoundRobin[T]) Push(namespace string, what T) {
	if q.waiting == nil {
		q.waiting = map[string][]T{}
	}
	if len(q.waiting[namespace]) == 0 {
		q.rotation = append(q.rotation, namespace)
	}
	q.waiting[namespace] = append(q.waiting[namespace], what)
}

// Pop removes and returns the oldest element of the next namespace, and moves that
// namespace to the end of the rotation. It panics if no element waits.
func (q *RoundRobin[T]) Pop() T {
	namespace := q.rotation[0]
	first := q.waiting[namespace][0]
	q.rotation = q.rotation[1:]
	if q.waiting[namespace] = q.waiting[namespace][1:]; len(q.waiting[namespace]) > 0 {
		q.rotation = append(q.rotation, namespace)
	} else {
		delete(q.waiting, namespace)
	}
	return first
}

// Remove removes an element. It returns whether the element was there.
func (q *RoundRobin[T]) Remove(namespace string, what T) bool {
	i := slices.Index(q.waiting[namespace], what)
	if i < 0 {
		return false
	}
	if q.waiting[namespace] = slices.Delete(q.waiting[namespace], i, i+1); len(q.waiting[namespace]) == 0 {
		delete(q.waiting, namespace)
		q.rotation = slices.DeleteFunc(q.rotation, func(name string) bool { return name == namespace })
	}
	return true
}

// Len returns the number of elements of a namespace.
func (q *RoundRobin[T]) Len(namespace string) int { return len(q.waiting[namespace]) }
