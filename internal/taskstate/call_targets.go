package taskstate

import (
	"slices"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/target"
)

// CallTargets returns the list to which the positions in calls of a kind refer.
func CallTargets(task *v1alpha1.PrefetchTask, kind v1alpha1.JobKind) []string {
	if kind != v1alpha1.JobPurge || !HasPurge(task) || purgesOwnTargets(task) {
		return DistinctTargets(task)
	}
	targets := make([]string, len(task.Spec.Purge.Targets))
	for i, t := range task.Spec.Purge.Targets {
		targets[i] = string(t)
	}
	return targets
}

// CallIdentities returns a key for each of CallTargets that is the same for all of its spellings, as
// teo.Record.Identity returns it.
func CallIdentities(task *v1alpha1.PrefetchTask, kind v1alpha1.JobKind) []string {
	targets, identity := CallTargets(task, kind), target.Identity
	if kind == v1alpha1.JobPurge {
		switch task.Spec.Purge.Type {
		case v1alpha1.PurgeHost:
			identity = target.NormalizeHost
		case v1alpha1.PurgeCacheTag:
			return targets
		case v1alpha1.PurgeURL, v1alpha1.PurgePrefix:
		}
	}
	identities := make([]string, len(targets))
	for i, text := range targets {
		identities[i] = identity(text)
	}
	return identities
}

// TargetHosts returns the distinct hosts of a task's targets, sorted, or none if there are more than
// most.
func TargetHosts(task *v1alpha1.PrefetchTask, most int) (hosts []string) {
	seen := map[string]bool{}
	for _, url := range DistinctTargets(task) {
		host := target.Host(url)
		if seen[host] {
			continue
		}
		if seen[host] = true; len(seen) > most {
			return nil
		}
		hosts = append(hosts, host)
	}
	slices.Sort(hosts)
	return hosts
}

// countCallTargets returns the length of CallTargets, also for an elided task.
func countCallTargets(task *v1alpha1.PrefetchTask, kind v1alpha1.JobKind) int {
	if kind != v1alpha1.JobPurge || !HasPurge(task) || purgesOwnTargets(task) {
		return CountTargets(task)
	}
	return len(task.Spec.Purge.Targets)
}
