package cli

import (
	"context"
	"fmt"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/account"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
)

// quotaReader reads from EdgeOneAccounts what is left of quotas today. A user who may not read
// accounts sees no quota.
type quotaReader struct {
	client   client.Client
	now      time.Time
	accounts map[string]*v1alpha1.EdgeOneAccount // nil for those that cannot be read
}

func newQuotaReader(c client.Client, now time.Time) *quotaReader {
	return &quotaReader{client: c, now: now, accounts: map[string]*v1alpha1.EdgeOneAccount{}}
}

// account returns the EdgeOneAccount of a task as of today, or nil.
func (q *quotaReader) account(ctx context.Context, task *v1alpha1.PrefetchTask) *v1alpha1.EdgeOneAccount {
	key := taskstate.AccountKeyOf(task)
	if key.Secret != "" {
		return nil
	}
	name := key.Account
	if name == "" {
		name = v1alpha1.DefaultAccount
	}
	if known, isKnown := q.accounts[name]; isKnown {
		return known
	}
	read := &v1alpha1.EdgeOneAccount{}
	if q.client.Get(ctx, client.ObjectKey{Name: name}, read) == nil {
		q.accounts[name] = account.AdvanceDay(read, q.now)
	} else {
		q.accounts[name] = nil
	}
	return q.accounts[name]
}

// describe says which quota the URLs of a task take, and how much of it is left today.
func (q *quotaReader) describe(ctx context.Context, task *v1alpha1.PrefetchTask, a *action, urls int) string {
	if !a.needsAnswer || urls == 0 {
		return ""
	}
	if taskstate.IsEdgeMode(task) {
		return fmt.Sprintf(" (from the Edge quota of zone %s)", task.Spec.ZoneID)
	}
	text := "from the daily quota of zone " + task.Spec.ZoneID
	if account := q.account(ctx, task); account != nil {
		for _, zone := range account.Status.Zones {
			if zone.ID == task.Spec.ZoneID && zone.Left != nil {
				text += fmt.Sprintf(", of which %d are left today", *zone.Left)
				if urls > int(*zone.Left) {
					text += "; the rest waits for new quota"
				}
			}
		}
	}
	return " (" + text + ")"
}
