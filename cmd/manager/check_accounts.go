package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/credentials"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/teo"
)

// clusterAccounts checks the EdgeOneAccounts of the cluster. If the API server cannot be
// reached, the check of the cluster has already reported it.
func (c *check) clusterAccounts(ctx context.Context) {
	config, err := ctrl.GetConfig()
	if err != nil || !c.accounts {
		return
	}
	config.Timeout = checkTimeout / 4
	scheme := runtime.NewScheme()
	if errors.Join(clientgoscheme.AddToScheme(scheme), v1alpha1.AddToScheme(scheme)) != nil {
		return
	}
	live, err := client.New(config, client.Options{Scheme: scheme})
	if err != nil {
		return
	}
	c.accountsAccepted(ctx, live)
}

// accountsAccepted checks the credentials of each EdgeOneAccount: it gets the keys as the
// manager does, and reads a quota with them.
func (c *check) accountsAccepted(ctx context.Context, live client.Reader) {
	var list v1alpha1.EdgeOneAccountList
	switch err := live.List(ctx, &list); {
	case apierrors.IsForbidden(err):
		c.unknown("The EdgeOneAccounts of the cluster: the operator may not list them.")
		return
	case meta.IsNoMatchError(err), apierrors.IsNotFound(err): // the CRD is missing
		return
	case err != nil:
		c.fail("Cannot list the EdgeOneAccounts: %v.", err)
		return
	}
	named := map[string]*v1alpha1.EdgeOneAccount{}
	for i := range list.Items {
		named[list.Items[i].Name] = &list.Items[i]
	}
	ctx, cancel := context.WithCancel(ctx) // ends the refreshes
	defer cancel()
	identity, err := c.accountIdentity(ctx)
	if err != nil {
		c.fail("%s.", upper(err.Error()))
		return
	}
	identity.Observe, identity.Forget = nil, nil
	edgeOne, err := c.edgeOne(nil)
	if err != nil {
		c.fail("%s.", upper(err.Error()))
		return
	}
	reader := &credentials.Reader{
		Live: live, MaxAge: checkTimeout, Identity: identity,
		Accounts: func(name string) *v1alpha1.EdgeOneAccount { return named[name] },
	}
	for i := range list.Items {
		if ctx.Err() != nil {
			c.unknown("%d of %d EdgeOneAccounts: the check takes no longer than %s.", len(list.Items)-i, len(list.Items), checkTimeout)
			return
		}
		c.accountAccepted(ctx, reader, edgeOne, &list.Items[i])
	}
}

// accountAccepted checks the credentials of an EdgeOneAccount.
func (c *check) accountAccepted(ctx context.Context, reader *credentials.Reader, edgeOne *teo.Client, account *v1alpha1.EdgeOneAccount) {
	creds, err := reader.GetCredentials(ctx, taskstate.AccountKey{Account: account.Name})
	if err != nil {
		fact, advice := credentials.Explain(err)
		text := strings.TrimSuffix(upper(fact), ".") + "."
		if advice != "" {
			text += " " + upper(advice) + "."
		}
		if account.Spec.Credentials.WebIdentity.RoleARN != "" && credentials.ReasonOf(err) == v1alpha1.ReasonRoleRefused {
			text += c.tokenText()
		}
		c.fail("%s", text)
		return
	}
	zone := unknownZone
	if len(account.Spec.Zones) > 0 {
		zone = account.Spec.Zones[0].ID
	}
	who := fmt.Sprintf("EdgeOneAccount %q: EdgeOne at %s", account.Name, c.endpoint)
	quota, err := edgeOne.DescribeContentQuota(ctx, creds, zone)
	switch {
	case zone == unknownZone && isKeyKnown(err):
		c.ok("%s knows the keys of %s. The account lists no zone whose quota could be read.", who, creds.PrincipalName())
	case errors.Is(err, teo.ErrNoPrefetchQuota):
		c.fail("%s accepts the keys of %s, but the plan of zone %s has no quota for prefetching URLs. Choose a plan that has one.", who, creds.PrincipalName(), zone)
	case err != nil:
		c.fail("%s does not accept a read of the quota of zone %s with the keys of %s: %s. %s", who, zone, creds.PrincipalName(),
			strings.TrimSuffix(teo.Message(err), "."), adviseOnAccount(account, err))
	default:
		c.ok("%s accepts the keys of %s: zone %s may prefetch %d URLs a day, of which %d are left today, and %d in a call.",
			who, creds.PrincipalName(), zone, quota.Prefetch.Daily, quota.Prefetch.DailyAvailable, quota.Prefetch.Batch)
		zoneCheck{c, edgeOne, creds, zone}.mayPurge(ctx, account.Spec.Allow.Purge, quota)
	}
}

// adviseOnAccount returns what a user can do about an error of EdgeOne.
func adviseOnAccount(account *v1alpha1.EdgeOneAccount, err error) string {
	spec := account.Spec.Credentials
	if spec.SecretRef.Name != "" && spec.AssumeRole.RoleARN == "" {
		return strings.ReplaceAll(advice(err), "the operator's Secret", fmt.Sprintf("Secret %q", spec.SecretRef.Name))
	}
	return adviseOnRole(err)
}
