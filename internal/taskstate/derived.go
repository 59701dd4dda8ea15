package taskstate

import (
	"runtime"
	"sync"
	"weak"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
)

// longList is from how many targets on what follows from a list is remembered. Every
// event of a task asks for it a dozen times.
const longList = 256

// derivedList is what follows from a list of targets. All copies of a task in memory share
// one list, which nobody changes, so this is found out once for each.
type derivedList struct {
	targets []string // the distinct ones

	mu   sync.Mutex
	runs map[string]string // by what else a run is of
}

// maxRuns is how many runs are remembered of one list, which tasks can share.
const maxRuns = 16

// derivedOf has what follows from the long lists in memory.
var derivedOf sync.Map // listKey -> *derived

// listKey is a list, for as long as it is in memory.
type listKey struct {
	first  weak.Pointer[v1alpha1.Target]
	length int
}

// deriveList returns what follows from a list.
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

// runHash returns the hash of the list and what else a run is of, which compute finds out.
func (d *derivedList) runHash(rest string, compute func() string) string {
	d.mu.Lock()
	defer d.mu.Unlock()
	if known, ok := d.runs[rest]; ok {
		return known
	}
	if d.runs == nil || len(d.runs) >= maxRuns {
		d.runs = map[string]string{}
	}
	d.runs[rest] = compute()
	return d.runs[rest]
}
