package taskstate

import (
	"runtime"
	"sync"
	"weak"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
)

// longList is the number of targets from which the values derived from a list are cached.
// Each event of a task needs these values a dozen times.
const longList = 256

// derivedList holds the values derived from a list of targets. All copies of a task in
// memory share one list, and nothing changes it. So the values are computed once per list.
type derivedList struct {
	targets []string // the distinct targets of the list

	mu   sync.Mutex
	runs map[string]string // run hashes, by the other inputs of the hash
}

// maxRuns is how many run hashes are cached per list. Several tasks can share a list.
const maxRuns = 16

// derivedOf caches the derived values of the long lists in memory.
var derivedOf sync.Map // listKey -> *derivedList

// listKey identifies a list while it is in memory. The weak pointer does not keep the list
// in memory.
type listKey struct {
	first  weak.Pointer[v1alpha1.Target]
	length int
}

// deriveList returns the derived values of a list. The cache drops the values of a long
// list after the garbage collector frees the list.
func deriveList(list []v1alpha1.Target) *derivedList {
	if len(list) < longList {
		return &derivedList{targets: distinctURLs(list)}
	}
	key := listKey{weak.Make(&list[0]), len(list)}
	if known, ok := derivedOf.Load(key); ok {
		return known.(*derivedList)
	}
	found, isKnown := derivedOf.LoadOrStore(key, &derivedList{targets: distinctURLs(list)})
	if !isKnown {
		runtime.AddCleanup(&list[0], func(key listKey) { derivedOf.Delete(key) }, key)
	}
	return found.(*derivedList)
}

// distinctURLs returns the first occurrence of each target, in list order.
func distinctURLs(list []v1alpha1.Target) []string {
	seen := make(map[v1alpha1.Target]bool, len(list))
	targets := make([]string, 0, len(list))
	for _, target := range list {
		if !seen[target] {
			seen[target] = true
			targets = append(targets, string(target))
		}
	}
	return targets
}

// runHash returns the hash of the list and rest, the other inputs of a run hash. If the
// hash is not cached, runHash calls compute.
func (d *derivedList) runHash(rest string, compute func() string) string {
	d.mu.Lock()
	defer d.mu.Unlock()
	if known, ok := d.runs[rest]; ok {
		return known
	}
	// A full cache starts again empty.
	if d.runs == nil || len(d.runs) >= maxRuns {
		d.runs = map[string]string{}
	}
	d.runs[rest] = compute()
	return d.runs[rest]
}
