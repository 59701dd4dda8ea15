package account

import (
	"fmt"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/target"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
)

// rules is the compiled spec of an account.
type rules struct {
	account    *v1alpha1.EdgeOneAccount
	namespaces namespaceSet
	zones      map[string]zoneRules // nil: all zones
	modes      []v1alpha1.PrefetchMode
	segments   bool
	purges     []v1alpha1.PurgeType
}

// zoneRules are the rules for a zone.
type zoneRules struct {
	hosts      *hostSet
	namespaces *namespaceSet // nil: all of the account's
}

// namespaceSet is a compiled NamespaceSet. The zero value contains no namespace.
type namespaceSet struct {
	names    []v1alpha1.NamespaceName
	selector labels.Selector // nil: only names count
}

// compileRules returns the rules of an account.
func compileRules(account *v1alpha1.EdgeOneAccount) *rules {
	r := &rules{
		account: account, namespaces: compileNamespaces(account.Spec.Namespaces),
		modes:    account.Spec.Allow.Modes,
		segments: account.Spec.Allow.MediaSegments != nil && *account.Spec.Allow.MediaSegments,
		purges:   account.Spec.Allow.Purge,
	}
	if len(r.modes) == 0 {
		r.modes = []v1alpha1.PrefetchMode{v1alpha1.ModeDefault}
	}
	if len(account.Spec.Zones) > 0 {
		r.zones = map[string]zoneRules{}
	}
	for _, zone := range account.Spec.Zones {
		z := zoneRules{hosts: newHostSet(zone.Hosts)}
		if zone.Namespaces.Selector != nil || len(zone.Namespaces.Names) > 0 {
			set := compileNamespaces(zone.Namespaces)
			z.namespaces = &set
		}
		r.zones[zone.ID] = z
	}
	return r
}

// compileNamespaces returns the set. A selector that cannot be parsed, which the API server
// refuses, contains no namespace.
func compileNamespaces(set v1alpha1.NamespaceSet) namespaceSet {
	compiled := namespaceSet{names: set.Names}
	if set.Selector == nil {
		return compiled
	}
	selector := &metav1.LabelSelector{}
	for name, value := range set.Selector.MatchLabels {
		metav1.AddLabelToSelector(selector, name, string(value))
	}
	for _, r := range set.Selector.MatchExpressions {
		requirement := metav1.LabelSelectorRequirement{Key: r.Key, Operator: metav1.LabelSelectorOperator(r.Operator)}
		for _, value := range r.Values {
			requirement.Values = append(requirement.Values, string(value))
		}
		selector.MatchExpressions = append(selector.MatchExpressions, requirement)
	}
	parsed, err := metav1.LabelSelectorAsSelector(selector)
	if err != nil || parsed.Empty() {
		parsed = labels.Nothing()
	}
	compiled.selector = parsed
	return compiled
}

// contains reports whether the set has a namespace. known is false while nothing is known of
// the namespace's labels: a selector does not match it then.
func (s namespaceSet) contains(namespace string, of labels.Set, known bool) bool {
	return slices.Contains(s.names, v1alpha1.NamespaceName(namespace)) || s.selector != nil && known && s.selector.Matches(of)
}

// denial returns why the account does not allow a task to submit its open targets, or an
// empty Cause. of are the labels of the task's namespace.
func (r *rules) denial(task *v1alpha1.PrefetchTask, of labels.Set, known bool) taskstate.Cause {
	if !r.namespaces.contains(task.Namespace, of, known) {
		return r.outside(r.namespaces, known, fmt.Sprintf("does not allow namespace %q", task.Namespace))
	}
	if r.account.Spec.Suspend != nil && *r.account.Spec.Suspend {
		return taskstate.Cause{
			Reason:  v1alpha1.ReasonSuspended,
			Message: "Nothing is submitted while " + taskstate.AccountSuspendField(r.account.Name) + " is true",
		}
	}
	zone, listed := r.zones[task.Spec.ZoneID]
	if r.zones != nil && !listed {
		return r.notAllowed(fmt.Sprintf("does not allow zone %q", task.Spec.ZoneID))
	}
	if zone.namespaces != nil && !zone.namespaces.contains(task.Namespace, of, known) {
		return r.outside(*zone.namespaces, known, fmt.Sprintf("does not allow namespace %q to use zone %q", task.Namespace, task.Spec.ZoneID))
	}
	if mode := modeOf(task); !slices.Contains(r.modes, mode) {
		return r.notAllowed(fmt.Sprintf("does not allow mode %s", mode))
	}
	if task.Spec.MediaSegments == v1alpha1.MediaSegmentsPrefetch && !r.segments {
		return r.notAllowed("does not allow media segments")
	}
	if rule := r.purgeDenial(task, zone); rule != "" {
		return r.notAllowed(rule)
	}
	if url, host, bad := zone.hosts.firstOutside(task); bad {
		return r.notAllowed(fmt.Sprintf("does not allow host %q in zone %q: %s", host, task.Spec.ZoneID, url))
	}
	return taskstate.Cause{}
}

// purgeDenial returns the rule that does not allow what a task purges beyond its own targets,
// or a type of purge. It returns "" if the account allows the purge.
func (r *rules) purgeDenial(task *v1alpha1.PrefetchTask, zone zoneRules) string {
	purge := task.Spec.Purge
	switch {
	case purge.Type == "":
		return ""
	case !slices.Contains(r.purges, purge.Type):
		return fmt.Sprintf("does not allow purge %s", purge.Type)
	case zone.hosts == nil:
		return ""
	case purge.Type == v1alpha1.PurgeCacheTag:
		return fmt.Sprintf("does not allow purge CacheTag in zone %q: the copies that have a cache tag may be of any host, and the account lists hosts", task.Spec.ZoneID)
	}
	for _, purged := range purge.Targets {
		host := target.NormalizeHost(string(purged))
		if purge.Type == v1alpha1.PurgePrefix {
			host = target.Host(string(purged))
		}
		if !zone.hosts.contains(host) {
			return fmt.Sprintf("does not allow host %q in zone %q: purge of %s", host, task.Spec.ZoneID, purged)
		}
	}
	return ""
}

// outside returns the cause for a namespace that is not in a set, or cannot be told yet.
func (r *rules) outside(set namespaceSet, known bool, rule string) taskstate.Cause {
	if set.selector != nil && !known {
		return taskstate.Cause{Reason: v1alpha1.ReasonWaiting, Message: "The labels of the namespace are not known yet"}
	}
	return r.notAllowed(rule)
}

// firstOutside returns the first open target of a task whose host is not in the set.
func (s *hostSet) firstOutside(task *v1alpha1.PrefetchTask) (url, host string, found bool) {
	if s == nil {
		return "", "", false
	}
	targets := taskstate.DistinctTargets(task)
	for _, i := range taskstate.OpenPositions(task) {
		if i >= len(targets) { // an elided task has no targets in memory; its list is checked when it is there
			return "", "", false
		}
		if host := target.Host(targets[i]); !s.contains(host) {
			return targets[i], host, true
		}
	}
	return "", "", false
}

// modeOf returns the mode of a task.
func modeOf(task *v1alpha1.PrefetchTask) v1alpha1.PrefetchMode {
	if taskstate.IsEdgeMode(task) {
		return v1alpha1.ModeEdge
	}
	return v1alpha1.ModeDefault
}

// notAllowed returns the cause with the reason NotAllowed.
func (r *rules) notAllowed(rule string) taskstate.Cause {
	return taskstate.Cause{
		Reason: v1alpha1.ReasonNotAllowed, NeedsUser: true,
		Message: fmt.Sprintf("EdgeOneAccount %q %s", r.account.Name, rule),
		Advice:  "Change the task, or ask who manages the account to allow it",
	}
}
