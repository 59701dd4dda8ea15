package account

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
)

// CountToday returns when today began, and what is used of an account: in total, by namespace and
// by zone.
func (u *Usage) CountToday(account string) (day time.Time, total int, namespaces, zones map[string]int) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.rollOver()
	all := u.sum(account)
	if said := u.reported[account]; said != nil {
		all.total = max(all.total, said.total)
		raiseCounts(all.namespaces, said.namespaces)
		raiseCounts(all.zones, said.zones)
	}
	return u.day, all.total, all.namespaces, all.zones
}

// countedFor returns the accounts whose uses count for an account. Tasks that name none use
// the account named default, if there is one.
func countedFor(account string) []string {
	if account == v1alpha1.DefaultAccount {
		return []string{account, ""}
	}
	return []string{account}
}

func addCounts(to, from map[string]int) {
	for name, n := range from {
		to[name] += n
	}
}

func raiseCounts(to, from map[string]int) {
	for name, n := range from {
		to[name] = max(to[name], n)
	}
}

// LargestNamespaces returns the n namespaces that have used the most, by name.
func LargestNamespaces(namespaces map[string]int, n int) []string {
	names := slices.Collect(maps.Keys(namespaces))
	slices.SortFunc(names, func(a, b string) int { return cmp.Or(namespaces[b]-namespaces[a], cmp.Compare(a, b)) })
	names = names[:min(n, len(names))]
	slices.Sort(names)
	return names
}

// admit says how many URLs the budgets of an account leave to a namespace.
func (u *Usage) admit(account *v1alpha1.EdgeOneAccount, namespace string) taskstate.Admission {
	limits := account.Spec.Limits
	if limits.DailyURLs == nil && limits.DailyURLsPerNamespace == nil {
		return taskstate.AdmitAll
	}
	u.mu.Lock()
	u.rollOver()
	total, own := 0, 0
	for _, name := range countedFor(account.Name) {
		if use := u.today[name]; use != nil {
			total += use.total
			own += use.namespaces[namespace]
		}
	}
	if said := u.reported[account.Name]; said != nil {
		total, own = max(total, said.total), max(own, said.namespaces[namespace])
	}
	u.mu.Unlock()
	admission := taskstate.AdmitAll
	if limits.DailyURLs != nil {
		admission.Left = max(0, int(*limits.DailyURLs)-total)
	}
	if limits.DailyURLsPerNamespace != nil {
		admission.NamespaceLeft = max(0, int(*limits.DailyURLsPerNamespace)-own)
	}
	return admission
}
