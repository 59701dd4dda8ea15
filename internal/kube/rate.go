package kube

import (
	"maps"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
)

// tokenRate allows a burst, and then one at a time.
type tokenRate struct {
	burst int
	every time.Duration
}

// tokenBuckets count by key what a rate limits. Of each key it keeps when the whole burst is
// there again; then the key is forgotten.
type tokenBuckets[K comparable] map[K]time.Time

// maxBuckets bounds the keys. Of more, the oldest is forgotten.
const maxBuckets = 4096

// WaitTime is how long it takes until the rate allows one more.
func (b tokenBuckets[K]) waitTime(key K, r tokenRate, now time.Time) time.Duration {
	return max(0, b.fullAt(key, now).Sub(now)-time.Duration(r.burst-1)*r.every)
}

// fullAt returns when the whole burst is there again, at the earliest now.
func (b tokenBuckets[K]) fullAt(key K, now time.Time) time.Time {
	if full := b[key]; full.After(now) {
		return full
	}
	return now
}

func (b tokenBuckets[K]) takeToken(key K, r tokenRate, now time.Time) {
	if _, known := b[key]; !known && len(b) >= maxBuckets {
		maps.DeleteFunc(b, func(_ K, full time.Time) bool { return !full.After(now) })
		DropOldest(b, maxBuckets, key, func(full time.Time) time.Time { return full })
	}
	b[key] = b.fullAt(key, now).Add(r.every)
}

// RunRate bounds the runs and retries of one task. If a user changes the revision, or asks for a
// retry, several times a second, only the last request is served: each run costs three status
// writes, a call and quota.
var RunRate = tokenRate{burst: 6, every: 10 * time.Second}

// NoteRate bounds the writes to one task that only say why it waits, or that its spec was read.
var NoteRate = tokenRate{burst: 6, every: 10 * time.Second}

// WriteRate bounds by time how often something happens to a task.
type WriteRate struct {
	tokenRate
	mu    sync.Mutex
	tasks tokenBuckets[types.UID]
}

// NewWriteRate returns a WriteRate of which nothing is used up.
func NewWriteRate(r tokenRate) *WriteRate {
	return &WriteRate{tokenRate: r, tasks: tokenBuckets[types.UID]{}}
}

// WaitTime returns how long the task has to wait until the rate allows one more event.
func (p *WriteRate) WaitTime(task *v1alpha1.PrefetchTask) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.tasks.waitTime(task.UID, p.tokenRate, time.Now())
}

// CountEvent counts an event of the task.
func (p *WriteRate) CountEvent(task *v1alpha1.PrefetchTask) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.tasks.takeToken(task.UID, p.tokenRate, time.Now())
}

// DropOldest makes room for a key in a map that has most entries at most: it removes the entry
// with the earliest time.
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
