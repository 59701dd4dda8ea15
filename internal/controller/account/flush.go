package account

import (
	"context"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/kube"
)

// flushTimeout bounds the writes at the end. It is shorter than what remains of the
// manager's grace period after the last call.
const flushTimeout = 4 * time.Second

// flusher writes what is used of each account when the process stops, after its last call.
// The status may be as old as usageInterval, and what was used since is nowhere else if a
// task is deleted meanwhile.
type flusher struct{ *Reconciler }

// Start blocks until ctx is done and the last call has ended, and then writes the statuses.
func (f flusher) Start(ctx context.Context) error {
	<-ctx.Done()
	<-f.Critical.Done()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), flushTimeout)
	defer cancel()
	names := f.names()
	kube.WriteInParallel(len(names), func(i int) { f.flushUsage(ctx, names[i]) })
	return nil
}

// flushUsage writes what is used of an account, in its newest version.
func (r *Reconciler) flushUsage(ctx context.Context, name string) {
	account := r.Accounts.Account(name)
	const tries = 5
	for range tries {
		if account == nil {
			return // it is gone
		}
		after := account.DeepCopy()
		r.setUsage(after, nil)
		if equality.Semantic.DeepEqual(account.Status, after.Status) {
			return
		}
		err := r.Client.Status().Update(ctx, after)
		if err == nil || apierrors.IsNotFound(err) {
			return
		}
		uid := account.UID
		account = &v1alpha1.EdgeOneAccount{}
		if !apierrors.IsConflict(err) || r.Live.Get(ctx, client.ObjectKey{Name: name}, account) != nil || account.UID != uid {
			log.FromContext(ctx).Info("Cannot write what is used of an account", "account", name, "error", err.Error())
			return
		}
		if hasNewerUsage(&account.Status, &after.Status) {
			return
		}
	}
}

// hasNewerUsage says whether a status already contains what another one would write. Another
// process may have written it, if this one has lost its lease.
func hasNewerUsage(status, other *v1alpha1.EdgeOneAccountStatus) bool {
	if day := status.DayStartTime.Time; !day.Equal(other.DayStartTime.Time) {
		return day.After(other.DayStartTime.Time)
	}
	return ptr.Deref(status.Used, 0) >= ptr.Deref(other.Used, 0)
}
