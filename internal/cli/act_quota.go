package cli

import (
	"context"
	"fmt"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/account"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/cli/preview"
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

// left returns what is left today of the daily quota of a task's zone, or nil if it is unknown.
func (q *quotaReader) left(ctx context.Context, task *v1alpha1.PrefetchTask) *int32 {
	if account := q.account(ctx, task); account != nil && !taskstate.IsEdgeMode(task) {
		for _, zone := range account.Status.Zones {
			if zone.ID == task.Spec.ZoneID {
				return zone.Left
			}
		}
	}
	return nil
}

// quotaUse is what the tasks of a command take of one quota.
type quotaUse struct {
	name string
	// sum has the URLs of all tasks whose number is known.
	sum        preview.Preview
	tasks      int
	hasUnknown bool
	left       *int32 // as the first account says that knows it
}

// announceQuotas says on standard error what all tasks together take of each quota.
func (e *environment) announceQuotas(ctx context.Context, quotas *quotaReader, targets []*actTarget) {
	var uses []*quotaUse
	byName := map[string]*quotaUse{}
	for _, t := range targets {
		if !t.isToChange() || t.preview.URLs == 0 {
			continue
		}
		name := "daily quota of zone " + t.task.Spec.ZoneID
		if taskstate.IsEdgeMode(t.task) {
			name = "Edge quota of zone " + t.task.Spec.ZoneID
		}
		use := byName[name]
		if use == nil {
			use = &quotaUse{name: name}
			byName[name], uses = use, append(uses, use)
		}
		use.add(t.preview)
		if use.left == nil {
			use.left = quotas.left(ctx, t.task)
		}
	}
	for _, use := range uses {
		_ = printLine(e.ErrOut, "%s", use.describe())
	}
}

// add adds a task. Tasks that have a URL in common may share a call, which takes it once.
func (u *quotaUse) add(p preview.Preview) {
	u.tasks++
	u.sum.IsAtMost = u.sum.IsAtMost || p.IsAtMost || u.tasks > 1
	if p.URLs == preview.Unknown {
		u.hasUnknown = true
		return
	}
	u.sum.URLs += p.URLs
}

func (u *quotaUse) describe() string {
	urls := countURLs(u.sum)
	switch {
	case u.hasUnknown && u.sum.URLs == 0:
		urls = "an unknown number of URLs"
	case u.hasUnknown:
		urls += " and an unknown number of others"
	}
	text := fmt.Sprintf("This takes %s from the %s", urls, u.name)
	if u.left != nil {
		text += fmt.Sprintf(", of which %d are left today", *u.left)
		if u.sum.URLs > int(*u.left) {
			text += "; the rest waits for new quota"
		}
	}
	return text
}
