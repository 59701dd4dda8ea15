package account

import (
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/metrics"
)

// Stats returns what the statuses of the accounts say, by name.
func (r *Reconciler) Stats() map[string]metrics.AccountStats {
	all := map[string]metrics.AccountStats{}
	for _, name := range r.names() {
		account := r.Accounts.Account(name)
		if account == nil {
			continue // it has just been deleted
		}
		stats := metrics.AccountStats{Used: int(ptr.Deref(account.Status.Used, 0)), Limit: int(ptr.Deref(account.Spec.Limits.DailyURLs, -1))}
		if ready := meta.FindStatusCondition(account.Status.Conditions, v1alpha1.ConditionReady); ready != nil {
			stats.IsReady, stats.Reason = ready.Status == metav1.ConditionTrue, ready.Reason
		}
		all[name] = stats
	}
	return all
}
