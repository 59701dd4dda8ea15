package preview

import (
	"fmt"
	"slices"
	"strings"

	apiequality "k8s.io/apimachinery/pkg/api/equality"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
)

// Update previews an update of a task by submit. It needs the targets of both versions.
func Update(before, after *v1alpha1.PrefetchTask) Preview {
	if taskstate.RunHash(before) == taskstate.RunHash(after) || !taskstate.IsNewRun(after) && taskstate.IsRunOver(after) {
		return Preview{Nothing: "this starts no new run, so nothing more is submitted"}
	}
	if !taskstate.IsNewRun(after) { // an edit of it is taken back
		p := remaining(after)
		p.Notes = append(p.Notes, "the edit before is taken back: its run goes on, and submits the rest")
		return p
	}
	p := Create(after)
	p.Cause = strings.Join(listChanges(before, after), " and ")
	if taskstate.IsListEdit(after) {
		p.Notes = append(p.Notes, fmt.Sprintf("%d of the URLs are new; of the others, what the run before has prefetched is not submitted", countNewTargets(before, after)))
	}
	return p
}

// Create previews a task that has not started its run.
func Create(task *v1alpha1.PrefetchTask) Preview { return remaining(task) }

// listChanges names the changes of a task that start a new run.
func listChanges(before, after *v1alpha1.PrefetchTask) (changes []string) {
	was, is := &before.Spec, &after.Spec
	add := func(field string, hadValue, hasValue, isChanged bool) {
		switch {
		case !isChanged:
		case !hadValue:
			changes = append(changes, field+" is set")
		case !hasValue:
			changes = append(changes, field+" is removed")
		default:
			changes = append(changes, field+" is changed")
		}
	}
	add("the list", true, true, !slices.Equal(taskstate.DistinctTargets(before), taskstate.DistinctTargets(after)))
	add("spec.revision", was.Revision != "", is.Revision != "", was.Revision != is.Revision)
	add("spec.purge", taskstate.HasPurge(before), taskstate.HasPurge(after), !apiequality.Semantic.DeepEqual(was.Purge, is.Purge))
	add("spec.freshSince", !was.FreshSince.IsZero(), !is.FreshSince.IsZero(), !was.FreshSince.Equal(&is.FreshSince))
	add("spec.mode", true, true, taskstate.IsEdgeMode(before) != taskstate.IsEdgeMode(after))
	add("spec.zoneID", true, true, was.ZoneID != is.ZoneID)
	return changes
}

// countNewTargets returns how many targets a task has that it did not have before.
func countNewTargets(before, after *v1alpha1.PrefetchTask) (n int) {
	had := map[string]bool{}
	for _, u := range taskstate.DistinctTargets(before) {
		had[u] = true
	}
	for _, u := range taskstate.DistinctTargets(after) {
		if !had[u] {
			n++
		}
	}
	return n
}
