package account

import (
	"context"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	accounts "github.com/prefetch-operator/teo-prefetch-operator/internal/account"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/teo"
)

// maxNamespaces is how many namespaces a status has.
const maxNamespaces = 100

// writeStatus writes the status of an account if it has changed. It returns the time until
// the status must be looked at again.
func (r *Reconciler) writeStatus(ctx context.Context, account *v1alpha1.EdgeOneAccount, s *accountState) time.Duration {
	now := time.Now()
	var answer *accounts.Answer
	if last, ok := r.Answers.LastAnswer(account.Name); ok {
		answer = &last
	}
	after := account.DeepCopy()
	v := s.judge(account, answer, now)
	wait := r.setConditions(after, s, v, now)
	isUrgent := !equality.Semantic.DeepEqual(account.Status, after.Status)
	r.setUsage(after, s.zones)
	if equality.Semantic.DeepEqual(account.Status, after.Status) {
		return min(wait, usageInterval)
	}
	if due := s.writtenAt.Add(usageInterval).Sub(now); !isUrgent && due > 0 {
		return min(wait, due)
	}
	if !r.updateStatus(ctx, after) {
		return writeRetry
	}
	r.reportChange(ctx, account, after, v.FullMessage())
	s.writtenAt = now
	return min(wait, usageInterval)
}

// updateStatus writes a status in the version of its account. It returns false if the status
// is not written.
func (r *Reconciler) updateStatus(ctx context.Context, account *v1alpha1.EdgeOneAccount) bool {
	ctx, cancel := context.WithTimeout(ctx, r.WriteTimeout)
	defer cancel()
	if err := r.Client.Status().Update(ctx, account); err != nil {
		if !apierrors.IsConflict(err) && !apierrors.IsNotFound(err) {
			log.FromContext(ctx).Info("Cannot write the status of an account; will try again", "account", account.Name, "error", err.Error())
		}
		return false
	}
	return true
}

// setConditions sets the conditions and what belongs to them. It returns the time until they
// change even though nothing happens.
func (r *Reconciler) setConditions(account *v1alpha1.EdgeOneAccount, s *accountState, v verdict, now time.Time) time.Duration {
	status := &account.Status
	status.ObservedGeneration = account.Generation
	switch {
	case s.keys.principal != "":
		status.Principal = s.keys.principal
	case !s.isCarried:
		status.Principal = ""
	}
	wait := usageInterval
	if !v.isKept {
		message := v.Message
		if ptr.Deref(account.Spec.Suspend, false) {
			message += ". spec.suspend is true: nothing is submitted"
		}
		setCondition(account, v1alpha1.ConditionReady, v.status, v.Reason, message)
		if wait = r.stalledAfter(account, s, now); v.NeedsUser && wait <= 0 {
			setCondition(account, v1alpha1.ConditionStalled, metav1.ConditionTrue, v.Reason, v.FullMessage())
		} else {
			meta.RemoveStatusCondition(&status.Conditions, v1alpha1.ConditionStalled)
		}
		if !v.NeedsUser || wait <= 0 {
			wait = usageInterval
		}
	}
	for i := range status.Conditions {
		status.Conditions[i].ObservedGeneration = account.Generation
	}
	return wait
}

// stalledAfter returns the time until an account that is not ready counts as stalled, as
// tasks do: after the second check.
func (r *Reconciler) stalledAfter(account *v1alpha1.EdgeOneAccount, s *accountState, now time.Time) time.Duration {
	since := meta.FindStatusCondition(account.Status.Conditions, v1alpha1.ConditionReady).LastTransitionTime.Time
	if s.changedAt.After(since) {
		since = s.changedAt
	}
	return since.Add(2 * r.RecheckInterval).Sub(now)
}

// setCondition sets a condition. It truncates the message.
func setCondition(account *v1alpha1.EdgeOneAccount, conditionType string, status metav1.ConditionStatus, reason, message string) {
	meta.SetStatusCondition(&account.Status.Conditions, metav1.Condition{
		Type: conditionType, Status: status, Reason: reason, ObservedGeneration: account.Generation,
		Message: taskstate.TruncateMessage(message, taskstate.MaxMessage),
	})
}

// setUsage sets what is used today, and the quotas of zones. A zone that was not read keeps
// the quota in the status until the day ends, and its size of a call.
func (r *Reconciler) setUsage(account *v1alpha1.EdgeOneAccount, reads map[string]zoneRead) {
	status := &account.Status
	day, total, namespaces, zones := r.Accounts.Usage.CountToday(account.Name)
	former := map[string]v1alpha1.AccountZoneStatus{}
	for _, zone := range status.Zones {
		if !status.DayStartTime.Time.Equal(day) {
			zone.Daily, zone.Left, zone.Purges = nil, nil, nil
		}
		former[zone.ID] = zone
	}
	status.DayStartTime = metav1.NewTime(day)
	status.Used, status.Left = count(total), nil
	if limit := account.Spec.Limits.DailyURLs; limit != nil {
		status.Left = count(int(*limit) - total)
	}
	status.Zones, status.Namespaces = nil, nil
	for _, id := range shownZones(account, zones) {
		zone := former[id]
		if read, ok := reads[id]; ok || id == allZones {
			zone = v1alpha1.AccountZoneStatus{Batch: *count(r.Batch)}
			if read.quota != nil {
				setQuotas(&zone, read.quota, account.Spec.Allow.Purge)
			}
		}
		zone.ID, zone.Used = id, count(zones[id])
		status.Zones = append(status.Zones, zone)
	}
	for _, name := range accounts.LargestNamespaces(namespaces, maxNamespaces) {
		if namespaces[name] > 0 {
			status.Namespaces = append(status.Namespaces, v1alpha1.AccountNamespaceStatus{Name: name, Used: count(namespaces[name])})
		}
	}
}

// setQuotas sets what EdgeOne says of a zone. Of purges, it sets the types that the account allows.
func setQuotas(zone *v1alpha1.AccountZoneStatus, quota *teo.ContentQuota, purges []v1alpha1.PurgeType) {
	zone.Daily, zone.Left = count(quota.Prefetch.Daily), count(quota.Prefetch.DailyAvailable)
	if quota.Prefetch.Batch > 0 {
		zone.Batch = *count(quota.Prefetch.Batch)
	}
	for _, purge := range purges {
		if of, isKnown := quota.Purge[taskstate.PurgeTypeNames[purge]]; isKnown {
			zone.Purges = append(zone.Purges, v1alpha1.AccountPurgeStatus{
				Type: purge, Daily: count(of.Daily), Batch: *count(of.Batch), Left: count(of.DailyAvailable),
			})
		}
	}
}

// count returns a number in the range of a count in a status.
func count(n int) *int32 { return ptr.To(int32(min(max(n, 0), 1<<31-1))) }

// reportChange sends an Event, and logs, if the credentials are accepted, or not any more, or
// for another reason than before. message says why, and what to do about it.
func (r *Reconciler) reportChange(ctx context.Context, before, after *v1alpha1.EdgeOneAccount, message string) {
	was := meta.FindStatusCondition(before.Status.Conditions, v1alpha1.ConditionReady)
	is := meta.FindStatusCondition(after.Status.Conditions, v1alpha1.ConditionReady)
	if is == nil || is.Status == metav1.ConditionUnknown || was != nil && was.Status == is.Status && was.Reason == is.Reason {
		return
	}
	eventType := corev1.EventTypeNormal
	if is.Status == metav1.ConditionFalse {
		eventType = corev1.EventTypeWarning
	}
	message = taskstate.TruncateMessage(message, taskstate.MaxMessage)
	log.FromContext(ctx).Info("The state of an account's credentials has changed", "account", after.Name, "reason", is.Reason, "message", message)
	r.Events.Eventf(after, nil, eventType, is.Reason, "VerifyCredentials", "%s", message)
}
