package kube

import (
	"maps"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
)

// tokenRate is the rate of a token bucket.
type tokenRate struct {
	burst int           // size of the bucket
	every time.Duration // interval at which a token is added
}

// tokenBuckets holds one token bucket per key. The value is the time at which the bucket
// is full again. After that time, the entry has no effect, and takeToken may remove it.
type tokenBuckets[K comparable] map[K]time.Time

// maxBuckets is the largest number of keys. Beyond it, the bucket that is full the soonest
// is removed.
const maxBuckets = 4096

// waitTime returns the time until the key's bucket has a token, or 0 if it has one.
func (b tokenBuckets[K]) waitTime(key K, r tokenRate, now time.Time) time.Duration {
	return max(0, b.fullAt(key, now).Sub(now)-time.Duration(r.burst-1)*r.every)
}

// fullAt returns the time at which the key's bucket is full, at the earliest now.
func (b tokenBuckets[K]) fullAt(key K, now time.Time) time.Time {
	if full := b[key]; full.After(now) {
		return full
	}
	return now
}

// takeToken takes a token, also if the bucket is empty.
func (b tokenBuckets[K]) takeToken(key K, r tokenRate, now time.Time) {
	if _, known := b[key]; !known && len(b) >= maxBuckets {
		maps.DeleteFunc(b, func(_ K, full time.Time) bool { return !full.After(now) })
		DropOldest(b, maxBuckets, key, func(full time.Time) time.Time { return full })
	}
	b[key] = b.fullAt(key, now).Add(r.every)
}

// RunRate limits the runs and retries of one task. If a user changes the revision or asks
// for a retry several times a second, the operator serves only the last request. Each run
// costs three status writes, a call and quota.
var RunRate = tokenRate{burst: 6, every: 10 * time.Second}

// NoteRate limits the status writes of one task that only report why the task waits, or
// that only acknowledge its generation.
var NoteRate = tokenRate{burst: 6, every: 10 * time.Second}

// WriteRate limits how often an event may happen to each task.
type WriteRate struct {
	tokenRate
	mu    sync.Mutex
	tasks tokenBuckets[types.UID]
}

// NewWriteRate returns a WriteRate with a full bucket for every task.
func NewWriteRate(r tokenRate) *WriteRate {
	return &WriteRate{tokenRate: r, tasks: tokenBuckets[types.UID]{}}
}

// WaitTime returns the time until the rate allows one more event of the task, or 0 if it
// allows one now. It does not count an event.
func (p *WriteRate) WaitTime(task *v1alpha1.PrefetchTask) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.tasks.waitTime(task.UID, p.tokenRate, time.Now())
}

// CountEvent counts an event of the task, whether or not the rate allows it.
func (p *WriteRate) CountEvent(task *v1alpha1.PrefetchTask) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.tasks.takeToken(task.UID, p.tokenRate, time.Now())
}

// DropOldest makes room for a key in a map whose maximum size is most. If the map is full
// and does not have the key, DropOldest removes the entry with the earliest time.
func DropOldest[K comparable, V any](m map[K]V, most int, key K, at func(V) time.Time) {
	if _, known := m[key]; known || len(m) < most {
		return
	}
	var oldest K
	var since time.Time
	for k, v := range m {
		if t := at(v); since.IsZero() || t.Before(since) {
			oldest, since = k, t
		}
	}
	delete(m, oldest)
}
